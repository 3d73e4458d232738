"""What is kept of activations while examples go through a model."""

from __future__ import annotations

import torch
from torch import Tensor

from hubsplice.explore.passes import Seen
from hubsplice.explore.sae_names import PlacedSae


class Tally:
    """Of one SAE over one text: how often and how strongly each feature is active.

    Attributes:
        tokens: how many tokens were seen.
        active: on how many of them each feature is active, shape [features].
        total: the sum of its activations.
        largest: the largest of them.
        texts: in how many examples it is active.
        example: where the largest is, shape [features].
        position: which token of it.
    """

    def __init__(self, placed: PlacedSae) -> None:
        features = placed.sae.config.d_sae
        self.tokens = 0
        self.active = torch.zeros(features, dtype=torch.long)
        self.total = torch.zeros(features, dtype=torch.float64)
        self.largest = torch.zeros(features)
        self.texts = torch.zeros(features, dtype=torch.long)
        self.example = torch.zeros(features, dtype=torch.long)
        self.position = torch.zeros(features, dtype=torch.long)
        self._here: dict[int, Tensor] = {}

    def add(self, seen: Seen) -> None:
        """Count some tokens."""
        found = seen.activations
        self.tokens += len(found)
        if len(found):
            active = found != 0
            self.active += active.sum(dim=0)
            self.total += found.double().sum(dim=0)
            largest, where = found.max(dim=0)
            more = largest > self.largest
            self.largest = torch.where(more, largest, self.largest)
            self.example = torch.where(more, seen.example[where], self.example)
            self.position = torch.where(more, seen.position[where], self.position)
            for number in seen.numbers:
                here = active[seen.example == number].any(dim=0)
                self._here[number] = self._here.get(number, torch.zeros_like(here)) | here
        if seen.last:
            for here in self._here.values():
                self.texts += here
            self._here.clear()

    @property
    def mean(self) -> Tensor:
        """The mean where it is active, and 0 where it never is, shape [features]."""
        return torch.where(self.active > 0, self.total / self.active.clamp(min=1), 0.0)


class Pooled:
    """Of one SAE over examples: one number for each feature in each of them.

    Attributes:
        values: the largest or the mean activation in each example, shape [examples, features].
        tally: of all their tokens.
    """

    def __init__(self, placed: PlacedSae, examples: int, pool: str) -> None:
        self.values = torch.zeros(examples, placed.sae.config.d_sae)
        self.tally = Tally(placed)
        self._mean = pool == "mean"
        self._tokens = torch.zeros(examples)

    def add(self, seen: Seen) -> None:
        """Take some tokens in."""
        self.tally.add(seen)
        for number in seen.numbers:
            here = seen.activations[seen.example == number]
            if self._mean:
                self._tokens[number] += len(here)
                share = len(here) / self._tokens[number]
                self.values[number] += share * (here.mean(dim=0) - self.values[number])
            else:
                self.values[number] = torch.maximum(self.values[number], here.amax(dim=0))
