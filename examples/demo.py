"""Splice the example recipe into SmolLM2, and show what it says: `make demo`.

The build itself asks every prompt of the recipe three times, greedily: the base model, the base
model with the exact hook, and the spliced checkpoint as transformers loads it, without any of
hubsplice. With `--svg FILE`, what is printed is also drawn: `make demo SVG=docs/pictures/demo.svg`
makes the README's picture, and nothing else does, so that it is always of one run.
"""

from __future__ import annotations

import argparse
import re
import shutil
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from rich import box
from rich._export_format import CONSOLE_SVG_FORMAT
from rich.console import Console, RenderableType
from rich.table import Table
from rich.terminal_theme import MONOKAI
from rich.text import Text

import hubsplice
from examples.smollm2 import fetch_smollm2
from hubsplice.checkpoint.companions import MANIFEST
from hubsplice.errors import HubspliceError, OutputError
from hubsplice.fidelity.answers import Answer
from hubsplice.fidelity.report import FidelityReport
from hubsplice.terminal import print_error

RECIPE = Path(__file__).parent / "recipe.yaml"
OUTPUT = Path(__file__).parent.parent / "demo-output"
WIDTH = 100


def remove_previous_output(folder: Path) -> None:
    """Remove what an earlier run built.

    Raises:
        OutputError: the folder holds something that hubsplice did not build.
    """
    if (folder / MANIFEST).is_file():
        shutil.rmtree(folder)
    elif folder.is_dir() and any(folder.iterdir()):
        raise OutputError(f"{folder}: holds no {MANIFEST}, so it is not an earlier demo's")


def agreement(answer: Answer) -> str:
    """Whether the exact hook says what the checkpoint says."""
    if answer.hook is None:
        return "The exact hook on the base says the same."
    return f"The exact hook on the base says: {' '.join(answer.hook.split())}"


def render_answer(answer: Answer) -> RenderableType:
    """The answers to one prompt side by side."""
    table = Table(
        box=box.SIMPLE_HEAD,
        pad_edge=False,
        expand=True,
        title=Text(answer.prompt, style="bold"),
        title_justify="left",
        caption=Text(agreement(answer), style="dim"),
        caption_justify="left",
    )
    for name in ("before: SmolLM2", "after: the spliced checkpoint"):
        table.add_column(name, ratio=1)
    table.add_row(Text(answer.greedy.base), Text(answer.greedy.edited))
    return table


def render_demo(report: FidelityReport, folder: str) -> Iterator[RenderableType]:
    """What the demo shows: the answers, the verdict, and where the rest is."""
    for answer in report.answers.prompts if report.answers else ():
        yield render_answer(answer)
        yield ""
    yield Text(report.verdict, style="bold")
    yield Text(
        f"All measurements: {folder}/README.md, the model's card. To serve it: "
        f"hubsplice serve {folder}",
        style="dim",
    )


def main() -> None:
    """Fetch, build, and show what it says."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--svg", type=Path, help="draw what is printed into this file")
    options = parser.parse_args()
    console = Console(record=options.svg is not None, width=WIDTH if options.svg else None)
    started = time.monotonic()
    fetch_smollm2()
    remove_previous_output(OUTPUT)
    report = hubsplice.build(RECIPE, OUTPUT).report
    assert report is not None
    for part in render_demo(report, OUTPUT.name):
        console.print(part, highlight=False)
    took = time.monotonic() - started
    console.print(f"It took {took / 60:.0f} minutes ({took:.0f} s).", style="dim", highlight=False)
    if options.svg is not None:
        # The picture asks no other site for a font.
        form = re.sub(r"@font-face \{\{.*?\}\}\s*", "", CONSOLE_SVG_FORMAT, flags=re.DOTALL)
        console.save_svg(str(options.svg), title="make demo", theme=MONOKAI, code_format=form)


if __name__ == "__main__":
    try:
        main()
    except HubspliceError as error:
        print_error(str(error))
        sys.exit(error.exit_code)
