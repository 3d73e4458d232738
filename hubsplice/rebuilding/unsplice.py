"""`hubsplice unsplice`: the base, given back from a spliced model.

A splice moves no byte of the base's tensors: it names them anew, in files whose data is the base's.
So the base's files come back from new headers. What a header or config.json looked like is known
from their checksums, which the manifest has.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from hubsplice.checkpoint.base_shard import write_base_shard
from hubsplice.checkpoint.companions import CONFIG, MANIFEST, WEIGHTS_INDEX, is_companion
from hubsplice.checkpoint.layout import ShardLayout
from hubsplice.checkpoint.manifest import Manifest, read_manifest
from hubsplice.checkpoint.original_config import original_config
from hubsplice.compiling.linker import Linker
from hubsplice.errors import CheckpointError, RecipeError
from hubsplice.families.served import built_architecture
from hubsplice.files.digest import FileDigest, digest_bytes
from hubsplice.files.meter import meter
from hubsplice.files.plain import exists, is_folder, not_a_folder, read_plain
from hubsplice.files.safetensors_header import Header, read_header, serialize_header
from hubsplice.files.staging import refuse_inside, staged_directory
from hubsplice.files.strict_json import parse_object
from hubsplice.rendering.content import Line, Part, Tone
from hubsplice.rendering.rendered import Rendered
from hubsplice.terminal import Progress

_WEIGHTS = ".safetensors"


@dataclass(frozen=True, repr=False)
class Unspliced(Rendered):
    """A base that was given back.

    Attributes:
        folder: where it is.
        base: what the manifest calls it.
        tensors: how many there are, with the bytes that they had.
        exact: the files that are the base's, byte for byte, by the manifest's checksums of them.
        alike: the files that say the same as the base's in other bytes: a header or JSON that was
            written another way.
        missing: the files that the base had and the spliced model has not.
    """

    folder: Path
    base: str
    tensors: int
    exact: tuple[str, ...]
    alike: tuple[str, ...]
    missing: tuple[str, ...]

    def content(self) -> Iterable[Part]:
        """What came back, and what did not."""
        yield Line(self.verdict, Tone.GOOD)
        if self.alike:
            yield Line(
                f"With the same content in other bytes: {', '.join(self.alike)}. Headers and JSON "
                "can be written in more than one way.",
                Tone.CAUTION,
            )
        if self.missing:
            yield Line(f"Not there to give back: {', '.join(self.missing)}.", Tone.CAUTION)
        yield Line(
            "A splice carries no model card of the base, no weights in other formats and no code; "
            "those are where the base came from.",
            Tone.FAINT,
        )
        yield Line(f"The base is in {self.folder}")

    @property
    def verdict(self) -> str:
        """One sentence."""
        weights = [name for name in self.alike if name.endswith(_WEIGHTS)]
        held = "in files with its checksums" if not weights else "in files with other headers"
        return (
            f"Unspliced: {self.tensors} tensors of {self.base}, {held}; {len(self.exact)} of "
            f"{len(self.exact) + len(self.alike)} files are the base's byte for byte, as the "
            "manifest lists them."
        )


def unsplice(folder: Path, output: Path, progress: Progress) -> Unspliced:
    """Write the base of a spliced model into a new folder, which appears whole or not at all.

    Args:
        folder: the spliced model.
        output: the new folder; missing or empty.
        progress: told of every step.

    Raises:
        RecipeError: there is no such folder.
        CheckpointError: a file was altered after the build, or the manifest is not of these files.
        OutputError: the output is not empty, lies in the model's folder, or can't be written.
    """
    if not is_folder(folder):
        raise RecipeError(f"{folder}: {not_a_folder(folder)}{_how_to_download(folder)}")
    refuse_inside(folder, output)
    manifest = read_manifest(folder / MANIFEST)
    config = _original_config(folder, manifest)
    architecture = built_architecture(manifest, config)
    linker = Linker(architecture, manifest.layer_map)
    shards = tuple(_shards(folder, manifest, linker))
    total = sum(shard.size for shard in shards)
    report = meter(total, partial(progress, "writing"))
    written: dict[str, FileDigest] = {}
    with staged_directory(output) as staging:
        for shard in shards:
            source, written[shard.name] = write_base_shard(
                shard, staging / shard.name, hard_link=False, on_done=report
            )
            _require_listed(shard.source.path, source, manifest)
        for name in sorted(filter(is_companion, manifest.files)):
            written[name] = _write(staging / name, _listed_bytes(folder / name, name, manifest))
        wanted = manifest.base.files
        written[CONFIG] = _write(staging / CONFIG, _as_before(CONFIG, [config], wanted))
        if WEIGHTS_INDEX in wanted:
            written[WEIGHTS_INDEX] = _write(
                staging / WEIGHTS_INDEX, _as_before(WEIGHTS_INDEX, _indices(shards), wanted)
            )
    exact = tuple(sorted(name for name, digest in written.items() if wanted.get(name) == digest))
    return Unspliced(
        folder=output,
        base=manifest.base.name,
        tensors=sum(len(shard.tensor_names) for shard in shards),
        exact=exact,
        alike=tuple(sorted(set(written) - set(exact))),
        missing=tuple(sorted(set(wanted) - set(written))),
    )


def _how_to_download(name: Path) -> str:
    if exists(name) or not re.fullmatch(r"[\w.-]+/[\w.-]+", str(name)):
        return ""
    return (
        f"; to unsplice a Hub repository, download it first: hf download {name} --local-dir FOLDER"
    )


def _original_config(folder: Path, manifest: Manifest) -> dict[str, Any]:
    data = _listed_bytes(folder / CONFIG, CONFIG, manifest)
    return original_config(parse_object(data, source=CONFIG), manifest.config_changes)


def _shards(folder: Path, manifest: Manifest, linker: Linker) -> Iterator[ShardLayout]:
    """The base's files, each from the one that holds its data."""
    spliced, base = (
        sorted(name for name in files if name.endswith(_WEIGHTS) and "/" not in name)
        for files in (manifest.files, manifest.base.files)
    )
    if not base or not len(base) <= len(spliced) <= len(base) + 1:
        raise CheckpointError(
            f"{MANIFEST}: it lists {len(spliced)} files of weights, and {len(base)} of the base: "
            "the base's can't be told from the one that a splice adds"
        )
    for name, original in zip(spliced, base, strict=False):
        header = read_header(folder / name)
        entries = []
        for tensor in header.tensors:
            before = linker.original_name(tensor.name)
            if before is None:
                raise CheckpointError(
                    f"{folder / name}: {tensor.name!r} is of an inserted layer, and a splice puts "
                    "those into a file of their own"
                )
            entries.append(replace(tensor, name=before))
        joined = tuple(linker.architecture.joined(entries))
        names = tuple(tensor.name for tensor in joined)
        same = manifest.files[name] == manifest.base.files[original]
        # The header that fills what the data leaves of the base's file is most likely the base's.
        room = manifest.base.files[original].size - header.data_size
        text = None if same else _header(header, joined, room)
        yield ShardLayout(header, original, text, names, names)


def _header(source: Header, tensors: Iterable[Any], room: int) -> bytes:
    compact = serialize_header(tuple(tensors), source.metadata, data_start=source.data_start)
    text = compact[8:].rstrip(b" ")
    if not len(text) <= room - 8 <= len(text) + 4096:
        return compact
    return (room - 8).to_bytes(8, "little") + text.ljust(room - 8)


def _indices(shards: Iterable[ShardLayout]) -> Iterator[dict[str, Any]]:
    """What the index may have been: later versions of transformers count parameters too."""
    shards = tuple(shards)
    weight_map = {name: shard.name for shard in shards for name in shard.tensor_names}
    size = {"total_size": sum(shard.source.data_size for shard in shards)}
    elements = sum(_elements(shard.source) for shard in shards)
    yield {"metadata": size, "weight_map": weight_map}
    yield {"metadata": {"total_parameters": elements, **size}, "weight_map": weight_map}


def _elements(header: Header) -> int:
    total = 0
    for tensor in header.tensors:
        count = 1
        for size in tensor.shape:
            count *= size
        total += count
    return total


def _as_before(
    name: str, contents: Iterable[Mapping[str, Any]], wanted: Mapping[str, FileDigest]
) -> bytes:
    """The bytes that the base had, where one of the usual ways of writing gives its checksum."""
    written: list[Callable[[Mapping[str, Any]], str]] = [
        lambda content: json.dumps(content, indent=2, sort_keys=True) + "\n",
        lambda content: json.dumps(content, indent=2, sort_keys=True),
        lambda content: json.dumps(content, indent=2, sort_keys=True, ensure_ascii=False) + "\n",
        lambda content: json.dumps(content, indent=4, sort_keys=True) + "\n",
    ]
    tried = [write(content).encode() for content in contents for write in written]
    return next((data for data in tried if digest_bytes(data) == wanted.get(name)), tried[0])


def _listed_bytes(path: Path, name: str, manifest: Manifest) -> bytes:
    try:
        data = read_plain(path)
    except OSError as error:
        raise CheckpointError(f"{path}: cannot be read: {error.strerror}") from None
    if digest_bytes(data) != manifest.files.get(name):
        raise CheckpointError(f"{path}: it is not the file that {MANIFEST} lists")
    return data


def _require_listed(path: Path, found: FileDigest, manifest: Manifest) -> None:
    if found != manifest.files[path.name]:
        raise CheckpointError(
            f"{path}: it is not the file that {MANIFEST} lists: sha256 {found.sha256}, expected "
            f"{manifest.files[path.name].sha256}"
        )


def _write(path: Path, data: bytes) -> FileDigest:
    path.parent.mkdir(exist_ok=True)
    with path.open("xb") as file:
        file.write(data)
    return digest_bytes(data)
