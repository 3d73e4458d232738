"""The commands that start engines."""

from __future__ import annotations

import json
import shlex
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from hubsplice.checkpoint.manifest import Manifest
from hubsplice.errors import RecipeError, UnsupportedError
from hubsplice.families.engines import EngineKey
from hubsplice.serving.engines import Engine
from hubsplice.serving.online import OnlineQuantization
from hubsplice.serving.quantization import QuantizationFormat, exclusions
from hubsplice.serving.requirements import Requirements
from hubsplice.serving.verdict import Outcome, Verdict, verdict

GGUF_TYPES = {"bfloat16": "bf16", "float16": "f16", "float32": "f32"}
"""What llama.cpp's converter calls precisions."""


@dataclass(frozen=True)
class ServeOptions:
    """How to serve a model.

    Attributes:
        max_model_len: the longest context, in tokens; None for the model's own.
        port: None for the engine's own.
        revision: of a Hub repository, the commit that was looked at.
        quantization: None to serve the weights as they are.
        python: the interpreter of the engine's environment; None for the engine on the PATH.
        dtype: the precision to serve in; None for the one that the manifest names.
        extra: further arguments of the engine, as they are.
    """

    max_model_len: int | None = None
    port: int | None = None
    revision: str | None = None
    quantization: OnlineQuantization | None = None
    python: Path | None = None
    dtype: str | None = None
    extra: tuple[str, ...] = ()


@dataclass(frozen=True)
class ServeCommand:
    """What serves a model.

    Attributes:
        verdict: on the engine.
        steps: the commands, one after another, the last of which serves.
    """

    verdict: Verdict
    steps: tuple[tuple[str, ...], ...]

    @property
    def text(self) -> str:
        """One line per command, for a POSIX shell."""
        return "\n".join(shlex.join(step) for step in self.steps)


def serve_command(
    engine: Engine, model: str, manifest: Manifest, options: ServeOptions
) -> ServeCommand:
    """The command that serves a model faithfully.

    Args:
        engine: what serves it.
        model: a folder or a Hub model id.
        manifest: of the model.
        options: how.

    Raises:
        UnsupportedError: the engine would ignore something that the model needs, it is not known
            whether it would, or hubsplice can't say how to start it so.
        RecipeError: the engine has no such option.
    """
    found = verdict(engine, Requirements.of(manifest))
    if found.outcome in (Outcome.REFUSES, Outcome.UNKNOWN):
        raise UnsupportedError(
            f"--engine {engine.key}: {engine.name} {engine.version}: {found.reason}; an "
            "engine that ignores something gives no error and serves another model"
        )
    if options.quantization is not None and engine.key is not EngineKey.VLLM:
        raise RecipeError(
            f"--quantization: found {options.quantization.value}; only vLLM is known to leave "
            f"inserted layers alone, not {engine.name}"
        )
    steps = _COMMANDS[engine.key](model, manifest, options)
    return ServeCommand(found, tuple(map(tuple, steps)))


def quantization_options(manifest: Manifest, scheme: OnlineQuantization) -> list[str]:
    """The options that have vLLM quantise a model without its inserted layers.

    Raises:
        UnsupportedError: vLLM quantises no model of that precision, or hubsplice does not know the
            modules of its class.
    """
    if manifest.dtype not in ("bfloat16", "float16"):
        raise UnsupportedError(
            "--quantization: vLLM quantises models in bfloat16 or float16, and these layers "
            f"were compiled for {manifest.dtype}; build the recipe for bfloat16"
        )
    left = exclusions(manifest, QuantizationFormat.VLLM_ONLINE)
    # vLLM's `fp8` is an old name for the scheme that has its own by now.
    old = scheme is OnlineQuantization.FP8
    name = OnlineQuantization.FP8_PER_TENSOR if old else scheme
    return ["--quantization", name.value, left.place, json.dumps(left.as_config())]


def _vllm(model: str, manifest: Manifest, options: ServeOptions) -> list[list[str]]:
    command = (
        ["vllm", "serve", model]
        if options.python is None
        # `vllm serve` asks for a package named vllm, which builds for other devices are not.
        else [str(options.python), "-m", "vllm.entrypoints.openai.api_server", "--model", model]
    )
    command += [*_revision(options), "--dtype", options.dtype or manifest.dtype]
    if options.max_model_len is not None:
        command += ["--max-model-len", str(options.max_model_len)]
    if options.quantization is not None:
        command += quantization_options(manifest, options.quantization)
    return [[*command, *_port(options), *options.extra]]


def _transformers(model: str, manifest: Manifest, options: ServeOptions) -> list[list[str]]:
    if options.max_model_len is not None:
        raise RecipeError("--max-model-len: `transformers serve` has no such option; leave it out")
    program = "transformers"
    if options.python is not None:
        # Console scripts lie beside the interpreter of their environment.
        program = str(options.python.parent / program)
    named = model if options.revision is None else f"{model}@{options.revision}"
    command = [program, "serve", named, "--dtype", manifest.dtype]
    return [[*command, *_port(options), *options.extra]]


def _sglang(model: str, manifest: Manifest, options: ServeOptions) -> list[list[str]]:
    command = [str(options.python or "python"), "-m", "sglang.launch_server", "--model-path", model]
    command += [*_revision(options), "--dtype", manifest.dtype]
    if options.max_model_len is not None:
        command += ["--context-length", str(options.max_model_len)]
    return [[*command, *_port(options), *options.extra]]


def _tgi(model: str, manifest: Manifest, options: ServeOptions) -> list[list[str]]:
    command = ["text-generation-launcher", "--model-id", model]
    command += [*_revision(options), "--dtype", manifest.dtype]
    if options.max_model_len is not None:
        command += ["--max-total-tokens", str(options.max_model_len)]
    return [[*command, *_port(options), *options.extra]]


def _llama_cpp(model: str, manifest: Manifest, options: ServeOptions) -> list[list[str]]:
    name = model.rstrip("/").rsplit("/", 1)[-1]
    folder, file = model, f"{name}.gguf"
    steps = []
    if options.revision is not None:
        folder = name
        steps.append(["hf", "download", model, *_revision(options), "--local-dir", folder])
    kind = GGUF_TYPES[manifest.dtype]
    converter = [str(options.python or "python"), "convert_hf_to_gguf.py", folder]
    steps.append([*converter, "--outtype", kind, "--outfile", file])
    serve = ["llama-server", "--model", file]
    if options.max_model_len is not None:
        serve += ["--ctx-size", str(options.max_model_len)]
    if manifest.dtype == "float32":
        # Keys and values would be float16, which flash attention makes of any others.
        serve += ["--flash-attn", "off", "--cache-type-k", "f32", "--cache-type-v", "f32"]
    return [*steps, [*serve, *_port(options), *options.extra]]


def _revision(options: ServeOptions) -> list[str]:
    return [] if options.revision is None else ["--revision", options.revision]


def _port(options: ServeOptions) -> list[str]:
    return [] if options.port is None else ["--port", str(options.port)]


_COMMANDS: Mapping[EngineKey, Callable[[str, Manifest, ServeOptions], list[list[str]]]] = {
    EngineKey.VLLM: _vllm,
    EngineKey.TRANSFORMERS: _transformers,
    EngineKey.SGLANG: _sglang,
    EngineKey.TGI: _tgi,
    EngineKey.LLAMA_CPP: _llama_cpp,
}
