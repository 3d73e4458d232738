"""Strengths of one edit: what each gains, and what it costs."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from hubsplice.errors import OutputError, RecipeError
from hubsplice.files.new_files import require_folder_of
from hubsplice.interface.progress import ProgressChoice, reporting
from hubsplice.interface.sources import AnyPath, RecipeSource, as_path, as_recipe

if TYPE_CHECKING:
    from hubsplice.explore.scorers.base import Scorer
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
    from hubsplice.explore.amounts import knob
    from hubsplice.explore.generating import Sampling
    from hubsplice.explore.sweep import Asking
    from hubsplice.explore.sweep import sweep as sweep_recipe
    from hubsplice.explore.writing import evidence, write_strength

    asking = Asking(
        edit=edit,
        strengths=[str(one) for one in strengths],
        layers=layers,
        prompts=_prompts(prompts),
        scorers=[_scorer(one) for one in scores],
        want=want,
        sampling=Sampling(max_new_tokens, temperature, top_p, seed),
        plain=plain,
        neutral_tokens=neutral_tokens,
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


def _drawing(path: Path) -> Path:
    if path.suffix.lower() not in (".svg", ".png"):
        raise RecipeError(f"--plot: {path} ends in {path.suffix!r}, expected '.svg' or '.png'")
    if path.suffix.lower() == ".png":
        from hubsplice.explore.picture_png import require_matplotlib

        # Before hours of work.
        require_matplotlib()
    require_folder_of(path)
    return path


def _drawn(found: Sweep, path: Path) -> bytes:
    if path.suffix.lower() == ".png":
        from hubsplice.explore.picture_png import png

        return png(found)
    from hubsplice.explore.picture import svg

    return svg(found).encode()


def _prompts(prompts: AnyPath | Sequence[str]) -> list[str]:
    if isinstance(prompts, str | os.PathLike):
        from hubsplice.explore.examples import read_lines

        found = read_lines(as_path(prompts), "--prompts")
    else:
        found = list(prompts)
    if not found:
        raise RecipeError("--prompts: none; give at least one")
    # A prompt that is given twice is one prompt.
    return list(dict.fromkeys(found))


def _in_file(given: str) -> dict[str, Any] | None:
    """The fields of a scorer that `@FILE` names; None for a scorer in one word."""
    if not given.startswith("@"):
        return None
    from hubsplice.files.plain import read_plain
    from hubsplice.recipe.yaml_text import load_yaml

    try:
        fields = load_yaml(read_plain(as_path(given[1:])).decode())
    except (OSError, UnicodeDecodeError) as error:
        raise RecipeError(f"--score: {given[1:]} can't be read: {error}") from None
    if not isinstance(fields, dict):
        raise RecipeError(f"--score: {given[1:]}: expected a mapping with a kind")
    return fields


def _scorer(given: str | Mapping[str, Any]) -> Scorer:
    from pydantic import ValidationError

    import hubsplice.explore.scorers  # noqa: F401
    from hubsplice.explore.scorers.base import SCORERS
    from hubsplice.recipe.problems import readable_problems

    fields = dict(given) if isinstance(given, Mapping) else _in_file(given)
    if fields is None:
        kind, equals, value = str(given).partition("=")
        argument = SCORERS.get(kind, "--score").argument
        if bool(equals) != (argument is not None):
            form = kind if argument is None else f"{kind}={argument.upper()}"
            raise RecipeError(f"--score: found {given!r}, expected {form}")
        fields = {"kind": kind} if argument is None else {"kind": kind, argument: value}
    scorer = SCORERS.get(str(fields.get("kind")), "--score")
    try:
        parsed = scorer.model_validate(fields)
    except ValidationError as error:
        problems = readable_problems(error, fields, scorer, {}).splitlines()
        found = [f"--score: {fields['kind']}: {problem}" for problem in problems]
        raise RecipeError("\n".join(found)) from None
    return parsed.ready()
