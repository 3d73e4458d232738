"""What verify proves of carriers and adapters, and what it finds."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from safetensors.torch import load_file, save_file

from hubsplice.adapters.peft_files import FINGERPRINT
from hubsplice.building.measure import measure
from hubsplice.checkpoint.companions import ADAPTER_WEIGHTS, MANIFEST
from hubsplice.checkpoint.manifest import read_manifest, write_manifest
from hubsplice.errors import RecipeError, UnsupportedError
from hubsplice.files.digest import digest_file
from hubsplice.verifying.inspect import inspect
from hubsplice.verifying.verify import Verification, verify
from tests.adapters.conftest import Built
from tests.building.conftest import quiet


def verified(built: Built, folder: Path) -> Verification:
    return verify(
        str(folder),
        base=str(built.base),
        revision=None,
        progress=quiet,
        carrier=None if folder == built.carrier else built.opened,
    )


def missed(found: Verification) -> set[str]:
    return {check.name for check in found.checks if not check.passed}


def listed(folder: Path, name: str) -> None:
    """Have the manifest list a file as it is now: whoever alters one can do that too."""
    manifest = read_manifest(folder / MANIFEST)
    files = manifest.files | {name: digest_file(folder / name)}
    (folder / MANIFEST).unlink()
    write_manifest(manifest.model_copy(update={"files": files}), folder)


def test_a_carrier_and_an_adapter_are_proved(built: Built) -> None:
    carrier, adapter = (
        verify(str(f), base=str(built.base), revision=None, progress=quiet, carrier=c)
        for f, c in ((built.carrier, None), (built.adapter, built.opened))
    )
    assert missed(carrier) == set(), carrier
    assert "nothing else but empty slots in 1 inserted decoder layer" in carrier.verdict
    assert missed(adapter) == set(), adapter
    assert {"slots", "structure", "strengths"} <= {check.name for check in adapter.checks}


@pytest.mark.parametrize(
    ("part", "check"),
    [
        ("mlp.gate_proj.bias", "slots"),
        ("self_attn.v_proj.bias", "slots"),
        ("mlp.down_proj.weight", "zero tensors"),
        ("self_attn.o_proj.bias", "zero tensors"),
    ],
)
def test_a_carrier_that_adds_something_is_found(
    built: Built, tmp_path: Path, part: str, check: str
) -> None:
    folder = shutil.copytree(built.carrier, tmp_path / "carrier")
    path = sorted(folder.glob("*.safetensors"))[-1]
    tensors = load_file(path)
    # Without biases, the weights hold the slots.
    name = f"model.layers.2.{part}"
    tensor = tensors[name if name in tensors else name.replace(".bias", ".weight")]
    tensor.view(-1)[-1] += 0.5
    save_file(tensors, path, {"format": "pt"})
    listed(folder, path.name)
    found = verify(str(folder), base=str(built.base), revision=None, progress=quiet)
    assert check in missed(found), found


@pytest.mark.parametrize("part", ["gate_proj.lora_A", "down_proj.lora_B", "o_proj.lora_B"])
def test_an_adapter_that_makes_another_edit_is_found(
    built: Built, tmp_path: Path, part: str
) -> None:
    folder = shutil.copytree(built.adapter, tmp_path / "adapter")
    tensors = load_file(folder / ADAPTER_WEIGHTS)
    (name,) = [n for n in tensors if part in n]
    tensors[name] = tensors[name].flip(0 if "lora_A" not in part else 1).contiguous()
    metadata = {"format": "pt", FINGERPRINT: built.opened.fingerprint}
    save_file(tensors, folder / ADAPTER_WEIGHTS, metadata)
    listed(folder, ADAPTER_WEIGHTS)
    assert missed(verified(built, folder)) & {"slots", "structure"}


def test_other_commands_name_the_way(built: Built) -> None:
    with pytest.raises(UnsupportedError, match="it is an adapter; `hubsplice merge"):
        inspect(str(built.adapter), revision=None)
    with pytest.raises(UnsupportedError, match="it is a carrier, which has no edits"):
        measure(built.carrier, base=str(built.base), require_fidelity=None, progress=quiet)


def test_what_needs_a_carrier_or_a_merged_model_says_so(built: Built) -> None:
    with pytest.raises(RecipeError, match="--carrier: the adapter is for carrier"):
        verify(str(built.adapter), base=None, revision=None, progress=quiet)
    with pytest.raises(RecipeError, match="they need a merged checkpoint"):
        verify(str(built.carrier), base=None, revision=None, progress=quiet, streams=True)
