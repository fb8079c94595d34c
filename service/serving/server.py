"""gunicorn, as this service needs it: models after the fork, a drain before the stop, metrics of all workers."""

import contextlib
import logging
import mmap
import os
import queue
import resource
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from types import FrameType
from typing import Any

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
_MOST_CONNECTIONS = 8192  # of one worker
_OTHER_FILES = 128  # that a worker has open beside its connections
_SHARE_OF_BODIES = 4  # of the memory, one part: what all bodies of requests may take together
_LOAD_PATIENCE = 15.0  # seconds that a worker waits for its model before it takes requests; gunicorn allows it 30


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


class DrainingArbiter(Arbiter):
    """gunicorn's master, with time between SIGTERM and the end in which load balancers can notice."""

    def __init__(self, app: BaseApplication, drain: DrainFlag, drain_seconds: float) -> None:
        """Take the flag that workers read, and how long to go on answering after it is set."""
        self._drain = drain
        self._drain_seconds = drain_seconds
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
                self._handle_while_draining(self.SIG_QUEUE.get(timeout=left))
        raise StopIteration  # how gunicorn's own handler starts the graceful stop

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
        self._started = time.time()
        self._close: Any = None
        self._loop: Any = None
        self._load_shedder: Any = None
        self._short_requests: Any = None
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
        from service.serving.gateway import Gateway, Room
        from service.serving.load_shedding import LoadShedder
        from service.serving.loop import Loop
        from service.serving.short_requests import ShortRequests

        settings = self._settings
        metrics = Metrics(CollectorRegistry(), Resources(Limits.of(settings, self._started), os.getppid()))
        metrics.worker_starts.inc()
        metrics.write()  # it may die of its model
        busy = metrics.loop_busy_seconds.inc
        self._loop = loop = Loop(settings.threads, settings.queue_length, tell_busy=busy, each_turn=metrics.write)
        services = make_services(
            settings, metrics, self._drain, runtime=loop, notes_of_versions=self._scratch / "versions"
        )
        self._close = services.registry.close
        services.registry.start(settings.model_poll_seconds, patience=_LOAD_PATIENCE)
        services.predictor.warm()
        application = create_app(services)
        self._load_shedder = LoadShedder(application, DIALECTS, services.notes, services.origins)
        # The largest body, and the byte that shows of one in chunks that it is larger.
        room = Room(max(settings.max_body_bytes + 1, usable_memory() // _SHARE_OF_BODIES // settings.workers))
        self._short_requests = ShortRequests(application, DIALECTS, services, loop, room)
        return Gateway(
            application,
            loop,
            max_body=settings.max_body_bytes,
            room=room,
            max_offloaded=settings.queue_length,
        )

    def draining(self) -> bool:
        """Say whether the service is stopping; asked by the workers."""
        return self._drain()

    def answering(self, port: int) -> Answering:
        """Return what answers at ``port`` without a parser; nothing does at that of health and metrics."""
        return ParserOnly() if port == self._settings.admin_port else self

    def overloaded(self) -> bool:
        """Say whether requests come faster than they can be answered; asked by the workers."""
        return bool(self._loop.overloaded())

    def refuse(self, request: PlainRequest, client: str | None) -> bytes | None:
        """Return a 503 to ``request``; None where it may not be refused."""
        if self._drain():  # connections are closed then
            return None
        refused: bytes | None = self._load_shedder.answer(request, client)
        return refused

    def takes(self, request: PlainRequest) -> bool:
        """Say whether ``request`` needs neither gunicorn's parser nor Flask."""
        return not self._drain() and bool(self._short_requests.takes(request))

    def answer(self, request: PlainRequest, client: str | None) -> bytes | None:
        """Return the answer to ``request``; None where it needs a parser after all."""
        answered: bytes | None = self._short_requests.answer(request, client)
        return answered

    def reject(self, status: int, message: str, request_id: str) -> bytes:
        """Return the answer to what never became a request."""
        from service.web.errors import whole_answer

        return whole_answer(status, message, request_id)

    def run(self) -> None:
        """Serve until a signal ends it."""
        DrainingArbiter(self, self._drain, self._settings.drain_seconds).run()

    def _options(self) -> dict[str, Any]:
        settings = self._settings
        host = f"[{settings.host}]" if ":" in settings.host else settings.host
        return {
            "bind": [f"{host}:{port}" for port in settings.ports],
            "workers": settings.workers,
            "worker_connections": _most_connections(),
            "worker_class": "service.serving.worker.DarkroomWorker",
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
        if self._close is not None:
            self._close()

    def _child_exit(self, _: Arbiter, worker: Worker) -> None:
        from service.observe.metrics import worker_died

        worker_died(int(worker.pid))


def serve(settings: Settings) -> None:
    """Serve with ``settings`` until a signal ends it; raises SystemExit with the exit code."""
    give_large_blocks_back()
    with _scratch_folder() as scratch:
        # Read by prometheus_client when it is imported, which therefore happens later.
        os.environ["PROMETHEUS_MULTIPROC_DIR"] = str(scratch)
        Server(settings, scratch).run()


def _most_connections() -> int:
    """Return how many connections one worker may hold, for which the limit on open files is raised as far as it goes.

    At its most, gunicorn accepts nobody until somebody leaves, which kept-alive clients may not do for long.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = _MOST_CONNECTIONS + _OTHER_FILES
    unlimited = resource.RLIM_INFINITY
    if soft != unlimited and soft < wanted:
        more = wanted if hard == unlimited else min(wanted, hard)
        with contextlib.suppress(ValueError, OSError):  # macOS has a lower limit than it says
            resource.setrlimit(resource.RLIMIT_NOFILE, (more, hard))
        soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return _MOST_CONNECTIONS if soft == unlimited else min(_MOST_CONNECTIONS, soft - _OTHER_FILES)


@contextlib.contextmanager
def _scratch_folder() -> Iterator[Path]:
    """Make a folder for what workers share; in memory where that is possible, for the root may be read-only."""
    in_memory = _SHARED_MEMORY.is_dir() and os.access(_SHARED_MEMORY, os.W_OK)
    folder = Path(tempfile.mkdtemp(prefix="darkroom-", dir=_SHARED_MEMORY if in_memory else None))
    owner = os.getpid()
    try:
        yield folder
    finally:
        if os.getpid() == owner:  # workers leave through here as well
            shutil.rmtree(folder, ignore_errors=True)
