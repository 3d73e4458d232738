"""The configurations of released models: which build, bit for bit, and why the others don't."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from docs.released import Answer, answer
from hubsplice.building.build import build
from hubsplice.errors import HubspliceError
from hubsplice.recipe.models import Recipe
from hubsplice.streams.model import loaded
from tests.families.logits import same_bits
from tests.families.released import Released, released, save_small, shrunk
from tests.tiny_tokenizer import byte_tokenizer

MODELS = released()
ACCEPTED = [model for model in MODELS if answer(model.config).builds]

each = pytest.mark.parametrize("model", ACCEPTED, ids=str)


@pytest.fixture(scope="module")
def text(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Text for every build: what calibrating reads, and no more than an empty layer needs."""
    path = tmp_path_factory.mktemp("text") / "text.txt"
    path.write_text("It was a dark and stormy night, and the rain fell in torrents. " * 9)
    return {"dataset": str(path), "tokens": 256, "sequence_length": 32}


def built(base: Path, text: dict[str, Any], **fields: Any) -> Path:
    """Build an empty splice of a base beside it, and give its folder."""
    recipe = Recipe(
        base_model=str(base),
        splices=[{"after_layer": 2}],
        calibration=text,
        fidelity=text,
        **fields,
    )
    output = base.with_name("out")
    build(
        recipe,
        output=output,
        require_fidelity=None,
        measure=False,
        hard_link=False,
        progress=lambda _step, _done, _total: None,
    )
    return output


@torch.no_grad()
def logits(folder: Path, dtype: torch.dtype) -> Tensor:
    """Of two texts, the second of them padded on the left."""
    generator = torch.Generator().manual_seed(7)
    ids = torch.randint(3, 300, (2, 28), generator=generator)
    mask = torch.ones_like(ids)
    ids[1, :9], mask[1, :9] = 0, 0
    with loaded(folder, dtype) as model:
        found: Tensor = model(input_ids=ids, attention_mask=mask).logits
        return found


@each
def test_a_released_configuration_builds_and_keeps_every_bit(
    tmp_path: Path, text: dict[str, Any], model: Released
) -> None:
    base = save_small(model, tmp_path / "base")
    byte_tokenizer().save_pretrained(base)
    said = answer(model.config)
    dtype = said.dtype or "auto"
    spliced = built(base, text, dtype=dtype)
    served = torch.bfloat16 if dtype == "auto" else getattr(torch, dtype)
    before = logits(base, served)
    assert before.std() > 1e-3
    assert same_bits(before, logits(spliced, served))


@pytest.mark.parametrize("model", [m for m in MODELS if m not in ACCEPTED], ids=str)
def test_a_configuration_that_is_refused_names_its_reason(
    tmp_path: Path, text: dict[str, Any], model: Released
) -> None:
    said = answer(model.config)
    assert said.reason
    (tmp_path / "base").mkdir()
    (tmp_path / "base/config.json").write_text(model.text)
    with pytest.raises(HubspliceError, match=r"base_model: config\.json: ") as caught:
        built(tmp_path / "base", text)
    assert said.reason.partition(":")[0] in str(caught.value)


def test_many_models_of_every_family_are_among_them() -> None:
    from hubsplice.families.registry import FAMILIES

    assert len(ACCEPTED) >= 30
    assert {m.config["model_type"] for m in ACCEPTED} == {name for name, _ in FAMILIES.items()}


@each
def test_a_small_one_has_the_keys_of_the_real_one(model: Released) -> None:
    small = shrunk(model.config)
    assert small.keys() == model.config.keys()
    assert answer(small) == answer(model.config)
    nulls = {key for key, value in model.config.items() if value is None}
    assert {key for key, value in small.items() if value is None} == nulls


def test_an_answer_is_what_the_configuration_says() -> None:
    config = next(m.config for m in ACCEPTED if m.model == "Mistral 7B Instruct v0.3")
    assert answer(config) == Answer(None, None)
    assert answer(config | {"torch_dtype": "float16"}) == Answer(None, "bfloat16")
    refused = answer(config | {"sliding_window": 4096})
    assert refused.reason
    assert refused.reason.startswith("sliding_window: found 4096")
