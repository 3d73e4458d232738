"""Text from local files: .txt, .md, .jsonl, .csv and .parquet, or a folder of them."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

from hubsplice.errors import RecipeError
from hubsplice.files.plain import exists, is_folder, read_plain, require_plain
from hubsplice.text.columns import text_of
from hubsplice.text.documents import Corpus, Document, passages
from hubsplice.text.tables import TABLES, table_rows

_PROSE = (".md", ".txt")
_SUFFIXES = (*_PROSE, ".jsonl", *TABLES)

# Prose is cut into passages as a whole.
_LARGEST_PROSE = 1 << 30


def local_corpus(path: Path, column: str, *, field: str, column_field: str) -> Corpus:
    """A file's or folder's documents, files sorted by their path within the folder.

    A row of a .jsonl, .csv or .parquet file is a document, and so is each passage of a .txt or .md
    file (cut at blank lines), since one file of either kind is often all there is.

    Args:
        path: the file or folder.
        column: the field of a row that holds the text.
        field: what messages call the path: a field of a recipe, or an option.
        column_field: what they call the column.

    Raises:
        RecipeError: no such file, or none of a known kind. Reading the documents raises it where
            a file is not UTF-8, a row is not a JSON object, or the column is missing.
    """
    files = text_files(path, field)
    return Corpus(path.resolve().name, None, _documents(files, column, column_field))


def text_files(path: Path, field: str) -> list[Path]:
    """The files of a local source, sorted by their path within the folder.

    Raises:
        RecipeError: no such file or folder, or none of a known kind in it.
    """
    if is_folder(path):
        found = [p for p in path.rglob("*") if p.suffix.lower() in _SUFFIXES and p.is_file()]
        if not found:
            raise RecipeError(f"{field}: {path} holds no {' or '.join(_SUFFIXES)} file")
        return sorted(found, key=lambda p: p.relative_to(path).parts)
    if not exists(path):
        raise RecipeError(f"{field}: there is no file or folder {path}")
    if path.suffix.lower() not in _SUFFIXES:
        raise RecipeError(
            f"{field}: {path} ends in {path.suffix!r}, expected {' or '.join(_SUFFIXES)}"
        )
    return [path]


def _documents(files: list[Path], column: str, field: str) -> Iterator[Document]:
    for file in files:
        try:
            yield from filter(None, map(Document.of, _texts(file, column, field)))
        except OSError as error:
            raise RecipeError(f"{file}: cannot be read: {error.strerror}") from None
        except UnicodeDecodeError as error:
            raise RecipeError(f"{file}: expected UTF-8 text: {error}") from None


def _texts(file: Path, column: str, field: str) -> Iterator[str]:
    suffix = file.suffix.lower()
    if suffix in _PROSE:
        return _prose(file)
    if suffix not in TABLES:
        return _rows(file, column, field)
    return (text_of(row, column, field=field, where=where) for where, row in table_rows(file))


def _prose(file: Path) -> Iterator[str]:
    return passages(read_plain(file, _LARGEST_PROSE).decode("utf-8-sig"))


def _rows(file: Path, column: str, field: str) -> Iterator[str]:
    require_plain(file)
    with file.open(encoding="utf-8-sig") as lines:
        for number, line in enumerate(lines, start=1):
            if not line.strip():
                continue
            where = f"{file}, line {number}"
            try:
                row = json.loads(line)
            except (ValueError, RecursionError) as error:
                raise RecipeError(f"{where}: not valid JSON ({error})") from None
            if not isinstance(row, dict):
                raise RecipeError(f"{where}: expected a JSON object, found {type(row).__name__}")
            yield text_of(row, column, field=field, where=where)
