"""Text of others as it can be shown: what moves a cursor, turns or hides text is spelled out.

A terminal obeys escape sequences, and text that runs from right to left can say one thing and show
another. So can what an error says of a file, or a table of its contents.
"""

from __future__ import annotations

import re

# Control characters but tab and line feed; a soft hyphen, marks and spaces without a width, line
# and paragraph separators, whatever turns the direction of text, a byte order mark, halves of
# surrogate pairs, and tags. Joiners stay: scripts and emoji are written with them.
HIDDEN = re.compile(
    r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u00ad\u061c\u180e\u200b\u200e\u200f\u2028-\u202e\u2060-\u206f"
    r"\ufeff\ufff9-\ufffb\ud800-\udfff\U000e0000-\U000e007f]"
)
"""One character that is not shown as it is."""


def visible(text: str) -> str:
    r"""The text with every hidden character as Python spells it, such as `\x1b` and `\u202e`."""
    return HIDDEN.sub(lambda found: _spelled(ord(found[0])), text)


def visible_json(text: str) -> str:
    """JSON in which hidden characters are escaped; it means the same.

    They stand in strings only, where JSON escapes everything below a space itself.
    """
    return HIDDEN.sub(lambda found: _escaped(ord(found[0])), text)


def _spelled(code: int) -> str:
    if code < 0x100:
        return f"\\x{code:02x}"
    return f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"


def _escaped(code: int) -> str:
    if code < 0x10000:
        return f"\\u{code:04x}"
    high, low = divmod(code - 0x10000, 0x400)
    return f"\\u{0xD800 + high:04x}\\u{0xDC00 + low:04x}"
