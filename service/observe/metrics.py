"""Prometheus metrics, right across gunicorn's workers: each writes files that any of them can add up."""

import collections
import contextlib
import functools
import logging
import os
import sys
import threading
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest, values
from prometheus_client.exposition import CONTENT_TYPE_LATEST
from prometheus_client.mmap_dict import MmapedDict
from prometheus_client.multiprocess import MultiProcessCollector, mark_process_dead
from prometheus_client.registry import Collector

from artifact import Metadata
from service.inference.engine import Outputs
from service.inference.predictions import interpret

log = logging.getLogger(__name__)

MULTIPROCESS_FOLDER = "PROMETHEUS_MULTIPROC_DIR"
CONTENT_TYPE = CONTENT_TYPE_LATEST

_FIRST_BYTES = 64 * 1024  # of a file of values
_BESIDE_A_KEY = 32  # bytes of a value in such a file, and the most that they are padded by

_SECONDS = (0.001, 0.002, 0.003, 0.005, 0.0075, 0.01, 0.02, 0.03, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
_IMAGES = (1, 2, 4, 8, 16, 32, 64, 128)


class Metrics:
    """All metrics of one process, under one registry."""

    def __init__(self, registry: CollectorRegistry, whole: Collector | None = None) -> None:
        """Make the metrics and register them; ``whole`` tells what is the same whichever worker is asked."""
        self.write: Callable[[], None] = _write_later() if MULTIPROCESS_FOLDER in os.environ else lambda: None
        """Writes what was counted where other workers find it; to be called now and then, and before one is asked."""
        self.registry = registry
        self._whole = CollectorRegistry()
        if whole is not None:
            self._whole.register(whole)
        route = ["route", "method", "status"]
        self.requests = Counter("darkroom_requests", "Requests by route, method and status.", route, registry=registry)
        self.request_seconds = self._seconds("request", "From the request's headers to the answer.", route)
        version = ["version"]
        self.inference_seconds = self._seconds(
            "inference", "From pictures to probabilities, for one request.", [*version, "outcome"]
        )
        self.decode_seconds = self._seconds("decode", "Decoding and scaling one picture.", version)
        self.queue_seconds = self._seconds("queue", "Waiting for the engine, for each part of a request.", version)
        self.engine_seconds = self._seconds("engine", "The engine's time for one batch.", version)
        self.batch_size = Histogram(
            "darkroom_batch_size", "Images in one batch of the engine.", version, buckets=_IMAGES, registry=registry
        )
        self.predictions = Counter(
            "darkroom_predictions",
            "Classified images by their most probable label.",
            [*version, "label"],
            registry=registry,
        )
        self.unfamiliar = Counter(
            "darkroom_unfamiliar",
            "Classified images that look like nothing the model was trained on.",
            version,
            registry=registry,
        )
        self.last_inference = self._gauge(
            "last_inference_timestamp_seconds", "When a request was last answered with probabilities.", "max", version
        )
        self.in_flight = self._gauge("requests_in_flight", "Requests that are being handled.", "livesum")
        self.queue_images = self._gauge("queue_images", "Images that wait for the engine.", "livesum")
        self.refused_versions = self._gauge("refused_versions", "Model versions that are kept out.", "livemax")
        self.model_workers = self._gauge(
            "model_workers", "Workers that answer with this version.", "livesum", ["name", "version"]
        )
        self.model_version = self._gauge("model_version", "The version that answers.", "livemax", ["name"])
        self.model_created = self._gauge(
            "model_created_timestamp_seconds", "When the version that answers was trained.", "livemax", ["name"]
        )
        self.model_looked = self._gauge(
            "model_looked_timestamp_seconds", "When every worker had looked at the model folder.", "livemin"
        )
        self.engine_failures = Counter(
            "darkroom_engine_failures", "Batches that the engine failed on.", version, registry=registry
        )
        self.engine_reloads = Counter(
            "darkroom_engine_reloads", "Engines that were loaded anew since they failed.", version, registry=registry
        )
        self.worker_starts = Counter("darkroom_worker_starts", "Workers that were started.", registry=registry)
        self.loop_busy_seconds = Counter(
            "darkroom_loop_busy_seconds", "Time that event loops did not wait for anything.", registry=registry
        )

    def _seconds(self, what: str, description: str, labels: list[str] | None = None) -> Histogram:
        return Histogram(
            f"darkroom_{what}_seconds", description, labels or [], buckets=_SECONDS, registry=self.registry
        )

    def _gauge(self, name: str, description: str, mode: str, labels: list[str] | None = None) -> Gauge:
        return Gauge(
            f"darkroom_{name}",
            description,
            labels or [],
            multiprocess_mode=mode,  # type: ignore[arg-type]  # a Literal in the library
            registry=self.registry,
        )

    def of(self, version: int) -> "VersionMetrics":
        """Return the metrics of one model version."""
        return VersionMetrics(self, version)

    def of_engine(self, version: int, metadata: Metadata) -> "EngineMetrics":
        """Return the metrics of the engine that runs the version with ``metadata``."""
        return EngineMetrics(self, version, metadata)

    # What the registry tells.

    def serving(self, name: str, version: int, created: str, *, active: bool) -> None:
        """Note that this process serves the version, or no longer does; ``created`` is in ISO 8601."""
        self.model_workers.labels(name, str(version)).set(int(active))
        if active:
            self.model_version.labels(name).set(version)
            with contextlib.suppress(ValueError):  # another trainer may have written something else
                time = datetime.fromisoformat(created)
                self.model_created.labels(name).set((time if time.tzinfo else time.replace(tzinfo=UTC)).timestamp())

    def refused(self, versions: int) -> None:
        """Note how many versions are kept out."""
        self.refused_versions.set(versions)

    def looked(self) -> None:
        """Note that the folder was looked at just now, or will be."""
        self.model_looked.set_to_current_time()

    def reloaded(self, version: int) -> None:
        """Note that the version is loaded anew because its engine fails."""
        self.engine_reloads.labels(str(version)).inc()

    def render(self) -> bytes:
        """Return the metrics of all workers in Prometheus' text format; of this process alone outside gunicorn."""
        return generate_latest(self._everyone()) + generate_latest(self._whole)

    def totals(self, version: int) -> "Totals":
        """Return what all workers together did with ``version`` so far."""
        sums: dict[str, float] = {}
        for family in self._everyone().collect():
            for sample in family.samples:
                if sample.labels.get("version") == str(version) and not sample.name.endswith("_bucket"):
                    name = sample.name.removeprefix("darkroom_")
                    if "outcome" in sample.labels:
                        name = f"{sample.labels['outcome']}_{name}"
                    sums[name] = sums.get(name, 0.0) + sample.value

        def duration(name: str) -> Duration:
            return Duration(int(sums.get(f"{name}_seconds_count", 0)), sums.get(f"{name}_seconds_sum", 0.0))

        return Totals(
            last_inference=sums.get("last_inference_timestamp_seconds", 0.0),
            images=int(sums.get("batch_size_sum", 0)),
            success=duration("success_inference"),
            failure=duration("failure_inference"),
            decode=duration("decode"),
            queue=duration("queue"),
            engine=duration("engine"),
        )

    def _everyone(self) -> CollectorRegistry:
        if MULTIPROCESS_FOLDER not in os.environ:
            return self.registry
        self.write()
        everyone = CollectorRegistry()
        MultiProcessCollector(everyone)  # type: ignore[no-untyped-call]
        return everyone


class VersionMetrics:
    """The metrics of the requests for one model version; the predictor tells it what becomes of them."""

    def __init__(self, metrics: Metrics, version: int) -> None:
        """Look the version's metrics up once; doing so for each request would cost as much as counting."""
        label = str(version)
        self._decode_seconds = metrics.decode_seconds.labels(label)
        self._success = metrics.inference_seconds.labels(label, "success")
        self._failure = metrics.inference_seconds.labels(label, "failure")
        self._last = metrics.last_inference.labels(label)

    def decoding(self) -> contextlib.AbstractContextManager[object]:
        """Note how long the block takes, which decodes one picture."""
        return self._decode_seconds.time()

    def answered(self, seconds: float) -> None:
        """Note that a request got its probabilities."""
        self._success.observe(seconds)
        self._last.set_to_current_time()

    def failed(self, seconds: float) -> None:
        """Note that a request got an error instead."""
        self._failure.observe(seconds)


class EngineMetrics:
    """The metrics of the engine that runs one model version; its batcher tells it what it does."""

    def __init__(self, metrics: Metrics, version: int, metadata: Metadata) -> None:
        """Look the version's metrics up once, those of the labels when one comes up."""
        label = str(version)
        self._metadata = metadata
        self._queue_images = metrics.queue_images
        self._queue_seconds = metrics.queue_seconds.labels(label)
        self._engine_seconds = metrics.engine_seconds.labels(label)
        self._batch_size = metrics.batch_size.labels(label)
        self._failures = metrics.engine_failures.labels(label)
        metrics.engine_reloads.labels(label)  # so that the first one is seen as an increase
        self._predictions = functools.lru_cache(maxsize=None)(
            lambda index: metrics.predictions.labels(label, metadata.labels[index])
        )
        self._unfamiliar = None if metadata.familiarity is None else metrics.unfamiliar.labels(label)

    def queued(self, change: int) -> None:
        """Count ``change`` images more (or fewer) in the queue."""
        self._queue_images.inc(change)

    def waited(self, seconds: float) -> None:
        """Note how long one job waited in the queue."""
        self._queue_seconds.observe(seconds)

    def ran(self, images: int, seconds: float) -> None:
        """Note that the engine ran a batch of ``images``."""
        self._engine_seconds.observe(seconds)
        self._batch_size.observe(images)

    def failed(self) -> None:
        """Note that the engine failed on a batch."""
        self._failures.inc()

    def classified(self, outputs: Outputs) -> None:
        """Count the most probable label of each of ``outputs``, float32 [N, columns], and what is not familiar."""
        predictions = interpret(outputs, self._metadata)
        for index, images in collections.Counter(predictions.probabilities.argmax(axis=1).tolist()).items():
            self._predictions(index).inc(images)
        if self._unfamiliar is not None and predictions.familiar is not None:
            self._unfamiliar.inc(predictions.familiar.count(False))


class Duration(NamedTuple):
    """How often something was done, and how long it took in all, in seconds."""

    times: int
    seconds: float


class Totals(NamedTuple):
    """What was done with one model version so far. ``last_inference`` is in seconds since the epoch, 0 for never."""

    last_inference: float
    images: int
    success: Duration
    failure: Duration
    decode: Duration
    queue: Duration
    engine: Duration


class _AllocatedFile(MmapedDict):
    """A file of values that workers share, whose space is taken before it is mapped.

    The library maps a file with holes, and who writes into one on a full file system is killed (SIGBUS).
    """

    def __init__(self, filename: str) -> None:
        """Open the file, which appears with its space; raises OSError where there is none."""
        draft = Path(f"{filename}.draft")
        try:
            with draft.open("wb") as file:
                os.posix_fallocate(file.fileno(), 0, _FIRST_BYTES)
            draft.rename(filename)
        finally:
            draft.unlink(missing_ok=True)
        super().__init__(filename)  # type: ignore[no-untyped-call]

    def _init_value(self, key: str) -> None:
        if self._used + len(key.encode()) + _BESIDE_A_KEY > self._capacity:
            os.posix_fallocate(self._f.fileno(), 0, 2 * self._capacity)
        super()._init_value(key)  # type: ignore[no-untyped-call]


class _SharedValues:
    """Values in a file as the library asks for them; what there is no space for is counted and not shared."""

    def __init__(self, filename: str) -> None:
        self._file: _AllocatedFile | None = None
        self._told = False
        try:
            self._file = _AllocatedFile(filename)
        except OSError as error:
            self._tell(error)

    def read_value(self, key: str) -> tuple[float, float]:
        try:
            return self._file.read_value(key) if self._file is not None else (0.0, 0.0)  # type: ignore[no-untyped-call]
        except OSError as error:
            self._tell(error)
            return 0.0, 0.0

    def write_value(self, key: str, value: float, timestamp: float) -> None:
        try:
            if self._file is not None:
                self._file.write_value(key, value, timestamp)  # type: ignore[no-untyped-call]
        except OSError as error:
            self._tell(error)

    def close(self) -> None:
        if self._file is not None:
            self._file.close()  # type: ignore[no-untyped-call]

    def _tell(self, error: OSError) -> None:
        if not self._told:
            self._told = True
            log.warning("there is no space for metrics, so /metrics lacks some of this worker's: %s", error)


def _write_later() -> Callable[[], None]:
    """Let metrics count in memory from now on; return what writes them to the files that workers share.

    prometheus-client writes at each count, and asks the system for the process, which together take a fifth of what a
    short request costs beside the engine.
    """
    process = os.getpid()
    values.MmapedDict = _SharedValues  # type: ignore[attr-defined,assignment]
    base: Any = values.MultiProcessValue(lambda: process)  # type: ignore[no-untyped-call]
    lock = threading.Lock()
    changed: dict[Any, None] = {}

    class Value(base):  # type: ignore[misc]  # a class that the library makes
        def inc(self, amount: float) -> None:
            with lock:
                self._value += amount
                changed[self] = None

        def set(self, value: float, timestamp: float | None = None) -> None:
            with lock:
                self._value, self._timestamp = value, timestamp or 0.0
                changed[self] = None

    def write() -> None:
        with lock:
            for value in changed:
                value._file.write_value(value._key, value._value, value._timestamp)
            changed.clear()

    values.ValueClass = Value
    return write


def worker_died(process: int) -> None:
    """Take the gauges of a worker that is gone out of the sums; its counters stay, or they would go down."""
    if MULTIPROCESS_FOLDER not in os.environ:
        return
    mark_process_dead(process)  # type: ignore[no-untyped-call]
    for path in Path(os.environ[MULTIPROCESS_FOLDER]).glob(f"*_{process}.db"):
        with path.open("r+b") as file:
            used = int.from_bytes(file.read(4), sys.byteorder)
            file.truncate(max(used, 8))  # others may need the rest
