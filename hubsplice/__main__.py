"""The command `hubsplice`, and `python -m hubsplice`: the imports too can be interrupted."""

from __future__ import annotations

import signal
import sys
from types import FrameType

_INTERRUPTED = 130


def main() -> None:
    """Run the command line; an interrupt ends it with 130, whatever it breaks on its way."""
    interrupted = False

    def interrupt(number: int, frame: FrameType | None) -> None:
        nonlocal interrupted
        interrupted = True
        signal.default_int_handler(number, frame)

    # Where interrupts are ignored, as in the background of a shell, they stay so.
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, interrupt)
    try:
        from hubsplice.cli import main as run

        run()
    except BaseException:
        # A library that is interrupted in its imports may raise anything.
        if interrupted:
            sys.exit(_INTERRUPTED)
        raise


if __name__ == "__main__":
    main()
