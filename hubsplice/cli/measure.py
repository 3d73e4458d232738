"""`hubsplice measure`."""

from __future__ import annotations

from hubsplice.cli.app import (
    AdaptersCarrier,
    AsJson,
    LocalBase,
    NoCache,
    RequireFidelity,
    SplicedFolder,
    apply_no_cache,
)
from hubsplice.terminal import print_content, print_json


def measure(
    folder: SplicedFolder,
    base: LocalBase = None,
    carrier: AdaptersCarrier = None,
    require_fidelity: RequireFidelity = None,
    no_cache: NoCache = False,
    as_json: AsJson = False,
) -> None:
    """Measure a built checkpoint or adapter again.

    Compares it with its hook, and rewrites its report and its card.
    """
    apply_no_cache(no_cache)
    from hubsplice.interface.measure import measure as measure_folder

    report = measure_folder(folder, base=base, carrier=carrier, require_fidelity=require_fidelity)
    if as_json:
        print_json(report.model_dump(mode="json"))
    else:
        print_content(report.content())
