"""Publishing to a local folder."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from hubsplice.build import BuildResult, build
from hubsplice.checkpoint.manifest import read_manifest
from hubsplice.cli import main
from hubsplice.errors import CheckpointError, FidelityError, OutputError
from hubsplice.hub import plan_publication, publish_to_folder
from hubsplice.recipe import parse_recipe

TEXT = """
calibration: {tokens: 256, sequence_length: 64}
fidelity: {tokens: 256, sequence_length: 64}
"""


def build_empty(base: Path, output: Path, more: str = TEXT, *, failed: bool = False) -> BuildResult:
    """An empty splice; `failed` holds it to a requirement that nothing meets."""
    recipe = f"base_model: {base}\nsplices: [{{after_layer: 1}}]\n{more}"
    return build(
        parse_recipe(recipe, folder=base),
        output=output,
        require_fidelity=1e-9 if failed else None,
        measure=True,
        hard_link=False,
        progress=lambda _step, _done, _total: None,
        allow_failed=failed,
    )


@pytest.fixture(scope="module")
def base(shared_tiny_llama: Callable[..., Path]) -> Path:
    return shared_tiny_llama(dtype="bfloat16", name="of-hub-tests")


@pytest.fixture(scope="module")
def original(base: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_empty(base, tmp_path_factory.mktemp("builds") / "original").folder


@pytest.fixture
def built(original: Path, tmp_path: Path) -> Path:
    """A built folder that may be changed."""
    return shutil.copytree(original, tmp_path / "built")


@pytest.fixture
def run(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[..., tuple[int, str, str]]:
    monkeypatch.setenv("COLUMNS", "200")

    def invoke(*arguments: str | Path) -> tuple[int, str, str]:
        capsys.readouterr()
        monkeypatch.setattr(sys, "argv", ["hubsplice", "publish", *map(str, arguments)])
        with pytest.raises(SystemExit) as stop:
            main()
        assert isinstance(stop.value.code, int)
        return (stop.value.code, *capsys.readouterr())

    return invoke


Run = Callable[..., tuple[int, str, str]]


def files(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }


def test_everything_but_the_card_is_copied(built: Path, tmp_path: Path) -> None:
    target = tmp_path / "new/my-model"
    assert publish_to_folder(built, target) == target
    before, after = files(built), files(target)
    card = after.pop("README.md").decode()
    assert before.pop("README.md").decode() != card
    assert after == before
    assert "my-model" in card
    assert "original" not in card
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["my-model"]


def test_the_source_stays_as_it_is(built: Path, tmp_path: Path) -> None:
    before = files(built)
    target = publish_to_folder(built, tmp_path / "target")
    (target / "config.json").write_text("changed", encoding="utf-8")
    assert files(built) == before


@pytest.mark.parametrize(
    "name", ["config.json", "fidelity.json", "reproduce/recipe.yaml", "model-00001-of-00002"]
)
def test_an_altered_file_is_refused(built: Path, tmp_path: Path, name: str) -> None:
    (altered,) = built.glob(f"{name}*")
    data = bytearray(altered.read_bytes())
    # One character of a text, or one bit of a weight, that stays readable.
    data[-2:] = b"\n}" if altered.suffix == ".json" else bytes([data[-2] ^ 1, data[-1]])
    altered.write_bytes(data)
    with pytest.raises(CheckpointError, match=r"altered after the build: sha256 [0-9a-f]{64}, exp"):
        publish_to_folder(built, tmp_path / "new/target")
    assert not (tmp_path / "new").exists()


def test_a_missing_file_is_refused(built: Path, tmp_path: Path) -> None:
    (built / "generation_config.json").unlink()
    with pytest.raises(CheckpointError, match=r"generation_config.json: missing"):
        publish_to_folder(built, tmp_path / "target")
    assert not (tmp_path / "target").exists()


def test_a_file_of_somebody_else_is_neither_published_nor_passed_over(
    built: Path, tmp_path: Path
) -> None:
    (built / "reproduce/notes.txt").write_text("mine", encoding="utf-8")
    with pytest.raises(CheckpointError, match=r"notes.txt: the manifest does not list it"):
        publish_to_folder(built, tmp_path / "target")


def test_what_download_tools_leave_is_passed_over(built: Path, tmp_path: Path) -> None:
    (built / ".cache").mkdir()
    (built / ".cache/model.lock").write_text("", encoding="utf-8")
    (built / ".gitattributes").write_text("", encoding="utf-8")
    target = publish_to_folder(built, tmp_path / "target")
    assert not [name for name in files(target) if name.startswith(".")]


def test_a_download_of_links_becomes_files(built: Path, tmp_path: Path) -> None:
    linked = tmp_path / "linked"
    for name in files(built):
        (linked / name).parent.mkdir(parents=True, exist_ok=True)
        (linked / name).symlink_to(built / name)
    target = publish_to_folder(linked, tmp_path / "target")
    assert not [path for path in target.rglob("*") if path.is_symlink()]
    assert files(target).keys() == files(built).keys()


def test_a_target_in_use_is_refused(built: Path, tmp_path: Path) -> None:
    target = tmp_path / "target"
    target.mkdir()
    (target / "mine").write_text("precious", encoding="utf-8")
    for publish in (publish_to_folder, plan_publication):
        with pytest.raises(OutputError, match="such as 'mine'"):
            publish(built, target)
    assert files(target) == {"mine": b"precious"}


def test_a_target_within_the_folder_is_refused(built: Path) -> None:
    before = files(built)
    with pytest.raises(OutputError, match="expected a folder outside of"):
        publish_to_folder(built, built / "published")
    assert files(built) == before


def test_a_failed_build_is_published_only_when_told(base: Path, tmp_path: Path) -> None:
    failed = build_empty(base, tmp_path / "failed", failed=True).folder
    with pytest.raises(FidelityError, match=r"NOT met\. --allow-failed"):
        publish_to_folder(failed, tmp_path / "target")
    assert not (tmp_path / "target").exists()
    target = publish_to_folder(failed, tmp_path / "target", allow_failed=True)
    assert "NOT met" in (target / "README.md").read_text(encoding="utf-8")


def test_the_card_is_called_after_the_repository_that_the_recipe_names(
    base: Path, tmp_path: Path
) -> None:
    built = build_empty(base, tmp_path / "built", TEXT + "publish: {repo_id: me/edited}\n").folder
    target = publish_to_folder(built, tmp_path / "target")
    assert "me/edited" in (target / "README.md").read_text(encoding="utf-8")


def test_a_dry_run_says_what_would_be_written(run: Run, built: Path, tmp_path: Path) -> None:
    target = tmp_path / "new/target"
    code, out, _ = run(built, "--to", target, "--dry-run", "--json")
    assert code == 0
    table = run(built, "--to", target, "--dry-run")
    assert table[0] == 0
    assert not (tmp_path / "new").exists()
    planned = json.loads(out)
    assert run(built, "--to", target)[:2] == (0, f"{target}\n")
    written = {name: len(data) for name, data in files(target).items()}
    assert planned["files"] == written
    assert planned["bytes"] == sum(written.values())
    assert all(name in table[1] for name in written)
    assert f"{sum(written.values()):,}" in table[1]


def test_a_recipe_is_built_first(run: Run, base: Path, tmp_path: Path) -> None:
    recipe = tmp_path / "recipe.yaml"
    text = f"base_model: {base}\nsplices: [{{after_layer: 1}}]\n{TEXT}"
    recipe.write_text(text, encoding="utf-8")
    code, out, _ = run(recipe, "--to", tmp_path / "target", "--json")
    assert code == 0
    assert json.loads(out) == {"folder": str(tmp_path / "target")}
    assert len(read_manifest(tmp_path / "target/splice.json").layers) == 1

    recipe.write_text(text.replace("fidelity: {", "fidelity: {require: 0.0001, "), encoding="utf-8")
    assert run(recipe, "--to", tmp_path / "other")[0] == 5
    assert not (tmp_path / "other").exists()
    assert run(recipe, "--to", tmp_path / "other", "--allow-failed")[0] == 0
    assert (tmp_path / "other/splice.json").exists()


def test_a_dry_run_of_a_recipe_is_refused(run: Run, tmp_path: Path) -> None:
    (tmp_path / "recipe.yaml").write_text("", encoding="utf-8")
    code, out, err = run(tmp_path / "recipe.yaml", "--to", tmp_path / "target", "--dry-run")
    assert (code, out) == (2, "")
    assert "hubsplice check" in err


@pytest.mark.parametrize("source", ["missing", "base"])
def test_what_hubsplice_did_not_build_is_refused(
    run: Run, base: Path, tmp_path: Path, source: str
) -> None:
    code, _, err = run(base if source == "base" else tmp_path / source, "--to", tmp_path / "target")
    assert code == 4
    assert "the manifest is missing" in err
    assert not (tmp_path / "target").exists()
