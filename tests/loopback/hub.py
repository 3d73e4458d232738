"""The state of the double: accounts, repositories and storage, and who may see or change what."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

from tests.loopback import attributes
from tests.loopback.accounts import Account, Accounts
from tests.loopback.buckets import Bucket
from tests.loopback.counters import Counters
from tests.loopback.errors import HubError, repo_not_found
from tests.loopback.faults import Fault
from tests.loopback.jobs import Jobs
from tests.loopback.repository import Commit, Entry, Repository
from tests.loopback.storage import Storage

Transfer = Literal["lfs", "multipart", "xet"]


@dataclass
class Hub:
    """Everything that the process knows. `storage_url` has another hostname than `endpoint`."""

    endpoint: str
    storage_url: str
    transfer: Transfer
    part_size: int
    page_size: int
    storage: Storage
    accounts: Accounts = field(default_factory=Accounts)
    repositories: dict[str, Repository] = field(default_factory=dict)
    faults: list[Fault] = field(default_factory=list)
    counters: Counters = field(default_factory=Counters)
    id_tokens: dict[str, dict[str, str]] = field(default_factory=dict)
    buckets: dict[str, Bucket] = field(default_factory=dict)
    jobs: Jobs = field(init=False)

    def __post_init__(self) -> None:
        self.jobs = Jobs(self.storage.root / "jobs", self._mount)

    def create(self, repo: str, *, private: bool, author: str) -> Repository:
        """A new repository with the Hub's first commit.

        Raises HubError (400) for an invalid name.
        """
        if not re.fullmatch(r"[\w-][\w.-]{0,95}/[\w-][\w.-]{0,95}", repo):
            raise HubError(400, f"Invalid repository name: {repo}")
        repository = Repository(repo, private, datetime.now(UTC))
        first = {".gitattributes": repository.add_regular(attributes.INITIAL.encode())}
        repository.commit("refs/heads/main", None, first, title="initial commit", author=author)
        self.repositories[repo] = repository
        return repository

    def readable(self, repo: str, account: Account | None) -> Repository:
        """A repository that an account may see; raises HubError as if it were missing if not."""
        repository = self.repositories.get(repo)
        if repository is None or (repository.private and not self._belongs(repository, account)):
            raise repo_not_found(authenticated=account is not None)
        return repository

    def with_content(self, repo: str, account: Account | None) -> Repository:
        """A repository whose files an account may read; raises HubError for gated ones if not."""
        repository = self.readable(repo, account)
        if repository.gated and not self._belongs(repository, account):
            if account is None:
                raise HubError(
                    401,
                    f"Access to model {repo} is restricted. You must have access to it and be "
                    "authenticated to access it. Please log in.",
                    code="GatedRepo",
                )
            if account.name not in repository.granted:
                raise HubError(
                    403,
                    f"Access to model {repo} is restricted and you are not in the authorized "
                    f"list. Visit {self.endpoint}/{repo} to ask for access.",
                    code="GatedRepo",
                )
        return repository

    def writable(self, repo: str, account: Account | None) -> Repository:
        """A repository that an account may change; raises HubError (401, 403, 404) if not."""
        repository = self.readable(repo, account)
        self.signed_in(account)
        if not self._belongs(repository, account):
            raise HubError(
                403, "Forbidden: pass `create_pr=1` as a query parameter to create a Pull Request"
            )
        return repository

    def open_to(
        self, repo: str, account: Account | None, revision: str | None, *, new_pull_request: bool
    ) -> Repository:
        """A repository to which an account may send files, be it for a pull request of its own.

        Raises HubError (401, 403, 404) if it may not.
        """
        author = self.signed_in(account)
        repository = self.with_content(repo, account)
        own = [d.ref for d in repository.discussions if d.author == author.name]
        if new_pull_request or revision in own:
            return repository
        return self.writable(repo, account)

    def signed_in(self, account: Account | None) -> Account:
        """Raises HubError for anonymous requests (401) and for tokens that only read (403)."""
        if account is None:
            raise HubError(401, "Invalid username or password.")
        if not account.can_write:
            raise HubError(
                403,
                "You have read access but not the required permissions for this operation",
            )
        return account

    def may_create_in(self, namespace: str, account: Account | None) -> Account:
        """Raises HubError if the account may not create or delete a repository in a namespace."""
        account = self.signed_in(account)
        if account.only_repo is not None:
            raise HubError(401, "This token can't create repositories")
        if namespace not in account.namespaces:
            raise HubError(
                403,
                f'You don\'t have the rights to create a model under the namespace "{namespace}"',
            )
        return account

    def holds(self, repository: Repository, sha256: str) -> bool:
        """Whether a commit to the repository may name an LFS object."""
        return sha256 in repository.objects and self.storage.size(sha256) is not None

    def commit_file(
        self, repo: str, revision: str, path: str, content: bytes, *, title: str, author: str
    ) -> Commit:
        """Commit a regular file without any check of rights: how tests act as somebody else."""
        repository = self.any_repository(repo)
        ref = repository.full_ref(revision)
        parent = repository.resolve(revision)
        files: dict[str, Entry] = {**parent.files, path: repository.add_regular(content)}
        return repository.commit(
            ref or "refs/heads/main", parent, files, title=title, author=author
        )

    def bucket(self, name: str, account: Account | None) -> Bucket:
        """A bucket that an account may see; raises HubError as if it were missing if not."""
        bucket = self.buckets.get(name)
        mine = account is not None and name.split("/")[0] in account.namespaces
        if bucket is None or (bucket.private and not mine):
            raise repo_not_found(authenticated=account is not None)
        return bucket

    def _mount(self, volume: dict[str, Any], folder: Path) -> None:
        """Copy the files of a job's volume into a folder."""
        assert self.storage.xet is not None
        files = self.buckets[volume["source"]].below(volume.get("path") or "")
        for name, xet_hash in files.items():
            path = folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(b"".join(self.storage.xet.read(xet_hash)))

    def any_repository(self, repo: str) -> Repository:
        """A repository, whoever may see it."""
        if repo not in self.repositories:
            raise repo_not_found(authenticated=True)
        return self.repositories[repo]

    @staticmethod
    def _belongs(repository: Repository, account: Account | None) -> bool:
        if account is None or (account.only_repo or repository.id) != repository.id:
            return False
        return repository.owner in account.namespaces
