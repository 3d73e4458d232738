"""Documents: what a source of text gives, and which half of the text each belongs to."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

Part = Literal["calibration", "held-out"]

# No document contributes more than this, so that a book among notes doesn't decide the result.
LARGEST_DOCUMENT = 16_000

# Small enough that both parts get some of even a short file.
LARGEST_PASSAGE = 4_000

_PARAGRAPH_BREAK = re.compile(r"\n[^\S\n]*\n\s*")


@dataclass(frozen=True)
class Document:
    """One text, of at least one character and none that UTF-8 cannot write."""

    text: str

    @staticmethod
    def of(text: str) -> Document | None:
        """The document without surrounding white space; None where nothing else is there."""
        text = text.encode("utf-8", errors="replace").decode("utf-8").strip()
        return Document(text) if text else None

    @property
    def digest(self) -> bytes:
        """SHA-256 of the whole text."""
        return hashlib.sha256(self.text.encode("utf-8")).digest()

    @property
    def part(self) -> Part:
        """The half it belongs to: a function of its text alone, whatever source it came from."""
        return "held-out" if self.digest[0] % 2 else "calibration"

    @property
    def excerpt(self) -> str:
        """Its beginning, at most `LARGEST_DOCUMENT` characters."""
        return self.text[:LARGEST_DOCUMENT]


@dataclass(frozen=True, eq=False)
class Corpus:
    """A source of documents.

    Attributes:
        name: how records call it; a file or folder by its bare name.
        revision: the Hub commit or the Python version; None for local files.
        documents: in a fixed order; read only as far as needed.
    """

    name: str
    revision: str | None
    documents: Iterator[Document]


def passages(text: str) -> Iterator[str]:
    """Cut a text at blank lines into passages of at most `LARGEST_PASSAGE` characters.

    A single paragraph that is longer is cut where the limit falls.
    """
    passage = ""
    for paragraph in _PARAGRAPH_BREAK.split(text):
        if passage and len(passage) + 2 + len(paragraph) > LARGEST_PASSAGE:
            yield passage
            passage = ""
        passage = f"{passage}\n\n{paragraph}" if passage else paragraph
        while len(passage) > LARGEST_PASSAGE:
            yield passage[:LARGEST_PASSAGE]
            passage = passage[LARGEST_PASSAGE:]
    if passage:
        yield passage
