"""The registry: finds model versions, checks and warms them, and swaps the one that answers."""

import logging
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Protocol

import numpy as np

from artifact import InvalidVersion, Metadata, validate, version_path, versions
from service.inference.batcher import Batcher
from service.inference.engine import Engine
from service.inference.errors import ModelUnavailable, UnknownModel
from service.inference.pace import Pace, measure
from service.inference.predictions import columns_without_embedding, interpret

log = logging.getLogger(__name__)

BUNDLED = "cifar10"  # the model that the project comes with

_WARM_UP = (1, 2)  # images: a lone one, and several
_SUM_TOLERANCE = 0.02  # bfloat16 keeps 8 bits, so ten probabilities add up to 1 no better than this

Fingerprint = tuple[tuple[str, int, int, int], ...]


class AmbiguousModel(Exception):
    """There are several models and none was chosen."""


class ModelObserver(Protocol):
    """Is told which versions are served and which are refused."""

    def serving(self, name: str, version: int, created: str, *, active: bool) -> None:
        """Note that this process serves the version, or no longer does; ``created`` is in ISO 8601."""

    def refused(self, versions: int) -> None:
        """Note how many versions are kept out."""


class State(StrEnum):
    """Where a version is in its life, in the words of TensorFlow Serving."""

    LOADING = "LOADING"
    AVAILABLE = "AVAILABLE"
    UNLOADING = "UNLOADING"
    END = "END"


@dataclass(frozen=True)
class VersionState:
    """The state of one version; ``fault`` is why it was refused, where it was."""

    version: int
    state: State
    fault: str | None = None


@dataclass(frozen=True)
class Refusal:
    """A version that is kept out, and why."""

    version: int
    reason: str
    fingerprint: Fingerprint = field(repr=False)


@dataclass
class LoadedModel:
    """A version that answers: what it is, and the batcher in front of its engine."""

    name: str
    version: int
    path: Path
    metadata: Metadata
    engine: Engine
    pace: Pace
    batcher: Batcher
    fingerprint: Fingerprint = field(repr=False)
    loaded_at: float  # seconds since the epoch
    users: int = 0
    retired: bool = False


class Registry:
    """Follows the model folder. ``use`` gives the version that answers now and keeps it alive until it is done."""

    def __init__(
        self,
        models: Path,
        name: str | None,
        pin: int | None,
        load_engine: Callable[[Path], Engine],
        make_batcher: Callable[[Engine, int, Metadata, Pace], Batcher],
        observer: ModelObserver,
    ) -> None:
        """Read nothing yet; ``refresh`` or ``start`` does. ``name`` None means the default model."""
        self.models = models
        self.pin = pin
        self._name = name
        self._load_engine = load_engine
        self._make_batcher = make_batcher
        self._observer = observer
        self._lock = threading.Lock()
        self._current: LoadedModel | None = None
        self._refused: dict[int, Refusal] = {}
        self._states: dict[int, VersionState] = {}
        self._reason = "The model is still being loaded."
        self._stop = threading.Event()
        self._first = threading.Event()
        self._thread: threading.Thread | None = None

    @property
    def name(self) -> str | None:
        """The model that is served; None while there is none to choose."""
        return self._name

    @property
    def current(self) -> LoadedModel | None:
        """The version that answers now, for looking at; call ``use`` to predict with it."""
        return self._current

    @property
    def reason(self) -> str:
        """Why there is no model, where there is none."""
        return self._reason

    @property
    def refused(self) -> list[Refusal]:
        """The versions that are kept out, in ascending order."""
        with self._lock:
            return sorted(self._refused.values(), key=lambda refusal: refusal.version)

    @property
    def available(self) -> list[int]:
        """The versions on disk, in ascending order; empty where they cannot be read."""
        try:
            return versions(self.models, self._name) if self._name else []
        except OSError:
            return []

    @property
    def states(self) -> list[VersionState]:
        """The versions that were looked at since the start and are still there, in ascending order."""
        with self._lock:
            return [self._states[version] for version in sorted(self._states)]

    def check(self, name: str | None = None, version: int | None = None) -> LoadedModel:
        """Return the version that answers now, for looking at, if it is the one that is asked for; None asks for any.

        Raises:
            UnknownModel: another model or another version is served.
            ModelUnavailable: there is no valid version.
        """
        model = self._current
        if name is not None and name != self._name:
            raise UnknownModel(f"There is no model {name!r} here; {_served(self._name)}.")
        if model is None:
            raise ModelUnavailable(self._reason)
        if version is not None and version != model.version:
            raise UnknownModel(f"Version {version} of {name!r} is not served; version {model.version} is.")
        return model

    @contextmanager
    def use(self, name: str | None = None, version: int | None = None) -> Iterator[LoadedModel]:
        """Give the version that answers now; it stays usable inside the ``with`` even if another one takes its place.

        Raises:
            UnknownModel: another model or another version is served than the one that is asked for; None asks for any.
            ModelUnavailable: there is no valid version.
        """
        with self._lock:
            model = self.check(name, version)
            model.users += 1
        try:
            yield model
        finally:
            with self._lock:
                model.users -= 1
                done = model.retired and model.users == 0
            if done:
                self._release(model)

    def start(self, poll_seconds: float, patience: float) -> None:
        """Follow the folder from a thread; wait up to ``patience`` seconds for the first look to be over."""
        self._thread = threading.Thread(target=self._follow, args=(poll_seconds,), name="registry", daemon=True)
        self._thread.start()
        self._first.wait(patience)

    def close(self, timeout: float = 5.0) -> None:
        """Stop following and release the model, waiting up to ``timeout`` seconds for each of the two threads."""
        self._stop.set()
        if self._thread is not None:
            self._thread.join(timeout)
        with self._lock:
            model, self._current = self._current, None
            self._reason = "The service is stopping."
        if model is not None:
            model.batcher.close()
            model.batcher.join(timeout)

    def refresh(self) -> None:
        """Look at the folder once: take the newest valid version that is not served yet, keep out what is bad."""
        try:
            self._refresh()
        except (OSError, AmbiguousModel) as error:
            self._no_model(str(error))

    def _follow(self, poll_seconds: float) -> None:
        while not self._stop.is_set():
            try:
                self.refresh()
            except Exception:
                log.exception("looking for new model versions failed; trying again in %g s", poll_seconds)
            self._first.set()
            self._stop.wait(poll_seconds)

    def _refresh(self) -> None:
        self._name = self._name or default_model(self.models)
        if self._name is None:
            self._no_model(f"There is no model in the folder {self.models}; train one or mount a folder that has one.")
            return
        found = [self.pin] if self.pin is not None else versions(self.models, self._name)
        self._forget_refusals(found)
        for version in reversed(found):
            if not self._consider(self._name, version):
                return
        self._explain(found)

    def _consider(self, name: str, version: int) -> bool:
        """Serve ``version`` if it is new and valid; say whether to go on with the next older one."""
        path = version_path(self.models, name, version)
        fingerprint = _fingerprint(path)
        current = self._current
        same = current is not None and current.version == version
        if same and current is not None and current.fingerprint == fingerprint:
            return False
        known = self._refused.get(version)
        if known is None or known.fingerprint != fingerprint:
            try:
                self._swap(self._load(name, version, path, fingerprint))
                return False
            except Exception as error:  # noqa: BLE001 - whatever it is, it must not reach who uses another version
                self._refuse(version, _reason(error), fingerprint)
        return not same  # what is served was good when it was loaded; an older version is not better

    def _load(self, name: str, version: int, path: Path, fingerprint: Fingerprint) -> LoadedModel:
        started = time.monotonic()
        self._note(VersionState(version, State.LOADING))
        metadata = validate(path)
        engine = self._load_engine(path)
        _warm(engine, metadata)
        pace = measure(engine, metadata.input)
        batcher = self._make_batcher(engine, version, metadata, pace)
        log.info(
            "loaded %s version %d with %s in %s in %.2f s%s",
            name,
            version,
            engine.name,
            engine.precision,
            time.monotonic() - started,
            _in_words(engine),
        )
        return LoadedModel(name, version, path, metadata, engine, pace, batcher, fingerprint, time.time())

    def _swap(self, model: LoadedModel) -> None:
        with self._lock:
            old, self._current = self._current, model
            self._refused.pop(model.version, None)
            if old is not None:
                old.retired = True
                self._states[old.version] = VersionState(old.version, State.UNLOADING)
            self._states[model.version] = VersionState(model.version, State.AVAILABLE)
            idle = old is not None and old.users == 0
        if old is not None:
            self._observer.serving(old.name, old.version, old.metadata.created, active=False)
            log.info("version %d takes the place of version %d", model.version, old.version)
        self._observer.serving(model.name, model.version, model.metadata.created, active=True)
        self._observer.refused(len(self._refused))
        if old is not None and idle:
            self._release(old)

    def _release(self, model: LoadedModel) -> None:
        """Let go of a version whose last request is done; its memory goes with the last reference."""
        model.batcher.close()
        with self._lock:
            state = self._states.get(model.version)
            if state is not None and state.state is State.UNLOADING:  # not loaded again meanwhile
                self._states[model.version] = VersionState(model.version, State.END)
        log.info("released version %d", model.version)

    def _note(self, state: VersionState) -> None:
        with self._lock:
            current = self._current
            if current is None or current.version != state.version:  # a version that answers stays available
                self._states[state.version] = state

    def _refuse(self, version: int, reason: str, fingerprint: Fingerprint) -> None:
        log.error("version %d of %s is kept out: %s", version, self._name, reason)
        with self._lock:
            self._refused[version] = Refusal(version, reason, fingerprint)
        self._note(VersionState(version, State.END, reason))
        self._observer.refused(len(self._refused))

    def _forget_refusals(self, found: list[int]) -> None:
        with self._lock:
            for version in set(self._refused) - set(found):
                del self._refused[version]
            for version in set(self._states) - set(found):
                if self._states[version].state is State.END:
                    del self._states[version]
        self._observer.refused(len(self._refused))

    def _explain(self, found: list[int]) -> None:
        """Say why there is no model, when there is none."""
        if not found:
            self._no_model(f"There is no version of {self._name} in the folder {self.models / str(self._name)}.")
        elif self._current is None:
            last = self._refused[found[-1]]
            self._no_model(f"No version of {self._name} can be used; version {last.version}: {last.reason}")

    def _no_model(self, reason: str) -> None:
        """Note that the folder offers nothing. What is served stays: an unmounted folder is no reason to stop."""
        if reason != self._reason:
            log.warning("%s", reason)
        self._reason = reason


def default_model(models: Path) -> str | None:
    """Return the name of the model in folder ``models`` where none was chosen; None where there is none.

    Among several it is the bundled one, so that training a second model does not keep a service from starting again.

    Raises:
        AmbiguousModel: there are several, and the bundled one is not among them.
        OSError: the folder cannot be read.
    """
    if not models.is_dir():
        return None
    names = sorted(entry.name for entry in models.iterdir() if entry.is_dir() and versions(models, entry.name))
    if len(names) > 1 and BUNDLED not in names:
        raise AmbiguousModel(f"{models} holds several models: {', '.join(names)}; set MODEL_NAME to one of them")
    return BUNDLED if BUNDLED in names else next(iter(names), None)


def _fingerprint(path: Path) -> Fingerprint:
    """Return what changes when a file below ``path`` does: name, size, time and inode of each."""
    files = [(file, file.stat()) for file in path.rglob("*")]
    return tuple(sorted((str(file), status.st_size, status.st_mtime_ns, status.st_ino) for file, status in files))


def _warm(engine: Engine, metadata: Metadata) -> None:
    """Run the batch sizes that come first, and check that the answers are probabilities, and all numbers."""
    size, columns = metadata.input, columns_without_embedding(metadata) + engine.embedding
    for images in _WARM_UP:
        pictures = np.zeros((images, size.height, size.width, 3), np.uint8)
        outputs = engine.predict(pictures, embedding=engine.embedding > 0)
        if outputs.shape != (images, columns):
            raise ValueError(f"it answers {outputs.shape} to {images} images, not {(images, columns)}")
        sums = interpret(outputs, metadata).probabilities.sum(axis=1)
        if not np.isfinite(outputs).all() or np.abs(sums - 1).max() > _SUM_TOLERANCE:
            raise ValueError("what it answers are not probabilities: they do not add up to 1")


def _in_words(engine: Engine) -> str:
    """Return what was measured to choose the engine's precision, for the log."""
    measured = ", ".join(f"{name} {milliseconds:.2f} ms" for name, milliseconds in engine.measured.items())
    return f"; measured for an image: {measured}" if measured else ""


def _reason(error: Exception) -> str:
    if isinstance(error, InvalidVersion):
        return error.fault
    text = " ".join(str(error).split())[:1000]
    if isinstance(error, OSError):
        return f"it cannot be read: {text}"
    return f"the engine cannot run it: {type(error).__name__}: {text}"


def _served(name: str | None) -> str:
    return f"{name!r} is served" if name else "none is served"
