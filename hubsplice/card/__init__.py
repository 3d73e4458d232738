"""The model card of a spliced checkpoint."""

from hubsplice.card.render import render_card
from hubsplice.card.write import write_card

__all__ = ["render_card", "write_card"]
