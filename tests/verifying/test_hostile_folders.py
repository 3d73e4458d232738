"""Folders that were filled to harm whoever runs a command on them."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from hubsplice.building.measure import measure
from hubsplice.files import staging
from hubsplice.verifying import Run, verify
from hubsplice.verifying.engines import Request, ServedBy
from hubsplice.verifying.transcript import Transcript
from tests.building.conftest import quiet
from tests.conftest import Command
from tests.verifying.conftest import Spliced

COMMANDS = (
    ("card",),
    ("measure",),
    ("evaluate",),
    ("verify",),
    ("publish", "--repo", "somebody/model", "--dry-run"),
    ("serve",),
)


class NothingIsToBeLoaded:
    """An engine that must not be asked."""

    name = "nobody"

    def run(
        self, request: Request, progress: Callable[[int, int], None]
    ) -> tuple[list[Transcript], ServedBy]:
        raise AssertionError(f"{request.folder} was loaded")


@pytest.mark.parametrize("kind", ["pipe", "device", "large"])
@pytest.mark.parametrize("words", COMMANDS, ids=lambda words: words[0])
def test_a_manifest_that_never_ends_is_not_waited_for(
    command: Command, tmp_path: Path, words: tuple[str, ...], kind: str
) -> None:
    folder, name = tmp_path / "model", tmp_path / "model" / "splice.json"
    folder.mkdir()
    match kind:
        case "pipe":
            os.mkfifo(name)
        case "device":
            name.symlink_to("/dev/zero")
        case _:
            with name.open("wb") as file:
                file.truncate(10_000_000_000)
    outcome = command(words[0], folder, *words[1:])
    assert outcome.code in (2, 4), outcome
    assert "Traceback" not in outcome.err


@pytest.mark.parametrize("name", ["README.md", ".README.md.partial"])
def test_the_card_overwrites_nothing_that_a_link_leads_to(
    spliced: Spliced, command: Command, tmp_path: Path, name: str
) -> None:
    (tmp_path / "precious").write_text("precious")
    (spliced.folder / name).unlink(missing_ok=True)
    (spliced.folder / name).symlink_to("../precious")
    assert command("card", spliced.folder).code == 0
    assert (tmp_path / "precious").read_text() == "precious"
    assert not (spliced.folder / "README.md").is_symlink()
    assert (spliced.folder / "README.md").read_text(encoding="utf-8").startswith("---")


def test_measuring_overwrites_nothing_and_leaves_nothing_that_a_killed_run_left(
    spliced: Spliced, tmp_path: Path
) -> None:
    precious = tmp_path / "precious"
    precious.write_text("precious")
    with staging.scratch_directory(spliced.folder, "measured") as scratch:
        killed = scratch.parent.name
    # What a run that was killed between two renames leaves, and what was never of a run.
    (spliced.folder / killed / "content").mkdir(parents=True)
    (spliced.folder / ".measured.partial-00000000").mkdir()
    (spliced.folder / ".measured.partial-00000000" / "lock").symlink_to("../../made")
    for name in ("responses.png", "README.md"):
        (spliced.folder / name).unlink()
        (spliced.folder / name).symlink_to("../precious")
    measure(spliced.folder, base=str(spliced.base), require_fidelity=None, progress=quiet)
    assert precious.read_text() == "precious"
    assert not (tmp_path / "made").exists()
    assert not (spliced.folder / killed).exists()
    assert not any(path.is_symlink() for path in spliced.folder.iterdir())


def test_an_engine_is_given_nothing_whose_configuration_is_not_a_splices(
    spliced: Spliced,
) -> None:
    run = Run(NothingIsToBeLoaded())
    for keys in ({"_attn_implementation": "evil/kernel"}, {"harmless": 1}):
        spliced.write_json("config.json", spliced.json("config.json") | keys)
        spliced.forge_checksums()
        found = verify(
            str(spliced.folder), base=str(spliced.base), revision=None, progress=quiet, run=run
        )
        assert not found.passed
        assert found.behaviour is None
        assert any(c.name == "config" and c.passed is False for c in found.checks)
