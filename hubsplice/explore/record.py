"""What a sweep has computed so far, as lines of JSON: a stopped sweep goes on where it was.

A line is known by a digest of all that its values depend on: the base, the splices with the
strength, the prompt and how answers are drawn. Another recipe adds to the same file and reads
nothing of it.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from hubsplice.errors import OutputError, RecipeError
from hubsplice.files.plain import exists, read_plain

_BEGINNING = '{"key": "'


def key_of(**parts: Any) -> str:
    """The digest of some plain data."""
    text = json.dumps(parts, sort_keys=True, ensure_ascii=True)
    return hashlib.sha256(text.encode()).hexdigest()


class Record:
    """Lines of a file, by their keys."""

    def __init__(self, path: Path) -> None:
        """Read what is there.

        Raises:
            RecipeError: a line other than the last is no line of a sweep.
            OutputError: the file can't be written.
        """
        self.path = path
        self._lines: dict[str, dict[str, Any]] = {}
        whole = not exists(path) or self._read()
        # Also where there is nothing to write: an unwritable file is told before hours of work.
        self._append("" if whole else "\n")

    def get(self, key: str) -> dict[str, Any] | None:
        """What is known under a key."""
        return self._lines.get(key)

    def add(self, key: str, **values: Any) -> dict[str, Any]:
        """Append a line."""
        line = {"key": key, **values}
        self._append(json.dumps(line, ensure_ascii=True) + "\n")
        self._lines[key] = line
        return line

    def _append(self, text: str) -> None:
        try:
            with self.path.open("a", encoding="utf-8") as file:
                file.write(text)
        except OSError as error:
            raise OutputError(f"{self.path}: cannot be written: {error.strerror}") from None

    def _read(self) -> bool:
        """Read the lines; False where the last one was cut off."""
        try:
            text = read_plain(self.path, 1 << 30).decode("utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise RecipeError(f"--answers: {self.path} can't be read: {error}") from None
        lines = text.split("\n")
        for number, line in enumerate(lines, start=1):
            if not line.strip():
                continue
            found = _parsed(line)
            if found is None:
                # A run that was stopped while it wrote leaves half a line, and goes on behind it.
                if not (line.startswith(_BEGINNING) or _BEGINNING.startswith(line)):
                    raise RecipeError(
                        f"--answers: {self.path}, line {number}: it is no line of a sweep; name "
                        "another file"
                    )
                continue
            self._lines[found["key"]] = found
        return text.endswith("\n") or not text


def _parsed(line: str) -> dict[str, Any] | None:
    try:
        found = json.loads(line)
    except (ValueError, RecursionError):
        return None
    known = isinstance(found, Mapping) and isinstance(found.get("key"), str)
    return dict(found) if known else None
