"""Scorers and prompts as users name them, for sweeps and evaluations."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from hubsplice.errors import RecipeError
from hubsplice.interface.sources import AnyPath, as_path

if TYPE_CHECKING:
    from hubsplice.explore.scorers.base import Scorer


def prompts_of(prompts: AnyPath | Sequence[str]) -> list[str]:
    """The prompts of a file, one a line or an `evaluation.json`, or as they are given.

    Raises:
        RecipeError: there is none, or the file can't be read.
        CheckpointError: the `evaluation.json` can't be read.
    """
    if isinstance(prompts, str | os.PathLike):
        from hubsplice.evaluating.results import EVALUATION, recorded_prompts
        from hubsplice.explore.examples import read_lines

        path = as_path(prompts)
        if path.name == EVALUATION:
            found = [*recorded_prompts(path)]
            if not found:
                raise RecipeError(
                    f"--prompts: {path} has no prompts in it: nothing was asked, or an early "
                    "version of hubsplice wrote it"
                )
        else:
            try:
                found = read_lines(path, "--prompts")
            except RecipeError as error:
                if path.suffix.lower() != ".json" or not path.exists():
                    raise
                raise RecipeError(f"{error}, or a file that is called {EVALUATION}") from None
    else:
        found = list(prompts)
    if not found:
        raise RecipeError("--prompts: none; give at least one")
    # A prompt that is given twice is one prompt.
    return list(dict.fromkeys(found))


def scorer_of(given: str | Mapping[str, Any]) -> Scorer:
    """A scorer: `KIND`, `KIND=VALUE`, `@FILE`, or its fields.

    Raises:
        RecipeError: it is none.
    """
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


def _in_file(given: str) -> dict[str, Any] | None:
    """The fields of a scorer that `@FILE` names; None for a scorer in one word."""
    if not given.startswith("@"):
        return None
    from hubsplice.files.plain import read_plain
    from hubsplice.recipe.yaml_text import load_yaml

    name = given[1:]
    if not name:
        raise RecipeError("--score: found '@', expected the name of a file behind it")
    try:
        fields = load_yaml(read_plain(as_path(name)).decode())
    except FileNotFoundError:
        raise RecipeError(f"--score: there is no file {name}") from None
    except OSError as error:
        raise RecipeError(f"--score: {name} can't be read: {error.strerror or error}") from None
    except UnicodeDecodeError:
        raise RecipeError(f"--score: {name} is no UTF-8 text") from None
    except RecipeError as error:
        said = str(error).removeprefix("the recipe is ")
        raise RecipeError(f"--score: {name}: {said}") from None
    if not isinstance(fields, dict) or "kind" not in fields:
        raise RecipeError(f"--score: {name}: expected a mapping with a kind")
    return fields
