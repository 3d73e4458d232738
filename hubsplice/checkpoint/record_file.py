"""Records of a build as JSON files of their own beside the manifest."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TypeVar

from pydantic import BaseModel, ValidationError

from hubsplice.checkpoint.manifest import Record
from hubsplice.errors import CheckpointError
from hubsplice.files.plain import LARGEST_TEXT, read_plain
from hubsplice.files.strict_json import parse_object

RecordT = TypeVar("RecordT", bound=BaseModel)


def write_record(record: Record, path: Path) -> None:
    """Write a record to a checkpoint that has none."""
    text = json.dumps(record.model_dump(mode="json"), indent=2, ensure_ascii=False)
    path.write_text(text + "\n", encoding="utf-8")


def read_record(path: Path, kind: type[RecordT], largest: int = LARGEST_TEXT) -> RecordT:
    """Read a record.

    Args:
        path: the file.
        kind: what it holds.
        largest: the most bytes that it can have.

    Raises:
        CheckpointError: it is missing or malformed.
    """
    try:
        data = read_plain(path, largest)
    except OSError as error:
        raise CheckpointError(f"{path}: cannot be read: {error.strerror}") from None
    parse_object(data, source=str(path))
    try:
        return kind.model_validate_json(data)
    except ValidationError as error:
        problem = error.errors(include_url=False)[0]
        where = ".".join(map(str, problem["loc"])) or kind.__name__.lower()
        raise CheckpointError(f"{path}: {where}: {problem['msg']}") from None
