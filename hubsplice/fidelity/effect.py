"""What an edit does to the text, in words: whether one sees it, and whether text survives it.

Fidelity says how close a splice is to its hook. A hook may do nothing that one could see, or leave
no text behind, and the splice is then just as faithful. So the float32 hook is compared with the
float32 base:

- where the edit acts: KL(hook ‖ base) there;
- on held-out text: how much worse the hook predicts it, in nats per token;
- on text of its own: hook and base continue the same prompts with the same random numbers. What the
  base loses per token on the hook's continuations, beyond what the hook loses on them itself, says
  how strange they are; a continuation that is the same to the end says that nothing happened.

Text that has fallen into repetition is not strange to the base, and held-out text tells it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional

from hubsplice.fidelity.divergence import Readable
from hubsplice.fidelity.report import EditEffect
from hubsplice.fidelity.runs import beginnings, in_step, sampled_tokens, with_hook
from hubsplice.intervention.intervention import Intervention
from hubsplice.streams.model import Model

Word = Literal["hardly visible", "visible", "strong", "breaks the text"]

BREAKS, STRONG = 0.75, 0.2
"""Nats per token that held-out text, or the edited model's own, is stranger by."""

HARDLY, UNCHANGED = 0.02, 0.1
"""Nats where the edit acts, and the share of continuations that it changes."""

_SCORED_TOKENS = 2048
_LOGITS_AT_ONCE = 2**25


@dataclass(frozen=True, eq=False)
class Continued:
    """Prompts that base and hook have continued with the same random numbers.

    Attributes:
        base: what the base wrote, shape [prompts, new tokens].
        edited: what the hook wrote, same shape.
        base_loss: of the base on what it wrote, in nats per token.
        edited_loss: of the base on what the hook wrote.
        edited_self_loss: of the hook on that.
    """

    base: Tensor
    edited: Tensor
    base_loss: float
    edited_loss: float
    edited_self_loss: float

    @staticmethod
    def of(model: Model, edit: Intervention, ids: Tensor) -> Continued:
        """Continue the beginnings of some sequences of ids [sequences, length] with the base."""
        prompts = beginnings(ids)

        def sample() -> Tensor:
            return sampled_tokens(model, prompts)

        def loss(of: Tensor) -> Callable[[], float]:
            return lambda: _own_loss(model, prompts, of)

        base, edited = in_step(model, [sample, with_hook(model, edit, sample)])
        under_hook = with_hook(model, edit, loss(edited))
        losses = in_step(model, [loss(base), loss(edited), under_hook])
        return Continued(base, edited, *losses)


def edit_effect(
    continued: Continued,
    base_text_loss: float,
    edited_text_loss: float,
    divergence: Tensor,
    acted: Tensor,
    ordinary: Tensor,
) -> EditEffect:
    """What an edit does, with the word for it.

    Args:
        continued: prompts, by base and hook.
        base_text_loss: of the base on held-out text, in nats per token.
        edited_text_loss: of the hook.
        divergence: KL(hook ‖ base), shape [sequences, length].
        acted: where any edit acts, of the tokens that count, same shape.
        ordinary: the tokens that count and were drawn at random, same shape.
    """
    share = float((acted & ordinary).sum()) / max(1, int(ordinary.sum()))
    found = EditEffect(
        word="visible",
        acted_share=share,
        acted_effect=float(divergence[acted].mean()) if acted.any() else None,
        base_text_loss=base_text_loss,
        edited_text_loss=edited_text_loss,
        base_own_loss=continued.base_loss,
        edited_own_loss=continued.edited_loss,
        edited_self_loss=continued.edited_self_loss,
        prompts=len(continued.base),
        new_tokens=continued.base.shape[1],
        same_continuations=int((continued.base == continued.edited).all(dim=1).sum()),
    )
    return found.model_copy(update={"word": word_of(found)})


def word_of(effect: EditEffect) -> Word:
    """The word for what was measured."""
    harm = max(
        effect.edited_text_loss - effect.base_text_loss,
        effect.edited_own_loss - effect.edited_self_loss,
    )
    if harm > BREAKS:
        return "breaks the text"
    if harm > STRONG:
        return "strong"
    changed = 1 - effect.same_continuations / effect.prompts
    if changed <= UNCHANGED and (effect.acted_effect or 0.0) < HARDLY:
        return "hardly visible"
    return "visible"


def _own_loss(model: Model, prompts: Tensor, tokens: Tensor) -> float:
    ids = torch.cat([prompts, tokens], dim=1).to(model.device)
    first = prompts.shape[1]
    with torch.inference_mode():
        logits = model(ids, use_cache=False).logits[:, first - 1 : -1].float()
        return float(functional.cross_entropy(logits.transpose(1, 2), ids[:, first:]))


def scored_sequences(ids: Tensor) -> int:
    """How many of some sequences [n, length], the first ones, a loss on text is the mean over."""
    return min(len(ids), max(1, _SCORED_TOKENS // ids.shape[1]))


def text_loss(read: Readable, ids: Tensor) -> float:
    """What a model loses on its text, in nats per token, over a part of it.

    Args:
        read: its last hidden states on ids, with its output embeddings.
        ids: shape [sequences, length].
    """
    sequences = scored_sequences(ids)
    hidden, following = read.hidden[:sequences, :-1].flatten(end_dim=1), ids[:sequences, 1:]
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    head, wanted = read.head.to(device, hidden.dtype), following.flatten().to(device)
    step = max(1, _LOGITS_AT_ONCE // len(head))
    total = 0.0
    with torch.inference_mode():
        for start in range(0, len(hidden), step):
            part = slice(start, start + step)
            logits = read.scale(functional.linear(hidden[part].to(device), head)).float()
            total += float(functional.cross_entropy(logits, wanted[part], reduction="sum"))
    return total / len(hidden)
