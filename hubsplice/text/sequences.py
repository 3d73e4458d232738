"""Sequences of tokens for calibration and for held-out measurement."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain, islice
from pathlib import Path
from typing import TYPE_CHECKING

from torch import Tensor

from hubsplice.errors import RecipeError
from hubsplice.features.prompt import Prompt
from hubsplice.files.plain import exists
from hubsplice.recipe.models import BUILTIN, TextSource
from hubsplice.text.builtin import builtin_corpus
from hubsplice.text.chat import ChatFormat
from hubsplice.text.documents import Corpus, Document, Part
from hubsplice.text.hub import hub_corpus
from hubsplice.text.local import local_corpus
from hubsplice.text.prompts import prompt_digests, prompt_rows
from hubsplice.text.rows import Row, own_tokens, padded

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

_SECTIONS: dict[Part, str] = {"calibration": "calibration", "held-out": "fidelity"}

# Sequences are drawn from a pool this many times as large, and no smaller than that: a seed means
# a choice of text, and a few long documents in front don't make up all of a short result.
_POOL_FACTOR = 4
_SMALLEST_POOL = 64


@dataclass(frozen=True, eq=False)
class TokenSequences:
    """Tokens, and where they came from.

    Attributes:
        ids: shape [sequences, sequence_length], int64, on the CPU. Every sequence begins as the
            tokenizer begins a text (with BOS, if it does).
        lengths: how many tokens of each sequence are text, shape [sequences]; the rest of a
            shorter one repeats its last token, and counts nowhere.
        drawn: how many of the sequences, the first ones, were drawn at random. The others were
            chosen since edits act on them.
        dataset: `builtin`, a Hub dataset id, or the bare name of a local file or folder.
        revision: the Hub commit, or the version of Python that `builtin` came with; None for
            local files.
        sha256: of the ids as little-endian 64-bit integers, row by row, in hexadecimal.
        seed: what the sequences were drawn with.
        documents: how many documents they are from.
        chat_sequences: how many of them are conversations in the tokenizer's chat template.
    """

    ids: Tensor
    lengths: Tensor
    drawn: int
    dataset: str
    revision: str | None
    sha256: str
    seed: int
    documents: int
    chat_sequences: int

    @property
    def is_text(self) -> Tensor:
        """Which tokens are text, shape [sequences, sequence_length]."""
        return own_tokens(self.lengths, self.ids.shape[1])

    @property
    def tokens(self) -> int:
        """How many tokens are text."""
        return int(self.lengths.sum())


@dataclass(frozen=True, eq=False)
class Text:
    """One part of a source of text.

    Attributes:
        corpus: the source.
        seed: of the drawing.
        length: tokens in a sequence.
        drawn: sequences drawn at random.
        prompts: what the recipe's author gave, which may be shorter.
        further: sequences beyond those drawn, made as they are asked for. Can be read once.
    """

    corpus: Corpus
    seed: int
    length: int
    drawn: tuple[Row, ...]
    prompts: tuple[Row, ...]
    further: Iterator[Row]

    def sequences(self, chosen: Sequence[Row] = ()) -> TokenSequences:
        """The drawn sequences, and behind them some that were chosen."""
        rows = (*self.drawn, *chosen)
        ids, lengths = padded(rows, self.length)
        return TokenSequences(
            ids=ids,
            lengths=lengths,
            drawn=len(self.drawn),
            dataset=self.corpus.name,
            revision=self.corpus.revision,
            sha256=hashlib.sha256(ids.numpy().astype("<i8").tobytes()).hexdigest(),
            seed=self.seed,
            documents=len(frozenset().union(*(row.documents for row in rows))),
            chat_sequences=sum(row.is_chat for row in rows),
        )


def open_text(
    source: TextSource,
    tokenizer: PreTrainedTokenizerBase,
    *,
    seed: int,
    part: Part,
    prompts: Sequence[Prompt] = (),
) -> Text:
    """Read one part of a text, and cut it into sequences of exactly `source.sequence_length`.

    Every document belongs to one part, by a hash of its text: calibration and held-out sequences
    share none, whichever sources they are from. Where the tokenizer has a chat template, every
    third sequence is a conversation, as long as at least half of it is text.

    Args:
        source: the recipe's `calibration` or `fidelity` section.
        tokenizer: the base model's.
        seed: which of the text is drawn, and in which order.
        part: calibration or held-out documents.
        prompts: the recipe's; each part has half of them.

    Returns:
        Drawn sequences of at least `source.tokens` tokens, rounded up to whole sequences.

    Raises:
        RecipeError: no such file, dataset or column, malformed files, or too little text. Reading
            further raises it too.
        CheckpointError: the Hub cannot be reached.
    """
    section = _SECTIONS[part]
    corpus = _open(source, section)
    wanted = -(-source.tokens // source.sequence_length)
    prefix = _prefix(tokenizer)
    content_length = source.sequence_length - len(prefix)
    chunks = _chunks(
        corpus.documents, part, tokenizer, content_length, left_out=prompt_digests(prompts)
    )
    pool = list(islice(chunks, max(_POOL_FACTOR * wanted, _SMALLEST_POOL)))
    if len(pool) < wanted:
        raise _too_little(source, section, part, corpus.name, len(pool))
    chat = ChatFormat.of(tokenizer)
    if chat is not None and 2 * chat.overhead > source.sequence_length:
        chat = None
    rows = _rows(chain(_shuffled(pool, seed), chunks), prefix, chat, source.sequence_length)
    return Text(
        corpus,
        seed,
        source.sequence_length,
        tuple(islice(rows, wanted)),
        prompt_rows(prompts, tokenizer, length=source.sequence_length, part=part),
        rows,
    )


def load_sequences(
    source: TextSource, tokenizer: PreTrainedTokenizerBase, *, seed: int, part: Part
) -> TokenSequences:
    """The drawn sequences of one part of a text; see `open_text`."""
    return open_text(source, tokenizer, seed=seed, part=part).sequences()


@dataclass(frozen=True)
class _Chunk:
    """Consecutive tokens of one document, or of several ends of documents, and their digests."""

    ids: list[int]
    documents: frozenset[bytes]

    def conversation(self, chat: ChatFormat) -> list[int]:
        text = chat.tokenizer.decode(self.ids, skip_special_tokens=True)
        # A cut between tokens may be a cut within a character.
        return chat.token_ids(text.strip("\ufffd"))


def _rows(
    chunks: Iterable[_Chunk], prefix: list[int], chat: ChatFormat | None, length: int
) -> Iterator[Row]:
    for i, chunk in enumerate(chunks):
        conversation = chunk.conversation(chat) if chat is not None and i % 3 == 1 else []
        # Few texts take fewer tokens as a conversation than by themselves; those stay as they are.
        fits = len(conversation) >= length
        ids = conversation[:length] if fits else prefix + chunk.ids
        yield Row(tuple(ids), chunk.documents, is_chat=fits)


def require_text(source: TextSource, section: str) -> None:
    """Look for a local text, which is not read; a dataset on the Hub is not asked for.

    Raises:
        RecipeError: there is no such file or folder, or none of a known kind.
    """
    if source.dataset == BUILTIN or _is_local(source.dataset):
        _open(source, section)


def _is_local(dataset: str) -> bool:
    return dataset.startswith(("/", "./", "../", "~")) or exists(Path(dataset).expanduser())


def _open(source: TextSource, section: str) -> Corpus:
    path = Path(source.dataset).expanduser()
    is_local = _is_local(source.dataset)
    is_hub = source.dataset != BUILTIN and not is_local
    for field in ("config", "revision"):
        value = getattr(source, field)
        if value is not None and not is_hub:
            raise RecipeError(
                f"{section}.{field}: {value!r} was given, and {source.dataset!r} is no Hub "
                "dataset; remove it, or give a Hub dataset id"
            )
    if source.dataset == BUILTIN:
        return builtin_corpus()
    if is_local:
        named = {"field": f"{section}.dataset", "column_field": f"{section}.column"}
        return local_corpus(path, source.column, **named)
    return hub_corpus(source, section=section)


def _prefix(tokenizer: PreTrainedTokenizerBase) -> list[int]:
    """What the tokenizer puts in front of every text, such as BOS."""
    probe = "a"
    bare = tokenizer(probe, add_special_tokens=False).input_ids
    full = tokenizer(probe).input_ids
    for start in range(len(full) - len(bare) + 1):
        if full[start : start + len(bare)] == bare:
            return list(full[:start])
    return []


def _chunks(
    documents: Iterator[Document],
    part: Part,
    tokenizer: PreTrainedTokenizerBase,
    length: int,
    *,
    left_out: frozenset[bytes],
) -> Iterator[_Chunk]:
    """Chunks of `length` tokens from the documents of one part, each read once.

    What remains at the end of a document is joined with the ends of others, so that documents
    shorter than a chunk count too.
    """
    seen = set(left_out)
    ends: list[int] = []
    in_ends: set[bytes] = set()
    separator: list[int] = tokenizer("\n\n", add_special_tokens=False).input_ids
    for document in documents:
        digest = document.digest
        if document.part != part or digest in seen:
            continue
        seen.add(digest)
        ids: list[int] = tokenizer(
            document.excerpt, add_special_tokens=False, verbose=False
        ).input_ids
        whole = len(ids) - len(ids) % length
        for start in range(0, whole, length):
            yield _Chunk(ids[start : start + length], frozenset({digest}))
        if whole == len(ids):
            continue
        ends += [*separator, *ids[whole:]] if ends else ids[whole:]
        in_ends.add(digest)
        if len(ends) >= length:
            yield _Chunk(ends[:length], frozenset(in_ends))
            ends, in_ends = [], set()


def _shuffled(pool: list[_Chunk], seed: int) -> list[_Chunk]:
    # Hashes, and no library's generator, which may change between versions.
    order = sorted(range(len(pool)), key=lambda i: hashlib.sha256(f"{seed} {i}".encode()).digest())
    return [pool[i] for i in order]


def _too_little(source: TextSource, section: str, part: Part, name: str, found: int) -> RecipeError:
    available = found * source.sequence_length
    remedy = f"lower {section}.tokens to {available}, or " if available >= 256 else ""
    return RecipeError(
        f"{section}.tokens: {source.tokens} were asked for, and the {part} half of {name!r} has "
        f"{available} in sequences of {source.sequence_length}; {remedy}give more text (about half "
        "of the documents of any source are for calibration, the others are held out)"
    )
