"""`splice.json`: written the same every time, read back, and refused when it cannot be right."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from hubsplice.checkpoint.manifest import (
    Manifest,
    manifest_schema,
    read_manifest,
    read_previous_splice,
    write_manifest,
)
from hubsplice.errors import CheckpointError
from hubsplice.files.digest import digest_file

SHA = "0123456789abcdef" * 4


def content() -> dict[str, Any]:
    return {
        "schema_version": 1,
        "hubsplice": "0.1.0",
        "base": {
            "name": "owner/model",
            "repo_id": "owner/model",
            "commit": "f" * 40,
            "files": {"model.safetensors": {"sha256": SHA, "size": 12}},
        },
        "architectures": {"before": "LlamaForCausalLM", "after": "LlamaForCausalLM"},
        "layer_map": [{"base": 0}, {"splice": 0}, {"base": 1}],
        "config_changes": {
            "num_hidden_layers": {"before": 2, "after": 3},
            "mlp_bias": {"after": True},
            "sliding_window": {"before": None},
        },
        "zero_tensors": ["model.layers.0.mlp.up_proj.bias"],
        "layers": [
            {
                "site": 0,
                "construction": "gated",
                "constants": {"scale": 4.0, "grid": [1, 2]},
                "terms": [
                    {
                        "label": "régular / expressions\u2028",
                        "kind": "ablate",
                        "feature": 12,
                        "formula": "−f",
                        "edit": {"kind": "ablate", "feature": 12},
                        "source": {"release": "some-release", "id": "layer_0"},
                        "source_sha256": SHA,
                    }
                ],
            }
        ],
        "calibration": {
            "dataset": "builtin",
            "token_ids_sha256": SHA,
            "tokens": 20000,
            "seed": 0,
            "median_norm": {"0": 12.5},
            "sink_norm": {"0": None},
        },
        "dtype": "bfloat16",
        "seeds": {"build": 0},
        "versions": {"python": "3.11"},
        "files": {"config.json": {"sha256": SHA, "size": 3}},
        "fidelity": {"ratio": 1.01},
    }


def changed(change: Callable[[dict[str, Any]], object]) -> dict[str, Any]:
    raw = content()
    change(raw)
    return raw


def test_roundtrip_and_same_bytes(tmp_path: Path) -> None:
    manifest = Manifest.model_validate(content())
    digests = []
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        digests.append(write_manifest(manifest, tmp_path / name))
        manifest = read_manifest(tmp_path / name / "splice.json")
        assert manifest == Manifest.model_validate(content())
    assert digests[0] == digests[1] == digest_file(tmp_path / "a" / "splice.json")
    text = (tmp_path / "a" / "splice.json").read_text()
    assert text.endswith("}\n")
    written = json.loads(text)
    assert list(written) == sorted(written)
    # What was absent before or after stays absent, which null is not.
    assert written["config_changes"] == content()["config_changes"]


def test_order_of_keys_does_not_matter(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    reordered = dict(reversed(content().items()))
    reordered["base"] = dict(reversed(reordered["base"].items()))
    first = write_manifest(Manifest.model_validate(content()), tmp_path / "a")
    assert first == write_manifest(Manifest.model_validate(reordered), tmp_path / "b")


def test_a_splice_of_a_splice_keeps_its_history(tmp_path: Path) -> None:
    digest = write_manifest(Manifest.model_validate(content()), tmp_path)
    previous = read_previous_splice(tmp_path / "splice.json")
    assert previous.manifest_sha256 == digest.sha256
    assert previous.base.commit == "f" * 40
    raw = content()
    raw["base"] = {"name": "folder", "files": {}, "previous": previous.model_dump()}
    (tmp_path / "again").mkdir()
    write_manifest(Manifest.model_validate(raw), tmp_path / "again")
    assert read_manifest(tmp_path / "again" / "splice.json").base.previous == previous


WRONG: dict[str, tuple[Callable[[dict[str, Any]], object], str]] = {
    "unknown field": (lambda m: m.update(extra=1), "extra: Extra inputs are not permitted"),
    "missing field": (lambda m: m.pop("files"), "files: Field required"),
    "later version": (lambda m: m.update(schema_version=2), "schema_version 2 comes from a later"),
    "no version": (lambda m: m.pop("schema_version"), "schema_version: Field required"),
    "bad hash": (lambda m: m["files"]["config.json"].update(sha256="AB"), "sha256: String should"),
    "negative size": (lambda m: m["files"]["config.json"].update(size=-1), "size: Input should"),
    "its own hash": (
        lambda m: m["files"].update({"splice.json": {"sha256": SHA, "size": 1}}),
        "splice.json cannot hold its own hash",
    ),
    "file elsewhere": (
        lambda m: m["files"].update({"../x": {"sha256": SHA, "size": 1}}),
        "leads out of the model's folder",
    ),
    "a place of one machine": (
        lambda m: m["base"].update(name="/home/me/model", repo_id=None, commit=None),
        "a local base has the bare name of its folder",
    ),
    "a local commit": (
        lambda m: m["base"].update(name="model", repo_id=None),
        "and no commit",
    ),
    "name beside id": (lambda m: m["base"].update(name="model"), "the name of a Hub model is its"),
    "source on one machine": (
        lambda m: m["layers"][0]["terms"][0].update(source={"at": ["/home/me/sae"]}),
        "'/home/me/sae' is a path of one machine",
    ),
    "dataset on one machine": (
        lambda m: m["calibration"].update(dataset="/data/text.jsonl"),
        "leads out of",
    ),
    "base layer twice": (
        lambda m: m.update(layer_map=[{"base": 0}, {"base": 0}, {"splice": 0}]),
        "expected each base layer once and in order, found [0, 0]",
    ),
    "inserted layer missing": (
        lambda m: m.update(layer_map=[{"base": 0}]),
        "expected each of the 1 inserted layers once, found []",
    ),
    "both origins": (
        lambda m: m.update(layer_map=[{"base": 0, "splice": 0}]),
        "layer_map.0",
    ),
}


@pytest.mark.parametrize("kind", WRONG)
def test_what_cannot_be_right_is_refused(tmp_path: Path, kind: str) -> None:
    change, message = WRONG[kind]
    path = tmp_path / "splice.json"
    path.write_text(json.dumps(changed(change)))
    with pytest.raises(CheckpointError) as caught:
        read_manifest(path)
    assert str(path) in str(caught.value)
    assert message in str(caught.value)


@pytest.mark.parametrize("text", ["", "[]", '{"a": 1, "a": 2}', '{"schema_version": NaN}'])
def test_malformed_files(tmp_path: Path, text: str) -> None:
    path = tmp_path / "splice.json"
    path.write_text(text)
    with pytest.raises(CheckpointError, match=r"splice\.json: "):
        read_manifest(path)


def test_a_missing_file(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="the manifest is missing"):
        read_manifest(tmp_path / "splice.json")


@pytest.mark.parametrize("place", ["fidelity", "constants", "median_norm"])
@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_numbers_are_finite(tmp_path: Path, place: str, value: float) -> None:
    raw = content()
    if place == "fidelity":
        raw["fidelity"] = {"deep": [value]}
    elif place == "constants":
        raw["layers"][0]["constants"] = {"x": value}
    else:
        raw["calibration"]["median_norm"] = {"0": value}
    with pytest.raises((ValueError, ValidationError), match="finite"):
        write_manifest(Manifest.model_validate(raw), tmp_path)
    assert not (tmp_path / "splice.json").exists()


def test_the_schema_describes_what_is_written() -> None:
    schema = manifest_schema()
    assert set(schema["required"]) <= set(content())
    assert set(content()) <= set(schema["properties"])
    assert schema["additionalProperties"] is False
    assert "sha256" in schema["$defs"]["FileDigest"]["properties"]


JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**53), 2**53)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_categories=["Cs"]), max_size=8),
    lambda children: (
        st.lists(children, max_size=3)
        | st.dictionaries(
            st.text(st.characters(exclude_categories=["Cs"]), max_size=4), children, max_size=3
        )
    ),
    max_leaves=8,
)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(st.dictionaries(st.text("abc", max_size=3), JSON, max_size=3), st.text("ab\n\"'<\u0000é😀"))
def test_free_form_values_come_back(tmp_path: Path, values: dict[str, Any], label: str) -> None:
    raw = content()
    raw["fidelity"] = values
    raw["layers"][0]["constants"] = values
    raw["layers"][0]["terms"][0]["label"] = label
    manifest = Manifest.model_validate(raw)
    (tmp_path / "splice.json").unlink(missing_ok=True)
    write_manifest(manifest, tmp_path)
    again = read_manifest(tmp_path / "splice.json")
    assert again.fidelity == values
    assert again.layers[0].constants == values
    assert again.layers[0].terms[0].label == label
