"""What a build says at its end comes in the order in which it is done."""

from __future__ import annotations

import shlex
from pathlib import Path

from hubsplice.building.build import BuildResult
from hubsplice.building.told import build_summary
from hubsplice.rendering.content import Code, Line
from tests.evaluating.conftest import lettered
from tests.verifying.conftest import Spliced

__all__ = ["lettered"]


def test_the_card_is_read_before_the_model_is_evaluated_served_and_published(
    lettered: Spliced,
) -> None:
    base = Path("a folder/base")
    parts = list(build_summary(BuildResult(lettered.folder, None, (), local_base=base)))
    (at,) = (i for i, part in enumerate(parts) if isinstance(part, Code))
    before, commands = parts[at - 1], parts[at]
    assert isinstance(before, Line)
    assert before.text == f"Next: read the card, {lettered.folder / 'README.md'}. Then"
    assert isinstance(commands, Code)
    words = [shlex.split(line) for line in commands.text.splitlines()]
    assert [line[:2] for line in words] == [
        ["hubsplice", name] for name in ("evaluate", "serve", "publish")
    ]
    assert {line[2] for line in words} == {str(lettered.folder)}
    assert words[0][3:5] == ["--base", str(base)]
