"""Progress on long work where stderr is no terminal."""

from __future__ import annotations

import time

import pytest

from hubsplice.terminal import show_progress


class Clock:
    """A clock that is set by hand, in seconds."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 1000.0
        monkeypatch.setattr(time, "monotonic", lambda: self.now)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    return Clock(monkeypatch)


def test_a_line_as_each_step_begins(capsys: pytest.CaptureFixture[str], clock: Clock) -> None:
    with show_progress() as report:
        for done in range(5):
            report("measuring the base", done, 5)
        report("looking for text: none yet", 0, 9)
        report("looking for text: some", 3, 9)
    assert capsys.readouterr().err == "measuring the base\nlooking for text: none yet\n"


def test_a_long_step_says_now_and_then_how_far_it_is_and_at_last_how_long_it_took(
    capsys: pytest.CaptureFixture[str], clock: Clock
) -> None:
    with show_progress() as report:
        report("looking for text", 0, 10)
        clock.now += 60
        report("looking for text: feature 3 has 4 of 200 tokens", 3, 10)
        clock.now += 10
        report("looking for text", 4, 10)
        clock.now += 70
        report("writing", 0, 1)
        clock.now += 12
    assert capsys.readouterr().err.splitlines() == [
        "looking for text",
        "looking for text: feature 3 has 4 of 200 tokens (30%, about 2 min left)",
        "looking for text: took 2 min",
        "writing",
        "writing: took 12 s",
    ]


def test_a_step_that_fails_says_how_long_it_took(
    capsys: pytest.CaptureFixture[str], clock: Clock
) -> None:
    def work() -> None:
        with show_progress() as report:
            report("writing", 0, 1)
            clock.now += 5
            raise ValueError("broken")

    with pytest.raises(ValueError, match="broken"):
        work()
    assert capsys.readouterr().err == "writing\nwriting: took 5 s\n"
