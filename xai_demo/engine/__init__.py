"""Networks in memory: cut in two, on torch or ONNX Runtime, a bounded number of them.

Where nobody asks for a backend, torch answers at once; a background thread exports the network, one
at a time, and puts ONNX Runtime in torch's place when it is ready.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import OrderedDict, deque
from collections.abc import Callable, Hashable
from concurrent.futures import Future
from contextlib import nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from xai_demo import networks
from xai_demo.engine.backends import (
    BACKENDS,
    Network,
    Placement,
    Runner,
    choose_placement,
    limit_malloc_arenas,
    load_cut_network,
    memory_trimmer,
    missing_packages,
    move_to_device,
    onnx_runner,
    torch_runner,
)
from xai_demo.engine.onnx_export import (
    ONNX_FILE_NAME,
    TOLERANCE,
    ExportCache,
    ExportKey,
    export_features,
    export_in_subprocess,
    input_size,
    missing_export_packages,
    write_export,
)
from xai_demo.errors import UnknownNameError, UnsuitableError, XaiDemoError
from xai_demo.hub.checkpoint import read_tensors
from xai_demo.records import Model, ModelInUse, Progress
from xai_demo.scheduler import TaskQueue

if TYPE_CHECKING:
    from torch import nn

    from xai_demo.hub import Hub, WeightsFile

__all__ = [
    "BACKENDS",
    "MAX_CONCURRENT",
    "TOLERANCE",
    "Engine",
    "Network",
    "export_features",
    "onnx_runner",
    "read_tensors",
    "torch_runner",
]

# Answers worked on at once. A network has every core already: a third would only hold more memory,
# while with two, one reads its file or draws while the other has the network.
MAX_CONCURRENT = 2
# Who asks once and leaves, as the command line does, is not made to share the machine.
EXPORT_DELAY_S = 5.0


@dataclass(frozen=True, slots=True, kw_only=True)
class _LoadedNetwork:
    """What is held in memory; the same for every model record that has these weights."""

    features: Runner
    head: nn.Module
    backend: str
    whole: nn.Module | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class _NetworkSpec:
    """What is asked for: a model's weights, cut after a layer."""

    model: Model
    located: WeightsFile
    layer: str

    @property
    def wanted(self) -> ExportKey:
        rows, columns = input_size(self.model)
        return ExportKey(
            weights_sha256=self.located.sha256,
            architecture=self.model.architecture,
            layer=self.layer,
            rows=rows,
            columns=columns,
        )

    def key(self, backend: str) -> Hashable:
        return self.wanted, len(self.model.labels), backend


class Engine:
    """Loads networks when they are first asked for, and lets the least recently used go.

    Who works with them takes a turn of `turns`, so that memory does not grow with the visitors.
    """

    def __init__(
        self,
        hub: Hub,
        *,
        exporter: Callable[[Model, Path, str], bytes] = export_in_subprocess,
        patience_s: float = EXPORT_DELAY_S,
    ) -> None:
        limit_malloc_arenas()
        self.queue = TaskQueue(MAX_CONCURRENT, after_each=memory_trimmer())
        self._hub = hub
        self._decided: Placement | None = None  # once torch is there
        self._exporter, self._patience_s = exporter, patience_s
        self._exports = ExportCache(hub.settings.cache_dir / "onnx")
        self._loaded: OrderedDict[Hashable, Future[_LoadedNetwork]] = OrderedDict()
        self._lock = threading.Lock()  # held for moments only: never while something is loaded
        self._exporting = threading.Lock()  # one export at a time
        self._to_export: deque[_NetworkSpec] = deque()
        self._queued: set[Hashable] = set()  # to be exported, or not to be tried again
        self._worker: threading.Thread | None = None

    def network(
        self,
        name: str,
        *,
        backend: str = "auto",
        weights: str | None = None,
        layer: str | None = None,
        progress: Progress | None = None,
    ) -> Network:
        """The network of a model, ready to answer. Raises UnknownNameError and WeightsError.

        `layer` is one that its architecture can be cut after; None: the usual one. `backend="onnx"`
        exports first if need be, and raises UnsuitableError where that cannot be done.
        """
        if backend not in BACKENDS:
            raise UnknownNameError("backend", backend, BACKENDS)
        part = self._part(name, weights, layer, progress)
        loaded = self._automatic(part) if backend == "auto" else self._shared(part, backend)
        in_use = ModelInUse(
            name=part.model.name,
            architecture=part.model.architecture,
            source=part.located.source,
            repo_id=part.located.repo_id,
            revision=part.located.revision,
            sha256=part.located.sha256,
            backend=loaded.backend,
            device=loaded.features.device,
            precision=self._place.precision if loaded.backend == "torch" else "float32",
        )
        return Network(
            model=part.model,
            features=loaded.features,
            head=loaded.head,
            layer=part.layer,
            in_use=in_use,
            whole=loaded.whole,
        )

    def export(self, name: str, out: Path | None = None, *, layer: str | None = None) -> Path:
        """Write the features as `model.onnx` beside the weights or into `out`, checked."""
        part = self._part(name, None, layer, None)
        path = (out or part.located.path.parent) / ONNX_FILE_NAME
        data = self._exported(part)
        try:
            return write_export(path, part.wanted, data)
        except OSError as error:
            raise UnsuitableError(
                f"{path} cannot be written ({error.strerror}), wanted: a directory that can."
            ) from error

    def _part(
        self, name: str, weights: str | None, layer: str | None, progress: Progress | None
    ) -> _NetworkSpec:
        model = self._hub.model(name)
        if weights is not None:
            with self.queue.step_aside():  # they may have to be fetched
                model, located = self._hub.fetch_custom_weights(
                    weights, like=model, progress=progress
                )
            chosen = networks.explained_layer(model, layer)
        else:
            chosen = networks.explained_layer(model, layer)
            with nullcontext() if self._hub.is_available(name) else self.queue.step_aside():
                located = self._hub.fetch_weights(name, progress=progress)
        return _NetworkSpec(model=model, located=located, layer=chosen)

    @property
    def _place(self) -> Placement:
        if self._decided is None:
            self._decided = choose_placement(self._hub.settings)
        return self._decided

    def _automatic(self, part: _NetworkSpec) -> _LoadedNetwork:
        """ONNX Runtime where it is ready, else torch, and ONNX Runtime for the next one."""
        if self._place.is_torch_only:
            return self._shared(part, "torch")
        with self._lock:
            ready = next((b for b in ("onnx", "torch") if part.key(b) in self._loaded), None)
        if ready is None and not missing_packages("onnxruntime") and self._found(part):
            ready = "onnx"
        if ready == "onnx":
            try:
                return self._shared(part, "onnx")
            except UnsuitableError:  # a file of another ONNX Runtime; torch always runs
                return self._shared(part, "torch")
        loaded = self._shared(part, "torch")
        self._export_later(part)
        return loaded

    def _shared(self, part: _NetworkSpec, backend: str) -> _LoadedNetwork:
        """The loaded network; who asks while it is being loaded waits for it, and nobody else."""
        key = part.key(backend)
        with self._lock:
            future = self._loaded.get(key)
            mine = future is None
            if future is None:
                future = self._loaded[key] = Future()
            self._loaded.move_to_end(key)
            while len(self._loaded) > self._hub.settings.max_models:
                self._loaded.popitem(last=False)
        if mine:
            try:
                future.set_result(self._load(part, backend))
            except BaseException as error:
                with self._lock:  # the next one tries again
                    if self._loaded.get(key) is future:
                        del self._loaded[key]
                future.set_exception(error)
        return future.result()

    def _load(self, part: _NetworkSpec, backend: str) -> _LoadedNetwork:
        from torch import nn

        if backend == "onnx":
            source = self._found(part) or self._exported(part, kept=True)
            features = _onnx_runner_of(part, source, self._place.device)
            head = load_cut_network(part.model, part.located.path, part.layer).head
            return _LoadedNetwork(features=features, head=head.to(features.device), backend=backend)
        cut = move_to_device(
            load_cut_network(part.model, part.located.path, part.layer), self._place.device
        )
        return _LoadedNetwork(
            features=torch_runner(cut.features, self._place.precision),
            head=cut.head,
            backend=backend,
            whole=nn.Sequential(cut.features, cut.head),
        )

    def _found(self, part: _NetworkSpec) -> Path | None:
        return self._exports.found(part.wanted, beside=part.located.path.parent)

    def _exported(self, part: _NetworkSpec, *, kept: bool = False) -> bytes:
        if absences := missing_export_packages():
            raise UnsuitableError(
                f"{part.model.name} cannot be exported to ONNX without {', '.join(absences)}, "
                "wanted: the packages of requirements.txt, or --backend torch."
            )
        with self._exporting:
            found = self._found(part) if kept else None
            if found:  # somebody else's export was the one waited for
                return found.read_bytes()
            data = self._exporter(part.model, part.located.path, part.layer)
            if kept:
                self._exports.keep(part.wanted, data)
        return data

    def _export_later(self, part: _NetworkSpec) -> None:
        key = part.key("onnx")
        if (
            key in self._queued
            or not self._hub.settings.background_export
            or missing_export_packages()
        ):
            return
        with self._lock:
            if key in self._queued:
                return
            self._queued.add(key)
            self._to_export.append(part)
            if self._worker is None:
                self._worker = threading.Thread(target=self._work, daemon=True, name="export")
                self._worker.start()

    def _work(self) -> None:
        """Export what is queued, then end."""
        log = logging.getLogger(__name__)
        while True:
            time.sleep(self._patience_s)
            with self._lock:
                if not self._to_export:
                    self._worker = None
                    return
                part = self._to_export.popleft()
            try:
                self._swap(part, self._exported(part, kept=True))
            except Exception as error:  # torch goes on answering; it is not tried again
                level = logging.INFO if isinstance(error, XaiDemoError) else logging.ERROR
                log.log(level, "%s stays on torch: %s", part.model.name, error)
            else:
                with self._lock:
                    self._queued.discard(part.key("onnx"))

    def _swap(self, part: _NetworkSpec, data: bytes) -> None:
        """Put ONNX Runtime in the place of torch, if torch's network is still in memory."""
        key = part.key("torch")
        with self._lock:
            future = self._loaded.get(key)
        if future is None or not future.done() or future.exception():
            return
        loaded, features = future.result(), _onnx_runner_of(part, data, self._place.device)
        if features.device != loaded.features.device:
            return  # it would be the slower of the two
        swapped: Future[_LoadedNetwork] = Future()
        swapped.set_result(replace(loaded, features=features, backend="onnx", whole=None))
        with self._lock:
            if self._loaded.get(key) is future:
                del self._loaded[key]
                self._loaded[part.key("onnx")] = swapped


def _onnx_runner_of(part: _NetworkSpec, source: Path | bytes, device: str) -> Runner:
    try:
        return onnx_runner(source, device)
    except Exception as error:  # ONNX Runtime raises its own
        raise UnsuitableError(
            f"ONNX Runtime cannot run the exported {part.model.name} ({type(error).__name__}), "
            "wanted: a file of this version, or --backend torch."
        ) from error
