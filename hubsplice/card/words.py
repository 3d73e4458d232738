"""What a card has from its author: words of his own, pictures, and the recipe as it stands."""

from __future__ import annotations

import re
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from hubsplice.card.escape import Markdown
from hubsplice.errors import RecipeError
from hubsplice.files.plain import read_plain
from hubsplice.intervention.saved import RECIPE
from hubsplice.recipe.models import Card, Recipe
from hubsplice.visible import HIDDEN

WORDS = "card"
"""The folder of a checkpoint in which they travel."""

BEFORE, AFTER = f"{WORDS}/before.md", f"{WORDS}/after.md"
PICTURES = (".png", ".jpg", ".jpeg", ".gif", ".webp")
"""Pictures that can't hold a program, as SVG can."""

NOTHING = Markdown("")

_LARGEST, _LARGEST_PICTURE = 1 << 18, 1 << 24


@dataclass(frozen=True)
class AuthorWords:
    """The author's part of a card; empty where he says nothing.

    Attributes:
        title: the heading.
        description: a sentence or two below it.
        before: Markdown in front of what hubsplice writes.
        after: Markdown at its end.
        recipe: the recipe's text.
    """

    title: str | None = None
    description: str | None = None
    before: Markdown = NOTHING
    after: Markdown = NOTHING
    recipe: str = ""


NOTHING_SAID = AuthorWords()


def read_words(folder: Path, recipe: Recipe | None) -> AuthorWords:
    """The author's words in a built checkpoint.

    Args:
        folder: the checkpoint.
        recipe: its own, where it has one.
    """
    return AuthorWords(
        title=recipe.title if recipe else None,
        description=recipe.description if recipe else None,
        before=_markdown(folder / BEFORE),
        after=_markdown(folder / AFTER),
        recipe=_text(folder / RECIPE) if recipe else "",
    )


def require_words(card: Card) -> None:
    """Refuse what a card can't show, before anything is built.

    Raises:
        RecipeError: a file is missing, too large, no text, or no picture.
    """
    for name in ("before", "after"):
        path = getattr(card, name)
        if path is not None:
            _checked(f"card.{name}", path, _LARGEST)
            try:
                read_plain(path).decode()
            except UnicodeDecodeError as error:
                raise RecipeError(f"card.{name}: {path}: expected UTF-8 text: {error}") from None
    names: dict[str, int] = {}
    for i, path in enumerate(card.images):
        field = f"card.images[{i}]"
        if path.suffix.lower() not in PICTURES:
            raise RecipeError(
                f"{field}: found {path.name!r}, expected a picture: {', '.join(PICTURES)}"
            )
        if path.name in names:
            raise RecipeError(
                f"{field}: {path.name!r} is the name of card.images[{names[path.name]}] too; "
                "pictures lie in one folder, so rename one"
            )
        names[path.name] = i
        _checked(field, path, _LARGEST_PICTURE)


def write_words(card: Card, folder: Path) -> tuple[str, ...]:
    """Put the author's words and pictures into a new checkpoint.

    Args:
        card: of the recipe, with absolute paths.
        folder: the checkpoint.

    Returns:
        The names of the files, relative to the folder.

    Raises:
        RecipeError: as `require_words`.
    """
    require_words(card)
    written = []
    images = [path.name for path in card.images]
    for name, path in ((BEFORE, card.before), (AFTER, card.after)):
        if path is not None:
            (folder / WORDS).mkdir(exist_ok=True)
            text = linked(read_plain(path).decode().replace("\r\n", "\n"), images)
            (folder / name).write_text(text, encoding="utf-8", newline="\n")
            written.append(name)
    for path in card.images:
        (folder / WORDS).mkdir(exist_ok=True)
        shutil.copyfile(path, folder / WORDS / path.name)
        written.append(f"{WORDS}/{path.name}")
    return tuple(written)


def linked(text: str, images: Sequence[str]) -> str:
    """Markdown whose links to pictures by name lead to where they lie beside a card."""
    for name in images:
        at = rf"(?:\./)?(?:[\w.-]+/)*{re.escape(name)}"
        text = re.sub(rf"(\]\(\s*){at}(?=[\s)])", rf"\g<1>{WORDS}/{name}", text)
        text = re.sub(rf"(\bsrc=[\"']){at}(?=[\"'])", rf"\g<1>{WORDS}/{name}", text)
    return text


def is_words(name: str) -> bool:
    """Whether a file of a checkpoint, by its relative name, is one of the author's words."""
    folder, _, file = name.rpartition("/")
    return name in (BEFORE, AFTER) or (folder == WORDS and file.lower().endswith(PICTURES))


def _checked(field: str, path: Path, largest: int) -> None:
    try:
        read_plain(path, largest)
    except OSError as error:
        raise RecipeError(f"{field}: {path}: {error.strerror or error}") from None


def _markdown(path: Path) -> Markdown:
    # It is Markdown, and what can't be seen has no place in it.
    text = HIDDEN.sub(lambda found: found[0] if found[0] in "\n\t" else "", _text(path))
    return Markdown(text.strip())


def _text(path: Path) -> str:
    try:
        return read_plain(path, _LARGEST).decode()
    except (OSError, UnicodeDecodeError):
        return ""
