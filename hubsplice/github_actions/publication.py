"""What `hubsplice publish --json` printed, as far as a run shows it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, TypeVar

from pydantic import BaseModel, BeforeValidator, ConfigDict, ValidationError

from hubsplice.errors import OutputError

PLAN = "plan.json"
RESULT = "result.json"

Model = TypeVar("Model", bound=BaseModel)


class Printed(BaseModel):
    """A part of what was printed; fields that a run does not show are passed over."""

    model_config = ConfigDict(extra="ignore", frozen=True)


class PlannedFile(Printed):
    """A file of a plan; its size is None where the plan has only its name."""

    path: str
    bytes: int | None = None


def _named(value: Any) -> Any:
    return {"path": value} if isinstance(value, str) else value


Files = tuple[Annotated[PlannedFile, BeforeValidator(_named)], ...]


class Plan(Printed):
    """What a publication changes on the Hub."""

    repo_id: str
    exists: bool
    created: Files = ()
    changed: Files = ()
    copied: Files = ()
    deleted: Files = ()
    unchanged: Files = ()
    total_bytes: int
    upload_bytes: int | None = None
    tag: str | None = None
    license: str | None = None
    base_license: str | None = None


class Result(Printed):
    """What a publication did."""

    repo_id: str
    outcome: str
    commit: str | None = None
    commit_url: str | None = None
    tag: str | None = None
    pull_request: str | None = None
    plan: Plan | None = None
    serve: str | None = None


def read_publication(state: Path) -> tuple[Plan | None, Result | None]:
    """The plan and the result that a run has come to; each None where it has not.

    Raises:
        OutputError: a file is there, and holds something else.
    """
    result = _read(state / RESULT, Result)
    plan = _read(state / PLAN, Plan)
    return (plan or (result.plan if result else None)), result


def _read(path: Path, model: type[Model]) -> Model | None:
    # A command that failed has left its file empty.
    if not path.is_file() or not (data := path.read_bytes().strip()):
        return None
    try:
        return model.model_validate_json(data)
    except ValidationError as error:
        raise OutputError(f"{path}: not what `hubsplice publish --json` prints: {error}") from None
