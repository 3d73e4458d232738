"""The pages that are made from the code, so that they can't drift from it.

MkDocs runs `on_files` at every build. Run as a script, this writes the JSON schemas, which are the
generated files in git: editors and other tools fetch them from there.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hubsplice.checkpoint.manifest import manifest_schema
from hubsplice.fidelity.report import FidelityReport
from hubsplice.recipe.schema import recipe_schema

if TYPE_CHECKING:
    from mkdocs.config.defaults import MkDocsConfig
    from mkdocs.structure.files import Files

    from hubsplice.serving.engines import Engine

SCHEMAS = {
    "recipe.schema.json": recipe_schema,
    "splice.schema.json": manifest_schema,
    "fidelity.schema.json": FidelityReport.model_json_schema,
}
"""Of a recipe, of the manifest `splice.json`, and of the report `fidelity.json`."""

FOLDER = Path(__file__).parent

RESULTS = FOLDER.parent / "benchmarks/results"
"""What the benchmarks have written: a Markdown file each, and plots."""

_STRICT = (
    "A recipe is YAML, read strictly: an unknown field, a duplicate key, a number in quotes"
    " or an alias is an error. As in YAML 1.2, `true` and `false` are the only booleans."
    " Relative paths are relative to the recipe's folder. What is not required has a"
    " default that works offline."
)
_FOR_EDITORS = (
    "There is a [JSON schema](recipe.schema.json) for editors, and `hubsplice init` writes"
    " a commented starter. Edits have [a page of their own](edits.md)."
)
_SYMBOLS = (
    "h is the residual stream at the splice's place, f the feature's activation as"
    " SAELens computes it, d its decoder row, p what a gate reads; 1[…] is 1 where the"
    " condition holds, and 0 elsewhere."
)
_STRENGTHS = (
    "A strength is a number in the SAE's own activations (for a vector, in multiples of"
    " that vector), or `0.5 x max` (of the feature's largest activation in calibration),"
    " or `0.3 x norm` (the written vector gets that part of the median residual norm)."
)
_STREAMS = (
    "Results go to stdout, progress, warnings and errors to stderr. With `--json`, stdout"
    " is one JSON document."
)

_ENGINES = (
    "An engine that ignores a bias, or a list of what layers are, loads a spliced model without an"
    " error and serves another one: fluent text without the edit, or with half of it. So what is"
    " known of engines is written down, with the version that was examined and how it is known;"
    " what is not listed here is not known. `hubsplice serve` and the table in every model card"
    " come from the same entries, and look at the model itself: a bias that is zero in all layers"
    " is not missed, and layers that are all alike need no list."
)
_SERVE = (
    "`hubsplice serve FOLDER|REPO` prints the command that serves a model, in the precision that"
    " its layers were compiled for, and with `--run` becomes it. Engines that would ignore"
    " something are refused, with what they ignore; so are those that were not examined."
    " `hubsplice verify --engine vllm` proves by behaviour what is only read here."
)
_EXCLUSIONS = (
    "Quantising rounds inserted layers with the rest, and rounded they compute another edit: most"
    " of all where it has jumps (clamps where active, gated steering), since a jump is the"
    " difference of two neurons that differ in little. Leaving the layers out is the only way that"
    " is safe. Every format can do that; what to write is below, for a model"
    " that has its inserted layer at index 14. In the formats that list modules, all linear maps"
    " of the layer have to be there by their full names: some programs match the beginning of a"
    " name, or any part of it, and `layers.1` would mean `layers.10` too. `hubsplice serve"
    " --quantization fp8` prints vLLM's option, and warns of a checkpoint that was quantised as a"
    " whole. vLLM has no quantisation of linear maps to integers while it loads; for that,"
    " quantise with a tool that writes one of the other formats. llama.cpp's `llama-quantize` has"
    " patterns for the names of a GGUF file's tensors: `--tensor-type 'blk\\.14\\.=bf16'`, as read"
    " in its source; its converter's own `--outtype q8_0` leaves nothing out. A base that is"
    " quantised already can't be spliced: splice the original, and quantise the result."
)
_MEASUREMENTS = (
    "What the benchmarks in `benchmarks/` found, as they wrote it, each with its date, its machine"
    " and the command that does it again. Timings are ratios of what was run side by side."
)
_FIGURES = (
    "What that is worth, measured on SmolLM2-135M-Instruct by an emulation of what servers compute"
    " (`benchmarks/quantised.py`). The floor is the KL divergence, in nats per token, between the"
    " float32 base with the exact hook and the quantised base with the exact hook: what the"
    " quantisation costs without any splice. The splice's divergence is given over it. Such a ratio"
    " can't show whether an edit is there that does less than the quantisation: `scale 8` in 4 bits"
    " is gone, with a ratio of 1.03. The residual error shows it: how far from the edit is what the"
    " inserted layer adds to the stream that it gets, ‖dh − dh_hook‖ / ‖dh_hook‖. `clamp always`"
    " bears any rounding here because it is mostly a constant, which is a bias."
)


def schema_text(name: str) -> str:
    """What the file of that name must hold."""
    return json.dumps(SCHEMAS[name](), indent=2, ensure_ascii=False) + "\n"


def recipe_page() -> str:
    """Every section of a recipe and its fields."""
    definitions = recipe_schema()["$defs"]
    sections = ("Recipe", "Splice", "SaeSource", "Calibration", "Fidelity", "Publish")
    return "\n".join(
        [
            "# Recipes",
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
            _STRENGTHS,
            *(
                line
                for kind, edit in kinds.items()
                for line in _section(definitions, edit.__name__, f"`{kind}` {{ #{kind} }}")
            ),
            *(
                line
                for name in ("Gate", "TensorSource", "ProbeSource")
                for line in _section(definitions, name)
            ),
        ]
    )


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
        ignored = [f"{p}.bias" for p in model_classes()[name].projections]
        ignored = [bias for bias in ignored if bias.removesuffix(".bias") in support.ignored_biases]
        ignored += sorted(support.ignored_fields)
        what = ", ".join(f"`{part}`" for part in ignored) or "nothing"
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
            _EXCLUSIONS,
            "",
            *_exclusions(),
            "",
            *_measured(),
        ]
    )


def measurements_page() -> str:
    """All results of the benchmarks, one section each."""
    lines = ["# Measurements", "", _MEASUREMENTS]
    for path in sorted(RESULTS.glob("*.md")):
        text = path.read_text(encoding="utf-8")
        lines += ["", *(f"#{line}" if line.startswith("#") else line for line in text.splitlines())]
    return "\n".join(lines)


def _exclusions() -> Iterable[str]:
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


def _measured() -> Iterable[str]:
    from hubsplice.serving.measured import MEASURED

    yield _FIGURES
    yield ""
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


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the generated pages to what MkDocs found."""
    from mkdocs.structure.files import File

    pages = {
        "recipe.md": recipe_page,
        "edits.md": edits_page,
        "cli.md": cli_page,
        "engines.md": engines_page,
        "measurements.md": measurements_page,
    }
    for name, page in pages.items():
        files.append(File.generated(config, name, content=page()))
    for plot in RESULTS.glob("*.svg"):
        files.append(File.generated(config, plot.name, abs_src_path=str(plot)))
    return files


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
