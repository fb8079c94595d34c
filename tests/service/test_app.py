"""What all routes share, and the routes for those who operate the service; in this process."""

import io
import json
import logging
import threading
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from flask import Flask
from flask.testing import FlaskClient
from prometheus_client import CollectorRegistry
from prometheus_client.parser import text_string_to_metric_families

from artifact.layout import METADATA
from service.app import create_app
from service.inference.errors import EngineFailed
from service.observe.logs import JsonFormatter
from service.observe.metrics import Metrics
from tests.models import LABELS, SIDE, copy
from tests.service.conftest import MakeServices
from tests.service.pictures import plain
from tests.service.running import wait_for


@pytest.fixture
def own_app(services_of: MakeServices, models: Path) -> Flask:
    """An application of the test's own, whose metrics begin at zero."""
    return create_app(services_of(model_dir=models))


def samples(client: FlaskClient) -> dict[tuple[str, frozenset[tuple[str, str]]], float]:
    """Return the metrics by name and labels."""
    response = client.get("/metrics")
    assert response.status_code == 200
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(response.text)
        for sample in family.samples
    }


def sample(client: FlaskClient, metric: str, /, **labels: str) -> float | None:
    """Return one value of a metric; None where there is none."""
    return samples(client).get((f"darkroom_{metric}", frozenset(labels.items())))


def test_health(client: FlaskClient) -> None:
    """With a model all three probes answer 200, and the summary names model and engine."""
    assert client.get("/health/live").status_code == 200
    assert client.get("/health/ready").json == {"status": "ready", "reason": None}
    summary = client.get("/health").json
    assert summary is not None
    assert summary["model"] == {"name": "colours", "version": 1}
    assert summary["engine"]["name"] == "openvino"
    assert summary["engine"]["precision"] in ("float32", "bfloat16")
    assert summary["uptime_seconds"] >= 0


def test_without_a_model(services_of: MakeServices, tmp_path: Path) -> None:
    """Without a model the service lives and is not ready; predictions get a 503 with the reason."""
    client = create_app(services_of(model_dir=tmp_path)).test_client()
    assert client.get("/health/live").status_code == 200
    for path in ("/health", "/health/ready"):
        response = client.get(path)
        assert response.status_code == 503
        assert "no model in the folder" in response.json["reason"]  # type: ignore[index]
    response = client.post("/predict", data=plain("red"))
    assert response.status_code == 503
    assert response.headers["Retry-After"]
    assert "no model in the folder" in response.json["message"]  # type: ignore[index]
    described = client.get("/model").json
    assert described is not None
    assert described["version"] is None
    assert "no model in the folder" in described["reason"]


def test_draining(services_of: MakeServices, models: Path) -> None:
    """While draining, readiness is 503 and predictions are still answered."""
    client = create_app(services_of(model_dir=models, draining=True)).test_client()
    assert client.get("/health/ready").json["status"] == "draining"  # type: ignore[index]
    assert client.get("/health/ready").status_code == 503
    assert client.get("/health/live").status_code == 200
    assert client.post("/predict", data=plain("red")).status_code == 200


def test_model_is_described(own_app: Flask, models: Path, published: Path) -> None:
    """``/model`` tells versions, labels, measurements and the model card, and which versions are kept out."""
    bad = copy(published, models, 2)
    (bad / "saved_model.pb").unlink()
    own_app.extensions["services"].registry.refresh()
    described = own_app.test_client().get("/model").json
    assert described is not None
    assert (described["name"], described["version"], described["versions"]) == ("colours", 1, [1, 2])
    assert described["labels"] == list(LABELS)
    assert described["input"] == {"height": 32, "width": 32, "resize": "crop", "interpolation": "bicubic"}
    assert described["metrics"]["accuracy"] == 0.0
    assert (described["int8"], described["calibration"], described["familiarity"]) == (None, None, None)
    assert described["model_card"].startswith("# Colours")
    assert described["refused"] == [{"version": 2, "reason": "saved_model.pb is missing"}]


@pytest.mark.parametrize(("images", "interval"), [(0, None), (240, [0.952167, 0.991069])])
def test_an_accuracy_has_its_interval(
    services_of: MakeServices, models: Path, images: int, interval: list[float] | None
) -> None:
    """``/model`` tells it where the accuracy was measured."""
    metadata = models / "colours" / "1" / METADATA
    record = json.loads(metadata.read_text(encoding="utf-8"))
    record["metrics"].update(accuracy=235 / 240, images=images, measured_on="test")
    metadata.write_text(json.dumps(record), encoding="utf-8")
    described = create_app(services_of(model_dir=models)).test_client().get("/model").json
    assert described is not None
    assert described["accuracy_95"] == interval


def test_metrics_count_what_happened(own_app: Flask) -> None:
    """Requests are counted by route, method and status; images by label; batches, decoding and engine are timed."""
    client = own_app.test_client()
    for colour in ("red", "red", "blue"):
        client.post("/predict", data=plain(colour))
    client.post("/predict", data=b"text")
    client.post("/predict/batch", data=bytes(64 * 32 * 32 * 3))
    ok = {"route": "/predict", "method": "POST", "status": "200"}
    assert sample(client, "requests_total", **ok) == 3
    assert sample(client, "request_seconds_count", **ok) == 3
    assert sample(client, "requests_total", **{**ok, "status": "415"}) == 1
    assert sample(client, "requests_total", **{**ok, "route": "/predict/batch"}) == 1
    assert sample(client, "predictions_total", model="colours", version="1", label="red") == 2 + 64
    assert sample(client, "predictions_total", model="colours", version="1", label="blue") == 1
    assert sample(client, "decode_seconds_count", model="colours", version="1") == 4
    assert sample(client, "batch_size_sum", model="colours", version="1") == 3 + 64
    assert sample(client, "engine_seconds_count", model="colours", version="1") == sample(
        client, "batch_size_count", model="colours", version="1"
    )
    assert sample(client, "queue_seconds_count", model="colours", version="1") == 3 + 2
    assert sample(client, "queue_images") == 0
    assert sample(client, "requests_in_flight") == 1
    assert sample(client, "model_version", model="colours") == 1
    assert sample(client, "model_workers", model="colours", version="1") == 1
    created = datetime(2026, 1, 1, tzinfo=UTC).timestamp()
    assert sample(client, "model_created_timestamp_seconds", model="colours") == created


@pytest.mark.parametrize(
    ("created", "seconds"), [("1970-01-01T02:00:05+02:00", 5.0), ("1970-01-01T00:00:05", 5.0), ("last week", None)]
)
def test_when_a_model_was_trained(created: str, seconds: float | None) -> None:
    """A time without a zone is UTC; what is no time at all is not told, and keeps no model out."""
    metrics = Metrics(CollectorRegistry())
    metrics.answering("colours", 1, created)
    labels = {"model": "colours"}
    assert metrics.registry.get_sample_value("darkroom_model_created_timestamp_seconds", labels) == seconds
    assert metrics.registry.get_sample_value("darkroom_model_version", labels) == 1


def test_pictures_that_are_not_familiar_are_counted(telling: FlaskClient, own_app: Flask) -> None:
    """The counter begins at 0 with the first answer of a version that tells, and is missing where none does."""
    telling.post("/predict", data=plain("red"))
    assert sample(telling, "unfamiliar_total", model="colours", version="1") == 0
    telling.post("/predict", data=plain("black"))
    telling.post("/predict/batch", data=bytes(3 * 32 * 32 * 3))
    assert sample(telling, "unfamiliar_total", model="colours", version="1") == 4
    silent = own_app.test_client()
    silent.post("/predict", data=plain("black"))
    assert sample(silent, "unfamiliar_total", model="colours", version="1") is None


def test_the_threshold_is_told(telling: FlaskClient) -> None:
    """``/model`` says from which score on a picture is familiar."""
    described = telling.get("/model").json
    assert described is not None
    assert described["familiarity"] == {"threshold": 4.0, "share": 0.95, "measured_on": "none", "images": 0}


def test_latency_buckets(own_app: Flask) -> None:
    """Buckets reach from 1 ms to 10 s."""
    client = own_app.test_client()
    client.get("/health")
    edges = {dict(labels)["le"] for name, labels in samples(client) if name == "darkroom_request_seconds_bucket"}
    assert {"0.001", "0.003", "0.1", "1.0", "10.0", "+Inf"} <= edges


def test_unknown_paths_and_methods_share_labels(own_app: Flask) -> None:
    """However many paths and methods clients make up, the metrics do not grow."""
    client = own_app.test_client()
    for number in range(20):
        client.get(f"/made/up/{number}")
        client.open("/health", method=f"MADE{number}")
    routes = {dict(labels)["route"] for name, labels in samples(client) if name == "darkroom_requests_total"}
    methods = {dict(labels)["method"] for name, labels in samples(client) if name == "darkroom_requests_total"}
    assert routes <= {"unknown", *(rule.rule for rule in own_app.url_map.iter_rules())}
    assert methods <= {"GET", "POST", "unknown"}
    assert sample(client, "requests_total", route="unknown", method="GET", status="404") == 20


def test_unknown_path_and_method(client: FlaskClient) -> None:
    """An unknown path is a 404 that points to the right ones; a wrong method a 405 with ``Allow``."""
    response = client.get("/predictions")
    assert response.status_code == 404
    assert "/predict" in response.json["message"]  # type: ignore[index]
    response = client.get("/predict")
    assert response.status_code == 405
    assert "POST" in response.headers["Allow"]
    assert response.json["message"] == "This route takes POST."  # type: ignore[index]


@pytest.mark.parametrize("path", ["//model", "/v1//models/colours", "/v1///models//colours", "//predict"])
def test_a_slash_too_many_is_read_as_one(client: FlaskClient, path: str) -> None:
    """It is answered, and led nowhere: a redirect would leave the path below which a proxy has the service."""
    method = "POST" if path.endswith("predict") else "GET"
    answered = client.open("/", method=method, data=plain("red"), environ_overrides={"PATH_INFO": path})
    assert answered.status_code == 200


@pytest.mark.parametrize(("asked", "kept"), [("abc-123", True), ("x" * 128, True), ("x" * 129, False), ("a b", False)])
def test_request_id(client: FlaskClient, asked: str, kept: bool) -> None:
    """A short printable request id is kept, any other replaced; every answer has one, errors too."""
    for path in ("/health", "/nowhere"):
        answered = client.get(path, headers={"X-Request-ID": asked}).headers["X-Request-ID"]
        assert (answered == asked) is kept
        assert answered.isprintable()


@pytest.fixture
def log() -> Iterator[Callable[[], list[dict[str, Any]]]]:
    """Gives the lines that were logged since the test began, written and read as JSON."""
    written = io.StringIO()
    handler = logging.StreamHandler(written)
    handler.setFormatter(JsonFormatter())
    logger = logging.getLogger("service")
    level = logger.level
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    yield lambda: [json.loads(line) for line in written.getvalue().splitlines()]
    logger.removeHandler(handler)
    logger.setLevel(level)


Log = Callable[[], list[dict[str, Any]]]


def test_access_log(services_of: MakeServices, models: Path, log: Log) -> None:
    """The access log, when it is on, is one line of JSON for each request, whatever the client sends."""
    client = create_app(services_of(model_dir=models, access_log=True)).test_client()
    client.get("/health%0A%7B%22level%22:%22forged%22%7D", headers={"X-Request-ID": "seven"})
    [entry] = [entry for entry in log() if entry["logger"] == "service.access"]
    assert entry["level"] == "info"
    assert entry["path"] == '/health\n{"level":"forged"}'
    assert (entry["method"], entry["status"], entry["request_id"]) == ("GET", 404, "seven")


def test_every_line_of_a_request_has_its_id(
    services_of: MakeServices, models: Path, log: Log, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What goes wrong on a request is found by the id that its client was given, and no later line bears it."""
    services = services_of(model_dir=models, access_log=True)
    client = create_app(services).test_client()

    def fail(*_: object, **__: object) -> None:
        raise EngineFailed("the engine failed")

    with monkeypatch.context() as patch:
        patch.setattr(services.predictor, "predict_one", fail)
        answered = client.post("/predict", data=plain("red"), headers={"X-Request-ID": "eight"})
    assert answered.status_code == 500
    logging.getLogger("service").info("afterwards")
    *request, after = log()[-3:]
    assert [(entry["logger"], entry["request_id"]) for entry in request] == [
        ("service.web.errors", "eight"),
        ("service.access", "eight"),
    ]
    assert request[0]["message"] == "/predict answers 500: the engine failed"
    assert "request_id" not in after


def test_full_queue_and_deadline(services_of: MakeServices, models: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A request that finds the queue full gets a 503 with Retry-After; one that waits too long a 504."""
    services = services_of(model_dir=models, queue_length=1, request_deadline=0.2)
    model, gate = services.registry.check(), threading.Event()
    predict = model.engine.predict
    monkeypatch.setattr(model.engine, "predict", lambda *images, **asked: gate.wait(30) and predict(*images, **asked))
    model.batcher.submit(np.zeros((1, SIDE, SIDE, 3), np.uint8), time.monotonic() + 30)
    wait_for(lambda: not model.batcher.snapshot().waiting, lambda: str(model.batcher.snapshot()))
    client = create_app(services).test_client()
    late = client.post("/predict", data=plain("red"))
    assert late.status_code == 504
    assert late.json["error"] == "deadline_exceeded"  # type: ignore[index]
    full = client.post("/predict", data=plain("red"))
    assert full.status_code == 503
    assert full.headers["Retry-After"] == "1"
    assert full.json["error"] == "queue_full"  # type: ignore[index]
    gate.set()
