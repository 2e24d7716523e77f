"""Take the README's pictures: a real answer on the running page, in light and in dark.

Serves the page on a free port, runs an example in the system's Chromium, scrolls to the result and
writes `docs/images/page-light.webp` and `page-dark.webp`.
"""

from __future__ import annotations

import contextlib
import io
import shutil
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

from PIL import Image
from playwright.sync_api import Browser, sync_playwright

ROOT = Path(__file__).resolve().parent.parent
IMAGES = ROOT / "docs" / "images"
TASK, EXAMPLE = "stethoscope", "wheeze"
WIDTH, HEIGHT = 1280, 820
ABOVE_PX = 10  # shown above the result
QUALITY = 86
MOST_BYTES = 250_000
PATIENCE_S = 180.0
BROWSERS = ("chromium", "chromium-browser", "google-chrome")
# What belongs to a visitor's screen and not into a picture of the page.
HIDDEN = (
    "footer, .toast-wrap { display: none !important } * { caret-color: transparent !important }"
)


@contextlib.contextmanager
def served() -> Iterator[str]:
    """The page's address, while a process of its own serves it."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    url = f"http://127.0.0.1:{port}/"
    command = [sys.executable, "-m", "xai_demo", "serve", "--port", str(port)]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL) as process:
        try:
            wait_for(url, process)
            yield url
        finally:
            process.kill()


def wait_for(url: str, process: subprocess.Popen[bytes]) -> None:
    """Return once the page answers; SystemExit if its process ends or it takes too long."""
    begun = time.monotonic()
    while process.poll() is None and time.monotonic() - begun < PATIENCE_S:
        try:
            with urllib.request.urlopen(url, timeout=5):
                return
        except (urllib.error.URLError, OSError):
            time.sleep(0.2)
    raise SystemExit("The page did not start; `make test` may say why.")


def picture(browser: Browser, url: str, theme: str) -> Image.Image:
    """The page with an example's result, scrolled to it."""
    context = browser.new_context(
        viewport={"width": WIDTH, "height": HEIGHT}, color_scheme=theme, reduced_motion="reduce"
    )
    context.set_default_timeout(1000 * PATIENCE_S)
    page = context.new_page()
    page.goto(f"{url}?__theme={theme}")
    page.click(f"#tab-{TASK}-button")
    page.click(f"#{TASK}-example-{EXAMPLE}")
    page.wait_for_selector(f"#{TASK}-result [data-state=answered]")
    page.add_style_tag(content=HIDDEN)
    page.evaluate("document.activeElement?.blur()")
    page.evaluate(
        "([id, above]) => window.scrollTo(0, "
        "document.getElementById(id).getBoundingClientRect().top + scrollY - above)",
        [f"{TASK}-result", ABOVE_PX],
    )
    page.wait_for_timeout(1500)  # fonts, the players' waveforms
    taken = Image.open(io.BytesIO(page.screenshot()))
    context.close()
    return taken.convert("RGB")


def main() -> None:
    """Write both pictures; SystemExit where one would be too large for the README."""
    path = next(filter(None, map(shutil.which, BROWSERS)), None)
    if path is None:
        raise SystemExit(f"No Chromium found; install one of {', '.join(BROWSERS)}.")
    IMAGES.mkdir(parents=True, exist_ok=True)
    with served() as url, sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=["--no-sandbox"])
        for theme in ("light", "dark"):
            target = IMAGES / f"page-{theme}.webp"
            picture(browser, url, theme).save(target, quality=QUALITY, method=6)
            size = target.stat().st_size
            print(f"{target.relative_to(ROOT)}: {size:,} bytes")
            if size > MOST_BYTES:
                raise SystemExit(f"{target} has {size:,} bytes; at most {MOST_BYTES:,} are wanted.")
        browser.close()


if __name__ == "__main__":
    main()
