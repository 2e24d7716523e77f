"""Known answers: whether a model, from file to heat, still says what it said.

Stored answers are for synthesised files of the demo and lie in the model's directory, or, of a
model on the Hub, in `catalog/answers`. Some models' makers have published an answer for a clip of
theirs besides.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from xai_demo.analysis.request import AnalysisRequest
from xai_demo.catalog import __file__ as catalog_file
from xai_demo.errors import (
    CheckpointMismatchError,
    CheckpointUnavailableError,
    RequestError,
    UnreadableFileError,
    UnsuitableError,
    WeightsError,
)
from xai_demo.examples import example_path
from xai_demo.files import write_atomically
from xai_demo.hub import clips
from xai_demo.hub.checkpoint import sha256_of
from xai_demo.records import Analysis, Task

if TYPE_CHECKING:
    from xai_demo.analysis import Analyser
    from xai_demo.records import PublishedAnswer
    from xai_demo.settings import Settings

EXAMPLE: dict[Task, str] = {
    "stethoscope": "wheeze",
    "chest_xray": "one-opacity",
    "audioset": "dog",
}
# Other processors, graphics cards and backends sum in another order: seen are 1e-5 and 1e-3.
TOLERANCE = 0.002
HEAT_TOLERANCE = 0.02
FILE = "selftest.json"
_ANSWERS = Path(catalog_file).parent / "answers"


@dataclass(frozen=True, slots=True, kw_only=True)
class Checked:
    """What one check found; `passed` None: it could not be made."""

    model: str
    against: str  # "stored" or "published"
    passed: bool | None
    sentence: str


def checked(
    analyser: Analyser, name: str, *, clip: Path | None = None, backend: str = "auto"
) -> tuple[Checked, ...]:
    """Check a model that is here; raises CheckpointUnavailableError where it is not."""
    if not analyser.hub.is_available(name):
        raise CheckpointUnavailableError(
            f"{name} is not here, wanted: its weights. {analyser.hub.describe(name)['note']}"
        )
    published = analyser.hub.entry(name).published_answer
    found = [_stored(analyser, name, backend)]
    if published is not None:
        found.append(_published(analyser, name, published, clip, backend))
    return tuple(found)


def results(
    models: Sequence[str], settings: Settings, *, clip: Path | None = None, backend: str = "auto"
) -> tuple[list[Checked], list[str]]:
    """What every check of some models found, or of all that are here; and what else to say."""
    from xai_demo.analysis import Analyser

    analyser = Analyser(settings)
    names = _chosen(analyser, models)
    found = [each for name in names for each in checked(analyser, name, clip=clip, backend=backend)]
    absent = [] if models else [n for n in analyser.hub.names() if n not in names]
    notes = [each.sentence for each in found if _made_up_for(each, found)]
    notes += [f"Not here, so not checked: {', '.join(absent)}."] if absent else []
    return found, notes


def after_fetch(name: str, settings: Settings) -> tuple[list[str], list[WeightsError]]:
    """What to say of a model that has just come, and why it is not to be believed, if so.

    The clip of its makers is brought as well; a model is not refused for want of it.
    """
    from xai_demo.analysis import Analyser

    analyser, notes = Analyser(settings), []
    published = analyser.hub.entry(name).published_answer
    if published is not None:
        try:
            clips.fetch_clip(published, settings)
        except WeightsError as error:
            notes.append(f"  {error}")
    try:
        found = checked(analyser, name)
        settle([each for each in found if each.passed is False])
    except WeightsError as error:
        return notes, [error]
    return [*notes, *(f"  {each.sentence}" for each in found)], []


def settle(results: Sequence[Checked]) -> None:
    """Raise CheckpointMismatchError for a check that failed, RequestError for one not made.

    Who answers as its makers published needs no stored answer besides.
    """
    failed = [each.sentence for each in results if each.passed is False]
    if failed:
        raise CheckpointMismatchError(" ".join(failed))
    unmade = [each for each in results if each.passed is None]
    unasked = [each.sentence for each in unmade if not _made_up_for(each, results)]
    if unasked:
        raise RequestError(" ".join(unasked))


def _made_up_for(check: Checked, results: Sequence[Checked]) -> bool:
    """Whether it is a stored answer that is missing where the published one was given."""
    given = {each.model for each in results if each.passed and each.against == "published"}
    return check.passed is None and check.against == "stored" and check.model in given


def store(models: Sequence[str], settings: Settings) -> list[Path]:
    """Write what some models, or all that are here, answer now as what they must answer from now
    on; returns the files."""
    from xai_demo.analysis import Analyser

    analyser = Analyser(settings)
    return [_store(analyser, name) for name in _chosen(analyser, models)]


def _chosen(analyser: Analyser, models: Sequence[str]) -> list[str]:
    for name in models:
        analyser.hub.entry(name)  # a typing error shows first
    return list(models) or [n for n in analyser.hub.names() if analyser.hub.is_available(n)]


def _store(analyser: Analyser, name: str) -> Path:
    path = _answer_path(analyser, name)
    example = example_path(EXAMPLE[analyser.hub.entry(name).task])
    analysis = _asked(analyser, name, example, "auto")
    report, first = analysis.report, analysis.report.explanations[0]
    answer = {
        "file": example.name,
        "file_sha256": sha256_of(example),
        "weights_sha256": report.model.sha256,
        "tolerance": TOLERANCE,
        "heat_tolerance": HEAT_TOLERANCE,
        "probabilities": {p.label: round(p.probability, 6) for p in report.predictions},
        "explainer": first.explainer,
        "layer": first.layer,
        "target": first.target,
        "heat": [[round(float(v), 4) for v in row] for row in first.values],
    }
    text = json.dumps(answer, indent=1, ensure_ascii=False, allow_nan=False)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, f"{text}\n")
    except OSError as error:
        raise UnsuitableError(
            f"{path} cannot be written: {error.strerror}; wanted: a directory that can."
        ) from error
    return path


def as_json(results: Sequence[Checked]) -> list[dict[str, Any]]:
    """The results as JSON values."""
    return [asdict(each) for each in results]


def _stored(analyser: Analyser, name: str, backend: str) -> Checked:
    def found(passed: bool | None, sentence: str) -> Checked:
        return Checked(model=name, against="stored", passed=passed, sentence=f"{name}: {sentence}")

    path = _answer_path(analyser, name)
    if not path.is_file():
        return found(
            None,
            f"not checked, no answer is stored in {path}; where the weights are known to be right, "
            f"`python -m xai_demo selftest {name} --write` stores one.",
        )
    wanted = _read(path)
    example = example_path(EXAMPLE[analyser.hub.entry(name).task])
    if sha256_of(example) != wanted["file_sha256"]:
        return found(
            None,
            f"not checked, {example.name} has sha256 {sha256_of(example)}, wanted: "
            f"{wanted['file_sha256']}, for which {path} was stored.",
        )
    analysis = _asked(analyser, name, example, backend, target=wanted["target"])
    off = _difference(analysis, wanted["probabilities"])
    heat = _heat_difference(analysis, wanted["heat"])
    used = analysis.report.model.sha256
    other = (
        f" The weights have sha256 {used}, stored was the answer of {wanted['weights_sha256']}."
        if used != wanted["weights_sha256"]
        else ""
    )
    if off[0] <= wanted["tolerance"] and heat <= wanted["heat_tolerance"]:
        return found(
            True,
            f"as stored for {example.name}: probabilities within {off[0]:.1e} (allowed "
            f"{wanted['tolerance']:g}), heat within {heat:.1e} (allowed "
            f"{wanted['heat_tolerance']:g}).{other}",
        )
    said = f"{off[1]}; the heat is off by {heat:.2g} (allowed {wanted['heat_tolerance']:g})."
    return found(False, f"not as stored for {example.name}: {said}{other}")


def _published(
    analyser: Analyser, name: str, wanted: PublishedAnswer, clip: Path | None, backend: str
) -> Checked:
    def found(passed: bool | None, sentence: str) -> Checked:
        return Checked(
            model=name, against="published", passed=passed, sentence=f"{name}: {sentence}"
        )

    path = clip or clips.clip_path(wanted, analyser.settings)
    if not path.is_file():
        return found(
            None,
            f"not checked against what its makers published, {path} is not there; wanted: "
            f"{wanted.clip} in that place or by --clip FILE, from {wanted.source}.",
        )
    if wanted.sha256 not in (None, sha256_of(path)):
        return found(
            None,
            f"not checked against what its makers published, {path} has sha256 {sha256_of(path)}; "
            f"wanted: {wanted.sha256}, {wanted.clip} from {wanted.source}.",
        )
    analysis = _asked(analyser, name, path, backend)
    off, worst = _difference(analysis, wanted.probabilities)
    answers = {p.label: p.probability for p in analysis.report.predictions}
    if off > wanted.tolerance:
        return found(
            False,
            f"not as its makers published for {wanted.clip}: {worst} within {wanted.tolerance:g}.",
        )
    rows = ", ".join(
        f"{label} {answers[label]:.3f} ({p:.3f})" for label, p in wanted.probabilities.items()
    )
    return found(
        True,
        f"as its makers published for {wanted.clip}, within {wanted.tolerance:g}: {rows}.",
    )


def _asked(
    analyser: Analyser, name: str, path: Path, backend: str, target: str | None = None
) -> Analysis:
    request = AnalysisRequest(
        task=analyser.hub.entry(name).task,
        model=name,
        target=target,
        backend=backend,
        faithfulness=False,
    )
    return analyser.analyse(request, path)


def _difference(analysis: Analysis, wanted: Any) -> tuple[float, str]:
    """The largest difference of a probability, and which it is; infinite for a missing label."""
    answers = {p.label: p.probability for p in analysis.report.predictions}
    worst, said = -1.0, ""
    for label, p in wanted.items():
        if label not in answers:
            return float("inf"), f"there is no label {label!r}, wanted: {p:.3f} for it"
        if abs(answers[label] - p) > worst:
            worst = abs(answers[label] - p)
            said = f"{label} has probability {answers[label]:.4f}, wanted: {p:.4f}"
    return worst, said


def _heat_difference(analysis: Analysis, wanted: list[list[float]]) -> float:
    values, known = analysis.report.explanations[0].values, np.array(wanted)
    if values.shape != known.shape:
        return float("inf")
    return float(np.abs(values - known).max())


def _answer_path(analyser: Analyser, name: str) -> Path:
    if analyser.hub.entry(name).checkpoint is None:
        return analyser.settings.weights_dir / name / FILE
    return _ANSWERS / f"{name}.json"


def _read(path: Path) -> dict[str, Any]:
    try:
        wanted: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        return wanted
    except (OSError, ValueError) as error:
        raise UnreadableFileError(f"{path} cannot be read: {error}; wanted: JSON.") from error
