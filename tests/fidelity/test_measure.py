"""The measurement on a whole checkpoint, and on ones that were broken on purpose."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from hubsplice.building.build import build
from hubsplice.building.measure import measure
from hubsplice.checkpoint.companions import MANIFEST
from hubsplice.errors import CheckpointError, FidelityError
from hubsplice.fidelity.report import FidelityReport, read_report
from hubsplice.files.digest import digest_file
from hubsplice.recipe.reading import parse_recipe

Make = Callable[..., Path]

D = 64
INSERTED = "model.layers.2"

RECIPE = """
base_model: ./base
dtype: {dtype}
splices:
  - after_layer: 1
    edits:
      - kind: steer
        vector: {{path: ./vectors.safetensors, tensor: steer}}
        strength: 0.5 x norm
      - kind: gated_steer
        vector: {{path: ./vectors.safetensors, tensor: write}}
        gate: {{vector: {{path: ./vectors.safetensors, tensor: read}}, threshold: -2.0}}
        strength: 0.5 x norm
calibration: {{dataset: ./text.txt, tokens: 4096, sequence_length: 64}}
fidelity: {{dataset: ./text.txt, tokens: 1024, sequence_length: 64}}
card: {{prompts: []}}
"""


def quiet(step: str, done: int, total: int) -> None:
    """Nobody watches."""


@pytest.fixture(params=["float32", "bfloat16"])
def checkpoint(request: pytest.FixtureRequest, tiny_llama: Make, tmp_path: Path) -> Path:
    """A spliced checkpoint that steers and steers behind a gate; its base is beside it."""
    tiny_llama(dtype=request.param)
    generator = torch.Generator().manual_seed(0)
    names = ("steer", "write", "read")
    save_file(
        {name: torch.randn(D, generator=generator) for name in names},
        tmp_path / "vectors.safetensors",
    )
    lines = (
        " ".join(str(int(n)) for n in torch.randint(0, 10**6, (60,), generator=generator))
        for _ in range(400)
    )
    (tmp_path / "text.txt").write_text("\n\n".join(lines), encoding="utf-8")
    recipe = parse_recipe(RECIPE.format(dtype=request.param), folder=tmp_path)
    return build(
        recipe,
        output=tmp_path / "spliced",
        require_fidelity=None,
        measure=False,
        hard_link=False,
        progress=quiet,
    ).folder


def change_tensors(folder: Path, change: Callable[[dict[str, Tensor]], None]) -> None:
    for path in folder.glob("*.safetensors"):
        tensors = {name: tensor.clone() for name, tensor in load_file(path).items()}
        if any(name.startswith(INSERTED) for name in tensors):
            change(tensors)
            save_file(tensors, path, metadata={"format": "pt"})
    forge_checksums(folder)


def forge_checksums(folder: Path) -> None:
    """Have the manifest list the files as they are."""
    manifest = json.loads((folder / MANIFEST).read_text())
    for name, listed in manifest["files"].items():
        listed |= asdict(digest_file(folder / name))
    (folder / MANIFEST).write_text(json.dumps(manifest))


def report_of(
    folder: Path, monkeypatch: pytest.MonkeyPatch, require: float | None = None
) -> FidelityReport:
    monkeypatch.chdir(folder.parent)
    return measure(
        folder,
        base=str(folder.parent / "base"),
        require_fidelity=require,
        progress=quiet,
    )


def test_a_whole_checkpoint_passes(checkpoint: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    report = report_of(checkpoint, monkeypatch)
    assert (report.outcome, report.passed) == ("shown", None)
    assert report.edit_effect.mean > 1e-3
    exact = report.at("float32")
    assert report.scored_tokens == report.text.sequences * 63
    served = report.precisions[0]
    if served.dtype == "float32":
        assert exact.ratio is None
        assert exact.splice_error.mean < report.edit_effect.mean / 100
        assert exact.sites[0].overall_residual_error is not None
        assert exact.sites[0].overall_residual_error < 0.03
        assert exact.sites[0].features[1].gate_f1 == pytest.approx(1, abs=0.01)
        assert report.greedy is None
    else:
        assert [p.dtype for p in report.precisions] == ["bfloat16", "float32"]
        assert served.ratio is not None
        assert served.ratio.low <= served.ratio.value <= served.ratio.high
        assert report.greedy is not None
    assert read_report(checkpoint) == report


def test_a_layer_that_writes_nothing_is_as_far_off_as_the_edit(
    checkpoint: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def silence(tensors: dict[str, Tensor]) -> None:
        tensors[f"{INSERTED}.mlp.down_proj.weight"].zero_()
        # What the attention bias adds has to be taken away still.
        bias = tensors[f"{INSERTED}.self_attn.o_proj.bias"]
        tensors[f"{INSERTED}.mlp.down_proj.bias"].copy_(-bias)

    change_tensors(checkpoint, silence)
    with pytest.raises(FidelityError, match="NOT met"):
        report_of(checkpoint, monkeypatch, require=1.5)
    report = read_report(checkpoint)
    assert report is not None
    assert report.passed is False
    for precision in report.precisions:
        assert precision.splice_error.mean == pytest.approx(report.edit_effect.mean, rel=0.05)
        assert precision.effect_over_error == pytest.approx(1, rel=0.05)
        site = precision.sites[0]
        assert site.overall_residual_error == pytest.approx(1, rel=0.01)
        assert [f.residual_error for f in site.features] == pytest.approx([1, 1], rel=0.01)
        # Its gates are whole, and are told apart from what is done with them.
        assert site.features[1].gate_f1 == pytest.approx(1, abs=0.02)


def test_gates_that_are_the_wrong_way_round_are_seen(
    checkpoint: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def invert(tensors: dict[str, Tensor]) -> None:
        tensors[f"{INSERTED}.mlp.gate_proj.weight"].neg_()

    change_tensors(checkpoint, invert)
    report = report_of(checkpoint, monkeypatch)
    assert report.passed is None
    for precision in report.precisions:
        steer, gated = precision.sites[0].features
        assert gated.residual_error is not None
        assert gated.residual_error > 0.5
        assert gated.gate_f1 is not None
        assert gated.gate_f1 < 0.7
        assert steer.gate_f1 is None


def test_altered_files_are_refused(checkpoint: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    weights = next(checkpoint.glob("model-00002*.safetensors"))
    data = bytearray(weights.read_bytes())
    data[-1] ^= 1
    weights.write_bytes(data)
    before = {path: path.read_bytes() for path in checkpoint.rglob("*") if path.is_file()}
    with pytest.raises(CheckpointError, match=rf"{weights.name}: it is not the file"):
        report_of(checkpoint, monkeypatch)
    assert before == {path: path.read_bytes() for path in checkpoint.rglob("*") if path.is_file()}
