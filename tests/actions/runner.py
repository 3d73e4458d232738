"""Runs the steps of a composite action as GitHub's runner does, in a process each.

Only what `.github/actions/publish` uses is here: contexts by their path, `==`, `!=` and `&&` in
conditions, `always()`, and the files through which steps hand on outputs and summaries. An
expression that is anything else raises ValueError.
"""

from __future__ import annotations

import re
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

_EXPRESSION = re.compile(r"\$\{\{ *(.*?) *\}\}")
_PATH = re.compile(r"[\w-]+(\.[\w-]+)+")
_COMPARISON = re.compile(r"(\S+) (==|!=) '([^']*)'")


@dataclass(frozen=True)
class Step:
    """A step that ran. `code` is its exit code, `log` what a reader of the run's log sees."""

    name: str
    code: int
    log: str


@dataclass
class Run:
    """A use of the action. `left_out` are steps that use another action, or were asked to be."""

    steps: list[Step] = field(default_factory=list)
    left_out: list[str] = field(default_factory=list)
    summary: str = ""
    outputs: dict[str, str] = field(default_factory=dict)

    @property
    def failed(self) -> Step | None:
        """The first step that failed."""
        return next((step for step in self.steps if step.code), None)

    @property
    def log(self) -> str:
        return "".join(step.log for step in self.steps)

    @property
    def ran(self) -> list[str]:
        return [step.name for step in self.steps]


def run_action(
    action: Path,
    inputs: Mapping[str, str],
    *,
    workspace: Path,
    scratch: Path,
    environment: Mapping[str, str],
    leave_out: frozenset[str] = frozenset(),
) -> Run:
    """Run an action's own steps in order; a step that fails ends the run, but for `always()`.

    Args:
        action: the folder of `action.yml`.
        inputs: what `with:` gives; the others have their defaults.
        workspace: the folder that steps start in.
        scratch: an empty folder for the runner's own files.
        environment: of the job.
        leave_out: names of steps that are not to run.
    """
    definition = yaml.safe_load((action / "action.yml").read_text(encoding="utf-8"))
    unknown = inputs.keys() - definition["inputs"].keys()
    assert not unknown, f"not inputs of the action: {unknown}"
    defaults = {name: spec.get("default", "") for name, spec in definition["inputs"].items()}
    steps: dict[str, Any] = {}
    contexts: dict[str, Any] = {"inputs": {**defaults, **inputs}, "steps": steps}
    temp = scratch / "temp"
    temp.mkdir(parents=True)
    job = dict(environment) | {
        "CI": "true",
        "GITHUB_ACTIONS": "true",
        "GITHUB_ACTION_PATH": str(action),
        "GITHUB_WORKSPACE": str(workspace),
        "RUNNER_OS": "Linux",
        "RUNNER_TEMP": str(temp),
    }
    run = Run()
    for number, step in enumerate(definition["runs"]["steps"]):
        if not _applies(step.get("if", ""), contexts, failed=run.failed is not None):
            continue
        if "run" not in step or step["name"] in leave_out:
            run.left_out.append(step["name"])
            continue
        files = scratch / f"step-{number}"
        files.mkdir()
        done, outputs, summary = _run_step(step, contexts, job, files, workspace)
        run.steps.append(done)
        run.summary += summary
        if "id" in step:
            steps[step["id"]] = {"outputs": outputs}
    run.outputs = {
        name: _evaluated(spec["value"], contexts) for name, spec in definition["outputs"].items()
    }
    return run


def _run_step(
    step: Mapping[str, Any],
    contexts: Mapping[str, Any],
    job: Mapping[str, str],
    files: Path,
    workspace: Path,
) -> tuple[Step, dict[str, str], str]:
    assert step["shell"] == "bash"
    assert "${{" not in step["run"], "an expression in a script is code that others write"
    script, output, summary = files / "script.sh", files / "output", files / "summary.md"
    script.write_text(step["run"], encoding="utf-8")
    for file in (output, summary):
        file.touch()
    own = {name: _evaluated(str(value), contexts) for name, value in step.get("env", {}).items()}
    result = subprocess.run(
        ["bash", "--noprofile", "--norc", "-eo", "pipefail", str(script)],
        cwd=workspace,
        env={**job, **own, "GITHUB_OUTPUT": str(output), "GITHUB_STEP_SUMMARY": str(summary)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    return (
        Step(step["name"], result.returncode, result.stdout),
        parse_outputs(output.read_text(encoding="utf-8")),
        summary.read_text(encoding="utf-8"),
    )


def parse_outputs(text: str) -> dict[str, str]:
    """What a step wrote to the file of its outputs: `name=value`, or `name<<end`, lines, `end`."""
    outputs: dict[str, str] = {}
    rest = text.splitlines()
    while rest:
        line = rest.pop(0)
        name, heredoc, end = line.partition("<<")
        if heredoc and "=" not in name:
            length = rest.index(end)
            outputs[name] = "\n".join(rest[:length])
            del rest[: length + 1]
        else:
            name, equals, value = line.partition("=")
            assert equals, f"not an output: {line!r}"
            outputs[name] = value
    return outputs


def _applies(condition: str, contexts: Mapping[str, Any], *, failed: bool) -> bool:
    terms = [term.strip() for term in condition.split("&&")] if condition else []
    if failed and "always()" not in terms:
        return False
    return all(_holds(term, contexts) for term in terms if term != "always()")


def _holds(term: str, contexts: Mapping[str, Any]) -> bool:
    comparison = _COMPARISON.fullmatch(term)
    if comparison is None:
        raise ValueError(f"not a condition that is known here: {term!r}")
    path, operator, value = comparison.groups()
    return (_looked_up(path, contexts) == value) == (operator == "==")


def _evaluated(text: str, contexts: Mapping[str, Any]) -> str:
    return _EXPRESSION.sub(lambda found: _looked_up(found[1], contexts), text)


def _looked_up(path: str, contexts: Mapping[str, Any]) -> str:
    """The value of `inputs.name` or `steps.id.outputs.name`; empty where a step set no such."""
    if not _PATH.fullmatch(path):
        raise ValueError(f"not an expression that is known here: {path!r}")
    first, *rest = path.split(".")
    value = contexts[first]
    for name in rest:
        value = value[name] if first == "inputs" else value.get(name, {})
    return str(value or "")
