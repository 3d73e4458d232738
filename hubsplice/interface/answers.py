"""Answers of a model before and after a recipe's edits, without a build."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING

from hubsplice.errors import RecipeError
from hubsplice.interface.progress import ProgressChoice, reporting
from hubsplice.interface.sources import RecipeSource, as_recipe

if TYPE_CHECKING:
    from hubsplice.explore.answers import Answers, Compared
    from hubsplice.explore.trial import Trial


def answers(
    recipe: RecipeSource,
    prompts: str | Sequence[str],
    *,
    strengths: Sequence[float | str] = (),
    edit: int | None = None,
    plain: bool = False,
    max_new_tokens: int = 80,
    temperature: float = 0.0,
    top_p: float = 1.0,
    seed: int = 0,
    show: Callable[[Compared], None] | None = None,
    progress: ProgressChoice = True,
) -> Answers:
    """Let the base and its edits answer the same prompts, with the same random numbers.

    The edits are the exact hook on the base in float32. It is calibrated on little text, unless a
    strength counts in a largest activation that the recipe does not state.

    Args:
        recipe: a `Recipe`, its fields as a mapping, or the path of a YAML file.
        prompts: questions, put through the chat template where the model has one; each stands by
            itself.
        strengths: what to set the edit's strength to, one answer for each: numbers in the unit
            that the recipe counts in, or such as `0.5 x max`. None tries the recipe as it is.
        edit: which edit the strengths are of, counted over all splices from 0; not needed where
            only one has a strength.
        plain: continue the prompts as they are, without the chat template.
        max_new_tokens: the most tokens of one answer.
        temperature: 0 always takes the most probable token.
        top_p: the share of probability that is drawn from.
        seed: of the random numbers, which are the same for every strength.
        show: told of the answers to a prompt as they grow.
        progress: as in `build`.

    Returns:
        The answers, the base's first, with the words that changed.

    Raises:
        HubspliceError: as `build` raises; a `RecipeError` for a wrong argument.
    """
    from hubsplice.explore.answers import Answers, never_held

    asked = [prompts] if isinstance(prompts, str) else list(prompts)
    if not asked:
        raise RecipeError("prompts: none; give at least one")
    with trying(
        recipe,
        strengths=strengths,
        edit=edit,
        plain=plain,
        max_new_tokens=max_new_tokens,
        temperature=temperature,
        top_p=top_p,
        seed=seed,
        progress=progress,
    ) as trial:
        compared = tuple(trial.ask(prompt, show=show) for prompt in asked)
        return Answers(compared, (*trial.warnings, *never_held(compared)))


@contextmanager
def trying(
    recipe: RecipeSource,
    *,
    strengths: Sequence[float | str],
    edit: int | None,
    plain: bool,
    max_new_tokens: int,
    temperature: float,
    top_p: float,
    seed: int,
    progress: ProgressChoice,
) -> Iterator[Trial]:
    """A recipe's base and edits, ready to be asked; arguments and errors are as in `answers`."""
    parsed = as_recipe(recipe)
    from hubsplice.explore.generating import Sampling
    from hubsplice.explore.trial import trial

    sampling = Sampling(max_new_tokens, temperature, top_p, seed)
    with ExitStack() as stack:
        # The bars end before the answers begin.
        with reporting(progress) as report:
            ready = stack.enter_context(
                trial(
                    parsed,
                    edit=edit,
                    strengths=[str(one) for one in strengths],
                    sampling=sampling,
                    plain=plain,
                    progress=report,
                )
            )
        yield ready
