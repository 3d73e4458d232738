"""What a build says of itself, and that it says the same every time."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest
from safetensors import safe_open

from hubsplice.checkpoint.manifest import read_manifest
from tests.building.conftest import GATED, STEER, Build, Workshop, build_text, save_sae


def contents(folder: Path) -> dict[str, str]:
    """The SHA-256 of every file, by relative name."""
    return {
        path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in folder.rglob("*")
        if path.is_file()
    }


def manifest(folder: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((folder / "splice.json").read_text(encoding="utf-8"))
    return content


def test_layers_terms_and_sources(workshop: Workshop, make: Build, tmp_path: Path) -> None:
    made = manifest(make(f"{STEER}\n{GATED}", tmp_path / "out").folder)
    assert made["layer_map"] == [
        {"base": 0},
        {"base": 1},
        {"splice": 0},
        {"base": 2},
        {"splice": 1},
        {"base": 3},
    ]
    gated, steered = made["layers"]
    assert (gated["site"], steered["site"]) == (1, 2)
    ablate, steer = gated["terms"]
    assert (ablate["kind"], ablate["feature"]) == ("ablate", 3)
    assert ablate["label"] == "ablate feature 3 (regular expressions)"
    assert ablate["source"] == {"path": "jumprelu"}
    assert ablate["formula"] == "h − f·d"
    assert steer["kind"] == "gated_steer"
    assert "feature" not in steer or steer["feature"] is None
    assert steer["edit"]["gate"]["probe"]["path"] == "probe.safetensors"
    assert steer["edit"]["vector"]["path"] == "v.safetensors"
    assert [term["kind"] for term in steered["terms"]] == ["steer"]
    assert made["base"]["name"] == "llama"
    assert made["base"]["repo_id"] is None
    assert made["dtype"] == "float32"
    assert made["architectures"] == {"before": "LlamaForCausalLM", "after": "LlamaForCausalLM"}
    assert made["calibration"]["tokens"] == 4096
    assert set(made["calibration"]["median_norm"]) == {"1", "2"}
    assert made["fidelity"]["verdict"].startswith("In float32")


def test_families_that_become_llama_say_so(make: Build, tmp_path: Path) -> None:
    made = manifest(make(STEER, tmp_path / "out", base="qwen2", measure=False).folder)
    assert made["architectures"] == {"before": "Qwen2ForCausalLM", "after": "LlamaForCausalLM"}
    assert made["config_changes"]["model_type"] == {"before": "qwen2", "after": "llama"}
    assert "model.layers.0.self_attn.o_proj.bias" in made["zero_tensors"]
    assert made["fidelity"] == {}


def test_the_source_is_known_by_its_weights(make: Build, tmp_path: Path) -> None:
    """Two SAEs of one name are told apart."""
    hashes = set()
    for name, architecture in (("a", "standard"), ("b", "jumprelu")):
        save_sae(tmp_path / name / "sae", architecture)
        splices = (
            f"  - {{sae: {{path: {tmp_path}/{name}/sae}}, edits: [{{kind: ablate, feature: 1}}]}}"
        )
        built = make(splices, tmp_path / f"{name}-out", measure=False).folder
        (term,) = manifest(built)["layers"][0]["terms"]
        assert term["source"] == {"path": "sae"}
        hashes.add(term["source_sha256"])
    assert len(hashes) == 2


def test_every_file_has_its_checksum(bfloat16_build: Path, workshop: Workshop) -> None:
    files = read_manifest(bfloat16_build / "splice.json").files
    found = contents(bfloat16_build)
    # The manifest cannot hold its own, the card is rewritten, and a list has both.
    unlisted = ("splice.json", "README.md", "card.json", "reproduce/SHA256SUMS")
    assert {name: digest.sha256 for name, digest in files.items()} == {
        name: sha256 for name, sha256 in found.items() if name not in unlisted
    }
    assert all((bfloat16_build / name).stat().st_size == d.size for name, d in files.items())
    base = read_manifest(bfloat16_build / "splice.json").base.files
    assert (
        base["model.safetensors"].sha256
        == contents(workshop.bases["bfloat16"])["model.safetensors"]
    )


def test_no_file_names_a_place_on_this_machine(
    bfloat16_build: Path, make: Build, workshop: Workshop, tmp_path: Path
) -> None:
    # Paths as users give them: relative in one build, absolute in the other.
    (tmp_path / "held-out.txt").write_text(
        "\n\n".join(f"The sentence of number {i} is here. " * 9 for i in range(400)),
        encoding="utf-8",
    )
    text = (
        f"calibration: {{tokens: 1024, sequence_length: 64, dataset: {tmp_path}/held-out.txt}}\n"
        f"fidelity: {{tokens: 512, sequence_length: 64, dataset: {tmp_path}/held-out.txt}}\n"
    )
    absolute = make(
        GATED.replace("path: ", f"path: {workshop.folder}/"), tmp_path / "out", more=text
    ).folder
    places = [tmp_path, workshop.folder, bfloat16_build.parent, *workshop.bases.values()]
    roots = {str(place).encode() for place in places} | {str(Path.home()).encode() + b"/"}
    for folder in (bfloat16_build, absolute):
        for path in folder.rglob("*"):
            if path.is_file():
                data = path.read_bytes()
                assert not [root for root in roots if root in data], path


def test_the_same_recipe_gives_the_same_bytes(
    workshop: Workshop, bfloat16_build: Path, make: Build, tmp_path: Path
) -> None:
    # In another folder of the same name, since the card is called after the folder.
    again = make(GATED, tmp_path / bfloat16_build.name, base="bfloat16").folder
    assert contents(again) == contents(bfloat16_build)
    assert {"splice.json", "README.md", "fidelity.json"} <= set(contents(again))


def test_another_seed_gives_another_calibration(
    workshop: Workshop, make: Build, tmp_path: Path
) -> None:
    hashes = set()
    for seed in (0, 1):
        recipe = workshop.recipe(STEER) + f"seed: {seed}\n"
        built = build_text(recipe, tmp_path / str(seed), folder=workshop.folder, measure=False)
        made = manifest(built.folder)
        assert made["seeds"] == {"recipe": seed}
        hashes.add(made["calibration"]["token_ids_sha256"])
    assert len(hashes) == 2


def test_a_spliced_base_is_recorded(make: Build, tmp_path: Path) -> None:
    first = make(STEER, tmp_path / "first", measure=False).folder
    again = make("  - {after_layer: 0}", tmp_path / "again", base=first, measure=False).folder
    previous = manifest(again)["base"]["previous"]
    assert previous["manifest_sha256"] == contents(first)["splice.json"]
    assert previous["base"]["name"] == "llama"
    assert manifest(again)["base"]["name"] == "first"
    assert manifest(first)["base"]["previous"] is None


def test_the_recipe_travels_and_parses(bfloat16_build: Path) -> None:
    from hubsplice.recipe.reading import load_recipe

    recipe = load_recipe(bfloat16_build / "reproduce/recipe.yaml")
    assert [edit.kind for edit in recipe.splices[0].edits] == ["ablate", "gated_steer"]


@pytest.mark.parametrize("name", ["config.json", "model.safetensors.index.json"])
def test_layers_agree_with_the_weights(bfloat16_build: Path, name: str) -> None:
    content = json.loads((bfloat16_build / name).read_text(encoding="utf-8"))
    layers = len(manifest(bfloat16_build)["layer_map"])
    if name == "config.json":
        assert content["num_hidden_layers"] == layers
        return
    for tensor, file in content["weight_map"].items():
        with safe_open(bfloat16_build / file, framework="pt") as shard:
            assert tensor in shard.keys()  # noqa: SIM118
    numbers = {int(t.split(".")[2]) for t in content["weight_map"] if ".layers." in t}
    assert numbers == set(range(layers))
