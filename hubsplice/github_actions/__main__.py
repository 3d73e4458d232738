"""The commands of the action's steps; see the scripts in `.github/actions/publish`."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from hubsplice.errors import HubspliceError, OutputError
from hubsplice.fidelity.report import read_report
from hubsplice.github_actions.publication import read_publication
from hubsplice.github_actions.summary import render_summary
from hubsplice.github_actions.target import resolve_target
from hubsplice.github_actions.verify import verify_download
from hubsplice.github_actions.workflow_files import workflow_outputs
from hubsplice.terminal import print_error

# The steps leave the message of what failed here.
_ERROR = "error"


def _target(arguments: argparse.Namespace) -> str:
    return workflow_outputs(
        resolve_target(
            arguments.recipe, repo_id=arguments.repo_id, tag=arguments.tag, state=arguments.state
        )
    )


def _verify(arguments: argparse.Namespace) -> str:
    _, result = read_publication(arguments.state)
    if result is None or (revision := result.tag or result.commit) is None:
        raise OutputError(f"{arguments.state}: no commit was published")
    files = verify_download(
        arguments.repo_id, revision, built=arguments.folder, download=arguments.download
    )
    return f"{files} files of {arguments.repo_id} at {revision} are those that were built\n"


def _summary(arguments: argparse.Namespace) -> str:
    plan, result = read_publication(arguments.state)
    error = arguments.state / _ERROR
    return render_summary(
        arguments.repo_id,
        report=read_report(arguments.folder),
        plan=plan,
        result=result,
        error=error.read_text(encoding="utf-8") if error.is_file() else None,
    )


def _outputs(arguments: argparse.Namespace) -> str:
    plan, result = read_publication(arguments.state)
    report = read_report(arguments.folder)
    values = {
        "verdict": report.verdict if report else None,
        "upload-bytes": plan.upload_bytes if plan else None,
        "commit": result.commit if result else None,
        "commit-url": result.commit_url if result else None,
        "tag": result.tag if result else plan.tag if plan else None,
    }
    return workflow_outputs({k: str(v) for k, v in values.items() if v is not None})


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m hubsplice.github_actions")
    commands = parser.add_subparsers(required=True)

    target = commands.add_parser("target", help="print where the run publishes, as outputs")
    target.add_argument("recipe", type=Path)
    target.add_argument("--tag", default="")
    target.set_defaults(run=_target)

    verify = commands.add_parser("verify", help="download what was published, and compare")
    verify.add_argument("--download", type=Path, required=True)
    verify.set_defaults(run=_verify)

    summary = commands.add_parser("summary", help="print the run's summary in Markdown")
    summary.set_defaults(run=_summary)

    outputs = commands.add_parser("outputs", help="print the run's outputs")
    outputs.set_defaults(run=_outputs)

    for command in (target, verify, summary):
        command.add_argument("--repo-id", default="")
    for command in (verify, summary, outputs):
        command.add_argument("--folder", type=Path, required=True)
    for command in (target, verify, summary, outputs):
        command.add_argument("--state", type=Path, required=True)
    return parser.parse_args()


def main() -> None:
    """Run one command; a mistake gets one message and an exit code, as on the command line."""
    arguments = _parse()
    try:
        sys.stdout.write(arguments.run(arguments))
    except HubspliceError as error:
        print_error(str(error))
        sys.exit(error.exit_code)


if __name__ == "__main__":
    main()
