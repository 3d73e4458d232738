"""A planted feature is found in both ways, shown, and put into a recipe that builds."""

from __future__ import annotations

import json
import shlex
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

import hubsplice
from hubsplice.explore.lens import token_scores
from hubsplice.features.references import SaeSource
from hubsplice.features.sae_config import find_sae
from tests.conftest import Command
from tests.explore.conftest import DENSE, PLANTED, Planted

WITH = ["a lazy zebra", "the wizard dozed", "frozen pizza", "jazz bands", "size of a maze", "oz"]
WITHOUT = [text.replace("z", "s") for text in WITH]


def find(planted: Planted, **options: Any) -> hubsplice.Found:
    return hubsplice.find(planted.sae, model=planted.base, tokens=1024, progress=False, **options)


def test_a_planted_feature_comes_first_on_text_that_has_it(planted: Planted) -> None:
    found = find(planted, text=[" ".join(WITH)])
    assert found.features[0].feature == PLANTED
    assert found.features[0].score > 1.5 * found.features[1].score
    assert "«z»" in found.features[0].context
    assert DENSE not in [one.feature for one in found.features[:5]]


def test_it_is_not_found_on_text_without_it(planted: Planted) -> None:
    found = find(planted, text=[" ".join(WITHOUT)], top=96)
    assert PLANTED not in [one.feature for one in found.features]


def test_an_sae_is_read_as_a_build_reads_it(planted: Planted, tmp_path: Path) -> None:
    """Norms that see the mean leave TransformerLens nothing to centre, whatever the SAE says."""
    sae = shutil.copytree(planted.sae, tmp_path / "sae")
    config = json.loads((sae / "cfg.json").read_text(encoding="utf-8"))
    said = {"model_from_pretrained_kwargs": {"center_writing_weights": True}}
    config["metadata"] = config.get("metadata", {}) | said
    (sae / "cfg.json").write_text(json.dumps(config), encoding="utf-8")
    centred = replace(planted, sae=sae)
    assert find_sae(SaeSource(path=sae)).config.centred_weights
    for options in ({"text": WITH}, {"positive": WITH, "negative": WITHOUT}):
        numbers = [
            [(one.feature, one.score, one.largest) for one in find(where, **options).features]
            for where in (planted, centred)
        ]
        assert numbers[0] == numbers[1]


def test_it_tells_two_sets_apart(planted: Planted) -> None:
    found = find(planted, positive=WITH, negative=WITHOUT)
    best = found.features[0]
    assert (best.feature, best.score) == (PLANTED, 1.0)
    assert best.texts == len(WITH)
    assert best.elsewhere == 0
    assert best.effect is not None
    assert best.effect > 1


def test_it_is_not_found_in_swapped_or_equal_sets(planted: Planted) -> None:
    swapped = find(planted, positive=WITHOUT, negative=WITH)
    assert PLANTED not in [one.feature for one in swapped.features]
    same = find(planted, positive=WITH, negative=WITH, top=96)
    assert not same.features
    assert "No feature" in str(same)


def test_the_mean_of_an_example_can_be_asked_for(planted: Planted) -> None:
    found = find(planted, positive=WITH, negative=WITHOUT, pool="mean")
    assert found.features[0].feature == PLANTED


def test_several_saes_are_searched_together(planted: Planted) -> None:
    found = hubsplice.find(
        [planted.sae, planted.sae],
        model=planted.base,
        positive=WITH,
        negative=WITHOUT,
        progress=False,
    )
    assert [(one.sae, one.feature) for one in found.features[:2]] == [(0, PLANTED), (1, PLANTED)]
    assert found.searched == 2 * 96


def test_template_tokens_do_not_count(planted: Planted) -> None:
    tokenizer = AutoTokenizer.from_pretrained(planted.base)
    found = find(planted, prompts=["zz"] * 12)
    assert found.tokens == 12 * len(tokenizer("zz", add_special_tokens=False).input_ids)


def test_examples_of_unlike_lengths_are_doubted(planted: Planted) -> None:
    found = find(planted, positive=[f"{text} and so on and on" for text in WITH], negative=WITHOUT)
    assert any("length alone" in warning for warning in found.warnings)


def test_one_feature_is_shown(planted: Planted) -> None:
    shown = hubsplice.show(
        PLANTED, planted.sae, model=planted.base, text=WITH, top=3, progress=False
    )
    letters = "".join(WITH).count("z")
    assert shown.active == letters == sum(bar.tokens for bar in shown.histogram)
    assert len(shown.contexts) == 3
    assert all("«z»" in context.text for context in shown.contexts)
    assert len(shown.lens.promoted) == 10
    assert f"Active on {letters} of" in str(shown)


def test_one_long_text_is_shown_at_several_places(planted: Planted) -> None:
    text = "a zebra in the calm and quiet park of our town. " * 4
    options: dict[str, Any] = {"model": planted.base, "text": [text], "progress": False}
    shown = hubsplice.show(PLANTED, planted.sae, top=3, **options)
    assert [context.text.count("«z»") for context in shown.contexts] == [1, 1, 1]
    values = [context.activation for context in shown.contexts]
    assert values == sorted(values, reverse=True)
    assert len(hubsplice.show(PLANTED, planted.sae, top=1, **options).contexts) == 1


def test_the_command_that_is_told_shows_the_feature_in_the_same_examples(
    planted: Planted, command: Command, tmp_path: Path
) -> None:
    (tmp_path / "with z.txt").write_text("\n".join(WITH), encoding="utf-8")
    (tmp_path / "b.txt").write_text("\n".join(WITHOUT), encoding="utf-8")
    given = ["--model", str(planted.base), "--sae", str(planted.sae), "--positive", "with z.txt"]
    found = command("find", *given, "--negative", "b.txt")
    assert found.code == 0, found.err
    (line,) = (line for line in found.err.splitlines() if line.startswith("next: "))
    words = shlex.split(line.partition("hubsplice ")[2])
    assert words == ["find", *given, "--show", str(PLANTED)]
    shown = command(*words, "--json", "--recipe", "r.yaml")
    assert shown.code == 0, shown.err
    feature = json.loads(shown.out)
    assert len(feature["contexts"]) == len(WITH)
    (edit,) = hubsplice.load_recipe(tmp_path / "r.yaml").splices[0].edits
    assert edit.model_dump()["max"] == pytest.approx(feature["largest"], rel=1e-5)
    assert "on your text" in (tmp_path / "r.yaml").read_text(encoding="utf-8")
    refused = command(*words, "--negative", "b.txt")
    assert (refused.code, refused.out) == (2, "")
    assert "no --negative" in refused.err


def test_a_recipe_from_neutral_text_leaves_the_maximum_to_the_build(
    planted: Planted, tmp_path: Path
) -> None:
    path = tmp_path / "r.yaml"
    options: dict[str, Any] = {"model": planted.base, "tokens": 512, "progress": False}
    hubsplice.show(PLANTED, planted.sae, recipe=path, **options)
    (edit,) = hubsplice.load_recipe(path).splices[0].edits
    assert edit.model_dump()["max"] is None
    assert "`max` is left out" in path.read_text(encoding="utf-8")


def test_the_maximum_is_that_of_the_text_and_not_of_what_it_is_compared_with(
    planted: Planted,
) -> None:
    largest = {
        texts: hubsplice.show(
            PLANTED, planted.sae, model=planted.base, positive=texts, progress=False
        ).largest
        for texts in (("zz", "a z"), ("buzz", "fizz"))
    }
    small, large = sorted(largest, key=lambda texts: largest[texts])
    assert largest[small] < 0.999 * largest[large]
    found = find(planted, positive=small * 4, negative=[*large, "no", "in", "on"], top=96)
    (own,) = (one for one in found.features if one.feature == PLANTED)
    assert own.largest == pytest.approx(largest[small], rel=1e-4)


def test_what_lies_beside_the_recipe_is_named_relative_to_it(
    planted: Planted, tmp_path: Path
) -> None:
    base = shutil.copytree(planted.base, tmp_path / "models/base")
    sae = shutil.copytree(planted.sae, tmp_path / "sae")
    options: dict[str, Any] = {"tokens": 512, "progress": False, "text": WITH}
    hubsplice.show(PLANTED, sae, model=base, recipe=tmp_path / "r.yaml", **options)
    text = (tmp_path / "r.yaml").read_text(encoding="utf-8")
    assert "base_model: ./models/base\n" in text
    assert "path: ./sae\n" in text
    recipe = hubsplice.load_recipe(tmp_path / "r.yaml")
    assert recipe.base_model == str(base)
    assert recipe.splices[0].sae == SaeSource(path=sae)
    (tmp_path / "recipes").mkdir()
    hubsplice.show(PLANTED, sae, model=base, recipe=tmp_path / "recipes/r.yaml", **options)
    text = (tmp_path / "recipes/r.yaml").read_text(encoding="utf-8")
    assert f"base_model: {base}\n" in text
    assert f"path: {sae}\n" in text


def test_the_lens_reads_through_the_final_norm(planted: Planted) -> None:
    model = AutoModelForCausalLM.from_pretrained(planted.base, dtype=torch.float32)
    with torch.no_grad():
        weight = model.model.norm.weight
        weight.mul_(torch.linspace(0.2, 3.0, len(weight)))
        # The direction whose read-out is the 42nd token's embedding.
        direction = model.lm_head.weight[42] / weight
    scores = token_scores(model, direction)
    assert int(scores.argmax()) == 42
    assert abs(float(scores.mean())) < 1e-4
    # The same as the logits of a stream that is far along it.
    with torch.inference_mode():
        logits = model.lm_head(model.model.norm(1e3 * direction))
    assert torch.corrcoef(torch.stack([scores, logits]))[0, 1] > 0.9999


@pytest.mark.parametrize(("wish", "kind"), [("more", "clamp"), ("less", "ablate")])
def test_the_recipe_passes_check(
    planted: Planted, command: Command, tmp_path: Path, wish: str, kind: str
) -> None:
    (tmp_path / "a.txt").write_text("\n".join(WITH), encoding="utf-8")
    (tmp_path / "b.txt").write_text("\n".join(WITHOUT), encoding="utf-8")
    arguments = ["--model", planted.base, "--sae", planted.sae, "--positive", "a.txt"]
    arguments += ["--negative", "b.txt", "--recipe", "r.yaml", "--wish", wish]
    outcome = command("find", *arguments)
    assert outcome.code == 0, outcome.err
    assert "hubsplice try r.yaml" in outcome.err
    recipe = hubsplice.load_recipe(tmp_path / "r.yaml")
    (edit,) = recipe.splices[0].edits
    assert (edit.kind, edit.feature_indices()) == (kind, (PLANTED,))
    assert command("check", "r.yaml").code == 0
    again = command("find", *arguments)
    assert (again.code, again.out) == (6, "")
    assert "--force overwrites it" in again.err


def test_json_and_text_that_would_move_the_cursor(
    planted: Planted, command: Command, tmp_path: Path
) -> None:
    (tmp_path / "t.txt").write_text("zz \x1b[2J\u202e zz z z " * 9, encoding="utf-8")
    common = ["--model", planted.base, "--sae", planted.sae, "--tokens", 512]
    common = list(map(str, common))
    shown = command("find", *common, "--text", "t.txt", "--json")
    assert shown.code == 0, shown.err
    found = json.loads(shown.out)
    assert found["features"][0]["feature"] == PLANTED
    for arguments in (["--text", "t.txt"], ["--text", "t.txt", "--show", str(PLANTED)]):
        outcome = command("find", *common, *arguments)
        assert outcome.code == 0, outcome.err
        assert "\x1b" not in outcome.out
        assert "\u202e" not in outcome.out


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "found none of them"),
        ({"text": ["a b"], "prompts": ["a"]}, "found --text and --prompts"),
        ({"positive": ["a b"] * 4}, "--negative: missing"),
        ({"positive": ["a b"] * 3, "negative": ["c d"] * 4}, "found 3 examples"),
        ({"text": []}, "--text: no examples"),
        ({"text": [""]}, "example 1 has 1 tokens"),
        ({"text": "missing.txt"}, r"^--text: there is no file or folder .*missing\.txt"),
        ({"text": ["a b"], "model": "./nowhere"}, "^--model: './nowhere': there is no such folder"),
        ({"text": ["a b"], "revision": "v1"}, "^--revision: 'v1' was given, and --model "),
        ({"text": ["a b"], "top": 0}, "--top: found 0"),
    ],
)
def test_what_can_not_be_searched(planted: Planted, options: dict[str, Any], message: str) -> None:
    given: dict[str, Any] = {"model": planted.base, "progress": False}
    with pytest.raises(hubsplice.RecipeError, match=message):
        hubsplice.find(planted.sae, **(given | options))


@pytest.mark.parametrize(
    ("sae", "message"),
    [
        ("nothing", "is no folder; expected a folder, Neuronpedia's MODEL/SAE"),
        ("gemma-2-2b/20-gemmascope-res-16kk", "Did you mean '20-gemmascope-res-16k'"),
        ("https://example.org/gemma-2-2b/20-gemmascope-res-16k", "expected an address of"),
        ("./nothing", "--sae: .*is not a folder"),
        ("gemma-scope-2b-pt-res/nothing", "nothing"),
    ],
)
def test_saes_that_are_not_there(planted: Planted, sae: str, message: str) -> None:
    with pytest.raises(hubsplice.RecipeError, match=message):
        hubsplice.find(sae, model=planted.base, text=["a b"], progress=False)


def test_a_model_that_the_sae_names_is_not_blamed_on_an_option_that_was_not_given(
    planted: Planted, tmp_path: Path
) -> None:
    sae = shutil.copytree(planted.sae, tmp_path / "sae")
    config = json.loads((sae / "cfg.json").read_text(encoding="utf-8"))
    config["metadata"]["model_name"] = "nobody/nothing"
    (sae / "cfg.json").write_text(json.dumps(config), encoding="utf-8")
    with pytest.raises(hubsplice.HubspliceError) as caught:
        hubsplice.find(sae, text=["a b"], progress=False)
    said = str(caught.value)
    assert said.startswith("--sae names the model: 'nobody/nothing'")
    assert said.endswith("; name a local copy, or another model, with --model")
    with pytest.raises(hubsplice.HubspliceError) as caught:
        hubsplice.find(sae, model="nobody/nothing", text=["a b"], progress=False)
    assert str(caught.value).startswith("--model: 'nobody/nothing'")
    assert "local copy" not in str(caught.value)


def test_a_feature_that_the_sae_lacks(planted: Planted) -> None:
    with pytest.raises(hubsplice.RecipeError, match="feature: 96 is out of range"):
        # It is said before the model is looked for.
        hubsplice.show(96, planted.sae, model="./nowhere", text=["a b"], progress=False)


def test_a_model_of_another_kind_is_blamed_on_the_option(planted: Planted, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"model_type": "bert"}', encoding="utf-8")
    with pytest.raises(hubsplice.HubspliceError, match=r"^--model: config\.json: model_type"):
        hubsplice.find(planted.sae, model=tmp_path, text=["a b"], progress=False)
