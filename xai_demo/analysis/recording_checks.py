"""What makes the answer for a recording doubtful: silence, clipping, speech, too little sound."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from xai_demo import files
from xai_demo.audio import quality

if TYPE_CHECKING:
    from xai_demo.records import LogMel, Recording

# From these shares of a recording on, there is too little breath sound in it to trust an answer.
DOUBTFUL_SHARES: Mapping[quality.Kind, float] = {
    "silence": 0.9,
    "clipping": 0.1,
    "cough": 0.5,
    "speech": 0.5,
    "music": 0.5,
    "noise": 0.5,
    "too short": 1.0,
}

# Just above the smallest step of 16-bit sound, -90.3 dB: no more than that is silence.
_SILENT_DB = -90.0
# The decoder warns of these itself, at the sample rate of the file.
_DECODER_FINDINGS: tuple[quality.Kind, ...] = ("clipping", "too short")


def blank_reason(recording: Recording) -> str:
    """Why there is nothing to explain; empty if there is."""
    samples = recording.samples
    peak = max(float(np.abs(samples[part]).max()) for part in files.chunks(samples))
    if 20 * np.log10(max(peak, 1e-12)) < _SILENT_DB:
        return "The recording is silent: there is nothing to explain."
    return ""


def padding_warning(recording: Recording, min_samples: int, spec: LogMel) -> tuple[str, ...]:
    """A warning about a recording with fewer samples than a network needs."""
    if len(recording.samples) >= min_samples:
        return ()
    return (
        f"The recording lasts {recording.duration_s:.2f} s. It was repeated to fill the "
        f"{spec.min_s:g} s that this network needs.",
    )


def quality_findings(recording: Recording) -> tuple[str, tuple[str, ...]]:
    """Why no answer can be trusted, empty if it can; and warnings beyond those of the decoder."""
    # Measured at the file's own sample rate: resampling blurs clipped peaks.
    clipped = recording.facts.get("clipped_share")
    findings = quality.check_quality(recording.samples, recording.sample_rate_hz, clipped=clipped)
    files.release_pages(recording.samples)
    severe = [f for f in findings if f.share >= DOUBTFUL_SHARES[f.kind]]
    known = (*_DECODER_FINDINGS, "silence") if recording.is_silent else _DECODER_FINDINGS
    warnings = tuple(f.sentence for f in findings if f.kind not in known)
    return (severe[0].sentence if severe else ""), warnings
