"""Proof by behaviour: an engine that serves the edit passes, and any other model does not.

The weights are tampered with together with the manifest, so that no checksum tells.
"""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from hubsplice.errors import RecipeError, UnsupportedError
from hubsplice.fidelity.inserted import InsertedAt
from hubsplice.intervention.saved import INTERVENTION, load_intervention
from hubsplice.streams.model import loaded
from hubsplice.verifying import Run, Verification, verify
from hubsplice.verifying.behaviour import NAMES, Trial, behaviour_checks
from hubsplice.verifying.engines import Request, ServedBy, TransformersEngine, VllmEngine
from hubsplice.verifying.prompts import builtin_prompts
from hubsplice.verifying.transcript import Transcript, score
from tests.building.conftest import quiet
from tests.conftest import Command
from tests.verifying.conftest import Build, Spliced, Workshop

MLP = ("gate", "up", "down")


@dataclass(frozen=True)
class Serves:
    """An engine that serves another checkpoint than it is asked to."""

    folder: Path
    name: str = "impostor"

    def run(
        self, request: Request, progress: Callable[[int, int], None]
    ) -> tuple[list[Transcript], ServedBy]:
        return TransformersEngine().run(replace(request, folder=self.folder), progress)


def behave(spliced: Spliced, dtype: str, engine: Serves | None = None) -> Verification:
    run = Run(engine or TransformersEngine(), dtype)
    return verify(
        str(spliced.folder), base=str(spliced.base), revision=None, progress=quiet, run=run
    )


def failed(found: Verification) -> set[str]:
    return {check.name for check in found.checks if check.passed is False}


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_an_intact_checkpoint_serves_the_edit(built: Spliced, dtype: str) -> None:
    found = behave(built, dtype)
    assert [check for check in found.checks if not check.passed] == []
    assert found.verdict.endswith(f"transformers in {dtype} serves the edit.")
    behaviour = found.behaviour
    assert behaviour is not None
    assert behaviour.effect > 0.1
    assert behaviour.error < 0.1 * behaviour.effect
    assert (behaviour.noise_floor is None) is (dtype == "float32")
    assert behaviour.generated_tokens == 8 * 16


def zero(*names: str) -> Callable[[dict[str, torch.Tensor]], None]:
    def change(tensors: dict[str, torch.Tensor]) -> None:
        for name in names:
            assert tensors[name].any()
            tensors[name].zero_()

    return change


def tamper(spliced: Spliced, *names: str) -> None:
    """Set tensors to zero, and let the manifest declare it."""
    spliced.edit_tensors(zero(*names), of=names[0])
    spliced.edit_manifest(lambda m: m.update(zero_tensors=sorted({*m["zero_tensors"], *names})))
    spliced.forge_checksums()


GATED_LAYER = tuple(f"model.layers.2.mlp.{p}_proj.{k}" for p in MLP for k in ("weight", "bias"))


@pytest.mark.parametrize(
    "names",
    [
        GATED_LAYER,
        (*GATED_LAYER, "model.layers.2.self_attn.o_proj.bias"),
        ("model.layers.2.mlp.gate_proj.bias",),
        ("model.layers.2.self_attn.o_proj.bias",),
        ("model.layers.4.mlp.down_proj.bias",),
    ],
    ids=["MLP", "layer", "gate bias", "attention bias", "constant"],
)
def test_a_silenced_edit_is_found_though_the_manifest_declares_it(
    spliced: Spliced, names: tuple[str, ...]
) -> None:
    tamper(spliced, *names)
    found = behave(spliced, "float32")
    assert not found.passed
    by_files = {"inserted layers", "structure", "layer records"}
    assert failed(found) - by_files - {"edit"} == {"layer edits"}


def test_a_dropped_bias_is_found_though_the_manifest_declares_it(spliced: Spliced) -> None:
    name = "model.layers.2.mlp.gate_proj.bias"
    spliced.edit_tensors(lambda t: t.pop(name), of=name)
    spliced.forge_checksums()
    found = behave(spliced, "float32")
    assert failed(found) == {"added tensors", "engine"}
    (problem,) = {c.name: c for c in found.checks}["engine"].problems
    assert name in problem
    # vLLM loads such a checkpoint, with what happens to be in memory: here, with zeros.
    other = shutil.copytree(spliced.folder, spliced.folder.parent / "other")
    Spliced(other, spliced.base).edit_tensors(
        lambda t: t.update({name: torch.zeros(128, dtype=torch.bfloat16)}),
        of="model.layers.2.mlp.gate_proj.weight",
    )
    found = behave(spliced, "float32", Serves(other))
    assert failed(found) - {"edit"} == {"added tensors", "weights served"}


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_an_engine_that_serves_the_base(built: Spliced, dtype: str) -> None:
    """Fluent text without the edit: what a server does that skips what it does not know."""
    found = behave(built, dtype, Serves(built.base))
    assert failed(found) >= {"weights served", "greedy tokens", "edit"}
    behaviour = found.behaviour
    assert behaviour is not None
    assert behaviour.error == pytest.approx(behaviour.effect, rel=0.1)


def test_an_engine_that_ignores_a_bias_of_the_base_alone(
    make: Build, workshop: Workshop, tmp_path: Path
) -> None:
    """The weights are those of the edit; the engine drops a bias that the base has itself."""
    splice = (
        "  - {after_layer: 2, edits: [{kind: steer, vector: {path: v.safetensors}, strength: 3}]}"
    )
    folder = make(splice, tmp_path / "out", base="qwen2").folder
    spliced = Spliced(folder, workshop.bases["qwen2"])
    other = Spliced(shutil.copytree(folder, tmp_path / "other"), spliced.base)
    name = "model.layers.0.self_attn.v_proj.bias"
    other.edit_tensors(zero(name), of=name)
    assert failed(behave(spliced, "float32", Serves(other.folder))) >= {"weights served", "edit"}
    assert failed(behave(spliced, "float32")) == set()


def test_prompts_that_do_not_show_the_edit_prove_nothing(built: Spliced) -> None:
    prompt = builtin_prompts(AutoTokenizer.from_pretrained(built.base))[0]
    intervention = load_intervention(built.folder / INTERVENTION)
    faint = replace(
        intervention,
        sites=tuple(
            replace(s, terms=tuple(replace(t, direction=t.direction * 1e-5) for t in s.terms))
            for s in intervention.sites
        ),
    )
    places = (InsertedAt(1), InsertedAt(2))
    for dtype, advice in (("float32", "--prompts"), ("bfloat16", "--dtype float32")):
        trial = Trial(built.base, built.base, faint, places, None, dtype, [prompt], 2)
        checks, _ = behaviour_checks(trial, TransformersEngine(), quiet)
        outcomes = {check.name: check.passed for check in checks}
        assert outcomes == {
            "engine": True,
            "weights served": True,
            "greedy tokens": True,
            "layer edits": False,
            "edit": None,
        }
        assert advice in checks[-1].detail


def test_an_empty_splice_serves_the_base(make: Build, workshop: Workshop, tmp_path: Path) -> None:
    folder = make("  - {after_layer: 0}", tmp_path / "out", base="bfloat16", measure=False).folder
    spliced = Spliced(folder, workshop.bases["bfloat16"])
    for dtype in ("float32", "bfloat16"):
        found = behave(spliced, dtype)
        assert found.passed
        assert found.behaviour is not None
        assert found.behaviour.effect == 0
    steered = make(
        "  - {after_layer: 2, edits: [{kind: steer, vector: {path: v.safetensors}, strength: 3}]}",
        tmp_path / "steered",
        base="bfloat16",
        measure=False,
    ).folder
    assert "edit" in failed(behave(spliced, "float32", Serves(steered)))


def test_the_engine_continues_as_transformers_generates(built: Spliced) -> None:
    prompts = builtin_prompts(AutoTokenizer.from_pretrained(built.base))[:3]
    assert len({len(prompt) for prompt in prompts}) == 3
    transcripts, _ = TransformersEngine().run(
        Request(built.folder, "float32", prompts, 5), lambda *_: None
    )
    model = AutoModelForCausalLM.from_pretrained(built.folder, dtype=torch.float32)
    for prompt, transcript in zip(prompts, transcripts, strict=True):
        ids = torch.tensor([prompt])
        with torch.no_grad():
            generated = model.generate(
                ids,
                attention_mask=torch.ones_like(ids),
                max_new_tokens=5,
                min_new_tokens=5,
                do_sample=False,
            )
            expected = model(generated).logits[0].double().log_softmax(dim=-1)
        assert tuple(generated[0, len(prompt) :].tolist()) == transcript.tokens
        wanted = [float(expected[i, token]) for i, token in enumerate(generated[0, 1:].tolist())]
        assert transcript.logprobs.tolist() == pytest.approx(wanted, abs=1e-5)


def test_scores_are_of_the_tokens_that_follow(built: Spliced) -> None:
    transcript = Transcript((1, 40, 41), (42,), torch.zeros(3))
    with loaded(built.base, torch.float32) as model:
        scores = score(model, [transcript, transcript], lambda *_: None)
        with torch.no_grad():
            logits = model(torch.tensor([[1, 40, 41, 42]])).logits[0].double()
    for place, token in enumerate((40, 41, 42)):
        total = math.log(sum(math.exp(x) for x in logits[place].tolist()))
        assert float(scores.logprobs[place]) == pytest.approx(float(logits[place, token]) - total)
        assert int(scores.choices[place]) == int(logits[place].argmax())
        assert float(scores.best[place]) == pytest.approx(float(logits[place].max()) - total)
    assert torch.equal(scores.logprobs[:3], scores.logprobs[3:])
    assert transcript.generated.tolist() == [False, False, True]


def test_the_command_line(spliced: Spliced, command: Command, tmp_path: Path) -> None:
    (tmp_path / "prompts.txt").write_text("The first prompt\n\nand another\n", encoding="utf-8")
    outcome = command(
        "verify", spliced.folder, "--base", spliced.base, "--engine", "transformers",
        "--prompts", "prompts.txt", "--max-new-tokens", "3", "--dtype", "float32", "--json",
        "--record",
    )  # fmt: skip
    found = json.loads(outcome.out)
    assert found["behaviour"]["engine"] == "transformers"
    assert found["behaviour"]["prompts"] == 2
    # One id a byte, behind <s>.
    assert found["behaviour"]["prompt_tokens"] == len("The first prompt") + len("and another") + 2
    assert found["behaviour"]["generated_tokens"] == 6
    assert outcome.code == 0
    # On record, it is a claim for whoever verifies next.
    assert ", in float32: it serves the edit" in (spliced.folder / "README.md").read_text(
        encoding="utf-8"
    )
    again = spliced.verify()
    assert again.passed
    (claim,) = (claim for claim in again.claims if claim.file == "engine-runs.json")
    assert claim.why == "files can't show it; `hubsplice verify --engine` runs one here"
    assert not [claim for claim in again.claims if claim.file in ("README.md", "card.json")]
    (spliced.folder / "engine-runs.json").write_text("{}")
    spliced.forge_checksums()
    assert "engine runs" in spliced.failed()


@pytest.mark.parametrize(
    ("text", "problem"),
    [(None, "can't be read"), ("\n \n", "no line with text"), ("x" * 1024, "1025 tokens")],
)
def test_prompts_that_are_none(
    built: Spliced, command: Command, tmp_path: Path, text: str | None, problem: str
) -> None:
    if text is not None:
        (tmp_path / "prompts.txt").write_text(text, encoding="utf-8")
    outcome = command(
        "verify", built.folder, "--base", built.base, "--engine", "transformers",
        "--prompts", "prompts.txt",
    )  # fmt: skip
    assert outcome.code == 2
    assert problem in outcome.err


def test_options_of_engines_need_one(built: Spliced, command: Command) -> None:
    outcome = command("verify", built.folder, "--base", built.base, "--dtype", "float32")
    assert outcome.code == 2
    assert "--dtype: it needs an engine; add --engine" in outcome.err
    outcome = command("verify", built.folder, "--base", built.base, "--record")
    assert outcome.code == 2
    assert "--record: it needs an engine; add --engine" in outcome.err


def test_an_environment_without_vllm(built: Spliced, command: Command, tmp_path: Path) -> None:
    empty = tmp_path / "python"
    empty.write_text(
        "#!/bin/sh\necho \"ModuleNotFoundError: No module named 'vllm'\" >&2\nexit 1\n",
        encoding="utf-8",
    )
    empty.chmod(0o755)
    arguments = ["verify", built.folder, "--base", built.base, "--engine", "vllm", "--python"]
    outcome = command(*arguments, empty)
    assert (outcome.code, outcome.out) == (3, "")
    assert "has no vLLM" in outcome.err
    outcome = command(*arguments, tmp_path / "missing")
    assert outcome.code == 3
    assert "can't be run: No such file or directory" in outcome.err
    with pytest.raises(UnsupportedError):
        VllmEngine(tmp_path).run(Request(built.folder, "float32", [(1, 2)], 1), lambda *_: None)


def test_what_can_not_be_compared_is_not_run(spliced: Spliced) -> None:
    spliced.edit_manifest(lambda m: m["layers"][0]["terms"][0].update(label="harmless"))
    found = behave(spliced, "float32")
    outcomes = {check.name: check.passed for check in found.checks}
    assert [outcomes[name] for name in NAMES] == [None] * 5
    assert found.behaviour is None


def test_read_prompts_names_the_line(built: Spliced, tmp_path: Path) -> None:
    from hubsplice.verifying.prompts import read_prompts

    path = tmp_path / "prompts.txt"
    path.write_bytes(b"fine\n\xff")
    with pytest.raises(RecipeError, match="expected UTF-8"):
        read_prompts(path, AutoTokenizer.from_pretrained(built.base))
