"""The recipe: what a user writes, as pydantic models, and the JSON schema made from them."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    NonNegativeInt,
    SerializeAsAny,
    ValidationError,
    ValidationInfo,
    WithJsonSchema,
    model_validator,
)
from pydantic.json_schema import models_json_schema
from pydantic_core import PydanticCustomError

from hubsplice.edits.base import Edit
from hubsplice.edits.registry import EDITS
from hubsplice.errors import RecipeError
from hubsplice.place import Block, Place
from hubsplice.recipe_errors import readable_problems
from hubsplice.recipe_yaml import dump_yaml, load_yaml


class Section(BaseModel):
    """A part of the recipe. Unknown fields are errors: a misspelt option must not pass."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


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


def _known_edit(value: Any, info: ValidationInfo) -> Any:
    """Turn a mapping with a `kind` into the edit that is registered for it."""
    if isinstance(value, Edit):
        return value
    if not isinstance(value, dict):
        raise ValueError(f"found {value!r}, expected a mapping with a kind")
    kinds = dict(EDITS.items())
    if "kind" not in value:
        raise PydanticCustomError("missing_kind", "an edit needs a kind")
    edit = kinds.get(value["kind"]) if isinstance(value["kind"], str) else None
    if edit is None:
        raise PydanticCustomError("unknown_kind", "no such kind of edit")
    if info.mode == "json":
        return edit.model_validate_json(json.dumps(value), strict=True)
    return edit.model_validate(value)


AnyEdit = Annotated[SerializeAsAny[Edit], BeforeValidator(_known_edit), WithJsonSchema({})]


class Splice(Section):
    """Edits after one layer: where it lies, where their features come from, and what they do."""

    after_layer: Annotated[int, Field(ge=-1)] | None = Field(
        None,
        description="The base model's layer (from 0) whose output is edited; -1 for what layer 0 "
        "reads. May be left out where the SAE's own config says.",
    )
    after_attention: NonNegativeInt | None = Field(
        None,
        description="In place of after_layer: the layer whose attention's output, as it has joined "
        "the residual stream, is edited before its MLP reads it. Takes one or two layers more.",
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
    construction: Literal["auto", "layer", "bias"] = Field(
        "auto",
        description="What carries the edits: an inserted layer, or a bias of the existing one, "
        "which costs nothing, adds the same to every token, sinks among them, and is there in some "
        "families. `auto` takes the bias where it is exact.",
    )
    sink_multiple: Annotated[float, Field(gt=1)] = Field(
        5.0, description="A token is a sink above this multiple of the median residual norm."
    )

    @property
    def place(self) -> Place | None:
        """Where the stream is edited; None where the SAE says."""
        if self.after_attention is not None:
            return Place(self.after_attention, Block.ATTENTION)
        return None if self.after_layer is None else Place(self.after_layer)

    @model_validator(mode="after")
    def _says_where(self) -> Splice:
        if self.after_layer is not None and self.after_attention is not None:
            raise ValueError(
                f"found after_layer: {self.after_layer} and after_attention: "
                f"{self.after_attention}, expected one of them"
            )
        if self.sae is not None:
            return self
        if self.place is None:
            raise ValueError("after_layer is missing, and there is no sae whose config would say")
        for i, edit in enumerate(self.edits):
            if edit.feature_indices():
                raise ValueError(
                    f"edits[{i}] ({edit.kind}) refers to feature {edit.feature_indices()[0]}, "
                    "and the splice has no sae"
                )
        return self


BUILTIN = "builtin"


class TextSource(Section):
    """Where tokens come from."""

    dataset: str = Field(
        BUILTIN,
        min_length=1,
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

    base_model: str = Field(min_length=1, description="A Hub model id, or a local folder.")
    revision: str | None = Field(
        None, description="The base's commit, branch or tag; resolved to a commit and recorded."
    )
    dtype: Literal["auto", "bfloat16", "float16", "float32"] = Field(
        "auto", description="The precision to compile for; `auto` is the base's own."
    )
    title: str | None = Field(None, description="A name for the card.")
    description: str | None = Field(None, description="A paragraph for the card.")
    splices: tuple[Splice, ...] = Field(min_length=1, description="At least one inserted layer.")
    calibration: Calibration = Field(
        Calibration(), description="Text that the constants of the inserted layers are fitted to."
    )
    fidelity: Fidelity = Field(
        Fidelity(), description="Held-out text on which the result is compared with the hook."
    )
    publish: Publish = Field(Publish(), description="Where `hubsplice publish` puts the result.")
    seed: NonNegativeInt = Field(0, description="The seed of everything that is drawn.")

    @model_validator(mode="after")
    def _one_splice_per_place(self) -> Recipe:
        first: dict[Place, int] = {}
        for i, splice in enumerate(self.splices):
            place = splice.place
            if place is None:
                continue
            if place in first:
                raise ValueError(
                    f"splices[{i}].{place.field}: found {place.layer}, which "
                    f"splices[{first[place]}] names already; put all edits at one layer into one "
                    "splice"
                )
            first[place] = i
        return self


def load_recipe(path: Path) -> Recipe:
    """Read a recipe from a file; relative paths in it are relative to the file's folder.

    Raises:
        RecipeError: the file can't be read, or what it says is not a recipe.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise RecipeError(f"{path}: {error.strerror or error}") from None
    except UnicodeDecodeError as error:
        raise RecipeError(f"{path}: expected UTF-8 text: {error}") from None
    return parse_recipe(text, folder=path.parent)


def parse_recipe(text: str, *, folder: Path) -> Recipe:
    """Parse and validate a recipe.

    Types are not converted: `feature: "12"` and `feature: true` are errors.

    Args:
        text: YAML.
        folder: what relative paths in the recipe are relative to.

    Raises:
        RecipeError: with one line per problem: the field, the value, and what was expected.
    """
    raw = load_yaml(text)
    if not isinstance(raw, dict):
        raise RecipeError(f"a recipe is a mapping with base_model and splices, found {raw!r}")
    try:
        # Strict validation of JSON converts no type except where JSON has no other way to say
        # it (a list for a tuple, text for a path); strict validation of Python objects would
        # refuse those too.
        recipe = Recipe.model_validate_json(json.dumps(raw), strict=True)
    except ValidationError as error:
        raise RecipeError(readable_problems(error, raw, Recipe, dict(EDITS.items()))) from None
    return _with_absolute_paths(recipe, folder)


def dump_recipe(recipe: Recipe) -> str:
    """The recipe as YAML with every default written out; parses to an equal recipe."""
    return dump_yaml(recipe.model_dump(mode="json"))


def portable(recipe: Recipe) -> Recipe:
    """The recipe with every local path reduced to its last part, for others to read."""
    text = {
        name: getattr(recipe, name).model_copy(
            update={"dataset": _bare(getattr(recipe, name).dataset)}
        )
        for name in ("calibration", "fidelity")
    }
    return _mapped_paths(recipe, lambda path: Path(path.name)).model_copy(
        update={"base_model": _bare(recipe.base_model), **text}
    )


def _bare(name: str) -> str:
    return Path(name).name if Path(name).is_absolute() else name


def recipe_schema() -> dict[str, Any]:
    """The JSON schema of a recipe, with all registered edit kinds."""
    edits = [edit for _, edit in EDITS.items()]
    models: list[type[BaseModel]] = [Recipe, *edits]
    references, schema = models_json_schema([(model, "validation") for model in models])
    definitions = schema["$defs"]
    edit_references = [references[edit, "validation"] for edit in edits]
    for reference in edit_references:
        definition = definitions[reference["$ref"].removeprefix("#/$defs/")]
        definition["required"] = sorted({"kind", *definition.get("required", ())})
    definitions["Splice"]["properties"]["edits"]["items"] = {"oneOf": edit_references}
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "hubsplice recipe",
        **references[Recipe, "validation"],
        "$defs": definitions,
    }


Model = TypeVar("Model", bound=BaseModel)


def _with_absolute_paths(recipe: Recipe, folder: Path) -> Recipe:
    """The recipe with every relative path that it names joined to `folder`."""
    recipe = _mapped_paths(recipe, lambda path: (folder / path).absolute())
    text = {
        name: getattr(recipe, name).model_copy(
            update={"dataset": _joined_if_local(getattr(recipe, name).dataset, folder)}
        )
        for name in ("calibration", "fidelity")
    }
    base_model = _joined_if_local(recipe.base_model, folder)
    return recipe.model_copy(update={"base_model": base_model, **text})


def _mapped_paths(model: Model, change: Callable[[Path], Path]) -> Model:
    fields = type(model).model_fields
    return model.model_copy(
        update={name: _mapped_value(getattr(model, name), change) for name in fields}
    )


def _mapped_value(value: Any, change: Callable[[Path], Path]) -> Any:
    if isinstance(value, Path):
        return change(value)
    if isinstance(value, BaseModel):
        return _mapped_paths(value, change)
    if isinstance(value, tuple):
        return tuple(_mapped_value(item, change) for item in value)
    return value


def _joined_if_local(name: str, folder: Path) -> str:
    """`name` as an absolute path where it names something local, and `name` itself otherwise.

    What starts with a dot names something local even where it does not exist, so that the error
    shows where it was looked for.
    """
    try:
        local = name.startswith(("./", "../")) or (name != BUILTIN and (folder / name).exists())
    except (OSError, ValueError):
        return name
    return str((folder / name).absolute()) if local else name
