"""What a careless or hostile user gives the commands that open a built model, from a shell.

Every case ends in one message that names the cause, and in its exit code; none in a traceback.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.conftest import Command
from tests.rebuilding.conftest import Published

MODEL_COMMANDS = ("inspect", "verify", "reproduce", "unsplice", "measure", "evaluate", "card")
SHARD = "model-00002-of-00002.safetensors"


def _recipe(folder: Path, name: str = "recipe.yaml") -> Path:
    path = folder / name
    path.write_text("base_model: x\nsplices:\n  - {after_layer: 1, edits: []}\n", encoding="utf-8")
    return path


def _output(name: str) -> list[str]:
    return ["--output", "given-back"] if name == "unsplice" else []


@pytest.mark.parametrize("name", MODEL_COMMANDS)
def test_what_is_no_built_folder_is_said_to_be_none(
    command: Command, original: Published, tmp_path: Path, name: str
) -> None:
    _recipe(tmp_path)
    cases = {
        str(original.base): "splice.json: the manifest is missing; expected a folder that `hubs",
        "./nowhere": "there is no such folder",
        "recipe.yaml": "it is a file, expected a folder",
        "a" * 300: None,
    }
    for model, message in cases.items():
        outcome = command(name, model, *_output(name))
        assert outcome.code in (2, 4), outcome
        assert outcome.err.startswith("error: ")
        assert outcome.err.count("\n") == 1
        assert message is None or message in outcome.err
    assert not (tmp_path / "given-back").exists()


@pytest.mark.parametrize(
    "arguments", [["inspect", ""], ["diff", "x", ""], ["verify", "x", "--base="], ["check", ""]]
)
def test_an_empty_argument_is_not_the_current_folder(
    command: Command, arguments: list[str]
) -> None:
    outcome = command(*arguments)
    assert outcome.code == 2
    assert outcome.err == "error: an argument is empty; is a variable of the shell not set?\n"


def test_diff_says_which_of_two_is_what(
    command: Command, original: Published, tmp_path: Path
) -> None:
    recipe = _recipe(tmp_path)
    (tmp_path / "empty.yaml").touch()
    model = str(original.folder)
    for a, b, message in (
        ("recipe.yaml", model, f"recipe.yaml is a recipe, and {model} is a folder"),
        (model, "recipe.yaml", f"recipe.yaml is a recipe, and {model} is a folder"),
        ("recipe.yaml", "other.yaml", "other.yaml: there is no such file"),
        ("recipe.yaml", "empty.yaml", "empty.yaml: a recipe is a mapping"),
        ("recipe.yaml", "a" * 300, "there is no such file"),
        ("/dev/zero", "recipe.yaml", "/dev/zero: it is neither a file nor a folder"),
        (str(recipe), "a\0b", "there is no such file"),
    ):
        outcome = command("diff", a, b)
        assert (outcome.code, outcome.out) == (2, ""), outcome
        assert message in outcome.err


def _truncate(path: Path) -> None:
    os.truncate(path, path.stat().st_size - 100)


def _empty(path: Path) -> None:
    os.truncate(path, 0)


def _replace_by_folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


def _replace_by_pipe(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


@pytest.mark.parametrize("damage", [_truncate, _empty, _replace_by_folder, _replace_by_pipe])
def test_a_damaged_shard_is_named_before_anything_long_begins(
    command: Command,
    original: Published,
    published: Published,
    damage: Callable[[Path], None],
) -> None:
    damage(published.folder / SHARD)
    model, other = str(published.folder), str(original.folder)
    where = ["--base", str(published.base), "--source", str(published.sources)]
    for arguments in (
        ["inspect", model],
        ["unsplice", model, "--output", "given-back"],
        ["reproduce", model, *where],
        ["diff", model, other],
        ["diff", other, model],
        ["measure", model, "--base", str(published.base)],
    ):
        # The base's own data is whole, and so is what unsplice gives back.
        whole = arguments[0] == "unsplice"
        outcome = command(*arguments)
        assert outcome.code == (0 if whole else 4), outcome
        assert whole or f"{published.folder / SHARD}: " in outcome.err
        assert "calibrating" not in outcome.err


def test_a_recipe_in_a_model_is_named_where_it_is_damaged(
    command: Command, published: Published
) -> None:
    recipe = published.folder / "reproduce" / "recipe.yaml"
    where = ["--base", str(published.base), "--source", str(published.sources)]
    for damage in (_empty, _replace_by_pipe):
        damage(recipe)
        for arguments in (["reproduce", *where], ["card"], ["measure"], ["publish"]):
            outcome = command(arguments[0], str(published.folder), *arguments[1:])
            assert outcome.code == 4, outcome
            assert f"{recipe}: " in outcome.err
    assert "not compared" in command("diff", published.folder, published.folder).out


def test_a_missing_record_of_the_environment_is_a_difference(
    command: Command, original: Published, published: Published
) -> None:
    (published.folder / "reproduce" / "environment.json").unlink()
    outcome = command("diff", original.folder, published.folder)
    assert outcome.code == 0
    assert "environment" in outcome.out
    assert "not compared" in outcome.out


def test_nothing_is_written_into_a_model_or_over_anything(
    command: Command, original: Published, tmp_path: Path
) -> None:
    _recipe(tmp_path)
    before = sorted(original.folder.rglob("*"))
    where = ["--base", str(original.base), "--source", str(original.sources)]
    for output, message in (
        (str(original.folder), "expected a new folder or an empty one"),
        (f"{original.folder}/inside", "which holds a model"),
        (f"{original.folder}/reproduce/inside", "which holds a model"),
        (str(original.base), "expected a new folder or an empty one"),
        ("recipe.yaml", "expected a new folder or an empty one, found a file"),
        ("recipe.yaml/inside", "cannot be written"),
        ("/proc/inside", "cannot be written"),
        ("a" * 300, "cannot be written"),
    ):
        for arguments in (["unsplice", original.folder], ["reproduce", original.folder, *where]):
            outcome = command(*arguments, "--output", output)
            assert outcome.code == 6, outcome
            assert message in outcome.err
            assert "calibrating" not in outcome.err
    assert sorted(original.folder.rglob("*")) == before


def test_a_source_that_is_not_there_is_said_to_be_missing(
    command: Command, original: Published
) -> None:
    for source, message in (
        ("nowhere", "--source: nowhere: there is no such file or folder"),
        ("a" * 300, "there is no such file or folder"),
        ("/dev/zero", "--source: /dev/zero: it is neither a file nor a folder"),
    ):
        outcome = command("reproduce", original.folder, "--base", original.base, "--source", source)
        assert outcome.code == 2, outcome
        assert message in outcome.err


@pytest.mark.parametrize("ratio", ["nan", "inf", "1e999", "-1", "abc"])
def test_a_fidelity_that_is_no_number_is_refused_at_once(
    command: Command, original: Published, tmp_path: Path, ratio: str
) -> None:
    _recipe(tmp_path)
    for arguments in (
        ["measure", original.folder, "--base", original.base],
        ["build", "recipe.yaml", "--output", "out"],
        ["publish", "recipe.yaml"],
    ):
        outcome = command(*arguments, "--require-fidelity", ratio)
        assert outcome.code == 2, outcome
        assert "measuring" not in outcome.err
    assert not (tmp_path / "out").exists()


def test_names_with_control_characters_are_shown_and_not_obeyed(
    command: Command, original: Published, tmp_path: Path
) -> None:
    name = "\x1b[31mred\u202e"
    shutil.copytree(original.folder, tmp_path / name)
    for arguments in (
        ["inspect", name],
        ["inspect", f"{name}/"],
        ["diff", name, original.folder],
        ["diff", name, f"{name}-not"],
        ["unsplice", name, "--output", f"{name}-base"],
        ["unsplice", name, "--output", f"{name}-base"],
        ["reproduce", name, "--base", f"./{name}-not"],
    ):
        outcome = command(*arguments)
        assert outcome.code in (0, 2, 4, 6, 7), outcome
        assert "\x1b" not in outcome.out + outcome.err
        assert "\u202e" not in outcome.out + outcome.err
