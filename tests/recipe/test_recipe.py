from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from docs.generate import FOLDER as DOCS
from docs.generate import SCHEMAS, schema_text
from hubsplice.edits.registry import EDITS
from hubsplice.errors import RecipeError
from hubsplice.recipe.models import Recipe
from hubsplice.recipe.reading import dump_recipe, load_recipe, parse_recipe
from hubsplice.recipe.schema import recipe_schema
from hubsplice.recipe.tags import require_tag
from hubsplice.recipe.yaml_text import dump_yaml, load_yaml
from hubsplice.templates import load_template

FOLDER = Path("/no/such/folder")
SCHEMA = jsonschema.Draft202012Validator(recipe_schema())

GOOD: dict[str, Any] = {"base_model": "me/model", "splices": [{"after_layer": 1}]}
MINIMAL = """
base_model: me/model
splices:
  - after_layer: 3
    sae: {path: ./sae}
    edits:
      - {feature: 12, kind: ablate}
"""


def parse_error(text: str) -> str:
    with pytest.raises(RecipeError) as caught:
        parse_recipe(text, folder=FOLDER)
    return str(caught.value)


def with_edit(edit: str) -> str:
    return MINIMAL.replace("{feature: 12, kind: ablate}", edit)


def test_a_small_recipe_has_working_defaults() -> None:
    recipe = parse_recipe(MINIMAL, folder=FOLDER)
    assert recipe.base_model == "me/model"
    assert recipe.splices[0].edits[0].feature_indices() == (12,)
    assert recipe.splices[0].sinks == "skip"
    assert recipe.calibration.dataset == "builtin"
    assert recipe.fidelity.require is None
    assert recipe.publish.private is True


@pytest.mark.parametrize(
    ("text", "line"),
    [
        (
            MINIMAL + "fidelty: {tokens: 1000}",
            "fidelty: no such field. Did you mean 'fidelity'? Known: base_model, calibration, "
            "card, description, dtype, fidelity, prompts, publish, revision, seed, serve_with, "
            "splices, title.",
        ),
        (
            MINIMAL + "fidelity: {tokns: 1000}",
            "fidelity.tokns: no such field. Did you mean 'tokens'? Known: column, config, dataset, "
            "require, revision, scan, sequence_length, split, tokens.",
        ),
        (
            with_edit("{featur: 12, kind: ablate}"),
            "splices[0].edits[0].featur: no such field. Did you mean 'feature'? Known: feature, "
            "kind, label, when.",
        ),
        (
            with_edit("{vector: {path: v.safetensors, tenser: v}, kind: steer, strength: 1}"),
            "splices[0].edits[0].vector.tenser: no such field. Did you mean 'tensor'? Known: path, "
            "row, tensor.",
        ),
        (with_edit("{kind: ablate}"), "splices[0].edits[0].feature: missing"),
        (
            with_edit('{feature: "12", kind: ablate}'),
            "splices[0].edits[0].feature: found '12', expected a whole number",
        ),
        (
            with_edit("{feature: true, kind: ablate}"),
            "splices[0].edits[0].feature: found True, expected a whole number",
        ),
        (
            with_edit("{feature: 1.0, kind: ablate}"),
            "splices[0].edits[0].feature: found 1.0, expected a whole number",
        ),
        (
            with_edit("{feature: -1, kind: ablate}"),
            "splices[0].edits[0].feature: found -1, expected a number greater than or equal to 0",
        ),
        (
            with_edit("ablate"),
            "splices[0].edits[0]: found 'ablate', expected a mapping with a kind",
        ),
        (
            with_edit("{feature: 1, kind: [ablate]}"),
            "splices[0].edits[0].kind: ['ablate'] is not known.",
        ),
        (
            MINIMAL.replace("base_model: me/model", "base_model: 12"),
            "base_model: found 12, expected text; put it in quotes",
        ),
        (MINIMAL.replace("base_model: me/model", "title: x"), "base_model: missing"),
        (
            MINIMAL + "fidelity: {require: -1}",
            "fidelity.require: found -1, expected a number greater than 0",
        ),
        (MINIMAL + "fidelity: {require: .nan}", "fidelity.require: found nan, expected a finite"),
        (MINIMAL + "seed: 1e400", "seed: found inf, expected a finite number"),
        (
            MINIMAL + "dtype: bf16",
            "dtype: found 'bf16', expected 'auto', 'bfloat16', 'float16' or 'float32'",
        ),
        ("base_model: a\nsplices: []", "splices: found [], expected at least 1 of them"),
        ("base_model: a\nsplices: 3", "splices: found 3, expected a list"),
        (
            "base_model: a\nsplices:\n  - {after_layer: 3}\n  - {after_layer: 4}\n"
            "  - {after_layer: 3}",
            "splices[2].after_layer: found 3, which splices[0] names already",
        ),
        (
            "base_model: a\nsplices:\n  - edits: []",
            "splices[0]: after_layer is missing, and there is no sae",
        ),
        (
            "base_model: a\nsplices:\n  - {after_layer: 1, edits: [{kind: ablate, feature: 7}]}",
            "splices[0]: edits[0] (ablate) refers to feature 7, and the splice has no sae",
        ),
        (
            MINIMAL.replace("{path: ./sae}", "{path: ./sae, release: r}"),
            "splices[0].sae: say where the SAE is with exactly one of",
        ),
        ("", "a recipe is a mapping with base_model and splices, found None"),
        ("- 1", "a recipe is a mapping with base_model and splices, found [1]"),
    ],
)
def test_a_wrong_field_is_named_with_its_value_and_what_was_expected(text: str, line: str) -> None:
    assert any(found.startswith(line) for found in parse_error(text).splitlines())


def test_an_unknown_kind_gets_the_nearest_and_all_others() -> None:
    message = parse_error(with_edit("{feature: 1, kind: gated_ster}"))
    assert message.startswith(
        "splices[0].edits[0].kind: 'gated_ster' is not known. Did you mean 'gated_steer'?"
    )
    assert all(kind in message for kind, _ in EDITS.items())


def test_every_problem_has_one_line() -> None:
    text = MINIMAL + "fidelity: {tokens: many, require: 0}\ncolour: blue\n"
    assert parse_error(text).splitlines() == [
        "fidelity.tokens: found 'many', expected a whole number",
        "fidelity.require: found 0, expected a number greater than 0",
        "colour: no such field. Known: base_model, calibration, card, description, dtype, "
        "fidelity, prompts, publish, revision, seed, serve_with, splices, title.",
    ]


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("base_model: a\nbase_model: b", "'base_model' is given"),
        ("a: {b: 1, b: 2}", "'b' is given"),
        ("a: &x [1]\nb: *x", "aliases are not supported"),
        ("a: &x [*x]", "aliases are not supported"),
        ("a: !!python/object/apply:os.getcwd []", "tags such as"),
        ("a: !mine 3", "tags such as"),
        ("? [a, b]\n: 1", "a key must be plain text"),
        ("1: 2", "the key 1 must be text"),
        ("a: !!binary aGVsbG8=", "tags such as"),
        ("a: [1, 2", "not valid YAML"),
        ("a: !!int x", "not valid YAML"),
        ("[" * 3000, "nested too deeply"),
        ("a: 99999999999999999999", "more than 63 bits"),
        ("a: " + "9" * 5000, "not valid YAML"),
        ("a: \x00", "not valid YAML"),
    ],
)
def test_yaml_that_is_no_plain_data_is_refused(text: str, reason: str) -> None:
    with pytest.raises(RecipeError) as caught:
        load_yaml(text)
    assert reason in str(caught.value)


@pytest.mark.parametrize(
    ("scalar", "value"),
    [
        ("1e-3", 0.001),
        ("1E3", 1000.0),
        (".5", 0.5),
        ("-2", -2),
        ("true", True),
        ("no", "no"),
        ("on", "on"),
        ("010", "010"),
        ("0x10", "0x10"),
        ("1_000", "1_000"),
        ("12:30", "12:30"),
        ("2024-01-01", "2024-01-01"),
        ("0.5 x max", "0.5 x max"),
        ("1e", "1e"),
        ("", None),
        ("null", None),
    ],
)
def test_scalars_are_those_of_yaml_1_2(scalar: str, value: object) -> None:
    found = load_yaml(f"a: {scalar}")["a"]
    assert found == value
    assert type(found) is type(value)


def test_relative_paths_are_relative_to_the_recipe(tmp_path: Path) -> None:
    (tmp_path / "base").mkdir()
    (tmp_path / "text.txt").touch()
    recipe_file = tmp_path / "recipe.yaml"
    recipe_file.write_text(
        """
base_model: base
splices:
  - after_layer: 1
    sae: {path: saes/one}
    edits:
      - {kind: steer, strength: 1, vector: {path: vectors.safetensors}}
      - kind: gated_steer
        strength: 1
        feature: 3
        gate: {probe: {path: /elsewhere/probe.safetensors}}
calibration: {dataset: ./missing.txt}
fidelity: {dataset: text.txt}
""",
        encoding="utf-8",
    )
    recipe = load_recipe(recipe_file)
    splice = recipe.splices[0]
    assert recipe.base_model == str(tmp_path / "base")
    assert splice.sae is not None
    assert splice.sae.path == tmp_path / "saes/one"
    steer, gated = (edit.model_dump() for edit in splice.edits)
    assert steer["vector"]["path"] == tmp_path / "vectors.safetensors"
    assert gated["gate"]["probe"]["path"] == Path("/elsewhere/probe.safetensors")
    assert recipe.calibration.dataset == str(tmp_path / "missing.txt")
    assert recipe.fidelity.dataset == str(tmp_path / "text.txt")


def test_the_home_folder_is_known_in_every_path(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USERPROFILE", str(tmp_path))
    recipe = parse_recipe(
        """
base_model: ~/base
splices:
  - after_layer: 1
    sae: {path: ~/sae}
    edits: [{kind: steer, strength: 1, vector: {path: ~/v.safetensors}}]
calibration: {dataset: ~/text.txt}
""",
        folder=Path("/somewhere"),
    )
    (splice,) = recipe.splices
    assert splice.sae is not None
    vector = splice.edits[0].model_dump()["vector"]["path"]
    found = (recipe.base_model, splice.sae.path, vector, recipe.calibration.dataset)
    names = ("base", "sae", "v.safetensors", "text.txt")
    assert [Path(str(path)) for path in found] == [tmp_path / name for name in names]


def test_json_may_be_indented_with_tabs() -> None:
    fields = {"base_model": "me/model", "splices": [{"after_layer": 1}]}
    for indent in ("\t", 2, None):
        recipe = parse_recipe(json.dumps(fields, indent=indent), folder=FOLDER)
        assert recipe == parse_recipe(dump_yaml(fields), folder=FOLDER)
    with pytest.raises(RecipeError, match=r"recipe: not valid JSON .*there twice"):
        parse_recipe('{\n\t"base_model": "a",\n\t"base_model": "b"}', folder=FOLDER)


@pytest.mark.parametrize("tag", ["v1.0", "release/2", "a-b_c", "ünï"])
def test_tags_that_git_takes(tag: str) -> None:
    require_tag(tag, "tag")
    assert Recipe(**GOOD, publish={"tag": tag}).publish.tag == tag


@pytest.mark.parametrize(
    "tag",
    [
        *("", "@", "-v", ".v", "v.", "v..1", "v 1", "v~1", "v^", "a:b", "v?", "v*", "[v", "a\\b"),
        *("/v", "v/", "a//b", "a/.b", "v.lock", "a.lock/b", "v@{1}", "v\x7f", "v\n"),
    ],
)
def test_tags_that_git_refuses(tag: str) -> None:
    with pytest.raises(RecipeError, match=r"^tag: .* is no name for a tag"):
        require_tag(tag, "tag")
    with pytest.raises(RecipeError, match=r"publish\.tag: .* is no name for a tag"):
        Recipe(**GOOD, publish={"tag": tag})
    git = subprocess.run(["git", "check-ref-format", f"refs/tags/{tag}"], check=False)
    # Git takes these two here, and its command line does not.
    assert git.returncode or tag in ("@", "-v")


def test_names_that_are_not_local_stay_as_they_are(tmp_path: Path) -> None:
    # A folder that happens to be called like the built-in text does not replace it.
    (tmp_path / "builtin").mkdir()
    recipe = parse_recipe(MINIMAL + "fidelity: {dataset: me/texts}", folder=tmp_path)
    assert recipe.base_model == "me/model"
    assert recipe.calibration.dataset == "builtin"
    assert recipe.fidelity.dataset == "me/texts"


@pytest.mark.parametrize("content", [b"\xff\xfe\x00", None])
def test_a_file_that_cannot_be_read_is_a_recipe_error(
    tmp_path: Path, content: bytes | None
) -> None:
    path = tmp_path / "recipe.yaml"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(RecipeError, match=re.escape(str(path))):
        load_recipe(path)


def test_the_starter_and_everything_commented_out_in_it_are_valid(tmp_path: Path) -> None:
    starter = load_template("recipe.yaml.j2").render(name="recipe.yaml", repo_id=None)
    assert len(parse_recipe(starter, folder=tmp_path).splices[0].edits) == 1
    option = re.compile(r"^(\s*)# (- \{|  - |(?:  )?[a-z_]+: |[a-z]+:\s+#|publish:)", re.MULTILINE)
    everything = parse_recipe(option.sub(r"\1\2", starter), folder=tmp_path)
    assert len(everything.splices[0].edits) == 7
    assert everything.fidelity.require == 1.05
    assert everything.publish.tag == "v1.0"
    # The options that the starter shows as defaults are the defaults.
    calibration = Recipe.model_fields["calibration"].default
    assert everything.calibration.most_scanned == calibration.most_scanned
    assert everything.calibration.model_copy(update={"scan": None}) == calibration
    assert len(everything.prompts) == 2
    assert everything.seed == Recipe.model_fields["seed"].default


@pytest.mark.parametrize("name", SCHEMAS)
def test_the_published_schemas_are_those_of_the_code(name: str) -> None:
    published = (DOCS / name).read_text(encoding="utf-8")
    assert published == schema_text(name), "run `make schema`"


def test_the_schema_tells_right_from_wrong_edits() -> None:
    recipe = load_yaml(MINIMAL)
    SCHEMA.validate(recipe)
    edit = recipe["splices"][0]["edits"][0]
    for wrong in ({"kind": "ablat"}, {"feature": "12"}, {"feature": -1}, {"strength": 3}):
        recipe["splices"][0]["edits"] = [edit | wrong]
        with pytest.raises(jsonschema.ValidationError):
            SCHEMA.validate(recipe)


# What YAML can carry: PyYAML refuses lone surrogates, as UTF-8 does.
text = st.text(st.characters(exclude_categories=["Cs"]), max_size=30)
names = text.filter(lambda name: name and not name.startswith((".", "/")))
numbers = st.floats(allow_nan=False, allow_infinity=False)
paths = st.from_regex(r"/[a-zA-Z0-9 :#'\"_-]{1,10}(/[a-z0-9]{1,5}){0,2}", fullmatch=True)
features = st.integers(0, 2**40)
strengths = numbers | st.builds("{} x {}".format, numbers, st.sampled_from(["max", "norm"]))


def optional(**fields: st.SearchStrategy[Any]) -> st.SearchStrategy[dict[str, Any]]:
    return st.fixed_dictionaries({}, optional=fields)


def mapping(
    required: dict[str, st.SearchStrategy[Any]], **fields: st.SearchStrategy[Any]
) -> st.SearchStrategy[dict[str, Any]]:
    return st.fixed_dictionaries(required, optional=fields)


vectors = mapping({"path": paths}, tensor=text)
gates = st.one_of(
    mapping({"feature": features}, threshold=numbers, read=st.sampled_from(["raw"])),
    mapping({"vector": vectors, "threshold": numbers}),
    mapping({"probe": mapping({"path": paths}, weight=text, bias=st.none() | text)}),
)
edits = st.one_of(
    mapping({"kind": st.just("ablate"), "feature": features}, label=st.none() | text),
    mapping({"kind": st.just("scale"), "feature": features, "factor": numbers}, label=text),
    mapping(
        {"kind": st.just("clamp"), "feature": features, "to": strengths},
        when=st.sampled_from(["always", "active"]),
    ),
    mapping({"kind": st.just("steer"), "vector": vectors, "strength": strengths}),
    mapping(
        {"kind": st.just("gated_steer"), "feature": features, "strength": strengths}, gate=gates
    ),
)
saes = st.one_of(
    mapping({"path": paths}),
    mapping({"release": text, "id": text}),
    mapping({"repo_id": text}, subfolder=text, revision=text),
)
text_sources = {
    "dataset": names,
    "config": text,
    "column": text,
    "tokens": st.integers(256, 10**9),
    "sequence_length": st.integers(16, 10**6),
}
recipes = mapping(
    {
        "base_model": names,
        "splices": st.lists(
            mapping(
                {"after_layer": st.integers(0, 200), "sae": saes},
                edits=st.lists(edits, max_size=4),
                sinks=st.sampled_from(["skip", "edit"]),
                sink_multiple=st.floats(1, 1e6, exclude_min=True),
            ),
            min_size=1,
            max_size=3,
            unique_by=lambda splice: splice["after_layer"],
        ),
    },
    revision=st.none() | text,
    dtype=st.sampled_from(["auto", "bfloat16", "float16", "float32"]),
    title=text,
    calibration=optional(**text_sources),
    fidelity=optional(**text_sources, require=st.floats(0, 10, exclude_min=True)),
    publish=optional(
        repo_id=st.from_regex(r"[a-z]{1,9}/[a-z0-9]{1,9}", fullmatch=True),
        private=st.booleans(),
        tag=st.from_regex(r"v\d{1,3}", fullmatch=True),
    ),
    seed=st.integers(0, 2**62),
)
junk = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | text | st.dates(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(text, inner, max_size=4),
    max_leaves=12,
)


@given(recipes)
def test_a_recipe_survives_being_written_and_read(raw: dict[str, Any]) -> None:
    recipe = parse_recipe(dump_yaml(raw), folder=FOLDER)
    assert parse_recipe(dump_recipe(recipe), folder=Path("/another/folder")) == recipe


@settings(max_examples=50)
@given(recipes)
def test_the_schema_accepts_what_the_parser_accepts(raw: dict[str, Any]) -> None:
    parse_recipe(dump_yaml(raw), folder=FOLDER)
    SCHEMA.validate(raw)
    SCHEMA.validate(json.loads(json.dumps(raw)))


@given(st.text())
def test_junk_text_is_a_recipe_error(source: str) -> None:
    with pytest.raises(RecipeError):
        parse_recipe(source, folder=FOLDER)


def test_only_a_null_that_says_something_is_written() -> None:
    """A probe has a bias, unless its recipe says that it has none."""
    vector = "vector: {path: v.safetensors}, strength: 1"
    gate = "gate: {probe: {path: p.safetensors, bias: null}}"
    recipe = parse_recipe(
        f"base_model: a/b\nsplices:\n  - {{after_layer: 1, edits: [{{kind: gated_steer, {vector}, "
        f"{gate}}}]}}\n",
        folder=FOLDER,
    )
    written = dump_recipe(recipe)
    assert [line.strip() for line in written.splitlines() if "null" in line] == ["bias: null"]
    assert "sequence_length: 256" in written
    assert parse_recipe(written, folder=FOLDER) == recipe


@given(st.dictionaries(st.sampled_from(sorted(Recipe.model_fields)), junk))
def test_junk_fields_are_a_recipe_error(raw: dict[str, Any]) -> None:
    with pytest.raises(RecipeError):
        parse_recipe(dump_yaml(raw), folder=FOLDER)


@given(recipes, st.data())
def test_one_junk_value_in_a_recipe_is_accepted_or_a_recipe_error(
    raw: dict[str, Any], data: st.DataObject
) -> None:
    here: Any = raw
    while True:
        keys = list(here) if isinstance(here, dict) else list(range(len(here)))
        key = data.draw(st.sampled_from(keys))
        if not isinstance(here[key], dict | list) or not here[key] or data.draw(st.booleans()):
            break
        here = here[key]
    here[key] = data.draw(junk)
    try:
        recipe = parse_recipe(dump_yaml(raw), folder=FOLDER)
    except RecipeError:
        return
    assert parse_recipe(dump_recipe(recipe), folder=FOLDER) == recipe
