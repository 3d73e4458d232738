"""An edit kind that another installed package brings through an entry point."""

from __future__ import annotations

import os
import subprocess
import sys
import zipfile
from pathlib import Path

PACKAGE = """
from typing import ClassVar, Literal

from hubsplice.edits.feature_edit import FeatureEdit
from hubsplice.edits.registry import EDITS


@EDITS.register("invert")
class Invert(FeatureEdit):
    summary: ClassVar[str] = "turn the feature around"
    formula: ClassVar[str] = "h - 2 f d"

    kind: Literal["invert"] = "invert"

    def function(self, feature, sources):
        return feature.activation.scaled(-2.0)
"""

USE = """
import json

from hubsplice.edits.registry import EDITS

edit = EDITS.get("invert", "kind").model_validate({"kind": "invert", "feature": 7})
print(json.dumps({"kinds": [name for name, _ in EDITS.items()], "formula": edit.formula}))
"""


def build_wheel(folder: Path) -> Path:
    """Write a wheel by hand: building one would need a network for its build backend."""
    info = "inverting_edits-1.0.dist-info"
    files = {
        "inverting_edits.py": PACKAGE,
        f"{info}/METADATA": "Metadata-Version: 2.1\nName: inverting-edits\nVersion: 1.0\n",
        f"{info}/WHEEL": "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\n"
        "Tag: py3-none-any\n",
        f"{info}/entry_points.txt": "[hubsplice.edits]\ninvert = inverting_edits\n",
    }
    record = "".join(f"{name},,\n" for name in (*files, f"{info}/RECORD"))
    wheel = folder / "inverting_edits-1.0-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        for name, text in {**files, f"{info}/RECORD": record}.items():
            archive.writestr(name, text)
    return wheel


def run(code: str, site: Path) -> str:
    path = os.pathsep.join([str(site), *filter(None, sys.path)])
    return subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "PYTHONPATH": path},
        check=True,
        capture_output=True,
        text=True,
    ).stdout


def test_an_installed_package_adds_an_edit(tmp_path: Path) -> None:
    site = tmp_path / "site"
    subprocess.run(
        [
            *(sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-index"),
            *("--disable-pip-version-check", "--target", str(site), str(build_wheel(tmp_path))),
        ],
        check=True,
    )
    output = run(USE, site)
    assert '"invert"' in output
    assert '"ablate"' in output
    assert "h - 2 f d" in output
