"""Interrupts while the command is still importing, which takes most of the time of a short one."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
INTERRUPT = "import os, signal, time\nos.kill(os.getpid(), signal.SIGINT)\ntime.sleep(5)\n"
HIDDEN = """
try:
    import os, signal, time
    os.kill(os.getpid(), signal.SIGINT)
    time.sleep(5)
except KeyboardInterrupt:
    raise ImportError("a part of this library is broken")
"""


def _run(folder: Path, library: str) -> subprocess.CompletedProcess[str]:
    """Run the command with a library of our own in the place of `typer`."""
    (folder / "typer.py").write_text(library, encoding="utf-8")
    return subprocess.run(
        [sys.executable, "-m", "hubsplice", "--version"],
        env=os.environ | {"PYTHONPATH": f"{folder}{os.pathsep}{ROOT}"},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.parametrize("library", [INTERRUPT, HIDDEN])
def test_an_interrupted_import_is_exit_code_130(tmp_path: Path, library: str) -> None:
    done = _run(tmp_path, library)
    assert (done.returncode, done.stdout, done.stderr) == (130, "", "")


def test_another_failure_of_an_import_is_shown(tmp_path: Path) -> None:
    done = _run(tmp_path, "raise ImportError('a part of this library is broken')\n")
    assert done.returncode == 1
    assert "a part of this library is broken" in done.stderr
