"""`hubsplice serve --adapters`: one server for the base and many edits."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from hubsplice.checkpoint.fingerprint import carrier_fingerprint
from hubsplice.checkpoint.manifest import CarrierRecord, SlotsRecord, write_manifest
from tests.conftest import Command
from tests.serve.manifests import manifest

SLOTS = SlotsRecord(above=24, below=16, bends=16, lines=8)


@pytest.fixture
def serve(command: Command) -> Command:
    """Run the command in this process, in an empty folder."""
    return partial(command, "serve")


@pytest.fixture
def carrier(tmp_path: Path) -> Path:
    folder = tmp_path / "carrier"
    folder.mkdir()
    write_manifest(manifest(slots=SLOTS), folder)
    (folder / "config.json").write_text("{}", encoding="utf-8")
    return folder


def adapter(folder: Path, *, rank: int = 9, slots: SlotsRecord = SLOTS, **fields: Any) -> Path:
    """What the command looks at of an adapter for the carrier of `slots`."""
    folder.mkdir()
    fingerprint = carrier_fingerprint(manifest(slots=slots))
    record = CarrierRecord(name="carrier", fingerprint=fingerprint)
    write_manifest(manifest(carrier=record, **fields), folder)
    (folder / "adapter_config.json").write_text(json.dumps({"r": rank}), encoding="utf-8")
    return folder


def test_the_command_confines_lora_to_the_carriers_layers(
    serve: Command, carrier: Path, tmp_path: Path
) -> None:
    one, two = adapter(tmp_path / "one"), adapter(tmp_path / "two", rank=33)
    done = serve(carrier, "--adapters", f"{one},loud={two}")
    assert done.code == 0, done.err
    words = done.out.split()
    assert words[:3] == ["vllm", "serve", str(carrier)]
    (lora,) = [words[words.index("--enable-lora") + 1 :]]
    assert lora[:4] == ["--max-loras", "3", "--max-lora-rank", "64"]
    assert lora[4] == "--lora-target-modules"
    modules = lora[5 : lora.index("--lora-modules")]
    assert "model.layers.2.self_attn.o_proj" in modules
    assert all(module.startswith(("model.layers.2.", "model.layers.4.")) for module in modules)
    assert lora[lora.index("--lora-modules") + 1 :] == [f"one={one}", f"loud={two}"]


def test_the_precision_is_the_adapters(serve: Command, carrier: Path, tmp_path: Path) -> None:
    one = adapter(tmp_path / "one", dtype="float32")
    assert "--dtype float32" in serve(carrier, "--adapters", one).out
    two = adapter(tmp_path / "two", dtype="bfloat16")
    done = serve(carrier, "--adapters", f"{one},{two}")
    assert (done.code, "one server has one precision" in done.err) == (3, True)


@pytest.mark.parametrize(
    ("options", "code", "message"),
    [
        (["--max-lora-rank", "8"], 2, "found 8, and one is of rank 9; give 16"),
        (["--max-lora-rank", "9"], 2, "expected one of 8, 16"),
        (["--engine", "sglang"], 3, "serves them with vLLM, not with sglang"),
    ],
)
def test_what_one_server_can_not_do(
    serve: Command, carrier: Path, tmp_path: Path, options: list[str], code: int, message: str
) -> None:
    done = serve(carrier, "--adapters", adapter(tmp_path / "one"), *options)
    assert (done.code, message in done.err) == (code, True), done.err


def test_what_is_no_adapter_for_the_carrier(serve: Command, carrier: Path, tmp_path: Path) -> None:
    other = SLOTS.model_copy(update={"lines": 9})
    adapter(tmp_path / "foreign", slots=other)
    adapter(tmp_path / "large", rank=600)
    for given, code, message in (
        ("foreign", 4, "built for another carrier, or another revision"),
        ("large", 4, "expected 1 to 512"),
        ("carrier", 4, "it is no adapter"),
        ("nowhere", 2, "there is no such folder"),
    ):
        done = serve(carrier, "--adapters", tmp_path / given)
        assert (done.code, message in done.err) == (code, True), done.err
    one = adapter(tmp_path / "one")
    done = serve(carrier, "--adapters", f"{one},{one}")
    assert (done.code, "two have one name" in done.err) == (2, True)
    done = serve(one, "--adapters", one)
    assert (done.code, "serve its carrier with it" in done.err) == (2, True), done.err
