"""`hubsplice serve`."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from hubsplice.cli.app import AsJson, Revision, SplicedModel
from hubsplice.errors import RecipeError, UnsupportedError
from hubsplice.families.engines import EngineKey
from hubsplice.serving.engines import ENGINES
from hubsplice.serving.online import OnlineQuantization
from hubsplice.terminal import print_json, print_line, print_note, print_warning

if TYPE_CHECKING:
    from hubsplice.checkpoint.manifest import Manifest
    from hubsplice.serving.adapters import ServedAdapter
    from hubsplice.serving.commands import ServeCommand


def serve(
    model: SplicedModel,
    extra: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[-- ARGUMENTS]", help="Further arguments of the engine.", show_default=False
        ),
    ] = None,
    engine: Annotated[
        EngineKey, typer.Option(help="The program that serves the model.")
    ] = EngineKey.VLLM,
    revision: Revision = None,
    max_model_len: Annotated[
        int | None,
        typer.Option(
            min=1, help="The longest context, in tokens. [default: the model's]", show_default=False
        ),
    ] = None,
    port: Annotated[
        int | None,
        typer.Option(min=1, max=65535, help="[default: the engine's]", show_default=False),
    ] = None,
    quantization: Annotated[
        OnlineQuantization | None,
        typer.Option(
            help="Let vLLM quantise the base's layers while it loads them. The inserted layers "
            "stay as they are.",
            show_default=False,
        ),
    ] = None,
    python: Annotated[
        Path | None,
        typer.Option(
            metavar="PATH",
            help="The Python interpreter of the engine's environment. [default: the one on PATH]",
            show_default=False,
        ),
    ] = None,
    adapters: Annotated[
        str | None,
        typer.Option(
            metavar="[NAME=]DIR|REPO[,…]",
            help="Of a carrier: the adapters to serve beside the base. A request picks one by its "
            "name as the model.",
            show_default=False,
        ),
    ] = None,
    max_lora_rank: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="The largest rank of adapters that there is to be room for. [default: what "
            "--adapters need]",
            show_default=False,
        ),
    ] = None,
    run: Annotated[
        bool, typer.Option("--run", help="Start the server, instead of printing its command.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Print the command that serves a checkpoint, or run it.

    Refuses an engine that is known to ignore something that the checkpoint needs, and an engine
    that nobody has examined.
    """
    from hubsplice.checkpoint.companions import CONFIG, MANIFEST
    from hubsplice.checkpoint.manifest import read_manifest
    from hubsplice.files.strict_json import read_object
    from hubsplice.serving.adapters import adapter_options
    from hubsplice.serving.commands import ServeOptions, serve_command
    from hubsplice.serving.quantized import quantized_problem
    from hubsplice.verifying.source import find_published

    if run and as_json:
        raise RecipeError(
            "--json: this prints the command, and --run starts it; choose one of them"
        )
    found = find_published(model, revision, (MANIFEST, CONFIG))
    manifest = read_manifest(found.folder / MANIFEST)
    if manifest.carrier is not None:
        raise RecipeError(
            f"{model}: it is an adapter; serve its carrier with it: hubsplice serve CARRIER "
            f"--adapters {model}"
        )
    if (problem := quantized_problem(read_object(found.folder / CONFIG), manifest)) is not None:
        print_warning(f"{CONFIG}: {problem}")
    served = [_adapter(given, manifest) for given in (adapters or "").split(",") if given]
    if max_lora_rank is not None and not served:
        raise RecipeError("--max-lora-rank: it is of adapters; add --adapters")
    lora = adapter_options(manifest, served, engine, max_lora_rank) if served else ()
    command = serve_command(
        ENGINES[engine],
        model,
        manifest,
        ServeOptions(
            max_model_len=max_model_len,
            port=port,
            # What was looked at is what is served, wherever a branch moves.
            revision=None if found.folder == Path(model).expanduser() else found.folder.name,
            quantization=quantization,
            python=python,
            dtype=served[0].dtype if served else None,
            extra=(*lora, *(extra or ())),
        ),
    )
    if run:
        _become(command)
    elif as_json:
        print_json(
            {
                "engine": command.verdict.engine.name,
                "examined": command.verdict.engine.version,
                "verdict": command.verdict.outcome.value,
                "reason": command.verdict.reason,
                "evidence": command.verdict.evidence,
                "commands": [list(step) for step in command.steps],
            }
        )
    else:
        print_line(command.text)
        if command.verdict.reason:
            print_note(f"{command.verdict.engine.name}: {command.verdict.reason}")


def _adapter(given: str, carrier: Manifest) -> ServedAdapter:
    """The adapter that is called `NAME=PLACE`, or `PLACE`, which then gives the name."""
    from hubsplice.checkpoint.companions import MANIFEST
    from hubsplice.serving.adapters import FILES, find_adapter
    from hubsplice.verifying.source import find_published

    name, _, place = given.rpartition("=")
    found = find_published(place, None, (MANIFEST, *FILES))
    if not name and found.repo_id is not None:
        # A snapshot's folder is called after its commit.
        name = found.repo_id.rpartition("/")[2]
    return find_adapter(found.folder, carrier, name)


def _become(command: ServeCommand) -> None:
    """Replace this process by the server, so that signals reach it."""
    if len(command.steps) > 1:
        raise UnsupportedError(
            f"--run: {command.verdict.engine.name} takes several commands:\n{command.text}"
        )
    (step,) = command.steps
    print_note(command.text)
    sys.stdout.flush()
    sys.stderr.flush()
    try:
        os.execvp(step[0], step)  # noqa: S606 - there is nothing to quote for a shell
    except OSError as error:
        raise UnsupportedError(
            f"--run: {step[0]} can't be started: {error.strerror}; name the interpreter of an "
            f"environment with {command.verdict.engine.name} by --python"
        ) from None
