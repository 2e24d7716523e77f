"""What visitors uploaded, as it lies on the server until it is wiped."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

from gradio.utils import get_upload_folder

from xai_demo.errors import UnreadableFileError
from xai_demo.files import format_of, shown_name
from xai_demo.imaging.dicom.deidentify import is_stripped, stripped
from xai_demo.imaging.dicom.tags import DamagedError


def forget_patient(path: str) -> None:
    """Write an uploaded DICOM film anew, without what belongs to the patient, in its own place.

    What is no upload or no readable film stays as it is: nobody's file but the server's own copy.
    """
    place = Path(path).resolve()
    if not place.is_relative_to(Path(get_upload_folder()).resolve()):
        return
    try:
        with place.open("rb") as file:
            if format_of(file) != "DICOM" or is_stripped(file):
                return
            content = stripped(file, shown_name(path))
        handle, temporary = tempfile.mkstemp(dir=place.parent)
        with os.fdopen(handle, "wb") as file:
            file.write(content)
        os.replace(temporary, place)
    except (OSError, UnreadableFileError, DamagedError):
        return
