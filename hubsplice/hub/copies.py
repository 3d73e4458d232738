"""Which files the Hub can copy from the base's repository, so that nobody uploads them."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass

from huggingface_hub import HfApi
from huggingface_hub.errors import HfHubHTTPError
from huggingface_hub.hf_api import RepoFile

from hubsplice.checkpoint.manifest import BaseRecord
from hubsplice.hub.built import LocalFile
from hubsplice.hub.failures import is_transient, retried
from hubsplice.hub.repository import remote_file


@dataclass(frozen=True)
class CopySource:
    """A file in the base's repository.

    Attributes:
        repo_id: the base.
        commit: the full commit hash.
        path: the file's name there.
    """

    repo_id: str
    commit: str
    path: str


def copy_sources(
    api: HfApi, base: BaseRecord, files: Mapping[str, LocalFile], names: Collection[str]
) -> dict[str, CopySource]:
    """Where files with these very bytes are in the base's repository, by name here.

    Only files on Xet can be copied between repositories. Where the Hub does not show the base
    there is nothing to copy, and everything is uploaded.

    Args:
        api: the Hub.
        base: what the model was made from.
        files: everything to publish.
        names: those that the target does not hold yet.
    """
    if base.repo_id is None or base.commit is None:
        return {}
    by_content = {digest.sha256: name for name, digest in sorted(base.files.items(), reverse=True)}
    wanted = {
        name: by_content[files[name].digest.sha256]
        for name in names
        if files[name].digest.sha256 in by_content
    }
    if not wanted:
        return {}
    repo_id, commit = base.repo_id, base.commit
    try:
        entries = retried(
            lambda: api.get_paths_info(repo_id, sorted(set(wanted.values())), revision=commit)
        )
    except HfHubHTTPError as error:
        if is_transient(error):
            raise
        return {}
    sources = {e.path: remote_file(e) for e in entries if isinstance(e, RepoFile)}
    return {
        name: CopySource(repo_id, commit, path)
        for name, path in wanted.items()
        if path in sources and sources[path].on_xet and sources[path].holds(files[name])
    }
