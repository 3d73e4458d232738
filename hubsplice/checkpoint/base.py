"""The base model's checkpoint: its configuration, and where each tensor lies."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import Any

from torch import Tensor

from hubsplice.checkpoint.companions import (
    CONFIG,
    MANIFEST,
    SINGLE_WEIGHTS,
    TOKENIZER_CONFIG,
    WEIGHTS_INDEX,
    companion_files,
)
from hubsplice.checkpoint.config_file import ModelConfig, TokenizerConfig, require_types
from hubsplice.checkpoint.loader_keys import (
    require_loadable_config,
    require_loadable_tokenizer_config,
)
from hubsplice.errors import CheckpointError, unknown_name
from hubsplice.files.plain import read_plain
from hubsplice.files.safetensors_header import Header, TensorEntry, read_header
from hubsplice.files.strict_json import read_object

_PICKLES = ("pytorch_model*.bin", "*.pt", "*.pth", "*.ckpt", "*.pkl")


@dataclass(frozen=True, eq=False)
class BaseConfig:
    """What a base says of itself without its weights: enough to check a recipe.

    Attributes:
        folder: where the files are.
        config: config.json.
        weight_map: the file of every tensor, by tensor name, where an index says so; None for
            weights in one file.
    """

    folder: Path
    config: Mapping[str, Any]
    weight_map: Mapping[str, str] | None

    @classmethod
    def open(cls, folder: Path) -> BaseConfig:
        """Read the configuration and, where there is one, the index of the weights.

        Raises:
            CheckpointError: no or a malformed config.json or index, pickle weights, or a key or a
                link that leads elsewhere.
        """
        if not folder.is_dir():
            raise CheckpointError(f"{folder}: there is no such folder")
        if not (folder / CONFIG).exists():
            raise CheckpointError(f"{folder}: no config.json; is this a model's folder?")
        config = read_config(folder / CONFIG)
        require_types(folder / CONFIG, config, ModelConfig)
        require_loadable_config(folder / CONFIG, config)
        tokenizer = folder / TOKENIZER_CONFIG
        if tokenizer.exists():
            content = read_config(tokenizer)
            require_types(tokenizer, content, TokenizerConfig)
            require_loadable_tokenizer_config(tokenizer, content)
        _refuse_links_outwards(folder)
        _refuse_pickles(folder)
        index = folder / WEIGHTS_INDEX
        return BaseConfig(folder, config, read_weight_map(index) if index.exists() else None)

    @property
    def has_weights(self) -> bool:
        """Whether every file of its weights is there."""
        names = {SINGLE_WEIGHTS} if self.weight_map is None else {*self.weight_map.values()}
        return all((self.folder / name).exists() for name in names)

    @property
    def previous_splice(self) -> Path | None:
        """The manifest of the splice that the base itself came from; None for other bases."""
        manifest = self.folder / MANIFEST
        return manifest if manifest.exists() else None


@dataclass(frozen=True, eq=False)
class BaseCheckpoint(BaseConfig):
    """A base with its weights, every header of which has been checked.

    Attributes:
        shards: the headers of the weight files, sorted by file name.
    """

    shards: tuple[Header, ...]

    @classmethod
    def open(cls, folder: Path) -> BaseCheckpoint:
        """Read the configuration and the headers of all weights, not the weights.

        Raises:
            CheckpointError: what `BaseConfig.open` raises, no weights, a missing, truncated or
                corrupt shard, or an index that disagrees with the shards.
        """
        return cls.of(BaseConfig.open(folder))

    @staticmethod
    def of(described: BaseConfig) -> BaseCheckpoint:
        """The base whose configuration was read; raises as `open` does."""
        folder = described.folder
        names = _shard_names(folder, described.weight_map)
        shards = tuple(read_header(folder / name) for name in names)
        if described.weight_map is not None:
            _compare_with_index(folder, shards, described.weight_map)
        return BaseCheckpoint(described.folder, described.config, described.weight_map, shards)

    @cached_property
    def tensors(self) -> Mapping[str, TensorEntry]:
        """Every tensor by name, in the order of files and of the data in them."""
        return {tensor.name: tensor for shard in self.shards for tensor in shard.tensors}

    @cached_property
    def _files(self) -> Mapping[str, Path]:
        return {tensor.name: shard.path for shard in self.shards for tensor in shard.tensors}

    def load(self, name: str) -> Tensor:
        """One tensor, on the CPU, in the shape and dtype that it is stored in.

        Raises:
            CheckpointError: there is no such tensor, with the nearest name; or its file has
                changed since it was opened.
        """
        if name not in self.tensors:
            raise CheckpointError(unknown_name(f"{self.folder}: tensor", name, self.tensors))
        from safetensors import SafetensorError, safe_open

        path = self._files[name]
        try:
            with safe_open(path, framework="pt") as file:
                tensor: Tensor = file.get_tensor(name)
        except (SafetensorError, OSError) as error:
            raise CheckpointError(f"{path}: tensor {name!r} cannot be read: {error}") from None
        return tensor


def read_config(path: Path) -> Mapping[str, Any]:
    """A JSON object, read as transformers reads it.

    Raises:
        CheckpointError: it can't be read, or holds something else.
    """
    try:
        # Read as transformers reads it, so that what is checked is what servers will see.
        config = json.loads(read_plain(path).decode())
    except OSError as error:
        raise CheckpointError(f"{path}: cannot be read: {error.strerror}") from None
    except (ValueError, RecursionError) as error:
        raise CheckpointError(f"{path}: not valid JSON ({error})") from None
    if not isinstance(config, dict):
        raise CheckpointError(f"{path}: expected a JSON object, found {type(config).__name__}")
    return config


def _refuse_links_outwards(folder: Path) -> None:
    """Refuse companions, which are copied and published, that are links to other places."""
    home = folder.resolve()
    if home.parent.name == "snapshots":
        # The Hub's cache keeps the files of all snapshots in one place, and links to them.
        home = home.parents[1]
    for name in companion_files(folder):
        target = (folder / name).resolve()
        if not target.is_relative_to(home):
            raise CheckpointError(
                f"{folder / name}: a link to {target}, outside of the model's folder; it would be "
                "published with the result: put the file itself there"
            )


def _refuse_pickles(folder: Path) -> None:
    if (folder / SINGLE_WEIGHTS).exists() or (folder / WEIGHTS_INDEX).exists():
        return
    pickles = sorted({path.name for pattern in _PICKLES for path in folder.glob(pattern)})
    if pickles:
        raise CheckpointError(
            f"{folder}: the weights are pickles only ({', '.join(pickles[:3])}). Reading a pickle "
            "can run code, so only safetensors are accepted. If you trust the files, convert them "
            "with `save_pretrained` of transformers"
        )


def read_weight_map(path: Path) -> Mapping[str, str]:
    """The file of every tensor, by tensor name, from the index of the weights.

    Raises:
        CheckpointError: it is malformed, or leads out of its folder.
    """
    index = read_object(path)
    weight_map = index.get("weight_map")
    if not isinstance(weight_map, dict) or not weight_map:
        raise CheckpointError(f"{path}: expected a weight_map from tensors to files")
    for tensor, file in weight_map.items():
        if not _is_shard_name(file):
            raise CheckpointError(
                f"{path}: weight_map: {tensor!r} is said to be in {file!r}, expected the name of "
                "a .safetensors file in the same folder"
            )
    return weight_map


def _is_shard_name(file: object) -> bool:
    # An index must not lead out of its folder.
    return (
        isinstance(file, str)
        and "\0" not in file
        and "\\" not in file
        and PurePosixPath(file).name == file
        and file.endswith(".safetensors")
    )


def _shard_names(folder: Path, weight_map: Mapping[str, str] | None) -> list[str]:
    single = (folder / SINGLE_WEIGHTS).exists()
    if weight_map is None:
        if not single:
            raise CheckpointError(
                f"{folder}: no weights: neither {SINGLE_WEIGHTS} nor {WEIGHTS_INDEX}"
            )
        return [SINGLE_WEIGHTS]
    names = sorted(set(weight_map.values()))
    if single and names != [SINGLE_WEIGHTS]:
        raise CheckpointError(
            f"{folder}: both {SINGLE_WEIGHTS} and {WEIGHTS_INDEX} are there, and servers "
            "disagree on which of them to load; remove one of them"
        )
    missing = [name for name in names if not (folder / name).exists()]
    if missing:
        raise CheckpointError(
            f"{folder}: missing shards: {', '.join(missing[:5])}"
            f"{f' and {len(missing) - 5} more' if len(missing) > 5 else ''} "
            f"({len(names) - len(missing)} of {len(names)} are there)"
        )
    return names


def _compare_with_index(
    folder: Path, shards: tuple[Header, ...], weight_map: Mapping[str, str]
) -> None:
    index = folder / WEIGHTS_INDEX
    held = {(tensor.name, shard.path.name) for shard in shards for tensor in shard.tensors}
    declared = set(weight_map.items())
    for name, file in sorted(declared - held)[:1]:
        raise CheckpointError(f"{index}: tensor {name!r} should be in {file}, and is not there")
    for name, file in sorted(held - declared)[:1]:
        raise CheckpointError(
            f"{folder / file}: it holds tensor {name!r}, which {index.name} "
            f"{f'places in {weight_map[name]}' if name in weight_map else 'does not list'}"
        )
