"""What a plan's build takes, from headers, token counts, and a short probe of this machine."""

from __future__ import annotations

from dataclasses import replace

import torch

from hubsplice.card.words import require_words
from hubsplice.checkpoint.sizes import BaseSizes, base_sizes
from hubsplice.compiling.check import CheckReport
from hubsplice.compiling.cost import (
    BuildCost,
    Shapes,
    Work,
    disk,
    free_disk,
    operations,
    peak_memory,
    seconds,
)
from hubsplice.compiling.passes import calibration_passes
from hubsplice.compiling.plan import Plan, make_plan
from hubsplice.compiling.probe import probe
from hubsplice.errors import HubspliceError
from hubsplice.fidelity.passes import generations, measuring_passes
from hubsplice.recipe.models import Recipe, TextSource
from hubsplice.streams.passes import TextTokens
from hubsplice.streams.room import free_memory, room_for_weights

_DTYPES = {"BF16": torch.bfloat16, "F32": torch.float32}


def check(recipe: Recipe) -> CheckReport:
    """Check a recipe, and say what its build would take.

    Raises:
        HubspliceError: as `make_plan` does; or the card can't have what the recipe names.
    """
    require_words(recipe.card)
    plan = make_plan(recipe)
    try:
        cost = estimate(plan, measure=True)
    except HubspliceError as error:
        report = CheckReport.of(plan)
        doubt = f"what the build takes is not known: {error}"
        return replace(report, warnings=(*report.warnings, doubt))
    return CheckReport.of(plan, cost)


def estimate(plan: Plan, *, measure: bool) -> BuildCost:
    """What building a plan takes.

    Args:
        plan: the plan.
        measure: whether the result is measured.

    Raises:
        CheckpointError: the sizes of the base's tensors can't be read.
    """
    sizes = base_sizes(plan.resolved, plan.base)
    dtype = _precision(plan.recipe, sizes)
    shapes = _shapes(plan, sizes)
    length = max(plan.recipe.calibration.sequence_length, plan.recipe.fidelity.sequence_length)
    least, most = (_work(plan, shapes, dtype, measure, all_text) for all_text in (False, True))
    architecture = plan.architecture
    speeds = {
        precision: probe(architecture.hidden_size, architecture.intermediate_size, precision)
        for precision in {torch.float32, dtype}
    }
    text = max(plan.recipe.calibration.tokens, plan.recipe.fidelity.tokens)
    return BuildCost(
        download_bytes=sizes.missing,
        disk_bytes=disk(shapes),
        memory_bytes=peak_memory(shapes, dtype, text, room_for_weights()) + _sae_bytes(plan),
        token_layers=tuple(sum(p.token_layers for p in w.passes) for w in (least, most)),  # type: ignore[arg-type]
        operations=tuple(
            sum(operations(p, shapes, length) for p in w.passes) for w in (least, most)
        ),  # type: ignore[arg-type]
        seconds=tuple(seconds(w, shapes, length, speeds) for w in (least, most)),  # type: ignore[arg-type]
        device=torch.cuda.get_device_name(0) if torch.cuda.is_available() else "cpu",
        free_memory=free_memory(),
        free_disk=free_disk(),
    )


def _work(plan: Plan, shapes: Shapes, dtype: torch.dtype, measure: bool, all_text: bool) -> Work:
    recipe, places = plan.recipe, [splice.place for splice in plan.splices]

    def tokens(source: TextSource) -> TextTokens:
        scanned = source.most_scanned if all_text else 0
        # Half of the prompts are for calibration, each in a sequence of its own.
        prompts = -(-len(recipe.prompts) // 2) * source.sequence_length
        return TextTokens(source.tokens, prompts, scanned, kept=min(source.tokens, scanned))

    passes = [*calibration_passes(places, dtype, tokens(recipe.calibration))]
    if not measure:
        return Work(tuple(passes))
    passes += measuring_passes(
        places,
        {splice.place for splice in plan.splices if splice.in_bias},
        dtype,
        tokens(recipe.fidelity),
        layers=shapes.num_layers,
        added=shapes.added_layers,
        plain_length=(
            recipe.fidelity.sequence_length
            if any(splice.splice.sinks == "skip" for splice in plan.splices)
            else None
        ),
    )
    sizes, room = shapes.sizes, room_for_weights()
    # What is held whole is read from the disk once, and never again.
    read = {
        precision: 0 if sizes.parameters * precision.itemsize <= room else sizes.stored
        for precision in (torch.float32, dtype)
    }
    return Work(tuple(passes), tuple(generations(dtype, read)))


def _shapes(plan: Plan, sizes: BaseSizes) -> Shapes:
    architecture = plan.architecture
    config = architecture.decoder_config
    experts = config.get("num_experts") or config.get("num_local_experts")
    met = config.get("num_experts_per_tok")
    heads = config.get("num_attention_heads") or config.get("n_head") or 0
    added = sum(splice.layers(architecture) for splice in plan.splices)
    return Shapes(
        sizes=sizes,
        num_layers=architecture.num_layers,
        hidden_size=architecture.hidden_size,
        attention_size=heads * architecture.head_dim,
        share_of_experts=met / experts if experts and met else 1.0,
        added_layers=added,
    )


def _sae_bytes(plan: Plan) -> int:
    """Of encoders and decoders, in float32."""
    configs = [sae.config for splice in plan.splices for sae in splice.saes]
    return sum(2 * 4 * config.d_in * config.d_sae for config in configs)


def _precision(recipe: Recipe, sizes: BaseSizes) -> torch.dtype:
    if recipe.dtype != "auto":
        found: torch.dtype = getattr(torch, recipe.dtype)
        return found
    stored = max(sizes.bytes_by_dtype, key=lambda name: sizes.bytes_by_dtype[name])
    return _DTYPES.get(stored, torch.bfloat16)
