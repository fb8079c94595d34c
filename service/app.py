"""The service put together: the parts of one process, and the application with all routes."""

import time
from collections.abc import Callable
from pathlib import Path

from flask import Flask

from artifact import Metadata
from machine import usable_cores, usable_memory
from service.inference.batcher import Batcher
from service.inference.decoding import Decoder
from service.inference.engine import Engine, load
from service.inference.pace import Pace
from service.inference.predictor import Predictor
from service.inference.registry import Registry
from service.inference.runtime import Runtime, ThreadRuntime
from service.inference.trials import EngineKind, Trials
from service.observe.metrics import Metrics
from service.protocols.open_inference import routes as open_inference
from service.protocols.own import health, model, predict
from service.protocols.own import metrics as own_metrics
from service.protocols.tensorflow_serving import routes as tensorflow_serving
from service.settings import Settings, decoding_memory
from service.web import card, docs, pages
from service.web.access import Access
from service.web.app import make_app
from service.web.headers import Origins
from service.web.notes import Notes
from service.web.services import Services

DIALECTS = (open_inference.DIALECT, tensorflow_serving.DIALECT)
"""The forms in which the protocols tell errors, where that is not the project's own."""


def make_services(
    settings: Settings,
    metrics: Metrics,
    draining: Callable[[], bool],
    clock: Callable[[], float] = time.monotonic,
    runtime: Runtime | None = None,
    notes_of_versions: Path | None = None,
) -> Services:
    """Wire the parts of one process. Nothing is loaded before ``registry.start`` or ``registry.refresh``.

    ``runtime`` is what requests run in; without it each has a thread of its own. ``notes_of_versions`` is the file in
    which the workers of a service note what came of each version; without it versions are loaded untried.
    """
    runtime = runtime or ThreadRuntime()
    cores = usable_cores()
    engine_threads = max(1, cores // settings.workers)

    def load_engine(path: Path) -> Engine:
        return load(settings.engine, path, settings.precision, engine_threads)

    def make_batcher(engine: Engine, version: int, metadata: Metadata, pace: Pace) -> Batcher:
        observer = metrics.of_engine(version, metadata)
        return Batcher(engine, settings.queue_length, observer, clock, pace, runtime)

    kind = EngineKind(settings.engine, settings.precision, engine_threads)
    registry = Registry(
        settings.model_dir,
        settings.model_name,
        settings.model_version,
        load_engine,
        make_batcher,
        metrics,
        Trials(notes_of_versions, kind, settings.workers, settings.model_load_seconds) if notes_of_versions else None,
    )
    memory = decoding_memory(usable_memory() // settings.workers)
    decoder = Decoder(settings.max_image_pixels, memory, engine_threads, clock, runtime)
    predictor = Predictor(decoder, metrics.of, clock, runtime)
    notes = Notes(metrics, clock, log=settings.access_log)
    access, origins = Access(settings, clock), Origins(settings.cors_origins)
    return Services(settings, registry, predictor, metrics, notes, access, origins, draining, clock, clock(), runtime)


def create_app(services: Services) -> Flask:
    """Return the application with all routes; ``services`` is all it works with."""
    routes = (
        card.blueprint(services),
        docs.blueprint(services, DIALECTS),
        health.blueprint(services),
        own_metrics.blueprint(services),
        model.blueprint(services),
        open_inference.blueprint(services),
        pages.blueprint(services),
        predict.blueprint(services),
        tensorflow_serving.blueprint(services),
    )
    return make_app(services, routes, DIALECTS)
