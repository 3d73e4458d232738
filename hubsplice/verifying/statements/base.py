"""What a manifest says of its base, against the base that was opened."""

from __future__ import annotations

from hubsplice.checkpoint.base import BaseCheckpoint
from hubsplice.checkpoint.companions import CARD, CONFIG, MANIFEST, WEIGHTS_INDEX, companion_files
from hubsplice.checkpoint.manifest import read_previous_splice
from hubsplice.checkpoint.resolve import ResolvedBase
from hubsplice.checkpoint.terms import card_terms
from hubsplice.errors import CheckpointError
from hubsplice.verifying.claim import Claim
from hubsplice.verifying.statements.ledger import Comparison


def base_record(claim: Claim, opened: ResolvedBase) -> Comparison:
    """Compare the record of the base with the base.

    That it is the repository at the commit which the manifest names is shown only if it was opened
    from there; a folder that holds the same files may have come from anywhere.
    """
    found = Comparison(claim.manifest)
    record = claim.manifest.base
    if opened.repo_id is not None and (opened.repo_id, opened.commit) == (
        record.repo_id,
        record.commit,
    ):
        found.shown |= {("base", name) for name in ("name", "repo_id", "commit")}
    _list_files(found, claim)
    _compare_terms(found, opened)
    previous = claim.base.previous_splice
    if previous is not None:
        try:
            expected = read_previous_splice(previous).model_dump(mode="json")
        except CheckpointError as error:
            found.problems.append(f"base.previous: {error}")
        else:
            found.shows("base", "previous", expected=expected, source="from the base's manifest")
    return found


def _list_files(found: Comparison, claim: Claim) -> None:
    """The base's files are compared by the manifest's list, so that must be whole."""
    listed = claim.manifest.base.files
    expected = set(_read_for_a_splice(claim.base))
    found.problems += [
        f"base.files: {name}: not listed, and a splice is made from it"
        for name in sorted(expected - listed.keys())
    ]
    found.problems += [
        f"base.files: {name}: listed, and no splice is made from it"
        for name in sorted(listed.keys() - expected)
    ]


def _read_for_a_splice(base: BaseCheckpoint) -> list[str]:
    there = (name for name in (CONFIG, WEIGHTS_INDEX, MANIFEST) if (base.folder / name).exists())
    return [*(shard.path.name for shard in base.shards), *companion_files(base.folder), *there]


def _compare_terms(found: Comparison, opened: ResolvedBase) -> None:
    if not (opened.folder / CARD).is_file():
        return
    # Whether the Hub asks for an agreement changes with time.
    expected = card_terms(opened.folder).model_dump(mode="json", exclude={"gated"})
    for name, value in expected.items():
        found.shows("base", "terms", name, expected=value, source="from the base's card")
