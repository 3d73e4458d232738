"""Base and edited model, one after the other, from their folders; a run that was killed goes on.

Every answer, the neutral text and every task is a line of a record, known by a digest of all that
it depends on. A model is loaded only for what the record has not.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from hubsplice.evaluating.results import (
    AnswersRecord,
    Compared,
    Estimate,
    Evaluation,
    NeutralRecord,
    TaskFigure,
    TaskRecord,
    digest_of,
)
from hubsplice.explore.generating import Sampling
from hubsplice.explore.harness import Figure, Harness
from hubsplice.explore.intervals import Mean, mean
from hubsplice.explore.neutral import divergence, neutral_text, reading
from hubsplice.explore.questions import Questions
from hubsplice.explore.record import Record, key_of
from hubsplice.explore.scorers.base import Scorer
from hubsplice.explore.vllm_answers import Vllm, VllmAnswers
from hubsplice.fidelity.divergence import Readable
from hubsplice.fidelity.effect import text_loss
from hubsplice.streams.model import loaded
from hubsplice.streams.vllm import VllmProcess
from hubsplice.terminal import Progress
from hubsplice.text.ends import end_tokens
from hubsplice.text.sequences import TokenSequences
from hubsplice.text.tokenizer import load_tokenizer

_SIDES = ("base", "edited")


@dataclass(frozen=True, eq=False)
class Models:
    """What is compared.

    Attributes:
        base: the base's folder.
        edited: the checkpoint's.
        base_digest: of all that the base's answers depend on.
        edited_digest: the same of the checkpoint.
        dtype: the precision of both, such as `bfloat16`.
    """

    base: Path
    edited: Path
    base_digest: str
    edited_digest: str
    dtype: str

    def folder(self, side: str) -> Path:
        """The folder of a side."""
        return self.base if side == "base" else self.edited

    def key(self, side: str) -> list[str]:
        """What a side's answers depend on beside the questions."""
        return [self.base_digest if side == "base" else self.edited_digest, self.dtype]


@dataclass(frozen=True, eq=False)
class Asked:
    """Questions and neutral text.

    Attributes:
        prompts: the questions.
        by_author: whether the author chose them.
        scorers: the scores; the first is the target.
        sampling: how answers are drawn.
        plain: whether prompts are continued without the chat template.
        neutral_tokens: of the text on which side effects are measured.
        vllm: what answers; None for transformers in this process.
    """

    prompts: Sequence[str]
    by_author: bool
    scorers: Sequence[Scorer]
    sampling: Sampling
    plain: bool
    neutral_tokens: int
    vllm: Vllm | None = None


def evaluate(
    models: Models,
    asked: Asked | None,
    harness: Harness | None,
    record: Record,
    progress: Progress,
) -> Evaluation:
    """Ask both models the same.

    Args:
        models: base and checkpoint.
        asked: what is asked; None for no questions and no neutral text.
        harness: the tasks; None for none.
        record: what is known, to which more is added.
        progress: told of every step.

    Raises:
        HubspliceError: a model can't be loaded, or what is asked can't be asked.
    """
    answers, neutral = None, None
    if asked is not None:
        answers, neutral = _Asking(models, asked, record, progress).results()
    return Evaluation(
        model=models.edited_digest,
        dtype=models.dtype,
        device="cuda" if torch.cuda.is_available() else "cpu",
        answers=answers,
        neutral=neutral,
        tasks=() if harness is None else tuple(_tasks(models, harness, record, progress)),
    )


class _Asking:
    """Both models' answers, and what they make of neutral text."""

    def __init__(self, models: Models, asked: Asked, record: Record, progress: Progress) -> None:
        self._models, self._asked = models, asked
        self._record, self._progress = record, progress
        self._tokenizer = load_tokenizer(models.edited)
        self._questions = Questions(
            self._tokenizer,
            asked.prompts,
            asked.scorers,
            asked.sampling,
            plain=asked.plain,
            record=record,
        )
        self._text: TokenSequences = neutral_text(asked.neutral_tokens, self._tokenizer)
        self._neutral_key = key_of(
            kind="neutral of two models",
            models=[models.key(side) for side in _SIDES],
            text=self._text.sha256,
        )

    def results(self) -> tuple[AnswersRecord, NeutralRecord]:
        """What the record knows, once it knows all."""
        vllm = self._asked.vllm
        by = [] if vllm is None else ["vllm", vllm.options]
        keys = {side: self._questions.keys([*self._models.key(side), *by], None) for side in _SIDES}
        if vllm is not None:
            self._serve(vllm, keys)
        measured = self._record.get(self._neutral_key) is not None
        read = {}
        for side in _SIDES:
            if not measured or self._questions.missing(keys[side]):
                read[side] = self._run(side, keys[side], reads=not measured)
        if not measured:
            self._measure(read["base"], read["edited"])
        return self._answers(keys), self._neutral()

    def _serve(self, vllm: Vllm, keys: Mapping[str, Sequence[str]]) -> None:
        """Have vLLM answer what is missing; it is gone before a model is loaded here."""
        with VllmProcess(vllm.python) as process:
            answers = VllmAnswers(process, vllm, self._models.dtype)
            for number, side in enumerate(_SIDES):
                folder = self._models.folder(side)
                self._progress(f"answers by vLLM: {side}", number, len(_SIDES))
                self._questions.ask_engine(
                    partial(
                        answers.generate,
                        folder,
                        sampling=self._asked.sampling,
                        ends=end_tokens(self._tokenizer, folder),
                    ),
                    keys[side],
                    side=side,
                )
        self._progress("answers by vLLM", len(_SIDES), len(_SIDES))

    def _run(self, side: str, keys: Sequence[str], *, reads: bool) -> Readable | None:
        folder, dtype = self._models.folder(side), getattr(torch, self._models.dtype)
        self._progress(f"loading the models: {side}", _SIDES.index(side), len(_SIDES))
        with loaded(folder, dtype) as model:
            self._progress(f"loading the models: {side}", _SIDES.index(side) + 1, len(_SIDES))
            self._questions.ask(
                model,
                keys,
                None,
                end_tokens(self._tokenizer, folder),
                lambda done, total: self._progress(f"answers: {side}", done, total),
                side=side,
            )
            if not reads:
                return None
            return reading(
                model,
                self._text.ids,
                lambda done, total: self._progress(f"neutral text: {side}", done, total),
            )

    def _measure(self, base: Readable | None, edited: Readable | None) -> None:
        assert base is not None
        assert edited is not None
        self._record.add(
            self._neutral_key,
            kind="neutral of two models",
            divergence=divergence(edited, base),
            base_loss=self._losses(base),
            edited_loss=self._losses(edited),
        )

    def _losses(self, read: Readable) -> list[float]:
        """In nats a token, for each sequence."""
        ids = self._text.ids
        return [
            text_loss(Readable(read.hidden[i : i + 1], read.head, read.scale), ids[i : i + 1])
            for i in range(len(ids))
        ]

    def _answers(self, keys: dict[str, list[str]]) -> AnswersRecord:
        asked, sampling = self._asked, self._asked.sampling
        base, edited = (self._questions.worth(keys[side]) for side in _SIDES)
        names = [scorer.name for scorer in asked.scorers]
        return AnswersRecord(
            prompts=len(asked.prompts),
            prompts_sha256=digest_of(list(asked.prompts)),
            asked=tuple(asked.prompts),
            chosen="by the author" if asked.by_author else "built in",
            engine=", ".join(self._questions.engines([*keys["base"], *keys["edited"]])),
            form="chat" if self._questions.as_question else "text",
            max_new_tokens=sampling.max_new_tokens,
            temperature=sampling.temperature,
            top_p=sampling.top_p,
            seed=sampling.seed,
            scores=tuple(map(_compared, names, base.scores, edited.scores)),
            distinct=_compared("distinct", base.distinct, edited.distinct),
            length=_compared("length", base.length, edited.length),
        )

    def _neutral(self) -> NeutralRecord:
        known = self._record.get(self._neutral_key)
        assert known is not None
        moved = Estimate.of(mean(known["divergence"]))
        assert moved is not None
        return NeutralRecord(
            dataset=self._text.dataset,
            token_ids_sha256=self._text.sha256,
            tokens=self._text.tokens,
            sequences=len(self._text.ids),
            divergence=moved,
            base_perplexity=_perplexity(known["base_loss"]),
            edited_perplexity=_perplexity(known["edited_loss"]),
        )


def _compared(name: str, base: Mean | None, edited: Mean | None) -> Compared:
    return Compared(name=name, base=Estimate.of(base), edited=Estimate.of(edited))


def _perplexity(losses: Sequence[float]) -> Estimate:
    found = mean(losses)
    assert found is not None
    value, low, high = torch.tensor([found.value, found.low, found.high], dtype=torch.float64).exp()
    return Estimate(value=float(value), low=float(low), high=float(high))


def _tasks(
    models: Models, harness: Harness, record: Record, progress: Progress
) -> Iterator[TaskRecord]:
    keys = {
        (side, task): key_of(kind="task", model=models.key(side), task=harness.known_by(task))
        for side in _SIDES
        for task in harness.tasks
    }
    done = 0
    for side in _SIDES:
        missing = [task for task in harness.tasks if record.get(keys[side, task]) is None]
        done += len(harness.tasks) - len(missing)
        if not missing:
            continue
        with harness.loaded(models.folder(side), models.dtype) as lm:
            for task in missing:
                progress(f"tasks: {side}, {task}", done, len(keys))
                ran = harness.run(lm, task)
                today = datetime.now(UTC).date().isoformat()
                record.add(keys[side, task], kind="task", side=side, date=today, **asdict(ran))
                done += 1
            # The name would hold the model while the other one is loaded.
            del lm
    progress("tasks", len(keys), len(keys))
    for task in harness.tasks:
        base, edited = (record.get(keys[side, task]) for side in _SIDES)
        assert base is not None
        assert edited is not None
        yield _task(task, harness, base, edited)


def _task(task: str, harness: Harness, base: dict[str, Any], edited: dict[str, Any]) -> TaskRecord:
    settings = harness.settings
    others = {(f["metric"], f["filter"]): Figure(**f) for f in base["figures"]}
    pairs = [
        (others[found.metric, found.filter], found)
        for found in (Figure(**figure) for figure in edited["figures"])
        if (found.metric, found.filter) in others
    ]
    return TaskRecord(
        task=task,
        version=edited["version"],
        harness=version("lm_eval"),
        backend=settings.backend,
        engine=edited.get("engine"),
        model_args=settings.model_args,
        num_fewshot=edited["num_fewshot"],
        limit=settings.limit,
        chat=settings.chat,
        questions=edited["questions"],
        dataset=edited["dataset"],
        dataset_config=edited["dataset_config"],
        split=edited["split"],
        date=edited["date"],
        figures=tuple(
            TaskFigure(
                metric=found.metric,
                filter=found.filter,
                higher_is_better=found.higher_is_better,
                base=other.value,
                base_stderr=other.stderr,
                edited=found.value,
                edited_stderr=found.stderr,
            )
            for other, found in pairs
        ),
    )
