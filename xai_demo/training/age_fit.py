"""Refits the guess whether a radiograph is an adult's or a child's: `refit age`.

Children are those of Kermany et al., adults those of NIH ChestX-ray14, the COVID-19 Radiography
Database and COVID-CXNet. So a fit can tell the hospitals apart and call that age. The one thing
that tells the two apart is children of an adults' hospital: where NIH's table of ages is given, its
patients of up to twelve years count as children, and weigh more than their number. Older minors are
in no fit, because their films look like adults'.
"""

from __future__ import annotations

import csv
import gzip
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from xai_demo.errors import TrainingError
from xai_demo.imaging import age, gate
from xai_demo.training.datasets import assign_parts, covid, kermany, nih, radiography, split_groups
from xai_demo.training.gate_eval import VerdictTally, read_pixels
from xai_demo.training.input_checks import GateFit
from xai_demo.training.refit import coefficient_differences, fit_notes

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from xai_demo.records import Progress
    from xai_demo.settings import Settings
    from xai_demo.training.datasets.radiographs import RadiographFile

CHILDREN, NIH_CHILDREN, NIH_TEENS = "children of Kermany", "NIH up to 12", "NIH 13 to 17"
NIH_ADULTS, NORMAL_ADULTS, COVID_ADULTS, CXNET = (
    "adults of NIH",
    "normal adults of the Radiography Database",
    "COVID-19 of the Radiography Database",
    "COVID-19 of COVID-CXNet",
)
# The inverse of the penalty, and how much more a child of NIH weighs.
_STRENGTH, _CHILD_WEIGHT = 0.003, 5.0
_OLDEST_CHILD, _ADULT = 12, 18


@dataclass(frozen=True, slots=True, kw_only=True)
class Film:
    """One radiograph: where it is, of which kind, and whether the fit may use it."""

    path: Path
    kind: str
    is_fitted: bool
    is_test: bool = False  # of a test patient of the children's network
    is_normal: bool = False  # without any finding
    patient: str = ""


def list_films(data: Path, ages: Path | None = None) -> list[Film]:
    """Every radiograph of the four collections that is in or below `data`.

    A fit takes the training patients of the networks for children and for normal adults, so that
    neither network's test patients are in it; of NIH's adults, whose test patients are not drawn by
    name, 30 %. Raises TrainingError where `ages` is no table of ages.
    """
    years = _read_ages(ages) if ages else {}
    films: list[Film] = []

    def add(
        files: Sequence[RadiographFile],
        kind: str,
        fitted: Sequence[bool],
        tested: Sequence[bool] | None = None,
    ) -> None:
        films.extend(
            Film(
                path=file.path,
                kind=kind,
                is_fitted=fits,
                is_test=test,
                is_normal=file.labels in (("No Finding",), ("Normal",)),
                patient=file.patient,
            )
            for file, fits, test in zip(files, fitted, tested or [False] * len(files), strict=True)
        )

    children = kermany.list_radiographs(data)
    splits = split_groups([file.patient for file in children], seed="kermany")
    tested = [split == "test" for split in splits]
    add(children, CHILDREN, [split == "train" for split in splits], tested)
    listed = radiography.list_radiographs(data)
    for label, kind in ((radiography.NORMAL, NORMAL_ADULTS), (radiography.COVID, COVID_ADULTS)):
        chosen = [file for file in listed if file.labels == (label,)]
        splits = radiography.splits_of([file.patient for file in chosen])
        add(chosen, kind, [split == "train" for split in splits])
    patients = nih.list_radiographs(data)[0] if nih.find_table(data) else []
    part = assign_parts([file.patient for file in patients], None, (0.3, 0.4, 0.3), seed="age")
    for file, number in zip(patients, part.tolist(), strict=True):
        old = years.get(file.path.stem, _ADULT)
        kind = NIH_CHILDREN if old <= _OLDEST_CHILD else NIH_ADULTS if old >= _ADULT else NIH_TEENS
        # They are few, so the fit takes seven tenths of them.
        add([file], kind, [number < 2 if kind == NIH_CHILDREN else not number and old >= _ADULT])
    known = {film.path for film in films}
    others = sorted(p for p in data.rglob(f"{covid.FOLDER}/*.*") if p not in known)
    part = assign_parts([path.name for path in others], None, (0.7, 0.3), seed="age")
    films += [
        Film(path=path, kind=CXNET, is_fitted=not number)
        for path, number in zip(others, part.tolist(), strict=True)
    ]
    return films


def refit_age(
    data: Path,
    *,
    settings: Settings,
    ages: Path | None = None,
    most: int | None = None,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Fit the guess to radiographs, and compare the fit with the literals of `imaging.age`.

    `ages` is NIH's table with the column "Patient Age". Raises TrainingError without children or
    without adults.
    """
    report = progress or (lambda done, doing: None)
    unread: list[str] = []
    films, rows = [], []
    listed = list_films(data, ages)
    # Spread over all kinds, because the list goes by collection.
    kept = np.sort(np.random.default_rng(0).permutation(len(listed))[:most]) if most else None
    for number, film in enumerate(listed if kept is None else [listed[i] for i in kept]):
        image = read_pixels(film.path, settings, unread)
        if image is not None:
            films.append(film)
            rows.append(age.statistics(image[0]))
        if number % 100 == 0:
            report(0.9 * number / len(listed), f"{number} films")
    is_child = np.array([film.kind in (CHILDREN, NIH_CHILDREN) for film in films])
    fitted_on = np.array([film.is_fitted for film in films], bool)
    if len({*is_child[fitted_on].tolist()}) < 2:
        raise TrainingError(
            f"{data} has films of {', '.join(sorted({film.kind for film in films})) or 'nobody'}; "
            "a fit needs some of children and some of adults."
        )
    statistics = np.stack(rows)
    weights = np.array([_CHILD_WEIGHT if f.kind == NIH_CHILDREN else 1.0 for f in films])
    fitted = fit_age(statistics[fitted_on], ~is_child[fitted_on], weights[fitted_on])
    shipped = GateFit(intercept=age.INTERCEPT, weights=age.WEIGHTS)
    unseen = [film for film in films if not film.is_fitted]
    return {
        "check": "age",
        "n": {kind: sum(f.kind == kind for f in films) for kind in sorted({f.kind for f in films})},
        "intercept": fitted.intercept,
        "weights": list(fitted.weights),
        "difference": coefficient_differences(
            np.array([fitted.intercept, *fitted.weights]),
            np.array([shipped.intercept, *shipped.weights]),
            fitted.log_odds(statistics),
            shipped.log_odds(statistics),
        ),
        "refitted": _rates(fitted.log_odds(statistics[~fitted_on]), unseen),
        "shipped": _rates(shipped.log_odds(statistics[~fitted_on]), unseen),
        "notes": [
            "The rates are of patients and blocks that the fit leaves out. Children and adults "
            "come from different hospitals, except for NIH's minors: the rates of those say how "
            "well age itself is guessed, the others how well the collections are told apart.",
            *fit_notes(unread)[1:],
        ],
    }


def fit_age(
    statistics: NDArray[np.float64], is_adult: NDArray[np.bool_], weights: NDArray[np.float64]
) -> GateFit:
    """Logistic regression on `age.statistics`: (films, features); adults weigh as children do."""
    from sklearn.linear_model import LogisticRegression

    share = weights.copy()
    for side in (is_adult, ~is_adult):
        share[side] *= len(share) / share[side].sum()
    # The penalty treats features alike, so they need one scale; the offset is for constant ones.
    mean, deviation = statistics.mean(axis=0), statistics.std(axis=0) + 1e-3
    model = LogisticRegression(C=_STRENGTH, max_iter=1000)
    model.fit((statistics - mean) / deviation, is_adult, sample_weight=share)
    slopes = model.coef_[0] / deviation
    return GateFit(
        intercept=float(f"{model.intercept_[0] - slopes @ mean:.5g}"),
        weights=tuple(float(f"{slope:.4g}") for slope in slopes),
    )


def _rates(log_odds: NDArray[np.float64], films: Sequence[Film]) -> dict[str, Any]:
    """How often each kind is read as what it is, and how often surely as what it is not."""
    tallies: dict[str, VerdictTally] = {}
    for odds, film in zip(log_odds.tolist(), films, strict=True):
        adult = float(gate.probability(odds))
        is_child = film.kind in (CHILDREN, NIH_CHILDREN, NIH_TEENS)
        right = 1 - adult if is_child else adult
        word = "children's" if is_child else "adults'"
        tallies.setdefault(f"{film.kind}: read as {word}", VerdictTally()).count(right > 0.5)
        doubt = f"{film.kind}: right, or said to be uncertain"
        tallies.setdefault(doubt, VerdictTally()).count(1 - right < age.SURE)
    return {name: tally.to_json() for name, tally in tallies.items()}


def _read_ages(path: Path) -> dict[str, int]:
    """The age in years of each film of NIH's table, by the stem of its file name."""
    opened = gzip.open if path.suffix == ".gz" else open
    try:
        with opened(path, "rt", encoding="utf-8") as file:
            rows = list(csv.DictReader(file))
        return {
            Path(row["Image Index"]).stem: int(row["Patient Age"].rstrip("YMD")) for row in rows
        }
    except (OSError, KeyError, ValueError) as error:
        raise TrainingError(
            f"{path} cannot be read as a table of ages ({type(error).__name__}); expected NIH's "
            "Data_Entry_2017_v2020.csv, with the columns Image Index and Patient Age."
        ) from error
