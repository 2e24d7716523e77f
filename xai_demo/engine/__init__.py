"""Networks in memory: cut in two, on torch or ONNX Runtime, a bounded number of them.

With the backend `auto`, torch predicts at once, while a background thread exports the network to
ONNX, one network at a time; ONNX Runtime takes over when the export is ready.
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
    ExportCache,
    ExportKey,
    export_in_subprocess,
    input_size,
    missing_export_packages,
    write_export,
)
from xai_demo.errors import UnknownNameError, UnsuitableError, XaiDemoError
from xai_demo.records import Model, ModelInUse, Progress
from xai_demo.scheduler import TaskQueue

if TYPE_CHECKING:
    from torch import nn

    from xai_demo.hub import Hub
    from xai_demo.hub.store import WeightsFile

# A network uses every core, so a third analysis would only hold more memory; with two, one can read
# its file or draw its figure while the other has the network.
MAX_CONCURRENT = 2
# A process that predicts once and ends, such as the command line, never starts an export.
EXPORT_DELAY_S = 5.0


@dataclass(frozen=True, slots=True, kw_only=True)
class _LoadedNetwork:
    """What is held in memory, shared by all model records with these weights."""

    features: Runner
    head: nn.Module
    backend: str
    whole: nn.Module | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class _NetworkSpec:
    """A model's weights, and the layer after which the network is cut."""

    model: Model
    weights: WeightsFile
    layer: str

    @property
    def export_key(self) -> ExportKey:
        rows, columns = input_size(self.model)
        return ExportKey(
            weights_sha256=self.weights.sha256,
            architecture=self.model.architecture,
            layer=self.layer,
            rows=rows,
            columns=columns,
        )

    def cache_key(self, backend: str) -> Hashable:
        return self.export_key, len(self.model.labels), backend


class Engine:
    """Loads networks when they are first needed and drops the least recently used ones.

    Whoever computes with them does so in `queue`, so that memory does not grow with the visitors.
    """

    def __init__(
        self,
        hub: Hub,
        *,
        exporter: Callable[[Model, Path, str], bytes] = export_in_subprocess,
        export_delay_s: float = EXPORT_DELAY_S,
    ) -> None:
        limit_malloc_arenas()
        self.queue = TaskQueue(MAX_CONCURRENT, after_each=memory_trimmer())
        self._hub = hub
        self._chosen_placement: Placement | None = None
        self._exporter, self._export_delay_s = exporter, export_delay_s
        self._exports = ExportCache(hub.settings.cache_dir / "onnx")
        self._loaded: OrderedDict[Hashable, Future[_LoadedNetwork]] = OrderedDict()
        # Held for short updates only, never while a network is loaded.
        self._lock = threading.Lock()
        self._export_lock = threading.Lock()
        self._to_export: deque[_NetworkSpec] = deque()
        # Waiting for export, or failed: not tried again.
        self._queued: set[Hashable] = set()
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
        """The network of a model, ready to predict, cut after `layer` or after the default layer.

        `weights` replaces the model's own. Raises UnknownNameError and WeightsError; the backend
        `onnx` exports first if necessary, and raises UnsuitableError if that is not possible.
        """
        if backend not in BACKENDS:
            raise UnknownNameError("backend", backend, BACKENDS)
        spec = self._resolve(name, weights, layer, progress)
        loaded = self._load_best(spec) if backend == "auto" else self._load_shared(spec, backend)
        in_use = ModelInUse(
            name=spec.model.name,
            architecture=spec.model.architecture,
            source=spec.weights.source,
            repo_id=spec.weights.repo_id,
            revision=spec.weights.revision,
            sha256=spec.weights.sha256,
            backend=loaded.backend,
            device=loaded.features.device,
            precision=self._placement.precision if loaded.backend == "torch" else "float32",
        )
        return Network(
            model=spec.model,
            features=loaded.features,
            head=loaded.head,
            layer=spec.layer,
            in_use=in_use,
            whole=loaded.whole,
        )

    def export(self, name: str, out: Path | None = None, *, layer: str | None = None) -> Path:
        """Export the features to `model.onnx` beside the weights or in `out`; returns its path.

        Raises UnsuitableError if the export differs from torch or cannot be written.
        """
        spec = self._resolve(name, None, layer, None)
        path = (out or spec.weights.path.parent) / ONNX_FILE_NAME
        data = self._export_bytes(spec)
        try:
            return write_export(path, spec.export_key, data)
        except OSError as error:
            raise UnsuitableError(
                f"{path} cannot be written ({error.strerror}); choose a writable directory."
            ) from error

    def _resolve(
        self, name: str, weights: str | None, layer: str | None, progress: Progress | None
    ) -> _NetworkSpec:
        model = self._hub.model(name)
        if weights is not None:
            # A download may take minutes: let others compute meanwhile.
            with self.queue.step_aside():
                model, file = self._hub.fetch_custom_weights(weights, like=model, progress=progress)
            chosen = networks.explained_layer(model, layer)
        else:
            # Before the download: a wrong name should fail at once.
            chosen = networks.explained_layer(model, layer)
            with nullcontext() if self._hub.is_available(name) else self.queue.step_aside():
                file = self._hub.fetch_weights(name, progress=progress)
        return _NetworkSpec(model=model, weights=file, layer=chosen)

    @property
    def _placement(self) -> Placement:
        # Not in __init__, because it imports torch.
        if self._chosen_placement is None:
            self._chosen_placement = choose_placement(self._hub.settings)
        return self._chosen_placement

    def _load_best(self, spec: _NetworkSpec) -> _LoadedNetwork:
        """On ONNX Runtime if an export is ready; otherwise on torch, and queue an export."""
        if self._placement.is_torch_only:
            return self._load_shared(spec, "torch")
        with self._lock:
            ready = next((b for b in ("onnx", "torch") if spec.cache_key(b) in self._loaded), None)
        if ready is None and not missing_packages("onnxruntime") and self._find_export(spec):
            ready = "onnx"
        if ready == "onnx":
            # The file may come from another version of ONNX Runtime; torch always works.
            try:
                return self._load_shared(spec, "onnx")
            except UnsuitableError:
                return self._load_shared(spec, "torch")
        loaded = self._load_shared(spec, "torch")
        self._queue_export(spec)
        return loaded

    def _load_shared(self, spec: _NetworkSpec, backend: str) -> _LoadedNetwork:
        """The loaded network; several threads that need the same one load it once."""
        key = spec.cache_key(backend)
        with self._lock:
            future = self._loaded.get(key)
            is_first = future is None
            if future is None:
                future = self._loaded[key] = Future()
            self._loaded.move_to_end(key)
            while len(self._loaded) > self._hub.settings.max_models:
                self._loaded.popitem(last=False)
        if is_first:
            try:
                future.set_result(self._load(spec, backend))
            except BaseException as error:
                # Forget the failure, so that the next request tries again.
                with self._lock:
                    if self._loaded.get(key) is future:
                        del self._loaded[key]
                future.set_exception(error)
        return future.result()

    def _load(self, spec: _NetworkSpec, backend: str) -> _LoadedNetwork:
        from torch import nn

        if backend == "onnx":
            source = self._find_export(spec) or self._export_bytes(spec, is_cached=True)
            features = _onnx_runner_of(spec, source, self._placement.device)
            head = load_cut_network(spec.model, spec.weights.path, spec.layer).head
            return _LoadedNetwork(features=features, head=head.to(features.device), backend=backend)
        cut = load_cut_network(spec.model, spec.weights.path, spec.layer)
        cut = move_to_device(cut, self._placement.device)
        return _LoadedNetwork(
            features=torch_runner(cut.features, self._placement.precision),
            head=cut.head,
            backend=backend,
            whole=nn.Sequential(cut.features, cut.head),
        )

    def _find_export(self, spec: _NetworkSpec) -> Path | None:
        return self._exports.find(spec.export_key, beside=spec.weights.path.parent)

    def _export_bytes(self, spec: _NetworkSpec, *, is_cached: bool = False) -> bytes:
        if packages := missing_export_packages():
            raise UnsuitableError(
                f"{spec.model.name} cannot be exported to ONNX without {', '.join(packages)}; "
                "install requirements.txt or use --backend torch."
            )
        with self._export_lock:
            # Another thread may have exported the same network while this one waited.
            cached = self._find_export(spec) if is_cached else None
            if cached:
                return cached.read_bytes()
            data = self._exporter(spec.model, spec.weights.path, spec.layer)
            if is_cached:
                self._exports.store(spec.export_key, data)
        return data

    def _queue_export(self, spec: _NetworkSpec) -> None:
        key = spec.cache_key("onnx")
        is_wanted = self._hub.settings.background_export and key not in self._queued
        # The exports of visitors' own models would fill the disk.
        if not is_wanted or self._hub.is_own(spec.weights) or missing_export_packages():
            return
        with self._lock:
            if key in self._queued:
                return
            self._queued.add(key)
            self._to_export.append(spec)
            if self._worker is None:
                self._worker = threading.Thread(
                    target=self._run_exports, daemon=True, name="export"
                )
                self._worker.start()

    def _run_exports(self) -> None:
        """Export what is queued, then end."""
        log = logging.getLogger(__name__)
        while True:
            time.sleep(self._export_delay_s)
            with self._lock:
                if not self._to_export:
                    self._worker = None
                    return
                spec = self._to_export.popleft()
            try:
                self._replace_torch(spec, self._export_bytes(spec, is_cached=True))
            except Exception as error:
                # torch keeps predicting. The key stays in `_queued`, so it is not tried again.
                level = logging.INFO if isinstance(error, XaiDemoError) else logging.ERROR
                log.log(level, "%s stays on torch: %s", spec.model.name, error)
            else:
                with self._lock:
                    self._queued.discard(spec.cache_key("onnx"))

    def _replace_torch(self, spec: _NetworkSpec, data: bytes) -> None:
        """Replace torch's network by ONNX Runtime's, if it is still in memory."""
        key = spec.cache_key("torch")
        with self._lock:
            future = self._loaded.get(key)
        if future is None or not future.done() or future.exception():
            return
        loaded, features = future.result(), _onnx_runner_of(spec, data, self._placement.device)
        # torch on a GPU is faster than ONNX Runtime on the CPU.
        if features.device != loaded.features.device:
            return
        replaced: Future[_LoadedNetwork] = Future()
        replaced.set_result(replace(loaded, features=features, backend="onnx", whole=None))
        with self._lock:
            if self._loaded.get(key) is future:
                del self._loaded[key]
                self._loaded[spec.cache_key("onnx")] = replaced


def _onnx_runner_of(spec: _NetworkSpec, source: Path | bytes, device: str) -> Runner:
    # ONNX Runtime raises exceptions of its own.
    try:
        return onnx_runner(source, device)
    except Exception as error:
        raise UnsuitableError(
            f"ONNX Runtime cannot run the exported {spec.model.name} ({type(error).__name__}); "
            "export it again with this version, or use --backend torch."
        ) from error
