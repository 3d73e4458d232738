"""What a forked process does in place of the interpreter that it stands for."""

from __future__ import annotations

import os
import sys
import traceback
from collections.abc import Callable
from typing import NoReturn


def become(run: Callable[[], object], environment: dict[str, str], cwd: str) -> NoReturn:
    """Run something with that environment and in that folder, and leave as an interpreter would."""
    code = 1
    try:
        os.environ.clear()
        os.environ.update(environment)
        os.chdir(cwd)
        run()
        code = 0
    except SystemExit as stop:
        code = stop.code if isinstance(stop.code, int) else int(stop.code is not None)
    except BaseException:  # noqa: BLE001
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
