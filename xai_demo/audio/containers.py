"""Which sound file this is, where its sound starts, and which decoder reads it.

Headers of uncompressed sound are read by `audio.pcm`, and the streams of an Ogg file and the start
of an MP3 are found here. Everything else goes to `audio.decoders` with the name of one FFmpeg
demuxer.
"""

from __future__ import annotations

import re
from dataclasses import replace
from io import SEEK_END
from typing import BinaryIO

from xai_demo.audio.pcm import (
    SUPPORTED_FORMATS,
    Container,
    FileSlice,
    SeekableFile,
    read_aiff,
    read_bytes,
    read_caf,
    read_w64,
    read_wav,
)
from xai_demo.errors import UnreadableFileError
from xai_demo.files import detect_format, find_mpeg_audio, mpeg_frame_bytes, skip_id3_tags

# Streams in a row in one Ogg file; a radio recording has one for each song.
_MAX_LINKS = 1000
_SEARCHED_BYTES = 2**16
# By what `files.detect_format` finds: the name for the report, and FFmpeg's demuxer.
_DEMUXERS = {
    "FLAC": ("FLAC", "flac"),
    "MP4 or M4A": ("MP4", "mov"),
    "WebM or Matroska": ("Matroska", "matroska"),
    "WMA": ("WMA", "asf"),
    "AU": ("AU", "au"),
    "AMR": ("AMR", "amr"),
    "AAC": ("AAC", "aac"),
}
_ASF_FILE_PROPERTIES = bytes.fromhex("a1dcab8c47a9cf118ee400c00c205365")
# The first page of a Vorbis or Opus stream holds one packet: RFC 3533, section 6.
_OGG_START = re.compile(rb"OggS\x00[\x02\x06].{20}\x01(.)(?:\x01vorbis|OpusHead)", re.DOTALL)


def read_container(file: BinaryIO, name: str) -> Container:
    """Read the header of a sound file; raises UnreadableFileError for an unsupported format."""
    detected = detect_format(file)
    start = skip_id3_tags(file)
    size = file.seek(0, SEEK_END) - start
    # What lies behind a tag is read as a file of its own.
    sound = FileSlice(file, start, size) if start else file
    match detected:
        case "WAV":
            header = read_wav(sound, size, name)
        case "AIFF":
            header = read_aiff(sound, size, name)
        case "W64":
            header = read_w64(sound, size, name)
        case "CAF":
            header = read_caf(sound, size, name)
        case "Ogg":
            header = _read_ogg(sound, size)
        case "MP3":
            header = _read_mp3(sound, size, name)
        case _ if detected in _DEMUXERS:
            kind, demuxer = _DEMUXERS[detected]
            # The document type is within the first bytes of the EBML header: RFC 8794.
            if demuxer == "matroska" and b"webm" in read_bytes(sound, 0, 64):
                kind = "WebM"
            header = Container(
                format=kind,
                start=0,
                size=size,
                demuxer=demuxer,
                has_length=_has_length(demuxer, read_bytes(sound, 0, _SEARCHED_BYTES)),
            )
        case _:
            kind = f"a file of type {detected}" if detected else "a file of an unknown type"
            raise UnreadableFileError(
                f"{name} is {kind}, not a supported sound file; expected {SUPPORTED_FORMATS}."
            )
    return replace(header, start=header.start + start)


def _has_length(demuxer: str, head: bytes) -> bool:
    """Whether the header of a Matroska or WMA file gives a length; without, FFmpeg guesses one."""
    if demuxer == "matroska":
        # The element Duration, a float of 4 or 8 bytes: RFC 9559, section 5.1.2.
        return bool(re.search(rb"\x15\x49\xa9\x66.{0,400}\x44\x89[\x84\x88]", head, re.DOTALL))
    at = head.find(_ASF_FILE_PROPERTIES)
    # Its play duration lies behind the object's size, a file ID, a size, a date and a count.
    return demuxer == "asf" and at >= 0 and any(head[at + 64 : at + 72])


def _read_ogg(file: SeekableFile, size: int) -> Container:
    links, end = [], -1
    for position, length in _ogg_starts(file):
        # Streams whose first pages touch are played together, and only one of them is read.
        if position != end:
            links.append(position)
        end = position + length
    if not links:
        return Container(format="Ogg", start=0, size=size, demuxer="ogg")
    warnings: tuple[str, ...] = ()
    if len(links) > _MAX_LINKS:
        warnings = (
            f"The file is a chain of {len(links)} streams, of which {_MAX_LINKS} were read.",
        )
        size = links[_MAX_LINKS]
    return Container(
        format="Ogg", start=0, size=size, links=tuple(links[:_MAX_LINKS]), warnings=warnings
    )


def _ogg_starts(file: SeekableFile) -> list[tuple[int, int]]:
    """Position and length of every first page of a Vorbis or Opus stream."""
    starts, before, base = [], b"", 0
    file.seek(0)
    while block := file.read(2**20):
        data = before + block
        for match in _OGG_START.finditer(data):
            starts.append((base + match.start(), 28 + match[1][0]))
        # A page may begin in one block and end in the next.
        overlap = len(data) - 63 if len(data) > 63 else 0
        if starts and starts[-1][0] >= base + overlap:
            overlap = starts[-1][0] - base + 1
        before, base = data[overlap:], base + overlap
    return starts


def _read_mp3(file: SeekableFile, size: int, name: str) -> Container:
    head = read_bytes(file, 0, _SEARCHED_BYTES)
    start = find_mpeg_audio(head)
    if start is None:
        raise UnreadableFileError(
            f"{name} has an ID3 tag but no MP3 data after it; expected {SUPPORTED_FORMATS}."
        )
    return Container(
        format="MP3",
        start=start,
        size=size - start,
        demuxer="mp3",
        declared_s=_xing_duration_s(head[start : start + 4096]),
    )


def _xing_duration_s(frame: bytes) -> float | None:
    """What the Xing or Info header in the first frame declares; None without one."""
    first = frame[: mpeg_frame_bytes(frame)]
    at = max(first.find(b"Xing"), first.find(b"Info"))
    # Of the flags, the lowest says whether the number of frames follows.
    if at < 0 or len(first) < at + 12 or not first[at + 7] & 1:
        return None
    frames = int.from_bytes(first[at + 8 : at + 12], "big")
    version, layer = frame[1] >> 3 & 3, 4 - (frame[1] >> 1 & 3)
    rate = (44100, 48000, 32000)[frame[2] >> 2 & 3] >> (0 if version == 3 else 2 - version // 2)
    samples = 384 if layer == 1 else 576 if layer == 3 and version != 3 else 1152
    # LAME's extension gives what the encoder added at both ends, in 12 bits each.
    added = int.from_bytes(first[at + 141 : at + 144], "big")
    padding = (added >> 12) + (added & 0xFFF) if len(first) >= at + 144 else 0
    return max(0, frames * samples - padding) / rate or None
