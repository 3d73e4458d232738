"""`hubsplice check`."""

from __future__ import annotations

from dataclasses import asdict

from hubsplice.cli.app import AsJson, RecipePath
from hubsplice.terminal import print_content, print_json, print_warning


def check(recipe: RecipePath, as_json: AsJson = False) -> None:
    """Check a recipe without loading weights.

    Reads the recipe and the configurations of the model and its SAEs. Reports everything in them
    that would stop a build, and what a build would take of this machine.
    """
    from hubsplice.interface.check import check as check_recipe

    report = check_recipe(recipe)
    for warning in report.warnings:
        print_warning(warning)
    if as_json:
        print_json(asdict(report))
    else:
        print_content(report.findings())
