"""Receiving an upload: one file of a form, written as it comes, within limits of size and time."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Awaitable, Callable, MutableMapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header

from xai_demo.service.uploads import UploadFolder
from xai_demo.service.visitors import HTTPRefusalError

Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]

# Each of these many bytes of a body buys as many more seconds: a slow line is fine, silence is not.
IDLE_S = 30.0
_BYTES_PER_IDLE = 30_000
# What a form has besides the file: boundaries, headers, other fields.
_FORM_BYTES = 64_000
_WRITE_BYTES = 1_000_000


class ClientLeftError(Exception):
    """The client has gone before it sent everything."""


@dataclass(slots=True)
class UploadProgress:
    """How far an upload is, for the page's progress bar."""

    name: str = ""
    n_bytes: int = 0
    is_done: bool = False
    started_at: float = field(default_factory=time.monotonic)


async def body_chunks(receive: Receive, *, max_bytes: int, what: str) -> AsyncIterator[bytes]:
    """Yield the body of a request piece by piece.

    Raises HTTPRefusalError for more bytes than allowed and for a body that does not go on, and
    ClientLeftError. `what` names the body in the message.
    """
    n_bytes, paid_for = 0, 0
    deadline = time.monotonic() + IDLE_S
    while True:
        try:
            message = await asyncio.wait_for(receive(), max(0.0, deadline - time.monotonic()))
        except TimeoutError:
            raise HTTPRefusalError(
                408,
                "idle body",
                f"The {what} stopped coming: fewer than {_BYTES_PER_IDLE:,} bytes in {IDLE_S:g} "
                "seconds. Please try again.",
            ) from None
        if message["type"] == "http.disconnect":
            raise ClientLeftError
        chunk = message.get("body", b"")
        n_bytes += len(chunk)
        if n_bytes > max_bytes:
            raise too_large(what, max_bytes)
        if n_bytes - paid_for >= _BYTES_PER_IDLE:
            paid_for, deadline = n_bytes, time.monotonic() + IDLE_S
        if chunk:
            yield chunk
        if not message.get("more_body", False):
            return


def too_large(what: str, max_bytes: int) -> HTTPRefusalError:
    """Return the refusal of a body that has more than `max_bytes`."""
    limit = f"{max_bytes / 1e6:,.0f} MB" if max_bytes >= 1e6 else f"{max_bytes / 1e3:,.0f} kB"
    return HTTPRefusalError(
        413, "too large", f"The {what} is larger than {limit}, which is the most that is accepted."
    )


async def receive_upload(
    receive: Receive,
    content_type: str,
    folder: UploadFolder,
    *,
    max_bytes: int,
    progress: UploadProgress,
) -> Path:
    """Write the one file of a multipart form into the folder, and return its path.

    Nothing is left of an upload that fails. Raises HTTPRefusalError and ClientLeftError.
    """
    kind, options = parse_options_header(content_type)
    boundary = options.get(b"boundary", b"")
    if kind != b"multipart/form-data" or not boundary:
        raise _form_refusal("the content type must be multipart/form-data with a boundary")
    form = _Form(folder, max_bytes, progress)
    try:
        parser = MultipartParser(boundary, form.callbacks())
        chunks = body_chunks(receive, max_bytes=max_bytes + _FORM_BYTES, what="file")
        async for chunk in chunks:
            parser.write(chunk)
            await form.write_if(_WRITE_BYTES)
        parser.finalize()
        await form.write_if(0)
        return form.finish()
    except FormParserError as error:
        form.abort()
        raise _form_refusal("it is damaged or cut off") from error
    except BaseException:
        form.abort()
        raise
    finally:
        progress.is_done = True


def _form_refusal(reason: str) -> HTTPRefusalError:
    return HTTPRefusalError(400, "malformed", f"The upload is not a form with one file: {reason}.")


class _Form:
    """The parts of a form as they are parsed; the file's bytes are collected, then written."""

    def __init__(self, folder: UploadFolder, max_bytes: int, progress: UploadProgress) -> None:
        self._folder, self._max_bytes, self._progress = folder, max_bytes, progress
        self._header: list[bytes] = [b"", b""]
        self._in_file = False
        self._is_complete = False
        self._buffer = bytearray()
        self._path: Path | None = None
        self._file: BinaryIO | None = None

    def callbacks(self) -> Any:
        """Return what the parser is to call."""
        return {
            "on_part_begin": self._begin_part,
            "on_header_field": lambda data, start, end: self._add_header(0, data[start:end]),
            "on_header_value": lambda data, start, end: self._add_header(1, data[start:end]),
            "on_header_end": self._end_header,
            "on_part_data": self._add_data,
            "on_part_end": self._end_part,
        }

    async def write_if(self, n_bytes: int) -> None:
        """Write what was collected if it is more than so many bytes."""
        if self._file is None or len(self._buffer) <= n_bytes:
            return
        content, self._buffer = self._buffer, bytearray()
        self._folder.claim(len(content))
        try:
            # In a thread, because a busy disk must not hold up the other visitors.
            await asyncio.to_thread(self._file.write, content)
        except OSError as error:
            raise HTTPRefusalError(
                507, "disk", "The server could not store your file. Please try again later."
            ) from error

    def finish(self) -> Path:
        """Close the file and return its path; raises HTTPRefusalError if the form had none."""
        if self._path is None or self._file is None or not self._is_complete:
            raise _form_refusal("there is no whole file in it")
        self._file.close()
        return self._path

    def abort(self) -> None:
        """Close and delete the file."""
        if self._file is not None:
            self._file.close()
        if self._path is not None:
            self._path.unlink(missing_ok=True)

    def _begin_part(self) -> None:
        self._header, self._in_file = [b"", b""], False

    def _add_header(self, which: int, data: bytes) -> None:
        self._header[which] += data

    def _end_header(self) -> None:
        (name, value), self._header = self._header, [b"", b""]
        if name.lower() != b"content-disposition":
            return
        _, options = parse_options_header(value)
        if b"filename" not in options:
            return
        if self._path is not None:
            raise _form_refusal("there is more than one file in it")
        self._progress.name = options[b"filename"].decode("utf-8", "replace")
        self._path = self._folder.new_path(self._progress.name)
        self._file = self._path.open("xb")
        self._path.chmod(0o600)
        self._in_file = True

    def _add_data(self, data: bytes, start: int, end: int) -> None:
        if not self._in_file:
            return
        self._progress.n_bytes += end - start
        if self._progress.n_bytes > self._max_bytes:
            raise too_large("file", self._max_bytes)
        self._buffer += data[start:end]

    def _end_part(self) -> None:
        self._is_complete = self._is_complete or self._in_file


_KEEP_PROGRESS_S = 30.0
_PROGRESS_EVERY_S = 0.1
_WAIT_FOR_UPLOAD_S = 3.0


class UploadStatus:
    """How far the uploads are that the page has named, so that it can draw a progress bar."""

    def __init__(self) -> None:
        self._progress: dict[str, UploadProgress] = {}

    def add(self, upload_id: str) -> UploadProgress:
        """Return the progress of a new upload; an empty name is that of one nobody asks for."""
        oldest = time.monotonic() - _KEEP_PROGRESS_S
        for key, each in list(self._progress.items()):
            if each.is_done and each.started_at < oldest:
                del self._progress[key]
        progress = UploadProgress()
        if upload_id:
            self._progress[upload_id] = progress
        return progress

    async def events(self, upload_id: str) -> AsyncIterator[bytes]:
        """Yield events of a stream in Gradio's format, until the upload is done.

        Raises HTTPRefusalError if there is none within three seconds.
        """
        for _ in range(round(_WAIT_FOR_UPLOAD_S / _PROGRESS_EVERY_S)):
            if upload_id in self._progress:
                break
            await asyncio.sleep(_PROGRESS_EVERY_S)
        progress = self._progress.get(upload_id)
        if progress is None:
            raise HTTPRefusalError(404, "route", "There is no such upload.")
        n_sent = 0
        while True:
            # Read before the size: what arrives in between is told in the next round.
            is_done = progress.is_done
            size, n_sent = progress.n_bytes - n_sent, progress.n_bytes
            if size:
                facts = {"msg": "update", "orig_name": progress.name, "chunk_size": size}
                yield f"data: {json.dumps(facts)}\n\n".encode()
            if is_done:
                yield b'data: {"msg": "done"}\n\n'
                return
            await asyncio.sleep(_PROGRESS_EVERY_S)
