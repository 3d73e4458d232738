"""Publishing: one commit with everything in it, and a tag, whatever happens on the way.

The state of the repository decides what is left to do, never a record of earlier runs: a run that
was killed at any moment is finished by the same command, and a finished one by doing nothing.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Literal

from huggingface_hub import (
    CommitOperationAdd,
    CommitOperationCopy,
    CommitOperationDelete,
    HfApi,
)
from huggingface_hub.errors import FileDuplicationError, HfHubHTTPError

from hubsplice.errors import ConflictError, HubError
from hubsplice.hub.failures import (
    ATTEMPTS,
    StorageError,
    explained_errors,
    is_transient,
    retried,
    wait_before,
)
from hubsplice.hub.plain_upload import opened, speaks_xet, xet_is_used
from hubsplice.hub.plan import Changes, PublishPlan
from hubsplice.hub.repository import MAIN, RemoteFile, Repository, same_tree

Operation = CommitOperationAdd | CommitOperationCopy | CommitOperationDelete
Outcome = Literal["published", "already published", "proposed", "already proposed"]

# A .gitignore in the repository would silently leave files out, and an empty one is not sent.
_NOTHING_IGNORED = "# Nothing.\n"


@dataclass(frozen=True)
class Published:
    """What is on the Hub now; read back, and compared with the folder.

    Attributes:
        outcome: what was left to do.
        commit: the commit that holds the files.
        tag: the tag that points to these files.
        pull_request: where to read the pull request, if it is one.
        notes: what went otherwise than planned.
    """

    outcome: Outcome
    commit: str
    tag: str | None
    pull_request: str | None
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class _Place:
    """Where the commit goes.

    Attributes:
        revision: the branch; main where a pull request is yet to be opened.
        parent: the commit that it has to point to still.
        files: what is there, by name.
        opens: whether the commit opens a pull request.
    """

    revision: str
    parent: str
    files: Mapping[str, RemoteFile]
    opens: bool = False


def publish(api: HfApi, plan: PublishPlan) -> Published:
    """Carry out a plan: exactly one commit with all of it, or none.

    Raises:
        ConflictError: somebody else wrote to the repository since the plan was made, or the tag
            points to something else.
        HubError: the Hub refused, or could not be reached for longer than a moment.
    """
    # A killed upload then goes on where it was, instead of twenty seconds earlier.
    os.environ.setdefault("HF_XET_DATA_SESSION_XORB_METADATA_FLUSH_MAX_COUNT", "1")
    with explained_errors(plan.target.repo_id):
        return _publish(Repository(api, plan.target.repo_id), api, plan)


def _publish(repository: Repository, api: HfApi, plan: PublishPlan) -> Published:
    if plan.published is not None:
        tag = None if plan.target.pull_request else plan.target.tag
        if tag is not None and not plan.tagged:
            _set_tag(repository, api, plan, plan.published)
        return Published("already published", plan.published, tag, None)
    if plan.target.pull_request:
        return _propose(repository, api, plan)
    commit, notes = _Sender(repository, api, plan).send(_main(repository, api, plan))
    _verify(repository, plan, commit)
    if plan.target.tag is not None:
        _set_tag(repository, api, plan, commit)
    return Published("published", commit, plan.target.tag, None, notes)


def _main(repository: Repository, api: HfApi, plan: PublishPlan) -> _Place:
    if plan.parent is not None:
        return _Place(MAIN, plan.parent, repository.files(plan.parent))
    repo_id = plan.target.repo_id
    retried(lambda: api.create_repo(repo_id, private=plan.target.private, exist_ok=True))
    state = repository.state()
    if state is None:
        raise HubError(f"{repo_id}: the Hub created the repository, but does not show it")
    if state.files:
        raise _moved(repository, MAIN)
    return _Place(MAIN, state.head, state.files)


def _propose(repository: Repository, api: HfApi, plan: PublishPlan) -> Published:
    requests = repository.open_pull_requests(plan.title)
    for request in requests:
        if same_tree(request.files, plan.files):
            return Published("already proposed", request.head, None, request.url)
    if requests:
        place = _Place(requests[0].revision, requests[0].head, requests[0].files)
    else:
        assert plan.parent is not None
        place = _Place(MAIN, plan.parent, repository.files(plan.parent), opens=True)
    commit, notes = _Sender(repository, api, plan).send(place)
    _verify(repository, plan, commit)
    request = next(r for r in repository.open_pull_requests(plan.title) if r.head == commit)
    return Published("proposed", commit, None, request.url, notes)


class _Sender:
    """Sends one commit; what was uploaded for an attempt that failed serves the next one."""

    def __init__(self, repository: Repository, api: HfApi, plan: PublishPlan) -> None:
        self._repository = repository
        self._api = api
        self._plan = plan
        self._copies = dict(plan.copies)
        self._additions: dict[str, CommitOperationAdd] = {}
        self._notes: list[str] = []
        self._without_xet: bool | None = None

    def send(self, place: _Place) -> tuple[str, tuple[str, ...]]:
        """Commit the plan's files to a place.

        Returns:
            The commit, and what went otherwise than planned.
        """
        attempt = 1
        while True:
            try:
                return self._attempt(place), tuple(self._notes)
            except Exception as error:
                # The answer is not what counts: a gateway may give up on a commit that lands.
                landed = self._landed(place)
                if landed is not None:
                    return landed, tuple(self._notes)
                if self._copies and _refuses_copies(error):
                    self._notes.append(
                        "the Hub would not copy files from the base's repository, so they were "
                        f"uploaded: {error}"
                    )
                    self._copies = {}
                    continue
                if attempt == ATTEMPTS or not is_transient(error):
                    raise
            time.sleep(wait_before(attempt))
            attempt += 1

    def _attempt(self, place: _Place) -> str:
        changes = Changes.between(place.files, self._plan.files)
        copied = [name for name in changes.sent if name in self._copies]
        if self._without_xet is None and xet_is_used() and len(copied) < len(changes.sent):
            repo_id = self._plan.target.repo_id
            self._without_xet = not speaks_xet(
                self._api, repo_id, place.revision, opens=place.opens
            )
            if self._without_xet:
                self._notes.append(
                    "the Hub has no Xet storage, so files were sent by LFS; with "
                    "HF_HUB_DISABLE_XET=1 it is not asked"
                )
        added = [self._addition(name) for name in changes.sent if name not in copied]
        self._upload(added, place)
        operations: list[Operation] = [
            *added,
            *map(self._copy, copied),
            *(CommitOperationDelete(path_in_repo=name) for name in changes.deleted),
        ]
        commit = self._api.create_commit(
            self._plan.target.repo_id,
            operations,
            commit_message=self._plan.title,
            commit_description=self._plan.summary,
            revision=place.revision,
            parent_commit=place.parent,
            create_pr=place.opens,
        )
        return commit.oid

    def _addition(self, name: str) -> CommitOperationAdd:
        if name not in self._additions:
            source = self._plan.files[name].source
            # The client sends open files by LFS.
            self._additions[name] = CommitOperationAdd(
                name, opened(source) if self._without_xet else source
            )
        return self._additions[name]

    def _copy(self, name: str) -> CommitOperationCopy:
        source = self._copies[name]
        return CommitOperationCopy(
            src_path_in_repo=source.path,
            path_in_repo=name,
            src_revision=source.commit,
            src_repo_id=source.repo_id,
            src_repo_type="model",
        )

    def _upload(self, additions: Iterable[CommitOperationAdd], place: _Place) -> None:
        try:
            self._api.preupload_lfs_files(
                self._plan.target.repo_id,
                additions,
                revision=place.revision,
                create_pr=place.opens,
                free_memory=False,
                gitignore_content=_NOTHING_IGNORED,
            )
        except RuntimeError as error:
            # By LFS, the client wraps the answer of the Hub.
            if isinstance(error.__cause__, HfHubHTTPError):
                raise error.__cause__ from None
            raise StorageError(f"the storage of the Hub failed: {error}") from error

    def _landed(self, place: _Place) -> str | None:
        """The commit, if it is there after all.

        Raises:
            ConflictError: somebody else's is.
        """
        if place.opens:
            requests = self._repository.open_pull_requests(self._plan.title)
            return next((r.head for r in requests if same_tree(r.files, self._plan.files)), None)
        for commit in self._repository.commits_since(place.parent, place.revision):
            if same_tree(self._repository.files(commit), self._plan.files):
                return commit
        if self._repository.head(place.revision) != place.parent:
            raise _moved(self._repository, place.revision)
        return None


def _verify(repository: Repository, plan: PublishPlan, commit: str) -> None:
    """Compare the checksums that the Hub has of the commit's files with the local ones."""
    remote = repository.files(commit)
    if not same_tree(remote, plan.files):
        wrong = sorted(
            name
            for name in remote.keys() | plan.files.keys()
            if name not in remote
            or name not in plan.files
            or not remote[name].holds(plan.files[name])
        )
        raise HubError(
            f"{repository.repo_id}: commit {commit} does not hold what was sent: {wrong[0]!r} "
            f"and {len(wrong) - 1} others differ"
        )


def _set_tag(repository: Repository, api: HfApi, plan: PublishPlan, commit: str) -> None:
    tag = plan.target.tag
    assert tag is not None
    try:
        retried(lambda: api.create_tag(repository.repo_id, tag=tag, revision=commit))
    except HfHubHTTPError as error:
        if error.response.status_code != 409:
            raise
        target = repository.tag_target(tag)
        if target is None or not same_tree(repository.files(target), plan.files):
            raise ConflictError(
                f"tag: {tag!r} of {repository.repo_id} was set to {target} meanwhile; the files "
                f"are published as {commit}, untagged: give another tag"
            ) from None


def _moved(repository: Repository, revision: str) -> ConflictError:
    commit = repository.last_commit(revision)
    author = ", ".join(commit.authors) or "somebody"
    return ConflictError(
        f"{repository.repo_id}: {author} moved {revision} to {commit.commit_id} "
        f"({commit.title!r}) meanwhile, and nothing was published; look at that commit, then run "
        "the same command again to publish on top of it"
    )


def _refuses_copies(error: Exception) -> bool:
    if isinstance(error, FileDuplicationError):
        return True
    if not isinstance(error, HfHubHTTPError) or is_transient(error):
        return False
    return error.response.request.url.path.endswith("/lfs-files/duplicate")
