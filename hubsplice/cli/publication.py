"""A plan to publish, and what came of it, on the terminal and as JSON."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from hubsplice.rendering.content import Line
from hubsplice.terminal import print_content, print_json, print_line

if TYPE_CHECKING:
    from hubsplice.hub.plan import PublishPlan
    from hubsplice.interface.publication import Publication


def print_plan(plan: PublishPlan, folder: Path, *, as_json: bool) -> None:
    """Print what publishing a folder would do."""
    from hubsplice.hub.plan_content import plan_notes, plan_table

    if as_json:
        print_json(_plan_as_json(plan, folder))
        return
    print_content([plan_table(plan), *map(Line, plan_notes(plan))])


def print_publication(publication: Publication, *, as_json: bool) -> None:
    """Print where the published model is, and how to try it."""
    published = publication.published
    assert published is not None
    if as_json:
        print_json(
            {
                "repo_id": publication.plan.target.repo_id,
                "outcome": published.outcome,
                "commit": published.commit,
                "commit_url": publication.url,
                "tag": published.tag,
                "pull_request": published.pull_request,
                # Every outcome comes from comparing the Hub's checksums with the folder's.
                "verified": True,
                "serve": publication.serve,
                "plan": _plan_as_json(publication.plan, publication.folder),
            }
        )
        return
    for line in publication.lines():
        print_line(line)


def _plan_as_json(plan: PublishPlan, folder: Path) -> dict[str, Any]:
    target = plan.target
    changes = {
        what: [
            {"path": name, "bytes": plan.files[name].digest.size if name in plan.files else None}
            for name in names
        ]
        for what, names in plan.names_by_change.items()
    }
    return {
        "repo_id": target.repo_id,
        "exists": plan.parent is not None,
        "private": plan.private,
        "parent": plan.parent,
        "published": plan.published,
        **changes,
        "total_bytes": plan.total_bytes,
        "upload_bytes": plan.upload_bytes,
        "tag": None if target.pull_request else target.tag,
        "pull_request": target.pull_request,
        "license": plan.license_id,
        "base_license": plan.base_license,
        "verdict": plan.verdict,
        "passed": plan.passed,
        "folder": str(folder),
        "warnings": list(plan.warnings),
    }
