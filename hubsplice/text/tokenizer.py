"""The tokenizer of a base model."""

from __future__ import annotations

from pathlib import Path

from transformers import AutoTokenizer, PreTrainedTokenizerBase

from hubsplice.checkpoint.base import BaseConfig
from hubsplice.checkpoint.views import tokenizer_view
from hubsplice.errors import CheckpointError, blamed_on
from hubsplice.text.sequences import TokenSequences


def load_tokenizer(folder: Path) -> PreTrainedTokenizerBase:
    """The tokenizer of a model's folder.

    Raises:
        CheckpointError: transformers can't load it, or what it asks for is refused.
    """
    with (
        tokenizer_view(folder) as view,
        blamed_on(f"{folder.name}: its tokenizer can't be loaded"),
    ):
        tokenizer: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(
            view, local_files_only=True, trust_remote_code=False
        )
    return tokenizer


def require_vocabulary(text: TokenSequences, base: BaseConfig) -> None:
    """Raise `CheckpointError` where the tokenizer gives tokens that the model does not know."""
    largest, size = int(text.ids.max()), base.config.get("vocab_size")
    if isinstance(size, int) and largest >= size:
        raise CheckpointError(
            f"{base.folder.name}: the tokenizer gives token {largest}, and config.json says that "
            f"vocab_size is {size}; is it another model's tokenizer?"
        )
