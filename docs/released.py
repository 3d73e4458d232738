"""What hubsplice says to the configurations of released models.

They are the ones that the tests build in small, `tests/families/released.json`.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hubsplice.errors import HubspliceError
from hubsplice.families.architecture import CONFIG_FIELD, architecture_of

MODELS = Path(__file__).parent.parent / "tests/families/released.json"


@dataclass(frozen=True)
class Answer:
    """Whether a model can be spliced.

    Attributes:
        reason: why not; None where it can.
        dtype: what the recipe has to say, where the weights are stored in another precision.
    """

    reason: str | None
    dtype: str | None

    @property
    def builds(self) -> bool:
        """Whether it can."""
        return self.reason is None


def answer(config: Mapping[str, Any]) -> Answer:
    """What is known of a model from its config.json alone."""
    try:
        architecture_of(config).validate()
    except HubspliceError as error:
        first = str(error).splitlines()[0]
        return Answer(first.removeprefix(f"{CONFIG_FIELD}: "), None)
    stored = config.get("torch_dtype", config.get("dtype"))
    return Answer(None, "bfloat16" if stored == "float16" else None)


def released_rows() -> Iterator[tuple[str, str, str]]:
    """Each model with its repository and the answer, for a table."""
    for entry in json.loads(MODELS.read_text(encoding="utf-8")):
        said = answer(entry["config"])
        words = "yes"
        if said.reason is not None:
            words = f"no; `{said.reason.partition(': ')[0]}`: {_shortened(said.reason)}"
        elif said.dtype is not None:
            words = f"yes, with `dtype: {said.dtype}`, since it is stored in float16"
        yield entry["model"], f"`{entry['repo']}`", words


def _shortened(reason: str) -> str:
    """A reason without the field that it begins with, and the list of families at the end."""
    return reason.partition(": ")[2].partition(". Supported: ")[0]
