"""A plan's edits as ridge functions, each calibrated on the float32 base."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from hubsplice.compiling.learned import Learned, learn
from hubsplice.compiling.lowering import LoweredSplice, lower_splice
from hubsplice.compiling.open_plan import OpenPlan
from hubsplice.errors import CheckpointError
from hubsplice.features.activity import feature_activity
from hubsplice.features.amounts import Activity
from hubsplice.features.held import Held
from hubsplice.intervention.intervention import Intervention
from hubsplice.intervention.place import Place
from hubsplice.streams.acting import ActingText, acting_text
from hubsplice.streams.calibration import stream_at
from hubsplice.streams.model import Model, loaded
from hubsplice.streams.on_disk import OnDisk, is_in_memory
from hubsplice.terminal import Progress
from hubsplice.text.sequences import TokenSequences, open_text
from hubsplice.text.tokenizer import load_tokenizer, require_vocabulary


@dataclass(frozen=True, eq=False)
class CalibratedPlan:
    """What calibration has made of a plan.

    Attributes:
        tokenizer: the base's.
        text: the calibration text, and which of it was looked for.
        streams: the float32 stream at each splice as earlier edits leave it, shape [tokens, d].
        splices: the splices as ridge functions, in the order of their places.
    """

    tokenizer: PreTrainedTokenizerBase
    text: ActingText
    streams: tuple[Tensor, ...]
    splices: tuple[LoweredSplice, ...]

    @property
    def intervention(self) -> Intervention:
        """The reference hook of all sites."""
        return Intervention(tuple(splice.site for splice in self.splices))


def calibrate(plan: OpenPlan, progress: Progress) -> CalibratedPlan:
    """Lower every splice of a plan; a later one is calibrated on what earlier edits leave.

    The text has sequences on which each edit acts, as far as there are any. To look for them the
    edits are lowered twice: on the drawn sequences, and then on all.

    Raises:
        HubspliceError: an edit can't be lowered, or the text or the base can't be loaded.
    """
    tokenizer = load_tokenizer(plan.resolved.folder)
    recipe = plan.recipe
    text = open_text(
        recipe.calibration,
        tokenizer,
        seed=recipe.seed,
        part="calibration",
        prompts=recipe.prompts,
    )
    drawn = text.sequences()
    require_vocabulary(text.sequences(text.prompts), plan.base)
    with loaded(plan.resolved.folder, torch.float32, keep=True) as model:
        _require_sound(model, plan.resolved.folder)
        splices = [(planned.field, planned.splice, planned.place) for planned in plan.splices]
        learned = learn(splices, model, tokenizer, progress)
        lowering = _Pass(plan, model, learned, progress)
        first = lowering.over(drawn, None)
        seen = _Seen(first)
        found = acting_text(
            model,
            Intervention(tuple(splice.site for splice in first.splices)),
            text,
            budget=recipe.calibration.most_scanned,
            kind="calibration",
            progress=progress,
            drawn={s.site.place: h for s, h in zip(first.splices, first.streams, strict=True)},
            observe=seen.see,
        )
        last = lowering.over(found.sequences, seen, first)
    return CalibratedPlan(tokenizer, found, last.streams, last.splices)


@dataclass(frozen=True, eq=False)
class _Lowered:
    streams: tuple[Tensor, ...]
    splices: tuple[LoweredSplice, ...]


class _Seen:
    """How active every edited feature is in scanned text, and how often conditions hold there."""

    def __init__(self, lowered: _Lowered) -> None:
        self._splices = {splice.site.place: splice for splice in lowered.splices}
        self._found: dict[Place, dict[str, Activity]] = {}
        self._held: dict[Place, dict[int, Held]] = {}

    def see(self, place: Place, h: Tensor) -> None:
        splice = self._splices[place]
        ordinary = h[torch.linalg.vector_norm(h, dim=-1) <= splice.sink_norm]
        if len(ordinary):
            known = self._found.setdefault(place, {})
            for name, found in feature_activity(splice.features, ordinary).items():
                known[name] = found.with_more(known[name]) if name in known else found
            held = self._held.setdefault(place, {})
            for condition in splice.conditions:
                here, before = condition.count(ordinary), held.get(condition.edit)
                held[condition.edit] = here if before is None else here.with_more(before)

    def at(self, place: Place) -> Mapping[str, Activity]:
        return self._found.get(place, {})

    def held_at(self, place: Place) -> Mapping[int, Held]:
        return self._held.get(place, {})


@dataclass(frozen=True, eq=False)
class _Pass:
    """Lowers every splice of a plan on the streams of some text."""

    plan: OpenPlan
    model: Model
    learned: tuple[Learned, ...]
    progress: Progress

    def over(
        self, text: TokenSequences, seen: _Seen | None, first: _Lowered | None = None
    ) -> _Lowered:
        """Lower on a text.

        Args:
            text: the tokens.
            seen: activity in other text; None for edits that only serve to look for text,
                whose strengths are stood in for where they aren't known.
            first: the same on the drawn sequences alone, which `text` begins with.
        """
        streams: list[Tensor] = []
        lowered: list[LoweredSplice] = []
        unchanged = first is not None and len(text.ids) == text.drawn
        for i, (planned, sae) in enumerate(zip(self.plan.splices, self.plan.saes, strict=True)):
            earlier = Intervention(tuple(splice.site for splice in lowered))
            known = first.streams[i] if first is not None and (unchanged or i == 0) else None
            h = self._stream(text, planned.place, earlier, known)
            streams.append(h)
            splice = lower_splice(
                planned.splice,
                planned.place,
                sae,
                h,
                planned.field,
                drawn=text.drawn * text.ids.shape[1],
                seen=None if seen is None else seen.at(planned.place),
                learned=self.learned[i],
                held=None if seen is None else seen.held_at(planned.place),
                gate_saes=self.plan.gate_saes[i],
            )
            lowered.append(splice)
            unchanged = (
                unchanged and first is not None and splice.statistics == first.splices[i].statistics
            )
        return _Lowered(tuple(streams), tuple(lowered))

    def _stream(
        self, text: TokenSequences, place: Place, earlier: Intervention, known: Tensor | None
    ) -> Tensor:
        """The stream at a place, shape [tokens, d], of which the beginning may be known."""
        start = 0 if known is None else text.drawn
        found = [] if known is None else [known]
        if start < len(text.ids):
            h = stream_at(
                self.model,
                text.ids[start:],
                [place],
                earlier,
                lambda done, total: self.progress(
                    f"calibrating layer {place} in float32", done, total
                ),
            )[place]
            found.append(h[text.is_text[start:].flatten()])
        return torch.cat(found)


def _require_sound(model: Model, folder: Path) -> None:
    for path, module in model.named_modules():
        on_disk = OnDisk.of(module)
        if on_disk is not None:
            held = on_disk.all_stored()
        else:
            every = module.named_parameters(path, recurse=False)
            held = ((name, parameter) for name, parameter in every if is_in_memory(parameter))
        for name, parameter in held:
            # Nothing becomes infinite or ceases to be as it is widened.
            narrow = parameter.dtype.itemsize <= model.dtype.itemsize
            if not _is_finite(parameter if narrow else parameter.to(model.dtype)):
                raise CheckpointError(f"{folder.name}: tensor {name!r} holds NaN or infinity")


def _is_finite(tensor: Tensor) -> bool:
    # A sum is found in a twentieth of the time, and is finite only where everything is.
    return bool(torch.isfinite(tensor.sum())) or bool(torch.isfinite(tensor).all())
