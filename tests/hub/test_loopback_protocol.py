"""The loopback Hub behaves as the Hub does, as far as huggingface_hub can tell."""

from __future__ import annotations

import hashlib
import json
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx2
import pytest

from tests.loopback import git
from tests.loopback.client import LoopbackHub
from tests.loopback.session import ClientSession

# What every script of a client begins with.
PRELUDE = """
import os
from huggingface_hub import (
    CommitOperationAdd, CommitOperationCopy, CommitOperationDelete, HfApi, get_hf_file_metadata,
    get_token, hf_hub_download, hf_hub_url, snapshot_download
)
api = HfApi()
def add(path, content):
    return CommitOperationAdd(path, content)
def failure(call, *args, **kwargs):
    try:
        call(*args, **kwargs)
    except Exception as error:
        response = getattr(error, "response", None)
        status = response.status_code if response is not None else None
        return [type(error).__name__, status, str(error)]
    return None
"""

RunClient = Callable[..., Any]


def script_runner(session: ClientSession) -> RunClient:
    """A function that runs a script and gives what it showed."""

    def run(script: str, token: str | None = "hf_writer") -> Any:
        return session.run(PRELUDE + script, token)

    return run


@pytest.fixture(scope="module")
def hub(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LoopbackHub]:
    # Pages this small make every listing a paginated one.
    with LoopbackHub(tmp_path_factory.mktemp("hub"), page_size=3) as hub:
        yield hub


@pytest.fixture(scope="module")
def client(hub: LoopbackHub, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunClient]:
    with ClientSession(hub, tmp_path_factory.mktemp("home")) as session:
        yield script_runner(session)


@pytest.mark.parametrize("transfer", ["lfs", "multipart", "xet"])
def test_what_is_committed_is_what_is_downloaded(transfer: Any, tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    (folder / "nested").mkdir(parents=True)
    (folder / "README.md").write_text("---\nlicense: mit\ntags:\n- test\n---\n# Hello\n")
    (folder / "config.json").write_text("{}")
    (folder / "nested" / "empty.txt").write_text("")
    large = bytes(range(256)) * 1000
    (folder / "nested" / "model.safetensors").write_bytes(large)
    with (
        LoopbackHub(tmp_path / "hub", transfer, part_size=100_000) as hub,
        ClientSession(hub, tmp_path / "home") as session,
    ):
        client = script_runner(session)
        shown = client(f"""
folder = {str(folder)!r}
api.create_repo("me/model")
parent = api.model_info("me/model").sha
paths = ["README.md", "config.json", "nested/empty.txt", "nested/model.safetensors"]
operations = [add(path, os.path.join(folder, path)) for path in paths]
commit = api.create_commit("me/model", operations, commit_message="One", parent_commit=parent)
local = snapshot_download("me/model")
checked = api.verify_repo_checksums("me/model", local_dir=folder)
info = api.model_info("me/model")
modified = [os.path.join(local, path) for path in paths]
show([commit.oid, parent, local, info.sha, info.card_data.license, info.tags,
      [m["path"] for m in checked.mismatches], checked.missing_paths])
""")
        oid, parent, local, sha, license_, tags, mismatches, missing = shown
        for path in folder.rglob("*"):
            if path.is_file():
                assert (Path(local) / path.relative_to(folder)).read_bytes() == path.read_bytes()
        assert sha == oid
        assert license_ == "mit"
        assert {"test", "license:mit"} <= set(tags)
        assert mismatches == []
        assert missing == [".gitattributes"]
        history = hub.history("me/model")
        assert [commit.oid for commit in history] == [oid, parent]
        assert history[0].title == "One"
        assert history[0].author == "me"
        assert hub.files("me/model")["nested/model.safetensors"] == sha256(large)
        counters = hub.counters()
        assert counters.commit_bytes > 0
        puts = {"lfs": 1, "multipart": 3, "xet": 0}[transfer]
        assert counters.count("PUT", "/_storage/") == puts
        assert counters.lfs_bytes == (len(large) if puts else 0)
        assert (counters.xorb_bytes > 0) == (transfer == "xet")
        # The same content under another name, and again under its own, sends nothing more.
        client(f"""
large = os.path.join({str(folder)!r}, "nested", "model.safetensors")
api.create_commit("me/model", [add("copy.safetensors", large)], commit_message="Two")
show(api.create_commit("me/model", [add("copy.safetensors", large)], commit_message="No").oid)
""")
        assert hub.counters().lfs_bytes == counters.lfs_bytes
        assert len(hub.history("me/model")) == 3


def test_ids_are_those_of_git(tmp_path: Path) -> None:
    contents = {"a": b"1", "b.txt": b"2\n", "b/c": b"3", "b/d/e": b"4", "b-": b"5"}
    for path, content in contents.items():
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_bytes(content)

    def run(*arguments: str) -> str:
        command = ["git", "-c", "core.autocrlf=false", "-C", str(tmp_path), *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()

    run("init", "--quiet")
    run("add", ".")
    root = run("write-tree")
    ids = git.tree_ids({path: git.blob_id(content) for path, content in contents.items()})
    assert ids[""] == root
    assert ids["b"] == run("rev-parse", f"{root}:b")
    assert ids["b/d"] == run("rev-parse", f"{root}:b/d")
    assert git.blob_id(b"2\n") == run("rev-parse", f"{root}:b.txt")


def test_a_commit_on_another_parent_is_refused(hub: LoopbackHub, client: RunClient) -> None:
    refused = client("""
api.create_repo("me/parents")
first = api.model_info("me/parents").sha
api.create_commit("me/parents", [add("a.txt", b"1")], commit_message="1", parent_commit=first)
show(failure(api.create_commit, "me/parents", [add("a.txt", b"2")], commit_message="2",
             parent_commit=first))
""")
    assert refused[1] == 412
    assert "A commit has happened since. Please refresh and try again." in refused[2]
    assert [commit.title for commit in hub.history("me/parents")] == ["1", "initial commit"]


def test_a_tag_is_never_moved(hub: LoopbackHub, client: RunClient) -> None:
    first, second, refused, refs = client("""
api.create_repo("me/tags")
first = api.model_info("me/tags").sha
second = api.create_commit("me/tags", [add("a", b"1")], commit_message="1").oid
api.create_tag("me/tags", tag="v1.0", tag_message="One", revision=first)
refused = failure(api.create_tag, "me/tags", tag="v1.0", revision=second)
api.create_tag("me/tags", tag="v1.0", revision=second, exist_ok=True)
api.create_tag("me/tags", tag="gone")
api.delete_tag("me/tags", tag="gone")
show([first, second, refused, {ref.name: ref.target_commit for ref in
                               api.list_repo_refs("me/tags").tags}])
""")
    assert refused[1] == 409
    assert refs == {"v1.0": first} == hub.tags("me/tags")
    assert first != second


def test_repositories_are_created_once_and_deleted(client: RunClient) -> None:
    refused, url, foreign, missing = client("""
api.create_repo("acme/once", private=True)
refused = failure(api.create_repo, "acme/once")
url = api.create_repo("acme/once", exist_ok=True)
foreign = failure(api.create_repo, "someone-else/mine")
api.delete_repo("acme/once")
show([refused, url, foreign, failure(api.model_info, "acme/once")])
""")
    assert refused[1] == 409
    assert url.endswith("/acme/once")
    assert foreign[1] == 403
    assert missing[:2] == ["RepositoryNotFoundError", 404]


def test_a_commit_names_only_what_the_repository_holds(
    hub: LoopbackHub, client: RunClient, tmp_path: Path
) -> None:
    folder = tmp_path / "seed"
    folder.mkdir()
    (folder / "model.safetensors").write_bytes(b"\0" * 999)
    hub.seed("someone-else/holder", folder)
    client('api.create_repo("me/holdings"); show(0)')
    for oid in ("0" * 64, sha256(b"\0" * 999)):
        lines = [
            {"key": "header", "value": {"summary": "x"}},
            {
                "key": "lfsFile",
                "value": {"path": "m.safetensors", "algo": "sha256", "oid": oid, "size": 999},
            },
        ]
        answer = post(hub, "/api/models/me/holdings/commit/main", ndjson=lines)
        assert answer.status_code == 400
        assert "does not exist" in answer.headers["X-Error-Message"]
    assert len(hub.history("me/holdings")) == 1


def test_an_upload_with_other_bytes_is_refused(hub: LoopbackHub, client: RunClient) -> None:
    client('api.create_repo("me/bytes"); show(0)')
    content = b"right" * 100
    body = {
        "operation": "upload",
        "transfers": ["basic"],
        "objects": [{"oid": sha256(content), "size": len(content)}],
        "hash_algo": "sha256",
    }

    def batch() -> dict[str, Any]:
        answer = post(hub, "/me/bytes.git/info/lfs/objects/batch", json=body).json()
        return dict(answer["objects"][0])

    href = batch()["actions"]["upload"]["href"]
    assert href.startswith("http://localhost:")
    assert hub.endpoint.startswith("http://127.0.0.1:")
    assert httpx2.put(href, content=b"wrong" * 100).status_code == 400
    assert httpx2.put(href, content=content[:-1]).status_code == 400
    verify = {"oid": sha256(content), "size": len(content)}
    assert post(hub, "/me/bytes.git/info/lfs/verify", json=verify).status_code == 404
    assert "actions" in batch()
    assert httpx2.put(href, content=content).status_code == 200
    assert post(hub, "/me/bytes.git/info/lfs/verify", json=verify).status_code == 200
    assert "actions" not in batch()


def test_lfs_files_without_a_pattern_extend_gitattributes(client: RunClient) -> None:
    before, after, modes = client("""
api.create_repo("me/patterns")
path = api.hf_hub_download("me/patterns", ".gitattributes")
before = open(path).read()
operations = [add("blob of.data", b"\\0" * 2000)]
operations += [add(path, b"text") for path in ("x.safetensors", "t.txt")]
api.create_commit("me/patterns", operations, commit_message="1")
after = open(api.hf_hub_download("me/patterns", ".gitattributes")).read()
show([before, after, {f.path: f.lfs is not None for f in api.list_repo_tree("me/patterns")}])
""")
    assert "*.safetensors filter=lfs diff=lfs merge=lfs -text\n" in before
    assert after == before + "blob[[:space:]]of.data filter=lfs diff=lfs merge=lfs -text\n"
    assert modes == {
        ".gitattributes": False,
        "blob of.data": True,
        "t.txt": False,
        "x.safetensors": True,
    }


def test_files_and_folders_are_deleted(hub: LoopbackHub, client: RunClient) -> None:
    missing = client("""
api.create_repo("me/deletions")
operations = [add(path, b"1") for path in ("a", "b", "c/d", "c/e/f")]
api.create_commit("me/deletions", operations, commit_message="1")
api.create_commit("me/deletions", [CommitOperationDelete("a"), CommitOperationDelete("c/")],
                  commit_message="2")
show(failure(api.delete_file, "a", "me/deletions"))
""")
    assert set(hub.files("me/deletions")) == {".gitattributes", "b"}
    assert missing[:2] == ["RemoteEntryNotFoundError", 404]
    assert "A file with this name doesn't exist" in missing[2]


def test_lists_are_complete_over_all_pages(client: RunClient) -> None:
    tree, folder, expanded, commits, info, nothing = client("""
api.create_repo("me/pages")
paths = [f"f/{i}" for i in range(5)]
oids = [api.create_commit("me/pages", [add(path, b"1")], commit_message=path).oid for path in paths]
tree = sorted(f.path for f in api.list_repo_tree("me/pages", recursive=True))
folder = sorted(f.path for f in api.list_repo_tree("me/pages", "f"))
files = api.list_repo_tree("me/pages", "f", expand=True)
expanded = {f.path: f.last_commit.oid for f in files} == dict(zip(paths, oids))
commits = [commit.commit_id for commit in api.list_repo_commits("me/pages")][:-1] == oids[::-1]
info = [type(f).__name__ for f in api.get_paths_info("me/pages", ["f", "f/3", "no"])]
show([tree, folder, expanded, commits, info, failure(list, api.list_repo_tree("me/pages", "no"))])
""")
    assert folder == [f"f/{i}" for i in range(5)]
    assert tree == [".gitattributes", "f", *folder]
    assert expanded
    assert commits
    assert info == ["RepoFolder", "RepoFile"]
    assert nothing[0] == "RemoteEntryNotFoundError"


def test_pull_requests(hub: LoopbackHub, client: RunClient) -> None:
    client("""
api.create_repo("me/pulls")
show(api.create_commit("me/pulls", [add("a", b"1"), add("b", b"1")], commit_message="1").oid)
""")
    opened, revision, status = client(
        """
forbidden = failure(api.create_commit, "me/pulls", [add("a", b"2")], commit_message="2")
commit = api.create_commit("me/pulls", [add("a", b"2"), add("w.safetensors", b"3" * 50)],
                           commit_message="Better", create_pr=True)
api.create_commit("me/pulls", [add("c", b"3")], commit_message="More", revision=commit.pr_revision)
local = snapshot_download("me/pulls", revision=commit.pr_revision)
show([commit.pr_num, sorted(os.listdir(local)), forbidden[1]])
""",
        token="hf_other",
    )
    assert opened == 1
    assert revision == [".gitattributes", "a", "b", "c", "w.safetensors"]
    assert status == 403
    assert len(hub.history("me/pulls")) == 2
    assert [c.title for c in hub.history("me/pulls", "refs/pr/1")][:2] == ["More", "Better"]
    hub.commit_by_other("me/pulls", "b", "9")
    before, after, pull_refs, conflicts, refused = client("""
before = api.get_discussion_details("me/pulls", 1)
api.merge_pull_request("me/pulls", 1)
after = api.get_discussion_details("me/pulls", 1)
second = api.create_commit("me/pulls", [add("a", b"4")], commit_message="4", create_pr=True)
api.create_commit("me/pulls", [add("a", b"5")], commit_message="5")
refs = api.list_repo_refs("me/pulls", include_pull_requests=True).pull_requests
show([before.status, [after.status, after.merge_commit_oid], [ref.ref for ref in refs],
      api.get_discussion_details("me/pulls", second.pr_num).conflicting_files,
      failure(api.merge_pull_request, "me/pulls", second.pr_num)])
""")
    assert before == "open"
    assert after[0] == "merged"
    history = hub.history("me/pulls")
    assert after[1] == history[1].oid
    merged = hub.files("me/pulls", after[1])
    assert merged["a"] == sha256(b"2")
    assert merged["b"] == sha256(b"9")
    assert merged["c"] == sha256(b"3")
    assert pull_refs == ["refs/pr/1", "refs/pr/2"]
    assert conflicts == ["a"]
    assert refused[1] == 409


def test_discussions(client: RunClient) -> None:
    listed, details = client("""
api.create_repo("me/talk")
pull = api.create_pull_request("me/talk", title="Mine")
api.create_discussion("me/talk", title="About")
api.comment_discussion("me/talk", 2, "A comment")
api.change_discussion_status("me/talk", 2, "closed")
listed = [[d.num, d.is_pull_request, d.status] for d in api.get_repo_discussions("me/talk")]
show([listed, [event.type for event in api.get_discussion_details("me/talk", 2).events]])
""")
    assert listed == [[2, False, "closed"], [1, True, "draft"]]
    assert details == ["comment", "comment", "status-change"]


def test_access(hub: LoopbackHub, client: RunClient, tmp_path: Path) -> None:
    folder = tmp_path / "seed"
    folder.mkdir()
    (folder / "config.json").write_text("{}")
    hub.seed("me/public", folder)
    hub.seed("me/private", folder, private=True)
    hub.seed("me/gated", folder, gated=True)
    failures = client(
        """
def outcomes(token):
    api = HfApi(token=token)
    gated = hf_hub_url("me/gated", "config.json")
    calls = [
        failure(api.whoami),
        failure(api.model_info, "me/private"),
        failure(get_hf_file_metadata, gated, token=token),
        failure(api.create_tag, "me/public", tag=str(token)),
        failure(api.create_tag, "me/private", tag=str(token)),
    ]
    return [call and call[:2] for call in calls]
show([outcomes(token) for token in ("hf_writer", "hf_reader", "hf_other", "hf_expired", False)])
""",
        token=None,
    )
    writer, reader, other, expired, anonymous = failures
    assert writer == [None] * 5
    assert reader == [None, None, None, ["HfHubHTTPError", 403], ["HfHubHTTPError", 403]]
    assert other == [
        None,
        ["RepositoryNotFoundError", 404],
        ["GatedRepoError", 403],
        ["HfHubHTTPError", 403],
        ["RepositoryNotFoundError", 404],
    ]
    assert expired == [["HfHubHTTPError", 401]] * 5
    # Without a token the client doesn't ask who it is.
    assert anonymous[1:] == [
        ["RepositoryNotFoundError", 401],
        ["GatedRepoError", 401],
        ["HfHubHTTPError", 401],
        ["RepositoryNotFoundError", 401],
    ]
    assert set(hub.tags("me/public")) == {"hf_writer"}


def test_somebody_with_access_reads_a_gated_repository(
    hub: LoopbackHub, client: RunClient, tmp_path: Path
) -> None:
    folder = tmp_path / "seed"
    folder.mkdir()
    (folder / "config.json").write_text("{}")
    hub.seed("someone-else/gated", folder, gated=True, granted=("me",))
    gated, content = client("""
path = hf_hub_download("someone-else/gated", "config.json")
show([api.model_info("someone-else/gated").gated, open(path).read()])
""")
    assert gated == "auto"
    assert content == "{}"


@pytest.mark.parametrize(
    ("card", "problem"),
    [
        ("---\nlicense: mit\nbase_model: a/b\nbase_model_relation: finetune\n---\n", None),
        ("---\nlicense: other\nlicense_name: mine\nlicense_link: LICENSE\n---\n", None),
        ("---\nlicense: proprietary\n---\n", '"license" must be one of [apache-2.0, mit,'),
        ("---\nlicense: other\nlicense_name: My License\n---\n", '"license_name" with value'),
        ("---\nbase_model: /a/folder\n---\n", '"base_model" with value "/a/folder"'),
        ("---\nbase_model_relation: copy\n---\n", '"base_model_relation" must be one of'),
        ("---\ntags: one\n---\n", '"tags" must be an array'),
        ("---\na: [1\n---\n", "YAML metadata error"),
        ("---\nmodel-index:\n- name: x\n  results:\n  - task: {}\n---\n", "task.type"),
    ],
)
def test_metadata_of_cards(card: str, problem: str | None, hub: LoopbackHub) -> None:
    answer = post(hub, "/api/validate-yaml", json={"content": card, "repoType": "model"})
    messages = [error["message"] for error in answer.json()["errors"]]
    assert answer.status_code == (400 if problem else 200)
    assert bool(messages) == bool(problem)
    assert all(problem in message for message in messages[:1] if problem)


def test_a_bad_card_is_refused_before_anything_is_sent(hub: LoopbackHub, client: RunClient) -> None:
    before = hub.counters().lfs_bytes
    refused = client("""
api.create_repo("me/card")
operations = [add("w.safetensors", b"1" * 99), add("README.md", b"---\\nlicense: no\\n---\\n")]
show(failure(api.create_commit, "me/card", operations, commit_message="1"))
""")
    assert refused[0] == "ValueError"
    assert hub.counters().lfs_bytes == before
    assert len(hub.history("me/card")) == 1


def test_parts_of_files(hub: LoopbackHub, client: RunClient, tmp_path: Path) -> None:
    folder = tmp_path / "seed"
    folder.mkdir()
    content = bytes(range(200))
    (folder / "w.safetensors").write_bytes(content)
    (folder / "a.txt").write_text("0123456789")
    oid = hub.seed("me/ranges", folder)
    for name, whole in (("w.safetensors", content), ("a.txt", b"0123456789")):
        url = f"{hub.endpoint}/me/ranges/resolve/main/{name}"
        for header, part in (("2-4", whole[2:5]), ("5-", whole[5:]), ("-3", whole[-3:])):
            answer = httpx2.get(url, headers={"Range": f"bytes={header}"}, follow_redirects=True)
            assert answer.status_code == 206
            assert answer.content == part
        beyond = httpx2.get(url, headers={"Range": "bytes=999-"}, follow_redirects=True)
        assert beyond.status_code == 416
    head = httpx2.head(f"{hub.endpoint}/me/ranges/resolve/main/w.safetensors")
    assert head.status_code == 302
    assert head.headers["X-Repo-Commit"] == oid
    assert head.headers["X-Linked-Size"] == "200"
    assert head.headers["X-Linked-Etag"] == f'"{sha256(content)}"'
    missing = httpx2.head(f"{hub.endpoint}/me/ranges/resolve/main/no")
    assert missing.headers["X-Error-Code"] == "EntryNotFound"
    missing = httpx2.head(f"{hub.endpoint}/me/ranges/resolve/v9/a.txt")
    assert missing.headers["X-Error-Code"] == "RevisionNotFound"


def test_at_most_256_files_are_looked_up_at_once(hub: LoopbackHub, client: RunClient) -> None:
    client('api.create_repo("me/many"); show(0)')
    files = [{"path": f"{i}.txt", "sample": "", "size": 1} for i in range(257)]
    path = "/api/models/me/many/preupload/main"
    assert post(hub, path, json={"files": files}).status_code == 400
    assert post(hub, path, json={"files": files[1:]}).status_code == 200


def test_copies_from_another_repository(tmp_path: Path) -> None:
    folder = tmp_path / "seed"
    folder.mkdir()
    weights = bytes(range(256)) * 400
    (folder / "w.safetensors").write_bytes(weights)
    (folder / "config.json").write_text("{}")
    with (
        LoopbackHub(tmp_path / "hub", "xet") as hub,
        ClientSession(hub, tmp_path / "home") as session,
    ):
        hub.seed("someone-else/on-xet", folder)
        (folder / "w.safetensors").write_bytes(weights[::-1])
        hub.seed("someone-else/on-lfs", folder, on_xet=False)
        client = script_runner(session)
        on_lfs = client("""
def copy(path, source):
    return CommitOperationCopy(path, path, src_repo_id=source, src_repo_type="model")
api.create_repo("me/copies")
operations = [copy(path, "someone-else/on-xet") for path in ("w.safetensors", "config.json")]
operations.append(add("README.md", b"---\\nlicense: mit\\n---\\n"))
api.create_commit("me/copies", operations, commit_message="1")
show(failure(api.create_commit, "me/copies", [copy("w.safetensors", "someone-else/on-lfs")],
             commit_message="2"))
""")
        assert on_lfs[0] == "ValueError"
        assert "no xet hash" in on_lfs[2]
        files = hub.files("me/copies")
        assert files["w.safetensors"] == sha256(weights)
        assert files["config.json"] == sha256(b"{}")
        counters = hub.counters()
        assert counters.xorb_bytes == counters.lfs_bytes == 0
        assert counters.count("POST", "lfs-files/duplicate") == 1
        file = {"sha256": sha256(weights[::-1]), "xetHash": "0" * 64, "filename": "w.safetensors"}
        body = {"target": {"type": "model", "name": "me/copies"}, "files": [file]}
        path = "/api/models/someone-else/on-lfs/lfs-files/duplicate"
        failed = post(hub, path, json=body).json()["failed"]
        assert [failure["sha256"] for failure in failed] == [file["sha256"]]


def test_a_job_publishes_without_a_stored_token(
    hub: LoopbackHub, client: RunClient, tmp_path: Path
) -> None:
    client('api.create_repo("me/trusted"); api.create_repo("me/other"); show(0)')
    script = """
commit = api.create_commit("me/trusted", [add("a", b"1")], commit_message="From a job")
failed = [failure(api.create_tag, "me/other", tag="v1"), failure(api.create_repo, "me/new")]
print([status for _, status, _ in failed])
"""

    def job() -> subprocess.CompletedProcess[str]:
        environment = hub.oidc_environment(tmp_path / "home", "me/trusted")
        return hub.run(PRELUDE + script, environment)

    refused = job()
    assert refused.returncode != 0
    assert "No trusted publisher matches" in refused.stderr
    hub.trust("me/trusted")
    done = job()
    assert done.returncode == 0, done.stderr
    assert done.stdout == "[403, 401]\n"
    assert hub.history("me/trusted")[0].title == "From a job"


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def post(
    hub: LoopbackHub, path: str, *, json: Any = None, ndjson: list[Any] | None = None
) -> httpx2.Response:
    """A request as no client of huggingface_hub sends it."""
    headers = {"Authorization": "Bearer hf_writer"}
    if ndjson is None:
        return httpx2.post(hub.endpoint + path, json=json, headers=headers)
    return httpx2.post(hub.endpoint + path, content=lines_of(ndjson), headers=headers)


def lines_of(items: list[Any]) -> bytes:
    return b"".join(json.dumps(item).encode() + b"\n" for item in items)
