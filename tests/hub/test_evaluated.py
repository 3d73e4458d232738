"""An evaluation is published with its model, and the Hub takes the card that shows it."""

from __future__ import annotations

from pathlib import Path

import hubsplice
from hubsplice.card.write import card_files
from hubsplice.evaluating.results import EVALUATION
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


def test_figures_travel_with_the_model(
    hub: LoopbackHub, base: Path, built: Path, publish: Publisher, repo: str
) -> None:
    evaluate(built, base, "a", "b")
    code, _, err = publish(built, "--repo-id", repo)
    assert code == 0, err
    files = hub.files(repo, "main")
    assert EVALUATION in files
    assert built.with_name("built.evaluation.jsonl").name not in files
    # The Hub has checked this card, with the figures in front of it.
    card = card_files(built, model_id=repo)["README.md"]
    assert f"model-index:\n- name: {repo}\n" in card
    assert files["README.md"] == digest_bytes(card.encode()).sha256
