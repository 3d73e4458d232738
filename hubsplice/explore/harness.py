"""Tasks of lm-evaluation-harness: the harness loads the model, runs the task and says the figures.

The package `lm_eval` is an extra, and is loaded only here.
"""

from __future__ import annotations

import gc
import logging
import math
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stdout, suppress
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from hubsplice.errors import HubspliceError, RecipeError, first_line, unknown_name
from hubsplice.files.digest import digest_file

if TYPE_CHECKING:
    from hubsplice.explore.vllm_answers import Vllm

Backend = Literal["hf", "vllm"]

_PACKAGE = "lm_eval"
_LARGEST = 1 << 26
_OURS = frozenset({"pretrained", "model", "tokenizer", "dtype", "trust_remote_code", "batch_size"})
"""Arguments of a backend that say what is compared, and how."""


@dataclass(frozen=True)
class Settings:
    """How tasks are run, the same for every model.

    Attributes:
        backend: what runs the model: `hf` (transformers) or `vllm`.
        num_fewshot: how many solved examples stand in front of a question; None for the task's own.
        limit: how many questions of a task are asked; None for all.
        batch_size: questions at once, as the harness takes it; a number or `auto`.
        chat: whether the chat template is applied.
        model_args: more arguments of the backend, as the harness takes them.
    """

    backend: Backend = "hf"
    num_fewshot: int | None = None
    limit: int | None = None
    batch_size: str = "8"
    chat: bool = False
    model_args: str = ""

    def __post_init__(self) -> None:
        for option, found, least in (
            ("--num-fewshot", self.num_fewshot, 0),
            ("--limit", self.limit, 1),
        ):
            if found is not None and found < least:
                raise RecipeError(f"{option}: found {found}, expected at least {least}")
        if self.batch_size != "auto" and not (
            self.batch_size.isascii() and self.batch_size.isdigit() and int(self.batch_size) > 0
        ):
            raise RecipeError(
                f"--batch-size: found {self.batch_size!r}, expected a number above 0, or auto"
            )
        for name, equals, _ in self._arguments():
            if not equals:
                raise RecipeError(f"--model-args: found {name!r}, expected NAME=VALUE")
            if name.strip() in _OURS:
                raise RecipeError(f"--model-args: {name.strip()} is hubsplice's to set")

    @property
    def options(self) -> dict[str, Any]:
        """The backend's arguments, as the harness reads `model_args`."""
        return {name.strip(): _value(value.strip()) for name, _, value in self._arguments()}

    def _arguments(self) -> Iterator[tuple[str, str, str]]:
        """Each name, the sign behind it, and what stands behind that."""
        parts = filter(None, map(str.strip, self.model_args.split(",")))
        return (part.partition("=") for part in parts)


@dataclass(frozen=True)
class Figure:
    """One figure of a task, as the harness says it.

    Attributes:
        metric: its name, such as `acc`.
        filter: how answers were read; `none` for no filter.
        value: the figure.
        stderr: its standard error; None where the harness has none.
        higher_is_better: None where the task doesn't say.
    """

    metric: str
    filter: str
    value: float
    stderr: float | None
    higher_is_better: bool | None


@dataclass(frozen=True)
class Ran:
    """What the harness says of a task that it ran.

    Attributes:
        figures: at least one.
        version: of the task; None where it has none.
        num_fewshot: how many solved examples stood in front; None for a group of tasks.
        questions: how many were asked; None for a group.
        dataset: the Hub's name of the data; None for local files and for a group.
        dataset_config: which part of it; None for the default.
        split: which split was asked.
        engine: what ran the model, with its version.
    """

    figures: tuple[Figure, ...]
    version: str | None
    num_fewshot: int | None
    questions: int | None
    dataset: str | None
    dataset_config: str | None
    split: str | None
    engine: str | None = None


class Harness:
    """The tasks that are asked for, once they are known to exist.

    Attributes:
        tasks: their names.
        settings: how they are run.
    """

    def __init__(
        self,
        tasks: Sequence[str],
        settings: Settings,
        include_path: Path | None = None,
        *,
        vllm: Vllm | None = None,
        option: str = "--tasks",
    ) -> None:
        """Look for the tasks.

        Args:
            tasks: names of tasks, groups or tags.
            settings: how they are run.
            include_path: a folder with more tasks, as YAML files.
            vllm: what runs the model, for the backend `vllm`; None for another backend.
            option: by which the user names tasks.

        Raises:
            RecipeError: the package is not installed, or there is no such task or folder.
        """
        if find_spec(_PACKAGE) is None:
            raise RecipeError(
                f"{option}: lm-evaluation-harness is not installed; pip install "
                "'hubsplice[evaluate]'"
            )
        if include_path is not None and not include_path.is_dir():
            raise RecipeError(f"--include-path: {include_path} is not a folder")
        # A task that is named twice is run once.
        self.tasks = tuple(dict.fromkeys(tasks))
        self.settings, self._include, self._option = settings, include_path, option
        self._vllm = vllm
        self._manager = self._known()

    def known_by(self, task: str) -> Any:
        """All that a task's figures depend on beside the model, as plain data."""
        return [task, asdict(self.settings), version(_PACKAGE), self._included]

    @contextmanager
    def loaded(self, folder: Path, dtype: str) -> Iterator[Any]:
        """A model from a folder, as the harness takes it, and gone at the end.

        Args:
            folder: the model's.
            dtype: the precision, such as `bfloat16`.

        Raises:
            HubspliceError: the harness can't load it.
        """
        import torch

        vllm = self._vllm
        lm = self._in_process(folder, dtype) if vllm is None else _served(folder, dtype, vllm)
        try:
            yield lm
        finally:
            if vllm is not None:
                lm.close()
            # There may be no room for two models.
            del lm
            gc.collect()
            if torch.cuda.is_available():
                torch.cuda.empty_cache()

    def _in_process(self, folder: Path, dtype: str) -> Any:
        given = {"pretrained": str(folder), "dtype": dtype, "trust_remote_code": False}
        return self._opened(given | {"device": _device()})

    def wrapped(self, model: Any, tokenizer: Any) -> Any:
        """A model that is in memory already, hooks and all, as the harness takes it."""
        return self._opened({"pretrained": model, "tokenizer": tokenizer})

    def run(self, lm: Any, task: str) -> Ran:
        """Run one task.

        Args:
            lm: what `loaded` or `wrapped` gave.
            task: one of `tasks`.

        Raises:
            HubspliceError: the harness can't run it.
        """
        from lm_eval import simple_evaluate

        asked = self.settings
        with _explained(f"task {task}"):
            found = simple_evaluate(
                lm,
                tasks=[task],
                num_fewshot=asked.num_fewshot,
                limit=asked.limit,
                apply_chat_template=asked.chat,
                task_manager=self._manager,
                log_samples=False,
            )
        return replace(_ran(task, found or {}, self._option), engine=getattr(lm, "engine", None))

    def _opened(self, given: Mapping[str, Any]) -> Any:
        from lm_eval.api.registry import get_model
        from transformers.utils.logging import disable_progress_bar

        disable_progress_bar()
        size = self.settings.batch_size
        with _explained("the model"):
            kind: Any = get_model(self.settings.backend)
            batch = {"batch_size": size if size == "auto" else int(size)}
            return kind.create_from_arg_obj({**given, **self.settings.options}, batch)

    def _known(self) -> Any:
        from lm_eval.tasks import TaskManager

        with _explained("its tasks"):
            if self._include is not None:
                # The harness's own are many thousands of files, and take long to read.
                manager = TaskManager(include_path=str(self._include), include_defaults=False)
                if set(self.tasks) <= {*manager.all_tasks}:
                    return manager
            include = None if self._include is None else str(self._include)
            manager = TaskManager(include_path=include)
        for task in self.tasks:
            if task not in manager.all_tasks:
                raise RecipeError(unknown_name(self._option, task, manager.all_tasks))
        return manager

    @cached_property
    def _included(self) -> Any:
        """The digests of the files in the folder of tasks: one that is changed is another task."""
        if self._include is None:
            return None
        found = {}
        for path in sorted(self._include.rglob("*")):
            if path.is_file() and "__pycache__" not in path.parts:
                name = path.relative_to(self._include).as_posix()
                try:
                    large = path.stat().st_size > _LARGEST
                    found[name] = path.stat().st_size if large else digest_file(path).sha256
                except OSError as error:
                    raise RecipeError(
                        f"--include-path: {path} can't be read: {error.strerror or error}"
                    ) from None
        return found


def _value(text: str) -> bool | int | float | str | None:
    """An argument's value; what stands in quotes is a text."""
    named = {"true": True, "false": False, "none": None}
    if text.lower() in named:
        return named[text.lower()]
    if len(text) >= 2 and text[0] == text[-1] and text[0] in "'\"":
        return text[1:-1]
    for kind in (int, float):
        with suppress(ValueError):
            return kind(text)
    return text


def _ran(task: str, found: Mapping[str, Any], option: str) -> Ran:
    own = found.get("results", {}).get(task)
    if own is None:
        names = ", ".join(sorted(found.get("results", {})))
        raise RecipeError(
            f"{option}: {task} is a tag, and the harness gives no figure of all its tasks "
            f"together; name them: {names}"
        )
    config = found.get("configs", {}).get(task, {})
    better = found.get("higher_is_better", {}).get(task, {})
    figures = tuple(_figures(own, better))
    if not figures:
        raise HubspliceError(f"task {task}: the harness gives no figure of it")
    shots, stated = found.get("n-shot", {}).get(task), found.get("versions", {}).get(task)
    dataset = str(config.get("dataset_path") or "")
    return Ran(
        figures=figures,
        version=None if stated is None else str(stated),
        num_fewshot=shots if isinstance(shots, int) else None,
        questions=found.get("n-samples", {}).get(task, {}).get("effective"),
        # Others are the names of loaders of local files, or folders.
        dataset=dataset if dataset.count("/") == 1 and not dataset.startswith((".", "/")) else None,
        dataset_config=config.get("dataset_name"),
        split=config.get("test_split") or config.get("validation_split"),
    )


def _figures(own: Mapping[str, Any], better: Mapping[str, Any]) -> Iterator[Figure]:
    for name, value in own.items():
        metric, comma, read_by = name.partition(",")
        if not comma or metric.endswith("_stderr") or (number := _number(value)) is None:
            continue
        yield Figure(
            metric=metric,
            filter=read_by,
            value=number,
            stderr=_number(own.get(f"{metric}_stderr,{read_by}")),
            higher_is_better=better.get(metric),
        )


def _number(value: object) -> float | None:
    """A finite number; the harness writes `N/A` for what it has not, or NaN."""
    return float(value) if isinstance(value, int | float) and math.isfinite(value) else None


def _served(folder: Path, dtype: str, vllm: Vllm) -> Any:
    from hubsplice.explore.harness_vllm import VllmModel

    return VllmModel(folder, dtype, vllm)


def _device() -> str:
    import torch

    return "cuda" if torch.cuda.is_available() else "cpu"


@contextmanager
def _explained(what: str) -> Iterator[None]:
    """Errors of the harness as hubsplice's; what it prints goes where progress goes."""
    logging.getLogger(_PACKAGE).setLevel(logging.ERROR)
    try:
        with redirect_stdout(sys.stderr):
            yield
    except HubspliceError:
        raise
    except Exception as error:
        raise HubspliceError(f"lm_eval: {what}: {first_line(error)}") from error
