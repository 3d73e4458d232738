"""Text that has nothing to do with an edit, and how far a model on it is from another one."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor
from transformers import PreTrainedTokenizerBase

from hubsplice.fidelity.divergence import Readable, compare
from hubsplice.fidelity.runs import head_weight, logit_scale, run_model
from hubsplice.recipe.models import TextSource
from hubsplice.streams.model import Model
from hubsplice.text.sequences import TokenSequences, load_sequences

_SEQUENCE = 128


def neutral_text(tokens: int, tokenizer: PreTrainedTokenizerBase) -> TokenSequences:
    """Built-in text of many kinds, the same for everybody."""
    source = TextSource(tokens=tokens, sequence_length=_SEQUENCE)
    return load_sequences(source, tokenizer, seed=0, part="held-out")


def reading(model: Model, ids: Tensor, told: Callable[[int, int], None]) -> Readable:
    """A model's last hidden states on ids [sequences, length]."""
    hidden = run_model(model, ids, (), told).hidden
    return Readable(hidden, head_weight(model), logit_scale(model))


def divergence(edited: Readable, base: Readable) -> list[float]:
    """KL(edited ‖ base) in nats a token, for each sequence, without its first token."""
    found = compare(edited, {"base": base})["base"].divergence[:, 1:]
    return found.mean(dim=1).tolist()
