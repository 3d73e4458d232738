"""Where SAEs come from, what is refused and why, and what goes wrong with files."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from hubsplice.errors import CheckpointError, RecipeError, UnsupportedError
from hubsplice.features.extract import extract_feature
from hubsplice.features.hook_point import HookPoint, parse_hook_name
from hubsplice.features.references import SaeSource
from hubsplice.features.sae import load_sae
from hubsplice.features.sae_config import SaeConfig, find_sae, parse_sae_config
from hubsplice.features.sae_match import match_warnings, require_width, site_place
from hubsplice.features.sae_registry import registered_at, registry_entry
from hubsplice.features.sae_support import require_supported
from hubsplice.intervention.place import Block, Place

D, WIDTH = 8, 12


def write_sae(folder: Path, **changes: Any) -> SaeSource:
    """A folder as SAELens saves a jumprelu SAE; `changes` go to its cfg.json."""
    folder.mkdir(parents=True, exist_ok=True)
    config = {
        "architecture": "jumprelu",
        "d_in": D,
        "d_sae": WIDTH,
        "dtype": "float32",
        "device": "cpu",
        "apply_b_dec_to_input": True,
        "normalize_activations": "none",
        "reshape_activations": "none",
        "metadata": {
            "sae_lens_version": "6.54.12",
            "hook_name": "blocks.3.hook_resid_post",
            "model_name": "org/tiny",
        },
    }
    (folder / "cfg.json").write_text(json.dumps(config | changes))
    generator = torch.Generator().manual_seed(0)
    weights = {
        "W_enc": torch.randn(D, WIDTH, generator=generator),
        "W_dec": torch.randn(WIDTH, D, generator=generator),
        "b_enc": torch.randn(WIDTH, generator=generator),
        "b_dec": torch.randn(D, generator=generator),
        "threshold": torch.rand(WIDTH, generator=generator),
    }
    save_file(weights, folder / "sae_weights.safetensors")
    return SaeSource(path=folder)


@pytest.mark.parametrize(
    ("name", "place"),
    [
        ("blocks.13.hook_resid_post", Place(13)),
        ("blocks.13.hook_resid_mid", Place(13, Block.ATTENTION)),
        ("blocks.13.hook_resid_pre", Place(12)),
        ("blocks.0.hook_resid_pre", Place(-1)),
        ("blocks.0.hook_resid_post", Place(0)),
        ("blocks.0.hook_resid_mid", Place(0, Block.ATTENTION)),
        ("blocks.13.hook_in", Place(12)),
        ("blocks.13.ln1.hook_in", Place(12)),
        ("blocks.13.ln2.hook_in", Place(13, Block.ATTENTION)),
        ("blocks.13.hook_out", Place(13)),
        ("model.layers.13", Place(13)),
        ("model.layers.13.output", Place(13)),
        ("model.language_model.layers.7", Place(7)),
        ("transformer.h.5", Place(5)),
        ("gpt_neox.layers.2", Place(2)),
    ],
)
def test_hooks_of_the_residual_stream(name: str, place: Place) -> None:
    hook = parse_hook_name(name)
    hook.require_supported()
    assert hook.place == place


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("hook_embed", "embeddings"),
        ("blocks.4.hook_attn_out", "attention's output"),
        ("blocks.4.hook_mlp_out", "MLP's output"),
        ("blocks.4.attn.hook_z", "attention heads"),
        ("blocks.4.ln2.hook_normalized", "normalised input"),
        ("blocks.4.mlp.hook_in", "normalised input"),
        ("blocks.4.mlp.hook_post", "not a place in the residual stream"),
        ("model.layers.4.mlp", "not a place in the residual stream"),
        ("blocks.4.attn.hook_out", "attention's output"),
        ("blocks.4.mlp.hook_out", "MLP's output"),
    ],
)
def test_other_hooks_are_refused_with_the_reason(name: str, reason: str, tmp_path: Path) -> None:
    source = write_sae(tmp_path, metadata={"hook_name": name, "sae_lens_version": "6.1.0"})
    with pytest.raises(UnsupportedError, match=reason) as caught:
        load_sae(source)
    assert name in str(caught.value)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"architecture": "transcoder"}, "transcoder predicts an MLP's output"),
        ({"architecture": "skip_transcoder"}, "transcoder predicts an MLP's output"),
        ({"architecture": "jumprelu_transcoder"}, "transcoder predicts an MLP's output"),
        ({"architecture": "jumprelu_skip_transcoder"}, "transcoder predicts an MLP's output"),
        ({"architecture": "temporal"}, "earlier tokens"),
        ({"architecture": "matching_pursuit"}, "one after another"),
        ({"architecture": "crosscoder"}, "several layers at once"),
        ({"architecture": "batchtopk"}, "save_inference_model"),
        ({"architecture": "matryoshka_batchtopk"}, "save_inference_model"),
        ({"architecture": "jumpreluu"}, "Did you mean 'jumprelu'"),
        ({"reshape_activations": "hook_z"}, "reshapes its input"),
        ({"normalize_activations": "covariance_whitening"}, "not folded"),
        ({"normalize_activations": "constant_scalar_rescale"}, "Did you mean"),
    ],
)
def test_other_saes_are_refused_with_the_reason(
    changes: dict[str, str], reason: str, tmp_path: Path
) -> None:
    with pytest.raises(UnsupportedError, match=reason):
        load_sae(write_sae(tmp_path, **changes))


def test_a_hook_of_an_unknown_name_is_where_the_recipe_says(tmp_path: Path) -> None:
    source = write_sae(tmp_path, metadata={"hook_name": "res.4", "sae_lens_version": "6.1.0"})
    config = load_sae(source).config
    assert site_place(config, Place(4)) == Place(4)
    (doubt,) = match_warnings(config, ["tiny"], Place(4))
    assert "trained on 'res.4', a name that hubsplice does not know; after_layer: 4 is" in doubt
    with pytest.raises(RecipeError, match=r"after_layer: missing, and .* was trained on 'res\.4'"):
        site_place(config, None)


def test_a_configuration_without_a_version_is_read_as_it_is_laid_out(tmp_path: Path) -> None:
    metadata = {"hook_name": "blocks.4.hook_resid_post", "model_name": "tiny", "dataset_path": "d"}
    source = write_sae(tmp_path, metadata=metadata)
    assert "sae_lens_version" not in (tmp_path / "cfg.json").read_text()
    found, loaded = find_sae(source).config, load_sae(source).config
    for config in (found, loaded):
        assert (config.hook, config.model_name, config.dataset) == (
            HookPoint("blocks.4.hook_resid_post", Place(4)),
            "tiny",
            "d",
        )
    assert found == loaded


def test_every_architecture_of_saelens_is_decided_on() -> None:
    from sae_lens.registry import SAE_CLASS_REGISTRY, SAE_TRAINING_CLASS_REGISTRY

    for architecture in {*SAE_CLASS_REGISTRY, *SAE_TRAINING_CLASS_REGISTRY}:
        refusal = ""
        try:
            require_supported(SaeConfig("SAE", architecture, D, WIDTH))
        except UnsupportedError as error:
            refusal = str(error)
        assert "is not known" not in refusal


def test_configurations_from_before_version_6_read_as_saelens_reads_them() -> None:
    from sae_lens.loading.pretrained_sae_loaders import handle_config_defaulting

    old = {
        "hook_point": "blocks.{layer}.hook_resid_pre",
        "hook_point_layer": 8,
        "model_name": "gpt2-small",
        "d_in": 768,
        "d_sae": 24576,
        "activation_fn_str": "topk",
        "activation_fn_kwargs": {"k": 32},
        "normalize_activations": True,
        "dtype": "float32",
    }
    config = parse_sae_config(old, "SAE")
    theirs = handle_config_defaulting(dict(old))
    assert config.architecture == theirs["architecture"] == "topk"
    assert config.k == theirs["k"] == 32
    assert config.normalize_activations == theirs["normalize_activations"]
    assert config.apply_b_dec_to_input is theirs["apply_b_dec_to_input"] is True
    assert config.hook is not None
    assert config.hook.place == Place(7)


def test_a_configuration_without_a_hook_needs_a_layer(tmp_path: Path) -> None:
    config = find_sae(write_sae(tmp_path, metadata={})).config
    assert config.hook is None
    assert site_place(config, Place(4)) == Place(4)
    with pytest.raises(RecipeError, match="after_layer: missing"):
        site_place(config, None)


def test_the_saes_own_layer_is_taken(tmp_path: Path) -> None:
    config = find_sae(write_sae(tmp_path)).config
    assert site_place(config, None) == Place(3)
    assert match_warnings(config, ["someone/Tiny"], None) == ()
    assert match_warnings(config, ["someone/Tiny"], Place(3)) == ()


def test_doubtful_pairings_warn(tmp_path: Path) -> None:
    config = find_sae(write_sae(tmp_path)).config
    (model,) = match_warnings(config, ["org/tiny-instruct", "/models/it"], Place(3))
    assert "'org/tiny'" in model
    assert "'org/tiny-instruct' or '/models/it'" in model
    (layer,) = match_warnings(config, ["tiny"], Place(5))
    assert layer.startswith("after_layer: 5")
    require_width(config, D)
    with pytest.raises(RecipeError, match="d_in is 8; expected 16"):
        require_width(config, 16)


def test_what_saelens_leaves_unscaled_is_said(tmp_path: Path) -> None:
    source = write_sae(tmp_path, normalize_activations="expected_average_only_in")
    (warning,) = load_sae(source).warnings
    assert "scales nothing" in warning


def config_with(**changes: Any) -> dict[str, Any]:
    return {"architecture": "standard", "d_in": D, "d_sae": WIDTH, **changes}


@pytest.mark.parametrize("value", [None, 0, -3, "8", 8.0, True])
def test_sizes_must_be_positive_integers(value: object) -> None:
    with pytest.raises(CheckpointError, match="d_in in its configuration"):
        parse_sae_config(config_with(d_in=value), "SAE")


def test_loading_prints_and_warns_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], recwarn: pytest.WarningsRecorder
) -> None:
    metadata = {
        "sae_lens_version": "6.1.0",
        "hook_name": "blocks.3.hook_resid_post",
    }
    config = {"metadata": metadata, "normalize_activations": "expected_average_only_in"}
    loaded = load_sae(write_sae(tmp_path, **config))
    assert "scales nothing" in loaded.warnings[0]
    assert capsys.readouterr() == ("", "")
    assert not [w for w in recwarn.list if issubclass(w.category, UserWarning)]


def test_features_out_of_range_name_the_range(tmp_path: Path) -> None:
    loaded = load_sae(write_sae(tmp_path))
    assert extract_feature(loaded, WIDTH - 1).name == "feature 11"
    for index in (WIDTH, -1, 10**9):
        with pytest.raises(RecipeError, match=f"feature: {index} is out of range.*0 to 11"):
            extract_feature(loaded, index)


def test_dead_features_are_refused(tmp_path: Path) -> None:
    source = write_sae(tmp_path)
    file = tmp_path / "sae_weights.safetensors"
    weights = load_file(file)
    weights["W_dec"][4] = 0
    save_file(weights, file)
    with pytest.raises(RecipeError, match=r"feature: 4 .* is dead"):
        extract_feature(load_sae(source), 4)


class TestDamagedFolders:
    def test_no_folder(self, tmp_path: Path) -> None:
        with pytest.raises(RecipeError, match="is not a folder"):
            load_sae(SaeSource(path=tmp_path / "nowhere"))

    def test_no_configuration(self, tmp_path: Path) -> None:
        with pytest.raises(RecipeError, match=r"holds no cfg\.json"):
            load_sae(SaeSource(path=tmp_path))

    @pytest.mark.parametrize("text", ["{", "[1]", "\x00"])
    def test_configuration_that_is_no_mapping(self, text: str, tmp_path: Path) -> None:
        source = write_sae(tmp_path)
        (tmp_path / "cfg.json").write_text(text)
        with pytest.raises(CheckpointError, match=r"cfg\.json"):
            load_sae(source)

    def test_no_weights(self, tmp_path: Path) -> None:
        source = write_sae(tmp_path)
        (tmp_path / "sae_weights.safetensors").unlink()
        with pytest.raises(CheckpointError, match=r"holds no sae_weights\.safetensors"):
            load_sae(source)

    def test_pickled_weights_are_refused_unread(self, tmp_path: Path) -> None:
        source = write_sae(tmp_path)
        (tmp_path / "sae_weights.safetensors").unlink()
        (tmp_path / "sae_weights.pt").write_bytes(b"not even a pickle")
        with pytest.raises(CheckpointError, match=r"sae_weights\.pt is a pickle file"):
            load_sae(source)

    @pytest.mark.parametrize("kept", [4, 40, -16])
    def test_truncated_weights(self, kept: int, tmp_path: Path) -> None:
        source = write_sae(tmp_path)
        file = tmp_path / "sae_weights.safetensors"
        file.write_bytes(file.read_bytes()[:kept])
        with pytest.raises(CheckpointError, match="cannot load it"):
            load_sae(source)

    def test_missing_tensor(self, tmp_path: Path) -> None:
        source = write_sae(tmp_path)
        file = tmp_path / "sae_weights.safetensors"
        weights = load_file(file)
        del weights["threshold"]
        save_file(weights, file)
        with pytest.raises(CheckpointError, match="threshold"):
            load_sae(source)

    def test_weights_of_another_size(self, tmp_path: Path) -> None:
        with pytest.raises(CheckpointError, match="size mismatch"):
            load_sae(write_sae(tmp_path, d_sae=WIDTH + 1))


class TestRegistry:
    """Names alone decide most cases, before SAELens is imported or anything is fetched."""

    def test_unknown_release_and_id(self) -> None:
        with pytest.raises(RecipeError, match="Did you mean 'gemma-scope-9b-it-res'"):
            registry_entry("gemma-scope-9b-it-re", "layer_9")
        with pytest.raises(RecipeError, match="Did you mean 'layer_9/width_16k/average_l0_88'"):
            registry_entry("gemma-scope-9b-it-res", "layer_9/width_16k/average_l0_89")

    @pytest.mark.parametrize(
        ("release", "sae_id", "reason"),
        [
            ("gpt2-small-attn-out-v5-32k", "blocks.0.hook_attn_out", "attention's output"),
            ("gpt2-small-hook-z-kk", "blocks.0.hook_z", "attention heads"),
        ],
    )
    def test_refusals_from_names(self, release: str, sae_id: str, reason: str) -> None:
        with pytest.raises(UnsupportedError, match=reason):
            find_sae(SaeSource(release=release, id=sae_id))

    def test_names_need_no_saelens(self) -> None:
        code = (
            "import sys; from hubsplice.features.sae_registry import registry_entry;"
            "entry = registry_entry('gemma-scope-9b-it-res', 'layer_9/width_16k/average_l0_88');"
            "assert entry.loader == 'gemma_2' and not entry.pickled;"
            "assert 'sae_lens' not in sys.modules and 'transformer_lens' not in sys.modules"
        )
        subprocess.run([sys.executable, "-c", code], check=True, env=environment())

    def test_a_configuration_that_saelens_infers(self) -> None:
        config = find_sae(
            SaeSource(release="gemma-scope-9b-it-res", id="layer_9/width_16k/average_l0_88")
        ).config
        assert (config.architecture, config.d_in, config.d_sae) == ("jumprelu", 3584, 16384)
        assert not config.apply_b_dec_to_input
        assert site_place(config, None) == Place(9)

    def test_no_network(self) -> None:
        with pytest.raises(CheckpointError, match="cannot be fetched"):
            find_sae(SaeSource(release="llama_scope_lxr_8x", id="l19r_8x"))

    def test_pickled_releases_are_marked(self) -> None:
        assert registry_entry("goodfire-llama-3.1-8b-instruct", "layer_19").pickled


def environment(**changes: str) -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path)), **changes}


class TestHubRepository:
    def test_no_network(self) -> None:
        with pytest.raises(CheckpointError, match=r"nobody/nothing.*cannot be reached"):
            load_sae(SaeSource(repo_id="nobody/nothing"))

    def test_malformed_name(self) -> None:
        with pytest.raises(RecipeError, match="repo_id: 'a/b/c'"):
            load_sae(SaeSource(repo_id="a/b/c"))

    def test_a_cached_repository_loads_at_its_commit(self, tmp_path: Path) -> None:
        commit = "0123456789abcdef0123456789abcdef01234567"
        repository = tmp_path / "models--someone--saes"
        write_sae(repository / "snapshots" / commit / "layer_3")
        (repository / "refs").mkdir()
        (repository / "refs" / "main").write_text(commit)
        code = (
            "from hubsplice.features.sae import load_sae\n"
            "from hubsplice.features.references import SaeSource\n"
            "sae = load_sae(SaeSource(repo_id='someone/saes', subfolder='layer_3'))\n"
            "print(sae.revision, sae.config.origin, sae.sha256)"
        )
        output = subprocess.run(
            [sys.executable, "-c", code],
            check=True,
            env=environment(HF_HUB_CACHE=str(tmp_path), HF_HUB_OFFLINE="1"),
            capture_output=True,
            text=True,
        ).stdout
        same = load_sae(SaeSource(path=repository / "snapshots" / commit / "layer_3"))
        assert output.split() == [commit, "SAE", "someone/saes/layer_3", same.sha256]


PLACED = "0123456789abcdef0123456789abcdef01234567"


def cached(hub: Path, repo_id: str) -> Path:
    """The folder of a repository's only snapshot in a cache."""
    repository = hub / f"models--{repo_id.replace('/', '--')}"
    (repository / "refs").mkdir(parents=True)
    (repository / "refs/main").write_text(PLACED)
    (repository / "snapshots" / PLACED).mkdir(parents=True)
    return repository / "snapshots" / PLACED


BOTH_WAYS = """
import json
from hubsplice.features.references import SaeSource
from hubsplice.features.sae import load_sae
from hubsplice.features.sae_config import find_sae
from hubsplice.features.sae_support import config_warnings

for fields in (
    {"release": "llama_scope_lxr_8x", "id": "l1r_8x"},
    {"repo_id": "jbloom/GPT2-Small-SAEs-Reformatted", "subfolder": "blocks.8.hook_resid_pre"},
):
    found = find_sae(SaeSource(**fields)).config
    loaded = load_sae(SaeSource(**fields))
    assert found.normalize_activations == loaded.config.normalize_activations
    assert found.centred_weights == loaded.config.centred_weights
    assert loaded.warnings == config_warnings(found), loaded.warnings
    print("#", json.dumps([config_warnings(found), found.stated_l0, found.centred_weights]))
"""


def test_what_only_the_registry_holds_is_the_same_before_and_after_loading(tmp_path: Path) -> None:
    scope = cached(tmp_path, "fnlp/Llama3_1-8B-Base-LXR-8x") / "Llama3_1-8B-Base-L1R-8x"
    (scope / "checkpoints").mkdir(parents=True)
    generator = torch.Generator().manual_seed(0)
    weights = {
        "encoder.weight": torch.randn(WIDTH, D, generator=generator),
        "encoder.bias": torch.zeros(WIDTH),
        "decoder.weight": torch.randn(D, WIDTH, generator=generator),
        "decoder.bias": torch.zeros(D),
    }
    save_file(weights, scope / "checkpoints/final.safetensors")
    settings = {
        "d_model": D,
        "d_sae": WIDTH,
        "hook_point_in": "blocks.1.hook_resid_post",
        "hook_point_out": "blocks.1.hook_resid_post",
        "act_fn": "jumprelu",
        "jump_relu_threshold": 0.5,
        "norm_activation": "dataset-wise",
        "dataset_average_activation_norm": {"in": 8.0, "out": 8.0},
        "use_decoder_bias": True,
        "expansion_factor": WIDTH / D,
        "sparsity_include_decoder_norm": True,
    }
    (scope / "hyperparams.json").write_text(json.dumps(settings))
    folder = cached(tmp_path, "jbloom/GPT2-Small-SAEs-Reformatted") / "blocks.8.hook_resid_pre"
    write_sae(folder, architecture="standard")
    tensors = load_file(folder / "sae_weights.safetensors")
    del tensors["threshold"]
    save_file(tensors, folder / "sae_weights.safetensors")
    output = subprocess.run(
        [sys.executable, "-c", BOTH_WAYS],
        check=True,
        env=environment(HF_HUB_CACHE=str(tmp_path), HF_HUB_OFFLINE="1"),
        stdout=subprocess.PIPE,
        text=True,
    ).stdout
    lines = [line for line in output.splitlines() if line.startswith("#")]
    (quiet, _, centred), (also_quiet, stated, also_centred) = (
        json.loads(line[1:]) for line in lines
    )
    assert quiet == also_quiet == []
    assert (centred, also_centred) == (False, True)
    assert stated == registry_entry("gpt2-small-res-jb", "blocks.8.hook_resid_pre").l0


def test_files_at_a_place_of_the_registry_are_known_by_it() -> None:
    known = registered_at("jbloom/GPT2-Small-SAEs-Reformatted", "blocks.8.hook_resid_pre")
    assert known == registry_entry("gpt2-small-res-jb", "blocks.8.hook_resid_pre")
    assert known.centred_weights
    assert registered_at("jbloom/GPT2-Small-SAEs-Reformatted", "blocks.99.hook_resid_pre") is None
    # Files in another format are not what a repository's name alone stands for.
    assert registered_at("fnlp/Llama3_1-8B-Base-LXR-8x", "Llama3_1-8B-Base-L1R-8x") is None


def test_a_factor_of_the_registry_is_folded_into_files_of_a_repository(tmp_path: Path) -> None:
    found = find_sae(write_sae(tmp_path, normalize_activations="expected_average_only_in"))
    plain, folded = load_sae(found), load_sae(replace(found, scaling=0.25))
    assert plain.config.normalize_activations == "expected_average_only_in"
    assert "no factor is folded" in plain.warnings[0]
    assert folded.config.normalize_activations == "none"
    assert folded.warnings == ()
    # What SAELens does with an SAE of a release.
    assert not torch.equal(folded.module.W_enc, plain.module.W_enc)
    plain.module.fold_activation_norm_scaling_factor(0.25)
    assert torch.equal(folded.module.W_enc, plain.module.W_enc)
