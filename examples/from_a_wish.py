"""The way from a wish to a published model, run for real and written down: docs/from-a-wish.md.

    python examples/from_a_wish.py --keep FOLDER

Runs every command of the page in a folder, against the Hub's double of the tests, and writes what
it printed and how long it took. A run that was stopped goes on behind the last command that it
finished, unless that is on the Hub, which forgets. Where a command fails, no page is written.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import textwrap
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from examples.smollm2 import fetch_smollm2
from tests.loopback.client import LoopbackHub

ROOT = Path(__file__).parents[1]
EXAMPLE = ROOT / "examples" / "from-a-wish"
PAGE = ROOT / "docs" / "from-a-wish.md"
BASE = "smollm2-135m-instruct"
SCORE = r"'regex=(?m)^\s*(1\.|[-*] )'"
QUESTION = "Give me three tips for a better night's sleep."
# Of what a command says beside its results; the rest is how far it is.
TOLD = r"^(warning|next|answers|wrote)\b"


@dataclass(frozen=True)
class Step:
    """A heading, what is said before a command, the command, and how much of its output is shown.

    Attributes:
        head: lines that are shown of the beginning; the others are left out, which is marked.
    """

    heading: str
    says: str
    command: str
    head: int = 100


ASKED = """
from transformers import pipeline
ask = pipeline("text-generation", "pulled", dtype="bfloat16")
question = [{"role": "user", "content": "What should I check before I buy a used car?"}]
print(ask(question, max_new_tokens=60, do_sample=False)[0]["generated_text"][-1]["content"])
"""
PUBLISH = "hubsplice publish no-lists --repo-id me/smollm2-no-lists"
STEPS = (
    Step(
        "The wish, in examples",
        "SmolLM2 answers many questions with a numbered list. I want it to stop doing that. So I "
        "write twelve answers twice, as lists and as prose, alike in all other ways:",
        "head -n 1 lists.jsonl prose.jsonl",
    ),
    Step(
        "A recipe",
        "The difference between the two sets is a direction, and the recipe steers against it. "
        "This needs no SAE. With one, `hubsplice find --positive lists.jsonl --negative "
        "prose.jsonl` ranks its features by the same examples.",
        "cat no-lists.yaml",
    ),
    Step(
        "Try it",
        "Nothing is built: the base runs with the exact hook.",
        f'hubsplice try no-lists.yaml "{QUESTION}" --strength=-0.5,-1 --max-new-tokens 40',
    ),
    Step(
        "How strong?",
        "Eight questions, six strengths, and as the score how often an answer begins a list.",
        "hubsplice sweep no-lists.yaml --prompts questions.txt --want less --write "
        f"--strengths=-0.5,-0.75,-1,-1.25,-1.5,-2 --score {SCORE} "
        "--max-new-tokens 32 --neutral-tokens 256",
    ),
    Step("What the sweep wrote", "The strength, and above it the evidence:", "cat no-lists.yaml"),
    Step("Check", "Configurations only, in a second.", "hubsplice check no-lists.yaml"),
    Step(
        "Build",
        "The verdict is on the weights: they do what the hook does. Below it stands what the edit "
        "does to text, and here that is too much. The sweep said that answers repeat themselves, "
        "and the build says that text does not survive. In earnest I would go back to -1.25, which "
        "halves the lists, or to a larger model. I go on to show the rest of the way.",
        "hubsplice build no-lists.yaml --output no-lists",
    ),
    Step(
        "The card", "What the Hub will show begins so:", "sed -n '/^# /,$p' no-lists/README.md", 40
    ),
    Step(
        "Verify",
        "Every tensor of the base is in it, and the layer that was added is what the recipe says.",
        f"hubsplice verify no-lists --base {BASE}",
    ),
    Step(
        "Publish",
        "First the plan, then for real.",
        f"{PUBLISH} --dry-run",
    ),
    Step("", "", PUBLISH),
    Step(
        "What a colleague does",
        "With nothing but the repository's name:",
        "hf download me/smollm2-no-lists --local-dir pulled --quiet",
    ),
    Step(
        "",
        "It is served by what serves the base, with none of hubsplice. `hubsplice serve pulled` "
        "prints vLLM's command; transformers does as well:",
        f"python -I -c '{ASKED}'",
    ),
)

LEFT_OUT = """
`hubsplice evaluate`, which compares base and edited model for the card, was left out here: see
[evaluating](evaluating.md).
"""


def main() -> None:
    """Run all steps, and write the page."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--keep", type=Path, required=True, help="folder to work in")
    parser.add_argument("--output", type=Path, default=PAGE)
    options = parser.parse_args()
    keep: Path = options.keep.absolute()
    work = keep / "wish"
    if not work.is_dir():
        shutil.copytree(EXAMPLE, work)
        (work / BASE).symlink_to(fetch_smollm2().resolve())
    with LoopbackHub(Path(tempfile.mkdtemp(dir=keep)) / "hub", "xet") as hub:
        environment = hub.environment(keep / "home") | {
            "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
            "PYTHONPATH": str(ROOT),
            "COLUMNS": "96",
            "NO_COLOR": "1",
        }
        done = [ran(i, keep / "steps.jsonl", work, environment) for i in range(len(STEPS))]

    def plain(text: str) -> str:
        return text.replace(str(work), "~/wish").replace(hub.endpoint, "https://hub.example")

    parts = [section(step, plain(output), s) for step, (output, s) in zip(STEPS, done, strict=True)]
    rows = [
        f"| `{textwrap.shorten(step.command, 70, placeholder=' …')}` | {seconds:.0f} |\n"
        for step, (_, seconds) in zip(STEPS, done, strict=True)
        if step.command.startswith(("hubsplice", "hf", "python"))
    ]
    table = f"\n## How long it took\n\n| command | seconds |\n|---|--:|\n{''.join(rows)}"
    page = f"{INTRODUCTION}{''.join(parts)}{table}{LEFT_OUT}"
    options.output.write_text(page, encoding="utf-8")


def ran(number: int, kept: Path, work: Path, environment: Mapping[str, str]) -> tuple[str, float]:
    """What a step printed, and the seconds that it took; kept in a file, and taken from it.

    Raises:
        SystemExit: it failed.
    """
    step = STEPS[number]
    known = kept.read_text(encoding="utf-8").splitlines() if kept.is_file() else []
    on_the_hub = number >= [one.command for one in STEPS].index(PUBLISH)
    for line in map(json.loads, known):
        if (line["number"], line["command"]) == (number, step.command) and not on_the_hub:
            return line["output"], line["seconds"]
    started = time.monotonic()
    done = subprocess.run(
        ["/bin/bash", "-c", step.command],
        cwd=work,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    seconds = time.monotonic() - started
    print(f"{step.command}\n{done.stdout}{done.stderr}{seconds:.0f} s\n", flush=True)
    if done.returncode:
        raise SystemExit(f"it failed: {step.command}")
    output = done.stdout + "".join(
        f"{line}\n" for line in done.stderr.splitlines() if re.search(TOLD, line)
    )
    line = {"number": number, "command": step.command, "output": output, "seconds": seconds}
    with kept.open("a", encoding="utf-8") as file:
        file.write(json.dumps(line) + "\n")
    return output, seconds


def section(step: Step, output: str, seconds: float) -> str:
    """One step, as the page has it."""
    lines = [line.rstrip() for line in output.strip("\n").splitlines()]
    if len(lines) > step.head:
        lines = [*lines[: step.head], f"[… {len(lines) - step.head} lines left out]"]
    heading = f"\n## {step.heading}\n" if step.heading else ""
    says = f"\n{wrapped(step.says)}\n" if step.says else ""
    shown = "\n".join([f"$ {step.command}", *lines])
    return f"{heading}{says}\n```text\n{shown}\n```\n\n{seconds:.0f} s.\n"


def wrapped(text: str) -> str:
    """A paragraph in lines of at most 105 characters."""
    return textwrap.fill(text, 105, break_long_words=False, break_on_hyphens=False)


INTRODUCTION = """# From a wish to a published model

A transcript. Every command was run as it stands, in a folder with the files of
`examples/from-a-wish` and the model. `python examples/from_a_wish.py` runs them again and writes
this page. The model is SmolLM2-135M-Instruct (from a 4-bit file, so not the weights as published).
The Hub is the stand-in of hubsplice's tests, here called `https://hub.example`. Times are those of
a machine with two cores that had other work.
"""


if __name__ == "__main__":
    main()
