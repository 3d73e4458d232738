"""Records of a build as JSON files of their own beside the manifest."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TypeVar

from pydantic import ValidationError

from hubsplice.checkpoint.manifest import Record
from hubsplice.errors import CheckpointError
from hubsplice.files.plain import read_plain

RecordT = TypeVar("RecordT", bound=Record)


def write_record(record: Record, path: Path) -> None:
    """Write a record to a checkpoint that has none."""
    text = json.dumps(record.model_dump(mode="json"), indent=2, ensure_ascii=False)
    path.write_text(text + "\n", encoding="utf-8")


def read_record(path: Path, kind: type[RecordT]) -> RecordT:
    """Read a record.

    Raises:
        CheckpointError: it is missing or malformed.
    """
    try:
        return kind.model_validate_json(read_plain(path))
    except OSError as error:
        raise CheckpointError(f"{path}: cannot be read: {error.strerror}") from None
    except ValidationError as error:
        problem = error.errors(include_url=False)[0]
        where = ".".join(map(str, problem["loc"])) or kind.__name__.lower()
        raise CheckpointError(f"{path}: {where}: {problem['msg']}") from None
