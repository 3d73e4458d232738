"""The recipe's prompts: how each form becomes tokens, and which half it belongs to."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from hubsplice.errors import RecipeError
from hubsplice.recipe.models import Message, Prompt, TextSource
from hubsplice.text.documents import Part
from hubsplice.text.prompts import prompt_rows
from hubsplice.text.sequences import open_text
from tests.text.byte_tokenizer import CHAT_TEMPLATE, byte_tokenizer

HALVES: tuple[Part, Part] = ("calibration", "held-out")
CHAT = (Message(role="user", content="Why?"), Message(role="assistant", content="Because."))


def texts(prompts: list[Prompt], *, chat: bool = True, length: int = 64) -> list[str]:
    tokenizer = byte_tokenizer(chat_template=CHAT_TEMPLATE if chat else None)
    rows = [
        row for part in HALVES for row in prompt_rows(prompts, tokenizer, length=length, part=part)
    ]
    return sorted(tokenizer.decode(row.ids) for row in rows)


def test_each_form_is_rendered() -> None:
    assert texts([Prompt(user="Hello")]) == ["<s>user: Hello</s>"]
    assert texts([Prompt(text="Hello")]) == ["<s>Hello</s>"]
    assert texts([Prompt(chat=CHAT)]) == ["<s>user: Why?</s>assistant: Because.</s>"]
    # A model without a chat template is asked in plain text.
    assert texts([Prompt(user="Hello")], chat=False) == ["<s>Hello</s>"]


def test_each_half_gets_half_of_the_prompts_and_none_twice() -> None:
    prompts = [Prompt(text=f"Prompt {i}") for i in range(7)]
    tokenizer = byte_tokenizer()
    calibration, held_out = (
        {row.ids for row in prompt_rows(prompts, tokenizer, length=64, part=part)}
        for part in HALVES
    )
    assert (len(calibration), len(held_out)) == (3, 4)
    assert calibration.isdisjoint(held_out)
    assert texts([*prompts, *prompts]) == texts(prompts)


def test_a_long_prompt_is_cut() -> None:
    assert texts([Prompt(text="a" * 100)], length=16) == ["<s>" + "a" * 15]


def test_a_prompt_that_is_a_document_too_belongs_to_no_half(tmp_path: Path) -> None:
    documents = [f"Document {i} {'.' * 300}" for i in range(40)]
    file = tmp_path / "texts.jsonl"
    file.write_text("".join(json.dumps({"text": text}) + "\n" for text in documents))
    source = TextSource(dataset=str(file), tokens=512, sequence_length=64)
    tokenizer = byte_tokenizer()
    prompt = Prompt(text=documents[0])
    for part in HALVES:
        text = open_text(source, tokenizer, seed=0, part=part, prompts=[prompt])
        ids = [row.ids for row in (*text.drawn, *text.further)]
        assert not any("Document 0 " in tokenizer.decode(row) for row in ids)


def test_a_conversation_needs_a_chat_template() -> None:
    with pytest.raises(RecipeError, match=r"prompts\[1\]\.chat: .* has no chat template"):
        texts([Prompt(text="Hello"), Prompt(chat=CHAT)], chat=False)


def test_a_template_may_refuse_a_conversation() -> None:
    template = "{{ raise_exception('Roles must alternate.') }}"
    tokenizer = byte_tokenizer(chat_template=template)
    with pytest.raises(RecipeError, match=r"prompts\[0\]: .* refuses it: Roles must alternate"):
        prompt_rows([Prompt(user="Hello")], tokenizer, length=64, part="held-out")
