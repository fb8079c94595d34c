"""gunicorn, as this service needs it: models after the fork, a drain before the stop, metrics of all workers."""

import contextlib
import gc
import logging
import math
import mmap
import os
import queue
import resource
import shutil
import signal
import struct
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import FrameType
from typing import Any, NamedTuple

from gunicorn.app.base import BaseApplication
from gunicorn.arbiter import Arbiter
from gunicorn.config import Config
from gunicorn.glogging import Logger
from gunicorn.http.message import Request
from gunicorn.workers.base import Worker

from machine import give_large_blocks_back, usable_memory
from service.serving.connection import KEEPALIVE_SECONDS, Answering, ParserOnly
from service.serving.plain_requests import PlainRequest
from service.settings import Settings

log = logging.getLogger(__name__)

_SHARED_MEMORY = Path("/dev/shm")  # noqa: S108 - only made use of through tempfile
_SHARED_BYTES = 4 * 1024 * 1024  # that workers share, for each of them and those that come after it

_MOST_CONNECTIONS = 8192  # of one worker
_LEAST_CONNECTIONS = 16
_CONNECTION_BYTES = 64 * 1024  # of memory, with half a head or a short answer
_OTHER_FILES = 96  # that a worker has open besides, and those that models and libraries open for a moment

# Of the memory, one part: what all bodies of requests may take together, all connections, and all answers that wait
# for their clients.
_SHARE_OF_BODIES = 4
_SHARE_OF_CONNECTIONS = 4
_SHARE_OF_ANSWERS = 16

_SHARE_OF_GRPC = 4  # of all connections, one part

_MEMORY_OF_A_WORKER = 192 * 1024 * 1024  # bytes, with a small model and without any request
_LOAD_PATIENCE = 15.0  # seconds that a worker waits for its model before it takes requests
_WARM_SECONDS = 0.5  # after which what the first answers do not need is started
_LOOK_SECONDS = 0.5  # between two looks at whether workers live


class GunicornLogger(Logger):
    """Lets gunicorn's records go the way of all others."""

    def setup(self, cfg: Config) -> None:
        """Leave the handlers to the root logger; gunicorn's own would write another format."""
        self.cfg = cfg
        self.error_log.setLevel(cfg.loglevel.upper())
        self.error_log.propagate = True

    def exception(self, msg: object, *args: object, **kwargs: Any) -> None:
        """Log an exception with its trace, unless it is only a client that stopped sending."""
        if isinstance(sys.exc_info()[1], TimeoutError):
            self.debug("a client sent nothing for too long; its connection is closed")
        else:
            super().exception(msg, *args, **kwargs)


class DrainFlag:
    """A bit that the master sets and every worker sees: one byte of memory that forks share."""

    def __init__(self) -> None:
        """Make the byte; it must be before the fork."""
        self._byte = mmap.mmap(-1, 1)

    def set(self) -> None:
        """Say that the service is stopping."""
        self._byte[0] = 1

    def __call__(self) -> bool:
        """Say whether the service is stopping."""
        return self._byte[0] == 1


class KillCount:
    """How many workers the master has killed, which every worker sees: a number in memory that forks share."""

    _FORMAT = "Q"

    def __init__(self) -> None:
        """Make the number; it must be before the fork."""
        self._bytes = mmap.mmap(-1, struct.calcsize(self._FORMAT))

    def add(self) -> None:
        """Count one more."""
        self._bytes[:] = struct.pack(self._FORMAT, self() + 1)

    def __call__(self) -> int:
        """Return the number."""
        return int(struct.unpack(self._FORMAT, self._bytes[:])[0])


class CannotServe(Exception):
    """The machine lacks what it takes to serve; the message says what, and how to give it."""


class DrainingArbiter(Arbiter):
    """gunicorn's master, with time between SIGTERM and the end in which load balancers can notice.

    It replaces workers also in that time, and one that gives no sign of life at once.
    """

    def __init__(
        self, app: BaseApplication, drain: DrainFlag, killed: KillCount, *, drain_seconds: float, patience: float
    ) -> None:
        """Take the flag that workers read, how long to go on answering after it is set, and the count of the killed.

        ``patience`` is how many seconds a worker may give no sign of life.
        """
        self._drain = drain
        self._drain_seconds = drain_seconds
        self._killed = killed
        self._patience = patience
        self._looked = time.monotonic()
        super().__init__(app)

    def signal(self, sig: int, frame: FrameType | None) -> None:
        """Queue a signal; a second SIGTERM means that somebody is in a hurry."""
        if sig == signal.SIGTERM and self._drain():
            sig = signal.SIGINT
        super().signal(sig, frame)

    def handle_term(self) -> None:
        """Turn readiness to 503, go on answering for the drain time, then stop gracefully."""
        self._drain.set()
        log.info("stopping: readiness is 503 now, the port closes in %g s", self._drain_seconds)
        deadline = time.monotonic() + self._drain_seconds
        while (left := deadline - time.monotonic()) > 0:
            with contextlib.suppress(queue.Empty):
                self._handle_while_draining(self.SIG_QUEUE.get(timeout=min(left, _LOOK_SECONDS)))
            self.murder_workers()
            self.manage_workers()
        raise StopIteration  # how gunicorn's own handler starts the graceful stop

    def spawn_worker(self) -> int:
        """Start a worker; where that cannot be, as where memory is short, it is tried again at the next look.

        gunicorn's own ends the service, with all workers that are well.
        """
        try:
            pid: int = super().spawn_worker()
        except (OSError, MemoryError) as error:
            log.error("no worker can be started, which is tried again: %s", str(error) or type(error).__name__)
            return 0
        return pid

    def wait_for_signals(self, timeout: float | None = None) -> list[int]:
        """Return the signals that came, after half a second at the latest."""
        signals: list[int] = super().wait_for_signals(_LOOK_SECONDS)
        return signals

    def reap_workers(self) -> None:
        """Take note of workers that ended, and kill those that never will: gunicorn calls it also while it stops."""
        self.murder_workers()
        super().reap_workers()

    def murder_workers(self) -> None:
        """Kill workers that give no sign of life.

        gunicorn's own asks them by a gentler signal first, which one that is stopped does not notice.
        """
        now = time.monotonic()
        held_up = now - self._looked > 3 * _LOOK_SECONDS  # as the workers may be: they get another moment
        self._looked = now
        for pid, worker in [] if held_up else list(self.WORKERS.items()):
            with contextlib.suppress(OSError, ValueError):  # it has ended
                silent = now - worker.tmp.last_update()
                if silent > self._patience and not worker.aborted:
                    worker.aborted = True
                    self._killed.add()
                    log.error("worker %d gave no sign of life for %.1f s: it is killed and replaced", pid, silent)
                    self.kill_worker(pid, signal.SIGKILL)

    def _handle_while_draining(self, sig: int) -> None:
        if sig in (signal.SIGINT, signal.SIGQUIT):
            self.handle_int()
        elif sig == signal.SIGCHLD:
            self.reap_workers()


class Server(BaseApplication):
    """Runs the service: reads no configuration but ``settings``."""

    def __init__(self, settings: Settings, scratch: Path) -> None:
        """Take the settings and a folder for gunicorn's heartbeat files."""
        self._settings = settings
        self._scratch = scratch
        self._drain = DrainFlag()
        self._killed = KillCount()
        self._connections = most_connections(usable_memory() // settings.workers)
        self._grpc_connections = 0 if settings.grpc_port is None else self._connections // _SHARE_OF_GRPC
        self._connections -= self._grpc_connections
        self._started = time.time()
        self._close: Any = None
        self._loop: Any = None
        self._models: Any = None
        self._room: Any = None
        self._load_shedder: Any = None
        self._short_requests: Any = None
        self._grpc: Any = None
        super().__init__()

    def load_config(self) -> None:
        """Set gunicorn's options; called by gunicorn."""
        for name, value in self._options().items():
            self.cfg.set(name, value)

    def load(self) -> Any:
        """Return the Flask application, with its model; called by gunicorn in each worker, after the fork."""
        from prometheus_client import CollectorRegistry

        from service.app import DIALECTS, create_app, make_services
        from service.observe.metrics import Metrics
        from service.observe.resources import Limits, Resources
        from service.observe.tracing import make_tracer
        from service.serving.gateway import Gateway, Room
        from service.serving.load_shedding import LoadShedder
        from service.serving.loop import Loop
        from service.serving.short_requests import ShortRequests
        from service.web.which import lane_of

        settings = self._settings
        metrics = Metrics(
            CollectorRegistry(),
            Resources(Limits.of(settings, self._started), os.getppid(), self._killed),
            settings.drift_window,
        )
        metrics.worker_starts.inc()
        metrics.write()  # it may die of its model
        busy = metrics.loop_busy_seconds.inc
        self._loop = loop = Loop(settings.threads, settings.queue_length, tell_busy=busy, each_turn=metrics.write)
        services = make_services(
            settings,
            metrics,
            self._drain,
            runtime=loop,
            notes=self._scratch,
            tracer=make_tracer(os.environ, time.monotonic, addresses=settings.access_log),
        )
        self._close = services.close
        self._models = services.models
        gc.freeze()  # what was imported stays: no need to look through it again and again
        services.models.start(settings.model_poll_seconds)
        if services.source is not None:
            services.source.start()
        if services.captures is not None:
            services.captures.start()
        application = create_app(services)  # while OpenVINO loads the model, mostly outside of Python
        self._load_shedder = LoadShedder(application, DIALECTS, services.notes, services.origins)
        # The largest body, and the byte that shows of one in chunks that it is larger.
        self._room = room = Room(max(settings.max_body_bytes + 1, self._memory_for_bodies()))
        self._short_requests = ShortRequests(application, DIALECTS, services, loop, room)
        services.models.wait(_LOAD_PATIENCE)
        later = threading.Timer(_WARM_SECONDS, services.predictor.warm)
        later.daemon = True
        later.start()
        if settings.grpc_port is not None:
            self._open_grpc(services, settings.grpc_port)
        return Gateway(
            application,
            loop,
            max_body=settings.max_body_bytes,
            room=room,
            max_offloaded=settings.queue_length,
            overloaded=self.overloaded,
            lane_of=lambda environ: lane_of(environ, services.models),
        )

    def _memory_for_bodies(self) -> int:
        """Return how many bytes the bodies that come by HTTP may take in one worker; as many may come by gRPC."""
        ways = 1 if self._settings.grpc_port is None else 2
        return usable_memory() // _SHARE_OF_BODIES // self._settings.workers // ways

    def _open_grpc(self, services: Any, port: int) -> None:
        from service.serving.grpc_port import GrpcPort, Most

        most = Most(self._memory_for_bodies(), self.most_unsent(), self._grpc_connections)
        self._grpc = GrpcPort(services, self._loop.in_turn, port, most, self._scratch)

    def leave_grpc(self) -> Callable[[], bool]:
        """Begin to end the calls by gRPC; return what says whether they have ended."""
        if self._grpc is None:
            return lambda: True
        ended: Callable[[], bool] = self._grpc.leave(self._drain)
        return ended

    def lost_grpc(self) -> bool:
        """Say whether calls by gRPC are not taken any more, though nobody has ended that."""
        return self._grpc is not None and bool(self._grpc.lost)

    def draining(self) -> bool:
        """Say whether the service is stopping; asked by the workers."""
        return self._drain()

    def answering(self, port: int) -> Answering:
        """Return what answers at ``port`` without a parser; nothing does at that of health and metrics."""
        return ParserOnly() if port == self._settings.admin_port else self

    def overloaded(self) -> bool:
        """Say whether requests come faster than they can be answered; asked by the workers."""
        return bool(self._loop.overloaded(self._models.count))

    def refuse(self, request: PlainRequest, client: str | None) -> bytes | None:
        """Return a 503 to ``request``; None where it may not be refused."""
        if self._drain():  # connections are closed then
            return None
        refused: bytes | None = self._load_shedder.answer(request, client)
        return refused

    def takes(self, request: PlainRequest) -> bool:
        """Say whether ``request`` needs neither gunicorn's parser nor Flask."""
        return not self._drain() and bool(self._short_requests.takes(request))

    def reserve(self, size: int) -> bool:
        """Say whether there is room for a body of ``size`` bytes, which is taken until ``release``."""
        return bool(self._room.take(size))

    def release(self, size: int) -> None:
        """Give the room of a body of ``size`` bytes back."""
        self._room.give_back(size)

    def answer(self, request: PlainRequest, client: str | None) -> bytes | None:
        """Return the answer to ``request``; None where it needs a parser after all."""
        answered: bytes | None = self._short_requests.answer(request, client)
        return answered

    def reject(self, status: int, message: str, request_id: str) -> bytes:
        """Return the answer to what never became a request."""
        from service.web.errors import whole_answer

        return whole_answer(status, message, request_id)

    def takes_body(self, length: int) -> bool:
        """Say whether a body of ``length`` bytes may be sent at all."""
        return length <= self._settings.max_body_bytes

    def most_unsent(self) -> int:
        """Return how many bytes of answers one worker may hold for clients that do not take them."""
        return usable_memory() // self._settings.workers // _SHARE_OF_ANSWERS

    def run(self) -> None:
        """Serve until a signal ends it."""
        settings = self._settings
        seconds, patience = settings.drain_seconds, settings.worker_timeout
        DrainingArbiter(self, self._drain, self._killed, drain_seconds=seconds, patience=patience).run()

    def _options(self) -> dict[str, Any]:
        settings = self._settings
        host = f"[{settings.host}]" if ":" in settings.host else settings.host
        return {
            "bind": [f"{host}:{port}" for port in settings.ports],
            "workers": settings.workers,
            "worker_connections": self._connections,
            "worker_class": "service.serving.worker.DarkroomWorker",
            "timeout": math.ceil(settings.worker_timeout),  # gunicorn's own look at it is replaced
            "graceful_timeout": int(settings.request_deadline) + 5,
            "keepalive": KEEPALIVE_SECONDS,  # for gunicorn a yes; the connections count it themselves
            "worker_tmp_dir": str(self._scratch),
            "loglevel": settings.log_level,
            "logger_class": GunicornLogger,
            "control_socket_disable": True,
            "proc_name": "darkroom",
            "pre_request": self._pre_request,
            "worker_exit": self._worker_exit,
            "child_exit": self._child_exit,
        }

    def _pre_request(self, _: Worker, request: Request) -> None:
        """Close connections while draining, so that kept-alive clients go to another replica."""
        if self._drain():
            request.must_close = True

    def _worker_exit(self, _arbiter: Arbiter, _worker: Worker) -> None:
        """Stop the threads that call native code before the interpreter goes."""
        if self._grpc is not None:
            self._grpc.close()
        if self._close is not None:
            self._close()

    def _child_exit(self, _: Arbiter, worker: Worker) -> None:
        from service.observe.metrics import worker_died

        worker_died(int(worker.pid))


def serve(settings: Settings) -> None:
    """Serve with ``settings`` until a signal ends it; raises SystemExit with the exit code.

    Raises:
        CannotServe: there are too few files, or no place to write.
    """
    give_large_blocks_back()
    memory = usable_memory() // settings.workers
    if memory < _MEMORY_OF_A_WORKER:
        log.warning(
            "there are %d MB of memory for each of %d workers, and one takes %d MB or more with its model: give more, "
            "or set WORKERS lower, or the system will kill workers",
            memory // 2**20,
            settings.workers,
            _MEMORY_OF_A_WORKER // 2**20,
        )
    with _scratch_folder(settings.workers * _SHARED_BYTES) as scratch:
        server = Server(settings, scratch.folder)
        if scratch.has_space:
            # Read by prometheus_client when it is imported, which therefore happens later.
            os.environ["PROMETHEUS_MULTIPROC_DIR"] = str(scratch.folder)
        else:
            os.environ.pop("PROMETHEUS_MULTIPROC_DIR", None)
            log.warning(
                "%s has no space for what workers share: /metrics tells what the worker that is asked has done since "
                "its start; free %d MB there, or set TMPDIR to a folder that has them, and start again",
                scratch.folder.parent,
                settings.workers * _SHARED_BYTES // 2**20,
            )
        server.run()


def most_connections(memory: int) -> int:
    """Return how many connections one worker, which has ``memory`` bytes, may hold.

    The limit on open files is raised for them as far as it goes.

    Raises:
        CannotServe: that limit leaves too few.
    """
    fit = min(_MOST_CONNECTIONS, memory // _SHARE_OF_CONNECTIONS // _CONNECTION_BYTES)
    wanted = max(_LEAST_CONNECTIONS, fit)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    unlimited = resource.RLIM_INFINITY
    if soft != unlimited and soft < wanted + _OTHER_FILES:
        more = wanted + _OTHER_FILES if hard == unlimited else min(wanted + _OTHER_FILES, hard)
        with contextlib.suppress(ValueError, OSError):  # macOS has a lower limit than it says
            resource.setrlimit(resource.RLIMIT_NOFILE, (more, hard))
        soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == unlimited:
        return wanted
    if soft < _LEAST_CONNECTIONS + _OTHER_FILES:
        raise CannotServe(
            f"a process may have {soft} files open here, and a worker needs {_LEAST_CONNECTIONS + _OTHER_FILES}: raise "
            "the limit (ulimit -n; LimitNOFILE= of systemd; --ulimit nofile= of docker run)"
        )
    return min(wanted, soft - _OTHER_FILES)


class _Scratch(NamedTuple):
    """A folder for what workers share, and whether there is space in it."""

    folder: Path
    has_space: bool


@contextlib.contextmanager
def _scratch_folder(size: int, places: Sequence[Path] | None = None) -> Iterator[_Scratch]:
    """Make a folder for what workers share, at the first of ``places`` that has ``size`` bytes for it.

    In memory where that is possible, for the root may be read-only. Where no place has the space, it is at the first
    where a folder can be made at all, for the files by which workers give signs of life.

    Raises:
        CannotServe: nothing can be written anywhere.
    """
    scratch = _first_with_space(size, [_SHARED_MEMORY, *_temporary_folders()] if places is None else places)
    owner = os.getpid()
    try:
        yield scratch
    finally:
        if os.getpid() == owner:  # workers leave through here as well
            shutil.rmtree(scratch.folder, ignore_errors=True)


def _first_with_space(size: int, places: Sequence[Path]) -> _Scratch:
    full: list[Path] = []
    for place in places:
        with contextlib.suppress(OSError):
            folder = Path(tempfile.mkdtemp(prefix="darkroom-", dir=place))
            if _has_space(folder, size):
                for other in full:
                    other.rmdir()
                return _Scratch(folder, has_space=True)
            full.append(folder)
    if not full:
        raise CannotServe(
            f"a few small files have to be written, and none of {', '.join(map(str, places))} lets me: mount a tmpfs "
            "(--tmpfs /tmp of docker run; an emptyDir), or set TMPDIR to a folder that can be written"
        )
    for other in full[1:]:
        other.rmdir()
    return _Scratch(full[0], has_space=False)


def _has_space(folder: Path, size: int) -> bool:
    """Say whether ``size`` bytes can be taken in ``folder``; they are given back."""
    with tempfile.TemporaryFile(dir=folder) as file:
        try:
            os.posix_fallocate(file.fileno(), 0, size)
        except OSError:
            return False
    return True


def _temporary_folders() -> list[Path]:
    """Return where temporary files may lie, as in ``tempfile``, which would only tell the first that can be written."""
    named = [os.environ[name] for name in ("TMPDIR", "TEMP", "TMP") if os.environ.get(name)]
    return [Path(place) for place in (*named, "/tmp", "/var/tmp", "/usr/tmp")]  # noqa: S108 - through tempfile
