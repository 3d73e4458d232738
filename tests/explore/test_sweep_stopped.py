"""A sweep that is interrupted goes on from what it has, and finds what it would have found."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import hubsplice
from tests.explore.conftest import Planted

ROOT = Path(__file__).parents[2]
PROMPTS = [f"a lazy zebra of {n}" for n in range(4)]
STRENGTHS = [f"{n / 10:g}" for n in range(9)]


def is_whole(line: str) -> bool:
    """Whether a line was not cut off by the interrupt."""
    return line.endswith("}")


def test_an_interrupted_sweep_goes_on(planted: Planted, tmp_path: Path) -> None:
    fields = {
        "base_model": str(planted.base),
        "splices": [
            {
                "sae": {"path": str(planted.sae)},
                "edits": [{"kind": "steer", "feature": 3, "strength": "1 x norm"}],
            }
        ],
        "calibration": {"tokens": 512, "sequence_length": 64},
    }
    (tmp_path / "r.yaml").write_text(json.dumps(fields), encoding="utf-8")
    (tmp_path / "p.txt").write_text("\n".join(PROMPTS), encoding="utf-8")
    kept = tmp_path / "r.sweep.jsonl"
    process = subprocess.Popen(
        [
            *(sys.executable, "-m", "hubsplice", "sweep", "r.yaml", "--prompts", "p.txt"),
            *("--score", "regex=z", "--strengths", ",".join(STRENGTHS)),
            *("--max-new-tokens", "40", "--neutral-tokens", "256"),
        ],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    while process.poll() is None and (not kept.exists() or kept.read_text().count("\n") < 7):
        time.sleep(0.02)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=120)
    assert process.returncode == 130, err
    assert not out
    assert err.endswith("stopped; the same command goes on from r.sweep.jsonl\n")
    assert "Traceback" not in err
    lines = kept.read_text(encoding="utf-8").splitlines(keepends=True)
    # One line of an answer for each prompt, and one for the neutral text, of each strength.
    everything = (len(STRENGTHS) + 1) * (len(PROMPTS) + 1)
    assert 7 <= len(lines) < everything

    def swept(answers: Path) -> hubsplice.Sweep:
        return hubsplice.sweep(
            tmp_path / "r.yaml",
            PROMPTS,
            ["regex=z"],
            STRENGTHS,
            answers=answers,
            max_new_tokens=40,
            neutral_tokens=256,
            progress=False,
        )

    went_on = swept(kept)
    # What was known stays as it was, and nothing of it is computed again.
    after = kept.read_text(encoding="utf-8")
    assert after.startswith("".join(lines))
    assert len({json.loads(line)["key"] for line in after.splitlines() if is_whole(line)}) == (
        everything
    )
    assert after.count("\n") - everything in (0, 1)
    whole = swept(tmp_path / "whole.jsonl")
    assert went_on.points == whole.points
    assert [point.name for point in went_on.points[1:]] == [f"{s} x norm" for s in STRENGTHS]
