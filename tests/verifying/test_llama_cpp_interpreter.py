"""What llama.cpp's converter and process are given, and what is said where they are missing.

Both are stand-ins here; `tests/serving` runs real ones.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from hubsplice.errors import CheckpointError, UnsupportedError
from hubsplice.verifying.engines import Request
from hubsplice.verifying.llama_cpp import LlamaCppEngine
from tests.conftest import Command
from tests.verifying.conftest import Spliced

CONVERTER = """
import pathlib, sys
folder, *options = sys.argv[1:]
assert not (pathlib.Path(folder) / "README.md").exists()
assert "auto_map" not in (pathlib.Path(folder) / "tokenizer_config.json").read_text()
pathlib.Path(options[options.index("--outfile") + 1]).write_text(" ".join(options))
"""
RUNNER = """#!{python}
import json, pathlib, sys
_, given, made = sys.argv[1:]
(job,) = json.loads(pathlib.Path(given).read_text())
text = pathlib.Path(job["options"]["model"]).read_text()
pathlib.Path({seen!r}).write_text(json.dumps([job["options"], text]))
answers = [
    {{"prompt": [-1.0] * (len(one["prompt"]) - 1), "tokens": [5] * one["new_tokens"],
      "logprobs": [-0.5] * one["new_tokens"]}}
    for one in job["requests"]
]
pathlib.Path(made).write_text(json.dumps([{{"version": "9.9", "answers": answers}}]))
"""


@pytest.fixture
def engine(tmp_path: Path) -> LlamaCppEngine:
    converter, python = tmp_path / "convert_hf_to_gguf.py", tmp_path / "python"
    converter.write_text(CONVERTER, encoding="utf-8")
    seen = str(tmp_path / "seen.json")
    python.write_text(RUNNER.format(python=sys.executable, seen=seen), encoding="utf-8")
    python.chmod(0o755)
    return LlamaCppEngine(python, converter)


def quiet(_done: int, _total: int) -> None:
    pass


def test_prompts_go_through_a_file_of_that_precision(
    engine: LlamaCppEngine, spliced: Spliced, tmp_path: Path
) -> None:
    content = spliced.json("tokenizer_config.json")
    spliced.write_json("tokenizer_config.json", content | {"auto_map": {"AutoTokenizer": "evil"}})
    request = Request(spliced.folder, "float32", [(1, 4, 5), (1, 6)], 2)
    transcripts, served_by = engine.run(request, quiet)
    assert (served_by.version, served_by.device) == ("(xllamacpp 9.9)", "cpu")
    assert [one.tokens for one in transcripts] == [(5, 5), (5, 5)]
    assert transcripts[0].logprobs.tolist() == [-1.0, -1.0, -0.5, -0.5]
    options, text = json.loads((tmp_path / "seen.json").read_text())
    assert options["ctx-size"] == "5"
    # Keys and values would be float16 otherwise.
    assert options["cache-type-k"] == "f32"
    assert "--outtype f32" in text


def test_what_is_missing_is_told(engine: LlamaCppEngine, spliced: Spliced, tmp_path: Path) -> None:
    request = Request(spliced.folder, "bfloat16", [(1, 4), (1, 5)], 1)
    nowhere = LlamaCppEngine(engine.python, tmp_path / "nowhere.py")
    with pytest.raises(UnsupportedError, match=r"--converter: .*nowhere\.py is not there"):
        nowhere.run(request, quiet)
    without = LlamaCppEngine(Path(sys.executable), engine.converter)
    with pytest.raises(UnsupportedError, match="has no xllamacpp"):
        without.run(request, quiet)
    engine.converter.write_text("raise SystemExit('this tokenizer is not known')", encoding="utf-8")
    with pytest.raises(CheckpointError, match="its converter failed:\n  this tokenizer"):
        engine.run(request, quiet)


def test_an_interpreter_is_found_from_the_current_folder(
    engine: LlamaCppEngine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "bin").mkdir()
    engine.python.rename(tmp_path / "bin" / "python")
    (tmp_path / "model").touch()
    monkeypatch.chdir(tmp_path)
    relative = LlamaCppEngine(Path("bin/python"), engine.converter)
    job = {"options": {"model": str(tmp_path / "model")}, "requests": []}
    made = tmp_path / "made"
    made.mkdir()
    assert relative.run_jobs([job], made) == [{"version": "9.9", "answers": []}]


def test_what_is_of_some_engines_alone(command: Command, spliced: Spliced) -> None:
    for options, message in (
        (["--engine", "vllm", "--converter", "x.py"], "it is for --engine llama.cpp"),
        (["--engine", "llama.cpp"], "--converter: missing"),
        (["--converter", "x.py"], "--converter: it needs an engine"),
        (
            ["--engine", "transformers", "--python", "x"],
            "--python: the engine",
        ),
    ):
        code, _, err = command("verify", spliced.folder, "--base", spliced.base, *options)
        assert code == 2
        assert message in err
