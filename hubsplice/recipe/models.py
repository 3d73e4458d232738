"""The recipe: what a user writes, as pydantic models."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

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
    field_validator,
    model_validator,
)
from pydantic_core import PydanticCustomError

from hubsplice.edits.base import Edit
from hubsplice.edits.registry import EDITS
from hubsplice.errors import RecipeError
from hubsplice.features.prompt import AnyPrompt
from hubsplice.features.prompt import Message as Message
from hubsplice.features.prompt import Prompt as Prompt
from hubsplice.features.references import SaeSource
from hubsplice.intervention.place import Block, Place
from hubsplice.recipe.feature_names import with_indices
from hubsplice.recipe.problems import readable_problems
from hubsplice.recipe.python_values import as_plain
from hubsplice.recipe.repo_ids import require_repo_id
from hubsplice.recipe.several_layers import one_layer_each
from hubsplice.recipe.tags import require_tag
from hubsplice.recipe.yaml_text import dump_yaml, require_plain
from hubsplice.rendering.content import Code, Part
from hubsplice.rendering.rendered import Rendered


class Section(BaseModel):
    """A part of the recipe. Unknown fields are errors: a misspelt option must not pass."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


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


_LAYERS = {
    "anyOf": [
        {"type": "integer", "minimum": -1},
        {"type": "array", "minItems": 1, "items": {"type": "integer", "minimum": -1}},
    ]
}


class Splice(Section):
    """Edits at one place of the model: which layer, which SAE, and what the edits do."""

    after_layer: Annotated[int, Field(ge=-1), WithJsonSchema(_LAYERS)] | None = Field(
        None,
        description="The layer of the base model, counted from 0, whose output is edited. -1 edits "
        "what layer 0 reads. Not needed if the SAE's config names the layer. A list of layers "
        "stands for a splice after each, with the same edits; messages and records count those.",
    )
    after_attention: NonNegativeInt | None = Field(
        None,
        description="In place of after_layer, for an edit inside a layer: the residual stream is "
        "edited after the layer's attention was added and before its MLP reads it. Takes one or "
        "two layers more.",
    )
    sae: SaeSource | None = Field(None, description="The SAE that `feature` numbers refer to.")
    edits: tuple[AnyEdit, ...] = Field(
        (), description="What to do to which features. No edits give an empty layer."
    )
    sinks: Literal["skip", "edit"] = Field(
        "skip",
        description="Leave attention sinks alone, or edit them as a plain hook would. Sinks are "
        "tokens whose residual norm is many times that of the others.",
    )
    construction: Literal["auto", "layer", "bias"] = Field(
        "auto",
        description="What carries the edits: an inserted layer, or a bias of the existing layer. A "
        "bias costs nothing, but it adds the same to every token, also to sinks, and only some "
        "families have one. `auto` uses the bias where it is exact.",
    )
    sink_multiple: Annotated[float, Field(gt=1)] = Field(
        5.0,
        description="A token is a sink if its residual norm is above this multiple of the median.",
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
            raise ValueError("after_layer is missing, and there is no sae whose config names it")
        for i, edit in enumerate(self.edits):
            if edit.all_indices():
                raise ValueError(
                    f"edits[{i}] ({edit.kind}) refers to feature {edit.all_indices()[0]}, "
                    "and the splice has no sae"
                )
        return self


BUILTIN = "builtin"
OF_THE_SAE = "sae"


class TextSource(Section):
    """Where tokens come from."""

    dataset: str = Field(
        BUILTIN,
        min_length=1,
        description="`builtin` (a small sample of many kinds of text and what comes with Python, "
        "needs no network), `sae` (the dataset that the SAE names as its own), a local .txt, .md, "
        ".jsonl, .csv or .parquet file or a folder of them, or a Hub dataset id.",
    )
    config: str | None = Field(None, description="The Hub dataset's configuration.")
    split: str = Field("train", description="The Hub dataset's split.")
    column: str = Field(
        "text",
        description="The column or JSON field that holds the text, or "
        "a conversation as a list of messages. Where there is no `text`, `messages` is taken.",
    )
    revision: str | None = Field(None, description="The Hub dataset's commit, branch or tag.")
    tokens: Annotated[int, Field(ge=256)] = Field(20_000, description="How many tokens to use.")
    sequence_length: Annotated[int, Field(ge=16)] = Field(256, description="Tokens per sequence.")
    scan: NonNegativeInt | None = Field(
        None,
        description="The most tokens that are read, beside those, in search of text on which each "
        "edit acts. Ten times `tokens` where nothing is said; 0 searches for none.",
    )

    @property
    def most_scanned(self) -> int:
        """The most tokens that are read in search of text on which each edit acts."""
        return 10 * self.tokens if self.scan is None else self.scan


class Calibration(TextSource):
    """Text whose activations the constants of the inserted layers are fitted to."""


class Fidelity(TextSource):
    """Held-out text on which the spliced model is compared with the hook."""

    tokens: Annotated[int, Field(ge=256)] = Field(20_000, description="How many tokens to use.")
    require: Annotated[float, Field(gt=0)] | None = Field(
        None, description="Fail the build if the ratio to the noise floor is above this."
    )


class Card(Section):
    """What the model card shows beside what hubsplice finds out."""

    prompts: tuple[AnyPrompt, ...] | None = Field(
        None,
        max_length=8,
        description="What base and edited model are asked, for the card's *before and after*. "
        "Where nothing is said, prompts are chosen on which the edits act; an empty list asks "
        "nothing.",
    )
    before: Path | None = Field(
        None,
        description="A file of your own Markdown, which stands on the card before everything that "
        "hubsplice writes but the title and the first sentence.",
    )
    after: Path | None = Field(None, description="The same, at the card's end, before the credits.")
    images: tuple[Path, ...] = Field(
        (),
        description="Pictures that the two show, as PNG, JPEG, GIF or WebP. They travel with the "
        "model in card/, and links to them by name lead there.",
    )


class Publish(Section):
    """Where `hubsplice publish` puts the result."""

    repo_id: str | None = Field(None, description="The target repository, `name` or `owner/name`.")
    private: bool = Field(True, description="Whether a new repository is private.")
    tag: str | None = Field(None, description="A tag for the published commit.")

    @field_validator("repo_id")
    @classmethod
    def _of_the_hub(cls, repo_id: str | None) -> str | None:
        if repo_id is not None:
            try:
                require_repo_id(repo_id, "publish.repo_id")
            except RecipeError as error:
                raise ValueError(str(error).partition(": ")[2]) from None
        return repo_id

    @field_validator("tag")
    @classmethod
    def _of_git(cls, tag: str | None) -> str | None:
        if tag is not None:
            try:
                require_tag(tag, "publish.tag")
            except RecipeError as error:
                raise ValueError(str(error).partition(": ")[2]) from None
        return tag


class Recipe(Rendered, Section):
    """An edited model: a base, where to splice, and what to check."""

    base_model: str = Field(min_length=1, description="A Hub model id, or a local folder.")
    revision: str | None = Field(
        None,
        description="The base's commit, branch or tag. The commit that it stands for is recorded.",
    )
    dtype: Literal["auto", "bfloat16", "float16", "float32"] = Field(
        "auto", description="The precision to compile for; `auto` is the base's own."
    )
    title: str | None = Field(None, description="A name for the card.")
    description: str | None = Field(None, description="A paragraph for the card.")
    serve_with: tuple[Literal["vllm", "transformers", "sglang", "tgi", "llama.cpp"], ...] = Field(
        (),
        description="Engines that must all honour the result. Some ignore biases that splices of "
        "a family need; then it is built without, or refused.",
    )
    splices: tuple[Splice, ...] = Field(min_length=1, description="At least one inserted layer.")
    calibration: Calibration = Field(
        Calibration(), description="Text that the constants of the inserted layers are fitted to."
    )
    fidelity: Fidelity = Field(
        Fidelity(), description="Held-out text on which the result is compared with the hook."
    )
    prompts: tuple[AnyPrompt, ...] = Field(
        (),
        description="Text on which the edits act. Half of the prompts are calibrated on, and the "
        "others are measured on.",
    )
    card: Card = Field(Card(), description="What the model card shows beside what is measured.")
    publish: Publish = Field(Publish(), description="Where `hubsplice publish` puts the result.")
    seed: NonNegativeInt = Field(0, description="The seed of all random choices.")

    # Type checkers and editors see the constructor that pydantic makes of the fields.
    if not TYPE_CHECKING:

        def __init__(self, /, **fields: Any) -> None:
            """A recipe from its fields, held to the same rules as YAML.

            Types are not converted: `feature: "12"` and `feature: true` are errors.

            Raises:
                RecipeError: one line per problem: the field, the value, and what was expected.
            """
            raw = as_plain(fields)
            require_plain(raw)
            raw = one_layer_each(with_indices(raw))
            try:
                # Strict validation of JSON converts no type except where JSON has no other way to
                # say it (a list for a tuple, text for a path); strict validation of Python objects
                # would refuse those too.
                self.__pydantic_validator__.validate_json(
                    json.dumps(raw), strict=True, self_instance=self
                )
            except ValidationError as error:
                raise RecipeError(
                    readable_problems(error, raw, Recipe, dict(EDITS.items()))
                ) from None

    def content(self) -> Iterable[Part]:
        """What differs from the defaults, as YAML."""
        written = self.model_dump(mode="json", exclude_defaults=True)
        for splice, shown in zip(self.splices, written["splices"], strict=True):
            kinds = [{"kind": edit.kind} for edit in splice.edits]
            if kinds:
                shown["edits"] = [k | e for k, e in zip(kinds, shown["edits"], strict=True)]
        return [Code(dump_yaml(written).rstrip())]

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
