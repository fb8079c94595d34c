"""The gateway: what is answered on the event loop and what is offloaded, and what bodies may take."""

import gzip
import io
import json
import threading
import time
from collections.abc import Callable, Iterable
from contextlib import ExitStack
from types import SimpleNamespace
from typing import IO, Any

import gevent
import pytest
from flask import Flask
from gevent import socket
from gevent.event import Event
from werkzeug.test import EnvironBuilder, run_wsgi_app

from service.serving import gateway as gateways
from service.serving.gateway import Gateway, Room
from service.serving.loop import Loop
from tests.service.loops import PATIENCE, on_a_loop
from tests.service.pictures import plain

RED = plain("red")
MAX_BODY = 1_000_000
LONG = plain("red", "BMP", size=(100, 100))  # 30 KB

Answer = tuple[int, dict[str, Any], Any]  # status, headers, JSON


def gateway(application: Any, loop: Loop, max_bodies: int = 10 * MAX_BODY, max_offloaded: int = 100) -> Gateway:
    """Return a gateway with the limit on bodies that ``app`` has, and others that do not matter here."""
    return Gateway(application, loop, max_body=MAX_BODY, room=Room(max_bodies), max_offloaded=max_offloaded)


def ask(
    gateway: Gateway,
    path: str = "/predict",
    body: bytes | None = RED,
    stream: IO[bytes] | None = None,
    length: int | None = None,
    **headers: str,
) -> Answer:
    """Send one request: a POST of ``body``, or of ``length`` bytes (in chunks without) from ``stream``, or a GET."""
    method = "POST" if body is not None or stream is not None else "GET"
    builder = EnvironBuilder(path, method=method, headers=[("Content-Type", "image/png"), *headers.items()])
    environ = builder.get_environ()
    if method == "POST":
        environ["wsgi.input"] = stream or io.BytesIO(body or b"")
        if stream is None:
            environ["CONTENT_LENGTH"] = str(len(body or b""))
        elif length is None:
            environ["HTTP_TRANSFER_ENCODING"] = "chunked"
        else:
            environ["CONTENT_LENGTH"] = str(length)
    environ["wsgi.input_terminated"] = True  # as gunicorn says
    content, status, answered = run_wsgi_app(gateway, environ, buffered=True)
    text = b"".join(content)
    is_json = answered.get("Content-Type") == "application/json"
    return int(status.split()[0]), dict(answered), json.loads(text) if is_json else text


class Broken(io.BytesIO):
    """A body that its client breaks off, in one of the ways that gunicorn tells."""

    def __init__(self, error: Exception) -> None:
        super().__init__(b"x" * 1000)
        self._error = error

    def read(self, size: int | None = -1, /) -> bytes:
        """Return as much as was asked for, or raise: gunicorn returns less only at the end of a body."""
        block = super().read(size)
        if size is None or len(block) < size:
            raise self._error
        return block


@pytest.mark.parametrize(
    ("request_", "offloaded"),
    [
        pytest.param({"body": RED}, False, id="small-picture"),
        pytest.param({"body": LONG}, True, id="long-body"),
        pytest.param({"body": gzip.compress(RED), "Content-Encoding": "gzip"}, True, id="compressed-body"),
        pytest.param({"body": bytes(MAX_BODY + 1)}, False, id="refused-for-its-length"),
        pytest.param({"path": "/health/live", "body": None}, False, id="probe"),
        pytest.param({"path": "/v2/health/ready", "body": None}, False, id="probe-of-the-protocol"),
        pytest.param({"path": "/openapi.json", "body": None}, True, id="description"),
    ],
)
def test_short_requests_stay_on_the_loop(app: Flask, request_: dict[str, Any], offloaded: bool) -> None:
    """What takes a few milliseconds is answered in the loop's thread, everything else beside it."""
    threads: list[int] = []

    def application(environ: Any, start_response: Any) -> Iterable[bytes]:
        threads.append(threading.get_ident())
        return app(environ, start_response)

    def work(loop: Loop) -> int:
        status, _, _ = ask(gateway(application, loop), **request_)
        assert status in (200, 413)
        return threading.get_ident()

    here = on_a_loop(work)
    assert (threads != [here]) == offloaded
    assert len(threads) == 1


@pytest.mark.parametrize(
    ("request_", "status"),
    [
        pytest.param(lambda: {"body": RED}, 200, id="answered"),
        pytest.param(lambda: {"body": LONG}, 200, id="answered-in-a-thread"),
        pytest.param(lambda: {"stream": io.BytesIO(RED)}, 200, id="chunks"),
        pytest.param(lambda: {"body": b"no picture"}, 415, id="no-picture"),
        pytest.param(lambda: {"body": bytes(MAX_BODY + 1)}, 413, id="announced-too-long"),
        pytest.param(lambda: {"stream": io.BytesIO(bytes(MAX_BODY + 1))}, 413, id="chunks-too-long"),
        pytest.param(lambda: {"stream": io.BytesIO(RED), "length": 90_000}, 400, id="cut-short"),
        pytest.param(lambda: {"stream": Broken(TimeoutError()), "length": 90_000}, 408, id="stalled"),
        pytest.param(lambda: {"stream": Broken(TimeoutError())}, 408, id="stalled-chunks"),
        pytest.param(lambda: {"stream": Broken(ValueError("zz"))}, 400, id="malformed-chunks"),
        pytest.param(lambda: {"path": "/nothing", "body": LONG}, 404, id="no-route"),
    ],
)
def test_counts_come_back_to_zero(app: Flask, request_: Callable[[], dict[str, Any]], status: int) -> None:
    """However a request ends, it is told rightly, and neither its bytes nor itself stay counted."""

    def work(loop: Loop) -> tuple[int, tuple[int, ...]]:
        asked = gateway(app, loop)
        answer = ask(asked, **request_())[0]
        return answer, (*asked.snapshot(), *loop.snapshot())

    assert on_a_loop(work) == (status, (0, 0, 0))


@pytest.mark.parametrize("body", [RED, LONG])
def test_counts_come_back_where_the_application_raises(body: bytes) -> None:
    """An application that raises, or whose client left, leaves nothing counted, on the loop and in a thread."""

    def application(environ: Any, start_response: Any) -> Iterable[bytes]:
        raise ZeroDivisionError

    def work(loop: Loop) -> tuple[int, ...]:
        asked = gateway(application, loop)
        with pytest.raises(ZeroDivisionError):
            ask(asked, body=body)
        return (*asked.snapshot(), *loop.snapshot())

    assert on_a_loop(work) == (0, 0, 0)


def test_bodies_count_before_they_are_complete(app: Flask) -> None:
    """Slow bodies count with every byte that is here, so that together they stay within the limit.

    Four clients have sent 100 kB of 600 kB each when a fifth comes: it gets a 503 at once. When the four have left,
    which is told to them that only ceased to send, there is room again.
    """

    def work(loop: Loop) -> None:
        asked = gateway(app, loop, max_bodies=600_000)
        with ExitStack() as stack:
            pairs = [tuple(map(stack.enter_context, socket.socketpair())) for _ in range(4)]
            streams = [stack.enter_context(theirs.makefile("rb")) for _, theirs in pairs]
            slow = [gevent.spawn(ask, asked, stream=stream, length=600_000) for stream in streams]
            for ours, _ in pairs:
                ours.sendall(bytes(100_000))
            gevent.sleep(0.05)
            assert 400_000 <= asked.snapshot().bodies <= 600_000
            status, headers, told = ask(asked, body=bytes(250_000))
            assert (status, headers["Retry-After"]) == (503, "1")
            assert "memory" in told["message"]
            for ours, _ in pairs:
                ours.close()
            assert [greenlet.get(timeout=PATIENCE)[0] for greenlet in slow] == [400] * 4
        assert asked.snapshot().bodies == 0
        assert ask(asked, body=RED)[0] == 200

    on_a_loop(work)


def test_a_slow_body_loses_its_room_to_others(app: Flask, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the bodies fill the room, the one that has waited longest for its next bytes is told so and goes."""
    monkeypatch.setattr(gateways, "_PATIENCE", 0.3)

    def work(loop: Loop) -> None:
        asked = gateway(app, loop, max_bodies=600_000)
        with ExitStack() as stack:
            pairs = [tuple(map(stack.enter_context, socket.socketpair())) for _ in range(2)]
            streams = [stack.enter_context(theirs.makefile("rb")) for _, theirs in pairs]
            slow, quick = (gevent.spawn(ask, asked, stream=stream, length=600_000) for stream in streams)
            pairs[0][0].sendall(bytes(200_000))
            gevent.sleep(0.1)
            for _ in range(8):
                pairs[1][0].sendall(bytes(20_000))
                gevent.sleep(0.05)
            assert asked.snapshot().bodies > 400_000
            assert ask(asked, body=bytes(250_000))[0] == 415
            status, _, told = slow.get(timeout=PATIENCE)
            assert (status, told["error"]) == (408, "slow_body")
            assert not quick.ready()
            pairs[1][0].close()
            quick.get(timeout=PATIENCE)
        assert asked.snapshot().bodies == 0

    on_a_loop(work)


def test_a_slow_body_keeps_nobody_out(app: Flask) -> None:
    """While a body comes byte by byte others are answered, and it is answered when it is there."""

    def work(loop: Loop) -> None:
        asked = gateway(app, loop)
        ours, theirs = socket.socketpair()
        with ours, theirs, theirs.makefile("rb") as stream:
            slow = gevent.spawn(ask, asked, stream=stream, length=len(RED))
            for byte in RED:
                ours.sendall(bytes([byte]))
                assert ask(asked)[0] == 200
            assert slow.get(timeout=PATIENCE)[0] == 200

    on_a_loop(work)


def test_bodies_that_time_out_together_keep_nobody_out(app: Flask) -> None:
    """Many that stop coming at the same moment are refused one after the other, and others go on in between."""
    count = 100

    def work(loop: Loop) -> None:
        silent = Event()
        refused = 0

        class Silent(io.BytesIO):
            """A body that never comes."""

            def read(self, size: int | None = -1, /) -> bytes:
                silent.wait()
                raise TimeoutError

        def application(environ: Any, start_response: Any) -> Iterable[bytes]:
            nonlocal refused
            refused += 1
            time.sleep(0.01)  # it takes the loop for so long
            return app(environ, start_response)

        asked = gateway(application, loop)
        slow = [gevent.spawn(ask, asked, stream=Silent(), length=len(RED)) for _ in range(count)]
        gevent.sleep(0.02)
        gevent.spawn(silent.set)
        while not refused:
            gevent.sleep(0.001)
        assert refused < count / 2
        assert {greenlet.get(timeout=PATIENCE)[0] for greenlet in slow} == {408}

    on_a_loop(work)


def test_too_many_long_requests_are_refused_at_once(app: Flask) -> None:
    """Where as many are offloaded as may, the next long one gets a 503 and waits for no thread.

    Short ones, and what has no body, such as metrics, go on.
    """
    gate = threading.Event()

    def application(environ: Any, start_response: Any) -> Iterable[bytes]:
        if environ["PATH_INFO"] == "/slow":
            assert gate.wait(PATIENCE)
        return app(environ, start_response)

    def work(loop: Loop) -> None:
        asked = gateway(application, loop, max_offloaded=2)
        slow = [gevent.spawn(ask, asked, "/slow", LONG) for _ in range(2)]
        gevent.sleep(0.02)
        try:
            status, headers, told = ask(asked, body=LONG)
            assert (status, headers["Retry-After"]) == (503, "1")
            assert "long requests" in told["message"]
            assert asked.snapshot().offloaded == 2
            assert not any(greenlet.ready() for greenlet in slow)
            assert ask(asked, body=RED)[0] == 200
            assert ask(asked, "/metrics", None)[0] == 200
        finally:
            gate.set()
        assert [greenlet.get(timeout=PATIENCE)[0] for greenlet in slow] == [404, 404]
        assert ask(asked, body=LONG)[0] == 200

    on_a_loop(work, threads=1)


@pytest.mark.timing
def test_late_bodies_are_refused_unread(app: Flask) -> None:
    """Where many requests make the loop late, one with a body gets a 503 and its body is left; probes are answered."""

    def work(loop: Loop) -> None:
        asked = gateway(app, loop)
        stream = io.BytesIO(RED)
        gevent.sleep(0.01)
        time.sleep(0.15)
        with ExitStack() as begun:
            for _ in range(32):
                begun.enter_context(loop.request())
            status, headers, _ = ask(asked, stream=stream, length=len(RED))
        assert (status, headers["Retry-After"]) == (503, "1")
        assert stream.tell() == 0
        assert ask(asked, "/health/live", None)[0] == 200
        gevent.sleep(0.01)
        assert ask(asked)[0] == 200

    on_a_loop(work)


def test_a_body_without_memory_is_asked_to_come_again(
    app: Flask, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Where there is none to put it together the answer is a 503 in the form of its route, and the log has a line."""

    def fail(*_: object) -> None:
        raise MemoryError

    def work(loop: Loop) -> Answer:
        server = gateway(app, loop)
        monkeypatch.setattr(gateways, "io", SimpleNamespace(BytesIO=fail))
        answer = ask(server, body=LONG)
        assert server.snapshot() == (0, 0)
        return answer

    status, headers, told = on_a_loop(work)
    assert (status, headers["Retry-After"], told["error"]) == (503, "1", "queue_full")
    [record] = caplog.records
    assert (record.getMessage(), record.exc_info) == ("/predict is refused: there is no memory for it", None)


def test_a_request_without_a_thread_is_asked_to_come_again(app: Flask, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where all work and no other can be started, what is long gets a 503, and later one of them answers."""

    def fail(*_: object) -> None:
        raise RuntimeError("can't start new thread")

    def work(loop: Loop) -> tuple[Answer, Answer]:
        server = gateway(app, loop)
        monkeypatch.setattr("gevent.threadpool.start_new_thread", fail)
        free = threading.Event()
        busy = [gevent.spawn(loop.offload, lambda: free.wait(PATIENCE)) for _ in range(2)]
        gevent.sleep(0.05)
        refused = ask(server, body=LONG)
        free.set()
        gevent.joinall(busy)
        return refused, ask(server, body=LONG)

    (refused, _, told), (answered, _, _) = on_a_loop(work)
    assert (refused, told["error"], answered) == (503, "queue_full", 200)
