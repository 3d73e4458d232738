"""What a build is said to take, against what it takes."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch.nn.modules.module import register_module_forward_pre_hook

from hubsplice.building.estimate import estimate
from hubsplice.compiling.cost import BuildCost
from hubsplice.compiling.plan import make_plan
from hubsplice.recipe.reading import parse_recipe
from tests.building.conftest import STEER, Build, Workshop, start
from tests.conftest import Command, MakeCheckpoint

LENGTH = 64
NO_SEARCH = """
calibration: {tokens: 4096, sequence_length: 64, scan: 0}
fidelity: {tokens: 4096, sequence_length: 64, scan: 0}
card: {prompts: []}
"""
TWO = """
  - {after_layer: 1, edits: [{kind: steer, vector: {path: v.safetensors}, strength: 3}]}
  - {after_layer: 2, edits: [{kind: steer, vector: {path: v.safetensors}, strength: 1}]}
"""


def cost_of(workshop: Workshop, splices: str, base: str, more: str = NO_SEARCH) -> BuildCost:
    text = workshop.recipe(splices, base=base, more=more)
    return estimate(make_plan(parse_recipe(text, folder=workshop.folder)), measure=True)


class Counter:
    """Tokens times layers of all passes over text; what is generated is in shorter sequences."""

    def __init__(self) -> None:
        self.token_layers = 0

    def __call__(self, module: Any, args: tuple[Any, ...]) -> None:
        if type(module).__name__ == "LlamaDecoderLayer":
            sequences, length, _ = args[0].shape
            self.token_layers += sequences * length if length == LENGTH else 0


LAST = """
  - {after_layer: 3, edits: [{kind: steer, vector: {path: v.safetensors}, strength: 3}]}
"""
BETWEEN = """
  - {after_attention: 2, edits: [{kind: steer, vector: {path: v.safetensors}, strength: 3}]}
"""


@pytest.mark.parametrize(
    ("base", "splices"),
    [("llama", STEER), ("bfloat16", TWO), ("llama", LAST), ("bfloat16", BETWEEN)],
)
def test_the_passes_are_those_that_building_makes(
    workshop: Workshop, make: Build, tmp_path: Path, base: str, splices: str
) -> None:
    """Beside them, some text goes through inserted layers alone."""
    counter = Counter()
    handle = register_module_forward_pre_hook(counter)
    try:
        make(splices, tmp_path / "out", base=base, more=NO_SEARCH)
    finally:
        handle.remove()
    low, high = cost_of(workshop, splices, base).token_layers
    assert low == high
    assert 1 <= counter.token_layers / low < 1.1


def test_what_is_searched_comes_on_top(workshop: Workshop) -> None:
    searching = NO_SEARCH.replace("scan: 0", "scan: 9000")
    low, high = cost_of(workshop, STEER, "llama", searching).token_layers
    assert low == cost_of(workshop, STEER, "llama").token_layers[0]
    assert 1.8 * low < high < 4 * low


def test_sizes_are_those_of_the_files(workshop: Workshop) -> None:
    cost = cost_of(workshop, STEER, "bfloat16")
    files = sum(p.stat().st_size for p in workshop.bases["bfloat16"].glob("*.safetensors"))
    assert cost.download_bytes == 0
    # Four layers, and a fifth.
    assert files < cost.disk_bytes < 1.25 * files


@pytest.mark.slow
def test_the_memory_that_a_build_takes(
    workshop: Workshop, tiny_llama: MakeCheckpoint, tmp_path: Path
) -> None:
    base = tiny_llama(
        dtype="bfloat16",
        hidden_size=512,
        vocab_size=16_000,
        num_hidden_layers=4,
        intermediate_size=1024,
        name="larger",
    )
    text = workshop.recipe(
        "  - {after_layer: 2, edits: [{kind: steer, vector: {path: wide.safetensors}, "
        "strength: 3}]}",
        base=base,
        more="calibration: {tokens: 256, scan: 0}\nfidelity: {tokens: 256, scan: 0}",
    )
    save_file({"v": torch.ones(512)}, tmp_path / "wide.safetensors")
    (tmp_path / "recipe.yaml").write_text(text)
    recipe = parse_recipe(text, folder=tmp_path)
    expected = estimate(make_plan(recipe), measure=True).memory_bytes
    process = start("build", "recipe.yaml", "-o", "out", folder=tmp_path)
    _, status, usage = os.wait4(process.pid, 0)
    assert os.waitstatus_to_exitcode(status) == 0, process.stderr and process.stderr.read()
    assert 0.6 < usage.ru_maxrss * 1024 / expected < 1.5


def test_check_says_it_also_for_machines(
    command: Command, workshop: Workshop, tmp_path: Path
) -> None:
    recipe = workshop.folder / "of-estimate.yaml"
    recipe.write_text(workshop.recipe(STEER))
    shown = command("check", recipe)
    assert shown.code == 0
    assert "the build takes about" in shown.out
    cost = json.loads(command("check", recipe, "--json").out)["cost"]
    assert cost["device"] == ("cpu" if not torch.cuda.is_available() else cost["device"])
    assert 0 < cost["seconds"][0] <= cost["seconds"][1]
    assert 0 < cost["operations"][0] <= cost["operations"][1]


def cost(**fields: Any) -> BuildCost:
    small: dict[str, Any] = {
        "download_bytes": 0,
        "disk_bytes": 2_000_000,
        "memory_bytes": 600_000_000,
        "token_layers": (1, 2),
        "operations": (1e9, 2e9),
        "seconds": (30.0, 50.0),
        "device": "cpu",
        "free_memory": 10**10,
        "free_disk": 10**10,
    }
    return BuildCost(**small | fields)


def test_what_it_takes_in_words() -> None:
    assert cost().advice == ()
    assert str(cost()) == (
        "the build takes about 600 MB of memory, 2 MB of disk, 1e+09 to 2e+09 floating-point "
        "operations, 30 s to 50 s on this processor"
    )
    large = cost(download_bytes=16 * 10**9, seconds=(7200.0, 7200.0), device="NVIDIA L4")
    assert "16 GB to download" in str(large)
    assert "2 h on NVIDIA L4" in str(large)


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"memory_bytes": 10**11}, ["memory: 10 GB are free here", "--on hf-jobs"]),
        ({"download_bytes": 10**11}, ["disk: 10 GB are free"]),
        ({"seconds": (60.0, 9000.0)}, ["fewer tokens", "a GPU makes it faster", "--on hf-jobs"]),
    ],
)
def test_the_advice_that_follows(fields: dict[str, Any], words: list[str]) -> None:
    (advice,) = cost(**fields).advice
    for word in words:
        assert word in advice
