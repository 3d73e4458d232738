"""`hubsplice evaluate`."""

from __future__ import annotations

import enum
import shlex
from pathlib import Path
from typing import Annotated

import typer

from hubsplice.cli.app import (
    SCORE,
    AsJson,
    EnginePython,
    IncludePath,
    Limit,
    LocalBase,
    MaxNewTokens,
    NeutralTokens,
    Plain,
    Seed,
    SplicedFolder,
    Temperature,
    TopP,
)
from hubsplice.terminal import print_content, print_json, print_note


class Backend(enum.StrEnum):
    """What runs the models."""

    HF = "hf"
    VLLM = "vllm"


def evaluate(
    folder: SplicedFolder,
    prompts: Annotated[
        Path | None,
        typer.Option(
            "--prompts",
            metavar="FILE",
            help="A file with what both models are asked, one prompt a line; or an "
            "evaluation.json, to ask its prompts again. [default: general questions]",
            show_default=False,
        ),
    ] = None,
    score: Annotated[list[str] | None, SCORE] = None,
    tasks: Annotated[
        str | None,
        typer.Option(
            "--tasks",
            metavar="A,B,…",
            help="Tasks of lm-evaluation-harness, run on both models. Alone, nothing else is "
            "measured.",
            show_default=False,
        ),
    ] = None,
    include_path: IncludePath = None,
    backend: Annotated[
        Backend,
        typer.Option(
            "--backend",
            help="What runs the models: transformers or vLLM. Neutral text is always read by "
            "transformers.",
        ),
    ] = Backend.HF,
    python: EnginePython = None,
    model_args: Annotated[
        str,
        typer.Option(
            "--model-args",
            metavar="NAME=VALUE,…",
            help="More arguments of the backend; with vLLM, of vllm.LLM.",
            show_default=False,
        ),
    ] = "",
    num_fewshot: Annotated[
        int | None,
        typer.Option(
            "--num-fewshot",
            min=0,
            help="How many solved examples stand in front of a question. [default: the task's own]",
            show_default=False,
        ),
    ] = None,
    limit: Limit = None,
    batch_size: Annotated[
        str, typer.Option("--batch-size", help="A task's questions at once, or auto.")
    ] = "8",
    chat: Annotated[
        bool, typer.Option("--chat", help="Put tasks through the chat template.")
    ] = False,
    base: LocalBase = None,
    recipe: Annotated[
        Path | None,
        typer.Option(
            "--recipe",
            metavar="FILE",
            help="The recipe's file, to show what `sweep --write` put into it.",
            show_default=False,
        ),
    ] = None,
    plain: Plain = False,
    max_new_tokens: MaxNewTokens = 80,
    temperature: Temperature = 0.0,
    top_p: TopP = 1.0,
    seed: Seed = 0,
    neutral_tokens: NeutralTokens = 1024,
    answers: Annotated[
        Path | None,
        typer.Option(
            "--answers",
            metavar="FILE",
            help="Where answers are kept; an evaluation that was stopped goes on from it. "
            "[default: FOLDER.evaluation.jsonl]",
            show_default=False,
        ),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Compare a built checkpoint with its base, for its card.

    Both models answer the same prompts with the same random numbers, and read the same neutral
    text. Tasks of lm-evaluation-harness run on both with the same settings. Answers, with
    all their scores, or tasks that were not asked again stay on the card from an earlier
    evaluation.
    """
    from hubsplice.card import edited_card
    from hubsplice.interface.evaluate import evaluate as evaluate_folder

    found = evaluate_folder(
        folder,
        prompts=prompts,
        scores=score or (),
        tasks=[name for name in map(str.strip, (tasks or "").split(",")) if name],
        base=base,
        recipe=recipe,
        plain=plain,
        max_new_tokens=max_new_tokens,
        temperature=temperature,
        top_p=top_p,
        seed=seed,
        neutral_tokens=neutral_tokens,
        include_path=include_path,
        backend=backend.value,
        num_fewshot=num_fewshot,
        limit=limit,
        batch_size=batch_size,
        chat=chat,
        model_args=model_args,
        python=python,
        answers=answers,
    )
    if as_json:
        print_json(found.model_dump(mode="json"))
    else:
        print_content(found.content())
    named = shlex.quote(str(folder))
    if edited_card(folder) is None:
        print_note(f"the card has it: {folder / 'README.md'}")
    else:
        print_note(
            "the card was edited by hand and is as it was; hubsplice card --rewrite "
            f"{named} writes it anew"
        )
    print_note(f"next: hubsplice publish {named} --repo-id YOU/NAME")
