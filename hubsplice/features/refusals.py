"""Reasons for refusing an SAE that both its name and its configuration can reveal."""

from __future__ import annotations

TRANSCODER = (
    "a transcoder predicts an MLP's output from its input, and has no features of the residual "
    "stream to edit"
)
TEMPORAL = "a temporal SAE's features depend on earlier tokens through attention"
ATTENTION_HEADS = "it reads the attention heads before their output projection, inside a layer"
ATTENTION_OUTPUT = (
    "it reads attention's output before it joins the residual stream, where no inserted layer can "
    "see it"
)
MLP_OUTPUT = (
    "it reads the MLP's output before it joins the residual stream, where no inserted layer can "
    "see it"
)
EMBEDDINGS = (
    "it reads embeddings by themselves; the stream that they make up is blocks.0.hook_resid_pre"
)
