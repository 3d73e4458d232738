"""A spliced model to build again, and copies of it that may be changed."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch

from hubsplice.interface.reproduce import reproduce
from hubsplice.rebuilding.grade import Reproduction
from tests.building.conftest import GATED, STEER, Build, Workshop, make, workshop
from tests.verifying.conftest import Spliced

__all__ = ["Build", "Workshop", "make", "workshop"]

TEXT = """
calibration: {tokens: 1024, sequence_length: 64, scan: 0}
fidelity: {tokens: 512, sequence_length: 64, scan: 0}
card: {prompts: []}
"""


@dataclass(frozen=True)
class Published(Spliced):
    """A spliced model, and where the local files of its recipe are."""

    sources: Path

    def reproduce(self, **options: Any) -> Reproduction:
        where: dict[str, Any] = {"base": self.base, "sources": [self.sources], "progress": False}
        return reproduce(self.folder, **where | options)

    def edit_json(self, name: str, change: Callable[[dict[str, Any]], Any]) -> None:
        content = self.json(name)
        change(content)
        self.write_json(name, content)

    def edit_tensor(self, name: str, change: Callable[[torch.Tensor], Any]) -> None:
        """Change a tensor where it lies in its file, so that nothing else moves."""
        index = self.json("model.safetensors.index.json")
        path = self.folder / index["weight_map"][name]
        data = bytearray(path.read_bytes())
        length = int.from_bytes(data[:8], "little")
        entry = json.loads(data[8 : 8 + length])[name]
        start, end = (8 + length + offset for offset in entry["data_offsets"])
        dtype = {"BF16": torch.bfloat16, "F32": torch.float32}[entry["dtype"]]
        tensor = torch.frombuffer(data[start:end], dtype=dtype).reshape(entry["shape"]).clone()
        change(tensor)
        data[start:end] = tensor.view(torch.uint8).numpy().tobytes()
        path.write_bytes(data)


@pytest.fixture(scope="session")
def original(
    make: Build, workshop: Workshop, tmp_path_factory: pytest.TempPathFactory
) -> Published:
    """Not to be changed."""
    folder = tmp_path_factory.mktemp("rebuilding") / "original"
    make(f"{STEER}\n{GATED}", folder, base="bfloat16", measure=False, more=TEXT)
    return Published(folder, workshop.bases["bfloat16"], workshop.folder)


@pytest.fixture
def published(original: Published, tmp_path: Path) -> Published:
    """A copy that may be changed."""
    folder = shutil.copytree(original.folder, tmp_path / "published")
    return Published(folder, original.base, original.sources)
