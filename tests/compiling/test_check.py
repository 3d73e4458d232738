from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from hubsplice.compiling.check import CheckReport, SaeSummary, SpliceSummary, check
from hubsplice.compiling.plan import make_plan
from hubsplice.errors import CheckpointError, HubspliceError, RecipeError, UnsupportedError
from hubsplice.intervention.place import Place
from hubsplice.recipe.reading import parse_recipe
from tests.tiny_tokenizer import byte_tokenizer


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with `base` and a matching `sae`: configurations, beside hardly any weights."""
    write_base(tmp_path)
    save_file({"w": torch.zeros(2, 64)}, tmp_path / "base/model.safetensors")
    byte_tokenizer().save_pretrained(tmp_path / "base")
    write_sae(tmp_path)
    save_file({"W_enc": torch.zeros(2)}, tmp_path / "sae/sae_weights.safetensors")
    return tmp_path


def write_base(folder: Path, **fields: Any) -> None:
    config: dict[str, Any] = {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "hidden_size": 64,
        "intermediate_size": 128,
        "num_hidden_layers": 4,
        "num_attention_heads": 4,
    }
    (folder / "base").mkdir(exist_ok=True)
    (folder / "base/config.json").write_text(json.dumps(config | fields), encoding="utf-8")


def write_sae(folder: Path, hook: str | None = "blocks.2.hook_resid_post", **fields: Any) -> None:
    config: dict[str, Any] = {
        "architecture": "jumprelu",
        "d_in": 64,
        "d_sae": 256,
        "normalize_activations": "none",
        "apply_b_dec_to_input": True,
        "reshape_activations": "none",
        "dtype": "float32",
        "metadata": {"model_name": "me/base", "hook_name": hook},
    }
    (folder / "sae").mkdir(exist_ok=True)
    (folder / "sae/cfg.json").write_text(json.dumps(config | fields), encoding="utf-8")


def run(folder: Path, splices: str) -> Any:
    return check(parse_recipe(f"base_model: ./base\nsplices:\n{splices}", folder=folder))


def test_a_good_recipe_is_summed_up(folder: Path) -> None:
    save_file({"v": torch.ones(64)}, folder / "v.safetensors")
    report = run(
        folder,
        """
  - sae: {path: sae}
    edits:
      - {kind: ablate, feature: 0}
      - {kind: ablate, feature: 255}
      - {kind: gated_steer, feature: 7, strength: 0.3 x norm, gate: {feature: 255}}
  - {after_layer: 3, edits: [{kind: steer, vector: {path: v.safetensors}, strength: 1}]}
""",
    )
    assert report.model_type == "llama"
    assert (report.num_layers, report.hidden_size) == (4, 64)
    assert report.commit is None
    assert report.warnings == ()
    sae = SaeSummary(f"SAE {folder / 'sae'}", "jumprelu", 64, 256)
    assert report.splices == (
        SpliceSummary(Place(2), sae, {"ablate": 2, "gated_steer": 1}, 3),
        SpliceSummary(Place(3), None, {"steer": 1}, 0),
    )


@pytest.mark.parametrize("family", ["llama", "mistral", "qwen2"])
def test_the_supported_families_pass(folder: Path, family: str) -> None:
    architectures = [f"{family.capitalize()}ForCausalLM"]
    write_base(folder, model_type=family, architectures=architectures, sliding_window=None)
    assert run(folder, "  - {after_layer: 0}").model_type == family


def test_a_model_that_would_lose_something_is_unsupported(folder: Path) -> None:
    write_base(folder, hidden_act="gelu")
    with pytest.raises(UnsupportedError, match=r"base_model: .*: hidden_act: found 'gelu'"):
        run(folder, "  - {after_layer: 0}")


def test_another_family_is_unsupported(folder: Path) -> None:
    write_base(folder, model_type="lama")
    with pytest.raises(UnsupportedError, match=r"model_type: 'lama' is not supported: "):
        run(folder, "  - {after_layer: 0}")


def test_a_missing_base_is_named(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match=r"base_model: .*/base'"):
        run(tmp_path, "  - {after_layer: 0}")


def test_a_base_without_a_size_is_damaged(folder: Path) -> None:
    write_base(folder, hidden_size="64")
    with pytest.raises(CheckpointError, match="hidden_size: found '64'"):
        run(folder, "  - {after_layer: 0}")


@pytest.mark.parametrize(
    ("splices", "messages"),
    [
        (
            "  - {after_layer: 4}",
            ["splices[0]: after_layer: found 4, expected -1 to 3; the base model has 4 layers"],
        ),
        (
            "  - {sae: {path: sae}, edits: [{kind: ablate, feature: 256}]}",
            ["splices[0].edits[0]: feature: 256 is out of range; SAE", "has features 0 to 255"],
        ),
        (
            "  - {sae: {path: sae}, edits: "
            "[{kind: gated_steer, feature: 1, strength: 1, gate: {feature: 256}}]}",
            ["splices[0].edits[0].gate.feature: 256 is out of range; SAE"],
        ),
        (
            "  - {sae: {path: sae}}\n  - {after_layer: 2}",
            ["splices[1]: another splice is after layer 2 already"],
        ),
        (
            "  - {after_layer: 1, edits: "
            "[{kind: steer, strength: 1, vector: {path: missing.safetensors}}]}",
            ["splices[0].edits[0]: path: ", "missing.safetensors' is not a file"],
        ),
        ("  - {after_layer: 1, sae: {path: nowhere}}", ["splices[0]: sae.path: ", "nowhere"]),
    ],
)
def test_what_would_stop_the_build_is_named(
    folder: Path, splices: str, messages: list[str]
) -> None:
    with pytest.raises(RecipeError) as caught:
        run(folder, splices)
    assert all(message in str(caught.value) for message in messages)


def test_all_problems_are_told_at_once(folder: Path) -> None:
    with pytest.raises(RecipeError) as caught:
        run(
            folder,
            """
  - {after_layer: 9}
  - {sae: {path: sae}, edits: [{kind: ablate, feature: 300}, {kind: ablate, feature: 400}]}
""",
        )
    assert [line.split(": ")[0] for line in str(caught.value).splitlines()] == [
        "splices[0]",
        "splices[1].edits[0]",
        "splices[1].edits[1]",
    ]


def test_a_sae_of_another_width_is_an_error(folder: Path) -> None:
    write_sae(folder, d_in=128)
    with pytest.raises(RecipeError, match="d_in is 128; expected 64"):
        run(folder, "  - {sae: {path: sae}}")


def test_a_transcoder_is_unsupported(folder: Path) -> None:
    write_sae(folder, architecture="transcoder")
    with pytest.raises(UnsupportedError, match=r"splices\[0\]: SAE .* 'transcoder'"):
        run(folder, "  - {sae: {path: sae}}")


def test_a_layer_that_nobody_names_is_an_error(folder: Path) -> None:
    write_sae(folder, hook=None)
    with pytest.raises(RecipeError, match=r"splices\[0\]: after_layer: missing"):
        run(folder, "  - {sae: {path: sae}}")
    assert run(folder, "  - {after_layer: 1, sae: {path: sae}}").splices[0].place == Place(1)


def test_doubts_are_warnings(folder: Path) -> None:
    write_sae(folder, metadata={"model_name": "you/other", "hook_name": "blocks.2.hook_resid_post"})
    warnings = run(folder, "  - {after_layer: 1, sae: {path: sae}}").warnings
    assert len(warnings) == 2
    assert all(warning.startswith("splices[0]: ") for warning in warnings)
    assert "trained on 'you/other'" in warnings[0]
    assert "after_layer: 1" in warnings[1]


def test_strengths_that_the_sae_cannot_have_are_found(folder: Path) -> None:
    write_sae(folder, normalize_activations="layer_norm")
    with pytest.raises(UnsupportedError, match=r"splices\[0\]\.edits\[0\]: .*x norm"):
        run(
            folder,
            "  - {sae: {path: sae}, edits: [{kind: clamp, feature: 1, to: 0.3 x norm}]}",
        )


@pytest.mark.parametrize("architecture", ["jumprelu", "standard", "gated"])
@pytest.mark.parametrize(
    ("edits", "message"),
    [
        ("{kind: ablate, feature: 1}, {kind: scale, feature: 1, factor: 2}", "change nothing"),
        (
            "{kind: ablate, feature: 2}, {kind: ablate, feature: 1}, {kind: ablate, feature: 1}",
            "neither says",
        ),
        (
            "{kind: clamp, feature: 1, to: 0.5 x max, max: 10}, {kind: clamp, feature: 1, to: 3}",
            "neither says",
        ),
    ],
)
def test_edits_that_contradict_each_other_are_an_error(
    folder: Path, edits: str, message: str, architecture: str
) -> None:
    write_sae(folder, architecture=architecture)
    with pytest.raises(RecipeError) as caught:
        run(folder, f"  - {{sae: {{path: sae}}, edits: [{edits}]}}")
    count = edits.count("kind")
    assert str(caught.value).startswith(f"splices[0].edits[{count - 2}] (")
    assert f" and splices[0].edits[{count - 1}] (" in str(caught.value)
    assert message in str(caught.value)


@pytest.mark.parametrize(
    "edits",
    [
        # Where the maximum is below 6, only the build can know that.
        "{kind: cap, feature: 1, at: 0.5 x max}, {kind: floor, feature: 1, at: 3}",
        "{kind: clamp, feature: 1, to: 5, when: active}, {kind: floor, feature: 1, at: 1}",
    ],
)
def test_what_only_the_build_can_know_passes(folder: Path, edits: str) -> None:
    assert run(folder, f"  - {{sae: {{path: sae}}, edits: [{edits}]}}").warnings == ()


@pytest.mark.parametrize(
    ("edits", "messages"),
    [
        ("{kind: scale, feature: 1, factor: -200}", ["edits[0]: factor: -200 makes it 200 times"]),
        ("{kind: add, feature: 1, strength: 20 x max}", ["20 x max is 20 times the largest"]),
        ("{kind: clamp, feature: 1, to: 1.0e+9, max: 17.6}", ["of the feature, 17.6"]),
        ("{kind: steer, feature: 1, strength: 3 x norm}", ["3 times as long as the residual"]),
        (
            "{kind: clamp, feature: 1, to: 5}, {kind: steer, feature: 1, strength: 2}",
            ["edits[0] (clamp feature 1) and splices[0].edits[1] (steer feature 1)"],
        ),
    ],
)
def test_doubts_about_edits_are_warnings(folder: Path, edits: str, messages: list[str]) -> None:
    (warning,) = run(folder, f"  - {{sae: {{path: sae}}, edits: [{edits}]}}").warnings
    assert warning.startswith("splices[0].edits[0]")
    assert all(message in warning for message in messages)


LFS_POINTER = """version https://git-lfs.github.com/spec/v1
oid sha256:0000000000000000000000000000000000000000000000000000000000000000
size 14483464192
"""


def without_tokenizer(folder: Path) -> None:
    for path in (folder / "base").glob("tokenizer*"):
        path.unlink()


NOTHING = "  - {after_layer: 0}"
SPOILT: dict[str, tuple[Callable[[Path], object], str, str]] = {
    "float16": (
        lambda f: save_file({"w": torch.zeros(2).half()}, f / "base/model.safetensors"),
        NOTHING,
        "dtype: float16 is not supported",
    ),
    "float16 in the recipe": (
        lambda f: None,
        f"{NOTHING}\ndtype: float16",
        "dtype: float16 is not",
    ),
    "no weights": (lambda f: (f / "base/model.safetensors").unlink(), NOTHING, "no weights: "),
    "a pointer": (
        lambda f: (f / "base/model.safetensors").write_text(LFS_POINTER),
        NOTHING,
        "Git LFS",
    ),
    "no tokenizer": (
        without_tokenizer,
        NOTHING,
        "base: its tokenizer can't be loaded",
    ),
    "no text": (
        lambda f: None,
        f"{NOTHING}\nfidelity: {{dataset: ./nothing.txt}}",
        "fidelity.dataset: there is no file or folder",
    ),
    "an SAE without weights": (
        lambda f: (f / "sae/sae_weights.safetensors").unlink(),
        "  - {sae: {path: sae}}",
        "holds no sae_weights.safetensors",
    ),
    "an SAE as a pickle": (
        lambda f: (f / "sae/sae_weights.safetensors").rename(f / "sae/sae_weights.pt"),
        "  - {sae: {path: sae}}",
        "sae_weights.pt is a pickle file",
    ),
    "more edits than neurons": (
        lambda f: None,
        "  - {sae: {path: sae}, edits: ["
        + ", ".join(f"{{kind: ablate, feature: {i}}}" for i in range(65))
        + "]}",
        # A JumpReLU bends and jumps at its threshold.
        "splices[0].edits: 65 edits need 130 neurons or more, and a layer of this model has 128",
    ),
}


@pytest.mark.parametrize("name", SPOILT)
def test_what_needs_no_weight_to_be_known_is_told(folder: Path, name: str) -> None:
    spoil, splices, message = SPOILT[name]
    spoil(folder)
    with pytest.raises(HubspliceError) as caught:
        run(folder, splices)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_as_many_edits_as_may_fit_pass(folder: Path) -> None:
    edits = ", ".join(f"{{kind: ablate, feature: {i}}}" for i in range(64))
    assert run(folder, f"  - {{sae: {{path: sae}}, edits: [{edits}]}}").splices[0].features == 64


def test_text_is_no_longer_than_the_table_of_positions(folder: Path) -> None:
    gpt2 = {"n_embd": 64, "n_layer": 2, "n_head": 4, "n_positions": 128}
    write_base(folder, model_type="gpt2", architectures=["GPT2LMHeadModel"], **gpt2)
    with pytest.raises(RecipeError) as caught:
        run(folder, f"{NOTHING}\ncalibration: {{sequence_length: 129}}")
    assert str(caught.value).splitlines() == [
        f"{section}.sequence_length: found {length}, expected at most 128, the number of positions "
        "that the base has"
        for section, length in {"calibration": 129, "fidelity": 256}.items()
    ]
    lengths = "calibration: {sequence_length: 128}\nfidelity: {sequence_length: 16}"
    assert run(folder, f"{NOTHING}\n{lengths}").model_type == "gpt2"


COMMIT = "0123456789abcdef0123456789abcdef01234567"


@pytest.mark.parametrize(
    ("place", "repo_id"),
    [
        (f"models--me--base/snapshots/{COMMIT}", "me/base"),
        (f"models--gpt2/snapshots/{COMMIT}", "gpt2"),
        (f"models--me--a--b/snapshots/{COMMIT}", "me/a--b"),
        (f"datasets--me--base/snapshots/{COMMIT}", None),
        ("models--me--base/snapshots/main", None),
        (f"models--me--base/{COMMIT}", None),
    ],
)
def test_a_snapshot_in_the_hubs_cache_is_of_its_repository(
    folder: Path, place: str, repo_id: str | None
) -> None:
    snapshot = folder / place
    snapshot.parent.mkdir(parents=True)
    (folder / "base").rename(snapshot)
    plan = make_plan(
        parse_recipe(f"base_model: ./{place}\nsplices:\n  - {{sae: {{path: sae}}}}", folder=folder)
    )
    assert (plan.resolved.repo_id, plan.resolved.commit) == (repo_id, repo_id and COMMIT)
    assert plan.resolved.folder == snapshot
    assert plan.recipe.base_model == (repo_id or str(snapshot))
    assert plan.recipe.revision == (repo_id and COMMIT)
    report = CheckReport.of(plan)
    assert (report.base_model, report.commit) == (plan.recipe.base_model, repo_id and COMMIT)
    # The SAE is of me/base.
    assert bool(report.warnings) is (repo_id != "me/base")


def test_neuronpedias_names_are_resolved_and_recorded(folder: Path) -> None:
    write_base(folder, hidden_size=2304, intermediate_size=9216, num_hidden_layers=26)
    name = "gemma-2-2b/20-gemmascope-res-16k"
    page = f"https://www.neuronpedia.org/{name}"
    text = f"""
base_model: ./base
splices:
  - edits: [{{kind: ablate, feature: "{page}/1234"}}]
"""
    plan = make_plan(parse_recipe(text, folder=folder))
    splice = plan.recipe.splices[0]
    assert splice.sae == plan.splices[0].splice.sae
    assert splice.sae is not None
    assert splice.sae.model_dump(exclude_none=True) == {
        "release": "gemma-scope-2b-pt-res-canonical",
        "id": "layer_20/width_16k/canonical",
    }
    assert plan.splices[0].place == Place(20)
    shown = " ".join(str(CheckReport.of(plan)).split())
    assert f"layer_20/width_16k/canonical, on Neuronpedia {page}" in shown


def test_edits_that_take_two_layers_are_named_with_the_reason(folder: Path) -> None:
    report = run(
        folder,
        """
  - sae: {path: sae}
    edits:
      - {kind: ablate, feature: 3, when: {feature: 7, above: 2}}
      - {kind: steer, feature: 5, strength: 2, when: {feature: 9}}
      - {kind: ablate, feature: 12}
""",
    )
    two, one = "ablate feature 3 where feature 7 is above 2", "steer feature 5 where feature 9"
    assert report.in_two_layers == (two,)
    assert report.conditions == (two, f"{one} is active")
    told = " ".join(str(report).split())
    assert f"{two}: two layers" in told
    assert "A layer adds up functions of one read-out each" in told
    assert "not known on how many tokens conditions hold: `hubsplice try` says it" in told
    plain = str(run(folder, "  - {sae: {path: sae}, edits: [{kind: ablate, feature: 3}]}"))
    assert "two layers" not in plain
    assert "conditions hold" not in plain


@pytest.mark.parametrize(
    ("when", "message"),
    [
        ("{feature: 256}", "when.feature: 256 is out of range"),
        ("{any: [{feature: 7}, {feature: 256}]}", "when.any[1].feature: 256 is out of range"),
        ("{vector: {path: v.st}, above: 1}", "when.vector.path: "),
        (
            "{any: [{feature: 7}, {feature: 8}]}",
            "when: ablate feature 3 where feature 7 is active or feature 8 is active: `any` is for",
        ),
    ],
)
def test_what_is_wrong_in_a_condition_is_named_by_its_field(
    folder: Path, when: str, message: str
) -> None:
    splices = f"""
  - sae: {{path: sae}}
    edits: [{{kind: ablate, feature: 1}}, {{kind: ablate, feature: 3, when: {when}}}]
"""
    with pytest.raises(HubspliceError) as raised:
        run(folder, splices)
    assert str(raised.value).startswith(f"splices[0].edits[1].{message}")


GATED_BY_ANOTHER = """
  - sae: {path: sae}
    edits:
      - kind: ablate
        feature: 3
        when: {any: [{feature: 7, sae: {path: other}}, {feature: 4}]}
"""


def another_sae(folder: Path, **fields: Any) -> None:
    """A second SAE, `other`, beside the first one."""
    write_sae(folder, **fields)
    (folder / "sae").rename(folder / "other")
    save_file({"W_enc": torch.zeros(2)}, folder / "other/sae_weights.safetensors")
    write_sae(folder)
    save_file({"W_enc": torch.zeros(2)}, folder / "sae/sae_weights.safetensors")


def test_a_condition_reads_another_sae_of_the_same_place(folder: Path) -> None:
    another_sae(folder, d_sae=300)
    text = GATED_BY_ANOTHER.replace("kind: ablate", "kind: steer\n        strength: 1")
    report = run(folder, text.replace("feature: 7", "feature: 299"))
    label = "steer feature 3 where feature 299 of other is active or feature 4 is active"
    assert report.conditions == (label,)
    assert str(folder / "other") in " ".join(str(report).split())
    plan = make_plan(parse_recipe(f"base_model: ./base\nsplices:\n{text}", folder=folder))
    assert [sae.config.d_sae for sae in plan.splices[0].gate_saes.values()] == [300]


@pytest.mark.parametrize(
    ("fields", "feature", "message"),
    [
        (
            {"hook": "blocks.1.hook_resid_post"},
            7,
            r"\.sae: SAE .* after layer 1, and the edit is after",
        ),
        ({"architecture": "topk"}, 7, r"\.sae: SAE .*: its features compete \(topk\)"),
        ({"d_in": 32}, 7, r"\.sae: SAE .*: d_in is 32"),
        ({}, 256, r"\.feature: 256 is out of range; SAE .*other has features 0 to 255"),
        (
            {"normalize_activations": "layer_norm"},
            7,
            r"\.feature: feature 7 of other .* normalises",
        ),
    ],
)
def test_other_saes_that_no_condition_can_read(
    folder: Path, fields: dict[str, Any], feature: int, message: str
) -> None:
    another_sae(folder, **fields)
    text = GATED_BY_ANOTHER.replace("feature: 7", f"feature: {feature}")
    with pytest.raises(
        HubspliceError, match=r"^splices\[0\]\.edits\[0\]\.when\.any\[0\]" + message
    ):
        run(folder, text)


def test_a_condition_may_name_the_splices_own_sae(folder: Path) -> None:
    text = GATED_BY_ANOTHER.replace("other", "sae").replace("any", "all")
    recipe = parse_recipe(f"base_model: ./base\nsplices:\n{text}", folder=folder)
    plan = make_plan(recipe)
    (edit,) = plan.splices[0].splice.edits
    assert edit.condition is not None
    assert [part.sae for part in edit.condition.members] == [None, None]
    assert edit.all_indices() == (3, 7, 4)
    assert plan.recipe.splices[0].edits == (edit,)


@pytest.mark.parametrize("own", ["", ", sae: {path: sae}"])
def test_one_feature_twice_in_a_condition(folder: Path, own: str) -> None:
    text = GATED_BY_ANOTHER.replace(", sae: {path: other}", own).replace("7", "4")
    with pytest.raises(
        RecipeError, match=r"^splices\[0\]\.edits\[0\]\.when\.any\[1\]\.feature: found 4, which"
    ):
        run(folder, text)


def test_another_sae_that_is_not_there(folder: Path) -> None:
    with pytest.raises(RecipeError, match=r"edits\[0\]\.when\.any\[0\]\.sae\.path: .*not a folder"):
        run(folder, GATED_BY_ANOTHER)
