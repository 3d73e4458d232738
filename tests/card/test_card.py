"""What a card says, and that what it says to type works."""

from __future__ import annotations

import ast
import contextlib
import io
import json
import re
import shlex
from pathlib import Path
from typing import Any

import pytest
from huggingface_hub import ModelCard, ModelCardData
from markdown_it import MarkdownIt

from hubsplice.card import render_card, write_card
from hubsplice.card.escape import Markdown
from hubsplice.card.render import card_data
from hubsplice.card.words import AuthorWords
from hubsplice.checkpoint.manifest import Manifest
from hubsplice.errors import CheckpointError, OutputError
from hubsplice.fidelity.answers import Answers
from hubsplice.fidelity.report import FidelityReport
from tests.card.examples import COMMIT, SHA, built_folder, manifest, metadata, report, site, term
from tests.conftest import MakeCheckpoint

BASE = manifest().base.model_dump(mode="json")
GREW = {"num_hidden_layers": {"before": 3, "after": 5}}
PARSER = MarkdownIt("commonmark", {"html": True}).enable("table")


def rendered(**fields: Any) -> str:
    arguments: dict[str, Any] = {"manifest": manifest(), "report": report(), "model_id": "me/model"}
    arguments |= fields
    said = {k: arguments.pop(k) for k in ("title", "description") if k in arguments}
    arguments.setdefault("author", AuthorWords(**said))
    return render_card(arguments.pop("manifest"), arguments.pop("report"), **arguments)


def lines(text: str) -> list[str]:
    return [line for line in ModelCard(text).text.splitlines() if line]


def row(text: str, *cells: str) -> bool:
    """Whether some table of the card has this row."""
    return any(
        [cell.strip() for cell in line.strip("|").split(" | ")] == list(cells)
        for line in text.splitlines()
        if line.startswith("|")
    )


def fences(text: str, language: str) -> list[str]:
    tokens = PARSER.parse(ModelCard(text).text)
    return [token.content for token in tokens if token.type == "fence" and token.info == language]


def test_metadata() -> None:
    text = rendered(license_id="apache-2.0")
    assert isinstance(ModelCard(text).data, ModelCardData)
    assert metadata(text) == {
        "base_model": "owner/Some-Model_1B",
        "base_model_relation": "finetune",
        "library_name": "transformers",
        "license": "apache-2.0",
        "pipeline_tag": "text-generation",
        "tags": ["hubsplice", "sparse-autoencoder", "steering", "interpretability"],
    }


def test_metadata_of_a_local_base_of_unknown_licence() -> None:
    text = rendered(
        manifest=manifest(
            base={"name": "my-folder", "files": {"model.safetensors": {"size": 9, "sha256": SHA}}},
            files={},
        )
    )
    data = metadata(text)
    assert not {"base_model", "base_model_relation", "license"} & set(data)
    assert "- Base: `my-folder`, a local folder." in text
    assert f"the SHA-256 of its `model.safetensors` is `{SHA}`." in text
    assert "- Licence of the base: not found" in text


def test_a_licence_of_its_own_is_linked() -> None:
    data = metadata(rendered(license_id="other"))
    assert data["license_link"] == "LICENSE"
    assert data["license_name"]


def test_the_licence_is_the_bases() -> None:
    terms = {
        "license": "other",
        "license_name": "bridge-license",
        "license_link": "LICENSE.md",
        "gated": True,
    }
    text = rendered(manifest=manifest(base=BASE | {"terms": terms}, files={}))
    data = metadata(text)
    assert data["license"] == "other"
    assert data["license_name"] == "bridge-license"
    assert data["license_link"] == "https://huggingface.co/owner/Some-Model_1B/blob/main/LICENSE.md"
    assert "- Licence of the base: `bridge-license`." in text
    assert "The base is gated" in text


def test_another_licence_is_shown_beside_the_bases() -> None:
    text = rendered(
        manifest=manifest(base=BASE | {"terms": {"license": "mit"}}), license_id="gpl-3"
    )
    assert metadata(text)["license"] == "gpl-3"
    assert "- Licence of the base: `mit`." in text
    assert "as declared by its publisher: `gpl-3`." in text
    assert "The base is gated" not in text


def test_what_the_model_does_comes_first() -> None:
    heading, said, made, base = lines(rendered(title="A title", description="A description."))[:4]
    assert heading == "# A title"
    assert said == "**A description.**"
    assert made == (
        "Some-Model\\_1B with “regular expressions” taken out, feature 40 multiplied by 4 and a "
        "vector edited."
    )
    assert base.startswith("- **Base**: [owner/Some-Model_1B]")
    assert f"> {report().verdict}" in rendered()
    assert "Warning" not in rendered()


def test_a_miss_is_said_in_bold_at_the_top() -> None:
    text = rendered(report=report(passed=False, verdict="Ratio 1.31, at most 1.05 asked"))
    warning = (
        "> **Warning: the measured fidelity is worse than the recipe asked for. It asked for a "
        "ratio of splice error to noise floor of at most 1.05.**"
    )
    assert text.index(warning) < text.index("## Run it")
    assert "> Ratio 1.31, at most 1.05 asked" in text


@pytest.mark.parametrize(
    ("outcome", "words"),
    [
        ("shown", "in bfloat16, the weights do what an exact hook on the base does"),
        ("fails", "at least one edit is NOT made as an exact hook makes it"),
        ("not shown", "not enough to show"),
    ],
)
def test_the_verdict_in_a_users_words(outcome: str, words: str) -> None:
    measured = report(outcome=outcome)
    served = report().precisions[::-1]
    text = rendered(report=measured.model_copy(update={"precisions": served}))
    assert any(line.startswith("- **Fidelity**") and words in line for line in lines(text))


def test_no_sentence_stands_twice() -> None:
    text = rendered(report=report(outcome="shown"))
    sentences = [
        s for s in re.split(r"(?<=[.:])\s", ModelCard(text).text) if len(s) > 60 and "](" not in s
    ]
    twice = {s for s in sentences if sentences.count(s) > 1}
    assert twice == set()


def test_a_card_without_measurement_states_none() -> None:
    """Every sentence that compares with a figure of this model is of a measured card alone."""
    measured, bare = rendered(), rendered(report=None)
    for sentence in ("may be worse than measured", "Measure the fidelity again"):
        assert sentence in measured
        assert sentence not in bare
    assert "edit as a hook, and was not measured. It does not say" in bare
    assert "nothing here says how close the weights come to the edit" in bare
    # What is said of quantising was measured on another model.
    (about,) = (line for line in lines(bare) if "the splice was then as close" in line)
    assert about.startswith("If you quantise this model")


def test_a_card_speaks_of_saes_and_sinks_where_there_are_some() -> None:
    text = rendered()
    assert "in the units of the SAE" not in text or "sparse-autoencoder" in metadata(text)["tags"]
    assert "Attention sinks, tokens whose residual norm is many times" in text
    steered = term(
        feature=None, kind="steer", edit={"kind": "steer"}, source={}, source_sha256=None
    )
    layer = {"site": 1, "construction": "prenorm-bias", "constants": {}, "terms": [steered]}
    places = [{"base": 0}, {"base": 1}, {"splice": 0}, {"base": 2}]
    without = manifest(layers=[layer], layer_map=places, calibration=None)
    text = rendered(manifest=without, report=None)
    assert metadata(text)["tags"] == ["hubsplice", "steering", "interpretability"]
    assert "Attention sinks" not in text
    assert "SHA-256 of its weights" not in text


def test_what_was_not_measured_is_said() -> None:
    text = rendered(report=None)
    assert "- **Fidelity**: not measured;" in text
    assert "## Fidelity\n\nNot measured." in text
    assert "noise floor" not in text


@pytest.mark.parametrize("title", [None, "", " \n\u200b"])
def test_a_title_is_not_needed(title: str | None) -> None:
    text = rendered(title=title, description=title)
    assert lines(text)[0] == r"# Some-Model\_1B, spliced"
    assert lines(text)[1].startswith(r"**Some-Model\_1B with “regular")


def answered(**fields: Any) -> FidelityReport:
    said = {
        "prompt": "Who are you?",
        "form": "chat",
        "greedy": {"base": "A bot.\n\n- one | two", "edited": "A <b>star</b>."},
        "hook": None,
        "sampled": {"base": "Some bot.", "edited": "Some star."},
    } | fields
    other = said | {"prompt": "And then?", "sampled": None, "hook": None}
    content = {
        "chosen": "by effect",
        "candidates": 16,
        "dtype": "bfloat16",
        "device": "cpu",
        "new_tokens": 40,
        "temperature": 0.7,
        "top_p": 0.95,
        "seed": 0,
        "prompts": [said, other],
    }
    return report().model_copy(update={"answers": Answers.model_validate(content)})


def test_before_and_after_stand_before_everything_else() -> None:
    text = rendered(report=answered())
    assert text.index("## Before and after") < text.index("## Run it")
    assert row(text, "Who are you?", r"A bot.<br>\- one \| two", "A &lt;b&gt;star&lt;/b&gt;.")
    assert "Of 16 prompts, these are the ones" in text
    assert "says the same to 2 of 2." in text
    assert row(text, "Who are you?", "Some bot.", "Some star.")
    assert "where the exact hook says" not in text
    assert "## Before and after" not in rendered()


def test_where_hook_and_splice_part_both_are_shown() -> None:
    text = rendered(report=answered(hook="A sun."))
    assert row(text, "Who are you?", "A sun.", "A &lt;b&gt;star&lt;/b&gt;.")
    assert "says the same to 1 of 2; one word that rounding tips" in text


def test_answers_that_did_not_change_are_no_advertisement() -> None:
    same = {"base": "A bot.", "edited": "A bot."}
    assert "**None of these answers changed.**" in rendered(report=answered(greedy=same))
    assert "None of these" not in rendered(report=answered())


def test_a_chat_model_is_asked_through_its_template() -> None:
    chat, plain = fences(rendered(report=answered()), "python"), fences(rendered(), "python")
    assert "apply_chat_template" in chat[0]
    assert "chat.completions" in chat[1]
    assert "apply_chat_template" not in plain[0]
    assert "client.completions" in plain[1]
    for program in (*chat, *plain):
        ast.parse(program)
    command = fences(rendered(report=answered(), model_id="me/it's"), "bash")[1]
    body = json.loads(shlex.split(command)[-1])
    assert body["model"] == "me/it's"
    assert body["messages"] == [{"role": "user", "content": "Who are you?"}]


def test_card_json_says_what_the_card_says() -> None:
    data = json.loads(card_data(manifest(), answered(), model_id="me/model"))
    assert data["title"] == "Some-Model_1B, spliced"
    assert data["answers"]["greedy"]["rows"][0][0] == "Who are you?"
    assert data["faithful"] in rendered(report=answered())


def test_the_authors_words_stand_as_they_are() -> None:
    author = AuthorWords(
        before=Markdown("Hello *you*.\n\n![a plot](card/plot.png)"), after=Markdown("Bye.")
    )
    text = rendered(author=author)
    assert author.before in text
    assert text.index("Hello *you*") < text.index("## Run it")
    assert text.index("\nBye.\n") > text.index("## Verify and reproduce")


def test_the_recipe_is_shown_whatever_it_holds() -> None:
    text = rendered(author=AuthorWords(recipe="a: b\n````\n</details>\n"))
    assert "`````yaml\na: b\n````\n</details>\n`````" in text
    assert "The recipe" not in rendered()


def test_what_was_inserted_where() -> None:
    text = rendered()
    assert row(text, "2", "1", "prenorm-bias", "1,234", "2")
    assert row(text, "4", "2", "prenorm-bias", "–", "1")
    assert "2 inserted decoder layers; 3 layers became 5" in text
    assert "stock `LlamaForCausalLM` (the base's, `MistralForCausalLM`, re-expressed)" in text
    assert row(text, "0–1", "base layer 0–1")
    assert row(text, "2", "inserted layer 0")
    assert row(text, "3", "base layer 2")
    assert row(text, "4", "inserted layer 1")


def test_one_inserted_layer_at_the_start() -> None:
    layers = manifest().layers[:1]
    layer_map = [{"base": 0}, {"splice": 0}, *({"base": i} for i in range(1, 30))]
    text = rendered(
        manifest=manifest(
            layers=[layer.model_dump() for layer in layers],
            layer_map=layer_map,
            architectures={"before": "LlamaForCausalLM", "after": "LlamaForCausalLM"},
        )
    )
    assert "1 inserted decoder layer; 30 layers became 31" in text
    assert "re-expressed" not in text
    assert row(text, "2–30", "base layer 1–29")


def test_an_edit_inside_a_layer() -> None:
    base, splice = [{"base": i} for i in range(2)], [{"splice": i} for i in range(2)]
    common: dict[str, Any] = {"site": 1, "block": "attention", "constants": {}}
    split = common | {"construction": "split", "terms": []}
    edit = common | {"construction": "layernorm-bias", "terms": [term()]}
    torn = [{"attention": base[1], "mlp": splice[0]}, {"attention": splice[0], "mlp": base[1]}]
    one = rendered(manifest=manifest(layers=[edit], layer_map=[base[0], *torn]))
    assert row(one, "0", "base layer 0")
    assert row(one, "1", "attention of base layer 1, MLP of inserted layer 0")
    assert row(one, "2", "attention of inserted layer 0, MLP of base layer 1")
    assert row(one, "1", "1's attention", "layernorm-bias", "–", "1")
    assert "the edit lies inside that layer" in one
    assert "makes room" not in one
    two = rendered(
        manifest=manifest(layers=[split, edit], layer_map=[base[0], torn[0], splice[1], torn[1]])
    )
    assert row(two, "1", "1's attention", "split", "–", "0")
    assert row(two, "2", "inserted layer 1")
    assert "makes room" in two
    assert "inside that layer" not in rendered()


def test_edits() -> None:
    text = rendered()
    label = "ablate feature 12 (regular expressions)"
    assert row(text, label, "1", "f = 0", "12", "`h − f·d`", "–")
    scaled = ("f × 4", "40", "`h + (factor − 1)·f·d`", "factor = 4")
    assert row(text, "scale feature 40", "1", *scaled)
    # A path of the machine that built it is no one else's business.
    steer = ("–", r"h + \|strength\|·d", "vector.path = vector.st")
    assert row(text, "steer vector", "2", r"h + \|strength\|·d", *steer)
    assert "/home" not in text


def test_an_edit_under_a_condition() -> None:
    when = {"all": [{"feature": 5, "above": 4.5, "label": "soup"}, {"feature": 7, "above": 0.0}]}
    clamp = term(
        label="clamp feature 12",
        kind="clamp",
        formula="always: h + (to − f)·d; when active: h + 1[f active]·(to − f)·d",
        edit={"kind": "clamp", "feature": 12, "to": 8.0, "when": when},
        amounts=[{"stated": "8", "value": 8.0}],
    )
    layer = {"site": 0, "construction": "x", "constants": {}, "terms": [clamp]}
    text = rendered(manifest=manifest(layers=[layer], layer_map=[{"base": 0}, {"splice": 0}]))
    where = "feature 5 (“soup”) is above 4.5 and feature 7 is active"
    assert f"f = 8, only where {where}" in text
    assert "`h + (to − f)·d` where the condition holds, h elsewhere" in text
    assert "always:" not in text


def test_many_edits_are_folded_away() -> None:
    terms = [term(label=f"ablate feature {i}", feature=i) for i in range(100)]
    layer = {"site": 0, "construction": "x", "constants": {}, "terms": terms}
    many = manifest(layers=[layer], layer_map=[{"base": 0}, {"splice": 0}])
    assert "<summary>All 100 edits</summary>" in rendered(manifest=many)
    assert "<summary>All" not in rendered()


AMOUNT = {
    "stated": "0.5 x max",
    "value": 8.8,
    "share": 0.0599,
    "activity": {
        "maximum": 17.6,
        "mean": 5.0,
        "active_tokens": 214,
        "scanned_tokens": 2_100_000,
    },
}
COMES_TO = (
    "0.5 x max = 8.8 (max 17.6, over 214 active of 2,100,000 scanned tokens), 0.0599 of the median "
    "residual norm"
)


@pytest.mark.parametrize("edits", [2, 40])
def test_what_strengths_come_to(edits: int) -> None:
    terms = [term(label=f"clamp feature {i} (*a label*)", amounts=[AMOUNT]) for i in range(edits)]
    layer = {"site": 1, "construction": "prenorm-bias", "constants": {}, "terms": terms}
    text = rendered(manifest=manifest(layers=[layer], layer_map=[{"base": 0}, {"splice": 0}]))
    for i in range(edits):
        assert f"- clamp feature {i} (\\*a label\\*): {COMES_TO}" in text
    folded = "<summary>What the strengths come to</summary>" in text
    assert folded is (edits == 40)
    assert "strengths" not in rendered()


def test_warnings_of_calibration() -> None:
    calibration = manifest().calibration
    assert calibration is not None
    doubt = calibration.model_copy(update={"warnings": ("splices[0].edits[0]: a <b>doubt</b>",)})
    text = rendered(manifest=manifest().model_copy(update={"calibration": doubt}))
    assert "may not be what was meant" in text
    assert "<b>" not in text
    assert "may not be what was meant" not in rendered()


def test_an_empty_splice() -> None:
    layer: dict[str, Any] = {"site": 0, "construction": "x", "constants": {}, "terms": []}
    empty = manifest(layers=[layer], layer_map=[{"base": 0}, {"splice": 0}])
    assert "There are no edits: the inserted layers change nothing." in rendered(manifest=empty)


def test_fidelity() -> None:
    text = rendered()
    assert row(text, "float32", "–", "–", "169,000", "99.9%", "100%")
    assert row(text, "bfloat16", "1.02 (0.95–1.10)", "1.01 (0.99–1.03)", "71.2", "98.5%", "98.5%")
    assert row(text, "edit effect", "0.123", "0.111", "0.0617", "1.23", "123")
    assert row(text, "noise floor, bfloat16", "0.00170", "0.00153", "8.50e-4", "0.0170", "1.70")
    assert row(text, "splice error, float32", "7.30e-7", "6.57e-7", "3.65e-7", "7.30e-6", "7.30e-4")
    assert "noise floor, float32" not in text
    assert "continues 9 of 16 prompts exactly" in text
    assert "- TopK of feature 12 is a threshold: gate F1 0.97" in text
    assert "20,480 tokens in 80 sequences of 256, seed 3, on `cpu`" in text
    assert row(
        text,
        *("1", "bfloat16", "4,321", "0.0301", "0.0220", "0.0110", "0.220", "22.0"),
    )
    assert row(text, "1", "bfloat16", "17", "1.20e-5")
    assert row(text, "scale feature 40", "1", "bfloat16", "0", "–", "–")


def test_what_was_not_measured_leaves_no_empty_table() -> None:
    bare = report(greedy=None, plain_hook=None, approximations=[])
    precisions = [p.model_copy(update={"sites": ()}) for p in bare.precisions]
    text = rendered(report=bare.model_copy(update={"precisions": tuple(precisions)}))
    assert "Greedy match:" not in text
    assert "What is not exact" not in text
    assert "<summary>Each" not in text
    assert "hook that edits sinks, over 1,016 tokens" in rendered()
    assert "hook that edits sinks, over" not in text


def test_every_block_of_html_is_closed() -> None:
    text = rendered()
    tokens = [token for token in PARSER.parse(ModelCard(text).text) if token.type == "html_block"]
    contents = [token.content.strip() for token in tokens]
    assert contents[1::2] == ["</details>"] * (len(contents) // 2)
    assert all(opening.startswith("<details>\n<summary>") for opening in contents[::2])


def test_servers_that_would_serve_something_else_are_named() -> None:
    text = rendered()
    assert "- `attention_bias`: biases of the attention's linear layers." in text
    assert "- `mlp_bias`: biases of the MLP's linear layers." in text
    ignored = "mlp.down\\_proj.bias, mlp.gate\\_proj.bias and mlp.up\\_proj.bias"
    read = "read in its source"
    reason = f"it ignores {ignored} of LlamaForCausalLM"
    assert row(text, "SGLang", "0.5.23", "**no**", reason, read)
    assert row(text, "vLLM", "0.32.0", "yes", "–", "spliced models were run through it")


def test_quantised_serving() -> None:
    text = rendered()
    (options,) = re.findall(r"^--quantization .*$", text, re.MULTILINE)
    words = shlex.split(options)
    assert json.loads(words[words.index("--quantization-config") + 1]) == {
        "ignore": ["model.layers.2.*", "model.layers.4.*"]
    }
    assert "| fp8, per tensor " in text
    # vLLM quantises no float32, and nothing is known of what it does with this class.
    assert "--quantization" not in rendered(manifest=manifest(dtype="float32"))
    other = manifest(architectures={"before": "OlmoForCausalLM", "after": "OlmoForCausalLM"})
    assert "--quantization" not in rendered(manifest=other)


def test_biases_that_the_base_had_already_are_named_too() -> None:
    text = rendered(manifest=manifest(config_changes=GREW))
    assert "- `mlp_bias`: biases of the MLP's linear layers." in text
    assert "**no**" in text


def test_a_target_without_biases() -> None:
    classes = {"before": "OlmoForCausalLM", "after": "OlmoForCausalLM"}
    text = rendered(manifest=manifest(architectures=classes, config_changes=GREW))
    assert "switches on no bias" in text
    # Nobody has looked at what becomes of this class, and the card says so.
    assert text.count("| not known ") == 5
    assert not re.search(r"\| (yes|\*\*no)", text)


@pytest.mark.parametrize(
    ("sides", "shown"),
    [
        (("music.txt", "plain.txt"), "contrast of music.txt and plain.txt"),
        ((["a", "b"], ["c"]), "contrast of 2 examples and 1 examples"),
    ],
)
def test_the_source_of_a_learned_direction_is_its_examples(sides: Any, shown: str) -> None:
    contrast = dict(zip(("positive", "negative"), sides, strict=True))
    learned = term(source={}, source_sha256=None, edit={"kind": "steer", "contrast": contrast})
    layer = {"site": 1, "construction": "prenorm", "constants": {}, "terms": [learned]}
    text = rendered(manifest=manifest(layers=[layer, layer]))
    assert row(text, shown, "–")


def test_provenance() -> None:
    text = rendered()
    link = f"https://huggingface.co/owner/Some-Model_1B/tree/{COMMIT}"
    assert f"at [`{COMMIT}`]({link})." in text
    assert row(text, r"id = layer\_1, release = some-release", f"`{SHA}`")
    assert row(text, "norm of a sink after layer 1", "above 736")
    assert row(text, "norm of a sink after layer 2", "none is left alone")
    assert row(text, "`mlp_bias`", "`false`", "`true`")
    assert row(text, "`attention_bias`", "–", "`true`")
    assert row(text, "`sliding_window`", "`null`", "–")
    assert row(text, "`model.safetensors`", "270,000,000", f"`{SHA}`")
    assert "- Versions: hubsplice 0.1.0, python 3.11.2, torch 2.13.0." in text
    assert fences(text, "bash")[-1] == "hubsplice reproduce me/model\n"


def test_a_base_that_was_spliced_before() -> None:
    earlier = {"name": "other/origin", "repo_id": "other/origin", "commit": COMMIT, "files": {}}
    previous = {"manifest_sha256": SHA, "base": earlier}
    text = rendered(manifest=manifest(base={"name": "x", "files": {}, "previous": previous}))
    assert "made from [other/origin](https://huggingface.co/other/origin)" in text


def test_no_recipe_is_promised_where_none_is() -> None:
    text = rendered(manifest=manifest(files={"config.json": {"sha256": SHA, "size": 3}}))
    assert "reproduce/" not in text


def test_a_card_does_not_list_itself() -> None:
    files = {"README.md": {"sha256": SHA, "size": 3}, "config.json": {"sha256": SHA, "size": 3}}
    assert "README" not in rendered(manifest=manifest(files=files))


def test_the_same_whatever_the_order_of_keys() -> None:
    def turned(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: turned(item) for key, item in reversed(value.items())}
        if isinstance(value, list):
            return [turned(item) for item in value]
        return value

    other = Manifest.model_validate(turned(manifest().model_dump(mode="json")))
    assert rendered() == rendered(manifest=other, report=report())


def test_commands_name_the_model_and_its_precision() -> None:
    text = rendered(model_id="me/my model", manifest=manifest(dtype="float32"))
    command = fences(text, "bash")[0]
    assert shlex.split(command) == ["vllm", "serve", "me/my model", "--dtype", "float32"]
    assert '    model="me/my model"' in fences(text, "python")[1]


@pytest.mark.parametrize(("model_id", "folder"), [("my-model", "my-model"), ("me/m", "spliced")])
def test_only_a_repository_is_downloaded(model_id: str, folder: str) -> None:
    blocks = fences(rendered(model_id=model_id), "bash")
    (commands,) = (block for block in blocks if "convert_hf" in block)
    assert ("hf download" in commands) is ("/" in model_id)
    assert f"python convert_hf_to_gguf.py {folder} --outtype" in commands


def test_the_transformers_example_runs(tiny_llama: MakeCheckpoint) -> None:
    folder = tiny_llama(dtype="bfloat16")
    program = fences(rendered(model_id=str(folder)), "python")[0]
    output = io.StringIO()
    with contextlib.redirect_stdout(output):
        exec(compile(program, "card", "exec"), {})
    assert "Once upon a time" in output.getvalue()


RECIPE = """
base_model: owner/model
title: A title
description: "Some *words*"
splices: [{after_layer: 0}]
"""


@pytest.fixture
def built(tmp_path: Path) -> Path:
    folder = built_folder(tmp_path / "my-model")
    (folder / "reproduce/recipe.yaml").write_text(RECIPE)
    return folder


def test_write_card(built: Path) -> None:
    (built / "README.md").write_text("an earlier card")
    path = write_card(built, license_id="mit")
    assert path == built / "README.md"
    text = path.read_text(encoding="utf-8")
    author = AuthorWords(title="A title", description="Some *words*", recipe=RECIPE)
    assert text == rendered(author=author, model_id="my-model", license_id="mit")
    names = {file.name for file in built.iterdir()}
    assert names == {"README.md", "card.json", "fidelity.json", "reproduce", "splice.json"}


def test_write_card_without_a_report_or_a_recipe(built: Path) -> None:
    (built / "fidelity.json").unlink()
    (built / "reproduce/recipe.yaml").unlink()
    text = write_card(built, model_id="me/model").read_text(encoding="utf-8")
    assert text == rendered(report=None)


def test_a_folder_that_is_no_spliced_model(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="the manifest is missing"):
        write_card(tmp_path)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "not valid JSON"),
        (json.dumps({"verdict": "fine"}), "not a valid fidelity report"),
        ('{"verdict": NaN}', "NaN"),
    ],
)
def test_a_malformed_report(built: Path, content: str, message: str) -> None:
    (built / "fidelity.json").write_text(content)
    with pytest.raises(CheckpointError, match=message):
        write_card(built)
    assert not (built / "README.md").exists()


def test_a_malformed_recipe(built: Path) -> None:
    (built / "reproduce/recipe.yaml").write_text("splices: []")
    with pytest.raises(CheckpointError, match=r"reproduce/recipe\.yaml: base_model: missing"):
        write_card(built)


def test_a_card_that_cannot_be_written(built: Path) -> None:
    (built / "README.md").mkdir()
    with pytest.raises(OutputError, match="cannot be written"):
        write_card(built)
    assert not list(built.glob(".*"))


def test_site_numbers_come_from_the_report() -> None:
    changed = report()
    precision = changed.precisions[1].model_copy(update={"sites": ()})
    assert site()["overall_residual_error"] == 1.9e-2
    text = rendered(report=changed.model_copy(update={"precisions": (precision,)}))
    assert "0.0190" not in text
