"""All edits of one recipe: the intermediate representation that hook and compiler both read."""

from __future__ import annotations

from dataclasses import dataclass

from hubsplice.intervention.site import Site


@dataclass(frozen=True, eq=False)
class Intervention:
    """The sites of one recipe, in the order of their places; later sites see earlier edits."""

    sites: tuple[Site, ...]

    def __post_init__(self) -> None:
        places = [site.place for site in self.sites]
        if places != sorted(set(places)):
            raise ValueError(
                "sites must be in layer order, one per layer and block: after layer "
                f"{', '.join(map(str, places))}"
            )
