"""Single files from the Hub, with errors that name what was asked for."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from huggingface_hub import hf_hub_download
from huggingface_hub.errors import (
    EntryNotFoundError,
    HfHubHTTPError,
    HFValidationError,
    LocalEntryNotFoundError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)

from hubsplice.errors import CheckpointError, RecipeError, from_transport
from hubsplice.transport import cause_of, is_nonsense


@dataclass(frozen=True)
class HubFile:
    """A downloaded file and the commit that it belongs to."""

    path: Path
    commit: str


def fetch(repo_id: str, filename: str, revision: str | None) -> HubFile:
    """Download one file, or take it from the cache.

    Raises:
        RecipeError: no such repository, revision or file.
        CheckpointError: the Hub cannot be reached, and the file isn't cached.
    """
    where = f"{repo_id}" + (f" at {revision}" if revision else "")
    try:
        path = Path(hf_hub_download(repo_id, filename, revision=revision))
    except LocalEntryNotFoundError as error:
        raise CheckpointError(
            f"{where}: {filename} is not in the cache, and the Hub cannot be reached: "
            f"{cause_of(error)}"
        ) from None
    except HFValidationError as error:
        raise RecipeError(f"repo_id: {repo_id!r} is not a repository's name: {error}") from None
    except RevisionNotFoundError:
        raise RecipeError(
            f"revision: {repo_id} has no commit, branch or tag {revision!r}"
        ) from None
    except RepositoryNotFoundError:
        raise RecipeError(
            f"repo_id: there is no repository {repo_id!r}, or it is private and you are not "
            "logged in"
        ) from None
    except EntryNotFoundError:
        raise RecipeError(f"{where} holds no {filename}") from None
    except HfHubHTTPError as error:
        raise CheckpointError(f"{where}: {filename} cannot be fetched: {cause_of(error)}") from None
    except Exception as error:
        if not from_transport(error) and not is_nonsense(error):
            raise
        raise CheckpointError(f"{where}: {filename} cannot be fetched: {cause_of(error)}") from None
    # The cache lays files out as snapshots/<commit>/<filename>.
    return HubFile(path, path.parents[len(Path(filename).parts) - 1].name)
