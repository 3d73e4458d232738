"""`hubsplice check`."""

from __future__ import annotations

from dataclasses import asdict

from hubsplice.cli.app import AsJson, RecipePath
from hubsplice.terminal import print_json, print_table, print_warning


def check(recipe: RecipePath, as_json: AsJson = False) -> None:
    """Check a recipe without loading weights.

    Reads the recipe and the configurations of the model and its SAEs. Reports everything in them
    that would stop a build.
    """
    from hubsplice.compiling.check import check as check_recipe
    from hubsplice.recipe.reading import load_recipe

    report = check_recipe(load_recipe(recipe))
    for warning in report.warnings:
        print_warning(warning)
    if as_json:
        print_json(asdict(report))
        return
    print_table(
        ("after layer", "SAE", "features", "edits"),
        [
            (
                str(splice.place),
                f"{splice.sae.architecture}, {splice.sae.d_sae}" if splice.sae else "none",
                str(splice.features),
                ", ".join(f"{n} {kind}" for kind, n in splice.edits.items()) or "none",
            )
            for splice in report.splices
        ],
        title=f"{report.base_model}: {report.model_type}, {report.num_layers} layers, "
        f"hidden size {report.hidden_size}",
    )
