"""The service as a process: signals, workers, model swaps, and clients that behave badly."""

import base64
import contextlib
import http.client
import json
import os
import re
import resource
import selectors
import shutil
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import pytest
import requests
from PIL import Image

from machine import usable_cores
from tests.models import copy
from tests.service import seccomp
from tests.service.clients import REFUSED, asking
from tests.service.conftest import StartService
from tests.service.pictures import encoded, plain
from tests.service.running import RunningService, connect, free_port, metric, start, wait_for, workers

pytestmark = pytest.mark.process

RED = plain("red")
CAN_MOUNT = shutil.which("unshare") is not None and os.geteuid() == 0
OTHER = ("cherry", "grass", "sky")


def label(response: requests.Response) -> str:
    """Return the best label of an answer."""
    best: str = response.json()["predictions"][0]["label"]
    return best


def decoders(worker: int) -> list[int]:
    """Return the process ids of what decodes pictures for a worker; threads of it have started them."""
    children = [file.read_text() for file in Path(f"/proc/{worker}/task").glob("*/children")]
    return [int(process) for text in children for process in text.split()]


def head(length: int | None, path: str = "/predict") -> bytes:
    """Return the head of a request whose body has ``length`` bytes, or comes in chunks where that is None."""
    size = "Transfer-Encoding: chunked" if length is None else f"Content-Length: {length}"
    first = f"POST {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close"
    return f"{first}\r\nContent-Type: image/png\r\n{size}\r\n\r\n".encode()


def received(connection: socket.socket) -> bytes:
    """Return all that comes until the other side closes."""
    answer = b""
    while block := connection.recv(65536):
        answer += block
    return answer


@pytest.mark.slow
@pytest.mark.timing
@pytest.mark.parametrize("keep_alive", [True, False])
def test_sigterm_under_load_loses_nothing(start_service: StartService, keep_alive: bool) -> None:
    """While clients keep asking, SIGTERM turns readiness to 503, every request is answered, and the exit code is 0."""
    running = start_service(DRAIN_SECONDS="0.6", WORKERS="2")
    with asking(running, clients=6, keep_alive=keep_alive) as answers:
        wait_for(lambda: answers.count() > 20, running.log)
        running.process.send_signal(signal.SIGTERM)
        wait_for(lambda: running.status("/health/ready") == 503, running.log)
        assert running.status("/health/live") == 200
        answered = answers.count()
        assert running.process.wait(30) == 0, running.log()
        wait_for(lambda: len(answers.failures) == 6, running.log)
    assert answers.failures == [REFUSED] * 6
    assert answers.count() > answered
    assert answers.different == {"red"}


@pytest.mark.slow
def test_request_in_flight_is_answered(start_service: StartService) -> None:
    """A request whose body is still on its way when SIGTERM comes, and long after the port closed, gets its answer."""
    running = start_service(DRAIN_SECONDS="0.1")
    with connect(running) as connection:
        connection.sendall(head(len(RED)) + RED[:20])
        time.sleep(0.2)  # until the worker has read the head
        running.process.send_signal(signal.SIGTERM)
        wait_for(lambda: running.status("/health/live") is None, running.log)
        connection.sendall(RED[20:])
        answer = received(connection)
    assert b'"label":"red"' in answer
    assert running.process.wait(30) == 0


@pytest.mark.slow
@pytest.mark.timing
def test_silent_connection_does_not_hold_up_the_end(start_service: StartService) -> None:
    """A connection on which nothing was ever sent, as browsers open them, delays the stop by seconds at most."""
    running = start_service(DRAIN_SECONDS="0")
    with connect(running):
        time.sleep(0.1)
        started = time.monotonic()
        assert running.terminate() == 0
        assert time.monotonic() - started < 8


@pytest.mark.slow
def test_interrupt_under_load_ends_at_once(start_service: StartService) -> None:
    """SIGINT ends the service within seconds also while requests come in, and its temporary folder is removed."""
    running = start_service(WORKERS="2")
    with asking(running, clients=8) as answers:
        wait_for(lambda: answers.count() > 50, running.log)
        running.process.send_signal(signal.SIGINT)
        assert running.process.wait(8) == 0, running.log()


@pytest.mark.slow
@pytest.mark.parametrize("second", [signal.SIGTERM, signal.SIGINT])
def test_second_signal_ends_the_drain(start_service: StartService, second: signal.Signals) -> None:
    """Who sends a second SIGTERM or SIGINT does not wait for the drain."""
    running = start_service(DRAIN_SECONDS="600")
    running.process.send_signal(signal.SIGTERM)
    wait_for(lambda: running.status("/health/ready") == 503, running.log)
    running.process.send_signal(second)
    assert running.process.wait(10) == 0


@pytest.mark.slow
def test_metrics_add_up_over_workers(start_service: StartService) -> None:
    """With two workers any of them tells the sums of both, and a worker that dies takes no counts with it."""
    running = start_service(WORKERS="2")
    wait_for(lambda: metric(running, "model_workers") == 2, running.log)
    for _ in range(40):
        assert running.predict(RED).status_code == 200
    # Each worker writes what it has counted at the end of a turn of its loop, a moment after the answer.
    wait_for(lambda: {metric(running, "predictions_total") for _ in range(10)} == {40}, running.log)
    assert metric(running, "batch_size_sum") == 40
    assert metric(running, "worker_starts_total") == 2
    computed = metric(running, "cpu_seconds_total")
    before = workers(running)
    os.kill(before[0], signal.SIGKILL)
    wait_for(lambda: len(workers(running)) == 2 and workers(running) != before, running.log)
    wait_for(lambda: metric(running, "model_workers") == 2, running.log)
    wait_for(lambda: metric(running, "worker_starts_total") == 3, running.log)
    assert metric(running, "cpu_seconds_total") >= computed
    assert metric(running, "predictions_total") == 40
    wait_for(lambda: metric(running, "requests_in_flight") == 1, running.log)
    running.predict(RED)
    wait_for(lambda: metric(running, "predictions_total") == 41, running.log)


@pytest.mark.slow
def test_what_the_service_takes_is_that_of_all_workers(start_service: StartService) -> None:
    """Whichever worker is asked tells memory, processor time and limits of the whole service."""
    running = start_service(WORKERS="2", QUEUE_LENGTH="100", REQUEST_DEADLINE_SECONDS="7")
    wait_for(lambda: metric(running, "model_workers") == 2, running.log)
    assert {metric(running, "workers") for _ in range(10)} == {2}
    assert metric(running, "queue_limit_images") == 200
    assert metric(running, "request_deadline_seconds") == 7
    assert metric(running, "cores") == usable_cores()
    assert time.time() - 60 < metric(running, "start_time_seconds") < time.time()

    for _ in range(10):  # measured anew each time: other tests' services begin and cease to share libraries with it
        told, together = metric(running, "memory_bytes"), _proportional_memory(_processes(running))
        assert 0.8 * together < told < 1.2 * together
    assert metric(running, "memory_bytes") < metric(running, "memory_limit_bytes")

    before = metric(running, "cpu_seconds_total")
    with asking(running, clients=4, keep_alive=False) as answers:
        wait_for(lambda: answers.count() > 100, running.log)
    assert metric(running, "cpu_seconds_total") > before
    wait_for(lambda: metric(running, "loop_busy_seconds_total") > 0, running.log)


def _processes(running: RunningService) -> list[int]:
    return [running.process.pid, *workers(running), *(each for one in workers(running) for each in decoders(one))]


def _proportional_memory(processes: list[int]) -> int:
    rollups = [Path(f"/proc/{process}/smaps_rollup").read_text() for process in processes]
    return sum(int(size) * 1024 for text in rollups for size in re.findall(r"^Pss: +(\d+) kB$", text, re.MULTILINE))


@pytest.mark.slow
def test_workers_are_replaced_without_loss(start_service: StartService) -> None:
    """SIGHUP puts new workers in the place of the old ones; who stops alone leaves the port open for the others."""
    running = start_service()
    before = workers(running)
    with asking(running, clients=3, keep_alive=False) as answers:
        running.process.send_signal(signal.SIGHUP)
        wait_for(lambda: len(workers(running)) == 1 and workers(running) != before, running.log)
        count = answers.count()
        wait_for(lambda: answers.count() > count + 20, running.log)
    assert answers.failures == []


def test_temporary_folder_is_removed(start_service: StartService) -> None:
    """What workers share lies in a temporary folder that is gone when the service has ended."""
    running = start_service(WORKERS="2")
    environment = Path(f"/proc/{workers(running)[0]}/maps").read_text()
    [folder] = set(re.findall(r"\S+/darkroom-[^/\s]+", environment))
    assert Path(folder).is_dir()
    assert running.terminate() == 0
    assert not Path(folder).exists()


@pytest.mark.slow
def test_new_version_takes_over_under_load(start_service: StartService, models: Path, published: Path) -> None:
    """A new version answers without a restart and without a lost request.

    A bad one is kept out, and the metric, ``/model`` and the log say so.
    """
    running = start_service()
    with asking(running, clients=4) as answers:
        wait_for(lambda: all(answers.labels), running.log)
        bad = copy(published, models, 2, OTHER)
        (bad / "saved_model.pb").write_bytes(b"nonsense")
        wait_for(lambda: metric(running, "refused_versions") == 1, running.log)
        [refused] = running.get("/model").json()["refused"]
        assert refused["version"] == 2
        assert f"version 2 of colours is kept out: {refused['reason']}" in running.log()
        copy(published, models, 3, OTHER)
        wait_for(lambda: running.get("/model").json()["version"] == 3, running.log)
        wait_for(lambda: all("cherry" in labels for labels in answers.labels), running.log)
    assert answers.failures == []
    for labels in answers.labels:
        before = labels.count("red")
        assert labels == ["red"] * before + ["cherry"] * (len(labels) - before)
    shutil.rmtree(models / "colours" / "3")
    wait_for(lambda: label(running.predict(RED)) == "red", running.log)


@pytest.mark.slow
def test_every_answer_names_the_version_that_made_it(
    start_service: StartService, models: Path, published: Path
) -> None:
    """With several workers, which change at different moments, each answer names its version, and all change."""
    running = start_service(WORKERS="2")
    answers: list[tuple[int, str]] = []

    def ask() -> None:
        response = running.predict(RED)
        answers.append((response.json()["model"]["version"], label(response)))

    def all_changed() -> bool:
        ask()
        return 'darkroom_model_workers{model="colours",version="2"} 2.0' in running.get("/metrics").text

    ask()
    copy(published, models, 2, OTHER)
    wait_for(all_changed, running.log)
    assert set(answers) <= {(1, "red"), (2, "cherry")}
    assert answers[0] == (1, "red")
    answers.clear()
    for _ in range(20):  # on a connection each, so that both workers get some
        ask()
    assert set(answers) == {(2, "cherry")}


def test_model_version_pins(start_service: StartService, models: Path, published: Path) -> None:
    """With MODEL_VERSION=2 a newer version changes nothing, whether it was there before or comes later."""
    copy(published, models, 2, OTHER)
    copy(published, models, 3)
    running = start_service(MODEL_VERSION="2")
    assert label(running.predict(RED)) == "cherry"
    copy(published, models, 4)
    time.sleep(0.5)  # in which the folder is looked at several times
    assert running.predict(RED).json()["model"] == {"name": "colours", "version": 2}


def test_model_that_comes_later(start_service: StartService, models: Path, published: Path) -> None:
    """Without a model the process stays up and not ready; it answers as soon as a version is there."""
    shutil.rmtree(models / "colours")
    running = start_service(ready=False)
    wait_for(lambda: running.status("/health/live") == 200, running.log)
    assert running.status("/health/ready") == 503
    assert running.predict(RED).status_code == 503
    copy(published, models, 1)
    running.wait_until_ready()
    assert label(running.predict(RED)) == "red"


def peak_memory(running: RunningService) -> int:
    """Return the largest memory that the worker ever had, in bytes."""
    status = Path(f"/proc/{workers(running)[0]}/status").read_text()
    [kilobytes] = re.findall(r"VmHWM:\s+(\d+) kB", status)
    return int(kilobytes) * 1024


@pytest.mark.slow
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="memory is read from /proc")
def test_large_pictures_leave_no_memory_behind(start_service: StartService) -> None:
    """After large pictures in several threads the worker holds about what it held before."""
    running = start_service()
    running.predict(RED)

    def resident() -> int:
        [kilobytes] = re.findall(r"VmRSS:\s+(\d+) kB", Path(f"/proc/{workers(running)[0]}/status").read_text())
        return int(kilobytes) * 1024

    before = resident()
    large = plain("red", size=(2800, 2800))  # as large as what the worker decodes itself
    for _ in range(2):
        clients = [threading.Thread(target=running.predict, args=(large,)) for _ in range(4)]
        for client in clients:
            client.start()
        for client in clients:
            client.join()
    assert resident() - before < 60_000_000
    assert peak_memory(running) - before > 60_000_000, "the pictures were not large, so this proves nothing"


def test_announced_body_over_the_limit_is_refused_unread(shared_service: StartService) -> None:
    """A body of 10 GB is refused by its Content-Length, before any of it has been sent."""
    running = shared_service(MAX_BODY_BYTES="100000")
    with connect(running) as connection:
        connection.sendall(head(10**10))
        connection.shutdown(socket.SHUT_WR)
        answer = received(connection)
    assert answer.startswith(b"HTTP/1.1 413")
    assert b"100,000 bytes" in answer


@pytest.mark.parametrize("chunked", [True, False])
def test_body_over_the_limit_takes_no_memory(start_service: StartService, chunked: bool) -> None:
    """A client that sends far more than the limit gets its 413, and the worker's memory does not grow by the body."""
    running = start_service(MAX_BODY_BYTES="20000000")
    running.predict(RED)
    before = peak_memory(running)
    block = bytes(1_000_000)
    with connect(running) as connection:
        connection.sendall(head(None if chunked else 80_000_000))
        for _ in range(80):
            connection.sendall(b"f4240\r\n" + block + b"\r\n" if chunked else block)
        if chunked:
            connection.sendall(b"0\r\n\r\n")
        answer = received(connection)
    assert answer.startswith(b"HTTP/1.1 413")
    assert b"20,000,000 bytes" in answer
    # In chunks the body is read up to the limit; otherwise not at all, and this is only what threads and heaps take.
    assert peak_memory(running) - before < (60_000_000 if chunked else 20_000_000)
    assert label(running.predict(RED)) == "red"


def test_body_in_chunks(shared_service: StartService) -> None:
    """A picture that comes in chunks is classified; malformed chunks are a 400."""
    running = shared_service()
    with connect(running) as connection:
        chunks = [RED[start : start + 30] for start in range(0, len(RED), 30)]
        connection.sendall(
            head(None) + b"".join(b"%x\r\n%b\r\n" % (len(chunk), chunk) for chunk in chunks) + b"0\r\n\r\n"
        )
        assert b'"label":"red"' in received(connection)
    with connect(running) as connection:
        connection.sendall(head(None) + b"5\r\nabc")
        connection.shutdown(socket.SHUT_WR)
        assert b"HTTP/1.1 400" in received(connection)
    with connect(running) as connection:
        connection.sendall(head(None) + b"zz\r\nabc\r\n0\r\n\r\n")
        assert b"chunks of the body are malformed" in received(connection)


@pytest.mark.parametrize(
    ("sent", "status", "name", "said"),
    [
        pytest.param(b"NONSENSE\r\n\r\n", 400, "invalid_request", "request line: 'NONSENSE'", id="line"),
        pytest.param(b"GET / HTTP/7.0\r\n\r\n", 400, "invalid_request", "HTTP Version: (7, 0)", id="version"),
        pytest.param(b"GET / HTTP/1.1\r\nbad name: x\r\n\r\n", 400, "invalid_request", "header name", id="header"),
        pytest.param(
            b"POST /predict HTTP/1.1\r\nContent-Length: many\r\n\r\n", 400, "invalid_request", "LENGTH", id="length"
        ),
        pytest.param(b"\x16\x03\x01\x02\x00\x01\x00\r\n\r\n", 400, "invalid_request", "request line", id="tls"),
        pytest.param(b"GET /" + b"x" * 5000 + b" HTTP/1.1\r\n\r\n", 414, "uri_too_long", "too large", id="path"),
        pytest.param(
            b"GET / HTTP/1.1\r\n" + b"a: b\r\n" * 200 + b"\r\n",
            431,
            "request_header_fields_too_large",
            "headers",
            id="headers",
        ),
        pytest.param(
            b"POST /predict HTTP/1.1\r\nTransfer-Encoding: zip\r\n\r\n", 400, "invalid_request", "'zip'", id="coding"
        ),
    ],
)
def test_what_is_no_request_is_told_as_every_error(
    shared_service: StartService, sent: bytes, status: int, name: str, said: str
) -> None:
    """Its answer is JSON that says what was wrong, and arrives although the client goes on sending."""
    running = shared_service()
    with connect(running) as connection:
        connection.sendall(sent + bytes(3_000_000))
        answer = http.client.HTTPResponse(connection)
        answer.begin()
        told = json.loads(answer.read())
    assert (answer.status, answer.headers["Content-Type"]) == (status, "application/json")
    assert (told["success"], told["error"]) == (False, name)
    assert told["message"].startswith("The request cannot be read: ")
    assert said in told["message"]
    assert re.fullmatch("[0-9a-f]{32}", answer.headers["X-Request-ID"])
    assert label(running.predict(RED)) == "red"


@pytest.mark.timing
def test_a_body_that_is_too_long_is_refused_at_once(shared_service: StartService) -> None:
    """Whether the client asks before it sends 400 MB or not, it hears 413 at once, and that the connection ends."""
    running = shared_service(MAX_BODY_BYTES="100000")
    for expect in (b"", b"Expect: 100-continue\r\n"):
        started = time.monotonic()
        with connect(running) as connection:
            connection.sendall(head(400_000_000).replace(b"Connection: close\r\n", expect))
            answer = received(connection)
        assert answer.startswith(b"HTTP/1.1 413 ")
        assert b"\r\nConnection: close\r\n" in answer
        assert time.monotonic() - started < 4


@pytest.mark.timing
def test_silent_clients_keep_nobody_out(shared_service: StartService) -> None:
    """More silent connections than there are threads leave the service answering."""
    running = shared_service(THREADS="2")
    silent = [connect(running) for _ in range(20)]
    started = time.monotonic()
    assert label(running.predict(RED)) == "red"
    assert time.monotonic() - started < 2
    for connection in silent:
        connection.close()


class Crowd:
    """Clients on connections of their own, all in one thread, that ask again as soon as they are answered."""

    def __init__(self, running: RunningService, clients: int, asked: bytes) -> None:
        """Connect ``clients``, each of which sends ``asked``."""
        self._asked = asked
        self._selector = selectors.DefaultSelector()
        self.statuses: list[tuple[float, int]] = []  # when, what
        self.retry_after = 0  # how many of the answers had it
        self.waits: list[float] = []  # seconds
        for _ in range(clients):
            connection = connect(running)
            self._selector.register(connection, selectors.EVENT_READ, _Client(connection))

    def ask(self, seconds: float) -> None:
        """Ask for so long, then wait for the last answers and leave."""
        clients: list[_Client] = [key.data for key in self._selector.get_map().values()]
        for client in clients:
            client.send(self._asked)
        end = time.monotonic() + seconds
        waiting = len(clients)
        while waiting and time.monotonic() < end + 20:
            for key, _ in self._selector.select(0.1):
                if (answer := key.data.receive()) is not None:
                    self._note(key.data, answer)
                    if time.monotonic() < end:
                        key.data.send(self._asked)
                    else:
                        waiting -= 1
        for client in clients:
            client.connection.close()
        self._selector.close()
        assert waiting == 0, f"{waiting} clients were never answered"

    def _note(self, client: "_Client", answer: bytes) -> None:
        now = time.monotonic()
        self.statuses.append((now, int(answer.split()[1])))
        self.retry_after += b"Retry-After: 1\r\n" in answer
        self.waits.append(now - client.asked)


@dataclass
class _Client:
    """One of a crowd."""

    connection: socket.socket
    asked: float = 0.0
    _received: bytes = b""

    def send(self, asked: bytes) -> None:
        """Ask."""
        self.asked = time.monotonic()
        self.connection.sendall(asked)

    def receive(self) -> bytes | None:
        """Return the answer, when it is there as a whole."""
        block = self.connection.recv(65536)
        assert block, "the connection was closed"
        self._received += block
        head, _, body = self._received.partition(b"\r\n\r\n")
        length = re.search(rb"(?i)content-length: (\d+)", head)
        if length is None or len(body) < int(length[1]):
            return None
        answer, self._received = self._received, b""
        return answer


@pytest.mark.slow
@pytest.mark.timing
@pytest.mark.parametrize("path", ["/predict", "/v1/models/colours:predict"])
def test_overload_is_refused_and_work_goes_on(start_service: StartService, path: str) -> None:
    """Of 1,500 clients that ask without a pause some get a 503 with Retry-After, the others are answered all the time.

    Nobody waits long or for ever, no connection is closed, and afterwards everything is as before.
    """
    running = start_service()
    body = RED if path == "/predict" else json.dumps({"instances": [{"b64": base64.b64encode(RED).decode()}]}).encode()
    asked = head(len(body), path).replace(b"Connection: close\r\n", b"") + body
    crowd = Crowd(running, 1500, asked)
    started = time.monotonic()
    crowd.ask(4)
    found = Counter(status for _, status in crowd.statuses)
    assert set(found) == {200, 503}
    assert crowd.retry_after == found[503]
    for second in range(4):  # goodput never stops
        within = [status for when, status in crowd.statuses if second <= when - started < second + 1]
        assert within.count(200) > 20, f"in second {second}: {Counter(within)}"
    assert max(crowd.waits) < 5
    assert metric(running, "requests_in_flight") == 1
    assert metric(running, "queue_images") == 0
    assert label(running.predict(RED)) == "red"
    assert "Traceback" not in running.log()


@pytest.mark.timing
def test_slow_bodies_keep_nobody_out(shared_service: StartService) -> None:
    """More bodies that are on their way than there are threads leave the service answering, and are answered later."""
    running = shared_service(THREADS="2")
    body = plain("red", "BMP", size=(300, 300))
    with ExitStack() as stack:
        slow = [stack.enter_context(connect(running)) for _ in range(20)]
        for connection in slow:
            connection.sendall(head(len(body)) + body[:-1])
        started = time.monotonic()
        assert label(running.predict(RED)) == "red"
        assert label(running.predict(body)) == "red"  # by a thread
        assert time.monotonic() - started < 2
        for connection in slow:
            connection.sendall(body[-1:])
        for connection in slow:
            assert b'"label":"red"' in received(connection)
    assert metric(running, "requests_in_flight") == 1


def large() -> bytes:
    """Return a picture of 49 million pixels in a few bytes, which takes some tenths of a second."""
    return encoded(Image.new("1", (7000, 7000), 1), "PNG", optimize=True)


@pytest.mark.timing
def test_large_pictures_do_not_delay_probes(shared_service: StartService) -> None:
    """While large pictures are decoded, liveness is answered as if nothing else was there."""
    running = shared_service()
    body = large()
    with ExitStack() as stack:
        asked = [stack.enter_context(connect(running)) for _ in range(6)]
        for connection in asked:
            connection.sendall(head(len(body)) + body)
        answers: list[bytes] = []
        waiting = threading.Thread(target=lambda: answers.extend(received(connection) for connection in asked))
        waiting.start()
        times = []
        with requests.Session() as session:
            while waiting.is_alive():
                started = time.monotonic()
                assert session.get(f"{running.url}/health/live", timeout=30).status_code == 200
                times.append(time.monotonic() - started)
                time.sleep(0.01)
    assert [answer.split()[1] for answer in answers] == [b"200"] * 6
    assert len(times) > 5, "the pictures took no time, so this test would prove nothing"
    assert sorted(times)[len(times) // 2] < 0.05


@pytest.mark.timing
def test_deadline_counts_while_waiting_for_a_thread(start_service: StartService) -> None:
    """With one thread for what takes long, who waits for it until the deadline gets a 504 and costs nothing more."""
    running = start_service(THREADS="1", REQUEST_DEADLINE_SECONDS="0.5")
    body = large()
    started = time.monotonic()
    with ExitStack() as stack:
        asked = [stack.enter_context(connect(running)) for _ in range(30)]
        for connection in asked:
            connection.sendall(head(len(body)) + body)
        found = Counter(received(connection).split()[1] for connection in asked)
    seconds = time.monotonic() - started
    assert set(found) <= {b"200", b"504"}
    assert found[b"504"] > 5
    # The one that is being decoded at the deadline, and a little for all the rest.
    assert seconds < 0.5 + 2.0
    assert metric(running, "requests_in_flight") == 1


@pytest.mark.slow
def test_body_that_stops_coming_is_told(shared_service: StartService) -> None:
    """Who stops in the middle of a body gets a 408 after 20 seconds, and the log holds no fault."""
    running = shared_service()
    with connect(running) as connection:
        connection.sendall(head(1000) + b"abc")
        started = time.monotonic()
        assert received(connection).startswith(b"HTTP/1.1 408")
        assert 15 < time.monotonic() - started < 28
    assert '"level": "error"' not in running.log()


def test_body_that_ends_early_is_refused(shared_service: StartService) -> None:
    """A body that ends before its length is a 400, also where what came is a picture."""
    running = shared_service()
    with connect(running) as connection:
        connection.sendall(head(len(RED) + 1) + RED)
        connection.shutdown(socket.SHUT_WR)
        answer = received(connection)
    assert answer.startswith(b"HTTP/1.1 400")
    assert b"shorter than its Content-Length" in answer


@pytest.mark.slow
@pytest.mark.parametrize(("soft", "hard", "opened"), [(256, 4096, 600), (200, 200, 150), (128, 128, 150)])
@pytest.mark.parametrize(
    "begun",
    [
        pytest.param(b"", id="silent"),
        pytest.param(b"POST /predict HTTP/1.1\r\nHost: ", id="head"),
        pytest.param(b"POST /predict HTTP/1.1\r\nHost: a\r\nContent-Length: 1000\r\n\r\nabc", id="body"),
    ],
)
def test_open_files_limit_connections(models: Path, soft: int, hard: int, opened: int, begun: bytes) -> None:
    """The limit on open files is raised as far as it may be; where it is reached, whoever asks is let in.

    Many connections that say nothing, or not all, keep out neither probes nor pictures: of them some are closed.
    """

    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))

    service = start({"MODEL_DIR": str(models), "DRAIN_SECONDS": "0"}, before_exec=limit)
    try:
        service.wait_until_ready()
        with ExitStack() as stack:
            address = ("127.0.0.1", int(service.url.rpartition(":")[2]))
            for _ in range(opened):
                stack.enter_context(socket.create_connection(address, timeout=10)).sendall(begun)
            for path in ("/health/live", "/health/ready", "/metrics"):
                assert service.status(path) == 200
            for _ in range(3):
                assert label(service.predict(RED)) == "red"
        assert label(service.predict(RED)) == "red"
        assert '"level": "error"' not in service.log()
    finally:
        service.kill()


@pytest.mark.parametrize("files", [16, 64])
def test_too_few_open_files_are_told(models: Path, files: int) -> None:
    """Where a process may not open enough files to serve, the service says so in a line, and how to raise the limit."""

    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_NOFILE, (files, files))

    service = start({"MODEL_DIR": str(models)}, before_exec=limit)
    try:
        assert service.process.wait(30) == 1
        [line] = service.log().splitlines()
        assert line.startswith(f"error: a process may have {files} files open here")
        assert "ulimit -n" in line
    finally:
        service.kill()


def stop_worker(running: RunningService) -> int:
    """Stop the only worker without ending it, and return its process id."""
    [worker] = workers(running)
    os.kill(worker, signal.SIGSTOP)
    return worker


@pytest.mark.timing
def test_a_worker_that_stands_still_is_replaced(start_service: StartService) -> None:
    """A worker that is stopped is killed after the time that is set, and another answers; log and metric say so."""
    running = start_service(WORKER_TIMEOUT_SECONDS="1")
    stopped = time.monotonic()
    worker = stop_worker(running)
    assert label(running.predict(RED)) == "red"
    assert time.monotonic() - stopped < 8
    assert worker not in workers(running)
    assert metric(running, "workers_killed_total") == 1
    assert metric(running, "worker_starts_total") == 2
    assert f"worker {worker} gave no sign of life for 1." in running.log()


@pytest.mark.slow
@pytest.mark.parametrize("sign", [signal.SIGSTOP, signal.SIGKILL])
def test_a_worker_is_replaced_while_draining(start_service: StartService, sign: signal.Signals) -> None:
    """Between SIGTERM and the end the only worker is replaced too, and the end comes in time."""
    running = start_service(WORKER_TIMEOUT_SECONDS="1", DRAIN_SECONDS="8")
    running.process.send_signal(signal.SIGTERM)
    wait_for(lambda: running.status("/health/ready") == 503, running.log)
    [worker] = workers(running)
    os.kill(worker, sign)
    assert label(running.predict(RED)) == "red"
    assert running.process.wait(30) == 0
    assert '"Traceback' not in running.log()


@pytest.mark.slow
def test_a_worker_that_stands_still_does_not_hold_up_the_end(start_service: StartService) -> None:
    """A worker that is stopped when SIGTERM comes is not waited for longer than for a sign of life."""
    running = start_service(WORKER_TIMEOUT_SECONDS="1")
    stop_worker(running)
    started = time.monotonic()
    assert running.terminate() == 0
    assert time.monotonic() - started < 10


@pytest.mark.timing
def test_a_busy_worker_is_not_killed(start_service: StartService) -> None:
    """Large pictures, one after the other for longer than a worker may give no sign of life, cost no worker."""
    running = start_service(WORKER_TIMEOUT_SECONDS="1", THREADS="8")
    before, until = workers(running), time.monotonic() + 3

    def ask() -> None:
        while time.monotonic() < until:
            running.predict(large())

    clients = [threading.Thread(target=ask) for _ in range(8)]
    for client in clients:
        client.start()
    for client in clients:
        client.join()
    assert workers(running) == before


def test_who_is_gone_is_not_worked_for(start_service: StartService) -> None:
    """Of long requests that wait for a thread, one whose client has broken the connection is dropped."""
    running = start_service(THREADS="1")
    body = large() + bytes(20_000)  # so long that it takes a thread

    def asked() -> float:
        text = running.get("/metrics").text
        return sum(map(float, re.findall(r'^darkroom_requests_total{.*route="/predict".*} (\S+)$', text, re.MULTILINE)))

    with connect(running) as first, connect(running) as last:
        first.sendall(head(len(body)) + body)
        time.sleep(0.1)
        gone = [connect(running) for _ in range(5)]
        for connection in gone:
            connection.sendall(head(len(body)) + body)
        last.sendall(head(len(body)) + body)
        for connection in gone:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            connection.close()
        assert received(first).startswith(b"HTTP/1.1 200")
        assert received(last).startswith(b"HTTP/1.1 200")
    assert asked() <= 3  # one may have begun
    assert metric(running, "requests_in_flight") == 1


@pytest.mark.slow
@pytest.mark.skipif(not CAN_MOUNT, reason="needs the right to mount file systems")
@pytest.mark.parametrize("full_from_the_start", [True, False])
def test_a_full_shared_memory_kills_nobody(models: Path, full_from_the_start: bool) -> None:
    """Where /dev/shm is full, what workers share lies elsewhere; where it fills up later, new workers live without."""
    port = free_port()
    size = 64 if full_from_the_start else 9000  # kilobytes
    command = f"mount -t tmpfs -o size={size}k tmpfs /dev/shm && exec {sys.executable} -m service"
    environment = {"MODEL_DIR": str(models), "HOST": "127.0.0.1", "PORT": str(port), "WORKERS": "2"}
    with tempfile.TemporaryFile() as stderr:
        process = subprocess.Popen(
            ["unshare", "--mount", "sh", "-c", command],
            env={"PATH": os.environ["PATH"], "HOME": tempfile.gettempdir(), "DRAIN_SECONDS": "0", **environment},
            stderr=stderr,
            start_new_session=True,
        )
        running = RunningService(process, f"http://127.0.0.1:{port}", stderr)
        try:
            wait_for(lambda: running.log().count("loaded") == 2, running.log)
            Path(f"/proc/{process.pid}/root/dev/shm/rest").touch()
            fill(Path(f"/proc/{process.pid}/root/dev/shm/rest"))
            os.kill(workers(running)[0], signal.SIGKILL)
            wait_for(lambda: running.log().count("loaded") == 3, running.log)
            for _ in range(20):
                assert label(running.predict(RED)) == "red"
                assert running.status("/metrics") == 200
            assert "SIGBUS" not in running.log()
            assert ("no space for metrics" in running.log()) != full_from_the_start
            assert running.terminate() == 0
        finally:
            running.kill()


def fill(file: Path) -> None:
    """Write to ``file`` until there is no space left."""
    with file.open("wb", buffering=0) as rest, contextlib.suppress(OSError):
        while rest.write(bytes(4096)):
            pass


def test_log_is_json(start_service: StartService) -> None:
    """Every line on stderr is a JSON object with time, level and message, also where clients send nonsense."""
    running = start_service(ACCESS_LOG="1")
    running.predict(RED)
    with connect(running) as connection:
        connection.sendall(b"NONSENSE\r\n{}\r\n\r\n")
        received(connection)
    assert running.terminate() == 0
    entries = [json.loads(line) for line in running.log().splitlines()]
    assert all({"time", "level", "logger", "message"} <= set(entry) for entry in entries)
    assert any(entry.get("path") == "/predict" for entry in entries)
    assert any("cannot be read" in entry["message"] and entry["request_id"] for entry in entries)


def test_each_line_has_the_id_of_its_own_request(start_service: StartService) -> None:
    """Requests that are answered at the same time, on the loop and in threads, never lend each other their ids."""
    running = start_service(ACCESS_LOG="1")
    paths = ("/predict", "/predict/batch", "/health")

    def ask(number: int) -> None:
        with requests.Session() as session:
            for path in paths * 5:
                headers = {"X-Request-ID": f"{path}#{number}"}
                files = None if path == "/health" else {"image": RED, "images": RED}
                method = "POST" if files else "GET"
                answer = session.request(method, running.url + path, files=files, headers=headers, timeout=30)
                assert answer.headers["X-Request-ID"] == headers["X-Request-ID"]

    with ThreadPoolExecutor(8) as clients:
        list(clients.map(ask, range(8)))
    assert running.terminate() == 0
    entries = [json.loads(line) for line in running.log().splitlines()]
    asked = [(entry["path"], entry["request_id"]) for entry in entries if entry.get("path") in paths]
    assert Counter(asked) == {(path, f"{path}#{number}"): 5 for path in paths for number in range(8)}


@pytest.mark.skipif(not seccomp.SUPPORTED, reason="the filter is written for Linux on x86-64 and ARM64")
def test_no_outgoing_connection(models: Path) -> None:
    """The service lives under a kernel filter that kills whatever calls ``connect``, native code included."""
    forbidden = [sys.executable, "-c", "import socket; socket.create_connection(('127.0.0.1', 9))"]
    killed = subprocess.run(forbidden, preexec_fn=seccomp.kill_on_connect, check=False)
    assert killed.returncode == -signal.SIGSYS, "the filter does not work, so this test would prove nothing"

    running = start({"MODEL_DIR": str(models), "DRAIN_SECONDS": "0"}, seccomp.kill_on_connect)
    try:
        running.wait_until_ready()
        before = workers(running)
        for path in ("/predict", "/predict/batch"):
            assert requests.post(running.url + path, files={"images": RED, "image": RED}, timeout=30).ok
        for path in ("/model", "/metrics", "/health"):
            assert running.status(path) == 200
        time.sleep(1)  # reports of use are sent from threads of their own
        assert workers(running) == before
        assert running.terminate() == 0
        assert "SIGSYS" not in running.log()
    finally:
        running.kill()


@pytest.mark.slow
def test_tensorflow_engine_serves(start_service: StartService) -> None:
    """``ENGINE=tensorflow`` answers as well: its model is loaded after the fork."""
    running = start_service(ENGINE="tensorflow")
    assert label(running.predict(RED)) == "red"
    assert running.get("/health").json()["engine"]["name"] == "tensorflow"
    assert running.terminate() == 0
