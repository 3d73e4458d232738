"""The programs that serve models, and what each was found to do with a class."""

from __future__ import annotations

import datetime
import enum
from dataclasses import dataclass


class EngineKey(enum.StrEnum):
    """What the command line calls the engines."""

    VLLM = "vllm"
    TRANSFORMERS = "transformers"
    SGLANG = "sglang"
    TGI = "tgi"
    LLAMA_CPP = "llama.cpp"


class Evidence(enum.StrEnum):
    """How it is known what an engine does with a class."""

    RUN = "spliced models were run through it"
    READ = "read in its source"


@dataclass(frozen=True)
class Support:
    """What one engine does with one class.

    Attributes:
        evidence: how it is known.
        ignored_biases: linear maps whose bias it leaves out, by name in the layer.
        ignored_fields: fields of config.json that go by layers and that it does not act on.
        note: what else there is to say.
    """

    evidence: Evidence
    ignored_biases: frozenset[str] = frozenset()
    ignored_fields: frozenset[str] = frozenset()
    note: str = ""


@dataclass(frozen=True)
class ExaminedVersion:
    """The version of an engine that all entries on it are about.

    Attributes:
        name: what texts call the engine.
        version: as it calls itself, or the commit.
        examined: when the entries were last found to hold.
        needs: what has to be done to a checkpoint before it can be served; empty for nothing.
    """

    name: str
    version: str
    examined: datetime.date
    needs: str = ""


EXAMINED = {
    EngineKey.VLLM: ExaminedVersion("vLLM", "0.32.0", datetime.date(2026, 11, 28)),
    EngineKey.TRANSFORMERS: ExaminedVersion("transformers", "5.23", datetime.date(2026, 11, 28)),
    EngineKey.SGLANG: ExaminedVersion("SGLang", "0.5.23", datetime.date(2026, 11, 23)),
    EngineKey.TGI: ExaminedVersion("TGI", "5d14a7f", datetime.date(2026, 11, 23)),
    EngineKey.LLAMA_CPP: ExaminedVersion(
        "llama.cpp",
        "0c1e570",
        datetime.date(2026, 11, 28),
        needs="a GGUF file, which its convert_hf_to_gguf.py makes of the checkpoint",
    ),
}

RUN = Support(Evidence.RUN)
READ = Support(Evidence.READ)
BACKEND = Support(Evidence.RUN, note="through its Transformers backend")
