"""The command line: parse, call, print. Whatever is slow to import is imported in its command."""

from __future__ import annotations

import sys
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from hubsplice import __version__
from hubsplice.errors import HubspliceError, OutputError, RecipeError
from hubsplice.terminal import print_error, print_json, print_table, print_warning, show_progress

if TYPE_CHECKING:
    from hubsplice.build import BuildResult
    from hubsplice.fidelity.report import FidelityReport

EXIT_CODES = {
    0: "done",
    1: "hubsplice could not do it, for a reason that has no code of its own",
    2: "the recipe or the command line is wrong",
    3: "hubsplice can't do this faithfully, and refuses",
    4: "a checkpoint is missing, damaged, or holds what can't be trusted",
    5: "the measured fidelity misses what was required",
    6: "the result could not be written",
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
SplicedFolder = Annotated[
    Path,
    typer.Argument(
        metavar="FOLDER", help="A folder that `hubsplice build` wrote.", show_default=False
    ),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON on stdout.")]
RequireFidelity = Annotated[
    float | None,
    typer.Option(
        "--require-fidelity",
        metavar="RATIO",
        min=0.0,
        help="Fail when the ratio of splice error to noise floor is above this.",
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


@app.command()
def init(
    path: Annotated[Path, typer.Argument(metavar="PATH", help="Where to write it.")] = Path(
        "recipe.yaml"
    ),
    force: Annotated[bool, typer.Option("--force", help="Overwrite an existing file.")] = False,
) -> None:
    """Write a commented starter recipe."""
    from hubsplice.templates import load_template

    text = load_template("recipe.yaml.j2").render(name=path.name)
    try:
        with path.open("w" if force else "x", encoding="utf-8") as file:
            file.write(text)
    except FileExistsError:
        raise OutputError(f"{path}: exists already; --force overwrites it") from None
    except OSError as error:
        raise OutputError(f"{path}: cannot be written: {error.strerror}") from None
    typer.echo(f"wrote {path}; edit it, then run `hubsplice check {path}`", err=True)


@app.command()
def check(recipe: RecipePath, as_json: AsJson = False) -> None:
    """Say whether a recipe would build, from configurations alone, without loading weights."""
    from hubsplice.check import check as check_recipe
    from hubsplice.recipe import load_recipe

    report = check_recipe(load_recipe(recipe))
    for warning in report.warnings:
        print_warning(warning)
    if as_json:
        print_json(asdict(report))
        return
    print_table(
        ("after layer", "SAE", "features", "edits"),
        [
            (
                str(splice.after_layer),
                f"{splice.sae.architecture}, {splice.sae.d_sae}" if splice.sae else "none",
                str(splice.features),
                ", ".join(f"{n} {kind}" for kind, n in splice.edits.items()) or "none",
            )
            for splice in report.splices
        ],
        title=f"{report.base_model}: {report.model_type}, {report.num_layers} layers, "
        f"hidden size {report.hidden_size}",
    )


@app.command()
def build(
    recipe: RecipePath,
    output: Annotated[
        Path, typer.Option("--output", "-o", metavar="DIR", help="The new checkpoint's folder.")
    ],
    require_fidelity: RequireFidelity = None,
    measure: Annotated[
        bool, typer.Option("--measure/--no-measure", help="Measure the fidelity of the result.")
    ] = True,
    hard_link: Annotated[
        bool,
        typer.Option(
            "--hard-link",
            help="Hard-link unchanged weight files: no copy, but a later write into one changes "
            "both.",
        ),
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Compile a recipe into a checkpoint."""
    result = _build(
        recipe,
        output,
        require_fidelity=require_fidelity,
        measure=measure,
        hard_link=hard_link,
    )
    report = result.report
    if as_json:
        shown = report.model_dump(mode="json") if report else None
        print_json({"folder": str(result.folder), "report": shown})
        return
    if report:
        _print_report(report)
    typer.echo(str(result.folder))


@app.command()
def measure(
    folder: SplicedFolder,
    base: Annotated[
        str | None,
        typer.Option(
            "--base",
            metavar="MODEL",
            help="The base model, where the checkpoint was made from a local folder.",
            show_default=False,
        ),
    ] = None,
    require_fidelity: RequireFidelity = None,
    as_json: AsJson = False,
) -> None:
    """Measure a built checkpoint against its hook again; rewrite its report and card."""
    from hubsplice.build import measure as measure_folder

    with show_progress() as progress:
        report = measure_folder(
            folder, base=base, require_fidelity=require_fidelity, progress=progress
        )
    if as_json:
        print_json(report.model_dump(mode="json"))
    else:
        _print_report(report)


def _print_report(report: FidelityReport) -> None:
    from rich.console import Console

    from hubsplice.fidelity.table import render_report

    Console().print(render_report(report))


@app.command()
def card(folder: SplicedFolder) -> None:
    """Write the model card of a built checkpoint."""
    from hubsplice.card import write_card

    typer.echo(str(write_card(folder)))


@app.command()
def edits(as_json: AsJson = False) -> None:
    """List the kinds of edits with their formulas."""
    from hubsplice.edits.registry import EDITS

    kinds = dict(EDITS.items())
    if as_json:
        print_json(
            [
                {"kind": kind, "summary": edit.summary, "formula": edit.formula}
                for kind, edit in kinds.items()
            ]
        )
        return
    print_table(
        ("kind", "what it does", "formula"),
        [(kind, edit.summary, edit.formula) for kind, edit in kinds.items()],
    )


@app.command()
def publish(
    source: Annotated[
        Path,
        typer.Argument(
            metavar="RECIPE|FOLDER",
            help="A recipe, which is built first, or a folder that `hubsplice build` wrote.",
            show_default=False,
        ),
    ],
    to: Annotated[
        Path, typer.Option("--to", metavar="DIR", help="The local folder to publish to.")
    ],
    allow_failed: Annotated[
        bool,
        typer.Option("--allow-failed", help="Publish what missed the fidelity that it requires."),
    ] = False,
    dry_run: Annotated[
        bool,
        typer.Option("--dry-run", help="Say what a built folder would publish; write nothing."),
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Publish a built checkpoint, or a recipe's, to a local folder."""
    if dry_run:
        _plan_publication(source, to, allow_failed, as_json)
        return
    if source.is_file():
        published = _build(source, to, allow_failed=allow_failed).folder
    else:
        from hubsplice.hub import publish_to_folder

        published = publish_to_folder(source, to, allow_failed=allow_failed)
    if as_json:
        print_json({"folder": str(published)})
    else:
        typer.echo(str(published))


def _plan_publication(folder: Path, to: Path, allow_failed: bool, as_json: bool) -> None:
    if folder.is_file():
        raise RecipeError(
            f"--dry-run: {folder} is a recipe, and the sizes of its files are not known before "
            "they are built; give a built folder, or run `hubsplice check`"
        )
    from hubsplice.hub import plan_publication

    publication = plan_publication(folder, to, allow_failed=allow_failed)
    if as_json:
        files = dict(publication.sizes)
        print_json({"folder": str(to), "files": files, "bytes": publication.total})
        return
    print_table(
        ("file", "bytes"),
        [(name, f"{size:,}") for name, size in publication.sizes.items()]
        + [("total", f"{publication.total:,}")],
        title=f"would be written to {to}:",
    )


def _build(
    recipe: Path,
    output: Path,
    *,
    require_fidelity: float | None = None,
    measure: bool = True,
    hard_link: bool = False,
    allow_failed: bool = False,
) -> BuildResult:
    from hubsplice.recipe import load_recipe

    parsed = load_recipe(recipe)
    # A mistake in the recipe is shown before the compiler's imports, which take seconds.
    from hubsplice.build import build as build_recipe

    with show_progress() as progress:
        result = build_recipe(
            parsed,
            output=output,
            require_fidelity=require_fidelity,
            measure=measure,
            hard_link=hard_link,
            progress=progress,
            allow_failed=allow_failed,
        )
    for warning in result.warnings:
        print_warning(warning)
    return result


def main() -> None:
    """Run the command line; a user's mistake gets one message and an exit code."""
    try:
        app()
    except HubspliceError as error:
        print_error(str(error))
        sys.exit(error.exit_code)
