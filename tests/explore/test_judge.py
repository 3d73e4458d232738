"""A judge that is a server of its own: its marks, and what goes wrong with it."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import hubsplice
from hubsplice.explore.scorers.base import Scorable
from hubsplice.explore.scorers.judge import Judge
from tests.explore import judge_server

PROMPT = "How many of them has it? QUESTION: {prompt} ANSWER: {answer}"


@pytest.fixture(scope="module")
def endpoint() -> Iterator[str]:
    with subprocess.Popen(
        [sys.executable, Path(judge_server.__file__)], stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        yield process.stdout.readline().strip()
        process.kill()


def judge(endpoint: str, **fields: Any) -> Judge:
    given = {"endpoint": endpoint, "model": judge_server.MODEL, "prompt": PROMPT, "key_from": "J"}
    return Judge.model_validate({"kind": "judge"} | given | fields)


def test_a_mark_is_the_first_number_of_the_reply(
    endpoint: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("J", judge_server.KEY)
    # Braces and the like in a prompt and in an answer are their own.
    asked = Scorable("{answer} zzz", "z {prompt} %s zz")
    assert judge(endpoint).score(asked) == pytest.approx(0.3)
    assert judge(endpoint, out_of=4).score(asked) == pytest.approx(0.75)
    assert judge(endpoint, out_of=2).score(asked) == 1
    assert judge(endpoint).score(Scorable("zz", "none")) == 0


def test_what_a_server_refuses_is_said(endpoint: str, monkeypatch: pytest.MonkeyPatch) -> None:
    answer = Scorable("", "z")
    monkeypatch.delenv("J", raising=False)
    with pytest.raises(hubsplice.RecipeError, match="key_from: J is not set"):
        judge(endpoint).score(answer)
    with pytest.raises(hubsplice.HubspliceError, match=r"^judge: http://127\.0\.0\.1.*401"):
        judge(endpoint, key_from=None).score(answer)
    monkeypatch.setenv("J", judge_server.KEY)
    with pytest.raises(hubsplice.HubspliceError, match=r"404"):
        judge(endpoint, model="another").score(answer)
    with pytest.raises(hubsplice.HubspliceError, match=r"404"):
        judge(endpoint.removesuffix("/v1")).score(answer)
