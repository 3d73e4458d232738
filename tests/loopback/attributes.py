"""Which files of a repository go to LFS: its .gitattributes, sizes, and samples of the content."""

from __future__ import annotations

from pathlib import Path

from pathspec import GitIgnoreSpec

LARGE = 10 * 1024 * 1024

INITIAL = Path(__file__).with_name("initial.gitattributes").read_text()
"""The .gitattributes of a new model repository."""


def lfs_patterns(attributes: str) -> GitIgnoreSpec:
    """The patterns of a .gitattributes whose files go through the lfs filter."""
    lines = [line.split() for line in attributes.splitlines() if "filter=lfs" in line]
    return GitIgnoreSpec.from_lines(words[0] for words in lines if not words[0].startswith("#"))


def upload_mode(path: str, size: int, sample: bytes, attributes: str) -> str:
    """`lfs` or `regular`; the sample is the beginning of the file."""
    if size == 0:
        return "regular"
    if size > LARGE or b"\0" in sample or lfs_patterns(attributes).match_file(path):
        return "lfs"
    return "regular"


def extended(attributes: str, paths: list[str]) -> str:
    """The .gitattributes with a line for each LFS file that no pattern of it matches yet."""
    patterns = lfs_patterns(attributes)
    missing = [path for path in paths if not patterns.match_file(path)]
    if attributes and not attributes.endswith("\n"):
        attributes += "\n"
    return attributes + "".join(
        f"{path.replace(' ', '[[:space:]]')} filter=lfs diff=lfs merge=lfs -text\n"
        for path in sorted(missing)
    )
