"""A run's summary and outputs, from what hubsplice printed."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hubsplice.errors import OutputError
from hubsplice.github_actions.publication import Plan, Result, read_publication
from hubsplice.github_actions.summary import render_summary
from hubsplice.github_actions.workflow_files import workflow_outputs
from tests.actions.runner import parse_outputs
from tests.card.examples import report

HOSTILE = (
    "x`](javascript:a) <img src=x> | --- |\n\n# heading @someone https://evil.example ::error::"
)

PLAN: dict[str, Any] = {
    "repo_id": "me/edited",
    "exists": True,
    "parent": "0" * 40,
    "created": [{"path": "a.safetensors", "bytes": 3_000_000}],
    "changed": [{"path": "README.md", "bytes": 10}],
    "copied": ["b.safetensors"],
    "deleted": ["old.txt"],
    "unchanged": ["config.json"],
    "total_bytes": 7_000_000,
    "upload_bytes": 1_234_567,
    "tag": "v1.0",
    "license": "apache-2.0",
    "base_license": "mit",
    "passed": True,
}
RESULT: dict[str, Any] = {
    "repo_id": "me/edited",
    "outcome": "published",
    "commit": "1" * 40,
    "commit_url": f"https://huggingface.co/me/edited/commit/{'1' * 40}",
    "tag": "v1.0",
    "pull_request": None,
    "plan": PLAN,
    "serve": "vllm serve me/edited --revision v1.0",
}


def rendered(
    plan: dict[str, Any] | None = None,
    result: dict[str, Any] | None = None,
    error: str | None = None,
) -> str:
    return render_summary(
        "me/edited",
        report=report(),
        plan=Plan.model_validate(plan) if plan else None,
        result=Result.model_validate(result) if result else None,
        error=error,
    )


def test_a_plan_is_counted_by_what_happens_to_files() -> None:
    text = rendered(PLAN)
    assert "1,234,567 of 7,000,000 bytes to upload, as predicted; tag `v1.0`." in text
    rows = {
        tuple(cell.strip() for cell in line.strip("| ").split("|"))
        for line in text.splitlines()
        if line.startswith("| ")
    }
    assert ("created", "1", "3,000,000") in rows
    assert ("changed", "1", "10") in rows
    assert ("copied from the base on the Hub", "1", "–") in rows
    assert ("deleted", "old.txt", "–") in rows
    assert "Licence: `apache-2.0` (the base model's is `mit`)." in text


def test_a_publication_links_its_commit() -> None:
    text = rendered(PLAN, RESULT)
    assert text.startswith("## `me/edited`: published\n")
    assert f"Commit [`{'1' * 40}`]({RESULT['commit_url']})." in text
    assert "`vllm serve me/edited --revision v1.0`" in text


@pytest.mark.parametrize("address", ["javascript:alert(1)", "https://x/y) [z](https://w/", "//x"])
def test_what_is_no_web_address_is_no_link(address: str) -> None:
    text = rendered(PLAN, RESULT | {"commit_url": address, "pull_request": address})
    # In a code span it is letters.
    assert "](" not in re.sub(r"`[^`\n]*`", "", text)


def test_what_is_in_files_and_errors_adds_no_markup() -> None:
    plan = PLAN | {"tag": HOSTILE, "license": HOSTILE, "created": [HOSTILE]}
    text = rendered(plan, RESULT | {"outcome": HOSTILE, "serve": HOSTILE}, error=HOSTILE)
    assert "<img" not in text
    assert "](javascript" not in text.replace("\\]", "")
    assert "\n# heading" not in text
    assert "https://evil" not in text
    assert "@someone" not in text
    # Every line of an error stays within its box.
    box = text.split("> [!CAUTION]\n")[1].split("\n\n")[0]
    assert all(line.startswith("> ") for line in box.splitlines())


def test_a_failure_comes_first() -> None:
    assert rendered(error="no\nway").startswith(
        "## `me/edited`: failed\n\n> [!CAUTION]\n> no\n> way\n\n### Fidelity"
    )
    assert rendered(PLAN, RESULT, error="no").startswith(
        "## `me/edited`: published, and then failed\n"
    )


def test_what_was_not_measured_is_said() -> None:
    text = render_summary("me/edited", report=None, plan=None, result=None, error="no")
    assert "The fidelity was not measured." in text


def test_a_result_brings_its_plan(tmp_path: Path) -> None:
    assert read_publication(tmp_path) == (None, None)
    (tmp_path / "plan.json").touch()
    assert read_publication(tmp_path) == (None, None)
    (tmp_path / "result.json").write_text(json.dumps(RESULT), encoding="utf-8")
    plan, result = read_publication(tmp_path)
    assert plan == Plan.model_validate(PLAN)
    assert result is not None
    assert result.commit == "1" * 40


def test_what_is_not_from_hubsplice_is_refused(tmp_path: Path) -> None:
    (tmp_path / "plan.json").write_text("{}", encoding="utf-8")
    with pytest.raises(OutputError, match=r"plan\.json: not what"):
        read_publication(tmp_path)


_LINES = st.text(st.characters(exclude_characters="\r\x0b\x0c\x1c\x1d\x1e\x85\u2028\u2029"))


@given(st.dictionaries(st.from_regex(r"[a-z-]{1,9}", fullmatch=True), _LINES))
def test_no_output_can_set_another(values: dict[str, str]) -> None:
    # A value's own line break at its end is the runner's to keep or to drop.
    values = {name: value.rstrip("\n") for name, value in values.items()}
    assert parse_outputs(workflow_outputs(values)) == values
