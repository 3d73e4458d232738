"""A strength put into a recipe's file, with the evidence above it; all else stays as it is."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from hubsplice.edits.strength import Amount
from hubsplice.errors import OutputError, RecipeError
from hubsplice.explore.swept import Point, Sweep
from hubsplice.files.new_files import write_files
from hubsplice.files.plain import read_plain
from hubsplice.recipe.reading import parse_recipe
from hubsplice.recipe.strengths import Knob, with_strength
from hubsplice.visible import visible

_MADE_BY = "hubsplice sweep:"


def write_strength(path: Path, found: Knob, value: Amount | float, comment: str) -> None:
    """Write a strength into a recipe's file, and a comment above the line that has it.

    Raises:
        RecipeError: the file can't be read, or it would not say what is meant.
        OutputError: it can't be written.
    """
    try:
        text = read_plain(path).decode()
    except (OSError, UnicodeDecodeError) as error:
        raise RecipeError(f"{path}: can't be read: {error}") from None
    meant = with_strength(parse_recipe(text, folder=path.parent), found, value)
    new = replaced(text, found, value, comment)
    if parse_recipe(new, folder=path.parent) != meant:
        raise OutputError(
            f"{path}: the strength can't be put in place; write {found.path}: {found.shown(value)}"
        )
    write_files({path.name: new}, path.parent, force=True)


def replaced(text: str, found: Knob, value: Amount | float, comment: str) -> str:
    """The text of a recipe with another strength.

    Raises:
        RecipeError: the field is not where it is meant to be.
    """
    node: Any = yaml.compose(text, Loader=yaml.SafeLoader)
    for step in ("splices", found.splice, "edits", found.edit, found.field):
        node = _inside(node, step)
        if node is None:
            raise RecipeError(f"{found.path}: it is not in the recipe's file")
    start, end = node.start_mark.index, node.end_mark.index
    changed = text[:start] + _written(value) + text[end:]
    if text.lstrip().startswith("{"):
        # JSON has no comments.
        return changed
    line = text.rfind("\n", 0, start) + 1
    indent = " " * (len(text[line:]) - len(text[line:].lstrip(" ")))
    before = changed[:line]
    last = before.rfind("\n", 0, max(line - 1, 0)) + 1
    if before[last:].lstrip().startswith(f"# {_MADE_BY}"):
        # What was found earlier is of another strength.
        before = before[:last]
    return f"{before}{indent}# {comment}\n{changed[line:]}"


def evidence(sweep: Sweep, point: Point) -> str:
    """What a sweep found of one strength, in a line."""
    target = point.target
    assert target is not None
    return visible(
        f"{_MADE_BY} {sweep.scorers[0]} {target.value:.3g} [{target.low:.2g}, "
        f"{target.high:.2g}] on {sweep.prompts} prompts, KL {point.divergence.value:.3g} nats a "
        f"token; {Path(sweep.answers).name}".replace("\n", " ")
    )


def told_in(path: Path) -> tuple[str, ...]:
    """What sweeps wrote into a recipe's file, one line for each strength.

    Raises:
        RecipeError: the file can't be read.
    """
    try:
        lines = read_plain(path).decode().splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise RecipeError(f"{path}: can't be read: {error}") from None
    told = f"# {_MADE_BY} "
    return tuple(
        visible(line.strip().removeprefix(told)) for line in lines if line.strip().startswith(told)
    )


def _inside(node: Any, step: str | int) -> Any:
    if isinstance(step, int):
        known = isinstance(node, yaml.SequenceNode) and step < len(node.value)
        return node.value[step] if known else None
    if not isinstance(node, yaml.MappingNode):
        return None
    return next((value for key, value in node.value if key.value == step), None)


def _written(value: Amount | float) -> str:
    if isinstance(value, float):
        return repr(value)
    return repr(value.value) if value.unit == "sae" else f"{value.value!r} x {value.unit}"
