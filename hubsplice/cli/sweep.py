"""`hubsplice sweep`."""

from __future__ import annotations

import enum
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from hubsplice.cli.app import (
    SCORE,
    AsJson,
    EditNumber,
    IncludePath,
    Limit,
    MaxNewTokens,
    NeutralTokens,
    Plain,
    RecipePath,
    Seed,
    Temperature,
    TopP,
)
from hubsplice.terminal import print_content, print_json, print_note, print_warning


class Want(enum.StrEnum):
    """What is wanted of the target."""

    MORE = "more"
    LESS = "less"


def sweep(
    recipe: RecipePath,
    prompts: Annotated[
        Path,
        typer.Option(
            "--prompts",
            metavar="FILE",
            help="What the model is asked, one a line.",
            show_default=False,
        ),
    ],
    score: Annotated[list[str], SCORE],
    strengths: Annotated[
        str,
        typer.Option(
            "--strengths",
            metavar="A,B,…|A:B:N",
            help="What to set the edit's strength to: these, or N from A to B.",
            show_default=False,
        ),
    ],
    edit: EditNumber = None,
    layers: Annotated[
        str | None,
        typer.Option(
            "--layers",
            metavar="A,B,…|A:B[:STEP]",
            help="Try every strength after each of these layers.",
            show_default=False,
        ),
    ] = None,
    want: Annotated[
        Want, typer.Option("--want", help="Whether more or less of the target is wanted.")
    ] = Want.MORE,
    plain: Plain = False,
    max_new_tokens: MaxNewTokens = 80,
    temperature: Temperature = 0.0,
    top_p: TopP = 1.0,
    seed: Seed = 0,
    neutral_tokens: NeutralTokens = 1024,
    side_effect: Annotated[
        list[str] | None,
        typer.Option(
            "--side-effect",
            metavar="lm_eval=TASK",
            help="A task of lm-evaluation-harness that every strength is run on too. Can be given "
            "again.",
            show_default=False,
        ),
    ] = None,
    include_path: IncludePath = None,
    limit: Limit = None,
    answers: Annotated[
        Path | None,
        typer.Option(
            "--answers",
            metavar="FILE",
            help="Where answers are kept; a sweep that was stopped goes on from it. [default: "
            "RECIPE.sweep.jsonl]",
            show_default=False,
        ),
    ] = None,
    plot: Annotated[
        Path | None,
        typer.Option(
            "--plot",
            metavar="FILE",
            help="Draw the comparison, as SVG or PNG.",
            show_default=False,
        ),
    ] = None,
    write: Annotated[
        bool, typer.Option("--write", help="Put the recommended strength into the recipe.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Compare what strengths of an edit gain and lose.

    Every strength answers the same prompts with the same random numbers, on the exact hook. The
    scores of the answers stand beside the side effects on neutral text. The strength that is
    recommended has the least side effects of those that can't be told from the best.
    """
    from hubsplice.explore.parsing import layers_of, strengths_of
    from hubsplice.interface.sweep import answers_file
    from hubsplice.interface.sweep import sweep as sweep_recipe

    try:
        found = sweep_recipe(
            recipe,
            prompts,
            score,
            list(strengths_of(strengths)),
            edit=edit,
            layers=layers_of(layers) if layers else (),
            want=want.value,
            plain=plain,
            max_new_tokens=max_new_tokens,
            temperature=temperature,
            top_p=top_p,
            seed=seed,
            neutral_tokens=neutral_tokens,
            side_effects=side_effect or (),
            include_path=include_path,
            limit=limit,
            answers=answers,
            plot=plot,
            write=write,
        )
    except KeyboardInterrupt:
        print_note(f"stopped; the same command goes on from {answers_file(recipe, answers)}")
        raise
    for warning in found.warnings:
        print_warning(warning)
    if as_json:
        print_json(asdict(found))
    else:
        print_content(found.findings())
    print_note(f"answers: {found.answers}")
    if write and found.chosen is None:
        print_note(f"{recipe} was left as it was: there is no strength to write into it")
    if found.chosen is None and found.no_room is not None:
        print_note(f"next: other prompts, or --want {'more' if want == Want.LESS else 'less'}")
    elif found.chosen is None:
        print_note("next: other strengths, another feature (hubsplice find), or more prompts")
    elif write:
        print_note(
            f"wrote {found.chosen.name} into {recipe}; next: hubsplice build {recipe} -o DIR"
        )
    else:
        print_note("next: --write puts the recommended strength into the recipe")
