"""All edits of one recipe: the intermediate representation that hook and compiler both read."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from math import isfinite

from hubsplice.intervention.site import Site
from hubsplice.rendering.content import Part, Table
from hubsplice.rendering.rendered import Rendered


@dataclass(frozen=True, eq=False, repr=False)
class Intervention(Rendered):
    """The sites of one recipe, in the order of their places; later sites see earlier edits."""

    sites: tuple[Site, ...]

    def __post_init__(self) -> None:
        places = [site.place for site in self.sites]
        if places != sorted(set(places)):
            raise ValueError(
                "sites must be in layer order, one per layer and block: after layer "
                f"{', '.join(map(str, places))}"
            )

    def content(self) -> Iterable[Part]:
        """Every edit, and where it acts."""
        rows = tuple(
            (str(site.place), term.label, "left alone" if isfinite(site.sink_norm) else "edited")
            for site in self.sites
            for term in site.terms
        )
        return [Table.of_text(("after layer", "edit", "attention sinks"), rows, "Exact hook")]


NO_EDIT = Intervention(())
