"""A run's summary in Markdown: fidelity, plan, commit. All text of others is escaped."""

from __future__ import annotations

import re

from hubsplice.card.escape import Markdown, code, inline, table
from hubsplice.fidelity import summary
from hubsplice.fidelity.format import MISSING, count
from hubsplice.fidelity.report import FidelityReport
from hubsplice.github_actions.publication import Files, Plan, Result
from hubsplice.rendering.content import Table

_WEB_ADDRESS = re.compile(r"https://[A-Za-z0-9.-]+/[\w/.-]+", re.ASCII)
# A model has hundreds of shards at most; a longer list says nothing more.
_LISTED_FILES = 200


def render_summary(
    repo_id: str,
    *,
    report: FidelityReport | None,
    plan: Plan | None,
    result: Result | None,
    error: str | None,
) -> Markdown:
    """The summary of a run, however far it came.

    Args:
        repo_id: the target.
        report: the fidelity; None where nothing was measured.
        plan: what a publication would change, or has changed.
        result: what was published; None where nothing was.
        error: why the run failed; None where it did not.
    """
    parts = [Markdown(f"## {code(repo_id)}: {_headline(result, error)}")]
    if error is not None:
        parts += _caution(error)
    parts += _fidelity(report) if report else [Markdown("The fidelity was not measured.")]
    if plan is not None:
        parts += _plan(plan, published=result is not None)
    if result is not None:
        parts += _result(result)
    return Markdown("\n\n".join(parts) + "\n")


def _headline(result: Result | None, error: str | None) -> Markdown:
    if error is not None:
        return Markdown("failed" if result is None else "published, and then failed")
    return Markdown("checked") if result is None else inline(result.outcome)


def _caution(error: str) -> list[Markdown]:
    lines = "\n".join(f"> {inline(line)}" for line in error.splitlines() if line.strip())
    return [Markdown(f"> [!CAUTION]\n{lines}")]


def _fidelity(report: FidelityReport) -> list[Markdown]:
    edits = summary.edits(report)
    parts = [
        Markdown("### Fidelity"),
        Markdown(f"**{inline(report.verdict)}**"),
        *([table(edits)] if edits.rows else []),
        table(summary.agreement(report)),
        table(summary.divergences(report)),
    ]
    greedy = summary.greedy_match(report)
    if greedy is not None:
        parts.append(Markdown(f"{summary.GREEDY_MATCH}: {inline(greedy)}"))
    parts += [Markdown(f"Not exact: {inline(line)}") for line in report.approximations]
    folded = (summary.sites(report), summary.sinks(report), summary.features(report))
    return parts + [_folded(content.title, content) for content in folded if content.rows]


def _plan(plan: Plan, *, published: bool) -> list[Markdown]:
    kinds: tuple[tuple[str, Files], ...] = (
        ("created", plan.created),
        ("changed", plan.changed),
        ("copied from the base on the Hub", plan.copied),
        ("deleted", plan.deleted),
        ("unchanged", plan.unchanged),
    )
    upload = (
        f"{count(plan.upload_bytes)} of {count(plan.total_bytes)} bytes to upload, as predicted"
        if plan.upload_bytes is not None
        else f"{count(plan.total_bytes)} bytes"
    )
    where = "" if plan.exists or published else "; the repository does not exist yet"
    tag = f"; tag {code(plan.tag)}" if plan.tag else ""
    files = [
        (kind, file.path, MISSING if file.bytes is None else count(file.bytes))
        for kind, group in kinds
        for file in group
    ]
    parts = [
        Markdown("### What it changed" if published else "### Plan"),
        Markdown(f"{upload}{where}{tag}."),
        table(
            Table(
                ("", "files", "bytes"),
                tuple((kind, count(len(group)), _size(group)) for kind, group in kinds),
            )
        ),
        Markdown(f"{_licence(plan)}"),
    ]
    shown = Table(("", "file", "bytes"), tuple(files[:_LISTED_FILES]), text_columns=2)
    title = "Files" if len(files) <= _LISTED_FILES else f"The first {_LISTED_FILES} files"
    return [part for part in parts if part] + ([_folded(title, shown)] if files else [])


def _licence(plan: Plan) -> Markdown:
    if plan.license is None:
        return Markdown("")
    base = (
        f" (the base model's is {code(plan.base_license)})"
        if plan.base_license not in (None, plan.license)
        else ""
    )
    return Markdown(f"Licence: {code(plan.license)}{base}.")


def _result(result: Result) -> list[Markdown]:
    parts = []
    if result.commit is not None:
        parts.append(Markdown(f"Commit {_link(result.commit, result.commit_url)}."))
    if result.pull_request is not None:
        parts.append(Markdown(f"Pull request {_link(result.pull_request, result.pull_request)}."))
    if result.serve is not None:
        parts.append(Markdown(f"Try it: {code(result.serve)}"))
    return parts


def _link(text: str, address: str | None) -> Markdown:
    if address is None or not _WEB_ADDRESS.fullmatch(address):
        return code(text)
    return Markdown(f"[{code(text)}]({address})")


def _size(files: Files) -> str:
    sizes = [file.bytes for file in files]
    known = [size for size in sizes if size is not None]
    return count(sum(known)) if len(known) == len(sizes) else MISSING


def _folded(title: str, content: Table) -> Markdown:
    return Markdown(
        f"<details><summary>{inline(title)}</summary>\n\n{table(content)}\n\n</details>"
    )
