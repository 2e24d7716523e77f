"""Analysis -> plain sentences: what was found, where the network looked, who said so (pure)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from xai_demo.records import Explanation, ModelInUse, Prediction, View

if TYPE_CHECKING:
    from numpy.typing import NDArray

_HALF_MAXIMUM = 0.5  # of the strongest heat: what counts as "mostly"
_WHOLE_AXIS = 0.85  # of an axis: more than this is "all of it", which is worth saying plainly
_MAX_LISTED = 12  # labels that can be named in a sentence
_NAMES = {"both": "Crackle and wheeze"}  # labels that say nothing outside their data set
_SOURCES = {
    "bundled": "shipped with this page",
    "cache": "fetched earlier from the Hugging Face Hub",
    "hub": "fetched from the Hugging Face Hub",
    "local": "a local file",
}


def display_label(label: str) -> str:
    """A label as a person writes it: "Pleural_Thickening" -> "Pleural thickening"."""
    if label.lower() in _NAMES:
        return _NAMES[label.lower()]
    words = label.replace("_", " ").strip()
    rest = words[1:].lower() if "_" in label else words[1:]
    return words[:1].upper() + rest


def percent(probability: float) -> str:
    """A probability to two significant digits, with its sign: 0.834 -> "83 %"."""
    if probability >= 0.995:
        return "> 99 %"
    if probability < 0.001:
        return "< 0.1 %"
    return f"{100 * probability:.{0 if probability >= 0.0995 else 1}f} %"


def seconds(value: float) -> str:
    """A time or a length with its unit, to a hundredth of a second below ten seconds."""
    if value >= 60:
        return f"{int(value // 60)} min {value % 60:.0f} s"
    return f"{value:.2f} s" if value < 10 else f"{value:.1f} s"


def clock(value: float) -> str:
    """A moment of a recording: "4.10 s", from a minute on "12:04.1", from an hour on with hours."""
    if value < 60:
        return f"{value:.2f} s"
    tenths = round(10 * value)
    minutes, rest = divmod(tenths, 600)
    hours, minutes = divmod(minutes, 60)
    lead = f"{hours}:{minutes:02d}" if hours else f"{minutes}"
    return f"{lead}:{rest / 10:04.1f}"


def hertz(value: float) -> str:
    """A frequency with its unit, to two significant digits: 1234.0 -> "1.2 kHz"."""
    if value >= 999.5:
        return f"{value / 1000:.2g} kHz" if value < 9950 else f"{value / 1000:.0f} kHz"
    return f"{float(f'{value:.2g}'):.0f} Hz"


def file_size(count: float) -> str:
    """A number of bytes as a person reads it."""
    return f"{count / 1e6:.1f} MB" if count >= 1e6 else f"{max(count / 1e3, 0.1):.1f} kB"


def short_hash(digest: str | None) -> str:
    """The first twelve digits of a hash or a revision."""
    return digest[:12] if digest else "not pinned"


def region(x: float, y: float) -> str:
    """The ninth of the picture that holds a point, given as fractions from its upper left."""
    row = ("upper", "middle", "lower")[min(int(3 * y), 2)]
    column = ("left", "centre", "right")[min(int(3 * x), 2)]
    return {"middle centre": "centre"}.get(f"{row} {column}", f"{row} {column}")


def half_maximum_span(profile: NDArray[np.floating]) -> tuple[float, float]:
    """The stretch round the maximum where a profile stays above half of it, as fractions 0..1."""
    hot = profile >= _HALF_MAXIMUM * profile.max()
    first = last = int(np.argmax(profile))
    while first > 0 and hot[first - 1]:
        first -= 1
    while last < len(profile) - 1 and hot[last + 1]:
        last += 1
    return first / len(profile), (last + 1) / len(profile)


def heatmap_location(view: View, explanation: Explanation) -> str:
    """One sentence that says where the heat lies, in the units of the picture."""
    if float(np.max(explanation.heatmap)) <= 0:
        return f"Nothing in it spoke for {display_label(explanation.target).lower()}: the heat is zero."
    if view.duration_s is None:
        return _location_in_picture(explanation)
    return _location_in_sound(view, explanation)


def faithfulness_sentence(explanation: Explanation) -> str:
    """One sentence that says how far to believe the heat; empty where nobody asked."""
    return str(explanation.faithfulness["sentence"]) if explanation.faithfulness else ""


def _location_in_picture(explanation: Explanation) -> str:
    x, y = explanation.peak["x"], explanation.peak["y"]
    hot = float(np.mean(explanation.heatmap >= _HALF_MAXIMUM * explanation.heatmap.max()))
    return (
        f"It looked mostly at the {region(x, y)} of the picture; the strongest heat is "
        f"{100 * x:.0f} % from the left and {100 * y:.0f} % from the top, and {100 * hot:.0f} % of "
        "the picture is at least half as hot. Left and right are as you see them: in a usual chest "
        "X-ray the patient's right side is on your left."
    )


def _location_in_sound(view: View, explanation: Explanation) -> str:
    duration = view.duration_s or 0.0
    start, end = (duration * f for f in half_maximum_span(explanation.heatmap.max(axis=0)))
    low, high = half_maximum_span(explanation.heatmap.max(axis=1))
    places = 1 if duration >= 5 else 2
    when = (
        "over the whole recording"
        if end - start > _WHOLE_AXIS * duration
        else f"mostly between {start:.{places}f} and {end:.{places}f} s"
    )
    pitch = (
        "at all frequencies"
        if high - low > _WHOLE_AXIS
        else f"between {hertz(frequency_at(view, low))} and {hertz(frequency_at(view, high))}"
    )
    peak = explanation.peak
    return (
        f"It listened {when}, {pitch}; the strongest heat is at "
        f"{seconds(peak['time_s'])}, {hertz(peak['frequency_hz'])}."
    )


def frequency_at(view: View, height: float) -> float:
    """The frequency at a height of the spectrogram, 0 its foot and 1 its top."""
    rows = np.asarray(view.row_frequencies_hz, dtype=np.float64)
    return float(np.interp(height * len(rows) - 0.5, np.arange(len(rows)), rows))


_GATE = {
    "frontal": "looks like a frontal chest X-ray",
    "rotated": "seems to be turned",
    "inverted": "seems to be inverted",
    "not a radiograph": "does not look like a frontal chest X-ray",
}


def radiograph_summary(facts: Mapping[str, Any]) -> str:
    """What a radiograph is, in one line: format, modality, view, size, window, what it looks like.

    "DICOM, DX, PA view, 2048 × 2500 pixels, window 600 to 1400, looks like a frontal chest X-ray".
    """
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
        parts.append("corrected before it was analysed")
    elif gate.get("kind") in _GATE:
        parts.append(_GATE[gate["kind"]])
    return ", ".join(parts)


def stability(prediction: Prediction, point: float | None, looks: int) -> str:
    """How far a probability moves where the radiograph hardly does; empty where nobody asked."""
    if prediction.interval is None:
        return ""
    low, high = prediction.interval
    said = (
        f"Slightly shifted, turned and brightened {looks} times, the same film got "
        f"{percent(low)} to {percent(high)} for {mid_sentence(display_label(prediction.label))}"
    )
    if point is not None and low < point <= high:
        return (
            f"{said}. That is at times the other side of its operating point ({percent(point)}), "
            "so this answer is not steady."
        )
    return f"{said}. That says how steady the answer is, not how right."


def provenance(model: ModelInUse, title: str) -> str:
    """One sentence that says which weights answered, and on what."""
    origin = _SOURCES.get(model.source, model.source)
    if model.repo_id:
        origin += f" ({model.repo_id} at {short_hash(model.revision)})"
    device = {"cpu": "the processor (CPU)", "cuda": "a graphics card (CUDA)"}.get(
        model.device, model.device
    )
    return (
        f"{title} ({model.name}), {origin}; sha256 {short_hash(model.sha256)}; "
        f"ran with {model.backend} on {device}."
    )


def mid_sentence(name: str) -> str:
    """A name within a sentence: small letters, but for words that are more than one capital."""
    return " ".join(w if sum(map(str.isupper, w)) > 1 else w.lower() for w in name.split(" "))


def join_words(items: Sequence[str]) -> str:
    """Words joined as in a sentence: "a, b and c"."""
    return items[0] if len(items) == 1 else f"{', '.join(items[:-1])} and {items[-1]}"


def missing_labels(labels: Sequence[str], wanted: int) -> str:
    """What is missed with a network that knows fewer labels, all of them named if they are few."""
    if len(labels) >= wanted:
        return ""
    which = (
        f": {join_words([display_label(label) for label in labels])}"
        if len(labels) <= _MAX_LISTED
        else ""
    )
    return f"; it knows {len(labels)} labels, not {wanted}{which}"
