"""Rows of tables in files: .csv and .parquet."""

from __future__ import annotations

import csv
from collections.abc import Iterator, Mapping
from pathlib import Path

from hubsplice.errors import RecipeError

_CSV, _PARQUET = ".csv", ".parquet"
TABLES = (_CSV, _PARQUET)
"""The suffixes of such files."""


def table_rows(file: Path) -> Iterator[tuple[str, Mapping[str, object]]]:
    """Each row of a table, and how messages call it.

    Raises:
        RecipeError: it is no such table.
    """
    rows = _csv_rows(file) if file.suffix.lower() == _CSV else _parquet_rows(file)
    for number, row in enumerate(rows, start=1):
        yield f"{file}, row {number}", row


def _csv_rows(file: Path) -> Iterator[Mapping[str, object]]:
    with file.open(encoding="utf-8-sig", newline="") as lines:
        try:
            for row in csv.DictReader(lines, strict=True):
                # Cells beyond the header have no name.
                yield {name: cell for name, cell in row.items() if name is not None}
        except csv.Error as error:
            raise RecipeError(f"{file}: not valid CSV ({error})") from None


def _parquet_rows(file: Path) -> Iterator[Mapping[str, object]]:
    # Comes with datasets, and takes a second to import.
    from pyarrow import ArrowException, parquet

    try:
        with parquet.ParquetFile(file) as table:
            for batch in table.iter_batches(batch_size=256):
                yield from batch.to_pylist()
    except ArrowException as error:
        raise RecipeError(f"{file}: not valid Parquet ({error})") from None
