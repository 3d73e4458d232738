"""The tokens that end an answer."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from transformers import PreTrainedTokenizerBase

from hubsplice.checkpoint.companions import CONFIG
from hubsplice.errors import CheckpointError
from hubsplice.files.plain import exists
from hubsplice.files.strict_json import read_object

_GENERATION = "generation_config.json"


def end_tokens(tokenizer: PreTrainedTokenizerBase, folder: Path) -> frozenset[int]:
    """The tokens that end an answer, by the tokenizer and by the model's own files.

    Args:
        tokenizer: of the model.
        folder: of the model. Only the end of an answer hangs on its files, so that malformed ones
            are left out.
    """
    told = [tokenizer.eos_token_id]
    for name in (_GENERATION, CONFIG):
        if exists(folder / name):
            with suppress(CheckpointError):
                told += _told(read_object(folder / name))
    found = [i for one in told for i in (one if isinstance(one, list | tuple) else [one])]
    return frozenset(i for i in found if isinstance(i, int))


def _told(fields: Mapping[str, Any]) -> Iterator[Any]:
    """What a file says, or the part of it that is of the text of a model for more."""
    yield fields.get("eos_token_id")
    inner = fields.get("text_config")
    if isinstance(inner, Mapping):
        yield inner.get("eos_token_id")
