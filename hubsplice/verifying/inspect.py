"""Inspecting a spliced checkpoint: what its inserted layers do, said from their weights."""

from __future__ import annotations

from collections.abc import Container, Iterable
from pathlib import Path
from typing import Any

from pydantic import Field

from hubsplice.checkpoint.base import read_weight_map
from hubsplice.checkpoint.companions import CONFIG, MANIFEST, WEIGHTS_INDEX
from hubsplice.checkpoint.layout import DTYPE_NAMES
from hubsplice.checkpoint.manifest import Manifest, read_manifest
from hubsplice.checkpoint.merged import require_merged
from hubsplice.compiling.linker import Linker
from hubsplice.errors import CheckpointError
from hubsplice.explore.sae_names import sae_source
from hubsplice.families.architecture import Architecture
from hubsplice.families.served import built_architecture
from hubsplice.files.strict_json import read_object
from hubsplice.intervention.saved import INTERVENTION, load_intervention
from hubsplice.proving.inspection import InspectedLayer, RecoveredPart, inspected_layers
from hubsplice.proving.stored_layer import ReadTensor
from hubsplice.rendering.content import Line, Part, Table, Tone
from hubsplice.rendering.rendered import Rendered
from hubsplice.verifying.nearest import NearestFeatures, nearest_features
from hubsplice.verifying.proof import reader
from hubsplice.verifying.remote import RemoteTensors
from hubsplice.verifying.result import Record
from hubsplice.verifying.source import Published, find_published
from hubsplice.verifying.weights import read_weights

_SMALL = (CONFIG, MANIFEST, WEIGHTS_INDEX, INTERVENTION)


class Inspection(Rendered, Record):
    """What the inserted layers of one checkpoint do.

    Attributes:
        model: its folder, or its repository and commit.
        agrees: whether the weights do what the intervention says, as far as they show.
        layers: the layer of every splice.
        features: what the edits are nearest to in an SAE, if one was named.
    """

    model: str
    agrees: bool = Field(description="Whether nothing in the weights speaks against the edits.")
    layers: tuple[InspectedLayer, ...]
    features: tuple[NearestFeatures, ...] = Field(
        (), description="The nearest features of each edit, in the SAE that was named."
    )

    def content(self) -> Iterable[Part]:
        """What every layer does, and what is wrong or unproven."""
        yield Line(
            "The weights of the inserted layers hold the edits, and nothing else."
            if self.agrees
            else "The weights of the inserted layers hold something that is NOT the edits.",
            Tone.of(self.agrees),
        )
        for layer in self.layers:
            yield Table.of_text(
                ("part", "neurons", "strength", "from p", "reads", "writes"),
                tuple(map(_row, layer.parts)),
                f"After layer {layer.place}: layer {layer.index}, {layer.used:,} of "
                f"{layer.neurons:,} neurons used, {layer.guard} of them for attention sinks",
            )
            for problem in layer.problems[:20]:
                yield Line(problem)
            for text in layer.unproven:
                yield Line(f"Not proven by weights: {text}")
        if self.features:
            yield Table.of_text(
                ("edit", "declared", "reads", "cosine", "writes", "cosine"),
                tuple(map(_feature_row, self.features)),
                "Nearest features of the SAE",
            )


def _row(part: RecoveredPart) -> tuple[str, ...]:
    return (
        f"{part.label}: {part.part}",
        str(part.neurons),
        "by a read-out" if part.strength is None else f"{part.strength:.4g}",
        "" if part.at is None else f"{part.at:.4g}",
        "" if part.reads is None else f"{part.reads:.5f}",
        f"{part.writes:.5f}",
    )


def _feature_row(found: NearestFeatures) -> tuple[str, ...]:
    reads = found.reads
    mark = " (another one)" if found.as_declared is False else ""
    return (
        f"after layer {found.place}: {found.label}",
        "none" if found.declared is None else str(found.declared),
        "" if reads is None else f"{reads.feature}{mark}",
        "" if reads is None else f"{reads.cosine:.5f}",
        str(found.writes.feature),
        f"{found.writes.cosine:.5f}",
    )


def inspect(model: str, *, revision: str | None, sae: str | None = None) -> Inspection:
    """Say what the inserted layers of a checkpoint do.

    Of a repository, only the bytes of inserted layers are downloaded, and small files.

    Args:
        model: the checkpoint's folder, or its Hub repository.
        revision: of the repository.
        sae: an SAE whose features the edits are compared with, named as for `find`.

    Raises:
        HubspliceError: there is nothing to inspect, or the Hub can't be reached.
    """
    source = None if sae is None else sae_source(sae)
    published = find_published(model, revision, _SMALL)
    folder = published.folder
    manifest = read_manifest(folder / MANIFEST)
    require_merged(manifest, "inspect")
    architecture = built_architecture(manifest, _base_config(folder, manifest))
    dtype = next((d for d in DTYPE_NAMES if str(d) == f"torch.{manifest.dtype}"), None)
    if dtype is None:
        raise CheckpointError(f"{MANIFEST}: dtype: found {manifest.dtype!r}, expected one of torch")
    read = _reader(published, manifest, architecture)
    intervention = load_intervention(folder / INTERVENTION)
    layers = tuple(inspected_layers(architecture, manifest, dtype, intervention, read))
    return Inspection(
        model=published.name,
        agrees=not any(layer.problems for layer in layers),
        layers=layers,
        features=()
        if source is None
        else nearest_features(manifest, intervention, architecture, source),
    )


def _base_config(folder: Path, manifest: Manifest) -> dict[str, Any]:
    """The base's config.json, by the changes that the manifest declares."""
    config = dict(read_object(folder / CONFIG, source=CONFIG))
    for key, change in manifest.config_changes.items():
        sides = change.model_dump()
        if "before" in sides:
            config[key] = sides["before"]
        else:
            config.pop(key, None)
    return config


def _names(manifest: Manifest, architecture: Architecture) -> list[str]:
    linker = Linker(architecture, manifest.layer_map)
    return [
        name for splice in range(len(manifest.layers)) for name in linker.inserted_layout(splice)
    ]


def _reader(published: Published, manifest: Manifest, architecture: Architecture) -> ReadTensor:
    """Reads the inserted layers' tensors, which are there; of a repository, over the network."""
    needed = _names(manifest, architecture)
    if published.repo_id is not None:
        weight_map = read_weight_map(published.folder / WEIGHTS_INDEX)
        files = {weight_map[name] for name in needed if name in weight_map}
        # An earlier command may have downloaded them.
        if not all((published.folder / file).exists() for file in files):
            remote = RemoteTensors(published.repo_id, published.folder.name, files)
            _require(published, needed, remote, [])
            return remote.read
    stored, problems = read_weights(published.folder)
    _require(published, needed, stored, problems)
    return reader(stored)


def _require(
    published: Published, needed: list[str], there: Container[str], problems: list[str]
) -> None:
    missing = [name for name in needed if name not in there]
    if missing:
        why = f"; {'; '.join(problems[:2])}" if problems else ""
        raise CheckpointError(f"{published.name}: {missing[0]}: missing{why}")
