"""The files of a checkpoint that several checks look at, each read once."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from hubsplice.checkpoint.engine_runs import EngineRun, read_engine_runs
from hubsplice.checkpoint.manifest import Manifest
from hubsplice.errors import HubspliceError
from hubsplice.evaluating.results import Evaluation, read_evaluation
from hubsplice.fidelity.report import FidelityReport, read_report
from hubsplice.intervention.intervention import Intervention
from hubsplice.intervention.saved import INTERVENTION, RECIPE, load_intervention
from hubsplice.recipe.models import Recipe
from hubsplice.recipe.reading import load_recipe, portable
from hubsplice.verifying.weights import StoredTensor, read_weights


@dataclass(frozen=True, eq=False)
class Contents:
    """What a checkpoint's folder holds, and what is wrong with each part."""

    folder: Path

    @cached_property
    def weights(self) -> tuple[dict[str, StoredTensor], list[str]]:
        """Its tensors by name, and the problems of files and index."""
        return read_weights(self.folder)

    @cached_property
    def intervention(self) -> tuple[Intervention | None, list[str]]:
        """The exact edits, or None and why there are none."""
        try:
            return load_intervention(self.folder / INTERVENTION), []
        except HubspliceError as error:
            return None, [str(error)]

    @cached_property
    def recipe(self) -> tuple[Recipe | None, list[str]]:
        """The recipe without paths of a machine, or None and why there is none."""
        try:
            return portable(load_recipe(self.folder / RECIPE)), []
        except HubspliceError as error:
            return None, [f"{RECIPE}: {error}"]

    def engine_runs(self, manifest: Manifest) -> tuple[tuple[EngineRun, ...], list[str]]:
        """The runs on record, and if they can't be read, why."""
        try:
            return read_engine_runs(self.folder, manifest), []
        except HubspliceError as error:
            return (), [str(error)]

    @cached_property
    def evaluation(self) -> tuple[Evaluation | None, list[str]]:
        """The evaluation, or None where there is none and, if it can't be read, why."""
        try:
            return read_evaluation(self.folder), []
        except HubspliceError as error:
            return None, [str(error)]

    @cached_property
    def report(self) -> tuple[FidelityReport | None, list[str]]:
        """The report, or None where there is none and, if it can't be read, why."""
        try:
            return read_report(self.folder), []
        except HubspliceError as error:
            return None, [str(error)]
