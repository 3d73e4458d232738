"""Every tensor of a spliced checkpoint against what its manifest claims of it."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import replace

from hubsplice.verifying.claim import Claim, ExpectedTensor
from hubsplice.verifying.result import Check
from hubsplice.verifying.weights import OnRead, StoredTensor, first_difference, first_other_than

BASE_TENSORS = "base tensors"
ADDED_TENSORS = "added tensors"
ZERO_TENSORS = "zero tensors"
INSERTED_LAYERS = "inserted layers"
NAMES = (BASE_TENSORS, ADDED_TENSORS, ZERO_TENSORS, INSERTED_LAYERS)


def tensor_checks(
    claim: Claim,
    stored: Mapping[str, StoredTensor],
    base: Mapping[str, StoredTensor],
    editing: Collection[int],
    on_read: OnRead,
) -> tuple[Check, ...]:
    """Compare every tensor of both checkpoints; a few MiB of them are in memory at a time.

    Args:
        claim: the manifest and base; its layer map must hold.
        stored: the spliced checkpoint's tensors, by name.
        base: the base's.
        editing: the indices of inserted layers whose edit is not zero everywhere.
        on_read: called with the number of bytes after each chunk.

    Raises:
        CheckpointError: a file cannot be read, or changes meanwhile.
    """
    expected = claim.expected
    there = {name: want for name, want in expected.items() if not _misfit(name, want, stored)}
    of_base = [name for name, want in expected.items() if want.base_name is not None]
    added = [name for name, want in expected.items() if want.base_name is None]
    zeros = _ZeroTensors(claim, there, stored, on_read)
    return (
        Check.of(
            BASE_TENSORS,
            _missing(of_base, expected, stored) + _differing(there, stored, base, on_read),
            f"all {len(of_base)} are the base's, byte for byte",
        ),
        Check.of(
            ADDED_TENSORS,
            _missing(added, expected, stored)
            + [f"{name}: no splice of this base has it" for name in stored if name not in expected],
            f"{len(added)}: biases and the tensors of {len(claim.inserted_indices)} inserted "
            f"layer{'' if len(claim.inserted_indices) == 1 else 's'}, and no others",
        ),
        Check.of(
            ZERO_TENSORS,
            zeros.problems(),
            f"all {len(claim.manifest.zero_tensors)} are zero, and the architecture has them",
        ),
        Check.of(
            INSERTED_LAYERS,
            zeros.layer_problems(editing),
            "attention adds nothing but a constant; every tensor not declared zero holds something",
        ),
    )


def _misfit(name: str, want: ExpectedTensor, stored: Mapping[str, StoredTensor]) -> str | None:
    if name not in stored:
        return "missing"
    entry = stored[name].entry
    if (entry.dtype, entry.shape) != (want.dtype, want.shape):
        return (
            f"found {entry.dtype} of shape {list(entry.shape)}, expected {want.dtype} of shape "
            f"{list(want.shape)}"
        )
    return None


def _missing(
    names: Collection[str],
    expected: Mapping[str, ExpectedTensor],
    stored: Mapping[str, StoredTensor],
) -> list[str]:
    found = ((name, _misfit(name, expected[name], stored)) for name in names)
    return [f"{name}: {problem}" for name, problem in found if problem]


def _differing(
    there: Mapping[str, ExpectedTensor],
    stored: Mapping[str, StoredTensor],
    base: Mapping[str, StoredTensor],
    on_read: OnRead,
) -> list[str]:
    problems = []
    for name, want in there.items():
        if want.base_name is None or want.base_part is None:
            continue
        part = replace(base[want.base_name], entry=want.base_part)
        place = first_difference(stored[name], part, on_read)
        if place is not None:
            problems.append(f"{name}: differs from the base's {want.base_name} at element {place}")
    return problems


class _ZeroTensors:
    """What added tensors hold, where it does not depend on the edit."""

    def __init__(
        self,
        claim: Claim,
        there: Mapping[str, ExpectedTensor],
        stored: Mapping[str, StoredTensor],
        on_read: OnRead,
    ) -> None:
        self._claim, self._declared = claim, frozenset(claim.manifest.zero_tensors)
        self._there = {name: want for name, want in there.items() if want.base_name is None}
        self._nonzero = {name: first_other_than(stored[name], 0.0, on_read) for name in self._there}
        self._off = {
            name: first_other_than(stored[name], want.value, on_read)
            for name, want in self._there.items()
            if want.value
        }

    def problems(self) -> list[str]:
        """Declared zero tensors that are not zero or not due, and due ones that are not."""
        listed = self._claim.manifest.zero_tensors
        problems = [f"{name}: declared zero twice" for name in {*listed} if listed.count(name) > 1]
        for name in sorted(self._declared):
            want = self._claim.expected.get(name)
            if want is None or want.base_name is not None:
                problems.append(f"{name}: declared zero, and the architecture asks for no such")
            elif self._nonzero.get(name) is not None:
                problems.append(f"{name}: declared zero, and element {self._nonzero[name]} is not")
        for name, want in self._claim.expected.items():
            if want.base_name is None and want.value == 0.0 and name not in self._declared:
                problems.append(f"{name}: expected among the declared zero tensors")
        return problems

    def layer_problems(self, editing: Collection[int]) -> list[str]:
        """Parts of inserted layers that are not as every inserted layer has them, or are empty."""
        problems = []
        for name, want in self._there.items():
            if want.layer is None:
                continue
            if want.value == 0.0 and self._nonzero[name] is not None:
                place = self._nonzero[name]
                problems.append(f"{name}: element {place} is not zero, and would change the model")
            if self._off.get(name) is not None:
                problems.append(
                    f"{name}: element {self._off[name]} is not {want.value:g}, as in every "
                    "inserted layer"
                )
            if want.value is None and name not in self._declared and self._nonzero[name] is None:
                problems.append(f"{name}: all zero, and not declared so")
        alive = {
            want.layer
            for name, want in self._there.items()
            if want.value is None and self._nonzero[name] is not None
        }
        problems += [
            f"layer {index}: it changes nothing, and the intervention has edits there"
            for index in sorted(set(editing) - alive)
        ]
        return problems
