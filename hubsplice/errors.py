"""Every error that a user can cause or meet.

The command line prints the message of a `HubspliceError` without a traceback, and its exit code is
the error's `exit_code`. Any other exception that reaches the user is a defect in hubsplice.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Collection, Iterable, Iterator
from contextlib import contextmanager
from typing import Self

from hubsplice.visible import visible

# Some libraries say all of the file that they can't read.
_LONGEST = 500


class HubspliceError(Exception):
    """Base of all errors that hubsplice raises on purpose.

    Args:
        message: what is wrong; what it quotes of others can do nothing to a terminal or a log.
        field: of which part of a recipe, as seen from the part that is being read; it stands
            before the message. Empty where whoever raises the error names none.
    """

    exit_code = 1

    def __init__(self, message: str = "", *, field: str = "") -> None:
        super().__init__(visible(f"{field}: {message}" if field else message))
        self.field = field

    def inside(self, field: str) -> Self:
        """The same error, seen from outside: its field is a part of this one, or this one."""
        joint = "." if self.field else ": "
        seen = type(self)(f"{field}{joint}{self}")
        seen.field = f"{field}.{self.field}" if self.field else field
        return seen


class RecipeError(HubspliceError):
    """The recipe asks for something malformed, unknown or out of range."""

    exit_code = 2


class UnsupportedError(HubspliceError):
    """The request is well formed, and hubsplice cannot do it faithfully."""

    exit_code = 3


class CheckpointError(HubspliceError):
    """A checkpoint is missing, damaged, or holds what cannot be trusted."""

    exit_code = 4


class FidelityError(HubspliceError):
    """The measured fidelity misses what `--require-fidelity` asked for."""

    exit_code = 5


class NotShownError(FidelityError):
    """The text can't show whether the required fidelity is met."""

    exit_code = 9


class OutputError(HubspliceError):
    """The result could not be written: a full disk, or a folder in the way."""

    exit_code = 6


class HubError(HubspliceError):
    """The Hub refused, or could not be reached."""

    exit_code = 7


class UnreachableError(HubError):
    """The Hub could not be asked at all: no network, or it is switched off."""


class ConflictError(HubspliceError):
    """The Hub holds something else than expected: a moved branch, a tag elsewhere."""

    exit_code = 8


class JobError(HubspliceError):
    """A job on the Hub failed, or was cancelled.

    Args:
        message: what is wrong.
        exit_code: the job's, where it is known.
    """

    exit_code = 1

    def __init__(self, message: str = "", exit_code: int = 1) -> None:
        super().__init__(message)
        self.exit_code = exit_code


class DifferentError(HubspliceError):
    """A model was built again, and it is another one."""

    exit_code = 10


class FieldError(ValueError):
    """What a model of a recipe's part finds wrong, in a field that other fields make wrong.

    Args:
        field: where, from that part on: names and indices.
        message: what is wrong.
    """

    def __init__(self, field: tuple[int | str, ...], message: str) -> None:
        super().__init__(message)
        self.field = field


def quoted(value: object) -> str:
    """What was found somewhere, as messages show it: in Python's words, cut where they are long."""
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:79]}…"


def unknown_name(field: str, value: object, known: Iterable[str]) -> str:
    """Say that `value` is not one of `known`, and name the nearest that is.

    Args:
        field: where the value stands, as the user wrote it (`splices[0].edits[2].kind`).
        value: what was found there.
        known: the valid values.
    """
    names = sorted(known)
    nearest = difflib.get_close_matches(str(value), names, n=1, cutoff=0.5)
    hint = f" Did you mean {nearest[0]!r}?" if nearest else ""
    shown = ", ".join(names[:20]) + (", …" if len(names) > 20 else "")
    return f"{field}: {value!r} is not known.{hint} Known: {shown}."


@contextmanager
def within(field: str, parts: Collection[str] = ()) -> Iterator[None]:
    """Give errors the field that they are about: `field`, or a part of it.

    Args:
        field: what is being read.
        parts: what messages without a field may begin with that is a part of it: within `vector`,
            `path: …` becomes `vector.path: …`. They may begin with `field` itself, too.
    """
    try:
        yield
    except HubspliceError as error:
        said, colon, _ = str(error).partition(": ")
        name = re.split(r"[.\[]", said, maxsplit=1)[0]
        if colon and not error.field and name in (field, *parts):
            error.field = said
            if name == field:
                raise
        raise error.inside(field) from None


@contextmanager
def explained_by(explain: Callable[[Exception], HubspliceError | None]) -> Iterator[None]:
    """Turn the errors of a library into those that `explain` makes of them.

    Where it makes None of one, which only a developer can explain, that is raised as it is.
    """
    try:
        yield
    except HubspliceError:
        raise
    except Exception as error:
        known = explain(error)
        if known is None:
            raise
        raise known from None


@contextmanager
def blamed_on(what: str) -> Iterator[None]:
    """Turn whatever a library raises at a file into a `CheckpointError` that begins with `what`.

    For libraries that are given somebody else's files, and have no error of their own for damage:
    any of their errors is then the file's fault, a panic of their Rust parts among them.
    """
    try:
        yield
    except HubspliceError:
        raise
    except BaseException as error:
        # Rust's panics are no Exception, so that nobody catches them by accident.
        if not isinstance(error, Exception) and type(error).__name__ != "PanicException":
            raise
        raise CheckpointError(f"{what}: {_with_kind(error)}") from error


def _with_kind(error: BaseException) -> str:
    said = " ".join(str(error).split())[:_LONGEST] or type(error).__name__
    # A key or an index alone says nothing.
    return f"{type(error).__name__}: {said}" if isinstance(error, LookupError) else said


def first_line(error: BaseException) -> str:
    """What an error says, on one line."""
    return (str(error).strip() or type(error).__name__).splitlines()[0]


def from_transport(error: BaseException) -> bool:
    """Whether the Hub's client failed in its HTTP library.

    It changes that library between versions; all of them are named so.
    """
    return type(error).__module__.startswith("httpx")
