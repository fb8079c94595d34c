"""Traces: the spans of real requests to a real service, as a collector receives them, and what they never cost.

The collector is the tests' own, and reads what comes by OpenTelemetry's protobuf messages.
"""

import base64
import gzip
import io
import json
import logging
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import requests

from service import __version__
from service.observe import tracing
from service.observe.tracing import is_asked_for, make_tracer
from tests.models import SIDE
from tests.service.collector import Collector, Request, collecting
from tests.service.conftest import StartService
from tests.service.pictures import plain
from tests.service.running import RunningService, free_port, start, wait_for

RED = plain("red")
IN_BASE64 = base64.b64encode(RED).decode()
TRACE, PARENT = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
SAMPLED, UNSAMPLED = f"00-{TRACE}-{PARENT}-01", f"00-{TRACE}-{PARENT}-00"
PNG, JSON = {"Content-Type": "image/png"}, {"Content-Type": "application/json"}
TENSOR = {"name": "image_bytes", "datatype": "BYTES", "shape": [1], "data": [IN_BASE64]}
V1, V2 = "/v1/models/colours:predict", "/v2/models/colours/infer"
ENDPOINT = {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:4318"}

REQUESTS: dict[str, tuple[str, str, dict[str, Any]]] = {
    # The first ones are answered without Flask.
    "file": ("/predict", "/predict", {"data": RED, "headers": PNG}),
    "form": ("/predict", "/predict", {"files": {"image": RED}}),
    "batch": ("/predict/batch", "/predict/batch", {"files": [("images", RED)] * 3}),
    "v1": (V1, "/v1/models/<model:name>:predict", {"json": {"instances": [{"b64": IN_BASE64}]}}),
    "v2": (V2, "/v2/models/<model:name>/infer", {"json": {"inputs": [TENSOR]}}),
    "compressed": (
        "/predict",
        "/predict",
        {"data": gzip.compress(RED), "headers": {**PNG, "Content-Encoding": "gzip"}},
    ),
    "long": ("/predict/batch", "/predict/batch", {"files": [("images", RED + bytes(700_000))] * 3}),
    "many": ("/predict/batch", "/predict/batch", {"files": [("images", RED)] * 80}),
}
PICTURES = {"batch": 3, "long": 3, "many": 80}


@pytest.fixture(scope="module")
def collector() -> Iterator[Collector]:
    """A collector that tests of this file share."""
    with collecting() as listening:
        yield listening


@pytest.fixture(scope="module")
def service(shared_models: Path, collector: Collector) -> Iterator[RunningService]:
    """A service that sends its spans there."""
    settings = {"MODEL_DIR": str(shared_models), "ACCESS_LOG": "1", "MAX_BATCH": "2000"}
    running = start({**settings, **collector.environment()})
    try:
        running.wait_until_ready()
        yield running
    finally:
        running.kill()


def post(service: RunningService, path: str, traceparent: str | None = None, **more: Any) -> requests.Response:
    """Post to ``service`` in a trace, or in none."""
    headers = {**more.pop("headers", {}), **({} if traceparent is None else {"traceparent": traceparent})}
    return requests.post(service.url + path, headers=headers, timeout=30, **more)


def traced(collector: Collector, answer: requests.Response) -> Request:
    """Return the spans of the request that got ``answer``."""
    return collector.request(answer.headers["X-Request-ID"])


@pytest.mark.process
@pytest.mark.parametrize("name", REQUESTS)
def test_a_request_and_its_steps_are_in_the_clients_trace(
    service: RunningService, collector: Collector, name: str
) -> None:
    """However a request comes, its span is below the client's, and its steps are below that, at their true times."""
    path, route, request = REQUESTS[name]
    before = time.time_ns()
    answer = post(service, path, SAMPLED, **request)
    after = time.time_ns()
    assert answer.status_code == 200, answer.text
    found = traced(collector, answer)
    span = found.span
    assert (span.name, span.trace_id, span.parent_id) == (f"POST {route}", TRACE, PARENT)
    assert span.attributes == {
        "http.request.method": "POST",
        "http.route": route,
        "http.response.status_code": 200,
        "url.path": path,
        "url.scheme": "http",
        "client.address": "127.0.0.1",
        "darkroom.model": "colours",
        "darkroom.version": 1,
        "darkroom.request_id": answer.headers["X-Request-ID"],
    }
    assert before <= span.started < span.ended <= after
    for step in found.steps:
        assert (step.trace_id, step.failed) == (TRACE, False)
        assert span.started <= step.started <= step.ended <= span.ended
    decoded, waited, ran = (found.named(step) for step in ("decode", "queue", "engine"))
    pictures = PICTURES.get(name, 1)
    assert sum(step.attributes["darkroom.images"] for step in decoded) == pictures
    assert sum(step.attributes["darkroom.images"] for step in waited) == pictures
    assert len(decoded) == len(waited) == len(ran) == -(-pictures // 32)
    for before_it, waiting, running in zip(decoded, waited, ran, strict=True):
        assert before_it.ended <= waiting.started <= waiting.ended == running.started < running.ended
    assert sum(step.attributes["darkroom.batch_size"] for step in ran) >= pictures
    assert {step.attributes["darkroom.precision"] for step in ran} <= {"float32", "bfloat16"}


@pytest.mark.process
def test_a_very_long_request_has_a_bounded_number_of_spans(service: RunningService, collector: Collector) -> None:
    """Of 49 parts, which are in no need of decoding, 48 have their two spans, and the request says what is missing."""
    file = io.BytesIO()
    np.save(file, np.zeros((49 * 32, SIDE, SIDE, 3), np.uint8))
    kind = {"Content-Type": "application/x-npy"}
    answer = post(service, "/predict/batch", SAMPLED, data=file.getvalue(), headers=kind)
    assert answer.status_code == 200, answer.text
    found = traced(collector, answer)
    assert (len(found.steps), found.span.attributes["darkroom.steps_left_out"]) == (96, 2)
    assert found.named("decode") == []


@pytest.mark.process
def test_a_process_says_which_it_is(service: RunningService, collector: Collector) -> None:
    """All spans carry the name of the service, its version, and an instance of its own."""
    resource = traced(collector, post(service, "/predict", data=RED, headers=PNG)).span.resource
    assert (resource["service.name"], resource["service.version"]) == ("darkroom", __version__)
    assert len(resource["service.instance.id"]) == 36


@pytest.mark.process
def test_the_log_names_the_trace(service: RunningService, collector: Collector) -> None:
    """Each line that is logged of a request has its trace's id, also where that is not sampled; others have none."""
    sampled = post(service, "/predict", SAMPLED, data=RED, headers=PNG)
    unsampled = post(service, "/predict/batch", UNSAMPLED, files=[("images", RED)] * 80)
    none = post(service, "/predict", data=RED, headers=PNG)
    service.get("/health/ready")
    lines = [json.loads(line) for line in service.log().splitlines()]
    ids = {line["request_id"]: line.get("trace_id") for line in lines if line["message"] == "request"}
    assert ids[sampled.headers["X-Request-ID"]] == ids[unsampled.headers["X-Request-ID"]] == TRACE
    assert ids[none.headers["X-Request-ID"]] == traced(collector, none).span.trace_id != TRACE
    assert [line.get("trace_id") for line in lines if line.get("path", "").startswith("/health")][-1] is None


@pytest.mark.process
def test_what_the_client_does_not_sample_has_no_spans(service: RunningService, collector: Collector) -> None:
    """By default the sampler goes by the parent; probes and scrapes have no spans either way."""
    silent = [post(service, path, UNSAMPLED, **request) for path, _, request in REQUESTS.values()]
    silent += [
        requests.get(service.url + path, headers={"traceparent": SAMPLED}, timeout=30)
        for path in ("/health", "/health/live", "/v2/health/ready", "/metrics")
    ]
    traced(collector, post(service, "/predict", data=RED, headers=PNG))  # sent after all of these
    ids = {span.attributes.get("darkroom.request_id") for span in collector.spans}
    assert [answer.status_code for answer in silent] == [200] * len(silent)
    assert not ids & {answer.headers["X-Request-ID"] for answer in silent}


@pytest.mark.process
@pytest.mark.parametrize(
    "broken",
    ["", "nonsense", f"00-{TRACE}-{PARENT}", f"ff-{TRACE}-{PARENT}-01", f"00-{'0' * 32}-{PARENT}-01", SAMPLED.upper(),
     f"{SAMPLED}, {SAMPLED}", "00-" + "a" * 4000],
)  # fmt: skip
def test_a_broken_parent_begins_a_new_trace(service: RunningService, collector: Collector, broken: str) -> None:
    """What cannot be read is no reason to refuse a request, nor to lose its trace."""
    answer = post(service, "/predict", broken, data=RED, headers=PNG)
    assert answer.status_code == 200
    span = traced(collector, answer).span
    assert (span.parent_id, len(span.trace_id)) == ("", 32)
    assert span.trace_id != TRACE


@pytest.mark.process
def test_the_state_of_a_trace_stays_with_it(service: RunningService, collector: Collector) -> None:
    """``tracestate`` is what other systems say of the same trace; baggage is no part of it."""
    more = {**PNG, "tracestate": "vendor=a,other=b", "baggage": "user=anna"}
    found = traced(collector, post(service, "/predict", SAMPLED, data=RED, headers=more))
    assert [span.state for span in (found.span, *found.steps)] == ["vendor=a,other=b"] * 4
    assert "anna" not in str(found)


@pytest.mark.process
@pytest.mark.parametrize(
    ("path", "request_", "status", "failing"),
    [
        ("/predict", {"data": b"GIF89a", "headers": PNG}, 400, "InvalidImage"),
        ("/predict/batch", {"files": [("images", RED), ("images", b"text")]}, 200, "UnsupportedImage"),
        ("/predict", {"data": b"", "headers": JSON}, 400, None),
        (V2.replace("colours", "others"), {"json": {"inputs": [TENSOR]}}, 404, None),
    ],
)
def test_a_fault_of_the_client_is_told_where_it_was_found(
    service: RunningService, collector: Collector, path: str, request_: dict[str, Any], status: int, failing: str | None
) -> None:
    """The step that found it has failed. The request has not, by the conventions, since the service is not at fault."""
    answer = post(service, path, SAMPLED, **request_)
    found = traced(collector, answer)
    assert answer.status_code == found.span.attributes["http.response.status_code"] == status
    assert not found.span.failed
    assert [step.attributes.get("error.type") for step in found.steps if step.failed] == ([failing] if failing else [])


@pytest.mark.process
def test_other_routes_have_spans_too(service: RunningService, collector: Collector) -> None:
    """A page, a path that is none and an odd method: each by its route, where it has one."""
    page = traced(collector, service.get("/model"))
    assert (page.span.name, page.span.attributes["http.route"], page.steps) == ("GET /model", "/model", [])
    nothing = traced(collector, service.get("/nothing/here"))
    assert (nothing.span.name, nothing.span.attributes["url.path"]) == ("GET", "/nothing/here")
    assert "http.route" not in nothing.span.attributes
    for method in ("BREW", "GRPC"):
        odd = traced(collector, requests.request(method, service.url + "/predict", timeout=30))
        assert (odd.span.name, odd.span.attributes["http.request.method"]) == ("HTTP", "_OTHER")


@pytest.mark.process
def test_variables_of_opentelemetry_count(start_service: StartService) -> None:
    """Name, attributes and sampler are as everywhere; addresses are told where the log tells them: by default not."""
    with collecting() as collector:
        service = start_service(
            **collector.environment(
                OTEL_SERVICE_NAME="pictures",
                OTEL_RESOURCE_ATTRIBUTES="deployment.environment.name=test,service.instance.id=a",
                OTEL_TRACES_SAMPLER="parentbased_always_off",
            )
        )
        unsampled = post(service, "/predict", data=RED, headers=PNG)
        span = traced(collector, post(service, "/predict", SAMPLED, data=RED, headers=PNG)).span
        assert unsampled.status_code == 200
        assert len({found.trace_id for found in collector.spans}) == 1
        assert "client.address" not in span.attributes
        wanted = {"service.name": "pictures", "deployment.environment.name": "test", "service.instance.id": "a"}
        assert wanted.items() <= span.resource.items()


@pytest.mark.process
@pytest.mark.slow
def test_each_worker_sends_its_own_and_the_last_ones_when_it_ends(start_service: StartService) -> None:
    """Spans that wait for more of them are sent at the end, by both workers; these are two instances."""
    with collecting() as collector:
        service = start_service(WORKERS="2", **{**collector.environment(), "OTEL_BSP_SCHEDULE_DELAY": "60000"})
        answers = [post(service, "/predict", data=RED, headers=PNG) for _ in range(40)]
        assert not collector.spans
        assert service.terminate() == 0
        found = [traced(collector, answer).span for answer in answers]
        assert 1 <= len({span.resource["service.instance.id"] for span in found}) <= 2


@pytest.mark.process
@pytest.mark.slow
@pytest.mark.timing
@pytest.mark.parametrize("collector_is", ["gone", "silent", "refusing"])
def test_a_collector_that_fails_costs_nobody_anything(start_service: StartService, collector_is: str) -> None:
    """Answers come as before, the log says once why no spans arrive, and SIGTERM ends the service as soon."""
    with collecting() as refusing, socket.create_server(("127.0.0.1", 0)) as silent:
        refusing.status = 503
        address = {
            "gone": f"http://127.0.0.1:{free_port()}",
            "silent": f"http://127.0.0.1:{silent.getsockname()[1]}",  # it takes connections, and never answers
            "refusing": refusing.url,
        }[collector_is]
        service = start_service(
            OTEL_EXPORTER_OTLP_ENDPOINT=address,
            OTEL_EXPORTER_OTLP_TIMEOUT="2",
            OTEL_BSP_SCHEDULE_DELAY="50",
            OTEL_BSP_MAX_QUEUE_SIZE="64",
            OTEL_BSP_MAX_EXPORT_BATCH_SIZE="32",
        )
        with requests.Session() as session:
            seconds = []
            for _ in range(200):  # more spans than the queue holds
                started = time.monotonic()
                assert session.post(f"{service.url}/predict", data=RED, headers=PNG, timeout=30).status_code == 200
                seconds.append(time.monotonic() - started)
        assert max(seconds) < 1.5  # what waits for the collector waits two seconds
        wait_for(lambda: '"traces: ' in service.log(), service.log)
        assert service.log().count('"traces: ') == 1
        started = time.monotonic()
        assert service.terminate() == 0
        assert time.monotonic() - started < 6  # two of them for connections, one for spans
        assert "Traceback" not in service.log()


@pytest.mark.parametrize(("status", "failed"), [("OK", False), ("NOT_FOUND", False), ("UNAVAILABLE", True)])
def test_a_call_by_grpc_is_named_by_its_own_conventions(
    monkeypatch: pytest.MonkeyPatch, status: str, *, failed: bool
) -> None:
    """Its metadata come as headers do; codes that are the service's fault, as a 500 would be, make the span fail."""
    with collecting() as collector:
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", collector.url)
        tracer = make_tracer(os.environ, time.monotonic, addresses=False)
        assert tracer is not None
        path, now = "/inference.GRPCInferenceService/ModelInfer", time.monotonic()
        trace = tracer.begin({"REQUEST_METHOD": "GRPC", "HTTP_TRACEPARENT": SAMPLED}, path, path, now)
        assert trace is not None
        trace.end(now + 1, status, "192.0.2.1", "a")
        tracer.close()
        span = collector.request("a").span
    assert (span.name, span.trace_id, span.parent_id, span.failed) == (path[1:], TRACE, PARENT, failed)
    wanted = {"rpc.system.name": "grpc", "rpc.method": path[1:], "rpc.response.status_code": status}
    assert span.attributes == {**wanted, "darkroom.request_id": "a", **({"error.type": status} if failed else {})}


def test_it_is_asked_for_by_an_endpoint() -> None:
    """One of the two variables names a collector, and none of the others turns traces off."""
    specific = {"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "http://collector:4318/v1/traces"}
    for wanted in (ENDPOINT, specific, {**ENDPOINT, "OTEL_TRACES_EXPORTER": "console, otlp"}):
        assert is_asked_for(wanted)
        assert is_asked_for({**wanted, "OTEL_SDK_DISABLED": "false"})
        assert not is_asked_for({**wanted, "OTEL_SDK_DISABLED": " True"})
        assert not is_asked_for({**wanted, "OTEL_TRACES_EXPORTER": "none"})
    assert not is_asked_for({"OTEL_EXPORTER_OTLP_ENDPOINT": " ", "OTEL_SERVICE_NAME": "pictures"})


@pytest.mark.process
@pytest.mark.parametrize("environment", [{}, {**ENDPOINT, "OTEL_SDK_DISABLED": "true"}])
def test_nothing_of_it_is_imported_where_it_is_off(environment: Mapping[str, str]) -> None:
    """A service that is not asked for traces has no module of OpenTelemetry, and none of its threads."""
    script = (
        "import os, sys, threading, time\n"
        "import service.serving.server, service.serving.worker, service.serving.short_requests, service.app\n"
        "from service.observe.tracing import make_tracer\n"
        "assert make_tracer(os.environ, time.monotonic, addresses=True) is None\n"
        "print([name for name in sys.modules if name.startswith(('opentelemetry', 'google.protobuf'))])\n"
        "print(threading.active_count())\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script],
        env={"PATH": os.environ["PATH"], **environment},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout) == (0, "[]\n1\n"), done.stderr


@pytest.mark.parametrize(
    ("environment", "told"),
    [
        ({"OTEL_EXPORTER_OTLP_PROTOCOL": "grpc"}, "OTEL_EXPORTER_OTLP_PROTOCOL is 'grpc', but traces are sent as http"),
        (
            {"OTEL_EXPORTER_OTLP_TRACES_PROTOCOL": "http/json"},
            "_TRACES_PROTOCOL is 'http/json', but traces are sent as",
        ),
        (
            {"OTEL_BSP_MAX_QUEUE_SIZE": "0"},
            "Tracing cannot begin; look at the variables OTEL_*: max_queue_size must be",
        ),
    ],
)
def test_what_cannot_be_had_is_told_and_costs_no_answer(
    environment: Mapping[str, str], told: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A variable that is wrong is one sentence in the log; the service serves."""
    everything = {**ENDPOINT, **environment}
    for name, value in everything.items():
        monkeypatch.setenv(name, value)
    assert make_tracer(everything, time.monotonic, addresses=False) is None
    [record] = [record for record in caplog.records if record.name == tracing.__name__]
    assert told in record.getMessage()
    assert record.getMessage().endswith("Requests are answered, and not traced.")


@pytest.mark.process
def test_a_service_answers_whatever_the_variables_say(start_service: StartService) -> None:
    """Where OpenTelemetry cannot even be imported with them, the log says why, and nothing else is lost."""
    service = start_service(**ENDPOINT, OTEL_PROPAGATORS="pigeons")
    assert service.predict(RED).status_code == 200
    assert "Tracing cannot begin; look at the variables OTEL_*: Propagator pigeons not found" in service.log()
    assert service.terminate() == 0


def test_a_missing_package_is_told_with_its_extra(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Also where only a part of OpenTelemetry is installed, as other packages bring it."""
    monkeypatch.delitem(sys.modules, "service.observe.spans", raising=False)
    monkeypatch.setitem(sys.modules, "opentelemetry.exporter.otlp.proto.http.trace_exporter", None)
    assert make_tracer(ENDPOINT, time.monotonic, addresses=False) is None
    [record] = caplog.records
    assert "OTEL_EXPORTER_OTLP_ENDPOINT asks for traces, and opentelemetry.exporter" in record.getMessage()
    assert "pip install 'darkroom[tracing]'" in record.getMessage()


def test_complaints_of_the_library_come_once_a_minute(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The first one is passed on, and the next a minute later, with how many there were in between."""
    from service.observe import spans

    now = 100.0
    monkeypatch.setattr("service.observe.spans.time.monotonic", lambda: now)
    spans.quiet("library")
    logger = logging.getLogger("library.part")
    for number in range(5):
        logger.warning("it failed for the %d. time", number)
    logger.info("it goes on")
    now += 61
    logger.error("it still fails")
    assert [record.getMessage() for record in caplog.records] == [
        "traces: it failed for the 0. time",
        "traces: it still fails (4 more lines of this kind since the last one)",
    ]
