"""What configuration files may ask of a loader: nothing that fetches, imports or swaps anything.

transformers sets every key of a config.json as an attribute of its configuration, and acts on some
of them. Other keys are left as they are, whatever their names: classes read many that they don't
declare, and a model that lost one would be another model. So this is a list of what is refused,
and where a key has harmless values, of those that are let through. A key can also stand in the
place of a part of the configuration's class, such as its table of other names for keys, and undo
such a list: what is code or a table there can't be replaced either.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from hubsplice.errors import CheckpointError, UnsupportedError, quoted

_ATTENTION = ("_attn_implementation", "attn_implementation", "_attn_implementation_internal")
_EXPERTS = (
    "_experts_implementation",
    "experts_implementation",
    "_experts_implementation_internal",
)

# Kernels that are not installed are fetched from the Hub, and run. What is computed is the same,
# so that the loader here is given none of these, and takes its own.
_KNOWN_KERNELS = {
    **dict.fromkeys(
        _ATTENTION,
        ("eager", "sdpa", "flex_attention", *(f"flash_attention_{n}" for n in range(2, 5))),
    ),
    **dict.fromkeys(_EXPERTS, ("eager", "grouped_mm", "batched_mm")),
}
_OURS = ("eager", "sdpa")

_ELSEWHERE = "the model's configuration would be read from another file"
_KERNEL = "it asks for code from the Hub"
_REFUSED = {
    "configuration_files": _ELSEWHERE,
    "transformers_weights": "other weights would be loaded than those that are checked",
    "fusion_config": "modules of the model would be replaced",
    "distributed_config": "the model would be loaded in parts, from other files",
    "kernel_config": _KERNEL,
    "use_kernels": _KERNEL,
    "allow_all_kernels": _KERNEL,
}

# Arguments of tokenizers that are no settings: what is opened, from where, and how far it is
# trusted. `save_pretrained` writes some of them, and loaders find the files by themselves.
_ARGUMENTS = frozenset(
    {
        "cache_dir",
        "config",
        "gguf_file",
        "is_local",
        "local_files_only",
        "proxies",
        "revision",
        "sp_model_kwargs",
        "subfolder",
        "token",
        "tokenizer_object",
        "trust_remote_code",
    }
)
_FILE_ARGUMENT = re.compile(r"\w*_files?|source_spm|target_spm")
_TOKENIZER_CLASS = re.compile(
    "[A-Z][A-Za-z0-9]*Tokenizer(Fast)?|TokenizersBackend|PythonBackend|SentencePieceBackend"
    "|MistralCommonBackend"
)


def require_loadable_config(path: Path, config: Mapping[str, Any]) -> None:
    """Refuse a config.json that asks a loader for more than to read it.

    Raises:
        CheckpointError: with the key, and what it would do.
    """
    for key, value in _items(config):
        if value in (None, False) or value == {} or value == []:
            continue
        if key in _REFUSED:
            raise CheckpointError(
                f"{path}: {key}: found {quoted(value)}: {_REFUSED[key]}; remove it"
            )
        if key in _KNOWN_KERNELS:
            for name in value.values() if isinstance(value, dict) else [value]:
                _require_kernel(path, key, name)
    _require_tokenizer_class(path, config.get("tokenizer_class"))


def require_plain_keys(path: Path, config: Mapping[str, Any], classes: Iterator[type]) -> None:
    """Refuse a config.json with a key that replaces code or a table of transformers' own class.

    Args:
        path: the file, for the message.
        config: its content, or a part of it.
        classes: the classes of transformers that it may become.

    Raises:
        CheckpointError: with the key.
    """
    for cls in classes:
        for key in config:
            if key != "model_type" and _is_code(cls, key):
                raise CheckpointError(
                    f"{path}: {key}: this is the name of a part of transformers' own class, which "
                    "no file may replace; remove it"
                )


def require_loadable_tokenizer_config(path: Path, content: Mapping[str, Any]) -> None:
    """Refuse a tokenizer_config.json that asks a loader for more than a tokenizer.

    Raises:
        CheckpointError: with the key.
    """
    if not content.get("auto_map"):
        # A class of the repository's own code may have any name, and is not what is loaded.
        _require_tokenizer_class(path, content.get("tokenizer_class"))
    listed = content.get("fast_tokenizer_files")
    names = listed if isinstance(listed, list) else [listed]
    if listed is not None and not all(
        isinstance(name, str) and re.fullmatch(r"tokenizer[\w.]*\.json", name) for name in names
    ):
        raise CheckpointError(
            f"{path}: fast_tokenizer_files: found {quoted(listed)}, expected names such as "
            "tokenizer.json"
        )
    if content.get("init_inputs"):
        raise CheckpointError(
            f"{path}: init_inputs: found {quoted(content['init_inputs'])}, expected none: they "
            "may be files anywhere"
        )


def refuse_quantized(path: Path, config: Mapping[str, Any]) -> None:
    """Refuse to load quantised weights: what reads them is a library that the file names.

    Raises:
        UnsupportedError: with the key.
    """
    for key, value in _items(config):
        if key in ("quantization_config", "compression_config") and value:
            raise UnsupportedError(f"{path}: {key}: quantised weights are not loaded")


def for_loaders(config: Mapping[str, Any]) -> dict[str, Any]:
    """A config.json that passed, without the kernels that others prefer."""
    return {
        key: for_loaders(value) if isinstance(value, Mapping) else value
        for key, value in config.items()
        if key not in _KNOWN_KERNELS or value in _OURS
    }


def tokenizer_for_loaders(content: Mapping[str, Any]) -> dict[str, Any]:
    """A tokenizer_config.json that passed, with settings alone."""
    return {
        key: value
        for key, value in content.items()
        if key == "fast_tokenizer_files"
        or not (key in _ARGUMENTS or key == "init_inputs" or _FILE_ARGUMENT.fullmatch(key))
        if key != "tokenizer_class" or _is_tokenizer_class(value)
    }


def _items(config: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """The keys of a config and of the parts in it, at any depth."""
    for key, value in config.items():
        yield key, value
        if isinstance(value, dict):
            yield from _items(value)


def _require_kernel(path: Path, key: str, name: object) -> None:
    known = _KNOWN_KERNELS[key]
    if name is not None and name not in known:
        raise CheckpointError(
            f"{path}: {key}: found {quoted(name)}, expected one of {', '.join(known)}: "
            "anything else can be fetched from the Hub and run"
        )


def _require_tokenizer_class(path: Path, name: object) -> None:
    if name is not None and not _is_tokenizer_class(name):
        raise CheckpointError(
            f"{path}: tokenizer_class: found {quoted(name)}, expected the name of a tokenizer"
        )


def _is_tokenizer_class(name: object) -> bool:
    return isinstance(name, str) and _TOKENIZER_CLASS.fullmatch(name) is not None


def _is_code(cls: type, key: str) -> bool:
    found = getattr(cls, key, None)
    return callable(found) or isinstance(found, Mapping)
