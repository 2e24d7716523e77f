"""Write the tables of figures that commands print between the markers of README and docs.

`bench` takes minutes and measures this machine, so its table is only replaced with `--bench`.
"""

from __future__ import annotations

import contextlib
import io
import sys
from pathlib import Path

from xai_demo.cli import main

ROOT = Path(__file__).resolve().parent.parent


def fill(page: Path, marker: str, *command: str) -> None:
    """Replace what stands between a page's markers by what a command prints."""
    out = io.StringIO()
    with contextlib.redirect_stdout(out):
        status = main(command)
    if status:
        raise SystemExit(status)
    before, begin, rest = page.read_text(encoding="utf-8").partition(f"<!-- {marker}: begin -->\n")
    _, end, after = rest.partition(f"<!-- {marker}: end -->")
    if not begin or not end:
        raise SystemExit(f"{page} has no markers for {marker!r}.")
    page.write_text(f"{before}{begin}{out.getvalue().strip()}\n{end}{after}", encoding="utf-8")


if __name__ == "__main__":
    fill(ROOT / "README.md", "metrics", "models", "--table", "short")
    fill(ROOT / "docs" / "training.md", "metrics", "models", "--table")
    if "--bench" in sys.argv[1:]:
        fill(ROOT / "docs" / "benchmarks.md", "bench", "bench")
