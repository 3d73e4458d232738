"""Formulas of the pages: every one can be typeset, and one that can't be stops the site."""

from __future__ import annotations

import re
from pathlib import Path
from xml.etree import ElementTree

import pytest

from docs.formulas import typeset

DOCS = Path(__file__).parent.parent / "docs"


def shown(tex: str, tag: str = "span") -> str:
    ends = "[]" if tag == "div" else "()"
    return f'<{tag} class="arithmatex">\\{ends[0]}{tex}\\{ends[1]}</{tag}>'


def test_a_formula_becomes_mathml() -> None:
    text = typeset(f"<p>So {shown('p &gt; &lt;t')} and</p>{shown('a_k^2', 'div')}")
    assert text.startswith("<p>So <math")
    assert "arithmatex" not in text
    assert 'display="block"' in text
    ElementTree.fromstring(text[text.rindex("<math") :])


def test_a_command_that_is_not_known_stops_the_site() -> None:
    with pytest.raises(ValueError, match=r"\\foo is not known"):
        typeset(shown("\\foo + 1"))


@pytest.mark.parametrize("path", sorted(DOCS.glob("*.md")), ids=lambda path: path.stem)
def test_every_formula_of_a_page_can_be_typeset(path: Path) -> None:
    text = re.sub(r"```.*?```|`[^`\n]*`", "", path.read_text(encoding="utf-8"), flags=re.DOTALL)
    formulas = re.findall(r"\$\$(.+?)\$\$|\$(?=\S)([^$\n]+?)(?<=\S)\$", text, re.DOTALL)
    for block, inline in formulas:
        made = typeset(shown((block or inline).replace("&", "&amp;").replace("<", "&lt;")))
        ElementTree.fromstring(made)
    if path.stem == "how-it-works":
        assert len(formulas) > 20
