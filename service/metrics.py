"""Prometheus metrics, right across gunicorn's workers: each writes files that any of them can add up."""

import os
from pathlib import Path

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_LATEST
from prometheus_client.multiprocess import MultiProcessCollector, mark_process_dead

MULTIPROCESS_FOLDER = "PROMETHEUS_MULTIPROC_DIR"
CONTENT_TYPE = CONTENT_TYPE_LATEST

_SECONDS = (0.001, 0.002, 0.003, 0.005, 0.0075, 0.01, 0.02, 0.03, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
_IMAGES = (1, 2, 4, 8, 16, 32, 64, 128)


class Metrics:
    """All metrics of one process, under one registry."""

    def __init__(self, registry: CollectorRegistry) -> None:
        """Make the metrics and register them."""
        self.registry = registry
        route = ["route", "method", "status"]
        self.requests = Counter("darkroom_requests", "Requests by route, method and status.", route, registry=registry)
        self.request_seconds = self._seconds("request", "From the request's headers to the answer.", route)
        self.decode_seconds = self._seconds("decode", "Decoding and scaling one picture.")
        self.queue_seconds = self._seconds("queue", "Waiting for the engine, for each part of a request.")
        self.engine_seconds = self._seconds("engine", "The engine's time for one batch.")
        self.batch_size = Histogram(
            "darkroom_batch_size", "Images in one batch of the engine.", buckets=_IMAGES, registry=registry
        )
        self.predictions = Counter(
            "darkroom_predictions", "Classified images by their most probable label.", ["label"], registry=registry
        )
        self.in_flight = self._gauge("requests_in_flight", "Requests that are being handled.", "livesum")
        self.queue_images = self._gauge("queue_images", "Images that wait for the engine.", "livesum")
        self.refused_versions = self._gauge("refused_versions", "Model versions that are kept out.", "livemax")
        self.model_workers = self._gauge(
            "model_workers", "Workers that answer with this version.", "livesum", ["name", "version"]
        )
        self.model_version = self._gauge("model_version", "The version that answers.", "livemax", ["name"])

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

    # What the batcher tells.

    def queued(self, change: int) -> None:
        """Count ``change`` images more (or fewer) in the queue."""
        self.queue_images.inc(change)

    def waited(self, seconds: float) -> None:
        """Note how long one job waited in the queue."""
        self.queue_seconds.observe(seconds)

    def ran(self, images: int, seconds: float) -> None:
        """Note that the engine ran a batch of ``images``."""
        self.engine_seconds.observe(seconds)
        self.batch_size.observe(images)

    # What the registry tells.

    def serving(self, name: str, version: int, *, active: bool) -> None:
        """Note that this process serves the version, or no longer does."""
        self.model_workers.labels(name, str(version)).set(int(active))
        if active:
            self.model_version.labels(name).set(version)

    def refused(self, versions: int) -> None:
        """Note how many versions are kept out."""
        self.refused_versions.set(versions)

    def render(self) -> bytes:
        """Return the metrics of all workers in Prometheus' text format; of this process alone outside gunicorn."""
        if MULTIPROCESS_FOLDER not in os.environ:
            return generate_latest(self.registry)
        everyone = CollectorRegistry()
        MultiProcessCollector(everyone)  # type: ignore[no-untyped-call]
        return generate_latest(everyone)


def worker_died(process: int) -> None:
    """Take the gauges of a worker that is gone out of the sums; its counters stay, or they would go down."""
    if Path(os.environ.get(MULTIPROCESS_FOLDER, "")).is_dir():
        mark_process_dead(process)  # type: ignore[no-untyped-call]
