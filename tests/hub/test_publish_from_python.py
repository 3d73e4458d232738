"""`hubsplice.publish` from Python: a plan, and then the commit that it said."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from tests.hub.test_publish import of_folder, published_files
from tests.interface.conftest import REPOSITORY
from tests.loopback.client import LoopbackHub

SCRIPT = """
import sys
import hubsplice
folder, repo = sys.argv[1:]
planned = hubsplice.publish(folder, repo, tag="v1", dry_run=True)
assert planned.published is None and planned.url is None
assert "one commit on" in str(planned) and "<table>" in planned._repr_html_()
done = hubsplice.publish(folder, repo, tag="v1")
assert done.published.outcome == "published"
assert done.plan.total_bytes == planned.plan.total_bytes
assert str(done).startswith("published: ") and done.serve in str(done)
try:
    hubsplice.publish(folder, repo, tag="v1", private=True, require_fidelity=1e-9)
except hubsplice.FidelityError as error:
    print(error)
print(done.published.commit)
"""


def test_a_plan_and_then_the_commit(
    hub: LoopbackHub, built: Path, repo: str, tmp_path: Path
) -> None:
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, built, repo],
        env=hub.environment(tmp_path / "home") | {"PYTHONPATH": str(REPOSITORY), "COLUMNS": "300"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    error, commit = done.stdout.splitlines()
    assert "times the noise floor; required: at most 1e-09, NOT met" in error
    assert published_files(hub, repo, commit) == of_folder(built)
