"""Progress on long work where stderr is no terminal."""

from __future__ import annotations

import pytest

from hubsplice import terminal
from hubsplice.terminal import show_progress


def test_a_line_as_each_step_begins(capsys: pytest.CaptureFixture[str]) -> None:
    with show_progress() as report:
        for done in range(5):
            report("measuring the base", done, 5)
        report("looking for text: none yet", 0, 9)
        report("looking for text: some", 3, 9)
    assert capsys.readouterr().err == "measuring the base\nlooking for text: none yet\n"


def test_a_long_step_says_now_and_then_how_far_it_is(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(terminal, "_SECONDS_BETWEEN_LINES", 0.0)
    with show_progress() as report:
        report("looking for text", 0, 10)
        report("looking for text: feature 3 has 4 of 200 tokens", 3, 10)
    assert capsys.readouterr().err.splitlines() == [
        "looking for text",
        "looking for text: feature 3 has 4 of 200 tokens (30%)",
    ]
