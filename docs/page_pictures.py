"""The page of `hubsplice try --web` as people see it, light and dark, in a headless browser.

    python -m docs.page_pictures recipe.yaml "prompt" --output docs/pictures

Needs the extra `web`, Playwright, and Chromium or Chrome on the PATH.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from playwright.sync_api import sync_playwright

from docs.screenshots import THEMES, browser
from hubsplice.interface.page import serving_page

WIDTH, HEIGHT = 1100, 1000
_SLOWEST_MS = 300_000


@contextmanager
def browsing() -> Iterator[Any]:
    """A headless browser, as Playwright has it."""
    with sync_playwright() as playwright:
        opened = playwright.chromium.launch(executable_path=browser(), args=["--no-sandbox"])
        try:
            yield opened
        finally:
            opened.close()


def main() -> None:
    """Ask the page's question, and take a picture of its answers in each theme."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("recipe", type=Path)
    parser.add_argument("prompt")
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--max-new-tokens", type=int, default=40)
    options = parser.parse_args()
    options.output.mkdir(parents=True, exist_ok=True)
    with (
        serving_page(
            options.recipe, prompt=options.prompt, max_new_tokens=options.max_new_tokens
        ) as served,
        browsing() as opened,
    ):
        page = opened.new_page(viewport={"width": WIDTH, "height": HEIGHT})
        page.set_default_timeout(_SLOWEST_MS)
        page.goto(f"{served.address}/?__theme=light")
        page.click("#ask")
        page.wait_for_selector("#tokens-edited .hs-tokens")
        for theme in THEMES:
            # As Gradio does it; another visit would ask the model again.
            page.evaluate("dark => document.body.classList.toggle('dark', dark)", theme == "dark")
            path = options.output / f"try-web-{theme}.png"
            page.screenshot(path=path, full_page=True)
            sys.stdout.write(f"{path}\n")


if __name__ == "__main__":
    main()
