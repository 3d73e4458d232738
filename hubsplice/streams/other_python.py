"""The Python of another environment, which runs scripts of this package with an engine there."""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from hubsplice.errors import CheckpointError, HubspliceError, UnsupportedError

_LAST_LINES = 12


@dataclass(frozen=True)
class OtherPython:
    """The interpreter of an environment, and what is said where it fails.

    Attributes:
        path: the interpreter, which the user named.
        package: what messages call the package that is to be there, such as `vLLM`.
        module: what it is imported as.
    """

    path: Path
    package: str
    module: str

    def not_run(self, error: OSError) -> UnsupportedError:
        """The system could not start it."""
        return UnsupportedError(
            f"--python: {self.path} can't be run: {error.strerror}; expected the Python "
            f"interpreter of an environment with {self.package}"
        )

    def failed(self, what: str, said: Sequence[str]) -> HubspliceError:
        """A process of it failed, perhaps since the package is not there.

        Args:
            what: what failed, the subject of a sentence.
            said: the last lines of its output.
        """
        missing = f"ModuleNotFoundError: No module named '{self.module}'"
        if any(line.startswith(missing) for line in said):
            return UnsupportedError(
                f"--python: {self.path} has no {self.package}; name the interpreter of an "
                "environment that has it"
            )
        if not any(said):
            return CheckpointError(
                f"{what} failed and said nothing; is {self.path} a Python interpreter?"
            )
        return CheckpointError(f"{what} failed:\n" + "\n".join(f"  {line}" for line in said))


def environment() -> dict[str, str]:
    """The environment variables of its processes."""
    # Modules that this process sees by PYTHONPATH are of another environment.
    kept = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    # Nothing is fetched: the checkpoint is a folder.
    return kept | {"HF_HUB_OFFLINE": "1"}


def copied(script: Path, folder: Path) -> Path:
    """A script of this package in another folder, to be run from there."""
    # A script's folder comes first on its import path, where modules of this package
    # would stand in for those of the standard library that have their names.
    return Path(shutil.copy(script, folder))


def last_lines(text: str) -> list[str]:
    """The last lines of an output, which say why a process failed."""
    return text.strip().splitlines()[-_LAST_LINES:]
