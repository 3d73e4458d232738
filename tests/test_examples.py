"""The examples do what they say: the recipe, the SAE that ships with it, and the scripts."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from rich.console import Console
from safetensors.torch import load_file
from torch import Tensor

from examples.demo import RECIPE, agreement, remove_previous_output, render_answer
from examples.from_a_wish import Step, section
from examples.slice_sae import slice_sae
from examples.train_sae import main as train_sae
from hubsplice.checkpoint.companions import MANIFEST
from hubsplice.compiling.check import check
from hubsplice.edits.steer import Steer
from hubsplice.errors import OutputError
from hubsplice.features.hook_point import parse_hook_name
from hubsplice.features.references import SaeSource
from hubsplice.features.sae import load_sae
from hubsplice.features.sae_config import find_sae
from hubsplice.fidelity.answers import Answer, Said
from hubsplice.intervention.place import Place
from hubsplice.recipe.reading import load_recipe
from tests.conftest import MakeCheckpoint

SAE_FOLDER = RECIPE.parent / "sae-smollm2-135m-l13"


def _readme_rows() -> list[list[str]]:
    lines = (SAE_FOLDER / "README.md").read_text(encoding="utf-8").splitlines()
    return [
        [cell.strip() for cell in line.strip("|").split("|")]
        for line in lines
        if re.match(r"\| \d", line)
    ]


@pytest.mark.usefixtures("smollm2")
def test_the_recipe_would_build_without_a_warning() -> None:
    report = check(load_recipe(RECIPE))
    assert report.warnings == ()
    (splice,) = report.splices
    assert splice.place == Place(13)
    assert dict(splice.edits) == {"clamp": 1, "scale": 2}


def test_the_sae_has_the_features_that_its_readme_lists() -> None:
    rows = _readme_rows()
    sae = load_sae(SaeSource(path=SAE_FOLDER))
    assert sae.warnings == ()
    assert [int(row[0]) for row in rows] == list(range(sae.config.d_sae))
    metadata = json.loads((SAE_FOLDER / "cfg.json").read_text(encoding="utf-8"))["metadata"]
    assert [int(row[1]) for row in rows] == metadata["feature_indices"]


def test_labels_of_the_recipe_are_the_descriptions_of_the_readme() -> None:
    (splice,) = load_recipe(RECIPE).splices
    rows = _readme_rows()
    for edit in splice.edits:
        (feature,) = edit.feature_indices()
        assert edit.label is not None
        assert rows[feature][2].startswith(edit.label)


def test_every_feature_is_strongest_on_its_sentence(smollm2: Path) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    model = AutoModelForCausalLM.from_pretrained(smollm2)
    tokenizer = AutoTokenizer.from_pretrained(smollm2)
    sae = load_sae(SaeSource(path=SAE_FOLDER)).module
    strongest = []
    for row in _readme_rows():
        with torch.no_grad():
            states = model(**tokenizer(row[-1], return_tensors="pt"), output_hidden_states=True)
            # The states begin with the embeddings; the first token of a text is a sink.
            features: Tensor = sae.encode(states.hidden_states[14][0, 1:].float())
        strongest.append(features.amax(dim=0))
    by_sentence = torch.stack(strongest)
    assert by_sentence.argmax(dim=0).tolist() == list(range(len(strongest)))
    assert by_sentence.diagonal().min() > 1


@pytest.fixture(params=["standard", "jumprelu", "gated"])
def random_sae(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """A folder with a random SAE of 40 features, some of which are active on random input."""
    return _save_random_sae(request.param, tmp_path / "whole")


def _save_random_sae(architecture: str, folder: Path, **fields: Any) -> Path:
    from sae_lens import SAE

    sae = SAE.from_dict({"architecture": architecture, "d_in": 12, "d_sae": 40, **fields})
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for parameter in sae.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator) / 3)
    sae.cfg.metadata.hook_name = "blocks.3.hook_resid_post"
    sae.cfg.metadata.l0 = 7.5
    sae.save_model(folder)
    return folder


def test_a_slice_computes_what_the_whole_computes(random_sae: Path, tmp_path: Path) -> None:
    chosen = [31, 2, 17, 8]
    slice_sae(random_sae, tmp_path / "slice", chosen)
    whole = load_sae(SaeSource(path=random_sae)).module
    part = load_sae(SaeSource(path=tmp_path / "slice")).module
    h = torch.randn(200, 12, generator=torch.Generator().manual_seed(4))
    expected = whole.encode(h)[:, chosen]
    assert ((expected > 0).any(dim=0) & (expected == 0).any(dim=0)).all()
    torch.testing.assert_close(part.encode(h), expected, rtol=1e-5, atol=1e-6)
    # A feature alone writes the same, too.
    alone, together = torch.zeros(1, 4), torch.zeros(1, 40)
    alone[0, 2], together[0, chosen[2]] = 1.5, 1.5
    torch.testing.assert_close(part.decode(alone), whole.decode(together), rtol=1e-6, atol=1e-6)


def test_a_slice_holds_the_very_numbers_of_the_whole(tmp_path: Path) -> None:
    source = _save_random_sae("standard", tmp_path / "whole")
    slice_sae(source, tmp_path / "slice", [5, 1])
    name = "sae_weights.safetensors"
    whole, part = load_file(source / name), load_file(tmp_path / "slice" / name)
    assert torch.equal(part["W_enc"], whole["W_enc"][:, [5, 1]])
    assert torch.equal(part["W_dec"], whole["W_dec"][[5, 1]])
    assert torch.equal(part["b_enc"], whole["b_enc"][[5, 1]])
    assert torch.equal(part["b_dec"], whole["b_dec"])


def test_a_slice_remembers_where_it_is_from(random_sae: Path, tmp_path: Path) -> None:
    slice_sae(random_sae, tmp_path / "slice", [31, 2])
    config = find_sae(SaeSource(path=tmp_path / "slice")).config
    assert config.d_sae == 2
    assert config.hook is not None
    assert config.hook.place == Place(3)
    metadata = json.loads((tmp_path / "slice" / "cfg.json").read_text(encoding="utf-8"))["metadata"]
    assert metadata["feature_indices"] == [31, 2]
    assert metadata["sliced_from"] == {"d_sae": 40, "l0": 7.5}
    assert "l0" not in metadata


@pytest.mark.parametrize(
    ("features", "message"),
    [
        ([], "found none"),
        ([3, 3], "found one twice"),
        ([3, 40], "found 40, expected 0 to 39"),
        ([-1], "found -1"),
    ],
)
def test_features_that_cannot_be_sliced(features: list[int], message: str, tmp_path: Path) -> None:
    source = _save_random_sae("standard", tmp_path / "whole")
    with pytest.raises(ValueError, match=message):
        slice_sae(source, tmp_path / "slice", features)
    assert not (tmp_path / "slice").exists()


def test_features_that_compete_are_not_sliced(tmp_path: Path) -> None:
    source = _save_random_sae("topk", tmp_path / "whole", k=4)
    with pytest.raises(ValueError, match="found 'topk'"):
        slice_sae(source, tmp_path / "slice", [1])


def test_a_trained_sae_can_be_spliced(
    tiny_llama: MakeCheckpoint, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "sae"
    arguments = {
        "--model": tiny_llama(),
        "--name": "somebody/a-model",
        "--layer": 2,
        "--output": output,
        "--tokens": 2048,
        "--features": 96,
        "--l1": 0.1,
        "--steps": 200,
        "--batch-tokens": 256,
    }
    train_sae([str(word) for pair in arguments.items() for word in pair])
    sae = load_sae(SaeSource(path=output))
    assert (sae.config.d_in, sae.config.d_sae) == (64, 96)
    assert sae.config.model_name == "somebody/a-model"
    assert sae.config.hook is not None
    assert sae.config.hook.place == Place(2)
    explained = re.search(r"([\d.]+) of the variance", capsys.readouterr().out)
    assert explained is not None
    assert float(explained[1]) > 0.5


def test_an_earlier_demo_is_removed(tmp_path: Path) -> None:
    folder = tmp_path / "demo-output"
    folder.mkdir()
    (folder / MANIFEST).write_text("{}")
    remove_previous_output(folder)
    assert not folder.exists()
    remove_previous_output(folder)


def test_a_folder_of_somebody_elses_is_not_removed(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("years of work")
    with pytest.raises(OutputError, match="not an earlier demo's"):
        remove_previous_output(tmp_path)
    assert (tmp_path / "thesis.txt").read_text() == "years of work"


def test_the_demo_says_whether_the_hook_says_the_same() -> None:
    said = Said(base="A bot.", edited="A star.")
    answer = Answer(prompt="Who?", form="chat", greedy=said)
    assert agreement(answer) == "The exact hook on the base says the same."
    other = answer.model_copy(update={"hook": "A\nsun."})
    assert agreement(other) == "The exact hook on the base says: A sun."
    console = Console(width=80, record=True)
    console.print(render_answer(other))
    printed = console.export_text()
    assert all(words in printed for words in ("Who?", "A bot.", "A star.", "A sun."))


def test_a_transcript_marks_what_it_leaves_out() -> None:
    step = Step("Build", "It takes a while.", "hubsplice build recipe.yaml", head=2)
    output = "\n".join(f"line {number}   " for number in range(10))
    told = section(step, output, 61.4)
    assert "\n## Build\n\nIt takes a while.\n" in told
    assert "$ hubsplice build recipe.yaml\nline 0\nline 1\n[… 8 lines left out]\n" in told
    assert told.endswith("\n61 s.\n")
    assert "left out" not in section(step, "line 0\nline 1", 1.0)


NO_REGEX = RECIPE.parent / "no-regex"


def test_the_small_recipes_of_the_task_without_regular_expressions() -> None:
    contrast = load_recipe(NO_REGEX / "smollm2-contrast.yaml").splices[0].edits[0]
    assert isinstance(contrast, Steer)
    assert contrast.contrast is not None
    assert isinstance(contrast.contrast.positive, Path)
    assert isinstance(contrast.contrast.negative, Path)
    used, avoided = (
        [json.loads(line)["text"] for line in path.read_text(encoding="utf-8").splitlines()]
        for path in (contrast.contrast.positive, contrast.contrast.negative)
    )
    # All of them are Python that runs; one set uses the module re, and the other doesn't.
    for texts, uses in ((used, True), (avoided, False)):
        assert len(texts) == 14
        for text in texts:
            compile(text, "example", "exec")
            assert ("import re\n" in text) == uses
    feature = load_recipe(NO_REGEX / "smollm2-feature.yaml").splices[0]
    assert feature.sae is not None
    assert feature.sae.path is not None
    config = find_sae(feature.sae).config
    assert (config.d_in, config.hook) == (576, parse_hook_name("blocks.13.hook_resid_post"))
    tasks = (NO_REGEX / "prompts.txt").read_text(encoding="utf-8").splitlines()
    request = " Do not use regular expressions or the module re."
    for name, added in (("imports", ""), ("imports-asked", request)):
        lines = (NO_REGEX / f"{name}.jsonl").read_text(encoding="utf-8").splitlines()
        assert [json.loads(line)["text"] for line in lines] == [
            f"{task}{added}\n\n```python\nimport" for task in tasks
        ]
