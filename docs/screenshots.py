"""A card as people see it: rendered like the Hub does, light and dark, in a headless browser.

    python -m docs.screenshots my-model/README.md --output docs/pictures

Needs Chromium or Chrome on the PATH. The Hub shows GitHub-flavoured Markdown without the metadata;
colours, sizes and widths here are near to its own.
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from huggingface_hub import ModelCard
from markdown_it import MarkdownIt

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "chrome")
WIDTH = 900
THEMES = {
    "light": ("#ffffff", "#1f2937", "#e5e7eb", "#f9fafb", "#2563eb"),
    "dark": ("#0b0f19", "#d1d5db", "#1f2937", "#111827", "#60a5fa"),
}
"""Background, text, lines, code and links."""


def page(card: str, folder: Path, theme: str) -> str:
    """The HTML of a card's text; pictures are looked for in `folder`."""
    background, text, line, code, link = THEMES[theme]
    parser = MarkdownIt("commonmark", {"html": True}).enable(["table", "strikethrough"])
    return f"""<!doctype html><html><head><meta charset="utf-8"><base href="{folder.as_uri()}/">
<style>
body {{ background: {background}; color: {text}; margin: 32px auto; max-width: {WIDTH - 80}px;
  font: 16px/1.6 "Source Sans Pro", "Liberation Sans", Arial, sans-serif; }}
h1, h2, h3 {{ line-height: 1.25; }} h2 {{ border-bottom: 1px solid {line}; padding-bottom: 4px; }}
a {{ color: {link}; }} img {{ max-width: 100%; }}
table {{ border-collapse: collapse; display: block; overflow-x: auto; font-size: 14px; }}
th, td {{ border: 1px solid {line}; padding: 6px 10px; vertical-align: top; }}
code, pre {{ background: {code}; border-radius: 4px;
  font: 13px/1.5 "DejaVu Sans Mono", monospace; }}
code {{ padding: 1px 4px; }} pre {{ padding: 12px; overflow-x: auto; }} pre code {{ padding: 0; }}
blockquote {{ border-left: 4px solid {line}; margin: 0; padding: 0 16px; }}
summary {{ cursor: pointer; margin: 6px 0; }}
</style></head><body>{parser.render(ModelCard(card).text)}</body></html>"""


def browser() -> str:
    """The path of a browser.

    Raises:
        FileNotFoundError: there is none.
    """
    found = next((path for name in BROWSERS if (path := shutil.which(name))), None)
    if found is None:
        raise FileNotFoundError(f"no browser on the PATH: one of {', '.join(BROWSERS)}")
    return found


def screenshot(html: str, picture: Path, height: int) -> None:
    """Take a picture of a page."""
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder, "page.html")
        source.write_text(html, encoding="utf-8")
        subprocess.run(  # noqa: S603 - a browser from the PATH, on a page made here
            [
                browser(),
                "--headless",
                "--no-sandbox",
                "--hide-scrollbars",
                "--disable-gpu",
                f"--user-data-dir={folder}/profile",
                f"--window-size={WIDTH},{height}",
                f"--screenshot={picture}",
                source.as_uri(),
            ],
            check=True,
            capture_output=True,
            timeout=120,
        )


def main() -> None:
    """Take pictures of the first screen of a card, and of one section, light and dark."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("card", type=Path)
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--height", type=int, default=1100, help="pixels of the first screen")
    parser.add_argument("--heading", help="also take pictures from this heading on")
    options = parser.parse_args()
    options.output.mkdir(parents=True, exist_ok=True)
    card = options.card.read_text(encoding="utf-8")
    for theme in THEMES:
        parts = {"card": card}
        if options.heading is not None:
            name = options.heading.lower().replace(" ", "-")
            parts[f"card-{name}"] = card[card.index(f"\n## {options.heading}\n") :]
        for name, part in parts.items():
            html = page(part, options.card.resolve().parent, theme)
            path = (options.output / f"{name}-{theme}.png").resolve()
            screenshot(html, path, options.height)
            sys.stdout.write(f"{path}\n")


if __name__ == "__main__":
    main()
