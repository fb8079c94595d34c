"""Clients that hold connections, send slowly, or send what is much work: nobody else waits for them."""

import contextlib
import gzip
import http
import resource
import socket
import time
import zlib
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from tests.reliability.campaign import Campaign, counted
from tests.reliability.others import Others
from tests.service.conftest import StartService
from tests.service.running import RunningService, wait_for, workers

pytestmark = [pytest.mark.process, pytest.mark.slow, pytest.mark.timing]

BAR = (
    "the p99 of others grows by less than 100 ms (short: 1 s), all of them (short: 95%) and all probes are answered; "
    "no 5xx but 503 and 504; no connection is left"
)
ALLOWED = {503, 504}
_ADDRESS = "127.0.0.2"  # of whoever does harm; the others have 127.0.0.1
_PARTS = 20
_FLOODERS = 2
_OF_ITS_OWN = 4  # sockets that the service may open meanwhile
_PATIENCE = 20.0  # seconds


def post(*headers: str) -> bytes:
    """Return the head of a request for a prediction."""
    lines = ("POST /predict HTTP/1.1", "Host: localhost", *headers)
    return "\r\n".join(lines).encode() + b"\r\n\r\n"


@dataclass(frozen=True)
class Slow:
    """What each of many clients sends at once, and then again and again."""

    short: int  # clients
    whole: int
    first: bytes = b""
    again: bytes = b""
    reads: bool = True
    ends: bool = False  # the service ends it although the client goes on


SCRIPT = b"GET /docs/swagger-ui-bundle.js HTTP/1.1\r\nHost: localhost\r\n\r\n"  # of more than a megabyte
SLOW = {
    "connections without a word": Slow(1000, 10_000),
    "heads of a byte a second": Slow(1000, 9000, b"GET / HTTP/1.1\r\nHost: localhost\r\na: ", b"b", ends=True),
    "bodies of a byte a second": Slow(500, 4100, post("Content-Length: 1000000"), b"x", ends=True),
    "chunks of a byte a second": Slow(500, 4100, post("Transfer-Encoding: chunked"), b"1\r\nx\r\n", ends=True),
    "answers that are not read": Slow(200, 2000, SCRIPT, SCRIPT, reads=False),
}


@pytest.fixture(autouse=True)
def many_files() -> Iterator[None]:
    """Let this process hold as many connections as the system allows it."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@pytest.mark.campaign("many clients are slow at the same time, while others ask", bar=BAR)
@pytest.mark.parametrize("kind", SLOW, ids=lambda kind: kind.replace(" ", "-"))
def test_slow_clients(campaign: Campaign, start_service: StartService, kind: str) -> None:
    """Whoever does not get on makes room for others."""
    slow = SLOW[kind]
    running = start_service()
    before = _sockets(running)
    with Others(running.url) as others:
        time.sleep(campaign.size(1.5, 10.0))
        began = time.monotonic()
        with ExitStack() as stack:
            crowd = _Crowd(running, stack, campaign.size(slow.short, slow.whole))
            asked = crowd.count
            crowd.send(slow.first)
            end = time.monotonic() + campaign.size(3.0, 60.0)
            while time.monotonic() < end:
                for part in range(_PARTS):  # of independent clients, each has its own moment in a second
                    time.sleep(1 / _PARTS)
                    crowd.send(slow.again, part)
                if slow.reads:
                    crowd.read()
            left = crowd.count
        ended = time.monotonic()
    campaign.report(clients=asked, of_these_at_the_end=left)
    _assert_others_are_served(campaign, others, began, ended)
    wait_for(lambda: _sockets(running) <= before + _OF_ITS_OWN, running.log)
    assert crowd.statuses.keys() <= {200, 408, *ALLOWED}
    assert not (campaign.whole and slow.ends) or left == 0


class _Crowd:
    """Connections from one address, none of which waits for anything."""

    def __init__(self, running: RunningService, stack: ExitStack, count: int) -> None:
        """Connect; ``stack`` closes what is left."""
        self._connections: dict[socket.socket, None] = {}  # in order
        self.statuses: Counter[int] = Counter()
        for _ in range(count):
            with contextlib.suppress(OSError):
                connection = stack.enter_context(_connect(running))
                connection.setblocking(False)
                self._connections[connection] = None

    @property
    def count(self) -> int:
        """How many connections the service has not ended, as far as that was seen."""
        return len(self._connections)

    def send(self, data: bytes, part: int | None = None) -> None:
        """Send ``data`` on each connection, or on each of one of their parts, as far as it goes."""
        connections = [*self._connections]
        if data:
            self._each(connections if part is None else connections[part::_PARTS], lambda each: each.send(data))

    def read(self) -> None:
        """Read what has come on each connection, and note how answers begin."""
        self._each([*self._connections], self._read)

    def _read(self, connection: socket.socket) -> int:
        data = connection.recv(65536)
        if data.startswith(b"HTTP/1.1 "):
            self.statuses[int(data[9:12])] += 1
        return len(data)

    def _each(self, connections: Sequence[socket.socket], call: Callable[[socket.socket], int]) -> None:
        """Call ``call`` for each of ``connections``; those where it finds the end, or that are broken, are closed."""
        for connection in connections:
            try:
                ended = not call(connection)
            except BlockingIOError:
                ended = False
            except OSError:
                ended = True
            if ended:
                connection.close()
                del self._connections[connection]


def _one_byte_chunks() -> bytes:
    return post("Transfer-Encoding: chunked") + b"1\r\nx\r\n" * 2_000_000 + b"0\r\n\r\n"


def _body(content: bytes, *headers: str) -> bytes:
    return post(f"Content-Length: {len(content)}", *headers) + content


def _form(parts: bytes) -> bytes:
    return _body(b"--b\r\n" + parts + b"\r\n--b--\r\n", "Content-Type: multipart/form-data; boundary=b")


NAMED = b'Content-Disposition: form-data; name="image"; filename="a.png"\r\n'
FLOODS: dict[str, Callable[[], bytes]] = {
    "12 MB of one-byte chunks": _one_byte_chunks,
    "a part with a header of 30 MB": lambda: _form(
        NAMED + b"a: " + bytes(30_000_000).replace(b"\0", b"b") + b"\r\n\r\nx"
    ),
    "a part with a million headers": lambda: _form(NAMED + b"a: b\r\n" * 1_000_000 + b"\r\nx"),
    "300,000 parts": lambda: _form(b"\r\n--b\r\n".join([NAMED + b"\r\nx"] * 300_000)),
    "a million empty gzip members": lambda: _body(gzip.compress(b"") * 1_000_000, "Content-Encoding: gzip"),
    "a gigabyte in a gzip of a megabyte": lambda: _body(_zeros(1024), "Content-Encoding: gzip"),
    "a body of 400 MB that is sent": lambda: post("Content-Length: 400000000") + bytes(64 * 1024 * 1024),
    "20,000 requests at once": lambda: b"GET /health/live HTTP/1.1\r\nHost: localhost\r\n\r\n" * 20_000,
    "a head of 10 MB": lambda: post(*(f"a{number}: b" for number in range(700_000))),
    "ten million nested lists": lambda: _body(b'{"images": ' + b"[" * 10_000_000, "Content-Type: application/json"),
}


def _zeros(mebibytes: int) -> bytes:
    """Return the gzip of so many MiB of zeros."""
    compressor = zlib.compressobj(9, wbits=31)
    return b"".join(compressor.compress(bytes(2**20)) for _ in range(mebibytes)) + compressor.flush()


@pytest.mark.campaign("two clients send what is much work for few bytes, again and again, while others ask", bar=BAR)
@pytest.mark.parametrize("kind", FLOODS, ids=lambda kind: kind.replace(" ", "-"))
def test_flood(campaign: Campaign, start_service: StartService, kind: str) -> None:
    """Each is refused, or answered piece by piece."""
    sent = FLOODS[kind]()
    running = start_service()
    before = _sockets(running)
    statuses: Counter[int | None] = Counter()
    with Others(running.url) as others:
        time.sleep(campaign.size(1.5, 10.0))
        began = time.monotonic()
        end = began + campaign.size(3.0, 60.0)
        with ThreadPoolExecutor(_FLOODERS) as pool:
            for found in pool.map(lambda _: _flood(running, sent, end), range(_FLOODERS)):
                statuses += found
        ended = time.monotonic()
    campaign.report(bytes=len(sent), answers=counted(statuses))
    _assert_others_are_served(campaign, others, began, ended)
    wait_for(lambda: _sockets(running) <= before + _OF_ITS_OWN, running.log)
    assert not {status for status in statuses if status is not None and status >= 500} - ALLOWED


def _flood(running: RunningService, data: bytes, end: float) -> Counter[int | None]:
    """Send ``data`` on one connection after the other until ``end``; return how answers begin, None for no answer."""
    statuses: Counter[int | None] = Counter()
    while time.monotonic() < end:
        answer = b""
        with contextlib.suppress(OSError), _connect(running) as connection:
            with contextlib.suppress(OSError):  # the service may answer early, and close
                connection.sendall(data)
            answer = connection.recv(12)
        statuses[int(answer[9:]) if answer.startswith(b"HTTP/1.1 ") else None] += 1
    return statuses


def _connect(running: RunningService) -> socket.socket:
    """Connect from the address of those who do harm."""
    address = urlsplit(running.url)
    return socket.create_connection((str(address.hostname), address.port or 80), _PATIENCE, (_ADDRESS, 0))


def _sockets(running: RunningService) -> int:
    """Return how many sockets the workers have open."""
    count = 0
    for worker in workers(running):
        for file in Path(f"/proc/{worker}/fd").iterdir():
            with contextlib.suppress(FileNotFoundError):  # it was closed meanwhile
                count += str(file.readlink()).startswith("socket:")
    return count


def _assert_others_are_served(campaign: Campaign, others: Others, began: float, ended: float) -> None:
    """Compare what others waited between two moments with what they waited before."""
    quiet, during = others.percentile(99, until=began), others.percentile(99, since=began, until=ended)
    refused = [lost for lost in others.lost if lost.status == http.HTTPStatus.SERVICE_UNAVAILABLE]
    unanswered = [probe for path in ("/health/live", "/health/ready") for probe in others.failed_probes(path)]
    campaign.report(
        p99_before_ms=quiet,
        p99_meanwhile_ms=during,
        longest_ms=others.percentile(100),
        others=len(others.answers),
        refused=len(refused),
        lost=len(others.lost) - len(refused),
        probes_failed=len(unanswered),
    )
    assert [lost for lost in others.lost if lost not in refused] == []
    assert len(refused) <= campaign.size(0.05, 0.0) * len(others.answers)
    assert unanswered == []
    assert during - quiet < campaign.size(1000.0, 100.0)
