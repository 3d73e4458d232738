"""The model card, made from manifest, report and recipe alone.

Input: a manifest, a report and a recipe. Output: README.md. May import `serving` and what is above
it.
"""

from hubsplice.card.render import render_card
from hubsplice.card.write import edited_card, stale_figures, write_card

__all__ = ["edited_card", "render_card", "stale_figures", "write_card"]
