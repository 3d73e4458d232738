"""The example notebook runs in a real kernel, from its first cell to its last."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

import nbformat
import pytest
from nbclient import NotebookClient

from tests.interface.conftest import REPOSITORY

NOTEBOOK = REPOSITORY / "examples/notebook.ipynb"


def run(home: Path, *, first: str | None = None, more: str = "") -> list[Any]:
    """Execute the notebook, and give its code cells.

    Args:
        home: a folder for what IPython writes.
        first: what stands in place of the first cell's code; None leaves it.
        more: what is added to it.
    """
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    cells = [cell for cell in notebook.cells if cell.cell_type == "code"]
    cells[0].source = "\n".join([cells[0].source if first is None else first, more])
    environment = os.environ | {
        "PYTHONPATH": str(REPOSITORY),
        "IPYTHONDIR": str(home),
        "HF_HUB_OFFLINE": "1",
    }
    resources = {"metadata": {"path": str(NOTEBOOK.parent)}}
    NotebookClient(notebook, timeout=1200, kernel_name="python3", resources=resources).execute(
        env=environment
    )
    return cells


def shown(cell: Any) -> str:
    """What a cell shows: the HTML of its value."""
    (result,) = (o for o in cell.outputs if o.output_type == "execute_result")
    html: str = result.data["text/html"]
    return html


def printed(cell: Any) -> str:
    return "".join(o.text for o in cell.outputs if o.output_type == "stream")


def require_results(cells: list[Any]) -> None:
    _, check, lower, before, build, after, verify = cells
    assert "would build" in shown(check)
    assert "clamp feature 0 (outer space)" in shown(lower)
    assert "The spliced model is in" in shown(build)
    assert "noise floor" in shown(build)
    assert shown(verify).count("FAILED") == 0
    assert "Verified: every tensor" in shown(verify)
    assert "before: " in printed(before)
    assert "after: " in printed(after)


def test_it_runs_on_a_tiny_model(base: Path, sae: Path, tmp_path: Path) -> None:
    values = {"BASE": base, "SAE": sae, "OUTPUT": tmp_path / "out"}
    lines = [f"{name} = {str(value)!r}" for name, value in values.items()]
    cells = run(tmp_path / "ipython", first="\n".join([*lines, "TOKENS, NEW_TOKENS = 256, 4"]))
    require_results(cells)
    bars = [o for o in cells[4].outputs if o.output_type == "display_data"]
    # The line of bars is there while the cell runs, and empty at the end.
    assert [bar.data["text/html"] for bar in bars] == [""]


@pytest.mark.slow
@pytest.mark.usefixtures("smollm2")
def test_it_runs_on_smollm2(tmp_path: Path) -> None:
    cells = run(tmp_path / "ipython", more="TOKENS = 1024")
    require_results(cells)
    hook = re.search("with the hook: (.*)", printed(cells[3]))
    after = re.search("after: (.*)", printed(cells[5]))
    assert hook is not None
    assert after is not None
    assert hook[1][:20] == after[1][:20]


def test_its_outputs_are_not_in_git() -> None:
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    nbformat.validate(notebook)
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert all(cell.outputs == [] and cell.execution_count is None for cell in code)
