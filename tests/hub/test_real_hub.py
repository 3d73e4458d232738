"""The real Hub, for those who ask: everything else here runs against a double of it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

REPO = os.environ.get("HUBSPLICE_SMOKE_REPO")
TOKEN = os.environ.get("HUBSPLICE_SMOKE_TOKEN")

SAME_FILES = """
import sys
from huggingface_hub import HfApi, snapshot_download
repo, folder, tag = sys.argv[1:]
downloaded = snapshot_download(repo, revision=tag)
checked = HfApi().verify_repo_checksums(repo, revision=tag, local_dir=folder)
named = {"README.md", "card.json", "reproduce/SHA256SUMS"}
assert {mismatch["path"] for mismatch in checked.mismatches} <= named, checked
assert set(checked.missing_paths) <= {".gitattributes"}, checked
"""


@pytest.mark.skipif(
    not (REPO and TOKEN),
    reason="needs the real Hub: set HUBSPLICE_SMOKE_REPO to a repository that may be written over, "
    "and HUBSPLICE_SMOKE_TOKEN to a token that may write it",
)
def test_publishing_to_the_real_hub(original: Path, tmp_path: Path) -> None:
    assert REPO is not None
    assert TOKEN is not None
    environment = {
        name: value for name, value in os.environ.items() if not name.startswith("HF_")
    } | {"HF_TOKEN": TOKEN, "HF_HOME": str(tmp_path / "home")}

    def run(*arguments: str) -> str:
        done = subprocess.run(
            [sys.executable, *arguments],
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    publish = ("-m", "hubsplice", "publish", str(original), "--repo-id", REPO, "--replace")
    # A tag of an earlier run would be a conflict, which is not what is tested here.
    tag = f"smoke-{os.getpid()}"
    assert "published: " in run(*publish, "--tag", tag)
    assert "already published: " in run(*publish, "--tag", tag)
    run("-c", SAME_FILES, REPO, str(original), tag)
