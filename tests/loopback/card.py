"""The check of a model card's metadata, as `POST /api/validate-yaml` does it."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

LICENSES = Path(__file__).with_name("licenses.txt").read_text().split()
"""The ids that the Hub named when it refused another one, in its order."""
RELATIONS = ["adapter", "merge", "quantized", "finetune"]

_FRONT_MATTER = re.compile(r"^\s*---[ \t]*\r?\n(.*?)(?:\r?\n)?---[ \t]*(?:\r?\n|$)", re.DOTALL)
_MODEL_ID = re.compile(r"[A-Za-z0-9][\w.-]*(/[A-Za-z0-9][\w.-]*)?")


@dataclass
class Findings:
    """What is wrong with a card (errors are refused), and its metadata as far as it was read."""

    errors: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    metadata: dict[str, Any] = field(default_factory=dict)


def check_card(content: str) -> Findings:
    """Read and check the YAML at the top of a README.md."""
    findings = Findings()
    match = _FRONT_MATTER.match(content)
    if match is None or not match[1].strip():
        findings.warnings.append("empty or missing yaml metadata in repo card")
        return findings
    try:
        metadata = yaml.safe_load(match[1])
    except yaml.YAMLError as error:
        findings.errors.append(f"YAML metadata error: {error}")
        return findings
    if not isinstance(metadata, dict):
        findings.errors.append("YAML metadata error: expected a mapping")
        return findings
    findings.metadata = metadata
    _check_license(metadata, findings)
    _check_base_model(metadata, findings)
    for key in ("tags", "datasets", "metrics", "language"):
        value = metadata.get(key)
        if value is None or (isinstance(value, str) and key != "tags"):
            continue
        if not isinstance(value, list):
            findings.errors.append(f'"{key}" must be an array')
        elif wrong := [i for i, item in enumerate(value) if not isinstance(item, str)]:
            findings.errors.append(f'"{key}[{wrong[0]}]" must be a string')
    for key in ("library_name", "pipeline_tag", "license_link"):
        if key in metadata and not isinstance(metadata[key], str):
            findings.errors.append(f'"{key}" must be a string')
    _check_model_index(metadata.get("model-index"), findings)
    return findings


def _check_license(metadata: dict[str, Any], findings: Findings) -> None:
    license_ = metadata.get("license")
    if license_ is None:
        return
    given = license_ if isinstance(license_, list) else [license_]
    if any(item not in LICENSES for item in given):
        findings.errors.append(f'"license" must be one of [{", ".join([*LICENSES, "array"])}]')
    name = metadata.get("license_name")
    if "other" in given and name is None:
        findings.warnings.append('"license_name" should be set when "license" is other')
    if name is not None and not re.fullmatch(r"[a-z0-9.-]+", str(name)):
        findings.errors.append(
            f'"license_name" with value "{name}" fails to match the required pattern: '
            "/^[a-z0-9-.]+$/"
        )


def _check_base_model(metadata: dict[str, Any], findings: Findings) -> None:
    base = metadata.get("base_model")
    for item in base if isinstance(base, list) else [base] if base is not None else []:
        if not isinstance(item, str) or not _MODEL_ID.fullmatch(item):
            findings.errors.append(
                f'"base_model" with value "{item}" is not valid. '
                "Use a model id from https://hf.co/models."
            )
    relation = metadata.get("base_model_relation")
    if relation is not None and relation not in RELATIONS:
        findings.errors.append(f'"base_model_relation" must be one of [{", ".join(RELATIONS)}]')


def _check_model_index(index: Any, findings: Findings) -> None:
    """Check the old form of evaluation results, in which every result names task and dataset."""
    if index is None:
        return
    if not isinstance(index, list):
        findings.errors.append('"model-index" must be an array')
        return
    for i, model in enumerate(index):
        at = f"model-index[{i}]"
        if not isinstance(model, dict) or not isinstance(model.get("name"), str):
            findings.errors.append(f'"{at}.name" is required')
            continue
        results = model.get("results")
        for j, result in enumerate(results if isinstance(results, list) else []):
            for part, keys in (("task", ("type",)), ("dataset", ("type", "name"))):
                value = result.get(part) if isinstance(result, dict) else None
                findings.errors += [
                    f'"{at}.results[{j}].{part}.{key}" is required'
                    for key in keys
                    if not isinstance(value, dict) or key not in value
                ]
            metrics = result.get("metrics") if isinstance(result, dict) else None
            if not isinstance(metrics, list) or not all(
                isinstance(metric, dict) and {"type", "value"} <= metric.keys()
                for metric in metrics
            ):
                findings.errors.append(f'"{at}.results[{j}].metrics" needs type and value')
