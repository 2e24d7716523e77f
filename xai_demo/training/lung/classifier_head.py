"""The last layer of a lung model: one classifier for all hospitals, on the trained features.

It is a logistic regression on the pooled features of SPRSound's events and whole windows, ICBHI's
cycles, Fraiwan's recordings and augmented windows. The last have the largest weight: their other
stethoscopes, noise and synthetic events are what carries over to other hospitals. Rare classes
count more. Standardisation is folded into the network's last layer. As only this layer is trained
on Fraiwan, cross-validating it over Fraiwan's patients measures the whole procedure there.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from xai_demo.audio import spectrogram
from xai_demo.audio.events import event_probabilities_over_time
from xai_demo.decision import pool_windows
from xai_demo.training.calibration import softmax
from xai_demo.training.datasets import RecordingPredictions
from xai_demo.training.datasets.breathing import (
    BOTH,
    CRACKLE,
    NORMAL,
    WHEEZE,
    kind_of,
)
from xai_demo.training.losses import run_in_bfloat16
from xai_demo.training.lung.regression import LocalisedWindows, SourceFeatures, fit_regression
from xai_demo.training.lung.windows import WindowAugmentation, cut_window, default_stage

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from numpy.typing import NDArray

    from xai_demo.records import Floats, Model
    from xai_demo.training.lung.samples import LungDataset, Segment

# Of each source, for the last layer; more take long and change little.
MAX_WINDOWS = 6000
# The number of augmented windows, and its limit as a multiple of the number of events.
_MAX_AUGMENTED = 12_000
_MAX_AUGMENTED_PER_EVENT = 4
_BATCH = 64
_ROWS_OF = {CRACKLE: (0,), WHEEZE: (1,), BOTH: (0, 1)}  # of the array of times of a window


def fit_classifier(network: nn.Module, *, dataset: LungDataset) -> None:
    """Fit the network's last layer to all sources, in place."""
    sources = list(training_sources(network, dataset, most=MAX_WINDOWS).values())
    localised = localised_windows(network, dataset)
    set_classifier(network, *fit_regression(sources, localised=localised))


def localised_windows(network: Any, dataset: LungDataset) -> LocalisedWindows | None:
    """Training windows with exactly one kind of event, and where it sounds; None without any."""
    # Every window of the recordings whose events are timed: recording, start, times, label.
    candidates = [
        (i, s, *dataset.window_label(i, s))
        for i in dataset.timed_recordings
        for s in window_starts(dataset, i)
    ]
    # A label below 1 is that of a window in which part of an event is barely audible.
    clear = [each for each in candidates if each[3].max() == 1 and each[3].argmax() != NORMAL]
    if not clear:
        return None
    # (windows, columns, features)
    contributions = np.concatenate(
        [
            network.global_pool.column_contributions(maps).numpy()
            for maps in _feature_maps(
                network, (whole_window(dataset, i, s) for i, s, _, _ in clear)
            )
        ]
    )
    kinds = np.array([int(label.argmax()) for _, _, _, label in clear])
    # From frames to columns: a column is in the event if any of its frames is.
    times = F.adaptive_max_pool1d(
        torch.from_numpy(np.stack([times for _, _, times, _ in clear])), contributions.shape[1]
    ).numpy()
    # Where both sound, pointing at either is right.
    inside = np.stack(
        [
            window[list(_ROWS_OF[int(kind)])].any(0)
            for window, kind in zip(times, kinds, strict=True)
        ]
    )
    return LocalisedWindows(contributions=contributions, inside=inside, kinds=kinds)


def training_sources(
    network: nn.Module, dataset: LungDataset, *, most: int | None = None, recordings: bool = True
) -> dict[str, SourceFeatures]:
    """Features of all training data by source, at most `most` samples of each.

    `recordings=False` leaves out recordings with a single label.
    """
    sources = {}
    events = [segment for segment in dataset.events if segment.split == "train"]
    if events:
        subset = [events[i] for i in sample_indices(len(events), most)]
        sources["events"] = _segment_source(network, dataset, subset, weight=0.5, power=0.5)
        sources["varied"] = _augmented_source(network, dataset, most)
    if dataset.timed_recordings:
        windows = [(i, s) for i in dataset.timed_recordings for s in window_starts(dataset, i)]
        windows = [windows[i] for i in sample_indices(len(windows), most)]
        sources["windows"] = SourceFeatures(
            features=pooled_features(network, (whole_window(dataset, i, s) for i, s in windows)),
            # Of a label that is half and half, the lower class: what is certainly audible.
            kinds=np.array([int(dataset.window_label(i, s)[1].argmax()) for i, s in windows]),
            groups=tuple(dataset.recordings[i].take.patient for i, _ in windows),
            weight=0.5,
            power=0.5,
        )
    if dataset.cycles:
        subset = [dataset.cycles[i] for i in sample_indices(len(dataset.cycles), most)]
        sources["cycles"] = _segment_source(network, dataset, subset, weight=0.1, power=0.3)
    if dataset.manikin_recordings:
        sources["manikin"] = recording_features(
            network, dataset, dataset.manikin_recordings, weight=0.5
        )
    if dataset.labelled_recordings and recordings:
        sources["recordings"] = recording_features(network, dataset, dataset.labelled_recordings)
    return sources


def sample_indices(count: int, most: int | None) -> NDArray[np.int64]:
    """At most `most` of the indices below `count`, always the same random ones, in order."""
    if most is None or count <= most:
        return np.arange(count, dtype=np.int64)
    return np.sort(np.random.default_rng(0).choice(count, most, replace=False))


def _augmented_source(network: nn.Module, dataset: LungDataset, most: int | None) -> SourceFeatures:
    """Augmented windows of all sources, as training draws them; rarer events more often."""
    # Seeded: the same data always give the same classifier.
    rng = np.random.default_rng(0)
    train = np.array([i for i, segment in enumerate(dataset.events) if segment.split == "train"])
    kinds = np.array([dataset.events[i].kind for i in train])
    probabilities = np.bincount(kinds, minlength=4).astype(float)[kinds] ** -0.5
    count = min(_MAX_AUGMENTED, _MAX_AUGMENTED_PER_EVENT * len(train))
    chosen = rng.choice(train, count, p=probabilities / probabilities.sum())
    rows = sample_indices(count, most)
    labels = np.zeros((len(rows), 4), np.float32)

    def windows() -> Iterator[Floats]:
        for at, row in enumerate(rows):
            # A generator per row: it does not change with the number of rows that are used.
            window, target = dataset.load(int(chosen[row]), np.random.default_rng((0, int(row))))
            labels[at] = target[:4]
            yield window

    # `labels` is filled while the features are computed, so these come first.
    features = pooled_features(network, windows())
    return SourceFeatures(
        features=features,
        kinds=labels.argmax(axis=1),
        # `load` may draw from any training recording, whoever the event is from.
        groups=("",) * len(rows),
        weight=2.0,
        power=1.0,
        labels=labels,
    )


def _segment_source(
    network: nn.Module,
    dataset: LungDataset,
    segments: Sequence[Segment],
    *,
    weight: float,
    power: float,
) -> SourceFeatures:
    return SourceFeatures(
        features=pooled_features(
            network, (dataset.segment_window(segment) for segment in segments)
        ),
        kinds=np.array([segment.kind for segment in segments]),
        groups=tuple(dataset.recordings[s.recording].take.patient for s in segments),
        weight=weight,
        power=power,
    )


def recording_features(
    network: nn.Module, dataset: LungDataset, chosen: Sequence[int], *, weight: float = 1.0
) -> SourceFeatures:
    """Features of whole recordings with one label each: the mean over their windows."""
    return SourceFeatures(
        features=np.stack(
            [
                pooled_features(
                    network, (whole_window(dataset, i, s) for s in window_starts(dataset, i))
                ).mean(0)
                for i in chosen
            ]
        ),
        kinds=np.array([dataset.recordings[i].take.kind for i in chosen]),
        groups=tuple(dataset.recordings[i].take.patient for i in chosen),
        weight=weight,
        power=0.3,
    )


def predict_recordings(network: Any, model: Model, *, dataset: LungDataset) -> RecordingPredictions:
    """Predictions for the whole validation recordings, overall and over time, as in the demo."""
    last = network.get_classifier()
    weight, bias = last.weight.detach().cpu().numpy(), last.bias.detach().cpu().numpy()
    rows, kinds, moments, sounding_s = [], [], [], []
    for i in dataset.validation_recordings():
        firsts = window_starts(dataset, i)
        features = pooled_features(network, (whole_window(dataset, i, s) for s in firsts))
        logits = (features @ weight.T + bias).astype(np.float64)
        windows = softmax(logits / model.temperature).astype(np.float32)
        rows.append(pool_windows(model, windows))
        # By its events, which are what the moments are compared with as well.
        annotated = {kind for _, _, kind in dataset.recordings[i].events}
        crackles, wheezes = bool(annotated & {CRACKLE, BOTH}), bool(annotated & {WHEEZE, BOTH})
        kinds.append(kind_of(crackles=crackles, wheezes=wheezes))
        frames = dataset.recordings[i].frames
        # A recording shorter than a window ends before it.
        edges, by_moment = event_probabilities_over_time(
            firsts, [min(s + dataset.window_frames, frames) for s in firsts], windows
        )
        moments.append(by_moment)
        sounding_s.append(_durations(dataset.frame_kinds(i), edges) / dataset.frames_per_second)
    return RecordingPredictions(
        probabilities=np.stack(rows).astype(np.float64),
        targets=np.array(kinds),
        moments=np.concatenate(moments).astype(np.float64),
        sounding_s=np.concatenate(sounding_s),
    )


def _durations(kinds: NDArray[np.int64], edges: NDArray[np.int64]) -> NDArray[np.float64]:
    """Frames of each class between two edges, (moments, 4)."""
    # Cumulative counts from 0: a difference is what lies between two edges.
    totals = np.zeros((len(kinds) + 1, BOTH + 1))
    totals[1:] = np.eye(BOTH + 1)[kinds].cumsum(axis=0)
    durations: NDArray[np.float64] = np.diff(totals[edges], axis=0)
    return durations


def window_starts(dataset: LungDataset, recording: int) -> tuple[int, ...]:
    """First frames of a recording's windows, placed as in the demo."""
    hop = round(dataset.spec.window_hop_s * dataset.frames_per_second)
    return spectrogram.window_starts(
        dataset.recordings[recording].frames, dataset.window_frames, hop
    )


def whole_window(dataset: LungDataset, recording: int, first: int) -> Floats:
    """A window of a recording, nothing masked: (mel, frames)."""
    plain = WindowAugmentation(stage=default_stage(dataset.spec))
    return cut_window(
        dataset.recordings[recording], first, dataset.window_frames, plain, dataset.spec
    )


def pooled_features(network: Any, windows: Iterator[Floats]) -> Floats:
    """The pooled features of each window, (windows, features)."""
    return np.concatenate(
        [network.global_pool(maps).numpy() for maps in _feature_maps(network, windows)]
    )


def _feature_maps(network: Any, windows: Iterator[Floats]) -> Iterator[Tensor]:
    """The feature maps of the last stage, by batch: (batch, channels, rows, columns)."""
    device = next(network.parameters()).device
    # Features must not depend on the batch: batch norms use their running statistics.
    network.eval()
    for batch in _batches(windows):
        with torch.inference_mode():
            inputs = torch.from_numpy(np.stack(batch))[:, None].to(device)
            yield run_in_bfloat16(network.forward_features, inputs).cpu()


def set_classifier(network: Any, weight: Floats, bias: Floats) -> None:
    """Set the weights, (labels, features), and biases of the network's last layer."""
    last = network.get_classifier()
    with torch.no_grad():
        last.weight.copy_(torch.from_numpy(weight))
        last.bias.copy_(torch.from_numpy(bias))


def _batches(windows: Iterator[Floats]) -> Iterator[list[Floats]]:
    batch: list[Floats] = []
    for window in windows:
        batch.append(window)
        if len(batch) == _BATCH:
            yield batch
            batch = []
    if batch:
        yield batch
