"""Text from a recipe stays text, whatever it holds."""

from __future__ import annotations

import html
import json
import re
import shlex
import unicodedata
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from markdown_it import MarkdownIt
from markdown_it.token import Token

from hubsplice.card import render_card
from hubsplice.card.escape import Markdown, clean, code, inline, table
from hubsplice.card.snippets import python_string, shell_word
from hubsplice.card.words import AuthorWords
from hubsplice.rendering.content import Table
from tests.card.examples import distribution, manifest, metadata, report, site, term

PARSER = MarkdownIt("commonmark", {"html": True}).enable(["table", "strikethrough"])

# What GitHub's flavour of Markdown links without any mark-up, by its specification and by the
# regular expressions of remark, which looks at finished text.
AUTOLINK = re.compile(
    r"https?://|ftp://|www(?=\.)|[-.\w+]+@[-\w]+(?:\.[-\w]+)+|(?:mailto|xmpp):[-.\w+]+@[-\w]",
    re.IGNORECASE,
)
FORMULA = re.compile(r"\\[()\[\]]|\$\$")

NASTY = (
    *"`*_[]()<>|#-+=~!&;:/\\.@$'\"{}0123456789ab \t\n\r",
    *("\u2028", "\x85", "\x00", "\u200b", "\u202e", "\ufeff", "é", "😀", "\u00a0"),
    *("---\n", "\n---\n", "...\n", "```\n", "~~~\n", "\n\n", "    ", "\n# ", "\n- ", "\n1. ", "> "),
    *("<b>", "</details>", "<!--", "-->", "<script>", "<img src=x onerror=y>", "&lt;", "&#60;"),
    *("[a](http://x.y)", "![a](b)", "[a]: http://x.y", "[^1]", "<http://x.y>", "a@b.co", "| a |"),
    *(
        "https://x.y/z",
        "HTTP://x.y",
        "www.x.y",
        "mailto:a@b.co",
        "\\|",
        "\\\\(",
        "$$x$$",
        ": ",
        "**",
    ),
    *("{{ 7 * 7 }}", "{% raw %}", "|---|", "\n===\n", "!!python/object", "license: mit"),
)
TEXT = st.lists(st.sampled_from(NASTY) | st.characters(), max_size=12).map("".join)


def card(label: str) -> str:
    """A card in which everything that can come from a recipe is `label`."""
    named = manifest(
        layers=[
            {
                "site": 1,
                "construction": label,
                "constants": {},
                "terms": [
                    term(
                        label=label,
                        kind=label,
                        formula="h − f·d",
                        edit={"kind": "scale", "factor": label},
                        # A letter and a colon would be a path, which manifests refuse.
                        source={"release": f"of {label}"},
                    )
                ],
            }
        ],
        layer_map=[{"base": 0}, {"splice": 0}],
        versions={"python": label},
    )
    features = [{"label": label, "edited_tokens": 1, "residual_error": 0.1, "gate_f1": None}]
    measured = report(
        verdict=label,
        approximations=[label],
        precisions=[
            {
                "dtype": "bfloat16",
                "noise_floor": None,
                "splice_error": distribution(1.0),
                "ratio": None,
                "clipped_ratio": None,
                "effect_over_error": None,
                "hook_top1_agreement": 1.0,
                "splice_top1_agreement": 1.0,
                "sites": [site(features=features)],
            }
        ],
    )
    return render_card(
        named,
        measured,
        # A blank description is none, and has no paragraph.
        author=AuthorWords(title=label, description=label if clean(label) else "-"),
        model_id="me/model",
    )


def body(text: str) -> str:
    """What follows the front matter, by the rule of whoever reads line by line."""
    _, _, rest = text.removeprefix("---\n").partition("\n---\n")
    return rest


def skeleton(tokens: list[Token]) -> list[Any]:
    """Everything of a document but its words."""
    return [
        (
            token.type,
            token.tag,
            token.nesting,
            token.level,
            token.attrs,
            token.content if token.type in ("html_block", "html_inline", "fence") else None,
            skeleton(token.children or []),
        )
        for token in tokens
    ]


def words(tokens: list[Token]) -> list[str]:
    """The text of every block."""
    return [
        "".join(part.content for part in token.children or [])
        for token in tokens
        if token.type == "inline"
    ]


PLAIN = card("plain")
PLAIN_SKELETON = skeleton(PARSER.parse(body(PLAIN)))
PLAIN_METADATA = metadata(PLAIN)


@given(TEXT)
@example("](http://x.y) | <b> `\n---\n# x\n\n```\n| a | b |\n|---|---|\n")
@example("1. ")
@example("- ")
@example("\\")
@example("")
@example("*a* **b** _c_ ~~d~~")
@example("[a](b) ![a](b) [a]")
@example("<!-- a")
@example("a <b c='d'> </details>")
@example("a\\| b")
@example("www.example.com and https://example.com and me@example.com")
def test_a_label_cannot_change_what_a_card_is_made_of(label: str) -> None:
    text = card(label)
    tokens = PARSER.parse(body(text))
    assert skeleton(tokens) == PLAIN_SKELETON
    assert metadata(text) == PLAIN_METADATA
    for block in tokens:
        for part in block.children or []:
            if part.type == "text":
                assert not AUTOLINK.search(part.content)
                assert not FORMULA.search(part.content)


@given(TEXT)
def test_a_label_is_shown_as_it_was_written(label: str) -> None:
    shown = clean(label)
    (paragraph,) = words(PARSER.parse(inline(f"x{label}x")))
    assert paragraph.replace("\u2060", "") == clean(f"x{label}x")
    row = Table(("name", "number"), ((label, "1"),))
    cells = words(PARSER.parse(table(row)))
    assert [cell.replace("\u2060", "") for cell in cells] == ["name", "number", shown or "–", "1"]


@given(TEXT)
def test_code_is_shown_as_it_was_written(text: str) -> None:
    shown = clean(text)
    row = Table(("name",), ((Markdown(code(text)),),))
    _, cell = words(PARSER.parse(table(row)))
    assert cell.replace("\u2060", "") == shown or (not shown and cell == "–")


@given(TEXT)
def test_what_is_seen_is_one_line_that_reads_in_order(text: str) -> None:
    shown = clean(text)
    assert len(shown.splitlines()) <= 1
    assert shown == shown.strip()
    assert not {unicodedata.category(character) for character in shown} & {"Cc", "Cs", "Zl", "Zp"}
    assert not set("\u200b\u202e\u2066\ufeff\u00ad") & set(shown)
    assert clean(shown) == shown


def test_joiners_stay() -> None:
    family = "👨\u200d👩\u200d👧 و\u200cم"
    assert clean(family) == family


def test_the_source_stays_readable() -> None:
    plain = "Fish & chips: 3.5 kg (about), C-3PO's 'quotes' – e.g. 50%, x = y + z!"
    assert html.unescape(inline(plain)) == plain
    assert inline("release_12 #3") == r"release\_12 \#3"


@given(TEXT)
def test_names_in_code_blocks(name: str) -> None:
    literal, word = python_string(name), shell_word(name)
    assert json.loads(literal) == clean(name)
    assert shlex.split(word) == [clean(name)]
    for line in (literal, word):
        assert len(line.splitlines()) == 1


@pytest.mark.parametrize("name", ['x"\n```\n# heading\n', "$(reboot)", "a b; `c`", "--help"])
def test_a_folder_with_an_odd_name(name: str) -> None:
    text = render_card(manifest(), report(), model_id=name)
    usual = render_card(manifest(), report(), model_id="me/model")

    def without_code(tokens: list[Token]) -> list[Any]:
        return [part for part in skeleton(tokens) if part[0] != "fence"]

    assert without_code(PARSER.parse(body(text))) == without_code(PARSER.parse(body(usual)))
