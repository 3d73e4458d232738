"""The types of what a model's config.json and tokenizer_config.json say, before anything uses them.

Classes have fields of their own, which their families and transformers know; here stand those that
are read for every model. Fields that are not listed are let through.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from hubsplice.errors import CheckpointError, quoted

# Larger ones are of no model, and lists of that length would be made of them.
Layers = Annotated[int, Field(ge=0, le=100_000)]
Size = Annotated[int, Field(ge=0, le=2**31)]
Count = Annotated[int, Field(ge=0, le=2**62)]
TokenId = Annotated[int, Field(ge=-(2**31), le=2**31)]
Number = Annotated[int | float, Field(allow_inf_nan=False, ge=-1e30, le=1e30)]
Text = Annotated[str, Field(max_length=10_000)]
Precision = Literal["float64", "float32", "float16", "bfloat16", "auto"]


class _File(BaseModel):
    model_config = ConfigDict(extra="allow", strict=True, protected_namespaces=())


class ModelConfig(_File):
    """A config.json, or the part of one that describes a text decoder."""

    model_type: Text | None = None
    architectures: list[Text] | None = None
    dtype: Precision | None = None
    torch_dtype: Precision | None = None
    tokenizer_class: Text | None = None
    tie_word_embeddings: bool | None = None

    vocab_size: Size | None = None
    hidden_size: Size | None = None
    n_embd: Size | None = None
    intermediate_size: Size | None = None
    n_inner: Size | None = None
    moe_intermediate_size: Size | None = None
    num_hidden_layers: Layers | None = None
    n_layer: Layers | None = None
    num_attention_heads: Size | None = None
    n_head: Size | None = None
    num_key_value_heads: Size | None = None
    head_dim: Size | None = None
    max_position_embeddings: Count | None = None
    n_positions: Count | None = None
    sliding_window: Count | None = None

    rms_norm_eps: Number | None = None
    layer_norm_eps: Number | None = None
    layer_norm_epsilon: Number | None = None
    norm_epsilon: Number | None = None
    rope_theta: Number | None = None
    residual_multiplier: Number | None = None
    rope_parameters: dict[str, Any] | None = None
    rope_scaling: dict[str, Any] | None = None

    layer_types: list[Text] | None = None
    mlp_only_layers: list[Layers] | None = None
    hidden_act: Text | None = None
    hidden_activation: Text | None = None
    activation_function: Text | None = None

    bos_token_id: TokenId | list[TokenId] | None = None
    eos_token_id: TokenId | list[TokenId] | None = None
    pad_token_id: TokenId | None = None

    text_config: ModelConfig | None = None

    @model_validator(mode="after")
    def _padding_is_a_token(self) -> ModelConfig:
        size, token = self.vocab_size, self.pad_token_id
        # Embeddings count from the end below zero.
        if size is not None and token is not None and not -size <= token < size:
            raise ValueError(f"pad_token_id is {token}, and vocab_size {size}")
        return self


class TokenizerConfig(_File):
    """A tokenizer_config.json."""

    tokenizer_class: Text | None = None
    chat_template: str | list[dict[str, str]] | dict[str, str] | None = None
    added_tokens_decoder: dict[str, dict[str, Any]] = Field(default_factory=dict)
    model_max_length: Number | None = None


def require_types(path: Path, content: Mapping[str, Any], model: type[_File]) -> None:
    """Refuse a file in which a field is of another type than that field can be.

    Raises:
        CheckpointError: one line per field.
    """
    try:
        model.model_validate(dict(content))
    except ValidationError as error:
        raise CheckpointError("\n".join(_problems(path, content, error))) from None
    except RecursionError:
        raise CheckpointError(f"{path}: its JSON is nested too deeply") from None


def _problems(path: Path, content: Mapping[str, Any], error: ValidationError) -> list[str]:
    lines: dict[str, list[str]] = {}
    for problem in error.errors(include_url=False):
        fields = _as_written(problem["loc"], content)
        where = ": ".join([str(path), ".".join(fields)] if fields else [str(path)])
        if problem["type"] == "value_error":
            lines[f"{where}:"] = [problem["msg"].removeprefix("Value error, ")]
        else:
            start = f"{where}: found {quoted(problem['input'])}, expected"
            expected = problem["msg"].removeprefix("Input should be ")
            lines.setdefault(start, []).append(expected)
    return [f"{start} {' or '.join(texts)}" for start, texts in lines.items()]


def _as_written(location: tuple[int | str, ...], content: Any) -> list[str]:
    """The part of a location that is in the file: a field of several types names them in it."""
    fields = []
    for part in location:
        try:
            content = content[part]
        except (LookupError, TypeError):
            continue
        fields.append(str(part))
    return fields
