"""`hubsplice try`."""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import asdict
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypedDict

import typer

from hubsplice.cli.app import (
    AsJson,
    EditNumber,
    MaxNewTokens,
    Plain,
    RecipePath,
    Seed,
    Temperature,
    TopP,
)
from hubsplice.errors import RecipeError
from hubsplice.terminal import (
    live_content,
    print_content,
    print_json,
    print_line,
    print_note,
    print_warning,
    width,
)

if TYPE_CHECKING:
    from hubsplice.explore.answers import Compared
    from hubsplice.explore.trial import Trial

_LEAVE = ("/quit", "/exit")
_INTERRUPTED = 130


def try_(
    recipe: RecipePath,
    prompts: Annotated[
        list[str] | None,
        typer.Argument(metavar="PROMPT…", help="What the model is asked.", show_default=False),
    ] = None,
    strength: Annotated[
        str | None,
        typer.Option(
            "--strength",
            metavar="A,B,…",
            help="Set the edit's strength to each of these, in the recipe's unit or in one of "
            "their own (`0.5 x max`), and show an answer for each.",
            show_default=False,
        ),
    ] = None,
    edit: EditNumber = None,
    chat: Annotated[
        bool,
        typer.Option("--chat", help="Go on with a conversation, read from stdin line by line."),
    ] = False,
    web: Annotated[
        bool,
        typer.Option(
            "--web",
            help="Open a page for the browser: a slider for each edit, both answers, and what the "
            "features do under each token. Needs the package gradio.",
        ),
    ] = False,
    host: Annotated[
        str | None,
        typer.Option(
            "--host",
            metavar="ADDRESS",
            help="With --web: the address to listen at. Whoever reaches it can ask the model. "
            "[default: 127.0.0.1]",
            show_default=False,
        ),
    ] = None,
    port: Annotated[
        int | None,
        typer.Option(
            "--port",
            min=1,
            max=65535,
            help="With --web: the port. [default: the first that is free from 7860 on]",
            show_default=False,
        ),
    ] = None,
    plain: Plain = False,
    max_new_tokens: MaxNewTokens = 80,
    temperature: Temperature = 0.0,
    top_p: TopP = 1.0,
    seed: Seed = 0,
    as_json: AsJson = False,
) -> None:
    """Compare answers before and after the edits, without a build.

    Runs the exact edit on the base in float32. Words that are not the base's stand in ‹angle
    marks›. All answers to a prompt are drawn with the same random numbers.
    """
    drawn: _Drawn = {
        "plain": plain,
        "max_new_tokens": max_new_tokens,
        "temperature": temperature,
        "top_p": top_p,
        "seed": seed,
    }
    if web:
        others = {
            "--chat": chat,
            "--edit": edit is not None,
            "--strength": strength is not None,
            "--json": as_json,
        }
        for option, given in others.items():
            if given:
                raise RecipeError(f"{option}: it does not go with --web")
        if len(prompts or ()) > 1:
            raise RecipeError("PROMPT: --web takes one, which stands in the box")
        _on_a_page(recipe, "".join(prompts or ()), host, port, drawn)
        return
    for option, found in (("--host", host), ("--port", port)):
        if found is not None:
            raise RecipeError(f"{option}: it goes only with --web")
    if edit is not None and strength is None:
        raise RecipeError("--edit: it says which edit --strength sets; give --strength too")
    if not prompts and not chat:
        raise RecipeError("PROMPT: missing; give a prompt, --chat or --web")
    from hubsplice.explore.answers import never_held
    from hubsplice.interface.answers import trying

    with trying(
        recipe,
        strengths=[one.strip() for one in strength.split(",")] if strength else [],
        edit=edit,
        progress=True,
        **drawn,
    ) as trial:
        for warning in trial.warnings:
            print_warning(warning)
        shown = [
            _asked(trial, prompt, keep=chat, quiet=as_json)
            for prompt in chain(prompts or (), _lines() if chat else ())
        ]
    never = never_held(shown)
    for warning in never:
        print_warning(warning)
    if as_json:
        warnings = [*trial.warnings, *never]
        print_json({"prompts": [asdict(one) for one in shown], "warnings": warnings})
    elif trial.misfit:
        print_note(
            "next: an SAE of this model and layer; a build refuses one that explains nothing of "
            "the stream, unless --allow-misfit is given"
        )
    elif strength is None:
        print_note(f"next: hubsplice try {recipe} --strength …, or hubsplice build {recipe} -o DIR")
    else:
        print_note(f"next: hubsplice sweep {recipe} compares what strengths gain and lose")


class _Drawn(TypedDict):
    """How answers are drawn."""

    plain: bool
    max_new_tokens: int
    temperature: float
    top_p: float
    seed: int


def _on_a_page(
    recipe: Path, prompt: str, host: str | None, port: int | None, drawn: _Drawn
) -> None:
    """Serve the page until Ctrl-C."""
    from hubsplice.interface.page import LOOPBACKS, serving_page

    with serving_page(
        recipe, prompt=prompt, host=host or LOOPBACKS[0], port=port, progress=True, **drawn
    ) as page:
        for warning in page.warnings:
            print_warning(warning)
        print_line(page.address)
        if page.host not in LOOPBACKS:
            print_warning(
                f"--host: whoever reaches {page.host} can ask the model, without a password"
            )
        print_note("open it in a browser; Ctrl-C ends it")
        # Others read the address through a pipe.
        sys.stdout.flush()
        with suppress(KeyboardInterrupt):
            threading.Event().wait()
    print_note("the page is closed, and the model is let go")
    raise typer.Exit(_INTERRUPTED)


def _asked(trial: Trial, prompt: str, *, keep: bool, quiet: bool) -> Compared:
    if quiet:
        return trial.ask(prompt, keep=keep)
    from hubsplice.explore.answers import compared_content, side_by_side

    with live_content() as show:

        def grow(compared: Compared) -> None:
            if show is not None:
                show([side_by_side(compared, width())])

        compared = trial.ask(prompt, keep=keep, show=grow)
        content: list[Any] = list(compared_content(compared, width()))
        if show is not None:
            show(content)
    if show is None:
        print_content(content)
    return compared


def _lines() -> Iterator[str]:
    """What is typed, until the end of the input or a command to leave."""
    if sys.stdin.isatty():
        print_note("ask; /quit leaves")
    for line in sys.stdin:
        text = line.strip()
        if text in _LEAVE:
            return
        if text:
            yield text
