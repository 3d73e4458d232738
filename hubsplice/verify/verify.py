"""Verifying a spliced checkpoint: what its files prove, and what an engine makes of them."""

from __future__ import annotations

from hubsplice.checkpoint.base import BaseCheckpoint
from hubsplice.checkpoint.companions import MANIFEST
from hubsplice.checkpoint.manifest import Manifest, read_manifest
from hubsplice.checkpoint.resolve import ResolvedBase, resolve_base
from hubsplice.errors import RecipeError
from hubsplice.terminal import Progress
from hubsplice.verify.claim import Claim
from hubsplice.verify.integrity import integrity_checks
from hubsplice.verify.result import Verification
from hubsplice.verify.source import find_published


def verify(
    model: str, *, base: str | None, revision: str | None, progress: Progress
) -> Verification:
    """Verify a spliced checkpoint against its base.

    Args:
        model: the checkpoint's folder, or its Hub repository.
        base: the base's folder or repository; None takes the one in the manifest, at the commit
            that it names.
        revision: of the checkpoint's repository.
        progress: told of every step.

    Returns:
        Every check, passed or not; `passed` over all.

    Raises:
        HubspliceError: there is nothing to check: no manifest, no base, or files that can't be
            read.
    """
    published = find_published(model, revision)
    manifest = read_manifest(published.folder / MANIFEST)
    resolved = _resolve(manifest, base)
    claim = Claim.of(manifest, BaseCheckpoint.open(resolved.folder))
    checks = integrity_checks(published.folder, claim, published.files, progress)
    held = (
        f"every tensor of {manifest.base.name} is in it byte for byte, and nothing else but "
        f"{len(manifest.layers)} inserted layer{'' if len(manifest.layers) == 1 else 's'} and "
        "zero biases"
    )
    return Verification.of(published.name, _named(manifest), checks, held)


def _resolve(manifest: Manifest, base: str | None) -> ResolvedBase:
    record = manifest.base
    if base is not None:
        return resolve_base(base, None, weights=True)
    if record.repo_id is None:
        raise RecipeError(
            f"base: the model was made from a local folder, {record.name!r}; say where it is with "
            "--base"
        )
    return resolve_base(record.repo_id, record.commit, weights=True)


def _named(manifest: Manifest) -> str:
    commit = manifest.base.commit
    return manifest.base.name if commit is None else f"{manifest.base.name} at {commit}"
