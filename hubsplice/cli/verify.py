"""`hubsplice verify`."""

from __future__ import annotations

import enum
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from hubsplice.cli.app import AsJson
from hubsplice.errors import CheckpointError, RecipeError
from hubsplice.terminal import print_json, print_table, show_progress

if TYPE_CHECKING:
    from hubsplice.verifying import Check

_SHOWN = 10


class EngineName(enum.StrEnum):
    """The engines that can be put to the test."""

    TRANSFORMERS = "transformers"
    VLLM = "vllm"


class ServedDtype(enum.StrEnum):
    """The precisions that an engine can be asked to serve in."""

    FLOAT32 = "float32"
    BFLOAT16 = "bfloat16"


def verify(
    model: Annotated[
        str,
        typer.Argument(
            metavar="FOLDER|REPO",
            help="A spliced checkpoint: its folder, or its Hub repository.",
            show_default=False,
        ),
    ],
    base: Annotated[
        str | None,
        typer.Option(
            "--base",
            metavar="MODEL",
            help="The base model, where it is not the repository that the manifest names.",
            show_default=False,
        ),
    ] = None,
    revision: Annotated[
        str | None,
        typer.Option(
            "--revision", help="The repository's commit, branch or tag.", show_default=False
        ),
    ] = None,
    engine: Annotated[
        EngineName | None,
        typer.Option(
            help="Also run prompts through this engine, and compare with the hook.",
            show_default=False,
        ),
    ] = None,
    dtype: Annotated[
        ServedDtype | None,
        typer.Option(
            help="The precision that the engine serves in; float32 is the sharpest test. "
            "[default: the one that the layers were compiled for]",
            show_default=False,
        ),
    ] = None,
    python: Annotated[
        Path | None,
        typer.Option(
            metavar="PATH",
            help="The Python interpreter of vLLM's environment. [default: this one]",
            show_default=False,
        ),
    ] = None,
    prompts: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Prompts for the engine, one a line. [default: text that comes with Python]",
            show_default=False,
        ),
    ] = None,
    max_new_tokens: Annotated[
        int, typer.Option(min=1, help="How many tokens the engine generates after each prompt.")
    ] = 16,
    as_json: AsJson = False,
) -> None:
    """Prove what a spliced checkpoint is: every tensor of its base, and nothing undeclared.

    With --engine, also that the engine serves the weights, and the weights the edit.
    """
    from hubsplice.verifying import Run
    from hubsplice.verifying import verify as verify_model
    from hubsplice.verifying.engines import TransformersEngine, VllmEngine

    run = None
    if engine is not None:
        served = (
            TransformersEngine()
            if engine is EngineName.TRANSFORMERS
            else VllmEngine(python or Path(sys.executable))
        )
        run = Run(served, dtype.value if dtype else None, prompts, max_new_tokens)
    elif given := [n for n, v in (("dtype", dtype), ("python", python), ("prompts", prompts)) if v]:
        raise RecipeError(f"--{given[0]}: it is for an engine; add --engine")
    with show_progress() as progress:
        result = verify_model(model, base=base, revision=revision, progress=progress, run=run)
    if as_json:
        print_json(result.model_dump(mode="json"))
    else:
        typer.echo(result.verdict)
        print_table(("check", "", "what was found"), map(_row, result.checks))
    if not result.passed:
        raise CheckpointError(f"{result.model}: {result.verdict}")


def _row(check: Check) -> tuple[str, str, str]:
    outcome = {True: "passed", False: "FAILED", None: "not made"}[check.passed]
    shown = check.problems[:_SHOWN]
    more = len(check.problems) - len(shown)
    lines = [check.detail, *shown, *([f"and {more} more (--json shows all)"] if more else [])]
    return check.name, outcome, "\n".join(lines)
