"""Datasets of the Hub, read with its own libraries from a server on the loopback interface."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.text.loopback_hub import COMMIT, loopback_hub

# In a process of its own: the Hub's libraries read their settings when they are imported.
READ = """
import json, sys
from hubsplice.errors import HubspliceError
from hubsplice.recipe.models import TextSource
from hubsplice.text.hub import hub_corpus

results = []
for fields in json.loads(sys.argv[1]):
    try:
        corpus = hub_corpus(TextSource(**fields), section="fidelity")
        texts = [document.text for document in corpus.documents]
        results.append([corpus.name, corpus.revision, texts])
    except HubspliceError as error:
        results.append(f"{type(error).__name__}: {error}")
print(json.dumps(results))
"""


@pytest.fixture(scope="module")
def read(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[object] | str]:
    """What each request gave, by the request's name."""
    good = {"dataset": "me/notes", "column": "body"}
    requests = {
        "default": good,
        "test split": good | {"split": "test", "revision": "main"},
        "wrong split": good | {"split": "tets"},
        "wrong column": good | {"column": "bdy"},
        "wrong revision": good | {"revision": "v9"},
        "wrong config": good | {"config": "nope"},
        "wrong dataset": good | {"dataset": "me/nothing"},
    }
    with loopback_hub() as address:
        settings = {
            "HF_ENDPOINT": address,
            "HF_HOME": str(tmp_path_factory.mktemp("hub")),
            "HF_HUB_OFFLINE": "0",
            "NO_PROXY": "127.0.0.1",
            "no_proxy": "127.0.0.1",
            "PYTHONPATH": str(Path(__file__).parents[2]),
        }
        done = subprocess.run(
            [sys.executable, "-c", READ, json.dumps(list(requests.values()))],
            env=os.environ | settings,
            capture_output=True,
            text=True,
            check=False,
        )
    assert done.returncode == 0, done.stderr
    return dict(zip(requests, json.loads(done.stdout.splitlines()[-1]), strict=True))


def test_rows_are_read_at_the_resolved_commit(read: dict[str, object]) -> None:
    assert read["default"] == ["me/notes", COMMIT, ["first", "second"]]
    assert read["test split"] == ["me/notes", COMMIT, ["held"]]


@pytest.mark.parametrize(
    ("request_name", "message"),
    [
        ("wrong split", "RecipeError: fidelity.split: 'tets' is not known. Did you mean 'test'?"),
        ("wrong column", "RecipeError: fidelity.column: 'bdy' is not known. Did you mean 'body'?"),
        ("wrong revision", "RecipeError: fidelity.revision: 'v9' is no commit, branch or tag of"),
        ("wrong config", "RecipeError: fidelity.config: 'nope': BuilderConfig 'nope' not found"),
        ("wrong dataset", "RecipeError: fidelity.dataset: 'me/nothing' is neither an existing"),
    ],
)
def test_what_the_hub_does_not_have(
    request_name: str, message: str, read: dict[str, object]
) -> None:
    assert str(read[request_name]).startswith(message)
