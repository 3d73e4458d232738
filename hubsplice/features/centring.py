"""SAEs of a stream without its mean, made to read the stream of the stock model.

TransformerLens can centre everything that writes into the residual stream. A model whose norms are
LayerNorms computes the same then, and its stream is h − mean(h): P h, with P = I − 11ᵀ/d. P is
linear, so it is folded into the encoder, exactly. The decoder stays: what a feature adds along
(1, …, 1) no LayerNorm sees.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from hubsplice.features.sae_config import SaeConfig

# Subtracts the mean by itself.
_CENTRES = "layer_norm"
_CANNOT_FOLD = "constant_norm_rescale"


def needs_folding(config: SaeConfig) -> bool:
    """Whether an SAE reads the stream without its mean, and does not subtract it itself."""
    return config.centred_weights and config.normalize_activations not in (_CENTRES, _CANNOT_FOLD)


def is_inexact(config: SaeConfig) -> bool:
    """Whether an SAE reads the stream without its mean in a way that no encoder can."""
    return config.centred_weights and config.normalize_activations == _CANNOT_FOLD


def centred(h: Tensor) -> Tensor:
    """P h, shape [..., d]."""
    return h - h.mean(dim=-1, keepdim=True)


def fold_centring(module: Any) -> None:
    """Let an SAE of SAELens give for h what it gave for P h.

    Where the decoder bias is subtracted from the input, (P h − b)·w = (h − b)·P w − Σb·mean(w).
    """
    with torch.no_grad():
        encoder: Tensor = module.W_enc
        means = encoder.double().mean(dim=0)
        if module.cfg.apply_b_dec_to_input:
            shift = module.b_dec.double().sum() * means
            if hasattr(module, "b_gate"):
                module.b_gate.sub_(shift)
                module.b_mag.sub_(shift * module.r_mag.double().exp())
            else:
                module.b_enc.sub_(shift)
        encoder.sub_(means)
