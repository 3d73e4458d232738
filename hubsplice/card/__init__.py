"""The model card, rendered from manifest and report alone.

In come a manifest, a report and a recipe; out goes README.md. It may import `serving` and what
stands above it.
"""

from hubsplice.card.render import render_card
from hubsplice.card.write import write_card

__all__ = ["render_card", "write_card"]
