"""llama.cpp in an environment of its own, with a file that its own converter makes."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch

from hubsplice.checkpoint.base import read_config
from hubsplice.checkpoint.companions import CONFIG, MANIFEST, TOKENIZER_CONFIG
from hubsplice.checkpoint.manifest import read_manifest
from hubsplice.checkpoint.views import model_view, tokenizer_view
from hubsplice.errors import UnsupportedError
from hubsplice.families.engines import EngineKey
from hubsplice.serving.commands import ServeOptions, serve_command
from hubsplice.serving.engines import ENGINES
from hubsplice.streams.other_python import OtherPython, copied, environment, last_lines
from hubsplice.verifying.engines import Request, ServedBy
from hubsplice.verifying.transcript import Transcript

_RUNNER = Path(__file__).with_name("llama_cpp_runner.py")


@dataclass(frozen=True)
class GgufFile:
    """What the converter made of a checkpoint.

    Attributes:
        path: the file.
        options: those of `llama-server` for it, by name without dashes.
    """

    path: Path
    options: dict[str, str]


@dataclass(frozen=True)
class LlamaCppEngine:
    """llama.cpp on the CPU.

    Attributes:
        python: the interpreter of an environment with xllamacpp, a prebuilt llama.cpp.
        converter: `convert_hf_to_gguf.py` in the sources of llama.cpp.
    """

    python: Path
    converter: Path
    name: str = ENGINES[EngineKey.LLAMA_CPP].name

    def run(
        self, request: Request, progress: Callable[[int, int], None]
    ) -> tuple[list[Transcript], ServedBy]:
        """Read every prompt and continue it greedily, past any end-of-sequence token.

        Raises:
            CheckpointError: the checkpoint can't be converted or loaded, or llama.cpp fails.
            UnsupportedError: llama.cpp or its converter is not there, or it would ignore something.
        """
        prompts, new_tokens = request.prompts, request.new_tokens
        progress(0, len(prompts))
        with TemporaryDirectory(prefix="hubsplice-llama-cpp-") as name:
            context = max(map(len, prompts)) + new_tokens
            file = self.convert(request.folder, request.dtype, context, Path(name))
            job = {
                "options": {"model": str(file.path), **file.options},
                "threads": torch.get_num_threads(),
                "top": 1,
                "requests": [{"prompt": p, "new_tokens": new_tokens} for p in prompts],
            }
            (found,) = self.run_jobs([job], Path(name))
        progress(len(prompts), len(prompts))
        transcripts = Transcript.of_answers(prompts, found["answers"])
        return transcripts, ServedBy(f"(xllamacpp {found['version']})", "cpu")

    def convert(self, checkpoint: Path, dtype: str, context: int, folder: Path) -> GgufFile:
        """Make a file of a checkpoint, by the command that `hubsplice serve` prints.

        Args:
            checkpoint: its folder.
            dtype: the precision of the file.
            context: how many tokens fit into a conversation.
            folder: where the file goes.
        """
        if not self.converter.is_file():
            raise UnsupportedError(
                f"--converter: {self.converter} is not there; expected convert_hf_to_gguf.py "
                "in a folder with llama.cpp's sources"
            )
        manifest = read_manifest(checkpoint / MANIFEST).model_copy(update={"dtype": dtype})
        options = ServeOptions(max_model_len=context, python=Path(sys.executable))
        engine = ENGINES[EngineKey.LLAMA_CPP]
        with model_view(checkpoint) as weights, tokenizer_view(checkpoint) as words:
            whole = folder / "checkpoint"
            shutil.copytree(weights, whole, symlinks=True)
            shutil.copytree(words, whole, symlinks=True, dirs_exist_ok=True)
            for name in (CONFIG, TOKENIZER_CONFIG):
                _name_no_code(whole / name)
            converting, serving = serve_command(engine, str(whole), manifest, options).steps
            python, _, *arguments = converting
            # The command names the file that it makes, and no folder.
            _run([python, str(self.converter), *arguments], "its converter", at=folder)
        _, _, made, *words_of_options = serving
        names = [word.removeprefix("--") for word in words_of_options[::2]]
        return GgufFile(folder / made, dict(zip(names, words_of_options[1::2], strict=True)))

    def run_jobs(self, jobs: Sequence[dict[str, Any]], folder: Path) -> list[dict[str, Any]]:
        """Run jobs, as `llama_cpp_runner` describes them, in one process."""
        given, made = folder / "jobs.json", folder / "results.json"
        given.write_text(json.dumps(list(jobs)), encoding="utf-8")
        runner = copied(_RUNNER, folder)
        _run([str(self.python), str(runner), str(given), str(made)], "xllamacpp")
        results: list[dict[str, Any]] = json.loads(made.read_text(encoding="utf-8"))
        return results


def _name_no_code(path: Path) -> None:
    """Take out of a file what names code: the converter would run it."""
    if path.is_file():
        settings = {k: v for k, v in read_config(path).items() if k != "auto_map"}
        path.unlink()
        path.write_text(json.dumps(settings), encoding="utf-8")


def _run(command: list[str], what: str, *, at: Path | None = None) -> None:
    python = OtherPython(Path(command[0]), "xllamacpp", "xllamacpp")
    try:
        done = subprocess.run(  # noqa: S603 - the user names interpreter and converter
            command,
            cwd=at,
            env=environment(),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            check=False,
        )
    except OSError as error:
        raise python.not_run(error) from None
    if done.returncode != 0:
        raise python.failed(f"llama.cpp: {what}", last_lines(done.stdout))
