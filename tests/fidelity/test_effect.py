"""What an edit does to the text, on a model that was trained a little."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional

from hubsplice.fidelity.divergence import Readable, compare
from hubsplice.fidelity.effect import Continued, edit_effect, text_loss, word_of
from hubsplice.fidelity.report import EditEffect
from hubsplice.fidelity.runs import head_weight, logit_scale, run_model
from hubsplice.fidelity.summary import effect_sentence, effect_warning
from hubsplice.intervention.intervention import Intervention
from hubsplice.intervention.piecewise_linear import PiecewiseLinear
from hubsplice.intervention.site import Site, Term
from hubsplice.streams.model import hooked, loaded
from tests.compiling.trained import LAYER, Train, Trained
from tests.families.variants import Variant

FLOAT32 = torch.float32


@pytest.fixture(scope="module")
def trained(train: Train) -> Trained:
    return train(Variant("llama", {"intermediate_size": 256}))


def steered(strength: float) -> Intervention:
    """A constant along a random direction, as long as `strength` times a token's stream."""
    direction = torch.randn(64, generator=torch.Generator().manual_seed(3))
    constant = PiecewiseLinear.constant(strength)
    return Intervention((Site(LAYER, (Term("steer", torch.zeros(64), 0.0, constant, direction),)),))


def effect_of(trained: Trained, edit: Intervention) -> EditEffect:
    ids = trained.held_out
    with loaded(trained.folders[FLOAT32], FLOAT32) as model:
        base = run_model(model, ids, (), lambda *_: None)
        with hooked(model, edit):
            hook = run_model(model, ids, (), lambda *_: None)
        continued = Continued.of(model, edit, ids)
        head, scale = head_weight(model), logit_scale(model)
    read = [Readable(run.hidden, head, scale) for run in (base, hook)]
    divergence = compare(read[1], {"base": read[0]})["base"].divergence
    everywhere = torch.ones(ids.shape, dtype=torch.bool)
    before, after = (text_loss(r, ids) for r in read)
    return edit_effect(continued, before, after, divergence, everywhere, everywhere)


def test_the_loss_on_text_is_that_of_the_model(trained: Trained) -> None:
    ids = trained.held_out
    with loaded(trained.folders[FLOAT32], FLOAT32) as model, torch.inference_mode():
        run = run_model(model, ids, (), lambda *_: None)
        read = Readable(run.hidden, head_weight(model), logit_scale(model))
        logits = model(ids[:32]).logits[:, :-1]
        truth = functional.cross_entropy(logits.transpose(1, 2), ids[:32, 1:])
    assert text_loss(read, ids) == pytest.approx(float(truth), rel=1e-4)


def test_without_an_edit_everything_stays_the_same(trained: Trained) -> None:
    found = effect_of(trained, Intervention(()))
    assert found.same_continuations == found.prompts == 16
    assert found.edited_own_loss == pytest.approx(found.base_own_loss)
    assert found.edited_self_loss == pytest.approx(found.base_own_loss)
    assert found.edited_text_loss == pytest.approx(found.base_text_loss)
    assert found.word == "hardly visible"


def test_the_same_seed_gives_the_same_and_nobody_elses_numbers_change(trained: Trained) -> None:
    torch.manual_seed(5)
    with loaded(trained.folders[FLOAT32], FLOAT32) as model:
        first = Continued.of(model, steered(0.5), trained.held_out)
        after = torch.rand(1)
        again = Continued.of(model, steered(0.5), trained.held_out)
    torch.manual_seed(5)
    assert torch.equal(torch.rand(1), after)
    assert torch.equal(first.edited, again.edited)
    assert first.edited_loss == again.edited_loss


def test_words_grow_with_the_strength(trained: Trained) -> None:
    words = [effect_of(trained, steered(s)).word for s in (1e-5, 0.2, 40.0)]
    assert words[0] == "hardly visible"
    assert words[1] in ("visible", "strong")
    assert words[2] == "breaks the text"


def figures(**fields: float) -> EditEffect:
    content: dict[str, float] = {
        "acted_share": 0.02,
        "acted_effect": 0.1,
        "base_text_loss": 3.0,
        "edited_text_loss": 3.01,
        "base_own_loss": 2.5,
        "edited_own_loss": 2.55,
        "edited_self_loss": 2.5,
        "prompts": 16,
        "new_tokens": 32,
        "same_continuations": 9,
    }
    return EditEffect.model_validate({"word": "visible", **content, **fields})


@pytest.mark.parametrize(
    ("fields", "word"),
    [
        ({}, "visible"),
        ({"same_continuations": 16, "acted_effect": 1e-3}, "hardly visible"),
        ({"same_continuations": 16, "acted_effect": None}, "hardly visible"),
        # It acts on none of the prompts, and yet one sees it where it acts.
        ({"same_continuations": 16, "acted_effect": 0.5}, "visible"),
        ({"edited_own_loss": 2.9}, "strong"),
        ({"edited_own_loss": 8.0}, "breaks the text"),
        # Text that repeats itself is not strange to the base.
        (
            {"edited_text_loss": 15.0, "edited_own_loss": 1.0, "edited_self_loss": 0.9},
            "breaks the text",
        ),
    ],
)
def test_the_word_for_what_was_measured(fields: dict[str, float], word: str) -> None:
    effect = figures(**fields)
    assert word_of(effect) == word
    named = effect.model_copy(update={"word": word})
    assert word in effect_sentence(named)
    assert (effect_warning(named) is None) is (word in ("visible", "strong"))
