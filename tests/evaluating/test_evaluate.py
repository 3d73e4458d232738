"""Base and edited model side by side: figures, what is kept, the card, and what verify says."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

import hubsplice
from hubsplice.checkpoint.manifest import read_manifest
from hubsplice.errors import CheckpointError
from hubsplice.evaluating.results import EVALUATION
from hubsplice.explore.generating import generate
from hubsplice.interface.scorers import prompts_of
from tests.card.examples import metadata
from tests.conftest import Command
from tests.evaluating.conftest import LETTER, silence
from tests.loopback.card import check_card
from tests.verifying.conftest import Spliced

PROMPTS = ["a lazy zebra", "jazz and more", "the wizard", "of a maze", "words"]
TARGET = f"tokens={LETTER}"


def evaluated(spliced: Spliced, **options: Any) -> hubsplice.Evaluation:
    given: dict[str, Any] = {
        "base": spliced.base,
        "prompts": PROMPTS,
        "scores": [TARGET, "regex=z"],
        "max_new_tokens": 4,
        "neutral_tokens": 256,
        "progress": False,
    }
    return hubsplice.evaluate(spliced.folder, **(given | options))


def test_both_models_stand_side_by_side_and_travel(copy: Spliced) -> None:
    found = evaluated(copy)
    assert found.answers is not None
    assert found.neutral is not None
    target, matched = found.answers.scores
    assert target.base is not None
    assert target.edited is not None
    assert target.base.high < 0.5 < target.edited.low
    assert matched.name == "regex=z"
    assert matched.edited is not None
    assert matched.edited.value == 1
    # Somebody else can ask the same.
    assert list(found.answers.asked) == PROMPTS
    assert prompts_of(copy.folder / EVALUATION) == PROMPTS
    assert found.neutral.divergence.low > 0.1
    assert found.neutral.edited_perplexity.low > found.neutral.base_perplexity.high
    # Both stand in the folder, which is verified with them.
    assert hubsplice.Evaluation.model_validate(copy.json(EVALUATION)) == found
    assert EVALUATION in read_manifest(copy.folder / "splice.json").files
    result = copy.verify()
    assert result.passed, result
    claimed = [claim for claim in result.claims if claim.file == EVALUATION]
    assert [claim.field for claim in claimed] == ["everything that was evaluated"]
    # On the card, in its data, and in what the Hub indexes.
    card = (copy.folder / "README.md").read_text()
    findings = check_card(card)
    assert not findings.errors
    assert "| score tokens=z" in card
    assert "| KL from the base, nats a token" in card
    assert "5 prompts, by the author" in card
    (index,) = findings.metadata["model-index"]
    figures = {
        metric["name"]: metric["value"]
        for result in index["results"]
        for metric in result["metrics"]
    }
    assert figures[TARGET] == target.edited.value
    assert figures["Perplexity"] == found.neutral.edited_perplexity.value
    assert metadata(card)["model-index"] == findings.metadata["model-index"]
    parts = copy.json("card.json")["evaluation"]["parts"]
    assert parts[0]["table"]["rows"][0][0] == "score tokens=z"


def test_a_killed_run_goes_on(copy: Spliced, monkeypatch: pytest.MonkeyPatch) -> None:
    first = evaluated(copy)
    file = copy.folder.with_name("model.evaluation.jsonl")
    lines = file.read_text().splitlines(keepends=True)
    assert len(lines) == 2 * len(PROMPTS) + 1
    # Stopped while it wrote the edited model's third answer.
    kept = len(PROMPTS) + 2
    file.write_text("".join(lines[:kept]) + lines[kept][:50])
    asked: list[int] = []

    def counted(model: Any, rows: Any, *arguments: Any, **options: Any) -> Any:
        asked.append(len(rows))
        return generate(model, rows, *arguments, **options)

    monkeypatch.setattr("hubsplice.explore.questions.generate", counted)
    assert evaluated(copy) == first
    # Only the edited model, and the batch that was cut off as a whole: then it is rounded alike.
    assert asked == [len(PROMPTS)]
    # All is known: no model is loaded.
    monkeypatch.setattr("hubsplice.evaluating.evaluate.loaded", None)
    assert evaluated(copy) == first


def test_a_silenced_layer_scores_as_the_base_does(copy: Spliced) -> None:
    silence(copy)
    found = evaluated(copy)
    assert found.answers is not None
    assert found.neutral is not None
    for score in (*found.answers.scores, found.answers.length):
        assert score.edited == score.base
    assert found.neutral.divergence.high < 1e-6
    assert found.neutral.edited_perplexity == found.neutral.base_perplexity


def test_figures_of_other_weights_are_found(copy: Spliced) -> None:
    evaluated(copy)
    silence(copy)
    assert "evaluation" in copy.failed()
    # Measured again, they are of these weights: what is wrong now is the layer alone.
    evaluated(copy)
    assert "evaluation" not in copy.failed()


def test_prompts_that_were_not_asked_are_found(copy: Spliced) -> None:
    evaluated(copy)
    content = copy.json(EVALUATION)
    content["answers"]["asked"][0] = "an easier one"
    copy.write_json(EVALUATION, content)
    copy.forge_checksums()
    (problem,) = copy.failed()["evaluation"].problems
    assert "answers.asked: not the prompts" in problem
    # As an early version wrote it.
    del content["answers"]["asked"]
    copy.write_json(EVALUATION, content)
    with pytest.raises(hubsplice.RecipeError, match=r"evaluation\.json has no prompts in it"):
        prompts_of(copy.folder / EVALUATION)


def test_an_altered_folder_is_not_evaluated(copy: Spliced) -> None:
    (copy.folder / "config.json").write_text("{}")
    with pytest.raises(CheckpointError, match=r"config\.json: it is not the file"):
        evaluated(copy)


def test_nothing_is_written_where_a_link_leads(copy: Spliced, tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    (copy.folder / ".eval_results").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(hubsplice.OutputError, match="a link leads out of"):
        evaluated(copy)
    assert not (copy.folder / EVALUATION).exists()
    assert not list((tmp_path / "elsewhere").iterdir())


def test_what_a_sweep_wrote_is_shown(copy: Spliced, lettered: Spliced, tmp_path: Path) -> None:
    recipe = tmp_path / "r.yaml"
    text = (copy.folder / "reproduce/recipe.yaml").read_text()
    recorded = yaml.safe_load(text) | {"base_model": str(copy.base)}
    told = "tokens=z 0.9 [0.8, 1] on 40 prompts, KL 0.1 nats a token; r.sweep.jsonl"
    recipe.write_text(f"# hubsplice sweep: {told}\n{yaml.safe_dump(recorded)}")
    found = evaluated(copy, recipe=recipe)
    assert found.sweep == (told,)
    assert (
        "When the strength was chosen, on the exact hook: tokens=z 0.9"
        in (copy.folder / "README.md").read_text()
    )
    # It stays when something else is asked.
    assert evaluated(copy, scores=["regex=a"]).sweep == (told,)
    assert copy.verify().passed
    recorded["splices"][0]["edits"][0]["strength"] = 3
    recipe.write_text(f"# hubsplice sweep: {told}\n{yaml.safe_dump(recorded)}")
    with pytest.raises(hubsplice.RecipeError, match="asks for other edits"):
        evaluated(copy, recipe=recipe)


def test_the_command(copy: Spliced, command: Command, tmp_path: Path) -> None:
    prompts = tmp_path / "prompts.txt"
    prompts.write_text("\n".join(PROMPTS))
    options = ["--base", copy.base, "--prompts", prompts, "--score", TARGET]
    options += ["--max-new-tokens", "4", "--neutral-tokens", "256"]
    code, out, err = command("evaluate", copy.folder, *options)
    assert code == 0, err
    assert "score tokens=z" in out
    assert "next: hubsplice publish" in err
    code, out, err = command("evaluate", copy.folder, *options, "--json")
    assert code == 0
    assert json.loads(out)["answers"]["scores"][0]["name"] == TARGET
    assert "the card has it" in err
    # What somebody wrote into the card is his.
    card = copy.folder / "README.md"
    card.write_text(f"{card.read_text()}\nMine.\n")
    code, _, err = command("evaluate", copy.folder, *options)
    assert code == 0
    assert "edited by hand" in err
    assert card.read_text().endswith("\nMine.\n")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--score", "regexp=a"], "Did you mean 'regex'"),
        (["--score", "regex=("], "no regular expression"),
        (["--prompts", "nowhere.txt"], "nowhere.txt"),
        (["--limit", "3"], "--tasks: missing"),
        (["--temperature", "0.5", "--top-p", "0"], "--top-p: found 0.0"),
        (["--recipe", "nowhere.yaml"], "nowhere.yaml"),
        (["--answers", "nowhere/a.jsonl"], "nowhere/a.jsonl: cannot be written"),
    ],
)
def test_wrong_arguments(
    lettered: Spliced, command: Command, options: list[str], message: str
) -> None:
    code, _, err = command("evaluate", lettered.folder, "--base", lettered.base, *options)
    assert code in (2, 6)
    assert message in err


def test_what_is_no_model(command: Command, tmp_path: Path) -> None:
    code, _, err = command("evaluate", tmp_path / "nowhere")
    assert code == 4
    assert "no such folder" in err.lower() or "not a folder" in err.lower(), err
