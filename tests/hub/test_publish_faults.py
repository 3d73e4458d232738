"""Whatever happens while publishing: one whole commit or none, and a rerun that ends well."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from hubsplice.errors import OutputError
from tests.hub.conftest import Publisher, build_steered
from tests.hub.test_publish import of_folder, published_files
from tests.loopback.client import LoopbackHub
from tests.loopback.faults import (
    Action,
    ApplyThenDrop,
    ApplyThenStatus,
    CommitByOther,
    Drop,
    ExpireToken,
    FullDisk,
    KillAfter,
    KillBefore,
    Slow,
    Status,
    TagByOther,
)

KILLED = -9
REFUSED = 7
CONFLICT = 8


@dataclass(frozen=True)
class Step:
    """A request that publishing makes."""

    method: str
    path: str


CREATE = Step("POST", "/api/repos/create")
PREUPLOAD = Step("POST", "/preupload/")
COMMIT = Step("POST", "/commit/main")
TAG = Step("POST", "/tag/")
READ = Step("GET", "/api/models/me/.*/(revision|refs|tree)")
CHECK = Step("POST", "/api/validate-yaml")

UPLOADS = {
    "lfs": (Step("POST", "/objects/batch"), Step("PUT", "/_storage/")),
    "multipart": (Step("POST", "/objects/batch"), Step("PUT", "/_storage/")),
    "xet": (Step("GET", "/xet-write-token/"), Step("POST", "/v1/(xorbs|shards)")),
}


def inject(hub: LoopbackHub, action: Action, step: Step, *, times: int | None = 1) -> None:
    hub.fault(action, method=step.method, path=step.path, times=times)


def ends_well(
    publish: Publisher, built: Path, repo: str, hub: LoopbackHub, *, before: int = 1
) -> None:
    """A rerun without faults publishes the rest, exactly once, and nothing was sent twice."""
    hub.clear_faults()
    done = publish(built, "--repo-id", repo, "--tag", "v1.0")
    assert done.code == 0, done.err
    history = hub.history(repo)
    assert len(history) == before + 1
    assert hub.tags(repo) == {"v1.0": history[0].oid}
    assert published_files(hub, repo) == of_folder(built)
    sent = hub.counters().content_bytes
    assert publish(built, "--repo-id", repo, "--tag", "v1.0").code == 0
    assert len(hub.history(repo)) == before + 1
    assert hub.counters().content_bytes == sent


def none_or_whole(hub: LoopbackHub, repo: str, built: Path) -> None:
    """Nobody who reads the repository now sees half of a model."""
    try:
        files = published_files(hub, repo)
    except RuntimeError:
        return
    assert files in ({}, of_folder(built))


# By name: the step that dies (a number is one of the upload's), before or after the Hub did what it
# asks for.
KILLS: dict[str, tuple[Step | int, Action]] = {
    "before the repository": (CREATE, KillBefore()),
    "after the repository": (CREATE, KillAfter()),
    "before preupload": (PREUPLOAD, KillBefore()),
    "before the upload": (0, KillBefore()),
    "in the upload": (1, KillAfter()),
    "before the commit": (COMMIT, KillBefore()),
    "after the commit": (COMMIT, KillAfter()),
    "before the tag": (TAG, KillBefore()),
    "after the tag": (TAG, KillAfter()),
}


@pytest.mark.parametrize("hub", ["lfs", "xet"], indirect=True)
@pytest.mark.parametrize("when", KILLS)
def test_a_killed_run_is_finished_by_the_same_command(
    publish: Publisher, built: Path, repo: str, hub: LoopbackHub, when: str
) -> None:
    place, action = KILLS[when]
    step = UPLOADS[hub.transfer][place] if isinstance(place, int) else place
    inject(hub, action, step)
    assert publish(built, "--repo-id", repo, "--tag", "v1.0").code == KILLED
    assert sum(fault.hits for fault in hub.faults()) == 1
    none_or_whole(hub, repo, built)
    uploaded = hub.counters()
    ends_well(publish, built, repo, hub)
    if place in (COMMIT, TAG):
        # The weights were there, and so were the regular files if the commit was.
        sent = hub.counters()
        assert sent.lfs_bytes == uploaded.lfs_bytes
        assert sent.xorb_bytes == uploaded.xorb_bytes
        if when != "before the commit":
            assert sent.commit_bytes == uploaded.commit_bytes


@pytest.mark.parametrize("hub", ["lfs", "multipart", "xet"], indirect=True)
@pytest.mark.parametrize("action", [Status(status=503), Drop()], ids=["503", "drop"])
def test_a_moments_failure_of_every_step_is_no_failure(
    publish: Publisher, built: Path, repo: str, hub: LoopbackHub, action: Action
) -> None:
    steps = [READ, CHECK, CREATE, PREUPLOAD, *UPLOADS[hub.transfer], COMMIT, TAG]
    for step in steps:
        inject(hub, action, step)
    done = publish(built, "--repo-id", repo, "--tag", "v1.0")
    assert done.code == 0, done.err
    assert all(fault.hits == 1 for fault in hub.faults())
    ends_well(publish, built, repo, hub)


@pytest.mark.parametrize(
    "action", [ApplyThenStatus(status=504), ApplyThenDrop()], ids=["504", "drop"]
)
@pytest.mark.parametrize("step", [CREATE, COMMIT, TAG], ids=["create", "commit", "tag"])
def test_what_was_done_although_the_answer_was_lost_is_not_done_twice(
    publish: Publisher, built: Path, repo: str, hub: LoopbackHub, step: Step, action: Action
) -> None:
    inject(hub, action, step)
    done = publish(built, "--repo-id", repo, "--tag", "v1.0")
    assert done.code == 0, done.err
    assert len(hub.history(repo)) == 2
    ends_well(publish, built, repo, hub)


def test_a_pull_request_whose_answer_was_lost_is_not_opened_twice(
    publish: Publisher, base: Path, built: Path, repo: str, hub: LoopbackHub, tmp_path: Path
) -> None:
    publish(built, "--repo-id", repo)
    stronger = build_steered(base, tmp_path / "stronger", strength=3.0).folder
    inject(hub, ApplyThenStatus(status=504), COMMIT)
    done = publish(stronger, "--repo-id", repo, "--pr")
    assert done.code == 0, done.err
    assert f"{repo}/discussions/1" in done.out
    assert published_files(hub, repo, "refs/pr/1") == of_folder(stronger)
    with pytest.raises(RuntimeError, match="refs/pr/2"):
        hub.files(repo, "refs/pr/2")


@pytest.mark.parametrize("hub", ["lfs", "xet"], indirect=True)
@pytest.mark.parametrize("place", ["upload", "commit"])
def test_storage_that_stays_full_is_an_error_and_a_rerun_ends_well(
    publish: Publisher, built: Path, repo: str, hub: LoopbackHub, place: str
) -> None:
    step = UPLOADS[hub.transfer][1] if place == "upload" else COMMIT
    inject(hub, FullDisk(), step, times=None)
    done = publish(built, "--repo-id", repo, "--tag", "v1.0")
    assert done.code == REFUSED
    assert "507" in done.err or "storage" in done.err, done.err
    assert published_files(hub, repo) == {}
    assert hub.tags(repo) == {}
    ends_well(publish, built, repo, hub)


@pytest.mark.parametrize("hub", ["lfs", "xet"], indirect=True)
@pytest.mark.parametrize("place", ["upload", "commit", "tag"])
def test_a_token_that_expires_on_the_way(
    publish: Publisher, built: Path, repo: str, hub: LoopbackHub, place: str
) -> None:
    step = {"upload": UPLOADS[hub.transfer][0], "commit": COMMIT, "tag": TAG}[place]
    inject(hub, ExpireToken(), step)
    done = publish(built, "--repo-id", repo, "--tag", "v1.0")
    assert done.code == REFUSED
    assert "hf auth login" in done.err, done.err
    hub.clear_faults()
    none_or_whole(hub, repo, built)
    ends_well(publish, built, repo, hub)


@pytest.mark.parametrize("step", [PREUPLOAD, COMMIT], ids=["preupload", "commit"])
def test_somebody_who_writes_meanwhile_is_named_and_nothing_is_lost(
    publish: Publisher, base: Path, built: Path, repo: str, hub: LoopbackHub, step: Step
) -> None:
    publish(built, "--repo-id", repo)
    stronger = build_steered(base, publish.folder / "stronger", strength=3.0).folder
    inject(hub, CommitByOther(repo=repo), step)
    refused = publish(stronger, "--repo-id", repo, "--tag", "v1.0")
    assert refused.code == CONFLICT
    assert "someone-else moved main" in refused.err
    assert "Update notes.md" in refused.err
    history = hub.history(repo)
    assert [commit.author for commit in history] == ["someone-else", "me", "me"]
    assert hub.tags(repo) == {}
    uploaded = hub.counters()
    ends_well(publish, stronger, repo, hub, before=3)
    assert hub.counters().xorb_bytes == uploaded.xorb_bytes
    assert "notes.md" in hub.files(repo, history[0].oid)


def test_a_writer_on_top_of_a_commit_whose_answer_was_lost_is_no_conflict(
    publish: Publisher, built: Path, repo: str, hub: LoopbackHub
) -> None:
    inject(hub, ApplyThenStatus(status=504), COMMIT)
    hub.fault(CommitByOther(repo=repo), method="GET", path="/commits/main")
    done = publish(built, "--repo-id", repo, "--tag", "v1.0")
    assert done.code == 0, done.err
    history = hub.history(repo)
    assert [commit.author for commit in history] == ["someone-else", "me", "me"]
    assert hub.tags(repo) == {"v1.0": history[1].oid}


def test_a_tag_that_somebody_sets_meanwhile_is_a_conflict(
    publish: Publisher, built: Path, repo: str, hub: LoopbackHub
) -> None:
    publish(built, "--repo-id", repo)
    hub.commit_by_other(repo)
    theirs = hub.history(repo)[0].oid
    inject(hub, TagByOther(repo=repo, tag="v1.0", revision=theirs), COMMIT)
    refused = publish(built, "--repo-id", repo, "--tag", "v1.0")
    assert refused.code == CONFLICT
    assert theirs in refused.err
    history = hub.history(repo)
    assert history[0].oid in refused.err
    assert hub.tags(repo) == {"v1.0": theirs}
    assert published_files(hub, repo) == of_folder(built)


@pytest.mark.parametrize("hub", ["lfs"], indirect=True)
def test_a_slow_link_takes_its_time(
    publish: Publisher, built: Path, repo: str, hub: LoopbackHub
) -> None:
    inject(hub, Slow(bytes_per_second=300_000), UPLOADS["lfs"][1], times=None)
    done = publish(built, "--repo-id", repo, "--tag", "v1.0")
    assert done.code == 0, done.err
    ends_well(publish, built, repo, hub)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Callable[[int], Path]]:
    """A function that mounts a filesystem of so many bytes, and gives where."""
    mount = shutil.which("mount")
    if mount is None or os.geteuid() != 0:
        pytest.skip("a disk of its own takes root and mount")
    place = tmp_path / "disk"
    place.mkdir()

    def mounted(size: int) -> Path:
        made = subprocess.run(
            [mount, "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(place)],
            capture_output=True,
            text=True,
            check=False,
        )
        if made.returncode != 0:
            pytest.skip(f"a disk of its own can't be mounted here: {made.stderr.strip()}")
        return place

    yield mounted
    if place.is_mount():
        subprocess.run(["umount", "--lazy", str(place)], check=True)


def test_a_full_disk_under_the_clients_cache(
    publish: Publisher,
    built: Path,
    repo: str,
    hub: LoopbackHub,
    small_disk: Callable[[int], Path],
) -> None:
    publish.more = {"HF_XET_CACHE": str(small_disk(8192))}
    done = publish(built, "--repo-id", repo, "--tag", "v1.0")
    assert done.code == OutputError.exit_code
    assert "HF_XET_CACHE" in done.err
    assert published_files(hub, repo) == {}
    publish.more = {}
    ends_well(publish, built, repo, hub)


def test_a_full_disk_beside_the_build_hinders_the_prediction_alone(
    publish: Publisher,
    built: Path,
    repo: str,
    hub: LoopbackHub,
    small_disk: Callable[[int], Path],
) -> None:
    size = sum(path.stat().st_size for path in built.rglob("*") if path.is_file())
    folder = shutil.copytree(built, small_disk(size + 150_000) / "built")
    done = publish(folder, "--repo-id", repo, "--tag", "v1.0")
    assert done.code == 0, done.err
    assert "it is at most" in done.err
    assert [path.name for path in folder.parent.iterdir()] == ["built"]
    assert published_files(hub, repo) == of_folder(folder)
