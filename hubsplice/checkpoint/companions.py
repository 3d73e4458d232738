"""What files of a model are called, and which beside the weights travel with it."""

from __future__ import annotations

from fnmatch import fnmatchcase
from pathlib import Path

CONFIG = "config.json"
SINGLE_WEIGHTS = "model.safetensors"
WEIGHTS_INDEX = "model.safetensors.index.json"
MANIFEST = "splice.json"
CARD = "README.md"
CARD_DATA = "card.json"
TOKENIZER_CONFIG = "tokenizer_config.json"
ADAPTER_CONFIG = "adapter_config.json"
ADAPTER_WEIGHTS = "adapter_model.safetensors"

COMPANION_PATTERNS: tuple[str, ...] = (
    "generation_config.json",
    "tokenizer*",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.*",
    "merges.txt",
    "*.tiktoken",
    "*.model",
    "tekken.json",
    "chat_template*.jinja",
    "chat_template.json",
    "SYSTEM_PROMPT.txt",
    "additional_chat_templates/*.jinja",
    "*processor_config.json",
    *(
        f"*{word}*"
        for stem in ("license", "licence", "copying", "notice", "policy")
        for word in (stem, stem.capitalize(), stem.upper())
    ),
)

# A name that fits a pattern above is still left behind when it ends like this: weights in other
# formats would contradict the spliced ones, and code is never carried.
NEVER_CARRIED: tuple[str, ...] = (
    "*.py",
    "*.bin",
    "*.pt",
    "*.pth",
    "*.ckpt",
    "*.pkl",
    "*.safetensors",
    "*.safetensors.index.json",
    "*.gguf",
    "*.onnx",
    "*.h5",
    "*.msgpack",
)


def companion_files(folder: Path) -> tuple[str, ...]:
    """The names, relative to `folder` and sorted, of the files that travel with its weights.

    The configuration is not among them: it is written anew.
    """
    candidates = [*folder.iterdir(), *folder.glob("additional_chat_templates/*")]
    names = (path.relative_to(folder).as_posix() for path in candidates if path.is_file())
    return tuple(sorted(name for name in names if is_companion(name)))


def is_companion(name: str) -> bool:
    """Whether a file of this name, relative to the model's folder, travels with the weights."""
    if any(fnmatchcase(name, pattern) for pattern in NEVER_CARRIED):
        return False
    return any(
        fnmatchcase(name, pattern) and name.count("/") == pattern.count("/")
        for pattern in COMPANION_PATTERNS
    )
