"""JPEG of 12 bits and lossless JPEG, decoded by GDCM in a process that a bad file may end.

GDCM calls `abort` on some damaged codestreams, which nothing in this process could catch. A worker
is there to be lost; everywhere else the decoder is this module, run as a program of its own.
"""

from __future__ import annotations

import subprocess
import sys

_TIMEOUT_S = 120


def decode(data: bytes, *, rows: int, columns: int, bits: int, syntax: str) -> bytes:
    """The little-endian pixels of a codestream, one byte each for up to 8 bits, else two.

    Raises ImportError if GDCM is not installed, and ValueError if it cannot decode the codestream.
    """
    # Only named here: a missing library is told from a damaged file before a process is started.
    import gdcm  # noqa: F401

    # Isolated (-I), so that nothing in the current folder is taken for a library.
    command = [sys.executable, "-I", __file__, str(rows), str(columns), str(bits), syntax]
    try:
        finished = subprocess.run(  # noqa: S603
            command, input=data, capture_output=True, timeout=_TIMEOUT_S, check=False
        )
    # A worker may not start processes, and has nothing to lose but its own.
    except PermissionError:
        return _decode(data, rows, columns, bits, syntax)
    if finished.returncode:
        raise ValueError(f"the decoder ended with status {finished.returncode}")
    return finished.stdout


def _decode(data: bytes, rows: int, columns: int, bits: int, syntax: str) -> bytes:
    import gdcm

    fragment = gdcm.Fragment()
    fragment.SetByteStringValue(data)
    fragments = gdcm.SequenceOfFragments.New()
    fragments.AddFragment(fragment)
    element = gdcm.DataElement(gdcm.Tag(0x7FE0, 0x0010))
    element.SetValue(fragments.__ref__())
    image = gdcm.Image()
    image.SetNumberOfDimensions(2)
    image.SetDimensions((columns, rows, 1))
    image.SetDataElement(element)
    grey = gdcm.PhotometricInterpretation.GetPIType("MONOCHROME2")
    image.SetPhotometricInterpretation(gdcm.PhotometricInterpretation(grey))
    image.SetTransferSyntax(gdcm.TransferSyntax(gdcm.TransferSyntax.GetTSType(syntax)))
    allocated = 8 if bits <= 8 else 16
    image.SetPixelFormat(gdcm.PixelFormat(1, allocated, bits, bits - 1, 0))
    # The binding returns the pixels as a text, and None if it cannot decode them.
    text = image.GetBuffer()
    if text is None:
        raise ValueError("not decoded")
    pixels: bytes = text.encode("utf-8", "surrogateescape")
    return pixels


def _main() -> None:
    """Decode what stands on standard input and write the pixels to standard output."""
    rows, columns, bits = (int(each) for each in sys.argv[1:4])
    data = sys.stdin.buffer.read()
    sys.stdout.buffer.write(_decode(data, rows, columns, bits, sys.argv[4]))


if __name__ == "__main__":
    _main()
