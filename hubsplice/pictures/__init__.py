"""The pictures of a card, as PNG: the layer map, the response curves, the divergences.

They are drawn from the manifest and the report alone, by matplotlib, with a font that it brings, so
that `verify` can draw them again. PNG is what every page shows, and it can't hold a program.
"""
