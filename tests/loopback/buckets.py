"""Buckets: files by name without history, whose content is in the Xet store."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime


@dataclass
class Bucket:
    """A bucket; `files` has the Xet hash of each file, by its path."""

    id: str
    private: bool
    created: datetime = field(default_factory=lambda: datetime.now(UTC))
    files: dict[str, str] = field(default_factory=dict)

    @property
    def owner(self) -> str:
        return self.id.split("/")[0]

    def below(self, folder: str) -> dict[str, str]:
        """The files of a folder, by their paths in it."""
        prefix = f"{folder.strip('/')}/" if folder.strip("/") else ""
        return {
            path.removeprefix(prefix): file
            for path, file in self.files.items()
            if path.startswith(prefix)
        }
