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
from xai_demo.training.datasets import Recordings
from xai_demo.training.datasets.breathing import (
    BOTH,
    CRACKLE,
    NORMAL,
    WHEEZE,
    kind_of,
)
from xai_demo.training.losses import narrow
from xai_demo.training.lung.regression import Learnt, Located, regression
from xai_demo.training.lung.windows import Change, cut, stage_of

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from numpy.typing import NDArray

    from xai_demo.records import Floats, Model
    from xai_demo.training.lung.samples import Lessons, Place

_VARIED = 12_000  # windows varied as in training, ...
_VARIED_TIMES = 4  # ... unless that is so many times the events
_BATCH = 64
_HEARD_IN = {CRACKLE: (0,), WHEEZE: (1,), BOTH: (0, 1)}  # rows of what is heard when


def fitted(network: nn.Module, *, lessons: Lessons) -> None:
    """Give the network the classifier that all sources agree on, in place."""
    learnt = list(sources(network, lessons).values())
    put(network, *regression(learnt, located=located(network, lessons)))


def located(network: Any, lessons: Lessons) -> Located | None:
    """Windows of training's recordings in which one kind of event sounds, and where."""
    found = [(i, s, *lessons.heard_in(i, s)) for i in lessons.whole for s in starts(lessons, i)]
    clear = [each for each in found if each[3].max() == 1 and each[3].argmax() != NORMAL]
    if not clear:
        return None
    parts = np.concatenate(
        [
            network.global_pool.columns(maps).numpy()
            for maps in _maps(network, (whole(lessons, i, s) for i, s, _, _ in clear))
        ]
    )
    kinds = np.array([int(label.argmax()) for _, _, _, label in clear])
    times = F.adaptive_max_pool1d(
        torch.from_numpy(np.stack([times for _, _, times, _ in clear])), parts.shape[1]
    ).numpy()
    inside = np.stack(
        [of[list(_HEARD_IN[int(kind)])].any(0) for of, kind in zip(times, kinds, strict=True)]
    )
    return Located(parts=parts, inside=inside, kinds=kinds)


def sources(
    network: nn.Module, lessons: Lessons, *, most: int | None = None, recordings: bool = True
) -> dict[str, Learnt]:
    """Features of everything that training may hear, by source; plain, and some varied.

    At most so many of each; `recordings` False leaves those out that have one label.
    """
    found = {}
    events = [p for p in lessons.events if p.split == "train"]
    if events:
        some = [events[i] for i in drawn(len(events), most)]
        found["events"] = _of_places(network, lessons, some, weight=0.5, power=0.5)
        found["varied"] = _varied(network, lessons, most)
    if lessons.whole:
        windows = [(i, s) for i in lessons.whole for s in starts(lessons, i)]
        windows = [windows[i] for i in drawn(len(windows), most)]
        found["windows"] = Learnt(
            features=features(network, (whole(lessons, i, s) for i, s in windows)),
            kinds=np.array([int(lessons.heard_in(i, s)[1].argmax()) for i, s in windows]),
            groups=tuple(lessons.sounds[i].take.patient for i, _ in windows),
            weight=0.5,
            power=0.5,
        )
    if lessons.cycles:
        some = [lessons.cycles[i] for i in drawn(len(lessons.cycles), most)]
        found["cycles"] = _of_places(network, lessons, some, weight=0.1, power=0.3)
    if lessons.labelled and recordings:
        found["recordings"] = of_recordings(network, lessons, lessons.labelled)
    return found


def drawn(count: int, most: int | None) -> NDArray[np.int64]:
    """The places of at most so many of `count` samples, drawn once for all, in their order."""
    if most is None or count <= most:
        return np.arange(count, dtype=np.int64)
    return np.sort(np.random.default_rng(0).choice(count, most, replace=False))


def _varied(network: nn.Module, lessons: Lessons, most: int | None) -> Learnt:
    """Windows of all sources as training draws them, the rarer kinds of event more often."""
    rng = np.random.default_rng(0)
    train = np.array([i for i, p in enumerate(lessons.events) if p.split == "train"])
    kinds = np.array([lessons.events[i].kind for i in train])
    chance = np.bincount(kinds, minlength=4).astype(float)[kinds] ** -0.5
    count = min(_VARIED, _VARIED_TIMES * len(train))
    chosen = rng.choice(train, count, p=chance / chance.sum())
    rows = drawn(count, most)
    labels = np.zeros((len(rows), 4), np.float32)

    def windows() -> Iterator[Floats]:
        for at, row in enumerate(rows):
            window, target = lessons.load(int(chosen[row]), np.random.default_rng((0, int(row))))
            labels[at] = target[:4]
            yield window

    found = features(network, windows())
    return Learnt(
        features=found,
        kinds=labels.argmax(axis=1),
        groups=("",) * len(rows),
        weight=2.0,
        power=1.0,
        labels=labels,
    )


def _of_places(
    network: nn.Module, lessons: Lessons, places: Sequence[Place], *, weight: float, power: float
) -> Learnt:
    return Learnt(
        features=features(network, (lessons.plain(p) for p in places)),
        kinds=np.array([p.kind for p in places]),
        groups=tuple(lessons.sounds[p.recording].take.patient for p in places),
        weight=weight,
        power=power,
    )


def of_recordings(network: nn.Module, lessons: Lessons, chosen: Sequence[int]) -> Learnt:
    """Whole recordings with one label each: the mean over their windows."""
    return Learnt(
        features=np.stack(
            [
                features(network, (whole(lessons, i, s) for s in starts(lessons, i))).mean(0)
                for i in chosen
            ]
        ),
        kinds=np.array([lessons.sounds[i].take.kind for i in chosen]),
        groups=tuple(lessons.sounds[i].take.patient for i in chosen),
        weight=1.0,
        power=0.3,
    )


def recordings(network: Any, model: Model, *, lessons: Lessons) -> Recordings:
    """Whole validation recordings as the demo answers them, as a whole and by the moment."""
    last = network.get_classifier()
    weight, bias = last.weight.detach().cpu().numpy(), last.bias.detach().cpu().numpy()
    rows, kinds, parts, sounding = [], [], [], []
    for i in lessons.validated():
        firsts = starts(lessons, i)
        found = features(network, (whole(lessons, i, s) for s in firsts))
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
        sounding.append(_lasting(lessons.sounding(i), edges) / lessons.per_second)
    return Recordings(
        probabilities=np.stack(rows).astype(np.float64),
        targets=np.array(kinds),
        moments=np.concatenate(parts).astype(np.float64),
        sounding_s=np.concatenate(sounding),
    )


def _lasting(kinds: NDArray[np.int64], edges: NDArray[np.int64]) -> NDArray[np.float64]:
    """Frames of each kind between edges, (moments, 4)."""
    each = np.zeros((len(kinds) + 1, BOTH + 1))
    each[1:] = np.eye(BOTH + 1)[kinds].cumsum(axis=0)
    lasting: NDArray[np.float64] = np.diff(each[edges], axis=0)
    return lasting


def starts(lessons: Lessons, recording: int) -> tuple[int, ...]:
    """First frames of a recording's windows, as the demo lays them."""
    hop = round(lessons.spec.window_hop_s * lessons.per_second)
    return spectrogram.window_starts(lessons.sounds[recording].frames, lessons.frames, hop)


def whole(lessons: Lessons, recording: int, first: int) -> Floats:
    """A window of a recording, nothing blotted out: (mel, frames)."""
    change = Change(stage=stage_of(lessons.spec))
    return cut(lessons.sounds[recording], first, lessons.frames, change, lessons.spec)


def features(network: Any, windows: Iterator[Floats]) -> Floats:
    """What the classifier sees of each window, (windows, features)."""
    return np.concatenate([network.global_pool(maps).numpy() for maps in _maps(network, windows)])


def _maps(network: Any, windows: Iterator[Floats]) -> Iterator[Tensor]:
    """The maps of the last stage, a batch at a time: (batch, channels, rows, columns)."""
    device = next(network.parameters()).device
    network.eval()
    for batch in _batched(windows):
        with torch.inference_mode():
            inputs = torch.from_numpy(np.stack(batch))[:, None].to(device)
            yield narrow(network.forward_features, inputs).cpu()


def put(network: Any, weight: Floats, bias: Floats) -> None:
    """Make this the network's last layer."""
    last = network.get_classifier()
    with torch.no_grad():
        last.weight.copy_(torch.from_numpy(weight))
        last.bias.copy_(torch.from_numpy(bias))


def _batched(windows: Iterator[Floats]) -> Iterator[list[Floats]]:
    batch: list[Floats] = []
    for window in windows:
        batch.append(window)
        if len(batch) == _BATCH:
            yield batch
            batch = []
    if batch:
        yield batch
