"""Which tokens a direction promotes and suppresses, read through the model's final norm."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from transformers import PreTrainedTokenizerBase

from hubsplice.errors import UnsupportedError
from hubsplice.explore.contexts import one_line
from hubsplice.streams.model import Model

_NORMS = ("norm", "ln_f", "final_layer_norm")


@dataclass(frozen=True)
class Lens:
    """Tokens by what a direction does to their logits, in standard deviations over the vocabulary.

    Attributes:
        promoted: the most promoted, the first one most.
        suppressed: the most suppressed, likewise.
    """

    promoted: tuple[tuple[str, float], ...]
    suppressed: tuple[tuple[str, float], ...]


def logit_lens(
    model: Model, tokenizer: PreTrainedTokenizerBase, direction: Tensor, top: int = 10
) -> Lens:
    """Read a direction [d] as the model reads its last stream.

    A norm has one scale at each token, which multiplies all logits alike; its weights, which differ
    between channels, are taken into account.
    """
    scores = token_scores(model, direction)
    order = scores.argsort(descending=True).tolist()

    def words(indices: list[int]) -> tuple[tuple[str, float], ...]:
        return tuple((one_line(tokenizer, [i]), float(scores[i])) for i in indices)

    return Lens(words(order[:top]), words(order[: -top - 1 : -1]))


def token_scores(model: Model, direction: Tensor) -> Tensor:
    """The direction's effect on every logit, standardised over the vocabulary, shape [tokens]."""
    norm, head = _final_norm(model), model.get_output_embeddings()
    with torch.inference_mode():
        given = direction.to(head.weight.device, torch.float32)
        # Half of the difference: a norm's bias is no part of what the direction does.
        read = (norm(given[None]) - norm(-given[None]))[0] / 2
        logits = head.weight.float() @ read.float()
    return ((logits - logits.mean()) / logits.std()).cpu()


def _final_norm(model: Model) -> nn.Module:
    decoder = model.get_decoder()
    for name in _NORMS:
        norm = getattr(decoder, name, None)
        if isinstance(norm, nn.Module):
            return norm
    raise UnsupportedError(f"{type(model).__name__}: its final norm is not known")
