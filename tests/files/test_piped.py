from __future__ import annotations

import os
import threading
from contextlib import suppress
from pathlib import Path

import pytest

from hubsplice.errors import CheckpointError, RecipeError
from hubsplice.files import piped
from hubsplice.files.piped import is_pipe, read_named
from hubsplice.interface.recipes import load_recipe
from hubsplice.recipe.reading import recorded_recipe

RECIPE = b"base_model: ./base\nsplices:\n  - {after_layer: 1, edits: []}\n"


def _through_a_pipe(data: bytes) -> int:
    """The end of a pipe to read `data` from, as a shell opens it for `<(command)`."""
    reading, writing = os.pipe()

    def write() -> None:
        # The reader may be gone.
        with os.fdopen(writing, "wb", buffering=0) as file, suppress(BrokenPipeError):
            sent = 0
            while sent < len(data):
                sent += file.write(data[sent:])

    threading.Thread(target=write).start()
    return reading


def test_what_comes_through_a_pipe_is_read_to_its_end(tmp_path: Path) -> None:
    data = os.urandom(300_000)
    reading = _through_a_pipe(data)
    assert is_pipe(Path(f"/dev/fd/{reading}"))
    assert read_named(Path(f"/dev/fd/{reading}")) == data
    os.close(reading)
    (tmp_path / "plain").write_bytes(data)
    assert not is_pipe(tmp_path / "plain")
    assert read_named(tmp_path / "plain") == data


def test_too_much_through_a_pipe_is_refused() -> None:
    reading = _through_a_pipe(bytes(300_000))
    with pytest.raises(OSError, match="more than 1000 bytes came"):
        read_named(Path(f"/dev/fd/{reading}"), 1000)
    os.close(reading)


def test_a_pipe_that_nobody_writes_is_not_waited_for_for_ever(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(piped, "LONGEST_SILENCE", 0.05)
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(RecipeError, match=r"pipe: nothing came through this pipe for 0.05 seconds"):
        load_recipe(tmp_path / "pipe")


def test_a_recipe_through_a_pipe_has_paths_in_the_current_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "base").mkdir()
    reading = _through_a_pipe(RECIPE)
    assert load_recipe(f"/dev/fd/{reading}").base_model == str(tmp_path / "base")
    os.close(reading)


def test_a_pipe_in_a_model_is_no_recipe(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "recipe.yaml")
    with pytest.raises(CheckpointError, match="it is no plain file"):
        recorded_recipe(tmp_path / "recipe.yaml")
