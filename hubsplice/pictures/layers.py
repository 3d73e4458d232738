"""The layer map: which layers of a model are the base's, and which were inserted."""

from __future__ import annotations

from collections.abc import Iterator

from hubsplice.checkpoint.layer_map import FromBase, FromSplice, inserted_indices
from hubsplice.checkpoint.manifest import Manifest
from hubsplice.pictures.canvas import BASE, FAINT, LINE, SPLICE, WIDTH, Canvas, readable

_LEFT, _TOP, _PER_ROW = 76, 58, 32
_HALF, _ROW, _STEP = 15, 58, 18
_MOST_LINES, _LONGEST = 8, 114
_WIDEST_CELL = 30


def layers_description(manifest: Manifest) -> str:
    """What the picture shows, for those who can't see it."""
    total = len(manifest.layer_map)
    made = [sentence for _, sentence in _sentences(manifest)]
    base = f"Layer map: of {total} layers, {total - len(manifest.layers)} are the base's, unchanged"
    return "; ".join([base, *made[:_MOST_LINES]])


def layers_picture(manifest: Manifest) -> bytes:
    """The picture; see the module."""
    total = len(manifest.layer_map)
    rows = -(-total // _PER_ROW)
    said = list(_sentences(manifest))
    more = len(said) - _MOST_LINES
    shown = said[:_MOST_LINES]
    below = _TOP + rows * _ROW
    canvas = Canvas(below + _STEP * (len(shown) + (more > 0)) + 8)
    _legend(canvas, biases=bool(manifest.biases))
    biased = set(_biased(manifest))
    width = min(_WIDEST_CELL, (WIDTH - _LEFT - 14) / min(total, _PER_ROW))
    for index, layer in enumerate(manifest.layer_map):
        row, column = divmod(index, _PER_ROW)
        x, y = _LEFT + column * width, _TOP + row * _ROW
        if column == 0:
            canvas.text(_LEFT - 8, y + 11, "attention", size=10, colour=FAINT, align="right")
            canvas.text(_LEFT - 8, y + _HALF + 12, "MLP", size=10, colour=FAINT, align="right")
        for half, origin in enumerate((layer.attention, layer.mlp)):
            fill = SPLICE if isinstance(origin, FromSplice) else BASE
            canvas.box(x + 1, y + half * (_HALF + 1), width - 2, _HALF, fill=fill)
        if index in biased:
            canvas.box(x + 1, y + 2 * _HALF - 3, width - 2, 4, fill=SPLICE)
        new = isinstance(layer.mlp, FromSplice) or index in biased
        canvas.text(
            x + width / 2,
            y + 2 * _HALF + 14,
            str(index),
            size=9,
            colour=SPLICE if new else FAINT,
            bold=new,
            align="center",
        )
    for line, (_, sentence) in enumerate(shown):
        words = readable(f"{sentence[0].upper()}{sentence[1:]}", _LONGEST)
        canvas.text(14, below + _STEP * line + 8, words)
    if more > 0:
        canvas.text(14, below + _STEP * len(shown) + 8, f"And {more} more.", colour=FAINT)
    return canvas.png()


def _legend(canvas: Canvas, *, biases: bool) -> None:
    entries = [(BASE, "the base's, byte for byte"), (SPLICE, "inserted")]
    canvas.text(14, 22, "The layers of this model", size=13, bold=True)
    x = 14.0
    for colour, words in entries:
        canvas.box(x, 34, 12, 12, fill=colour)
        canvas.text(x + 18, 44, words)
        x += 210
    if biases:
        canvas.box(x, 34, 12, 12, fill=BASE, edge=LINE)
        canvas.box(x, 42, 12, 4, fill=SPLICE)
        canvas.text(x + 18, 44, "the base's, with a bias that is the edit")


def _sentences(manifest: Manifest) -> Iterator[tuple[int, str]]:
    """What was inserted where, in the order of the layers."""
    found = []
    for index, layer in zip(inserted_indices(manifest.layer_map), manifest.layers, strict=True):
        there = f"layer {index} is inserted after the base's layer {layer.place}"
        found.append((index, f"{there}{_edits([term.label for term in layer.terms])}"))
    for index, bias in zip(_biased(manifest), manifest.biases, strict=True):
        edits = _edits([term.label for term in bias.terms])
        found.append((index, f"layer {index}, the base's, has a bias{edits}"))
    yield from sorted(found)


def _edits(labels: list[str]) -> str:
    names = list(dict.fromkeys(labels))
    if not names:
        return " and adds no edit of its own"
    more = f" and {len(names) - 1} more" if len(names) > 1 else ""
    return f": {readable(names[0], 56)}{more}"


def _biased(manifest: Manifest) -> list[int]:
    """The index of each layer of the base that carries an edit in a bias."""
    origins = [layer.mlp for layer in manifest.layer_map]
    return [origins.index(FromBase(base=bias.site)) for bias in manifest.biases]
