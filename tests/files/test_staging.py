"""Whole or nothing: kills, signals, full disks and folders in the way, all of them real."""

from __future__ import annotations

import errno
import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch

from hubsplice.checkpoint.base import BaseCheckpoint
from hubsplice.checkpoint.layout import Zeros
from hubsplice.checkpoint.writer import write_checkpoint
from hubsplice.errors import OutputError
from hubsplice.files import space
from hubsplice.files.space import full_disk, readable_size, require_free_space
from hubsplice.files.staging import staged_directory

MakeBase = Callable[..., Path]


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_appears_whole(tmp_path: Path) -> None:
    with staged_directory(tmp_path / "out") as folder:
        (folder / "sub").mkdir()
        (folder / "sub" / "file").write_text("content")
        assert folder.stat().st_dev == tmp_path.stat().st_dev
        assert not (tmp_path / "out").exists()
    assert (tmp_path / "out" / "sub" / "file").read_text() == "content"
    assert names(tmp_path) == ["out"]
    umask = os.umask(0)
    os.umask(umask)
    assert (tmp_path / "out").stat().st_mode & 0o777 == 0o777 & ~umask


def test_an_empty_folder_is_replaced_also_through_a_link(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to("real")
    with staged_directory(tmp_path / "link") as folder:
        (folder / "file").touch()
    assert names(tmp_path / "real") == ["file"]
    assert (tmp_path / "link").is_symlink()


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt, SystemExit])
def test_nothing_remains_after_an_error(tmp_path: Path, error: type[BaseException]) -> None:
    def write_and_fail() -> None:
        with staged_directory(tmp_path / "new" / "parent" / "out") as folder:
            (folder / "file").touch()
            raise error

    with pytest.raises(error):
        write_and_fail()
    assert names(tmp_path) == []


def test_an_existing_parent_stays(tmp_path: Path) -> None:
    (tmp_path / "parent").mkdir()
    with pytest.raises(RuntimeError), staged_directory(tmp_path / "parent" / "new" / "out"):
        raise RuntimeError
    assert names(tmp_path) == ["parent"]
    assert names(tmp_path / "parent") == []


def test_a_folder_in_the_way(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "precious").write_text("kept")
    with (
        pytest.raises(
            OutputError,
            match=r"expected a new folder or an empty one.*'precious'; choose another --output",
        ),
        staged_directory(tmp_path / "out"),
    ):
        pytest.fail("the block must not run")
    assert (tmp_path / "out" / "precious").read_text() == "kept"
    assert names(tmp_path) == ["out"]


def test_a_file_in_the_way(tmp_path: Path) -> None:
    (tmp_path / "out").write_text("kept")
    for destination, message in ((tmp_path / "out", "found a file"), (tmp_path / "out/x", "out: ")):
        with pytest.raises(OutputError, match=message), staged_directory(destination):
            pytest.fail("the block must not run")
    assert (tmp_path / "out").read_text() == "kept"


def lose_the_race(destination: Path) -> None:
    with staged_directory(destination) as folder:
        (folder / "file").write_text("mine")
        destination.mkdir()
        (destination / "file").write_text("theirs")


def test_a_folder_that_fills_meanwhile(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="something was written there in the meantime"):
        lose_the_race(tmp_path / "out")
    assert (tmp_path / "out" / "file").read_text() == "theirs"
    assert names(tmp_path) == ["out"]


def test_a_live_run_is_not_taken_for_a_leftover(tmp_path: Path) -> None:
    with staged_directory(tmp_path / "out") as first:
        (first / "file").write_text("first")
        with pytest.raises(OutputError, match="in the meantime"):
            lose_the_race(tmp_path / "out")
        assert (first / "file").read_text() == "first"
        shutil.rmtree(tmp_path / "out")
    assert (tmp_path / "out" / "file").read_text() == "first"
    assert names(tmp_path) == ["out"]


def test_only_our_own_leftovers_are_removed(tmp_path: Path) -> None:
    others = [
        ".out.partial-notours!",
        ".out.partial-0123456789",
        ".output.partial-01234567",
        "out.partial-01234567",
    ]
    for name in (*others, ".out.partial-01234567"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "file").touch()
    (tmp_path / ".out.partial-89abcdef").symlink_to(tmp_path / others[0])
    with staged_directory(tmp_path / "out"):
        pass
    assert names(tmp_path) == sorted([*others, "out", ".out.partial-89abcdef"])


# Each child is killed as it reaches the k-th executed line of staging.py or of shutil, for
# k = 1, 2, … until one survives: every state that a kill can leave between two lines is met.
EVERY_LINE = """
import json, os, shutil, signal, sys
from pathlib import Path
from hubsplice.files import staging
from hubsplice.errors import OutputError

root, at = Path(sys.argv[1]), sys.argv[2]
EXPECTED = {"a": b"a" * 5000, "sub/b": b"b"}

def write(destination):
    with staging.staged_directory(destination) as folder:
        (folder / "sub").mkdir()
        for name, content in EXPECTED.items():
            (folder / name).write_bytes(content)

def kill_at(k):
    count = 0
    def local(frame, event, arg):
        nonlocal count
        if event == "line":
            count += 1
            if count == k:
                os.kill(os.getpid(), signal.SIGKILL)
        return local
    def trace(frame, event, arg):
        return local if frame.f_code.co_filename in (staging.__file__, shutil.__file__) else None
    sys.settrace(trace)

outcomes, k, killed = [], 0, True
while killed:
    k += 1
    folder = root / str(k)
    folder.mkdir()
    destination = folder / "out"
    if at == "empty":
        destination.mkdir()
    if at == "leftover":
        (folder / ".out.partial-00000000" / "content").mkdir(parents=True)
    child = os.fork()
    if child == 0:
        kill_at(k)
        write(destination)
        os._exit(0)
    _, status = os.waitpid(child, 0)
    killed = os.WIFSIGNALED(status)
    whole = destination.exists() and any(destination.iterdir())
    if whole:
        found = {p.relative_to(destination).as_posix(): p.read_bytes()
                 for p in destination.rglob("*") if p.is_file()}
        assert found == EXPECTED, (k, found)
    left = sorted(p.name for p in folder.iterdir() if p != destination)
    try:
        write(destination)
        rerun = "wrote"
    except OutputError:
        rerun = "refused"
    assert rerun == ("refused" if whole else "wrote"), k
    assert [p.name for p in folder.iterdir()] == ["out"], (k, list(folder.iterdir()))
    outcomes.append([whole, bool(left)])
print(json.dumps(outcomes))
"""


@pytest.mark.parametrize("at", ["new", "empty", "leftover"])
def test_killed_at_every_line(tmp_path: Path, at: str) -> None:
    arguments = [sys.executable, "-c", EVERY_LINE, str(tmp_path), at]
    done = subprocess.run(arguments, check=True, capture_output=True, text=True)
    outcomes = [tuple(outcome) for outcome in json.loads(done.stdout)]
    assert len(outcomes) > 50
    # All four states were met: nothing yet, half done, done with a remnant, done.
    assert set(outcomes) == {(False, False), (False, True), (True, True), (True, False)}


# The children are forked from one process, since importing torch for each would take all the
# time; they are killed after random delays within the time that a whole run takes.
RANDOM_KILLS = """
import hashlib, json, os, random, signal, sys, time
from pathlib import Path
import torch
from hubsplice.checkpoint.base import BaseCheckpoint
from hubsplice.checkpoint.layout import Zeros
from hubsplice.files.staging import staged_directory
from hubsplice.checkpoint.writer import write_checkpoint

base = BaseCheckpoint.open(Path(sys.argv[1]))
root = Path(sys.argv[2])

def write(destination):
    with staged_directory(destination) as folder:
        return write_checkpoint(
            base, folder, rename=lambda n: n + ".renamed",
            new_tensors={"new": torch.ones(100), "zeros": Zeros((100, 100), torch.float32)},
            config=base.config,
        )

def state(destination):
    return {p.relative_to(destination).as_posix(): hashlib.sha256(p.read_bytes()).hexdigest()
            for p in destination.rglob("*") if p.is_file()}

begin = time.perf_counter()
expected = {name: d.sha256 for name, d in write(root / "reference").files.items()}
duration = time.perf_counter() - begin
assert state(root / "reference") == expected
pick = random.Random(0)
outcomes = {"whole": 0, "none": 0, "partial": 0}
for trial in range(60):
    folder = root / str(trial)
    folder.mkdir()
    child = os.fork()
    if child == 0:
        write(folder / "out")
        os._exit(0)
    time.sleep(pick.random() * duration * 1.2)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    if (folder / "out").exists():
        assert state(folder / "out") == expected
        outcomes["whole"] += 1
    else:
        outcomes["partial" if any(folder.iterdir()) else "none"] += 1
        write(folder / "out")
        assert state(folder / "out") == expected
        assert [p.name for p in folder.iterdir()] == ["out"]
print(json.dumps(outcomes))
"""


def test_killed_at_random_moments_of_a_real_write(make_base: MakeBase, tmp_path: Path) -> None:
    root = tmp_path / "trials"
    root.mkdir()
    arguments = [sys.executable, "-c", RANDOM_KILLS, str(make_base(sharded=True)), str(root)]
    done = subprocess.run(arguments, check=True, capture_output=True, text=True)
    outcomes = json.loads(done.stdout)
    assert sum(outcomes.values()) == 60
    assert outcomes["partial"] > 0


WAITS = """
import sys, time
from pathlib import Path
from hubsplice.files.staging import staged_directory

with staged_directory(Path(sys.argv[1])) as folder:
    (folder / "file").write_text("half")
    print("ready", flush=True)
    time.sleep(600)
"""


@pytest.mark.parametrize(
    ("number", "status"),
    [(signal.SIGTERM, 128 + signal.SIGTERM), (signal.SIGINT, -signal.SIGINT)],
)
def test_signals_clean_up(tmp_path: Path, number: signal.Signals, status: int) -> None:
    destination = tmp_path / "parent" / "out"
    with subprocess.Popen(
        [sys.executable, "-c", WAITS, str(destination)],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n"
        assert (tmp_path / "parent").exists()
        process.send_signal(number)
        assert process.wait() == status
    assert names(tmp_path) == []


def test_the_termination_handler_is_given_back(tmp_path: Path) -> None:
    before = signal.getsignal(signal.SIGTERM)
    with staged_directory(tmp_path / "out"):
        assert signal.getsignal(signal.SIGTERM) is not before
    assert signal.getsignal(signal.SIGTERM) is before


SMALL_FILES_ONLY = """
import resource, sys
from pathlib import Path
from hubsplice.checkpoint.base import BaseCheckpoint
from hubsplice.files.staging import staged_directory
from hubsplice.checkpoint.writer import write_checkpoint
from hubsplice.errors import OutputError

base = BaseCheckpoint.open(Path(sys.argv[1]))
resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))
try:
    with staged_directory(Path(sys.argv[2])) as folder:
        write_checkpoint(
            base, folder, rename=lambda n: "x." + n, new_tensors={}, config=base.config
        )
except OutputError as error:
    print(error)
"""


def test_a_limit_on_file_sizes(make_base: MakeBase, tmp_path: Path) -> None:
    out = tmp_path / "outputs" / "out"
    arguments = [sys.executable, "-c", SMALL_FILES_ONLY, str(make_base()), str(out)]
    done = subprocess.run(arguments, check=True, capture_output=True, text=True)
    assert "a file is larger than the filesystem or the limit on file sizes" in done.stdout
    assert "the output needs" in done.stdout
    assert not out.parent.exists()


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A filesystem of one megabyte, mounted for the test."""
    folder = tmp_path / "disk"
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(folder)]
    if os.geteuid() != 0 or subprocess.run(command, capture_output=True).returncode:
        pytest.skip("mounting a small filesystem needs root")
    try:
        yield folder
    finally:
        subprocess.run(["umount", str(folder)], check=True)


def test_a_disk_that_fills_up(small_disk: Path) -> None:
    with (
        pytest.raises(OutputError, match="the disk is full: 0 bytes are free"),
        staged_directory(small_disk / "out") as folder,
    ):
        (folder / "file").write_bytes(bytes(2 << 20))
    assert names(small_disk) == []


def test_a_disk_that_fills_up_while_a_checkpoint_is_written(
    make_base: MakeBase, small_disk: Path
) -> None:
    base = BaseCheckpoint.open(make_base())

    def fill_the_disk(done: int, total: int) -> None:
        if not (small_disk / "somebody else's").exists():
            with (small_disk / "somebody else's").open("wb", buffering=0) as file:
                try:
                    while file.write(bytes(4096)):
                        pass
                except OSError as error:
                    assert error.errno == errno.ENOSPC  # noqa: PT017 - the premise of the test

    with (
        pytest.raises(
            OutputError, match=r"the disk is full: 0 bytes are free; the output needs \d+\.?\d* kB"
        ),
        staged_directory(small_disk / "out") as folder,
    ):
        write_checkpoint(
            base,
            folder,
            rename=lambda name: f"x.{name}",
            new_tensors={},
            config=base.config,
            on_progress=fill_the_disk,
        )
    assert names(small_disk) == ["somebody else's"]


def test_space_is_asked_for_before_writing_and_for_holes_where_they_take_it(
    make_base: MakeBase, small_disk: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    base = BaseCheckpoint.open(make_base())
    # The small disk is one in memory, where reading a hole takes room.
    for tensor in (torch.zeros(2_000_000), Zeros((2_000_000,), torch.float32)):
        with (
            pytest.raises(
                OutputError, match=r"not enough space: .*8.* MB are needed, 1\.05 MB are"
            ),
            staged_directory(small_disk / "out") as folder,
        ):
            write_checkpoint(
                base,
                folder,
                rename=lambda name: name,
                new_tensors={"x": tensor},
                config=base.config,
                on_progress=lambda done, total: pytest.fail("nothing may be written"),
            )
        assert names(small_disk) == []
    # As on a disk.
    monkeypatch.setattr(space, "_IN_MEMORY", frozenset())
    with staged_directory(small_disk / "out") as folder:
        write_checkpoint(
            base,
            folder,
            rename=lambda name: name,
            new_tensors={"x": Zeros((2_000_000,), torch.float32)},
            config=base.config,
        )
    assert names(small_disk) == ["out"]


def test_a_mount_point_is_refused(small_disk: Path) -> None:
    with (
        pytest.raises(OutputError, match="this is a mount point"),
        staged_directory(small_disk),
    ):
        pytest.fail("the block must not run")
    assert names(small_disk) == []


def test_free_space(tmp_path: Path) -> None:
    require_free_space(tmp_path, 1)
    free = shutil.disk_usage(tmp_path).free
    with pytest.raises(OutputError, match="are needed"):
        require_free_space(tmp_path, 10 * free)


def test_only_a_lack_of_room_is_called_so(tmp_path: Path) -> None:
    assert full_disk(OSError(errno.EIO, "I/O error"), tmp_path) is None
    quota = full_disk(OSError(errno.EDQUOT, "quota"), tmp_path, 12_345_678)
    assert quota is not None
    assert "the quota is used up" in str(quota)
    assert "the output needs 12.3 MB" in str(quota)


@pytest.mark.parametrize(
    ("size", "text"),
    [
        (0, "0 bytes"),
        (9_999, "9999 bytes"),
        (10_000, "10 kB"),
        (4_200_000_000, "4.2 GB"),
        (5 * 10**15, "5e+03 TB"),
    ],
)
def test_readable_sizes(size: int, text: str) -> None:
    assert readable_size(size) == text


@pytest.mark.parametrize("name", ["x" * 300, f"{'x' * 300}/out"])
def test_a_name_that_is_too_long_is_an_error_of_the_output(tmp_path: Path, name: str) -> None:
    with (
        pytest.raises(OutputError, match="cannot be written: File name too long"),
        staged_directory(tmp_path / name),
    ):
        pass
    assert not any(tmp_path.iterdir())
