"""A built checkpoint and its base side by side."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from os import fspath
from typing import TYPE_CHECKING, Any, Literal

from hubsplice.errors import RecipeError
from hubsplice.interface.progress import ProgressChoice, reporting
from hubsplice.interface.scorers import prompts_of, scorer_of
from hubsplice.interface.sources import AnyPath, as_interpreter, as_path

if TYPE_CHECKING:
    from hubsplice.evaluating.results import Evaluation

_SUFFIX = ".evaluation.jsonl"


def evaluate(
    folder: AnyPath,
    *,
    prompts: AnyPath | Sequence[str] | None = None,
    scores: Sequence[str | Mapping[str, Any]] = (),
    tasks: Sequence[str] = (),
    base: AnyPath | None = None,
    recipe: AnyPath | None = None,
    plain: bool = False,
    max_new_tokens: int = 80,
    temperature: float = 0.0,
    top_p: float = 1.0,
    seed: int = 0,
    neutral_tokens: int = 1024,
    include_path: AnyPath | None = None,
    backend: Literal["hf", "vllm"] = "hf",
    num_fewshot: int | None = None,
    limit: int | None = None,
    batch_size: int | str = 8,
    chat: bool = False,
    model_args: str = "",
    python: AnyPath | None = None,
    answers: AnyPath | None = None,
    progress: ProgressChoice = True,
) -> Evaluation:
    """Compare a built checkpoint with its base: what it is for, and what else it does.

    Both models run from their folders, one after the other, in the precision that the layers were
    compiled for. Both answer the same prompts with the same random numbers; scores, repeated words
    and length of the answers stand side by side, and so do perplexity and KL on neutral text. Tasks
    of lm-evaluation-harness run with the same settings on both. What was computed is kept in a
    file, and an evaluation that was stopped goes on where it was. The results are written into the
    folder, and its card.

    Args:
        folder: what `build` wrote, or a download of it.
        prompts: a file with one prompt a line, the `evaluation.json` that has them, or the
            prompts; general questions where none are given. With tasks and neither prompts nor
            scores, nothing is asked.
        scores: what answers are scored by, as in `sweep`. The first is the target.
        tasks: names of tasks, groups or tags of lm-evaluation-harness, which is the extra
            `evaluate` of this package.
        base: the base model, where the checkpoint was made from a local folder.
        recipe: the recipe's file, to show what `sweep` wrote into it.
        plain: as in `answers`.
        max_new_tokens: as in `answers`.
        temperature: as in `answers`.
        top_p: as in `answers`.
        seed: as in `answers`.
        neutral_tokens: of the text on which side effects are measured.
        include_path: a folder with more tasks.
        backend: what answers and runs the tasks: `hf` for transformers, or `vllm`. Neutral text is
            always read by transformers, since KL needs all probabilities.
        num_fewshot: how many solved examples stand in front of a question; the task's own where it
            is None.
        limit: how many questions of each task are asked; all where it is None.
        batch_size: questions at once, or `auto`.
        chat: whether tasks go through the chat template.
        model_args: more arguments of the backend, as the harness takes them; of `vllm.LLM` for
            vLLM.
        python: the interpreter of vLLM's environment; this one where none is given.
        answers: the file that answers are kept in; beside the folder where none is given.
        progress: as in `build`.

    Returns:
        Both models' figures, with those of an earlier evaluation that were not asked again.

    Raises:
        RecipeError: an argument is wrong, or lm-evaluation-harness is missing.
        CheckpointError: hubsplice did not build the folder, a file in it was altered, or the base
            is another one.
        OutputError: the results can't be written.
    """
    from hubsplice.building.evaluate import evaluate as evaluate_folder
    from hubsplice.evaluating.evaluate import Asked
    from hubsplice.explore.generating import Sampling
    from hubsplice.explore.harness import Harness, Settings
    from hubsplice.explore.vllm_answers import Vllm
    from hubsplice.text.questions import QUESTIONS

    path = as_path(folder)
    settings = Settings(backend, num_fewshot, limit, str(batch_size), chat, model_args)
    if python is not None and backend != "vllm":
        raise RecipeError("--python: it is vLLM's interpreter; expected --backend vllm with it")
    vllm = Vllm(as_interpreter(python), settings.options) if backend == "vllm" else None
    asked = None
    if prompts is not None or scores or not tasks:
        asked = Asked(
            prompts=QUESTIONS if prompts is None else prompts_of(prompts),
            by_author=prompts is not None,
            scorers=[scorer_of(one) for one in scores],
            sampling=Sampling(max_new_tokens, temperature, top_p, seed),
            plain=plain,
            neutral_tokens=neutral_tokens,
            vllm=vllm,
        )
    # What runs the tasks answers too, but transformers takes no arguments for that.
    of_both = Settings() if backend == "hf" else Settings(backend, model_args=model_args)
    if not tasks and (include_path is not None or settings != of_both):
        raise RecipeError("--tasks: missing; what is said of tasks needs at least one task to run")
    kept = path.resolve().with_name(path.resolve().name + _SUFFIX)
    with reporting(progress) as report:
        return evaluate_folder(
            path,
            base=None if base is None else fspath(base),
            asked=asked,
            harness=(
                Harness(
                    tasks,
                    settings,
                    None if include_path is None else as_path(include_path),
                    vllm=vllm,
                )
                if tasks
                else None
            ),
            recipe=None if recipe is None else as_path(recipe),
            record=kept if answers is None else as_path(answers),
            progress=report,
        )
