"""What loaders see of a model's folder: the files that they are meant to read, and no others.

Loaders act on more than a configuration and weights: an adapter beside them is added to the model,
defaults for generation change what is generated, other formats of weights go first. So nothing is
loaded from a folder that somebody else filled, but from a view of it: links to the files that were
checked, and copies of configuration files without what loaders would act on.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from hubsplice.checkpoint.base import BaseConfig, read_config
from hubsplice.checkpoint.companions import (
    CONFIG,
    SINGLE_WEIGHTS,
    TOKENIZER_CONFIG,
    WEIGHTS_INDEX,
    companion_files,
)
from hubsplice.checkpoint.loader_keys import (
    for_loaders,
    refuse_quantized,
    tokenizer_for_loaders,
)
from hubsplice.errors import CheckpointError
from hubsplice.files.plain import require_plain

# Companions that no tokenizer is made of.
_NOT_OF_TOKENIZERS = ("generation_config.json",)

# The names that transformers takes for a checkpoint in parts, which it reads in another way.
_DISTRIBUTED = re.compile(r"shard-\d+-model-.*")


@contextmanager
def model_view(folder: Path) -> Iterator[Path]:
    """A folder with a model's configuration and weights alone, gone at the end.

    Raises:
        CheckpointError: what `BaseConfig.open` raises, or a file that is missing or no plain one.
        UnsupportedError: the weights are quantised.
    """
    base = BaseConfig.open(folder)
    refuse_quantized(folder / CONFIG, base.config)
    names = [SINGLE_WEIGHTS] if base.weight_map is None else sorted({*base.weight_map.values()})
    for name in names:
        if _DISTRIBUTED.fullmatch(name):
            raise CheckpointError(
                f"{folder / name}: transformers would take this name for a checkpoint of another "
                "kind; rename the file, and in the index"
            )
    if base.weight_map is not None:
        names.append(WEIGHTS_INDEX)
    with _view(folder, names, {CONFIG: for_loaders(base.config)}) as view:
        yield view


@contextmanager
def tokenizer_view(folder: Path) -> Iterator[Path]:
    """A folder with a model's tokenizer and its configuration, gone at the end.

    Raises:
        CheckpointError: as `model_view`.
    """
    base = BaseConfig.open(folder)
    written = {CONFIG: for_loaders(base.config)}
    if (folder / TOKENIZER_CONFIG).exists():
        settings = read_config(folder / TOKENIZER_CONFIG)
        written[TOKENIZER_CONFIG] = tokenizer_for_loaders(settings)
    names = [n for n in companion_files(folder) if n not in written and n not in _NOT_OF_TOKENIZERS]
    with _view(folder, names, written) as view:
        yield view


@contextmanager
def config_view(folder: Path, config: Mapping[str, Any]) -> Iterator[Path]:
    """A folder with a configuration alone, gone at the end."""
    with _view(folder, [], {CONFIG: for_loaders(config)}) as view:
        yield view


@contextmanager
def _view(
    folder: Path, linked: list[str], written: Mapping[str, Mapping[str, Any]]
) -> Iterator[Path]:
    with TemporaryDirectory(prefix="hubsplice-") as temporary:
        # Loaders' messages end with the folder that they were given.
        view = Path(temporary, folder.resolve().name or "model")
        view.mkdir()
        for name in linked:
            _require_plain(folder / name)
            (view / name).parent.mkdir(exist_ok=True)
            (view / name).symlink_to((folder / name).resolve())
        for name, content in written.items():
            (view / name).write_text(json.dumps(content), encoding="utf-8")
        yield view


def _require_plain(path: Path) -> None:
    try:
        require_plain(path)
    except FileNotFoundError:
        raise CheckpointError(f"{path}: the file is missing") from None
    except OSError as error:
        raise CheckpointError(f"{path}: cannot be read: {error.strerror}") from None
