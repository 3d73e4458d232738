"""What a spliced checkpoint is, proved from its files and its base."""

from __future__ import annotations

from os import fspath
from typing import TYPE_CHECKING, Literal

from hubsplice.errors import RecipeError
from hubsplice.interface.progress import ProgressChoice, reporting
from hubsplice.interface.sources import AnyPath, as_interpreter, as_path

if TYPE_CHECKING:
    from hubsplice.verifying import Run, Verification
    from hubsplice.verifying.engines import Engine

EngineName = Literal["transformers", "vllm", "llama.cpp"]
"""The engines that can be put to the test."""

ServedDtype = Literal["float32", "bfloat16"]
"""The precisions that an engine can be asked to serve in."""


def verify(
    model: AnyPath,
    *,
    base: AnyPath | None = None,
    revision: str | None = None,
    engine: EngineName | None = None,
    dtype: ServedDtype | None = None,
    python: AnyPath | None = None,
    converter: AnyPath | None = None,
    prompts: AnyPath | None = None,
    max_new_tokens: int = 16,
    streams: bool = False,
    carrier: AnyPath | None = None,
    record: bool = False,
    progress: ProgressChoice = True,
) -> Verification:
    """Prove what a spliced checkpoint is: every tensor of its base, and nothing undeclared.

    With `engine`, also that the engine serves the weights, and the weights the edit.

    Args:
        model: the checkpoint's folder, or its Hub repository.
        base: the base model, where it is not the repository that the manifest names.
        revision: the repository's commit, branch or tag.
        engine: the engine that prompts are run through.
        dtype: the precision that the engine serves in; the one that the layers were compiled for
            where it is not given. float32 is the sharpest test.
        python: the Python interpreter of the engine's environment, with vLLM or, for llama.cpp,
            xllamacpp; this one where it is not given.
        converter: `convert_hf_to_gguf.py` in the sources of llama.cpp, which that engine needs.
        prompts: a file with one prompt a line; text that comes with Python where it is not given.
        max_new_tokens: how many tokens the engine generates after each prompt.
        streams: also run the base in float32 on a short text, and test the heights of the edits on
            its streams. Weights alone leave these to read-outs that were fitted to calibration.
        carrier: of an adapter, the folder or the Hub repository of what it is for.
        record: write what the engine did into the checkpoint's folder, for its card to show: a run
            that fails, too. The card and the manifest are written again, and no weights.
        progress: as in `build`.

    Returns:
        Every check, and in `passed` whether all of them passed. What fails raises no error.

    Raises:
        RecipeError: no such folder or repository, or an argument for an engine without `engine`.
        CheckpointError: there is nothing to check: no manifest, or files that can't be read.
        HubError: the Hub refuses, or can't be reached.
    """
    from hubsplice.interface.adapters import open_carrier
    from hubsplice.verifying import verify as verify_model
    from hubsplice.verifying.recording import record_run, require_recordable

    given = {
        "dtype": dtype,
        "python": python,
        "converter": converter,
        "prompts": prompts,
        "record": record or None,
    }
    if engine is None and (unused := [name for name, value in given.items() if value is not None]):
        raise RecipeError(f"--{unused[0]}: it needs an engine; add --engine")
    run = (
        None
        if engine is None
        else _run(_engine(engine, python, converter), dtype, prompts, max_new_tokens)
    )
    folder = require_recordable(fspath(model)) if record else None
    with reporting(progress) as report:
        found = verify_model(
            fspath(model),
            base=None if base is None else fspath(base),
            revision=revision,
            progress=report,
            run=run,
            streams=streams,
            carrier=None if carrier is None else open_carrier(carrier, None),
        )
    if folder is not None:
        record_run(folder, found)
    return found


def _engine(name: EngineName, python: AnyPath | None, converter: AnyPath | None) -> Engine:
    from hubsplice.verifying.engines import TransformersEngine, VllmEngine
    from hubsplice.verifying.llama_cpp import LlamaCppEngine

    if (converter is None) is (name == "llama.cpp"):
        raise RecipeError(
            "--converter: it is for --engine llama.cpp"
            if converter is not None
            else "--converter: missing; name convert_hf_to_gguf.py in the sources of llama.cpp"
        )
    if python is not None and name == "transformers":
        raise RecipeError(
            "--python: the engine transformers runs in this interpreter; --python is for "
            "--engine vllm or llama.cpp"
        )
    interpreter = as_interpreter(python)
    if converter is not None:
        return LlamaCppEngine(interpreter, as_path(converter).resolve())
    return TransformersEngine() if name == "transformers" else VllmEngine(interpreter)


def _run(
    served: Engine, dtype: ServedDtype | None, prompts: AnyPath | None, max_new_tokens: int
) -> Run:
    from hubsplice.verifying import Run

    return Run(served, dtype, None if prompts is None else as_path(prompts), max_new_tokens)
