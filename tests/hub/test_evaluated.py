"""An evaluation is published with its model, and the Hub takes the card that shows it."""

from __future__ import annotations

from pathlib import Path

import hubsplice
from hubsplice.card.write import card_files
from hubsplice.evaluating.results import EVALUATION
from hubsplice.files.digest import digest_bytes
from tests.hub.conftest import Publisher
from tests.loopback.client import LoopbackHub


def test_figures_travel_with_the_model(
    hub: LoopbackHub, base: Path, built: Path, publish: Publisher, repo: str
) -> None:
    hubsplice.evaluate(
        built,
        base=base,
        prompts=["a", "b"],
        scores=["regex=."],
        max_new_tokens=2,
        neutral_tokens=256,
        progress=False,
    )
    code, _, err = publish(built, "--repo-id", repo)
    assert code == 0, err
    files = hub.files(repo, "main")
    assert EVALUATION in files
    assert built.with_name("built.evaluation.jsonl").name not in files
    # The Hub has checked this card, with the figures in front of it.
    card = card_files(built, model_id=repo)["README.md"]
    assert f"model-index:\n- name: {repo}\n" in card
    assert files["README.md"] == digest_bytes(card.encode()).sha256
