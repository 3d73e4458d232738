"""Splice the example recipe into SmolLM2, measure it, and show what it says: `make demo`.

Every prompt is answered three times, greedily: by the base model, by the base model with the
exact hook, and by the spliced checkpoint as transformers loads it, without any of hubsplice.
"""

from __future__ import annotations

import shutil
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import takewhile
from pathlib import Path
from typing import Any

import torch
from rich import box
from rich.console import Console, RenderableType
from rich.table import Table
from rich.text import Text

import hubsplice
from examples.smollm2 import fetch_smollm2
from hubsplice.checkpoint.companions import MANIFEST
from hubsplice.errors import HubspliceError, OutputError
from hubsplice.streams.model import Model, loaded
from hubsplice.terminal import print_error

RECIPE = Path(__file__).parent / "recipe.yaml"
OUTPUT = Path(__file__).parent.parent / "demo-output"

PROMPTS = (
    "Who are you?",
    "What is a computer?",
    "What makes a good breakfast?",
    "Tell me about your weekend.",
)
NEW_TOKENS = 40


def remove_previous_output(folder: Path) -> None:
    """Remove what an earlier run built.

    Raises:
        OutputError: the folder holds something that hubsplice did not build.
    """
    if (folder / MANIFEST).is_file():
        shutil.rmtree(folder)
    elif folder.is_dir() and any(folder.iterdir()):
        raise OutputError(f"{folder}: holds no {MANIFEST}, so it is not an earlier demo's")


def generate(model: Model, tokenizer: Any, prompt: str) -> list[int]:
    """The tokens of the greedy answer to a prompt."""
    chat = tokenizer.apply_chat_template(
        [{"role": "user", "content": prompt}],
        add_generation_prompt=True,
        return_dict=True,
        return_tensors="pt",
    ).to(model.device)
    with torch.inference_mode():
        ids = model.generate(**chat, max_new_tokens=NEW_TOKENS, do_sample=False)
    answer: list[int] = ids[0, chat["input_ids"].shape[1] :].tolist()
    return answer


@dataclass(frozen=True)
class Answers:
    """The answers to one prompt, and how far those of hook and splice agree."""

    prompt: str
    before: str
    hook: str
    splice: str
    agreement: str


def answer_prompts(base: Path, spliced: Path) -> Iterator[Answers]:
    """Ask the base, the base with the exact hook, and the spliced checkpoint."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(spliced)
    after = AutoModelForCausalLM.from_pretrained(spliced)

    def text(ids: Sequence[int]) -> str:
        return str(tokenizer.decode(ids, skip_special_tokens=True)).strip()

    with loaded(base, after.dtype) as model:
        for prompt in PROMPTS:
            before = generate(model, tokenizer, prompt)
            with hubsplice.hooked(model, spliced):
                hook = generate(model, tokenizer, prompt)
            splice = generate(after, tokenizer, prompt)
            yield Answers(prompt, text(before), text(hook), text(splice), agreement(hook, splice))


def agreement(hook: Sequence[int], splice: Sequence[int]) -> str:
    """Say how far the tokens of two answers agree."""
    if list(hook) == list(splice):
        return f"The same {len(hook)} tokens from hook and splice."
    pairs = zip(hook, splice, strict=False)
    same = sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], pairs))
    return f"The same first {same} of {len(hook)} tokens from hook and splice."


def render_answers(answers: Answers) -> RenderableType:
    """The three answers side by side."""
    table = Table(
        box=box.SIMPLE_HEAD,
        pad_edge=False,
        expand=True,
        title=Text(answers.prompt, style="bold"),
        title_justify="left",
        caption=Text(answers.agreement, style="dim"),
        caption_justify="left",
    )
    for name in ("before", "with the hook", "after: the spliced checkpoint"):
        table.add_column(name, ratio=1)
    table.add_row(*map(Text, (answers.before, answers.hook, answers.splice)))
    return table


def main() -> None:
    """Fetch, build, report, and answer prompts."""
    console = Console()
    base = fetch_smollm2()
    remove_previous_output(OUTPUT)
    result = hubsplice.build(RECIPE, OUTPUT)
    assert result.report is not None
    console.print(result.report)
    for answers in answer_prompts(base, result.folder):
        console.print()
        console.print(render_answers(answers))
    console.print(f"\nThe spliced model is in {result.folder}", highlight=False, soft_wrap=True)


if __name__ == "__main__":
    try:
        main()
    except HubspliceError as error:
        print_error(str(error))
        sys.exit(error.exit_code)
