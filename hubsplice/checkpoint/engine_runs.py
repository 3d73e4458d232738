"""`engine-runs.json`: which engines a checkpoint's maker has put to the test, and what came of it.

It is his word. Each run names the weights that were served, so that it says nothing of others.
"""

from __future__ import annotations

import datetime
import hashlib
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, NonNegativeInt

from hubsplice.checkpoint.companions import CONFIG
from hubsplice.checkpoint.manifest import Manifest, Record
from hubsplice.checkpoint.record_file import read_record
from hubsplice.files.digest import Sha256

ENGINE_RUNS = "engine-runs.json"

_LARGEST = 1 << 20

Word = Annotated[str, Field(min_length=1, max_length=80)]


class EngineRun(Record):
    """One run of `hubsplice verify --engine`; divergences are in nats a token."""

    engine: Word
    version: Word
    device: Word | None = Field(description="The kind, such as cpu; null where it is not known.")
    dtype: Word
    date: datetime.date = Field(description="In UTC.")
    hubsplice: Word = Field(description="The version that judged it.")
    passed: bool = Field(description="Whether every check passed, those of files too.")
    missed: tuple[Word, ...] = Field((), description="The checks that did not.", max_length=99)
    prompts: NonNegativeInt
    generated_tokens: NonNegativeInt
    error: float = Field(description="Engine against the float32 hook.")
    noise_floor: float | None = Field(description="Null in float32.")
    effect: float = Field(description="Base against hook.")
    weights: Sha256 = Field(description="Of the weights and the configuration that were served.")

    @property
    def setting(self) -> tuple[str | None, ...]:
        """What was run on what: a later run of the same takes its place."""
        return self.engine, self.version, self.device, self.dtype, self.weights


class EngineRuns(Record):
    """The whole file."""

    schema_version: Literal[1] = 1
    runs: tuple[EngineRun, ...] = Field(max_length=99)

    def with_run(self, run: EngineRun) -> EngineRuns:
        """The same with one more, in place of an earlier one of the same setting."""
        others = tuple(r for r in self.runs if r.setting != run.setting)
        return EngineRuns(runs=(*others[-98:], run))


def weights_digest(manifest: Manifest) -> str:
    """What tells a checkpoint's weights and configuration from all others."""
    lines = (
        f"{name} {digest.sha256}\n"
        for name, digest in sorted(manifest.files.items())
        if name == CONFIG or name.endswith(".safetensors")
    )
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def read_engine_runs(folder: Path, manifest: Manifest) -> tuple[EngineRun, ...]:
    """The runs that are of these weights; none where the manifest lists no such file.

    Raises:
        CheckpointError: the file can't be read, or is none.
    """
    if ENGINE_RUNS not in manifest.files:
        return ()
    found = read_record(folder / ENGINE_RUNS, EngineRuns, _LARGEST)
    weights = weights_digest(manifest)
    return tuple(run for run in found.runs if run.weights == weights)
