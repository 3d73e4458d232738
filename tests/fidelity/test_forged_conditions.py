"""Checkpoints whose layers are not the edit under a condition that they carry.

Layers of another edit are put under the intervention and the recipe of an honest build, and a list
of files that agrees with them: as someone would who wants to pass.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from hubsplice.building.measure import measure
from hubsplice.intervention.saved import INTERVENTION, RECIPE
from tests.building.conftest import Build, Workshop, make, quiet, workshop
from tests.compiling.trained import Train, train
from tests.families.variants import Variant
from tests.tiny_tokenizer import byte_tokenizer
from tests.verifying.conftest import Spliced

__all__ = ["make", "train", "workshop"]

TEXT = """
calibration: {tokens: 2048, sequence_length: 64}
fidelity: {tokens: 1024, sequence_length: 64}
card: {prompts: []}
"""
ONE = "when: {feature: 7, above: 0.5}"
BOTH = "when: {all: [{feature: 7, above: 0.5}, {feature: 11}]}"
EDITS = {
    "clamp": "kind: clamp, feature: 3, to: 4, " + ONE,
    "ablate": "kind: ablate, feature: 9, " + ONE,
    "project": "kind: project, feature: 12, factor: -1, " + ONE,
    "steer": "kind: steer, feature: 5, strength: 3, " + BOTH,
}
MARKING, EDITING = 2, 3
"""The inserted layers, by their numbers in the result."""

Forge = Callable[[str], str]
OTHERS: dict[str, Forge] = {
    "half the threshold": lambda edit: with_threshold(edit, 0.5),
    "twice the threshold": lambda edit: with_threshold(edit, 2.0),
    "no condition": lambda edit: edit[: edit.index(", when")],
}


def with_threshold(edit: str, factor: float) -> str:
    """The edit with a multiple of its threshold."""
    return re.sub(r"above: ([\d.]+)", lambda found: f"above: {factor * float(found[1])}", edit)


class Forger:
    """Builds edits on one base, and measures what was made of them."""

    def __init__(self, make: Build, base: Path, parent: Path) -> None:
        self._make, self._base, self._parent = make, base, parent

    def build(self, edit: str, name: str) -> Path:
        splices = f"  - sae: {{path: standard}}\n    edits:\n      - {{{edit}}}\n"
        folder = self._parent / name.replace(" ", "-")
        options: dict[str, Any] = {"base": self._base, "more": TEXT, "measure": False}
        return self._make(splices, folder, **options).folder

    def outcome(self, folder: Path) -> str:
        """What `measure` says of the edit in the precision that it is served in."""
        Spliced(folder, self._base).forge_checksums()
        report = measure(folder, base=str(self._base), require_fidelity=None, progress=quiet)
        return report.outcome

    def silenced(self, honest: Path, layer: int, factor: float) -> Path:
        """A copy of which one inserted layer writes less, or nothing."""
        copy = shutil.copytree(honest, self._parent / f"{honest.name}-{layer}-{factor}")
        writes = f"model.layers.{layer}.mlp.down_proj"

        def weaken(tensors: dict[str, torch.Tensor]) -> None:
            for name in tensors:
                if name.startswith(writes):
                    tensors[name].mul_(factor)

        Spliced(copy, self._base).edit_tensors(weaken, f"{writes}.weight")
        return copy

    def instead(self, honest: Path, other: str, name: str) -> Path:
        """Another edit's layers under what the honest build says of itself."""
        folder = self.build(other, f"{honest.name} {name}")
        for carried in (INTERVENTION, RECIPE):
            (folder / carried).unlink()
            shutil.copy(honest / carried, folder / carried)
        return folder


def test_forged_layers_are_not_shown(make: Build, workshop: Workshop, tmp_path: Path) -> None:
    forger = Forger(make, workshop.bases["llama"], tmp_path)
    honest = forger.build(EDITS["clamp"], "clamp")
    assert forger.outcome(honest) == "shown"
    for layer in (MARKING, EDITING):
        assert forger.outcome(forger.silenced(honest, layer, 0.0)) == "fails"
    for name, forge in OTHERS.items():
        assert forger.outcome(forger.instead(honest, forge(EDITS["clamp"]), name)) == "fails", name


CASES = [
    (kind, dtype)
    for kind in EDITS
    for dtype in (torch.float32, torch.bfloat16)
    # In bfloat16, a projection under a condition fails in a stream of 64 channels, and says so.
    if (kind, dtype) != ("project", torch.bfloat16)
]


@pytest.mark.slow
@pytest.mark.parametrize(("kind", "dtype"), CASES)
def test_no_forged_layer_of_any_kind_is_shown(
    make: Build, train: Train, tmp_path: Path, kind: str, dtype: torch.dtype
) -> None:
    trained = train(Variant("llama", {"intermediate_size": 512}))
    base = shutil.copytree(trained.folders[dtype], tmp_path / "base")
    byte_tokenizer().save_pretrained(base)
    # The streams of a trained model are longer.
    edit = EDITS[kind].replace("above: 0.5", "above: 9")
    outcomes = every_outcome(Forger(make, base, tmp_path), kind, edit)
    assert outcomes.pop(kind) == "shown"
    assert "shown" not in outcomes.values(), outcomes


def every_outcome(forger: Forger, kind: str, edit: str) -> dict[str, str]:
    """What is said of an honest build, by the edit's kind, and of all that is forged of it."""
    honest = forger.build(edit, kind)
    found = {kind: forger.outcome(honest)}
    for layer in (MARKING, EDITING):
        for factor in (0.0, 0.5):
            weakened = forger.silenced(honest, layer, factor)
            found[f"layer {layer} times {factor}"] = forger.outcome(weakened)
    for name, forge in OTHERS.items():
        found[name] = forger.outcome(forger.instead(honest, forge(edit), name))
    return found
