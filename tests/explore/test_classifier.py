"""A sequence classifier as a scorer: tiny ones that are made on the spot."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModel, AutoModelForSequenceClassification, BertConfig

import hubsplice
from hubsplice.explore.scorers.base import Scorable
from hubsplice.explore.scorers.classifier import Classifier
from hubsplice.interface.sweep import sweep as sweep_recipe
from tests.explore.conftest import Planted
from tests.tiny_tokenizer import byte_tokenizer

LABELS = {0: "calm", 1: "angry", 2: "other"}
Make = Callable[..., Path]


@pytest.fixture
def make(tmp_path: Path) -> Make:
    """A function that saves a random classifier and gives its folder."""

    def save(name: str = "c", seed: int = 0, **fields: Any) -> Path:
        sizes = {
            "vocab_size": 320,
            "hidden_size": 32,
            "num_hidden_layers": 1,
            "num_attention_heads": 2,
            "intermediate_size": 64,
            "max_position_embeddings": 64,
            "initializer_range": 0.5,
        }
        config = BertConfig(**({"id2label": LABELS} | sizes | fields))
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            model = AutoModelForSequenceClassification.from_config(config)
        model.save_pretrained(tmp_path / name)
        byte_tokenizer().save_pretrained(tmp_path / name)
        return tmp_path / name

    return save


def classifier(**fields: Any) -> Classifier:
    return Classifier.model_validate({"kind": "classifier"} | fields).ready()


def logits(folder: Path, *texts: str) -> torch.Tensor:
    given = byte_tokenizer()(*texts, return_tensors="pt", truncation=True, max_length=62)
    model = AutoModelForSequenceClassification.from_pretrained(folder)
    with torch.inference_mode():
        found: torch.Tensor = model(**given).logits[0]
    return found


def test_the_score_is_the_label_s_probability(make: Make) -> None:
    folder = make()
    expected = logits(folder, "what a day").softmax(dim=0)
    assert expected.max() - expected.min() > 0.05
    for number, label in LABELS.items():
        for named in (label, str(number)):
            score = classifier(model=f"{folder}:{named}").score(Scorable("hm", "what a day"))
            assert score == pytest.approx(float(expected[number]), abs=1e-5)


def test_it_may_read_the_prompt_too(make: Make) -> None:
    folder = make()
    both = classifier(model=str(folder), label="angry", reads="both")
    expected = logits(folder, "hm", "what a day").softmax(dim=0)[1]
    assert both.score(Scorable("hm", "what a day")) == pytest.approx(float(expected), abs=1e-5)
    assert both.score(Scorable("ah", "what a day")) != both.score(Scorable("hm", "what a day"))


def test_labels_that_go_together_count_by_themselves(make: Make) -> None:
    folder = make(problem_type="multi_label_classification")
    expected = 1 / (1 + math.exp(-float(logits(folder, "x y")[2])))
    score = classifier(model=f"{folder}:other").score(Scorable("", "x y"))
    assert score == pytest.approx(expected, abs=1e-5)


def test_long_answers_are_cut(make: Make) -> None:
    folder = make()
    score = classifier(model=f"{folder}:calm").score(Scorable("", "word " * 500))
    expected = logits(folder, "word " * 500).softmax(dim=0)[0]
    assert score == pytest.approx(float(expected), abs=1e-5)


def test_what_is_no_classifier_is_refused(make: Make, tmp_path: Path) -> None:
    folder = make()
    with pytest.raises(hubsplice.RecipeError, match=r"label: 'angy' is not known. Did you mean"):
        classifier(model=f"{folder}:angy")
    with pytest.raises(ValueError, match="the label is missing: expected MODEL:LABEL"):
        classifier(model=str(folder))
    with pytest.raises(hubsplice.RecipeError, match=r"^--score: classifier: model: .*nowhere"):
        classifier(model="./nowhere:angry")
    with pytest.raises(hubsplice.RecipeError, match=r"^--score: classifier: revision: 'v1' was"):
        classifier(model=f"{folder}:angry", revision="v1")
    # A model without a head would get one of random numbers.
    bare = tmp_path / "bare"
    AutoModel.from_pretrained(folder).save_pretrained(bare)
    byte_tokenizer().save_pretrained(bare)
    with pytest.raises(hubsplice.CheckpointError, match=r"bare is no classifier.*classifier\.weig"):
        classifier(model=f"{bare}:0").score(Scorable("", "a"))
    # Pickles are not read.
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    with pytest.raises(hubsplice.CheckpointError, match=r"pytorch_model\.bin"):
        classifier(model=f"{folder}:angry")


def test_code_of_a_repository_is_not_run(make: Make) -> None:
    folder = make()
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    code = {"model_type": "mine", "auto_map": {"AutoConfig": "mine.Config"}}
    (folder / "config.json").write_text(json.dumps(config | code), encoding="utf-8")
    ran = folder / "ran"
    (folder / "mine.py").write_text(f"open({str(ran)!r}, 'w')", encoding="utf-8")
    with pytest.raises(hubsplice.CheckpointError, match="--score: classifier"):
        classifier(model=f"{folder}:angry").score(Scorable("", "a"))
    assert not ran.exists()


def test_a_sweep_scores_each_answer_once_by_these_weights(
    make: Make, planted: Planted, tmp_path: Path
) -> None:
    folder = make()
    fields = {
        "base_model": str(planted.base),
        "splices": [
            {
                "sae": {"path": str(planted.sae)},
                "edits": [{"kind": "steer", "feature": 3, "strength": "1 x norm"}],
            }
        ],
        "calibration": {"tokens": 512, "sequence_length": 64},
    }

    def sweep() -> hubsplice.Sweep:
        return sweep_recipe(
            fields, ["a lazy zebra", "jazz"], [f"classifier={folder}:angry"], ["2"],
            answers=tmp_path / "a.jsonl", max_new_tokens=6, neutral_tokens=256, progress=False,
        )  # fmt: skip

    first = sweep()
    assert first.scorers == (f"classifier={folder}:angry",)
    text = (tmp_path / "a.jsonl").read_text(encoding="utf-8")
    lines = [json.loads(line) for line in text.splitlines()]
    texts = {line["text"] for line in lines if line["kind"] == "answer"}
    assert len([line for line in lines if line["kind"] == "score"]) >= len(texts) > 1
    target = first.points[0].scores[0]
    assert target is not None
    base = [
        line["text"] for line in lines if line["kind"] == "answer" and line["strength"] == "base"
    ]
    expected = [float(logits(folder, text).softmax(dim=0)[1]) for text in base]
    assert target.value == pytest.approx(sum(expected) / len(expected), abs=1e-4)
    assert sweep() == first
    assert (tmp_path / "a.jsonl").read_text(encoding="utf-8") == text
    # Other weights in the same place are another judge.
    make(seed=1)
    assert sweep().points[0].scores != first.points[0].scores
