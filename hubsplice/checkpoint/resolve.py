"""From the name of a base model to a local folder and, on the Hub, a commit."""

from __future__ import annotations

import glob
import re
from dataclasses import dataclass
from pathlib import Path

from hubsplice.checkpoint.base import BaseConfig
from hubsplice.checkpoint.companions import (
    CARD,
    COMPANION_PATTERNS,
    CONFIG,
    MANIFEST,
    NEVER_CARRIED,
    SINGLE_WEIGHTS,
    WEIGHTS_INDEX,
)
from hubsplice.checkpoint.manifest import BaseRecord
from hubsplice.errors import CheckpointError, HubspliceError, RecipeError, explained_by
from hubsplice.files.plain import exists, is_folder, not_a_folder
from hubsplice.transport import cause_of, is_failed_fetch

_OFF = "the Hub is switched off here, by HF_HUB_OFFLINE; unset that to fetch it"


@dataclass(frozen=True)
class ResolvedBase:
    """Where a base model's files are, and what they are a copy of.

    Attributes:
        folder: the local folder.
        repo_id: the Hub repository; None for a local base.
        commit: the full commit hash there; None for a local base.
        complete: whether nothing is to be fetched, since the folder itself was named.
    """

    folder: Path
    repo_id: str | None
    commit: str | None
    complete: bool = False


def resolve_recorded(record: BaseRecord, base: str | None) -> ResolvedBase:
    """Find the base of a spliced checkpoint, with its weights.

    Args:
        record: what the checkpoint's manifest says of it.
        base: a folder or repository to take instead; None takes what the record names.

    Raises:
        RecipeError: the record names a local folder alone, or as `resolve_base`.
        CheckpointError: as `resolve_base`.
    """
    if base is not None:
        return resolve_base(base, None, weights=True, field="--base")
    require_repository(record)
    assert record.repo_id is not None
    return resolve_base(record.repo_id, record.commit, weights=True)


def require_repository(record: BaseRecord) -> None:
    """Raise `RecipeError` where nobody else can have the base that a manifest names."""
    if record.repo_id is None:
        weights = record.first_weights
        raise RecipeError(
            f"base: the model was made from a local folder, {record.name!r}; say where it, or a "
            "copy of it, is with --base"
            + ("" if weights is None else f" (the SHA-256 of its {weights[0]} is {weights[1]})")
        )


def resolve_base(
    base_model: str, revision: str | None, *, weights: bool, field: str = "base_model"
) -> ResolvedBase:
    """Find a base model, downloading what is not there yet.

    From the Hub come the configuration, tokenizer, chat template, card, licence files and the
    index of the weights, never code or pickles.

    Args:
        base_model: a local folder, or a Hub model id; an existing folder wins. A snapshot in the
            Hub's cache is of its repository and commit.
        revision: a commit, branch or tag of the Hub repository; None for its default branch.
        weights: whether the safetensors shards are needed as well.
        field: what messages call the model: a field of a recipe, or an option such as `--model`.

    Raises:
        RecipeError: no such folder, repository or revision.
        CheckpointError: the repository is gated, or cannot be reached.
    """
    if not base_model:
        raise RecipeError(f"{field}: no model is named")
    folder = Path(base_model).expanduser()
    if is_folder(folder):
        if revision is not None:
            raise RecipeError(
                f"{_revision(field)}: {revision!r} was given, and {field} {base_model!r} is a "
                "local folder, which has none; remove the revision, or give a Hub model id"
            )
        return _of_cache(folder.absolute()) or ResolvedBase(folder, None, None, complete=True)
    if base_model.startswith(("/", "./", "../", "~")) or exists(folder):
        raise RecipeError(f"{field}: {base_model!r}: {not_a_folder(folder)}")
    resolved = _from_hub(base_model, revision, field)
    if weights:
        fetch_weights(resolved, field)
    return resolved


def _of_cache(folder: Path) -> ResolvedBase | None:
    """What a folder is a copy of, if it is a snapshot in a cache of the Hub's client."""
    snapshots, repository = folder.parent, folder.parent.parent.name
    kind, *parts = repository.split("--", 2)
    if kind != "models" or not parts or snapshots.name != "snapshots":
        return None
    if re.fullmatch("[0-9a-f]{40}|[0-9a-f]{64}", folder.name) is None:
        return None
    return ResolvedBase(folder, "/".join(parts), folder.name, complete=True)


def fetch_weights(base: ResolvedBase, field: str = "base_model") -> None:
    """Download the weights that belong to a base whose configuration is there.

    Args:
        base: where its configuration is.
        field: what messages call it, as in `resolve_base`.

    Raises:
        CheckpointError: the repository is gated, or cannot be reached.
    """
    if base.repo_id is None or base.complete:
        return
    # Which shards there are is read from the index first: a repository may hold the same weights
    # a second time under another name.
    weight_map = BaseConfig.open(base.folder).weight_map
    shards = {SINGLE_WEIGHTS} if weight_map is None else set(weight_map.values())
    _snapshot(base.repo_id, base.commit, field, allow=sorted(map(glob.escape, shards)), ignore=[])


def _from_hub(repo_id: str, revision: str | None, field: str) -> ResolvedBase:
    description = [CONFIG, WEIGHTS_INDEX, MANIFEST, CARD, *COMPANION_PATTERNS]
    never = [pattern for pattern in NEVER_CARRIED if pattern != "*.safetensors.index.json"]
    folder = _snapshot(repo_id, revision, field, allow=description, ignore=never)
    # The cache names a snapshot's folder after its commit.
    return ResolvedBase(folder, repo_id, folder.name)


def _snapshot(
    repo_id: str, revision: str | None, field: str, *, allow: list[str], ignore: list[str]
) -> Path:
    from huggingface_hub import snapshot_download

    with explained_by(lambda error: _explained(error, repo_id, revision, field)):
        return Path(
            snapshot_download(
                repo_id, revision=revision, allow_patterns=allow, ignore_patterns=ignore
            )
        )


def _revision(field: str) -> str:
    """What messages call the revision of what they call `field`."""
    before, _, last = field.rpartition(": ")
    named = "--revision" if last.startswith("--") else "revision"
    return f"{before}: {named}" if before else named


def _explained(
    error: Exception, repo_id: str, revision: str | None, field: str
) -> HubspliceError | None:
    """What a failed download means to a user; None for what only a developer can explain."""
    from huggingface_hub import constants, errors

    model = f"{field}: {repo_id!r}"
    at = "" if revision is None else f" at revision {revision!r}"
    if isinstance(error, errors.HFValidationError):
        return RecipeError(
            f"{model} is neither an existing folder nor a Hub model id (`owner/name`)"
        )
    if isinstance(error, errors.GatedRepoError):
        return CheckpointError(
            f"{model} is gated: accept its terms at https://huggingface.co/{repo_id} and log in "
            "with `hf auth login`"
        )
    if isinstance(error, errors.RepositoryNotFoundError):
        return RecipeError(
            f"{model} is neither an existing folder nor a model on the Hub that you can see; "
            "check the spelling, and for a private model log in with `hf auth login`"
        )
    if isinstance(error, errors.RevisionNotFoundError):
        return RecipeError(
            f"{_revision(field)}: {revision!r} is no commit, branch or tag of {repo_id}"
        )
    if is_failed_fetch(error):
        reason = _OFF if constants.HF_HUB_OFFLINE else cause_of(error)
        return CheckpointError(
            f"{model}{at} could not be fetched and is not in the local cache: {reason}"
        )
    return None
