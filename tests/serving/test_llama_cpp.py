"""llama.cpp serves the edited model, from a file that its own converter makes."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import gguf
import pytest
import torch

from hubsplice.checkpoint.layer_map import inserted_indices
from hubsplice.checkpoint.manifest import read_manifest
from hubsplice.families.engines import EngineKey
from hubsplice.serving.engines import ENGINES
from hubsplice.streams.model import loaded
from hubsplice.verifying.behaviour import Behaviour
from hubsplice.verifying.llama_cpp import GgufFile, LlamaCppEngine
from hubsplice.verifying.transcript import Transcript
from tests.conftest import Command
from tests.serving.conftest import NEW_TOKENS, Model, Models, interpreter
from tests.serving.judge import Recorded, judge

LLAMA_CPP = ENGINES[EngineKey.LLAMA_CPP]

pytestmark = pytest.mark.serving

# By how much float32 log odds may differ: what is steep multiplies differences.
SPLICES = {"amplified": 1e-4, "jumps": 5e-4}
CONTEXT = 128
TOP = 20
# By what the converter calls them.
TYPES = {"f32": "float32", "bf16": "bfloat16"}
EVERY_BIAS, INSERTED_LAYER = "biases ignored", "inserted layer silenced"
# One model is enough to show what is found of these; the other has only right files.
SPOILED_MODEL = "amplified"
SPOILED = (("f32", EVERY_BIAS), ("bf16", INSERTED_LAYER))


@dataclass(frozen=True)
class LlamaCpp:
    """An environment that `make test-serving` made.

    Attributes:
        python: its interpreter, which has xllamacpp.
        source: the folder of the converter.
    """

    python: Path
    source: Path

    @property
    def engine(self) -> LlamaCppEngine:
        """What `verify` runs."""
        return LlamaCppEngine(self.python, self.source / "convert_hf_to_gguf.py")


@pytest.fixture(scope="module")
def llama_cpp() -> LlamaCpp:
    """llama.cpp; a test that needs it is skipped without."""
    python = interpreter("HUBSPLICE_LLAMACPP_PYTHON")
    found = LlamaCpp(python, python.parents[1] / "llama.cpp")
    if not found.engine.converter.is_file():
        pytest.skip(f"HUBSPLICE_LLAMACPP_PYTHON: there is no {found.engine.converter}")
    return found


@dataclass(frozen=True)
class Served:
    """A model and what llama.cpp made of its prompts, by the file's type and how it was spoiled."""

    model: Model
    answers: dict[tuple[str, str], list[dict[str, Any]]]

    def transcripts(self, kind: str, spoiled: str = "") -> list[Transcript]:
        return Transcript.of_answers(self.model.prompts, self.answers[kind, spoiled])

    def judge(self, kind: str, spoiled: str = "") -> tuple[dict[str, bool | None], Behaviour]:
        """Which rules of `verify` hold, by name."""
        engine = Recorded(self.transcripts(kind, spoiled), LLAMA_CPP.version, LLAMA_CPP.name)
        checks, behaviour = judge(engine, TYPES[kind], self.model)
        return {check.name: check.passed for check in checks}, behaviour


ServedBy = Callable[[str], Served]


@pytest.fixture(scope="module")
def served(
    llama_cpp: LlamaCpp, models: Models, tmp_path_factory: pytest.TempPathFactory
) -> ServedBy:
    """One of SPLICES by its name, in every type, by one process."""

    @cache
    def made(splice: str) -> Served:
        return serve(llama_cpp, models(splice), splice, tmp_path_factory.mktemp("llama-cpp"))

    return made


def serve(llama_cpp: LlamaCpp, model: Model, splice: str, folder: Path) -> Served:
    """A model in every type; that which is to be spoiled is, in several ways."""
    files = {(kind, ""): convert(llama_cpp, model.folder, kind) for kind in TYPES}
    for kind, name in SPOILED if splice == SPOILED_MODEL else ():
        file = files[kind, ""]
        path = file.path.with_stem(f"{kind} {name}")
        made = spoil(file.path, path, spoilings(model.folder)[name])
        files[kind, name] = GgufFile(made, file.options)
    jobs = [
        {
            "options": {"model": str(file.path), **file.options},
            "threads": torch.get_num_threads(),
            "top": TOP,
            "requests": [{"prompt": p, "new_tokens": NEW_TOKENS} for p in model.prompts],
        }
        for file in files.values()
    ]
    return Served(model, dict(zip(files, run(llama_cpp, jobs, folder), strict=True)))


def convert(llama_cpp: LlamaCpp, checkpoint: Path, kind: str) -> GgufFile:
    """What `verify` makes of a checkpoint in this precision, by what `hubsplice serve` prints."""
    folder = checkpoint.parent / f"{kind} of {checkpoint.name}"
    folder.mkdir()
    return llama_cpp.engine.convert(checkpoint, TYPES[kind], CONTEXT, folder)


def spoilings(checkpoint: Path) -> dict[str, Callable[[str], bool]]:
    """By name, the tensors of a GGUF file that are zeros for an engine that ignores them."""
    inserted = inserted_indices(read_manifest(checkpoint / "splice.json").layer_map)
    writes = tuple(
        f"blk.{layer}.{name}"
        for layer in inserted
        for name in ("attn_output.weight", "attn_output.bias", "ffn_down.weight", "ffn_down.bias")
    )
    return {
        EVERY_BIAS: lambda name: name.endswith(".bias"),
        INSERTED_LAYER: lambda name: name in writes,
    }


def spoil(source: Path, target: Path, is_spoiled: Callable[[str], bool]) -> Path:
    """A copy of a GGUF file with some of its tensors zeroed."""
    shutil.copyfile(source, target)
    tensors = [t for t in gguf.GGUFReader(target, "r+").tensors if is_spoiled(t.name)]
    assert any(tensor.data.any() for tensor in tensors)
    for tensor in tensors:
        tensor.data[:] = 0
    return target


def run(llama_cpp: LlamaCpp, jobs: list[dict[str, Any]], folder: Path) -> Any:
    """What the runner makes of jobs."""
    return [found["answers"] for found in llama_cpp.engine.run_jobs(jobs, folder)]


@pytest.mark.parametrize("splice", SPLICES)
@pytest.mark.parametrize("kind", TYPES)
def test_llama_cpp_serves_the_edit(served: ServedBy, splice: str, kind: str) -> None:
    """Every rule of `verify`: the probabilities are those of the weights, and the edit is there."""
    passed, behaviour = served(splice).judge(kind)
    print(splice, kind, behaviour.model_dump_json())  # noqa: T201
    assert [name for name in passed if not passed[name]] == []


def odds_error(served: Served, spoiled: str = "") -> float:
    """How far from transformers' are the float32 log odds of the likeliest tokens, at most."""
    transcripts, largest = served.transcripts("f32", spoiled), 0.0
    with loaded(served.model.folder, torch.float32) as model, torch.inference_mode():
        for transcript, answer in zip(transcripts, served.answers["f32", spoiled], strict=True):
            likeliest = torch.tensor(answer["likeliest"], dtype=torch.float64)
            logits = model(transcript.ids).logits[0, :-1].double()
            theirs, ours = likeliest[..., 1], logits.gather(1, likeliest[..., 0].long())
            assert theirs.shape == (len(transcript.logprobs), TOP)
            odds = (theirs - theirs[:, :1]) - (ours - ours[:, :1])
            largest = max(largest, float(odds.abs().max()))
    return largest


@pytest.mark.parametrize("splice", SPLICES)
def test_odds_are_those_of_the_weights(served: ServedBy, splice: str) -> None:
    """Without the error of the sum over the vocabulary, which all tokens of a place share."""
    error = odds_error(served(splice))
    print(splice, error)  # noqa: T201
    assert error < SPLICES[splice]


@pytest.mark.parametrize("splice", [SPOILED_MODEL])
def test_odds_without_the_biases_are_others(served: ServedBy, splice: str) -> None:
    assert odds_error(served(splice), EVERY_BIAS) > 1e-2


@pytest.mark.parametrize("splice", [SPOILED_MODEL])
@pytest.mark.parametrize(("kind", "spoiled"), SPOILED)
def test_an_engine_that_ignores_what_the_edit_needs_is_found(
    served: ServedBy, splice: str, kind: str, spoiled: str
) -> None:
    passed, behaviour = served(splice).judge(kind, spoiled)
    print(splice, kind, spoiled, behaviour.model_dump_json())  # noqa: T201
    assert passed["engine"] is True
    assert passed["layer edits"] is True
    assert passed["weights served"] is False


@pytest.mark.parametrize("splice", [SPOILED_MODEL])
def test_the_command_puts_its_run_on_the_card(
    llama_cpp: LlamaCpp, models: Models, command: Command, tmp_path: Path, splice: str
) -> None:
    model = models(splice)
    folder = shutil.copytree(model.folder, tmp_path / "model")
    code, out, err = command(
        "verify", folder, "--base", model.base, "--engine", "llama.cpp", "--record",
        "--python", llama_cpp.python, "--converter", llama_cpp.engine.converter,
        "--max-new-tokens", "4", "--json",
    )  # fmt: skip
    assert code == 0, err
    version = json.loads(out)["behaviour"]["version"]
    assert re.fullmatch(r"\(xllamacpp [\d.]+\)", version)
    card = (folder / "README.md").read_text(encoding="utf-8")
    assert f"- Verified with llama.cpp {version} on CPU, 20" in card
