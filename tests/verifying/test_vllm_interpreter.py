"""The interpreter that runs vLLM sees its own environment's modules, and none of this package's."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from hubsplice.errors import CheckpointError
from hubsplice.streams.vllm import run_vllm

# It answers as an interpreter does which is asked to run a script, and tells what the script's
# folder would let it import.
ANSWERS = """#!{python}
import json, pathlib, sys
script = sys.argv[1]
names = sorted(path.stem for path in pathlib.Path(script).parent.glob("*.py"))
for line in sys.stdin:
    made = pathlib.Path(json.loads(line)[1])
    part = made.with_suffix(".part")
    part.write_text(json.dumps({{"importable": names}}))
    part.replace(made)
"""


def test_nothing_stands_in_for_a_module_of_the_standard_library(tmp_path: Path) -> None:
    interpreter = tmp_path / "python"
    interpreter.write_text(ANSWERS.format(python=sys.executable), encoding="utf-8")
    interpreter.chmod(0o755)

    (answer,) = run_vllm(interpreter, [{}])

    assert answer == {"importable": ["vllm_runner"]}


def test_what_is_no_interpreter_may_say_nothing(tmp_path: Path) -> None:
    other = tmp_path / "python"
    other.write_text("#!/bin/sh\nexit 1\n", encoding="utf-8")
    other.chmod(0o755)
    with pytest.raises(CheckpointError, match=r"said nothing; is \S+/python a Python interpreter"):
        run_vllm(other, [{}])
