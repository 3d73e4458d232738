"""Text from local files and from Hub datasets, and every way they can be wrong."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from hubsplice.errors import CheckpointError, RecipeError
from hubsplice.recipe.models import TextSource
from hubsplice.text.hub import hub_corpus
from hubsplice.text.local import local_corpus


def texts(path: Path, column: str = "text") -> list[str]:
    corpus = local_corpus(path, column, field="fidelity.dataset", column_field="fidelity.column")
    return [document.text for document in corpus.documents]


def test_rows_and_passages_of_a_folder_in_order(tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    (tmp_path / "b.txt").write_text("\ufeffsecond", encoding="utf-8")
    (tmp_path / "a.md").write_text("first")
    (tmp_path / "image.png").write_bytes(b"\xff")
    rows = [{"text": "third"}, {"text": None}, {"text": " "}, {"text": "fourth\u2028line"}]
    lines = [json.dumps(row, ensure_ascii=False) for row in rows]
    (tmp_path / "sub" / "c.JSONL").write_text("\n\n".join(lines), encoding="utf-8")
    assert texts(tmp_path) == ["first", "second", "third", "fourth\u2028line"]


def test_a_corpus_is_named_without_its_folder(tmp_path: Path) -> None:
    file = tmp_path / "mine.jsonl"
    file.write_text('{"body": "x"}\n')
    corpus = local_corpus(file, "body", field="fidelity.dataset", column_field="fidelity.column")
    assert (corpus.name, corpus.revision) == ("mine.jsonl", None)
    assert [d.text for d in corpus.documents] == ["x"]
    assert (
        local_corpus(
            tmp_path, "body", field="fidelity.dataset", column_field="fidelity.column"
        ).name
        == tmp_path.name
    )


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b'{"text": "x"}\n{"txt": "x"}', r"line 2: fidelity\.column: 'text' .*Did you mean 'txt'"),
        (b'{"text": ["x"]}', r"line 1: fidelity\.column: 'text' holds list, expected text"),
        (b'{"text": "x"', "line 1: not valid JSON"),
        (b'"text"', "line 1: expected a JSON object, found str"),
        (b'{"text": "\xff"}', "expected UTF-8"),
    ],
)
def test_malformed_rows(content: bytes, message: str, tmp_path: Path) -> None:
    file = tmp_path / "rows.jsonl"
    file.write_bytes(content)
    with pytest.raises(RecipeError, match=message):
        texts(file)


CHAT = [{"role": "user", "content": "Who?"}, {"role": "assistant", "content": "Me."}]


def test_conversations_are_what_they_say(tmp_path: Path) -> None:
    file = tmp_path / "chat.jsonl"
    file.write_text(json.dumps({"messages": CHAT}))
    assert texts(file) == texts(file, "messages") == ["Who?\n\nMe."]
    file.write_text(json.dumps({"messages": [{"role": "user", "content": None}]}))
    with pytest.raises(RecipeError, match="'messages' holds list, expected text"):
        texts(file)
    file.write_text(json.dumps({"messages": CHAT}))
    with pytest.raises(RecipeError, match="'body' is not known"):
        texts(file, "body")


def test_tables(tmp_path: Path) -> None:
    from pyarrow import Table, parquet

    (tmp_path / "a.csv").write_text('id,text\n1,"one, and\na half"\n2,two,more\n3\n', "utf-8")
    rows = {"text": ["three", None], "messages": [CHAT, None]}
    parquet.write_table(Table.from_pydict(rows), tmp_path / "b.parquet")
    assert texts(tmp_path) == ["one, and\na half", "two", "three"]
    assert texts(tmp_path / "b.parquet", "messages") == ["Who?\n\nMe."]
    (tmp_path / "a.csv").write_text('text\n"open', "utf-8")
    with pytest.raises(RecipeError, match="not valid CSV"):
        texts(tmp_path / "a.csv")
    (tmp_path / "a.csv").write_text("text\nx", "utf-8")
    with pytest.raises(RecipeError, match=r"a\.csv, row 1: fidelity\.column: 'body' is not known"):
        texts(tmp_path / "a.csv", "body")
    (tmp_path / "b.parquet").write_bytes(b"PAR1")
    with pytest.raises(RecipeError, match="not valid Parquet"):
        texts(tmp_path / "b.parquet")


def test_files_that_cannot_be_text(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match=r"fidelity\.dataset: there is no file or folder"):
        texts(tmp_path / "missing.txt")
    with pytest.raises(
        RecipeError, match=r"holds no \.md or \.txt or \.jsonl or \.csv or \.parquet file"
    ):
        texts(tmp_path)
    pdf = tmp_path / "paper.pdf"
    pdf.touch()
    with pytest.raises(RecipeError, match=r"ends in '\.pdf', expected"):
        texts(pdf)
    latin = tmp_path / "latin.txt"
    latin.write_bytes(b"caf\xe9")
    with pytest.raises(RecipeError, match=r"latin\.txt: expected UTF-8"):
        texts(latin)


def test_the_hub_out_of_reach() -> None:
    with pytest.raises(CheckpointError, match=r"'me/notes' could not be read.*need no network"):
        hub_corpus(TextSource(dataset="me/notes"), section="calibration")


def test_what_is_no_dataset_id() -> None:
    with pytest.raises(RecipeError, match=r"calibration\.dataset: 'no//id' is neither"):
        hub_corpus(TextSource(dataset="no//id"), section="calibration")
