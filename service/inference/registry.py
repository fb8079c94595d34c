"""The registry: finds model versions, checks and warms them, and swaps the one that answers."""

import contextlib
import logging
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Protocol

from artifact import InvalidVersion, Metadata, read_metadata, version_path, versions
from artifact.files import Fingerprint, fingerprint, read_regular
from artifact.layout import MODEL_CARD
from service.inference.batcher import Batcher
from service.inference.engine import Engine
from service.inference.errors import ModelUnavailable, UnknownModel
from service.inference.folders import AmbiguousModel, default_model, no_model, no_version, passed_over_in_words
from service.inference.loading import fault_of, is_passing, load_version
from service.inference.pace import Pace
from service.inference.trials import AGAIN_SECONDS, Trials, Untried

log = logging.getLogger(__name__)

_MOST_CARD = 1024 * 1024  # bytes
_REVIVED_SECONDS = 60.0  # after which an engine that fails is loaded anew once more


class ModelObserver(Protocol):
    """Is told which versions are served and which are refused."""

    def serving(self, name: str, version: int, created: str, *, active: bool) -> None:
        """Note that this process serves the version, or no longer does; ``created`` is in ISO 8601."""

    def refused(self, versions: int) -> None:
        """Note how many versions are kept out."""

    def looked(self) -> None:
        """Note that the folder was looked at just now, or will be."""

    def reloaded(self, version: int) -> None:
        """Note that the version is loaded anew because its engine fails."""


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
    """A version that is kept out, and why; ``until`` is the time of the clock after which that may have passed."""

    version: int
    reason: str
    fingerprint: Fingerprint = field(repr=False)
    until: float | None = None

    def holds(self, fingerprint: Fingerprint) -> bool:
        """Say whether the version is still kept out, now that its files have this ``fingerprint``."""
        return self.fingerprint == fingerprint and (self.until is None or time.monotonic() < self.until)


@dataclass
class LoadedModel:
    """A version that answers: what it is, and the batcher in front of its engine.

    ``card`` is its model card, in Markdown. ``revived`` says that it was loaded anew because its engine failed.
    """

    name: str
    version: int
    path: Path
    metadata: Metadata
    engine: Engine
    pace: Pace
    batcher: Batcher
    fingerprint: Fingerprint = field(repr=False)
    loaded_at: float  # seconds since the epoch
    loaded: float  # seconds of the clock
    card: str | None = field(repr=False, default=None)
    revived: bool = False
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
        trials: Trials | None = None,
    ) -> None:
        """Read nothing yet; ``refresh`` or ``start`` does. ``name`` None means the default model.

        ``trials`` say how each version is loaded; without them, this process just does it.
        """
        self.models = models
        self.pin = pin
        self._name = name
        self._load_engine = load_engine
        self._make_batcher = make_batcher
        self._observer = observer
        self._trials = trials
        self._lock = threading.Lock()
        self._current: LoadedModel | None = None
        self._refused: dict[int, Refusal] = {}
        self._states: dict[int, VersionState] = {}
        self._found: list[int] | None = None
        self._passed_over = ""
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
    def unready(self) -> str | None:
        """Why no picture can be classified now; None where it can."""
        model = self._current
        if model is None:
            return self._reason
        return f"The engine of version {model.version} fails; it is loaded anew." if model.batcher.failing else None

    @property
    def refused(self) -> list[Refusal]:
        """The versions that are kept out, in ascending order."""
        with self._lock:
            return sorted(self._refused.values(), key=lambda refusal: refusal.version)

    @property
    def available(self) -> list[int]:
        """The versions on disk at the last look, in ascending order; empty where they cannot be read.

        Nobody who asks waits for a disk that does not answer.
        """
        if self._found is not None:
            return self._found
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
        self._observer.looked()
        self._thread = threading.Thread(target=self._follow, args=(poll_seconds,), name="registry", daemon=True)
        self._thread.start()
        self._first.wait(patience)

    def close(self, timeout: float = 5.0) -> None:
        """Stop following and release the model, waiting up to ``timeout`` seconds for each of the two threads."""
        self._stop.set()
        if self._trials is not None:
            self._trials.stop()
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
        except (OSError, AmbiguousModel, Untried) as error:
            self._no_model(str(error))
        self._observer.looked()

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
            self._no_model(no_model(self.models))
            return
        found = versions(self.models, self._name)
        self._found = found
        self._tell_what_is_passed_over(self._name)
        looked_at = [self.pin] if self.pin is not None else found
        self._forget_refusals(looked_at)
        if self._current is None:
            self._begin_with_what_is_known(self._name, looked_at)
        for version in reversed(looked_at):
            if not self._consider(self._name, version):
                return
        self._explain(self._name, looked_at)

    def _begin_with_what_is_known(self, name: str, looked_at: list[int]) -> None:
        """Answer with the newest version that another worker has loaded; what is newer may take long to try."""
        for version in reversed(looked_at) if self._trials else ():
            path = version_path(self.models, name, version)
            found = fingerprint(path)
            if self._trials is not None and self._trials.know(path, found):
                self._take(name, version, path, found)
                return

    def _consider(self, name: str, version: int) -> bool:
        """Serve ``version`` if it is new and valid; say whether to go on with the next older one."""
        path = version_path(self.models, name, version)
        found = fingerprint(path)
        current = self._current if self._current and self._current.version == version else None
        if current is not None and current.batcher.failing:
            return self._revive(current, found)
        if current is not None and current.fingerprint == found:
            self._observer.serving(name, version, current.metadata.created, active=True)  # again, after a failure
            return False
        known = self._refused.get(version)
        if known is None or not known.holds(found):
            return self._take(name, version, path, found) and current is None
        return current is None  # what is served was good when it was loaded; an older version is not better

    def _take(self, name: str, version: int, path: Path, found: Fingerprint, *, revived: bool = False) -> bool:
        """Load and serve ``version``; say whether it is kept out."""
        try:
            self._swap(self._load(name, version, path, found, revived=revived))
        except Untried as error:
            log.warning("version %d of %s is not loaded yet: %s", version, name, error)
        except Exception as error:  # noqa: BLE001 - whatever it is, it must not reach who uses another version
            self._refuse(version, fault_of(error), found, passing=is_passing(error))
            return True
        return False

    def _revive(self, current: LoadedModel, found: Fingerprint) -> bool:
        """Load ``current`` anew, whose engine fails; where that did not help, say that an older one is better."""
        self._observer.serving(current.name, current.version, current.metadata.created, active=False)
        if not current.revived or time.monotonic() - current.loaded > _REVIVED_SECONDS:
            log.error("the engine of version %d fails; it is loaded anew", current.version)
            current.revived, current.loaded = True, time.monotonic()  # for the next time, if it cannot be loaded
            self._observer.reloaded(current.version)
            return self._take(current.name, current.version, current.path, found, revived=True)
        if current.version not in self._refused:
            self._refuse(current.version, "its engine fails, also after it was loaded anew", found, passing=False)
        return True

    def _load(self, name: str, version: int, path: Path, found: Fingerprint, *, revived: bool) -> LoadedModel:
        started = time.monotonic()
        self._note(VersionState(version, State.LOADING))
        read_metadata(path)  # most of what is no version is told by this at once
        replaced = self._current.path if self._current else None
        with self._trials.loading(path, found, replaced) if self._trials else contextlib.nullcontext():
            loaded = load_version(path, self._load_engine)
            if fingerprint(path) != found:
                raise InvalidVersion(path, "it was changed while it was read")
        engine, metadata = loaded.engine, loaded.metadata
        batcher = self._make_batcher(engine, version, metadata, loaded.pace)
        log.info(
            "loaded %s version %d with %s in %s in %.2f s%s",
            name,
            version,
            engine.name,
            engine.precision,
            time.monotonic() - started,
            _in_words(engine),
        )
        return LoadedModel(
            name,
            version,
            path,
            metadata,
            engine,
            loaded.pace,
            batcher,
            found,
            loaded_at=time.time(),
            loaded=time.monotonic(),
            card=_model_card(path),
            revived=revived,
        )

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
        self._first.set()
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

    def _refuse(self, version: int, reason: str, found: Fingerprint, *, passing: bool) -> None:
        log.error("version %d of %s is kept out: %s", version, self._name, reason)
        until = time.monotonic() + AGAIN_SECONDS if passing else None
        with self._lock:
            self._refused[version] = Refusal(version, reason, found, until)
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

    def _explain(self, name: str, looked_at: list[int]) -> None:
        """Say why there is no model, when there is none."""
        if not looked_at:
            self._no_model(no_version(self.models, name))
        elif self._current is None:
            last = self._refused[looked_at[-1]]
            self._no_model(f"No version of {name} can be used; version {last.version}: {last.reason}")

    def _tell_what_is_passed_over(self, name: str) -> None:
        passed = passed_over_in_words(self.models, name)
        if passed and passed != self._passed_over:
            log.info("passed over in %s: %s", self.models / name, passed)
        self._passed_over = passed

    def _no_model(self, reason: str) -> None:
        """Note that the folder offers nothing. What is served stays: an unmounted folder is no reason to stop."""
        if reason != self._reason:
            log.warning("%s", reason)
        self._reason = reason


def _model_card(path: Path) -> str | None:
    """Return the model card's Markdown; None where the version has none that can be read."""
    try:
        return read_regular(path / MODEL_CARD, _MOST_CARD).decode()
    except (OSError, UnicodeDecodeError):
        return None


def _in_words(engine: Engine) -> str:
    """Return what was measured to choose the engine's precision, for the log."""
    measured = ", ".join(f"{name} {milliseconds:.2f} ms" for name, milliseconds in engine.measured.items())
    return f"; measured for an image: {measured}" if measured else ""


def _served(name: str | None) -> str:
    return f"{name!r} is served" if name else "none is served"
