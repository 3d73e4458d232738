"""`hubsplice verify`."""

from __future__ import annotations

import enum
from pathlib import Path
from typing import Annotated

import typer

from hubsplice.cli.app import (
    AdaptersCarrier,
    AsJson,
    Base,
    EnginePython,
    Revision,
    SplicedModel,
)
from hubsplice.errors import CheckpointError
from hubsplice.terminal import print_content, print_json, print_line


class EngineName(enum.StrEnum):
    """The engines that can be put to the test."""

    TRANSFORMERS = "transformers"
    VLLM = "vllm"
    LLAMA_CPP = "llama.cpp"


class ServedDtype(enum.StrEnum):
    """The precisions that an engine can be asked to serve in."""

    FLOAT32 = "float32"
    BFLOAT16 = "bfloat16"


def verify(
    model: SplicedModel,
    base: Base = None,
    revision: Revision = None,
    engine: Annotated[
        EngineName | None,
        typer.Option(
            help="Also run prompts through this engine, and compare the answers with the hook.",
            show_default=False,
        ),
    ] = None,
    dtype: Annotated[
        ServedDtype | None,
        typer.Option(
            help="The precision of the engine. float32 is the sharpest test. "
            "[default: the one that the layers were compiled for]",
            show_default=False,
        ),
    ] = None,
    python: EnginePython = None,
    converter: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="convert_hf_to_gguf.py in llama.cpp's sources, for --engine llama.cpp.",
            show_default=False,
        ),
    ] = None,
    prompts: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Prompts for the engine, one on each line. [default: text that comes with Python]",
            show_default=False,
        ),
    ] = None,
    max_new_tokens: Annotated[
        int, typer.Option(min=1, help="How many tokens the engine generates after each prompt.")
    ] = 16,
    streams: Annotated[
        bool,
        typer.Option(
            "--streams",
            help="Also run the base in float32 on a short text, and test the heights of the edits "
            "on its streams.",
        ),
    ] = False,
    record: Annotated[
        bool,
        typer.Option(
            "--record",
            help="Write what the engine did into the folder, passed or not, and onto its card.",
        ),
    ] = False,
    carrier: AdaptersCarrier = None,
    as_json: AsJson = False,
) -> None:
    """Check a spliced checkpoint against its base.

    Proves that every tensor of the base is there byte for byte, and that nothing else is there but
    what the manifest declares; that every neuron of the inserted layers has a part in the edits or
    is zero; and that the edits follow from the recipe's words. With --streams, also tests how much
    the layers write on streams of the base. With --engine, also tests that the engine serves these
    weights, and that the weights make the edit; --record puts that onto the model's card.

    For a carrier, proves that it is the base with nothing but empty slots added. For an adapter,
    proves that it changes nothing but its carrier's slots, and makes the declared edit.
    """
    from hubsplice.interface.verify import verify as verify_model
    from hubsplice.verifying.statements.table import claims_table
    from hubsplice.verifying.table import checks_table

    result = verify_model(
        model,
        base=base,
        revision=revision,
        engine=engine.value if engine else None,
        dtype=dtype.value if dtype else None,
        python=python,
        converter=converter,
        prompts=prompts,
        max_new_tokens=max_new_tokens,
        streams=streams,
        carrier=carrier,
        record=record,
    )
    if as_json:
        print_json(result.model_dump(mode="json"))
    else:
        print_line(result.verdict)
        print_content(
            [
                checks_table(result.checks, all_in="--json"),
                claims_table(result.claims, all_in="--json"),
            ]
        )
    if not result.passed:
        raise CheckpointError(f"{result.model}: {result.verdict}")
