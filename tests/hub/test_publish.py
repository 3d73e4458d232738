"""Publishing as a process of its own, on the loopback Hub; what is read back is what was built."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.hub.conftest import TEXT, Publisher, build_steered
from tests.hub.forking import Forker
from tests.loopback.client import LoopbackHub
from tests.loopback.faults import Status

READ_BACK = """
import sys
import torch
from huggingface_hub import HfApi, snapshot_download
from transformers import AutoModelForCausalLM
repo, folder, revision = sys.argv[1:]
downloaded = snapshot_download(repo, revision=revision)
check = HfApi().verify_repo_checksums(repo, revision=revision, local_dir=folder)
assert not check.mismatches and check.missing_paths == [".gitattributes"], check
ids = torch.arange(3, 67)[None]
logits = [
    AutoModelForCausalLM.from_pretrained(f, dtype=torch.bfloat16)(ids).logits
    for f in (downloaded, folder)
]
assert torch.equal(*logits)
print("equal")
"""


def sha256s(folder: Path) -> dict[str, str]:
    import hashlib

    return {
        path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in folder.rglob("*")
        if path.is_file()
    }


NAMED_AFTER_THE_REPOSITORY = ("README.md", "card.json", "reproduce/SHA256SUMS")
"""The card, its data, and the list that has their checksums."""


def published_files(hub: LoopbackHub, repo: str, revision: str = "main") -> dict[str, str]:
    files = hub.files(repo, revision)
    others = (".gitattributes", *NAMED_AFTER_THE_REPOSITORY)
    return {name: sha for name, sha in files.items() if name not in others}


def of_folder(folder: Path) -> dict[str, str]:
    files = sha256s(folder)
    return {name: sha for name, sha in files.items() if name not in NAMED_AFTER_THE_REPOSITORY}


def answer(out: str) -> dict[str, Any]:
    content: dict[str, Any] = json.loads(out)
    return content


EVERY_WAY = pytest.mark.parametrize("hub", ["lfs", "multipart", "xet"], indirect=True)


@EVERY_WAY
def test_one_commit_one_tag_and_the_same_model(
    publish: Publisher, built: Path, repo: str, hub: LoopbackHub
) -> None:
    done = publish(built, "--repo-id", repo, "--tag", "v1.0", "--json")
    assert done.code == 0, done.err
    result = answer(done.out)
    history = hub.history(repo)
    assert [commit.title for commit in history] == [
        "Publish of-hub-tests, spliced",
        "initial commit",
    ]
    assert "times the noise floor" in history[0].message
    assert hub.tags(repo) == {"v1.0": history[0].oid}
    assert result["outcome"] == "published"
    assert result["commit"] == history[0].oid
    assert result["commit_url"] == f"{hub.endpoint}/{repo}/commit/{history[0].oid}"
    assert result["serve"] == f"vllm serve {repo} --dtype bfloat16"
    assert published_files(hub, repo) == of_folder(built)

    environment = hub.environment(publish.folder / "reader")
    check = subprocess.run(
        [sys.executable, "-c", READ_BACK, repo, str(publish_card(hub, repo, built)), "v1.0"],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert check.stdout.strip().endswith("equal"), check.stderr


def publish_card(hub: LoopbackHub, repo: str, built: Path) -> Path:
    """The folder with the card that was published, since the one there bears the folder's name.

    The published list of checksums is that of these files.
    """
    from urllib.request import Request, urlopen

    for name in NAMED_AFTER_THE_REPOSITORY:
        request = Request(
            f"{hub.endpoint}/{repo}/resolve/main/{name}",
            headers={"Authorization": "Bearer hf_writer"},
        )
        with urlopen(request) as response:
            (built / name).write_bytes(response.read())
    subprocess.run(
        ["sha256sum", "--check", "--strict", "--quiet", "reproduce/SHA256SUMS"],
        cwd=built,
        check=True,
    )
    return built


@EVERY_WAY
def test_a_second_run_does_nothing(
    publish: Publisher, built: Path, repo: str, hub: LoopbackHub
) -> None:
    first = publish(built, "--repo-id", repo, "--tag", "v1.0", "--json")
    hub.reset_counters()
    again = publish(built, "--repo-id", repo, "--tag", "v1.0", "--json")
    assert again.code == 0, again.err
    assert answer(again.out)["outcome"] == "already published"
    assert answer(again.out)["commit"] == answer(first.out)["commit"]
    assert hub.counters().content_bytes == 0
    assert {request.method for request in hub.counters().log} == {"GET"}
    assert len(hub.history(repo)) == 2


def test_a_tag_is_added_to_what_is_there(
    publish: Publisher, built: Path, repo: str, hub: LoopbackHub
) -> None:
    assert publish(built, "--repo-id", repo).code == 0
    assert hub.tags(repo) == {}
    assert publish(built, "--repo-id", repo, "--tag", "v1.0").code == 0
    assert hub.tags(repo) == {"v1.0": hub.history(repo)[0].oid}
    assert len(hub.history(repo)) == 2


def test_the_tagged_model_is_published_even_where_main_went_on(
    publish: Publisher, built: Path, repo: str, hub: LoopbackHub
) -> None:
    publish(built, "--repo-id", repo, "--tag", "v1.0")
    hub.commit_by_other(repo)
    done = publish(built, "--repo-id", repo, "--tag", "v1.0", "--json")
    assert answer(done.out)["outcome"] == "already published"
    assert len(hub.history(repo)) == 3


@EVERY_WAY
def test_a_new_version_replaces_every_file(
    publish: Publisher, base: Path, built: Path, repo: str, hub: LoopbackHub, tmp_path: Path
) -> None:
    publish(built, "--repo-id", repo, "--tag", "v1.0")
    hub.commit_by_other(repo, "model-00009-of-00009.safetensors")
    stronger = build_steered(base, tmp_path / "stronger", strength=3.0).folder
    plan = answer(publish(stronger, "--repo-id", repo, "--tag", "v1.1", "--dry-run", "--json").out)
    assert [file["path"] for file in plan["deleted"]] == ["model-00009-of-00009.safetensors"]
    assert "model-00001-of-00005.safetensors" in [f["path"] for f in plan["unchanged"]]
    assert hub.history(repo)[0].author == "someone-else"
    assert publish(stronger, "--repo-id", repo, "--tag", "v1.1").code == 0
    assert published_files(hub, repo) == of_folder(stronger)
    assert published_files(hub, repo, "v1.0") == of_folder(built)
    assert len(hub.history(repo)) == 4


def test_a_dry_run_of_a_recipe_builds_and_writes_nothing_there(
    publish: Publisher, base: Path, repo: str, hub: LoopbackHub, tmp_path: Path
) -> None:
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(
        f"base_model: {base}\nsplices: [{{after_layer: 1}}]\n{TEXT}publish: {{repo_id: {repo}}}\n"
    )
    publish.token = None
    done = publish(recipe, "--dry-run", "--json")
    assert done.code == 0, done.err
    plan = answer(done.out)
    (folder,) = (tmp_path / "builds").iterdir()
    assert plan["folder"] == f"builds/{folder.name}"
    sizes = {f["path"]: f["bytes"] for f in plan["created"]}
    # The card bears the name of the repository, and so has another length.
    named = ("README.md", "card.json")
    assert {name: size for name, size in sizes.items() if name not in named} == {
        path.relative_to(folder).as_posix(): path.stat().st_size
        for path in folder.rglob("*")
        if path.is_file() and path.name not in named
    }
    assert plan["total_bytes"] == sum(sizes.values())
    assert 0 < plan["upload_bytes"] <= plan["total_bytes"]
    assert plan["exists"] is False
    assert plan["private"] is True
    assert {request.method for request in hub.counters().log} <= {"GET", "HEAD"} | {"POST"}
    assert not any("/create" in request.path for request in hub.counters().log)

    publish.token = "hf_writer"
    published = publish(recipe, "--json")
    assert published.code == 0, published.err
    assert "found the recipe built in" in published.err
    assert published_files(hub, repo) == of_folder(folder)

    recipe.write_text(recipe.read_text().replace("after_layer: 1", "after_layer: 2"))
    other = publish(recipe, "--json")
    assert other.code == 0, other.err
    assert len(list((tmp_path / "builds").iterdir())) == 2
    assert len(hub.history(repo)) == 3


@pytest.fixture(scope="module")
def of_the_hub(
    hub: LoopbackHub, forker: Forker, base: Path, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """A build whose base is on the Hub."""
    folder = tmp_path_factory.mktemp("of-the-hub")
    hub.seed("acme/base", base)
    recipe = f"base_model: acme/base\nsplices: [{{after_layer: 2}}]\n{TEXT}"
    (folder / "recipe.yaml").write_text(recipe)
    done = forker.run(
        ["build", "recipe.yaml", "--output", "built"], hub.environment(folder / "home"), folder
    )
    assert done.returncode == 0, done.stderr
    return folder / "built"


def test_shards_of_the_base_are_copied_on_the_hub(
    publish: Publisher, of_the_hub: Path, repo: str, hub: LoopbackHub
) -> None:
    plan = answer(publish(of_the_hub, "--repo-id", repo, "--dry-run", "--json").out)
    copied = {file["path"]: file["bytes"] for file in plan["copied"]}
    # The first shards hold nothing that is renumbered.
    assert [name[:11] for name in copied] == ["model-00001", "model-00002"]
    assert plan["upload_bytes"] <= plan["total_bytes"] - sum(copied.values())
    hub.reset_counters()
    done = publish(of_the_hub, "--repo-id", repo, "--json")
    assert done.code == 0, done.err
    assert published_files(hub, repo) == of_folder(of_the_hub)
    assert hub.counters().count("POST", "/lfs-files/duplicate") == 1
    assert hub.counters().content_bytes < plan["total_bytes"] - sum(copied.values()) + 50_000


@pytest.mark.parametrize("hub", ["lfs"], indirect=True)
def test_what_is_not_on_xet_is_uploaded(
    publish: Publisher, of_the_hub: Path, repo: str, hub: LoopbackHub
) -> None:
    done = publish(of_the_hub, "--repo-id", repo, "--json")
    assert answer(done.out)["plan"]["copied"] == []
    assert published_files(hub, repo) == of_folder(of_the_hub)


def test_what_the_hub_will_not_copy_is_uploaded(
    publish: Publisher, of_the_hub: Path, repo: str, hub: LoopbackHub
) -> None:
    hub.fault(Status(status=403), path="/lfs-files/duplicate", times=None)
    done = publish(of_the_hub, "--repo-id", repo, "--json")
    assert done.code == 0, done.err
    assert "would not copy" in done.err
    assert published_files(hub, repo) == of_folder(of_the_hub)
    assert len(hub.history(repo)) == 2


def test_a_pull_request_is_opened_once_and_updated(
    publish: Publisher, base: Path, built: Path, repo: str, hub: LoopbackHub, tmp_path: Path
) -> None:
    refused = publish(built, "--repo-id", repo, "--pr")
    assert refused.code == 7
    assert "a pull request needs one" in refused.err

    publish(built, "--repo-id", repo)
    head = hub.history(repo)[0].oid
    stronger = build_steered(base, tmp_path / "stronger", strength=3.0).folder
    proposed = answer(publish(stronger, "--repo-id", repo, "--pr", "--json").out)
    assert proposed["outcome"] == "proposed"
    assert proposed["pull_request"] == f"{hub.endpoint}/{repo}/discussions/1"
    assert published_files(hub, repo, "refs/pr/1") == of_folder(stronger)
    again = answer(publish(stronger, "--repo-id", repo, "--pr", "--json").out)
    assert (again["outcome"], again["pull_request"]) == (
        "already proposed",
        proposed["pull_request"],
    )
    strongest = build_steered(base, tmp_path / "strongest", strength=4.0).folder
    updated = answer(publish(strongest, "--repo-id", repo, "--pr", "--json").out)
    assert updated["pull_request"] == proposed["pull_request"]
    assert published_files(hub, repo, "refs/pr/1") == of_folder(strongest)
    assert hub.history(repo)[0].oid == head


def test_what_hubsplice_did_not_publish_is_not_replaced_unasked(
    publish: Publisher, built: Path, repo: str, hub: LoopbackHub, tmp_path: Path
) -> None:
    other = tmp_path / "other"
    other.mkdir()
    (other / "model.safetensors").write_bytes(b"precious")
    hub.seed(repo, other)
    refused = publish(built, "--repo-id", repo)
    assert refused.code == 8
    assert "'model.safetensors'" in refused.err
    assert "--replace" in refused.err
    assert hub.counters().content_bytes == 0
    assert publish(built, "--repo-id", repo, "--replace").code == 0
    assert published_files(hub, repo) == of_folder(built)


def test_a_tag_elsewhere_is_an_error_before_anything_is_sent(
    publish: Publisher, base: Path, built: Path, repo: str, hub: LoopbackHub, tmp_path: Path
) -> None:
    publish(built, "--repo-id", repo, "--tag", "v1.0")
    tagged = hub.tags(repo)["v1.0"]
    hub.reset_counters()
    stronger = build_steered(base, tmp_path / "stronger", strength=3.0).folder
    refused = publish(stronger, "--repo-id", repo, "--tag", "v1.0")
    assert refused.code == 8
    assert tagged in refused.err
    assert hub.counters().content_bytes == 0
    assert hub.tags(repo) == {"v1.0": tagged}
    assert len(hub.history(repo)) == 2


def test_visibility(publish: Publisher, built: Path, repo: str, hub: LoopbackHub) -> None:
    assert publish(built, "--repo-id", repo, "--public").code == 0
    plan = publish(built, "--repo-id", repo, "--dry-run", "--json")
    assert answer(plan.out)["private"] is False
    assert "is public" in plan.err
    refused = publish(built, "--repo-id", repo, "--private")
    assert refused.code == 8
    assert "is public" in refused.err


def test_a_private_repository_is_not_made_public(
    publish: Publisher, built: Path, repo: str
) -> None:
    assert publish(built, "--repo-id", repo, "--private").code == 0
    refused = publish(built, "--repo-id", repo, "--public")
    assert refused.code == 8
    assert "public: " in refused.err
    assert "is private; make it public in its settings" in refused.err


def test_a_card_that_was_edited_is_not_overwritten_unasked(
    publish: Publisher, built: Path, repo: str, hub: LoopbackHub
) -> None:
    card = built / "README.md"
    card.write_text(card.read_text() + "\nMy own remark.\n")
    refused = publish(built, "--repo-id", repo, "--json")
    assert refused.code == 8
    assert "+My own remark." in refused.err
    assert "--card keep" in refused.err
    kept = publish(built, "--repo-id", repo, "--card", "keep", "--json")
    assert kept.code == 0, kept.err
    assert len(hub.history(repo)) == 2
    assert hub.files(repo)["README.md"] == sha256s(built)["README.md"]
    anew = publish(built, "--repo-id", repo, "--card", "rewrite", "--json")
    assert anew.code == 0, anew.err
    assert hub.files(repo)["README.md"] != sha256s(built)["README.md"]
    assert card.read_text().endswith("My own remark.\n")


def test_another_licence_takes_a_flag_and_is_shown(
    publish: Publisher, built: Path, repo: str, hub: LoopbackHub
) -> None:
    plan = publish(built, "--repo-id", repo, "--dry-run", "--json")
    assert answer(plan.out)["license"] == "apache-2.0"
    plan = publish(built, "--repo-id", repo, "--dry-run", "--json", "--license", "mit")
    assert answer(plan.out)["license"] == "mit"
    assert answer(plan.out)["base_license"] == "apache-2.0"
    assert "the base's is 'apache-2.0'" in plan.err
    refused = publish(built, "--repo-id", repo, "--license", "no-such-license")
    assert refused.code == 2
    assert "licence: 'no-such-license' is not known." in refused.err
    refused = publish(built, "--repo-id", repo, "--license", "apache2")
    assert "licence: 'apache2' is not known. Did you mean 'apache-2.0'?" in refused.err
    assert len(refused.err) < 600
    assert hub.counters().count("POST", "/create") == 0


def test_an_ignore_list_on_the_hub_leaves_nothing_out(
    publish: Publisher, built: Path, repo: str, hub: LoopbackHub
) -> None:
    publish(built, "--repo-id", repo)
    shutil.rmtree(publish.folder / "home")
    hub.commit_by_other(repo, ".gitignore", "*.json\n*.safetensors\n")
    hub.commit_by_other(repo, "config.json", "{}\n")
    assert publish(built, "--repo-id", repo).code == 0
    assert published_files(hub, repo) == of_folder(built)


@pytest.mark.parametrize(
    ("token", "code", "said"),
    [
        (None, 7, "no token for the Hub"),
        ("hf_expired", 7, "hf auth login"),
        ("hf_reader", 7, "write access"),
        ("hf_other", 7, "may not do this|no such repository"),
    ],
)
def test_without_the_right_token_nothing_is_published(
    publish: Publisher, built: Path, repo: str, hub: LoopbackHub, token: str, code: int, said: str
) -> None:
    publish.token = token
    refused = publish(built, "--repo-id", repo)
    assert refused.code == code
    assert re.search(said, refused.err), refused.err
    assert hub.counters().content_bytes == 0


def test_the_owner_is_who_is_logged_in(
    publish: Publisher, built: Path, repo: str, hub: LoopbackHub
) -> None:
    done = publish(built, "--repo-id", repo.removeprefix("me/"), "--json")
    assert answer(done.out)["repo_id"] == repo


def test_what_is_no_target(publish: Publisher, built: Path, base: Path) -> None:
    wrong = publish(built, "--repo-id", "me/a name")
    assert wrong.code == 2
    assert wrong.err.count("a name") == 1
    assert "is not a Hub model id; expected `owner/name`" in wrong.err
    foreign = publish(base, "--repo-id", "me/model")
    assert foreign.code == 2
    assert "hubsplice did not build it, for it holds no splice.json" in foreign.err
    publish.token = None
    nobody = publish(built, "--repo-id", "model", "--dry-run")
    assert nobody.code == 2
    assert "'model' names no owner, and without a token nothing says who you are" in nobody.err


def test_a_dry_run_ends_with_the_command_that_sends(publish: Publisher, built: Path) -> None:
    dry = publish(built, "--repo-id", "YOU/dry", "--tag", "v1", "--card", "keep", "--dry-run")
    assert dry.code == 0, dry.err
    assert "fidelity: " in dry.out
    assert max(map(len, dry.out.splitlines())) <= 200
    assert "warning: YOU is a placeholder" in dry.err
    assert dry.err.splitlines()[-1] == (
        f"nothing was sent; next: hubsplice publish {built} --repo-id YOU/dry --tag v1 --card keep"
    )


def test_a_dry_run_doubts_an_owner_who_is_not_the_user(publish: Publisher, built: Path) -> None:
    of_others = publish(built, "--repo-id", "mee/model", "--dry-run", "--json")
    assert of_others.code == 0, of_others.err
    (warning,) = answer(of_others.out)["warnings"]
    assert warning.startswith("mee is neither your user name nor an organisation of yours")
    assert warning.endswith("has me, acme")
    of_us = publish(built, "--repo-id", "acme/model", "--dry-run", "--json")
    assert answer(of_us.out)["warnings"] == []


def test_a_dry_run_without_the_hub_says_what_would_be_sent(publish: Publisher, built: Path) -> None:
    publish.more = {"HF_HUB_OFFLINE": "1"}
    dry = publish(built, "--repo-id", "me/unasked", "--dry-run", "--json")
    plan = answer(dry.out)
    assert {"README.md", "splice.json"} < {file["path"] for file in plan["created"]}
    assert plan["upload_bytes"] > 0
    assert plan["warnings"][-1].startswith(
        "the Hub could not be asked (HF_HUB_OFFLINE is set, and publishing needs the Hub): this is "
        "what a new repository would get."
    )
    assert publish(built, "--repo-id", "me/unasked").code == 7


def test_a_target_is_needed(publish: Publisher, built: Path) -> None:
    refused = publish(built)
    assert refused.code == 2
    assert "publish.repo_id" in refused.err
    assert "--repo-id" in refused.err


def test_a_result_that_missed_its_requirement_is_published_only_when_told(
    publish: Publisher, base: Path, repo: str, hub: LoopbackHub, tmp_path: Path
) -> None:
    failed = build_steered(base, tmp_path / "failed", failed=True).folder
    refused = publish(failed, "--repo-id", repo)
    assert refused.code == 5
    assert "NOT met" in refused.err
    assert hub.counters().content_bytes == 0
    done = publish(failed, "--repo-id", repo, "--allow-failed", "--json")
    assert done.code == 0, done.err
    assert answer(done.out)["plan"]["passed"] is False


def test_publishing_through_trusted_publishing(
    publish: Publisher, built: Path, repo: str, hub: LoopbackHub
) -> None:
    assert publish(built, "--repo-id", repo).code == 0
    hub.trust(repo)
    hub.commit_by_other(repo)
    publish.token = None
    publish.more = {
        name: value
        for name, value in hub.oidc_environment(publish.folder / "ci", repo).items()
        if name.startswith(("HF_OIDC", "ACTIONS_", "GITHUB_"))
    }
    done = publish(built, "--repo-id", repo, "--json")
    assert done.code == 0, done.err
    assert len(hub.history(repo)) == 4
