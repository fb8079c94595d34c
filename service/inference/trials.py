"""Versions are loaded where it costs least if they need too much memory, or the engine dies of them.

| what came of the version before | of others              | it is loaded                                     |
|---------------------------------|------------------------|--------------------------------------------------|
| it was refused                  |                        | by nobody, until its files change                |
| it was loaded whole             |                        | by this worker                                   |
| a worker died of it             |                        | by a process of its own, and then by this worker |
| nothing                         | one answers here       | by a process of its own, and then by this worker |
| nothing                         | one was refused        | by a process of its own, and then by this worker |
| nothing                         | nothing, or all loaded | by this worker, which is watched                 |

So a start takes no longer, and costs one worker at most, which answers nobody yet. What came of a version
is noted in a file that all workers of a service share, and those that come after them. One worker loads at a
time, so that memory for one more version is enough.
"""

import contextlib
import dataclasses
import fcntl
import hashlib
import json
import logging
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, NamedTuple

from artifact.files import Fingerprint
from service.inference.loading import Refused, fault_of, is_passing, lacks_something
from service.inference.trial import Outcome, Task
from service.inference.watch import TOO_SLOW, Watch, spare_memory

log = logging.getLogger(__name__)

AGAIN_SECONDS = 600.0  # after which a version is tried again whose fault may have passed

_ROOT = Path(__file__).parents[2]  # of the packages
_MOST_DEATHS = 2  # of workers, the second one after a trial that went well
_MOST_NOTES = 100
_NOTES_BYTES = 64 * 1024  # taken when the file is made, so that a full disk does not matter later
_WAIT_SECONDS = 0.02
_START_SECONDS = 10.0  # until a trial watches itself


class Untried(Exception):
    """Nothing came of the version, and nothing is known against it: try again later."""


class EngineKind(NamedTuple):
    """What runs versions: the arguments of ``engine.load`` beside the path."""

    name: str
    precision: str
    threads: int


@dataclass
class _Note:
    """What came of a version that had this ``fingerprint``; ``until`` is a time of the machine's monotonic clock."""

    fingerprint: str
    fault: str | None = None
    until: float | None = None  # the fault may pass
    loaded: bool = False  # whole, by a worker or a trial
    needs: int = 0  # bytes
    loading: bool = False  # by a worker that has not told what came of it
    deaths: int = 0  # of workers that loaded it

    def refuse(self, fault: str, *, passing: bool) -> None:
        """Note that the version is not to be loaded."""
        self.fault = fault
        self.until = time.monotonic() + AGAIN_SECONDS if passing else None
        self.loaded = self.loading = False

    def take(self, outcome: Outcome) -> None:
        """Note what came of a trial."""
        if outcome.fault is None:
            self.loaded, self.needs = True, outcome.needs
        else:
            self.refuse(outcome.fault, passing=outcome.passing)

    def reconsider(self) -> None:
        """Draw the conclusions of who has died and of what has passed since; nobody else may be loading."""
        if self.loading:  # who began is gone
            self.loading, self.loaded = False, False
            self.deaths += 1
            if self.deaths >= _MOST_DEATHS:
                self.refuse("workers died when they loaded it", passing=True)
        if self.until is not None and time.monotonic() >= self.until:
            self.fault, self.until = None, None
            self.deaths = _MOST_DEATHS - 1  # it is tried first, and no other worker has to die


class Trials:
    """Lets one worker load a version once it is known how, and notes what came of it for all others."""

    def __init__(self, notes: Path, kind: EngineKind, workers: int, seconds: float) -> None:
        """Take the file that all ``workers`` share, and how many seconds a version may take to load."""
        self._file = notes
        self._kind = kind
        self._workers = workers
        self._seconds = seconds
        self.answering = False
        """Whether this worker takes requests already, so that it must not die of what it loads."""
        self._stopping = threading.Event()
        self._child: subprocess.Popen[str] | None = None

    @contextlib.contextmanager
    def loading(self, path: Path, fingerprint: Fingerprint, replaced: Path | None) -> Iterator[None]:
        """Let the block load the version in folder ``path`` where that is safe; ``replaced`` answers until then.

        Raises:
            Refused: it has a fault, which may be that it needs too much.
            Untried: this worker stops, or no process could be started.
        """
        tried = False
        while True:
            with self._alone() as notes:
                note = notes.of(path, fingerprint)
                notes.write()
                if note.fault is not None:
                    raise Refused(note.fault, passing=note.until is not None)
                answers = self.answering or replaced is not None
                if tried or not notes.want_a_trial(note, answers=answers):
                    with self._noted(path, note, notes, watched=not answers):
                        yield
                    return
            outcome = self._try_alone(path, fingerprint, replaced)
            if outcome.fault is not None:
                raise Refused(outcome.fault, passing=outcome.passing)
            tried = True

    def know(self, path: Path, fingerprint: Fingerprint) -> bool:
        """Say whether the version in folder ``path`` was loaded whole, by any worker."""
        with self._alone() as notes:
            return notes.of(path, fingerprint).loaded

    def needs(self, path: Path) -> int:
        """Return how many bytes the version in folder ``path`` takes; 0 where nobody knows."""
        with self._alone() as notes:
            return notes.needs(path)

    def stop(self) -> None:
        """Give up what is tried or waited for; nothing is noted of it."""
        self._stopping.set()
        if (child := self._child) is not None:
            child.kill()

    @contextlib.contextmanager
    def _alone(self) -> Iterator["_Notes"]:
        """Give the notes while nobody else reads them, which also means that nobody else loads a version."""
        with self._lock(self._file) as file:
            yield _Notes(file)

    @contextlib.contextmanager
    def _lock(self, path: Path) -> Iterator[BinaryIO | None]:
        """Wait until no other worker has ``path`` open in this way; None where it cannot be opened at all."""
        try:
            file = os.fdopen(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600), "r+b", buffering=0)
        except OSError as error:
            log.warning("versions are loaded, but that cannot be noted: %s", error)
            yield None
            return
        with file:
            while not _locked(file):  # until it is closed, or this process ends
                if self._stopping.wait(_WAIT_SECONDS):
                    raise Untried("this worker stops")
            yield file

    @contextlib.contextmanager
    def _noted(self, path: Path, note: "_Note", notes: "_Notes", *, watched: bool) -> Iterator[None]:
        """Note that the block loads the version in ``path``, and what comes of it."""
        note.loading = True
        notes.write()
        try:
            with self._watched(path, note, notes) if watched else contextlib.nullcontext() as watch:
                yield
        except Exception as error:
            if note.loaded and lacks_something(error):  # it is known to be good
                raise Untried(fault_of(error)) from error
            note.refuse(fault_of(error), passing=is_passing(error))
            raise
        else:
            note.loaded, note.deaths = True, 0
            note.needs = watch.taken if watch else note.needs
        finally:
            note.loading = False
            notes.write()

    def _watched(self, path: Path, note: "_Note", notes: "_Notes") -> Watch:
        """Return what ends this worker where the version in ``path`` takes too much."""

        def end(fault: str) -> None:
            note.refuse(fault, passing=True)
            notes.write()
            log.error("%s is kept out: %s; this worker ends, and the next one takes another version", path, fault)
            os._exit(1)

        # Where others have loaded it already, they hold what they need.
        return Watch(spare_memory(1 if note.loaded else self._workers), self._seconds, end)

    def _try_alone(self, path: Path, fingerprint: Fingerprint, replaced: Path | None) -> Outcome:
        """Load the version in ``path`` in a process of its own and note what comes of it; others may load meanwhile."""
        with self._lock(self._file.with_name(f"{self._file.name}.trial")):
            with self._alone() as notes:
                note = notes.of(path, fingerprint)
                needs = notes.needs(replaced)
            if note.loaded or note.fault is not None:  # another worker was faster
                return Outcome(note.fault, passing=note.until is not None)
            outcome = self._try(path, needs)
            with self._alone() as notes:
                notes.of(path, fingerprint).take(outcome)
                notes.write()
            return outcome

    def _try(self, path: Path, replaced: int) -> Outcome:
        log.info("trying the version in %s in a process of its own", path)
        task = Task(str(path.absolute()), *self._kind, self._workers, replaced, self._seconds, os.getpid())
        command = [sys.executable, "-m", "service.inference.trial", json.dumps(dataclasses.asdict(task))]
        quiet = subprocess.DEVNULL
        try:
            child = subprocess.Popen(command, cwd=_ROOT, stdin=quiet, stdout=subprocess.PIPE, stderr=quiet, text=True)
        except (OSError, MemoryError) as error:
            raise Untried(f"no process can be started to try it ({fault_of(error)})") from error
        with child:
            self._child = child
            outcome = self._outcome(child)
            self._child = None
        if self._stopping.is_set():
            raise Untried("this worker stops")
        return outcome

    def _outcome(self, child: "subprocess.Popen[str]") -> Outcome:
        if self._stopping.is_set():
            child.kill()
        try:
            printed, _ = child.communicate(timeout=_START_SECONDS + self._seconds)
        except subprocess.TimeoutExpired:
            child.kill()
            return Outcome(TOO_SLOW.format(seconds=self._seconds), passing=True)
        if child.returncode == 0 and printed:
            return Outcome(**json.loads(printed.splitlines()[-1]))
        return Outcome(_how_it_died(child.returncode), passing=True)


class _Notes:
    """The notes of all versions, read from a file that is locked."""

    def __init__(self, file: BinaryIO | None) -> None:
        """Read ``file``; without one there are no notes yet, and they are not kept."""
        self._file = file
        self._notes: dict[str, _Note] = {}
        with contextlib.suppress(ValueError):  # it is new, or who wrote it died of it
            text = file.read() if file else b""
            self._notes = {path: _Note(**note) for path, note in json.loads(text).items()}

    def of(self, path: Path, fingerprint: Fingerprint) -> _Note:
        """Return the note of the version in ``path`` with this ``fingerprint``; a new one where there is none."""
        digest = hashlib.sha256(repr(fingerprint).encode(errors="surrogateescape")).hexdigest()
        note = self._notes.pop(str(path), None)
        if note is None or note.fingerprint != digest:
            note = _Note(digest)
        note.reconsider()
        self._notes[str(path)] = note
        return note

    def needs(self, path: Path | None) -> int:
        """Return how many bytes the version in ``path`` takes; 0 where nobody knows."""
        note = self._notes.get(str(path))
        return note.needs if note else 0

    def want_a_trial(self, note: _Note, *, answers: bool) -> bool:
        """Say whether a process of its own has to load the version of ``note`` before a worker may.

        ``answers`` says whether that has something to answer with.
        """
        refused = any(other.fault is not None for other in self._notes.values())
        return not note.loaded and (answers or note.deaths > 0 or refused)

    def write(self) -> None:
        """Keep the newest notes."""
        newest = list(self._notes.items())[-_MOST_NOTES:]
        text = json.dumps({path: dataclasses.asdict(note) for path, note in newest}).encode()
        if self._file is None:
            return
        try:
            os.pwrite(self._file.fileno(), text.ljust(_NOTES_BYTES), 0)
            os.ftruncate(self._file.fileno(), max(len(text), _NOTES_BYTES))
        except OSError as error:
            log.warning("it cannot be noted what came of a version: %s", error)


def _locked(file: BinaryIO) -> bool:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _how_it_died(code: int) -> str:
    if code == -signal.SIGKILL:
        return "it was killed when it was tried, as the system does where memory is short"
    if code < 0:
        return f"it died by signal {-code} when it was tried"
    return f"the process that tried it ended with {code}"
