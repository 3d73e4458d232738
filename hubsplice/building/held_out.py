"""The text that a result is measured on: drawn at random, and what the edits need beside it."""

from __future__ import annotations

import torch
from transformers import PreTrainedTokenizerBase

from hubsplice.checkpoint.base import BaseConfig
from hubsplice.intervention.intervention import Intervention
from hubsplice.recipe.models import Recipe
from hubsplice.streams.acting import ActingText, acting_text
from hubsplice.streams.model import loaded
from hubsplice.terminal import Progress
from hubsplice.text.sequences import open_text
from hubsplice.text.tokenizer import require_vocabulary


def held_out_text(
    recipe: Recipe,
    base: BaseConfig,
    intervention: Intervention,
    tokenizer: PreTrainedTokenizerBase,
    progress: Progress,
) -> ActingText:
    """Held-out text of a recipe, with sequences on which each edit acts.

    Args:
        recipe: says where text is, and how much is read.
        base: the base model.
        intervention: the edits.
        tokenizer: the base's.
        progress: told of every step.

    Raises:
        HubspliceError: the text or the base can't be read.
    """
    text = open_text(
        recipe.fidelity, tokenizer, seed=recipe.seed, part="held-out", prompts=recipe.prompts
    )
    require_vocabulary(text.sequences(text.prompts), base)
    with loaded(base.folder, torch.float32, keep=True) as model:
        return acting_text(
            model,
            intervention,
            text,
            budget=recipe.fidelity.most_scanned,
            kind="held-out",
            progress=progress,
        )
