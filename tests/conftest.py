"""Fixtures that more than one test module uses."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from hypothesis import HealthCheck, settings

from hubsplice.cli import main
from tests.tiny_tokenizer import byte_tokenizer

# A busy machine is no defect: property tests are not timed.
settings.register_profile("untimed", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("untimed")

# Tests run on what they make or ship: a lookup on a hub is a defect, and must fail at once.
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
# Nothing is kept from one test to the next but where a test is about that.
os.environ["HUBSPLICE_CACHE_LIMIT"] = "0"

# A shell starts what it runs in the background with Ctrl-C ignored, and children inherit that:
# the commands under test would never be interrupted.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

MakeCheckpoint = Callable[..., Path]


class Outcome(NamedTuple):
    """What a command left: its exit code, stdout and stderr."""

    code: int
    out: str
    err: str


Command = Callable[..., Outcome]


@pytest.fixture
def command(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> Command:
    """Run the command line in this process, in an empty folder."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "200")

    def invoke(*arguments: str | Path) -> Outcome:
        capsys.readouterr()
        monkeypatch.setattr(sys, "argv", ["hubsplice", *map(str, arguments)])
        with pytest.raises(SystemExit) as stop:
            main()
        assert isinstance(stop.value.code, int)
        return Outcome(stop.value.code, *capsys.readouterr())

    return invoke


@pytest.fixture(scope="session")
def smollm2() -> Path:
    """The folder of SmolLM2-135M-Instruct in bfloat16; one download for all test processes."""
    from examples.smollm2 import fetch_smollm2

    return fetch_smollm2()


@pytest.fixture
def tiny_llama(tmp_path: Path) -> MakeCheckpoint:
    """A function that saves a tiny random checkpoint and gives its folder.

    Its arguments are the family (`llama`, `mistral`, `qwen2` or `phi3`), `dtype`, `seed`, `name`
    of the folder, `max_shard_size`, and any field of the model's config. The tokenizer reads any
    text as bytes: ids 0 to 2 are <pad>, <s> and </s>, and every text begins with <s>.
    """

    return partial(_save_tiny_llama, tmp_path)


@pytest.fixture(scope="session")
def shared_tiny_llama(tmp_path_factory: pytest.TempPathFactory) -> MakeCheckpoint:
    """`tiny_llama` for fixtures of a wider scope; the checkpoints lie in one folder."""
    return partial(_save_tiny_llama, tmp_path_factory.mktemp("bases"))


def _save_tiny_llama(
    parent: Path,
    family: str = "llama",
    *,
    dtype: str = "float32",
    seed: int = 0,
    name: str = "base",
    max_shard_size: str = "50GB",
    **fields: Any,
) -> Path:
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    sizes = {
        "vocab_size": 320,
        "hidden_size": 64,
        "intermediate_size": 128,
        "num_hidden_layers": 4,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "head_dim": 16,
        "max_position_embeddings": 512,
        "bos_token_id": 1,
        "eos_token_id": 2,
        "pad_token_id": 0,
        "tie_word_embeddings": False,
        "initializer_range": 0.1,
    }
    config = AutoConfig.for_model(family, **sizes | fields)
    folder = parent / name
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = AutoModelForCausalLM.from_config(config, dtype=getattr(torch, dtype))
        # Norm weights and biases start as ones and zeros, which would hide that they are lost.
        with torch.no_grad():
            for parameter in model.parameters():
                if parameter.dim() == 1:
                    parameter.add_(0.1 * torch.randn_like(parameter))
    model.save_pretrained(folder, max_shard_size=max_shard_size)
    byte_tokenizer().save_pretrained(folder)
    return folder
