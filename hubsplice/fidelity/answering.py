"""Prompts answered by a base, by its exact hook, and by the spliced checkpoint itself.

Every prompt is answered by itself and greedily, as a reader would ask it; one of them is also
sampled, with the same random numbers for both models.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import count
from typing import Any, Literal

import torch
from torch import Tensor

from hubsplice.fidelity.answers import Answer, Answers, Said
from hubsplice.fidelity.measure import Subject
from hubsplice.fidelity.runs import greedy_tokens, in_step, require_readable, with_hook
from hubsplice.intervention.edits import acting, labels
from hubsplice.intervention.intervention import Intervention
from hubsplice.intervention.place import Place
from hubsplice.streams.acting import EditKey
from hubsplice.streams.model import Model, collect_streams, loaded, seeing
from hubsplice.terminal import Progress
from hubsplice.text.ends import end_tokens

MOST_PROMPTS = 3
"""How many prompts are chosen, where the author chooses none."""

_NEW_TOKENS, _BEGINNING = 40, 12
_TEMPERATURE, _TOP_P, _SEED = 0.7, 0.95, 0
_STEP = "asking base, hook and splice"


@dataclass(frozen=True)
class Asked:
    """A prompt.

    Attributes:
        shown: as people read it.
        ids: its tokens; of a conversation, with the beginning of an answer.
        form: whether they are a conversation.
    """

    shown: str
    ids: tuple[int, ...]
    form: Literal["chat", "text"]


@dataclass(frozen=True, eq=False)
class Asker:
    """What answers are made with.

    Attributes:
        subject: base, splice and edit.
        tokenizer: of both models.
    """

    subject: Subject
    tokenizer: Any

    @cached_property
    def _ends(self) -> frozenset[int]:
        return end_tokens(self.tokenizer, self.subject.base)

    def answers(
        self,
        given: Sequence[Asked] | None,
        candidates: Sequence[Asked],
        examples: Callable[[Model, Sequence[EditKey]], Sequence[Asked]],
        progress: Progress,
    ) -> Answers | None:
        """What base and spliced checkpoint answer.

        Args:
            given: the author's prompts; None to choose.
            candidates: what to choose from.
            examples: from the base and the edits that act on no candidate, more candidates.
            progress: told of every step.

        Returns:
            None where there is no prompt.
        """
        considered = 0
        with loaded(self.subject.base, self.subject.dtype) as model:
            require_readable(model, _NEW_TOKENS)
            chosen = given
            if chosen is None:
                chosen, considered = self._chosen(model, candidates, examples, progress)
            if not chosen:
                return None
            told = _told(progress, 3 * len(chosen) + 2)
            before, hook, sampled = self._said_by_base(model, chosen, told)
        with (
            loaded(self.subject.spliced, self.subject.dtype) as model,
            self.subject.on(model),
        ):
            *edited, resampled = in_step(model, self._runs(model, chosen, told))
        return Answers(
            chosen="by effect" if given is None else "by the author",
            candidates=considered,
            dtype=str(self.subject.dtype).removeprefix("torch."),
            device="cuda" if torch.cuda.is_available() else "cpu",
            new_tokens=_NEW_TOKENS,
            temperature=_TEMPERATURE,
            top_p=_TOP_P,
            seed=_SEED,
            prompts=tuple(
                Answer(
                    prompt=asked.shown,
                    form=asked.form,
                    greedy=Said(base=base, edited=after),
                    hook=None if hooked_says == after else hooked_says,
                    sampled=Said(base=sampled, edited=resampled) if i == 0 else None,
                )
                for i, (asked, base, hooked_says, after) in enumerate(
                    zip(chosen, before, hook, edited, strict=True)
                )
            ),
        )

    def _said_by_base(
        self, model: Model, chosen: Sequence[Asked], told: Callable[[str], str]
    ) -> tuple[list[str], list[str], str]:
        """What the base and the hook answer to every prompt, and what the base samples."""
        *plain, sampling = self._runs(model, chosen, told)
        edited = [with_hook(model, self.subject.intervention, run) for run in plain]
        said = in_step(model, [*plain, *edited, sampling])
        return said[: len(chosen)], said[len(chosen) : -1], said[-1]

    def _runs(
        self, model: Model, chosen: Sequence[Asked], told: Callable[[str], str]
    ) -> list[Callable[[], str]]:
        """Runs that answer every prompt, and one that samples an answer to the first."""

        def answer(asked: Asked) -> Callable[[], str]:
            return lambda: told(self._text(self._continued(model, asked)))

        return [*map(answer, chosen), lambda: told(self._sampled(model, chosen[0]))]

    def _sampled(self, model: Model, asked: Asked) -> str:
        with torch.random.fork_rng():
            torch.manual_seed(_SEED)
            return self._text(
                self._continued(
                    model, asked, do_sample=True, temperature=_TEMPERATURE, top_p=_TOP_P, top_k=0
                )
            )

    def _continued(self, model: Model, asked: Asked, **how: Any) -> list[int]:
        from transformers import GenerationConfig

        ids = torch.tensor([asked.ids], device=model.device)
        ends = sorted(self._ends)
        config = GenerationConfig(
            max_new_tokens=_NEW_TOKENS,
            eos_token_id=ends or None,
            pad_token_id=ends[0] if ends else 0,
            **{"do_sample": False, **how},
        )
        with torch.inference_mode():
            output: Tensor = model.generate(
                ids, attention_mask=torch.ones_like(ids), generation_config=config
            )
        found: list[int] = output[0, ids.shape[1] :].tolist()
        return found

    def _text(self, ids: list[int]) -> str:
        text = str(self.tokenizer.decode(ids, skip_special_tokens=True)).strip()
        was_cut = len(ids) == _NEW_TOKENS and ids[-1] not in self._ends
        return f"{text}…" if was_cut else text

    def _chosen(
        self,
        model: Model,
        candidates: Sequence[Asked],
        examples: Callable[[Model, Sequence[EditKey]], Sequence[Asked]],
        progress: Progress,
    ) -> tuple[list[Asked], int]:
        """Prompts on which the edits act, those first whose answers part soonest; and of how many.

        Every edit gets a prompt, as far as there is room.
        """
        step = "choosing prompts for the card"
        progress(step, 0, 1)
        found = _effects(model, self.subject.intervention, candidates)
        keys = [(s.place, name) for s in self.subject.intervention.sites for name in labels(s)]
        missed = [key for key in keys if not any(key in effect.acting for effect in found)]
        if missed:
            found += _effects(model, self.subject.intervention, examples(model, missed))
        progress(step, 1, 1)
        acted = [effect for effect in found if effect.acting]
        ordered = sorted(acted, key=lambda effect: effect.same_tokens)
        kept: list[_Effect] = []
        for key in keys:
            if len(kept) < MOST_PROMPTS and not any(key in effect.acting for effect in kept):
                kept += [effect for effect in ordered if key in effect.acting][:1]
        kept += [effect for effect in ordered if effect not in kept][: MOST_PROMPTS - len(kept)]
        kept.sort(key=lambda effect: effect.same_tokens)
        return [effect.asked for effect in kept], len(found)


def _told(progress: Progress, total: int) -> Callable[[str], str]:
    """Counts the answers, and gives them back."""
    done = count(1)

    def told(answer: str) -> str:
        progress(_STEP, next(done), total)
        return answer

    return told


@dataclass(frozen=True, eq=False)
class _Effect:
    """What an edit does at a prompt.

    Attributes:
        asked: the prompt.
        same_tokens: how many tokens base and hook say alike before the first that differs.
        acting: the edits that act on the prompt.
    """

    asked: Asked
    same_tokens: int
    acting: frozenset[EditKey]


def _effects(model: Model, edit: Intervention, prompts: Sequence[Asked]) -> list[_Effect]:
    """What an edit does at some prompts, all at once."""
    if not prompts:
        return []
    length = max(len(asked.ids) for asked in prompts)
    pads = [length - len(asked.ids) for asked in prompts]
    # Answers begin where prompts end, so that shorter prompts begin later.
    ids = torch.tensor(
        [[asked.ids[0]] * pad + list(asked.ids) for asked, pad in zip(prompts, pads, strict=True)]
    )
    is_text = torch.arange(length) >= torch.tensor(pads)[:, None]
    streams: dict[Place, Tensor] = {}

    def begin() -> Tensor:
        return greedy_tokens(model, ids, _BEGINNING, is_text)

    def begin_seen() -> Tensor:
        with seeing(model, [site.place for site in edit.sites], _first(streams)):
            return begin()

    base, hook = in_step(model, [begin, with_hook(model, edit, begin_seen)])
    same = (base == hook).cumprod(dim=1).sum(dim=1).tolist()
    counted = is_text.clone()
    # The first token of a text counts nowhere.
    counted[torch.arange(len(pads)), torch.tensor(pads)] = False
    acts = {key: (here & counted).any(dim=1) for key, here in _acting(edit, streams).items()}
    return [
        _Effect(asked, same[i], frozenset(key for key, here in acts.items() if here[i]))
        for i, asked in enumerate(prompts)
    ]


def acting_at(model: Model, edit: Intervention, ids: Tensor) -> dict[EditKey, Tensor]:
    """Where each edit acts on one sequence of ids [length]; shape [length] each."""
    places = [site.place for site in edit.sites]
    streams = collect_streams(model, ids[None], places, edit=edit)
    floats = {place: h.float() for place, h in streams.items()}
    return {key: here[0] for key, here in _acting(edit, floats).items()}


def _acting(edit: Intervention, streams: Mapping[Place, Tensor]) -> dict[EditKey, Tensor]:
    """Where each edit acts on streams [sequences, length, d]; shape [sequences, length] each."""
    return {
        (site.place, name): here
        for site in edit.sites
        if site.terms
        for name, here in zip(
            labels(site), acting(site, streams[site.place]).cpu().unbind(dim=-1), strict=True
        )
    }


def _first(streams: dict[Place, Tensor]) -> Callable[[Place, Tensor], None]:
    """Keeps what is seen first: the prompts, and not what is said afterwards."""

    def keep(place: Place, h: Tensor) -> None:
        if place not in streams:
            # The edit may be written into h where it stands.
            streams[place] = h.clone().float()

    return keep
