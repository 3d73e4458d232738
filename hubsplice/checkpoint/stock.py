"""Whether transformers by itself takes a config.json, whatever other libraries do to it.

Importing SAELens loosens the checks of transformers' configurations for the whole process. A base
that builds only then is one that nobody can load: so it is judged before that import, or where
that was done already, in a process of its own, which answers for as long as this one lasts.
"""

from __future__ import annotations

import atexit
import json
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from threading import Lock
from typing import Any

from hubsplice.checkpoint.base import BaseConfig
from hubsplice.checkpoint.companions import CONFIG
from hubsplice.checkpoint.loader_keys import require_plain_keys
from hubsplice.checkpoint.views import config_view
from hubsplice.errors import CheckpointError, blamed_on

# What SAELens imports, and what does it.
_LOOSENS = "transformer_lens"


def require_stock(base: BaseConfig) -> None:
    """Refuse a config.json that transformers by itself can't read.

    Raises:
        CheckpointError: with what transformers says of it.
    """
    with config_view(base.folder, base.config) as view:
        problem = _clean_process().ask(view) if _LOOSENS in sys.modules else problem_of(view)
    if problem is not None:
        raise CheckpointError(f"{base.folder / CONFIG}: {problem}")


def problem_of(folder: Path) -> str | None:
    """What transformers, as it is in this process, has to say against a folder's config.json."""
    # The first import takes seconds.
    from transformers import AutoConfig, PreTrainedConfig
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING

    config = json.loads((folder / CONFIG).read_text(encoding="utf-8"))

    def classes(model_type: object) -> Iterator[type]:
        yield PreTrainedConfig
        if model_type in CONFIG_MAPPING:
            yield CONFIG_MAPPING[model_type]

    try:
        for part in (config, *(value for value in config.values() if isinstance(value, dict))):
            require_plain_keys(Path(CONFIG), part, classes(part.get("model_type")))
        with blamed_on("transformers refuses it"):
            read = AutoConfig.from_pretrained(
                folder, local_files_only=True, trust_remote_code=False
            )
        _require_known_rope(read.get_text_config().to_dict())
    except CheckpointError as error:
        return " ".join(str(error).removeprefix(f"{CONFIG}: ").split())
    return None


def _require_known_rope(config: Mapping[str, Any]) -> None:
    from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

    found = config.get("rope_parameters")
    parts = [found, *found.values()] if isinstance(found, dict) else []
    for part in parts:
        name = part.get("rope_type") if isinstance(part, dict) else None
        if name not in (None, "default", *ROPE_INIT_FUNCTIONS):
            raise CheckpointError(
                f"rope_parameters: rope_type: found {name!r}, which this version of transformers "
                f"does not know; it knows {', '.join(sorted(ROPE_INIT_FUNCTIONS))}"
            )


class _CleanProcess:
    """A process that imports transformers and nothing else, and answers one folder at a time."""

    def __init__(self) -> None:
        # Modules are to be found where this process finds them.
        environment = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
        self._process = subprocess.Popen(  # noqa: S603 - this very interpreter
            [sys.executable, "-m", __name__],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env=environment,
            text=True,
        )
        self._lock = Lock()
        atexit.register(self._end)

    def ask(self, folder: Path) -> str | None:
        """What `problem_of` gives there.

        Raises:
            CheckpointError: the process ended.
        """
        asked, answers = self._process.stdin, self._process.stdout
        assert asked is not None
        assert answers is not None
        with self._lock:
            try:
                print(json.dumps(str(folder)), file=asked, flush=True)
                answer = answers.readline()
            except OSError:
                answer = ""
        if not answer:
            raise CheckpointError(
                "transformers ended while it read the configuration, in a process of its own"
            )
        problem: str | None = json.loads(answer)
        return problem

    def _end(self) -> None:
        # It may still be importing, and has nothing to lose.
        self._process.kill()
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                pipe.close()
        self._process.wait()


@cache
def _clean_process() -> _CleanProcess:
    return _CleanProcess()


def _answer() -> None:
    """Answer folders, one a line, until there are no more."""
    # Libraries may print, and only answers are read.
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    for line in sys.stdin:
        print(json.dumps(problem_of(Path(json.loads(line)))), file=answers, flush=True)


if __name__ == "__main__":
    _answer()
