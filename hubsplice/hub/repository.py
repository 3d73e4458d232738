"""A model repository on the Hub, as it stands: commits, files, tags, pull requests."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from huggingface_hub import HfApi
from huggingface_hub.errors import RepositoryNotFoundError
from huggingface_hub.hf_api import GitCommitInfo, ModelInfo, RepoFile

from hubsplice.errors import HubError
from hubsplice.hub.built import LocalFile
from hubsplice.hub.failures import retried

MAIN = "main"

_MADE_BY_THE_HUB = frozenset({".gitattributes"})


@dataclass(frozen=True)
class RemoteFile:
    """A file on the Hub.

    Attributes:
        size: in bytes.
        blob_id: its git hash; that of a pointer for a file in large storage.
        sha256: of its content, where it is in large storage.
        on_xet: whether the Hub can copy it between repositories.
    """

    size: int
    blob_id: str
    sha256: str | None
    on_xet: bool

    def holds(self, file: LocalFile) -> bool:
        """Whether it has the same content as a local file."""
        if self.sha256 is not None:
            return self.sha256 == file.digest.sha256
        return self.blob_id == file.blob_id


@dataclass(frozen=True)
class RepositoryState:
    """A repository at one moment.

    Attributes:
        private: whether it is.
        head: the commit that main points to.
        files: by name, at that commit, without those that the Hub makes itself.
        tags: commits by tag.
    """

    private: bool
    head: str
    files: Mapping[str, RemoteFile]
    tags: Mapping[str, str]


@dataclass(frozen=True)
class OpenPullRequest:
    """A pull request that waits to be merged.

    Attributes:
        number: its number.
        url: where to read it.
        head: the commit that it proposes.
        files: by name, at that commit.
    """

    number: int
    url: str
    head: str
    files: Mapping[str, RemoteFile]

    @property
    def revision(self) -> str:
        """The branch that it is made of."""
        return f"refs/pr/{self.number}"


class Repository:
    """Reads a repository; every call is repeated after transient failures.

    Raises:
        HfHubHTTPError: of every call, when the Hub refuses.
        HubError: it names no commit.
    """

    def __init__(self, api: HfApi, repo_id: str) -> None:
        self._api = api
        self.repo_id = repo_id

    def state(self) -> RepositoryState | None:
        """What the repository holds; None where it does not exist."""
        try:
            info = retried(lambda: self._api.model_info(self.repo_id, revision=MAIN))
        except RepositoryNotFoundError:
            return None
        head = _commit(info)
        references = retried(lambda: self._api.list_repo_refs(self.repo_id))
        return RepositoryState(
            private=bool(info.private),
            head=head,
            files=self.files(head),
            tags={tag.name: tag.target_commit for tag in references.tags},
        )

    def head(self, revision: str = MAIN) -> str:
        """The commit that a branch points to."""
        return _commit(retried(lambda: self._api.model_info(self.repo_id, revision=revision)))

    def files(self, revision: str) -> dict[str, RemoteFile]:
        """The files at a revision by name, without those that the Hub makes itself."""
        entries = retried(
            lambda: list(self._api.list_repo_tree(self.repo_id, revision=revision, recursive=True))
        )
        return {
            entry.path: remote_file(entry)
            for entry in entries
            if isinstance(entry, RepoFile) and entry.path not in _MADE_BY_THE_HUB
        }

    def last_commit(self, revision: str = MAIN) -> GitCommitInfo:
        """The commit that a branch points to, with who made it."""
        return retried(lambda: self._api.list_repo_commits(self.repo_id, revision=revision))[0]

    def commits_since(self, parent: str, revision: str) -> list[str]:
        """The commits of a branch after `parent`, the newest first; at most ten."""
        found = retried(lambda: self._api.list_repo_commits(self.repo_id, revision=revision))
        ids = [commit.commit_id for commit in found]
        return ids[: ids.index(parent)][:10] if parent in ids else ids[:10]

    def tag_target(self, tag: str) -> str | None:
        """The commit that a tag points to; None where there is no such tag."""
        references = retried(lambda: self._api.list_repo_refs(self.repo_id))
        return {t.name: t.target_commit for t in references.tags}.get(tag)

    def open_pull_requests(self, title: str) -> list[OpenPullRequest]:
        """The open pull requests of this title, the newest first."""
        found = retried(
            lambda: list(
                self._api.get_repo_discussions(
                    self.repo_id, discussion_type="pull_request", discussion_status="open"
                )
            )
        )
        numbers = sorted((d.num for d in found if d.title == title), reverse=True)
        requests = []
        for number in numbers:
            revision = f"refs/pr/{number}"
            head = self.head(revision)
            url = f"{self._api.endpoint}/{self.repo_id}/discussions/{number}"
            requests.append(OpenPullRequest(number, url, head, self.files(head)))
        return requests


def _commit(info: ModelInfo) -> str:
    if info.sha is None:
        raise HubError(f"{info.id}: the Hub names no commit of it; is it a Hub?")
    return info.sha


def remote_file(entry: RepoFile) -> RemoteFile:
    """A file as the Hub lists it."""
    return RemoteFile(
        size=entry.size,
        blob_id=entry.blob_id,
        sha256=entry.lfs.sha256 if entry.lfs is not None else None,
        on_xet=entry.xet_hash is not None,
    )


def same_tree(remote: Mapping[str, RemoteFile], local: Mapping[str, LocalFile]) -> bool:
    """Whether both have the same names with the same contents."""
    return remote.keys() == local.keys() and all(remote[n].holds(local[n]) for n in local)
