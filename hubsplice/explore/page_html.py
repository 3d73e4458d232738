"""Answers and activations as HTML for a page; all text is escaped."""

from __future__ import annotations

from collections.abc import Iterable
from html import escape

from hubsplice.explore.answers import Answer
from hubsplice.explore.gauges import Reading
from hubsplice.explore.words import changed_words
from hubsplice.visible import visible

CSS = """
.hs-answer { white-space: pre-wrap; overflow-wrap: anywhere; min-height: 3em; }
.hs-answer mark { background: rgba(234, 138, 12, 0.3); color: inherit; border-radius: 3px; }
.hs-note { opacity: 0.7; font-size: 0.85em; }
.hs-tokens { display: flex; flex-wrap: wrap; gap: 2px 1px; margin: 6px 0 14px; }
.hs-tokens > span { text-align: center; border-radius: 3px; padding: 1px 2px; }
.hs-tokens > span.hs-prompt { opacity: 0.6; }
.hs-tokens span span { white-space: pre; display: block; }
.hs-tokens small { font-size: 0.7em; opacity: 0.8; display: block; line-height: 1.1; }
"""
"""The page's style; every colour is half transparent, so that it fits light and dark."""

_WARM, _COOL = "234, 88, 12", "37, 99, 235"
_STRONGEST = 0.75


def answer_html(answer: Answer, before: str | None, *, whole: bool) -> str:
    """One answer as far as it is.

    Args:
        answer: the answer.
        before: the base's, from which changed words are marked; None for the base's own.
        whole: whether nothing more comes.
    """
    pieces = ((answer.text, False),) if before is None else changed_words(before, answer.text)
    text = "".join(f"<mark>{text_html(t)}</mark>" if new else text_html(t) for t, new in pieces)
    end = "ended by the model" if answer.ended else "cut at the limit"
    note = f"{answer.tokens} tokens, {end}" if whole else f"{answer.tokens} tokens …"
    return f'<div class="hs-answer">{text}</div><div class="hs-note">{note}</div>'


def readings_html(readings: Iterable[Reading], largest: dict[str, float]) -> str:
    """What gauges read, under each token.

    Args:
        readings: of one answer.
        largest: by the gauges' names, the value that is shown darkest.
    """
    return "".join(
        f"<details open><summary>{text_html(one.gauge)}</summary>"
        f'<div class="hs-tokens">{_tokens(one, largest.get(one.gauge, 0.0))}</div></details>'
        for one in readings
    )


def warnings_html(warnings: Iterable[str]) -> str:
    """Warnings, one a line."""
    return "".join(f'<div class="hs-note">warning: {text_html(one)}</div>' for one in warnings)


def _tokens(reading: Reading, most: float) -> str:
    return "".join(
        _token(token, value, most, prompt=i < reading.prompt)
        for i, (token, value) in enumerate(zip(reading.tokens, reading.values, strict=True))
    )


def _token(token: str, value: float | None, most: float, *, prompt: bool) -> str:
    share = 0.0 if value is None or most <= 0 else min(abs(value) / most, 1.0)
    colour = _COOL if value is not None and value < 0 else _WARM
    shown = "sink" if value is None else number(value)
    kind = ' class="hs-prompt"' if prompt else ""
    return (
        f'<span{kind} style="background: rgba({colour}, {_STRONGEST * share:.2f})">'
        f"<span>{text_html(token)}</span><small>{shown}</small></span>"
    )


def number(value: float) -> str:
    """A reading in few characters; a dot where there is none."""
    if value == 0:
        return "·"
    return f"{value:.0f}" if abs(value) >= 9.95 else f"{value:.1f}"


def text_html(text: str) -> str:
    """Text as it stands, which says nothing to a browser or a template."""
    # Gradio puts values into a template, in which braces and dollars may mean something.
    return escape(visible(text)).replace("{", "&#123;").replace("$", "&#36;")
