"""The worker's connections: gunicorn's own code on a real socket, with an application that is written for the case."""

import contextlib
import gc
import os
import time
import tracemalloc
from collections.abc import Callable, Iterable
from typing import Any, TypeVar

import gevent
import pytest
from gevent import socket
from gevent.server import StreamServer
from gunicorn.config import Config
from gunicorn.glogging import Logger
from gunicorn.http.errors import ParseException
from gunicorn.sock import TCPSocket
from gunicorn.workers.ggevent import GeventWorker

from service.inference.errors import InvalidRequest
from service.serving import connection as connections
from service.serving import worker as workers
from service.serving.connection_table import ConnectionTable
from service.serving.loop import Loop
from service.serving.plain_requests import PlainRequest
from service.serving.worker import DarkroomWorker, _look_again, _Port
from tests.service.loops import PATIENCE, on_a_loop

Result = TypeVar("Result")

ANSWERED, REFUSED = b"answered", b"refused."
IN_CHUNKS = b"POST / HTTP/1.1\r\nHost: test\r\nTransfer-Encoding: chunked\r\n\r\n"
REFUSAL = b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 8\r\n\r\n" + REFUSED


class Overloaded:
    """A service that refuses each request that has arrived as a whole."""

    def answering(self, _: int) -> "Overloaded":
        """Say that the same answers at every port."""
        return self

    def draining(self) -> bool:
        """Say that it goes on."""
        return False

    def overloaded(self) -> bool:
        """Say that there is too much."""
        return True

    def refuse(self, request: PlainRequest, _: str | None) -> bytes | None:
        """Return a 503 to a request that is there up to its end."""
        return REFUSAL if request.whole else None

    def takes(self, _: PlainRequest) -> bool:
        """Say that the parser reads all requests."""
        return False

    def reserve(self, size: int) -> bool:
        """Say that there is room."""
        return True

    def release(self, size: int) -> None:
        """Take note of nothing."""

    def answer(self, request: PlainRequest, client: str | None) -> bytes | None:
        """Answer nothing."""
        return None

    def reject(self, status: int, message: str, request_id: str) -> bytes:
        """Return an answer that holds all of these."""
        return f"HTTP/1.1 {status} {message} {request_id}".encode()

    def takes_body(self, length: int) -> bool:
        """Say that bodies of up to 20 MB are taken."""
        return length <= 20_000_000

    def most_unsent(self) -> int:
        """Let clients leave 50 MB of answers."""
        return 50_000_000


class Calm(Overloaded):
    """The same service, when there is not too much."""

    def overloaded(self) -> bool:
        """Say that requests are answered."""
        return False


CALM = Calm()


class Quick(Calm):
    """A service that answers each plain request by itself, after some time, with its body."""

    def takes(self, request: PlainRequest) -> bool:
        """Say that those with a body of up to 10 bytes are answered here."""
        return request.length <= 10

    def answer(self, request: PlainRequest, client: str | None) -> bytes | None:
        """Return what was sent; leave to the parser what says so."""
        gevent.sleep(0.01)
        return None if request.body == b"parse me" else b"HTTP/1.1 200 OK\r\n\r\n" + request.body


def read_body(environ: Any, start_response: Any) -> Iterable[bytes]:
    """Read the body, then answer."""
    environ["wsgi.input"].read()
    return leave_body(environ, start_response)


def leave_body(environ: Any, start_response: Any) -> Iterable[bytes]:
    """Answer without reading the body."""
    start_response("200 OK", [("Content-Length", str(len(ANSWERED)))])
    return [ANSWERED]


def served(application: Any, client: Callable[[socket.socket], Result], service: Any = CALM) -> Result:
    """Return what ``client`` does on a connection whose other end is served ``application``."""

    def work(_: Loop) -> Result:
        config = Config()
        config.set("keepalive", 75)
        logger = Logger(config)
        sockets: list[Any] = [TCPSocket(("127.0.0.1", 0), config, logger)]  # type: ignore[arg-type]  # not a name
        server = DarkroomWorker(0, os.getppid(), sockets, service, 30, config, logger)
        server.wsgi = application
        server.patch()
        [listener] = server.sockets
        with listener, socket.create_connection(listener.getsockname(), timeout=PATIENCE) as connection:
            accepted, address = listener.accept()
            serving = gevent.spawn(server.handle, listener, accepted, address)
            result = client(connection)
            connection.close()
            serving.join(timeout=PATIENCE)
            assert serving.ready(), "the connection's greenlet never ended"
            server.tmp.close()
            return result

    return on_a_loop(work)


def post(body: bytes, length: int | None = None) -> bytes:
    """Return a POST of ``body``, which says that it has ``length`` bytes."""
    return b"POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d\r\n\r\n%b" % (
        len(body) if length is None else length,
        body,
    )


def all_of(connection: socket.socket) -> bytes:
    """Return what comes until the other side closes."""
    connection.shutdown(socket.SHUT_WR)
    answer = b""
    while block := connection.recv(65536):
        answer += block
    return answer


def test_short_requests_need_no_parser() -> None:
    """A plain request is answered as it is, in however many pieces it came; the connection goes on."""

    def client(connection: socket.socket) -> bytes:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for body in (b"one", b"two"):
            connection.sendall(post(body))
            gevent.sleep(0.03)
        whole = post(b"three")
        connection.sendall(whole[:-5])
        gevent.sleep(0)
        connection.sendall(b"three")
        gevent.sleep(0.03)
        for byte in post(b"four")[:-6]:
            gevent.sleep(0.001)
            connection.sendall(bytes([byte]))
        connection.sendall(post(b"four")[-6:])
        return all_of(connection)

    answers = served(read_body, client, Quick())
    bodies = [answer.rpartition(b"\r\n")[2] for answer in answers.split(b"HTTP/1.1")[1:]]
    assert bodies == [b"one", b"two", b"three", b"four"]


@pytest.mark.parametrize(
    "sent",
    [
        pytest.param([post(b"longer than ten bytes")], id="too-long"),
        pytest.param([post(b"parse me")], id="not-taken-after-all"),
        pytest.param([post(b"one")[:-1], b"e"], id="rest-comes-late"),
    ],
)
def test_other_requests_go_to_the_parser(sent: list[bytes]) -> None:
    """What is not short, plain and there at once is read by gunicorn, with all that had come of it, once."""

    def client(connection: socket.socket) -> bytes:
        connection.sendall(post(b"short"))
        for piece in sent:
            gevent.sleep(0.1)
            connection.sendall(piece)
        return all_of(connection)

    answers = served(read_body, client, Quick())
    assert answers.startswith(b"HTTP/1.1 200 OK\r\n\r\nshort")
    assert answers.endswith(ANSWERED)
    assert answers.count(b"HTTP/1.1") == 2


def test_a_request_that_comes_too_early_waits_for_its_turn() -> None:
    """What arrives while the request before it is answered is neither lost nor answered first."""

    def client(connection: socket.socket) -> bytes:
        for body in (b"one", b"two", b"three"):
            connection.sendall(post(body))
            gevent.sleep(0.004)  # an answer takes 10 ms
        return all_of(connection)

    answers = served(read_body, client, Quick())
    assert answers.startswith(b"HTTP/1.1 200 OK\r\n\r\none")
    assert answers.count(b"HTTP/1.1") == 3


def test_two_requests_at_once_are_answered_in_order() -> None:
    """Requests that come in one piece are the parser's, and each gets its answer."""

    def client(connection: socket.socket) -> bytes:
        connection.sendall(post(b"one") + post(b"two"))
        return all_of(connection)

    assert served(read_body, client, Quick()).count(ANSWERED) == 2


def test_short_requests_go_on_beyond_the_patience_with_a_head(monkeypatch: pytest.MonkeyPatch) -> None:
    """How long a client may take for the head of a request counts for each anew; one that takes longer is let go."""
    monkeypatch.setattr(connections, "STALLED_SECONDS", 0.3)

    def client(connection: socket.socket) -> bytes:
        for _ in range(10):
            connection.sendall(post(b"short"))
            gevent.sleep(0.06)
        for byte in post(b"short"):
            try:
                connection.sendall(bytes([byte]))
            except OSError:
                break
            gevent.sleep(0.05)
        return connection.recv(65536)

    answers = served(read_body, client, Quick())
    assert answers.count(b"short") == 10
    assert ANSWERED not in answers


def test_overload_refuses_what_is_whole() -> None:
    """A request that has arrived as a whole is refused, its connection goes on; one in parts is answered."""

    def client(connection: socket.socket) -> bytes:
        for _ in range(3):
            connection.sendall(post(b"abc"))
            gevent.sleep(0.02)
        connection.sendall(post(b"abc")[:-1])
        gevent.sleep(0.02)
        connection.sendall(b"c")
        return all_of(connection)

    answers = served(read_body, client, Overloaded())
    assert answers.startswith(3 * REFUSAL)
    assert answers.count(b"HTTP/1.1") == 4
    assert answers.endswith(ANSWERED)


def test_a_client_that_is_refused_again_and_again_is_not_idle(monkeypatch: pytest.MonkeyPatch) -> None:
    """Who asks is connected for as long as he does, though nobody answers him but with refusals."""
    tables: list[ConnectionTable] = []

    def remembered(most: int, most_unsent: int) -> ConnectionTable:
        tables.append(ConnectionTable(most, most_unsent))
        return tables[-1]

    def client(connection: socket.socket) -> list[bytes]:
        refusals = []
        for _ in range(4):
            gevent.sleep(0.1)
            tables[0].hang_up(0.3)
            connection.sendall(post(b"abc"))
            refusals.append(connection.recv(1000))
        return refusals

    monkeypatch.setattr(workers, "ConnectionTable", remembered)
    assert served(read_body, client, Overloaded()) == 4 * [REFUSAL]


def test_a_part_of_a_request_is_not_taken_for_one() -> None:
    """What looks like a request, and is the rest of one whose beginning came behind another, belongs to that one."""

    def client(connection: socket.socket) -> bytes:
        inner = post(b"inner")
        connection.sendall(post(b"first") + post(b"", length=len(inner)))
        gevent.sleep(0.05)
        connection.sendall(inner)
        gevent.sleep(0.05)
        return all_of(connection)

    answers = served(read_body, client, Overloaded())
    assert answers.count(ANSWERED) == 2
    assert REFUSED not in answers


def test_a_long_head_is_refused() -> None:
    """A head of more than 32 KiB is refused, also where each of its lines and their number would be allowed."""

    def client(connection: socket.socket) -> bytes:
        connection.sendall(b"GET / HTTP/1.1\r\n" + b"".join(b"X-%d: %b\r\n" % (n, bytes(800)) for n in range(90)))
        return all_of(connection)

    answer = served(read_body, client)
    assert answer.startswith(b"HTTP/1.1 431 ")
    assert b"more than 32,768 bytes" in answer


def test_a_body_that_is_too_long_is_not_asked_for() -> None:
    """Who asks whether to send such a body is answered, and no more; the connection says that it ends, and ends."""

    def client(connection: socket.socket) -> bytes:
        connection.sendall(post(b"", length=20_000_001).replace(b"Host", b"Expect: 100-continue\r\nHost"))
        return all_of(connection)

    answer = served(leave_body, client)
    assert answer.startswith(b"HTTP/1.1 200 OK")
    assert b"Connection: close\r\n" in answer
    assert answer.endswith(ANSWERED)


def test_a_body_that_may_be_sent_is_asked_for() -> None:
    """Any other body is asked for, and the connection goes on."""

    def client(connection: socket.socket) -> bytes:
        connection.sendall(post(b"", length=3).replace(b"Host", b"Expect: 100-continue\r\nHost"))
        asked = connection.recv(65536)
        connection.sendall(b"abc" + post(b"next"))
        return asked + all_of(connection)

    answers = served(read_body, client)
    assert answers.startswith(b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\n")
    assert answers.count(ANSWERED) == 2


def test_what_follows_a_malformed_body_is_no_request() -> None:
    """Where chunks cannot be read, nobody knows where the next request begins: the answer says that it is the last."""

    def read_what_there_is(environ: Any, start_response: Any) -> Iterable[bytes]:
        with pytest.raises(ParseException):
            environ["wsgi.input"].read()
        return leave_body(environ, start_response)

    def client(connection: socket.socket) -> bytes:
        connection.sendall(IN_CHUNKS + b"zz\r\n" + post(b"abc"))
        return all_of(connection)

    answer = served(read_what_there_is, client)
    assert answer.count(b"HTTP/1.1") == 1
    assert b"Connection: close\r\n" in answer


@pytest.mark.timing
def test_many_short_chunks_keep_nobody_waiting() -> None:
    """Of a body in chunks of a byte some thousand are read, and the loop turns meanwhile."""

    def read_what_there_is(environ: Any, start_response: Any) -> Iterable[bytes]:
        with pytest.raises(InvalidRequest, match="chunks of 1 bytes"):
            environ["wsgi.input"].read()
        return leave_body(environ, start_response)

    def client(connection: socket.socket) -> tuple[bytes, float]:
        longest, last, done = 0.0, time.monotonic(), False

        def turn() -> None:
            nonlocal longest, last
            while not done:
                gevent.sleep(0.001)
                longest, last = max(longest, time.monotonic() - last), time.monotonic()

        turning = gevent.spawn(turn)
        connection.sendall(IN_CHUNKS + 50_000 * b"1\r\nx\r\n")
        answer = all_of(connection)
        done = True
        turning.join()
        return answer, longest

    answer, longest = served(read_what_there_is, client)
    assert answer.endswith(ANSWERED)
    assert longest < 0.1


@pytest.mark.parametrize("size", [10, 1000])
def test_chunks_of_every_length_are_read(size: int) -> None:
    """Up to 4,096 chunks may be of any length, and more of them where they are longer."""
    found: list[bytes] = []

    def application(environ: Any, start_response: Any) -> Iterable[bytes]:
        found.append(environ["wsgi.input"].read())
        return leave_body(environ, start_response)

    count = 4096 if size == 10 else 10_000

    def client(connection: socket.socket) -> bytes:
        connection.sendall(IN_CHUNKS + count * (b"%x\r\n%b\r\n" % (size, bytes(size))) + b"0\r\n\r\n")
        return all_of(connection)

    assert served(application, client).endswith(ANSWERED)
    assert found == [bytes(count * size)]


@pytest.mark.timing
@pytest.mark.parametrize(
    "begun",
    [
        pytest.param(b"POST / HTTP/1.1\r\nX: ", id="short-head"),
        pytest.param(b"POST / HTTP/1.1\r\nX: " + bytes(5000).replace(b"\0", b"x"), id="long-head"),
        pytest.param(post(b"abc", length=1000), id="body"),
        pytest.param(post(b"abc", length=1_000_000), id="long-body"),
        pytest.param(b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\nfff\r\n", id="chunk"),
    ],
)
def test_a_client_that_sends_byte_by_byte_is_let_go(monkeypatch: pytest.MonkeyPatch, begun: bytes) -> None:
    """A byte now and then, which is never silence for long, does not keep a connection open."""
    monkeypatch.setattr(connections, "STALLED_SECONDS", 0.5)

    def client(connection: socket.socket) -> float:
        connection.sendall(begun)
        started = time.monotonic()
        while time.monotonic() - started < PATIENCE / 2:
            try:
                connection.sendall(b"x")
            except OSError:
                break
            gevent.sleep(0.05)
        return time.monotonic() - started

    assert 0.3 < served(read_body, client) < 5


@pytest.mark.timing
def test_a_client_that_reads_byte_by_byte_is_let_go(monkeypatch: pytest.MonkeyPatch) -> None:
    """A long answer of which a byte is taken now and then is given up, and nothing more of it is kept."""
    monkeypatch.setattr(connections, "STALLED_SECONDS", 0.5)

    def application(environ: Any, start_response: Any) -> Iterable[bytes]:
        start_response("200 OK", [("Content-Length", "20000000")])
        return [bytes(20_000_000)]

    def client(connection: socket.socket) -> int:
        connection.sendall(post(b"abc"))
        for _ in range(30):
            connection.recv(1)
            gevent.sleep(0.05)
        return received_until_reset(connection)

    assert served(application, client) < 19_000_000


def received_until_reset(connection: socket.socket) -> int:
    """Return how many bytes there are until the other side resets the connection."""
    size = 0
    with contextlib.suppress(ConnectionResetError):
        while block := connection.recv(1_000_000):
            size += len(block)
    return size


class Patient(Quick):
    """A service that would answer bodies of any length, if only they came at once."""

    def takes(self, request: PlainRequest) -> bool:
        """Say that all are answered here."""
        return True


def test_slow_bodies_leave_nothing_for_the_garbage_collector() -> None:
    """What was received of a body that did not come at once is let go with the request, and not some time later."""

    def client(connection: socket.socket) -> int:
        before = 0
        for number in range(12):
            connection.sendall(post(bytes(300_000), length=300_001))
            gevent.sleep(0.1)
            connection.sendall(b"x")
            assert ANSWERED in connection.recv(65536)
            if number == 1:
                before = tracemalloc.get_traced_memory()[0]
        return tracemalloc.get_traced_memory()[0] - before

    tracemalloc.start()
    gc.disable()
    try:
        assert served(read_body, client, Patient()) < 300_000
    finally:
        gc.enable()
        tracemalloc.stop()


def test_requests_that_come_at_once_let_others_go_on() -> None:
    """While a hundred requests of one client are answered, which came in one piece, the loop turns after each few."""
    turns = 0

    def application(environ: Any, start_response: Any) -> Iterable[bytes]:
        seen.append(turns)
        return leave_body(environ, start_response)

    def client(connection: socket.socket) -> bytes:
        def turn() -> None:
            nonlocal turns
            while len(seen) < 100:
                turns += 1
                gevent.sleep(0.0005)

        gevent.spawn(turn)
        connection.sendall(100 * post(b""))
        return all_of(connection)

    seen: list[int] = []
    assert served(application, client).count(ANSWERED) == 100
    assert seen[-1] - seen[0] >= 3


@pytest.mark.slow
@pytest.mark.timing
def test_a_client_that_does_not_read_gets_whole_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    """Who asks and asks and reads nothing loses the connection at some time; up to there each answer is whole."""
    monkeypatch.setattr(connections, "STALLED_SECONDS", 0.5)

    def client(connection: socket.socket) -> bytes:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1)
        connection.settimeout(0.1)
        for _ in range(200_000):
            try:
                connection.sendall(post(b"abc"))
            except OSError:
                break
            gevent.sleep(0)
        else:
            pytest.fail("all were taken, so this test would prove nothing")
        answer = b""
        connection.settimeout(PATIENCE)
        try:
            while block := connection.recv(65536):
                answer += block
        except ConnectionError:
            pass
        return answer

    answers = served(read_body, client, Overloaded())
    assert len(answers) > 1000
    *whole, last = answers.split(b"HTTP/1.1 ")[1:]
    assert {b"HTTP/1.1 " + answer for answer in whole if answer.startswith(b"503")} <= {REFUSAL}
    assert all(answer.endswith((ANSWERED, REFUSED)) for answer in whole)
    assert (REFUSAL.startswith(b"HTTP/1.1 " + last)) or last.startswith(b"200")


def test_a_client_that_still_sends_gets_its_answer() -> None:
    """A client that sends ten megabytes, which nobody reads, and looks for its answer afterwards finds it."""

    def client(connection: socket.socket) -> bytes:
        connection.sendall(post(bytes(10_000_000)))
        gevent.sleep(0.05)
        return all_of(connection)

    answer = served(leave_body, client)
    assert answer.startswith(b"HTTP/1.1 200")
    assert answer.endswith(ANSWERED)


def test_a_connection_whose_rest_fits_is_used_again() -> None:
    """What an application leaves of a body is read behind its answer, and the next request is answered as well."""

    def client(connection: socket.socket) -> bytes:
        for _ in range(3):
            connection.sendall(post(bytes(1_000_000)))
        return all_of(connection)

    assert served(leave_body, client).count(ANSWERED) == 3


def test_a_connection_with_too_much_left_ends_with_the_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    """Beyond the limit the client still gets its answer, though it sends on; what follows is no request any more."""
    monkeypatch.setattr(connections, "DRAIN_BYTES", 100_000)

    def client(connection: socket.socket) -> bytes:
        connection.sendall(post(bytes(10_000_000)) + post(b"abc"))
        return all_of(connection)

    assert served(leave_body, client).count(ANSWERED) == 1


@pytest.mark.timing
@pytest.mark.parametrize(
    "sent",
    [
        pytest.param(b"POST / HT", id="in-the-head"),
        pytest.param(post(b"abc", length=1000), id="in-the-body"),
        pytest.param(
            b"POST / HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nab", id="in-a-chunk"
        ),
    ],
)
def test_a_client_that_falls_silent_is_let_go(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], sent: bytes
) -> None:
    """Who stops in the middle of a request loses the connection soon, and the log says nothing of a fault."""
    monkeypatch.setattr(connections, "STALLED_SECONDS", 0.2)

    def client(connection: socket.socket) -> float:
        connection.sendall(sent)
        started = time.monotonic()
        while connection.recv(65536):
            pass
        return time.monotonic() - started

    assert 0.1 < served(read_body, client) < 5
    assert "Traceback" not in capfd.readouterr().err


@pytest.mark.timing
def test_a_slow_reader_gets_all(monkeypatch: pytest.MonkeyPatch) -> None:
    """Who takes longer for a long answer than one may be silent, and goes on reading, gets all of it."""
    monkeypatch.setattr(connections, "STALLED_SECONDS", 0.4)
    size = 20_000_000

    def application(environ: Any, start_response: Any) -> Iterable[bytes]:
        start_response("200 OK", [("Content-Length", str(size))])
        return [bytes(size)]

    def client(connection: socket.socket) -> tuple[int, float]:
        connection.sendall(b"GET / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
        started = time.monotonic()
        received = 0
        while block := connection.recv(1_000_000):
            received += len(block)
            gevent.sleep(0.03)
        return received, time.monotonic() - started

    received, seconds = served(application, client)
    assert received > size
    assert seconds > 0.5, "it was not slow, so this test would prove nothing"


def test_a_header_that_cannot_be_sent_is_no_fault_of_the_client() -> None:
    """Where the application breaks a header of its answer, the client's request is not called unreadable: a 500."""

    def break_a_header(_: Any, start_response: Any) -> Iterable[bytes]:
        start_response("200 OK", [("X", "a\r\nb")])
        return [ANSWERED]

    def client(connection: socket.socket) -> bytes:
        connection.sendall(post(b"abc"))
        return all_of(connection)

    assert served(break_a_header, client).startswith(b"HTTP/1.1 500 ")


def test_a_request_without_memory_is_asked_to_come_again(caplog: pytest.LogCaptureFixture) -> None:
    """What nobody else has answered is a 503, and a line in the log without a trace."""

    def fail(_: Any, __: Any) -> Iterable[bytes]:
        raise MemoryError

    def client(connection: socket.socket) -> bytes:
        connection.sendall(post(b"abc"))
        return all_of(connection)

    assert served(fail, client).startswith(b"HTTP/1.1 503 There is no memory for this request at the moment")
    [record] = [record for record in caplog.records if "memory" in record.getMessage()]
    assert record.exc_info is None


@pytest.mark.parametrize("error", [MemoryError(), ValueError("odd")])
def test_what_fails_on_the_loop_is_logged(
    caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str], error: Exception
) -> None:
    """A greenlet that fails is a record of the log, with a trace where that says more, and nothing in plain text."""

    def fail() -> None:
        raise error

    def client(_: socket.socket) -> None:
        gevent.spawn(fail)
        gevent.sleep(0.05)

    served(leave_body, client)
    [record] = [record for record in caplog.records if "event loop" in record.getMessage()]
    assert bool(record.exc_info) == isinstance(error, ValueError)
    assert capfd.readouterr().err == ""


def test_a_port_is_looked_at_again() -> None:
    """Where gevent has given up a port, as it does where a look fails, new connections are taken again."""

    def work(_: Loop) -> bytes:
        def greet(connection: socket.socket, _: Any) -> None:
            connection.sendall(ANSWERED)

        server = StreamServer(("127.0.0.1", 0), greet)
        server.start()
        server._watcher.stop()  # type: ignore[attr-defined]  # as libev's callback does
        address: Any = server.address
        with socket.create_connection(address, timeout=PATIENCE) as connection:
            with pytest.raises(TimeoutError), gevent.Timeout(0.1, TimeoutError):
                connection.recv(100)
            _look_again(server)
            answer: bytes = connection.recv(100)
        server.stop()
        return answer

    assert on_a_loop(work) == ANSWERED


def test_whoever_comes_is_let_in_without_a_sign_of_the_kernel(capfd: pytest.CaptureFixture[str]) -> None:
    """Where the kernel's sign for the port comes late, as behind thousands of others, each turn of the loop looks.

    Nothing does once the port is closed.
    """

    def work(_: Loop) -> bytes:
        server = _Port(("127.0.0.1", 0), lambda connection, _: connection.sendall(ANSWERED))
        server.start()
        server._watcher.stop()  # type: ignore[attr-defined]
        address: Any = server.address
        with socket.create_connection(address, timeout=PATIENCE) as connection:
            gevent.sleep(0.05)  # longer than between two looks
            answer: bytes = connection.recv(100)
        server.stop()
        gevent.sleep(0.05)
        return answer

    assert on_a_loop(work) == ANSWERED
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize("age", [1, 2])
def test_a_worker_that_cannot_begin_ends_no_service(monkeypatch: pytest.MonkeyPatch, age: int) -> None:
    """One that takes another's place ends by itself, so that the next one tries it; one of the start is gunicorn's."""
    config = Config()
    service: Any = CALM
    worker = DarkroomWorker(age, os.getppid(), [], service, 30, config, Logger(config))

    def fail(_: GeventWorker) -> None:
        raise MemoryError

    monkeypatch.setattr(GeventWorker, "load_wsgi", fail)
    monkeypatch.setattr(workers, "_AGAIN_SECONDS", 0.0)
    with pytest.raises(MemoryError if age == 1 else SystemExit):
        worker.load_wsgi()
    worker.tmp.close()
