"""Token sequences: exact, reproducible, and disjoint between calibration and held-out text."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import AutoTokenizer

from hubsplice.errors import RecipeError
from hubsplice.recipe.models import Calibration, Fidelity, TextSource
from hubsplice.text.documents import LARGEST_DOCUMENT, Part
from hubsplice.text.sequences import load_sequences
from tests.text.byte_tokenizer import CHAT_TEMPLATE, byte_tokenizer

BOS, EOS = 0, 1


def saved(folder: Path, documents: Iterable[str]) -> Path:
    path = folder / "documents.jsonl"
    path.write_text("".join(json.dumps({"text": text}) + "\n" for text in documents))
    return path


def numbered(count: int, length: int = 700) -> list[str]:
    """Documents that share no seven characters: each is its own number, over and over."""
    return [(f"{i:06d}." * (length // 7))[:length] for i in range(count)]


def source(path: Path, tokens: int = 512, length: int = 64) -> TextSource:
    return TextSource(dataset=str(path), tokens=tokens, sequence_length=length)


def numbers_in(text: str) -> set[str]:
    return {piece for piece in text.split(".") if len(piece) == 6 and piece.isdigit()}


def test_every_sequence_is_whole_and_begins_with_bos(tmp_path: Path) -> None:
    path = saved(tmp_path, numbered(40))
    found = load_sequences(source(path, 500), byte_tokenizer(), seed=0, part="calibration")
    # 500 tokens in sequences of 64, rounded up.
    assert found.ids.shape == (8, 64)
    assert found.ids.dtype == torch.int64
    assert (found.ids[:, 0] == BOS).all()
    # The rest is text: neither BOS again nor the EOS that this tokenizer puts behind a text.
    assert (found.ids[:, 1:] > EOS).all()
    assert found.chat_sequences == 0
    assert (found.dataset, found.revision, found.seed) == ("documents.jsonl", None, 0)


def test_no_bos_where_the_tokenizer_adds_none(tmp_path: Path) -> None:
    path = saved(tmp_path, numbered(40))
    tokenizer = byte_tokenizer(bos=False)
    found = load_sequences(source(path), tokenizer, seed=0, part="held-out")
    assert (found.ids > EOS).all()
    assert found.ids.shape == (8, 64)


def test_the_same_tokens_for_the_same_seed_alone(tmp_path: Path) -> None:
    tokenizer = byte_tokenizer(chat_template=CHAT_TEMPLATE)
    path = saved(tmp_path, numbered(60))
    first, again, other = (
        load_sequences(source(path), tokenizer, seed=seed, part="calibration") for seed in (0, 0, 1)
    )
    assert torch.equal(first.ids, again.ids)
    assert first.sha256 == again.sha256 != other.sha256
    expected = b"".join(i.to_bytes(8, "little") for row in first.ids.tolist() for i in row)
    assert first.sha256 == hashlib.sha256(expected).hexdigest()


@settings(max_examples=25)
@given(st.permutations(range(30)), st.integers(0, 2**70))
def test_parts_share_no_document_in_whatever_order(order: list[int], seed: int) -> None:
    tokenizer = byte_tokenizer()
    documents = numbered(30)
    with TemporaryDirectory() as one, TemporaryDirectory() as other:
        paths = saved(Path(one), documents), saved(Path(other), [documents[i] for i in order])
        numbers = []
        parts: tuple[Part, Part] = ("calibration", "held-out")
        for path, part in zip(paths, parts, strict=True):
            found = load_sequences(source(path), tokenizer, seed=seed, part=part)
            text = tokenizer.batch_decode(found.ids, skip_special_tokens=True)
            numbers.append(set().union(*map(numbers_in, text)))
        assert numbers[0]
        assert numbers[1]
        assert numbers[0].isdisjoint(numbers[1])


def test_documents_are_counted_and_repeated_ones_read_once(tmp_path: Path) -> None:
    tokenizer = byte_tokenizer()
    documents = numbered(40, 630)
    once = load_sequences(source(saved(tmp_path, documents)), tokenizer, seed=0, part="held-out")
    decoded = tokenizer.batch_decode(once.ids, skip_special_tokens=True)
    assert once.documents == len(set().union(*map(numbers_in, decoded)))
    twice = saved(tmp_path, [text for text in documents for _ in range(2)])
    assert load_sequences(source(twice), tokenizer, seed=0, part="held-out").sha256 == once.sha256


def test_short_documents_are_joined(tmp_path: Path) -> None:
    path = saved(tmp_path, numbered(200, 21))
    tokenizer = byte_tokenizer()
    found = load_sequences(source(path), tokenizer, seed=0, part="calibration")
    assert found.ids.shape == (8, 64)
    text = tokenizer.decode(found.ids[0], skip_special_tokens=True)
    assert text.count("\n\n") == 2
    assert len(numbers_in(text.replace("\n\n", "."))) == 3
    # Eight sequences of three documents each.
    assert found.documents == 24


def test_a_long_document_is_cut_off(tmp_path: Path) -> None:
    path = saved(tmp_path, ["x" * (40 * LARGEST_DOCUMENT), "y" * (40 * LARGEST_DOCUMENT)])
    tokenizer = byte_tokenizer(bos=False)
    available = LARGEST_DOCUMENT - LARGEST_DOCUMENT % 64
    for part in ("calibration", "held-out"):
        with pytest.raises(RecipeError) as caught:
            load_sequences(source(path, 10**6), tokenizer, seed=0, part=part)
        assert any(f"has {n * available} in" in str(caught.value) for n in (0, 1, 2))


def test_too_little_text(tmp_path: Path) -> None:
    path = saved(tmp_path, numbered(20))
    tokenizer = byte_tokenizer()
    with pytest.raises(RecipeError, match=r"calibration\.tokens: 100000 .*lower .* to") as caught:
        load_sequences(source(path, 100_000), tokenizer, seed=0, part="calibration")
    most = int(str(caught.value).split("lower calibration.tokens to ")[1].split(",")[0])
    found = load_sequences(source(path, most), tokenizer, seed=0, part="calibration")
    assert found.ids.numel() == most
    with pytest.raises(RecipeError, match=rf"{most + 1} were asked for, .* has {most} in"):
        load_sequences(source(path, most + 1), tokenizer, seed=0, part="calibration")
    empty = tmp_path / "empty.txt"
    empty.touch()
    with pytest.raises(RecipeError, match=r"held-out half of 'empty\.txt' has 0 in"):
        load_sequences(source(empty), tokenizer, seed=0, part="held-out")


def test_every_third_sequence_is_a_conversation(tmp_path: Path) -> None:
    path = saved(tmp_path, numbered(60))
    tokenizer = byte_tokenizer(chat_template=CHAT_TEMPLATE)
    found = load_sequences(source(path, 12 * 256, 256), tokenizer, seed=0, part="calibration")
    assert found.ids.shape == (12, 256)
    assert found.chat_sequences == 4
    decoded = tokenizer.batch_decode(found.ids)
    chats = [text for text in decoded if text.startswith("<s>system: You are")]
    assert len(chats) == 4
    for text in chats:
        assert text.count("<s>") == 1
        roles = [turn.partition(":")[0] for turn in text.removeprefix("<s>").split("</s>")]
        assert roles == ["system", "user", "assistant", "user", "assistant"]
        assert numbers_in(text)
    assert sum("assistant:" in text for text in decoded) == 4


def test_templates_without_a_system_message_or_of_another_kind(tmp_path: Path) -> None:
    path = saved(tmp_path, numbered(60))

    def chats(template: str, length: int = 256) -> list[str]:
        tokenizer = byte_tokenizer(chat_template=template)
        found = load_sequences(source(path, 6 * 256, length), tokenizer, seed=0, part="held-out")
        assert found.ids.shape[1] == length
        decoded: list[str] = tokenizer.batch_decode(found.ids)
        assert found.chat_sequences == sum("assistant:" in text for text in decoded)
        return [text for text in decoded if "assistant:" in text]

    refuses = "{% if messages[0]['role'] == 'system' %}{{ raise_exception('no') }}{% endif %}"
    assert all(text.startswith("<s>user: ") for text in chats(refuses + CHAT_TEMPLATE))
    assert len(chats(refuses + CHAT_TEMPLATE)) == 2
    assert chats("{{ raise_exception('for tools only') }}") == []
    # A template that takes up most of a short sequence would leave hardly any text.
    assert chats(CHAT_TEMPLATE, 64) == []


def test_a_template_that_prints_the_date_prints_the_same_one(tmp_path: Path) -> None:
    path = saved(tmp_path, numbered(60))
    # As published templates do: at the top, and in a macro of their own.
    dated = (
        "{% macro today() %}{{ strftime_now('%d %b %Y') }}{% endmacro %}"
        "{% set date = strftime_now('%Y-%m-%d') %}{{ date }} {{ today() }} "
    )
    tokenizer = byte_tokenizer(chat_template=dated + CHAT_TEMPLATE)
    found = load_sequences(source(path, 6 * 256, 256), tokenizer, seed=0, part="held-out")
    text = [t for t in tokenizer.batch_decode(found.ids) if "assistant:" in t]
    assert [t[:23] for t in text] == ["2025-01-01 01 Jan 2025 "] * 2


@pytest.mark.parametrize("field", ["config", "revision"])
def test_options_of_hub_datasets_elsewhere(field: str, tmp_path: Path) -> None:
    for dataset in ("builtin", str(saved(tmp_path, ["x"]))):
        wrong = TextSource(dataset=dataset, **{field: "main"})
        with pytest.raises(RecipeError, match=rf"fidelity\.{field}: 'main' was given"):
            load_sequences(wrong, byte_tokenizer(), seed=0, part="held-out")


def test_a_missing_local_file_is_not_looked_for_on_the_hub() -> None:
    with pytest.raises(RecipeError, match=r"calibration\.dataset: there is no file or folder"):
        load_sequences(source(Path("/nowhere/x.txt")), byte_tokenizer(), seed=0, part="calibration")


def test_the_defaults_on_a_real_tokenizer(smollm2: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(smollm2)
    calibration = load_sequences(Calibration(), tokenizer, seed=0, part="calibration")
    held_out = load_sequences(Fidelity(tokens=150_000), tokenizer, seed=0, part="held-out")
    assert calibration.ids.shape == (79, 256)
    assert held_out.ids.shape == (586, 256)
    starts = tokenizer.convert_tokens_to_ids("<|im_start|>")
    for found in (calibration, held_out):
        chats = found.ids[:, 0] == starts
        assert int(chats.sum()) == found.chat_sequences
        assert abs(found.chat_sequences - len(chats) / 3) <= 1
        # System, user, assistant and user turns are complete, and the last answer is begun.
        assert ((found.ids[chats] == starts).sum(dim=1) == 5).all()
        assert found.documents > 30
    rows = {tuple(row) for row in held_out.ids.tolist()}
    # Two tables of the library differ behind the first part of a conversation alone.
    assert len(rows) >= 584
    assert rows.isdisjoint(tuple(row) for row in calibration.ids.tolist())
