"""Where a checkpoint's bytes come from: bundled, cache, Hub. What is handed out has been verified.

A checkpoint in somebody else's format is turned into a model directory of this project once, under
`models/<name>/` of the cache. The environment of the Hub's own client (HF_ENDPOINT, HF_TOKEN,
HF_HOME, HF_HUB_OFFLINE) works as everywhere; no message repeats a token.
"""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from xai_demo import networks
from xai_demo.catalog import MODELS, Entry
from xai_demo.errors import (
    CheckpointMismatchError,
    CheckpointUnavailableError,
    UnknownNameError,
    UnreadableFileError,
    UnsuitableError,
    WeightsError,
)
from xai_demo.hub import adapters
from xai_demo.hub.checkpoint import (
    CONFIG,
    SUFFIXES,
    WANTED,
    WEIGHTS,
    Digests,
    OnHub,
    parse_uri,
    read_config,
    read_model,
    recognised_architecture,
)
from xai_demo.hub.download import MissingFileError, Patience, Remote
from xai_demo.hub.store import Located, Store
from xai_demo.records import Checkpoint, Model, Progress, Task
from xai_demo.settings import Settings

__all__ = ["Hub", "Located"]


class Hub:
    """The catalogue's models on this machine: which there are, and their verified weights."""

    def __init__(
        self,
        settings: Settings,
        *,
        catalog: Mapping[str, Entry] = MODELS,
        endpoint: str | None = None,
        patience: Patience | None = None,
    ) -> None:
        self.settings = settings
        self._catalog = catalog
        self._digests = Digests()
        self._store = Store(
            settings.cache_dir,
            offline=settings.offline,
            remote=Remote(endpoint, patience or Patience()),
            digests=self._digests,
            preloaded=settings.hub_cache_dir,
        )

    @property
    def own_models(self) -> bool:
        """Whether this deployment lets its visitors name a model of their own."""
        return self.settings.own_models

    def names(self, task: Task | None = None) -> tuple[str, ...]:
        """The models of a task, or all, in the catalogue's order of preference."""
        return tuple(n for n, entry in self._catalog.items() if task in (None, entry.task))

    def entry(self, name: str) -> Entry:
        """The catalogue's line; raises UnknownNameError."""
        if name not in self._catalog:
            raise UnknownNameError("model", name, self._catalog)
        return self._catalog[name]

    def model(self, name: str) -> Model:
        """The model's record; raises UnknownNameError, or CheckpointUnavailableError."""
        entry = self.entry(name)
        directory = self.settings.weights_dir / name
        if entry.model is not None and not (directory / CONFIG).is_file():
            return entry.model
        if not directory.is_dir():
            raise CheckpointUnavailableError(f"{directory} is missing. {_mending(name)}")
        try:
            model = read_model(directory)
        except UnreadableFileError as error:
            raise CheckpointUnavailableError(f"{error} {_mending(name)}") from error
        if (model.name, model.task) != (name, entry.task):
            raise CheckpointUnavailableError(
                f"{directory / CONFIG} describes {model.name!r} for {model.task!r};"
                f" wanted: {name!r} for {entry.task!r}. {_mending(name)}"
            )
        return model

    def available(self, name: str) -> bool:
        """Whether the model can answer now, without the network.

        A cached checkpoint is only weighed here: 327 MB take a second to hash. `located` verifies.
        """
        try:
            if checkpoint := self._remote(name):
                made = self._made(name, self._store.pinned(checkpoint))
                if made is not None and (made / CONFIG).is_file():
                    return True
                return self._store.cached(checkpoint) is not None
            self._bundled(name)
        except WeightsError:
            return False
        return True

    def default_model(self, task: Task) -> str:
        """The task's first model that is available; CheckpointUnavailableError when none is."""
        names = self.names(task)
        for name in names:
            if self.available(name):
                return name
        raise CheckpointUnavailableError(
            f"No model for {task!r} is here: looked for {', '.join(names)} in"
            f" {self.settings.weights_dir} and {self.settings.cache_dir}. {_mending(names[-1])}"
        )

    def located(
        self, name: str, *, progress: Progress | None = None, closing_pins: bool = False
    ) -> Located:
        """The model's verified weights: bundled, else cached, else fetched from the Hub.

        Where the catalogue and an earlier fetch leave open which file that is, only who closes pins
        is given it.
        """
        entry, checkpoint = self.entry(name), self._remote(name)
        if checkpoint is None:
            return self._bundled(name)
        try:
            pinned = self._store.pinned(checkpoint)
            if found := self._turned_before(name, pinned):
                return found
            if not closing_pins:
                _want_pins(name, pinned)
            copies = 1 if entry.adapter is None else 2
            found = self._store.fetched(checkpoint, progress=progress, copies=copies)
            return found if entry.adapter is None else self._turned(name, found, progress)
        except CheckpointUnavailableError as error:
            raise CheckpointUnavailableError(
                f"The weights of {name!r} are not here: looked in"
                f" {self.settings.weights_dir / name}, in {self.settings.cache_dir} and on the Hub."
                f" {error} Where the Hub can be reached, `python -m xai_demo fetch {name}` brings"
                " them."
            ) from error

    def located_weights(
        self, uri: str, *, like: Model, progress: Progress | None = None
    ) -> tuple[Model, Located]:
        """Weights that a person named, and their model; a bare checkpoint makes one like `like`."""
        if named := parse_uri(uri):
            return self._named_on_hub(uri, named, like, progress)
        path = Path(uri).expanduser()
        if path.is_dir():
            model, path = _of_task(read_model(path), like, uri), path / WEIGHTS
        elif path.suffix in SUFFIXES:
            model = _uncalibrated(like)
        else:
            raise UnsuitableError(f"The weights are {uri!r}; {WANTED}.")
        if not path.is_file():
            raise UnreadableFileError(f"{path} is not there; {WANTED}.")
        sha256 = self._digests.verified(path, sha256=model.sha256)
        located = Located(path=path, source="local", repo_id=None, revision=None, sha256=sha256)
        return recognised_architecture(model, sha256), located

    def describe(self, name: str) -> dict[str, Any]:
        """One row of `models --json`: what is known of the model; `note` says what is amiss."""
        entry, remote = self.entry(name), self._remote(name)
        row: dict[str, Any] = {
            "name": name,
            "title": name,
            "task": entry.task,
            "architecture": None,
            "labels": [],
            "layers": [],
            "source": "hub" if remote else "bundled",
            "available": self.available(name),
            "licence": None,
            "metrics": {},
            "sha256": None,
            "stand_in_for": entry.stand_in_for,
            "pin": "open" if remote and entry.pin_is_open else "closed",
            "note": "",
        }
        try:
            model = self.model(name)
            row |= dataclasses.asdict(model) | {"labels": list(model.labels)}
            if kind := networks.ARCHITECTURES.get(model.architecture):
                row["layers"] = list(kind.cuts)  # the usual one first
            if remote:
                row |= dataclasses.asdict(self._store.pinned(remote))
                row["note"] = _standing(name, entry, available=row["available"])
            else:
                self._bundled(name)
        except WeightsError as error:
            row["note"] = str(error)
        return row

    def kinds(self) -> dict[str, str]:
        """What kind of network each model is, of those whose record is here."""
        known = {}
        for name in self.names():
            with contextlib.suppress(WeightsError):  # no weights are read, let alone verified
                known[name] = networks.ARCHITECTURES.get(self.model(name).architecture)
        return {name: each.kind for name, each in known.items() if each}

    def _remote(self, name: str) -> Checkpoint | None:
        """Where to fetch the model from; None when it is bundled."""
        bundled = (self.settings.weights_dir / name / CONFIG).is_file()
        return None if bundled else self.entry(name).checkpoint

    def _made(self, name: str, pinned: Checkpoint) -> Path | None:
        """The model directory made of a foreign checkpoint; None where there is none to make."""
        adapter = self.entry(name).adapter
        if adapter is None or pinned.sha256 is None:
            return None
        stem = f"{pinned.sha256}-{adapter}-{adapters.VERSION}"
        return self.settings.cache_dir / "models" / name / stem

    def _turned_before(self, name: str, pinned: Checkpoint) -> Located | None:
        """The weights of that directory, where it is whole; a broken one is made anew."""
        directory = self._made(name, pinned)
        if directory is None or not (directory / CONFIG).is_file():
            return None
        try:
            sha256 = read_model(directory).sha256
            self._digests.verified(directory / WEIGHTS, sha256=sha256)
        except (CheckpointMismatchError, UnreadableFileError, OSError):
            return None
        return Located(
            path=directory / WEIGHTS,
            source="cache",
            repo_id=pinned.repo_id,
            revision=pinned.revision,
            sha256=pinned.sha256 or "",
        )

    def _turned(self, name: str, found: Located, progress: Progress | None) -> Located:
        """The weights of the model directory that is made of a foreign checkpoint, here and now."""
        entry, tell = self.entry(name), progress or (lambda done, doing: None)
        if entry.model is None or entry.adapter is None or entry.checkpoint is None:
            return found
        pinned = dataclasses.replace(entry.checkpoint, sha256=found.sha256)
        made = self._made(name, pinned) or found.path.parent
        with self._store.alone(made.parent, tell):
            if self._turned_before(name, pinned) is None:
                tell(1.0, f"turning {entry.checkpoint.filename} into a model directory")
                try:
                    adapters.adapt_checkpoint(entry.model, entry.adapter, found.path, made)
                except OSError as error:
                    raise CheckpointUnavailableError(
                        f"{made} cannot be written ({error.strerror}); wanted: a directory that"
                        " can, set by XAI_DEMO_CACHE."
                    ) from error
        return dataclasses.replace(found, path=made / WEIGHTS)

    def _bundled(self, name: str) -> Located:
        model = self.model(name)
        path = self.settings.weights_dir / name / WEIGHTS
        if not path.is_file():
            raise CheckpointUnavailableError(f"{path} is missing. {_mending(name)}")
        sha256 = self._digests.verified(path, sha256=model.sha256)
        return Located(path=path, source="bundled", repo_id=None, revision=None, sha256=sha256)

    def _named_on_hub(
        self, uri: str, named: OnHub, like: Model, progress: Progress | None
    ) -> tuple[Model, Located]:
        branch = named.revision
        wanted = Checkpoint(
            repo_id=named.repo_id, filename=named.weights, revision=None, sha256=None
        )
        first = self._store.pinned(wanted, branch)
        wanted = self._store.latest(wanted, branch, progress)
        model = None if named.filename else self._model_on_hub(uri, wanted, branch, like)
        sha256 = model.sha256 if model else None
        if named.is_pickle:  # the first fetch is the pin
            sha256 = first.sha256
        wanted = dataclasses.replace(wanted, sha256=sha256)
        try:
            located = self._store.fetched(wanted, branch=branch, progress=progress)
        except CheckpointMismatchError as error:
            if not named.is_pickle:
                raise
            raise CheckpointMismatchError(
                f"{error} A pickle is held to what its first fetch brought; wanted: that, a"
                f" .safetensors file, or the new one by its commit, {wanted.revision}."
            ) from error
        return recognised_architecture(model or _uncalibrated(like), located.sha256), located

    def _model_on_hub(self, uri: str, wanted: Checkpoint, branch: str, like: Model) -> Model | None:
        """What the repository's `config.json` says; None when it has none or another tool's."""
        config = dataclasses.replace(wanted, filename=CONFIG, sha256=None)
        try:
            path = self._store.fetched(config, branch=branch).path
        except MissingFileError:
            return None
        except CheckpointUnavailableError:
            if self._store.cached(wanted, branch) is None:
                raise
            return None  # weights are fetched after it was known that they have none
        if not {"preprocessing", "labels"} <= set(read_config(path)):
            return None
        return _of_task(read_model(path.parent), like, uri)


def _of_task(model: Model, like: Model, uri: str) -> Model:
    if model.task != like.task:
        raise UnsuitableError(f"The weights {uri!r} are for {model.task!r}; wanted: {like.task!r}.")
    return model


def _uncalibrated(like: Model) -> Model:
    """The same network with other weights: metrics and calibration belong to the weights."""
    return dataclasses.replace(
        like,
        sha256=None,
        metrics={},
        temperature=1.0,
        operating_points={},
        uncertain_below=None,
        uncertain_margin=None,
    )


def _want_pins(name: str, pinned: Checkpoint) -> None:
    """That it is certain which file is wanted, whatever stands behind its name tomorrow."""
    if not pinned.is_known:
        raise CheckpointUnavailableError(
            f"Its pin is open: no sha256 of {pinned.filename} is known, and only a fetch takes one."
        )


def _mending(name: str) -> str:
    return (
        "Check the repository out again, or train it:"
        f" `python -m xai_demo train {name} --data DIR --out weights/{name}`."
    )


def _standing(name: str, entry: Entry, *, available: bool) -> str:
    notes = [] if available else [f"Not here yet: `python -m xai_demo fetch {name}` brings it."]
    if entry.checkpoint and entry.pin_is_open:
        pins = ("revision", "sha256")
        which = " and ".join(pin for pin in pins if getattr(entry.checkpoint, pin) is None)
        notes.append(f"Its pin is open ({which}): the first fetch closes it for this cache.")
    return " ".join(notes)
