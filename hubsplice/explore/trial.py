"""A recipe put to the question: the base and its edits answer the same prompts."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from types import MappingProxyType

import jinja2
import torch
from transformers import PreTrainedTokenizerBase

from hubsplice.compiling.open_plan import open_plan
from hubsplice.compiling.plan import make_plan
from hubsplice.errors import RecipeError
from hubsplice.explore.answers import BEFORE, Answer, Compared
from hubsplice.explore.generating import Asked, Sampling, generate
from hubsplice.explore.holding import held
from hubsplice.explore.quick import Hook, QuickHooks
from hubsplice.intervention.intervention import Intervention
from hubsplice.recipe.models import Recipe
from hubsplice.recipe.strengths import knob, with_strength
from hubsplice.streams.model import Model, loaded
from hubsplice.terminal import Progress
from hubsplice.text.chat import Message, conversation, has_template
from hubsplice.text.ends import end_tokens
from hubsplice.text.tokenizer import load_tokenizer

Show = Callable[[Compared], None]

_AFTER = "after"


class Trial:
    """A base in memory, and the edits that it is tried with."""

    def __init__(
        self,
        model: Model,
        tokenizer: PreTrainedTokenizerBase,
        edits: Sequence[tuple[str, Intervention | None]],
        sampling: Sampling,
        ends: frozenset[int],
        warnings: tuple[str, ...],
        *,
        plain: bool,
        hooks: Mapping[str, Hook] = MappingProxyType({}),
    ) -> None:
        self.warnings, self._hooks = warnings, hooks
        self._model, self._tokenizer, self._edits = model, tokenizer, edits
        self._sampling, self._ends = sampling, ends
        self._plain = plain or not has_template(tokenizer)
        self._histories: list[list[Message]] = [[] for _ in edits]
        self._turn = 0

    @property
    def misfit(self) -> bool:
        """Whether a build would refuse an edit, since its SAE explains nothing of the stream."""
        return any(hook.misfit for hook in self._hooks.values())

    def ask(
        self,
        prompt: str,
        *,
        keep: bool = False,
        show: Show | None = None,
        see: Callable[[int, int], None] | None = None,
    ) -> Compared:
        """Answers to one prompt, the base's first.

        Args:
            prompt: the question.
            keep: whether it goes on from the earlier ones, each edit with its own answers.
            show: told of the answers as they grow.
            see: told of every token: which answer it is of, and which it is.

        Raises:
            RecipeError: the chat template refuses the prompt, or it has no tokens.
        """
        if keep and self._plain:
            raise RecipeError("--chat: the model has no chat template, or --plain is given")
        said: Message = {"role": "user", "content": prompt}
        messages = [[*history, said] if keep else [said] for history in self._histories]
        key = f"turn {self._turn}" if keep else prompt
        asked = [
            Asked(self._ids(prompt, own), edit, key)
            for own, (_, edit) in zip(messages, self._edits, strict=True)
        ]
        growing: list[list[int]] = [[] for _ in asked]

        def grow(row: int, token: int) -> None:
            growing[row].append(token)
            if see is not None:
                see(row, token)
            if show is not None:
                show(self._compared(prompt, [(tokens, False) for tokens in growing]))

        generated = generate(self._model, asked, self._sampling, self._ends, see=grow)
        compared = self._compared(prompt, [(list(one.ids), one.ended) for one in generated])
        holdings = [
            holding
            for (name, _), given, answer in zip(self._edits, asked, generated, strict=True)
            if name in self._hooks
            for holding in held(
                self._model, self._hooks[name], name, [*given.ids, *answer.ids], len(given.ids)
            )
        ]
        compared = replace(compared, held=tuple(holdings))
        if keep:
            self._turn += 1
            for history, answer in zip(self._histories, compared.answers, strict=True):
                history += [said, {"role": "assistant", "content": answer.text}]
        return compared

    def prompt_ids(self, prompt: str) -> tuple[int, ...]:
        """The tokens that the model is given for a prompt by itself; raises as `ask` does."""
        return self._ids(prompt, [{"role": "user", "content": prompt}])

    def _compared(self, prompt: str, drawn: Sequence[tuple[Sequence[int], bool]]) -> Compared:
        return Compared(
            prompt,
            tuple(
                Answer(name, self._text(tokens), len(tokens), ended)
                for (name, _), (tokens, ended) in zip(self._edits, drawn, strict=True)
            ),
        )

    def _text(self, tokens: Sequence[int]) -> str:
        text: str = self._tokenizer.decode(list(tokens), skip_special_tokens=True)
        return text.strip()

    def _ids(self, prompt: str, messages: Sequence[Message]) -> tuple[int, ...]:
        if self._plain:
            ids = self._tokenizer(prompt, verbose=False).input_ids
        else:
            try:
                ids = conversation(self._tokenizer, messages, to_be_answered=True)
            except (jinja2.TemplateError, ValueError) as error:
                raise RecipeError(
                    f"the model's chat template refuses the prompt: {error}"
                ) from None
        if not ids:
            raise RecipeError("the prompt has no tokens")
        return tuple(ids)


@contextmanager
def trial(
    recipe: Recipe,
    *,
    edit: int | None,
    strengths: Sequence[str],
    sampling: Sampling,
    plain: bool,
    progress: Progress,
) -> Iterator[Trial]:
    """Load a recipe's base, and make its edits ready.

    Args:
        recipe: the recipe.
        edit: which of its edits the strengths are of; None for the only one that has any.
        strengths: what to try, each as the recipe would have it; none for the recipe as it is.
        sampling: how answers are drawn.
        plain: whether prompts are continued as they are, without the chat template.
        progress: told how far it is, until the edits are ready.

    Raises:
        HubspliceError: the recipe is wrong, or something that it names is missing or damaged.
    """
    found = knob(recipe, edit) if strengths else None
    values = [found.parse(text, "--strength") for text in strengths] if found else []
    planned = make_plan(recipe)
    # Its recipe names everything by what was found.
    variants: list[tuple[str, Recipe]] = [(_AFTER, planned.recipe)]
    if found is not None:
        variants = [(found.shown(v), with_strength(planned.recipe, found, v)) for v in values]
    plan = open_plan(planned)
    tokenizer = load_tokenizer(plan.resolved.folder)
    progress("loading the model", 0, 1)
    with loaded(plan.resolved.folder, torch.float32) as model:
        progress("loading the model", 1, 1)
        hooks = QuickHooks(plan, model, tokenizer, [v for _, v in variants], progress)
        ready: list[tuple[str, Hook]] = [(name, hooks.hook(variant)) for name, variant in variants]
        doubts = (
            *plan.plan.warnings,
            *(
                warning if name == _AFTER else f"strength {name}: {warning}"
                for name, hook in ready
                for warning in hook.warnings
            ),
        )
        yield Trial(
            model,
            tokenizer,
            [(BEFORE, None), *((name, hook.intervention) for name, hook in ready)],
            sampling,
            end_tokens(tokenizer, plan.resolved.folder),
            tuple(dict.fromkeys(doubts)),
            plain=plain,
            hooks=dict(ready),
        )
