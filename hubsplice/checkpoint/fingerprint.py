"""What tells a carrier from every other."""

from __future__ import annotations

import json

from hubsplice.checkpoint.companions import MANIFEST
from hubsplice.checkpoint.manifest import Manifest, SlotsRecord
from hubsplice.errors import CheckpointError
from hubsplice.files.digest import digest_bytes


def recorded_slots(manifest: Manifest) -> SlotsRecord:
    """The slots of a carrier, as its manifest has them.

    Raises:
        CheckpointError: the manifest is of no carrier.
    """
    if manifest.slots is None:
        raise CheckpointError(
            f"{MANIFEST}: it is of no carrier; `hubsplice carrier` makes one of a base"
        )
    return manifest.slots


def carrier_fingerprint(manifest: Manifest) -> str:
    """The SHA-256 of a carrier's base weights, class, layers and slots, as its manifest has them.

    Raises:
        CheckpointError: the manifest is of no carrier.
    """
    told = {
        "weights": {
            name: digest.sha256
            for name, digest in manifest.base.files.items()
            if name.endswith(".safetensors")
        },
        "class": manifest.architectures.after,
        "layers": [layer.model_dump(mode="json") for layer in manifest.layer_map],
        "slots": recorded_slots(manifest).model_dump(mode="json", exclude_defaults=True),
    }
    return digest_bytes(json.dumps(told, sort_keys=True).encode()).sha256
