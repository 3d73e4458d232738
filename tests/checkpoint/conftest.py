"""Real tiny Llama models, saved by transformers, and a filesystem that shares blocks."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

MakeBase = Callable[..., Path]


@pytest.fixture
def make_base(tmp_path: Path) -> MakeBase:
    """Save a random Llama of three layers with its companions; returns the folder."""

    def make(
        name: str = "base",
        *,
        folder: Path = tmp_path,
        tied: bool = False,
        sharded: bool = False,
        dtype: torch.dtype = torch.bfloat16,
    ) -> Path:
        torch.manual_seed(0)
        model = LlamaForCausalLM(
            LlamaConfig(
                vocab_size=64,
                hidden_size=32,
                intermediate_size=48,
                num_hidden_layers=3,
                num_attention_heads=2,
                num_key_value_heads=1,
                tie_word_embeddings=tied,
            )
        ).to(dtype)
        path = folder / name
        model.save_pretrained(path, max_shard_size="16KB" if sharded else "1GB")
        (path / "tokenizer.json").write_text('{"version": "1.0"}')
        (path / "chat_template.jinja").write_text("{{ messages }}")
        (path / "additional_chat_templates").mkdir()
        (path / "additional_chat_templates" / "tools.jinja").write_text("{{ tools }}")
        (path / "LICENSE.txt").write_text("the licence")
        (path / "USE_POLICY.md").write_text("the policy")
        for left_behind in (
            "README.md",
            ".gitattributes",
            "modeling_llama.py",
            "tokenizer_extra.py",
            "pytorch_model.bin",
            "consolidated.00.pth",
            "model.gguf",
            "adapter_model.safetensors",
        ):
            (path / left_behind).write_text("left behind")
        return path

    return make


@pytest.fixture
def reflink_folder(tmp_path: Path) -> Iterator[Path]:
    """A small XFS, mounted for the test."""
    make = shutil.which("mkfs.xfs")
    if make is None or os.geteuid() != 0:
        pytest.skip("sharing blocks needs root and mkfs.xfs to make a filesystem that can")
    image, folder = tmp_path / "xfs.img", tmp_path / "xfs"
    with image.open("wb") as file:
        file.truncate(512 << 20)
    subprocess.run([make, "-q", "-m", "reflink=1", image], check=True)
    folder.mkdir()
    mounted = subprocess.run(["mount", "-o", "loop", image, folder], capture_output=True)
    if mounted.returncode:
        pytest.skip(f"an XFS image cannot be mounted here: {mounted.stderr.decode().strip()}")
    try:
        yield folder
    finally:
        subprocess.run(["umount", folder], check=True)
