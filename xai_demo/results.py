"""An answer as files: report.json, overlay.png, heatmap.npy; of a recording also explanation.wav,
its events as events.csv and events.txt, and the sound after each step of the signal path."""

from __future__ import annotations

import io
import json
import os
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from xai_demo.errors import UnsuitableError
from xai_demo.records import Analysis
from xai_demo.tables import audacity_labels, events_csv

if TYPE_CHECKING:
    from xai_demo.records import Floats

_STAGES = ("raw", "filtered", "denoised")


def write(
    analysis: Analysis, directory: Path, more: Mapping[str, Any] | None = None
) -> tuple[Path, ...]:
    """Write the answer's files, each whole or not at all, and return them; `more` joins the report.

    A file of an earlier answer that this one has not (no heat, no sound) is removed, lest it be
    taken for this one's.
    """
    contents = _contents(analysis, more or {})
    try:
        directory.mkdir(parents=True, exist_ok=True)
        for name, content in contents.items():
            if content is None:
                (directory / name).unlink(missing_ok=True)
            else:
                _replace(directory / name, content)
    except OSError as error:
        raise UnsuitableError(
            f"{directory} cannot be written: {error.strerror}; wanted: a directory."
        ) from error
    return tuple(directory / name for name, content in contents.items() if content is not None)


def _contents(analysis: Analysis, more: Mapping[str, Any]) -> dict[str, bytes | None]:
    report = analysis.report
    text = json.dumps({**report.to_json(), **more}, indent=2, ensure_ascii=False, allow_nan=False)
    return {
        "report.json": f"{text}\n".encode(),
        "overlay.png": _overlay(analysis),
        "heatmap.npy": _heatmap(analysis),
        "explanation.wav": _sound(analysis, analysis.sounds.get("explanation")),
        "events.csv": events_csv(report.events).encode() if analysis.timeline else None,
        "events.txt": audacity_labels(report.events).encode() if analysis.timeline else None,
        **{f"{name}.wav": _sound(analysis, analysis.stages.get(name)) for name in _STAGES},
    }


def _overlay(analysis: Analysis) -> bytes:
    from xai_demo.render import overlay

    report, file = analysis.report, io.BytesIO()
    explanation = report.explanations[0] if report.explanations else None
    title = f"{explanation.target} by {explanation.explainer}" if explanation else report.file
    overlay(analysis.view, explanation, events=report.events, title=title).save(file, "PNG")
    return file.getvalue()


def _heatmap(analysis: Analysis) -> bytes | None:
    import numpy as np

    if not analysis.report.explanations:
        return None
    file = io.BytesIO()
    np.save(file, np.asarray(analysis.report.explanations[0].heatmap, np.float32))
    return file.getvalue()


def _sound(analysis: Analysis, samples: Floats | None) -> bytes | None:
    if samples is None or analysis.sample_rate_hz is None:
        return None
    import soundfile

    file = io.BytesIO()
    soundfile.write(file, samples, analysis.sample_rate_hz, format="WAV", subtype="PCM_16")
    return file.getvalue()


def _replace(path: Path, content: bytes) -> None:
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
        os.chmod(temporary, 0o644)  # mkstemp's own is for secrets
        os.replace(temporary, path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise
