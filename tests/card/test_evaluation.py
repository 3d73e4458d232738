"""What a card says of an evaluation: a golden file, and that nobody's words become Markdown."""

from __future__ import annotations

from pathlib import Path

from hubsplice.card import render_card
from hubsplice.evaluating.results import Evaluation
from tests.card.examples import SHA, manifest, report
from tests.loopback.card import check_card

GOLDEN = Path(__file__).with_name("evaluation.md")


def estimate(value: float, half: float) -> dict[str, float]:
    return {"value": value, "low": value - half, "high": value + half}


def evaluation(score: str = "regex=(?i)planet") -> Evaluation:
    figure = {
        "metric": "exact_match",
        "filter": "strict-match",
        "higher_is_better": True,
        "base": 0.4,
        "base_stderr": 0.0125,
        "edited": 0.375,
        "edited_stderr": None,
    }
    return Evaluation.model_validate(
        {
            "model": SHA,
            "dtype": "bfloat16",
            "device": "cuda",
            "answers": {
                "prompts": 40,
                "prompts_sha256": SHA,
                "chosen": "by the author",
                "form": "chat",
                "max_new_tokens": 80,
                "temperature": 0.0,
                "top_p": 1.0,
                "seed": 0,
                "scores": [
                    {"name": score, "base": estimate(0.05, 0.04), "edited": estimate(0.9, 0.08)},
                    {"name": "compiles", "base": None, "edited": None},
                ],
                "distinct": {"name": "d", "base": estimate(0.97, 0.01), "edited": None},
                "length": {"name": "l", "base": estimate(52, 4), "edited": estimate(47.25, 5)},
            },
            "neutral": {
                "dataset": "builtin",
                "token_ids_sha256": SHA,
                "tokens": 1024,
                "sequences": 8,
                "divergence": estimate(0.31, 0.02),
                "base_perplexity": estimate(17.5, 3),
                "edited_perplexity": estimate(21.25, 4),
            },
            "tasks": [
                {
                    "task": "gsm8k",
                    "version": "3.0",
                    "harness": "0.4.13",
                    "backend": "hf",
                    "model_args": "",
                    "num_fewshot": 5,
                    "limit": None,
                    "chat": True,
                    "questions": 1319,
                    "dataset": "openai/gsm8k",
                    "dataset_config": "main",
                    "split": "test",
                    "date": "2026-11-29",
                    "figures": [figure],
                }
            ],
            "sweep": ["tokens=z 0.9 [0.8, 1] on 40 prompts, KL 0.1 nats a token; r.sweep.jsonl"],
        }
    )


def card(found: Evaluation | None) -> str:
    return render_card(manifest(), report(), model_id="me/model", evaluation=found)


def section(text: str) -> str:
    heading = "## Does it do what it says"
    return heading + text.partition(heading)[2].partition("\n## ")[0] + "\n"


def test_both_columns_stand_on_the_card() -> None:
    # Where the words are changed on purpose: GOLDEN.write_text(section(card(evaluation()))).
    assert section(card(evaluation())) == GOLDEN.read_text(encoding="utf-8")


def test_where_nothing_was_evaluated_one_line_says_so() -> None:
    text = card(None)
    assert section(text).splitlines()[2] == "This was not evaluated."
    assert "model-index" not in text


def test_the_front_matter_is_the_hubs() -> None:
    findings = check_card(card(evaluation()))
    assert not findings.errors
    (index,) = findings.metadata["model-index"]
    assert index["name"] == "me/model"
    assert [result["dataset"]["type"] for result in index["results"]] == [
        "unknown",
        "unknown",
        "openai/gsm8k",
    ]


def test_a_score_is_no_markdown() -> None:
    text = section(card(evaluation("regex=<b>|[x](http://a.b)|`c`")))
    assert "<b>" not in text
    assert "[x](http" not in text
    rows = [line for line in text.splitlines() if "regex" in line]
    assert len(rows) == 1
