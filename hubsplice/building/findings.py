"""What calibration found of the edits, for reports that are made later."""

from __future__ import annotations

from dataclasses import dataclass, fields

from hubsplice.checkpoint.manifest import Manifest
from hubsplice.compiling.compiler import Compiled
from hubsplice.features.amounts import EditAmounts
from hubsplice.features.fit_record import SaeFit
from hubsplice.features.held import EditHeld
from hubsplice.fidelity.report import FidelityReport


@dataclass(frozen=True)
class Findings:
    """What calibration found, apart from what it made of it.

    Attributes:
        amounts: what the strengths of the edits come to.
        conditions: on how many tokens those of the edits held.
        sae_fit: whether each SAE fits, by site.
        warnings: what may not be what was meant.
    """

    amounts: tuple[EditAmounts, ...]
    conditions: tuple[EditHeld, ...]
    sae_fit: dict[str, SaeFit]
    warnings: tuple[str, ...]

    @staticmethod
    def of(compiled: Compiled) -> Findings:
        """What the calibration of a build found."""
        return Findings(compiled.amounts, compiled.conditions, compiled.sae_fit, compiled.warnings)

    @staticmethod
    def recorded(manifest: Manifest) -> Findings:
        """What a manifest says of it."""
        calibration = manifest.calibration
        return Findings(
            manifest.amounts,
            manifest.conditions,
            calibration.sae_fit if calibration else {},
            calibration.warnings if calibration else (),
        )

    def told_in(self, report: FidelityReport) -> FidelityReport:
        """The report with these findings in it."""
        found = {field.name: getattr(self, field.name) for field in fields(self)}
        # The report may miss a figure, and says so.
        found["warnings"] = (*self.warnings, *report.warnings)
        return report.model_copy(update=found)
