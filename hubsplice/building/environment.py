"""What a build ran on, and how to have it again: `environment.json` and `requirements.txt`.

Arithmetic in floating point depends on the libraries, on the processor's instructions, and on how
many threads share a sum. A rebuild elsewhere may therefore differ in the last digits, and this
record says why.
"""

from __future__ import annotations

import platform
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import torch
from pydantic import Field, PositiveInt

from hubsplice import __version__
from hubsplice.checkpoint.manifest import Record
from hubsplice.checkpoint.record_file import read_record, write_record
from hubsplice.streams.precision import arithmetic

ENVIRONMENT = "reproduce/environment.json"
"""Where a spliced checkpoint carries the record."""

REQUIREMENTS = "reproduce/requirements.txt"
"""Where it carries the versions, in the form that pip takes."""

_PACKAGES = (
    "torch",
    "transformers",
    "tokenizers",
    "safetensors",
    "sae-lens",
    "numpy",
    "datasets",
    "huggingface-hub",
    "accelerate",
    "jinja2",
)
"""What computes, or decides which tokens are computed on."""


class Environment(Record):
    """What may show in the last digits of a build."""

    hubsplice: str = Field(description="The version of hubsplice.")
    python: str
    packages: dict[str, str] = Field(description="Installed versions, by the name that pip knows.")
    system: str = Field(description="The operating system and the kind of machine.")
    cpu: str = Field(description="The processor's model.")
    instructions: str = Field(description="The vector instructions that PyTorch uses.")
    threads: PositiveInt = Field(description="How many threads share a sum.")
    devices: tuple[str, ...] = Field(description="The GPUs; none where the CPU computed.")
    arithmetic: tuple[str, ...] = Field(
        (), description="How products are computed; nothing in records of an older hubsplice."
    )

    def differences(self, other: Environment) -> tuple[str, ...]:
        """Where `other` differs, each as `name: here, there`."""
        return tuple(self._differences(other))

    def _differences(self, other: Environment) -> Iterator[str]:
        for name in ("hubsplice", "python", "system", "cpu", "instructions", "threads"):
            here, there = getattr(self, name), getattr(other, name)
            if here != there:
                yield f"{name}: {here}, {there}"
        for name in sorted({*self.packages, *other.packages}):
            here, there = (e.packages.get(name, "none") for e in (self, other))
            if here != there:
                yield f"{name}: {here}, {there}"
        if self.devices != other.devices:
            here, there = (", ".join(e.devices) or "the CPU" for e in (self, other))
            yield f"devices: {here}, {there}"
        if self.arithmetic and other.arithmetic and self.arithmetic != other.arithmetic:
            here, there = ("; ".join(e.arithmetic) for e in (self, other))
            yield f"arithmetic: {here}, {there}"


def this_environment() -> Environment:
    """What this process computes with."""
    return Environment(
        hubsplice=__version__,
        python=platform.python_version(),
        packages=dict(_installed()),
        system=f"{platform.system()} {platform.machine()}",
        cpu=_cpu(),
        instructions=torch.backends.cpu.get_cpu_capability(),
        threads=torch.get_num_threads(),
        devices=tuple(
            torch.cuda.get_device_name(i)
            for i in range(torch.cuda.device_count() if torch.cuda.is_available() else 0)
        ),
        arithmetic=arithmetic(),
    )


def write_environment(environment: Environment, folder: Path) -> None:
    """Write the record and the list of versions to a checkpoint that has none."""
    write_record(environment, folder / ENVIRONMENT)
    (folder / REQUIREMENTS).write_text(requirements(environment), encoding="utf-8")


def read_environment(folder: Path) -> Environment:
    """Read the record of a checkpoint.

    Raises:
        CheckpointError: it is missing or malformed.
    """
    return read_record(folder / ENVIRONMENT, Environment)


def requirements(environment: Environment) -> str:
    """The versions as pip reads them: `pip install -r requirements.txt`.

    A version such as `2.9.1+cpu` is on no public index; the line has the public version, and a
    comment the whole one.
    """
    lines = [f"# Built with hubsplice {environment.hubsplice} on Python {environment.python}."]
    for name, found in environment.packages.items():
        public, local, _ = found.partition("+")
        lines.append(f"{name}=={public}{f'  # built with {found}' if local else ''}")
    return "\n".join(lines) + "\n"


def _installed() -> Iterator[tuple[str, str]]:
    for name in _PACKAGES:
        try:
            yield name, version(name)
        except PackageNotFoundError:
            continue


def _cpu() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    models = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(models, platform.processor() or "unknown")
