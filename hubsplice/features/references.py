"""What a recipe calls a source of features by: an SAE, a tensor or a probe in a file."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    NonNegativeInt,
    WithJsonSchema,
    field_validator,
    model_validator,
)

from hubsplice.features.neuronpedia import parse_name

FeatureIndex = Annotated[
    NonNegativeInt,
    WithJsonSchema(
        {"anyOf": [{"type": "integer", "minimum": 0}, {"type": "string", "pattern": "/[0-9]+/?$"}]}
    ),
]
"""A feature's index. A recipe may also name the feature as Neuronpedia does."""


class SaeSource(BaseModel):
    """Where the sparse autoencoder comes from: exactly one of the four ways."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    path: Path | None = Field(
        None,
        description="A local folder that SAELens, sparsify or "
        "dictionary_learning saved, or one of Gemma Scope.",
    )
    release: str | None = Field(None, description="A release in SAELens's registry.")
    id: str | None = Field(None, description="The SAE's id within the release.")
    neuronpedia: str | None = Field(
        None,
        description="What Neuronpedia calls it: `gemma-2-2b/20-gemmascope-res-16k`, or the address "
        "of its page. SAELens's registry has the release and the id for it, which are recorded.",
    )
    repo_id: str | None = Field(None, description="A Hub repository in SAELens's format.")
    subfolder: str | None = Field(None, description="The folder of the SAE in that repository.")
    revision: str | None = Field(None, description="The repository's commit, branch or tag.")

    @property
    def title(self) -> str:
        """How reports call it, without the folder that a local one lies in."""
        if self.path is not None:
            return self.path.name
        if self.release is not None:
            return f"{self.release}/{self.id}"
        named = self.neuronpedia or self.repo_id or ""
        return f"{named}/{self.subfolder}" if self.subfolder else named

    @field_validator("neuronpedia")
    @classmethod
    def _whole_sae(cls, name: str | None) -> str | None:
        if name is None:
            return None
        parsed = parse_name(name)
        if parsed.feature is not None:
            raise ValueError(
                f"found {name!r}, which is a feature; expected its SAE, {parsed.sae!r}, and the "
                f"number {parsed.feature} as the `feature` of an edit"
            )
        return parsed.sae

    @model_validator(mode="after")
    def _one_way(self) -> SaeSource:
        ways = [
            name
            for name in ("path", "release", "neuronpedia", "repo_id")
            if getattr(self, name) is not None
        ]
        if len(ways) != 1:
            raise ValueError(
                "say where the SAE is with exactly one of path, release (with id), neuronpedia or "
                f"repo_id; found {' and '.join(ways) or 'none of them'}"
            )
        if (self.release is None) != (self.id is None):
            raise ValueError("release and id go together")
        if self.repo_id is None and (self.subfolder is not None or self.revision is not None):
            raise ValueError("subfolder and revision belong to repo_id")
        return self


class TensorSource(BaseModel):
    """A tensor of shape [d] (or [k, d] where a subspace is meant) in a file.

    The file is safetensors, NumPy's .npz or .npy, or a control vector in GGUF, as repeng and
    llama.cpp write it.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    path: Path = Field(description="A local file.")
    tensor: str | None = Field(
        None,
        description="The tensor's name; may be left out where the file holds one tensor, or one "
        "for each layer, whose names differ in the layer's number alone, as `direction.12`: then "
        "it is that of the layer whose output is edited.",
    )
    row: NonNegativeInt | None = Field(
        None,
        description="Which row of a tensor of shape [n, d] is meant, such as the vector of one "
        "layer where there is one for each.",
    )


class ProbeSource(BaseModel):
    """A linear probe in a safetensors file: a weight of shape [d] and a scalar bias."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    path: Path = Field(description="A local safetensors file.")
    weight: str = Field("weight", description="The name of the weight, shape [d].")
    bias: str | None = Field(
        "bias", description="The name of the bias, a single number; null for no bias."
    )

    @property
    def title(self) -> str:
        """How reports call it: by its name and its file's, without the folder."""
        return f"probe {self.weight} of {self.path.name}"
