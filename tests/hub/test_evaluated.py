"""An evaluation is published with its model, and the Hub takes the card that shows it."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

import pytest

import hubsplice
from hubsplice.building.evaluate import evaluate as evaluate_folder
from hubsplice.card.write import card_files
from hubsplice.evaluating.results import EVALUATION
from hubsplice.explore.harness import Figure, Harness, Ran, Settings
from hubsplice.files.digest import digest_bytes
from tests.hub.conftest import Publisher
from tests.loopback.client import LoopbackHub


def evaluate(built: Path, base: Path, *prompts: str) -> None:
    hubsplice.evaluate(
        built,
        base=base,
        prompts=prompts,
        scores=["regex=."],
        max_new_tokens=2,
        neutral_tokens=256,
        progress=False,
    )


def test_a_kept_card_with_older_figures_is_not_published(
    hub: LoopbackHub, base: Path, built: Path, publish: Publisher, repo: str
) -> None:
    card = built / "README.md"
    card.write_text(f"{card.read_text()}\nMine.\n")
    evaluate(built, base, "a", "b")
    given = ["--repo-id", repo, "--card", "keep", "--json"]
    refused = publish(built, *given)
    assert refused.code == 8
    assert "its figures are not those of the model's files" in refused.err
    assert "it says 'This was not evaluated.'; that is measured by now" in refused.err
    assert "--card rewrite" in refused.err
    # Its author has brought the figures up to date, and added his words again.
    card.write_text(card_files(built)["README.md"] + "\nMine.\n")
    kept = publish(built, *given)
    assert kept.code == 0, kept.err
    assert hub.files(repo, "main")["README.md"] == digest_bytes(card.read_bytes()).sha256


class Answering:
    """A harness for a benchmark of the Hub, without its data: it says the same of every model."""

    def __init__(self, task: str, accuracy: float) -> None:
        self.tasks, self.settings, self._accuracy = (task,), Settings(num_fewshot=5), accuracy

    def known_by(self, task: str) -> Any:
        return [task, self._accuracy]

    @contextmanager
    def loaded(self, folder: Path, dtype: str) -> Iterator[None]:
        yield

    def run(self, lm: None, task: str) -> Ran:
        figure = Figure("acc", "none", self._accuracy, 0.01, higher_is_better=True)
        return Ran((figure,), "1.0", 5, 1319, "openai/gsm8k", "main", "test")


def run_task(built: Path, base: Path, harness: Answering) -> None:
    evaluate_folder(
        built,
        base=str(base),
        asked=None,
        harness=cast(Harness, harness),
        recipe=None,
        record=built.with_name("tasks.jsonl"),
        progress=lambda _step, _done, _total: None,
    )


READ = """
import json, sys
import yaml
from huggingface_hub import HfApi, ModelCard, parse_eval_result_entries, snapshot_download
from huggingface_hub.repocard import metadata_load
from pathlib import Path
folder = Path(snapshot_download(sys.argv[1], allow_patterns=["README.md", ".eval_results/*"]))
card = ModelCard.load(folder / "README.md")
assert metadata_load(folder / "README.md") == card.data.to_dict()
print(json.dumps({
    "card": [
        [r.dataset_type, r.dataset_config, r.metric_type, r.metric_value, r.metric_args]
        for r in card.data.eval_results
    ],
    "files": {
        path.name: [
            [entry.dataset_id, entry.task_id, entry.value]
            for entry in parse_eval_result_entries(yaml.safe_load(path.read_text()))
        ]
        for path in folder.glob(".eval_results/*")
    },
}))
"""


def read_back(hub: LoopbackHub, repo: str, home: Path) -> dict[str, Any]:
    """What huggingface_hub reads of a repository: the card's results, and the files of results."""
    done = subprocess.run(
        [sys.executable, "-c", READ, repo],
        env=hub.environment(home),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def test_figures_travel_are_read_by_the_hubs_own_reader_and_are_replaced(
    hub: LoopbackHub, base: Path, built: Path, publish: Publisher, repo: str, tmp_path: Path
) -> None:
    pytest.importorskip("lm_eval")
    evaluate(built, base, "a", "b")
    run_task(built, base, Answering("gsm8k", 0.25))
    assert publish(built, "--repo-id", repo).code == 0

    # The Hub has checked this card, with the figures in front of it.
    files = hub.files(repo, "main")
    assert EVALUATION in files
    assert built.with_name("built.evaluation.jsonl").name not in files
    card = card_files(built, model_id=repo)["README.md"]
    assert f"model-index:\n- name: {repo}\n" in card
    assert files["README.md"] == digest_bytes(card.encode()).sha256
    found = read_back(hub, repo, tmp_path / "home")
    gsm8k, *others = sorted(found["card"])
    assert gsm8k == ["openai/gsm8k", "main", "accuracy", 0.25, {"num_few_shot": 5}]
    assert {metric for _, _, metric, *_ in others} == {"score", "perplexity", "kl_divergence"}
    assert found["files"] == {"gsm8k-5-shot-hf.yaml": [["openai/gsm8k", "main", 0.25]]}

    # Measured again, with a task of another name: nothing of the first is left.
    (built / EVALUATION).unlink()
    run_task(built, base, Answering("gsm8k_cot", 0.5))
    assert publish(built, "--repo-id", repo).code == 0
    found = read_back(hub, repo, tmp_path / "home")
    assert found["card"] == [["openai/gsm8k", "main", "accuracy", 0.5, {"num_few_shot": 5}]]
    assert found["files"] == {"gsm8k_cot-5-shot-hf.yaml": [["openai/gsm8k", "main", 0.5]]}
