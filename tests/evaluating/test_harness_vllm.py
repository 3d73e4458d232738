"""What the harness asks of vLLM's process is what it asks of transformers: the same comes out.

Transformers stands in for the process here, and is given the very requests that it would get.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from hubsplice.explore.vllm_answers import Vllm
from tests.conftest import MakeCheckpoint

lm_eval = pytest.importorskip("lm_eval")

CONTEXT = 48
"""The longest text of both, in tokens: long texts are read in windows."""


@pytest.fixture(scope="module")
def folder(shared_tiny_llama: MakeCheckpoint) -> Path:
    return shared_tiny_llama(name="of-harnesses", max_position_embeddings=CONTEXT, seed=3)


class Served:
    """The process, played by transformers."""

    def __init__(self, folder: Path) -> None:
        from transformers import AutoModelForCausalLM, AutoTokenizer

        self._model = AutoModelForCausalLM.from_pretrained(folder)
        self._tokenizer = AutoTokenizer.from_pretrained(folder)

    def run(self, job: dict[str, Any]) -> dict[str, Any]:
        assert job["options"]["max_model_len"] == CONTEXT
        (batch,) = job["batches"]
        return {"version": "9.9", "batches": [[self._answer(**one) for one in batch]]}

    def _answer(
        self,
        prompt: list[int],
        new_tokens: int,
        prompt_logprobs: bool,
        ends: list[int] | None = None,
        until: list[str] | None = None,
        sampling: dict[str, Any] | None = None,
    ) -> dict[str, Any]:
        # vLLM refuses what is longer.
        assert len(prompt) + new_tokens <= CONTEXT
        ids = torch.tensor([prompt])
        with torch.inference_mode():
            logprobs = self._model(ids).logits[0].log_softmax(dim=-1)
        of_prompt = logprobs[:-1].gather(1, ids[0, 1:, None])[:, 0].tolist()
        greedy = (logprobs[:-1].argmax(dim=-1) == ids[0, 1:]).tolist()
        text = ""
        if not prompt_logprobs:
            made = self._model.generate(
                ids, max_new_tokens=new_tokens, do_sample=False, eos_token_id=ends
            )
            text = self._tokenizer.decode(made[0, len(prompt) :], skip_special_tokens=True)
            for stop in until or ():
                text = text.split(stop)[0]
        return {"prompt": of_prompt, "greedy": greedy, "text": text}


@pytest.fixture(scope="module")
def served(folder: Path) -> Any:
    from hubsplice.explore.harness_vllm import VllmModel

    model = VllmModel(folder, "float32", Vllm(Path("nowhere")))
    model._process = Served(folder)  # type: ignore[assignment]
    return model


@pytest.fixture(scope="module")
def here(folder: Path) -> Any:
    from lm_eval.models.huggingface import HFLM

    return HFLM(pretrained=str(folder), dtype="float32", device="cpu", batch_size=2)


def requests(kind: str, arguments: list[tuple[Any, ...]]) -> list[Any]:
    from lm_eval.api.instance import Instance

    return [
        Instance(request_type=kind, doc={}, arguments=one, idx=i) for i, one in enumerate(arguments)
    ]


def both(served: Any, here: Any, kind: str, arguments: list[tuple[Any, ...]]) -> Iterator[Any]:
    for model in (served, here):
        yield getattr(model, kind)(requests(kind, arguments))


def test_choices_have_the_same_likelihood(served: Any, here: Any) -> None:
    asked = [
        ("The house of", " bricks"),
        ("The house of ", "bricks"),
        ("", "bricks"),
        ("<s>user: hi\n", "z"),
        ("a long text that does not fit into the context of the model " * 2, "end"),
    ]
    found, known = both(served, here, "loglikelihood", asked)
    scores = [[score for score, _ in one] for one in (found, known)]
    assert scores[0][:-1] == pytest.approx(scores[1][:-1], abs=1e-3)
    # Of a text that is cut, vLLM reads one token less: it has to generate one.
    assert scores[0][-1] == pytest.approx(scores[1][-1], rel=0.05)
    assert [greedy for _, greedy in found] == [greedy for _, greedy in known]
    assert served.engine == "vLLM 9.9"


def test_whole_texts_have_nearly_the_same_likelihood(served: Any, here: Any) -> None:
    short, long = "A short text.", "A text that is longer than the context of this model. " * 3
    found, known = both(served, here, "loglikelihood_rolling", [(short,), (long,)])
    assert found[0] == pytest.approx(known[0], abs=1e-3)
    # vLLM's windows are two tokens shorter: one token has to be generated.
    assert found[1] == pytest.approx(known[1], rel=0.05)


def test_answers_are_the_same(served: Any, here: Any) -> None:
    asked = [
        ("The house of", {"until": ["\n"], "max_gen_toks": 8, "do_sample": False}),
        ("A zebra", {"until": "e", "max_gen_toks": 12}),
        ("A text that leaves little room in the context. " * 2, {"until": [], "max_gen_toks": 8}),
    ]
    found, known = both(served, here, "generate_until", asked)
    assert found == known
    assert any(found)


def test_a_conversation_is_put_as_it_is_for_transformers(served: Any, here: Any) -> None:
    said = [{"role": "user", "content": "hi"}]
    assert served.apply_chat_template(said) == here.apply_chat_template(said)
