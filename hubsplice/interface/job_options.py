"""What a job is run with; a module that loads nothing, for the command line's help."""

from __future__ import annotations

from dataclasses import dataclass

from hubsplice import __version__

REQUIREMENT = f"hubsplice=={__version__}"

# The Hub's own default is half an hour, and a job that ends sooner costs no more.
TIMEOUT = "6h"


@dataclass(frozen=True)
class JobOptions:
    """How a job is run.

    Attributes:
        flavor: the kind of machine.
        timeout: when it is ended at the latest.
        namespace: who runs it; the user where it is not given.
        requirement: what is installed there, as pip names it.
    """

    flavor: str | None = None
    timeout: str = TIMEOUT
    namespace: str | None = None
    requirement: str = REQUIREMENT
