"""The experiment of the page on fidelity: a real model from which the edit was removed.

On a tiny model it is part of `tests/building/test_acting_text.py`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from hubsplice.building.build import build
from hubsplice.checkpoint.base import BaseConfig
from hubsplice.checkpoint.companions import MANIFEST
from hubsplice.checkpoint.manifest import read_manifest
from hubsplice.families.architecture import architecture_of
from hubsplice.fidelity.inserted import inserted_layers
from hubsplice.fidelity.measure import References, Subject, measure_fidelity
from hubsplice.fidelity.report import FidelityReport
from hubsplice.intervention.place import Place
from hubsplice.intervention.saved import INTERVENTION, load_intervention
from hubsplice.recipe.models import TextSource
from hubsplice.recipe.reading import parse_recipe
from hubsplice.streams.acting import ActingText
from hubsplice.streams.model import collect_streams, loaded
from hubsplice.text.sequences import TokenSequences, load_sequences
from hubsplice.text.tokenizer import load_tokenizer

SAE = Path(__file__).parents[2] / "examples" / "sae-smollm2-135m-l13"
FEATURE = 11
LAYER = 13

RECIPE = f"""
base_model: {{base}}
splices:
  - sae: {{{{path: {SAE}}}}}
    edits: [{{{{feature: {FEATURE}, kind: ablate}}}}]
calibration: {{{{tokens: {{tokens}}}}}}
"""


def quiet(step: str, done: int, total: int) -> None:
    """Nobody watches."""


def remove_the_edit(folder: Path, layer: int) -> None:
    """Have an inserted layer add nothing at all."""
    for path in folder.glob("*.safetensors"):
        tensors = load_file(path)
        for name in ("mlp.down_proj.weight", "mlp.down_proj.bias", "self_attn.o_proj.bias"):
            if (tensor := tensors.get(f"model.layers.{layer}.{name}")) is not None:
                tensor.zero_()
        save_file(tensors, path, metadata={"format": "pt"})


@dataclass(frozen=True, eq=False)
class Experiment:
    """A model spliced after one layer, as built and with its edit removed, and text to judge on."""

    base: Path
    folder: Path
    layer: int = LAYER
    dtype: torch.dtype = torch.bfloat16

    def text(self, tokens: int) -> TokenSequences:
        source = TextSource(tokens=tokens, sequence_length=64)
        return load_sequences(source, load_tokenizer(self.base), seed=0, part="held-out")

    def active(self, text: TokenSequences) -> TokenSequences:
        """The sequences in which the feature is active."""
        (site,) = load_intervention(self.folder / INTERVENTION).sites
        with loaded(self.base, torch.float32) as model:
            place = Place(self.layer)
            h = collect_streams(model, text.ids, [place], lambda *_: None)[place]
        acts: Tensor = site.delta(h).norm(dim=-1) > 0
        acts[:, 0] = False
        kept = acts.any(dim=1)
        return replace(text, ids=text.ids[kept], lengths=text.lengths[kept], drawn=int(kept.sum()))

    def reports(
        self, text: TokenSequences, require: float
    ) -> tuple[FidelityReport, FidelityReport]:
        """As built, and with the edit removed."""
        edit = load_intervention(self.folder / INTERVENTION)
        manifest = read_manifest(self.folder / MANIFEST)
        architecture = architecture_of(BaseConfig.open(self.base).config)
        inserted = inserted_layers(manifest, architecture)
        subject = Subject(self.base, self.folder, edit, inserted, self.dtype)
        references = References.of(self.base, edit, text, self.dtype, quiet)

        def measured() -> FidelityReport:
            return measure_fidelity(
                subject,
                ActingText.drawn(text),
                require=require,
                progress=quiet,
                references=references,
            )

        right = measured()
        remove_the_edit(self.folder, self.layer + 1)
        return right, measured()


@pytest.fixture
def experiment(smollm2: Path, tmp_path: Path, request: pytest.FixtureRequest) -> Experiment:
    """A build whose calibration takes so many tokens."""
    recipe = parse_recipe(RECIPE.format(base=smollm2, tokens=request.param), folder=tmp_path)
    options = {"require_fidelity": None, "measure": False, "hard_link": False, "progress": quiet}
    built: Callable[..., object] = build
    built(recipe, output=tmp_path / "spliced", **options)
    return Experiment(smollm2, tmp_path / "spliced")


@pytest.mark.slow
@pytest.mark.parametrize("experiment", [1024], indirect=True)
def test_on_text_where_the_feature_is_hardly_active_nothing_passes(experiment: Experiment) -> None:
    right, removed = experiment.reports(experiment.text(768), 1.05)
    # The mean over all tokens can't tell the two apart.
    for report in (right, removed):
        ratio = report.precisions[0].ratio
        assert ratio is not None
        assert ratio.value == pytest.approx(1, abs=0.25)
    assert (right.outcome, right.passed) == ("not shown", False)
    assert removed.outcome != "shown"
    assert removed.passed is False


@pytest.mark.slow
# With few tokens for 576 dimensions, the layer reads the scale so badly that it is not shown.
@pytest.mark.parametrize("experiment", [12288], indirect=True)
def test_on_text_where_the_feature_is_active_only_the_edit_passes(experiment: Experiment) -> None:
    text = experiment.active(experiment.text(12288))
    right, removed = experiment.reports(text, 1.10)
    assert (right.outcome, right.passed) == ("shown", True), right.verdict
    assert (removed.outcome, removed.passed) == ("fails", False), removed.verdict
