"""The page of `hubsplice try --web` in a real browser, served by a process of its own."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.explore.conftest import PLANTED, Planted

pytestmark = pytest.mark.web

ROOT = Path(__file__).parents[2]
EVIL = "zz <img src=x onerror=window.evil=1> ${window.evil=2}"
_SLOWEST_MS = 120_000


@contextmanager
def serving(folder: Path, *arguments: str) -> Iterator[subprocess.Popen[str]]:
    """The command in a process, which is interrupted at the end if it lasts that long."""
    process = subprocess.Popen(
        [sys.executable, "-m", "hubsplice", "try", "r.yaml", "--web", *arguments],
        cwd=folder,
        env=os.environ | {"PYTHONPATH": str(ROOT), "HF_HUB_OFFLINE": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        yield process
    finally:
        if process.poll() is None:
            process.kill()
        process.communicate()


@pytest.fixture(scope="module")
def folder(planted: Planted, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("page")
    edits = [
        {"kind": "steer", "feature": 3, "strength": "1 x norm", "label": "<b>three</b>"},
        {"kind": "ablate", "feature": PLANTED},
    ]
    fields = {
        "base_model": str(planted.base),
        "splices": [{"sae": {"path": str(planted.sae)}, "edits": edits}],
        "calibration": {"tokens": 512, "sequence_length": 64},
    }
    (folder / "r.yaml").write_text(json.dumps(fields), encoding="utf-8")
    return folder


@pytest.fixture(scope="module")
def process(folder: Path) -> Iterator[subprocess.Popen[str]]:
    with serving(folder, EVIL, "--max-new-tokens", "40", "--plain") as process:
        yield process


@pytest.fixture(scope="module")
def address(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    line = process.stdout.readline().strip()
    assert line.startswith("http://127.0.0.1:"), process.communicate()
    return line


@pytest.fixture
def page(address: str) -> Iterator[Any]:
    from docs.page_pictures import browsing

    with browsing() as opened:
        page = opened.new_page()
        page.set_default_timeout(_SLOWEST_MS)
        page.asked, page.failed = [], []
        page.on("request", lambda request: page.asked.append(request.url))
        page.on("pageerror", lambda error: page.failed.append(str(error)))
        page.goto(address)
        yield page
        assert not page.failed
        outside = [url for url in page.asked if not url.startswith((address, "data:", "blob:"))]
        assert not outside, "the page loads something from outside"


def ask(page: Any) -> tuple[str, str]:
    """Ask, and wait for the whole answers: the base's and the edited one."""
    # An earlier answer is told from the new one, whose first tokens may be too quick to be seen.
    page.evaluate("document.querySelectorAll('.hs-note, .hs-tokens').forEach(e => e.id = 'old')")
    page.click("#ask")
    page.wait_for_selector("#answer-edited .hs-note:not(#old):has-text('tokens,')")
    page.wait_for_selector("#tokens-edited .hs-tokens:not(#old)")
    before, after = (
        page.inner_text(f"#answer-{name} .hs-answer").strip() for name in ("before", "edited")
    )
    return before, after


def under_letter(page: Any, name: str) -> list[str]:
    """What stands under the letter z in an answer and its prompt, of the planted feature."""
    strip = page.locator(f"#tokens-{name} details").nth(1)
    under = strip.locator(".hs-tokens > span").all_inner_texts()
    return [text.split("\n")[1] for text in under if text.startswith("z")]


def turn(page: Any, name: str, value: str) -> None:
    box = page.get_by_label(f"number input for {name}")
    box.fill(value)
    box.press("Enter")


STEER = "steer feature 3 (<b>three</b>): strength"


def test_a_slider_moves_the_answer_and_readings_stand_under_tokens(page: Any) -> None:
    before, after = ask(page)
    assert before != after
    assert page.locator("#answer-edited mark").count() > 0
    assert page.locator("#answer-before mark").count() == 0
    assert f"feature {PLANTED}" in page.locator("#tokens-before details").nth(1).inner_text()
    assert len(under_letter(page, "before")) >= 2
    assert "·" not in under_letter(page, "before")
    # The text of a prompt and of a label is text.
    assert page.evaluate("window.evil") is None
    assert page.locator("b:has-text('three')").count() == 0
    turn(page, STEER, "0")
    ask(page)
    assert under_letter(page, "edited") != under_letter(page, "before")
    page.get_by_label(f"ablate feature {PLANTED}").uncheck()
    assert ask(page) == (before, before)
    assert under_letter(page, "edited") == under_letter(page, "before")
    assert page.locator("#answer-edited mark").count() == 0


def test_an_answer_can_be_stopped_and_the_next_one_asked(page: Any) -> None:
    page.get_by_text("How answers are drawn").click()
    turn(page, "most tokens of an answer", "400")
    page.click("#ask")
    page.wait_for_selector("#answer-edited .hs-note:has-text('tokens …')")
    page.click("#stop")
    page.wait_for_timeout(1000)
    stopped = page.inner_text("#answer-edited .hs-note")
    page.wait_for_timeout(1000)
    assert page.inner_text("#answer-edited .hs-note") == stopped
    turn(page, "most tokens of an answer", "4")
    ask(page)
    assert page.inner_text("#answer-edited .hs-note").startswith("4 tokens")


def test_a_mistake_is_said_on_the_page(page: Any) -> None:
    page.fill("#prompt textarea", "  ")
    page.click("#ask")
    assert "There is no prompt." in page.locator(".toast-body").first.inner_text()


def test_a_port_that_is_taken_is_said(folder: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with serving(folder, "--port", str(port)) as process:
            out, err = process.communicate(timeout=300)
    assert process.returncode == 6, err
    assert not out
    assert f"error: --port: port {port} of 127.0.0.1 is taken" in err
    assert "Traceback" not in err


def test_only_this_machine_is_listened_to_and_an_interrupt_ends_it_with_a_sentence(
    process: subprocess.Popen[str], address: str
) -> None:
    port = int(address.rpartition(":")[2])
    listening = Path("/proc/net/tcp").read_text(encoding="utf-8").splitlines()[1:]
    at = [line.split()[1] for line in listening if line.split()[3] == "0A"]
    assert [one for one in at if int(one.split(":")[1], 16) == port] == [f"0100007F:{port:04X}"]
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert err.endswith("the page is closed, and the model is let go\n")
    assert "Traceback" not in err
