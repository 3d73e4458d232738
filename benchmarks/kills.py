"""Builds, measurements, cards and publications that are killed, and what is left of them.

    python -m benchmarks.kills [--kills 25] [--seed 0]

A tiny model is made on the spot. Every command is killed by SIGKILL: half the times at a random
moment, and half before a random one of its operations on files and connections, which Python's
audit events tell. Then it runs again. Nothing half-written may stay, nothing may be lost, and the
bytes must be those of a run that nobody disturbed. Publications go to the double of the Hub that
the tests use.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import random
import shutil
import signal
import sys
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, NoReturn

if TYPE_CHECKING:
    from tests.loopback.client import LoopbackHub

RESULTS = Path(__file__).parent / "results/kills.md"
EVENTS = ("open", "os.rename", "os.mkdir", "os.rmdir", "os.remove", "socket.connect")
# Imported once, and not in every fork.
IMPORTED = (
    "hubsplice.cli",
    "hubsplice.building.build",
    "hubsplice.building.measure",
    "hubsplice.hub.publish",
    "hubsplice.interface.publish",
    "transformers.models.llama.modeling_llama",
    "transformers.models.auto.modeling_auto",
    "transformers.models.auto.tokenization_auto",
    "transformers.tokenization_utils_tokenizers",
    "transformers.generation.utils",
)
# A tiny model may not show the fidelity that it is held to; all is written all the same.
ENDS = (0, 9)
RECIPE = """
base_model: ./base
splices:
  - {after_layer: 1, edits: [{kind: steer, vector: {path: vector.safetensors}, strength: 2}]}
calibration: {dataset: ./text.txt, tokens: 256, sequence_length: 64, scan: 0}
fidelity: {dataset: ./text.txt, tokens: 256, sequence_length: 64, scan: 0}
"""


@dataclass
class Run:
    """A command that ran: how it ended, how long it took, and what it did until then."""

    code: int
    seconds: float
    events: int


@dataclass
class Tally:
    """What became of the kills of one command."""

    killed: int = 0
    too_late: int = 0
    broken: list[str] = field(default_factory=list)


def run(
    arguments: list[str],
    folder: Path,
    *,
    kill_after: float | None = None,
    kill_at: int | None = None,
    log: Path,
) -> Run:
    """Run a command in a fork of this process, and kill it after seconds or before an event."""
    start = time.monotonic()
    counts, own = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(counts)
        _become(arguments, folder, kill_at, own, log)
    os.close(own)
    if kill_after is not None:
        while time.monotonic() - start < kill_after:
            if os.waitid(os.P_PID, child, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None:
                break
            time.sleep(0.0005)
        os.kill(child, signal.SIGKILL)
    _, status = os.waitpid(child, 0)
    seconds = time.monotonic() - start
    with os.fdopen(counts) as told:
        text = told.read()
    return Run(os.waitstatus_to_exitcode(status), seconds, int(text or 0))


def _become(
    arguments: list[str], folder: Path, kill_at: int | None, told: int, log: Path
) -> NoReturn:
    count, code = 0, 1

    def hook(event: str, found: tuple[object, ...]) -> None:
        nonlocal count
        if event not in EVENTS or (event == "open" and not _writes(found)):
            return
        count += 1
        if count == kill_at:
            os.kill(os.getpid(), signal.SIGKILL)

    try:
        os.chdir(folder)
        output = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.dup2(output, 1)
        os.dup2(output, 2)
        sys.argv = ["hubsplice", *arguments]
        from hubsplice.cli import main

        sys.addaudithook(hook)
        main()
        code = 0
    except SystemExit as stop:
        code = stop.code if isinstance(stop.code, int) else int(stop.code is not None)
    except BaseException:  # noqa: BLE001 - it is the log's
        traceback.print_exc()
    finally:
        os.write(told, str(count).encode())
        os._exit(code)


def _writes(found: tuple[object, ...]) -> bool:
    flags = found[2] if len(found) > 2 else 0
    return isinstance(flags, int) and bool(flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT))


def content(folder: Path) -> dict[str, str]:
    """The SHA-256 of every file below a folder, hidden ones among them, and its empty folders."""
    return {
        path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        if path.is_file()
        else "folder"
        for path in sorted(folder.rglob("*"))
    }


class Bench:
    """The tiny model, and the commands that are killed."""

    def __init__(self, folder: Path, kills: int, seed: int) -> None:
        self.folder, self.kills = folder, kills
        self.random = random.Random(seed)
        self.log = folder / "log"
        self.work = folder / "work"
        self.work.mkdir()

    def killed(
        self,
        name: str,
        arguments: Callable[[int], list[str]],
        prepare: Callable[[int], None],
        problems: Callable[[int, bool], list[str]],
    ) -> Tally:
        """Kill a command many times, and look what is left, before and after it runs again.

        Args:
            name: the command.
            arguments: its arguments in the n-th round.
            prepare: makes what it starts from in the n-th round; round 0 is not disturbed.
            problems: what is wrong; told the round and whether the command ran to its end.
        """
        prepare(0)
        whole = run(arguments(0), self.work, log=self.log)
        if whole.code not in ENDS or problems(0, True):
            raise SystemExit(f"{name}: {whole}, {problems(0, True)}; see {self.log}")
        tally = Tally()
        for number in range(1, self.kills + 1):
            prepare(number)
            how = (
                {"kill_after": self.random.uniform(0, whole.seconds)}
                if number % 2
                else {"kill_at": self.random.randint(1, whole.events)}
            )
            found = run(arguments(number), self.work, log=self.log, **how)  # type: ignore[arg-type]
            if found.code == -signal.SIGKILL:
                tally.killed += 1
            else:
                tally.too_late += 1
            tally.broken += [f"{number} ({how}), killed: {p}" for p in problems(number, False)]
            again = run(arguments(number), self.work, log=self.log)
            # A build that came to its end is in the way of another one.
            done = again.code == whole.code or (name == "build" and found.code == 0)
            if not done:
                tally.broken.append(f"{number} ({how}): the rerun ended with {again.code}")
            tally.broken += [f"{number} ({how}), rerun: {p}" for p in problems(number, True)]
        print(f"{name}: {whole.seconds:.1f} s, {whole.events} events, {tally}", flush=True)
        return tally


def differences(found: dict[str, str], *allowed: dict[str, str]) -> list[str]:
    """Files that are in none of the allowed states, or in a place where there should be none."""
    names = set(found).union(*allowed)
    return [
        f"{name}: {'missing' if name not in found else 'left over or half-written'}"
        for name in sorted(names)
        if not any(found.get(name) == state.get(name) for state in allowed)
    ]


def _make_base(folder: Path) -> None:
    """In a fork: what forks later must not have started the threads of PyTorch."""
    child = os.fork()
    if child:
        if os.waitpid(child, 0)[1]:
            raise SystemExit("the tiny model could not be made")
        return
    import torch
    from safetensors.torch import save_file

    from tests.conftest import _save_tiny_llama

    _save_tiny_llama(folder, dtype="bfloat16", name="base", max_shard_size="100KB")
    (folder / "base/README.md").write_text("---\nlicense: apache-2.0\n---\n", encoding="utf-8")
    vector = torch.zeros(64)
    vector[5] = 1.0
    save_file({"vector": vector}, folder / "vector.safetensors")
    lines = (f"{n} bottles stand on the wall, and one of them falls.\n" for n in range(400))
    (folder / "text.txt").write_text("".join(lines), encoding="utf-8")
    (folder / "recipe.yaml").write_text(RECIPE, encoding="utf-8")
    os._exit(0)


def _judging(
    work: Path, left: Callable[[dict[str, str], dict[str, str]], list[str]]
) -> Callable[[int, bool], list[str]]:
    """What is wrong with a folder, whose content after round 0 is right.

    Args:
        work: the folder.
        left: what is wrong with what a kill left; told what that is, and what is right.
    """
    whole: dict[str, str] = {}

    def problems(number: int, done: bool) -> list[str]:
        found = content(work)
        if number == 0:
            whole.update(found)
            return []
        return differences(found, whole) if done else left(found, whole)

    return problems


def build(bench: Bench) -> Tally:
    """Kill builds. What is left of one is nothing visible, or all of it."""
    work, start = bench.work, content(bench.work)

    def prepare(_number: int) -> None:
        shutil.rmtree(work / "model", ignore_errors=True)

    def left(found: dict[str, str], whole: dict[str, str]) -> list[str]:
        visible = {name: sha for name, sha in found.items() if not name.startswith(".")}
        return differences(visible, whole if (work / "model").exists() else start)

    arguments = ["build", "recipe.yaml", "--output", "model"]
    return bench.killed("build", lambda _: arguments, prepare, _judging(work, left))


def _in_place(bench: Bench, name: str, arguments: list[str], change: Callable[[], None]) -> Tally:
    """Kill a command that rewrites files of a model: each is the old one or the new one."""
    work, original = bench.work, bench.folder / "original"
    if not original.exists():
        shutil.copytree(work / "model", original)
    before: dict[str, str] = {}

    def prepare(_number: int) -> None:
        shutil.rmtree(work / "model")
        shutil.copytree(original, work / "model")
        change()
        before.update(content(work))

    def left(found: dict[str, str], whole: dict[str, str]) -> list[str]:
        visible = {
            n: sha for n, sha in found.items() if not any(p.startswith(".") for p in n.split("/"))
        }
        return differences(visible, before, whole)

    return bench.killed(name, lambda _: arguments, prepare, _judging(work, left))


def measure(bench: Bench) -> Tally:
    """Kill measurements with a requirement, so that report, card and manifest change."""
    arguments = ["measure", "model", "--base", "base", "--require-fidelity", "1000"]
    return _in_place(bench, "measure", arguments, lambda: None)


def card(bench: Bench) -> Tally:
    """Kill the writing of a card that somebody has emptied."""

    def change() -> None:
        (bench.work / "model/README.md").write_text("", encoding="utf-8")

    return _in_place(bench, "card", ["card", "model", "--rewrite"], change)


def publish(bench: Bench, hub: LoopbackHub) -> Tally:
    """Kill publications; the Hub has all of a model under its tag, or no tag, and one commit."""
    work = bench.work
    shutil.rmtree(work / "model")
    shutil.copytree(bench.folder / "original", work / "model")
    local = content(work)

    def repo(number: int) -> str:
        return f"me/killed-{number}"

    def remote(number: int) -> dict[str, str]:
        files = hub.files(repo(number))
        # These bear the repository's name.
        return {
            n: s
            for n, s in files.items()
            if n not in (".gitattributes", "README.md", "card.json", "reproduce/SHA256SUMS")
        }

    whole: dict[str, str] = {}

    def problems(number: int, done: bool) -> list[str]:
        found = differences(content(work), local)
        try:
            commits, tags = hub.history(repo(number)), hub.tags(repo(number))
        except RuntimeError:
            # There is no such repository yet.
            return [*found, *(["no repository"] if done else [])]
        if number == 0:
            whole.update(remote(0))
        if tags or done:
            found += differences(remote(number), whole)
        if done and list(tags) != ["v1"]:
            found.append(f"tags: {tags}")
        # One makes the repository.
        if len(commits) > 2 or (done and len(commits) != 2):
            found.append(f"{len(commits)} commits")
        return found

    return bench.killed(
        "publish",
        lambda number: ["publish", "model", "--repo-id", repo(number), "--tag", "v1"],
        lambda _: None,
        problems,
    )


def main() -> None:
    """Kill, print what was found, and write the table."""
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--kills", type=int, default=25)
    arguments.add_argument("--seed", type=int, default=0)
    given = arguments.parse_args()
    from tests.loopback.client import LoopbackHub

    with TemporaryDirectory() as temporary:
        folder = Path(temporary)
        with LoopbackHub(folder / "hub") as hub:
            # Read by the Hub's client when it is imported, before any fork.
            os.environ.update(hub.environment(folder / "home"))

            for module in IMPORTED:
                import_module(module)
            bench = Bench(folder, given.kills, given.seed)
            _make_base(bench.work)
            tallies = {
                "build": build(bench),
                "measure": measure(bench),
                "card": card(bench),
                "publish": publish(bench, hub),
            }
            if any(tally.broken for tally in tallies.values()):
                print((folder / "log").read_text()[-3000:])
    for name, tally in tallies.items():
        for line in tally.broken:
            print(f"{name}: {line}")
    _write(tallies, given.kills)


def _write(tallies: dict[str, Tally], kills: int) -> None:
    head = __doc__ or ""
    rows = [
        f"| {name} | {t.killed} | {t.too_late} | {len(t.broken)} |" for name, t in tallies.items()
    ]
    text = "\n".join(
        [
            "# Commands that are killed",
            "",
            " ".join(head.partition("\n\n    ")[2].partition("\n\n")[2].split()),
            "",
            f"    python -m benchmarks.kills --kills {kills}",
            "",
            "| command | killed | done before the kill | something half-written, lost or other |",
            "|---|---|---|---|",
            *rows,
        ]
    )
    RESULTS.write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
