"""A built folder is verified before anything of it is published."""

from __future__ import annotations

import hashlib
import subprocess
from pathlib import Path

import pytest

from hubsplice.checkpoint.manifest import BaseRecord
from hubsplice.errors import CheckpointError, FidelityError
from hubsplice.hub.built import BuiltFolder, LocalFile, open_built
from hubsplice.hub.plan import license_warnings
from tests.hub.conftest import TEXT, build_steered


def opened(
    folder: Path, *, require: float | None = None, allow_failed: bool = False
) -> BuiltFolder:
    return open_built(
        folder,
        require_fidelity=require,
        allow_failed=allow_failed,
        on_read=lambda done, total: None,
    )


def content(file: LocalFile) -> bytes:
    return file.source if isinstance(file.source, bytes) else file.source.read_bytes()


def test_every_file_has_the_checksums_that_git_and_large_storage_have(built: Path) -> None:
    files = opened(built).files("me/model", None)
    assert list(files) == sorted(
        path.relative_to(built).as_posix() for path in built.rglob("*") if path.is_file()
    )
    for file in files.values():
        data = content(file)
        assert (file.digest.sha256, file.digest.size) == (
            hashlib.sha256(data).hexdigest(),
            len(data),
        )
        git = subprocess.run(
            ["git", "hash-object", "--stdin"], input=data, capture_output=True, check=True
        )
        assert file.blob_id == git.stdout.decode().strip()


def test_the_card_bears_the_models_name_and_licence(built: Path) -> None:
    before = (built / "README.md").read_bytes()
    card = content(opened(built).files("me/model", None)["README.md"]).decode()
    assert "vllm serve me/model" in card
    assert "license: apache-2.0" in card
    card = content(opened(built).files("me/model", "mit")["README.md"]).decode()
    assert "license: mit" in card
    assert "Licence of the base: `apache-2.0`" in card
    assert (built / "README.md").read_bytes() == before


def test_a_licence_that_is_not_known_is_stated_with_an_option() -> None:
    local = BaseRecord(name="my-base", files={})
    (said,) = license_warnings(local, None)
    assert "the base is a local folder, 'my-base'" in said
    assert "state the licence with --license ID" in said
    (said,) = license_warnings(BaseRecord(name="a/b", repo_id="a/b", files={}), None)
    assert said.startswith("the base's card names no licence")
    (said,) = license_warnings(local, "mit")
    assert said == "licence: 'mit' is declared, and the base's is 'not known'"


def test_reading_is_reported_to_the_last_byte(built: Path) -> None:
    seen: list[tuple[int, int]] = []
    open_built(
        built,
        require_fidelity=None,
        allow_failed=False,
        on_read=lambda done, total: seen.append((done, total)),
    )
    assert seen == sorted(seen)
    assert seen[-1][0] == seen[-1][1] > 0


@pytest.mark.parametrize(
    "name", ["config.json", "fidelity.json", "reproduce/recipe.yaml", "model-00001"]
)
def test_an_altered_file_is_refused(built: Path, name: str) -> None:
    (altered,) = built.glob(f"{name}*")
    data = bytearray(altered.read_bytes())
    # One character of a text, or one bit of a weight, that stays readable.
    data[-2:] = b"\n}" if altered.suffix == ".json" else bytes([data[-2] ^ 1, data[-1]])
    altered.write_bytes(data)
    with pytest.raises(CheckpointError, match=r"altered after the build: sha256 [0-9a-f]{64}, exp"):
        opened(built)


def test_a_missing_file_is_refused(built: Path) -> None:
    (built / "generation_config.json").unlink()
    with pytest.raises(CheckpointError, match=r"generation_config.json: missing"):
        opened(built)


def test_a_file_of_somebody_else_is_neither_published_nor_passed_over(built: Path) -> None:
    (built / "reproduce/notes.txt").write_text("mine", encoding="utf-8")
    with pytest.raises(CheckpointError, match=r"notes.txt: the manifest does not list it"):
        opened(built)


def test_what_download_tools_leave_is_passed_over(built: Path) -> None:
    (built / ".cache").mkdir()
    (built / ".cache/model.lock").write_text("", encoding="utf-8")
    (built / ".gitattributes").write_text("", encoding="utf-8")
    names = opened(built).files("me/model", None)
    assert not [name for name in names if name.startswith(".")]


def test_what_hubsplice_did_not_build_is_refused(base: Path, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="the manifest is missing"):
        opened(base)
    with pytest.raises(CheckpointError, match="expected a recipe or a folder that hubsplice built"):
        opened(tmp_path / "missing")


def test_a_failed_build_is_published_only_when_told(base: Path, tmp_path: Path) -> None:
    failed = build_steered(base, tmp_path / "failed", failed=True).folder
    with pytest.raises(FidelityError, match=r"NOT met\. --allow-failed"):
        opened(failed)
    card = content(opened(failed, allow_failed=True).files("me/m", None)["README.md"]).decode()
    body = card.split("---\n", 2)[2].split("\n##")[0]
    assert "Warning: the measured fidelity is worse than the recipe asked for" in body


def test_a_requirement_of_the_command_line_holds_for_what_is_built_already(built: Path) -> None:
    opened(built, require=1e9)
    with pytest.raises(FidelityError, match="NOT met"):
        opened(built, require=1e-9)


def test_the_recipe_travels_along(base: Path, tmp_path: Path) -> None:
    more = TEXT + "publish: {repo_id: me/edited}\ntitle: A title\n"
    built = opened(build_steered(base, tmp_path / "built", more).folder)
    assert built.recipe is not None
    assert built.recipe.publish.repo_id == "me/edited"
    assert built.title == "A title"
