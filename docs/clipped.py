"""Code that is clipped on the site, at 1,280 pixels, in a headless browser.

    make docs && python -m docs.clipped site

Prints every block of code and every formula that is wider than its place, and fails if there is one.
Needs Chromium or Chrome on the PATH. Light and dark differ in colours alone.
"""

from __future__ import annotations

import argparse
import functools
import html
import http.server
import json
import re
import subprocess
import sys
import tempfile
import threading
from pathlib import Path

from docs.screenshots import browser

WIDTH = 1280

_SCRIPT = """
const found = [];
let at = 0;
const frame = document.createElement("iframe");
frame.style = "border: 0; width: %WIDTH%px; height: 900px";
frame.onload = () => {
  const inner = frame.contentDocument;
  for (const block of inner.querySelectorAll("pre > code, math[display=block]"))
    if (block.scrollWidth > block.clientWidth + 1 && block.clientWidth > 0)
      found.push([pages[at], block.scrollWidth - block.clientWidth, block.innerText.slice(0, 90)]);
  at += 1;
  if (at < pages.length) frame.src = pages[at];
  else document.getElementById("found").textContent = JSON.stringify([at, found]);
};
document.body.append(frame);
frame.src = pages[0];
"""


def clipped(site: Path) -> list[tuple[str, int, str]]:
    """What is clipped: the page, by how many pixels, and what it begins with.

    Raises:
        RuntimeError: the browser did not get through all pages.
    """
    pages = sorted(path.relative_to(site).as_posix() for path in site.rglob("index.html"))
    script = f"const pages = {json.dumps(pages)};{_SCRIPT.replace('%WIDTH%', str(WIDTH))}"
    checker = site / "clipped.html"
    checker.write_text(f'<pre id="found"></pre><script>{script}</script>', encoding="utf-8")
    try:
        shown = _dumped(site, checker.name)
    finally:
        checker.unlink()
    written = re.search(r'<pre id="found">(.+?)</pre>', shown, re.DOTALL)
    if written is None:
        raise RuntimeError("the browser did not get through all pages in time")
    seen, found = json.loads(html.unescape(written[1]))
    assert seen == len(pages)
    return [(page, pixels, text) for page, pixels, text in found]


class _Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *_: object) -> None:
        """Nobody reads it."""


def _dumped(site: Path, name: str) -> str:
    """What a page of the site is in the browser, after its scripts."""
    handler = functools.partial(_Quiet, directory=str(site))
    with (
        http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server,
        tempfile.TemporaryDirectory() as profile,
    ):
        threading.Thread(target=server.serve_forever, daemon=True).start()
        done = subprocess.run(  # noqa: S603 - a browser from the PATH, on pages made here
            [
                browser(),
                "--headless",
                "--no-sandbox",
                "--disable-gpu",
                f"--user-data-dir={profile}",
                f"--window-size={WIDTH},1000",
                "--virtual-time-budget=120000",
                "--timeout=300000",
                "--dump-dom",
                f"http://127.0.0.1:{server.server_port}/{name}",
            ],
            check=True,
            capture_output=True,
            text=True,
            timeout=400,
        )
        server.shutdown()
    return done.stdout


def main() -> None:
    """Look at a built site."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("site", type=Path)
    found = clipped(parser.parse_args().site.resolve())
    for page, pixels, text in found:
        sys.stdout.write(f"{page}: {pixels} pixels: {text!r}\n")
    if found:
        raise SystemExit(f"{len(found)} blocks are clipped")


if __name__ == "__main__":
    main()
