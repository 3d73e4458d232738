"""Runs of one model in step: what each gives alone, and one reading for all of them."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from hubsplice.fidelity.runs import greedy_tokens, in_step, sampled_tokens, with_hook
from hubsplice.intervention.intervention import Intervention
from hubsplice.intervention.piecewise_linear import PiecewiseLinear
from hubsplice.intervention.site import Site, Term
from hubsplice.streams.model import Model, decoder_layers, loaded
from hubsplice.streams.on_disk import OnDisk
from hubsplice.streams.room import MEMORY
from hubsplice.streams.turns import in_turns
from tests.families.variants import VARIANTS, save_tiny

Make = Callable[..., Path]

PROMPTS = torch.randint(3, 259, (3, 12), generator=torch.Generator().manual_seed(0))


def edit(size: float = 3.0) -> Intervention:
    encoder, direction = torch.randn(2, 64, generator=torch.Generator().manual_seed(1))
    function = PiecewiseLinear.jump_relu(0.1).scaled(size)
    return Intervention((Site(1, (Term("t", encoder, 0.1, function, direction),)),))


def runs(model: Model) -> list[Callable[[], Tensor]]:
    """Of several lengths, with the hook and without, greedy and sampled."""

    def greedy(prompts: Tensor, tokens: int) -> Callable[[], Tensor]:
        return lambda: greedy_tokens(model, prompts, tokens)

    def sampled() -> Tensor:
        return sampled_tokens(model, PROMPTS)

    def several() -> Tensor:
        within = in_step(model, [sampled, with_hook(model, edit(), sampled)])
        return torch.cat([*within, greedy_tokens(model, within[0][:, :5], 2)], dim=1)

    return [
        greedy(PROMPTS, 6),
        with_hook(model, edit(), greedy(PROMPTS, 6)),
        with_hook(model, edit(-3.0), greedy(PROMPTS[:1, :7], 9)),
        sampled,
        with_hook(model, edit(), sampled),
        several,
    ]


def alone_and_in_step(
    folder: Path, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> tuple[list[Tensor], list[Tensor]]:
    monkeypatch.setenv(MEMORY, "whole")
    with loaded(folder, dtype) as model:
        alone = [run() for run in runs(model)]
    monkeypatch.setenv(MEMORY, "0")
    with loaded(folder, dtype) as model:
        together = in_step(model, runs(model))
    return alone, together


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("name", ["gpt2", "gemma3_text", "qwen3_moe"])
def test_each_gives_what_it_gives_alone(
    name: str, dtype: torch.dtype, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    family = next(variant for variant in VARIANTS if variant.family == name)
    folder = save_tiny(family, tmp_path / "base", torch.bfloat16)
    alone, together = alone_and_in_step(folder, dtype, monkeypatch)
    assert all(torch.equal(a, b) for a, b in zip(alone, together, strict=True))
    # If a hook acted in another run as well, one of these would be equal.
    assert not torch.equal(alone[0], alone[1])
    assert not torch.equal(alone[3], alone[4])


def test_a_module_is_read_once_for_all_runs(
    tiny_llama: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: Counter[str] = Counter()
    stored = OnDisk.stored

    def counted(on_disk: OnDisk, name: str) -> Tensor:
        read[name] += 1
        return stored(on_disk, name)

    monkeypatch.setattr(OnDisk, "stored", counted)
    monkeypatch.setenv(MEMORY, "0")
    with loaded(tiny_llama(), torch.bfloat16) as model:

        def greedy() -> Tensor:
            return greedy_tokens(model, PROMPTS, 5)

        def shorter() -> Tensor:
            return greedy_tokens(model, PROMPTS, 3)

        in_step(model, [greedy, with_hook(model, edit(), greedy), shorter])
        layers = {name: n for name, n in read.items() if "embed" not in name}
        assert set(layers.values()) == {5}
        assert any("lm_head" in name for name in layers)


@pytest.mark.parametrize("error", [ValueError("wrong"), KeyboardInterrupt()], ids=str)
def test_a_run_that_fails_ends_the_others(
    error: BaseException, tiny_llama: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(MEMORY, "0")
    threads = threading.active_count()
    with loaded(tiny_llama(), torch.float32) as model:
        hooks = [len(layer._forward_hooks) for layer in decoder_layers(model)]
        wanted = greedy_tokens(model, PROMPTS, 4)

        def fails() -> Tensor:
            greedy_tokens(model, PROMPTS, 1)
            raise error

        def goes_on() -> Any:
            return greedy_tokens(model, PROMPTS, 6)

        with pytest.raises(type(error)):
            in_step(model, [with_hook(model, edit(), goes_on), fails, goes_on])
        assert threading.active_count() == threads
        assert [len(layer._forward_hooks) for layer in decoder_layers(model)] == hooks
        assert torch.equal(greedy_tokens(model, PROMPTS, 4), wanted)


def test_a_run_learns_that_one_within_it_has_failed() -> None:
    def fails() -> int:
        raise ValueError("wrong")

    def outer() -> str:
        try:
            in_turns([fails, lambda: 1])
        except ValueError as error:
            return str(error)
        return "nothing"

    assert in_turns([outer, lambda: "other"]) == ["wrong", "other"]


def test_random_numbers_are_a_runs_own() -> None:
    def draw() -> Tensor:
        first = torch.rand(3)
        return torch.cat([first, *in_turns([lambda: torch.rand(2), lambda: torch.rand(2)])])

    before = torch.get_rng_state()
    first, second = in_turns([draw, draw])
    assert torch.equal(first, second)
    assert torch.equal(first[3:5], first[5:])
    assert torch.equal(torch.get_rng_state(), before)
