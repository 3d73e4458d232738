"""Released models: their real configurations, and tiny checkpoints of the same kind.

`released.json` holds keys and values of public config.json files, and says where they were found.
Lists that have one factor for each channel are cut.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import AutoConfig, AutoModelForCausalLM

from hubsplice.families.registry import FAMILIES

FILE = Path(__file__).with_name("released.json")

HEADS = 4
LAYERS = 6
"""As many as the longest pattern of layers that a family has."""


@dataclass(frozen=True)
class Released:
    """A released model.

    Attributes:
        model: what people call it.
        repo: where it is on the Hub.
        config: its config.json, as released.
    """

    model: str
    repo: str
    config: dict[str, Any]

    @property
    def text(self) -> str:
        """The file's text."""
        return json.dumps(self.config)

    def __str__(self) -> str:
        return self.model


def released() -> list[Released]:
    """All of them."""
    entries = json.loads(FILE.read_text(encoding="utf-8"))
    return [Released(e["model"], e["repo"], e["config"]) for e in entries]


def shrunk(config: Mapping[str, Any]) -> dict[str, Any]:
    """The same configuration with small sizes: no key comes or goes, and what differs differs.

    Heads stay narrower or wider than the stream has room for, keys and values stay fewer than
    queries, a window that is shorter than the context is shorter than a test's text.
    """
    family = dict(FAMILIES.items())[config["model_type"]]
    key = family.decoder_key
    decoder = _small(config if key is None else config[key])
    if key is None:
        return decoder
    vision = config["vision_config"] | {
        "hidden_size": 64,
        "num_attention_heads": HEADS,
        "intermediate_size": 96,
        "num_hidden_layers": 1,
        "image_size": 28,
    }
    return {**config, key: decoder, "vision_config": vision, "mm_tokens_per_image": 1}


def _small(config: Mapping[str, Any]) -> dict[str, Any]:
    width = config.get("hidden_size", config.get("n_embd"))
    heads = config.get("num_attention_heads", HEADS)
    small: dict[str, Any] = {
        "hidden_size": 64,
        "n_embd": 64,
        "intermediate_size": 96,
        "num_hidden_layers": LAYERS,
        "n_layer": LAYERS,
        "num_attention_heads": HEADS,
        "n_head": HEADS,
        "n_positions": 64,
        "n_ctx": 64,
        "vocab_size": 320,
        "num_experts": 4,
        "num_experts_per_tok": 2,
        "moe_intermediate_size": 32,
        "bos_token_id": 1,
        "pad_token_id": 0,
        "max_window_layers": 2,
    }
    if "num_key_value_heads" in config:
        shared = heads // config["num_key_value_heads"]
        small["num_key_value_heads"] = {1: HEADS, heads: 1}.get(shared, HEADS // 2)
    if config.get("head_dim") is not None:
        own = config["head_dim"] * heads
        small["head_dim"] = 16 if own == width else 32 if own > width else 8
    if (config.get("sliding_window") or 0) < config.get("max_position_embeddings", 0):
        small["sliding_window"] = 8
    ends = config.get("eos_token_id")
    small["eos_token_id"] = list(range(2, 2 + len(ends))) if isinstance(ends, list) else 2
    for name in ("layer_types", "no_rope_layers"):
        small[name] = (config.get(name) or [])[:LAYERS]
    return {
        **config,
        **{k: v for k, v in small.items() if k in config and config[k] is not None},
    }


def save_small(model: Released, folder: Path, *, seed: int = 0) -> Path:
    """Save a random checkpoint of a released model's configuration, and give its folder.

    config.json is the one that was released, in small, and not what transformers makes of it.
    """
    config = shrunk(model.config)
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        read = AutoConfig.from_pretrained(folder, trust_remote_code=False)
        stored = config.get("torch_dtype", config.get("dtype", "float32"))
        tiny = AutoModelForCausalLM.from_config(read, dtype=getattr(torch, stored))
        # Norm weights and biases start as ones and zeros, which would hide that they are lost.
        with torch.no_grad():
            for parameter in tiny.parameters():
                spread = 0.1 * torch.randn_like(parameter)
                parameter.copy_(parameter + spread if parameter.dim() == 1 else spread)
    tiny.save_pretrained(folder)
    (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
    return folder
