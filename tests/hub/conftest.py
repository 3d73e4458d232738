"""What publishing starts from: a base on the Hub, a recipe for it, and builds of that recipe."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from hubsplice.building.build import BuildResult, build
from hubsplice.recipe.reading import parse_recipe
from tests.conftest import MakeCheckpoint, Outcome
from tests.hub.forking import Forker
from tests.loopback.client import LoopbackHub
from tests.loopback.hub import Transfer

TEXT = """
calibration: {tokens: 256, sequence_length: 64}
fidelity: {tokens: 512, sequence_length: 64}
card: {prompts: []}
"""


def build_steered(
    base: Path, output: Path, more: str = TEXT, *, strength: float = 2.0, failed: bool = False
) -> BuildResult:
    """Steer along one channel; `failed` holds the result to a requirement that nothing meets."""
    recipe = f"""
base_model: {base}
splices:
  - after_layer: 1
    edits:
      - {{kind: steer, vector: {{path: {base.parent}/vector.safetensors}}, strength: {strength}}}
{more}"""
    return build(
        parse_recipe(recipe, folder=base),
        output=output,
        require_fidelity=1e-9 if failed else None,
        measure=True,
        hard_link=False,
        progress=lambda _step, _done, _total: None,
        allow_failed=failed,
    )


@pytest.fixture(scope="session")
def base(shared_tiny_llama: MakeCheckpoint) -> Path:
    """A base of several shards with a licence, and beside it the vector that recipes steer by."""
    import torch
    from safetensors.torch import save_file

    folder = shared_tiny_llama(dtype="bfloat16", name="of-hub-tests", max_shard_size="100KB")
    (folder / "README.md").write_text("---\nlicense: apache-2.0\n---\n# A base\n")
    (folder / "LICENSE").write_text("Terms.\n")
    vector = torch.zeros(64)
    vector[5] = 1.0
    save_file({"vector": vector}, folder.parent / "vector.safetensors")
    return folder


@pytest.fixture(scope="session")
def original(base: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_steered(base, tmp_path_factory.mktemp("builds") / "original").folder


@pytest.fixture
def built(original: Path, tmp_path: Path) -> Path:
    """A built folder that may be changed."""
    return shutil.copytree(original, tmp_path / "built")


@pytest.fixture(scope="module")
def hub(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[LoopbackHub]:
    """A Hub for a whole module: tests take repositories of their own.

    It speaks Xet, as the Hub does today, unless a test is parametrised with other ways.
    """
    transfer: Transfer = getattr(request, "param", "xet")
    with LoopbackHub(tmp_path_factory.mktemp("hub"), transfer) as hub:
        yield hub


@pytest.fixture(scope="session")
def forker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Forker]:
    forker = Forker(tmp_path_factory.mktemp("forker"))
    yield forker
    forker.stop()


@dataclass
class Publisher:
    """`hubsplice publish` as a process of its own, for one user with one home."""

    hub: LoopbackHub
    forker: Forker
    folder: Path
    token: str | None = "hf_writer"
    more: dict[str, str] = field(default_factory=dict)

    def __call__(self, *arguments: str | Path) -> Outcome:
        environment = self.hub.environment(self.folder / "home", self.token) | self.more
        done = self.forker.run(
            ["publish", *map(str, arguments)], environment | {"COLUMNS": "200"}, self.folder
        )
        assert self.token is None or self.token not in done.stdout + done.stderr
        assert "Traceback" not in done.stderr, done.stderr
        return Outcome(done.returncode, done.stdout, done.stderr)


@pytest.fixture
def publish(hub: LoopbackHub, forker: Forker, tmp_path: Path) -> Iterator[Publisher]:
    hub.reset_counters()
    yield Publisher(hub, forker, tmp_path)
    hub.clear_faults()


@pytest.fixture
def repo(request: pytest.FixtureRequest) -> str:
    """A repository that no other test uses."""
    name = "".join(c if c.isalnum() else "-" for c in request.node.name)
    return f"me/{name.strip('-')[:80].rstrip('-')}".replace("--", "-")
