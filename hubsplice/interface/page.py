"""A recipe's strengths as sliders on a page in the browser."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

from hubsplice.interface.progress import ProgressChoice, reporting
from hubsplice.interface.sources import RecipeSource, as_recipe

LOOPBACKS = ("127.0.0.1", "localhost", "::1")
"""Where only this machine reaches a page."""


@dataclass(frozen=True)
class Page:
    """A page that is being served.

    Attributes:
        address: where.
        host: what it listens at.
        warnings: what may not be meant in the recipe, and what its hook does not reproduce.
    """

    address: str
    host: str
    warnings: tuple[str, ...]


@contextmanager
def serving_page(
    recipe: RecipeSource,
    *,
    prompt: str = "",
    host: str = LOOPBACKS[0],
    port: int | None = None,
    plain: bool = False,
    max_new_tokens: int = 80,
    temperature: float = 0.0,
    top_p: float = 1.0,
    seed: int = 0,
    progress: ProgressChoice = True,
) -> Iterator[Page]:
    """Serve a page on which the answers of a base and its edits are compared.

    Args:
        recipe: as in `answers`.
        prompt: what stands in the box at first.
        host: the address to listen at; whoever reaches it can ask the model.
        port: which port; None for the first that is free from 7860 on.
        plain: as in `answers`.
        max_new_tokens: what the page begins with, as in `answers`; so are the next three.
        temperature: as above.
        top_p: as above.
        seed: as above.
        progress: as in `build`.

    Raises:
        HubspliceError: as `build` raises; an `UnsupportedError` where Gradio is not installed.
    """
    from hubsplice.explore.page import require_gradio, served_page

    # Before the model is loaded, which takes longer.
    require_gradio()
    parsed = as_recipe(recipe)
    from hubsplice.explore.generating import Sampling
    from hubsplice.explore.workbench import workbench

    sampling = Sampling(max_new_tokens, temperature, top_p, seed)
    with ExitStack() as stack:
        with reporting(progress) as report:
            bench = stack.enter_context(workbench(parsed, plain=plain, progress=report))
        address = stack.enter_context(served_page(bench, prompt, sampling, host, port))
        yield Page(address, host, bench.warnings)
