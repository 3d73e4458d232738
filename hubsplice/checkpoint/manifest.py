"""`splice.json`: what a spliced checkpoint is made of, as pydantic models and their schema.

The manifest travels with the model and is public: it names no folder of the machine that made it.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    JsonValue,
    NonNegativeInt,
    SerializerFunctionWrapHandler,
    ValidationError,
    model_serializer,
    model_validator,
)

from hubsplice.checkpoint.companions import MANIFEST
from hubsplice.checkpoint.layer_map import FromBase, LayerMap, layer_map_problem
from hubsplice.errors import CheckpointError
from hubsplice.features.amounts import EditAmounts, ResolvedAmount
from hubsplice.features.fit_record import SaeFit
from hubsplice.features.held import EditHeld, Held
from hubsplice.files.digest import FileDigest, Sha256, digest_bytes
from hubsplice.files.plain import is_folder, not_a_folder, read_plain
from hubsplice.files.strict_json import parse_object
from hubsplice.intervention.place import Block, Place

SCHEMA_VERSION = 1

_ABSOLUTE = re.compile(r"[/~\\]|[A-Za-z]:[/\\]|file:")


def _no_absolute_path(value: dict[str, JsonValue]) -> dict[str, JsonValue]:
    for text in _strings(value):
        if _ABSOLUTE.match(text):
            raise ValueError(f"{text!r} is a path of one machine; give a name instead")
    return value


def _strings(value: JsonValue) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for item in value.values():
            yield from _strings(item)
    elif isinstance(value, list):
        for item in value:
            yield from _strings(item)


def _relative(value: str) -> str:
    if _ABSOLUTE.match(value) or ".." in value.split("/"):
        raise ValueError(f"{value!r} leads out of the model's folder")
    return value


INJECTION = "injection"
"""The construction of a layer that only adds the constant which the layer after it reads."""

SPLIT = "split"
"""The construction of a layer that adds nothing: it stands around another inserted layer, and so
makes room for it between a base layer's attention and its MLP."""

MARKING = "marking"
"""The construction of a layer that marks the tokens at which conditions of edits hold. The layer
behind it edits, and takes the marks back."""

CARRIER = "carrier"
"""The construction of a layer that adds nothing and has slots for adapters."""

_NOT_EDITING = (INJECTION, SPLIT, MARKING, CARRIER)

FreeForm = dict[str, JsonValue]
PublicSource = Annotated[FreeForm, AfterValidator(_no_absolute_path)]
FileName = Annotated[str, Field(min_length=1), AfterValidator(_relative)]


class Record(BaseModel):
    """A part of the manifest."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class BaseTerms(Record):
    """The terms that the base is given under; null is what could not be found out."""

    license: str | None = Field(None, description="As its card has it, such as apache-2.0.")
    license_name: str | None = Field(None, description="Of a licence without an identifier.")
    license_link: str | None = None
    gated: bool | None = Field(
        None, description="Whether the Hub asks for an agreement before a download."
    )


class BaseRecord(Record):
    """The base model."""

    name: str = Field(
        min_length=1, description="The Hub model id, or the bare name of a local folder."
    )
    repo_id: str | None = Field(None, description="The Hub repository; null for a local folder.")
    commit: str | None = Field(None, description="The full commit hash there.")
    files: dict[FileName, FileDigest] = Field(description="Every file of the base that was read.")
    terms: BaseTerms = Field(default_factory=BaseTerms)
    previous: PreviousSplice | None = Field(
        None, description="The splice that the base itself came from; null for other bases."
    )

    @model_validator(mode="after")
    def _named_without_a_place(self) -> BaseRecord:
        if self.repo_id is not None and self.name != self.repo_id:
            raise ValueError(f"the name of a Hub model is its id, {self.repo_id!r}")
        if self.repo_id is None and (
            _ABSOLUTE.match(self.name) or "/" in self.name or self.commit is not None
        ):
            raise ValueError("a local base has the bare name of its folder, and no commit")
        return self

    @property
    def first_weights(self) -> tuple[str, Sha256] | None:
        """The name of its first weight file, and its SHA-256; None where the record has none."""
        names = sorted(name for name in self.files if name.endswith(".safetensors"))
        return (names[0], self.files[names[0]].sha256) if names else None


class PreviousSplice(Record):
    """An earlier splice, by the manifest that was found beside the base."""

    manifest_sha256: Sha256
    base: BaseRecord


class Architectures(Record):
    """The class of the model before and after, such as `MistralForCausalLM`."""

    before: str
    after: str


class ConfigChange(Record):
    """One key of config.json; a side that is left out did not have the key."""

    before: JsonValue = None
    after: JsonValue = None

    @model_serializer(mode="wrap")
    def _only_what_was_there(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        content: dict[str, Any] = handler(self)
        return {key: value for key, value in content.items() if key in self.model_fields_set}


class TermRecord(Record):
    """One edit of one feature."""

    label: str
    kind: str = Field(description="The edit's kind, as `hubsplice edits` lists it.")
    feature: NonNegativeInt | None = Field(None, description="The feature's index in its source.")
    formula: str
    edit: FreeForm = Field(description="The edit as the recipe has it.")
    source: PublicSource = Field(description="Where the feature came from.")
    source_sha256: Sha256 | None = Field(None, description="Of the source's weights.")
    amounts: tuple[ResolvedAmount, ...] = Field(
        (), description="What the strengths of the edit come to."
    )
    held: Held | None = Field(
        None,
        description="On how much calibration text the condition of its edit held. The first term "
        "of an edit says it; null of the others, and without a condition or a gate.",
    )


class InsertedLayer(Record):
    """One inserted layer: where, how, and what it does."""

    site: int = Field(
        ge=-1, description="The base's layer whose output is edited; -1 for what its first reads."
    )
    block: Block = Field(
        Block.MLP, description="The block of that layer after which the stream is edited."
    )
    construction: str
    constants: FreeForm = Field(description="What the construction was given.")
    terms: tuple[TermRecord, ...]

    @property
    def place(self) -> Place:
        """Where the stream is edited."""
        return Place(self.site, self.block)


class EditedBias(Record):
    """A bias of a layer of the base that adds a constant, in place of an inserted layer."""

    site: NonNegativeInt = Field(description="The base's layer whose output is edited.")
    tensor: str = Field(description="The bias's name; the base has none there.")
    terms: tuple[TermRecord, ...]

    @property
    def place(self) -> Place:
        """Where the stream is edited."""
        return Place(self.site)


class SlotsRecord(Record):
    """How many neurons of each kind an empty layer of a carrier has, in this order."""

    above: NonNegativeInt = Field(description="Gate's bias 32, up's 1.")
    below: NonNegativeInt = Field(description="Gate's bias -32, up's 1.")
    bends: NonNegativeInt = Field(description="Gate's bias 0, up's 4.")
    lines: NonNegativeInt = Field(description="Gate's bias 64, up's 0.")
    squares: NonNegativeInt = Field(
        0, description="Without biases: both read one channel, and after all of them its negative."
    )
    plain: NonNegativeInt = Field(0, description="Without biases, and read nothing.")
    silent: tuple[NonNegativeInt, ...] = Field(
        (),
        description="Where norms stand behind blocks: the channels that those of the empty layer "
        "silence, the first one behind the MLP, the others behind attention.",
    )


class CarrierRecord(Record):
    """The carrier that an adapter is for."""

    name: str = Field(
        min_length=1, description="The Hub model id, or the bare name of a local folder."
    )
    repo_id: str | None = Field(None, description="The Hub repository; null for a local folder.")
    commit: str | None = Field(None, description="The full commit hash there.")
    fingerprint: Sha256 = Field(description="Of the carrier's base, layers and slots.")


class CalibrationRecord(Record):
    """The text whose activations the constants were fitted to."""

    dataset: Annotated[str, AfterValidator(_relative)]
    revision: str | None = None
    token_ids_sha256: Sha256
    tokens: NonNegativeInt
    drawn_sequences: NonNegativeInt | None = Field(
        None, description="The first sequences, which were drawn at random."
    )
    chosen_sequences: NonNegativeInt = Field(
        0, description="The others, which were chosen since edits act on them."
    )
    scanned_tokens: NonNegativeInt = Field(
        0, description="Tokens that were read in search of those."
    )
    seed: NonNegativeInt
    median_norm: dict[str, float] = Field(description="Of the residual stream, by site.")
    sink_norm: dict[str, float | None] = Field(
        description="Tokens above it are left alone, by site; null where all are edited."
    )
    sae_fit: dict[str, SaeFit] = Field(
        default_factory=dict, description="Whether each SAE fits the base, by site."
    )
    warnings: tuple[str, ...] = Field(
        (), description="What calibration found that may not be what was meant."
    )


class Manifest(Record):
    """Everything that went into a spliced checkpoint, and the hash of everything that came out."""

    schema_version: Literal[1] = Field(description="The version of this format.")
    hubsplice: str = Field(description="The version of hubsplice.")
    base: BaseRecord
    architectures: Architectures
    layer_map: LayerMap = Field(
        description="Where each layer of the result comes from, or each of its blocks."
    )
    config_changes: dict[str, ConfigChange]
    zero_tensors: tuple[str, ...] = Field(description="New tensors that hold nothing but zeros.")
    layers: tuple[InsertedLayer, ...]
    biases: tuple[EditedBias, ...] = Field(
        (), description="Constant edits that biases of existing layers carry."
    )
    slots: SlotsRecord | None = Field(
        None, description="The empty slots of each inserted layer of a carrier; null for others."
    )
    carrier: CarrierRecord | None = Field(
        None, description="What an adapter is for; null for a checkpoint."
    )
    calibration: CalibrationRecord | None = None
    dtype: str = Field(description="The precision that the layers were compiled for.")
    seeds: dict[str, NonNegativeInt]
    versions: dict[str, str]
    files: dict[FileName, FileDigest] = Field(description="All files but the manifest itself.")
    fidelity: FreeForm = Field(default_factory=dict, description="A summary of fidelity.json.")

    @model_serializer(mode="wrap")
    def _without_what_checkpoints_have_not(
        self, handler: SerializerFunctionWrapHandler
    ) -> dict[str, Any]:
        content: dict[str, Any] = handler(self)
        only_of_others = ("slots", "carrier")
        return {k: v for k, v in content.items() if v is not None or k not in only_of_others}

    @property
    def editing_layers(self) -> tuple[InsertedLayer, ...]:
        """The inserted layers that edit, one per site: none that only prepares it or is empty."""
        return tuple(x for x in self.layers if x.construction not in _NOT_EDITING)

    @property
    def edits(self) -> tuple[InsertedLayer | EditedBias, ...]:
        """What edits each site, in the order of the sites."""
        return tuple(sorted((*self.editing_layers, *self.biases), key=lambda edit: edit.place))

    @property
    def amounts(self) -> tuple[EditAmounts, ...]:
        """What the strengths of the edits come to."""
        terms = (term for edits in self.edits for term in edits.terms if term.amounts)
        return tuple(EditAmounts(term.label, term.amounts) for term in terms)

    @property
    def conditions(self) -> tuple[EditHeld, ...]:
        """On how many tokens of calibration text those of the edits held."""
        terms = (term for edits in self.edits for term in edits.terms)
        return tuple(EditHeld(term.label, term.held) for term in terms if term.held is not None)

    @property
    def carriers(self) -> tuple[str, ...]:
        """What the edits were compiled into, in words: layers, biases, or both."""
        layers, biases = len(self.layers), len(self.biases)
        found = []
        if layers or not biases:
            found.append(f"{layers} inserted decoder layer{'' if layers == 1 else 's'}")
        if biases:
            found.append(f"{biases} bias{'' if biases == 1 else 'es'} of existing layers")
        return tuple(found)

    @model_validator(mode="after")
    def _consistent(self) -> Manifest:
        if MANIFEST in self.files:
            raise ValueError(f"files: {MANIFEST} cannot hold its own hash")
        problem = layer_map_problem(self.layer_map, len(self.layers))
        if problem is not None:
            raise ValueError(f"layer_map: {problem}")
        held = {layer.mlp.base for layer in self.layer_map if isinstance(layer.mlp, FromBase)}
        for bias in self.biases:
            if bias.site not in held:
                raise ValueError(f"biases: layer_map has no layer {bias.site} of the base")
        return self


def manifest_schema() -> dict[str, Any]:
    """The JSON schema of `splice.json`."""
    return Manifest.model_json_schema()


def manifest_text(manifest: Manifest) -> str:
    """The content of `splice.json`; the same manifest gives the same text.

    Raises:
        ValueError: a free-form value is NaN or infinite; hubsplice itself must not let that in.
    """
    content = manifest.model_dump(mode="python")
    _refuse_non_finite(content)
    # Dumped by json, since pydantic has no option that sorts keys.
    text = json.dumps(manifest.model_dump(mode="json"), indent=2, sort_keys=True, allow_nan=False)
    return f"{text}\n"


def write_manifest(manifest: Manifest, folder: Path) -> FileDigest:
    """Write `splice.json`; the same manifest gives the same bytes.

    Returns:
        The digest of what was written.

    Raises:
        ValueError: as of `manifest_text`.
        OSError: the file exists already, or cannot be written.
    """
    data = manifest_text(manifest).encode()
    with (folder / MANIFEST).open("xb") as file:
        file.write(data)
    return digest_bytes(data)


def read_manifest(path: Path) -> Manifest:
    """Read a `splice.json`.

    Raises:
        CheckpointError: missing, malformed, or of a later version; one line per problem.
    """
    return _parsed(path)[0]


def read_previous_splice(path: Path) -> PreviousSplice:
    """What the manifest at `path`, found beside a base, has to say in the next manifest.

    Raises:
        CheckpointError: as `read_manifest`.
    """
    manifest, digest = _parsed(path)
    return PreviousSplice(manifest_sha256=digest.sha256, base=manifest.base)


def _parsed(path: Path) -> tuple[Manifest, FileDigest]:
    try:
        data = read_plain(path)
    except (FileNotFoundError, NotADirectoryError):
        if not is_folder(path.parent):
            raise CheckpointError(f"{path.parent}: {not_a_folder(path.parent)}") from None
        raise CheckpointError(
            f"{path}: the manifest is missing; expected a folder that `hubsplice build` wrote"
        ) from None
    except OSError as error:
        raise CheckpointError(f"{path}: cannot be read: {error.strerror}") from None
    content = parse_object(data, source=str(path))
    version = content.get("schema_version")
    if isinstance(version, int) and version > SCHEMA_VERSION:
        raise CheckpointError(
            f"{path}: schema_version {version} comes from a later hubsplice; this one reads up to "
            f"{SCHEMA_VERSION}"
        )
    try:
        return Manifest.model_validate_json(data), digest_bytes(data)
    except ValidationError as error:
        raise CheckpointError(_readable(path, error)) from None


def _readable(path: Path, error: ValidationError) -> str:
    problems = (
        f"{'.'.join(map(str, problem['loc'])) or 'manifest'}: {problem['msg']}"
        for problem in error.errors(include_url=False)
    )
    return f"{path}: not a valid manifest:\n" + "\n".join(f"  {line}" for line in problems)


def _refuse_non_finite(value: object, where: str = "manifest") -> None:
    if isinstance(value, float) and not math.isfinite(value):
        raise ValueError(f"{where}: expected a finite number, found {value}")
    if isinstance(value, dict):
        for key, item in value.items():
            _refuse_non_finite(item, f"{where}.{key}")
    elif isinstance(value, list | tuple):
        for index, item in enumerate(value):
            _refuse_non_finite(item, f"{where}[{index}]")
