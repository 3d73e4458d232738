"""Measuring a built folder again."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from hubsplice.building.measure import measure
from hubsplice.checkpoint.manifest import read_manifest
from hubsplice.errors import CheckpointError, FidelityError, RecipeError
from hubsplice.fidelity import effect
from hubsplice.fidelity import measure as measuring
from hubsplice.fidelity.report import read_report
from hubsplice.files.digest import digest_file
from hubsplice.pictures.drawing import PICTURES
from hubsplice.verifying.files import unexpected_files
from tests.building.conftest import Workshop, quiet
from tests.conftest import Command


@pytest.fixture
def folder(bfloat16_build: Path, tmp_path: Path) -> Path:
    """A copy that may be changed."""
    return shutil.copytree(bfloat16_build, tmp_path / "built")


def test_the_numbers_are_those_of_the_build(
    workshop: Workshop, bfloat16_build: Path, folder: Path
) -> None:
    report = measure(
        folder, base=str(workshop.bases["bfloat16"]), require_fidelity=None, progress=quiet
    )
    assert report == read_report(bfloat16_build)
    assert report.precisions[0].ratio is not None
    for name in ("fidelity.json", *PICTURES, "splice.json"):
        assert (folder / name).read_bytes() == (bfloat16_build / name).read_bytes()
    assert sorted(p.name for p in folder.iterdir()) == sorted(
        p.name for p in bfloat16_build.iterdir()
    )


def test_a_requirement_is_recorded_and_kept(
    workshop: Workshop, command: Command, folder: Path
) -> None:
    base = workshop.bases["bfloat16"]
    outcome = command("measure", folder, "--base", base, "--require-fidelity", "0.0001")
    assert outcome.code == 5
    assert "NOT met" in outcome.err
    for _ in range(2):
        report = read_report(folder)
        assert report is not None
        assert (report.passed, report.required_ratio) == (False, 0.0001)
        made = read_manifest(folder / "splice.json")
        assert made.fidelity["passed"] is False
        assert made.files["fidelity.json"] == digest_file(folder / "fidelity.json")
        assert "NOT met" in (folder / "README.md").read_text(encoding="utf-8")
        # Without a requirement of its own, a measurement does not forget the last one.
        with pytest.raises(FidelityError):
            measure(folder, base=str(base), require_fidelity=None, progress=quiet)
    outcome = command("measure", folder, "--base", base, "--require-fidelity", "50", "--json")
    assert outcome.code == 0
    assert json.loads(outcome.out)["passed"] is True
    assert "NOT met" not in (folder / "README.md").read_text(encoding="utf-8")


def test_another_base_is_refused(workshop: Workshop, folder: Path, tmp_path: Path) -> None:
    before = (folder / "fidelity.json").read_bytes()
    with pytest.raises(CheckpointError, match=r"has no model.*name its base with --base"):
        measure(folder, base=str(tmp_path), require_fidelity=None, progress=quiet)
    with pytest.raises(CheckpointError, match="is not the file that the model was made from"):
        measure(folder, base=str(workshop.bases["llama"]), require_fidelity=None, progress=quiet)
    assert (folder / "fidelity.json").read_bytes() == before


def test_the_picture_is_listed_shown_and_renewed(
    workshop: Workshop, bfloat16_build: Path, folder: Path
) -> None:
    picture = folder / "responses.png"
    listed = read_manifest(folder / "splice.json").files
    assert listed["responses.png"] == digest_file(picture)
    assert "](responses.png)\n" in (folder / "README.md").read_text(encoding="utf-8")
    assert not unexpected_files({path.name for path in folder.glob("*.*")}, listed)
    picture.write_text("another")
    measure(folder, base=str(workshop.bases["bfloat16"]), require_fidelity=None, progress=quiet)
    assert picture.read_bytes() == (bfloat16_build / "responses.png").read_bytes()
    # The one that measured before could not draw it.
    picture.unlink()
    manifest = json.loads((folder / "splice.json").read_text())
    del manifest["files"]["responses.png"]
    (folder / "splice.json").write_text(json.dumps(manifest))
    measure(folder, base=str(workshop.bases["bfloat16"]), require_fidelity=None, progress=quiet)
    assert read_manifest(folder / "splice.json").files == listed


def test_a_figure_that_cannot_be_made_loses_nothing_else(
    workshop: Workshop, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise NotImplementedError("this model has no cache")

    before = read_report(folder)
    assert before is not None
    monkeypatch.setattr(measuring, "greedy_tokens", fail)
    monkeypatch.setattr(effect, "sampled_tokens", fail)
    found = measure(
        folder, base=str(workshop.bases["bfloat16"]), require_fidelity=None, progress=quiet
    )
    assert (found.greedy, found.effect) == (None, None)
    reasons = (
        "what the edit does to text could not be made: this model has no cache",
        "the greedy comparison could not be made: this model has no cache",
    )
    assert set(found.warnings) == {*before.warnings, *reasons}
    assert found.precisions == before.precisions
    assert read_report(folder) == found


def test_a_local_base_must_be_named(folder: Path) -> None:
    with pytest.raises(
        RecipeError, match="'bfloat16'; say where it, or a copy of it, is with --base"
    ):
        measure(folder, base=None, require_fidelity=None, progress=quiet)


def test_a_folder_that_hubsplice_did_not_build(workshop: Workshop, command: Command) -> None:
    outcome = command("measure", workshop.bases["llama"])
    assert outcome.code == 4
    assert "the manifest is missing" in outcome.err
