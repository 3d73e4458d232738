"""Questions that models answer, and what the answers are worth; what a record knows is kept."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from transformers import PreTrainedTokenizerBase

from hubsplice.explore.generating import Asked, Generated, Sampling, generate
from hubsplice.explore.intervals import Mean, mean
from hubsplice.explore.record import Record, key_of
from hubsplice.explore.scorers.base import Scorable, Scorer
from hubsplice.features.prompt import Prompt
from hubsplice.intervention.intervention import Intervention
from hubsplice.streams.model import Model
from hubsplice.text.chat import has_template
from hubsplice.text.prompts import prompt_tokens

Engine = Callable[
    [Sequence[tuple[str, tuple[int, ...]]], Sequence[Sequence[int]]], tuple[list[Generated], str]
]
"""Takes prompts with their tokens, and sets of tokens to watch for. Gives an answer for each
prompt, and its own name and version."""

_IN_PROCESS = "transformers"
_ROWS_AT_ONCE = 16
_WORD = re.compile(r"\w+")


@dataclass(frozen=True)
class Worth:
    """What the answers of one model are worth, over prompts.

    Attributes:
        scores: for each scorer the mean; None where no answer counts.
        distinct: the share of word triples of an answer that are not repeated in it.
        length: words of an answer.
    """

    scores: tuple[Mean | None, ...]
    distinct: Mean | None
    length: Mean


class Questions:
    """Prompts as tokens, the scorers of their answers, and the record that keeps both."""

    def __init__(
        self,
        tokenizer: PreTrainedTokenizerBase,
        prompts: Sequence[str],
        scorers: Sequence[Scorer],
        sampling: Sampling,
        *,
        plain: bool,
        record: Record,
    ) -> None:
        """Turn the prompts into tokens.

        Args:
            tokenizer: of all models that are asked.
            prompts: at least one.
            scorers: may be none.
            sampling: how answers are drawn.
            plain: whether prompts are continued without the chat template.
            record: what is known, to which more is added.

        Raises:
            RecipeError: a prompt can't be asked.
        """
        self.as_question = has_template(tokenizer) and not plain
        self._tokenizer, self._record = tokenizer, record
        self._prompts, self._scorers, self._sampling = prompts, scorers, sampling
        self._ids = [self._tokens(i, text) for i, text in enumerate(prompts)]
        self._watched = [self._first_tokens(scorer) for scorer in scorers]

    def keys(self, base: Any, edit: Any) -> list[str]:
        """What the record knows the answers of a model by.

        Args:
            base: all that its base depends on, as plain data.
            edit: the same of its edit; None for the base itself.
        """
        return [
            key_of(
                kind="answer",
                base=base,
                edit=edit,
                sampling=asdict(self._sampling),
                question=self.as_question,
                prompt=prompt,
                watched=self._watched,
            )
            for prompt in self._prompts
        ]

    def missing(self, keys: Sequence[str]) -> list[int]:
        """The prompts whose answers the record has not."""
        return [i for i, key in enumerate(keys) if self._record.get(key) is None]

    def ask(
        self,
        model: Model,
        keys: Sequence[str],
        edit: Intervention | None,
        ends: frozenset[int],
        told: Callable[[int, int], None],
        **about: Any,
    ) -> None:
        """Have a model answer what is missing.

        Args:
            model: the model.
            keys: of its answers.
            edit: what is done to it; None for nothing.
            ends: tokens that end an answer.
            told: how many prompts are answered, of how many.
            about: what else the lines of the record say.
        """
        missing = set(self.missing(keys))
        watched = [tokens or [0] for tokens in self._watched]
        for start in range(0, len(keys), _ROWS_AT_ONCE):
            # Always the same rows together: what stands beside a row changes how it is rounded.
            batch = range(start, min(start + _ROWS_AT_ONCE, len(keys)))
            if missing.isdisjoint(batch):
                continue
            told(start, len(keys))
            asked = [Asked(self._ids[i], edit, self._prompts[i]) for i in batch]
            generated = generate(model, asked, self._sampling, ends, watched=watched)
            for i, one in zip(batch, generated, strict=True):
                if i in missing:
                    self._keep(i, keys[i], one, about)
        told(len(keys), len(keys))

    def ask_engine(self, engine: Engine, keys: Sequence[str], **about: Any) -> None:
        """Have a model that something else runs answer what is missing.

        Args:
            engine: what runs it.
            keys: of its answers.
            about: what else the lines of the record say.
        """
        if not (missing := self.missing(keys)):
            return
        asked = [(self._prompts[i], self._ids[i]) for i in missing]
        generated, name = engine(asked, self._watched)
        for i, one in zip(missing, generated, strict=True):
            self._keep(i, keys[i], one, {**about, "engine": name})

    def engines(self, keys: Sequence[str]) -> tuple[str, ...]:
        """What gave the answers that the record has."""
        lines = filter(None, map(self._record.get, keys))
        return tuple(sorted({line.get("engine", _IN_PROCESS) for line in lines}))

    def _keep(self, number: int, key: str, one: Generated, about: Mapping[str, Any]) -> None:
        self._record.add(
            key,
            kind="answer",
            **about,
            prompt=self._prompts[number],
            text=self._tokenizer.decode(list(one.ids), skip_special_tokens=True).strip(),
            ended=one.ended,
            watched=list(one.watched),
        )

    def worth(self, keys: Sequence[str]) -> Worth:
        """What answers are worth that the record has."""
        lines = [line for key in keys if (line := self._record.get(key)) is not None]
        scored = [
            [
                self._score(scorer, Scorable(line["prompt"], line["text"], line["watched"][i]))
                for line in lines
            ]
            for i, scorer in enumerate(self._scorers)
        ]
        words = [_WORD.findall(line["text"].lower()) for line in lines]
        length = mean([float(len(w)) for w in words])
        assert length is not None
        return Worth(
            scores=tuple(mean([v for v in one if v is not None], shares=True) for one in scored),
            distinct=mean([share for w in words if (share := _distinct(w)) is not None]),
            length=length,
        )

    def _score(self, scorer: Scorer, answer: Scorable) -> float | None:
        if not scorer.costly:
            return scorer.score(answer)
        key = key_of(kind="score", scorer=scorer.model_dump(mode="json"), answer=asdict(answer))
        line = self._record.get(key)
        if line is None:
            line = self._record.add(key, kind="score", by=scorer.name, score=scorer.score(answer))
        known: float | None = line["score"]
        return known

    def _tokens(self, number: int, text: str) -> tuple[int, ...]:
        prompt = Prompt(user=text) if self.as_question else Prompt(text=text)
        _, ids = prompt_tokens(f"--prompts, prompt {number + 1}", prompt, self._tokenizer)
        return tuple(ids)

    def _first_tokens(self, scorer: Scorer) -> list[int]:
        """The tokens that each of a scorer's words can begin with, with and without a space."""
        found = set()
        for word in scorer.watched():
            for text in (word, f" {word}"):
                ids = self._tokenizer(text, add_special_tokens=False).input_ids
                found.update(ids[:1])
        return sorted(found)


def _distinct(words: Sequence[str]) -> float | None:
    """The share of word triples that are not repeated; None for fewer than three words."""
    triples = list(zip(words, words[1:], words[2:], strict=False))
    return len(set(triples)) / len(triples) if triples else None
