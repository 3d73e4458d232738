"""Compile feature edits of language models into stock Hugging Face checkpoints.

Everything that `__all__` names is loaded when it is first used, so that the import takes no time.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from hubsplice.building.build import BuildResult
    from hubsplice.compiling.check import CheckReport
    from hubsplice.errors import (
        CheckpointError,
        ConflictError,
        FidelityError,
        HubError,
        HubspliceError,
        OutputError,
        RecipeError,
        UnsupportedError,
    )
    from hubsplice.evaluating.results import Evaluation
    from hubsplice.explore.answers import Answers
    from hubsplice.explore.found import Found
    from hubsplice.explore.show import ShownFeature
    from hubsplice.explore.swept import Sweep
    from hubsplice.fidelity.report import FidelityReport
    from hubsplice.interface.adapters import build_adapter, carrier, merge
    from hubsplice.interface.answers import answers
    from hubsplice.interface.build import build
    from hubsplice.interface.check import check
    from hubsplice.interface.diff import diff
    from hubsplice.interface.evaluate import evaluate
    from hubsplice.interface.find import find, show
    from hubsplice.interface.hooked import hooked
    from hubsplice.interface.inspect import inspect
    from hubsplice.interface.lower import lower
    from hubsplice.interface.measure import measure
    from hubsplice.interface.publication import Publication
    from hubsplice.interface.publish import publish
    from hubsplice.interface.recipes import dump_recipe, load_recipe
    from hubsplice.interface.reproduce import reproduce
    from hubsplice.interface.sweep import sweep
    from hubsplice.interface.unsplice import unsplice
    from hubsplice.interface.verify import verify
    from hubsplice.intervention.intervention import Intervention
    from hubsplice.rebuilding.diff import Differences
    from hubsplice.rebuilding.grade import Reproduction
    from hubsplice.rebuilding.unsplice import Unspliced
    from hubsplice.recipe.models import Recipe
    from hubsplice.verifying.inspect import Inspection
    from hubsplice.verifying.verify import Verification

__version__ = "0.1.0"

__all__ = [
    "Answers",
    "BuildResult",
    "CheckReport",
    "CheckpointError",
    "ConflictError",
    "Differences",
    "Evaluation",
    "FidelityError",
    "FidelityReport",
    "Found",
    "HubError",
    "HubspliceError",
    "Inspection",
    "Intervention",
    "OutputError",
    "Publication",
    "Recipe",
    "RecipeError",
    "Reproduction",
    "ShownFeature",
    "Sweep",
    "Unspliced",
    "UnsupportedError",
    "Verification",
    "__version__",
    "answers",
    "build",
    "build_adapter",
    "carrier",
    "check",
    "diff",
    "dump_recipe",
    "evaluate",
    "find",
    "hooked",
    "inspect",
    "load_recipe",
    "lower",
    "measure",
    "merge",
    "publish",
    "reproduce",
    "show",
    "sweep",
    "unsplice",
    "verify",
]

_MODULES = {
    "building.build": ("BuildResult",),
    "compiling.check": ("CheckReport",),
    "errors": (
        "CheckpointError",
        "ConflictError",
        "FidelityError",
        "HubError",
        "HubspliceError",
        "OutputError",
        "RecipeError",
        "UnsupportedError",
    ),
    "evaluating.results": ("Evaluation",),
    "explore.answers": ("Answers",),
    "explore.found": ("Found",),
    "explore.show": ("ShownFeature",),
    "explore.swept": ("Sweep",),
    "fidelity.report": ("FidelityReport",),
    "interface.adapters": ("build_adapter", "carrier", "merge"),
    "interface.answers": ("answers",),
    "interface.build": ("build",),
    "interface.check": ("check",),
    "interface.diff": ("diff",),
    "interface.evaluate": ("evaluate",),
    "interface.find": ("find", "show"),
    "interface.hooked": ("hooked",),
    "interface.inspect": ("inspect",),
    "interface.lower": ("lower",),
    "interface.measure": ("measure",),
    "interface.publication": ("Publication",),
    "interface.publish": ("publish",),
    "interface.recipes": ("dump_recipe", "load_recipe"),
    "interface.verify": ("verify",),
    "intervention.intervention": ("Intervention",),
    "interface.reproduce": ("reproduce",),
    "interface.sweep": ("sweep",),
    "interface.unsplice": ("unsplice",),
    "rebuilding.diff": ("Differences",),
    "rebuilding.grade": ("Reproduction",),
    "rebuilding.unsplice": ("Unspliced",),
    "recipe.models": ("Recipe",),
    "verifying.inspect": ("Inspection",),
    "verifying.verify": ("Verification",),
}
_PLACES = {name: module for module, names in _MODULES.items() for name in names}


def __getattr__(name: str) -> Any:
    if name not in _PLACES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f"{__name__}.{_PLACES[name]}"), name)
    # The next look finds it without this function.
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
