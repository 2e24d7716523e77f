"""Logs of a server: JSON lines with a request's id, never with a file's name or patient's data.

What is counted by `service.health` is logged here first, so that log and metrics cannot differ.
"""

from __future__ import annotations

import contextvars
import json
import logging
import re
import sys
import traceback
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Any

# Answers, refusals, waits: see `log_answer`, `log_refusal` and `log_wait`.
AUDIT = logging.getLogger("xai_demo.audit")
_request_id: contextvars.ContextVar[str] = contextvars.ContextVar("request_id", default="")
_MAX_CHARACTERS = 2000
# A path with at least two parts, or a drive. Addresses on the network are left.
_PATH = re.compile(r"(?<![\w:/.])(?:/[\w.+@~-]+){2,}/?|\b[A-Za-z]:\\[^\s'\"]+")
# What a visitor sent: in quotes, or in one word. The quotes of a plural's genitive do not count.
_QUOTED = re.compile(r"""(?<![\w])(['"])(.*?)\1(?!\w)""", re.DOTALL)
_WORD = re.compile(r"\S{81,}")
_MOST_QUOTED = 80


def hide_paths(text: str) -> str:
    """Return a message without absolute paths, and with at most 80 characters of what it quotes.

    >>> hide_paths("Cannot move /tmp/gradio/a.wav, see https://a.org/b/c")
    'Cannot move (a path of the server), see https://a.org/b/c'
    >>> len(hide_paths("There is no label named '" + "ab " * 100 + "'."))
    107
    """
    shorter = _QUOTED.sub(lambda found: f"{found[1]}{_shorten(found[2])}{found[1]}", text)
    shorter = _WORD.sub(lambda found: _shorten(found[0]), shorter)
    return _PATH.sub("(a path of the server)", shorter)


def _shorten(text: str) -> str:
    return text if len(text) <= _MOST_QUOTED else f"{text[: _MOST_QUOTED - 1]}…"


@contextmanager
def bind_request(request_id: str | None) -> Iterator[None]:
    """Log everything within the block, and the threads that it starts, with this request's id."""
    token = _request_id.set(request_id or "")
    try:
        yield
    finally:
        _request_id.reset(token)


def log_answer(
    *,
    task: str,
    model: str,
    revision: str | None,
    decision: str,
    timing_ms: Mapping[str, float],
) -> None:
    """Log one line for an answer: enough to know what was answered by which weights, not for whom.

    `decision` is the kind of decision, not the label.
    """
    _audit(
        "answer",
        task=task,
        model=model,
        revision=revision,
        decision=decision,
        ms=round(sum(timing_ms.values())),
        timing_ms={step: round(value, 1) for step, value in timing_ms.items()},
    )


def log_refusal(kind: str, **facts: Any) -> None:
    """Log that a request was turned away, and for what kind of reason."""
    _audit("refusal", kind=kind, **facts)


def log_wait(lane: str, seconds: float) -> None:
    """Log how long a request has waited for its turn."""
    _audit("wait", lane=lane, seconds=round(seconds, 3))


def _audit(event: str, **facts: Any) -> None:
    AUDIT.info(event, extra={"facts": facts})


class JSONFormatter(logging.Formatter):
    """One JSON object a line. Of an exception it has the type and the places, not the message.

    A message may quote what a visitor sent, the name of a file for example.
    """

    def format(self, record: logging.LogRecord) -> str:
        """Return the record as one line of JSON."""
        moment = datetime.fromtimestamp(record.created, tz=UTC)
        line: dict[str, Any] = {
            "time": moment.isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": hide_paths(record.getMessage())[:_MAX_CHARACTERS],
        }
        if _request_id.get():
            line["request_id"] = _request_id.get()
        line |= getattr(record, "facts", {})
        if record.exc_info and record.exc_info[0]:
            line["exception"] = record.exc_info[0].__name__
            line["places"] = _places(record.exc_info[2])
        return json.dumps(line, ensure_ascii=False, default=str)


class TextFormatter(logging.Formatter):
    """The same facts for a terminal, as `key=value` after the message."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the record as one line of text, and where an exception came from."""
        facts = "".join(f" {k}={v}" for k, v in getattr(record, "facts", {}).items())
        line = f"{record.levelname} {record.name}: {hide_paths(record.getMessage())}{facts}"
        if record.exc_info and record.exc_info[0]:
            places = "".join(f"\n  {place}" for place in _places(record.exc_info[2]))
            line += f"\n{record.exc_info[0].__name__} at{places}"
        return line


def configure_logging(log_format: str) -> None:
    """Log to stderr in a format of the settings; "auto" is JSON unless stderr is a terminal."""
    if log_format == "auto":
        log_format = "text" if sys.stderr.isatty() else "json"
    handler = logging.StreamHandler()
    handler.setFormatter(JSONFormatter() if log_format == "json" else TextFormatter())
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(logging.INFO)
    for name in ("httpx", "httpx2", "httpcore", "urllib3", "asyncio", "matplotlib"):
        logging.getLogger(name).setLevel(logging.WARNING)
    # Gradio prints the tracebacks of its own errors, with what the visitor sent in them.
    traceback.print_exc = _log_current_exception


def _log_current_exception(*_: Any, **__: Any) -> None:
    logging.getLogger("gradio").error("An unexpected error", exc_info=True)


def _places(trace: TracebackType | None) -> list[str]:
    """Return where an exception came from, innermost last, as `module.py:line function`."""
    return [
        f"{Path(frame.filename).name}:{frame.lineno} {frame.name}"
        for frame in traceback.extract_tb(trace)[-20:]
    ]
