"""Divergences against the definition, in float64."""

from __future__ import annotations

import math
import subprocess
import sys

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from hubsplice.fidelity.divergence import Readable, compare

SHAPE = (3, 5)
D, VOCABULARY = 8, 11


def readable(seed: int, dtype: torch.dtype = torch.float32, scale: float = 1.0) -> Readable:
    generator = torch.Generator().manual_seed(seed)
    hidden = scale * torch.randn(*SHAPE, D, generator=generator)
    return Readable(hidden.to(dtype), torch.randn(VOCABULARY, D, generator=generator).to(dtype))


def divergence(reference: Tensor, other: Tensor) -> Tensor:
    """KL(reference ‖ other) of logits [..., vocabulary], from exp, sums and log alone."""
    p, q = reference.double().exp(), other.double().exp()
    p, q = p / p.sum(dim=-1, keepdim=True), q / q.sum(dim=-1, keepdim=True)
    return (p * (p / q).log()).sum(dim=-1)


def logits(of: Readable) -> Tensor:
    # The product in float64, rounded to the dtype that a model of that dtype gives.
    return (of.hidden.double() @ of.head.double().T).to(of.head.dtype)


def test_it_is_the_kullback_leibler_divergence_of_the_model_from_the_reference() -> None:
    reference, near, far = readable(0), readable(0), readable(1)
    near = Readable(near.hidden + 0.01, near.head)
    found = compare(reference, {"near": near, "far": far})
    assert list(found) == ["near", "far"]
    for name, other in (("near", near), ("far", far)):
        wanted = divergence(logits(reference), logits(other))
        assert found[name].divergence.shape == SHAPE
        assert found[name].divergence.dtype == torch.float64
        torch.testing.assert_close(found[name].divergence, wanted, rtol=1e-4, atol=1e-8)
        tops = logits(reference).argmax(dim=-1) == logits(other).argmax(dim=-1)
        assert torch.equal(found[name].same_top, tops)
    assert found["near"].same_top.float().mean() > found["far"].same_top.float().mean()
    # It is no distance: the other direction is another number.
    back = compare(far, {"reference": reference})["reference"].divergence
    assert not torch.allclose(back, found["far"].divergence, rtol=0.01)


@pytest.mark.parametrize("vocabulary", [100_000, 300_000])
def test_no_token_is_lost_or_moved_where_only_some_are_widened_at_a_time(vocabulary: int) -> None:
    # Two of fifteen tokens fit into a step, or not even one.
    generator = torch.Generator().manual_seed(0)
    head = torch.randn(vocabulary, D, generator=generator)
    reference, other = (Readable(readable(seed).hidden, head) for seed in (0, 1))
    ids = torch.randint(vocabulary, SHAPE, generator=generator)
    found = compare(reference, {"other": other}, ids)["other"]
    wanted = divergence(logits(reference), logits(other))
    torch.testing.assert_close(found.divergence, wanted, rtol=1e-4, atol=1e-8)
    assert found.losses is not None
    for of, losses in zip((reference, other), found.losses, strict=True):
        true = functional.cross_entropy(
            logits(of)[:, :-1].double().movedim(-1, 1), ids[:, 1:], reduction="none"
        )
        torch.testing.assert_close(losses, true, rtol=1e-5, atol=1e-6)


# Of fifteen tokens all fit into one step, of which the model has a part; or eight do.
@pytest.mark.parametrize(
    ("vocabulary", "count"), [(VOCABULARY, 2), (300_000, 2), (2_000_000, 2), (2_000_000, 1)]
)
def test_one_of_fewer_sequences_is_compared_over_the_first_ones(
    vocabulary: int, count: int
) -> None:
    generator = torch.Generator().manual_seed(0)
    head = torch.randn(vocabulary, D, generator=generator)
    reference, other = (Readable(readable(seed).hidden, head) for seed in (0, 1))
    ids = torch.randint(vocabulary, SHAPE, generator=generator)
    part = Readable(other.hidden[:count], head)
    found = compare(reference, {"part": part, "all": other}, ids)
    whole, first = found["all"], found["part"]
    assert whole.divergence.shape == SHAPE
    assert torch.equal(first.same_top, whole.same_top[:count])
    # Another number of rows at once may round a product otherwise.
    torch.testing.assert_close(first.divergence, whole.divergence[:count], rtol=1e-4, atol=1e-8)
    assert first.losses is not None
    assert whole.losses is not None
    for ours, theirs in zip(first.losses, whole.losses, strict=True):
        torch.testing.assert_close(ours, theirs[:count], rtol=1e-5, atol=1e-6)


def test_logits_are_rounded_as_their_own_model_rounds_them() -> None:
    reference = readable(0, scale=3.0)
    other = Readable(reference.hidden.bfloat16(), reference.head.bfloat16())
    found = compare(reference, {"served": other})["served"].divergence
    torch.testing.assert_close(
        found, divergence(logits(reference), logits(other)), rtol=1e-3, atol=1e-6
    )
    exact = other.hidden.double() @ other.head.double().T
    assert not torch.allclose(found, divergence(logits(reference), exact), rtol=0.02)


def test_a_model_does_not_differ_from_itself() -> None:
    reference = readable(0, scale=10.0)
    copy = Readable(reference.hidden.clone(), reference.head.clone())
    found = compare(reference, {"copy": copy})["copy"]
    assert torch.equal(found.divergence, torch.zeros(SHAPE, dtype=torch.float64))
    assert found.same_top.all()


def test_divergences_far_below_float32_precision_are_still_right() -> None:
    # A vocabulary as large as a model's, and a change as small as float32's own noise in one.
    generator = torch.Generator().manual_seed(2)
    head = torch.randn(50_000, 4, generator=generator)
    hidden = torch.randn(1, 20, 4, generator=generator)
    reference = Readable(hidden, head)
    other = Readable(hidden + 3e-4 * torch.randn(hidden.shape, generator=generator), head)
    wanted = divergence(hidden @ head.T, other.hidden @ head.T)
    assert wanted.mean() < 5e-7
    found = compare(reference, {"other": other})["other"].divergence
    torch.testing.assert_close(found, wanted, rtol=1e-3, atol=1e-12)


def test_rounding_gives_no_negative_divergence() -> None:
    reference = readable(0, scale=3.0)
    noise = torch.randn(*SHAPE, D, generator=torch.Generator().manual_seed(4))
    other = Readable(reference.hidden * (1 + 1e-7 * noise), reference.head)
    found = compare(reference, {"other": other})["other"].divergence
    assert (found >= 0).all()
    assert (found < 1e-6).all()


def test_tokens_keep_their_places_where_the_vocabulary_leaves_room_for_one_at_a_time() -> None:
    # Every third embedding is 0, 1 or 2, so that the sums over a vocabulary too large for more
    # than one token's logits can be written down.
    count = 2**24 // 3 + 1
    head = torch.arange(3.0).repeat(count)[:, None]
    hidden, moved = torch.tensor([[[0.0], [1.0], [-2.0]]]), torch.tensor([[[0.5], [1.0], [1.0]]])
    found = compare(Readable(hidden, head), {"moved": Readable(moved, head)})["moved"]

    def wanted(h: float, m: float) -> float:
        p, q = ([math.exp(x * k) for k in range(3)] for x in (h, m))
        return sum(
            a / sum(p) * math.log((a / sum(p)) / (b / sum(q))) for a, b in zip(p, q, strict=True)
        )

    expected = [wanted(0.0, 0.5), 0.0, wanted(-2.0, 1.0)]
    assert found.divergence[0].tolist() == pytest.approx(expected, rel=1e-5, abs=1e-12)
    assert found.same_top[0, 1:].tolist() == [True, False]


def test_losses_are_cross_entropies_of_the_token_that_follows() -> None:
    reference, other = readable(0), readable(1)
    ids = torch.randint(0, VOCABULARY, SHAPE, generator=torch.Generator().manual_seed(2))
    found = compare(reference, {"other": other}, ids)["other"].losses
    assert found is not None
    for loss, model in zip(found, (reference, other), strict=True):
        wanted = functional.cross_entropy(
            logits(model)[:, :-1].transpose(1, 2), ids[:, 1:], reduction="none"
        )
        torch.testing.assert_close(loss, wanted.double(), rtol=1e-5, atol=1e-5)
    assert compare(reference, {"other": other})["other"].losses is None


GROWTH = """
from pathlib import Path
import torch
from hubsplice.fidelity.divergence import Readable, compare

def megabytes():
    fields = dict(line.split(":", 1) for line in Path("/proc/self/status").open())
    return int(fields["RssAnon"].split()[0]) // 1024

torch.set_num_threads(1)
head, hidden = torch.randn(2**17, 32), torch.randn(4, 64, 32)
# The C library then takes what is smaller from its heap.
freed = [torch.empty(2**20 * 30 // 4) for _ in range(3)]
del freed
others = {name: Readable(hidden + name, head) for name in (1e-3, 2e-3)}
before = megabytes()
compare(Readable(hidden, head), others, torch.randint(2**17, (4, 64)))
print(megabytes() - before)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="the memory of a process is read from /proc")
def test_many_logits_leave_no_memory_behind() -> None:
    done = subprocess.run(
        [sys.executable, "-c", GROWTH], capture_output=True, text=True, check=True
    )
    # In float64, the logits of one of the three models would take 268 MB.
    assert int(done.stdout) < 100
