"""A repository: its commits, refs, stored objects and discussions, and how a commit is made."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from tests.loopback import attributes, git
from tests.loopback.errors import HubError, entry_not_found, revision_not_found

_serial = itertools.count()


@dataclass(frozen=True)
class Entry:
    """A file in a commit. `blob` is git's id; `sha256` is the LFS object's id, None if regular."""

    blob: str
    size: int
    sha256: str | None = None

    @property
    def etag(self) -> str:
        return self.sha256 or self.blob


@dataclass(frozen=True)
class Commit:
    """A commit, with the complete tree of files by path."""

    oid: str
    parent: str | None
    title: str
    message: str
    author: str
    date: datetime
    files: Mapping[str, Entry]


@dataclass
class Discussion:
    """A discussion, or a pull request if `base` names the commit that it started from."""

    num: int
    title: str
    author: str
    created: datetime
    base: str | None
    status: str
    events: list[dict[str, Any]] = field(default_factory=list)
    merged: str | None = None

    @property
    def ref(self) -> str:
        return f"refs/pr/{self.num}"

    def add_event(self, kind: str, author: str, data: dict[str, Any]) -> dict[str, Any]:
        event = {
            "id": f"{next(_serial):024x}",
            "type": kind,
            "createdAt": timestamp(datetime.now(UTC)),
            "author": {"name": author},
            "data": data,
        }
        self.events.append(event)
        return event


@dataclass
class Repository:
    """A model repository. `objects` are the SHA-256 of the LFS objects that it holds."""

    id: str
    private: bool
    created: datetime
    gated: bool = False
    granted: set[str] = field(default_factory=set)
    commits: dict[str, Commit] = field(default_factory=dict)
    refs: dict[str, str] = field(default_factory=dict)
    tag_messages: dict[str, str] = field(default_factory=dict)
    discussions: list[Discussion] = field(default_factory=list)
    objects: set[str] = field(default_factory=set)
    blobs: dict[str, bytes] = field(default_factory=dict)
    publishers: set[str] = field(default_factory=set)

    @property
    def owner(self) -> str:
        return self.id.split("/")[0]

    def full_ref(self, revision: str) -> str | None:
        """The ref which a name stands for, or None if it is no ref of this repository."""
        for ref in (revision, f"refs/heads/{revision}", f"refs/tags/{revision}"):
            if ref in self.refs:
                return ref
        return None

    def resolve(self, revision: str) -> Commit:
        """The commit of a branch, tag, pull request, or id (at least 7 digits of it)."""
        if ref := self.full_ref(revision):
            return self.commits[self.refs[ref]]
        if len(revision) >= 7:
            for oid, commit in self.commits.items():
                if oid.startswith(revision.lower()):
                    return commit
        raise revision_not_found(revision)

    def history(self, revision: str) -> list[Commit]:
        """The commits up to a revision, the newest first."""
        commits = [self.resolve(revision)]
        while commits[-1].parent is not None:
            commits.append(self.commits[commits[-1].parent])
        return commits

    def last_commit_of(self, revision: str, path: str) -> Commit:
        """The newest commit that changed a file, or anything in a folder."""

        def part(commit: Commit) -> dict[str, Entry]:
            return {p: e for p, e in commit.files.items() if p == path or p.startswith(f"{path}/")}

        history = self.history(revision)
        for commit, parent in itertools.pairwise(history):
            if part(commit) != part(parent):
                return commit
        return history[-1]

    def text(self, commit: Commit, path: str) -> str:
        """A regular text file of a commit; empty if there is none."""
        entry = commit.files.get(path)
        if entry is None or entry.sha256 is not None:
            return ""
        return self.blobs[entry.blob].decode(errors="replace")

    def add_regular(self, content: bytes) -> Entry:
        entry = Entry(git.blob_id(content), len(content))
        self.blobs[entry.blob] = content
        return entry

    def add_lfs(self, sha256: str, size: int) -> Entry:
        self.objects.add(sha256)
        return Entry(git.blob_id(git.lfs_pointer(sha256, size)), size, sha256)

    def commit(
        self,
        ref: str,
        parent: Commit | None,
        files: Mapping[str, Entry],
        *,
        title: str,
        message: str = "",
        author: str,
    ) -> Commit:
        """Record a tree as the new commit of a ref, with .gitattributes extended for LFS files."""
        tree = dict(files)
        if lfs := [path for path, entry in tree.items() if entry.sha256 is not None]:
            known = tree.get(".gitattributes")
            before = self.blobs[known.blob].decode() if known else ""
            after = attributes.extended(before, lfs)
            if after != before:
                tree[".gitattributes"] = self.add_regular(after.encode())
        date = datetime.now(UTC)
        root = git.tree_ids({path: entry.blob for path, entry in tree.items()})[""]
        # The serial number keeps the ids of equal commits of the same moment apart.
        text = (
            f"tree {root}\nparent {parent.oid if parent else ''}\nauthor {author} {date}\n"
            f"serial {next(_serial)}\n\n{title}\n\n{message}"
        )
        oid = git.object_id("commit", text.encode())
        commit = Commit(oid, parent.oid if parent else None, title, message, author, date, tree)
        self.commits[oid] = commit
        self.refs[ref] = oid
        return commit

    def tags(self) -> dict[str, str]:
        return self._refs_under("refs/tags/")

    def branches(self) -> dict[str, str]:
        return self._refs_under("refs/heads/")

    def _refs_under(self, prefix: str) -> dict[str, str]:
        return {
            ref.removeprefix(prefix): oid
            for ref, oid in self.refs.items()
            if ref.startswith(prefix)
        }

    def add_tag(self, tag: str, commit: Commit, message: str = "") -> None:
        """Raises HubError (409) if there is a tag of this name, whatever it points at."""
        if f"refs/tags/{tag}" in self.refs:
            raise HubError(409, f'Tag "{tag}" exists already')
        self.refs[f"refs/tags/{tag}"] = commit.oid
        self.tag_messages[tag] = message

    def open_discussion(
        self, title: str, author: str, description: str, base: Commit | None, status: str
    ) -> Discussion:
        """A new discussion; a pull request, with its ref, if it has a base."""
        discussion = Discussion(
            num=len(self.discussions) + 1,
            title=title,
            author=author,
            created=datetime.now(UTC),
            base=base.oid if base else None,
            status=status,
        )
        self.discussions.append(discussion)
        if base is not None:
            self.refs[discussion.ref] = base.oid
        latest = {"raw": description, "html": description, "updatedAt": timestamp()}
        discussion.add_event(
            "comment", author, {"edited": False, "hidden": False, "latest": latest}
        )
        return discussion

    def discussion(self, num: int) -> Discussion:
        if not 1 <= num <= len(self.discussions):
            raise HubError(404, "Discussion not found")
        return self.discussions[num - 1]

    def conflicts(self, discussion: Discussion) -> list[str]:
        """Paths that both the pull request and main changed, differently, since its base."""
        return self._merge(discussion)[1]

    def merge(self, discussion: Discussion, author: str) -> Commit:
        """Raises HubError (409) on conflicts."""
        merged, conflicts = self._merge(discussion)
        if conflicts:
            raise HubError(409, f"Conflicting files: {', '.join(conflicts)}")
        commit = self.commit(
            "refs/heads/main",
            self.resolve("main"),
            merged,
            title=f"{discussion.title} (#{discussion.num})",
            author=author,
        )
        discussion.status, discussion.merged = "merged", commit.oid
        discussion.add_event("status-change", author, {"status": "merged"})
        return commit

    def _merge(self, discussion: Discussion) -> tuple[dict[str, Entry], list[str]]:
        if discussion.base is None:
            raise HubError(400, "Not a pull request")
        base = self.commits[discussion.base].files
        theirs, ours = self.resolve(discussion.ref).files, self.resolve("main").files
        merged, conflicts = dict(ours), []
        for path in sorted({*base, *theirs}):
            if theirs.get(path) == base.get(path) or theirs.get(path) == ours.get(path):
                continue
            if ours.get(path) != base.get(path):
                conflicts.append(path)
            elif path in theirs:
                merged[path] = theirs[path]
            else:
                merged.pop(path, None)
        return merged, conflicts


def timestamp(moment: datetime | None = None) -> str:
    """A moment (now, unless given) as the Hub writes it, in UTC with milliseconds."""
    moment = moment or datetime.now(UTC)
    return moment.strftime("%Y-%m-%dT%H:%M:%S.") + f"{moment.microsecond // 1000:03d}Z"


def apply_operations(
    parent: Commit,
    operations: list[tuple[str, dict[str, Any]]],
    regular: Callable[[dict[str, Any]], Entry],
    lfs: Callable[[dict[str, Any]], Entry],
) -> dict[str, Entry]:
    """The tree after the operations of a commit, in the order in which they came."""
    files = dict(parent.files)
    for key, value in operations:
        path = str(value.get("path", ""))
        if not path or path.startswith("/") or ".." in path.split("/"):
            raise HubError(400, f"Invalid path: {path!r}")
        if key == "file":
            files[path] = regular(value)
        elif key == "lfsFile":
            files[path] = lfs(value)
        elif key == "deletedFile":
            if files.pop(path, None) is None:
                raise entry_not_found("A file with this name doesn't exist")
        elif key == "deletedFolder":
            inside = [p for p in files if p.startswith(path.rstrip("/") + "/")]
            if not inside:
                raise entry_not_found("A folder with this name doesn't exist")
            for p in inside:
                del files[p]
        else:
            raise HubError(400, f"Unknown operation: {key}")
    return files
