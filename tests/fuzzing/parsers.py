"""Everything that hubsplice reads of others' files, each with a good file to damage.

A parser gets damaged content, writes it where such a file lies, and reads it as a command would.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import yaml
from safetensors.torch import save, save_file

from hubsplice.checkpoint.base import BaseConfig
from hubsplice.checkpoint.engine_runs import ENGINE_RUNS, EngineRuns, read_engine_runs
from hubsplice.checkpoint.manifest import read_manifest
from hubsplice.checkpoint.stock import problem_of
from hubsplice.checkpoint.views import config_view
from hubsplice.errors import CheckpointError, HubspliceError
from hubsplice.families.architecture import architecture_of
from hubsplice.features.references import SaeSource, TensorSource
from hubsplice.features.sae import load_sae
from hubsplice.features.sae_config import find_sae
from hubsplice.features.sae_support import config_warnings, require_supported
from hubsplice.features.vector import load_subspace, load_vector
from hubsplice.fidelity.report import read_report
from hubsplice.files.safetensors_header import read_header
from hubsplice.intervention.intervention import Intervention
from hubsplice.intervention.piecewise_linear import PiecewiseLinear
from hubsplice.intervention.saved import load_intervention, save_intervention
from hubsplice.intervention.site import Site, Term
from hubsplice.recipe.reading import parse_recipe
from hubsplice.text.chat import ChatFormat
from hubsplice.text.tokenizer import load_tokenizer
from tests.card.examples import RUN, SHA, manifest, report
from tests.fuzzing.mutations import mutated_bytes, mutated_text

Content = str | bytes


@dataclass(frozen=True)
class Parser:
    """A way in for files of others.

    Attributes:
        good: content that it reads without a word.
        read: reads content.
        quick: whether that takes a millisecond or so.
    """

    good: Any
    read: Callable[[Content], object]
    quick: bool = True

    def damaged(self, seed: int) -> Content:
        """The good content with something wrong."""
        if isinstance(self.good, bytes):
            return mutated_bytes(self.good, seed)
        return mutated_text(self.good, seed)

    def try_to_read(self, content: Content) -> str | None:
        """Read content; what hubsplice says against it, or None."""
        try:
            self.read(content)
        except HubspliceError as error:
            return str(error)
        return None


RECORDED = manifest(files={ENGINE_RUNS: {"sha256": SHA, "size": 1}})
"""A manifest that lists a record of engines."""

RECIPE = {
    "base_model": "./base",
    "title": "A title",
    "splices": [
        {
            "after_layer": 1,
            "sae": {"path": "./sae"},
            "edits": [
                {"kind": "ablate", "feature": 3, "label": "words"},
                {"kind": "clamp", "feature": 4, "to": "0.5 x max", "when": "active"},
                {"kind": "steer", "vector": {"path": "v.safetensors"}, "strength": 3.0},
            ],
        }
    ],
    "calibration": {"dataset": "builtin", "tokens": 4096, "sequence_length": 64},
    "fidelity": {"tokens": 512, "require": 1.1},
    "prompts": [{"user": "Hello"}, {"text": "Once"}],
    "publish": {"repo_id": "me/model", "private": True},
}

SAES: tuple[dict[str, Any], ...] = (
    {
        "architecture": "jumprelu",
        "d_in": 64,
        "d_sae": 32,
        "dtype": "float32",
        "device": "cpu",
        "apply_b_dec_to_input": True,
        "normalize_activations": "none",
        "reshape_activations": "none",
        "metadata": {
            "hook_name": "blocks.1.hook_resid_post",
            "model_name": "llama",
            "sae_lens_version": "6.5.0",
            "model_from_pretrained_kwargs": {"center_writing_weights": False},
        },
    },
    {
        "d_in": 64,
        "d_sae": 32,
        "hook_point": "blocks.1.hook_resid_pre",
        "hook_point_layer": 1,
        "dtype": "torch.float32",
        "activation_fn_str": "topk",
        "activation_fn_kwargs": {"k": 4},
        "model_name": "gpt2",
        "dataset_path": "text",
    },
)


def parsers(folder: Path, base: Path) -> Mapping[str, Parser]:
    """All of them, by name.

    Args:
        folder: for what they write.
        base: a base model.
    """
    copy = shutil.copytree(base, folder / "base")
    sae = folder / "sae"
    sae.mkdir()
    width, features = 64, 32
    save_file(
        {
            "W_enc": torch.randn(width, features),
            "W_dec": torch.randn(features, width),
            "b_enc": torch.zeros(features),
            "b_dec": torch.zeros(width),
            "threshold": torch.ones(features),
        },
        sae / "sae_weights.safetensors",
    )

    def write(path: Path, content: Content) -> Path:
        # Lone surrogates are what JSON's escapes can spell, and UTF-8 can't.
        data = content if isinstance(content, bytes) else content.encode(errors="surrogatepass")
        path.write_bytes(data)
        return path

    def config(content: Content) -> None:
        write(copy / "config.json", content)
        described = BaseConfig.open(copy)
        architecture_of(described.config).validate()
        with config_view(copy, described.config) as view:
            problem = problem_of(view)
        if problem:
            raise CheckpointError(problem)

    def of_tokenizer(name: str) -> Callable[[Content], None]:
        good = (base / name).read_bytes()

        def read(content: Content) -> None:
            write(copy / "config.json", (base / "config.json").read_bytes())
            write(copy / name, content)
            try:
                tokenizer = load_tokenizer(copy)
                ChatFormat.of(tokenizer)
            finally:
                write(copy / name, good)

        return read

    def sae_config(content: Content) -> None:
        write(sae / "cfg.json", content)
        found = find_sae(SaeSource(path=sae))
        require_supported(found.config)
        config_warnings(found.config)

    def whole_sae(content: Content) -> None:
        write(sae / "cfg.json", content)
        load_sae(SaeSource(path=sae))

    def index(content: Content) -> None:
        write(copy / "config.json", (base / "config.json").read_bytes())
        write(copy / "model.safetensors.index.json", content)
        try:
            BaseConfig.open(copy)
        finally:
            (copy / "model.safetensors.index.json").unlink()

    def vector(content: Content) -> None:
        path = write(folder / "v.safetensors", content)
        load_vector(TensorSource(path=path), width)
        load_subspace(TensorSource(path=path), width)

    def text(content: Content) -> str:
        return content if isinstance(content, str) else content.decode(errors="replace")

    save_intervention(_intervention(width), folder / "i.safetensors")
    return {
        "recipe": Parser(RECIPE, lambda c: parse_recipe(text(c), folder=folder)),
        "recipe as bytes": Parser(
            yaml.safe_dump(RECIPE).encode(), lambda c: parse_recipe(text(c), folder=folder)
        ),
        "SAE cfg.json": Parser(SAES[0], sae_config),
        "old SAE cfg.json": Parser(SAES[1], sae_config),
        "SAE": Parser(SAES[0], whole_sae, quick=False),
        "config.json": Parser(_json(base / "config.json"), config),
        "index": Parser({"metadata": {}, "weight_map": {"a": "model.safetensors"}}, index),
        "tokenizer.json": Parser(
            _json(base / "tokenizer.json"), of_tokenizer("tokenizer.json"), quick=False
        ),
        "tokenizer_config.json": Parser(
            _json(base / "tokenizer_config.json"),
            of_tokenizer("tokenizer_config.json"),
            quick=False,
        ),
        "safetensors header": Parser(
            save({"a": torch.zeros(2, 3), "b": torch.zeros(4, dtype=torch.bfloat16)}),
            lambda c: read_header(write(folder / "header.safetensors", c)),
        ),
        "vector": Parser(save({"v": torch.ones(width)}), vector),
        "manifest": Parser(
            manifest().model_dump(mode="json"),
            lambda c: read_manifest(write(folder / "splice.json", c)),
        ),
        "report": Parser(
            report().model_dump(mode="json"),
            lambda c: read_report(write(folder / "fidelity.json", c).parent),
        ),
        "engine runs": Parser(
            EngineRuns(runs=(RUN, RUN)).model_dump(mode="json"),
            lambda c: read_engine_runs(write(folder / ENGINE_RUNS, c).parent, RECORDED),
        ),
        "intervention": Parser(
            (folder / "i.safetensors").read_bytes(),
            lambda c: load_intervention(write(folder / "i.safetensors", c)),
        ),
    }


def _intervention(width: int) -> Intervention:
    relu = PiecewiseLinear((0.5,), (0.0, -1.0), (0.0, 0.5))
    term = Term("words", torch.ones(width), 0.1, relu, torch.ones(width))
    return Intervention((Site(1, (term, term), 5.0), Site(2, (term,), 6.0)))


def _json(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))
