"""What only a merged checkpoint can be asked."""

from __future__ import annotations

from hubsplice.checkpoint.manifest import Manifest
from hubsplice.errors import UnsupportedError


def require_merged(manifest: Manifest, command: str) -> None:
    """Refuse a carrier or an adapter, and say what to do instead.

    Args:
        manifest: of what was given.
        command: what it was given to.

    Raises:
        UnsupportedError: it is no checkpoint with edits.
    """
    if manifest.carrier is not None:
        raise UnsupportedError(
            f"{command}: it is an adapter; `hubsplice merge CARRIER ADAPTER` makes a checkpoint "
            f"of it, and that is what {command} takes"
        )
    if manifest.slots is not None:
        raise UnsupportedError(
            f"{command}: it is a carrier, which has no edits; `hubsplice verify` proves what it is"
        )
