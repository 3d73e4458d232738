"""Tampering with a spliced model, checksums recomputed each time: what `verify` says of it.

    python benchmarks/tamper.py SPLICED --base BASE --name "SmolLM2, four edits"

Nothing is written to the spliced model: its inserted layer, recipe and manifest are changed in
memory, and the checks that a receiver's `hubsplice verify` would make of them are run. A flipped
bit in a tensor of the base is compared with that tensor alone. Fields of the manifest are changed
in a folder of links to the model's files, each of which is read once. Checks of checksums are left
out, since whoever tampers recomputes them. Results are kept under results/.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from hubsplice.checkpoint.base import BaseCheckpoint
from hubsplice.checkpoint.manifest import Manifest, read_manifest
from hubsplice.intervention.intervention import Intervention
from hubsplice.intervention.saved import INTERVENTION, load_intervention
from hubsplice.proving.inspection import inspected_layers
from hubsplice.proving.parts import Parts
from hubsplice.proving.rounding import common_factor
from hubsplice.proving.stored_layer import stored_layers
from hubsplice.verifying import Verification, verify
from hubsplice.verifying import tensors as tensor_checks
from hubsplice.verifying.claim import Claim
from hubsplice.verifying.proof import proof_checks, reader
from hubsplice.verifying.response import (
    base_streams,
    height_limit,
    height_problems,
    layer_responses,
    rise_problems,
)
from hubsplice.verifying.weights import (
    StoredTensor,
    first_difference,
    first_other_than,
    read_weights,
)

RESULTS = Path(__file__).parent / "results"
KEPT, PAGE = RESULTS / "tamper.json", RESULTS / "tamper.md"

Tensors = dict[str, Tensor]
_BITS = {torch.bfloat16: (torch.int16, 16, 7), torch.float32: (torch.int32, 32, 23)}


class Model:
    """A spliced model that is tampered with in memory."""

    def __init__(self, folder: Path, base: Path) -> None:
        manifest = read_manifest(folder / "splice.json")
        self.claim = Claim.of(manifest, BaseCheckpoint.open(base))
        self.intervention = load_intervention(folder / INTERVENTION)
        self.stored, _ = read_weights(folder)
        read = reader(self.stored)
        (index,) = self.claim.inserted_indices
        self.index = index
        self.tensors = {
            name: read(name) for name, want in self.claim.expected.items() if want.layer == index
        }
        self.fixed = {
            name: want.value
            for name, want in self.claim.expected.items()
            if want.layer == index and want.value is not None
        }

    def problems(self, changed: Tensors) -> list[str]:
        """What is found with some tensors of the inserted layer replaced."""
        tensors = self.tensors | changed
        # Tensors that are the same in every inserted layer are compared byte for byte.
        found = [
            f"{name}: not {self.fixed[name]:g} throughout"
            for name in changed
            if name in self.fixed and bool((tensors[name] != self.fixed[name]).any())
        ]
        dtype = self.claim.dtype
        assert dtype is not None
        layers = inspected_layers(
            self.claim.architecture,
            self.claim.manifest,
            dtype,
            self.intervention,
            tensors.__getitem__,
        )
        return found + [problem for layer in layers for problem in layer.problems]

    @cached_property
    def streams(self) -> dict[str, Tensor]:
        """The base's streams, as `verify --streams` has them."""
        return base_streams(self.claim, self.intervention, lambda *_: None)

    def response(self, changed: Tensors) -> list[str]:
        """What `verify --streams` finds beside."""
        tensors, dtype = self.tensors | changed, self.claim.dtype
        assert dtype is not None
        layers = stored_layers(
            self.claim.architecture, self.claim.manifest, dtype, tensors.__getitem__
        )
        found = [
            response
            for layer in layers
            for response in layer_responses(
                layer, self.intervention, self.streams[str(layer.place)]
            )
        ]
        width = self.claim.architecture.hidden_size
        problems = list(height_problems(found, height_limit(dtype, width)))
        return [*problems, *rise_problems(found, self.intervention, dtype, width)]

    def named(self, part: str) -> str:
        """The tensor of the inserted layer whose name ends so."""
        (name,) = (n for n in self.tensors if n.endswith(part))
        return name

    @property
    def used(self) -> int:
        """How many neurons the layer uses."""
        (layer,) = (x for x in self.claim.manifest.layers if "neurons" in x.constants)
        neurons = layer.constants["neurons"]
        assert isinstance(neurons, int)
        return neurons


def flipped(tensor: Tensor, place: int, bit: int) -> Tensor:
    """A copy with one bit turned over; the last bit is the sign."""
    kind, bits, _ = _BITS[tensor.dtype]
    copy = tensor.clone()
    view = copy.view(kind).view(-1)
    view[place] ^= -(1 << bit) if bit == bits - 1 else 1 << bit
    return copy


def bit_flips(model: Model, places: int) -> Iterator[tuple[str, str, str, int, Tensors]]:
    """Every bit of some elements of every tensor of the inserted layer that holds something."""
    generator = torch.Generator().manual_seed(0)
    for name, tensor in model.tensors.items():
        _, bits, mantissa = _BITS[tensor.dtype]
        held = tensor.flatten().nonzero()[:, 0]
        chosen: Any = (
            held[torch.randint(len(held), (places,), generator=generator)] if len(held) else []
        )
        empty = [int(torch.randint(tensor.numel(), (1,), generator=generator))]
        for where, some in (("held", [int(p) for p in chosen]), ("zero", empty)):
            for place in some:
                if where == "zero" and tensor.flatten()[place] != 0:
                    continue
                for bit in range(bits):
                    kind = "sign" if bit == bits - 1 else "exponent"
                    kind = f"mantissa bit {bit}" if bit < mantissa else kind
                    if where == "zero":
                        kind = "a bit of a zero"
                    changed = flipped(tensor, place, bit)
                    # Zero with a sign is zero; `verify` compares what must be zero by its bytes.
                    if torch.isfinite(changed).all() and not torch.equal(changed, tensor):
                        yield name, kind, where, place, {name: changed}


def other_flips(model: Model, folder: Path) -> Iterator[tuple[str, str, bool]]:
    """One bit of every tensor outside the inserted layer: name, kind, and whether it is found."""
    generator = torch.Generator().manual_seed(2)
    base = {entry.name: shard.path for shard in model.claim.base.shards for entry in shard.tensors}
    scratch = folder / "flipped"
    for name, want in model.claim.expected.items():
        if want.layer == model.index:
            continue
        stored = model.stored[name]
        with stored.path.open("rb") as file:
            file.seek(stored.entry.start)
            data = bytearray(file.read(stored.entry.size))
        bit = int(torch.randint(8 * len(data), (1,), generator=generator))
        data[bit // 8] ^= 1 << bit % 8
        scratch.write_bytes(data)
        entry = replace(stored.entry, start=0, end=len(data))
        changed = StoredTensor(scratch, entry)
        if want.base_name is not None and want.base_part is not None:
            of_base = StoredTensor(base[want.base_name], want.base_part)
            found = first_difference(changed, of_base, lambda _: None)
            yield name, "of the base", found is not None
        elif want.value is not None:
            found = first_other_than(changed, want.value, lambda _: None)
            yield name, "zero, as the architecture asks for", found is not None


def fields(spliced: Path, base: Path, folder: Path) -> Iterator[tuple[str, str]]:
    """Every change of every field of the manifest, and what `verify` makes of it."""
    from tests.verifying import test_statements as walk

    copy = folder / "copy"
    for path in spliced.rglob("*"):
        if path.is_file():
            at = copy / path.relative_to(spliced)
            at.parent.mkdir(parents=True, exist_ok=True)
            # A hard link reads as a plain file.
            at.hardlink_to(path)
    manifest = copy / "splice.json"
    before = json.loads(manifest.read_text())
    manifest.unlink()
    with pytest.MonkeyPatch.context() as patch:
        walk.remember(patch)
        for name in ("first_difference", "first_other_than"):
            _once(patch, name)

        def verified(content: dict[str, Any]) -> Verification:
            manifest.write_text(json.dumps(content))
            return verify(str(copy), base=str(base), revision=None, progress=lambda *_: None)

        untouched = verified(before)
        if not untouched.passed:
            sys.exit(f"the model does not pass as it is: {untouched.verdict}")
        for name, change in walk.changes(before, set()):
            content = json.loads(json.dumps(before))
            change(content)
            if walk.is_refused_or_same(content, before):
                yield name, "refused, or the same"
                continue
            found = verified(content)
            claims = [*walk.claimed(untouched), *walk.claimed(found)]
            if not found.passed:
                yield name, "found"
            else:
                yield name, "claimed" if walk.covers(claims, name) else "**unnoticed**"


def _once(patch: pytest.MonkeyPatch, name: str) -> None:
    """Compare each tensor with each other thing once: the files stay as they are."""
    compare = getattr(tensor_checks, name)
    kept: dict[Any, int | None] = {}

    def from_memory(stored: Any, other: Any, on_read: Any) -> int | None:
        if (stored, other) not in kept:
            kept[stored, other] = compare(stored, other, on_read)
        return kept[stored, other]

    patch.setattr(tensor_checks, name, from_memory)


def edits(model: Model) -> Iterator[tuple[str, Tensors]]:
    """The layer turned into another edit, by all of its columns or by one."""
    down, up = model.named("down_proj.weight"), model.named("up_proj.weight")
    gate_bias, db = model.named("gate_proj.bias"), model.named("down_proj.bias")
    t = model.tensors
    for factor in (1.01, 1.1, 0.5, -1.0, 0.001):
        yield f"what every neuron writes x{factor:g}", {down: _times(t[down], factor)}
    for factor in (1.01, 1.1):
        yield f"the constant x{factor:g}", {db: _times(t[db], factor)}
        changed = t[up].clone()
        bias = model.named("up_proj.bias")
        biases = t[bias].clone()
        levels = biases == 4.0
        changed[levels] = _times(changed[levels], factor)
        biases[levels] = _times(biases[levels], factor)
        yield f"read-outs of the scale x{factor:g}", {up: changed, bias: biases}
    columns = t[down].clone()
    read_outs = (t[model.named("up_proj.bias")] == 4.0).nonzero()[:, 0]
    for factor in (1.01, 1.1):
        scaled = columns.clone()
        scaled[:, read_outs] = _times(scaled[:, read_outs], factor)
        yield f"every bend by one factor, x{factor:g}", {down: scaled}
        yield f"every bend, compiled anew, x{factor:g}", {down: recompiled(model, factor)}
    for moved in (0.02, 0.2, 1.0):
        gates = t[model.named("gate_proj.weight")].float()
        shift = (moved * gates.norm(dim=1)).to(t[gate_bias].dtype)
        yield f"thresholds moved by {moved:g} encoder lengths", {gate_bias: t[gate_bias] + shift}
    site = model.intervention.sites[0]
    first, second = (k for k, term in enumerate(site.terms[:2]))
    swapped = t[down].clone()
    along = site.terms[second].direction / site.terms[second].direction.norm()
    own = site.terms[first].direction / site.terms[first].direction.norm()
    writes = (swapped.float().T @ own).abs() > 0.99 * swapped.float().norm(dim=0).clamp(min=1e-30)
    amounts = swapped.float().T[writes] @ own
    swapped[:, writes] = (amounts[:, None] * along).T.to(swapped.dtype)
    yield "another feature's direction", {down: swapped}


def recompiled(model: Model, factor: float) -> Tensor:
    """What neurons write, with each bend as it would be compiled for another strength."""
    down = model.tensors[model.named("down_proj.weight")].clone()
    bends = (model.tensors[model.named("up_proj.bias")] == 4.0).nonzero()[:, 0].tolist()
    parts = Parts.of(model.intervention.sites[0]).bends
    exact = torch.stack([part.written for part in parts])
    unit = common_factor(down[:, bends].T, exact, down.dtype).value
    down[:, bends] = (factor * unit * exact).to(down.dtype).T
    return down


def _times(tensor: Tensor, factor: float) -> Tensor:
    return (tensor.double() * factor).to(tensor.dtype)


def plants(model: Model) -> Iterator[tuple[str, Tensors]]:
    """Trigger detectors of many kinds."""
    t, used = model.tensors, model.used
    names = {
        short: model.named(f"{short}_proj.{kind}")
        for kind in ("weight",)
        for short in ("gate", "up", "down")
    }
    gate, up, down = (t[names[short]] for short in ("gate", "up", "down"))
    generator = torch.Generator().manual_seed(1)
    trigger, payload = torch.randn(2, gate.shape[1], generator=generator)
    trigger, payload = trigger / trigger.norm(), payload / payload.norm()
    own = model.intervention.sites[0].terms[0].direction

    def at(neuron: int, g: float, u: float, d: float, towards: Tensor = payload) -> Tensors:
        found: Tensors = {}
        for short, rows, vector in (("gate", gate, g * trigger), ("up", up, u * trigger)):
            if vector.any():
                copy = rows.clone()
                copy[neuron] = (copy[neuron].float() + vector).to(copy.dtype)
                found[names[short]] = copy
        if d:
            copy = down.clone()
            copy[:, neuron] = (copy[:, neuron].float() + d * towards).to(copy.dtype)
            found[names["down"]] = copy
        return found

    yield "in an unused neuron", at(used, 100, 10, 1)
    yield "in the last neuron", at(gate.shape[0] - 1, 100, 10, 1)
    yield "in an unused neuron, along an edit's direction", at(used, 100, 10, 1, own)
    yield "a millionth of that", at(used, 1e-4, 1e-5, 1e-6)
    yield "a gate alone", at(used + 5, 100, 0, 0)
    yield "an up row alone", at(used + 5, 0, 10, 0)
    yield "a column alone", at(used + 5, 0, 0, 1)
    first = at(used, 100, 10, 0)
    yield "split: rows in one neuron, a column in another", first | at(used + 1, 0, 0, 1)
    for short in ("gate", "up"):
        name = model.named(f"{short}_proj.bias")
        copy = t[name].clone()
        copy[used + 3] = 1.0
        yield f"a {short} bias alone", {name: copy}
    length = float(gate[0].float().norm())
    yield "a tenth in one gate row", at(0, 0.1 * length, 0, 0)
    yield "a hundredth in one gate row", at(0, 0.01 * length, 0, 0)
    every = gate.clone()
    lengths = gate.float().norm(dim=1, keepdim=True)
    active = (lengths > 0).float()
    every = (every.float() + 0.05 * lengths * active * trigger).to(gate.dtype)
    yield "a twentieth in every gate row alike", {names["gate"]: every}
    half = gate.clone()
    for neuron in (0, len(model.intervention.sites[0].terms) - 1):
        half[neuron] = (half[neuron].float() + 0.05 * length * trigger).to(half.dtype)
    yield "split over the rows of two used neurons", {names["gate"]: half}
    yield "in a used column", at(0, 0, 0, 0.1 * float(down[:, 0].float().norm()))
    yield "a hundredth in a used column", at(0, 0, 0, 0.01 * float(down[:, 0].float().norm()))
    bends = (t[model.named("up_proj.bias")] == 4.0).nonzero()[:, 0].tolist()
    if bends:
        yield "in the read-out of one bend", at(bends[0], 0, 1.0, 0)
        for size in (5.0, 0.5):
            copy = up.clone()
            copy[bends] = (copy[bends].float() + size * trigger).to(up.dtype)
            yield f"in the read-out that all bends share, size {size:g}", {names["up"]: copy}
    last = used - 1
    yield "in one row of the sink guard", at(last, 0.5 * float(gate[last].float().norm()), 0, 0)
    guards = [n for n in range(used) if torch.equal(gate[n], gate[last])]
    copy = gate.clone()
    copy[guards] = (copy[guards].float() + float(gate[last].float().norm()) * trigger).to(
        copy.dtype
    )
    yield "in every row of the sink guard alike", {names["gate"]: copy}


def words(model: Model) -> Iterator[tuple[str, list[str]]]:
    """The recipe and the manifest changed over unchanged weights, and what is found."""

    def checked(manifest: Manifest, intervention: Intervention) -> list[str]:
        claim = Claim(manifest, model.claim.base, model.claim.architecture)
        checks = proof_checks(claim, intervention, model.stored)
        return [problem for check in checks for problem in check.problems]

    content = model.claim.manifest.model_dump(mode="json")
    (at,) = (i for i, x in enumerate(content["layers"]) if x["terms"])
    for number, record in enumerate(content["layers"][at]["terms"]):
        for field in ("strength", "to", "factor"):
            if field not in record["edit"]:
                continue
            changed = json.loads(json.dumps(content))
            term = changed["layers"][at]["terms"][number]
            term["edit"][field] = 0.001
            told = f"{record['label']}: {field} 0.001 in recipe and manifest"
            yield told, checked(Manifest.model_validate(changed), model.intervention)
            for amount in term["amounts"]:
                amount |= {"stated": "0.001", "value": 0.001}
            told += ", recorded amounts too"
            yield told, checked(Manifest.model_validate(changed), model.intervention)
        site = model.intervention.sites[0]
        for factor in (0.001, 1.01):
            terms = list(site.terms)
            terms[number] = replace(terms[number], function=terms[number].function.scaled(factor))
            lied = Intervention((replace(site, terms=tuple(terms)),))
            yield (
                f"{record['label']}: the intervention x{factor:g}",
                checked(model.claim.manifest, lied),
            )


def page(results: dict[str, dict[str, object]]) -> str:
    """What results/ keeps."""
    lines = [
        "# Tampering with a spliced model",
        "",
        "What `hubsplice verify` says of an inserted layer, a recipe or a manifest that was "
        "changed, with every checksum recomputed. `python benchmarks/tamper.py` makes this page.",
    ]
    for name, found in results.items():
        lines += ["", f"## {name}", "", *found["lines"]]  # type: ignore[misc]
    return "\n".join([*lines, ""])


def _row(told: str, problems: list[str], *more: str) -> str:
    first = problems[0].replace("|", "/") if problems else "**unnoticed**"
    cells = (told, str(len(problems)), first, *more)
    print(*cells, sep=" | ", file=sys.stderr, flush=True)
    return f"| {' | '.join(cells)} |"


def _of_layer(model: Model, places: int) -> list[str]:
    """The tables of the inserted layer, and of what is said of it."""
    counts: Counter[str] = Counter()
    missed: Counter[str] = Counter()
    worst: dict[str, list[tuple[str, float]]] = {}
    for tensor, kind, _where, place, changed in bit_flips(model, places):
        counts[kind] += 1
        if not model.problems(changed):
            missed[kind] += 1
            before = model.tensors[tensor].flatten()[place].double()
            after = changed[tensor].flatten()[place].double()
            share = float((after - before).abs() / before.abs().clamp(min=1e-30))
            short = tensor.split(".", 3)[-1]
            worst.setdefault(short, []).append((kind, share))
            print("unnoticed", tensor, kind, place, float(before), float(after), file=sys.stderr)
    lines = ["| flipped | flips | unnoticed |", "|---|---|---|"]
    lines += [f"| {kind} | {count} | {missed[kind]} |" for kind, count in sorted(counts.items())]
    for short, flips in sorted(worst.items()):
        largest = max(share for _, share in flips)
        lines += [
            "",
            f"Unnoticed in {short}: {len(flips)}, which change an element by up to "
            f"{largest:.2g} of itself.",
        ]
    for title, changes in (("Another edit", edits(model)), ("Planted detectors", plants(model))):
        rows, passed, left = [], 0, 0
        for told, changed in changes:
            problems, beside = model.problems(changed), ""
            if not problems:
                passed += 1
                response = model.response(changed)
                left += not response
                beside = response[0] if response else "**unnoticed**"
            rows.append((told, problems, beside))
        lines += ["", f"### {title}: {len(rows)} tried", ""]
        lines += [f"{passed} are unnoticed, and {left} with `--streams`.", ""]
        lines += ["| change | problems | the first | with `--streams` |", "|---|---|---|---|"]
        lines += [_row(*row) for row in rows]
    found = list(words(model))
    lines += ["", f"### Recipe, manifest and intervention: {len(found)} tried", ""]
    lines += [f"{sum(not problems for _, problems in found)} are unnoticed.", ""]
    lines += ["| change | problems | the first |", "|---|---|---|"]
    lines += [_row(*row) for row in found]
    return lines


def _others(model: Model, spliced: Path, base: Path) -> list[str]:
    """The tables of what is not the inserted layer."""
    # Links need the model's own filesystem.
    with tempfile.TemporaryDirectory(dir=spliced.parent) as folder:
        flips: Counter[tuple[str, bool]] = Counter()
        for name, kind, found in other_flips(model, Path(folder)):
            flips[kind, found] += 1
            if not found:
                print("unnoticed", name, file=sys.stderr)
        lines = ["", "### One bit in every other tensor", ""]
        lines += ["| tensors | flips | unnoticed |", "|---|---|---|"]
        for kind in sorted({kind for kind, _ in flips}):
            missed = flips[kind, False]
            lines.append(f"| {kind} | {missed + flips[kind, True]} | {missed} |")
        made = list(fields(spliced, base, Path(folder)))
    outcomes = Counter(outcome for _, outcome in made)
    lines += ["", f"### Every field of the manifest: {len(made)} changes", ""]
    lines += ["| outcome | changes |", "|---|---|"]
    lines += [f"| {outcome} | {count} |" for outcome, count in outcomes.most_common()]
    claimed = sorted({re.sub(r"\d+", "N", name) for name, outcome in made if outcome == "claimed"})
    lines += ["", f"Claimed, as `verify` lists them: {', '.join(f'`{x}`' for x in claimed)}."]
    lines += [f"Unnoticed: `{name}`." for name, outcome in made if outcome == "**unnoticed**"]
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("spliced", type=Path)
    parser.add_argument("--base", type=Path, required=True)
    parser.add_argument("--name", required=True)
    parser.add_argument("--places", type=int, default=3, help="Elements flipped in a tensor.")
    parser.add_argument("--part", choices=("layer", "files"), help="Both if not given.")
    arguments = parser.parse_args()
    torch.set_grad_enabled(False)
    model = Model(arguments.spliced, arguments.base)
    right = model.problems({})
    if right:
        sys.exit(f"the model has problems as it is: {right[:3]}")
    found = {}
    if arguments.part != "files":
        found["the inserted layer"] = _of_layer(model, arguments.places)
    if arguments.part != "layer":
        found["all other files"] = _others(model, arguments.spliced, arguments.base)
    results = json.loads(KEPT.read_text()) if KEPT.is_file() else {}
    results |= {f"{arguments.name}: {part}": {"lines": lines} for part, lines in found.items()}
    KEPT.write_text(json.dumps(results, indent=1))
    PAGE.write_text(page(results))


if __name__ == "__main__":
    main()
