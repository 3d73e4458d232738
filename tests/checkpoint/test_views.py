"""What loaders see of a folder that somebody else filled, and what such a folder may not ask."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from hubsplice.checkpoint.base import BaseConfig
from hubsplice.checkpoint.stock import problem_of, require_stock
from hubsplice.checkpoint.views import model_view, tokenizer_view
from hubsplice.errors import CheckpointError
from hubsplice.fidelity.runs import greedy_tokens
from hubsplice.streams.model import loaded
from hubsplice.text.tokenizer import load_tokenizer
from tests.conftest import Command, MakeCheckpoint

CODE = "raise SystemExit('code from the folder was run')"


@pytest.fixture(scope="module")
def base(shared_tiny_llama: MakeCheckpoint) -> Path:
    """A base; not to be changed."""
    return shared_tiny_llama(name="to-be-viewed", num_hidden_layers=2)


@pytest.fixture
def folder(base: Path, tmp_path: Path) -> Path:
    """A copy that may be changed."""
    return shutil.copytree(base, tmp_path / "base")


def change(path: Path, **keys: Any) -> None:
    content = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    path.write_text(json.dumps(content | keys), encoding="utf-8")


def names(view: Path) -> set[str]:
    return {path.relative_to(view).as_posix() for path in view.rglob("*") if path.is_file()}


def test_a_loader_sees_the_configuration_and_the_weights_alone(folder: Path) -> None:
    (folder / "custom_generate").mkdir()
    for name in ("modeling_llama.py", "custom_generate/generate.py", "tokenizer_extra.py"):
        (folder / name).write_text(CODE)
    for name in ("adapter_config.json", "generation_config.json", "params.json"):
        (folder / name).write_text("{}")
    for name in (
        "adapter_model.safetensors",
        "pytorch_model.bin",
        "shard-00000-model-00000-of-00001.safetensors",
    ):
        (folder / name).write_text("other weights")
    with model_view(folder) as view:
        assert names(view) == {"config.json", "model.safetensors"}
        assert view.name == folder.name
    assert not view.exists()
    with tokenizer_view(folder) as view:
        assert names(view) == {
            "chat_template.jinja",
            "config.json",
            "tokenizer.json",
            "tokenizer_config.json",
        }
    with loaded(folder, torch.float32) as model:
        assert model.num_parameters() > 0
    assert load_tokenizer(folder)("a").input_ids


def test_the_files_of_an_index_are_linked(shared_tiny_llama: MakeCheckpoint) -> None:
    folder = shared_tiny_llama(name="in-shards", num_hidden_layers=2, max_shard_size="100KB")
    with model_view(folder) as view:
        found = names(view)
    assert "model.safetensors.index.json" in found
    assert len(found) > 3


KERNEL = "evil/kernel"
HOSTILE = [
    ("config.json", "_attn_implementation", KERNEL),
    ("config.json", "attn_implementation", f"{KERNEL}@main:run"),
    ("config.json", "_attn_implementation_internal", "paged|sdpa"),
    ("config.json", "attn_implementation", {"": "eager", "text_config": KERNEL}),
    ("config.json", "experts_implementation", KERNEL),
    ("config.json", "text_config", {"_attn_implementation": KERNEL}),
    ("config.json", "configuration_files", ["config.4.0.0.json"]),
    ("config.json", "transformers_weights", "adapter_model.bin"),
    ("config.json", "fusion_config", {"patch_embeddings": True}),
    ("config.json", "distributed_config", {"tp_size": 2}),
    ("config.json", "use_kernels", True),
    ("config.json", "tokenizer_class", "AutoModelForCausalLM"),
    ("tokenizer_config.json", "tokenizer_class", "AutoModel"),
    ("tokenizer_config.json", "fast_tokenizer_files", ["../../tokenizer.4.0.json"]),
    ("tokenizer_config.json", "init_inputs", ["/etc/passwd"]),
]


@pytest.mark.parametrize(("file", "key", "value"), HOSTILE)
def test_a_key_that_fetches_imports_or_swaps_is_refused_by_name(
    folder: Path, file: str, key: str, value: object
) -> None:
    change(folder / file, **{key: value})
    named = "_attn_implementation" if key == "text_config" else key
    refused = rf"{file}: {named}: found"
    with pytest.raises(CheckpointError, match=refused), loaded(folder, torch.float32):
        pass
    with pytest.raises(CheckpointError, match=refused):
        load_tokenizer(folder)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        # transformers would read `_attn_implementation_internal` from a key of any name.
        ("attribute_map", {"use_cache": "hidden_size"}),
        ("get_text_config", "text"),
        ("sub_configs", {"a": 1}),
    ],
)
def test_no_key_replaces_a_part_of_the_class(folder: Path, key: str, value: object) -> None:
    change(folder / "config.json", **{key: value})
    with pytest.raises(CheckpointError, match=f"{key}: this is the name of a part"):
        require_stock(BaseConfig.open(folder))


@pytest.mark.parametrize("wanted", ["flash_attention_2", "flex_attention", "sdpa", "eager", None])
def test_kernels_that_a_base_prefers_are_not_asked_for(folder: Path, wanted: str | None) -> None:
    change(folder / "config.json", _attn_implementation=wanted, unknown_key="kept")
    with model_view(folder) as view:
        seen = json.loads((view / "config.json").read_text())
    assert seen.get("_attn_implementation") in ("eager", "sdpa", None)
    assert seen["unknown_key"] == "kept"
    with loaded(folder, torch.float32):
        pass


def test_a_tokenizer_is_not_told_which_files_to_open_nor_whom_to_trust(folder: Path) -> None:
    change(
        folder / "tokenizer_config.json",
        vocab_file="/etc/passwd",
        tokenizer_file="/dev/zero",
        trust_remote_code=True,
        sp_model_kwargs={"model_file": "/dev/zero"},
    )
    with tokenizer_view(folder) as view:
        seen = json.loads((view / "tokenizer_config.json").read_text())
    assert (
        not {"vocab_file", "tokenizer_file", "trust_remote_code", "sp_model_kwargs"} & seen.keys()
    )
    assert seen["tokenizer_class"]
    assert load_tokenizer(folder)("a").input_ids == [1, *load_tokenizer(folder)("a").input_ids[1:]]


@pytest.mark.parametrize("name", ["config.json", "model.safetensors", "tokenizer.json"])
@pytest.mark.parametrize("kind", ["pipe", "device"])
def test_files_that_are_no_plain_files_are_not_waited_for(
    folder: Path, name: str, kind: str
) -> None:
    (folder / name).unlink()
    if kind == "pipe":
        os.mkfifo(folder / name)
    else:
        (folder / name).symlink_to("/dev/zero")
    with pytest.raises(CheckpointError), loaded(folder, torch.float32):
        # A pipe at a tokenizer's name belongs to no tokenizer.
        load_tokenizer(folder)


def test_a_companion_that_is_a_link_to_elsewhere_is_refused(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("secret")
    (folder / "LICENSE").symlink_to("../secret")
    with pytest.raises(CheckpointError, match=r"LICENSE: a link to .*secret, outside of the model"):
        BaseConfig.open(folder)
    (folder / "LICENSE").unlink()
    (folder / "LICENSE").symlink_to("tokenizer.json")
    BaseConfig.open(folder)


def test_the_links_of_the_hubs_cache_are_none_to_elsewhere(base: Path, tmp_path: Path) -> None:
    blobs, snapshot = tmp_path / "blobs", tmp_path / "snapshots" / ("0" * 40)
    shutil.copytree(base, blobs)
    snapshot.mkdir(parents=True)
    for path in blobs.iterdir():
        (snapshot / path.name).symlink_to(os.path.relpath(path, snapshot))
    BaseConfig.open(snapshot)


DEFAULTS: list[dict[str, Any]] = [
    {"stop_strings": ["<|stop|>"], "eos_token_id": 2},
    {"num_return_sequences": 3, "do_sample": True},
    {"num_beams": 4, "repetition_penalty": 1.5, "no_repeat_ngram_size": 1},
    {"cache_implementation": "quantized", "max_length": 3, "suppress_tokens": [5, 6]},
    {"custom_generate": "somebody/decoding", "trust_remote_code": True},
]


@pytest.mark.parametrize("defaults", DEFAULTS)
@pytest.mark.parametrize("file", ["generation_config.json", "config.json"])
def test_greedy_is_greedy_whatever_the_folder_says(
    folder: Path, defaults: dict[str, Any], file: str
) -> None:
    prompts = torch.arange(3, 15).reshape(2, 6)
    change(folder / file, **defaults)
    with loaded(folder, torch.float32) as model, torch.inference_mode():
        expected = prompts
        for _ in range(8):
            best = model(expected, use_cache=False).logits[:, -1].argmax(dim=-1, keepdim=True)
            expected = torch.cat([expected, best], dim=1)
        assert torch.equal(greedy_tokens(model, prompts, 8), expected[:, 6:])


@pytest.fixture
def loosened() -> None:
    import sae_lens  # noqa: F401


def test_what_a_library_lets_through_in_this_process_is_refused(
    loosened: None, folder: Path
) -> None:
    require_stock(BaseConfig.open(folder))
    change(folder / "config.json", rms_norm_eps=1)
    assert problem_of(folder) is None
    for _ in range(2):
        with pytest.raises(CheckpointError, match=r"'rms_norm_eps'.*expected float"):
            require_stock(BaseConfig.open(folder))


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"dtype": "torch.bfloat16"}, "torch"),
        ({"rms_norm_eps": "1e-05"}, "rms_norm_eps"),
        ({"rope_parameters": {"rope_type": "fancy", "rope_theta": 1e4}}, "'fancy'.*yarn"),
    ],
)
def test_what_transformers_refuses_is_said_in_a_line(
    loosened: None, folder: Path, fields: dict[str, Any], words: str
) -> None:
    change(folder / "config.json", **fields)
    with pytest.raises(CheckpointError, match=words) as caught:
        require_stock(BaseConfig.open(folder))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(("file", "key", "value"), HOSTILE[:1] + HOSTILE[-1:])
def test_check_names_the_key(
    command: Command, folder: Path, tmp_path: Path, file: str, key: str, value: object
) -> None:
    change(folder / file, **{key: value})
    (tmp_path / "recipe.yaml").write_text(
        f"base_model: {folder}\nsplices: [{{after_layer: 0, edits: []}}]\n"
    )
    outcome = command("check", "recipe.yaml")
    assert outcome.code == 4
    assert f"{file}: {key}: found" in outcome.err
