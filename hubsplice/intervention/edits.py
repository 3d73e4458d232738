"""The edits of a site, each by its label, and where they act."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from torch import Tensor

from hubsplice.intervention.site import Site


def labels(site: Site) -> tuple[str, ...]:
    """What the edits of a site are called, in order: terms of one label are one edit."""
    return tuple(dict.fromkeys(term.label for term in site.terms))


def edits_of(site: Site) -> Iterator[tuple[str, Site]]:
    """Each edit of a site by its label, as a site of its own."""
    for label in labels(site):
        terms = tuple(term for term in site.terms if term.label == label)
        yield label, replace(site, terms=terms)


def acting(site: Site, h: Tensor) -> Tensor:
    """Where each edit of a site writes anything.

    Args:
        site: the edits.
        h: the stream that they read, shape [..., d].

    Returns:
        Shape [..., edits], in the order of `labels`; never at a sink that the site leaves alone.
    """
    names = labels(site)
    owner = h.new_tensor([names.index(term.label) for term in site.terms]).long()
    writes = (site.activations(h) != 0).int()
    found = writes.new_zeros((*h.shape[:-1], len(names))).index_add_(-1, owner, writes)
    return (found > 0) & ~site.is_sink(h)[..., None]
