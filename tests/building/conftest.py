"""Bases, SAEs, vectors and probes that the tests of builds share, and ways to build."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from hubsplice.building.build import BuildResult, build
from hubsplice.recipe.reading import parse_recipe
from tests.conftest import Command, Outcome

REPOSITORY = Path(__file__).parents[2]
TEXT = """
calibration: {tokens: 4096, sequence_length: 64}
fidelity: {tokens: 512, sequence_length: 64}
card: {prompts: []}
"""


@dataclass(frozen=True)
class Workshop:
    """What recipes are made of: `bases` by family, and `folder` with the SAEs and tensors.

    The folder holds `standard` and `jumprelu`, SAEs of 96 features for layer 1, `v.safetensors`
    with one vector, and `probe.safetensors`.
    """

    folder: Path
    bases: dict[str, Path]

    def recipe(self, splices: str, *, base: Path | str = "llama", more: str = TEXT) -> str:
        """The text of a recipe; `splices` is YAML."""
        folder = self.bases[base] if isinstance(base, str) else base
        return f"base_model: {folder}\nsplices:\n{splices.rstrip()}\n{more}"


def quiet(_step: str, _done: int, _total: int) -> None:
    """No progress is shown."""


def save_sae(
    folder: Path, architecture: str, d_in: int = 64, d_sae: int = 96, **parameters: Any
) -> None:
    """Save a random SAE as SAELens does; `parameters` replace its own by name."""
    from sae_lens import SAE

    sae: Any = SAE.from_dict(
        {
            "architecture": architecture,
            "d_in": d_in,
            "d_sae": d_sae,
            "dtype": "float32",
            "device": "cpu",
            "apply_b_dec_to_input": True,
            "normalize_activations": "none",
            "metadata": {"hook_name": "blocks.1.hook_resid_post", "model_name": "llama"},
        }
    )
    generator = torch.Generator().manual_seed(0)
    sizes = {"W_enc": 0.3, "W_dec": 0.15}
    for name, parameter in sae.named_parameters():
        values = torch.randn(parameter.shape, generator=generator) * sizes.get(name, 0.1)
        parameter.data = values.abs() if name == "threshold" else values
        if name in parameters:
            parameter.data = parameters[name]
    sae.save_model(folder)


@pytest.fixture(scope="session")
def workshop(shared_tiny_llama: Callable[..., Path], tmp_path_factory: Any) -> Workshop:
    folder: Path = tmp_path_factory.mktemp("workshop")
    bases = {
        family: shared_tiny_llama(family, name=family) for family in ("llama", "mistral", "qwen2")
    }
    bases["bfloat16"] = shared_tiny_llama(dtype="bfloat16", name="bfloat16")
    for architecture in ("standard", "jumprelu"):
        save_sae(folder / architecture, architecture)
    generator = torch.Generator().manual_seed(1)
    vector, weight = torch.randn(2, 64, generator=generator)
    save_file({"v": vector}, folder / "v.safetensors")
    save_file({"weight": weight, "bias": torch.tensor(0.2)}, folder / "probe.safetensors")
    return Workshop(folder, bases)


Build = Callable[..., BuildResult]


def build_text(
    recipe: str,
    output: Path,
    *,
    folder: Path,
    require_fidelity: float | None = None,
    measure: bool = True,
    allow_misfit: bool = False,
) -> BuildResult:
    """Build the text of a recipe whose relative paths begin at `folder`."""
    return build(
        parse_recipe(recipe, folder=folder),
        output=output,
        require_fidelity=require_fidelity,
        measure=measure,
        hard_link=False,
        progress=quiet,
        allow_misfit=allow_misfit,
    )


@pytest.fixture(scope="session")
def make(workshop: Workshop) -> Build:
    """Build splices (YAML) into a folder; keywords are those of `Workshop.recipe` and `build`."""

    def run(splices: str, output: Path, **options: Any) -> BuildResult:
        recipe = {name: options.pop(name) for name in ("base", "more") if name in options}
        text = workshop.recipe(splices, **recipe)
        return build_text(text, output, folder=workshop.folder, **options)

    return run


STEER = "  - {after_layer: 2, edits: [{kind: steer, vector: {path: v.safetensors}, strength: 3}]}"
GATED = """
  - sae: {path: jumprelu}
    edits:
      - {kind: ablate, feature: 3, label: "regular expressions"}
      - kind: gated_steer
        vector: {path: v.safetensors}
        strength: 0.3 x norm
        gate: {probe: {path: probe.safetensors}}
"""


@pytest.fixture(scope="session")
def bfloat16_build(make: Build, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A measured build of a bfloat16 base with an SAE, a vector and a probe; not to be changed."""
    return make(GATED, tmp_path_factory.mktemp("builds") / "gated", base="bfloat16").folder


def start(*arguments: str | Path, folder: Path) -> subprocess.Popen[str]:
    """Start `python -m hubsplice` in a process of its own."""
    return subprocess.Popen(
        [sys.executable, "-m", "hubsplice", *map(str, arguments)],
        cwd=folder,
        env=os.environ | {"PYTHONPATH": str(REPOSITORY), "COLUMNS": "200"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


@pytest.fixture
def spawn(tmp_path: Path) -> Command:
    """Run `python -m hubsplice` in an empty folder, to its end."""

    def invoke(*arguments: str | Path) -> Outcome:
        process = start(*arguments, folder=tmp_path)
        out, err = process.communicate()
        return Outcome(process.returncode, out, err)

    return invoke
