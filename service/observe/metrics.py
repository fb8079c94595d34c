"""Prometheus metrics, right across gunicorn's workers: each writes files that any of them can add up."""

import collections
import contextlib
import functools
import logging
import math
import os
import sys
import threading
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest, values
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.exposition import CONTENT_TYPE_LATEST
from prometheus_client.mmap_dict import MmapedDict
from prometheus_client.multiprocess import MultiProcessCollector, mark_process_dead
from prometheus_client.registry import Collector

from artifact import Metadata
from service.inference.engine import Outputs
from service.inference.predictions import interpret
from service.observe.drift import baseline_of
from service.observe.window import Drift, Window, forget

log = logging.getLogger(__name__)

MULTIPROCESS_FOLDER = "PROMETHEUS_MULTIPROC_DIR"
CONTENT_TYPE = CONTENT_TYPE_LATEST

_FIRST_BYTES = 64 * 1024  # of a file of values
_BESIDE_A_KEY = 32  # bytes of a value in such a file, and the most that they are padded by

_SECONDS = (
    *(0.0001, 0.00025, 0.0005, 0.00075, 0.001, 0.002, 0.003, 0.005, 0.0075),
    *(0.01, 0.02, 0.03, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0),
)
_LABELS_AT_ONCE = (
    100  # of a version: /metrics takes 15 microseconds for each, and another 15 for what is expected of it
)
_IMAGES = (1, 2, 4, 8, 16, 32, 64, 128)
_PROBABILITIES = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.99, 1.0)


class Metrics:
    """All metrics of one process, under one registry."""

    def __init__(self, registry: CollectorRegistry, whole: Collector | None = None, window: int = 0) -> None:
        """Make the metrics and register them; ``whole`` tells what is the same whichever worker is asked.

        ``window`` is how many of the last answers are compared with those of the version's own test; 0 compares none.
        """
        self.write: Callable[[], None] = _write_later() if MULTIPROCESS_FOLDER in os.environ else lambda: None
        """Writes what was counted where other workers find it; to be called now and then, and before one is asked."""
        self.registry = registry
        self._whole = CollectorRegistry()
        if whole is not None:
            self._whole.register(whole)
        self._window = window
        self._drift = _DriftOfAll()
        self._whole.register(self._drift)
        route = ["route", "method", "status"]
        self.requests = Counter("darkroom_requests", "Requests by route, method and status.", route, registry=registry)
        self.request_seconds = self._seconds("request", "From the request's headers to the answer.", route)
        self.errors = Counter(
            "darkroom_errors",
            "Requests, and pictures of batches, that got an error, by its name.",
            ["reason"],
            registry=registry,
        )
        version = ["model", "version"]
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
            "Classified images by their most probable label, or by each label that is told of them.",
            [*version, "label"],
            registry=registry,
        )
        self.unfamiliar = Counter(
            "darkroom_unfamiliar",
            "Classified images that are unlike the pictures the model learned from.",
            version,
            registry=registry,
        )
        self.top_probability = Histogram(
            "darkroom_top_probability",
            "The probability of the most probable label, for each classified image.",
            version,
            buckets=_PROBABILITIES,
            registry=registry,
        )
        self.last_inference = self._gauge(
            "last_inference_timestamp_seconds", "When a request was last answered with probabilities.", "max", version
        )
        self.in_flight = self._gauge("requests_in_flight", "Requests that are being handled.", "livesum")
        self.queue_images = self._gauge("queue_images", "Images that wait for the engine.", "livesum")
        self.refused_versions = self._gauge(
            "refused_versions", "Model versions that are kept out.", "livemax", ["model"]
        )
        self.serving_faults = self._gauge(
            "serving_faults",
            "Versions that serving.json names and that cannot answer, and 1 more where it is not followed at all.",
            "livemax",
            ["model"],
        )
        self.ready_workers = self._gauge(
            "ready_workers", "Workers that can answer a request that names no model or version.", "livesum"
        )
        self.model_workers = self._gauge("model_workers", "Workers that have loaded this version.", "livesum", version)
        self.model_version = self._gauge(
            "model_version", "The version that answers where a request names none.", "livemax", ["model"]
        )
        self.model_created = self._gauge(
            "model_created_timestamp_seconds", "When the version that answers was trained.", "livemax", ["model"]
        )
        self.label_share_expected = self._gauge(
            "label_share_expected",
            "Share of the label in the answers to pictures that the version had not learned from.",
            "livemax",
            [*version, "label"],
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
        self.shadow_images = Counter(
            "darkroom_shadow_images",
            "Classified images that a second version was to answer as well, by what became of that.",
            [*version, "shadow", "outcome"],
            registry=registry,
        )
        self.shadow_disagreements = Counter(
            "darkroom_shadow_disagreements",
            "Images that a second version answered differently, by the labels of both.",
            [*version, "shadow", "label", "shadow_label"],
            registry=registry,
        )
        self.captures = Counter(
            "darkroom_captures",
            "Pictures that were to be kept for people to label, by what became of them.",
            ["outcome"],
            registry=registry,
        )
        self.source_failures = Counter(
            "darkroom_source_failures",
            "Attempts to sync MODEL_SOURCE that failed, by why.",
            ["reason"],
            registry=registry,
        )
        self.source_synced_at = self._gauge(
            "source_synced_timestamp_seconds", "When all that is needed of MODEL_SOURCE was here.", "max"
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

    def of(self, name: str, version: int) -> "VersionMetrics":
        """Return the metrics of one version of model ``name``."""
        return VersionMetrics(self, name, version)

    def of_engine(self, name: str, version: int, metadata: Metadata, path: Path, embedding: int = 0) -> "EngineMetrics":
        """Return the metrics of the engine that runs the version with ``metadata`` in folder ``path``.

        ``embedding`` is how many numbers an embedding of it has. From now on drift is told of this version, and all its
        series are there, at 0: Prometheus sees no increase in the first value of one, so that a ratio of two that began
        at different times would be wrong. Only those of labels come one by one, where a version has very many.
        """
        self.of(name, version)
        baseline = baseline_of(path, metadata, embedding) if self._window else None
        folder = Path(os.environ[MULTIPROCESS_FOLDER]) if MULTIPROCESS_FOLDER in os.environ else None
        window = Window(baseline, name, version, self._window, folder) if baseline else None
        self._drift.follow(name, version, window)
        return EngineMetrics(self, name, version, metadata, window)

    def drift(self, name: str, version: int) -> Drift | None:
        """Return how far the last answers of a version have moved; None where that is not told, or not yet."""
        return self._drift.of(name, version)

    # What the registries tell.

    def serving(self, name: str, version: int, *, active: bool) -> None:
        """Note that this process has loaded the version, or no longer has."""
        self.model_workers.labels(name, str(version)).set(int(active))
        if not active:
            self._drift.forget(name, version)

    def answering(self, name: str, version: int, created: str) -> None:
        """Note that the version answers requests that name none; ``created`` is in ISO 8601."""
        self.model_version.labels(name).set(version)
        with contextlib.suppress(ValueError):  # another trainer may have written something else
            time = datetime.fromisoformat(created)
            self.model_created.labels(name).set((time if time.tzinfo else time.replace(tzinfo=UTC)).timestamp())

    def refused(self, name: str, versions: int) -> None:
        """Note how many versions of the model are kept out."""
        self.refused_versions.labels(name).set(versions)

    def misnamed(self, name: str, faults: int) -> None:
        """Note how much of what serving.json says of the model does not hold."""
        self.serving_faults.labels(name).set(faults)

    def ready(self, *, ready: bool) -> None:
        """Note whether this process can answer a request that names no model or version."""
        self.ready_workers.set(int(ready))

    def gone(self, name: str) -> None:
        """Note that the model is not served any more."""
        self.refused_versions.labels(name).set(0)
        self.serving_faults.labels(name).set(0)

    def looked(self) -> None:
        """Note that the folder was looked at just now, or will be."""
        self.model_looked.set_to_current_time()

    def reloaded(self, name: str, version: int) -> None:
        """Note that the version is loaded anew because its engine fails."""
        self.engine_reloads.labels(name, str(version)).inc()

    # What a second version that answers the same pictures tells.

    def shadowed(self, name: str, version: int, shadow: int, outcome: str, images: int = 1) -> None:
        """Note what became of ``images`` that version ``shadow`` was to answer as well."""
        self.shadow_images.labels(name, str(version), str(shadow), outcome).inc(images)

    def disagreed(self, name: str, version: int, shadow: int, labels: tuple[str, str]) -> None:
        """Note that version ``shadow`` gave an image another label than ``version``: the second of ``labels``."""
        self.shadow_disagreements.labels(name, str(version), str(shadow), *labels).inc()

    def source_synced(self) -> None:
        """Note that all that is needed of the source is here."""
        self.source_synced_at.set_to_current_time()

    def source_failed(self, reason: str, times: int = 1) -> None:
        """Note that the source could not be had."""
        self.source_failures.labels(reason).inc(times)

    def captured(self, outcome: str, pictures: int = 1) -> None:
        """Note what became of ``pictures`` that were to be kept."""
        self.captures.labels(outcome).inc(pictures)

    def render(self) -> bytes:
        """Return the metrics of all workers in Prometheus' text format; of this process alone outside gunicorn."""
        return generate_latest(self._everyone()) + generate_latest(self._whole)

    def totals(self, model: str, version: int) -> "Totals":
        """Return what all workers together did with a version so far."""
        sums: dict[str, float] = {}
        for family in self._everyone().collect():
            for sample in family.samples:
                asked = (sample.labels.get("model"), sample.labels.get("version")) == (model, str(version))
                if asked and not sample.name.endswith("_bucket"):
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

    def compared(self, model: str) -> list["Compared"]:
        """Return what became of the pictures of ``model`` that a second version was to answer, in all workers."""
        found: dict[tuple[int, int], Compared] = {}
        for family in self._everyone().collect():
            if family.name != "darkroom_shadow_images":
                continue
            for sample in family.samples:
                labels = sample.labels
                if labels["model"] == model and sample.name.endswith("_total"):
                    pair = (int(labels["version"]), int(labels["shadow"]))
                    outcomes = found.setdefault(pair, Compared(*pair, {})).outcomes
                    outcomes[labels["outcome"]] = outcomes.get(labels["outcome"], 0) + int(sample.value)
        return list(found.values())

    def _everyone(self) -> CollectorRegistry:
        if MULTIPROCESS_FOLDER not in os.environ:
            return self.registry
        self.write()
        everyone = CollectorRegistry()
        MultiProcessCollector(everyone)  # type: ignore[no-untyped-call]
        return everyone


class VersionMetrics:
    """The metrics of the requests for one model version; the predictor tells it what becomes of them."""

    def __init__(self, metrics: Metrics, name: str, version: int) -> None:
        """Look the version's metrics up once; doing so for each request would cost as much as counting."""
        labels = (name, str(version))
        self._decode_seconds = metrics.decode_seconds.labels(*labels)
        self._success = metrics.inference_seconds.labels(*labels, "success")
        self._failure = metrics.inference_seconds.labels(*labels, "failure")
        self._last = metrics.last_inference.labels(*labels)

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

    def __init__(self, metrics: Metrics, name: str, version: int, metadata: Metadata, window: Window | None) -> None:
        """Look the version's metrics up once; ``window`` keeps its answers."""
        self.embedding = window is not None and window.embedding
        self._window = window
        labels = (name, str(version))
        self._metadata = metadata
        self._queue_images = metrics.queue_images
        self._queue_seconds = metrics.queue_seconds.labels(*labels)
        self._engine_seconds = metrics.engine_seconds.labels(*labels)
        self._batch_size = metrics.batch_size.labels(*labels)
        self._failures = metrics.engine_failures.labels(*labels)
        metrics.engine_reloads.labels(*labels)
        self._metrics, self._labels = metrics, labels
        self._of_label = functools.lru_cache(maxsize=None)(self._series_of_label)
        if len(metadata.labels) <= _LABELS_AT_ONCE:
            for index in range(len(metadata.labels)):
                self._of_label(index)
        self._top_probability = metrics.top_probability.labels(*labels)
        self._unfamiliar = None if metadata.familiarity is None else metrics.unfamiliar.labels(*labels)

    def _series_of_label(self, index: int) -> Counter:
        """Return the counter of one label, with what is expected of it; made once the label is told, where many are."""
        metadata, label = self._metadata, self._metadata.labels[index]
        if metadata.reference is not None and metadata.thresholds is None:  # else all labels that are told are counted
            share = metadata.reference.labels.get(label, 0) / metadata.reference.images
            self._metrics.label_share_expected.labels(*self._labels, label).set(share)
        return self._metrics.predictions.labels(*self._labels, label)

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
        """Count the most probable label of each of ``outputs``, float32 [N, columns], and what is not familiar.

        Where a picture may have several labels, each that is told of it is counted.
        """
        predictions = interpret(outputs, self._metadata)
        likeliest = predictions.probabilities.argmax(axis=1).tolist()
        labels = likeliest if predictions.told is None else predictions.told.nonzero()[1].tolist()
        for index, images in collections.Counter(labels).items():
            self._of_label(index).inc(images)
        confidence = predictions.probabilities.max(axis=1).tolist()
        for probability in confidence:
            self._top_probability.observe(probability)
        if self._unfamiliar is not None and predictions.familiar is not None:
            self._unfamiliar.inc(predictions.familiar.count(False))
        if self._window is not None and likeliest:
            self._window.add(likeliest, confidence, predictions)


class Duration(NamedTuple):
    """How often something was done, and how long it took in all, in seconds."""

    times: int
    seconds: float


class Compared(NamedTuple):
    """How often each outcome was, of pictures that ``version`` answered and ``shadow`` was to answer as well."""

    version: int
    shadow: int
    outcomes: dict[str, int]


class Totals(NamedTuple):
    """What was done with one model version so far. ``last_inference`` is in seconds since the epoch, 0 for never."""

    last_inference: float
    images: int
    success: Duration
    failure: Duration
    decode: Duration
    queue: Duration
    engine: Duration


class _DriftOfAll(Collector):
    """Tells Prometheus how far the last answers of each version that is loaded have moved."""

    def __init__(self) -> None:
        self._windows: dict[tuple[str, int], Window] = {}  # replaced by another one when it changes

    def follow(self, name: str, version: int, window: Window | None) -> None:
        """Tell of this version from now on; nothing where there is no ``window``."""
        others = {key: kept for key, kept in self._windows.items() if key != (name, version)}
        self._windows = others if window is None else {**others, (name, version): window}

    def forget(self, name: str, version: int) -> None:
        """Tell of this version no more."""
        window = self._windows.get((name, version))
        self.follow(name, version, None)
        if window is not None:
            window.close()

    def of(self, name: str, version: int) -> Drift | None:
        """Return what is told of a version."""
        window = self._windows.get((name, version))
        return None if window is None else window.drift()

    def collect(self) -> Iterator[Metric]:
        """Yield the metrics; called for each scrape. They are no numbers before there are answers enough."""
        answers, index, p_value, distance = (
            GaugeMetricFamily(f"darkroom_drift_{name}", description, labels=["model", "version", *more])
            for name, description, more in (
                ("answers", "Last answers that are compared with those of the version's own test.", ()),
                ("psi", "How far they have moved: the population stability index, less what chance adds.", ("of",)),
                ("p_value", "How likely chance alone moves them as far (chi-square test).", ("of",)),
                (
                    "embedding_distance",
                    "How far the mean embedding of these has moved, in units of the embeddings' spread.",
                    (),
                ),
            )
        )
        for (name, version), window in self._windows.items():
            labels, drift = [name, str(version)], window.drift()
            answers.add_metric(labels, drift.answers if drift else 0)
            for what in window.compared:
                shift = drift.shifts[what] if drift else None
                index.add_metric([*labels, what], shift.population_stability_index if shift else math.nan)
                p_value.add_metric([*labels, what], shift.p_value if shift else math.nan)
            if window.embedding:
                moved = drift.embedding if drift else None
                distance.add_metric(labels, math.nan if moved is None else moved)
        yield from (family for family in (answers, index, p_value, distance) if family.samples)


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
    folder = Path(os.environ[MULTIPROCESS_FOLDER])
    forget(folder, process)
    for path in folder.glob(f"*_{process}.db"):
        with path.open("r+b") as file:
            used = int.from_bytes(file.read(4), sys.byteorder)
            file.truncate(max(used, 8))  # others may need the rest
