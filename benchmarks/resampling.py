"""An edit against resampling: what it costs to get a sample without any word about food.

Without a splice, one samples from the base until a sample has no word of the class. With one that
suppresses the class, fewer samples are thrown away, or none; but the model is another one, and what
it says is judged by its perplexity under the base. All models are asked in vLLM, in turn, round by
round, and the samples that pass are read by the base in transformers.

    python benchmarks/resampling.py
"""

from __future__ import annotations

import argparse
import json
import math
import re
import sys
import tempfile
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import AutoTokenizer

from benchmarks.intervals import Array, Estimate, median, of_means
from benchmarks.plots import curves
from benchmarks.processes import RESULTS, SAE, VLLM_PYTHON, machine, splice, start_vllm
from examples.smollm2 import fetch_smollm2
from hubsplice.streams.model import Model, loaded

FOOD_FEATURE = 2
# Words about food, and stems of them.
FOOD = re.compile(
    r"""\b(
    appetite|appetizer[a-z]*|apple[a-z]*|ate|bacon|bak[a-z]*|banana[a-z]*|barbecue[a-z]*|bbq|
    beef|beer[a-z]*|berries|berry|beverage[a-z]*|biscuit[a-z]*|bread[a-z]*|breakfast[a-z]*|
    brunch[a-z]*|butter|cake[a-z]*|candies|candy|carrot[a-z]*|cereal[a-z]*|cheese[a-z]*|
    chef[a-z]*|chicken|chocolate[a-z]*|coffee[a-z]*|cook[a-z]*|cream|cuisine[a-z]*|culinary|
    delicacies|delicious|dessert[a-z]*|diet[a-z]*|dine|dined|diner[a-z]*|dining|dinner[a-z]*|
    dish[a-z]*|drank|drink[a-z]*|eat|eaten|eater[a-z]*|eating|eats|edible|egg[a-z]*|feast[a-z]*|
    flavor[a-z]*|flavour[a-z]*|flour|food[a-z]*|fried|fruit[a-z]*|garlic|gastronom[a-z]*|gelato|
    gourmet|grill[a-z]*|ham|honey|hunger|hungry|ingredient[a-z]*|juice[a-z]*|kitchen[a-z]*|
    lunch[a-z]*|meal[a-z]*|meat[a-z]*|menu[a-z]*|milk|nut|nutrient[a-z]*|nutrition[a-z]*|
    nutritious|nuts|olive[a-z]*|onion[a-z]*|oven[a-z]*|pasta[a-z]*|pastries|pastry|picnic[a-z]*|
    pie|pies|pizza[a-z]*|pork|potato[a-z]*|protein[a-z]*|recipe[a-z]*|restaurant[a-z]*|rice|
    roast[a-z]*|salad[a-z]*|sandwich[a-z]*|sauce[a-z]*|sausage[a-z]*|seafood|snack[a-z]*|
    soup[a-z]*|spice[a-z]*|spicy|steak[a-z]*|sugar[a-z]*|sweets|taste[a-z]*|tasted|tastes|tasty|
    tea|teas|tomato[a-z]*|veg|vegan[a-z]*|vegetable[a-z]*|wine[a-z]*|yogurt[a-z]*
    )\b""",
    re.IGNORECASE | re.VERBOSE,
)
PROMPTS = (
    "Describe a day at the market.",
    "How do families celebrate Christmas?",
    "What can guests expect at a wedding party?",
    "What do I need for a camping trip?",
    "How can I save money at home?",
    "Tell me about your weekend.",
    "What should I see and do in Paris?",
    "How do people spend a holiday at home?",
)
EDITS = {
    "ablate": "{kind: ablate}",
    "scale −2": "{kind: scale, factor: -2}",
    "steer −0.1 × norm": "{kind: steer, strength: -0.1 x norm}",
    "steer −0.15 × norm": "{kind: steer, strength: -0.15 x norm}",
}
LENGTHS = (16, 32, 64, 96)
TEMPERATURE = 0.7


@dataclass(frozen=True)
class Sample:
    """What was sampled.

    Attributes:
        tokens: the ids.
        violation: how many tokens had been generated when a word of the class was complete;
            infinite if there is none.
    """

    tokens: tuple[int, ...]
    violation: float

    def passes(self, length: int) -> bool:
        """Whether its first `length` tokens have no word of the class."""
        return self.violation > length

    def cost(self, length: int, *, stop: bool) -> float:
        """The tokens that it took; with `stop`, none after a word of the class."""
        return min(len(self.tokens), length, self.violation if stop else math.inf)


def judged(tokenizer: Any, tokens: Sequence[int]) -> Sample:
    """A sample, and where it violates the constraint."""

    def text(count: int) -> str:
        return str(tokenizer.decode(tokens[:count], skip_special_tokens=True))

    found = FOOD.search(text(len(tokens)))
    if found is None:
        return Sample(tuple(tokens), math.inf)
    complete = (n for n in range(1, len(tokens) + 1) if len(text(n)) >= found.end())
    return Sample(tuple(tokens), next(complete))


def observations(samples: Sequence[Sequence[Sample]], length: int, *, stop: bool) -> list[Array]:
    """For each prompt, its samples' tokens and whether they pass, [samples, 2]."""
    return [
        np.array([(s.cost(length, stop=stop), s.passes(length)) for s in group])
        for group in samples
    ]


def cost_per_accepted(means: list[Array]) -> Array:
    """Tokens for an accepted sample, where every prompt is sampled as often as the others."""
    tokens, passed = np.mean(means, axis=0).T
    return tokens / passed


def cost_for_every_prompt(means: list[Array]) -> Array:
    """Tokens for one accepted sample of each prompt, by rejection; the mean over the prompts."""
    with np.errstate(divide="ignore"):
        return np.mean([tokens / passed for tokens, passed in (m.T for m in means)], axis=0)


def acceptance(means: list[Array]) -> Array:
    """The share of samples that pass; prompts have as many each."""
    return np.mean([m[:, 1] for m in means], axis=0)


@dataclass(frozen=True)
class Measured:
    """One model: samples of every prompt, seconds of every round, and what the base makes of
    the samples that pass: nats and tokens of each."""

    samples: list[list[Sample]]
    cpu: list[float]
    wall: list[float]
    read: list[tuple[float, int]]

    @property
    def tokens(self) -> int:
        return sum(len(s.tokens) for group in self.samples for s in group)

    @property
    def perplexity(self) -> Estimate:
        return of_means([self.read], lambda means: np.exp(means[0][:, 0] / means[0][:, 1]))

    def cost(self, length: int) -> Estimate:
        return of_means(observations(self.samples, length, stop=False), cost_per_accepted)

    def cost_for_every_prompt(self, length: int) -> Estimate:
        return of_means(observations(self.samples, length, stop=False), cost_for_every_prompt)

    def acceptance(self, length: int, prompts: slice = slice(None)) -> Estimate:
        return of_means(observations(self.samples[prompts], length, stop=False), acceptance)

    def gain(self, base: Measured, length: int, *, stop: bool) -> Estimate:
        """The base's cost of an accepted sample as a multiple of this model's."""
        count = len(base.samples)
        return of_means(
            observations([*base.samples, *self.samples], length, stop=stop),
            lambda means: cost_per_accepted(means[:count]) / cost_per_accepted(means[count:]),
        )


def nats(model: Model, prompt: Sequence[int], tokens: Sequence[int]) -> float:
    """The surprise of the base at a continuation."""
    ids = torch.tensor([[*prompt, *tokens]])
    with torch.inference_mode():
        logprobs = model(ids).logits[0, len(prompt) - 1 : -1].log_softmax(dim=-1)
    return -float(logprobs.gather(1, ids[0, len(prompt) :, None]).sum())


def sample_all(
    models: dict[str, Path],
    prompts: list[list[int]],
    end: int,
    arguments: argparse.Namespace,
    folder: Path,
) -> tuple[dict[str, list[list[list[int]]]], dict[str, tuple[list[float], list[float]]], str]:
    """Ask every model in every round, up to the token `end`; samples of each prompt, seconds, and
    vLLM's version."""
    samples: dict[str, list[list[list[int]]]] = {name: [[] for _ in prompts] for name in models}
    seconds: dict[str, tuple[list[float], list[float]]] = {name: ([], []) for name in models}
    with ExitStack() as running:
        engines = {
            name: running.enter_context(
                start_vllm(
                    arguments.vllm,
                    path,
                    dtype="bfloat16",
                    max_num_seqs=64,
                    length=2 * LENGTHS[-1],
                    threads=arguments.threads,
                    log=folder / "vllm.log",
                )
            )
            for name, path in models.items()
        }
        for engine in engines.values():
            engine.ask(prompts, 4)
        for number in range(arguments.rounds):
            turn = list(engines) if number % 2 else list(engines)[::-1]
            for name in turn:
                answer = engines[name].ask(
                    prompts,
                    LENGTHS[-1],
                    samples=arguments.samples,
                    temperature=TEMPERATURE,
                    stop=[end],
                )
                for kept, found in zip(samples[name], answer.tokens, strict=True):
                    kept += found
                seconds[name][0].append(answer.cpu)
                seconds[name][1].append(answer.wall)
            print(f"round {number + 1} of {arguments.rounds}", file=sys.stderr, flush=True)
        version = next(iter(engines.values())).version
    return samples, seconds, version


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--vllm", type=Path, default=VLLM_PYTHON, help="vLLM's interpreter")
    parser.add_argument("--threads", type=int, default=1, help="of each engine")
    parser.add_argument("--rounds", type=int, default=6)
    parser.add_argument("--samples", type=int, default=8, help="of each prompt in a round")
    parser.add_argument(
        "--read", type=int, default=12, help="samples of each prompt for perplexity"
    )
    arguments = parser.parse_args()
    base = fetch_smollm2()
    tokenizer = AutoTokenizer.from_pretrained(base)
    prompts = [
        tokenizer.apply_chat_template(
            [{"role": "user", "content": prompt}], add_generation_prompt=True, return_dict=True
        )["input_ids"]
        for prompt in PROMPTS
    ]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        models = {"base": base}
        for number, (edit, text) in enumerate(EDITS.items()):
            fields = f"{{feature: {FOOD_FEATURE}, {text[1:]}"
            recipe = f"  - sae: {{path: {SAE}}}\n    edits: [{fields}]\n"
            models[edit] = splice(base, recipe, folder / f"edit-{number}")
        samples, seconds, version = sample_all(
            models, prompts, tokenizer.eos_token_id, arguments, folder
        )
    measured = {}
    with loaded(base, torch.float32) as model:
        for edit, of_prompts in samples.items():
            found = [[judged(tokenizer, tokens) for tokens in group] for group in of_prompts]
            read = [
                (nats(model, prompt, sample.tokens), len(sample.tokens))
                for prompt, group in zip(prompts, found, strict=True)
                for sample in [s for s in group if s.passes(LENGTHS[-1])][: arguments.read]
            ]
            measured[edit] = Measured(found, *seconds[edit], read)
            print(f"read {edit}", file=sys.stderr, flush=True)
    text = _document(measured, version, arguments, tokenizer)
    (RESULTS / "resampling.md").write_text(text)
    (RESULTS / "resampling.json").write_text(_measurements(measured))
    _plot(measured)
    print(text)


def _measurements(measured: dict[str, Measured]) -> str:
    found = [
        {
            "model": name,
            "cpu": model.cpu,
            "wall": model.wall,
            "samples": [
                [[len(s.tokens), None if math.isinf(s.violation) else s.violation] for s in group]
                for group in model.samples
            ],
            "nats_and_tokens": model.read,
        }
        for name, model in measured.items()
    ]
    return json.dumps(found) + "\n"


def _plot(measured: dict[str, Measured]) -> None:
    series = {name: [model.cost(length) for length in LENGTHS] for name, model in measured.items()}
    finite = [e.value for found in series.values() for e in found if math.isfinite(e.value)]
    curves(
        RESULTS / "resampling.svg",
        LENGTHS,
        series,
        xlabel="length of a sample in tokens",
        ylabel="tokens generated per accepted sample",
        top=1.2 * max(finite),
    )


def _row(name: str, measured: dict[str, Measured]) -> str:
    base, model, length = measured["base"], measured[name], LENGTHS[-1]
    gain, stopped = (model.gain(base, length, stop=stop) for stop in (False, True))
    seconds = median([ours / theirs for ours, theirs in zip(model.cpu, base.cpu, strict=True)])
    per_token = seconds.value * base.tokens / model.tokens
    gains = f"{gain.text(2)} | {gain.value / per_token:.2f} | {stopped.text(2)}"
    return (
        f"| {name} | {model.acceptance(length).text(3)} | {model.cost(length).text(0)} | "
        f"{'1 | 1 | 1' if name == 'base' else gains} | "
        f"{model.cost_for_every_prompt(length).text(0).replace('inf', '∞')} | "
        f"{model.perplexity.text(2)} |"
    )


def _document(
    measured: dict[str, Measured], version: str, arguments: argparse.Namespace, tokenizer: Any
) -> str:
    each = arguments.rounds * arguments.samples
    lengths = " | ".join(f"{n} tokens" for n in LENGTHS)
    return "\n".join(
        [
            "# A splice against resampling",
            "",
            f"{date.today()}, {machine()}; vLLM {version}, bfloat16, {arguments.threads} thread(s) "
            "for each engine; SmolLM2-135M-Instruct, one feature of the SAE slice that ships with "
            "the project. Regenerate with `python benchmarks/resampling.py`.",
            "",
            f"The constraint: no word about food, of a list of {FOOD.pattern.count('|') + 1} words "
            f"and stems, in an answer of up to {LENGTHS[-1]} tokens, sampled at "
            f"temperature {TEMPERATURE}. {len(PROMPTS)} prompts that food comes up in, {each} "
            "samples of each prompt from each model. Samples that break the constraint are thrown "
            "away, of the base and of spliced models alike. 95% intervals by resampling samples.",
            "",
            "| | accepted | tokens per accepted sample | base's cost ÷ this, in tokens | the same "
            "in core seconds | the same in tokens, samples stopped at the first violation | tokens "
            "per accepted sample, one for every prompt | perplexity of accepted samples under the "
            "base |",
            "|---|---|---|---|---|---|---|---|",
            *(_row(name, measured) for name in measured),
            "",
            "Tokens per accepted sample is all tokens divided by all samples that passed, every "
            "prompt sampled as often: the cost of filtering. *One for every prompt* goes on with "
            "each prompt until a sample passes, so that the prompts where few do cost most. "
            "*Stopped at the first violation*, a rejected sample costs only what was generated "
            "until the word was complete. Perplexity guards quality: accepted samples of the base "
            "are what the constraint asks for, and a splice should not be much above them. A class "
            "that is a list of words, as here to have a verdict, could also be banned in the "
            "sampler; a feature needs no list.",
            "",
            "## Share accepted, by length",
            "",
            f"| | {lengths} |",
            "|---|" + "---|" * len(LENGTHS),
            *(
                f"| {name} | "
                + " | ".join(f"{model.acceptance(n).value:.3f}" for n in LENGTHS)
                + " |"
                for name, model in measured.items()
            ),
            "",
            "![Tokens generated per accepted sample, by length](resampling.svg)",
            "",
            "## Share accepted, by prompt",
            "",
            f"| | {' | '.join(measured)} |",
            "|---|" + "---|" * len(measured),
            *(
                f"| {prompt} | "
                + " | ".join(
                    f"{model.acceptance(LENGTHS[-1], slice(i, i + 1)).value:.2f}"
                    for model in measured.values()
                )
                + " |"
                for i, prompt in enumerate(PROMPTS)
            ),
            "",
            "## First accepted sample of the first prompt",
            "",
            *(
                f"- {name}: {_quoted(model.samples[0], tokenizer)}"
                for name, model in measured.items()
            ),
            "",
        ]
    )


def _quoted(samples: Sequence[Sample], tokenizer: Any) -> str:
    accepted = [s for s in samples if s.passes(LENGTHS[-1])]
    if not accepted:
        return "none"
    text = tokenizer.decode(accepted[0].tokens, skip_special_tokens=True)
    return f"“{' '.join(text.split())}”"


if __name__ == "__main__":
    main()
