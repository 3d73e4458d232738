"""Strengths of one edit: what each gains, and what it costs."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from hubsplice.errors import OutputError, RecipeError
from hubsplice.files.new_files import require_folder_of
from hubsplice.interface.progress import ProgressChoice, reporting
from hubsplice.interface.scorers import prompts_of, scorer_of
from hubsplice.interface.sources import AnyPath, RecipeSource, as_path, as_recipe

if TYPE_CHECKING:
    from hubsplice.explore.harness import Harness
    from hubsplice.explore.swept import Sweep

_SUFFIX = ".sweep.jsonl"


def sweep(
    recipe: RecipeSource,
    prompts: AnyPath | Sequence[str],
    scores: Sequence[str | Mapping[str, Any]],
    strengths: Sequence[float | str],
    *,
    edit: int | None = None,
    layers: Sequence[int] = (),
    want: Literal["more", "less"] = "more",
    plain: bool = False,
    max_new_tokens: int = 80,
    temperature: float = 0.0,
    top_p: float = 1.0,
    seed: int = 0,
    neutral_tokens: int = 1024,
    side_effects: Sequence[str] = (),
    include_path: AnyPath | None = None,
    limit: int | None = None,
    answers: AnyPath | None = None,
    plot: AnyPath | None = None,
    write: bool = False,
    progress: ProgressChoice = True,
) -> Sweep:
    """Compare strengths of an edit: scores of its answers against its side effects.

    Every strength answers the same prompts with the same random numbers. Side effects are KL and
    perplexity on neutral text, repeated words and length. What was computed is kept in a file, and
    a sweep that was stopped goes on where it was.

    Args:
        recipe: a `Recipe`, its fields as a mapping, or the path of a YAML file.
        prompts: a file with one prompt a line, or the prompts; the more, the narrower the
            intervals.
        scores: what answers are scored by, such as `regex=colou?r`, `tokens=yes,Yes` or
            `compiles`; `@` and a YAML file with a scorer's `kind` and fields; or these fields as a
            mapping. The first is the target.
        strengths: what to set the edit's strength to, as in `answers`.
        edit: which edit, as in `answers`.
        layers: places to try, each with every strength; the recipe's own where none is given.
        want: whether more of the target is wanted, or less.
        plain: as in `answers`.
        max_new_tokens: as in `answers`.
        temperature: as in `answers`.
        top_p: as in `answers`.
        seed: as in `answers`.
        neutral_tokens: of the text on which side effects are measured.
        side_effects: more of them: `lm_eval=TASK` is a task of lm-evaluation-harness, run on the
            hook. It needs the extra `evaluate` of this package.
        include_path: a folder with more tasks.
        limit: how many questions of each task are asked; all where it is None.
        answers: the file that answers are kept in; beside the recipe's file where none is given.
        plot: a file to draw the comparison in, `.svg` or `.png`.
        write: whether the recommended strength is written into the recipe's file, with the
            evidence in a comment.
        progress: as in `build`.

    Returns:
        Every strength with its scores and side effects, and which is recommended.

    Raises:
        HubspliceError: as `build` raises; a `RecipeError` for a wrong argument, an `OutputError`
            for a file that can't be written.
    """
    parsed = as_recipe(recipe)
    file = as_path(recipe) if isinstance(recipe, str | os.PathLike) else None
    if write and (file is None or layers):
        what = "a recipe's file" if file is None else "one place; leave --layers out"
        raise RecipeError(f"--write: it needs {what}")
    kept = answers_file(file, answers)
    drawing = None if plot is None else _drawing(as_path(plot))
    from hubsplice.explore.generating import Sampling
    from hubsplice.explore.sweep import Asking
    from hubsplice.explore.sweep import sweep as sweep_recipe
    from hubsplice.explore.writing import evidence, write_strength
    from hubsplice.recipe.strengths import knob

    asking = Asking(
        edit=edit,
        strengths=[str(one) for one in strengths],
        layers=layers,
        prompts=prompts_of(prompts),
        scorers=[scorer_of(one) for one in scores],
        want=want,
        sampling=Sampling(max_new_tokens, temperature, top_p, seed),
        plain=plain,
        neutral_tokens=neutral_tokens,
        harness=_harness(side_effects, include_path, limit),
    )
    if not asking.scorers:
        raise RecipeError("--score: missing; say what answers are scored by")
    with reporting(progress) as report:
        found = sweep_recipe(parsed, asking, kept, report)
    if drawing is not None:
        try:
            drawing.write_bytes(_drawn(found, drawing))
        except OSError as error:
            raise OutputError(f"{drawing}: cannot be written: {error.strerror}") from None
    chosen = found.chosen
    if write and file is not None and chosen is not None:
        which = knob(parsed, edit)
        values = {which.shown(v): v for v in map(which.parse, asking.strengths)}
        write_strength(file, which, values[chosen.name], evidence(found, chosen))
    return found


def answers_file(file: Path | None, answers: AnyPath | None) -> Path:
    """Where a sweep keeps what it has computed.

    Args:
        file: the recipe's; None for a recipe that is no file.
        answers: what the user names.

    Raises:
        RecipeError: the recipe is no file, and none is named.
    """
    if answers is not None:
        return as_path(answers)
    if file is None:
        raise RecipeError("answers: missing; a recipe that is no file needs a file for its answers")
    return file.with_suffix(_SUFFIX)


def _harness(
    side_effects: Sequence[str], include_path: AnyPath | None, limit: int | None
) -> Harness | None:
    if not side_effects:
        if include_path is not None or limit is not None:
            raise RecipeError("--side-effect: missing; what is said of tasks needs one to run")
        return None
    from hubsplice.explore.harness import Harness, Settings

    tasks = []
    for given in side_effects:
        kind, _, task = given.partition("=")
        if kind != "lm_eval" or not task:
            raise RecipeError(f"--side-effect: found {given!r}, expected lm_eval=TASK")
        tasks.append(task)
    folder = None if include_path is None else as_path(include_path)
    return Harness(tasks, Settings(limit=limit), folder, option="--side-effect")


def _drawing(path: Path) -> Path:
    if path.suffix.lower() not in (".svg", ".png"):
        raise RecipeError(f"--plot: {path} ends in {path.suffix!r}, expected '.svg' or '.png'")
    require_folder_of(path)
    return path


def _drawn(found: Sweep, path: Path) -> bytes:
    if path.suffix.lower() == ".png":
        from hubsplice.explore.picture_png import png

        return png(found)
    from hubsplice.explore.picture import svg

    return svg(found).encode()
