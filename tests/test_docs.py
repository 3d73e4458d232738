"""The pages, the README and the code say the same."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from docs.generate import (
    EDIT_EXAMPLES,
    RECIPE_EXAMPLE,
    families_page,
    layout_page,
    page_text,
    pages,
    pipeline,
)
from hubsplice.cli import app
from hubsplice.edits.registry import EDITS
from hubsplice.families.registry import FAMILIES
from hubsplice.recipe.reading import parse_recipe

CHECKOUT = Path(__file__).parent.parent
QUIRKS = (CHECKOUT / "docs/quirks.md").read_text(encoding="utf-8")


def row(text: str, name: str) -> list[str]:
    """The entries of a table's row, which semicolons part."""
    (line,) = (line for line in text.splitlines() if line.startswith(f"| {name} |"))
    return line.removeprefix(f"| {name} |").removesuffix("|").strip().split("; ")


def test_the_page_of_limits_names_every_family() -> None:
    page = (CHECKOUT / "docs/limits.md").read_text(encoding="utf-8")
    titles = [family.title for _, family in FAMILIES.items()]
    assert sorted(row(page, "models")) == sorted(titles)


@pytest.mark.parametrize(
    "page", ["README.md", "docs/tutorial.md", "docs/gemma-scope.md", "docs/faq.md"]
)
def test_pages_for_newcomers_name_commands_and_files_that_are_there(page: str) -> None:
    text = (CHECKOUT / page).read_text(encoding="utf-8")
    commands = {command.name for command in app.registered_commands}
    blocks = "\n".join(re.findall(r"^```sh\n(.*?)^```", text, re.MULTILINE | re.DOTALL))
    named = set(re.findall(r"^hubsplice (\w+)", blocks, re.MULTILINE))
    assert named
    assert named <= commands
    if page == "README.md":
        for link in re.findall(r"\]\(([^)#]+)\)", text):
            assert (CHECKOUT / link).exists(), link


def test_the_examples_of_recipes_are_recipes() -> None:
    parse_recipe(RECIPE_EXAMPLE, folder=CHECKOUT)
    assert set(EDIT_EXAMPLES) == {kind for kind, _ in EDITS.items()}
    for kind, text in EDIT_EXAMPLES.items():
        recipe = parse_recipe(
            "base_model: me/model\nsplices: [{after_layer: 1, sae: {path: ./sae}, edits: ["
            f"{text}]}}]",
            folder=CHECKOUT,
        )
        assert recipe.splices[0].edits[0].kind == kind


@pytest.mark.parametrize("name", sorted(pages()))
def test_generated_pages_are_what_the_code_says(name: str) -> None:
    committed = (CHECKOUT / "docs" / name).read_text(encoding="utf-8")
    made = page_text(name)
    if name == "cli.md":
        # Versions of typer and of rich fold the same words otherwise.
        committed, made = (" ".join(sorted(re.findall(r"\w+", t))) for t in (committed, made))
    assert made == committed, "run `make schema`"


def test_links_between_pages_work_in_a_clone() -> None:
    for path in (CHECKOUT / "docs").glob("*.md"):
        text = re.sub(r"```.*?```", "", path.read_text(encoding="utf-8"), flags=re.DOTALL)
        for link in re.findall(r"\]\((?!https?:|#|mailto:)([^)#\s]+)", text):
            assert (path.parent / link).exists(), f"{path.name}: {link}"


def test_the_recipe_for_gemma_scope_is_one() -> None:
    text = (CHECKOUT / "docs/gemma-scope.md").read_text(encoding="utf-8")
    (recipe,) = re.findall(r"^```yaml\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    found = parse_recipe(recipe, folder=CHECKOUT)
    assert found.splices[0].sae is not None
    assert found.fidelity.require == 1.05


def test_the_page_of_families_has_every_family_once() -> None:
    page = families_page()
    for model_type, family in FAMILIES.items():
        assert page.count(f"| {family.title} | `{model_type}` |") == 1


def test_the_layout_has_every_package_in_the_order_of_the_pipeline() -> None:
    packages = {path.parent.name for path in (CHECKOUT / "hubsplice").glob("*/__init__.py")}
    order = pipeline()
    assert packages <= {*order}
    assert order.index("recipe") < order.index("compiling") < order.index("cli")
    headings = re.findall(r"^## hubsplice/(\w+)", layout_page(), re.MULTILINE)
    assert headings == order


def test_every_quirk_says_what_catches_it() -> None:
    sections = re.split(r"^### ", QUIRKS, flags=re.MULTILINE)[1:]
    assert len(sections) > 20
    for section in sections:
        assert "**Caught by**" in section or "**Nothing catches" in section, section[:60]


@pytest.mark.parametrize("reference", sorted(set(re.findall(r"`(tests/[^`]+)`", QUIRKS))))
def test_the_tests_that_catch_quirks_exist(reference: str) -> None:
    path, _, name = reference.partition("::")
    text = (CHECKOUT / path).read_text(encoding="utf-8")
    assert not name or f"def {name}(" in text


def test_the_commands_that_catch_quirks_exist() -> None:
    commands = {
        command.callback.__name__ for command in app.registered_commands if command.callback
    }
    named = set(re.findall(r"`hubsplice (\w+)", QUIRKS))
    assert named
    assert named <= commands
