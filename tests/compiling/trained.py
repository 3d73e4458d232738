"""Tiny models trained for a moment on text, so that their streams have structure."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
import torch
from filelock import FileLock
from torch import Tensor
from torch.nn import functional
from transformers import AutoModelForCausalLM

from hubsplice.checkpoint.base import BaseConfig
from hubsplice.families.architecture import architecture_of
from hubsplice.intervention.intervention import Intervention
from hubsplice.intervention.place import Place
from hubsplice.intervention.site import Site, Term
from hubsplice.streams.calibration import SiteActivations, median_norm, stream_at
from hubsplice.streams.model import loaded
from hubsplice.text import builtin
from hubsplice.text.documents import Document
from tests.constructions.streams import EDITS
from tests.families.variants import Variant, save_tiny

LENGTH = 64
LAYER = 1
PLACE = Place(LAYER)
NOTHING = Intervention(())


@cache
def text_ids() -> Tensor:
    """Bytes of Python's documentation as token ids from 3 on, shape [sequences, LENGTH].

    Id 1 begins a sequence.
    """
    code = (file.read_text(encoding="utf-8") for file in builtin._library_files())
    texts = (*builtin._help_topics(), *map(builtin._docstrings, code))
    documents = {found for found in map(Document.of, texts) if found is not None}
    first = sorted(documents, key=lambda document: document.digest)[:60]
    text = "\n".join(document.text for document in first)
    data = torch.frombuffer(bytearray(text.encode()), dtype=torch.uint8).long() + 3
    rows = data[: len(data) // (LENGTH - 1) * (LENGTH - 1)].reshape(-1, LENGTH - 1)
    return functional.pad(rows, (1, 0), value=1)


def _shuffled() -> Tensor:
    ids = text_ids()
    return ids[torch.randperm(len(ids), generator=torch.Generator().manual_seed(0))]


@dataclass(frozen=True, eq=False)
class Trained:
    """A model that has been trained a little.

    Attributes:
        folders: by precision, the same weights rounded.
        calibration: token ids, shape [sequences, LENGTH].
        held_out: others.
    """

    folders: dict[torch.dtype, Path]
    calibration: Tensor
    held_out: Tensor

    @staticmethod
    def make(variant: Variant, folder: Path, *, steps: int = 120) -> Trained:
        """Train a variant for some steps, which takes seconds."""
        ids = _shuffled()
        base = save_tiny(variant, folder / "random", torch.float32)
        model: Any = AutoModelForCausalLM.from_pretrained(base)
        optimiser = torch.optim.AdamW(model.parameters(), lr=3e-3, weight_decay=0.0)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            for step in range(steps):
                batch = ids[256 + 16 * step : 256 + 16 * (step + 1)]
                loss = model(input_ids=batch, labels=batch).loss
                optimiser.zero_grad()
                loss.backward()
                optimiser.step()
        found = Trained.of(folder)
        for dtype, path in found.folders.items():
            # Both hold the bfloat16 weights, as a checkpoint in bfloat16 does in either precision.
            model.to(torch.bfloat16).to(dtype).save_pretrained(path)
        return found

    @staticmethod
    def of(folder: Path) -> Trained:
        """What `make` made in a folder."""
        ids = _shuffled()
        folders = {torch.bfloat16: folder / "bfloat16", torch.float32: folder / "float32"}
        return Trained(folders, ids[:96], ids[96:160])

    def streams(self, ids: Tensor, place: Place = PLACE) -> dict[torch.dtype, Tensor]:
        """The stream at a place in both precisions, shape [tokens, d]."""
        found = {}
        for dtype, folder in self.folders.items():
            with loaded(folder, dtype) as model:
                found[dtype] = stream_at(model, ids, [place], NOTHING, lambda *_: None)[place]
        return found

    def activations(self, dtype: torch.dtype, place: Place = PLACE) -> SiteActivations:
        streams = self.streams(self.calibration, place)
        reference = streams[torch.float32]
        eps = architecture_of(BaseConfig.open(self.folders[dtype]).config).norm_eps
        return SiteActivations(reference, streams[dtype], median_norm(reference), eps)

    def site(
        self, kind: str, activations: SiteActivations, place: Place = PLACE, *, features: int = 6
    ) -> Site:
        """Features that are active on a tenth of the tokens, edited in one of the ways of EDITS."""
        h = activations.reference
        sink_norm = 5 * activations.median_norm
        ordinary = h[h.norm(dim=1) <= sink_norm]
        generator = torch.Generator().manual_seed(4)
        chosen = ordinary[torch.randperm(len(ordinary), generator=generator)[: 2 * features]]
        # Directions that the stream itself takes; nothing is read or written along its mean.
        axes = functional.normalize(chosen - ordinary.mean(dim=0), dim=1)
        axes = axes - axes.mean(dim=1, keepdim=True)
        terms = []
        for i in range(features):
            encoder, direction = axes[2 * i], axes[2 * i + 1]
            p = ordinary @ encoder
            bias = -float(p.quantile(0.9))
            function = EDITS[kind].function(float(p.std()))
            terms.append(Term(f"feature {i}", encoder, bias, function, direction))
        return Site(place.layer, tuple(terms), sink_norm, place.block)


Train = Callable[[Variant], Trained]


@pytest.fixture(scope="session")
def train(tmp_path_factory: pytest.TempPathFactory) -> Train:
    """A variant that was trained once for all processes of tests; not to be changed."""
    own = tmp_path_factory.getbasetemp()
    shared = (own.parent if "PYTEST_XDIST_WORKER" in os.environ else own) / "trained"
    shared.mkdir(exist_ok=True)

    known: dict[str, Trained] = {}

    def trained(variant: Variant) -> Trained:
        name = str(variant)
        if name not in known:
            folder = shared / sha256(name.encode()).hexdigest()[:16]
            with FileLock(folder.with_suffix(".lock")):
                done = folder / "done"
                if not done.exists():
                    Trained.make(variant, folder)
                    done.touch()
            known[name] = Trained.of(folder)
        return known[name]

    return trained
