"""Whether a folder and a base are the ones that a manifest is of; before anything is measured."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from hubsplice.checkpoint.companions import MANIFEST
from hubsplice.checkpoint.engine_runs import ENGINE_RUNS
from hubsplice.errors import CheckpointError
from hubsplice.evaluating.results import is_evaluation
from hubsplice.fidelity.report import REPORT
from hubsplice.files.digest import FileDigest, digest_once
from hubsplice.pictures.drawing import PICTURES


def require_own_files(folder: Path, files: Mapping[str, FileDigest]) -> None:
    """Refuse a folder in which a file was altered: its figures would be of another model.

    Figures themselves may be half written, by a run that was killed.

    Raises:
        CheckpointError: a file is missing, or not the one that the manifest lists.
    """
    for name, expected in files.items():
        path = folder / name
        if name in (REPORT, ENGINE_RUNS, *PICTURES) or is_evaluation(name):
            continue
        if not path.is_file() or digest_once(path) != expected:
            raise CheckpointError(
                f"{path}: it is not the file that {MANIFEST} lists (sha256 {expected.sha256}); "
                "`hubsplice verify` says what differs. Only what hubsplice wrote is measured"
            )


def require_same_base(folder: Path, files: Mapping[str, FileDigest]) -> None:
    """Refuse another base than the one that a model was made from, by its weights.

    Raises:
        CheckpointError: a file is missing, or another one.
    """
    for name, expected in files.items():
        path = folder / name
        if not name.endswith(".safetensors"):
            continue
        if not path.is_file():
            raise CheckpointError(
                f"base: {folder} has no {name}, and the model was made from one that has it; name "
                "its base with --base"
            )
        if digest_once(path) != expected:
            raise CheckpointError(
                f"base: {path} is not the file that the model was made from (sha256 "
                f"{expected.sha256})"
            )
