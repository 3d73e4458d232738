"""The command line's root, and what its commands share. Slow imports wait for their command."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

from hubsplice import __version__

EXIT_CODES = {
    0: "done",
    1: "failed, for a reason that has no code of its own",
    2: "the recipe or the command line is wrong",
    3: "hubsplice refuses, because it can't do this faithfully",
    4: "a checkpoint is missing or damaged, or holds something that can't be trusted",
    5: "the measured fidelity is worse than required",
    6: "the result could not be written",
    7: "the Hub refused the request, or could not be reached",
    8: "not as expected: a branch moved, a tag points elsewhere, or a card was edited by hand",
    9: "the text can't show whether the required fidelity is met",
    10: "the model was built again from its recipe, and it is another one",
    130: "interrupted",
}

# The \b keeps click from re-filling the lines of a paragraph.
_EPILOG = "\b\nExit codes:\n" + "\n".join(f"{c:>5}  {text}" for c, text in EXIT_CODES.items())

app = typer.Typer(
    name="hubsplice",
    help="Compile feature edits of language models into stock Hugging Face checkpoints.",
    epilog=_EPILOG,
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)

RecipePath = Annotated[
    Path, typer.Argument(metavar="RECIPE", help="The recipe, a YAML file.", show_default=False)
]
NewFolder = Annotated[
    Path, typer.Option("--output", "-o", metavar="DIR", help="The folder to write, new or empty.")
]
HardLink = Annotated[
    bool,
    typer.Option(
        "--hard-link",
        help="Hard-link weight files that do not change, instead of copying them. A later write "
        "into one of the two files then changes both.",
    ),
]
AllowMisfit = Annotated[
    bool,
    typer.Option(
        "--allow-misfit", help="Use an SAE that explains nothing of the model's residual stream."
    ),
]
AdaptersCarrier = Annotated[
    str | None,
    typer.Option(
        "--carrier", metavar="DIR|REPO", help="For an adapter: its carrier.", show_default=False
    ),
]
SplicedFolder = Annotated[
    Path,
    typer.Argument(
        metavar="FOLDER", help="A folder that `hubsplice build` wrote.", show_default=False
    ),
]
SplicedModel = Annotated[
    str,
    typer.Argument(
        metavar="FOLDER|REPO",
        help="A spliced checkpoint: its folder, or its Hub repository.",
        show_default=False,
    ),
]
Revision = Annotated[
    str | None,
    typer.Option("--revision", help="The repository's commit, branch or tag.", show_default=False),
]
Base = Annotated[
    str | None,
    typer.Option(
        "--base",
        metavar="MODEL",
        help="The base model, if it is not the repository that the manifest names.",
        show_default=False,
    ),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON on stdout.")]
RequireFidelity = Annotated[
    float | None,
    typer.Option(
        "--require-fidelity",
        metavar="RATIO",
        min=0.0,
        help="Fail if, where an edit acts or behind that, the ratio of splice error to noise floor "
        "is above this, or if the text can't show it.",
        show_default=False,
    ),
]


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"hubsplice {__version__}")
        raise typer.Exit


@app.callback()
def hubsplice(
    _version: Annotated[
        bool,
        typer.Option(
            "--version", help="Print the version.", callback=_print_version, is_eager=True
        ),
    ] = False,
) -> None:
    """Compile feature edits of language models into stock Hugging Face checkpoints."""


NoCache = Annotated[
    bool,
    typer.Option(
        "--no-cache", help="Neither use what earlier runs computed, nor keep what this one does."
    ),
]


def apply_no_cache(no_cache: bool) -> None:
    """Have nothing kept in this process, where the user says so."""
    if no_cache:
        os.environ["HUBSPLICE_CACHE_LIMIT"] = "0"


EditNumber = Annotated[
    int | None,
    typer.Option(
        "--edit",
        metavar="N",
        min=0,
        help="Which edit, counted from 0. [default: the only one with a strength]",
        show_default=False,
    ),
]
Plain = Annotated[
    bool, typer.Option("--plain", help="Continue the prompts without the chat template.")
]
MaxNewTokens = Annotated[
    int, typer.Option("--max-new-tokens", min=1, help="The most tokens of an answer.")
]
Temperature = Annotated[
    float, typer.Option("--temperature", min=0.0, help="0 takes the most probable token.")
]
TopP = Annotated[
    float, typer.Option("--top-p", help="The share of probability that is drawn from.")
]
Seed = Annotated[
    int,
    typer.Option("--seed", min=0, help="The seed of the random numbers, which all answers share."),
]
IncludePath = Annotated[
    Path | None,
    typer.Option(
        "--include-path",
        metavar="DIR",
        help="A folder with more tasks, as YAML files.",
        show_default=False,
    ),
]
Limit = Annotated[
    int | None,
    typer.Option(
        "--limit",
        min=1,
        help="Ask only the first questions of each task. [default: all]",
        show_default=False,
    ),
]
EnginePython = Annotated[
    Path | None,
    typer.Option(
        "--python",
        metavar="PATH",
        help="The Python interpreter of the environment with the engine, such as vLLM. "
        "[default: this one]",
        show_default=False,
    ),
]
NeutralTokens = Annotated[
    int,
    typer.Option(
        "--neutral-tokens",
        min=256,
        help="How many tokens of neutral text side effects are measured on.",
    ),
]
LocalBase = Annotated[
    str | None,
    typer.Option(
        "--base",
        metavar="MODEL",
        help="The base model, if the checkpoint was made from a local folder.",
        show_default=False,
    ),
]
SCORE = typer.Option(
    "--score",
    metavar="KIND[=…]",
    help="What answers are scored by: regex=PATTERN, tokens=WORD,WORD, compiles, "
    "classifier=MODEL:LABEL, or @FILE with a scorer's fields, such as a judge's. Can be given "
    "again; the first is the target.",
    show_default=False,
)
