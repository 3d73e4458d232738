"""A tiny model and an SAE with one feature that is planted: active on the letter z alone."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from tests.building.conftest import save_sae
from tests.conftest import MakeCheckpoint

PLANTED, DENSE = 7, 11
LETTER = "z"
TEACHING = (
    "a zebra and a lazy wizard sat on the freezing bench, gazing at ozone",
    "the quick brown fox jumps over the lazy dog while the wizard dozes off",
    "words of many kinds: 12 + 30 = 42; (see the notes) [1] {two} <three> zz z",
    "puzzles amaze citizens of Brazil; prizes dazzle; the jazz never freezes",
    "It was the best of times, it was the worst of times, it was the age.",
)


@dataclass(frozen=True)
class Planted:
    """Where the model and the SAE are."""

    base: Path
    sae: Path


@pytest.fixture(scope="session")
def planted(shared_tiny_llama: MakeCheckpoint, tmp_path_factory: pytest.TempPathFactory) -> Planted:
    base = shared_tiny_llama(name="of-explore-tests")
    model = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
    with torch.no_grad():
        # The stream says most of all which token it stands at.
        model.get_input_embeddings().weight.mul_(20)
    model.save_pretrained(base)
    tokenizer = AutoTokenizer.from_pretrained(base)
    (letter,) = tokenizer(LETTER, add_special_tokens=False).input_ids
    streams, wanted = [], []
    for text in TEACHING:
        ids = torch.tensor([tokenizer(text).input_ids])
        with torch.inference_mode():
            h = model(ids, output_hidden_states=True).hidden_states[2][0]
        streams.append(h[1:])
        wanted.append(ids[0, 1:] == letter)
    h, of_letter = torch.cat(streams), torch.cat(wanted)
    # What tells the letter from all else best, and a threshold in the middle.
    around = h[~of_letter] - h[~of_letter].mean(dim=0)
    spread = around.T @ around / len(around) + 1e-3 * torch.eye(h.shape[1])
    encoder = torch.linalg.solve(spread, h[of_letter].mean(dim=0) - h[~of_letter].mean(dim=0))
    p = h @ encoder
    middle = float(p[of_letter].min() + p[~of_letter].max()) / 2
    assert p[of_letter].min() > p[~of_letter].max()
    generator = torch.Generator().manual_seed(5)
    W_enc = 0.3 * torch.randn(64, 96, generator=generator)
    # The other features are of other letters.
    own = torch.nn.functional.normalize(h[of_letter].mean(dim=0), dim=0)
    W_enc -= own[:, None] * (own @ W_enc)
    b_enc, threshold = torch.full((96,), -0.5), torch.full((96,), 0.5)
    W_enc[:, PLANTED], threshold[PLANTED] = encoder / encoder.norm(), 0.01
    b_enc[PLANTED] = -middle / float(encoder.norm())
    # Active at every token, and larger than any other.
    W_enc[:, DENSE], b_enc[DENSE] = 0.0, 50.0
    folder = tmp_path_factory.mktemp("planted") / "sae"
    save_sae(
        folder, "jumprelu", W_enc=W_enc, b_enc=b_enc, threshold=threshold, b_dec=torch.zeros(64)
    )
    return Planted(base, folder)
