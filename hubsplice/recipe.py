"""The recipe: what a user writes, as pydantic models, and the JSON schema made from them."""

from __future__ import annotations

import difflib
import re
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    NonNegativeFloat,
    NonNegativeInt,
    PositiveInt,
    SerializeAsAny,
    ValidationError,
    WithJsonSchema,
    model_validator,
)

from hubsplice.edits.base import Edit
from hubsplice.edits.registry import EDITS
from hubsplice.errors import RecipeError


class Section(BaseModel):
    """A part of the recipe. Unknown fields are errors: a misspelt option must not pass."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class SaeSource(Section):
    """Where the sparse autoencoder comes from: exactly one of the three ways."""

    path: Path | None = Field(None, description="A local folder that SAELens saved.")
    release: str | None = Field(None, description="A release in SAELens's registry.")
    id: str | None = Field(None, description="The SAE's id within the release.")
    repo_id: str | None = Field(None, description="A Hub repository in SAELens's format.")
    subfolder: str | None = Field(None, description="The folder of the SAE in that repository.")
    revision: str | None = Field(None, description="The repository's commit, branch or tag.")

    @model_validator(mode="after")
    def _one_way(self) -> SaeSource:
        ways = [name for name in ("path", "release", "repo_id") if getattr(self, name) is not None]
        if len(ways) != 1:
            raise ValueError(
                "say where the SAE is with exactly one of path, release (with id) or repo_id; "
                f"found {' and '.join(ways) or 'none of them'}"
            )
        if (self.release is None) != (self.id is None):
            raise ValueError("release and id go together")
        if self.repo_id is None and (self.subfolder is not None or self.revision is not None):
            raise ValueError("subfolder and revision belong to repo_id")
        return self


def _known_edit(value: Any) -> Any:
    """Turn a mapping with a `kind` into the edit that is registered for it."""
    if isinstance(value, Edit):
        return value
    if not isinstance(value, dict):
        raise ValueError(f"an edit is a mapping with a kind, found {value!r}")
    if "kind" not in value:
        raise ValueError("an edit needs a kind; `hubsplice edits` lists them")
    try:
        edit = EDITS.get(str(value["kind"]), "kind")
    except RecipeError as error:
        raise ValueError(str(error)) from None
    return edit.model_validate(value)


def _edit_schema() -> dict[str, Any]:
    return {"anyOf": [edit.model_json_schema() for _, edit in EDITS.items()]}


AnyEdit = Annotated[SerializeAsAny[Edit], BeforeValidator(_known_edit), WithJsonSchema({})]


class Splice(Section):
    """One inserted layer: where it lies, where its features come from, and its edits."""

    after_layer: NonNegativeInt | None = Field(
        None,
        description="The base model's layer (from 0) whose output is edited. May be left out "
        "where the SAE's own config says.",
    )
    sae: SaeSource | None = Field(None, description="The SAE that `feature` numbers refer to.")
    edits: tuple[AnyEdit, ...] = Field(
        (), description="What to do to which features. None gives an empty layer."
    )
    sinks: Literal["skip", "edit"] = Field(
        "skip",
        description="Leave attention sinks alone (tokens whose residual norm is far off), or edit "
        "them as a plain hook would.",
    )
    sink_multiple: Annotated[float, Field(gt=1)] = Field(
        5.0, description="A token is a sink above this multiple of the median residual norm."
    )


class TextSource(Section):
    """Where tokens come from."""

    dataset: str = Field(
        "builtin",
        description="`builtin` (the Python documentation that comes with Python, needs no "
        "network), a local .txt or .jsonl file or a folder of them, or a Hub dataset id.",
    )
    config: str | None = Field(None, description="The Hub dataset's configuration.")
    split: str = Field("train", description="The Hub dataset's split.")
    column: str = Field("text", description="The column or JSON field that holds the text.")
    revision: str | None = Field(None, description="The Hub dataset's commit, branch or tag.")
    tokens: Annotated[int, Field(ge=256)] = Field(20_000, description="How many tokens to use.")
    sequence_length: Annotated[int, Field(ge=16)] = Field(256, description="Tokens per sequence.")


class Calibration(TextSource):
    """Text whose activations the constants of the inserted layers are fitted to."""


class Fidelity(TextSource):
    """Held-out text on which the spliced model is compared with the hook."""

    tokens: Annotated[int, Field(ge=256)] = Field(20_000, description="How many tokens to use.")
    require: Annotated[float, Field(gt=0)] | None = Field(
        None, description="Fail the build when the ratio to the noise floor is above this."
    )


class Publish(Section):
    """Where `hubsplice publish` puts the result."""

    repo_id: str | None = Field(None, description="The target repository, `name` or `owner/name`.")
    private: bool = Field(True, description="Whether a new repository is private.")
    tag: str | None = Field(None, description="A tag for the published commit.")


class Recipe(Section):
    """An edited model: a base, where to splice, and what to check."""

    base_model: str = Field(description="A Hub model id, or a local folder.")
    revision: str | None = Field(
        None, description="The base's commit, branch or tag; resolved to a commit and recorded."
    )
    dtype: Literal["auto", "bfloat16", "float16", "float32"] = Field(
        "auto", description="The precision to compile for; `auto` is the base's own."
    )
    title: str | None = Field(None, description="A name for the card.")
    description: str | None = Field(None, description="A paragraph for the card.")
    splices: tuple[Splice, ...] = Field(min_length=1, description="At least one inserted layer.")
    calibration: Calibration = Calibration()
    fidelity: Fidelity = Fidelity()
    publish: Publish = Publish()
    seed: NonNegativeInt = 0


def parse_recipe(text: str, *, folder: Path) -> Recipe:
    """Parse and validate a recipe.

    Args:
        text: YAML.
        folder: what relative paths in the recipe are relative to.

    Raises:
        RecipeError: with one line per problem: the field, the value, and what was expected.
    """
    try:
        raw = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise RecipeError(f"the recipe is not valid YAML: {error}") from None
    if not isinstance(raw, dict):
        raise RecipeError(f"a recipe is a mapping with base_model and splices, found {raw!r}")
    try:
        recipe = Recipe.model_validate(raw)
    except ValidationError as error:
        raise RecipeError(_readable(error)) from None
    return _with_absolute_paths(recipe, folder)
