"""What a sequence classifier, such as one for sentiment or toxicity, says of an answer."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any, ClassVar, Literal, Self

from pydantic import Field, model_validator

from hubsplice.checkpoint.base import BaseConfig
from hubsplice.checkpoint.companions import SINGLE_WEIGHTS
from hubsplice.checkpoint.resolve import ResolvedBase, resolve_base
from hubsplice.errors import CheckpointError, RecipeError, blamed_on, unknown_name
from hubsplice.explore.scorers.base import SCORERS, Scorable, Scorer
from hubsplice.files.digest import digest_file

_FIELD = "--score: classifier"


@SCORERS.register("classifier")
class Classifier(Scorer):
    """The probability that a classifier gives a label, from 0 to 1.

    It is a model of transformers' own, with safetensors; no code of its repository is run.
    """

    argument: ClassVar[str | None] = "model"
    costly: ClassVar[bool] = True

    kind: Literal["classifier"] = "classifier"
    model: str = Field(
        min_length=1, description="A folder or a Hub id; `MODEL:LABEL` names the label with it."
    )
    label: str = Field(min_length=1, description="The label, as the model's configuration has it.")
    revision: str | None = Field(None, description="The model's commit, branch or tag.")
    reads: Literal["answer", "both"] = Field(
        "answer", description="The answer alone, or the prompt and the answer as a pair."
    )
    sha256: str | None = Field(
        None, description="Of the weights in a local folder; found where it is not given."
    )

    @model_validator(mode="before")
    @classmethod
    def _label_beside(cls, fields: Any) -> Any:
        if isinstance(fields, Mapping) and "label" not in fields:
            model, colon, label = str(fields.get("model", "")).rpartition(":")
            if not colon or not model or not label:
                raise ValueError("the label is missing: expected MODEL:LABEL")
            return dict(fields) | {"model": model, "label": label}
        return fields

    @property
    def name(self) -> str:
        """How a table calls it."""
        return f"classifier={self.model}:{self.label}"

    def ready(self) -> Self:
        """The classifier with its commit or its weights' checksum, fetched and looked at.

        Raises:
            RecipeError: no such model, revision or label.
            CheckpointError: the model is damaged, no safetensors, or can't be fetched.
        """
        found = _found(self.model, self.revision)
        labels = _labels(found.folder)
        if self.label not in labels:
            raise RecipeError(unknown_name(f"{_FIELD}: label", self.label, labels))
        if found.repo_id is not None:
            return self.model_copy(update={"revision": found.commit})
        digest = _digest(found.folder)
        if self.sha256 not in (None, digest):
            raise RecipeError(f"{_FIELD}: sha256: found {digest}, expected {self.sha256}")
        return self.model_copy(update={"sha256": digest})

    def score(self, answer: Scorable) -> float | None:
        """The label's probability; None for an answer without any token.

        Raises:
            HubspliceError: as `ready` raises, or the model can't be loaded.
        """
        texts = (answer.text,) if self.reads == "answer" else (answer.prompt, answer.text)
        return _loaded(self.model, self.revision, self.sha256).probability(texts, self.label)


class _Loaded:
    """A classifier in memory."""

    def __init__(self, folder: Path) -> None:
        import torch
        from transformers import AutoModelForSequenceClassification
        from transformers.utils import logging

        from hubsplice.checkpoint.views import model_view
        from hubsplice.text.tokenizer import load_tokenizer

        logging.disable_progress_bar()
        self._labels = _labels(folder)
        self._tokenizer = load_tokenizer(folder)
        with model_view(folder) as view, blamed_on(f"{folder.name}: it can't be loaded"):
            model, told = AutoModelForSequenceClassification.from_pretrained(
                view,
                local_files_only=True,
                trust_remote_code=False,
                use_safetensors=True,
                output_loading_info=True,
                dtype=torch.float32,
            )
        if told.get("missing_keys"):
            # A model that was trained for something else would get a head of random numbers.
            raise CheckpointError(
                f"{_FIELD}: {folder.name} is no classifier: its weights lack "
                f"{', '.join(sorted(told['missing_keys']))}"
            )
        self._model = model.eval().to("cuda" if torch.cuda.is_available() else "cpu")
        config = self._model.config
        self._apart = config.num_labels == 1 or (
            config.problem_type == "multi_label_classification"
        )
        positions = getattr(config, "max_position_embeddings", None) or (1 << 30)
        # Some count positions from behind the padding's.
        self._longest = min(self._tokenizer.model_max_length, positions - 2)

    def probability(self, texts: tuple[str, ...], label: str) -> float | None:
        """Of a label; each by itself where a text can have several."""
        import torch

        given = self._tokenizer(
            *texts, return_tensors="pt", truncation=True, max_length=self._longest
        )
        if not given["input_ids"].numel():
            return None
        with torch.inference_mode():
            logits = self._model(**given.to(self._model.device)).logits[0].float()
        found = logits.sigmoid() if self._apart else logits.softmax(dim=-1)
        return float(found[self._labels[label]])


def _found(model: str, revision: str | None) -> ResolvedBase:
    return resolve_base(model, revision, weights=True, field=f"{_FIELD}: model")


@lru_cache(maxsize=2)
def _loaded(model: str, revision: str | None, _sha256: str | None) -> _Loaded:
    """A classifier, which is loaded once; other weights in the same folder are another one."""
    return _Loaded(_found(model, revision).folder)


def _labels(folder: Path) -> dict[str, int]:
    """The labels of a model's configuration, and their numbers as further names."""
    from transformers import AutoConfig

    from hubsplice.checkpoint.views import config_view

    base = BaseConfig.open(folder)
    with (
        config_view(folder, base.config) as view,
        blamed_on(f"{_FIELD}: {folder.name}: its configuration can't be read"),
    ):
        config = AutoConfig.from_pretrained(view, local_files_only=True, trust_remote_code=False)
    named = {str(name): int(number) for number, name in config.id2label.items()}
    return {str(number): number for number in named.values()} | named


def _digest(folder: Path) -> str:
    """Of the weights: the file's own, or that of all files' checksums."""
    weight_map = BaseConfig.open(folder).weight_map
    names = {SINGLE_WEIGHTS} if weight_map is None else set(weight_map.values())
    digests = [digest_file(folder / name).sha256 for name in sorted(names)]
    return (
        digests[0] if len(digests) == 1 else hashlib.sha256("".join(digests).encode()).hexdigest()
    )
