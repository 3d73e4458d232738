"""A plan's edits as ridge functions, each calibrated on the float32 base."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from hubsplice.compiling.lowering import LoweredSplice, lower_splice
from hubsplice.compiling.open_plan import OpenPlan
from hubsplice.errors import CheckpointError
from hubsplice.intervention.intervention import Intervention
from hubsplice.streams.calibration import stream_at
from hubsplice.streams.model import Model, loaded
from hubsplice.terminal import Progress
from hubsplice.text.sequences import TokenSequences, load_sequences
from hubsplice.text.tokenizer import load_tokenizer, require_vocabulary


@dataclass(frozen=True, eq=False)
class CalibratedPlan:
    """What calibration has made of a plan.

    Attributes:
        tokenizer: the base's.
        text: the calibration text.
        streams: the float32 stream at each splice as earlier edits leave it, shape [tokens, d].
        splices: the splices as ridge functions, in the order of their places.
    """

    tokenizer: PreTrainedTokenizerBase
    text: TokenSequences
    streams: tuple[Tensor, ...]
    splices: tuple[LoweredSplice, ...]

    @property
    def intervention(self) -> Intervention:
        """The reference hook of all sites."""
        return Intervention(tuple(splice.site for splice in self.splices))


def calibrate(plan: OpenPlan, progress: Progress) -> CalibratedPlan:
    """Lower every splice of a plan; a later one is calibrated on what earlier edits leave.

    Raises:
        HubspliceError: an edit can't be lowered, or the text or the base can't be loaded.
    """
    tokenizer = load_tokenizer(plan.resolved.folder)
    recipe = plan.recipe
    text = load_sequences(recipe.calibration, tokenizer, seed=recipe.seed, part="calibration")
    require_vocabulary(text, plan.base)
    streams: list[Tensor] = []
    lowered: list[LoweredSplice] = []
    with loaded(plan.resolved.folder, torch.float32) as model:
        _require_sound(model, plan.resolved.folder)
        for planned, sae in zip(plan.splices, plan.saes, strict=True):
            step = f"calibrating layer {planned.place} in float32"
            earlier = Intervention(tuple(splice.site for splice in lowered))
            h = stream_at(
                model,
                text.ids,
                [planned.place],
                earlier,
                lambda done, total, step=step: progress(step, done, total),  # type: ignore[misc]
            )[planned.place]
            lowered.append(lower_splice(planned.splice, planned.place, sae, h, planned.field))
            streams.append(h)
    return CalibratedPlan(tokenizer, text, tuple(streams), tuple(lowered))


def _require_sound(model: Model, folder: Path) -> None:
    for name, parameter in model.named_parameters():
        if not parameter.is_meta and not torch.isfinite(parameter).all():
            raise CheckpointError(f"{folder.name}: tensor {name!r} holds NaN or infinity")
