"""What a checkpoint says of itself: found where it is changed, or listed as its author's claim."""

from __future__ import annotations

import copy
import io
import json
import re
import shutil
import zlib
from collections.abc import Callable, Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
from matplotlib.image import imread, imsave
from pydantic import BaseModel

from hubsplice.card import write_card
from hubsplice.checkpoint.manifest import (
    CarrierRecord,
    Manifest,
    SlotsRecord,
    read_manifest,
    write_manifest,
)
from hubsplice.fidelity.report import FidelityReport, write_report
from hubsplice.pictures.canvas import drawn_with
from hubsplice.pictures.drawing import write_pictures
from hubsplice.verifying import Check, Verification
from hubsplice.verifying.statements.ledger import claims_of
from tests.conftest import Command, MakeCheckpoint
from tests.verifying.conftest import Build, Spliced, Workshop

# One of everything that a manifest can speak of: strengths of features and of vectors, an edit of
# several terms, a constant in a bias, and a base with a licence.
EDITS = """
  - sae: {path: jumprelu}
    edits:
      - {kind: clamp, feature: 3, to: 0.5 x max, max: 4.5, label: "regular expressions"}
      - {kind: gated_steer, feature: 7, strength: 0.2 x norm}
      - {kind: project, vector: {path: v.safetensors}, factor: 0.5}
  - after_layer: 3
    sinks: edit
    edits: [{kind: steer, vector: {path: v.safetensors}, strength: 0.5 x norm}]
"""
LITTLE_TEXT = """
calibration: {tokens: 1024, sequence_length: 64, scan: 0}
fidelity: {tokens: 256, sequence_length: 64, scan: 0}
card: {prompts: []}
"""


# The rest: an edit inside a layer, and a base that is a splice itself.
WITHIN = (
    "  - {after_attention: 1, edits: [{kind: steer, vector: {path: v.safetensors}, strength: 2}]}"
)


@pytest.fixture(scope="module")
def speaking(
    make: Build, shared_tiny_llama: MakeCheckpoint, tmp_path_factory: pytest.TempPathFactory
) -> Spliced:
    """Not to be changed. Its report has curves, and its manifest fills most fields."""
    base = shared_tiny_llama(dtype="bfloat16", name="speaking")
    card = "---\nlicense: other\nlicense_name: terms\nlicense_link: LICENSE\n---\n# A base\n"
    (base / "README.md").write_text(card, encoding="utf-8")
    folder = tmp_path_factory.mktemp("speaking") / "built"
    return Spliced(make(EDITS, folder, base=base, more=LITTLE_TEXT).folder, base)


@pytest.fixture(scope="module")
def within(make: Build, speaking: Spliced, tmp_path_factory: pytest.TempPathFactory) -> Spliced:
    """Not to be changed. It is a splice of that one, and fills the other fields."""
    folder = tmp_path_factory.mktemp("within") / "built"
    made = make(WITHIN, folder, base=speaking.folder, more=LITTLE_TEXT, measure=False)
    return Spliced(made.folder, speaking.folder)


@pytest.fixture
def told(speaking: Spliced, tmp_path: Path) -> Spliced:
    """A copy that may be changed."""
    return Spliced(shutil.copytree(speaking.folder, tmp_path / "told"), speaking.base)


def claimed(found: Verification, file: str = "splice.json") -> list[str]:
    return [claim.field for claim in found.claims if claim.file == file]


def test_what_is_shown_and_what_is_claimed(speaking: Spliced) -> None:
    found = speaking.verify()
    assert [check for check in found.checks if not check.passed] == []
    assert found.verdict.startswith(f"Verified: every tensor of {speaking.base} is in it")
    assert found.base == str(speaking.base)
    fields = claimed(found)
    for shown in ("formula", "kind", "feature", "construction", "jump_gates", "neurons", "site"):
        assert not any(field.endswith(shown) for field in fields), shown
    terms = "layers[0].terms[0]"
    for field in ("base.name", "base.commit", "versions", f"{terms}.source", f"{terms}.edit.label"):
        assert field in fields
    assert claimed(found, "fidelity.json") == ["everything that was measured"]
    assert claimed(found, "README.md") == []


Change = tuple[str, Callable[[dict[str, Any]], Any]]


def changes(content: dict[str, Any], seen: set[tuple[str, str]]) -> Iterator[Change]:
    """Every kind of change of every kind of field: other values, something less, something more.

    Of fields that differ in an index or a free name only, the first that says anything stands for
    all; `seen` is what there was already.
    """
    for path, value in nodes(content, ()):
        # Layers that prepare and layers that edit are told apart; files and sites are not.
        kind = re.sub(r"(?<=files\.)[^:]*", "*", ".".join(map(str, path)))
        kind = re.sub(r"(zero_tensors|layer_map|before|after)\.\d+", r"\1.*", kind)
        kind = re.sub(r"(config_changes|versions)\.[^.]+", r"\1.*", kind)
        for number, other in enumerate(others(value)):
            if (key := (kind, f"{type(value).__name__} {number}")) not in seen:
                seen.add(key)
                # What is added stands a level deeper.
                at = (*path, "added") if isinstance(value, dict) else path
                yield name_of(at), setter(path, other)
        if path and (key := (kind, "removed")) not in seen:
            seen.add(key)
            yield name_of(path), remover(path)


def nodes(value: Any, path: tuple[str | int, ...]) -> Iterator[tuple[tuple[str | int, ...], Any]]:
    yield path, value
    children = enumerate(value) if isinstance(value, list) else ()
    for key, item in value.items() if isinstance(value, dict) else children:
        yield from nodes(item, (*path, key))


def others(value: Any) -> list[Any]:
    """Values of the same kind, and for what is left out, values of every kind."""
    if isinstance(value, bool):
        return [not value]
    if isinstance(value, int):
        return [value + 1]
    if isinstance(value, float):
        return [value * 1.25 + 0.1]
    if isinstance(value, str):
        is_hash = re.fullmatch("[0-9a-f]{40,64}", value)
        return [value[::-1]] if is_hash else [f"{value}x"]
    if isinstance(value, list):
        return [[*value, copy.deepcopy(value[-1])]] if value else [["added"]]
    if isinstance(value, dict):
        return [{**value, "added": next(iter(value.values()), "added")}]
    return ["0" * 64, 1]


def setter(path: tuple[str | int, ...], value: Any) -> Callable[[dict[str, Any]], Any]:
    def change(content: Any) -> None:
        for part in path[:-1]:
            content = content[part]
        if path:
            content[path[-1]] = value
        else:
            content.update(value)

    return change


def remover(path: tuple[str | int, ...]) -> Callable[[dict[str, Any]], Any]:
    def change(content: Any) -> None:
        for part in path[:-1]:
            content = content[part]
        del content[path[-1]]

    return change


def name_of(path: tuple[str | int, ...]) -> str:
    return "".join(f"[{p}]" if isinstance(p, int) else f".{p}" for p in path).removeprefix(".")


def is_refused_or_same(content: dict[str, Any], before: dict[str, Any]) -> bool:
    """Whether it is no manifest any more, or says the same: null may be left out."""
    try:
        changed, original = map(Manifest.model_validate, (content, before))
    except ValueError:
        return True
    return changed.model_dump(mode="json") == original.model_dump(mode="json")


def remember(monkeypatch: pytest.MonkeyPatch) -> None:
    """Read what stays as it is once: a walk verifies hundreds of manifests of the same files."""
    kept: dict[tuple[str, Path], Any] = {}

    def once(place: str) -> None:
        read = import_module(place.rpartition(".")[0]).__dict__[place.rpartition(".")[2]]

        def from_memory(path: Path, **_: Any) -> Any:
            key = (read.__name__, path)
            if key not in kept:
                kept[key] = read(path)
            return kept[key]

        monkeypatch.setattr(place, from_memory)

    for module, name in (
        ("contents", "load_recipe"),
        ("contents", "read_report"),
        ("files", "digest_file"),
    ):
        once(f"hubsplice.verifying.{module}.{name}")
    # The list of checksums is what a forger would write again.
    monkeypatch.setattr("hubsplice.verifying.integrity.checksum_problems", lambda *_: [])
    # No claim of a manifest is in these.
    card = Check.of("card", [], "not looked at"), ()
    monkeypatch.setattr("hubsplice.verifying.statements.check.compare_card", lambda *_: card)
    monkeypatch.setattr("hubsplice.verifying.statements.check.check_pictures", lambda *_: card)


def covers(fields: list[str], name: str) -> bool:
    return any(name == field or name.startswith((f"{field}.", f"{field}[")) for field in fields)


def test_every_field_is_found_when_changed_or_is_claimed(
    speaking: Spliced, within: Spliced, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever the manifest has is walked, so a field that a later version adds is too."""
    remember(monkeypatch)
    unnoticed: list[str] = []
    seen: set[tuple[str, str]] = set()
    for original in (speaking, within):
        folder = shutil.copytree(original.folder, tmp_path / original.folder.parent.name)
        told = Spliced(folder, original.base)
        before, claimed_before = told.json("splice.json"), claimed(told.verify())
        for name, change in changes(before, seen):
            content = copy.deepcopy(before)
            change(content)
            if is_refused_or_same(content, before):
                continue
            told.write_json("splice.json", content)
            found = told.verify()
            if found.passed and not covers([*claimed_before, *claimed(found)], name):
                unnoticed.append(name)
    assert unnoticed == []
    assert len(seen) > 150


def test_the_walk_meets_every_field_of_the_format(speaking: Spliced, within: Spliced) -> None:
    """Every field of the models that a manifest is made of says something in what is walked."""
    walked = {
        name
        for spliced in (speaking, within)
        for path, _ in nodes(spliced.json("splice.json"), ())
        for name in path
    }
    assert within.failed() == {}
    fields = {(model.__name__, name) for model in models(Manifest) for name in model.model_fields}
    # Checkpoints have none of these: carriers and adapters are proved otherwise.
    fields -= {("Manifest", "carrier"), ("Manifest", "slots")}
    of_adapters = (CarrierRecord, SlotsRecord)
    fields -= {(model.__name__, name) for model in of_adapters for name in model.model_fields}
    assert {field for field in fields if field[1] not in walked} == set()


def models(model: type[BaseModel]) -> set[type[BaseModel]]:
    found, left = set(), [model]
    while left:
        current = left.pop()
        if current in found:
            continue
        found.add(current)
        for field in current.model_fields.values():
            left += [m for m in parts_of(field.annotation) if issubclass(m, BaseModel)]
    return found


def parts_of(annotation: Any) -> Iterator[type]:
    if isinstance(annotation, type) and not getattr(annotation, "__args__", None):
        yield annotation
    for part in getattr(annotation, "__args__", ()):
        yield from parts_of(part)


def test_nothing_is_shown_by_default(speaking: Spliced) -> None:
    manifest = Manifest.model_validate(speaking.json("splice.json"))
    fields = [claim.field for claim in claims_of(manifest, (), (), "splice.json")]
    assert fields == list(manifest.model_dump())


FORGERIES: dict[str, tuple[Callable[[dict[str, Any]], Any], str, str]] = {
    "another formula": (
        lambda m: m["layers"][0]["terms"][0].update(formula="h"),
        "edit records",
        'layers[0].terms[0].formula: found "h", expected "always: ',
    ),
    "another feature": (
        lambda m: m["layers"][0]["terms"][0].update(feature=12),
        "edit records",
        "layers[0].terms[0].feature: found 12, expected 3 from the recipe",
    ),
    "another SAE": (
        lambda m: m["layers"][0]["terms"][0].update(source={"release": "trusted", "id": "layer_1"}),
        "edit records",
        "layers[0].terms[0].source: found ",
    ),
    "a weaker strength": (
        lambda m: m["layers"][0]["terms"][0]["amounts"][0].update(value=0.001),
        "edit records",
        "layers[0].terms[0].amounts[0].value: found 0.001, expected 2.25",
    ),
    "another construction": (
        lambda m: m["layers"][0].update(construction="layernorm-bias"),
        "layer records",
        'layers[0].construction: found "layernorm-bias", expected "prenorm-bias"',
    ),
    "a constant of the construction": (
        lambda m: m["layers"][0]["constants"].update(saturation=8.0),
        "layer records",
        "layers[0].constants.saturation: found 8.0, expected 32.0 from the family's construction",
    ),
    "fewer neurons": (
        lambda m: m["layers"][0]["constants"].update(neurons=1),
        "layer records",
        "layers[0].constants.neurons: found 1, expected",
    ),
    "a gate turned round": (
        lambda m: m["layers"][0]["constants"]["jump_gates"][0].append(
            -m["layers"][0]["constants"]["jump_gates"][0].pop()
        ),
        "layer records",
        "layers[0].constants.jump_gates: found ",
    ),
    "another norm of sinks": (
        lambda m: m["calibration"]["sink_norm"].update({"1": 1.0}),
        "calibration record",
        "calibration.sink_norm.1: found 1.0, expected ",
    ),
    "another licence of the base": (
        lambda m: m["base"]["terms"].update(license="mit", license_name=None),
        "base record",
        'base.terms.license: found "mit", expected "other" from the base\'s card',
    ),
    "a file of the base left out": (
        lambda m: m["base"]["files"].pop("tokenizer.json"),
        "base record",
        "base.files: tokenizer.json: not listed",
    ),
}


@pytest.mark.parametrize("case", FORGERIES)
def test_a_forged_record_is_named(told: Spliced, case: str) -> None:
    change, check, problem = FORGERIES[case]
    told.edit_manifest(change)
    failed = told.failed()
    assert any(p.startswith(problem) for p in failed[check].problems), failed


def test_constants_of_another_version_are_claims(told: Spliced) -> None:
    def of_another_version(manifest: dict[str, Any]) -> None:
        manifest["hubsplice"] = "0.0.9"
        manifest["layers"][0]["constants"]["narrowest_ramp"] = 8.0

    told.edit_manifest(of_another_version)
    found = told.verify()
    assert found.passed
    assert "layers[0].constants.narrowest_ramp" in claimed(found)


def forge(told: Spliced, change: Callable[[dict[str, Any]], Any]) -> None:
    """Change the report and all that is said of it: summary, picture and checksums."""
    content = told.json("fidelity.json")
    change(content)
    report = FidelityReport.model_validate(content)
    from hubsplice.building.record import summary

    write_report(report, told.folder)
    drawn = write_pictures(read_manifest(told.folder / "splice.json"), report, told.folder)
    (told.folder / "splice.json").unlink()
    write_manifest(drawn.manifest.model_copy(update={"fidelity": summary(report)}), told.folder)
    told.forge_checksums()


REPORT_FORGERIES: dict[str, tuple[Callable[[dict[str, Any]], Any], str]] = {
    "a verdict that does not follow": (
        lambda r: r.update(verdict="In bfloat16, every edit is perfect.", outcome="shown"),
        "verdict: found ",
    ),
    "an edit that was judged otherwise": (
        lambda r: r["precisions"][0]["edits"][0].update(outcome="shown", reason="it is right"),
        "precisions[0]: clamp feature 3 (regular expressions): found shown, and its figures say ",
    ),
    "an edit left out": (
        lambda r: r["precisions"][0]["edits"].pop(),
        "precisions[0].edits: not the edits of the intervention",
    ),
    "the exact edit drawn otherwise": (
        lambda r: r["curves"][0].update(exact=[0.5 * x for x in r["curves"][0]["exact"]]),
        "curves[0]: what it calls exact is not 'clamp feature 3 (regular expressions)'",
    ),
    "other text": (lambda r: r["text"].update(seed=7), "text.seed: found 7, expected 0"),
}


@pytest.mark.parametrize("case", REPORT_FORGERIES)
def test_a_report_that_was_forged_with_its_summary(told: Spliced, case: str) -> None:
    change, problem = REPORT_FORGERIES[case]
    forge(told, change)
    failed = told.failed()
    assert any(p.startswith(problem) for p in failed["figures"].problems), failed


def test_figures_that_agree_are_still_a_claim(told: Spliced) -> None:
    forge(told, lambda report: report["edit_effect"].update(mean=0.25))
    # The card still says the old ones.
    assert set(told.failed()) == {"card"}
    write_card(told.folder, model_id=None)
    found = told.verify()
    assert found.passed
    assert "everything that was measured" in claimed(found, "fidelity.json")


def test_a_card_that_was_removed(told: Spliced) -> None:
    (told.folder / "README.md").unlink()
    assert told.failed()["card"].problems == ("README.md: missing",)


def test_a_card_with_words_of_its_author(told: Spliced, command: Command) -> None:
    path = told.folder / "README.md"
    text = path.read_text(encoding="utf-8")
    text = text.replace(
        "library_name: transformers\n", "library_name: transformers\nlanguage: en\n"
    )
    text = text.replace("## Fidelity\n", "## Fidelity\n\nIt is perfect, and certified.\n")
    path.write_text(text, encoding="utf-8")
    found = told.verify()
    assert found.passed
    claims = {claim.field: claim for claim in found.claims if claim.file == "README.md"}
    assert set(claims) == {"metadata.language", "Fidelity"}
    assert claims["Fidelity"].stated == '"It is perfect, and certified."'
    assert claims["Fidelity"].why.startswith("written by the author")
    (card,) = (check for check in found.checks if check.name == "card")
    assert "metadata.language, Fidelity" in card.detail
    shown = command("verify", told.folder, "--base", told.base)
    assert shown.code == 0
    assert "written by the author" in shown.out


def test_a_card_with_other_figures_than_the_files(told: Spliced) -> None:
    path = told.folder / "README.md"
    text = path.read_text(encoding="utf-8")
    row = next(line for line in text.splitlines() if line.startswith("| splice error"))
    path.write_text(text.replace(row, re.sub(r"\d", "1", row)) + "\nMine.\n", encoding="utf-8")
    found = told.verify()
    (problem,) = told.failed()["card"].problems
    assert problem.startswith("README.md: Fidelity: it says '| splice error")
    # What the files say otherwise is not listed as the author's; his words are.
    (claim,) = (claim for claim in found.claims if claim.file == "README.md")
    assert claim.stated == '"Mine."'


def test_a_card_for_another_model(told: Spliced) -> None:
    (told.folder / "README.md").write_text("# A trusted model\n\nRun it.\n", encoding="utf-8")
    found = told.verify()
    assert claimed(found, "README.md")[-1] == "A trusted model"
    assert "metadata.library_name" in claimed(found, "README.md")


def test_a_card_that_declares_another_licence(told: Spliced) -> None:
    from hubsplice.card import write_card

    write_card(told.folder, model_id="me/other", license_id="apache-2.0")
    assert claimed(told.verify(), "README.md") == []


def chunk(kind: bytes, content: bytes) -> bytes:
    checksum = zlib.crc32(kind + content).to_bytes(4, "big")
    return len(content).to_bytes(4, "big") + kind + content + checksum


@pytest.mark.parametrize(
    ("forged", "problem"),
    [
        (lambda data: data + b"<script>", "something follows its end"),
        (lambda data: data[:-12], "its end is missing"),
        (lambda data: b"<svg/>" + data, "it does not begin as one"),
        (lambda data: data[:33] + chunk(b"iCCP", b"x") + data[33:], "it holds a part b'iCCP'"),
        (lambda data: data[:33] + chunk(b"tEXt", b"a\0b") + data[33:], "it holds text beside"),
        (lambda data: data[:40], "not a drawing in PNG"),
    ],
)
def test_a_picture_that_is_more(
    told: Spliced, forged: Callable[[bytes], bytes], problem: str
) -> None:
    path = told.folder / "responses.png"
    path.write_bytes(forged(path.read_bytes()))
    told.forge_checksums()
    (found,) = told.failed()["pictures"].problems
    assert found.startswith("responses.png: ")
    assert problem in found


def redrawn(data: bytes, **metadata: str) -> bytes:
    """A picture with a dot of another colour, drawn with the same, or with what is said."""
    dots = imread(io.BytesIO(data), format="png")
    dots[20, 20, :3] = 0.5
    found = io.BytesIO()
    imsave(found, dots, metadata={"Software": drawn_with(), **metadata}, format="png")
    return found.getvalue()


def test_a_picture_that_shows_something_else(told: Spliced) -> None:
    path = told.folder / "responses.png"
    before = path.read_bytes()
    path.write_bytes(redrawn(before))
    told.forge_checksums()
    assert told.failed()["pictures"].problems == (
        "responses.png: not the picture that manifest and report give",
    )
    # Of another size, it is not even unpacked.
    path.write_bytes((told.folder / "layers.png").read_bytes())
    told.forge_checksums()
    assert "pictures" in told.failed()
    path.write_bytes(redrawn(before, Software="another pen"))
    told.forge_checksums()
    write_card(told.folder, model_id=None)
    found = told.verify()
    assert found.passed
    (claim,) = (claim for claim in found.claims if claim.file == "responses.png")
    assert claim.why.startswith("it was drawn with another pen, here is hubsplice")


def test_a_picture_that_the_build_could_not_draw(told: Spliced) -> None:
    (told.folder / "layers.png").unlink()
    told.edit_manifest(lambda manifest: manifest["files"].pop("layers.png"))
    told.forge_checksums()
    assert "pictures" not in told.failed()


def test_the_same_edit_twice(make: Build, speaking: Spliced, tmp_path: Path) -> None:
    steer = "{kind: steer, vector: {path: v.safetensors}, strength: 2}"
    splices = f"  - {{after_layer: 1, edits: [{steer}, {steer}]}}"
    made = make(splices, tmp_path / "out", base=speaking.base, more=LITTLE_TEXT, measure=False)
    found = Spliced(made.folder, speaking.base).verify()
    assert [check for check in found.checks if not check.passed] == []


@pytest.mark.parametrize("family", ["gpt2", "gpt_neox", "gemma2", "qwen3", "olmo2"])
def test_other_families(
    family: str, make: Build, shared_tiny_llama: MakeCheckpoint, tmp_path: Path
) -> None:
    """Constants, neurons and gates are found again in every construction."""
    base = shared_tiny_llama(family, name=f"stated-{family}", intermediate_size=192)
    made = make(EDITS, tmp_path / "out", base=base, more=LITTLE_TEXT, measure=False)
    spliced = Spliced(made.folder, base)
    found = spliced.verify()
    # So little text leaves read-outs that are too loose for a proof from the weights.
    assert {check.name for check in found.checks if not check.passed} <= {"structure"}
    assert {check.name for check in found.checks if check.passed is False} == set()
    assert not any("jump_gates" in field or "neurons" in field for field in claimed(found))


def test_the_base_that_was_opened_is_named(
    built: Spliced, workshop: Workshop, tmp_path: Path
) -> None:
    """The manifest may call it what it likes."""
    copied = Spliced(shutil.copytree(built.folder, tmp_path / "copy"), built.base)
    named = {"name": "meta-llama/Llama-3.1-8B", "repo_id": "meta-llama/Llama-3.1-8B"}
    copied.edit_manifest(lambda manifest: manifest["base"].update(named, commit="0" * 40))
    recipe = copied.folder / "reproduce/recipe.yaml"
    text = recipe.read_text(encoding="utf-8")
    recipe.write_text(text.replace("bfloat16", "meta-llama/Llama-3.1-8B", 1), encoding="utf-8")
    copied.forge_checksums()
    write_card(copied.folder, model_id=None)
    found = copied.verify()
    assert found.passed
    assert "meta-llama" not in found.verdict + found.base
    assert {"base.name", "base.repo_id", "base.commit"} <= set(claimed(found))
    assert json.loads(found.model_dump_json())["claims"]
