"""The documentation that comes with Python: text for which no network is needed."""

from __future__ import annotations

import ast
import platform
import sys
import sysconfig
import warnings
from collections.abc import Iterator
from functools import cache
from pathlib import Path

from hubsplice.recipe.models import BUILTIN
from hubsplice.text.documents import Corpus, Document

# Left out: what systems package apart from Python's library, so that its presence differs
# between machines with the same version, and tests.
_LEFT_OUT = frozenset(
    {"distutils", "ensurepip", "idlelib", "lib2to3", "test", "tkinter", "turtle", "turtledemo"}
    | {"venv", "tests"}
)

# Shorter docstrings are a line on one function each, and hardly text.
_SHORTEST_DOCSTRING = 80


def builtin_corpus() -> Corpus:
    """Python's help topics, and the docstrings of each module of its standard library.

    The text depends on the version of Python, which is the corpus's revision. Modules are read
    as source and never imported. The order is that of the documents' hashes, so that a part of
    the text is as varied as all of it.
    """
    return Corpus(BUILTIN, f"python {platform.python_version()}", iter(_documents()))


@cache
def _documents() -> tuple[Document, ...]:
    texts = (*_help_topics(), *map(_docstrings, _library_files()))
    documents = {found for found in map(Document.of, texts) if found is not None}
    return tuple(sorted(documents, key=lambda document: document.digest))


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


def _docstrings(file: Path) -> str:
    with warnings.catch_warnings():
        # Python's parser warns of odd escapes, which are its library's business.
        warnings.simplefilter("ignore")
        module = ast.parse(file.read_bytes())
    kinds = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
    found = [ast.get_docstring(node) for node in ast.walk(module) if isinstance(node, kinds)]
    return "\n\n".join(text for text in found if text and len(text) >= _SHORTEST_DOCSTRING)
