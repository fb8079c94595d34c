"""The port for gRPC of the service as a process: no cost without it, drains, reloads, workers, limits, logs."""

import json
import os
import signal
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import pytest

from service.protocols.grpc import open_inference_pb2
from service.serving.grpc_port import _Threads
from tests.meanwhile import meanwhile
from tests.models import copy
from tests.service.calling import PREDICTION, V2, Caller, infer
from tests.service.conftest import StartService
from tests.service.pictures import plain
from tests.service.running import RunningService, free_port, metric, wait_for, workers

pytestmark = pytest.mark.process

INFER = V2 + "ModelInfer"
ONE = infer(bytes(32 * 32 * 3), [1, 32, 32, 3])
LIBRARIES = ("cygrpc", "google/_upb")  # what is mapped where gRPC and its messages are imported


class Calls:
    """Calls that clients make, and what each got, counted."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self.told: Counter[str] = Counter()
        self.sentences: set[str] = set()

    @property
    def answers(self) -> int:
        """How many answers there were so far."""
        return self.told["OK"]

    def call(self, address: str, stop: threading.Event) -> None:
        """Call one after the other until ``stop``, or until the port is closed: a balancer would go elsewhere then."""
        caller = Caller(address)
        while not stop.is_set():
            told = caller.call(INFER, ONE)
            with self._lock:
                self.told[told.code] += 1
                self.sentences.add(told.sentence)
            if told.code == "UNAVAILABLE":
                break
        caller.close()


@contextmanager
def calling(running: RunningService, clients: int) -> Iterator[Calls]:
    """Let so many ``clients`` call until the block ends."""
    calls = Calls()
    with meanwhile(*[partial(calls.call, running.grpc)] * clients):
        yield calls


def mapped(process: int) -> list[str]:
    """Return which of ``LIBRARIES`` a process has in its memory."""
    maps = Path(f"/proc/{process}/maps").read_text()
    return [library for library in LIBRARIES if library in maps]


def test_nothing_of_grpc_is_imported_without_a_port(start_service: StartService) -> None:
    """A worker without GRPC_PORT has neither gRPC nor its messages in its memory, and one with it has both."""
    without, with_it = start_service(), start_service(GRPC_PORT=str(free_port()))
    assert [mapped(process) for process in (without.process.pid, *workers(without))] == [[], []]
    assert mapped(with_it.process.pid) == []
    assert mapped(workers(with_it)[0]) == list(LIBRARIES)


@pytest.mark.slow
@pytest.mark.timing
def test_a_reload_and_a_new_worker_lose_no_call(start_service: StartService) -> None:
    """While clients call, all workers are replaced by SIGHUP, and then one of two by SIGTERM: all is answered."""
    running = start_service(GRPC_PORT=str(free_port()), WORKERS="2")
    before = set(workers(running))
    with calling(running, clients=8) as calls:
        wait_for(lambda: calls.answers > 50, running.log)
        running.process.send_signal(signal.SIGHUP)
        wait_for(lambda: len(workers(running)) == 2 and not before & set(workers(running)), running.log)
        first, second = workers(running)
        answered = calls.answers
        wait_for(lambda: calls.answers > answered + 50, running.log)
        os.kill(first, signal.SIGTERM)
        wait_for(lambda: first not in workers(running) and len(workers(running)) == 2, running.log)
        answered = calls.answers
        wait_for(lambda: calls.answers > answered + 50, running.log)
    assert set(calls.told) == {"OK"}, (calls.told, calls.sentences)
    assert second in workers(running)


@pytest.mark.slow
@pytest.mark.timing
def test_the_only_worker_is_replaced_by_a_reload_without_loss(start_service: StartService) -> None:
    """The same of a service with one worker: the old one answers until the new one listens."""
    running = start_service(GRPC_PORT=str(free_port()))
    [before] = workers(running)
    with calling(running, clients=4) as calls:
        wait_for(lambda: calls.answers > 50, running.log)
        running.process.send_signal(signal.SIGHUP)
        wait_for(lambda: before not in workers(running), running.log)
        answered = calls.answers
        wait_for(lambda: calls.answers > answered + 50, running.log)
    assert set(calls.told) == {"OK"}, (calls.told, calls.sentences)


@pytest.mark.slow
@pytest.mark.timing
def test_sigterm_under_load_loses_no_accepted_call(start_service: StartService) -> None:
    """While it drains it says that it is not ready and answers; then clients find the port closed, and nothing else."""
    running = start_service(GRPC_PORT=str(free_port()), WORKERS="2", DRAIN_SECONDS="0.6", ACCESS_LOG="1")
    caller = Caller(running.grpc)
    with calling(running, clients=8) as calls:
        wait_for(lambda: calls.answers > 50, running.log)
        running.process.send_signal(signal.SIGTERM)
        wait_for(lambda: not caller.call(V2 + "ServerReady", b"").answer.ready, running.log)
        answered = calls.answers
        assert running.process.wait(30) == 0, running.log()
    caller.close()
    assert set(calls.told) == {"OK", "UNAVAILABLE"}, (calls.told, calls.sentences)
    assert calls.told["UNAVAILABLE"] == 8
    assert calls.answers > answered
    lines = [json.loads(line) for line in running.log().splitlines()]
    begun = [line for line in lines if line.get("path") == INFER]
    assert {line["status"] for line in begun} == {"OK"}
    assert len(begun) == calls.answers


@pytest.mark.slow
def test_interrupt_under_load_ends_at_once(start_service: StartService) -> None:
    """SIGINT ends the service within seconds also while calls come in."""
    running = start_service(GRPC_PORT=str(free_port()), WORKERS="2")
    with calling(running, clients=8) as calls:
        wait_for(lambda: calls.answers > 50, running.log)
        running.process.send_signal(signal.SIGINT)
        assert running.process.wait(8) == 0, running.log()
    assert "Traceback" not in running.log()


@pytest.mark.slow
def test_a_lone_worker_that_is_told_to_stop_does_not_wait_for_another(start_service: StartService) -> None:
    """SIGTERM to the only worker: gunicorn begins the next one only once it is gone."""
    running = start_service(GRPC_PORT=str(free_port()))
    [worker] = workers(running)
    started = time.monotonic()
    os.kill(worker, signal.SIGTERM)
    wait_for(lambda: workers(running) not in ([worker], []), running.log)
    assert time.monotonic() - started < 5
    caller = Caller(running.grpc)
    wait_for(lambda: caller.call(INFER, ONE).code == "OK", running.log)
    caller.close()


@pytest.mark.slow
def test_a_running_call_is_answered(start_service: StartService) -> None:
    """A call that is under way when SIGTERM comes, and that takes longer than the drain, gets its answer."""
    running = start_service(GRPC_PORT=str(free_port()), DRAIN_SECONDS="0.05", REQUEST_DEADLINE_SECONDS="25")
    picture = plain("red", size=(3000, 3000))
    pictures = b"".join([len(picture).to_bytes(4, "little") + picture] * 40)
    caller = Caller(running.grpc)
    caller.call(V2 + "ServerLive", b"")
    answer = caller.channel.unary_unary(INFER).future(
        infer(pictures, [40], "image_bytes", "BYTES").SerializeToString(), timeout=30
    )
    time.sleep(0.3)
    assert not answer.done()
    running.process.send_signal(signal.SIGTERM)
    assert list(open_inference_pb2.ModelInferResponse.FromString(answer.result()).outputs[0].shape) == [40, 3]
    assert running.process.wait(30) == 0
    caller.close()


@pytest.mark.slow
def test_deadlines(start_service: StartService) -> None:
    """The service's own deadline is told; a shorter one of the client ends the work as well."""
    running = start_service(GRPC_PORT=str(free_port()), REQUEST_DEADLINE_SECONDS="0.5")
    picture = plain("red", size=(3000, 3000))
    request = infer(b"".join([len(picture).to_bytes(4, "little") + picture] * 100), [100], "image_bytes", "BYTES")
    caller = Caller(running.grpc)
    told = caller.call(INFER, request)
    assert (told.code, len(told.sentence) > 15) == ("DEADLINE_EXCEEDED", True)
    started = time.monotonic()
    assert caller.call(INFER, request, timeout=0.2).code == "DEADLINE_EXCEEDED"
    wait_for(lambda: metric(running, "requests_in_flight") <= 1, running.log)  # the one that asks
    assert time.monotonic() - started < 0.5 + 1
    caller.close()


def test_log_has_each_call(start_service: StartService) -> None:
    """ACCESS_LOG has a line of each call, with its method, its code and its id."""
    running = start_service(GRPC_PORT=str(free_port()), ACCESS_LOG="1")
    caller = Caller(running.grpc)
    caller.call(INFER, ONE, {"x-request-id": "a-name"})
    caller.call(PREDICTION + "Predict", b"\xff", {"x-request-id": "another"})
    caller.close()
    wait_for(lambda: "another" in running.log(), running.log)
    lines = {line.get("request_id"): line for line in map(json.loads, running.log().splitlines())}
    assert [(lines[name]["path"], lines[name]["status"]) for name in ("a-name", "another")] == [
        (INFER, "OK"),
        (PREDICTION + "Predict", "INVALID_ARGUMENT"),
    ]
    assert lines["a-name"]["client"] == "127.0.0.1"
    assert metric(running, "requests_total") >= 2


def test_pictures_are_kept_unless_the_caller_says_no(start_service: StartService, tmp_path: Path) -> None:
    """X-Darkroom-Capture is heeded as over HTTP."""
    running = start_service(GRPC_PORT=str(free_port()), CAPTURE_DIR=str(tmp_path / "kept"), CAPTURE_SHARE="1")
    caller = Caller(running.grpc)
    for colour, metadata in (("red", {"x-darkroom-capture": "no"}), ("green", {})):
        picture = plain(colour)
        content = len(picture).to_bytes(4, "little") + picture
        assert caller.call(INFER, infer(content, [1], "image_bytes", "BYTES"), metadata).code == "OK"
    caller.close()
    wait_for(lambda: metric(running, "captures_total") == 1, running.log)
    time.sleep(0.5)
    assert metric(running, "captures_total") == 1


@pytest.mark.keras
@pytest.mark.slow
def test_beside_tensorflow(start_service: StartService) -> None:
    """With ENGINE=tensorflow, which brings messages of the same names, both are in one process."""
    running = start_service(GRPC_PORT=str(free_port()), ENGINE="tensorflow")
    caller = Caller(running.grpc)
    assert caller.call(INFER, ONE).code == "OK"
    caller.close()


def test_a_new_version_answers(start_service: StartService, models: Path, published: Path) -> None:
    """A version that comes is what answers by gRPC as well."""
    running = start_service(GRPC_PORT=str(free_port()))
    caller = Caller(running.grpc)
    assert caller.call(INFER, ONE).answer.model_version == "1"
    copy(published, models, 2)
    wait_for(lambda: caller.call(INFER, ONE).answer.model_version == "2", running.log)
    caller.close()


def test_a_call_without_a_thread_waits_for_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where none can be started, nothing is raised, which would end gRPC's server: the next call brings both."""
    threads = _Threads(4)
    with monkeypatch.context() as short:

        def fail(_: threading.Thread) -> None:
            raise RuntimeError("can't start new thread")

        short.setattr(threading.Thread, "start", fail)
        first = threads.submit(int, "1")
    assert not first.done()
    second = threads.submit(int, "two")
    assert first.result(10) == 1
    with pytest.raises(ValueError, match="two"):
        second.result(10)


def test_calls_run_side_by_side_in_few_threads() -> None:
    """Each call that comes while all threads work has one of its own, up to the most; the rest waits."""
    threads, met, free = _Threads(3), threading.Barrier(4), threading.Event()

    def meet() -> bool:
        met.wait(10)
        return free.wait(10)

    calls = [threads.submit(meet) for _ in range(3)]
    later = threads.submit(bool)
    met.wait(10)
    assert not later.done()
    free.set()
    assert [call.result(10) for call in (*calls, later)] == [True, True, True, False]
