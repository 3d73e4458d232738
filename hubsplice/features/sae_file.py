"""The types of what an SAE's cfg.json says, in all of its generations."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from hubsplice.errors import CheckpointError, quoted

Size = Annotated[int, Field(ge=1, le=2**31)]
Text = Annotated[str, Field(max_length=10_000)]
Precision = Annotated[str, Field(pattern=r"^(torch\.)?(float64|float32|float16|bfloat16)$")]


class _Part(BaseModel):
    model_config = ConfigDict(extra="allow", strict=True, protected_namespaces=())


class _Kwargs(_Part):
    k: Size | float | None = None


class _ModelKwargs(_Part):
    center_writing_weights: bool | None = None


class _Metadata(_Part):
    """What is said of the training; before version 6, beside everything else."""

    model_name: Text | None = None
    hook_name: Text | None = None
    hook_point: Text | None = None
    hf_hook_name: Text | None = None
    hook_layer: int | None = None
    hook_point_layer: int | None = None
    model_from_pretrained_kwargs: _ModelKwargs | None = None


class SaeFile(_Metadata):
    """An SAE's cfg.json."""

    architecture: Text | None = None
    d_in: Size
    d_sae: Size
    dtype: Precision | None = None
    device: Text | None = None
    normalize_activations: Text | bool | None = None
    reshape_activations: Text | None = None
    apply_b_dec_to_input: bool | int | None = None
    activation_fn: Text | None = None
    activation_fn_str: Text | None = None
    activation_fn_kwargs: _Kwargs | None = None
    k: Size | None = None
    metadata: _Metadata | None = None


def require_sae_types(raw: Mapping[str, Any], origin: str) -> None:
    """Refuse a configuration in which a field is of another type than that field can be.

    Raises:
        CheckpointError: one line per field.
    """
    try:
        SaeFile.model_validate(dict(raw))
    except ValidationError as error:
        raise CheckpointError("\n".join(dict.fromkeys(_problems(origin, error)))) from None
    except RecursionError:
        raise CheckpointError(f"{origin}: its configuration is nested too deeply") from None


def _problems(origin: str, error: ValidationError) -> list[str]:
    lines = []
    for problem in error.errors(include_url=False):
        name = ".".join(str(part) for part in problem["loc"] if part not in ("bool", "int"))
        if problem["type"] == "missing" or name in ("d_in", "d_sae"):
            value = None if problem["type"] == "missing" else problem["input"]
            lines.append(
                f"{origin}: {name} in its configuration is {quoted(value)}; expected a positive "
                "integer"
            )
            continue
        expected = problem["msg"].removeprefix("Input should be ")
        lines.append(
            f"{origin}: {name} in its configuration is {quoted(problem['input'])}; expected "
            f"{expected}"
        )
    return lines
