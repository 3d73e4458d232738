"""Git's ids of blobs, trees and commits, and the pointers that stand for LFS files."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping


def object_id(kind: str, content: bytes) -> str:
    """The SHA-1 that git gives an object of a kind (`blob`, `tree` or `commit`)."""
    return hashlib.sha1(f"{kind} {len(content)}\0".encode() + content).hexdigest()


def blob_id(content: bytes) -> str:
    return object_id("blob", content)


def lfs_pointer(sha256: str, size: int) -> bytes:
    """The text which is committed in place of an LFS file."""
    return (
        f"version https://git-lfs.github.com/spec/v1\noid sha256:{sha256}\nsize {size}\n"
    ).encode()


def tree_ids(blobs: Mapping[str, str]) -> dict[str, str]:
    """The id of every folder, by path; the root's path is empty. `blobs` gives ids by path."""
    folders: dict[str, dict[str, str]] = {"": {}}
    for path, oid in blobs.items():
        *parents, name = path.split("/")
        for depth in range(len(parents)):
            folders.setdefault("/".join(parents[: depth + 1]), {})
        folders["/".join(parents)][name] = oid
    ids: dict[str, str] = {}
    # A folder's id hangs on those of its subfolders: the deepest come first.
    for folder in sorted(folders, key=lambda path: path.count("/") + bool(path), reverse=True):
        rows = [(name, "100644", oid) for name, oid in folders[folder].items()]
        prefix = f"{folder}/" if folder else ""
        rows += [
            (path.removeprefix(prefix), "40000", oid)
            for path, oid in ids.items()
            if path.startswith(prefix) and "/" not in path.removeprefix(prefix)
        ]
        # Git sorts a folder as if its name ended in a slash.
        rows.sort(key=lambda row: (row[0] + ("/" if row[1] == "40000" else "")).encode())
        content = b"".join(
            f"{mode} {name}\0".encode() + bytes.fromhex(oid) for name, mode, oid in rows
        )
        ids[folder] = object_id("tree", content)
    return ids
