"""The check of an inserted layer that suits its construction."""

from __future__ import annotations

from typing import Any

from hubsplice.constructions.bias_free_layer import BiasFreeLayer
from hubsplice.constructions.layernorm_layer import PlainLayer
from hubsplice.constructions.prenorm_layer import SplicedLayer
from hubsplice.constructions.sandwich_layer import SandwichLayer
from hubsplice.intervention.site import Site
from hubsplice.proving.bias_free import BiasFreeCheck
from hubsplice.proving.findings import Findings
from hubsplice.proving.gated import GatedCheck
from hubsplice.proving.layer_check import LayerCheck
from hubsplice.proving.plain import PlainCheck
from hubsplice.proving.sandwich import SandwichCheck
from hubsplice.proving.stored_layer import StoredLayer

_CHECKS: dict[type, type[LayerCheck[Any]]] = {
    SplicedLayer: GatedCheck,
    BiasFreeLayer: BiasFreeCheck,
    PlainLayer: PlainCheck,
    SandwichLayer: SandwichCheck,
}


def checked(stored: StoredLayer, site: Site, median_norm: float) -> Findings:
    """What the weights of an inserted layer do, and what they have no business to do."""
    check = _CHECKS[type(stored.layer)](stored, site, median_norm)
    try:
        check.check()
    except IndexError:
        check.findings.wrong(check.first, None, f"{check.used} neurons are too few for these edits")
    except (ArithmeticError, RuntimeError, ValueError) as error:
        # Numbers that no edit and no layer have: of size zero, or beyond all bounds.
        check.findings.wrong(check.first, None, f"it can't be worked out: {error}")
    return check.findings
