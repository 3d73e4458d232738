"""lm-evaluation-harness really runs: a local task on both models, and what is wrong is told."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from huggingface_hub import parse_eval_result_entries

import hubsplice
from hubsplice.evaluating.hub_results import hub_files, model_index
from hubsplice.evaluating.results import Evaluation, TaskFigure, TaskRecord
from hubsplice.explore.harness import Settings
from tests.card.examples import SHA
from tests.conftest import Command
from tests.evaluating.conftest import RECIPE
from tests.verifying.conftest import Spliced

# Of the letter that the built model says, and of one that it does not.
QUESTIONS = [
    {"question": "the house of", "choices": ["z", letter], "answer": 0}
    for letter in "abcdefghijklmnopqrstuvwxy"
]


@pytest.fixture
def tasks(tmp_path: Path) -> Path:
    folder = tmp_path / "tasks"
    folder.mkdir()
    data = folder / "letters.jsonl"
    data.write_text("".join(json.dumps(question) + "\n" for question in QUESTIONS))
    task = {
        "task": "letters",
        "dataset_path": "json",
        "dataset_kwargs": {"data_files": {"test": str(data)}},
        "test_split": "test",
        "output_type": "multiple_choice",
        "doc_to_text": "{{question}}",
        "doc_to_choice": "{{choices}}",
        "doc_to_target": "answer",
        "target_delimiter": "",
        "metric_list": [{"metric": "acc", "aggregation": "mean", "higher_is_better": True}],
        "metadata": {"version": 1.0},
    }
    (folder / "letters.yaml").write_text(yaml.safe_dump(task))
    return folder


def evaluated(spliced: Spliced, folder: Path, **options: Any) -> Evaluation:
    given: dict[str, Any] = {"base": spliced.base, "tasks": ["letters"], "include_path": folder}
    return hubsplice.evaluate(spliced.folder, progress=False, **(given | options))


def test_a_local_task_runs_on_both_models_and_is_kept(
    copy: Spliced, tasks: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("lm_eval")
    found = evaluated(copy, tasks)
    assert found.answers is None
    (task,) = found.tasks
    (figure,) = task.figures
    assert (task.questions, task.version, task.dataset) == (len(QUESTIONS), "1.0", None)
    assert figure.metric == "acc"
    assert figure.edited == 1
    assert figure.base < 1
    assert figure.base_stderr is not None
    assert figure.base_stderr > 0
    card = (copy.folder / "README.md").read_text()
    assert "letters (0-shot, 25 questions)" in card
    assert copy.verify().passed
    # Of the other parts nothing was asked; they are added, and the task stays.
    more = evaluated(
        copy,
        tasks,
        tasks=(),
        include_path=None,
        prompts=["a"],
        max_new_tokens=1,
        neutral_tokens=256,
    )
    assert more.tasks == found.tasks
    assert more.answers is not None
    # What is known is not run again, and a task whose file was changed is another one.
    ran: list[str] = []
    monkeypatch.setattr("hubsplice.explore.harness.Harness.run", lambda *one: ran.append(one[2]))
    assert evaluated(copy, tasks).answers == more.answers
    assert not ran
    (tasks / "letters.yaml").write_text((tasks / "letters.yaml").read_text() + "\n")
    with pytest.raises(TypeError):
        evaluated(copy, tasks)
    assert ran == ["letters"]


def test_a_sweep_has_tasks_as_side_effects(
    lettered: Spliced, tasks: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("lm_eval")
    recipe = tmp_path / "r.yaml"
    vector = lettered.folder.parent / "v.safetensors"
    text = RECIPE.format(base=lettered.base)
    recipe.write_text(text.replace("v.safetensors", str(vector)), encoding="utf-8")

    def swept() -> hubsplice.Sweep:
        return hubsplice.sweep(
            recipe,
            ["a", "b"],
            ["tokens=z"],
            ["0", "40"],
            max_new_tokens=1,
            neutral_tokens=256,
            side_effects=["lm_eval=letters"],
            include_path=tasks,
            progress=False,
        )

    found = swept()
    base, nothing, much = (point.side_effects[0] for point in found.points)
    assert base.metric == "acc"
    assert nothing == base
    assert base.value < 1 == much.value
    # A heading may be folded.
    assert {"letters", "acc"} <= set(str(found).split())
    # What is known is not run again.
    monkeypatch.setattr("hubsplice.explore.harness.Harness.run", None)
    assert swept() == found


@pytest.mark.parametrize("given", ["acc", "lm_eval", "lm_eval=", "lmeval=letters"])
def test_a_side_effect_is_a_task(command: Command, tmp_path: Path, given: str) -> None:
    (tmp_path / "p.txt").write_text("a")
    (tmp_path / "r.yaml").write_text("base_model: a/b\nsplices: [{after_layer: 1, edits: []}]")
    options = ["--prompts", "p.txt", "--score", "regex=a", "--strengths", "1"]
    code, _, err = command("sweep", "r.yaml", *options, "--side-effect", given)
    assert code == 2
    assert f"--side-effect: found {given!r}, expected lm_eval=TASK" in err


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--tasks", "leters"], "Did you mean 'letters'"),
        (["--tasks", "letters", "--include-path", "nowhere"], "nowhere is not a folder"),
        (["--tasks", "letters", "--batch-size", "many"], "--batch-size: found 'many'"),
        (["--tasks", "letters", "--model-args", "device"], "--model-args: found 'device'"),
        (["--tasks", "letters", "--model-args", "dtype=float32"], "dtype is hubsplice's to set"),
        (["--tasks", "letters", "--backend", "vllm"], "has no vLLM"),
    ],
)
def test_wrong_arguments(
    lettered: Spliced,
    tasks: Path,
    command: Command,
    monkeypatch: pytest.MonkeyPatch,
    options: list[str],
    message: str,
) -> None:
    pytest.importorskip("lm_eval")
    if "leters" in options:
        # The harness's own tasks are many thousands of files.
        from lm_eval.tasks import TaskManager

        monkeypatch.setattr(
            "lm_eval.tasks.TaskManager",
            lambda **given: TaskManager(**(given | {"include_defaults": False})),
        )
    where = [] if "--include-path" in options else ["--include-path", tasks]
    code, _, err = command("evaluate", lettered.folder, "--base", lettered.base, *where, *options)
    assert code == (3 if "vllm" in options else 2)
    assert message in err


def test_without_the_package_it_is_named(
    lettered: Spliced, command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("hubsplice.explore.harness.find_spec", lambda _name: None)
    code, _, err = command("evaluate", lettered.folder, "--tasks", "gsm8k")
    assert code == 2
    assert "pip install 'hubsplice[evaluate]'" in err


def record(**fields: Any) -> TaskRecord:
    figure = {"metric": "exact_match", "filter": "strict-match", "higher_is_better": True}
    measured = {"base": 0.4, "base_stderr": 0.01, "edited": 0.3, "edited_stderr": 0.01}
    content: dict[str, Any] = {
        "task": "gsm8k",
        "version": "3.0",
        "harness": "0.4.13",
        "backend": "hf",
        "model_args": "",
        "num_fewshot": 5,
        "limit": None,
        "chat": False,
        "questions": 1319,
        "dataset": "openai/gsm8k",
        "dataset_config": "main",
        "split": "test",
        "date": "2026-11-29",
        "figures": (TaskFigure.model_validate(figure | measured),),
    }
    return TaskRecord.model_validate(content | fields)


def test_whole_benchmarks_of_the_hub_get_a_file_in_its_form() -> None:
    whole, part, local = record(), record(limit=10), record(task="letters", dataset=None)
    found = Evaluation(model=SHA, dtype="bfloat16", device="cpu", tasks=(whole, part, local))
    ((name, text),) = hub_files(found).items()
    assert name == ".eval_results/gsm8k-5-shot-hf.yaml"
    (entry,) = parse_eval_result_entries(yaml.safe_load(text))
    assert (entry.dataset_id, entry.task_id, entry.value) == ("openai/gsm8k", "main", 0.3)
    assert entry.date == "2026-11-29"
    assert entry.notes is not None
    assert "the base has 0.400" in entry.notes
    assert [result.metric_value for result in model_index(found)] == [0.3, 0.3, 0.3]


def test_intervals_are_of_the_harness_errors() -> None:
    figure = record().figures[0].estimate("edited")
    assert (figure.low, figure.high) == pytest.approx((0.2804, 0.3196), rel=1e-4)


def test_settings_are_checked_in_python_too() -> None:
    with pytest.raises(hubsplice.RecipeError, match="--limit: found 0"):
        Settings(limit=0)
