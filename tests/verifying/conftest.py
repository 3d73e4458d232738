"""A spliced checkpoint to verify, and ways to tamper with copies of it."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from hubsplice.checkpoint.checksums import write_checksums
from hubsplice.errors import CheckpointError
from hubsplice.files.digest import digest_file
from hubsplice.verifying import Check, Verification, verify
from tests.building.conftest import GATED, STEER, Build, Workshop, make, quiet, workshop

__all__ = ["Build", "Workshop", "make", "workshop"]


@dataclass(frozen=True)
class Spliced:
    """A checkpoint that may be tampered with, and its base.

    Layers 2 and 4 of its 6 are inserted.
    """

    folder: Path
    base: Path

    def verify(self, base: Path | None = None) -> Verification:
        return verify(str(self.folder), base=str(base or self.base), revision=None, progress=quiet)

    def failed(self) -> dict[str, Check]:
        """What did not pass, by name."""
        found = self.verify()
        failed = {check.name: check for check in found.checks if not check.passed}
        assert found.passed is not bool(failed)
        return failed

    def json(self, name: str) -> Any:
        return json.loads((self.folder / name).read_text(encoding="utf-8"))

    def write_json(self, name: str, content: Any) -> None:
        (self.folder / name).write_text(json.dumps(content), encoding="utf-8")

    def edit_manifest(self, change: Callable[[dict[str, Any]], None]) -> None:
        content = self.json("splice.json")
        change(content)
        self.write_json("splice.json", content)
        # Whoever rewrites the manifest rewrites the list as well; a broken one has none.
        with suppress(CheckpointError):
            write_checksums(self.folder)

    def forge_checksums(self) -> None:
        """Make the manifest, and the card's table of weights, list every file as it is now."""
        files = {
            path.relative_to(self.folder).as_posix(): digest_file(path)
            for path in self.folder.rglob("*")
            if path.is_file()
            and path.name not in ("splice.json", "README.md", "card.json", "SHA256SUMS")
        }
        listed = {name: {"sha256": d.sha256, "size": d.size} for name, d in files.items()}
        card = self.folder / "README.md"
        if card.is_file():
            text = card.read_text(encoding="utf-8")
            for name, digest in files.items():
                row = f"| `{name}` | {digest.size:,} | `{digest.sha256}` |"
                listed_there = rf"^\| `{re.escape(name)}` +\| [\d,]+ +\| `\w{{64}}` +\|$"
                text = re.sub(listed_there, row, text, flags=re.MULTILINE)
            card.write_text(text, encoding="utf-8")
        self.edit_manifest(lambda manifest: manifest.update(files=listed))

    def edit_tensors(self, change: Callable[[dict[str, torch.Tensor]], Any], of: str) -> None:
        """Rewrite the shard that holds the tensor `of`; the index follows."""
        index = self.json("model.safetensors.index.json")
        name = index["weight_map"][of]
        tensors = load_file(self.folder / name)
        for old in tensors:
            del index["weight_map"][old]
        change(tensors)
        save_file(tensors, self.folder / name, metadata={"format": "pt"})
        index["weight_map"] |= dict.fromkeys(tensors, name)
        shards = {self.folder / shard for shard in index["weight_map"].values()}
        index["metadata"]["total_size"] = sum(
            tensor.nbytes for shard in shards for tensor in load_file(shard).values()
        )
        self.write_json("model.safetensors.index.json", index)


@pytest.fixture(scope="session")
def built(make: Build, workshop: Workshop, tmp_path_factory: pytest.TempPathFactory) -> Spliced:
    """Not to be changed."""
    folder = tmp_path_factory.mktemp("verified") / "built"
    make(f"{STEER}\n{GATED}", folder, base="bfloat16")
    return Spliced(folder, workshop.bases["bfloat16"])


@pytest.fixture
def spliced(built: Spliced, tmp_path: Path) -> Spliced:
    """A copy that may be changed."""
    return Spliced(shutil.copytree(built.folder, tmp_path / "spliced"), built.base)
