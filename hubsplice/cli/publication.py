"""A plan to publish, and what came of it, on the terminal and as JSON."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from hubsplice.terminal import print_json, print_note, print_table

if TYPE_CHECKING:
    from hubsplice.hub.built import BuiltFolder
    from hubsplice.hub.plan import PublishPlan
    from hubsplice.hub.publish import Published


def print_plan(plan: PublishPlan, folder: Path, *, as_json: bool) -> None:
    """Print what publishing a folder would do."""
    if as_json:
        print_json(_plan_as_json(plan, folder))
        return
    rows = [
        (what, name, f"{plan.files[name].digest.size:,}")
        for what, names in _changes(plan).items()
        for name in names
        if name in plan.files
    ]
    rows += [("deleted", name, "") for name in plan.changes.deleted]
    rows.append(("total", f"{len(plan.files)} files", f"{plan.total_bytes:,}"))
    rows.append(("to send", "predicted", f"{plan.upload_bytes:,}"))
    print_table(("", "file", "bytes"), rows, title=_plan_title(plan))
    print_note(f"fidelity: {plan.verdict}")
    if plan.base_license or plan.license_id:
        base = plan.base_license or "unknown"
        print_note(f"licence: {plan.license_id}; the base's: {base}")


def _plan_title(plan: PublishPlan) -> str:
    target = plan.target
    visibility = "private" if plan.private else "public"
    if plan.published is not None:
        return f"{target.repo_id}: these files are there already, as {plan.published}"
    what = "a pull request for" if target.pull_request else "one commit on"
    new = "new, " if plan.parent is None else ""
    tag = f", tagged {target.tag}" if target.tag and not target.pull_request else ""
    return f"{what} {target.repo_id} ({new}{visibility}){tag}"


def _changes(plan: PublishPlan) -> dict[str, list[str]]:
    changes, copied = plan.changes, plan.copies
    return {
        "created": [name for name in changes.created if name not in copied],
        "changed": [name for name in changes.changed if name not in copied],
        "copied": sorted(copied),
        "unchanged": list(changes.unchanged),
        "deleted": list(changes.deleted),
    }


def _plan_as_json(plan: PublishPlan, folder: Path) -> dict[str, Any]:
    target = plan.target
    changes = {
        what: [
            {"path": name, "bytes": plan.files[name].digest.size if name in plan.files else None}
            for name in names
        ]
        for what, names in _changes(plan).items()
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


def print_published(
    published: Published, plan: PublishPlan, built: BuiltFolder, endpoint: str, *, as_json: bool
) -> None:
    """Print where the published model is, and how to try it."""
    repo_id = plan.target.repo_id
    url = f"{endpoint}/{repo_id}/commit/{published.commit}"
    serve = f"vllm serve {repo_id} --dtype {built.manifest.dtype}"
    if as_json:
        print_json(
            {
                "repo_id": repo_id,
                "outcome": published.outcome,
                "commit": published.commit,
                "commit_url": url,
                "tag": published.tag,
                "pull_request": published.pull_request,
                # Every outcome comes from comparing the Hub's checksums with the folder's.
                "verified": True,
                "serve": serve,
                "plan": _plan_as_json(plan, built.folder),
            }
        )
        return
    typer.echo(f"{published.outcome}: {published.pull_request or url}")
    if published.tag is not None:
        typer.echo(f"tag: {published.tag}")
    typer.echo(f"checksums of all {len(plan.files)} files: as in {built.folder}")
    if published.pull_request is None:
        typer.echo(f"try it: {serve}")
