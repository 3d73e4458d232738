"""The verdict of `hubsplice verify --engine` on answers that an engine gave before."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from hubsplice.checkpoint.base import BaseConfig
from hubsplice.checkpoint.manifest import read_manifest
from hubsplice.families.served import built_architecture
from hubsplice.fidelity.inserted import inserted_layers
from hubsplice.fidelity.report import read_report
from hubsplice.intervention.saved import INTERVENTION, load_intervention
from hubsplice.verifying.behaviour import Behaviour, Trial, behaviour_checks
from hubsplice.verifying.engines import Request, ServedBy
from hubsplice.verifying.result import Check
from hubsplice.verifying.transcript import Transcript
from tests.building.conftest import quiet
from tests.serving.conftest import NEW_TOKENS, Job, Model, Served


@dataclass(frozen=True)
class Recorded:
    """An engine's answers, which were taken before."""

    transcripts: list[Transcript]
    version: str
    name: str

    def run(
        self, request: Request, progress: Callable[[int, int], None]
    ) -> tuple[list[Transcript], ServedBy]:
        return self.transcripts, ServedBy(self.version)


def judge(engine: Recorded, dtype: str, model: Model) -> tuple[tuple[Check, ...], Behaviour]:
    """Every rule of `verify`, on what an engine made of a model's prompts."""
    manifest = read_manifest(model.folder / "splice.json")
    trial = Trial(
        model.folder,
        model.base,
        load_intervention(model.folder / INTERVENTION),
        inserted_layers(manifest, built_architecture(manifest, BaseConfig.open(model.base).config)),
        read_report(model.folder),
        dtype,
        model.prompts,
        NEW_TOKENS,
    )
    checks, behaviour = behaviour_checks(trial, engine, quiet)
    assert behaviour is not None
    return checks, behaviour


def require_the_edit(job: Job, model: Model, served: Served) -> None:
    """Hold what vLLM answered to every rule of `verify`."""
    engine = Recorded(served.transcripts(job, model.prompts), served.version, "vLLM")
    checks, behaviour = judge(engine, job.dtype, model)
    print(job, behaviour.model_dump_json())  # noqa: T201
    assert [check for check in checks if not check.passed] == []
    if job.dtype == "float32":
        assert behaviour.largest_serving_error is not None
        assert behaviour.largest_serving_error < 1e-3
        assert behaviour.error < 0.1 * behaviour.effect
