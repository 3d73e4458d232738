"""A build looks for text on which its edits act, and takes the recipe's prompts."""

from __future__ import annotations

import math
import re
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from hubsplice.checkpoint.manifest import read_manifest
from hubsplice.errors import RecipeError
from hubsplice.fidelity.report import FidelityReport
from hubsplice.intervention.place import Place
from hubsplice.intervention.saved import INTERVENTION, load_intervention
from hubsplice.recipe.models import TextSource
from hubsplice.streams.model import collect_streams, loaded
from hubsplice.text.documents import Part
from hubsplice.text.sequences import load_sequences
from hubsplice.text.tokenizer import load_tokenizer
from tests.building.conftest import Workshop, build_text, save_sae
from tests.fidelity.test_removed_layer import Experiment

LAYER, SHARE = 1, 0.003


@dataclass(frozen=True)
class Rare:
    """A feature that is active on about three tokens in a thousand of either half of the text."""

    sae: Path
    feature: int
    threshold: float


@pytest.fixture(scope="session")
def rare(workshop: Workshop) -> Rare:
    sae = workshop.folder / "rare"
    save_sae(sae, "jumprelu")
    base = workshop.bases["llama"]
    tokenizer, source = load_tokenizer(base), TextSource(tokens=20_000, sequence_length=64)
    file = sae / "sae_weights.safetensors"
    weights = load_file(file)
    halves: list[Tensor] = []
    parts: tuple[Part, Part] = ("calibration", "held-out")
    with loaded(base, torch.float32) as model:
        for part in parts:
            ids = load_sequences(source, tokenizer, seed=9, part=part).ids
            h = collect_streams(model, ids, [Place(LAYER)], lambda *_: None)[Place(LAYER)]
            h = h[:, 1:].flatten(end_dim=1) - weights["b_dec"]
            halves.append(h @ weights["W_enc"] + weights["b_enc"])
    weights["threshold"] = halves[0].quantile(1 - SHARE, dim=0)
    # Some features are active on a single document, which is in one half alone.
    elsewhere = (halves[1] > weights["threshold"]).float().mean(dim=0)
    feature = int((elsewhere.log() - math.log(SHARE)).abs().argmin())
    save_file(weights, file)
    return Rare(sae, feature, float(weights["threshold"][feature]))


def spliced(
    workshop: Workshop, rare: Rare, output: Path, more: str, *, edit: str = "kind: ablate"
) -> tuple[FidelityReport, Any]:
    edits = f"[{{feature: {rare.feature}, {edit}}}]"
    splice = f"  - {{after_layer: {LAYER}, sae: {{path: {rare.sae}}}, edits: {edits}}}"
    made = build_text(workshop.recipe(splice, more=more), output, folder=workshop.folder)
    assert made.report is not None
    return made.report, read_manifest(output / "splice.json").calibration


def text(scan: int) -> str:
    sizes = f"sequence_length: 64, scan: {scan}"
    return f"calibration: {{tokens: 2048, {sizes}}}\nfidelity: {{tokens: 2048, {sizes}}}\n"


@pytest.fixture(scope="module")
def blind(
    workshop: Workshop, rare: Rare, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, FidelityReport]:
    """A build that looked for no text, and its report; not to be changed."""
    folder = tmp_path_factory.mktemp("builds") / "blind"
    return folder, spliced(workshop, rare, folder, text(0))[0]


def test_a_rare_edit_is_shown_on_text_that_was_found(
    workshop: Workshop, rare: Rare, blind: tuple[Path, FidelityReport], tmp_path: Path
) -> None:
    _, drawn = blind
    (edit,) = drawn.precisions[0].edits
    assert drawn.outcome == "not shown"
    assert edit.site.acted_tokens < 25
    assert edit.chosen_sequences == 0
    found, calibration = spliced(workshop, rare, tmp_path / "found", text(60_000))
    (edit,) = found.precisions[0].edits
    assert edit.site.acted_tokens > 30
    assert edit.chosen_sequences > 15
    assert found.text.drawn_sequences == 32
    assert found.text.sequences == 32 + edit.chosen_sequences
    assert 0 < found.text.scanned_tokens <= 60_000
    assert calibration.chosen_sequences > 15
    # Means over all tokens are over the drawn sequences in both.
    assert found.edit_effect.mean == pytest.approx(drawn.edit_effect.mean, rel=1e-3)
    assert found.scored_tokens == drawn.scored_tokens


def test_where_an_edit_hardly_acts_it_passes_as_little_as_a_layer_without_it(
    workshop: Workshop, blind: tuple[Path, FidelityReport], tmp_path: Path
) -> None:
    folder = shutil.copytree(blind[0], tmp_path / "blind")
    built = Experiment(workshop.bases["llama"], folder, LAYER, torch.float32)
    right, removed = built.reports(built.text(2048), 1.05)
    assert (right.outcome, right.passed) == ("not shown", False)
    assert removed.outcome != "shown"
    assert removed.passed is False


def test_a_largest_activation_may_be_met_in_scanned_text_alone(
    workshop: Workshop, rare: Rare, tmp_path: Path
) -> None:
    clamp = "kind: clamp, to: 0.5 x max, when: active"
    sizes = "sequence_length: 64"
    few = f"calibration: {{tokens: 256, {sizes}, scan: 0}}\nfidelity: {{tokens: 256, {sizes}}}\n"
    message = r"feature \d+, which was never active in calibration"
    for seed in range(20):
        try:
            spliced(workshop, rare, tmp_path / f"{seed}", f"{few}seed: {seed}\n", edit=clamp)
        except RecipeError as error:
            assert re.search(message, str(error))  # noqa: PT017
            break
    else:
        pytest.fail("the feature is not rare")
    more = few.replace("scan: 0", "scan: 9000") + f"seed: {seed}\n"
    spliced(workshop, rare, tmp_path / "found", more, edit=clamp)
    (site,) = load_intervention(tmp_path / "found" / INTERVENTION).sites
    held_at = site.terms[0].function.intercepts[-1]
    # Half of what is above the threshold, and not half of the 1 that stands in for the unknown.
    assert held_at > rare.threshold / 2


def test_prompts_are_measured_on_and_count_for_no_mean(
    workshop: Workshop, rare: Rare, tmp_path: Path
) -> None:
    asked = "prompts:\n" + "".join(f'  - text: "Prompt number {i} is this."\n' for i in range(6))
    bare, _ = spliced(workshop, rare, tmp_path / "bare", text(0))
    report, calibration = spliced(workshop, rare, tmp_path / "asked", text(0) + asked)
    assert report.text.sequences == 32 + 3
    assert report.text.drawn_sequences == 32
    assert calibration.chosen_sequences == 3
    assert report.edit_effect.mean == pytest.approx(bare.edit_effect.mean, rel=1e-3)
    assert report.scored_tokens == bare.scored_tokens
    assert "prompts" in (tmp_path / "asked" / "reproduce" / "recipe.yaml").read_text()


@pytest.mark.parametrize(
    ("prompts", "message"),
    [
        ("[{user: a, text: b}]", "found user and text, expected one of user, chat and text"),
        ("[{}]", "found nothing, expected one of"),
        ("[{question: a}]", "question"),
        ("[3]", "prompts"),
        ('[""]', r"prompts\[0\]: found '', expected some text"),
    ],
)
def test_prompts_that_are_none(
    workshop: Workshop, rare: Rare, tmp_path: Path, prompts: str, message: str
) -> None:
    with pytest.raises(RecipeError, match=message):
        spliced(workshop, rare, tmp_path / "out", f"{text(0)}prompts: {prompts}\n")
    assert not (tmp_path / "out").exists()
