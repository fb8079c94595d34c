"""The service put together: the parts of one process, and the application with all routes."""

import time
from collections.abc import Callable, Sequence
from pathlib import Path

from flask import Flask

from artifact import Metadata
from machine import usable_cores, usable_memory
from service.captures.choice import Choice
from service.captures.folder import CaptureFolder
from service.captures.keeper import OUTCOMES, Keeper
from service.inference.batcher import Batcher
from service.inference.decoding import Decoder
from service.inference.engine import Engine, Output, load
from service.inference.errors import ServiceError
from service.inference.explainer import Explainer
from service.inference.items import Item
from service.inference.loaded import LoadedModel
from service.inference.models import Memory, Models
from service.inference.pace import Pace
from service.inference.predictor import Predictor
from service.inference.registry import Registry
from service.inference.runtime import Runtime, ThreadRuntime
from service.inference.shadow import Shadow
from service.inference.trials import EngineKind, Trials
from service.inference.watch import spare_memory
from service.inference.wishes import Wishes
from service.observe import logs
from service.observe.metrics import Metrics
from service.observe.tracing import Tracer
from service.protocols.open_inference import routes as open_inference
from service.protocols.own import captured, explain, health, model, predict, report
from service.protocols.own import metrics as own_metrics
from service.protocols.own import models as own_models
from service.protocols.tensorflow_serving import routes as tensorflow_serving
from service.settings import Settings, decoding_memory
from service.sources.follower import Follower
from service.web import card, docs, pages, review
from service.web.access import Access
from service.web.app import make_app
from service.web.headers import Origins
from service.web.notes import Notes
from service.web.services import Services

_MEGABYTE = 1_000_000  # bytes
_DAY = 86_400.0  # seconds
_NICENESS = 10  # of what runs a heavy network

DIALECTS = (open_inference.DIALECT, tensorflow_serving.DIALECT)
"""The forms in which the protocols tell errors, where that is not the project's own."""


def make_services(
    settings: Settings,
    metrics: Metrics,
    draining: Callable[[], bool],
    clock: Callable[[], float] = time.monotonic,
    runtime: Runtime | None = None,
    notes: Path | None = None,
    tracer: Tracer | None = None,
) -> Services:
    """Wire the parts of one process. Nothing is loaded before ``models.start`` or ``models.refresh``.

    ``runtime`` is what requests run in; without it each has a thread of its own. ``notes`` is the folder in which the
    workers of a service note what came of each version, and what they were asked for; without it versions are loaded
    untried, and each worker is on its own. ``tracer`` is what traces requests, where that is asked for.
    """
    runtime = runtime or ThreadRuntime()
    cores = usable_cores()
    engine_threads = max(1, cores // settings.workers)

    def load_engine(path: Path) -> Engine:
        return load(settings.engine, path, settings.precision, engine_threads)

    def make_batcher(engine: Engine, path: Path, metadata: Metadata, pace: Pace) -> Batcher:
        observer = metrics.of_engine(path.parent.name, int(path.name), metadata, path, engine.embedding)
        # Beside others, a network that takes long for an image leaves the cores to those that need them for a moment.
        niceness = _NICENESS if models.count > 1 and pace.most < Pace().most else 0
        return Batcher(engine, settings.queue_length, observer, clock, pace, runtime, niceness)

    kind = EngineKind(settings.engine, settings.precision, engine_threads)
    load_seconds = settings.model_load_seconds
    trials = None if notes is None else Trials(notes / "versions", kind, settings.workers, load_seconds)

    def make_registry(name: str | None) -> Registry:
        pin = settings.model_version if name == settings.model_name else None
        return Registry(settings.model_dir, name, pin, load_engine, make_batcher, metrics, trials)

    limit = None if settings.model_memory_mb is None else settings.model_memory_mb * _MEGABYTE
    models = Models(
        settings.model_dir,
        settings.model_names,
        settings.model_name,
        make_registry,
        metrics,
        Memory(limit, lambda: spare_memory(settings.workers)),
        trials,
        Wishes(None if notes is None else notes / "wishes"),
    )
    memory = decoding_memory(usable_memory() // settings.workers)
    decoder = Decoder(settings.max_image_pixels, memory, engine_threads, clock, runtime)
    captures = None if settings.capture_dir is None else make_keeper(settings, settings.capture_dir, metrics)
    shadow = Shadow(models, decoder, metrics, clock)

    def keep(model: LoadedModel, items: Sequence[Item], outputs: Sequence[Output | ServiceError]) -> None:
        # The pictures of several models in one folder would be labelled with the labels of one.
        if captures is not None and model.name == models.default.name:
            captures.offer(model, items, outputs)

    predictor = Predictor(decoder, metrics.of, clock, runtime, None if captures is None else keep, shadow.offer)
    explainer = Explainer(decoder, clock, runtime)
    source = None if settings.model_source is None else make_follower(settings, settings.model_source, models, metrics)
    access, origins = Access(settings, clock), Origins(settings.cors_origins)
    return Services(
        settings,
        models,
        predictor,
        explainer,
        shadow,
        metrics,
        Notes(metrics, clock, tracer, log=settings.access_log),
        access,
        origins,
        draining,
        clock,
        clock(),
        runtime,
        captures,
        tracer,
        source,
    )


def make_follower(settings: Settings, address: str, models: Models, metrics: Metrics) -> Follower:
    """Return what brings the models of the source at ``address`` into the folder; it begins with ``start``."""
    from service.sources.address import open_source  # which brings clients and unpackers that few need

    def served() -> set[tuple[str, int]]:
        return {(model.name, model.version) for registry in models.registries for model in registry.loaded}

    return Follower(
        lambda folder, stop: open_source(address, folder, settings.model_names, stop),
        settings.model_dir,
        settings.model_names,
        settings.model_version,
        settings.model_source_poll_seconds,
        served,
        metrics,
    )


def make_keeper(settings: Settings, folder: Path, metrics: Metrics) -> Keeper:
    """Return what keeps pictures in ``folder``; it begins with ``start``."""
    reviewed = settings.reviewed_dir or folder / "reviewed"
    most_bytes, most_seconds = settings.capture_max_mb * _MEGABYTE, settings.capture_days * _DAY
    for outcome in OUTCOMES:
        metrics.captured(outcome, 0)  # so that the first one is seen as an increase
    return Keeper(
        lambda: CaptureFolder(folder, reviewed, most_bytes, most_seconds),
        Choice(settings.capture_share, settings.capture_margin),
        metrics,
        logs.REQUEST_ID.get,
        most_bytes=settings.max_body_bytes + _MEGABYTE,  # so that the largest picture fits
    )


def create_app(services: Services) -> Flask:
    """Return the application with all routes; ``services`` is all it works with."""
    routes = (
        captured.blueprint(services),
        card.blueprint(services),
        docs.blueprint(services, DIALECTS),
        explain.blueprint(services),
        health.blueprint(services),
        own_metrics.blueprint(services),
        model.blueprint(services),
        own_models.blueprint(services),
        open_inference.blueprint(services),
        pages.blueprint(services),
        predict.blueprint(services),
        report.blueprint(services),
        review.blueprint(services),
        tensorflow_serving.blueprint(services),
    )
    return make_app(services, routes, DIALECTS)
