"""The tokenizer of a base model."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from transformers import AutoTokenizer, PreTrainedTokenizerBase

from hubsplice.checkpoint.base import BaseConfig
from hubsplice.checkpoint.companions import TOKENIZER_CONFIG
from hubsplice.checkpoint.remote_code import code_reasons
from hubsplice.checkpoint.views import tokenizer_view
from hubsplice.errors import CheckpointError, blamed_on
from hubsplice.files.strict_json import read_object
from hubsplice.text.sequences import TokenSequences


def load_tokenizer(folder: Path) -> PreTrainedTokenizerBase:
    """The tokenizer of a model's folder.

    Raises:
        CheckpointError: transformers can't load it, or what it asks for is refused.
    """
    failed = f"{folder.name}: its tokenizer can't be loaded"
    with tokenizer_view(folder) as view:
        try:
            with blamed_on(failed):
                tokenizer: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(
                    view, local_files_only=True, trust_remote_code=False
                )
        except CheckpointError as error:
            for reason in _code_of(folder):
                raise CheckpointError(f"{failed}: {reason}") from error
            raise
    return tokenizer


def _code_of(folder: Path) -> Iterator[str]:
    """That a tokenizer is code of its repository, where it is; transformers advises to run it."""
    path = folder / TOKENIZER_CONFIG
    if path.exists():
        yield from (f"{path.name}: {reason}" for reason in code_reasons(read_object(path)))


def require_vocabulary(text: TokenSequences, base: BaseConfig) -> None:
    """Raise `CheckpointError` where the tokenizer gives tokens that the model does not know."""
    largest, size = int(text.ids.max()), base.config.get("vocab_size")
    if isinstance(size, int) and largest >= size:
        raise CheckpointError(
            f"{base.folder.name}: the tokenizer gives token {largest}, and config.json says that "
            f"vocab_size is {size}; is it another model's tokenizer?"
        )
