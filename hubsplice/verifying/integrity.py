"""What the published files prove by themselves, beside the base: where every byte comes from.

These checks hold whoever wrote the manifest. One that was rewritten together with the files
explains no change away: a tensor must be the base's, or zero where the family's class has a bias
that the base's has not, or the constant that the intervention adds there, or belong to an inserted
layer whose attention adds nothing but a constant; a change of the configuration must be one that
such a splice makes. What the weights of inserted layers prove of the edit is in `proof`. What they
leave to read-outs takes streams of the base (`response`) or an engine (`behaviour`).
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from functools import partial
from pathlib import Path

from hubsplice.checkpoint.companions import SINGLE_WEIGHTS
from hubsplice.errors import HubspliceError
from hubsplice.files.digest import FileDigest
from hubsplice.files.meter import meter
from hubsplice.intervention.intervention import Intervention
from hubsplice.terminal import Progress
from hubsplice.verifying.carriers import SLOTS, slots_check
from hubsplice.verifying.checksum_list import checksum_problems
from hubsplice.verifying.claim import Claim
from hubsplice.verifying.config import config_problems
from hubsplice.verifying.contents import Contents
from hubsplice.verifying.edited_biases import edited_bias_check
from hubsplice.verifying.files import (
    OnRead,
    altered_files,
    companion_problems,
    unexpected_files,
)
from hubsplice.verifying.proof import NAMES as PROOF
from hubsplice.verifying.proof import proof_checks
from hubsplice.verifying.reproduction import (
    edits_anything,
    intervention_problems,
    recipe_problems,
    report_problems,
)
from hubsplice.verifying.result import Check
from hubsplice.verifying.tensors import NAMES, tensor_checks
from hubsplice.verifying.weights import StoredTensor


def integrity_checks(
    contents: Contents, claim: Claim, present: Collection[str] | None, progress: Progress
) -> tuple[Check, ...]:
    """Check everything that needs no engine; all that fails is found, not only the first.

    Args:
        contents: of the spliced checkpoint.
        claim: its manifest, and the base.
        present: the names of its files as they are published; None where they can't be listed.
        progress: told of every step, in bytes.

    Raises:
        CheckpointError: a file can't be read, or changes meanwhile.
    """
    folder, manifest, base = contents.folder, claim.manifest, claim.base
    stored, index_problems = contents.weights
    intervention, unreadable = contents.intervention
    if (folder / SINGLE_WEIGHTS).exists():
        second = f"{SINGLE_WEIGHTS}: servers would read it in place of the index"
        index_problems = [*index_problems, second]
    checks = [
        _base_check(claim, progress),
        *file_checks(
            folder,
            manifest.files,
            present,
            meter(
                _total(d.size for d in manifest.files.values()),
                partial(progress, "reading files"),
            ),
            made="a splice",
        ),
        Check.of(
            "companion files",
            companion_problems(base.folder, manifest.files, manifest.base.files),
            "tokenizer, templates and licences are the base's",
        ),
        Check.of("index", index_problems, "it agrees with the files that it lists"),
    ]
    wrong = claim.layer_map_problems()
    checks.append(
        Check.of(
            "layer map",
            wrong,
            f"{len(manifest.layers)} inserted among the base's {claim.architecture.num_layers}",
        )
    )
    if wrong:
        dependent = ("config", *NAMES, *((SLOTS,) if manifest.slots is not None else PROOF))
        checks += [Check.impossible(name, "the layer map is wrong") for name in dependent]
        if manifest.slots is not None:
            return tuple(checks)
    else:
        checks.append(_config_check(folder, claim))
        editing = _editing(intervention, claim)
        checks += _tensor_checks(claim, stored, editing, progress)
        if manifest.slots is not None:
            return (*checks, slots_check(claim, stored))
        checks += proof_checks(claim, _sound(intervention, claim), stored)
        if manifest.biases:
            checks.append(edited_bias_check(claim, intervention, stored))
    return (
        *checks,
        Check.of(
            "intervention",
            unreadable if intervention is None else intervention_problems(intervention, claim),
            "the manifest's edits, as data",
        ),
        Check.of("recipe", recipe_problems(contents, claim), "it asks for the manifest's edits"),
        Check.of("report", report_problems(contents, claim), "the manifest's figures are from it"),
    )


def file_checks(
    folder: Path,
    files: Mapping[str, FileDigest],
    present: Collection[str] | None,
    on_read: OnRead,
    *,
    made: str,
    own: frozenset[str] = frozenset(),
) -> tuple[Check, Check]:
    """Whether a folder holds the files that its manifest lists, and no others.

    Args:
        folder: of a checkpoint or an adapter.
        files: those that the manifest lists.
        present: the names of its files as they are published; None where they can't be listed.
        on_read: told of the bytes that are read.
        made: what the folder is, in words.
        own: the files that it has and a checkpoint does not.
    """
    return (
        Check.of(
            "checksums",
            altered_files(folder, files, on_read) + checksum_problems(folder, files),
            f"all {len(files)} files are the ones that the manifest lists",
        ),
        Check.impossible("no other files", "the repository's files can't be listed offline")
        if present is None
        else Check.of(
            "no other files",
            unexpected_files({*present} - own, {*files} - own),
            f"every file is listed and of a kind that {made} has",
        ),
    )


def _sound(intervention: Intervention | None, claim: Claim) -> Intervention | None:
    """The intervention, if its edits are those that the manifest lists."""
    if intervention is None or intervention_problems(intervention, claim):
        return None
    return intervention


def _base_check(claim: Claim, progress: Progress) -> Check:
    files = claim.manifest.base.files
    total = _total(digest.size for digest in files.values())
    return Check.of(
        "base",
        altered_files(
            claim.base.folder, files, meter(total, partial(progress, "reading the base"))
        ),
        "its files are those that the manifest lists",
    )


def _config_check(folder: Path, claim: Claim) -> Check:
    changes = ", ".join(sorted(claim.manifest.config_changes))
    return Check.of(
        "config", config_problems(folder, claim), f"the base's but for {changes or 'nothing'}"
    )


def _editing(intervention: Intervention | None, claim: Claim) -> list[int]:
    """The inserted layers whose edit is not zero everywhere, by index in the result."""
    if intervention is None:
        return []
    places = {site.place for site in intervention.sites if edits_anything(site)}
    editing = claim.manifest.editing_layers
    return [
        index
        for layer, index in zip(claim.manifest.layers, claim.inserted_indices, strict=True)
        if layer in editing and layer.place in places
    ]


def _tensor_checks(
    claim: Claim, stored: dict[str, StoredTensor], editing: list[int], progress: Progress
) -> tuple[Check, ...]:
    base = {
        entry.name: StoredTensor(shard.path, entry)
        for shard in claim.base.shards
        for entry in shard.tensors
    }
    total = _total(tensor.entry.size for tensor in stored.values())
    comparing = partial(progress, "comparing tensors")
    try:
        found = tensor_checks(claim, stored, base, editing, meter(total, comparing))
        # What differs early, or stands in one file only, is not read to its end.
        comparing(total, total)
        return found
    except HubspliceError as error:
        return tuple(Check.impossible(name, str(error)) for name in NAMES)


def _total(sizes: Iterable[int]) -> int:
    return max(1, sum(sizes))
