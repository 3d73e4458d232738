"""Finding the checkpoint that is verified: a folder, or a Hub repository."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager, suppress
from dataclasses import dataclass
from pathlib import Path

from hubsplice.card.words import PICTURES as AUTHORS_PICTURES
from hubsplice.card.words import WORDS
from hubsplice.checkpoint.checksums import CHECKSUMS
from hubsplice.checkpoint.companions import COMPANION_PATTERNS, NEVER_CARRIED
from hubsplice.errors import HubError, HubspliceError, RecipeError, explained_by
from hubsplice.files.plain import exists, is_folder, not_a_folder
from hubsplice.pictures.drawing import PICTURES
from hubsplice.transport import cause_of, is_failed_fetch
from hubsplice.verifying.files import is_hidden, visible_files

_READ = (
    "*.safetensors",
    "*.json",
    "*.yaml",
    "*.md",
    "*.txt",
    *PICTURES,
    *(f"{WORDS}/*{ending}" for ending in AUTHORS_PICTURES),
    CHECKSUMS,
    *COMPANION_PATTERNS,
)
_NEVER = tuple(p for p in NEVER_CARRIED if p not in ("*.safetensors", "*.safetensors.index.json"))


@dataclass(frozen=True)
class Published:
    """A spliced checkpoint at hand.

    Attributes:
        folder: where its files are.
        name: what to call it: the folder as it was given, or the repository and commit.
        files: the names of all files that were published, those not fetched among them; None
            where the Hub can't be asked and only its cache is there.
        repo_id: the repository; None for a folder.
    """

    folder: Path
    name: str
    files: frozenset[str] | None
    repo_id: str | None = None


def find_published(model: str, revision: str | None, wanted: Sequence[str] = _READ) -> Published:
    """Find a spliced checkpoint, downloading what is not there yet: never code or pickles.

    Args:
        model: a local folder, or a Hub model id; an existing folder wins.
        revision: a commit, branch or tag of the Hub repository; None for its default branch.
        wanted: patterns of the files to download.

    Raises:
        RecipeError: no such folder, repository or revision.
        HubError: the Hub refuses, or can't be reached.
    """
    if not model:
        raise RecipeError("no model is named; expected a folder or a Hub model id (`owner/name`)")
    folder = Path(model).expanduser()
    if is_folder(folder):
        if revision is not None:
            raise RecipeError(
                f"--revision: {revision!r} was given, and {model!r} is a local folder, which has "
                "none; remove it, or give a Hub model id"
            )
        return Published(folder, model, frozenset(visible_files(folder)))
    if model.startswith(("/", "./", "../", "~")) or exists(folder):
        raise RecipeError(f"{model!r}: {not_a_folder(folder)}")
    if "/" not in model:
        # No spliced model has one of the Hub's old names without an owner: nothing is to be asked.
        raise RecipeError(
            f"{model!r}: there is no such folder here, and a Hub model id names its owner "
            "(`owner/name`)"
        )
    return _download(model, revision, wanted)


def _download(repo_id: str, revision: str | None, wanted: Sequence[str]) -> Published:
    from huggingface_hub import HfApi, errors, snapshot_download

    listed = None
    with fetch_errors(repo_id, revision):
        folder = Path(
            snapshot_download(
                repo_id,
                revision=revision,
                allow_patterns=list(wanted),
                ignore_patterns=list(_NEVER),
            )
        )
        with suppress(errors.OfflineModeIsEnabled):
            # The cache names a snapshot's folder after its commit, and branches move.
            info = HfApi().model_info(repo_id, revision=folder.name)
            listed = frozenset(
                file.rfilename for file in info.siblings or () if not is_hidden(file.rfilename)
            )
    return Published(folder, f"{repo_id} at {folder.name}", listed, repo_id)


def fetch_errors(repo_id: str, revision: str | None) -> AbstractContextManager[None]:
    """Turn what the Hub's client raises over a checkpoint into errors that name it.

    Raises:
        RecipeError: no such repository or revision.
        HubError: the Hub refuses, or can't be reached.
    """
    return explained_by(lambda error: _explained(error, repo_id, revision))


def _explained(error: Exception, repo_id: str, revision: str | None) -> HubspliceError | None:
    from huggingface_hub import errors

    if isinstance(error, errors.HFValidationError):
        return RecipeError(
            f"{repo_id!r} is neither an existing folder nor a Hub model id (`owner/name`)"
        )
    if isinstance(error, errors.RevisionNotFoundError):
        return RecipeError(f"--revision: {revision!r} is no commit, branch or tag of {repo_id}")
    if isinstance(error, errors.RepositoryNotFoundError):
        return RecipeError(
            f"{repo_id!r} is neither an existing folder nor a model on the Hub that you can see; "
            "check the spelling, and for a private model log in with `hf auth login`"
        )
    if is_failed_fetch(error):
        no_folder = f"there is no folder {repo_id!r} here, and on the Hub it"
        subject = f"{repo_id}:" if "/" in repo_id else no_folder
        return HubError(f"{subject} could not be fetched: {cause_of(error)}")
    return None
