from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from hubsplice import __version__
from hubsplice.cli import EXIT_CODES, app
from hubsplice.edits.registry import EDITS
from hubsplice.errors import HubspliceError
from tests.conftest import Command, Outcome

COMMANDS = (
    "init",
    "find",
    "try",
    "sweep",
    "check",
    "build",
    "measure",
    "evaluate",
    "verify",
    "inspect",
    "reproduce",
    "unsplice",
    "carrier",
    "merge",
    "diff",
    "serve",
    "card",
    "edits",
    "publish",
    "cache",
)
# pydantic is not among them: newer versions of typer import it themselves.
HEAVY = {"torch", "transformers", "sae_lens", "numpy", "huggingface_hub", "yaml"}
MAIN = [sys.executable, "-c", "from hubsplice.cli import main; main()"]


@pytest.mark.parametrize("command", [None, *COMMANDS])
def test_help_imports_nothing_heavy(command: str | None) -> None:
    arguments = ["--help"] if command is None else [command, "--help"]
    result = subprocess.run(
        [*MAIN[:1], "-X", "importtime", *MAIN[1:], *arguments],
        capture_output=True,
        text=True,
        check=True,
    )
    imported = {name.split(".")[0] for name in re.findall(r"\|\s*([\w.]+)$", result.stderr, re.M)}
    assert "typer" in imported
    assert not imported & HEAVY
    assert "Usage" in result.stdout


def test_help_lists_the_commands_and_every_exit_code(command: Command) -> None:
    outcome = command("--help")
    assert outcome.code == 0
    assert all(re.search(rf"^\s+{command}\b", outcome.out, re.M) for command in COMMANDS)
    assert {command.name for command in app.registered_commands} == set(COMMANDS)
    # None is cut off on a terminal of usual width.
    assert not [line for line in outcome.out.splitlines() if re.search(r"^  \w+ .*\.\.\.$", line)]
    for code, meaning in EXIT_CODES.items():
        assert re.search(rf"^\s+{code}\s+{re.escape(meaning)}$", outcome.out, re.M)


def test_every_error_has_a_documented_exit_code() -> None:
    errors: list[type[HubspliceError]] = [HubspliceError]
    for error in errors:
        errors += error.__subclasses__()
    assert {error.exit_code for error in errors} | {0, 130} == set(EXIT_CODES)


def test_version(command: Command) -> None:
    assert command("--version") == Outcome(0, f"hubsplice {__version__}\n", "")


@pytest.mark.parametrize(
    "arguments", [["frobnicate"], ["check"], ["build", "recipe.yaml"], ["edits", "--jsno"]]
)
def test_a_wrong_command_line_is_exit_code_2(command: Command, arguments: list[str]) -> None:
    outcome = command(*arguments)
    assert outcome.code == 2
    assert outcome.out == ""
    assert "Error" in outcome.err


def test_init_writes_a_recipe_that_check_reads(command: Command, tmp_path: Path) -> None:
    outcome = command("init")
    assert (outcome.code, outcome.out) == (0, "")
    assert "hubsplice check recipe.yaml" in outcome.err
    assert "splices:" in (tmp_path / "recipe.yaml").read_text(encoding="utf-8")


def test_init_overwrites_only_when_told(command: Command, tmp_path: Path) -> None:
    mine = tmp_path / "mine.yaml"
    mine.write_text("precious", encoding="utf-8")
    outcome = command("init", "mine.yaml")
    assert outcome.code == 6
    assert outcome.err == "error: mine.yaml: exists already; --force overwrites it\n"
    assert mine.read_text(encoding="utf-8") == "precious"
    assert command("init", "mine.yaml", "--force").code == 0
    assert "splices:" in mine.read_text(encoding="utf-8")


def test_init_into_a_missing_folder_is_an_output_error(command: Command) -> None:
    outcome = command("init", "missing/recipe.yaml")
    assert outcome.code == 6
    assert outcome.err.startswith("error: missing/recipe.yaml: cannot be written")


def test_a_wrong_recipe_is_one_message_on_stderr(command: Command, tmp_path: Path) -> None:
    (tmp_path / "recipe.yaml").write_text(
        "base_model: x\nsplices:\n  - {after_layer: 1, colour: '[red]'}\n", encoding="utf-8"
    )
    for arguments in (["check"], ["check", "--json"], ["build", "--output", "out"]):
        outcome = command(*arguments, "recipe.yaml")
        assert outcome.code == 2
        assert outcome.out == ""
        assert outcome.err == (
            "error: splices[0].colour: no such field. "
            "Known: after_attention, after_layer, construction, edits, sae, sink_multiple, sinks.\n"
        )
    assert not (tmp_path / "out").exists()


def test_edits_lists_every_kind_with_its_formula(command: Command) -> None:
    table = command("edits")
    listed = json.loads(command("edits", "--json").out)
    assert table.code == 0
    assert {edit["kind"]: edit["formula"] for edit in listed} == {
        kind: edit.formula for kind, edit in EDITS.items()
    }
    for edit in listed:
        assert edit["kind"] in table.out
        assert edit["formula"] in table.out
