"""Streams that outgrow memory: the same bits in files, of which nothing is left."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor

from hubsplice.errors import OutputError
from hubsplice.fidelity.runs import Run, Variant, run_variants
from hubsplice.intervention.intervention import Intervention
from hubsplice.intervention.piecewise_linear import PiecewiseLinear
from hubsplice.intervention.place import Place
from hubsplice.intervention.site import Site, Term
from hubsplice.streams import aside as aside_module
from hubsplice.streams import model as model_module
from hubsplice.streams.aside import Aside
from hubsplice.streams.calibration import stream_at
from hubsplice.streams.kept import FOLDER
from hubsplice.streams.model import loaded
from tests.families.logits import same_bits

Make = Callable[..., Path]

IDS = torch.randint(3, 259, (5, 16), generator=torch.Generator().manual_seed(0))
PLACES = (Place(1), Place(2))


def edit() -> Intervention:
    encoder, direction = torch.randn(2, 64, generator=torch.Generator().manual_seed(1))
    function = PiecewiseLinear.jump_relu(0.1).scaled(2.0)
    return Intervention((Site(1, (Term("t", encoder, 0.1, function, direction),)),))


def quiet(*_: object) -> None:
    """Nobody watches."""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of kept work, batches of two sequences, and no memory."""
    path = tmp_path / "kept"
    monkeypatch.setenv(FOLDER, str(path))
    monkeypatch.setattr(aside_module, "free_main_memory", lambda: 0)
    monkeypatch.setattr(model_module, "_TOKENS_PER_BATCH", {"cpu": 32})
    return path


def passed(base: Path) -> tuple[tuple[Run, ...], dict[Place, Tensor]]:
    with loaded(base, torch.float32) as model:
        variants = [Variant(), Variant(edit(), PLACES), Variant(places=PLACES)]
        _, runs = run_variants(model, IDS, variants, quiet, differ=min(PLACES))
        return runs, stream_at(model, IDS, PLACES, edit(), quiet)


def test_streams_in_files_are_those_in_memory(
    tiny_llama: Make, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    base = tiny_llama()
    mapped: list[int] = []
    mapping = aside_module._take_room

    def counted(descriptor: int, size: int) -> None:
        mapped.append(size)
        mapping(descriptor, size)

    monkeypatch.setattr(aside_module, "_take_room", counted)
    in_files, streams = passed(base)
    assert len(mapped) > 20
    assert not list(folder.iterdir())
    monkeypatch.setattr(aside_module, "free_main_memory", lambda: 10**12)
    count = len(mapped)
    in_memory, wanted = passed(base)
    assert len(mapped) == count
    for found, run in zip(in_files, in_memory, strict=True):
        assert same_bits(found.hidden, run.hidden)
        assert found.streams.keys() == run.streams.keys()
        assert all(same_bits(found.streams[p], run.streams[p]) for p in run.streams)
    assert all(same_bits(streams[place], wanted[place]) for place in PLACES)


def test_fourteen_copies_decide(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(aside_module, "free_main_memory", lambda: 2800)
    assert [Aside.of(size).in_files for size in (100, 101)] == [False, True]


def test_a_full_disk_is_named(
    tiny_llama: Make, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "posix_fallocate", full)
    with pytest.raises(OutputError, match=r"the disk is full: .* read fewer tokens, or name"):
        passed(tiny_llama())
    assert not list(folder.iterdir())


def test_a_folder_that_can_not_be_written_is_named(tiny_llama: Make, folder: Path) -> None:
    folder.write_text("no folder")
    with pytest.raises(OutputError, match="cannot be written"):
        passed(tiny_llama())
