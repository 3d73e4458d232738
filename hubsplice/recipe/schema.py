"""The JSON schema of recipes, made from their models."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from hubsplice.edits.registry import EDITS
from hubsplice.recipe.models import Recipe


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
