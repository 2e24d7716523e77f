"""Results of Gradio's components, written whole before anybody can fetch them.

Gradio names a result after its content and writes it anew every time. So whoever is fetching an
answer loses the rest of it as soon as another visitor gets the same one.
"""

from __future__ import annotations

import inspect
import os
import tempfile
from collections.abc import Callable
from pathlib import Path

from gradio import processing_utils

_WRITERS = ("save_pil_to_cache", "save_audio_to_cache", "save_bytes_to_cache")


class WholeWriter:
    """One of Gradio's functions that write a result; it never changes a file that is there."""

    def __init__(self, write: Callable[..., str]) -> None:
        self._write, self._signature = write, inspect.signature(write)

    def __call__(self, *args: object, **kwargs: object) -> str:
        """Write a result as Gradio does, and return its path in the argument `cache_dir`."""
        call = self._signature.bind(*args, **kwargs)
        cache = Path(str(call.arguments["cache_dir"])).resolve()
        cache.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=cache, prefix="new-") as folder:
            call.arguments["cache_dir"] = folder
            written = Path(self._write(*call.args, **call.kwargs)).resolve()
            result = cache / written.relative_to(Path(folder).resolve())
            if result.exists():
                # It is kept for as long as if it were new.
                os.utime(result)
            else:
                result.parent.mkdir(parents=True, exist_ok=True)
                os.replace(written, result)
        return str(result)


def write_results_whole() -> None:
    """Replace Gradio's functions that write results, once in a process."""
    for name in _WRITERS:
        write = getattr(processing_utils, name)
        if not isinstance(write, WholeWriter):
            setattr(processing_utils, name, WholeWriter(write))
