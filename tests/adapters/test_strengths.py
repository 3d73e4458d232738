"""One recipe at several strengths, as `build --adapter --strengths` takes it."""

from __future__ import annotations

from pathlib import Path

import pytest

from hubsplice.recipe.reading import parse_recipe
from hubsplice.recipe.strengths import with_strengths
from tests.conftest import Command

RECIPE = """
base_model: x
splices:
  - after_layer: 1
    sae: {path: sae}
    edits:
      - {feature: 3, kind: clamp, to: 1 x max}
      - {feature: 5, kind: ablate}
      - {feature: 9, kind: scale, factor: 3.0}
  - after_layer: 2
    edits: [{kind: steer, vector: {path: v.npz}, strength: 2}]
"""


def test_every_edit_gets_the_strength_in_its_own_unit() -> None:
    changed = with_strengths(parse_recipe(RECIPE, folder=Path("here")), "0.25")
    (clamp, ablate, scale), (steer,) = (splice.edits for splice in changed.splices)
    found = [clamp.model_dump()["to"], scale.model_dump()["factor"], steer.model_dump()["strength"]]
    assert found == ["0.25 x max", 0.25, 0.25]
    assert ablate == parse_recipe(RECIPE, folder=Path("here")).splices[0].edits[1]


@pytest.mark.parametrize(
    ("strengths", "message"),
    [
        ("2,nan", "--strengths: expected a number"),
        ("inf", "--strengths: expected a number"),
        ("2,2.0", "--strengths: 2 is given twice"),
        ("2,", "--strengths: found '2,', expected numbers such as 2,4,8"),
        ("1 x max", "--strengths: found '1 x max', expected numbers such as 2,4,8"),
    ],
)
def test_what_is_no_list_of_strengths_is_refused(
    command: Command, tmp_path: Path, strengths: str, message: str
) -> None:
    (tmp_path / "recipe.yaml").write_text(RECIPE, encoding="utf-8")
    outcome = command(
        *("build", "recipe.yaml", "--adapter", "--carrier", "c", "--output", "out"),
        *("--strengths", strengths),
    )
    assert outcome.code == 2, outcome
    assert message in outcome.err
    assert outcome.err.count("\n") == 1


def test_a_recipe_without_strengths_is_refused(command: Command, tmp_path: Path) -> None:
    text = RECIPE.split("      - {feature: 3")[0] + "      - {feature: 5, kind: ablate}\n"
    (tmp_path / "recipe.yaml").write_text(text, encoding="utf-8")
    outcome = command(
        *("build", "recipe.yaml", "--adapter", "--carrier", "c", "--output", "out"),
        *("--strengths", "2"),
    )
    assert (outcome.code, outcome.err) == (
        2,
        "error: --strengths: no edit of the recipe has a strength; an ablation has none\n",
    )
