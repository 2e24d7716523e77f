"""Self-test: compare what a model answers now, from file to heatmap, with a known answer.

Stored answers are for the synthesised example files. They lie in the model's directory or, for a
model on the Hub, in `catalog/answers`. For some models, the authors have published an answer for
a clip of their own as well.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from xai_demo.analysis import inputs
from xai_demo.analysis.request import AnalysisRequest
from xai_demo.catalog import __file__ as catalog_file
from xai_demo.engine.backends import onnx_runner
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
from xai_demo.hub import clips, wheels
from xai_demo.hub.checkpoint import sha256_of
from xai_demo.hub.onnx_weights import read_float_graph
from xai_demo.records import Analysis, Task

if TYPE_CHECKING:
    from xai_demo.analysis import Analyser
    from xai_demo.catalog.sources import PublishedAnswer
    from xai_demo.settings import Settings

EXAMPLE_BY_TASK: dict[Task, str] = {
    "stethoscope": "wheeze",
    "chest_xray": "one-opacity",
    "audioset": "dog",
}
# Other processors, GPUs and backends add numbers in another order. Differences of 1e-5 between
# processors and of 1e-3 between backends have been observed.
TOLERANCE = 0.002
# Of a cell of the normalised heatmap, whose maximum is 1.
HEATMAP_TOLERANCE = 0.02
# Of probabilities, against the same graph in another library.
GRAPH_TOLERANCE = 1e-5
ANSWER_FILE = "selftest.json"
# Models that are downloaded have no directory in `weights/`. Their answers ship with the package.
HUB_ANSWERS = Path(catalog_file).parent / "answers"


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckResult:
    """The outcome of one check; `passed` is None if it could not be made."""

    model: str
    against: str  # "stored", "published" or "graph"
    passed: bool | None
    sentence: str


def check_model(
    analyser: Analyser, name: str, *, clip: Path | None = None, backend: str = "auto"
) -> tuple[CheckResult, ...]:
    """Check one model against every known answer; `clip` is the authors' clip.

    Raises CheckpointUnavailableError if the model's weights are not installed.
    """
    if not analyser.hub.is_available(name):
        raise CheckpointUnavailableError(
            f"The weights of {name} are not installed. {analyser.hub.describe(name)['note']}"
        )
    entry = analyser.hub.entry(name)
    results = [_check_stored(analyser, name, backend)]
    if entry.published_answer is not None:
        results.append(_check_published(analyser, name, entry.published_answer, clip, backend))
    # The graph stays in the cache beside what was made of it, but a bundled copy comes without.
    if entry.wheel and (graph := wheels.member_path(entry.wheel, analyser.settings)).is_file():
        results.append(_check_graph(analyser, name, graph))
    return tuple(results)


def check_models(
    models: Sequence[str], settings: Settings, *, clip: Path | None = None, backend: str = "auto"
) -> tuple[list[CheckResult], list[str]]:
    """The results of all checks, and notes; without names, of every model that is available."""
    from xai_demo.analysis import Analyser

    analyser = Analyser(settings)
    names = _model_names(analyser, models)
    results = [
        result
        for name in names
        for result in check_model(analyser, name, clip=clip, backend=backend)
    ]
    # Models that were asked for by name are checked or refused; none of them is left out silently.
    absent = [] if models else [name for name in analyser.hub.names() if name not in names]
    notes = [result.sentence for result in results if _is_superseded(result, results)]
    notes += [f"Not installed, so not checked: {', '.join(absent)}."] if absent else []
    return results, notes


def check_after_fetch(name: str, settings: Settings) -> tuple[list[str], list[WeightsError]]:
    """Check a model that has just been downloaded; returns notes to print, and errors.

    The authors' clip is downloaded too. A missing clip is a note, not an error.
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
        results = check_model(analyser, name)
        # A check that cannot be made is a note; only a failed one means wrong weights.
        raise_for_failures([result for result in results if result.passed is False])
    except WeightsError as error:
        return notes, [error]
    return [*notes, *(f"  {result.sentence}" for result in results)], []


def raise_for_failures(results: Sequence[CheckResult]) -> None:
    """Raise CheckpointMismatchError for failed checks, RequestError for those not made.

    A model that gives its published answer does not need a stored one.
    """
    failed = [result.sentence for result in results if result.passed is False]
    if failed:
        raise CheckpointMismatchError(" ".join(failed))
    unmade = [result for result in results if result.passed is None]
    needed = [result.sentence for result in unmade if not _is_superseded(result, results)]
    if needed:
        raise RequestError(" ".join(needed))


def _is_superseded(result: CheckResult, results: Sequence[CheckResult]) -> bool:
    """Whether only the stored answer is missing of a model that gives its published one."""
    confirmed = {each.model for each in results if each.passed and each.against == "published"}
    return result.passed is None and result.against == "stored" and result.model in confirmed


def store_answers(models: Sequence[str], settings: Settings) -> list[Path]:
    """Store the current answers of some models, or of all available ones; returns the files."""
    from xai_demo.analysis import Analyser

    analyser = Analyser(settings)
    return [_store_answer(analyser, name) for name in _model_names(analyser, models)]


def _model_names(analyser: Analyser, models: Sequence[str]) -> list[str]:
    for name in models:
        # An unknown name is refused before any model runs.
        analyser.hub.entry(name)
    return list(models) or [n for n in analyser.hub.names() if analyser.hub.is_available(n)]


def _store_answer(analyser: Analyser, name: str) -> Path:
    path = _answer_path(analyser, name)
    example = example_path(EXAMPLE_BY_TASK[analyser.hub.entry(name).task])
    analysis = _analyse(analyser, name, example, "auto")
    report, first = analysis.report, analysis.report.explanations[0]
    # These keys are also in the shipped files of `catalog/answers`.
    answer = {
        "file": example.name,
        "file_sha256": sha256_of(example),
        "weights_sha256": report.model.sha256,
        "tolerance": TOLERANCE,
        "heat_tolerance": HEATMAP_TOLERANCE,
        # Rounded well below the tolerances, so that the files stay small and stable.
        "probabilities": {p.label: round(p.probability, 6) for p in report.predictions},
        "explainer": first.explainer,
        "layer": first.layer,
        "target": first.target,
        "heat": [[round(float(v), 4) for v in row] for row in first.values],
    }
    text = json.dumps(answer, indent=1, ensure_ascii=False, allow_nan=False)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, f"{text}\n")
    except OSError as error:
        raise UnsuitableError(f"{path} cannot be written: {error.strerror}.") from error
    return path


def as_json(results: Sequence[CheckResult]) -> list[dict[str, Any]]:
    """The results as JSON values."""
    return [asdict(result) for result in results]


def _check_stored(analyser: Analyser, name: str, backend: str) -> CheckResult:
    def result(passed: bool | None, sentence: str) -> CheckResult:
        return CheckResult(
            model=name, against="stored", passed=passed, sentence=f"{name}: {sentence}"
        )

    path = _answer_path(analyser, name)
    if not path.is_file():
        return result(
            None,
            f"not checked: no answer is stored in {path}. If the weights are known to be correct, "
            f"`python -m xai_demo selftest {name} --write` stores one.",
        )
    expected = _read_answer(path)
    example = example_path(EXAMPLE_BY_TASK[analyser.hub.entry(name).task])
    # Another example has another answer: a difference would say nothing about the model.
    if sha256_of(example) != expected["file_sha256"]:
        return result(
            None,
            f"not checked: {example.name} has sha256 {sha256_of(example)}, but {path} was stored "
            f"for {expected['file_sha256']}.",
        )
    # The stored target, even if the answer has changed: other heatmaps could not be compared.
    analysis = _analyse(analyser, name, example, backend, target=expected["target"])
    difference, worst = _probability_difference(analysis, expected["probabilities"])
    heatmap_difference = _heatmap_difference(analysis, expected["heat"])
    tolerance, heatmap_tolerance = expected["tolerance"], expected["heat_tolerance"]
    sha256 = analysis.report.model.sha256
    # Other weights may pass too: the answer is what counts.
    note = ""
    if sha256 != expected["weights_sha256"]:
        note = (
            f" The weights have sha256 {sha256}; the answer was stored for "
            f"{expected['weights_sha256']}."
        )
    if difference <= tolerance and heatmap_difference <= heatmap_tolerance:
        return result(
            True,
            f"as stored for {example.name}: probabilities within {difference:.1e} (allowed "
            f"{tolerance:g}), heatmap within {heatmap_difference:.1e} (allowed "
            f"{heatmap_tolerance:g}).{note}",
        )
    return result(
        False,
        f"not as stored for {example.name}: {worst}; the heatmap differs by "
        f"{heatmap_difference:.2g} (allowed {heatmap_tolerance:g}).{note}",
    )


def _check_published(
    analyser: Analyser, name: str, published: PublishedAnswer, clip: Path | None, backend: str
) -> CheckResult:
    def result(passed: bool | None, sentence: str) -> CheckResult:
        return CheckResult(
            model=name, against="published", passed=passed, sentence=f"{name}: {sentence}"
        )

    path = clip or clips.clip_path(published, analyser.settings)
    if not path.is_file():
        return result(
            None,
            f"not checked against the published answer: {path} is missing. Put {published.clip} "
            f"from {published.source} there, or name it with --clip FILE.",
        )
    # Not every published clip has a known digest.
    if published.sha256 not in (None, sha256_of(path)):
        return result(
            None,
            f"not checked against the published answer: {path} has sha256 {sha256_of(path)}; "
            f"{published.clip} from {published.source} has {published.sha256}.",
        )
    analysis = _analyse(analyser, name, path, backend)
    difference, worst = _probability_difference(analysis, published.probabilities)
    probabilities = {p.label: p.probability for p in analysis.report.predictions}
    if difference > published.tolerance:
        return result(
            False,
            f"not as published for {published.clip}: {worst} (allowed {published.tolerance:g}).",
        )
    rows = ", ".join(
        f"{label} {probabilities[label]:.3f} ({p:.3f})"
        for label, p in published.probabilities.items()
    )
    return result(
        True, f"as published for {published.clip}, within {published.tolerance:g}: {rows}."
    )


def _check_graph(analyser: Analyser, name: str, path: Path) -> CheckResult:
    """Compare with the published graph, which ONNX Runtime runs with its quantisation stripped."""
    graph = onnx_runner(read_float_graph(path).SerializeToString())
    network = analyser.engine.network(name, backend="torch")
    example = example_path(EXAMPLE_BY_TASK[network.model.task])
    recording = analyser.reader.read(network.model, example)
    windows = inputs.prepare(network.model, recording).inputs
    worst, count = 0.0, len(windows)
    for i in range(count):
        window = windows[i : i + 1]
        # The graph has time before frequency, and takes one window at a time.
        expected = network.probabilities(graph(window.swapaxes(2, 3)))
        actual = network.probabilities(network.head(network.features(window)))
        worst = max(worst, float(np.abs(actual - expected).max()))
    return CheckResult(
        model=name,
        against="graph",
        passed=worst <= GRAPH_TOLERANCE,
        sentence=f"{name}: {'as' if worst <= GRAPH_TOLERANCE else 'not as'} its published graph in"
        f" ONNX Runtime, without its quantisation: the probabilities of {count} windows of"
        f" {example.name} differ by at most {worst:.1e} (allowed {GRAPH_TOLERANCE:g}).",
    )


def _analyse(
    analyser: Analyser, name: str, path: Path, backend: str, target: str | None = None
) -> Analysis:
    request = AnalysisRequest(
        task=analyser.hub.entry(name).task,
        model=name,
        target=target,
        backend=backend,
        # Masking inputs tells nothing about the answer itself.
        faithfulness=False,
    )
    return analyser.analyse(request, path)


def _probability_difference(analysis: Analysis, expected: Mapping[str, float]) -> tuple[float, str]:
    """The largest difference of a probability, and a phrase on it; infinite for a missing label."""
    probabilities = {p.label: p.probability for p in analysis.report.predictions}
    for label, p in expected.items():
        if label not in probabilities:
            return float("inf"), f"there is no label {label!r}; expected probability {p:.3f}"
    # Only published labels count: authors give a few of their labels.
    worst = max(expected, key=lambda label: abs(probabilities[label] - expected[label]))
    phrase = f"{worst} has probability {probabilities[worst]:.4f}; expected {expected[worst]:.4f}"
    return abs(probabilities[worst] - expected[worst]), phrase


def _heatmap_difference(analysis: Analysis, expected: list[list[float]]) -> float:
    """The largest difference of a cell; infinite for a grid of another size."""
    values, stored = analysis.report.explanations[0].values, np.array(expected)
    # Another grid: the cut or the architecture has changed.
    if values.shape != stored.shape:
        return float("inf")
    return float(np.abs(values - stored).max())


def _answer_path(analyser: Analyser, name: str) -> Path:
    if analyser.hub.entry(name).is_bundled:
        return analyser.settings.weights_dir / name / ANSWER_FILE
    return HUB_ANSWERS / f"{name}.json"


def _read_answer(path: Path) -> dict[str, Any]:
    try:
        answer: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        return answer
    except (OSError, ValueError) as error:
        raise UnreadableFileError(f"{path} cannot be read as JSON: {error}.") from error
