"""The pages and JSON schemas that are made from the code, so that they can't drift from it.

Run as a script, this writes them. They are in git, so that links to the pages work in a clone too,
and editors can fetch the schemas; a test says when they are to be written again.
"""

from __future__ import annotations

import ast
import json
import re
import tomllib
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hubsplice.building.environment import Environment
from hubsplice.building.sources import Sources
from hubsplice.checkpoint.manifest import manifest_schema
from hubsplice.evaluating.results import Evaluation
from hubsplice.families.known import Weights
from hubsplice.fidelity.report import FidelityReport
from hubsplice.recipe.schema import recipe_schema

if TYPE_CHECKING:
    from mkdocs.config.defaults import MkDocsConfig
    from mkdocs.structure.files import Files
    from mkdocs.structure.pages import Page

    from hubsplice.families.engines import Support
    from hubsplice.families.family import Family, ModelClass
    from hubsplice.serving.engines import Engine

SCHEMAS = {
    "recipe.schema.json": recipe_schema,
    "splice.schema.json": manifest_schema,
    "fidelity.schema.json": FidelityReport.model_json_schema,
    "evaluation.schema.json": Evaluation.model_json_schema,
    "sources.schema.json": Sources.model_json_schema,
    "environment.schema.json": Environment.model_json_schema,
}
"""Of a recipe, of the manifest `splice.json`, of the report `fidelity.json`, the evaluation, and of
two files in `reproduce/`."""

FOLDER = Path(__file__).parent

RESULTS = FOLDER.parent / "benchmarks/results"
"""What the benchmarks have written: a Markdown file each, and plots."""

_PLOTS = "](../benchmarks/results/"
"""How a page links to a plot, on the site and in a clone."""

_TINY = "families.md"
"""The results on tiny models, a row for each family and edit."""

_STRICT = (
    "A recipe is a YAML file. It is read strictly: an unknown field, a key that occurs twice, a"
    " number in quotes and an alias are errors. As in YAML 1.2, `true` and `false` are the only"
    " booleans. Relative paths are relative to the recipe's folder. Every field that is not"
    " required has a default, and the defaults need no network."
)
_FOR_EDITORS = (
    "`hubsplice init` writes a recipe with comments to start from. Editors can use the"
    " [JSON schema](recipe.schema.json). Edits have [a page of their own](edits.md)."
)
_SYMBOLS = (
    "h is the residual stream at the splice's place. f is the feature's activation as SAELens"
    " computes it, and d is the feature's decoder row. p is the number that a gate reads. 1[…] is 1"
    " where the condition holds and 0 elsewhere."
)
_TOGETHER = (
    "All edits of one splice read the same h, and what they write is added up. Two edits of one"
    " feature therefore add up too: `ablate` and `scale` with `factor: 2` together change nothing,"
    " two ablations turn the feature round, and two clamps hold it at neither value. Such pairs are"
    " errors that name both edits; give one edit for each feature. `add`, `steer` and"
    " `gated_steer` plainly add up, so they go with others. There is a warning where one of them"
    " writes along nearly the same direction (a cosine above 0.9 or below −0.9) as another one, or"
    " as an edit that holds a value. There is also one for a factor or a strength of more than 10"
    " times the largest activation of the feature, and for a change that is longer than the"
    " residual stream itself."
)
_STRENGTHS = (
    "A strength is a number, in the units of the SAE's activations; for a vector it counts"
    " multiples of that vector. `0.5 x max` means half of the largest activation that the feature"
    " has on the calibration text. `0.3 x norm` scales the written vector to 0.3 times the median"
    " norm of the residual stream.",
    "A rare feature's largest activation on the calibration text can be far below the largest one"
    " that it has. If it is active on fewer than 20 tokens there, the build warns. State the"
    " maximum then: `{kind: clamp, feature: 3585, to: 0.5 x max, max: 17.6}`. The SAE's page on"
    " Neuronpedia shows it. It is in the SAE's own units, as SAELens gives activations;"
    " Neuronpedia's numbers are those times the length of the feature's decoder row.",
    "`check` prints what strengths come to as far as the recipe says. `build`, the report, the"
    " manifest and the card give every one in the units of the recipe, in those of the SAE, and as"
    " a share of the residual norm: `0.5 x max = 8.8 (max 17.6, over 214 active of 20,000 scanned"
    " tokens), 0.06 of the median residual norm`.",
)
_CONDITIONS = (
    "Every kind of edit takes `when`, a condition on something else than what it edits: the"
    " activation of another feature of the SAE, a vector, a contrast or a probe is above a value."
    " The edit then acts at those tokens alone. `all` joins two or three conditions by *and*; `any`"
    " joins them by *or*, for `steer` alone.",
    "A `steer` under one condition is a `gated_steer`, and takes one layer. So does a condition on"
    " the edited feature itself. Every other edit under a condition takes two layers:"
    " [how that works](how-it-works.md#edits-under-conditions). A feature that is edited under a"
    " condition can't be read by another edit of the same splice, and neither it nor the"
    " condition's features may be of an SAE that normalises its input; `check` says so. A condition"
    " reads the token's own stream at the edited place, and so nothing of positions, of prompt or"
    " answer, or of what comes later.",
    "A condition may read a feature of another SAE: `{feature: 7, sae: {path: other}}`. That SAE"
    " has to read the stream at the edit's own place, since a layer sees no other one; and its"
    " features need thresholds of their own, as those of TopK SAEs have not. Whether it fits"
    " the base is not measured.",
    "A condition that never holds makes an edit that never acts. `check` reads no text, and says"
    " which edits take two layers. `try` says on how many tokens of prompts and answers each"
    " condition held, and `build` on how many of the calibration text, measured or not; report,"
    " manifest and card repeat it. All warn where it was none.",
)
_CONDITION_EXAMPLE = """
- feature: 12
  kind: clamp
  to: 8
  when: {feature: 3, above: 2.5, label: "questions"}
- feature: 40
  kind: ablate
  when: {all: [{feature: 3}, {probe: {path: probe.safetensors}, above: 1}]}
"""
_STREAMS = (
    "Results go to stdout. Progress, warnings and errors go to stderr. With `--json`, stdout holds"
    " one JSON document."
)

_ENGINES = (
    "Some engines ignore a bias, or ignore the list that says of what kind each layer is. Such an"
    " engine loads a spliced model without an error and serves another model: the text is fluent,"
    " but the edit is missing or half there. This page therefore says what is known of each engine,"
    " for which version, and how it is known. Nothing is known of an engine or a class that is not"
    " listed. `hubsplice serve` and the table in every model card use the same entries. They also"
    " look at the model itself: a bias that is zero in all layers is not missed, and layers that"
    " are all alike need no list."
)
_SERVE = (
    "`hubsplice serve FOLDER|REPO` prints the command that serves a model in the precision that its"
    " layers were compiled for. With `--run` it starts the server. It refuses an engine that would"
    " ignore something that the model needs, and names what would be ignored. It also refuses"
    " engines that were not examined. Entries on this page that say *read in its source* were not"
    " run; `hubsplice verify --engine vllm` tests vLLM on your own model by what the model says."
)
_EXCLUSIONS = (
    "Quantisation rounds every layer, and a rounded inserted layer computes another edit. Edits"
    " with jumps (clamps where active, gated steering) suffer most, because a jump is the"
    " difference of two neurons that are almost equal. The only safe way is to leave the inserted"
    " layers out of the quantisation. Every format can do that.",
    "The list below shows what to write for a model whose inserted layer has the index 14. Formats"
    " that list modules need the full names of all linear maps of the layer. Some programs match"
    " the beginning of a name, or any part of it: for them `layers.1` would mean `layers.10` too.",
    "`hubsplice serve --quantization fp8` prints vLLM's option for this. It also warns of a"
    " checkpoint whose inserted layers were quantised with the rest. vLLM can't quantise linear"
    " maps to integers while it loads a model; use a tool that writes one of the other formats."
    " llama.cpp's `llama-quantize` takes patterns for the names of a GGUF file's tensors:"
    " `--tensor-type 'blk\\.14\\.=bf16'`, as read in its source. Its converter's own"
    " `--outtype q8_0` leaves nothing out. A base that is quantised already can't be spliced:"
    " splice the original model, and quantise the result.",
)
_MEASUREMENTS = (
    "These are the results of the benchmarks in `benchmarks/`, as the benchmarks wrote them. Each"
    " one gives its date, its machine and the command that repeats it. Timings are ratios of what"
    " was run side by side. Where a result is of SmolLM2-135M-Instruct or Gemma-3-270m, the weights"
    " came from 4-bit GGUF files and were de-quantised to bfloat16: they are not the exact weights"
    " that the models' makers published."
)
_FIGURES = (
    "The table shows what leaving the inserted layer out is worth. It was measured on"
    " SmolLM2-135M-Instruct (from a 4-bit GGUF file, de-quantised to bfloat16), by an emulation of"
    " what servers compute (`benchmarks/quantised.py`). The *floor* is what the quantisation costs"
    " without any splice: the KL divergence, in nats per token, between the float32 base with the"
    " exact hook and the quantised base with the exact hook. The splice's divergence is divided by"
    " that floor.",
    "The ratio can't show an edit that does less than the quantisation does: `scale 8` in 4 bits is"
    " gone, and its ratio is 1.03. The *residual error* shows it. It compares what the inserted"
    " layer adds to the stream with what the edit would add: ‖dh − dh_hook‖ / ‖dh_hook‖. `clamp"
    " always` tolerates any rounding here because it is mostly a constant, and a constant is a"
    " bias.",
)
_FAMILIES = (
    "A model family is one declaration in `hubsplice/families/`, and this page is made from those"
    " declarations. `hubsplice check` says whether one base model can be spliced. If not, it says"
    " which field of its config.json is the reason.",
    "*Served as* is the class of the result. Where it differs from the base's own class, the base's"
    " tensors are the same bytes under that class's names. *Construction* links to how an inserted"
    " layer computes an edit in this family. *Measured on* is the best evidence that there is:",
)
_WEIGHTS = {
    Weights.REAL: "A released model was spliced and measured. Its weights came from a 4-bit GGUF"
    " file and were de-quantised to bfloat16.",
    Weights.STREAM: "No weights of this family were available. Its construction was computed on the"
    " residual stream of SmolLM2-135M-Instruct.",
    Weights.TINY: "Only tiny models, trained for a few seconds, were spliced and measured. They"
    " show errors in a construction. They do not show how faithful an edit of a large model is.",
}
_BY_ENGINE = (
    "*Run* means that spliced models were run through the engine; *read* means that its source was"
    " read. A dash means that nobody looked. The version was examined on the date below its name."
    " [Engines and quantisation](engines.md) has the details."
)
_RELEASED = (
    "The table is made from the configurations in `tests/families/released.json`: keys and values"
    " of public config.json files, with a note where each was found. The tests build each model"
    " that can be spliced with small sizes, load the result with transformers and compare its"
    " logits with the base's, bit for bit. A model that is not listed may work as well; `hubsplice"
    " check` says so from its config.json."
)
_UNSUPPORTED = "`hubsplice check` refuses these, with the reason."
_LAYOUT = (
    "hubsplice is a compiler, and its packages are the steps of a pipeline. They are listed here in"
    " the order in which a recipe passes through them. A package imports only packages that stand"
    " above it; import-linter checks that, with the same list in `pyproject.toml`. The texts are"
    " the packages' own docstrings."
)
_BESIDE = (
    ("templates/", "the model card, the recipe to start from and the release workflow, in Jinja"),
    ("tests/", "the tests, in folders named after what they test"),
    ("benchmarks/", "the programs that measure, and their results"),
    ("examples/", "the demo, its recipe and its SAE, and a program that trains an SAE"),
    ("docs/", "these pages, and `generate.py`, which writes those that are made from the code"),
    (".github/", "the workflows of this repository, and the action that publishes models"),
)


RECIPE_EXAMPLE = """\
base_model: google/gemma-2-9b-it
splices:
  - sae: {release: gemma-scope-9b-it-res, id: layer_9/width_16k/average_l0_88}
    edits:
      - {feature: 3585, kind: clamp, to: 0, when: active, label: "regular expressions"}
card:
  prompts: ["How do I match a date in a text?"]
fidelity: {require: 1.05}
publish: {repo_id: me/gemma-2-9b-it-no-regex}
"""
EDIT_EXAMPLES = {
    "ablate": "{feature: 12, kind: ablate}",
    "add": "{feature: 12, kind: add, strength: 0.2 x max}",
    "cap": "{feature: 12, kind: cap, at: 0.5 x max}",
    "clamp": "{feature: 12, kind: clamp, to: 0.5 x max, when: active}",
    "clamp_projection": "{kind: clamp_projection, vector: {path: v.safetensors}, to: 0}",
    "floor": "{feature: 12, kind: floor, at: 0.1 x max}",
    "gated_steer": "{feature: 12, kind: gated_steer, strength: 0.3 x norm}",
    "project": "{kind: project, vector: {path: v.safetensors}, factor: 0}",
    "scale": "{feature: 12, kind: scale, factor: -2}",
    "steer": "{kind: steer, vector: {path: v.safetensors}, strength: 0.2 x norm}",
}
"""One of each kind, as it stands in a list of edits."""


def schema_text(name: str) -> str:
    """What the file of that name must hold."""
    return json.dumps(SCHEMAS[name](), indent=2, ensure_ascii=False) + "\n"


def recipe_page() -> str:
    """Every section of a recipe and its fields."""
    definitions = recipe_schema()["$defs"]
    sections = ("Recipe", "Splice", "SaeSource", "Calibration", "Fidelity", "Card", "Publish")
    return "\n".join(
        [
            "# Recipes",
            "",
            "```yaml",
            RECIPE_EXAMPLE.rstrip(),
            "```",
            "",
            _STRICT,
            "",
            _FOR_EDITORS,
            *(line for name in sections for line in _section(definitions, name)),
        ]
    )


def edits_page() -> str:
    """Every registered kind of edit, its formula and its fields."""
    from hubsplice.edits.registry import EDITS

    definitions = recipe_schema()["$defs"]
    kinds = dict(EDITS.items())
    return "\n".join(
        [
            "# Edits",
            "",
            _SYMBOLS,
            "",
            *_table(
                ("kind", "what it does", "the stream becomes"),
                [(f"[`{k}`](#{k})", e.summary, f"`{e.formula}`") for k, e in kinds.items()],
            ),
            "",
            _TOGETHER,
            "",
            "\n\n".join(_STRENGTHS),
            "",
            "## Conditions { #conditions }",
            "",
            "\n\n".join(_CONDITIONS),
            "",
            "```yaml",
            _CONDITION_EXAMPLE.strip(),
            "```",
            *(
                line
                for kind, edit in kinds.items()
                for line in (
                    *_section(definitions, edit.__name__, f"`{kind}` {{ #{kind} }}"),
                    *_edit_example(kind),
                )
            ),
            *(
                line
                for name in (
                    "When",
                    "Above",
                    "Gate",
                    "TensorSource",
                    "ContrastSource",
                    "ProbeSource",
                    "LearnedProbe",
                )
                for line in _section(definitions, name)
            ),
        ]
    )


def _edit_example(kind: str) -> list[str]:
    example = EDIT_EXAMPLES.get(kind)
    return [] if example is None else ["", "```yaml", f"- {example}", "```"]


def cli_page() -> str:
    """The help texts of the command line, and its exit codes."""
    from typer.testing import CliRunner

    from hubsplice.cli import EXIT_CODES, app

    def help_text(*arguments: str) -> list[str]:
        result = CliRunner().invoke(
            app, [*arguments, "--help"], prog_name="hubsplice", terminal_width=90
        )
        return ["```text", result.stdout.rstrip(), "```"]

    commands = [
        command.name or command.callback.__name__
        for command in app.registered_commands
        if command.callback is not None
    ]
    return "\n".join(
        [
            "# Command line",
            "",
            _STREAMS,
            "",
            *(line for name in commands for line in ("", f"## {name}", "", *help_text(name))),
            "",
            "## Exit codes",
            "",
            *_table(("code", "meaning"), [(str(c), text) for c, text in EXIT_CODES.items()]),
        ]
    )


def engines_page() -> str:
    """What engines do with spliced models, and how quantisation leaves the edit alone."""
    from hubsplice.families.registry import model_classes
    from hubsplice.serving.engines import ENGINES

    def entry(engine: Engine, name: str) -> tuple[str, str, str]:
        support = engine.classes[name]
        what = _ignored(model_classes()[name], support) or "nothing"
        how = support.evidence.value
        return f"`{name}`", what, f"{how}; {support.note}" if support.note else how

    return "\n".join(
        [
            "# Engines and quantisation",
            "",
            _ENGINES,
            "",
            _SERVE,
            *(
                line
                for engine in ENGINES.values()
                for line in (
                    "",
                    f"## {engine.name} {engine.version}",
                    "",
                    *([f"Needs {engine.needs}.", ""] if engine.needs else []),
                    *_table(
                        ("class of the spliced model", "ignores", "known how"),
                        [entry(engine, name) for name in engine.classes],
                    ),
                )
            ),
            "",
            "## Quantisation",
            "",
            *(line for paragraph in _EXCLUSIONS for line in (paragraph, "")),
            *_exclusions(),
            "",
            *_measured(),
        ]
    )


def families_page() -> str:
    """Every family that can be spliced: what it is served as, its evidence, and its engines."""
    from docs.released import released_rows
    from hubsplice.families.registry import FAMILIES
    from hubsplice.families.unsupported import REASONS
    from hubsplice.serving.engines import ENGINES

    families = [family for _, family in FAMILIES.items()]
    classes = {family.becomes.name: family.becomes for family in families}
    engines = list(ENGINES.values())
    refused: dict[str, list[str]] = {}
    for model_type, reason in REASONS.items():
        refused.setdefault(reason, []).append(f"`{model_type}`")

    def engine_cell(engine: Engine, model_class: ModelClass) -> str:
        support = engine.classes.get(model_class.name)
        if support is None:
            return "–"
        ignored = _ignored(model_class, support)
        return f"{support.evidence.name.lower()}{f'; ignores {ignored}' if ignored else ''}"

    return "\n".join(
        [
            "# Model families",
            "",
            *(line for paragraph in _FAMILIES for line in (paragraph, "")),
            *(f"- **{weights.value}**: {_WEIGHTS[weights]}" for weights in Weights),
            "",
            *_table(
                (
                    "family",
                    "`model_type`",
                    "class",
                    "served as",
                    "construction",
                    "measured on",
                    "results",
                ),
                [_family_row(family) for family in families],
            ),
            "",
            "## What engines do with them",
            "",
            _BY_ENGINE,
            "",
            *_table(
                (
                    "served as",
                    *(f"{e.name} {e.version}<br>{e.examined.examined}" for e in engines),
                ),
                [
                    (f"`{name}`", *(engine_cell(engine, found) for engine in engines))
                    for name, found in classes.items()
                ],
            ),
            "",
            "## Released models",
            "",
            _RELEASED,
            "",
            *_table(("model", "on the Hub", "can be spliced"), released_rows()),
            "",
            "## Families that are not supported",
            "",
            _UNSUPPORTED,
            "",
            *_table(
                ("`model_type`", "reason"),
                [(", ".join(names), reason) for reason, names in refused.items()],
            ),
        ]
    )


def layout_page() -> str:
    """The packages in the order of the pipeline, by their docstrings."""
    return "\n".join(
        [
            "# How the code is laid out",
            "",
            _LAYOUT,
            *(
                line
                for name in pipeline()
                for line in ("", f"## hubsplice/{_source(name)[1]}", "", _docstring(name))
            ),
            "",
            "## Beside the package",
            "",
            *_table(("folder", "what is in it"), [(f"`{name}`", what) for name, what in _BESIDE]),
        ]
    )


def pipeline() -> list[str]:
    """The parts of the package from the first step to the last, as import-linter checks them."""
    project = tomllib.loads((FOLDER.parent / "pyproject.toml").read_text(encoding="utf-8"))
    contracts = project["tool"]["importlinter"]["contracts"]
    layers = next(contract["layers"] for contract in contracts if contract["type"] == "layers")
    return [
        name.removeprefix("hubsplice.") for layer in reversed(layers) for name in layer.split(" | ")
    ]


def measurements_page() -> str:
    """All results of the benchmarks, one section each."""
    lines = ["# Measurements", "", _MEASUREMENTS]
    for path in sorted(RESULTS.glob("*.md")):
        text = _linked(path.read_text(encoding="utf-8"))
        lines += ["", *(f"#{line}" if line.startswith("#") else line for line in text.splitlines())]
    return "\n".join(lines)


def _linked(text: str) -> str:
    """A file of results with its links as they are among the pages."""
    text = text.replace("(../../docs/", "(")
    text = re.sub(r"\]\((?=[\w.-]+\.svg\))", _PLOTS, text)
    return re.sub(
        r"\((\w+\.md)\)",
        lambda link: f"(#{_anchor(link[1])})" if (RESULTS / link[1]).is_file() else link[0],
        text,
    )


def _family_row(family: Family) -> tuple[str, ...]:
    construction = family.becomes.block.construction
    results = [
        f"{m.model}: [{m.date}](measurements.md#{_anchor(m.results)})" for m in family.measured
    ]
    text = (RESULTS / _TINY).read_text(encoding="utf-8")
    if not results and f"| {family.model_type} " in text.replace(",", " "):
        results = [f"[results](measurements.md#{_anchor(_TINY)})"]
    return (
        family.title,
        f"`{family.model_type}`",
        f"`{family.class_name}`",
        f"`{family.becomes.name}`" if family.re_expressed else "the same",
        f"[{construction.value}](how-it-works.md#{construction.value})",
        family.weights.value,
        " ".join(results),
    )


def _anchor(results: str) -> str:
    """Where the page of measurements has the results of a file."""
    heading = (RESULTS / results).read_text(encoding="utf-8").splitlines()[0].removeprefix("# ")
    return re.sub(r"[-\s]+", "-", re.sub(r"[^\w\s-]", "", heading).strip().lower())


def _ignored(model_class: ModelClass, support: Support) -> str:
    """What an engine leaves out of a class; empty where it honours everything."""
    biases = [f"{p}.bias" for p in model_class.projections if p in support.ignored_biases]
    return ", ".join(f"`{part}`" for part in (*biases, *sorted(support.ignored_fields)))


def _source(name: str) -> tuple[Path, str]:
    """Where a part's docstring is, and what the part is called."""
    package = FOLDER.parent / "hubsplice" / name
    if package.is_dir():
        return package / "__init__.py", f"{name}/"
    return package.with_suffix(".py"), f"{name}.py"


def _docstring(name: str) -> str:
    text = ast.get_docstring(ast.parse(_source(name)[0].read_text(encoding="utf-8")))
    assert text is not None
    return text


def _exclusions() -> Iterator[str]:
    from hubsplice.families.registry import model_classes
    from hubsplice.serving.quantization import QuantizationFormat, excluding

    llama = model_classes()["LlamaForCausalLM"]
    for kind in QuantizationFormat:
        left = excluding(llama, (14,), kind)
        where = "option" if left.place.startswith("--") else "object"
        shown = left.value
        if isinstance(shown, list) and len(shown) > 2:
            shown = [*shown[:2], "…", *(name for name in shown[-1:] if name == "lm_head")]
        yield f"- **{kind.value}**: `{left.field}` of the {where} `{left.place}`:"
        yield f"  `{json.dumps(shown, ensure_ascii=False)}`"


def _measured() -> Iterator[str]:
    from hubsplice.serving.measured import MEASURED

    for paragraph in _FIGURES:
        yield from (paragraph, "")
    yield from _table(
        (
            "quantisation",
            "edit",
            "floor",
            "all layers, over the floor",
            "inserted one left out",
            "all layers, residual error",
            "inserted one left out",
        ),
        [
            (
                m.scheme,
                m.edit,
                f"{m.floor:.3g}",
                f"{m.whole:.2f}",
                f"{m.kept:.2f}",
                f"{m.whole_residual:.1%}",
                f"{m.kept_residual:.1%}",
            )
            for m in MEASURED
        ],
    )


def pages() -> dict[str, Callable[[], str]]:
    """What writes each generated page, by the page's name."""
    return {
        "recipe.md": recipe_page,
        "edits.md": edits_page,
        "cli.md": cli_page,
        "engines.md": engines_page,
        "families.md": families_page,
        "layout.md": layout_page,
        "measurements.md": measurements_page,
    }


def page_text(name: str) -> str:
    """What the page of that name must hold."""
    return pages()[name]().rstrip() + "\n"


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Give the site the plots that MkDocs does not find, since they lie with the results."""
    from mkdocs.structure.files import File

    for plot in RESULTS.glob("*.svg"):
        files.append(File.generated(config, plot.name, abs_src_path=str(plot)))
    return files


def on_page_markdown(markdown: str, page: Page, **_: object) -> str:
    """Let the page of measurements show them where they are on the site."""
    if page.file.src_uri != "measurements.md":
        return markdown
    return markdown.replace(_PLOTS, "](")


def _section(
    definitions: Mapping[str, Any], name: str, heading: str | None = None
) -> Iterable[str]:
    definition = definitions[name]
    required = definition.get("required", ())
    rows = [
        (
            f"`{field}`",
            _type(schema),
            "required" if field in required else _default(schema),
            schema.get("description") or _described(definitions, schema),
        )
        for field, schema in definition["properties"].items()
    ]
    yield from ("", f"## {heading or name}", "", definition.get("description", ""), "")
    yield from _table(("field", "type", "default", "meaning"), rows)


def _described(definitions: Mapping[str, Any], schema: Mapping[str, Any]) -> str:
    """What a field's own section says it is, where the field has nothing to add."""
    section = definitions.get(schema.get("$ref", "").rsplit("/", 1)[-1], {})
    return str(section.get("description", ""))


def _table(columns: Iterable[str], rows: Iterable[Iterable[str]]) -> Iterable[str]:
    names = list(columns)
    yield _row(names)
    yield _row("---" for _ in names)
    for row in rows:
        yield _row(row)


def _row(cells: Iterable[str]) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|").replace("\n", " ") for cell in cells) + " |"


def _type(schema: Mapping[str, Any]) -> str:
    if "const" in schema:
        return f"`{schema['const']}`"
    if "enum" in schema:
        return " or ".join(f"`{value}`" for value in schema["enum"])
    if "$ref" in schema:
        return str(schema["$ref"].rsplit("/", 1)[-1])
    members = schema.get("anyOf") or schema.get("oneOf") or schema.get("allOf")
    if members:
        types = [_type(member) for member in members if member.get("type") != "null"]
        return " or ".join(dict.fromkeys(types)) if len(types) <= 3 else "an edit"
    if schema.get("type") == "array":
        return f"list of {_type(schema['items'])}"
    return {"integer": "whole number", "string": "text", "boolean": "true or false"}.get(
        schema.get("type", ""), schema.get("type", "any")
    )


def _default(schema: Mapping[str, Any]) -> str:
    default = schema.get("default")
    if default is None or isinstance(default, dict | list):
        return ""
    return f"`{json.dumps(default) if isinstance(default, bool) else default}`"


if __name__ == "__main__":
    for schema_name in SCHEMAS:
        (FOLDER / schema_name).write_text(schema_text(schema_name), encoding="utf-8")
    for page_name in pages():
        (FOLDER / page_name).write_text(page_text(page_name), encoding="utf-8")
