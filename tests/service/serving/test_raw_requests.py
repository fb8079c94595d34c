"""Raw bytes on every route: odd, wrong and ambiguous requests are told as the client's fault and harm nobody else."""

import random
import re
import socket
import time

import pytest
import requests

from tests.service.conftest import StartService
from tests.service.pictures import plain
from tests.service.running import RunningService

pytestmark = pytest.mark.process

METHODS = ("GET", "POST", "HEAD", "OPTIONS", "PUT", "DELETE", "PATCH", "TRACE", "CONNECT", "BREW", "get")
MORE_TARGETS = (
    "*",
    "//",
    "/%00",
    "/%ff",
    "/..%2f",
    "http://a/predict",
    "/predict?top=%00",
    "/predict/../model",
    "/\xff",
)
HEADERS = (
    "",
    "Content-Length: 5",
    "Content-Length: 5\r\nContent-Length: 5",
    "Content-Length: 5\r\nContent-Length: 6",
    "Content-Length: +5",
    "Content-Length: 5, 5",
    "Content-Length: -1",
    "Content-Length: \xb2",
    "Content-Length: " + "9" * 30,
    "Content-Length: " + "9" * 5000,
    "Transfer-Encoding: chunked",
    "Transfer-Encoding: chunked\r\nContent-Length: 5",
    "Transfer-Encoding: chunked, chunked",
    "Transfer-Encoding: gzip, chunked",
    "Transfer-Encoding: identity",
    "Transfer-Encoding: xchunked",
    "Transfer-Encoding : chunked",
    " Transfer-Encoding: chunked",
    "X: a\r\n b",
    "Expect: 100-continue\r\nContent-Length: 99999999999",
    "Expect: flight",
    "Connection: upgrade\r\nUpgrade: websocket",
    "Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQAoAAAAAIAAAAA",
    "SCRIPT_NAME: /x",
    "Host: b",
    "Host: \x00",
    "X-Request-ID: a\x0bb",
    "X-Request-ID: " + "a" * 5000,
    "Accept-Encoding: " + ",".join(["gzip;q=0.5"] * 500),
    "Content-Encoding: gzip\r\nContent-Length: 5",
    "Content-Encoding: br\r\nContent-Length: 5",
    "Content-Type: multipart/form-data\r\nContent-Length: 5",
    "Content-Type: multipart/form-data; boundary=" + "b" * 3000 + "\r\nContent-Length: 5",
    'Content-Type: multipart/form-data; boundary="\x80a"\r\nContent-Length: 5',
    "Content-Type: application/json; charset=nonsense\r\nContent-Length: 5",
    "Inference-Header-Content-Length: -3\r\nContent-Length: 5",
    "Range: bytes=0-5",
    "If-Modified-Since: nonsense",
    "Cookie: " + "a=b;" * 1000,
    "A: b\r\n" * 150,
)
BODIES = (
    "",
    "abcde",
    "5\r\nabcde\r\n0\r\n\r\n",
    '5;x="y"\r\nabcde\r\n0\r\nA: b\r\n\r\n',
    "5\nabcde\n0\n\n",
    "FFFFFFFFFFFFFFFFFFFFF\r\n",
    "-5\r\nabcde\r\n",
    "0x5\r\nabcde\r\n0\r\n\r\n",
    "5\r\nabcdefg\r\n0\r\n\r\n",
    "0\r\nContent-Length: 5\r\n\r\n",
    "5;" + "a" * 50_000 + "\r\nabcde\r\n0\r\n\r\n",
    "0\r\n" + "a: b\r\n" * 5000 + "\r\n",
)


def answers(running: RunningService, sent: bytes) -> bytes:
    """Return all that comes back where ``sent`` is all that a client says."""
    host, port = running.url.removeprefix("http://").split(":")
    answer = b""
    with socket.create_connection((host, int(port)), timeout=30) as connection:
        connection.sendall(sent)
        connection.shutdown(socket.SHUT_WR)
        while block := connection.recv(65536):
            answer += block
    return answer


def statuses(answer: bytes) -> list[int]:
    """Return the status of each answer, without those that only say to go on."""
    found = [int(status) for status in re.findall(rb"(?:\A|\n)HTTP/1\.[01] (\d{3})", answer)]
    return [status for status in found if status != 100]


@pytest.mark.slow
def test_no_request_is_a_fault_of_the_service(shared_service: StartService) -> None:
    """Of a sample of all combinations each is answered, none with 500 or more, and none holds up for long."""
    running = shared_service()
    paths = requests.get(f"{running.url}/openapi.json", timeout=30).json()["paths"]
    targets = [*(re.sub(r"{[^}]*}", "colours", path) for path in paths), *MORE_TARGETS]
    chance = random.Random(0)
    for _ in range(1500):
        method, target, version = chance.choice(METHODS), chance.choice(targets), chance.choice(("1.0", "1.1"))
        head = f"{method} {target} HTTP/{version}\r\nHost: test\r\n{chance.choice(HEADERS)}\r\n"
        sent = (head.replace("\r\n\r\n", "\r\n") + "\r\n" + chance.choice(BODIES)).encode("latin-1")
        started = time.monotonic()
        found = statuses(answers(running, sent))
        assert found, sent[:300]
        assert max(found) < 500, sent[:300]
        assert time.monotonic() - started < 10, sent[:300]
    log = running.log()
    assert '"level": "error"' not in log
    assert "Traceback" not in log
    assert max(map(len, log.splitlines())) < 20_000


INNER = b"GET /health/live HTTP/1.1\r\nHost: inner\r\n\r\n"


@pytest.mark.parametrize(
    "sent",
    [
        pytest.param(b"Content-Length: 0\r\nContent-Length: %d" % len(INNER), id="two-lengths"),
        pytest.param(b"Content-Length: %d\r\nTransfer-Encoding: chunked" % len(INNER), id="length-and-chunks"),
        pytest.param(b"Transfer-Encoding: chunked\r\nTransfer-Encoding: identity", id="two-codings"),
        pytest.param(b"Transfer-Encoding: xchunked", id="unknown-coding"),
        pytest.param(b"Transfer-Encoding:\x0bchunked", id="control-character"),
        pytest.param(b"Transfer-Encoding\x00: chunked", id="zero-in-a-name"),
        pytest.param(b"Content-Length: 0,%d" % len(INNER), id="list-of-lengths"),
        pytest.param(b"X: a\r\n Content-Length: %d" % len(INNER), id="folded"),
        pytest.param(b"X: a\nContent-Length: %d" % len(INNER), id="bare-line-feed"),
    ],
)
def test_what_is_ambiguous_hides_no_request(shared_service: StartService, sent: bytes) -> None:
    """Where two readers could disagree on where a request ends, it is refused, and what follows it is not answered."""
    running = shared_service()
    head = b"POST /predict HTTP/1.1\r\nHost: test\r\nContent-Type: image/png\r\n%b\r\n\r\n" % sent
    assert statuses(answers(running, head + b"0\r\n\r\n" + INNER)) == [400]


@pytest.mark.timing
def test_a_flood_of_chunks_keeps_nobody_waiting(shared_service: StartService) -> None:
    """While four clients send bodies in chunks of a byte as fast as they can, others are answered soon."""
    running = shared_service()
    flood = b"POST /predict HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n" + 200_000 * b"1\r\nx\r\n"
    picture, times = plain("red"), []
    host, port = running.url.removeprefix("http://").split(":")
    floods = [socket.create_connection((host, int(port)), timeout=30) for _ in range(4)]
    for connection in floods:
        connection.setblocking(False)
        connection.send(flood)
    with requests.Session() as session:
        for _ in range(50):
            started = time.monotonic()
            assert session.post(f"{running.url}/predict", data=picture, timeout=30).status_code == 200
            times.append(time.monotonic() - started)
    for connection in floods:
        connection.setblocking(True)
        assert b"HTTP/1.1 400" in connection.recv(65536)
        connection.close()
    assert sorted(times)[-2] < 0.2
