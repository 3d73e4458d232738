"""Train a small ReLU SAE with SAELens on one layer of a local model.

    python examples/train_sae.py --model .cache/smollm2-135m-instruct --layer 13 --output my-sae

Activations are collected once and kept in memory, which suits small models. Attention sinks are
left out: their norm is tens of times that of other tokens, and the SAE would learn little else.
"""

from __future__ import annotations

import argparse
import math
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from hubsplice.intervention.place import Place
from hubsplice.recipe.models import BUILTIN, TextSource
from hubsplice.streams.model import collect_streams, loaded
from hubsplice.terminal import show_progress
from hubsplice.text.documents import Part
from hubsplice.text.sequences import load_sequences

SINK_MULTIPLE = 5.0
"""A token is a sink above this multiple of the median residual norm."""


def collect(model_folder: Path, layer: int, text: TextSource, seed: int) -> dict[Part, Tensor]:
    """The residual stream after `layer` for training and held-out text, sinks left out.

    Returns:
        By part, shape [tokens, d], float32.
    """
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(model_folder, local_files_only=True)
    held_out = text.model_copy(update={"tokens": max(256, text.tokens // 10)})
    sources: dict[Part, TextSource] = {"calibration": text, "held-out": held_out}
    streams: dict[Part, Tensor] = {}
    place = Place(layer)
    with loaded(model_folder, torch.float32) as model, show_progress() as progress:
        for part, source in sources.items():
            ids = load_sequences(source, tokenizer, seed=seed, part=part).ids

            def report(done: int, total: int, part: Part = part) -> None:
                progress(f"activations, {part} text", done, total)

            streams[part] = collect_streams(model, ids, [place], report)[place].flatten(0, 1)
    median = streams["calibration"].norm(dim=-1).median().item()
    return {part: h[h.norm(dim=-1) < SINK_MULTIPLE * median] for part, h in streams.items()}


def train(activations: Tensor, options: argparse.Namespace) -> Any:
    """Train on activations [tokens, d], scaled to a mean norm of √d; returns SAELens's SAE.

    The scale is folded into the weights at the end: the SAE reads the stream as it is.
    """
    from sae_lens import LoggingConfig, StandardTrainingSAE, StandardTrainingSAEConfig
    from sae_lens.config import SAETrainerConfig
    from sae_lens.training.sae_trainer import SAETrainer

    width = activations.shape[-1]
    scale = math.sqrt(width) / activations.norm(dim=-1).mean().item()
    batch, steps = options.batch_tokens, options.steps

    def batches() -> Iterator[Tensor]:
        generator = torch.Generator().manual_seed(options.seed)
        while True:
            drawn = torch.randint(len(activations), (batch,), generator=generator)
            yield activations[drawn] * scale

    sae = StandardTrainingSAE(
        StandardTrainingSAEConfig(
            d_in=width,
            d_sae=options.features,
            l1_coefficient=options.l1,
            l1_warm_up_steps=steps // 10,
            apply_b_dec_to_input=True,
        )
    )
    sae.b_dec.data = activations.mean(dim=0) * scale
    SAETrainer(
        cfg=SAETrainerConfig(
            total_training_samples=batch * steps,
            train_batch_size_samples=batch,
            lr=options.learning_rate,
            lr_end=options.learning_rate / 10,
            lr_warm_up_steps=steps // 30,
            lr_decay_steps=steps // 5,
            logger=LoggingConfig(log_to_wandb=False),
        ),
        sae=sae,
        data_provider=batches(),
    ).fit()
    sae.fold_activation_norm_scaling_factor(scale)
    return sae


def measure(sae: Any, activations: Tensor) -> tuple[float, float]:
    """Explained variance on activations [tokens, d], and L0: active features per token."""
    residual, active = 0.0, 0.0
    with torch.no_grad():
        for h in torch.split(activations, 4096):
            features = sae.encode(h)
            residual += (sae.decode(features) - h).square().sum().item()
            active += (features > 0).sum().item()
    variance = (activations - activations.mean(dim=0)).square().sum().item()
    return 1 - residual / variance, active / len(activations)


def main(arguments: Sequence[str] | None = None) -> None:
    """Parse the command line, collect, train, measure and save."""
    parser = argparse.ArgumentParser(
        description="Train a small ReLU SAE on one layer of a local model.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    parser.add_argument("--model", type=Path, required=True, help="the model's folder")
    parser.add_argument("--name", help="the model's name on the Hub, for the SAE's metadata")
    parser.add_argument("--layer", type=int, required=True, help="its layer, from 0")
    parser.add_argument("--output", type=Path, required=True, help="the folder to write")
    parser.add_argument("--dataset", default=BUILTIN, help="as `calibration.dataset` in a recipe")
    parser.add_argument("--column", default="text", help="the field that holds the text")
    parser.add_argument("--tokens", type=int, default=250_000, help="tokens to train on")
    parser.add_argument("--features", type=int, default=2048, help="how many features")
    parser.add_argument("--l1", type=float, default=2.0, help="the weight of sparsity")
    parser.add_argument("--steps", type=int, default=3500, help="training steps")
    parser.add_argument("--batch-tokens", type=int, default=2048, help="tokens per step")
    parser.add_argument("--learning-rate", type=float, default=1e-3, help="at its highest")
    parser.add_argument("--seed", type=int, default=0, help="of text, weights and batches")
    options = parser.parse_args(arguments)

    # SAELens imports Weights & Biases, which would otherwise ask for an account.
    os.environ.setdefault("WANDB_MODE", "disabled")
    torch.manual_seed(options.seed)
    text = TextSource(dataset=options.dataset, column=options.column, tokens=options.tokens)
    activations = collect(options.model, options.layer, text, options.seed)
    sae = train(activations["calibration"], options)
    variance, l0 = measure(sae, activations["held-out"])
    sae.cfg.metadata.model_name = options.name or options.model.resolve().name
    sae.cfg.metadata.hook_name = f"blocks.{options.layer}.hook_resid_post"
    sae.save_inference_model(options.output)
    print(
        f"{options.output}: {options.features} features; on held-out text {variance:.3f} of the "
        f"variance explained, {l0:.1f} features active per token"
    )


if __name__ == "__main__":
    main()
