"""Documents, the parts they belong to, and passages of long texts."""

from __future__ import annotations

import ast
import hashlib
import inspect
import platform
import re

from hypothesis import given
from hypothesis import strategies as st

from hubsplice import __version__
from hubsplice.text.builtin import builtin_corpus
from hubsplice.text.documents import LARGEST_DOCUMENT, LARGEST_PASSAGE, Document, passages

LOREM = " ".join(f"word{i}" for i in range(400))


def test_the_halves_are_about_even() -> None:
    parts = [Document(str(i)).part for i in range(2000)]
    assert 900 < parts.count("calibration") < 1100
    assert set(parts) == {"calibration", "held-out"}


def test_the_part_depends_on_the_whole_text() -> None:
    text = "a" * (2 * LARGEST_DOCUMENT)
    documents = [Document(text + str(i)) for i in range(20)]
    assert len({document.part for document in documents}) == 2
    assert {document.excerpt for document in documents} == {"a" * LARGEST_DOCUMENT}


def test_what_is_no_text_is_no_document() -> None:
    assert Document.of(" \n\t ") is None
    assert Document.of("  a\n") == Document("a")
    # JSON can hold half a character, which no tokenizer reads.
    assert Document.of("a\ud800b") == Document("a?b")


@given(st.lists(st.text("ab \n", max_size=3 * LARGEST_PASSAGE) | st.just(LOREM), max_size=8))
def test_passages_hold_the_text_and_no_more(paragraphs: list[str]) -> None:
    text = "\n\n".join(paragraphs)
    found = list(passages(text))
    assert all(0 < len(passage) <= LARGEST_PASSAGE for passage in found)
    assert re.sub(r"\s", "", "".join(found)) == re.sub(r"\s", "", text)


def test_passages_are_whole_paragraphs_where_they_can_be() -> None:
    found = list(passages("\n \n".join([LOREM] * 4)))
    assert found == [LOREM] * 4
    assert list(passages("one\n\n\ntwo")) == ["one\n\ntwo"]


def test_builtin_text_is_a_sample_and_pythons_own_in_the_order_of_hashes() -> None:
    corpus = builtin_corpus()
    revision = f"hubsplice {__version__}, python {platform.python_version()}"
    assert (corpus.name, corpus.revision) == ("builtin", revision)
    texts = [document.text for document in corpus.documents]
    digests = [hashlib.sha256(text.encode()).hexdigest() for text in texts]
    assert digests == sorted(set(digests))
    docstring = inspect.cleandoc(ast.parse.__doc__ or "")
    assert sum(docstring in text for text in texts) == 1
    assert any('The "lambda"' in text or "Lambda" in text for text in texts)
    assert sum(map(len, texts)) > 1_000_000
    # Few of these are in Python's documentation; program code is at the end of its modules.
    assert sum("Golden Gate" in text for text in texts) >= 1
    assert sum("und" in text.split() for text in texts) >= 3
    assert sum("\n    return " in text for text in texts) > 100
    assert [document.text for document in builtin_corpus().documents] == texts
