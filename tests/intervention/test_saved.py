"""Interventions in files: the same bits come back, and nothing malformed does."""

from __future__ import annotations

import json
import math
import struct
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from hubsplice.errors import CheckpointError, OutputError
from hubsplice.intervention.intervention import Intervention
from hubsplice.intervention.normalization import Normalization
from hubsplice.intervention.piecewise_linear import PiecewiseLinear
from hubsplice.intervention.saved import load_intervention, save_intervention
from hubsplice.intervention.site import Site, Term

D = 3
KEY = "hubsplice.intervention"

doubles = st.floats(allow_nan=False, allow_infinity=False)
singles = st.floats(allow_nan=False, allow_infinity=False, width=32)
vectors = st.lists(singles, min_size=D, max_size=D).map(torch.tensor)


@st.composite
def functions(draw: st.DrawFn) -> PiecewiseLinear:
    points = sorted(draw(st.sets(doubles, max_size=4)))
    pieces = st.lists(doubles, min_size=len(points) + 1, max_size=len(points) + 1)
    return PiecewiseLinear(tuple(points), tuple(draw(pieces)), tuple(draw(pieces)))


terms = st.builds(
    Term, st.text(), vectors, doubles, functions(), vectors, st.sampled_from(Normalization)
)


@st.composite
def interventions(draw: st.DrawFn) -> Intervention:
    layers = sorted(draw(st.sets(st.integers(0, 100), max_size=3)))
    norms = st.floats(min_value=0.0, allow_nan=False)
    return Intervention(
        tuple(
            Site(layer, tuple(draw(st.lists(terms, max_size=4))), draw(norms)) for layer in layers
        )
    )


def bits(*values: float) -> bytes:
    return struct.pack(f"{len(values)}d", *values)


def exact(intervention: Intervention) -> list[Any]:
    """Everything that an intervention holds, with floats as their bytes: -0.0 is not 0.0."""
    return [
        (
            site.layer,
            bits(site.sink_norm),
            [
                (
                    t.label,
                    t.encoder.dtype,
                    t.encoder.numpy().tobytes(),
                    bits(t.bias),
                    bits(*t.function.breakpoints),
                    bits(*t.function.slopes),
                    bits(*t.function.intercepts),
                    t.direction.dtype,
                    t.direction.numpy().tobytes(),
                    t.normalization,
                )
                for t in site.terms
            ],
        )
        for site in intervention.sites
    ]


@given(interventions())
def test_the_same_bits_come_back_and_bytes_are_deterministic(intervention: Intervention) -> None:
    with TemporaryDirectory() as folder:
        first, second = Path(folder, "a.safetensors"), Path(folder, "b.safetensors")
        save_intervention(intervention, first)
        loaded = load_intervention(first)
        assert exact(loaded) == exact(intervention)
        save_intervention(loaded, second)
        assert first.read_bytes() == second.read_bytes()


def example() -> Intervention:
    generator = torch.Generator().manual_seed(0)

    def term(label: str, function: PiecewiseLinear) -> Term:
        encoder, direction = torch.randn(2, D, generator=generator)
        return Term(label, encoder, 0.1, function, direction)

    return Intervention(
        (
            Site(1, (term("jump", PiecewiseLinear.jump_relu(0.7)),), 12.5),
            Site(
                4,
                (
                    term("steer", PiecewiseLinear.constant(2.0)),
                    term(
                        "two bends", PiecewiseLinear((0.1, 0.3), (0.0, 1.0, 0.5), (0.0, -0.1, 0.05))
                    ),
                ),
            ),
        )
    )


def test_a_loaded_intervention_edits_alike(tmp_path: Path) -> None:
    path = tmp_path / "intervention.safetensors"
    save_intervention(example(), path)
    h = torch.randn(5, D, generator=torch.Generator().manual_seed(1))
    for before, after in zip(example().sites, load_intervention(path).sites, strict=True):
        assert before.delta(h).abs().max() > 0
        assert torch.equal(before.delta(h), after.delta(h))


def test_only_finite_float32_vectors_of_one_length_are_saved(tmp_path: Path) -> None:
    path = tmp_path / "intervention.safetensors"
    f = PiecewiseLinear.relu()

    def site(layer: int, encoder: Tensor, direction: Tensor, bias: float = 0.0) -> Site:
        return Site(layer, (Term("t", encoder, bias, f, direction),))

    good = torch.ones(D)
    for sites in (
        (site(0, good.double(), good),),
        (site(0, good, torch.ones(D + 1)),),
        (site(0, good * math.nan, good),),
        (site(0, good, good, math.inf),),
        (site(0, good, good), site(1, torch.ones(D + 1), torch.ones(D + 1))),
    ):
        with pytest.raises(ValueError, match=r"float32 vectors|NaN or inf|dimension"):
            save_intervention(Intervention(sites), path)
        assert not path.exists()
    with pytest.raises(OutputError, match="cannot be written"):
        save_intervention(example(), tmp_path / "nowhere" / "intervention.safetensors")


Change = Callable[[dict[str, Tensor], dict[str, Any]], object]


def damaged(path: Path, change: Change) -> None:
    """Save the example, then let `change` at its tensors and its record."""
    save_intervention(example(), path)
    with safe_open(path, framework="pt") as file:
        tensors = {name: file.get_tensor(name).clone() for name in file.keys()}  # noqa: SIM118
        record = json.loads(file.metadata()[KEY])
    change(tensors, record)
    save_file(tensors, path, {KEY: json.dumps(record)})


def replaced(name: str, make: Callable[[Tensor], Tensor]) -> Change:
    def change(tensors: dict[str, Tensor], record: dict[str, Any]) -> None:
        tensors[name] = make(tensors[name])

    return change


def removed(name: str) -> Change:
    return lambda tensors, record: tensors.pop(name)


def recorded(key: str, value: Any, *, site: int = 0) -> Change:
    return lambda tensors, record: record["sites"][site].update({key: value})


def term_recorded(key: str, value: Any) -> Change:
    return lambda tensors, record: record["sites"][0]["terms"][0].update({key: value})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (removed("sites.0.biases"), r"'sites\.0\.biases' is missing"),
        (lambda t, r: t.update({"sites.0.bias": torch.ones(1)}), r"Did you mean 'sites\.0\.biase"),
        (replaced("sites.0.encoders", Tensor.double), "is F64, expected F32"),
        (replaced("sites.0.biases", Tensor.float), "is F32, expected F64"),
        (replaced("sites.1.directions", lambda t: t[:, 1:].clone()), r"\[2, 2\], expected \[2, 3"),
        (replaced("sites.1.encoders", lambda t: t[0].clone()), r"encoders: shape \[3\]"),
        (replaced("sites.1.encoders", lambda t: t[0, 0].clone()), r"encoders: shape \[\]"),
        (replaced("sites.0.biases", lambda t: t.repeat(2)), r"biases: shape \[2\], expected \[1"),
        (replaced("sites.1.slopes", lambda t: t[1:].clone()), r"slopes: shape \[3\], expected \[4"),
        (replaced("sites.1.intercepts", lambda t: t.repeat(2)), r"intercepts: shape \[8\]"),
        (replaced("sites.1.breakpoints", lambda t: t.flip(0)), "term 1: breakpoints must increase"),
        (replaced("sites.1.breakpoints", lambda t: t[:1].clone()), "add up to the 1 breakpoints"),
        (replaced("sites.1.breakpoints", lambda t: t[None].clone()), r"breakpoints: shape \[1, 2"),
        (replaced("sites.1.breakpoint_counts", lambda t: t + torch.tensor([-1, 1])), "add up"),
        (replaced("sites.1.breakpoint_counts", lambda t: t[:1].clone()), r"counts: shape \[1\]"),
        (replaced("sites.0.encoders", lambda t: t * math.nan), "encoders' holds NaN or infinity"),
        (replaced("sites.0.slopes", lambda t: t / 0), "slopes' holds NaN or infinity"),
        (term_recorded("normalization", "layernorm"), "Did you mean 'layer_norm'"),
        (term_recorded("label", 3), "label: Input should be a valid string"),
        (recorded("layer", 4), "layer order, one per layer"),
        (recorded("layer", -2), "greater than or equal to -1"),
        (recorded("layer", True), "valid integer"),
        (recorded("sink_norm", -2.0), "sink_norm"),
        (recorded("sink_norm", "inf"), "sink_norm"),
        (recorded("sink_norm", math.inf), "Infinity is not a JSON number"),
        (recorded("terms", []), r"shape \[1\], expected \[0\]"),
        (recorded("extra", 1), "extra"),
        (lambda t, r: r.update(version=2), "version"),
        (lambda t, r: r["sites"].pop(), r"'sites\.1\.\w+' is not known"),
    ],
)
def test_malformed_files_are_refused(change: Change, message: str, tmp_path: Path) -> None:
    path = tmp_path / "intervention.safetensors"
    damaged(path, change)
    with pytest.raises(CheckpointError, match=message):
        load_intervention(path)


def test_sites_of_different_width_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "intervention.safetensors"

    def narrow(tensors: dict[str, Tensor], record: dict[str, Any]) -> None:
        for name in ("sites.0.encoders", "sites.0.directions"):
            tensors[name] = tensors[name][:, :2].clone()

    damaged(path, narrow)
    with pytest.raises(CheckpointError, match=r"dimension of the stream: \[2, 3\]"):
        load_intervention(path)


def test_other_files_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "intervention.safetensors"
    with pytest.raises(CheckpointError, match="missing"):
        load_intervention(path)
    save_file({"weight": torch.ones(2)}, path)
    with pytest.raises(CheckpointError, match="no saved intervention"):
        load_intervention(path)
    save_file({}, path, {KEY: "{"})
    with pytest.raises(CheckpointError, match="not valid JSON"):
        load_intervention(path)
    torch.save({"weight": torch.ones(2)}, path)
    with pytest.raises(CheckpointError, match=r"corrupt|truncated"):
        load_intervention(path)
    save_intervention(example(), path)
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(CheckpointError, match="truncated"):
        load_intervention(path)
