r"""Formulas of the pages, typeset as MathML when the site is built.

Pages have them in TeX, `$…$` in a line and `$$…$$` by itself, as GitHub shows them too. Browsers
typeset MathML themselves, so the site needs no script, no fonts and nothing from elsewhere.
"""

from __future__ import annotations

import html
import re

from latex2mathml.converter import convert

_FORMULA = re.compile(
    r'<(?P<tag>span|div) class="arithmatex">\\[\[(](?P<tex>.*?)\\[\])]</(?P=tag)>', re.DOTALL
)


def typeset(text: str) -> str:
    """HTML with every formula as MathML.

    Raises:
        ValueError: a formula has a command that is not known.
    """
    return _FORMULA.sub(_mathml, text)


def _mathml(found: re.Match[str]) -> str:
    tex = html.unescape(found["tex"]).strip()
    made: str = convert(tex, display="block" if found["tag"] == "div" else "inline")
    unknown = re.search(r">\\(\w+)", made)
    if unknown is not None:
        raise ValueError(f"formula {tex!r}: \\{unknown[1]} is not known")
    return made


def on_page_content(html: str, **_: object) -> str:
    """MkDocs calls this with every page."""
    return typeset(html)
