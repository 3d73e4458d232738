"""The author's own words on a card, and what becomes of a card that somebody edited."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from hubsplice.card import edited_card, write_card
from hubsplice.card.words import (
    AFTER,
    BEFORE,
    is_words,
    linked,
    read_words,
    require_words,
    write_words,
)
from hubsplice.errors import RecipeError
from hubsplice.recipe.models import Card
from tests.card.examples import built_folder


@pytest.fixture
def built(tmp_path: Path) -> Path:
    folder = built_folder(tmp_path / "my-model")
    write_card(folder)
    return folder


def test_words_and_pictures_travel_with_the_model(built: Path, tmp_path: Path) -> None:
    (tmp_path / "plot.png").write_bytes(b"\x89PNG")
    (tmp_path / "notes.md").write_text("Hi *there*.\r\n\r\n![p](plot.png)\n")
    card = Card(before=tmp_path / "notes.md", images=(tmp_path / "plot.png",))
    written = write_words(card, built)
    assert written == (BEFORE, "card/plot.png")
    assert all(map(is_words, written))
    assert (built / "card/plot.png").read_bytes() == b"\x89PNG"
    assert read_words(built, None).before == "Hi *there*.\n\n![p](card/plot.png)"
    assert read_words(built, None).after == ""
    assert "\nHi *there*.\n\n![p](card/plot.png)\n" in write_card(built).read_text()


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("![a](plot.png)", "![a](card/plot.png)"),
        ('![a](./figures/plot.png "A plot")', '![a](card/plot.png "A plot")'),
        ('<img src="plot.png">', '<img src="card/plot.png">'),
        ("[a](https://x.y/plot.png) plot.png", "[a](https://x.y/plot.png) plot.png"),
        ("[a](my-plot.png)", "[a](my-plot.png)"),
    ],
)
def test_links_to_pictures_lead_to_them(text: str, expected: str) -> None:
    assert linked(text, ["plot.png"]) == expected


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"before": "no.md"}, r"card\.before: .*no\.md: No such file"),
        ({"after": "binary.md"}, r"card\.after: .*expected UTF-8 text"),
        ({"images": ["a.svg"]}, r"card\.images\[0\]: found 'a\.svg', expected a picture"),
        ({"images": ["x/a.png", "y/a.png"]}, r"card\.images\[1\]: 'a\.png' is the name of"),
        ({"images": ["gone.png"]}, r"card\.images\[0\]: .*No such file"),
    ],
)
def test_what_no_card_can_show(tmp_path: Path, fields: dict[str, Any], message: str) -> None:
    for name in ("a.svg", "x/a.png", "y/a.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    (tmp_path / "binary.md").write_bytes(b"\xff\xfe\x00")

    def there(value: Any) -> Any:
        return tuple(map(there, value)) if isinstance(value, list) else tmp_path / value

    with pytest.raises(RecipeError, match=message):
        require_words(Card.model_construct(**{k: there(v) for k, v in fields.items()}))


@pytest.mark.parametrize(
    "name",
    ["card/x.svg", "card/x.py", "card/a/x.png", "x.png", "card/before.md.py"],
)
def test_nothing_else_passes_for_words(name: str) -> None:
    assert not is_words(name)
    assert is_words(AFTER)


def test_a_card_that_was_edited_is_noticed(built: Path) -> None:
    card = built / "README.md"
    assert edited_card(built) is None
    card.write_text(card.read_text() + "\nMy own remark.\n")
    diff = edited_card(built)
    assert diff is not None
    assert diff.splitlines()[-1] == "+My own remark."
    assert "## Run it" not in diff
    write_card(built, keep=True)
    assert card.read_text().endswith("My own remark.\n")
    write_card(built)
    assert edited_card(built) is None


def test_a_card_of_an_older_list_is_compared_with_what_is_written_now(built: Path) -> None:
    write_card(built, model_id="me/model")
    (built / "reproduce/SHA256SUMS").unlink()
    assert edited_card(built) is None
    (built / "README.md").unlink()
    assert edited_card(built) is None
