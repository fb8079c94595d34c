"""Requests that no client should send, byte by byte: to every route, by every method, and broken by chance."""

import base64
import contextlib
import gzip
import json
import random
import re
import socket
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.reliability.campaign import Campaign, counted
from tests.reliability.others import Others
from tests.service.conftest import StartService
from tests.service.pictures import plain
from tests.service.running import RunningService, connect, metric

pytestmark = [pytest.mark.process, pytest.mark.slow, pytest.mark.timing]

BAR = "each is answered or its connection closed within 10 s; no 5xx but 501, 503, 504 and 505; nobody else is lost"
ALLOWED = {501, 503, 504, 505}  # 501 for a transfer coding, 505 for a version of HTTP that nobody has
METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "CONNECT", "PROPFIND", "get", "G\xcbT")
SECONDS = 10.0
_CLIENTS = 4

HOST = b"Host: localhost\r\n"
INNER = b"GET /health/live HTTP/1.1\r\nHost: localhost\r\n\r\n"  # what a proxy that reads otherwise would let through
LENGTH = f"Content-Length: {len(INNER)}\r\n".encode()
CHUNK = b"%x\r\n%b\r\n0\r\n\r\n" % (len(INNER), INNER)

# Heads that two readers may read in two ways, each with a body that is a request: it must never be answered as one.
AMBIGUOUS: Mapping[str, bytes] = {
    "length and chunks": LENGTH + b"Transfer-Encoding: chunked\r\n\r\n" + CHUNK,
    "chunks and length": b"Transfer-Encoding: chunked\r\n" + LENGTH + b"\r\n" + CHUNK,
    "two lengths": b"Content-Length: 0\r\n" + LENGTH + b"\r\n" + INNER,
    "two lengths in one": b"Content-Length: 0, 5\r\n\r\n" + INNER,
    "a length with a sign": b"Content-Length: +0\r\n\r\n" + INNER,
    "a negative length": b"Content-Length: -1\r\n\r\n" + INNER,
    "a length in hexadecimal": b"Content-Length: 0x0\r\n\r\n" + INNER,
    "a length with an underscore": b"Content-Length: 0_0\r\n\r\n" + INNER,
    "a length in other digits": "Content-Length: \u0660\r\n\r\n".encode() + INNER,
    "a length of nothing": b"Content-Length: \r\n\r\n" + INNER,
    "a space before the colon": b"Content-Length : 0\r\n\r\n" + INNER,
    "a folded length": b"Content-Length:\r\n 0\r\n\r\n" + INNER,
    "a folded header": b"A: b\r\n c: d\r\n\r\n" + INNER,
    "a coding that is folded": b"Transfer-Encoding:\r\n chunked\r\n\r\n" + CHUNK,
    "a coding in quotes": b'Transfer-Encoding: "chunked"\r\n\r\n' + CHUNK,
    "an unknown coding": b"Transfer-Encoding: xchunked\r\n\r\n" + CHUNK,
    "a coding behind a tab": b"Transfer-Encoding:\tchunked, identity\r\n\r\n" + CHUNK,
    "chunks in chunks": b"Transfer-Encoding: chunked, chunked\r\n\r\n" + CHUNK,
    "two codings": b"Transfer-Encoding: identity\r\nTransfer-Encoding: chunked\r\n" + LENGTH + b"\r\n" + CHUNK,
    "a coding with a vertical tab": b"Transfer-Encoding: \x0bchunked\r\n\r\n" + CHUNK,
    "a chunk of a negative size": b"Transfer-Encoding: chunked\r\n\r\n-1\r\n" + INNER,
    "a chunk of a size with a prefix": b"Transfer-Encoding: chunked\r\n\r\n0x0\r\n\r\n" + INNER,
    "a chunk of too large a size": b"Transfer-Encoding: chunked\r\n\r\nfffffffffffffffff0\r\n" + INNER,
    "a chunk that ends elsewhere": b"Transfer-Encoding: chunked\r\n\r\n1\r\nxy\r\n0\r\n\r\n" + INNER,
    "a chunk's line that ends in a line feed": b"Transfer-Encoding: chunked\r\n\r\n0\n\n" + INNER,
    "an extension with a line feed": b"Transfer-Encoding: chunked\r\n\r\n0;a\nb\r\n\r\n" + INNER,
    "a zero byte in a name": b"A\0: b\r\n\r\n" + INNER,
    "a zero byte in a value": b"A: b\0\r\n\r\n" + INNER,
    "a carriage return in a value": b"A: b\rContent-Length: 5\r\n\r\n" + INNER,
    "a line feed alone": b"A: b\nContent-Length: 0\n\n" + INNER,
    "a line without a colon": b"nonsense\r\n\r\n" + INNER,
    "a line that begins with a colon": b": b\r\n\r\n" + INNER,
}


@pytest.fixture
def running(start_service: StartService) -> RunningService:
    """A service that gives up on bodies soon enough for a campaign."""
    return start_service()


@pytest.mark.campaign("requests of every method to every route, with no body, and with bodies that are no use", bar=BAR)
def test_methods(campaign: Campaign, running: RunningService) -> None:
    """Whatever a route is asked, it answers."""
    bodies = [b"", b"{", plain("red"), bytes(campaign.size(1000, 100_000))]
    asked = [
        f"{method} {path} HTTP/1.1\r\nContent-Length: {len(body)}\r\n".encode("latin-1") + HOST + b"\r\n" + body
        for path in _paths(running)
        for method in METHODS
        for body in (bodies if campaign.whole else bodies[:2])
    ]
    _ask_and_judge(campaign, running, asked)


@pytest.mark.campaign("requests whose end two readers may find in two places, with another request inside", bar=BAR)
def test_smuggling(campaign: Campaign, running: RunningService) -> None:
    """What is inside is never answered: there is one answer at most, and then the connection ends."""
    paths = _paths(running) if campaign.whole else ["/predict", "/health/live", "/nowhere"]
    asked = {
        f"{name}, {method} {path}": f"{method} {path} HTTP/1.1\r\n".encode() + HOST + head
        for name, head in AMBIGUOUS.items()
        for method in ("GET", "POST")
        for path in paths
    }
    answers = _ask_and_judge(campaign, running, list(asked.values()))
    twice = [name for name, statuses in zip(asked, answers, strict=True) if len(statuses) > 1]
    assert twice == []


@pytest.mark.campaign("right requests of every kind with some bytes changed, lost, doubled or put in", bar=BAR)
def test_broken_by_chance(campaign: Campaign, running: RunningService) -> None:
    """Every seed that once found something stays found: the requests are the same in every run."""
    draw = random.Random(23)
    right = list(_right_requests())
    asked = [_broken(draw, draw.choice(right)) for _ in range(campaign.size(500, 50_000))]
    _ask_and_judge(campaign, running, asked)


def _ask_and_judge(campaign: Campaign, running: RunningService, asked: list[bytes]) -> list[list[int]]:
    """Send each request on a connection of its own; return the statuses of the answers to each."""
    with Others(running.url) as others, ThreadPoolExecutor(_CLIENTS) as pool:
        found = list(pool.map(lambda request: _answers(running, request), asked))
    statuses = Counter(status for each in found if each is not None for status in each)
    hung = [request for request, each in zip(asked, found, strict=True) if each is None]
    campaign.report(
        requests=len(asked),
        answers=counted(statuses),
        hung=len(hung),
        p99_of_others_ms=others.percentile(99),
        others_lost=len(others.lost),
    )
    assert hung == []
    assert [
        (request[:200], each)
        for request, each in zip(asked, found, strict=True)
        if any(status >= 500 and status not in ALLOWED for status in each or ())
    ] == []
    assert others.lost == []
    assert metric(running, "worker_starts_total") == 1
    assert "Traceback" not in running.log()
    return [each or [] for each in found]


def _answers(running: RunningService, request: bytes) -> list[int] | None:
    """Return the statuses of all answers until the service closes the connection; None where it does not in time."""
    received = b""
    deadline = time.monotonic() + SECONDS
    with connect(running) as connection:
        with contextlib.suppress(OSError):  # it may be refused before it is all there
            connection.sendall(request)
            connection.shutdown(socket.SHUT_WR)
        try:
            while block := connection.recv(65536):
                received += block
                connection.settimeout(max(0.001, deadline - time.monotonic()))
        except TimeoutError:
            return None
        except OSError:
            pass
    return [int(status) for status in re.findall(rb"HTTP/1\.1 (\d{3}) ", received)]


def _paths(running: RunningService) -> list[str]:
    """Return the paths of all routes, with names that are there, and some that are no route's."""
    described = running.get("/openapi.json").json()["paths"]
    known = {"name": "colours", "model": "colours", "version": "1", "label": "red"}
    routes = [re.sub(r"\{(\w+)\}", lambda found: known.get(found[1], "1"), path) for path in described]
    return [
        *routes,
        "/",
        "/nowhere",
        "//predict",
        "/predict/",
        "/%00",
        "/..%2f..%2fetc/passwd",
        "*",
        "http://localhost/model",
    ]


def _right_requests() -> Iterator[bytes]:
    """Yield a request of each kind, as clients send them."""
    picture = plain("red")
    form = b'--b\r\nContent-Disposition: form-data; name="image"; filename="a.png"\r\n\r\n' + picture + b"\r\n--b--\r\n"
    text = base64.b64encode(picture).decode()
    tensor = {"name": "image_bytes", "datatype": "BYTES", "shape": [1], "data": [text]}
    bodies = {
        ("/predict", "image/png"): picture,
        ("/predict?top=2", "multipart/form-data; boundary=b"): form,
        ("/predict", "application/json"): json.dumps({"image": text}).encode(),
        ("/v1/models/colours:predict", "application/json"): json.dumps({"instances": [{"b64": text}]}).encode(),
        ("/v2/models/colours/infer", "application/json"): json.dumps({"inputs": [tensor]}).encode(),
        ("/predict/batch", "application/octet-stream"): bytes(32 * 32 * 3),
    }
    for (path, kind), body in bodies.items():
        begin = f"POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: {kind}\r\nAccept-Encoding: gzip\r\n".encode()
        yield begin + f"Content-Length: {len(body)}\r\n\r\n".encode() + body
        yield begin + b"Transfer-Encoding: chunked\r\n\r\n%x\r\n%b\r\n0\r\n\r\n" % (len(body), body)
        packed = gzip.compress(body)
        yield begin + f"Content-Encoding: gzip\r\nContent-Length: {len(packed)}\r\n\r\n".encode() + packed
    for path in ("/", "/model", "/metrics", "/docs", "/openapi.json", "/v2/health/ready"):
        yield f"GET {path} HTTP/1.1\r\nHost: localhost\r\nIf-None-Match: *\r\nRange: bytes=0-1\r\n\r\n".encode()


def _broken(draw: random.Random, request: bytes) -> bytes:
    """Return ``request`` with one to six faults, most of them in its head."""
    data = bytearray(request)
    for _ in range(draw.randint(1, 6)):
        head = data.find(b"\r\n\r\n") + 4
        place = draw.randrange(head if draw.random() < 0.8 and head > 3 else len(data))
        size = draw.choice((1, 1, 2, 8, 40))
        what = draw.randrange(4)
        if what == 0:
            data[place : place + size] = draw.randbytes(size)
        elif what == 1 and len(data) > size:
            del data[place : place + size]
        elif what == 2:
            data[place:place] = data[place : place + size]
        else:
            data[place:place] = draw.choice(
                (b"\r\n", b"\n", b"\0", b" ", b":", b"\xff", b"9" * size, draw.randbytes(size))
            )
    return bytes(data)
