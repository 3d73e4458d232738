"""The exact intervention as one safetensors file.

A published model is measured against the hook it stands for; with this file that needs neither
the SAE nor the vectors that the recipe named.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from itertools import accumulate, islice, pairwise
from pathlib import Path
from typing import Annotated, Any, Literal

import torch
from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    ValidationError,
    model_serializer,
    model_validator,
)
from torch import Tensor

from hubsplice.errors import CheckpointError, OutputError, unknown_name
from hubsplice.files.safetensors_header import Header, read_header
from hubsplice.files.strict_json import parse_object
from hubsplice.intervention.condition import Condition, GateReadOut
from hubsplice.intervention.intervention import Intervention
from hubsplice.intervention.normalization import Normalization
from hubsplice.intervention.piecewise_linear import PiecewiseLinear
from hubsplice.intervention.place import Block
from hubsplice.intervention.site import Site, Term

INTERVENTION = "reproduce/intervention.safetensors"
"""Where a spliced checkpoint carries it."""

RECIPE = "reproduce/recipe.yaml"
"""Where it carries its recipe."""

# One key: safetensors writes several in an order that differs from run to run.
_METADATA_KEY = "hubsplice.intervention"

# The tensors of one site. n terms, d dimensions, m breakpoints over all terms; the functions
# stand one after another, each with one slope and intercept more than it has breakpoints.
_DTYPES: Mapping[str, tuple[str, torch.dtype]] = {
    "encoders": ("F32", torch.float32),  # [n, d]
    "directions": ("F32", torch.float32),  # [n, d]
    "biases": ("F64", torch.float64),  # [n]
    "breakpoint_counts": ("I64", torch.int64),  # [n]
    "breakpoints": ("F64", torch.float64),  # [m]
    "slopes": ("F64", torch.float64),  # [m + n]
    "intercepts": ("F64", torch.float64),  # [m + n]
}

# Those of a site whose terms have conditions, g gates over all terms, one term after another.
_OF_CONDITIONS: Mapping[str, tuple[str, torch.dtype]] = {
    "gate_counts": ("I64", torch.int64),  # [n]
    "gates_needed": ("I64", torch.int64),  # [n], zero without a condition
    "gate_encoders": ("F32", torch.float32),  # [g, d]
    "gate_biases": ("F64", torch.float64),  # [g]
    "gate_thresholds": ("F64", torch.float64),  # [g]
}


class _Record(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)


class _TermRecord(_Record):
    label: str
    normalization: str


class _SiteRecord(_Record):
    layer: Annotated[int, Field(ge=-1)]
    block: Literal["attention", "mlp"] = "mlp"
    sink_norm: Annotated[float, Field(ge=0)] | None  # None for infinity, which JSON cannot say
    terms: list[_TermRecord]
    conditions: bool = False

    @property
    def dtypes(self) -> Mapping[str, tuple[str, torch.dtype]]:
        """The tensors that it has."""
        return {**_DTYPES, **_OF_CONDITIONS} if self.conditions else _DTYPES

    @model_serializer(mode="wrap")
    def _as_before_there_were_conditions(self, handler: Any) -> dict[str, Any]:
        content: dict[str, Any] = handler(self)
        return content if self.conditions else {k: content[k] for k in content if k != "conditions"}


class _InterventionRecord(_Record):
    version: Literal[1, 2] = 1
    """2 where a site has conditions, which the first version would pass over."""
    sites: list[_SiteRecord]

    @model_validator(mode="after")
    def _of_its_version(self) -> _InterventionRecord:
        if (self.version == 2) != any(site.conditions for site in self.sites):
            raise ValueError(f"version {self.version} is not what its sites need")
        return self


def save_intervention(intervention: Intervention, path: Path) -> None:
    """Write an intervention to a safetensors file, bit for bit and without pickle.

    The same intervention gives the same bytes.

    Raises:
        ValueError: an encoder or direction is not a finite float32 vector of the same length as
            all others, or a bias or sink norm is not finite and in range.
        OutputError: the file cannot be written.
    """
    from safetensors.torch import save

    tensors = {
        f"sites.{i}.{name}": tensor
        for i, site in enumerate(intervention.sites)
        for name, tensor in _site_tensors(site).items()
    }
    widths = {t.shape[1] for name, t in tensors.items() if t.dim() == 2 and len(t)}
    if len(widths) > 1:
        raise ValueError(f"sites differ in the dimension of the stream: {sorted(widths)}")
    sites = [_site_record(site) for site in intervention.sites]
    version: Literal[1, 2] = 2 if any(site.conditions for site in sites) else 1
    record = _InterventionRecord(version=version, sites=sites)
    text = json.dumps(record.model_dump(), separators=(",", ":"), allow_nan=False)
    try:
        path.write_bytes(save(tensors, {_METADATA_KEY: text}))
    except OSError as error:
        raise OutputError(f"{path}: cannot be written: {error.strerror}") from None


def load_intervention(path: Path) -> Intervention:
    """Read an intervention that `save_intervention` wrote; everything in it is checked.

    Raises:
        CheckpointError: the file is missing, damaged, or holds anything but an intervention; the
            message names the tensor or field.
    """
    header = read_header(path)
    record = _read_record(header)
    _check_names(header, record.sites)
    tensors = _read_tensors(path)
    sites = []
    for i, site in enumerate(record.sites):
        prefix = f"sites.{i}."
        own = {name: tensors[prefix + name] for name in site.dtypes}
        terms = _read_terms(f"{path}: {prefix}", site, own)
        sink_norm = math.inf if site.sink_norm is None else site.sink_norm
        sites.append(Site(site.layer, terms, sink_norm, Block(site.block)))
    widths = {len(term.encoder) for site in sites for term in site.terms}
    if len(widths) > 1:
        raise CheckpointError(
            f"{path}: sites differ in the dimension of the stream: {sorted(widths)}"
        )
    try:
        return Intervention(tuple(sites))
    except ValueError as error:
        raise CheckpointError(f"{path}: {error}") from None


def _site_record(site: Site) -> _SiteRecord:
    return _SiteRecord(
        layer=site.layer,
        block=site.block.value,
        sink_norm=None if site.sink_norm == math.inf else site.sink_norm,
        terms=[_TermRecord(label=t.label, normalization=t.normalization.value) for t in site.terms],
        conditions=any(term.condition is not None for term in site.terms),
    )


def _site_tensors(site: Site) -> dict[str, Tensor]:
    for term in site.terms:
        gates = () if term.condition is None else term.condition.gates
        vectors = [("encoder", term.encoder), ("direction", term.direction)]
        for name, vector in (*vectors, *(("gate", gate.encoder) for gate in gates)):
            if vector.dtype is not torch.float32 or vector.shape != site.terms[0].encoder.shape:
                raise ValueError(
                    f"{term.label!r}: {name} is {vector.dtype} of shape {list(vector.shape)}; "
                    "expected float32 vectors of one length"
                )
    functions = [term.function for term in site.terms]
    values: dict[str, Any] = {
        "biases": [term.bias for term in site.terms],
        "breakpoint_counts": [len(f.breakpoints) for f in functions],
        "breakpoints": [t for f in functions for t in f.breakpoints],
        "slopes": [s for f in functions for s in f.slopes],
        "intercepts": [c for f in functions for c in f.intercepts],
    }
    tensors = {
        "encoders": _stacked([term.encoder for term in site.terms]),
        "directions": _stacked([term.direction for term in site.terms]),
    } | {name: torch.tensor(value, dtype=_DTYPES[name][1]) for name, value in values.items()}
    if any(term.condition is not None for term in site.terms):
        tensors |= _condition_tensors(site)
    for name, tensor in tensors.items():
        if not torch.isfinite(tensor).all():
            raise ValueError(f"{name} after layer {site.place}: NaN or infinity")
    return tensors


def _condition_tensors(site: Site) -> dict[str, Tensor]:
    conditions = [term.condition for term in site.terms]
    gates = [gate for condition in conditions if condition for gate in condition.gates]
    values: dict[str, Any] = {
        "gate_counts": [len(c.gates) if c else 0 for c in conditions],
        "gates_needed": [c.needed if c else 0 for c in conditions],
        "gate_biases": [gate.bias for gate in gates],
        "gate_thresholds": [gate.threshold for gate in gates],
    }
    return {"gate_encoders": _stacked([gate.encoder for gate in gates])} | {
        name: torch.tensor(value, dtype=_OF_CONDITIONS[name][1]) for name, value in values.items()
    }


def _stacked(vectors: list[Tensor]) -> Tensor:
    return torch.stack(vectors).detach().cpu() if vectors else torch.zeros(0, 0)


def _read_record(header: Header) -> _InterventionRecord:
    text = (header.metadata or {}).get(_METADATA_KEY)
    if text is None:
        raise CheckpointError(
            f"{header.path}: this is no saved intervention: its metadata has no {_METADATA_KEY!r}"
        )
    content = parse_object(text.encode(), source=f"{header.path}: {_METADATA_KEY}")
    try:
        return _InterventionRecord.model_validate(content)
    except ValidationError as error:
        problem = error.errors()[0]
        field = ".".join(map(str, problem["loc"]))
        raise CheckpointError(
            f"{header.path}: {_METADATA_KEY}: {field}: {problem['msg']}, "
            f"found {problem['input']!r:.80}"
        ) from None


def _check_names(header: Header, sites: Sequence[_SiteRecord]) -> None:
    """Exactly the expected tensors, each in its dtype; shapes are checked once they are read."""
    dtypes = {t.name: t.dtype for t in header.tensors}
    expected = {
        f"sites.{i}.{name}": dtype
        for i, site in enumerate(sites)
        for name, (dtype, _) in site.dtypes.items()
    }
    for name in dtypes:
        if name not in expected:
            raise CheckpointError(unknown_name(f"{header.path}: tensor", name, expected))
    for name, dtype in expected.items():
        if name not in dtypes:
            raise CheckpointError(f"{header.path}: tensor {name!r} is missing")
        if dtypes[name] != dtype:
            raise CheckpointError(
                f"{header.path}: tensor {name!r} is {dtypes[name]}, expected {dtype}"
            )


def _read_tensors(path: Path) -> dict[str, Tensor]:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        tensors: dict[str, Tensor] = load_file(path)
    except (SafetensorError, OSError) as error:
        raise CheckpointError(f"{path}: cannot be read: {error}") from None
    for name, tensor in tensors.items():
        if not torch.isfinite(tensor).all():
            raise CheckpointError(f"{path}: tensor {name!r} holds NaN or infinity")
    return tensors


def _read_terms(where: str, site: _SiteRecord, tensors: Mapping[str, Tensor]) -> tuple[Term, ...]:
    n, encoders, breakpoints = len(site.terms), tensors["encoders"], tensors["breakpoints"]
    _expect_shape(where, "breakpoint_counts", tensors, (n,))
    counts: list[int] = tensors["breakpoint_counts"].tolist()
    if any(count < 0 for count in counts) or sum(counts) != breakpoints.numel():
        raise CheckpointError(
            f"{where}breakpoint_counts: expected counts that add up to the "
            f"{breakpoints.numel()} breakpoints, found {counts[:20]}"
        )
    m, width = sum(counts), encoders.shape[-1] if encoders.dim() else 0
    shapes = {
        "encoders": (n, width),
        "directions": (n, width),
        "biases": (n,),
        "breakpoints": (m,),
        "slopes": (m + n,),
        "intercepts": (m + n,),
    }
    for name, shape in shapes.items():
        _expect_shape(where, name, tensors, shape)
    functions = _read_functions(where, counts, tensors)
    biases: list[float] = tensors["biases"].tolist()
    conditions = _read_conditions(where, n, width, tensors) if site.conditions else [None] * n
    return tuple(
        Term(
            label=term.label,
            encoder=encoders[k],
            bias=biases[k],
            function=functions[k],
            direction=tensors["directions"][k],
            normalization=_normalization(where, k, term.normalization),
            condition=conditions[k],
        )
        for k, term in enumerate(site.terms)
    )


def _read_conditions(
    where: str, n: int, width: int, tensors: Mapping[str, Tensor]
) -> list[Condition | None]:
    for name in ("gate_counts", "gates_needed"):
        _expect_shape(where, name, tensors, (n,))
    counts: list[int] = tensors["gate_counts"].tolist()
    needed: list[int] = tensors["gates_needed"].tolist()
    if any(count < 0 for count in counts):
        raise CheckpointError(f"{where}gate_counts: found {counts[:20]}, expected no negative ones")
    total = sum(counts)
    for name, shape in (
        ("gate_encoders", (total, width)),
        ("gate_biases", (total,)),
        ("gate_thresholds", (total,)),
    ):
        _expect_shape(where, name, tensors, shape)
    read_outs = map(
        GateReadOut,
        tensors["gate_encoders"],
        tensors["gate_biases"].tolist(),
        tensors["gate_thresholds"].tolist(),
    )
    found: list[Condition | None] = []
    for k, (count, least) in enumerate(zip(counts, needed, strict=True)):
        gates = tuple(islice(read_outs, count))
        if not gates and not least:
            found.append(None)
            continue
        try:
            found.append(Condition(gates, least))
        except ValueError as error:
            raise CheckpointError(f"{where}gates_needed: term {k}: {error}") from None
    return found


def _read_functions(
    where: str, counts: list[int], tensors: Mapping[str, Tensor]
) -> list[PiecewiseLinear]:
    breakpoints, slopes, intercepts = (
        tensors[name].tolist() for name in ("breakpoints", "slopes", "intercepts")
    )
    starts = list(accumulate(counts, initial=0))
    functions = []
    for k, (start, end) in enumerate(pairwise(starts)):
        pieces = slice(start + k, end + k + 1)
        try:
            function = PiecewiseLinear(
                tuple(breakpoints[start:end]), tuple(slopes[pieces]), tuple(intercepts[pieces])
            )
        except ValueError as error:
            raise CheckpointError(f"{where}breakpoints: term {k}: {error}") from None
        functions.append(function)
    return functions


def _expect_shape(
    where: str, name: str, tensors: Mapping[str, Tensor], shape: tuple[int, ...]
) -> None:
    found = tuple(tensors[name].shape)
    if found != shape:
        raise CheckpointError(f"{where}{name}: shape {list(found)}, expected {list(shape)}")


def _normalization(where: str, k: int, name: str) -> Normalization:
    if name not in list(Normalization):
        raise CheckpointError(
            unknown_name(f"{where}terms[{k}].normalization", name, [n.value for n in Normalization])
        )
    return Normalization(name)
