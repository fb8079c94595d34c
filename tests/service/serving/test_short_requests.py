"""Short requests without gunicorn's parser and Flask's: the same answers, counted and named in the same way."""

import base64
import gzip
import http.client
import json
import random
from collections.abc import Mapping
from typing import Any

import pytest
from flask import Flask
from flask.testing import FlaskClient
from gunicorn.config import Config
from gunicorn.http.parser import RequestParser

from service.app import DIALECTS
from service.serving import plain_requests
from service.serving.gateway import Room
from service.serving.loop import Loop
from service.serving.short_requests import ShortRequests, _environ
from service.web.services import Services
from tests.service.answers import parsed
from tests.service.loops import on_a_loop
from tests.service.pictures import plain as picture

RED = picture("red")
IN_BASE64 = base64.b64encode(RED).decode()
FORM = "multipart/form-data; boundary=b"
MANY = "/predict?top=3"


def form(*parts: bytes, end: bytes = b"--b--\r\n") -> bytes:
    """Return a form of ``parts``, each with its head."""
    return b"".join(b"--b\r\n" + part + b"\r\n" for part in parts) + end


def part(
    content: bytes = RED, head: bytes = b'Content-Disposition: form-data; name="image"; filename="a.png"'
) -> bytes:
    """Return one part."""
    return head + b"\r\n\r\n" + content


BATCH, V1, V2 = "/predict/batch", "/v1/models/colours", "/v2/models"
NAMED = b'Content-Disposition: form-data; name="%b"'
TENSOR = {"name": "image_bytes", "datatype": "BYTES", "shape": [1], "data": [IN_BASE64]}


def form_of(head: bytes, content: bytes = RED) -> bytes:
    """Return a form of one part."""
    return form(part(content, head))


def in_json(**document: object) -> bytes:
    """Return a JSON document."""
    return json.dumps(document).encode()


REQUESTS = {
    "file": ("/predict", "image/png", RED),
    "query": (MANY, "image/png", RED),
    "wrong-query": ("/predict?top=x", "image/png", RED),
    "unknown-query": ("/predict?topk=3", "image/png", RED),
    "unknown-query-of-a-protocol": ("/v2/models/colours/infer?topk=3", "application/json", in_json(inputs=[TENSOR])),
    "no-type": ("/predict", "", RED),
    "no-picture": ("/predict", "image/png", b"nonsense"),
    "empty": ("/predict", "image/png", b""),
    "unknown-type": ("/predict", "text/plain", b"a"),
    "form": ("/predict", FORM, form(part())),
    "form-with-type": ("/predict", FORM, form_of(NAMED % b"file" + b"; filename=a\r\nContent-Type: a/b")),
    "form-without-quotes": ("/predict", FORM, form_of(b"Content-Disposition: form-data; name=image; filename=a")),
    "form-with-utf-8": (BATCH, FORM, form_of(NAMED % b"images" + '; filename="ä.png"'.encode())),
    "form-with-quote": (BATCH, FORM, form_of(NAMED % b"images" + b'; filename="a%22.png"')),
    "form-with-empty-name": (BATCH, FORM, form_of(NAMED % b"images" + b'; filename=""')),
    "form-with-preamble": ("/predict", FORM, b"hello\r\n" + form(part())),
    "form-that-ends-early": ("/predict", FORM, form(part(), end=b"")),
    "form-with-text": ("/predict", FORM, form_of(NAMED % b"image", b"a")),
    "form-of-two": ("/predict", FORM, form(part(), part())),
    "form-of-many": (BATCH, FORM, form(*[part(b"1")] * 101)),
    "form-without-boundary": ("/predict", "multipart/form-data", form(part())),
    "form-with-the-boundary-inside": (BATCH, FORM, form(part(b"a--b\r\nb"))),
    "json": ("/predict", "application/json", in_json(image=IN_BASE64)),
    "batch": (BATCH, "application/json", in_json(images=[IN_BASE64, "x", IN_BASE64])),
    "long-answer": (BATCH, "application/json", in_json(images=[IN_BASE64] * 8)),
    "v1": (f"{V1}:predict", "", in_json(instances=[{"b64": IN_BASE64}], signature_name="serve_bytes")),
    "v1-wrong": (f"{V1}:predict", "", b"{"),
    "v1-version-too-large": (f"{V1}/versions/99999999999999999999:predict", "", b"{}"),
    "v2": (f"{V2}/colours/infer", "application/json", in_json(inputs=[TENSOR])),
    "v2-unknown-model": (f"{V2}/nothing/infer", "application/json", b"{}"),
}


def written(path: str, kind: str, body: bytes, headers: Mapping[str, str] | None = None) -> bytes:
    """Return a POST as clients send it."""
    lines = {"Host": "localhost", "Content-Type": kind, "Content-Length": str(len(body)), **(headers or {})}
    head = "".join(f"{name}: {value}\r\n" for name, value in lines.items() if value)
    return f"POST {path} HTTP/1.1\r\n{head}\r\n".encode() + body


def answered(app: Flask, data: bytes, room: int = 10_000_000) -> tuple[http.client.HTTPResponse, bytes] | None:
    """Return the answer to ``data`` as an HTTP client reads it; None where the parser should read it."""
    services: Services = app.extensions["services"]

    def work(loop: Loop) -> bytes | None:
        short = ShortRequests(app, DIALECTS, services, loop, Room(room))
        plain = plain_requests.read(data)
        return short.answer(plain, "192.0.2.1") if plain and plain.whole and short.takes(plain) else None

    answer = on_a_loop(work)
    return None if answer is None else parsed(answer)


@pytest.mark.parametrize("asked", [pytest.param(request, id=name) for name, request in REQUESTS.items()])
@pytest.mark.parametrize("compressed", [False, True])
def test_answers_are_those_of_flask(
    app: Flask, client: FlaskClient, asked: tuple[str, str, bytes], *, compressed: bool
) -> None:
    """Status, body and headers are what Flask answers to the same request, whatever is right or wrong with it."""
    path, kind, body = asked
    headers = {"Accept-Encoding": "gzip"} if compressed else {}
    expected = client.post(path, data=body, content_type=kind or None, headers=headers)
    found = answered(app, written(path, kind, body, headers))
    assert found is not None
    response, content = found
    assert response.status == expected.status_code
    theirs = {
        name: value for name, value in response.getheaders() if name not in ("Date", "Connection", "X-Request-ID")
    }
    assert theirs == {name: value for name, value in expected.headers if name != "X-Request-ID"}
    assert unpacked(content, theirs) == unpacked(expected.data, dict(expected.headers))


def unpacked(content: bytes, headers: Mapping[str, str]) -> bytes:
    """Return what is in a body: two runs of a compressor may differ in a time stamp."""
    return gzip.decompress(content) if headers.get("Content-Encoding") == "gzip" else content


def test_some_answers_are_compressed(app: Flask) -> None:
    """Of the requests above one has an answer that is long enough: else nothing would be proved of compression."""
    path, kind, body = REQUESTS["long-answer"]
    found = answered(app, written(path, kind, body, {"Accept-Encoding": "gzip"}))
    assert found is not None
    assert found[0].headers["Content-Encoding"] == "gzip"


@pytest.mark.parametrize(
    "headers",
    [
        pytest.param({"Content-Encoding": "gzip"}, id="compressed"),
        pytest.param({"Content-Encoding": "identity"}, id="said-not-to-be-compressed"),
        pytest.param({"X_Request_ID": "a"}, id="underscore"),
        pytest.param({"Connection": "close"}, id="close"),
        pytest.param({"content-type": "image/jpeg"}, id="twice"),
    ],
)
def test_what_is_not_plain_is_left_to_the_parser(app: Flask, headers: dict[str, str]) -> None:
    """Heads that WSGI has no one word for, and bodies that become larger, go to gunicorn and Flask."""
    assert answered(app, written("/predict", "image/png", RED)) is not None
    assert answered(app, written("/predict", "image/png", RED, headers)) is None


@pytest.mark.parametrize("path", ["/nothing", "/health", "/v2/repository/index", "/v1/models/%63olours:predict"])
def test_other_routes_are_left_to_flask(app: Flask, path: str) -> None:
    """Only predictions are answered here, and only those whose path needs no unquoting."""
    assert answered(app, written(path, "", b"{}")) is None


@pytest.mark.parametrize(
    ("kind", "size", "taken"),
    [
        pytest.param("application/json", 16 * 1024, True, id="short-json"),
        pytest.param("application/json", 16 * 1024 + 1, False, id="long-json"),
        pytest.param("application/octet-stream", 16 * 1024 + 1, False, id="tensor"),
        pytest.param("image/png", 900_000, True, id="photograph"),
        pytest.param(FORM, 900_000, True, id="photograph-in-a-form"),
        pytest.param("image/png", 1_000_001, False, id="longer-than-allowed"),
    ],
)
def test_long_requests_are_left_to_threads(app: Flask, kind: str, size: int, *, taken: bool) -> None:
    """What would take long on the loop is not taken; a photograph is, since a thread decodes it."""
    assert (answered(app, written("/predict", kind, bytes(size))) is not None) == taken


def test_bodies_count_while_they_are_here(app: Flask) -> None:
    """Where other bodies take all the memory that there is for them, the gateway refuses, and nothing is answered."""
    assert answered(app, written("/predict", "image/png", RED), room=len(RED)) is not None
    assert answered(app, written("/predict", "image/png", RED), room=len(RED) - 1) is None


def test_requests_are_named_and_counted(app: Flask) -> None:
    """The client's request id comes back, and the metrics know the request by its route, as Flask's."""
    services: Services = app.extensions["services"]
    registry = services.metrics.registry
    labels = {"route": "/predict", "method": "POST", "status": "200"}

    def counts() -> list[float]:
        names = ("darkroom_requests_total", "darkroom_request_seconds_count")
        return [registry.get_sample_value(name, labels) or 0 for name in names]

    before = counts()
    found = answered(app, written("/predict", "image/png", RED, {"X-Request-ID": "mine"}))
    assert found is not None
    assert found[0].headers["X-Request-ID"] == "mine"
    assert counts() == [count + 1 for count in before]
    assert registry.get_sample_value("darkroom_requests_in_flight") == 0


def test_a_fault_of_the_service_is_told_as_everywhere(app: Flask, monkeypatch: pytest.MonkeyPatch) -> None:
    """An error that nobody foresaw is a 500 in JSON, and the connection's greenlet lives on."""
    services: Services = app.extensions["services"]

    def fail(*_: object, **__: object) -> Any:
        raise KeyError("unforeseen")

    monkeypatch.setattr(services.predictor, "predict_one", fail)
    found = answered(app, written("/predict", "image/png", RED))
    assert found is not None
    assert found[0].status == 500
    assert json.loads(found[1])["error"] == "internal_error"
    assert services.metrics.registry.get_sample_value("darkroom_requests_in_flight") == 0


@pytest.mark.slow
def test_heads_mean_what_gunicorn_reads_in_them() -> None:
    """Of 20,000 damaged requests, each that is taken has the headers and the body that gunicorn's parser finds."""
    chance = random.Random(0)
    pieces = [
        b"\r\n",
        b"\n",
        b"\r",
        b" ",
        b"\t",
        b":",
        b"\0",
        b",",
        b"5",
        b"_",
        b"-",
        b"\x80",
        b"Host",
        b"Content-Type",
    ]
    taken = 0
    for _ in range(20_000):
        data = bytearray(written("/predict", "image/png", b"12345", {"X-Request-ID": "a", "Accept": "*/*"}))
        for _ in range(chance.randint(1, 3)):
            at = chance.randrange(len(data))
            data[at : at + chance.choice((0, 0, 1, 2))] = chance.choice(pieces)
        plain = plain_requests.read(bytes(data))
        environ = _environ(plain, None) if plain and plain.whole else None
        if plain is None or environ is None:
            continue
        taken += 1
        read = next(RequestParser(Config(), iter([bytes(data)]), ("127.0.0.1", 1)))
        assert plain.target == (read.uri or "").encode(), bytes(data)
        assert read.body is not None
        assert plain.body == read.body.read(), bytes(data)
        expected = {name.replace("-", "_"): value for name, value in read.headers}
        headers = [key for key in environ if key.startswith(("HTTP_", "CONTENT_"))]
        assert {key.removeprefix("HTTP_"): environ[key] for key in headers} == expected, bytes(data)
    assert 1000 < taken < 15_000
