"""What a build refuses: with which exit code, in which words, and leaving nothing behind."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from hubsplice.building.build import build
from hubsplice.errors import CheckpointError
from hubsplice.recipe.reading import parse_recipe
from tests.building.conftest import GATED, STEER, Workshop, save_sae
from tests.conftest import Command

Refuse = Callable[..., str]


@pytest.fixture
def refuse(command: Command, tmp_path: Path) -> Refuse:
    """Build a recipe that must fail with an exit code; gives its message."""

    def run(recipe: str, code: int, *options: str) -> str:
        (tmp_path / "recipe.yaml").write_text(recipe, encoding="utf-8")
        before = sorted(tmp_path.iterdir())
        outcome = command("build", "recipe.yaml", "--output", "new/out", *options)
        assert (outcome.code, outcome.out) == (code, ""), outcome.err
        assert sorted(tmp_path.iterdir()) == before
        # Libraries may print on stderr as well; the command's own word is the last.
        assert "Traceback" not in outcome.err
        return outcome.err[outcome.err.rindex("error: ") :]

    return run


@pytest.fixture
def base(workshop: Workshop, tmp_path: Path) -> Path:
    """A copy of the Llama base that may be spoilt."""
    return shutil.copytree(workshop.bases["llama"], tmp_path / "base")


def one_edit(workshop: Workshop, edit: str, sae: str | Path = "jumprelu") -> str:
    return workshop.recipe(f"  - {{sae: {{path: {workshop.folder / sae}}}, edits: [{edit}]}}")


def steered(workshop: Workshop, base: Path) -> str:
    return workshop.recipe(
        STEER.replace("v.safetensors", str(workshop.folder / "v.safetensors")), base=base
    )


def change_config(folder: Path, **fields: object) -> None:
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    (folder / "config.json").write_text(json.dumps(config | fields), encoding="utf-8")


@pytest.mark.parametrize(
    ("edit", "words"),
    [
        ("{kind: ablate, feature: 1, colour: red}", "splices[0].edits[0].colour: no such field"),
        ("{kind: abalte, feature: 1}", "Did you mean 'ablate'?"),
        ("{kind: ablate, feature: 96}", "has features 0 to 95"),
        ("{kind: scale, feature: 1, factor: .nan}", "splices[0].edits[0].factor"),
    ],
)
def test_edits_that_are_none(workshop: Workshop, refuse: Refuse, edit: str, words: str) -> None:
    assert words in refuse(one_edit(workshop, edit), 2)


def test_a_layer_out_of_range(workshop: Workshop, refuse: Refuse) -> None:
    message = refuse(workshop.recipe("  - {after_layer: 4}"), 2)
    assert "after_layer" in message
    assert "3" in message


def test_an_sae_of_another_width(workshop: Workshop, refuse: Refuse, tmp_path: Path) -> None:
    save_sae(tmp_path / "wide", "standard", d_in=80)
    message = refuse(one_edit(workshop, "{kind: ablate, feature: 1}", tmp_path / "wide"), 2)
    assert "d_in is 80; expected 64" in message


def test_nan_in_an_sae(workshop: Workshop, refuse: Refuse, tmp_path: Path) -> None:
    spoilt = torch.ones(96)
    spoilt[95] = float("nan")
    save_sae(tmp_path / "sae", "standard", b_enc=spoilt)
    message = refuse(one_edit(workshop, "{kind: ablate, feature: 1}", tmp_path / "sae"), 4)
    assert "'b_enc' holds NaN or infinity" in message


@pytest.mark.parametrize("value", ["nan", "inf"])
def test_nan_in_a_vector(workshop: Workshop, refuse: Refuse, tmp_path: Path, value: str) -> None:
    vector = torch.ones(64)
    vector[3] = float(value)
    save_file({"v": vector}, tmp_path / "v.safetensors")
    message = refuse(workshop.recipe(STEER.replace("v.saf", f"{tmp_path}/v.saf")), 4)
    assert "tensor 'v' holds NaN or infinity" in message


@pytest.mark.parametrize("value", ["nan", "inf"])
@pytest.mark.parametrize(
    "name", ["model.layers.0.mlp.up_proj.weight", "model.layers.3.mlp.up_proj.weight"]
)
def test_nan_in_the_base(
    workshop: Workshop, refuse: Refuse, base: Path, name: str, value: str
) -> None:
    # In layer 3 it never reaches the site after layer 2 that the constants are fitted to.
    tensors = load_file(base / "model.safetensors")
    tensors[name][5, 7] = float(value)
    save_file(tensors, base / "model.safetensors", metadata={"format": "pt"})
    for option in ("--measure", "--no-measure"):
        message = refuse(steered(workshop, base), 4, option)
        assert f"'{name}' holds NaN or infinity" in message


@pytest.mark.parametrize("strength", ["1.0e+30", "3.0e+39"])
def test_an_edit_that_overflows(workshop: Workshop, refuse: Refuse, strength: str) -> None:
    edits = STEER.replace("v.saf", f"{workshop.folder}/v.saf").replace(
        "strength: 3", f"strength: {strength}"
    )
    message = refuse(workshop.recipe(edits), 2)
    assert "splices[0].edits" in message
    assert "too large" in message


def test_a_base_that_overflows(workshop: Workshop, refuse: Refuse, base: Path) -> None:
    tensors = load_file(base / "model.safetensors")
    tensors["lm_head.weight"] *= 1e38
    save_file(tensors, base / "model.safetensors", metadata={"format": "pt"})
    assert "logits are not finite" in refuse(steered(workshop, base), 5)


def test_a_tokenizer_of_another_model(
    workshop: Workshop, refuse: Refuse, shared_tiny_llama: Callable[..., Path]
) -> None:
    small = shared_tiny_llama(name="small-vocabulary", vocab_size=100)
    assert "vocab_size is 100" in refuse(steered(workshop, small), 4)


def test_a_truncated_base(workshop: Workshop, refuse: Refuse, base: Path) -> None:
    weights = base / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1000])
    assert "model.safetensors" in refuse(steered(workshop, base), 4)


def test_a_truncated_sae(workshop: Workshop, refuse: Refuse, tmp_path: Path) -> None:
    sae = shutil.copytree(workshop.folder / "standard", tmp_path / "sae")
    weights = sae / "sae_weights.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1000])
    assert "sae" in refuse(one_edit(workshop, "{kind: ablate, feature: 1}", sae), 4)


def test_a_missing_shard(
    workshop: Workshop, refuse: Refuse, shared_tiny_llama: Callable[..., Path], tmp_path: Path
) -> None:
    whole = shared_tiny_llama(name="sharded", max_shard_size="300KB")
    base = shutil.copytree(whole, tmp_path / "base")
    shards = sorted(base.glob("*.safetensors"))
    assert len(shards) > 1
    shards[1].unlink()
    assert f"missing shards: {shards[1].name}" in refuse(steered(workshop, base), 4)


def test_an_unsupported_architecture(workshop: Workshop, refuse: Refuse, base: Path) -> None:
    change_config(base, model_type="falcon", architectures=["FalconForCausalLM"])
    assert "falcon" in refuse(steered(workshop, base), 3)


def test_a_quantised_base(workshop: Workshop, refuse: Refuse, base: Path) -> None:
    change_config(base, quantization_config={"quant_method": "awq"})
    assert "quantised" in refuse(steered(workshop, base), 3)


def test_pickled_weights(workshop: Workshop, refuse: Refuse, base: Path) -> None:
    torch.save(load_file(base / "model.safetensors"), base / "pytorch_model.bin")
    (base / "model.safetensors").unlink()
    assert "pytorch_model.bin" in refuse(steered(workshop, base), 4)


def test_remote_code_is_not_run(
    workshop: Workshop, refuse: Refuse, command: Command, base: Path, tmp_path: Path
) -> None:
    proof = tmp_path / "base/ran"
    for name in ("modeling", "tokenization"):
        (base / f"{name}.py").write_text(f"open({str(proof)!r}, 'w')\n", encoding="utf-8")
    change_config(base, auto_map={"AutoModelForCausalLM": "modeling.Model"})
    tokenizer = base / "tokenizer_config.json"
    plain = json.loads(tokenizer.read_text())
    code = {"auto_map": {"AutoTokenizer": ["tokenization.T", "tokenization.T"]}}
    tokenizer.write_text(json.dumps(plain | code))
    # transformers has these classes itself.
    (tmp_path / "recipe.yaml").write_text(steered(workshop, base), encoding="utf-8")
    done = command("build", "recipe.yaml", "-o", "out")
    assert done.code == 0, done.err
    assert not proof.exists()
    assert not list((tmp_path / "out").rglob("*.py"))
    assert "auto_map" not in json.loads((tmp_path / "out/config.json").read_text())
    # And no such class as these.
    tokenizer.write_text(json.dumps(plain | code | {"tokenizer_class": "MyTokenizer"}))
    (base / "tokenizer.json").unlink()
    assert "tokenizer_config.json: auto_map: asks for Python code" in refuse(
        steered(workshop, base), 4
    )
    change_config(base, model_type="mine")
    assert "config.json: auto_map: asks for Python code" in refuse(steered(workshop, base), 3)
    assert not proof.exists()


def test_more_edits_than_fit(workshop: Workshop, refuse: Refuse) -> None:
    edits = 64
    each = "{{kind: clamp, feature: {}, to: 4, when: active}}".format
    # Nothing is calibrated for so many.
    most = refuse(one_edit(workshop, ", ".join(map(each, range(96)))), 3)
    assert most.startswith("error: splices[0].edits: 96 edits need 192 neurons or more")
    some = ", ".join(map(each, range(edits)))
    message = refuse(one_edit(workshop, some), 3)
    assert message.startswith(f"error: splices[0].edits: {edits} edits need ")
    fitting = int(message.partition("the first ")[2].partition(" fit")[0])
    assert 16 < fitting < edits
    # The number is exact: one more does not fit.
    (more,) = [", ".join(map(each, range(fitting + 1)))]
    assert f"the first {fitting} fit" in refuse(one_edit(workshop, more), 3)


def test_as_many_edits_as_fit_are_built(
    workshop: Workshop, refuse: Refuse, command: Command, tmp_path: Path
) -> None:
    each = "{{kind: clamp, feature: {}, to: 4, when: active}}".format
    message = refuse(one_edit(workshop, ", ".join(map(each, range(64)))), 3)
    fitting = int(message.partition("the first ")[2].partition(" fit")[0])
    (tmp_path / "recipe.yaml").write_text(
        one_edit(workshop, ", ".join(map(each, range(fitting)))), encoding="utf-8"
    )
    assert command("build", "recipe.yaml", "--output", "out", "--no-measure").code == 0


def test_float16(workshop: Workshop, refuse: Refuse) -> None:
    recipe = workshop.recipe("  - {after_layer: 1}")
    assert "dtype: float16 is not supported" in refuse(f"{recipe.rstrip()}\ndtype: float16\n", 3)


def test_a_requirement_that_is_missed(workshop: Workshop, refuse: Refuse) -> None:
    splices = GATED.replace("path: ", f"path: {workshop.folder}/")
    recipe = workshop.recipe(splices, base="bfloat16")
    message = refuse(recipe, 5, "--require-fidelity", "0.0001")
    assert "required: at most 0.0001, NOT met" in message
    recipe = recipe.replace("fidelity: {", "fidelity: {require: 0.0001, ")
    assert "NOT met" in refuse(recipe, 5)


def test_a_requirement_without_a_measurement(workshop: Workshop, refuse: Refuse) -> None:
    recipe = workshop.recipe("  - {after_layer: 1}")
    message = refuse(recipe, 2, "--no-measure", "--require-fidelity", "1.05")
    assert "can't be met without measuring" in message


def test_an_output_that_is_not_empty(workshop: Workshop, command: Command, tmp_path: Path) -> None:
    (tmp_path / "recipe.yaml").write_text(workshop.recipe("  - {after_layer: 1}"), encoding="utf-8")
    (tmp_path / "out").mkdir()
    (tmp_path / "out/mine").write_text("precious", encoding="utf-8")
    outcome = command("build", "recipe.yaml", "--output", "out")
    assert outcome.code == 6
    assert "such as 'mine'" in outcome.err
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["mine"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out", "recipe.yaml"]


def test_a_base_that_changes_while_it_is_built(
    workshop: Workshop, base: Path, tmp_path: Path
) -> None:
    weights = base / "model.safetensors"

    def write_to_it(step: str, *_: object) -> None:
        if step == "compiling":
            weights.write_bytes(weights.read_bytes())

    with pytest.raises(CheckpointError, match="the file changed while it was in use"):
        build(
            parse_recipe(steered(workshop, base), folder=workshop.folder),
            output=tmp_path / "out",
            require_fidelity=None,
            measure=False,
            hard_link=False,
            progress=write_to_it,
        )
    assert not (tmp_path / "out").exists()
