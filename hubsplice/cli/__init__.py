"""The command line: read the arguments, call, print; one module for each command.

Input: arguments. Output: results on stdout, progress and errors on stderr, and an exit code. May
import everything.
"""

from __future__ import annotations

import os
import re
import sys

from hubsplice.cli import (
    build,
    cache,
    card,
    carrier,
    check,
    diff,
    edits,
    evaluate,
    find,
    init,
    inspect,
    measure,
    merge,
    publish,
    reproduce,
    serve,
    sweep,
    try_,
    unsplice,
    verify,
)
from hubsplice.cli.app import EXIT_CODES, app
from hubsplice.errors import HubError, HubspliceError, RecipeError
from hubsplice.terminal import print_error
from hubsplice.transport import endpoint_problem

__all__ = ["EXIT_CODES", "app", "main"]

_EMPTY_OPTION = re.compile("--[a-z-]+=")

# In the order of a user's way through them, which the help keeps.
for _command in (
    init.init,
    find.find,
    try_.try_,
    sweep.sweep,
    check.check,
    build.build,
    measure.measure,
    evaluate.evaluate,
    verify.verify,
    inspect.inspect,
    reproduce.reproduce,
    unsplice.unsplice,
    carrier.carrier,
    merge.merge,
    diff.diff,
    serve.serve,
    card.card,
    edits.edits,
    publish.publish,
    cache.cache,
):
    # A word of Python's own has a line behind it.
    app.command(_command.__name__.rstrip("_"))(_command)


def main() -> None:
    """Run the command line; a user's mistake gets one message and an exit code."""
    if any(argument == "" or _EMPTY_OPTION.fullmatch(argument) for argument in sys.argv[1:]):
        # To Python, an empty path is the current folder.
        print_error("an argument is empty; is a variable of the shell not set?")
        sys.exit(RecipeError.exit_code)
    problem = endpoint_problem(os.environ.get("HF_ENDPOINT") or "https://huggingface.co")
    if problem is not None:
        # What talks to the Hub can't even be imported with some of them.
        print_error(problem)
        sys.exit(HubError.exit_code)
    try:
        app()
    except HubspliceError as error:
        print_error(str(error))
        sys.exit(error.exit_code)
