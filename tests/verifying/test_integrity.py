"""Proof from files alone: what is intact passes, and every tampering is found and named."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors import safe_open
from safetensors.torch import load_file

from hubsplice.errors import CheckpointError, RecipeError
from hubsplice.verifying import verify
from tests.building.conftest import STEER, quiet
from tests.conftest import Command
from tests.verifying.conftest import Build, Spliced, Workshop

BASE_WEIGHT = "model.layers.3.mlp.up_proj.weight"
ZERO_BIAS = "model.layers.3.mlp.up_proj.bias"
INSERTED_BIAS = "model.layers.2.mlp.gate_proj.bias"
ATTENTION = "model.layers.2.self_attn.o_proj.weight"
NORM = "model.layers.2.post_attention_layernorm.weight"

Tensors = dict[str, torch.Tensor]


def test_an_intact_checkpoint_passes_every_check(built: Spliced) -> None:
    found = built.verify()
    assert [check for check in found.checks if not check.passed] == []
    assert found.passed
    assert found.verdict.startswith(f"Verified: every tensor of {built.base} is in it byte for ")
    details = {check.name: check.detail for check in found.checks}
    base = load_file(built.base / "model.safetensors")
    assert details["base tensors"].startswith(f"all {len(base)} are")
    assert details["layer map"] == "2 inserted among the base's 4"


@pytest.mark.parametrize("family", ["mistral", "qwen2"])
def test_other_families(family: str, make: Build, workshop: Workshop, tmp_path: Path) -> None:
    folder = make(STEER, tmp_path / "out", base=family, measure=False).folder
    spliced = Spliced(folder, workshop.bases[family])
    assert spliced.failed() == {}
    bias = "model.layers.0.self_attn.o_proj.bias"
    spliced.edit_tensors(lambda t: t[bias].add_(1), of=bias)
    spliced.forge_checksums()
    (problem,) = spliced.failed()["zero tensors"].problems
    assert problem.startswith(f"{bias}: declared zero")


def test_a_base_in_shards(
    make: Build, shared_tiny_llama: Callable[..., Path], tmp_path: Path
) -> None:
    base = shared_tiny_llama(name="sharded", max_shard_size="200KB")
    spliced = Spliced(make(STEER, tmp_path / "out", base=base, measure=False).folder, base)
    assert len(list(base.glob("*.safetensors"))) > 2
    assert spliced.failed() == {}


def test_rows_of_a_fused_tensor(
    make: Build, shared_tiny_llama: Callable[..., Path], tmp_path: Path
) -> None:
    base = shared_tiny_llama("phi3", name="fused", max_shard_size="200KB")
    spliced = Spliced(make(STEER, tmp_path / "out", base=base, measure=False).folder, base)
    assert spliced.failed() == {}
    keys = "model.layers.1.self_attn.k_proj.weight"
    spliced.edit_tensors(lambda t: t[keys][2].neg_(), of=keys)
    spliced.forge_checksums()
    assert spliced.failed()["base tensors"].problems == (
        f"{keys}: differs from the base's model.layers.1.self_attn.qkv_proj.weight at element 128",
    )


def test_a_splice_of_a_splice(make: Build, tmp_path: Path) -> None:
    first = make(STEER, tmp_path / "first", measure=False).folder
    again = make("  - {after_layer: 0}", tmp_path / "again", base=first, measure=False).folder
    assert Spliced(again, first).failed() == {}


def flip_a_bit(tensors: Tensors) -> None:
    tensors[BASE_WEIGHT].view(torch.int16)[5, 7] ^= 1


def zero_the_layer(tensors: Tensors) -> None:
    for name, tensor in tensors.items():
        if name.startswith("model.layers.2.") and "norm" not in name:
            tensor.zero_()


TENSOR_TAMPERINGS: dict[str, tuple[Callable[[Tensors], Any], str, str, str]] = {
    "one flipped bit in a base tensor": (
        flip_a_bit,
        BASE_WEIGHT,
        "base tensors",
        f"{BASE_WEIGHT}: differs from the base's model.layers.2.mlp.up_proj.weight at element "
        f"{5 * 64 + 7}",
    ),
    "two base tensors exchanged": (
        lambda t: t.update(
            {
                BASE_WEIGHT: t["model.layers.3.mlp.gate_proj.weight"],
                "model.layers.3.mlp.gate_proj.weight": t[BASE_WEIGHT],
            }
        ),
        BASE_WEIGHT,
        "base tensors",
        f"{BASE_WEIGHT}: differs",
    ),
    "a base tensor dropped": (
        lambda t: t.pop(BASE_WEIGHT),
        BASE_WEIGHT,
        "base tensors",
        f"{BASE_WEIGHT}: missing",
    ),
    "a base tensor in another precision": (
        lambda t: t.update({BASE_WEIGHT: t[BASE_WEIGHT].float()}),
        BASE_WEIGHT,
        "base tensors",
        f"{BASE_WEIGHT}: found F32",
    ),
    "a zero bias dropped": (
        lambda t: t.pop(ZERO_BIAS),
        ZERO_BIAS,
        "added tensors",
        f"{ZERO_BIAS}: missing",
    ),
    "an inserted layer's bias dropped": (
        lambda t: t.pop(INSERTED_BIAS),
        INSERTED_BIAS,
        "added tensors",
        f"{INSERTED_BIAS}: missing",
    ),
    "an extra tensor": (
        lambda t: t.update({"model.layers.0.mlp.up_proj.scale": torch.ones(1)}),
        ZERO_BIAS,
        "added tensors",
        "model.layers.0.mlp.up_proj.scale: no splice of this base has it",
    ),
    "a zero bias that is not zero": (
        lambda t: t[ZERO_BIAS].view(-1)[3:4].add_(1),
        ZERO_BIAS,
        "zero tensors",
        f"{ZERO_BIAS}: declared zero, and element 3 is not",
    ),
    "a zero bias of negative zeros": (
        lambda t: t[ZERO_BIAS].neg_(),
        ZERO_BIAS,
        "zero tensors",
        f"{ZERO_BIAS}: declared zero, and element 0 is not",
    ),
    "an inserted layer zeroed": (
        zero_the_layer,
        INSERTED_BIAS,
        "inserted layers",
        "model.layers.2.mlp.down_proj.weight: all zero, and not declared so",
    ),
    "an inserted attention that moves tokens": (
        lambda t: t[ATTENTION].view(-1)[9:].add_(1),
        ATTENTION,
        "inserted layers",
        f"{ATTENTION}: element 9 is not zero",
    ),
    "an inserted norm that is not one": (
        lambda t: t[NORM].view(-1)[1:].mul_(2),
        NORM,
        "inserted layers",
        f"{NORM}: element 1 is not 1",
    ),
}


@pytest.mark.parametrize("forged", [False, True], ids=["as it was", "checksums rewritten"])
@pytest.mark.parametrize("case", TENSOR_TAMPERINGS)
def test_tampered_tensors(spliced: Spliced, case: str, forged: bool) -> None:
    change, of, check, problem = TENSOR_TAMPERINGS[case]
    shard = spliced.json("model.safetensors.index.json")["weight_map"][of]
    spliced.edit_tensors(change, of)
    if forged:
        spliced.forge_checksums()
    failed = spliced.failed()
    assert any(p.startswith(problem) for p in failed[check].problems), failed
    if forged:
        assert "checksums" not in failed
    else:
        assert any(p.startswith(f"{shard}: found sha256") for p in failed["checksums"].problems)


def test_zeros_declared_after_the_fact_do_not_hide_an_empty_layer(spliced: Spliced) -> None:
    """Every tensor of the layer is declared zero: only the edit's own data tell that it is not."""
    spliced.edit_tensors(zero_the_layer, INSERTED_BIAS)
    mlp = [
        f"mlp.{part}_proj.{kind}" for part in ("gate", "up", "down") for kind in ("weight", "bias")
    ]
    zeroed = [f"model.layers.2.{name}" for name in (*mlp, "self_attn.o_proj.bias")]
    spliced.edit_manifest(lambda m: m.update(zero_tensors=sorted({*m["zero_tensors"], *zeroed})))
    spliced.forge_checksums()
    (problem,) = spliced.failed()["inserted layers"].problems
    assert problem.startswith("layer 2: it changes nothing, and the intervention has")


@settings(max_examples=12)
@given(data=st.data())
def test_no_bit_of_the_base_can_be_flipped(
    built: Spliced, tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    folder = shutil.copytree(built.folder, tmp_path_factory.mktemp("flipped") / "spliced")
    spliced = Spliced(folder, built.base)
    path = folder / "model-00001-of-00002.safetensors"
    content = bytearray(path.read_bytes())
    header = 8 + int.from_bytes(content[:8], "little")
    place = data.draw(st.integers(header, len(content) - 1))
    content[place] ^= 1 << data.draw(st.integers(0, 7))
    path.write_bytes(content)
    spliced.forge_checksums()
    (check,) = spliced.failed().values()
    assert check.name == "base tensors"
    (problem,) = check.problems
    with safe_open(path, framework="pt") as changed:
        name = problem.split(":")[0]
        found = changed.get_tensor(name).view(torch.int16)
    index = int(problem.rsplit(" ", 1)[1])
    expected = load_file(built.folder / path.name)[name].view(torch.int16)
    assert (found != expected).flatten().nonzero().tolist() == [[index]]


def test_an_undeclared_change_of_the_config(spliced: Spliced) -> None:
    config = spliced.json("config.json")
    config["rms_norm_eps"] *= 2
    del config["eos_token_id"]
    config["custom"] = True
    spliced.write_json("config.json", config)
    failed = spliced.failed()
    custom, eos, eps = failed["config"].problems
    assert custom.startswith("custom: found true, expected the base's nothing")
    assert eos == (
        "eos_token_id: found nothing, expected the base's 2: the manifest declares no change"
    )
    assert eps.startswith("rms_norm_eps: found 2e-06, expected the base's 1e-06")
    assert set(failed) == {"checksums", "config"}


def test_a_declared_change_that_no_splice_makes(spliced: Spliced) -> None:
    config = spliced.json("config.json")
    config["rms_norm_eps"] = 0.01
    spliced.write_json("config.json", config)
    spliced.edit_manifest(
        lambda m: m["config_changes"].update(rms_norm_eps={"before": 1e-6, "after": 0.01})
    )
    spliced.forge_checksums()
    failed = spliced.failed()
    assert set(failed) == {"config"}
    assert failed["config"].problems == ("rms_norm_eps: found 0.01, expected 1e-06 in a splice",)


def test_a_bias_switched_off_in_both(spliced: Spliced) -> None:
    """What makes a server load every weight and leave the biases out."""
    config = spliced.json("config.json")
    config["mlp_bias"] = False
    spliced.write_json("config.json", config)
    spliced.edit_manifest(lambda m: m["config_changes"].pop("mlp_bias"))
    spliced.forge_checksums()
    assert spliced.failed()["config"].problems == (
        "mlp_bias: found false, expected true in a splice",
    )


def test_equal_numbers_of_other_types_are_a_change(spliced: Spliced) -> None:
    config = spliced.json("config.json")
    config["mlp_bias"] = 1
    spliced.write_json("config.json", config)
    spliced.forge_checksums()
    (problem,) = spliced.failed()["config"].problems
    assert problem.startswith("mlp_bias: found 1 for the splice's, expected true")


MANIFEST_CHANGES: dict[str, tuple[Callable[[dict[str, Any]], Any], str, str]] = {
    "a layer moved": (
        lambda m: m["layer_map"].insert(0, m["layer_map"].pop(2)),
        "layer map",
        "layers[0].site: found 1, expected -1, as in layer_map",
    ),
    "a layer after another one": (
        lambda m: m["layer_map"].insert(1, m["layer_map"].pop(2)),
        "layer map",
        "layers[0].site: found 1, expected 0, as in layer_map",
    ),
    "a base layer left out": (
        lambda m: m["layer_map"].pop(5),
        "layer map",
        "layer_map: found 3 base layers, expected 4",
    ),
    "another precision": (
        lambda m: m.update(dtype="float32"),
        "added tensors",
        "model.layers.2.mlp.up_proj.weight: found BF16 of shape [128, 64], expected F32",
    ),
    "no precision": (lambda m: m.update(dtype="wide"), "layer map", "dtype: found 'wide'"),
    "a zero tensor kept quiet": (
        lambda m: m["zero_tensors"].remove(ZERO_BIAS),
        "zero tensors",
        f"{ZERO_BIAS}: expected among the declared zero tensors",
    ),
    "a zero tensor that the base has": (
        lambda m: m["zero_tensors"].append("lm_head.weight"),
        "zero tensors",
        "lm_head.weight: declared zero, and the architecture asks for no such",
    ),
    "a file of the base": (
        lambda m: m["base"]["files"]["model.safetensors"].update(sha256="0" * 64),
        "base",
        "model.safetensors: found sha256",
    ),
    "a file that is not there": (
        lambda m: m["files"].update({"vocab.txt": {"sha256": "0" * 64, "size": 1}}),
        "checksums",
        "vocab.txt: missing",
    ),
    "a change that was not made": (
        lambda m: m["config_changes"].update(vocab_size={"before": 320, "after": 321}),
        "config",
        "vocab_size: found 320 for the splice's, expected 321",
    ),
    "another class": (
        lambda m: m["architectures"].update(after="MistralForCausalLM"),
        "config",
        "architectures.after: found 'MistralForCausalLM', expected 'LlamaForCausalLM'",
    ),
    "another label": (
        lambda m: m["layers"][0]["terms"][0].update(label="harmless"),
        "intervention",
        "reproduce/intervention.safetensors: layer 1: it edits",
    ),
    "another edit": (
        lambda m: m["layers"][1]["terms"][0]["edit"].update(strength=0.001),
        "recipe",
        "reproduce/recipe.yaml: ",
    ),
    "a better figure": (
        lambda m: m["fidelity"].update(ratio=1.0),
        "report",
        "fidelity.ratio: found 1.0",
    ),
}


@pytest.mark.parametrize("case", MANIFEST_CHANGES)
def test_an_altered_manifest(spliced: Spliced, case: str) -> None:
    change, check, problem = MANIFEST_CHANGES[case]
    spliced.edit_manifest(change)
    failed = spliced.failed()
    assert any(p.startswith(problem) for p in failed[check].problems), failed


def test_what_depends_on_a_wrong_layer_map_is_not_passed_over(spliced: Spliced) -> None:
    spliced.edit_manifest(lambda m: m["layer_map"].pop(5))
    failed = spliced.failed()
    assert [name for name, check in failed.items() if check.passed is None] == [
        "config",
        "base tensors",
        "added tensors",
        "zero tensors",
        "inserted layers",
        "structure",
        "strengths",
        "edit records",
        "layer records",
        "calibration record",
        "figures",
    ]


def test_a_manifest_that_is_none(spliced: Spliced) -> None:
    (spliced.folder / "splice.json").write_text("{}", encoding="utf-8")
    with pytest.raises(CheckpointError, match="not a valid manifest"):
        spliced.verify()
    (spliced.folder / "splice.json").unlink()
    with pytest.raises(CheckpointError, match="the manifest is missing"):
        spliced.verify()


def test_files_beside_the_listed_ones(spliced: Spliced) -> None:
    (spliced.folder / ".gitattributes").touch()
    (spliced.folder / ".cache").mkdir()
    (spliced.folder / ".cache" / "model.py").touch()
    (spliced.folder / "README.md").write_text("another card", encoding="utf-8")
    assert spliced.failed() == {}
    (spliced.folder / "modeling_llama.py").touch()
    (spliced.folder / "deeper").mkdir()
    (spliced.folder / "deeper" / "weights.bin").touch()
    (spliced.folder / "elsewhere").symlink_to(spliced.base)
    failed = spliced.failed()
    assert set(failed) == {"no other files"}
    assert failed["no other files"].problems == tuple(
        f"{name}: the manifest does not list it"
        for name in ("deeper/weights.bin", "elsewhere", "modeling_llama.py")
    )


def test_the_list_for_sha256sum(spliced: Spliced) -> None:
    """It agrees with the files, it is there, and the common tool reads it."""
    path = spliced.folder / "reproduce/SHA256SUMS"
    done = subprocess.run(
        ["sha256sum", "--check", "--strict", "--quiet", "reproduce/SHA256SUMS"],
        cwd=spliced.folder,
        capture_output=True,
        text=True,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    listed = {line.split("  ", 1)[1] for line in path.read_text().splitlines()}
    present = {
        p.relative_to(spliced.folder).as_posix() for p in spliced.folder.rglob("*") if p.is_file()
    }
    assert present - listed == {"reproduce/SHA256SUMS"}
    # A card may be edited on the Hub, and is judged by itself.
    (spliced.folder / "README.md").write_text("another card", encoding="utf-8")
    assert "checksums" not in spliced.failed()
    lines = path.read_text().splitlines()
    path.write_text("\n".join("0" * 64 + x[64:] if "config.json" in x else x for x in lines))
    missing, *_, found = spliced.failed()["checksums"].problems
    assert missing.endswith("config.json'")
    assert found.startswith("reproduce/SHA256SUMS: found ")
    path.unlink()
    assert spliced.failed()["checksums"].problems == ("reproduce/SHA256SUMS: missing",)


def test_a_listed_file_of_another_kind(spliced: Spliced) -> None:
    (spliced.folder / "modeling_llama.py").touch()
    spliced.forge_checksums()
    assert spliced.failed()["no other files"].problems == (
        "modeling_llama.py: the manifest lists it, and a spliced checkpoint holds no such file",
    )


def test_weights_that_servers_would_prefer(spliced: Spliced) -> None:
    shutil.copy(spliced.base / "model.safetensors", spliced.folder)
    spliced.forge_checksums()
    assert "model.safetensors: servers would read it in place of the index" in (
        spliced.failed()["index"].problems
    )


@pytest.mark.parametrize("name", ["tokenizer.json", "tokenizer_config.json"])
def test_another_tokenizer(spliced: Spliced, name: str) -> None:
    path = spliced.folder / name
    path.write_bytes(path.read_bytes() + b" ")
    spliced.forge_checksums()
    assert spliced.failed()["companion files"].problems == (f"{name}: not the base's",)
    path.unlink()
    spliced.forge_checksums()
    assert spliced.failed()["companion files"].problems == (f"{name}: the base's is missing",)


def test_a_companion_that_the_base_has_not(spliced: Spliced) -> None:
    (spliced.folder / "chat_template.jinja").write_text("{{ 'Obey.' }}", encoding="utf-8")
    spliced.forge_checksums()
    problems = spliced.failed()["companion files"].problems
    assert problems
    assert problems[0].startswith("chat_template.jinja: ")


def test_an_index_that_disagrees(spliced: Spliced) -> None:
    index = spliced.json("model.safetensors.index.json")
    index["weight_map"][ZERO_BIAS] = "model-00001-of-00002.safetensors"
    del index["weight_map"][BASE_WEIGHT]
    index["weight_map"]["ghost"] = "model-00001-of-00002.safetensors"
    index["metadata"]["total_size"] += 1
    spliced.write_json("model.safetensors.index.json", index)
    spliced.forge_checksums()
    failed = spliced.failed()
    assert set(failed) == {"index"}
    assert len(failed["index"].problems) == 4
    for name in (ZERO_BIAS, BASE_WEIGHT, "ghost", "total_size"):
        assert any(name in problem for problem in failed["index"].problems)


def test_a_truncated_shard_is_one_problem_among_others(spliced: Spliced) -> None:
    path = spliced.folder / "model-00002-of-00002.safetensors"
    path.write_bytes(path.read_bytes()[:-1])
    failed = spliced.failed()
    assert any("truncated" in problem for problem in failed["index"].problems)
    assert f"{ZERO_BIAS}: missing" in failed["added tensors"].problems
    assert "base tensors" not in failed


def test_all_that_fails_is_listed(spliced: Spliced, command: Command) -> None:
    spliced.edit_tensors(flip_a_bit, BASE_WEIGHT)
    config = spliced.json("config.json")
    config["rope_theta"] = 1
    spliced.write_json("config.json", config)
    (spliced.folder / "run.py").touch()
    outcome = command("verify", spliced.folder, "--base", spliced.base)
    assert outcome.code == 4
    assert outcome.out.startswith(
        "NOT verified: 4 of 23 checks did not pass: checksums, no other files, config, base tensors"
    )
    assert "NOT verified" in outcome.err
    for name in ("run.py", "rope_theta", BASE_WEIGHT):
        assert name in outcome.out
    listed = command("verify", spliced.folder, "--base", spliced.base, "--json")
    assert listed.code == 4
    checks = json.loads(listed.out)["checks"]
    assert sum(check["passed"] is False for check in checks) == 4


def test_the_command_line(built: Spliced, command: Command) -> None:
    outcome = command("verify", built.folder, "--base", built.base)
    assert outcome.code == 0
    assert not {"error", "warning"} & set(outcome.err.replace(":", " ").split())
    assert outcome.out.startswith("Verified: ")
    listed = command("verify", built.folder, "--base", built.base, "--json")
    assert json.loads(listed.out) == built.verify().model_dump(mode="json")


def test_another_base(built: Spliced, workshop: Workshop, tmp_path: Path) -> None:
    other = shutil.copytree(built.base, tmp_path / "other")
    weights = load_file(other / "model.safetensors")
    weights["lm_head.weight"][0, 0] += 1
    from safetensors.torch import save_file

    save_file(weights, other / "model.safetensors", metadata={"format": "pt"})
    found = built.verify(other)
    failed = {check.name: check.problems for check in found.checks if not check.passed}
    assert set(failed) == {"base", "base tensors"}
    assert failed["base tensors"] == (
        "lm_head.weight: differs from the base's lm_head.weight at element 0",
    )


def test_a_local_base_must_be_named(built: Spliced) -> None:
    with pytest.raises(
        RecipeError, match="'bfloat16'; say where it, or a copy of it, is with --base"
    ):
        verify(str(built.folder), base=None, revision=None, progress=quiet)


def test_a_folder_has_no_revision(built: Spliced) -> None:
    with pytest.raises(RecipeError, match="a local folder, which has none"):
        verify(str(built.folder), base=None, revision="main", progress=quiet)
    with pytest.raises(RecipeError, match="there is no such folder"):
        verify("./missing", base=None, revision=None, progress=quiet)
