"""Cheap refusals: right in every dialect, and only for requests that gunicorn's parser reads in the same way."""

import http.client
import json
import random
import re
from typing import Any

import pytest
from flask import Flask
from gunicorn.config import Config
from gunicorn.http.errors import NoMoreData, ParseException
from gunicorn.http.parser import RequestParser

from service.app import DIALECTS
from service.inference.errors import QueueFull
from service.serving import plain_requests
from service.serving.load_shedding import LoadShedder
from service.web.notes import Notes
from service.web.operations import declared
from service.web.services import Services
from tests.service.answers import parsed

HEAD = (
    b"POST /predict HTTP/1.1\r\nHost: test\r\nConnection: keep-alive\r\nAccept: */*\r\n"
    b"Content-Type: image/png\r\nContent-Length: 5"
)
PREDICTIONS = ("/predict", "/predict/batch", "/v1/models/colours:predict", "/v1/models/colours/versions/1:classify")


@pytest.fixture
def services(app: Flask) -> Services:
    """What the application works with."""
    found: Services = app.extensions["services"]
    return found


@pytest.fixture
def shedder(app: Flask, services: Services) -> LoadShedder:
    """The load shedder of the real application."""
    return LoadShedder(app, DIALECTS, services.notes)


def refused(shedder: LoadShedder, data: bytes) -> bytes | None:
    """Return the answer that refuses ``data``; None where that is not refused."""
    plain = plain_requests.read(data)
    return shedder.answer(plain) if plain else None


def request(path: str = "/predict", body: bytes = b"12345", **headers: str) -> bytes:
    """Return a POST as clients send it."""
    lines = {"Host": "test", "Content-Length": str(len(body)), **{k.replace("_", "-"): v for k, v in headers.items()}}
    head = "".join(f"{name}: {value}\r\n" for name, value in lines.items())
    return f"POST {path} HTTP/1.1\r\n{head}\r\n".encode() + body


def read(answer: bytes | None) -> tuple[http.client.HTTPResponse, Any]:
    """Return ``answer`` as an HTTP client reads it, and its JSON; nothing may follow it."""
    assert answer is not None
    response, body = parsed(answer)
    return response, json.loads(body)


def gunicorn_reads(data: bytes) -> tuple[str | None, str | None, bytes, bytes] | None:
    """Return method, target, body and what is left, as gunicorn's own parser reads ``data``; None where it refuses."""
    parser = RequestParser(Config(), iter([data]), ("127.0.0.1", 1))
    try:
        read = next(parser)
        body = read.body.read() if read.body else b""
    except (ParseException, NoMoreData, StopIteration):
        return None
    return read.method, read.uri, body, parser.unreader.take_buffered()


@pytest.mark.parametrize("connection", ["keep-alive", "Keep-Alive", "keep-alive "])
@pytest.mark.parametrize("path", ["/predict", "/predict?top=3"])
def test_prediction_is_refused(shedder: LoadShedder, path: str, connection: str) -> None:
    """A whole request for a prediction gets a 503 that says when to come again and keeps the connection."""
    response, body = read(refused(shedder, request(path, Connection=connection)))
    assert response.status == 503
    assert response.headers["Retry-After"] == "1"
    assert response.headers["Content-Type"] == "application/json"
    assert response.headers["Connection"] == "keep-alive"
    assert body["error"] == "queue_full"


def test_every_route_that_may_be_full_refuses_in_its_dialect(app: Flask, shedder: LoadShedder) -> None:
    """All routes that declare a full queue are refused, and each in the form that its clients read; no other route is.

    Nothing of it needs a request to be made: the worker refuses outside of any.
    """
    paths = set()
    for rule in app.url_map.iter_rules():
        if "POST" not in (rule.methods or ()):
            continue
        path = re.sub(
            r"<(?:\w+(?:\(.*?\))?:)?(\w+)>", lambda name: "1" if name[1] == "version" else "colours", rule.rule
        )
        operation = declared(app.view_functions[rule.endpoint])
        answer = refused(shedder, request(path))
        assert (answer is not None) == (operation is not None and QueueFull in operation.errors), path
        if answer is not None:
            paths.add(path)
            _, body = read(answer)
            expected = {"error"} if path.startswith(("/v1", "/v2")) else {"success", "error", "message"}
            assert set(body) == expected, path
    assert paths >= {*PREDICTIONS, "/v2/models/colours/infer"}


def test_request_id_is_given_back(shedder: LoadShedder) -> None:
    """The client's request id is told again where it is one; others get an id of their own, each another one."""
    assert read(refused(shedder, request(X_Request_ID="mine-1")))[0].headers["X-Request-ID"] == "mine-1"
    ids = [
        read(refused(shedder, request(X_Request_ID=asked)))[0].headers["X-Request-ID"]
        for asked in ("", "a b", "x" * 129)
    ]
    assert len(set(ids)) == 3
    assert all(re.fullmatch("[0-9a-f]{32}", given) for given in ids)


def test_refusals_are_counted(shedder: LoadShedder, services: Services) -> None:
    """Refused requests are in the metrics, under the route's rule."""

    def count() -> float | None:
        labels = {"route": "/v1/models/<model:name>:predict", "method": "POST", "status": "503"}
        return services.metrics.registry.get_sample_value("darkroom_requests_total", labels)

    before = count() or 0
    in_flight = services.metrics.registry.get_sample_value("darkroom_requests_in_flight")
    for _ in range(3):
        refused(shedder, request("/v1/models/colours:predict"))
    assert count() == before + 3
    assert services.metrics.registry.get_sample_value("darkroom_requests_in_flight") == in_flight


def test_refusals_are_logged_where_that_is_asked_for(
    app: Flask, services: Services, caplog: pytest.LogCaptureFixture
) -> None:
    """The access log has a line for each, with the client and the path as it was asked for; by default it has none."""
    caplog.set_level("INFO", "service.access")
    for log in (False, True):
        shedder = LoadShedder(app, DIALECTS, Notes(services.metrics, services.clock, log=log))
        plain = plain_requests.read(request("/v1/models/colours:predict"))
        assert plain is not None
        assert shedder.answer(plain, "192.0.2.1") is not None
    [record] = caplog.records
    fields = record.fields  # type: ignore[attr-defined]
    assert (fields["client"], fields["method"], fields["status"]) == ("192.0.2.1", "POST", 503)
    assert fields["path"] == "/v1/models/colours:predict"


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(b"", id="nothing"),
        pytest.param(HEAD + b"\r\n\r\n1234", id="body-not-there"),
        pytest.param(HEAD + b"\r\n\r\n123456", id="more-behind"),
        pytest.param(HEAD + b"\r\n", id="head-not-there"),
        pytest.param(HEAD.replace(b"Content-Length: 5", b"A: b") + b"\r\n\r\n", id="no-length"),
        pytest.param(HEAD + b"\r\nContent-Length: 5\r\n\r\n12345", id="two-lengths"),
        pytest.param(HEAD + b"\r\nContent-Length: 6\r\n\r\n12345", id="two-different-lengths"),
        pytest.param(HEAD + b"\r\ncontent-length: 5, 5\r\n\r\n12345", id="list-of-lengths"),
        pytest.param(HEAD + b"\r\nContent-Length : 6\r\n\r\n12345", id="length-with-space-before-colon"),
        pytest.param(HEAD.replace(b": 5", b": +5") + b"\r\n\r\n12345", id="length-with-sign"),
        pytest.param(HEAD.replace(b": 5", b": 05") + b"\r\n\r\n12345", id="length-with-zero"),
        pytest.param(HEAD + b"\r\nTransfer-Encoding: chunked\r\n\r\n12345", id="chunked"),
        pytest.param(HEAD + b"\r\nTransfer-Encoding : chunked\r\n\r\n12345", id="chunked-with-space-before-colon"),
        pytest.param(HEAD + b"\r\nA: b\nTransfer-Encoding: chunked\r\n\r\n12345", id="chunked-behind-bare-line-feed"),
        pytest.param(HEAD + b"\r\nA: b\rTransfer-Encoding: chunked\r\n\r\n12345", id="bare-carriage-return"),
        pytest.param(HEAD + b"\r\nA: b\r\n c\r\n\r\n12345", id="folded-line"),
        pytest.param(HEAD + b"\r\nA: b\0\r\n\r\n12345", id="null-byte"),
        pytest.param(HEAD + b"\r\nnonsense\r\n\r\n12345", id="no-colon"),
        pytest.param(HEAD + b"\r\nExpect: 100-continue\r\n\r\n12345", id="expect"),
        pytest.param(HEAD + b"\r\nUpgrade: h2c\r\n\r\n12345", id="upgrade"),
        pytest.param(HEAD.replace(b"keep-alive", b"close") + b"\r\n\r\n12345", id="close"),
        pytest.param(
            HEAD.replace(b"keep-alive", b"keep-alive, close") + b"\r\n\r\n12345", id="close-behind-keep-alive"
        ),
        pytest.param(HEAD.replace(b"1.1", b"1.0") + b"\r\n\r\n12345", id="http-1.0"),
        pytest.param(HEAD.replace(b"POST", b"PUT") + b"\r\n\r\n12345", id="put"),
        pytest.param(HEAD.replace(b"/predict", b"http://test/predict") + b"\r\n\r\n12345", id="absolute"),
        pytest.param(HEAD.replace(b"/predict", b"/nothing") + b"\r\n\r\n12345", id="no-route"),
        pytest.param(HEAD.replace(b"/predict", b"/pr\xc3\xa9dict") + b"\r\n\r\n12345", id="not-ascii"),
        pytest.param(b"GET /health/ready HTTP/1.1\r\nHost: test\r\n\r\n", id="probe"),
    ],
)
def test_everything_unusual_is_left_to_the_parser(shedder: LoadShedder, data: bytes) -> None:
    """What is not whole, or not what every parser reads in one way, is not refused here."""
    assert refused(shedder, HEAD + b"\r\n\r\n12345") is not None
    assert refused(shedder, data) is None


def test_what_is_refused_gunicorn_would_have_read(shedder: LoadShedder) -> None:
    """Whatever is refused, of 20,000 damaged requests, gunicorn reads as one POST that ends where the data ends."""
    chance = random.Random(0)
    pieces = [b"\r\n", b"\n", b"\r", b" ", b"\t", b":", b"\0", b",", b"5", b"0", b"\r\n\r\n", b"\x80"]
    pieces += [b"Content-Length: 5", b"Transfer-Encoding: chunked", b"Connection: close", b"POST /predict HTTP/1.1\r\n"]
    count = 0
    for _ in range(20_000):
        data = bytearray(HEAD + b"\r\n\r\n12345")
        for _ in range(chance.randint(1, 3)):
            at = chance.randrange(len(data))
            data[at : at + chance.choice((0, 0, 1, 2))] = chance.choice(pieces)
        if refused(shedder, bytes(data)) is not None:
            count += 1
            found = gunicorn_reads(bytes(data))
            assert found is not None, bytes(data)
            method, target, body, rest = found
            assert method == "POST", bytes(data)
            assert (target or "").startswith("/predict"), bytes(data)
            assert data.endswith(b"\r\n\r\n" + body), bytes(data)
            assert rest == b"", bytes(data)
    assert 1000 < count < 15_000
