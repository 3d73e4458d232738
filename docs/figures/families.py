"""One figure for each construction: its layer, and how neurons make the parts of φ there.

Run as a module, this writes the figures, which are files in git. The curves are computed by the
compiler; a test says when they have to be written again.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from docs.figures import curves
from docs.figures.canvas import (
    CONSTANT,
    CONSTANT_GROUND,
    CONSTANT_INK,
    EDGE,
    GROUND,
    LINE,
    RESULT,
    Canvas,
    Plot,
)
from hubsplice.constructions import bias_free as bias_free_construction
from hubsplice.constructions import layernorm, prenorm
from hubsplice.constructions.sandwich_form import POST_NORM, SANDWICH

FOLDER = Path(__file__).parent

_GATED = prenorm.CONSTANTS[torch.bfloat16]
_PLAIN = layernorm.CONSTANTS[torch.bfloat16]


@dataclass(frozen=True)
class Block:
    """An inserted layer.

    Attributes:
        comes_in: how attention adds the constant a.
        goes_out: how the MLP takes it away.
        norm_before: what the norm before the MLP does; empty where there is none.
        activation: what the MLP computes.
        attention: what attention's weights are.
        norm_behind: whether each block is normalised behind.
    """

    comes_in: str
    goes_out: str
    norm_before: str
    activation: str
    attention: str = "weights zero"
    norm_behind: bool = False


@dataclass(frozen=True)
class Row:
    """How neurons make one part of φ.

    Attributes:
        part: which.
        count: of how many neurons.
        cells: lines of text for every column.
        plot: how they add up.
    """

    part: str
    count: str
    cells: Sequence[Sequence[str]]
    plot: Plot | None = None


@dataclass(frozen=True)
class Figure:
    """A construction.

    Attributes:
        title: of the drawing.
        block: the layer.
        scale: how the scale is dealt with, a line of text each.
        columns: what the cells of the rows are.
        rows: parts of φ.
        thin: what thin curves are.
        notes: what letters stand for.
        dashed: what dashed curves are; empty where there are none.
    """

    title: str
    block: Block
    scale: Sequence[str]
    columns: Sequence[str]
    rows: Sequence[Row]
    thin: str
    notes: str
    dashed: str = ""

    def svg(self) -> str:
        """The file."""
        heights = [_TALL if row.plot else _FLAT for row in self.rows]
        band = 16 * len(self.scale) + 14
        top = _STREAM + 34
        table = top + band + 14
        canvas = Canvas(_PAGE, table + 26 + sum(heights) + 50, self.title)
        _draw_block(canvas, self.block)
        canvas.ground((15, top), (_PAGE - 30, band), fill=GROUND)
        for i, line in enumerate(self.scale):
            canvas.text((28, top + 20 + 16 * i), line)
        places = _COLUMNS[len(self.columns)]
        y = table + 14.0
        for x, name in zip(places, self.columns, strict=True):
            canvas.text((x, y), name, colour=LINE, weight="bold")
        y += 12
        for row, height in zip(self.rows, heights, strict=True):
            canvas.path([(15, y), (_PAGE - 15, y)], colour="#cfd8dc", width=1)
            _draw_row(canvas, row, y, height, places)
            y += height
        canvas.path([(15, y), (_PAGE - 15, y)], colour="#cfd8dc", width=1)
        left = 20.0
        for name, colour, dashed in (
            ("what three tokens of different norms get", RESULT, False),
            (self.thin, EDGE, False),
            (self.dashed, LINE, True),
        ):
            if name:
                canvas.path(
                    [(left, y + 17), (left + 24, y + 17)],
                    colour=colour,
                    width=2 if colour == RESULT else 1,
                    dashed=dashed,
                )
                canvas.text((left + 30, y + 21), name, size=11)
            left += 270
        canvas.text((20, y + 40), self.notes, size=11, colour=LINE)
        return canvas.svg()


_PAGE, _STREAM, _TALL, _FLAT = 760, 150, 84, 40
_COLUMNS = {2: (310, 590), 3: (300, 490, 645)}


def _draw_block(canvas: Canvas, block: Block) -> None:
    """The layer above the stream, which runs to the right."""
    y, row, height = _STREAM, 54, 48
    under, middle = row + height, row + height / 2
    canvas.ground((15, 10), (_PAGE - 30, y + 14), fill=CONSTANT_GROUND, stroke=CONSTANT)
    canvas.text((28, 34), block.comes_in, colour=CONSTANT_INK)
    canvas.text((_PAGE - 28, 34), block.goes_out, colour=CONSTANT_INK, anchor="end")
    canvas.path([(50, y), (680, y)], width=2, arrow=True)
    canvas.text((42, y + 5), "h", size=14, anchor="end")
    canvas.text((686, y + 5), "edited", size=14)
    # Attention, which adds a.
    canvas.path([(72, y - 2), (72, under + 3)], arrow=True)
    canvas.box((58, row), (94, height), ("attention", block.attention))
    added = 122.0
    if block.norm_behind:
        added = 200.0
        canvas.path([(152, middle), (173, middle)], colour=CONSTANT, width=2.4, arrow=True)
        canvas.box((174, row), (52, height), ("norm",))
    canvas.path([(added, under), (added, y - 10)], colour=CONSTANT, width=2.4, arrow=True)
    canvas.plus((added, y))
    canvas.text((added + 8, y - 22), "+ a", size=14, colour=CONSTANT_INK, weight="bold")
    # The MLP, which reads the stream with a.
    read, added = 275.0, 615.0
    canvas.path([(read, y - 2), (read, under + 3)], arrow=True)
    canvas.text((read + 14, y + 18), "h′ = h + a", size=12)
    left = read - 20
    if block.norm_before:
        left = 375.0
        canvas.box((read - 28, row), (92, height), ("norm", block.norm_before))
        canvas.path([(read + 64, middle), (left - 1, middle)], arrow=True)
        canvas.text((read + 81, middle - 7), "x", size=13, anchor="middle")
    else:
        canvas.text((read + 8, y - 22), "h′, as it is", size=13)
    right = 532.0 if block.norm_behind else 588.0
    canvas.box((left, row), (right - left, height), ("MLP", block.activation))
    if block.norm_behind:
        canvas.path([(right, middle), (right + 24, middle)], arrow=True)
        canvas.box((right + 25, row), (116, height), ("norm", "÷ dominant part"))
        canvas.path([(added, under), (added, y - 11)], arrow=True)
    else:
        canvas.path([(right, middle), (added, middle), (added, y - 11)], arrow=True)
    canvas.plus((added, y))
    canvas.text((added - 10, y - 22), "Σ φ·d + c", size=14, anchor="end")
    canvas.text((added + 10, y - 22), "− a", size=14, colour=CONSTANT_INK, weight="bold")


def _draw_row(canvas: Canvas, row: Row, y: float, height: float, places: Sequence[float]) -> None:
    middle = y + height / 2
    canvas.text((24, middle - 2), row.part, weight="bold")
    canvas.text((24, middle + 14), row.count, size=11, colour=LINE)
    if row.plot:
        row.plot.draw(canvas, (140, y + 6), (125, height - 12))
    for x, lines in zip(places, row.cells, strict=True):
        for i, line in enumerate(lines):
            canvas.text((x, middle + 4 - 8 * (len(lines) - 1) + 16 * i), line)


def biased() -> Figure:
    """Biases everywhere."""
    c = f"{_GATED.saturation:g}"
    return Figure(
        "Biases everywhere: the inserted layer and its neurons",
        Block(
            "a comes in as the bias of o_proj",
            "a goes out in the bias of down_proj, c − a",
            "÷ r = rms(h′)",
            "down·(silu(gate·x + β) ⊙ (up·x + γ))",
        ),
        (
            "a is chosen so that ⟨e, a⟩ = b − t. Then ⟨e, x⟩ = (p − t)/r, and its sign is exact.",
            "The scale is read out: r̂ = ⟨w, x⟩ + w₀ ≈ r, fitted by ridge regression.",
        ),
        ("gate", "up", "writes"),
        (
            Row("constant, c", "no neuron", (("none",), ("none",), ("c − a, as a bias",))),
            Row(
                "line, p",
                "one neuron",
                (("K·r̂, far open",), ("⟨e, x⟩ = (p − m)/r",), ("d/K",)),
                curves.line(curves.biased),
            ),
            Row(
                "bend, relu(p − t)",
                "one neuron",
                (("K·⟨e, x⟩ = K·(p − t)/r",), ("r̂ gives r back",), ("d/K",)),
                curves.bend(curves.biased),
            ),
            Row(
                "jump, 1[p > t]",
                "two neurons",
                (
                    (f"s·⟨e, x⟩ + {c}", f"s·⟨e, x⟩ − {c}"),
                    ("1: needs no r",),
                    (f"±d/{2 * _GATED.saturation:g}",),
                ),
                curves.jump(curves.biased),
            ),
        ),
        "with the same r̂ for all; jump: two bends",
        "d: the direction written. K, s: large factors. m: the mean of p, in the place of t in a "
        "line.",
    )


def bias_free() -> Figure:
    """No biases in the MLP."""
    value = f"{-curves.BRANCH_VALUE:.2f}"
    copies = bias_free_construction.CONSTANTS[torch.bfloat16].copies
    return Figure(
        "No biases in the MLP: the inserted layer and its neurons",
        Block(
            "a comes in through o_proj, from a bias of v_proj",
            "a goes out in a sum of squares",
            "÷ r = rms(h′)",
            "down·(silu(gate·x) ⊙ up·x)",
            "zero but o_proj",
        ),
        (
            "⟨e, a⟩ = b − t, so that ⟨e, x⟩ = (p − t)/r and its sign is exact, without a bias.",
            "Bends read the scale out with no intercept: r̂ = ⟨w, x⟩ ≈ r. A line has it from SiLU.",
        ),
        ("gate", "up", "writes"),
        (
            Row(
                "constant, c − a",
                "two per channel",
                (("xᵢ and −xᵢ",), ("the same",), ("(c − a)/width", "Σ xᵢ² = width")),
                curves.squares(curves.bias_free),
            ),
            Row(
                "line, p",
                "one neuron",
                (
                    ("g = ⟨q, x⟩, goes with 1/r:", f"silu(g) = −{value}·r/r₀"),
                    ("⟨e, x⟩ = (p − m)/r",),
                    (f"−d·r₀/{value}",),
                ),
                curves.falling_branch(curves.bias_free),
            ),
            Row(
                "bend, relu(p − t)",
                "one neuron",
                (("K·⟨e, x⟩ = K·(p − t)/r",), ("r̂ gives r back",), ("d/K",)),
                curves.bend(curves.bias_free),
            ),
            Row(
                "jump, 1[p > t]",
                f"two, up to {copies} times",
                (("s·⟨e, x⟩ + δ·xₖ", "s·⟨e, x⟩ − δ·xₖ"), ("⟨wₖ, x⟩ ≈ 1/xₖ",), ("±d/2δ",)),
                curves.jump(curves.bias_free),
            ),
        ),
        "with the same r̂ for all; jump: two bends",
        "K, s: large factors. m: the mean of p. r₀: a typical r. k: one of the channels that hold "
        "a, in which rows differ. Line: silu(g).",
        "∝ 1/g; bold: gates in use",
    )


def _sandwich(construct: curves.Construction, x: str, saturation: float) -> Sequence[Row]:
    return (
        Row(
            "constants",
            "three neurons",
            (("k·u and −k·u",), ("u and −u",), ("dominant part,", "c − a")),
            curves.dominant(construct),
        ),
        Row(
            "line, p",
            "one, many times",
            (("k·u",), (f"⟨e, {x}⟩ + β·u",), ("d",)),
            curves.line(construct),
        ),
        Row(
            "bend, relu(p − t)",
            "one, many times",
            ((f"K·(⟨e, {x}⟩ + β·u)",), ("u",), ("d·k/K",)),
            curves.bend(construct),
        ),
        Row(
            "jump, 1[p > t]",
            "two, many times",
            (
                (
                    f"s·(⟨e, {x}⟩ + β·u) + {saturation:g}·u",
                    f"s·(⟨e, {x}⟩ + β·u) − {saturation:g}·u",
                ),
                ("u",),
                (f"±d·k/{2 * saturation:g}",),
            ),
            curves.jump(construct),
        ),
    )


def sandwich() -> Figure:
    """Norms on both sides."""
    return Figure(
        "Norms on both sides: the inserted layer and its neurons",
        Block(
            "a comes in as the bias of o_proj; the norm sets its length",
            "a goes out among the constants, c − a",
            "÷ r = rms(h′)",
            "down·(gelu(gate·x) ⊙ up·x)",
            norm_behind=True,
        ),
        (
            "u = ⟨v, x⟩ ≈ 1/r, as ⟨v, h′⟩ ≈ 1. All neurons are of degree two in 1/r, and so is",
            "the dominant part, k·u², which the last norm divides by: r cancels.",
        ),
        ("gate", "up", "writes"),
        _sandwich(curves.sandwich, "x", SANDWICH.saturation),
        "before the last norm; jump: two bends",
        "k, K, s: large factors. β = b − t − ⟨e, a⟩, with the mean of p for t in a line. "
        "r in units of its median. Dots: the tokens.",
    )


def post_norm() -> Figure:
    """A norm after each block alone."""
    return Figure(
        "A norm after each block alone: the inserted layer and its neurons",
        Block(
            "a comes in as the bias of o_proj; the norm sets its length",
            "a goes out among the constants, c − a",
            "",
            "down·(silu(gate·h′) ⊙ up·h′)",
            norm_behind=True,
        ),
        (
            "u = ⟨v, h′⟩ ≈ 1. No norm divides on the way in, so that there is no r to give back.",
            "The norm behind divides by the dominant part, k·u²; a bend is then relu(p − t)/u.",
        ),
        ("gate", "up", "writes"),
        _sandwich(curves.post_norm, "h′", POST_NORM.saturation),
        "before the last norm, all but the same; jump: two bends",
        "k, K, s: large factors. β = b − t − ⟨e, a⟩, with the mean of p for t in a line. "
        "Dots: the tokens.",
    )


def plain() -> Figure:
    """LayerNorm and a plain MLP."""
    c = f"{_PLAIN.saturation:g}"
    return Figure(
        "LayerNorm and a plain MLP: the inserted layer and its neurons",
        Block(
            "a comes in as the bias of attention's output",
            "a goes out in the bias of the MLP's output, c − a",
            "(h′ − mean)/r",
            "out·gelu(in·x + β)",
        ),
        (
            "⟨e, a⟩ = b − t, and u = ⟨e, x⟩ = (p − t)/r. There is no up to give r back:",
            "relu(p − t) = r₀·relu(u) + r₀·relu(u)·ρ, and ρ = ⟨w, x⟩ + w₀ ≈ r/r₀ − 1 is read out.",
            "Where the MLP reads beside the attention (GPT-NeoX), a layer in front adds a.",
        ),
        ("what gelu gets", "writes"),
        (
            Row("constant, c", "no neuron", (("none",), ("c − a, as a bias",))),
            Row(
                "bend, relu(p − t)",
                "one neuron, and",
                (("K·u",), ("r₀·d/K",)),
                curves.bend(curves.layernorm),
            ),
            Row(
                "its r₀·relu(u)·ρ",
                f"{_PLAIN.knots} pairs, at knots",
                (("2/Δ·(u − uᵢ) + ε·ρ", "2/Δ·(u − uᵢ) − ε·ρ"), ("±d·r₀·Δ/2ε",)),
                curves.product(curves.layernorm),
            ),
            Row(
                "line, p",
                "two bends",
                (("as bends, of p − m and of m − p",), ("d and −d",)),
                curves.two_bends(curves.layernorm),
            ),
            Row(
                "jump, 1[p > t]",
                "two neurons",
                ((f"s·⟨e, x⟩ + {c}", f"s·⟨e, x⟩ − {c}"), (f"±d/{2 * _PLAIN.saturation:g}",)),
                curves.jump(curves.layernorm),
            ),
        ),
        "bend: K·u alone; line, jump: two bends",
        "K, s: large factors. m: the mean of p. r₀: a typical r. uᵢ: knots, Δ apart. "
        "ε: how far a pair is shifted.",
        "exactly r₀·relu(u)·ρ",
    )


FIGURES: Mapping[str, Callable[[], Figure]] = {
    "biased.svg": biased,
    "bias-free.svg": bias_free,
    "sandwich.svg": sandwich,
    "post-norm.svg": post_norm,
    "layernorm.svg": plain,
}
"""Every construction's file, in this folder."""


if __name__ == "__main__":
    for name, figure in FIGURES.items():
        (FOLDER / name).write_text(figure().svg(), encoding="utf-8")
