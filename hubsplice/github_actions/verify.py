"""A published model, downloaded again and compared with what was built."""

from __future__ import annotations

from pathlib import Path

from hubsplice.checkpoint.companions import MANIFEST
from hubsplice.checkpoint.manifest import read_manifest
from hubsplice.errors import CheckpointError
from hubsplice.files.digest import digest_file


def verify_download(repo_id: str, revision: str, *, built: Path, download: Path) -> int:
    """Download a revision, and compare each file of the manifest with the build.

    Args:
        repo_id: the repository.
        revision: a tag or a commit.
        built: the folder that `hubsplice build` wrote.
        download: where to download to.

    Returns:
        How many files are alike.

    Raises:
        CheckpointError: a file is missing, or differs.
        HubError: the revision can't be downloaded.
    """
    from huggingface_hub import snapshot_download

    from hubsplice.hub.failures import explained_errors

    with explained_errors(repo_id):
        snapshot_download(repo_id, revision=revision, local_dir=download)
    expected = read_manifest(built / MANIFEST).files
    if read_manifest(download / MANIFEST).files != expected:
        raise CheckpointError(
            f"{repo_id} at {revision}: its {MANIFEST} lists other files than were built"
        )
    for name, digest in expected.items():
        path = download / name
        if not path.is_file():
            raise CheckpointError(f"{repo_id} at {revision}: {name} is missing")
        found = digest_file(path)
        if found != digest:
            raise CheckpointError(
                f"{repo_id} at {revision}: {name} differs from what was built: sha256 "
                f"{found.sha256}, expected {digest.sha256}"
            )
    return len(expected)
