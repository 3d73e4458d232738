"""A recipe's strengths as sliders on a page in the browser, with the answers of base and edits.

The page is Gradio's, an optional package. It loads nothing from outside and tells nobody of
itself.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from hubsplice.errors import HubspliceError, OutputError, UnsupportedError
from hubsplice.explore.answers import BEFORE
from hubsplice.explore.dials import Dial
from hubsplice.explore.generating import Sampling
from hubsplice.explore.page_html import CSS, answer_html, readings_html, text_html, warnings_html
from hubsplice.explore.showing import as_shown
from hubsplice.explore.workbench import AFTER, Played, Workbench
from hubsplice.visible import visible

FIRST_PORT = 7860


def require_gradio() -> Any:
    """The package Gradio.

    Raises:
        UnsupportedError: it is not installed.
    """
    try:
        import gradio
    except ImportError:
        raise UnsupportedError(
            "--web needs the package gradio: pip install 'hubsplice[web]'"
        ) from None
    return gradio


@contextmanager
def served_page(
    bench: Workbench, prompt: str, sampling: Sampling, host: str, port: int | None
) -> Iterator[str]:
    """Serve the page while the context lasts, and give its address.

    Args:
        bench: the recipe.
        prompt: what stands in the box at first.
        sampling: how answers are drawn at first.
        host: the address to listen at.
        port: which port; None for the first that is free from 7860 on.

    Raises:
        UnsupportedError: Gradio is not installed.
        OutputError: the port is taken, or can't be listened at.
    """
    gr = require_gradio()
    page = _page(gr, bench, prompt, sampling)
    try:
        _, address, _ = page.queue(default_concurrency_limit=1).launch(
            server_name=host,
            server_port=port,
            prevent_thread_lock=True,
            quiet=True,
            share=False,
            ssr_mode=False,
            footer_links=[],
            css=CSS,
            theme=gr.themes.Default(font="sans-serif", font_mono="monospace"),
        )
    except OSError:
        where = f"port {port}" if port else f"every port from {FIRST_PORT} on"
        raise OutputError(
            f"--port: {where} of {host} is taken, or nothing can listen at that address"
        ) from None
    try:
        yield address.rstrip("/")
    finally:
        page.close(verbose=False)


def _page(gr: Any, bench: Workbench, prompt: str, sampling: Sampling) -> Any:
    turn = threading.Lock()

    def ask(
        text: str, tokens: float, temperature: float, top_p: float, seed: float, *values: float
    ) -> Iterator[tuple[str, str, str, str, str]]:
        if not text.strip():
            raise gr.Error("There is no prompt.", print_exception=False)
        drawn = Sampling(int(tokens), float(temperature), float(top_p), int(seed or 0))

        def work(show: Callable[[Played], None]) -> None:
            with turn:
                show(bench.ask(text, [float(value) for value in values], drawn, show))

        try:
            for played in as_shown(work):
                yield _drawn(played)
        except HubspliceError as error:
            raise gr.Error(visible(str(error)), print_exception=False) from None

    with gr.Blocks(title="hubsplice try", analytics_enabled=False, fill_width=True) as page:
        gr.HTML(f"<h2>{text_html(bench.base_model)}</h2>{warnings_html(bench.warnings)}")
        with gr.Row():
            with gr.Column(scale=3):
                box = gr.Textbox(prompt, label="prompt", lines=2, elem_id="prompt")
                with gr.Row():
                    button = gr.Button("Ask", variant="primary", elem_id="ask")
                    stop = gr.Button("Stop", elem_id="stop")
            with gr.Column(scale=2):
                controls = [_control(gr, dial) for dial in bench.dials]
                with gr.Accordion("How answers are drawn", open=False):
                    how = _how(gr, sampling)
        with gr.Row():
            answers, strips = [], []
            for name in (BEFORE, AFTER):
                with gr.Column():
                    gr.HTML(f"<h3>{name}</h3>")
                    answers.append(gr.HTML(elem_id=f"answer-{name}"))
                    strips.append(gr.HTML(elem_id=f"tokens-{name}"))
        doubts = gr.HTML(elem_id="warnings")
        asking = gr.on(
            [button.click, box.submit],
            ask,
            inputs=[box, *how, *controls],
            outputs=[*answers, *strips, doubts],
            show_progress="minimal",
            api_visibility="private",
        )
        stop.click(None, cancels=[asking], api_visibility="private")
    return page


def _control(gr: Any, dial: Dial) -> Any:
    if dial.knob is None:
        # As 0 or 1, like the others.
        return gr.Checkbox(value=True, label=visible(dial.name), elem_classes="hs-dial")
    return gr.Slider(
        dial.low,
        dial.high,
        dial.value,
        step=dial.step,
        label=visible(f"{dial.name}: {dial.knob.field}"),
        info=visible(dial.unit) or None,
        elem_classes="hs-dial",
    )


def _how(gr: Any, sampling: Sampling) -> Sequence[Any]:
    return (
        gr.Slider(1, max(400, sampling.max_new_tokens), sampling.max_new_tokens, step=1,
                  label="most tokens of an answer"),
        gr.Slider(0, max(2.0, sampling.temperature), sampling.temperature, step=0.05,
                  label="temperature", info="0 takes the most probable token"),
        gr.Slider(0.05, 1, sampling.top_p, step=0.05, label="top p"),
        gr.Number(sampling.seed, label="seed", precision=0, minimum=0),
    )  # fmt: skip


def _drawn(played: Played) -> tuple[str, str, str, str, str]:
    before, after = played.compared.answers
    largest: dict[str, float] = {}
    for readings in played.readings:
        for one in readings:
            values = [abs(v) for v in one.values if v is not None]
            largest[one.gauge] = max(largest.get(one.gauge, 0.0), *values, 0.0)
    strips = [readings_html(one, largest) for one in played.readings] or ["", ""]
    return (
        answer_html(before, None, whole=played.whole),
        answer_html(after, before.text, whole=played.whole),
        strips[0],
        strips[1],
        warnings_html(played.warnings),
    )
