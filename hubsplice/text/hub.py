"""Text from a dataset on the Hub, streamed so that only what is needed is fetched."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from hubsplice.errors import (
    CheckpointError,
    HubspliceError,
    RecipeError,
    explained_by,
    unknown_name,
)
from hubsplice.recipe.models import TextSource
from hubsplice.text.columns import text_of
from hubsplice.text.documents import Corpus, Document
from hubsplice.transport import cause_of, is_nonsense


def hub_corpus(source: TextSource, *, section: str) -> Corpus:
    """A dataset's rows, each a document, at the commit that its revision stands for now.

    Args:
        source: the dataset, its configuration, split, column and revision.
        section: the recipe's section, for messages.

    Raises:
        RecipeError: no such dataset, configuration, split, column or revision, or the dataset is
            code to run.
        CheckpointError: the Hub cannot be reached, or the dataset is gated. Reading the documents
            raises it too.
    """
    with explained_by(lambda error: _explained(error, source, section)):
        commit = _commit(source)
        splits = _splits(source, commit)
    if source.split not in splits:
        raise RecipeError(unknown_name(f"{section}.split", source.split, splits))
    documents = filter(None, map(Document.of, _texts(splits[source.split], source, section)))
    return Corpus(source.dataset, commit, documents)


def _commit(source: TextSource) -> str:
    from huggingface_hub import HfApi

    commit = HfApi().dataset_info(source.dataset, revision=source.revision).sha
    if commit is None:
        raise CheckpointError(f"{source.dataset}: the Hub names no commit")
    return commit


def _splits(source: TextSource, commit: str) -> Mapping[str, Any]:
    import datasets

    return datasets.load_dataset(source.dataset, source.config, revision=commit, streaming=True)


def _texts(rows: Any, source: TextSource, section: str) -> Iterator[str]:
    field = f"{section}.column"
    columns = rows.column_names
    if columns is not None and source.column not in columns:
        raise RecipeError(unknown_name(field, source.column, columns))
    remaining = iter(rows if columns is None else rows.select_columns([source.column]))
    number = 0
    while True:
        with explained_by(lambda error: _explained(error, source, section)):
            row = next(remaining, None)
        if row is None:
            return
        number += 1
        yield text_of(row, source.column, field=field, where=f"{source.dataset}, row {number}")


def _explained(error: Exception, source: TextSource, section: str) -> HubspliceError | None:
    """What a failure means to a user; None for what only a developer can explain."""
    from datasets.exceptions import DatasetsError
    from huggingface_hub import errors

    dataset = f"{section}.dataset: {source.dataset!r}"
    if isinstance(error, errors.HFValidationError):
        return RecipeError(
            f"{dataset} is neither `builtin`, nor an existing file or folder, nor a Hub dataset "
            "id (`owner/name`)"
        )
    if isinstance(error, errors.GatedRepoError):
        return CheckpointError(
            f"{dataset} is gated: accept its terms on its page and log in with `hf auth login`"
        )
    if isinstance(error, errors.RepositoryNotFoundError):
        return RecipeError(
            f"{dataset} is neither an existing file or folder, nor a dataset on the Hub that you "
            "can see; check the spelling, and for a private one log in with `hf auth login`"
        )
    if isinstance(error, errors.RevisionNotFoundError):
        return RecipeError(
            f"{section}.revision: {source.revision!r} is no commit, branch or tag of "
            f"{source.dataset}"
        )
    # datasets says so of an unknown or missing configuration, and names those that there are.
    if isinstance(error, ValueError) and "onfig" in str(error):
        return RecipeError(f"{section}.config: {source.config!r}: {_on_one_line(error)}")
    if isinstance(error, RuntimeError) and "scripts" in str(error):
        return RecipeError(f"{dataset} is a Python script, and hubsplice never runs one")
    if is_nonsense(error):
        return CheckpointError(f"{dataset} could not be read from the Hub: {cause_of(error)}")
    if isinstance(error, OSError | DatasetsError):
        return CheckpointError(
            f"{dataset} could not be read from the Hub: {_on_one_line(error)} "
            "(`builtin` and local files need no network)"
        )
    return None


def _on_one_line(error: Exception) -> str:
    return " ".join(str(error).split()) or type(error).__name__
