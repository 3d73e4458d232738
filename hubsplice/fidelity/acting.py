"""Where an edit acts, which tokens are behind that, and where nothing may change."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from hubsplice.intervention.site import Site


@dataclass(frozen=True, eq=False)
class TokenGroups:
    """The scored tokens of a text, by what an edit does to them; three masks that don't overlap.

    Attributes:
        acted: the edit changes the stream here, shape [sequences, length].
        behind: it has changed the stream at an earlier token of the sequence, same shape.
        elsewhere: neither, same shape.
    """

    acted: Tensor
    behind: Tensor
    elsewhere: Tensor

    @staticmethod
    def of(acted: Tensor, scored: Tensor) -> TokenGroups:
        """The groups of the scored tokens.

        Args:
            acted: where the edit acts, scored or not, shape [sequences, length].
            scored: which tokens count, same shape.
        """
        after = acted.cumsum(dim=1) > 0
        return TokenGroups(acted & scored, after & ~acted & scored, ~after & scored)


def span(site: Site) -> Tensor:
    """An orthonormal basis of the directions that a site's terms write along, shape [k, d]."""
    directions = torch.stack([term.direction for term in site.terms]).double()
    _, sizes, rows = torch.linalg.svd(directions, full_matrices=False)
    return rows[sizes > 1e-9 * sizes.max().clamp(min=1e-30)].float()
