"""The classifier that goes with the network: one for all hospitals, on features that stay as is.

Logistic regression on the pooled features of SPRSound's events and whole windows, ICBHI's cycles,
Fraiwan's recordings and, twice as heavy as any of these, of windows varied as in training: with
other stethoscopes, noise and synthesised events, which is what carries over to other hospitals.
Rare classes count more. Standardisation is folded into the network's last layer. As only this
layer sees Fraiwan, cross-validating it over Fraiwan's patients tells how the whole procedure does
there.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from xai_demo.audio import spectrogram
from xai_demo.decision import over_time, over_windows
from xai_demo.training.calibration import softmax
from xai_demo.training.datasets import RecordingPredictions
from xai_demo.training.datasets.breathing import (
    BOTH,
    CRACKLE,
    NORMAL,
    WHEEZE,
    kind_of,
)
from xai_demo.training.losses import narrow
from xai_demo.training.lung.regression import LocalisedWindows, SourceFeatures, fit_regression
from xai_demo.training.lung.windows import WindowAugmentation, cut_window, default_stage

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from numpy.typing import NDArray

    from xai_demo.records import Floats, Model
    from xai_demo.training.lung.samples import LungDataset, Segment

_VARIED = 12_000  # windows varied as in training, ...
_VARIED_TIMES = 4  # ... unless that is so many times the events
_BATCH = 64
_HEARD_IN = {CRACKLE: (0,), WHEEZE: (1,), BOTH: (0, 1)}  # rows of what is heard when


def fit_classifier(network: nn.Module, *, lessons: LungDataset) -> None:
    """Give the network the classifier that all sources agree on, in place."""
    learnt = list(training_sources(network, lessons).values())
    set_classifier(network, *fit_regression(learnt, located=localised_windows(network, lessons)))


def localised_windows(network: Any, lessons: LungDataset) -> LocalisedWindows | None:
    """Windows of training's recordings in which one kind of event sounds, and where."""
    found = [
        (i, s, *lessons.heard_in(i, s)) for i in lessons.whole for s in window_starts(lessons, i)
    ]
    clear = [each for each in found if each[3].max() == 1 and each[3].argmax() != NORMAL]
    if not clear:
        return None
    parts = np.concatenate(
        [
            network.global_pool.columns(maps).numpy()
            for maps in _feature_maps(
                network, (whole_window(lessons, i, s) for i, s, _, _ in clear)
            )
        ]
    )
    kinds = np.array([int(label.argmax()) for _, _, _, label in clear])
    times = F.adaptive_max_pool1d(
        torch.from_numpy(np.stack([times for _, _, times, _ in clear])), parts.shape[1]
    ).numpy()
    inside = np.stack(
        [of[list(_HEARD_IN[int(kind)])].any(0) for of, kind in zip(times, kinds, strict=True)]
    )
    return LocalisedWindows(parts=parts, inside=inside, kinds=kinds)


def training_sources(
    network: nn.Module, lessons: LungDataset, *, most: int | None = None, recordings: bool = True
) -> dict[str, SourceFeatures]:
    """Features of everything that training may hear, by source; plain, and some varied.

    At most so many of each; `recordings` False leaves those out that have one label.
    """
    found = {}
    events = [p for p in lessons.events if p.split == "train"]
    if events:
        some = [events[i] for i in sample_indices(len(events), most)]
        found["events"] = _segment_source(network, lessons, some, weight=0.5, power=0.5)
        found["varied"] = _augmented_source(network, lessons, most)
    if lessons.whole:
        windows = [(i, s) for i in lessons.whole for s in window_starts(lessons, i)]
        windows = [windows[i] for i in sample_indices(len(windows), most)]
        found["windows"] = SourceFeatures(
            features=pooled_features(network, (whole_window(lessons, i, s) for i, s in windows)),
            kinds=np.array([int(lessons.heard_in(i, s)[1].argmax()) for i, s in windows]),
            groups=tuple(lessons.sounds[i].take.patient for i, _ in windows),
            weight=0.5,
            power=0.5,
        )
    if lessons.cycles:
        some = [lessons.cycles[i] for i in sample_indices(len(lessons.cycles), most)]
        found["cycles"] = _segment_source(network, lessons, some, weight=0.1, power=0.3)
    if lessons.labelled and recordings:
        found["recordings"] = recording_features(network, lessons, lessons.labelled)
    return found


def sample_indices(count: int, most: int | None) -> NDArray[np.int64]:
    """The places of at most so many of `count` samples, drawn once for all, in their order."""
    if most is None or count <= most:
        return np.arange(count, dtype=np.int64)
    return np.sort(np.random.default_rng(0).choice(count, most, replace=False))


def _augmented_source(network: nn.Module, lessons: LungDataset, most: int | None) -> SourceFeatures:
    """Windows of all sources as training draws them, the rarer kinds of event more often."""
    rng = np.random.default_rng(0)
    train = np.array([i for i, p in enumerate(lessons.events) if p.split == "train"])
    kinds = np.array([lessons.events[i].kind for i in train])
    chance = np.bincount(kinds, minlength=4).astype(float)[kinds] ** -0.5
    count = min(_VARIED, _VARIED_TIMES * len(train))
    chosen = rng.choice(train, count, p=chance / chance.sum())
    rows = sample_indices(count, most)
    labels = np.zeros((len(rows), 4), np.float32)

    def windows() -> Iterator[Floats]:
        for at, row in enumerate(rows):
            window, target = lessons.load(int(chosen[row]), np.random.default_rng((0, int(row))))
            labels[at] = target[:4]
            yield window

    found = pooled_features(network, windows())
    return SourceFeatures(
        features=found,
        kinds=labels.argmax(axis=1),
        groups=("",) * len(rows),
        weight=2.0,
        power=1.0,
        labels=labels,
    )


def _segment_source(
    network: nn.Module,
    lessons: LungDataset,
    places: Sequence[Segment],
    *,
    weight: float,
    power: float,
) -> SourceFeatures:
    return SourceFeatures(
        features=pooled_features(network, (lessons.plain(p) for p in places)),
        kinds=np.array([p.kind for p in places]),
        groups=tuple(lessons.sounds[p.recording].take.patient for p in places),
        weight=weight,
        power=power,
    )


def recording_features(
    network: nn.Module, lessons: LungDataset, chosen: Sequence[int]
) -> SourceFeatures:
    """Whole recordings with one label each: the mean over their windows."""
    return SourceFeatures(
        features=np.stack(
            [
                pooled_features(
                    network, (whole_window(lessons, i, s) for s in window_starts(lessons, i))
                ).mean(0)
                for i in chosen
            ]
        ),
        kinds=np.array([lessons.sounds[i].take.kind for i in chosen]),
        groups=tuple(lessons.sounds[i].take.patient for i in chosen),
        weight=1.0,
        power=0.3,
    )


def predict_recordings(network: Any, model: Model, *, lessons: LungDataset) -> RecordingPredictions:
    """Whole validation recordings as the demo answers them, as a whole and by the moment."""
    last = network.get_classifier()
    weight, bias = last.weight.detach().cpu().numpy(), last.bias.detach().cpu().numpy()
    rows, kinds, parts, sounding = [], [], [], []
    for i in lessons.validated():
        firsts = window_starts(lessons, i)
        found = pooled_features(network, (whole_window(lessons, i, s) for s in firsts))
        logits = (found @ weight.T + bias).astype(np.float64)
        windows = softmax(logits / model.temperature).astype(np.float32)
        rows.append(over_windows(model, windows))
        heard = {kind for _, _, kind in lessons.sounds[i].events}
        crackles, wheezes = bool(heard & {CRACKLE, BOTH}), bool(heard & {WHEEZE, BOTH})
        kinds.append(kind_of(crackles=crackles, wheezes=wheezes))
        frames = lessons.sounds[i].frames
        edges, by_moment = over_time(
            firsts, [min(s + lessons.frames, frames) for s in firsts], windows
        )
        parts.append(by_moment)
        sounding.append(_durations(lessons.sounding(i), edges) / lessons.per_second)
    return RecordingPredictions(
        probabilities=np.stack(rows).astype(np.float64),
        targets=np.array(kinds),
        moments=np.concatenate(parts).astype(np.float64),
        sounding_s=np.concatenate(sounding),
    )


def _durations(kinds: NDArray[np.int64], edges: NDArray[np.int64]) -> NDArray[np.float64]:
    """Frames of each kind between edges, (moments, 4)."""
    each = np.zeros((len(kinds) + 1, BOTH + 1))
    each[1:] = np.eye(BOTH + 1)[kinds].cumsum(axis=0)
    lasting: NDArray[np.float64] = np.diff(each[edges], axis=0)
    return lasting


def window_starts(lessons: LungDataset, recording: int) -> tuple[int, ...]:
    """First frames of a recording's windows, as the demo lays them."""
    hop = round(lessons.spec.window_hop_s * lessons.per_second)
    return spectrogram.window_starts(lessons.sounds[recording].frames, lessons.frames, hop)


def whole_window(lessons: LungDataset, recording: int, first: int) -> Floats:
    """A window of a recording, nothing blotted out: (mel, frames)."""
    change = WindowAugmentation(stage=default_stage(lessons.spec))
    return cut_window(lessons.sounds[recording], first, lessons.frames, change, lessons.spec)


def pooled_features(network: Any, windows: Iterator[Floats]) -> Floats:
    """What the classifier sees of each window, (windows, features)."""
    return np.concatenate(
        [network.global_pool(maps).numpy() for maps in _feature_maps(network, windows)]
    )


def _feature_maps(network: Any, windows: Iterator[Floats]) -> Iterator[Tensor]:
    """The maps of the last stage, a batch at a time: (batch, channels, rows, columns)."""
    device = next(network.parameters()).device
    network.eval()
    for batch in _batches(windows):
        with torch.inference_mode():
            inputs = torch.from_numpy(np.stack(batch))[:, None].to(device)
            yield narrow(network.forward_features, inputs).cpu()


def set_classifier(network: Any, weight: Floats, bias: Floats) -> None:
    """Make this the network's last layer."""
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
