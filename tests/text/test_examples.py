"""Files of examples: what they may hold, and what is said of others."""

from __future__ import annotations

from pathlib import Path

import pytest

from hubsplice.errors import RecipeError
from hubsplice.features.examples import ContrastSource
from hubsplice.features.prompt import Message, Prompt
from hubsplice.text.examples import example_prompts


def read(path: Path, text: str, **fields: object) -> tuple[Prompt, ...]:
    path.write_text(text, encoding="utf-8")
    source = ContrastSource(positive=path, negative=(Prompt(user="no"),), **fields)
    positive, negative = example_prompts(source, "splices[0].edits[0].contrast")
    assert len(negative) == 1
    return positive


def test_a_line_is_a_prompt(tmp_path: Path) -> None:
    found = read(tmp_path / "a.txt", "\ufeffWhat is it?\n\n  Who?  \r\n")
    assert found == (Prompt(user="What is it?"), Prompt(user="Who?"))
    plain = read(tmp_path / "a.txt", "What is it?", chat_template=False)
    assert plain == (Prompt(text="What is it?"),)


def test_a_row_is_a_prompt(tmp_path: Path) -> None:
    rows = (
        '"one"\n{"text": "two", "id": 7}\n{"prompt": "three"}\n'
        '{"messages": [{"role": "user", "content": "four"}]}\n'
    )
    assert read(tmp_path / "a.jsonl", rows) == (
        Prompt(user="one"),
        Prompt(text="two"),
        Prompt(user="three"),
        Prompt(chat=(Message(role="user", content="four"),)),
    )


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("a.txt", "\n \n", "holds no prompt"),
        ("a.csv", "x", r"ends in '.csv', expected .txt or .jsonl"),
        ("a.jsonl", "{", "line 1: not valid JSON"),
        ("a.jsonl", '"ok"\n{"body": "x"}', r"line 2: found '\{\"body"),
        ("a.jsonl", "12", "expected text, or an object with one of"),
        ("a.jsonl", '{"text": ""}', "expected text"),
    ],
)
def test_what_is_no_prompt_is_named(name: str, text: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match=message) as caught:
        read(tmp_path / name, text)
    assert str(caught.value).startswith("splices[0].edits[0].contrast.positive: ")


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    source = ContrastSource(positive=tmp_path / "no.txt", negative=(Prompt(user="no"),))
    with pytest.raises(RecipeError, match=r"contrast\.positive: there is no file"):
        example_prompts(source, "contrast")
