"""Compile feature edits of language models into stock Hugging Face checkpoints."""

__version__ = "0.1.0"
