"""Text for which no network is needed: a sample of many kinds, and what comes with Python."""

from __future__ import annotations

import ast
import json
import platform
import sys
import sysconfig
import tokenize
import warnings
from collections import deque
from collections.abc import Iterator
from functools import cache
from itertools import chain
from pathlib import Path

from hubsplice import __version__
from hubsplice.recipe.models import BUILTIN
from hubsplice.text.documents import Corpus, Document

# Left out: what systems package apart from Python's library, so that its presence differs
# between machines with the same version, and tests.
_LEFT_OUT = frozenset(
    {"distutils", "ensurepip", "idlelib", "lib2to3", "test", "tkinter", "turtle", "turtledemo"}
    | {"venv", "tests"}
)

_SAMPLES = Path(__file__).parent / "samples"

# Characters of a module's source code, from its end. All of it would be most of the text.
_CODE = 3_000

# Shorter docstrings are a line on one function each, and hardly text.
_SHORTEST_DOCSTRING = 80

# Fields of nodes that hold statements, in the order in which nodes have them.
_BLOCKS = ("body", "handlers", "orelse", "finalbody", "cases")


def builtin_corpus() -> Corpus:
    """A sample of many kinds of text, and Python's documentation and source code.

    The sample is part of hubsplice: fiction, conversations, letters, news, articles, instructions,
    poems, forms, mathematics, program code and 24 languages, about 300 kB. The documentation is
    Python's help topics and the docstrings of each module of its standard library, with the end of
    its source code. There is little of any language but English, no long conversation and no
    book, and most of the whole is about Python.

    The text depends on the versions of Python and hubsplice, which are the corpus's revision.
    Modules are read as source and never imported. The order is that of the documents' hashes, so
    that a part of the text is as varied as all of it.
    """
    revision = f"hubsplice {__version__}, python {platform.python_version()}"
    return Corpus(BUILTIN, revision, _read())


def _read() -> Iterator[Document]:
    """All documents. Reading begins with the first: a text is often only looked for."""
    yield from _documents()


@cache
def _documents() -> tuple[Document, ...]:
    texts = chain(_sample(), _help_topics(), map(_module, _library_files()))
    documents = {found for found in map(Document.of, texts) if found is not None}
    return tuple(sorted(documents, key=lambda document: document.digest))


def _sample() -> Iterator[str]:
    for file in sorted(_SAMPLES.glob("*.jsonl")):
        for line in file.read_text(encoding="utf-8").splitlines():
            yield json.loads(line)["text"]


def _help_topics() -> Iterator[str]:
    from pydoc_data.topics import topics

    return iter(topics.values())


def _library_files() -> Iterator[Path]:
    library = Path(sysconfig.get_path("stdlib"))
    for name in sorted(sys.stdlib_module_names - _LEFT_OUT):
        if name.startswith("_"):
            continue
        if (library / f"{name}.py").is_file():
            yield library / f"{name}.py"
        for file in sorted((library / name).rglob("*.py")):
            if _LEFT_OUT.isdisjoint(file.relative_to(library).parts):
                yield file


def _module(file: Path) -> str:
    # One document, since the code has the same docstrings.
    with tokenize.open(file) as text:
        code = text.read()
    return f"{_docstrings(code)}\n\n{code[-_CODE:]}"


def _docstrings(code: str) -> str:
    with warnings.catch_warnings():
        # Python's parser warns of odd escapes, which are its library's business.
        warnings.simplefilter("ignore")
        module = ast.parse(code)
    kinds = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
    found = [ast.get_docstring(node) for node in _statements(module) if isinstance(node, kinds)]
    return "\n\n".join(text for text in found if text and len(text) >= _SHORTEST_DOCSTRING)


def _statements(module: ast.Module) -> Iterator[ast.AST]:
    """A module and its statements, in the order of `ast.walk`.

    That would also give all expressions, which are most of the nodes and have no docstrings.
    """
    waiting = deque[ast.AST]([module])
    while waiting:
        node = waiting.popleft()
        for name in _BLOCKS:
            waiting.extend(getattr(node, name, ()))
        yield node
