"""Kullback-Leibler divergences between models, from their last hidden states."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from hubsplice.errors import FidelityError

_LOGITS_AT_ONCE = 2**24
_WIDE_AT_ONCE = 2**18
"""Logits that are in float64 together on a CPU: two megabytes, so that they stay in its caches."""


@dataclass(frozen=True)
class LogitScale:
    """What some families do to the products of hidden states and output embeddings.

    Attributes:
        factor: multiplies them.
        softcap: then bounds them smoothly, as softcap·tanh(·/softcap); None where nothing does.
    """

    factor: float = 1.0
    softcap: float | None = None

    @staticmethod
    def of(config: Mapping[str, Any]) -> LogitScale:
        """What a decoder's configuration says, by the names that transformers' classes read."""
        factor = float(config.get("logit_scale") or 1.0) / float(config.get("logits_scaling") or 1)
        return LogitScale(factor, config.get("final_logit_softcapping"))

    def __call__(self, logits: Tensor) -> Tensor:
        """The logits proper, in the same dtype and shape."""
        if self.factor != 1.0:
            logits = logits * self.factor
        if self.softcap is not None:
            logits = (logits / self.softcap).tanh() * self.softcap
        return logits


@dataclass(frozen=True, eq=False)
class Readable:
    """Hidden states and the output embeddings that read them.

    Attributes:
        hidden: shape [sequences, length, d].
        head: shape [vocabulary, d]; read in the dtype of the states.
        scale: what is done to their products.
    """

    hidden: Tensor
    head: Tensor
    scale: LogitScale = LogitScale()


@dataclass(frozen=True, eq=False)
class Comparison:
    """A model against the reference, token by token.

    Attributes:
        divergence: KL(reference ‖ model) in nats, shape [sequences, length], float64.
        same_top: whether both rank the same token first, same shape.
        losses: what the reference and the model lose on the token that follows, in nats, each of
            shape [sequences, length - 1]; None where the tokens were not given.
    """

    divergence: Tensor
    same_top: Tensor
    losses: tuple[Tensor, Tensor] | None = None


def require_finite(found: Mapping[str, Tensor]) -> None:
    """Refuse what is NaN or infinite.

    Args:
        found: by the name of a model, numbers of shape [..., n] for each token.

    Raises:
        FidelityError: with the models, and at how many tokens.
    """
    finite = {name: values.isfinite().all(dim=-1) for name, values in found.items()}
    which = ", ".join(
        f"{name} at {int((~tokens).sum()):,} of {tokens.numel():,} tokens"
        for name, tokens in finite.items()
        if not tokens.all()
    )
    if which:
        raise FidelityError(
            f"fidelity can't be measured: logits are not finite ({which}); the base's weights or "
            "an edit overflow"
        )


def compare(
    reference: Readable,
    others: Mapping[str, Readable],
    ids: Tensor | None = None,
    progress: Callable[[int, int], None] = lambda _done, _total: None,
) -> dict[str, Comparison]:
    """Compare models with a reference over the same tokens.

    Logits are computed in each model's own dtype, as it serves them, and turned to
    probabilities in float64: sums over a vocabulary in float32 would be off by more than the
    divergences of two float32 models. Only a slice of them is in memory at a time.

    Args:
        reference: what the others are compared with.
        others: by any name. One may have been run over the first sequences alone.
        ids: the tokens, shape [sequences, length], where losses are wanted too.
        progress: told how many tokens are done, and how many there are.

    Raises:
        FidelityError: logits are NaN or infinite.
    """
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    length = reference.hidden.shape[1]
    states = {name: other.hidden.flatten(end_dim=1) for name, other in others.items()}
    every = (reference, *others.values())
    # One that stays on the disk takes memory in the precision of the states from here on.
    heads = {(id(r.head), r.hidden.dtype): r.head for r in every}
    heads = {key: head.to(device, key[1]) for key, head in heads.items()}
    truth = reference.hidden.flatten(end_dim=1)
    step = max(1, _LOGITS_AT_ONCE // len(reference.head))
    # A GPU has no such caches, and is slower in small steps.
    wide_step = step if device.type == "cuda" else max(1, _WIDE_AT_ONCE // len(reference.head))
    # Room for all results, and for the logits of one step, is made once: a heap in which small
    # results lie between large steps that come and go grows by gigabytes.
    tokens = len(truth)
    room = torch.empty(
        (4, min(wide_step, tokens), len(reference.head)), dtype=torch.float64, device=device
    )
    counts = {name: len(of) for name, of in states.items()}
    divergences = {name: torch.empty(n, dtype=torch.float64) for name, n in counts.items()}
    tops = {name: torch.empty(n, dtype=torch.bool) for name, n in counts.items()}
    loss_of_truth = torch.empty(tokens, dtype=torch.float64)
    losses = {name: torch.empty(n, dtype=torch.float64) for name, n in counts.items()}
    # What follows the last token of a sequence is not known, and its loss is left out below.
    following = None if ids is None else ids.roll(-1, dims=1).flatten()

    def note_loss(into: Tensor, found: Tensor, part: slice) -> None:
        if following is not None:
            wanted = following[part, None].to(device)
            into[part] = -found.gather(-1, wanted)[:, 0].cpu()

    def logits(hidden: Tensor, of: Readable) -> Tensor:
        return of.scale(functional.linear(hidden.to(device), heads[id(of.head), of.hidden.dtype]))

    with torch.inference_mode():
        for start in range(0, tokens, step):
            progress(start, tokens)
            part = slice(start, start + step)
            of_truth = logits(truth[part], reference)
            of_others = {name: logits(states[name][part], o) for name, o in others.items()}
            for rows in range(start, start + len(of_truth), wide_step):
                some = slice(rows, min(rows + wide_step, start + len(of_truth)))
                inner = slice(some.start - start, some.stop - start)
                wide, wanted, probabilities, _ = room[:, : some.stop - rows]
                torch.log_softmax(wide.copy_(of_truth[inner]), -1, out=wanted)
                torch.exp(wanted, out=probabilities)
                top = wanted.argmax(dim=-1)
                note_loss(loss_of_truth, wanted, some)
                for name, of_other in of_others.items():
                    own = of_other[inner]
                    if not len(own):
                        continue
                    same = slice(rows, rows + len(own))
                    wide, wanted, probabilities, found = room[:, : len(own)]
                    torch.log_softmax(wide.copy_(own), -1, out=found)
                    tops[name][same] = (found.argmax(dim=-1) == top[: len(own)]).cpu()
                    note_loss(losses[name], found, same)
                    terms = found.neg_().add_(wanted).mul_(probabilities)
                    # Of two distributions that are almost equal it may be a little below zero.
                    divergences[name][same] = terms.sum(dim=-1).clamp(min=0).cpu()
    progress(tokens, tokens)
    require_finite({name: of[:, None] for name, of in divergences.items()})

    def shaped(values: Tensor) -> Tensor:
        return values.reshape(-1, length)

    def both(name: str) -> tuple[Tensor, Tensor] | None:
        if following is None:
            return None
        own = loss_of_truth[: counts[name]]
        return shaped(own)[:, :-1], shaped(losses[name])[:, :-1]

    return {
        name: Comparison(shaped(divergences[name]), shaped(tops[name]), both(name))
        for name in others
    }
