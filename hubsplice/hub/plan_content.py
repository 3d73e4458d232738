"""What a plan to publish shows of itself."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from hubsplice.rendering.content import Line, Part, Table, Tone

if TYPE_CHECKING:
    from hubsplice.hub.plan import PublishPlan


def plan_content(plan: PublishPlan) -> Iterator[Part]:
    """The warnings, the files, and what is said below them."""
    for warning in plan.warnings:
        yield Line(f"warning: {warning}", Tone.CAUTION)
    yield plan_table(plan)
    for note in plan_notes(plan):
        yield Line(note)


def plan_table(plan: PublishPlan) -> Table:
    """Every file with its size and what would happen to it."""
    rows = [
        (what, name, f"{plan.files[name].digest.size:,}" if name in plan.files else "")
        for what, names in plan.names_by_change.items()
        for name in names
    ]
    rows.append(("total", f"{len(plan.files)} files", f"{plan.total_bytes:,}"))
    rows.append(("to send", "predicted", f"{plan.upload_bytes:,}"))
    return Table.of_text(("", "file", "bytes"), tuple(rows), _title(plan))


def plan_notes(plan: PublishPlan) -> Iterator[str]:
    """The verdict, and the licence where one is known."""
    yield f"fidelity: {plan.verdict}"
    if plan.base_license or plan.license_id:
        yield f"licence: {plan.license_id}; the base's: {plan.base_license or 'unknown'}"


def _title(plan: PublishPlan) -> str:
    target = plan.target
    visibility = "private" if plan.private else "public"
    if plan.published is not None:
        return f"{target.repo_id}: these files are there already, as {plan.published}"
    what = "a pull request for" if target.pull_request else "one commit on"
    new = "new, " if plan.parent is None else ""
    tag = f", tagged {target.tag}" if target.tag and not target.pull_request else ""
    return f"{what} {target.repo_id} ({new}{visibility}){tag}"
