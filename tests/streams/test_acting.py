"""Text on which edits act: which sequences are kept, for which edit, and when the scan ends."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest
import torch
from torch import Tensor

from hubsplice.intervention.intervention import Intervention
from hubsplice.intervention.piecewise_linear import PiecewiseLinear
from hubsplice.intervention.place import Place
from hubsplice.intervention.site import Site, Term
from hubsplice.streams.acting import ActingText, acting_text
from hubsplice.streams.model import Model, collect_streams, loaded
from hubsplice.text.documents import Corpus
from hubsplice.text.rows import Row
from hubsplice.text.sequences import Text

Make = Callable[..., Path]

D, LENGTH = 64, 16
DRAWN, FURTHER = 30, 400
PLACE = Place(1)


def rows(count: int, seed: int) -> list[Row]:
    generator = torch.Generator().manual_seed(seed)
    ids = torch.randint(3, 259, (count, LENGTH), generator=generator)
    return [
        Row(tuple(row), frozenset({f"{seed} {i}".encode()}), is_chat=False)
        for i, row in enumerate(ids.tolist())
    ]


def text(prompts: Sequence[Row] = ()) -> Text:
    corpus = Corpus("test", None, iter(()))
    further = iter(rows(FURTHER, 1))
    return Text(corpus, 0, LENGTH, tuple(rows(DRAWN, 0)), tuple(prompts), further)


@pytest.fixture
def model(tiny_llama: Make) -> Iterator[Model]:
    with loaded(tiny_llama(), torch.float32) as model:
        yield model


def stream(model: Model, some: Sequence[Row]) -> Tensor:
    ids = torch.tensor([row.ids for row in some])
    return collect_streams(model, ids, [PLACE], lambda *_: None)[PLACE]


def edit(model: Model, share: float, *, seed: int = 0, label: str = "rare") -> Term:
    """An ablation of a random feature that is active on this share of the further tokens."""
    encoder, direction = torch.randn(2, D, generator=torch.Generator().manual_seed(seed))
    p = stream(model, rows(FURTHER, 1)) @ encoder
    threshold = float(p[:, 1:].flatten().quantile(1 - share))
    function = PiecewiseLinear.jump_relu(threshold).scaled(-1.0)
    return Term(label, encoder, 0.0, function, direction)


def found(
    model: Model, terms: Sequence[Term], given: Text, budget: int = FURTHER * LENGTH
) -> ActingText:
    intervention = Intervention((Site(1, tuple(terms)),))
    return acting_text(
        model, intervention, given, budget=budget, kind="held-out", progress=lambda *_: None
    )


def acted(model: Model, term: Term, text: ActingText) -> Tensor:
    """On how many tokens of each sequence the edit acts, by another way than the scan's."""
    ids = text.sequences.ids
    h = collect_streams(model, ids, [PLACE], lambda *_: None)[PLACE]
    changes: Tensor = Site(1, (term,)).delta(h).norm(dim=-1) > 0
    changes[:, 0] = False
    return (changes & text.sequences.is_text).sum(dim=1)


def test_sequences_are_kept_where_a_rare_edit_acts(model: Model) -> None:
    term = edit(model, 0.004)
    result = found(model, [term], text())
    per_sequence = acted(model, term, result)
    chosen = per_sequence[result.sequences.drawn :]
    assert result.sequences.drawn == DRAWN
    assert 5 < len(chosen) <= DRAWN
    assert (chosen > 0).all()
    # Every further sequence on which it acts was kept, in order, as long as there was room.
    all_of_them = Site(1, (term,)).delta(stream(model, rows(FURTHER, 1)))[:, 1:].norm(dim=-1) > 0
    expected = [row for row, acts in zip(rows(FURTHER, 1), all_of_them.any(1), strict=True) if acts]
    assert result.sequences.ids[DRAWN:].tolist() == [list(row.ids) for row in expected[:DRAWN]]
    assert result.acted[PLACE, "rare"] == int(per_sequence.sum())


def test_an_edit_that_acts_often_needs_no_more_text(model: Model) -> None:
    result = found(model, [edit(model, 0.7)], text())
    assert len(result.sequences.ids) == DRAWN
    assert result.scanned == 0


def test_sequences_count_for_the_edit_that_they_were_kept_for(model: Model) -> None:
    terms = [edit(model, 0.004, seed=1, label="one"), edit(model, 0.7, seed=2, label="often")]
    result = found(model, terms, text())
    one, often = result.counts_for((PLACE, "one")), result.counts_for((PLACE, "often"))
    assert one.all()
    assert often[:DRAWN].all()
    # They were kept for the other one's sake, and would tell of this one on such text alone.
    assert len(often) > DRAWN
    assert not often[DRAWN:].any()


def test_a_common_edit_does_not_take_the_room_of_a_rare_one(model: Model) -> None:
    terms = [edit(model, 0.03, seed=1, label="common"), edit(model, 0.002, seed=2, label="rare")]
    # The common one needs more text than there is room for, and would fill it at once.
    assert (acted(model, terms[0], found(model, terms, text(), budget=1)) > 0).sum() < 20
    result = found(model, terms, text())
    rare = result.counts_for((PLACE, "rare"))[DRAWN:]
    common = result.counts_for((PLACE, "common"))[DRAWN:]
    assert int(common.sum()) <= DRAWN // 2
    assert int(rare.sum()) >= DRAWN // 4


def test_the_scan_ends_where_its_budget_does(model: Model) -> None:
    result = found(model, [edit(model, 0.0005)], text(), budget=20 * LENGTH)
    assert result.scanned == 20 * LENGTH
    nothing = found(model, [edit(model, 0.0005)], text(), budget=0)
    assert (nothing.scanned, len(nothing.sequences.ids)) == (0, DRAWN)


def test_text_that_ends_is_no_error(model: Model) -> None:
    result = found(model, [edit(model, 0.0003)], text(), budget=10**9)
    assert result.scanned == FURTHER * LENGTH


def test_prompts_count_for_every_edit_and_may_be_short(model: Model) -> None:
    short = Row(rows(1, 2)[0].ids[:7], frozenset({b"prompt"}), is_chat=True)
    term = edit(model, 0.004)
    result = found(model, [term], text([short]))
    sequences = result.sequences
    assert sequences.lengths[DRAWN] == 7
    assert sequences.ids[DRAWN].tolist()[:7] == list(short.ids)
    assert sequences.is_text.sum() == sequences.tokens == sequences.ids.numel() - (LENGTH - 7)
    assert result.counts_for((PLACE, "rare")).all()
    # What fills the row up is no text, whatever the edit would do there.
    assert result.acted[PLACE, "rare"] == int(acted(model, term, result).sum())


def test_later_edits_are_sought_in_what_earlier_ones_leave(model: Model) -> None:
    """An edit after a layer shifts the stream, so that a feature two layers on is active."""
    shift = Term("shift", torch.zeros(D), 1.0, PiecewiseLinear.linear(1.0), torch.full((D,), 3.0))
    encoder = torch.full((D,), 1.0)
    unshifted = collect_streams(
        model, torch.tensor([row.ids for row in rows(DRAWN, 0)]), [Place(2)], lambda *_: None
    )[Place(2)]
    above = float((unshifted @ encoder).max()) + 1.0
    later = Term("later", encoder, 0.0, PiecewiseLinear.jump_relu(above), torch.ones(D))

    def tokens(*sites: Site) -> int:
        result = acting_text(
            model, Intervention(sites), text(), budget=512, kind="", progress=lambda *_: None
        )
        return result.acted[Place(2), "later"]

    assert tokens(Site(2, (later,))) < 10
    assert tokens(Site(1, (shift,)), Site(2, (later,))) > 300
