"""The model families; importing this package registers all that hubsplice brings."""

from __future__ import annotations

from hubsplice.architectures import llama, mistral, qwen2

__all__ = ["llama", "mistral", "qwen2"]
