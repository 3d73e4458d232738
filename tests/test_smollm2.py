"""The real model that other tests use is what they take it for."""

from __future__ import annotations

from pathlib import Path

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaForCausalLM

from examples.smollm2 import fetch_smollm2


def test_it_is_a_plain_bfloat16_llama_that_knows_a_fact(smollm2: Path) -> None:
    model = AutoModelForCausalLM.from_pretrained(smollm2)
    tokenizer = AutoTokenizer.from_pretrained(smollm2)
    assert type(model) is LlamaForCausalLM
    assert not hasattr(model.config, "quantization_config")
    assert {parameter.dtype for parameter in model.parameters()} == {torch.bfloat16}
    assert model.lm_head.weight is model.model.embed_tokens.weight
    assert tokenizer.chat_template is not None
    prompt = tokenizer("The capital of France is", return_tensors="pt")
    with torch.no_grad():
        best = model(**prompt).logits[0, -1].argmax()
    assert tokenizer.decode(best) == " Paris"


def test_what_is_there_is_not_made_again(smollm2: Path) -> None:
    before = (smollm2 / "model.safetensors").stat()
    assert fetch_smollm2() == smollm2
    after = (smollm2 / "model.safetensors").stat()
    assert (after.st_ino, after.st_mtime_ns) == (before.st_ino, before.st_mtime_ns)
