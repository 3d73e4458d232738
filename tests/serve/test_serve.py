"""`hubsplice serve`: the command that it prints, and the one that it becomes."""

from __future__ import annotations

import json
import os
import shlex
import signal
import stat
import subprocess
import sys
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from hubsplice.checkpoint.manifest import write_manifest
from tests.conftest import Command
from tests.loopback.client import LoopbackHub
from tests.serve.manifests import QKV, manifest, zero_biases

MAIN = [sys.executable, "-c", "from hubsplice.cli import main; main()", "serve"]
ENVIRONMENT = os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])}


@pytest.fixture
def serve(command: Command) -> Command:
    """Run the command in this process, in an empty folder."""
    return partial(command, "serve")


def checkpoint(folder: Path, config: dict[str, Any] | None = None, **fields: Any) -> Path:
    folder.mkdir()
    write_manifest(manifest(**{"zero_tensors": zero_biases(*QKV)} | fields), folder)
    (folder / "config.json").write_text(json.dumps(config or {}), encoding="utf-8")
    return folder


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return checkpoint(tmp_path / "my model")


@pytest.fixture
def interpreter(tmp_path: Path) -> Path:
    """An interpreter whose engine tells what it was called with, and stays until it is told."""
    path = tmp_path / "bin" / "python"
    path.parent.mkdir()
    path.write_text(
        f"#!{sys.executable}\n"
        "import json, os, signal, sys\n"
        "signal.signal(signal.SIGTERM, lambda *_: sys.exit(42))\n"
        "print(json.dumps({'arguments': sys.argv[1:], 'pid': os.getpid()}), flush=True)\n"
        "signal.pause()\n",
        encoding="utf-8",
    )
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return path


def test_the_command_is_quoted_and_nothing_else_is_on_stdout(serve: Command, folder: Path) -> None:
    result = serve("my model", "--max-model-len", "4096", "--port", "8001", "--", "--seed", "a b")
    assert result.code == 0, result.err
    assert result.out.count("\n") == 1
    assert shlex.split(result.out) == [
        *("vllm", "serve", "my model", "--dtype", "bfloat16"),
        *("--max-model-len", "4096", "--port", "8001", "--seed", "a b"),
    ]


def test_the_dtype_is_the_one_that_the_layers_were_compiled_for(
    serve: Command, tmp_path: Path
) -> None:
    checkpoint(tmp_path / "exact", dtype="float32")
    assert shlex.split(serve("exact").out) == ["vllm", "serve", "exact", "--dtype", "float32"]


@pytest.mark.parametrize("name", ["fp8", "fp8_per_tensor"])
def test_quantisation_leaves_the_inserted_layers_out(
    serve: Command, folder: Path, name: str
) -> None:
    words = shlex.split(serve(folder.name, "--quantization", name).out)
    assert words[words.index("--quantization") + 1] == "fp8_per_tensor"
    config = json.loads(words[words.index("--quantization-config") + 1])
    assert config == {"ignore": ["model.layers.2.*", "model.layers.4.*"]}


def test_quantisation_needs_a_model_that_vllm_quantises(serve: Command, tmp_path: Path) -> None:
    checkpoint(tmp_path / "exact", dtype="float32")
    result = serve("exact", "--quantization", "fp8")
    assert (result.code, result.out) == (3, "")
    assert "compiled for float32" in result.err


@pytest.mark.parametrize(
    ("engine", "served_as", "reason"),
    [
        ("sglang", "LlamaForCausalLM", "SGLang 0.5.23: it ignores mlp.down_proj.bias"),
        ("vllm", "Qwen3ForCausalLM", "ignores self_attn.o_proj.bias of Qwen3ForCausalLM"),
    ],
)
@pytest.mark.parametrize("run", [(), ("--run",)])
def test_engines_that_would_ignore_something_are_refused(
    serve: Command, tmp_path: Path, engine: str, served_as: str, reason: str, run: tuple[str, ...]
) -> None:
    checkpoint(tmp_path / "x", after=served_as)
    result = serve("x", "--engine", engine, *run)
    assert (result.code, result.out) == (3, "")
    assert result.err.startswith(f"error: --engine {engine}: ")
    assert reason in result.err


def test_engines_that_were_not_examined_are_refused(serve: Command, tmp_path: Path) -> None:
    checkpoint(tmp_path / "x", after="GPT2LMHeadModel")
    result = serve("x", "--engine", "tgi")
    assert (result.code, result.out) == (3, "")
    assert "nobody has examined" in result.err


def test_llama_cpp_needs_a_file_first(serve: Command, folder: Path) -> None:
    result = serve(folder.name, "--engine", "llama.cpp", "--max-model-len", "512")
    convert, start = map(shlex.split, result.out.splitlines())
    assert convert[1:3] == ["convert_hf_to_gguf.py", "my model"]
    assert start == ["llama-server", "--model", "my model.gguf", "--ctx-size", "512"]
    assert "GGUF" in result.err
    assert serve(folder.name, "--engine", "llama.cpp", "--run").code == 3


def test_llama_cpp_keeps_float32_keys_and_values(serve: Command, tmp_path: Path) -> None:
    checkpoint(tmp_path / "exact", dtype="float32")
    convert, start = map(shlex.split, serve("exact", "--engine", "llama.cpp").out.splitlines())
    assert convert[convert.index("--outtype") + 1] == "f32"
    attention = ["--flash-attn", "off", "--cache-type-k", "f32", "--cache-type-v", "f32"]
    assert start == ["llama-server", "--model", "exact.gguf", *attention]


def test_json(serve: Command, folder: Path) -> None:
    content = json.loads(serve(folder.name, "--json").out)
    assert content["verdict"] == "works"
    assert content["engine"] == "vLLM"
    assert content["commands"] == [["vllm", "serve", "my model", "--dtype", "bfloat16"]]


def test_run_becomes_the_server_that_it_prints(
    serve: Command, folder: Path, interpreter: Path
) -> None:
    given = [folder.name, "--python", str(interpreter), "--port", "9"]
    expected = ["-m", "vllm.entrypoints.openai.api_server", "--model", "my model"]
    expected += ["--dtype", "bfloat16", "--port", "9", "--stay"]
    assert shlex.split(serve(*given, "--", "--stay").out) == [str(interpreter), *expected]
    with subprocess.Popen(
        [*MAIN, *given, "--run", "--", "--stay"],
        cwd=folder.parent,
        env=ENVIRONMENT,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        said = json.loads(process.stdout.readline())
        assert said == {"arguments": expected, "pid": process.pid}
        # Signals reach the server itself.
        process.send_signal(signal.SIGTERM)
        assert process.wait() == 42


def test_an_interpreter_that_is_not_there(serve: Command, folder: Path) -> None:
    result = serve(folder.name, "--run", "--python", "nowhere/python")
    assert result.code == 3
    assert result.err.splitlines()[-1].startswith("error: --run: nowhere/python can't be")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["./nowhere"], "there is no such folder"),
        (["my model", "--revision", "main"], "--revision: 'main' was given"),
        (["my model", "--run", "--json"], "--json: "),
        (["my model", "--engine", "transformers", "--quantization", "fp8"], "--quantization: "),
        (["my model", "--engine", "transformers", "--max-model-len", "9"], "--max-model-len: "),
        (["my model", "--engine", "vlm"], "vlm"),
    ],
)
def test_wrong_command_lines(
    serve: Command, folder: Path, arguments: list[str], message: str
) -> None:
    result = serve(*arguments)
    assert message in result.err
    assert result.code == 2
    assert result.out == ""


def test_a_folder_that_is_no_splice(serve: Command, tmp_path: Path) -> None:
    (tmp_path / "plain").mkdir()
    result = serve("plain")
    assert result.code == 4
    assert "the manifest is missing" in result.err


def test_from_the_hub_only_two_files_are_fetched_and_one_commit_is_served(tmp_path: Path) -> None:
    folder = checkpoint(tmp_path / "published")
    (folder / "model.safetensors").write_bytes(b"weights")
    with LoopbackHub(tmp_path / "hub") as hub:
        commit = hub.seed("me/spliced", folder)
        environment = hub.environment(tmp_path / "home") | {
            "PYTHONPATH": ENVIRONMENT["PYTHONPATH"],
            "HF_HUB_OFFLINE": "0",
        }
        hub.reset_counters()
        result = subprocess.run(
            [*MAIN, "me/spliced"], env=environment, capture_output=True, text=True, check=False
        )
        fetched = {r.path.split("/")[-1] for r in hub.counters().log if "/resolve/" in r.path}
    assert result.returncode == 0, result.stderr
    assert fetched == {"splice.json", "config.json"}
    assert shlex.split(result.stdout) == [
        *("vllm", "serve", "me/spliced", "--revision", commit, "--dtype", "bfloat16")
    ]


def test_a_checkpoint_that_was_quantised_whole_is_warned_of(serve: Command, tmp_path: Path) -> None:
    checkpoint(tmp_path / "x", {"quantization_config": {"quant_method": "fp8"}})
    result = serve("x")
    assert result.code == 0
    assert result.err.startswith("warning: config.json: quantization_config does not leave out")
    assert "model.layers.2.self_attn.q_proj" in result.err
