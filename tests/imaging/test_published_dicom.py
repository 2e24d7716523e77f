"""Every file that pydicom brings for its own tests: read, or refused in one sentence."""

from __future__ import annotations

import re
from pathlib import Path

import pydicom
import pytest

from xai_demo.errors import UnreadableFileError
from xai_demo.imaging import read_image

DATA = Path(pydicom.__file__).parent / "data"
FILES = sorted(
    path
    for folder in ("test_files", "charset_files")
    for path in (DATA / folder).rglob("*")
    if path.is_file() and path.suffix in (".dcm", "") and path.name != "README"
)
# The parts of a sentence that says why: none of them names an inner error.
REASONS = re.compile(
    r"whose modality is|without pixels|in colour|unknown kind of pixels|contains \d+ frames|"
    r"declares \d+ bytes, but there are only \d+|expected at least 32 x 32|"
    r"is a file of an unknown type"
)


@pytest.mark.skipif(not FILES, reason="this pydicom brings no files")
@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_a_file_is_read_or_refused_with_the_true_reason(path: Path) -> None:
    try:
        picture = read_image(path, max_pixels=10_000_000)
    except UnreadableFileError as error:
        message = str(error)
    else:
        assert 0 <= picture.pixels.min() <= picture.pixels.max() <= 1
        return
    assert message.startswith(path.name)
    assert re.search(REASONS, message)
    assert "TIFF" not in message.partition("expected")[0]
