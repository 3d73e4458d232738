"""llama.cpp serves the edited model, from a file that its own converter makes."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from dataclasses import dataclass
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
from tests.serving.conftest import NEW_TOKENS, Model, SpliceSmolLM2, interpreter
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
SPOILED = (("f32", EVERY_BIAS), ("bf16", INSERTED_LAYER))


@pytest.fixture(scope="module")
def llama_cpp() -> LlamaCppEngine:
    """llama.cpp, as `make test-serving` installs it; a test that needs it is skipped without."""
    python = interpreter("HUBSPLICE_LLAMACPP_PYTHON")
    converter = python.parents[1] / "llama.cpp" / "convert_hf_to_gguf.py"
    if not converter.is_file():
        pytest.skip(f"HUBSPLICE_LLAMACPP_PYTHON: there is no {converter}")
    return LlamaCppEngine(python, converter)


@dataclass(frozen=True)
class Served:
    """A model and what llama.cpp made of its prompts, by the file's type and how it was spoiled."""

    model: Model
    answers: dict[tuple[str, str], list[dict[str, Any]]]

    def transcripts(self, kind: str, spoiled: str = "") -> list[Transcript]:
        return [
            Transcript(
                prompt,
                tuple(answer["tokens"]),
                torch.tensor([*answer["prompt"], *answer["logprobs"]], dtype=torch.float64),
            )
            for prompt, answer in zip(self.model.prompts, self.answers[kind, spoiled], strict=True)
        ]

    def judge(self, kind: str, spoiled: str = "") -> tuple[dict[str, bool | None], Behaviour]:
        """Which rules of `verify` hold, by name."""
        engine = Recorded(self.transcripts(kind, spoiled), LLAMA_CPP.version, LLAMA_CPP.name)
        checks, behaviour = judge(engine, TYPES[kind], self.model)
        return {check.name: check.passed for check in checks}, behaviour


@pytest.fixture(scope="module", params=SPLICES)
def served(
    request: pytest.FixtureRequest,
    llama_cpp: LlamaCppEngine,
    splice_smollm2: SpliceSmolLM2,
    tmp_path_factory: pytest.TempPathFactory,
) -> Served:
    """A model in every type, and spoiled in several ways, by one process."""
    folder = tmp_path_factory.mktemp("llama-cpp")
    model = splice_smollm2(request.param, folder)
    files = {}
    for kind in TYPES:
        (folder / kind).mkdir()
        files[kind, ""] = llama_cpp.convert(model.folder, TYPES[kind], CONTEXT, folder / kind)
    for kind, name in SPOILED:
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
    answers = (found["answers"] for found in llama_cpp.run_jobs(jobs, folder))
    return Served(model, dict(zip(files, answers, strict=True)))


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


@pytest.mark.parametrize("kind", TYPES)
def test_llama_cpp_serves_the_edit(served: Served, kind: str) -> None:
    """Every rule of `verify`: the probabilities are those of the weights, and the edit is there."""
    passed, behaviour = served.judge(kind)
    print(served.model.folder.name, kind, behaviour.model_dump_json())  # noqa: T201
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


def test_odds_are_those_of_the_weights(served: Served) -> None:
    """Without the error of the sum over the vocabulary, which all tokens of a place share."""
    errors = {spoiled: odds_error(served, spoiled) for spoiled in ("", EVERY_BIAS)}
    print(served.model.folder.name, errors)  # noqa: T201
    assert errors[""] < SPLICES[served.model.folder.name]
    assert errors[EVERY_BIAS] > 1e-2


@pytest.mark.parametrize(("kind", "spoiled"), SPOILED)
def test_an_engine_that_ignores_what_the_edit_needs_is_found(
    served: Served, kind: str, spoiled: str
) -> None:
    passed, behaviour = served.judge(kind, spoiled)
    print(served.model.folder.name, kind, spoiled, behaviour.model_dump_json())  # noqa: T201
    assert passed["engine"] is True
    assert passed["layer edits"] is True
    assert passed["weights served"] is False


def test_the_command_puts_its_run_on_the_card(
    llama_cpp: LlamaCppEngine, served: Served, command: Command, tmp_path: Path
) -> None:
    folder = shutil.copytree(served.model.folder, tmp_path / "model")
    code, out, err = command(
        "verify", folder, "--base", served.model.base, "--engine", "llama.cpp", "--record",
        "--python", llama_cpp.python, "--converter", llama_cpp.converter, "--max-new-tokens", "4",
        "--json",
    )  # fmt: skip
    assert code == 0, err
    version = json.loads(out)["behaviour"]["version"]
    assert re.fullmatch(r"\(xllamacpp [\d.]+\)", version)
    card = (folder / "README.md").read_text(encoding="utf-8")
    assert f"- Verified with llama.cpp {version} on CPU, 20" in card
