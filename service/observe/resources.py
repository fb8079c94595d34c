"""What the whole service has and takes, in all its processes: read when Prometheus asks, so that no request pays."""

import contextlib
import os
import platform
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, InfoMetricFamily, Metric
from prometheus_client.registry import Collector

from machine import usable_cores, usable_memory
from service import __version__
from service.settings import Settings

_PROCESSES = Path("/proc")
_TICKS = float(os.sysconf("SC_CLK_TCK"))  # of /proc/PID/stat, in a second
_TIMES = slice(11, 15)  # user and system time, then those of children that have ended, after a process's name
_ATTEMPTS = 5
_REVISION = "DARKROOM_REVISION"  # in an image: the commit that it was built from


class Usage(NamedTuple):
    """What a process and its descendants take."""

    cpu_seconds: float  # also of children that have ended
    memory: int  # bytes; a page that several of them share counts once


@dataclass(frozen=True)
class Limits:
    """What the service may have or take, and since when it runs."""

    workers: int
    cores: int
    memory: int  # bytes
    queue_images: int
    request_deadline: float  # seconds
    model_poll: float  # seconds
    started: float  # seconds since the epoch

    @classmethod
    def of(cls, settings: Settings, started: float) -> "Limits":
        """Return what ``settings`` and the machine allow."""
        return cls(
            workers=settings.workers,
            cores=usable_cores(),
            memory=usable_memory(),
            queue_images=settings.workers * settings.queue_length,
            request_deadline=settings.request_deadline,
            model_poll=settings.model_poll_seconds,
            started=started,
        )


class Resources(Collector):
    """Tells Prometheus about the limits, and what the process ``master`` and its descendants take."""

    def __init__(self, limits: Limits, master: int, killed: Callable[[], int] = lambda: 0) -> None:
        """Take what does not change, the process above all workers, and how many of them it has ``killed``."""
        self._limits = limits
        self._master = master
        self._killed = killed

    def collect(self) -> Iterator[Metric]:
        """Yield the metrics; called for each scrape. Without /proc, as on macOS, usage is not told."""
        limits = self._limits
        yield InfoMetricFamily(
            "darkroom_build", "The code that runs; an unknown revision is that of no image.", _build()
        )
        yield _gauge("workers", "Workers that there should be.", limits.workers)
        yield _gauge("cores", "Cores that the service may keep busy.", limits.cores)
        yield _gauge("memory_limit_bytes", "Memory that the service may take.", limits.memory)
        yield _gauge("queue_limit_images", "Images that may wait for the engine.", limits.queue_images)
        yield _gauge("request_deadline_seconds", "Longest time to answer a request.", limits.request_deadline)
        yield _gauge("model_poll_seconds", "Time between two looks at the model folder.", limits.model_poll)
        yield _gauge("start_time_seconds", "When the service was started, since the epoch.", limits.started)
        yield CounterMetricFamily(
            "darkroom_workers_killed", "Workers that were killed since they gave no sign of life.", self._killed()
        )
        try:
            used = usage(self._master)
        except OSError:
            return
        yield _gauge("memory_bytes", "Memory of all processes, a shared page counted once.", used.memory)
        yield CounterMetricFamily("darkroom_cpu_seconds", "Processor time of all processes.", used.cpu_seconds)


def usage(master: int, processes: Path = _PROCESSES) -> Usage:
    """Return what ``master`` and its descendants take; ``processes`` is where /proc is.

    Raises:
        OSError: there is no such process, no /proc, or it may not be read.
    """
    for _ in range(_ATTEMPTS):
        tree = list(_with_descendants(processes / str(master)))
        times = [_cpu_seconds(process) for process in tree]
        # Had a child ended meanwhile, its time would be counted twice or not at all, and the counter would go down.
        if [_cpu_seconds(process)[1] for process in tree] == [ended for _, ended in times]:
            break
    return Usage(sum(own + ended for own, ended in times), sum(_memory(process) for process in tree))


def _build() -> dict[str, str]:
    revision = os.environ.get(_REVISION) or "unknown"
    return {"version": __version__, "revision": revision, "python": platform.python_version()}


def _gauge(name: str, description: str, value: float) -> GaugeMetricFamily:
    return GaugeMetricFamily(f"darkroom_{name}", description, value)


def _with_descendants(process: Path) -> Iterator[Path]:
    """Yield ``process``, its children, which any of its threads may have started, theirs, and so on."""
    yield process
    for thread in sorted((process / "task").iterdir()):
        for child in _read(thread / "children").split():
            with contextlib.suppress(FileNotFoundError):  # it has ended
                yield from _with_descendants(process.parent / child)


def _cpu_seconds(process: Path) -> tuple[float, float]:
    """Return the seconds of ``process``, and those of its children that have ended; none where it has ended itself."""
    text = _read(process / "stat")
    times = [int(ticks) / _TICKS for ticks in text.rpartition(")")[2].split()[_TIMES]]
    return sum(times[:2]), sum(times[2:])


def _memory(process: Path) -> int:
    """Return the bytes of ``process``, of a page that others have as well only its share; 0 where it has ended."""
    lines = _read(process / "smaps_rollup").splitlines()
    return sum(int(line.split()[1]) * 1024 for line in lines if line.startswith("Pss:"))


def _read(file: Path) -> str:
    """Return the text of a file in /proc; nothing where the process has ended."""
    try:
        return file.read_text(encoding="utf-8")
    except (FileNotFoundError, ProcessLookupError):
        return ""
