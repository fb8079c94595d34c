"""The registry of a model: finds its versions, checks and warms them, and keeps them while requests use them."""

import contextlib
import logging
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from enum import Enum, StrEnum
from pathlib import Path
from typing import Protocol

from artifact import InvalidVersion, Metadata, read_metadata, version_path, versions
from artifact.files import Fingerprint, fingerprint
from machine import own_memory
from service.inference.answering import Answering, choose, find, tell
from service.inference.batcher import Batcher
from service.inference.engine import Engine
from service.inference.errors import ModelUnavailable
from service.inference.folders import no_version, passed_over_in_words
from service.inference.loaded import LoadedModel, model_card
from service.inference.loading import fault_of, is_passing, load_version
from service.inference.pace import Pace
from service.inference.plan import SERVING_FILE, FollowedPlan, Plan
from service.inference.trials import AGAIN_SECONDS, Trials, Untried

log = logging.getLogger(__name__)

_REVIVED_SECONDS = 60.0  # after which an engine that fails is loaded anew once more


class ModelObserver(Protocol):
    """Is told which versions are served and which are refused."""

    def serving(self, name: str, version: int, *, active: bool) -> None:
        """Note that this process has loaded the version, or no longer has."""

    def answering(self, name: str, version: int, created: str) -> None:
        """Note that the version answers requests that name none; ``created`` is in ISO 8601."""

    def refused(self, name: str, versions: int) -> None:
        """Note how many versions of the model are kept out."""

    def misnamed(self, name: str, faults: int) -> None:
        """Note how much of what serving.json says of the model does not hold."""

    def reloaded(self, name: str, version: int) -> None:
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


class _Look(Enum):
    """What came of a look at one version."""

    SERVED = "it is loaded"
    KEPT_OUT = "an older one may be better"
    LATER = "nothing came of it yet"


class Registry:
    """Follows the folder of a model. ``use`` gives a version that answers and keeps it alive until it is done."""

    def __init__(
        self,
        models: Path,
        name: str | None,
        pin: int | None,
        load_engine: Callable[[Path], Engine],
        make_batcher: Callable[[Engine, Path, Metadata, Pace], Batcher],
        observer: ModelObserver,
        trials: Trials | None = None,
    ) -> None:
        """Read nothing yet; ``refresh`` does, once there is a name. ``pin`` is the only version to load, if any.

        ``trials`` say how each version is loaded; without them, this process just does it.
        """
        self.models = models
        self.pin = pin
        self.used = time.monotonic()  # when a request last asked for it
        self.name = name
        """The model that is served; None while there is none to choose."""
        self._load_engine = load_engine
        self._make_batcher = make_batcher
        self._observer = observer
        self._trials = trials
        self._lock = threading.Lock()
        self._file = FollowedPlan()
        self._answering: Answering | None = None
        self._loaded: dict[int, LoadedModel] = {}  # replaced by another one when it changes
        self._refused: dict[int, Refusal] = {}
        self._states: dict[int, VersionState] = {}
        self._found: list[int] | None = None
        self._passed_over = ""
        self._reason = "The model is still being loaded."

    @property
    def current(self) -> LoadedModel | None:
        """The version that answers most requests now, for looking at; call ``use`` to predict with it."""
        answering = self._answering
        return answering.default if answering else None

    @property
    def loaded(self) -> list[LoadedModel]:
        """The versions that can answer, in ascending order."""
        loaded = self._loaded
        return [loaded[version] for version in sorted(loaded)]

    @property
    def plan(self) -> Plan:
        """What is set of the versions."""
        return self._file.plan

    @property
    def plan_fault(self) -> str:
        """Why the file that sets that is not followed; empty where it is, or where there is none."""
        return self._file.fault

    @property
    def memory(self) -> int:
        """The bytes that loading its versions took."""
        return sum(model.memory for model in self.loaded)

    def shares(self) -> dict[int, float]:
        """Return which versions answer requests that name none, and which share of these, 0 to 1, each has."""
        answering = self._answering
        return {} if answering is None else {model.version: share for model, share in answering.shares}

    @property
    def reason(self) -> str:
        """Why there is no model, where there is none."""
        return self._reason

    @property
    def unready(self) -> str | None:
        """Why no picture can be classified now; None where it can."""
        model = self.current
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
        return self.on_disk() if self._found is None else self._found

    def on_disk(self) -> list[int]:
        """Return the versions on disk now, in ascending order; empty where they cannot be read."""
        try:
            return versions(self.models, self.name) if self.name else []
        except OSError:
            return []

    @property
    def states(self) -> list[VersionState]:
        """The versions that were looked at since the start and are still there, in ascending order."""
        with self._lock:
            return [self._states[version] for version in sorted(self._states)]

    def check(self, version: int | str | None = None, key: str | None = None) -> LoadedModel:
        """Return a version that answers now, for looking at; None asks for any, and a text is a label.

        Of several versions that share the requests chance chooses one, or ``key``, the same one for the same key.

        Raises:
            UnknownModel: other versions are served.
            ModelUnavailable: there is no valid version.
        """
        answering = self._answering
        if answering is None:
            raise ModelUnavailable(self._reason)
        if version is None:
            return answering.pick(key)
        return find(self.plan, self._loaded, version, answering.default.name)

    @contextmanager
    def use(self, version: int | str | None = None, key: str | None = None) -> Iterator[LoadedModel]:
        """Give a version as ``check`` does; it stays usable inside the ``with`` even if another one takes its place.

        Raises:
            UnknownModel: other versions are served than the one that is asked for.
            ModelUnavailable: there is no valid version.
        """
        with self._lock:
            model = self.check(version, key)
            model.users += 1
        try:
            yield model
        finally:
            with self._lock:
                model.users -= 1
                done = model.retired and model.users == 0
            if done:
                self._release(model)

    def close(self, timeout: float = 5.0) -> None:
        """Release all versions, waiting up to ``timeout`` seconds for those who run them."""
        models = self.rest("The service is stopping.")
        for model in models:
            model.batcher.close()
        limit = time.monotonic() + timeout
        for model in models:
            model.batcher.join(max(0.0, limit - time.monotonic()))

    def rest(self, reason: str) -> list[LoadedModel]:
        """Let go of all versions, which nobody gets from now on, for this ``reason``; return them."""
        with self._lock:
            models = list(self._loaded.values())
            self._answering, self._reason = None, reason
        self._retire(models)
        return models

    def cannot(self, reason: str) -> None:
        """Note why nothing new can be loaded. What is served stays: an unmounted folder is no reason to stop."""
        if reason != self._reason:
            log.warning("%s", reason)
        self._reason = reason

    def refresh(self) -> None:
        """Look at the folder once: take the newest valid versions that are not served yet, keep out what is bad."""
        if self.name is None:
            return
        try:
            self._refresh(self.name)
        except (OSError, Untried) as error:
            self.cannot(str(error))
        missing = self.plan.named - self._loaded.keys()
        self._observer.misnamed(self.name, len(missing) + bool(self.plan_fault))

    def begin(self) -> None:
        """Take what other workers have loaded, where there is such a version and none is loaded here."""
        if self.name is not None:
            with contextlib.suppress(OSError, Untried):
                self._follow_plan(self.name)
                looked_at = [self.pin] if self.pin is not None else versions(self.models, self.name)
                self._begin_with_what_is_known(self.name, looked_at)

    def _refresh(self, name: str) -> None:
        found = versions(self.models, name)
        self._found = found
        self._tell_what_is_passed_over(name)
        self._follow_plan(name)
        if self.plan_fault and not self._loaded:
            self.cannot(f"{self.models / name / SERVING_FILE} cannot be followed: {self.plan_fault}")
            return
        looked_at = [self.pin] if self.pin is not None else found
        self._forget_refusals(name, looked_at)
        self._begin_with_what_is_known(name, looked_at)
        self._take_what_is_wanted(name, looked_at)
        self._explain(name, looked_at)

    def _follow_plan(self, name: str) -> None:
        """Look whether the plan has changed. Where a version is pinned, it is the default one, and that the newest."""
        if self.pin is None:
            self._file.look(self.models / name)

    def _take_what_is_wanted(self, name: str, looked_at: list[int]) -> None:
        """Load the versions that the plan asks for, and then let go of all others."""
        newest, named = self.plan.newest, self.plan.named
        wanted: set[int] = set()
        good, later = 0, False
        if not self._loaded:  # what is loaded first answers first
            for version in [version for version in self.plan.answering if version in looked_at]:
                self._consider(name, version)
        for version in reversed(looked_at):
            if good >= newest and version not in named:
                continue
            came = self._consider(name, version)
            later = later or came is _Look.LATER
            if came is not _Look.KEPT_OUT:
                wanted.add(version)
                good += 1
        wanted |= named  # also those whose folder is gone
        self._choose()
        nothing_asked_for = not newest and not named
        if later or (wanted.isdisjoint(self._loaded) and not nothing_asked_for):
            return  # what is served stays until there is something better
        self._retire([model for model in self._loaded.values() if model.version not in wanted])

    def _begin_with_what_is_known(self, name: str, looked_at: list[int]) -> None:
        """Answer with a version that another worker has loaded: one that should answer, or else the newest one.

        What is newer may take long to try.
        """
        answering = [version for version in self.plan.answering if version in looked_at]
        if self._loaded or self._trials is None or not (self.plan.answering or self.plan.newest):
            return
        for version in answering or reversed(looked_at):
            path = version_path(self.models, name, version)
            found = fingerprint(path)
            if self._trials.know(path, found):
                self._take(name, version, path, found)
                return

    def _consider(self, name: str, version: int) -> _Look:
        """Load ``version`` if it is new and valid; say what came of it."""
        path = version_path(self.models, name, version)
        found = fingerprint(path)
        current = self._loaded.get(version)
        if current is not None and current.batcher.failing:
            return self._revive(current, found)
        if current is not None and current.fingerprint == found:
            self._observer.serving(name, version, active=True)  # again, after a failure
            return _Look.SERVED
        known = self._refused.get(version)
        came = _Look.KEPT_OUT if known is not None and known.holds(found) else self._take(name, version, path, found)
        # What is served was good when it was loaded; an older version is not better.
        return _Look.SERVED if came is _Look.KEPT_OUT and current is not None else came

    def _take(self, name: str, version: int, path: Path, found: Fingerprint, *, revived: bool = False) -> _Look:
        """Load ``version``, so that it can answer; say what came of it."""
        try:
            self._add(self._load(name, version, path, found, revived=revived))
        except Untried as error:
            log.warning("version %d of %s is not loaded yet: %s", version, name, error)
            return _Look.LATER
        except Exception as error:  # noqa: BLE001 - whatever it is, it must not reach who uses another version
            self._refuse(name, version, fault_of(error), found, passing=is_passing(error))
            return _Look.KEPT_OUT
        return _Look.SERVED

    def _revive(self, current: LoadedModel, found: Fingerprint) -> _Look:
        """Load ``current`` anew, whose engine fails; where that did not help, say that an older one is better."""
        self._observer.serving(current.name, current.version, active=False)
        if not current.revived or time.monotonic() - current.loaded > _REVIVED_SECONDS:
            log.error("the engine of version %d fails; it is loaded anew", current.version)
            current.revived, current.loaded = True, time.monotonic()  # for the next time, if it cannot be loaded
            self._observer.reloaded(current.name, current.version)
            came = self._take(current.name, current.version, current.path, found, revived=True)
            current.revived = came is not _Look.LATER  # as where memory is short for the moment
            return came
        if current.version not in self._refused:
            fault = "its engine fails, also after it was loaded anew"
            self._refuse(current.name, current.version, fault, found, passing=False)
        return _Look.KEPT_OUT

    def _load(self, name: str, version: int, path: Path, found: Fingerprint, *, revived: bool) -> LoadedModel:
        started = time.monotonic()
        self._note(VersionState(version, State.LOADING))
        read_metadata(path)  # most of what is no version is told by this at once
        # Of several versions that stay, none makes room for another one.
        replaced = self.current.path if self.current and self.plan == Plan() else None
        before = own_memory()
        with self._trials.loading(path, found, replaced) if self._trials else contextlib.nullcontext():
            loaded = load_version(path, self._load_engine)
            if fingerprint(path) != found:
                raise InvalidVersion(path, "it was changed while it was read")
        engine, metadata = loaded.engine, loaded.metadata
        try:
            batcher = self._make_batcher(engine, path, metadata, loaded.pace)
        except MemoryError as error:
            raise Untried("there is no memory for the threads that feed its engine") from error
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
            card=model_card(path),
            revived=revived,
            memory=max(own_memory() - before, metadata.parameters * (1 if engine.precision == "int8" else 4)),
        )

    def _add(self, model: LoadedModel) -> None:
        """Let ``model`` answer, in place of the one of the same number, if there is one."""
        with self._lock:
            same = self._loaded.get(model.version)
            self._loaded = {**self._loaded, model.version: model}
            self._refused.pop(model.version, None)
            self._states[model.version] = VersionState(model.version, State.AVAILABLE)
        self._choose()
        if same is not None:
            self._let_go(same)
        self._observer.serving(model.name, model.version, active=True)
        self._observer.refused(model.name, len(self._refused))

    def _choose(self) -> None:
        """Decide which of the loaded versions answer."""
        with self._lock:
            before = self._answering
            after = self._answering = choose(self.plan, self._loaded, before)
            tell(self.plan, self._loaded)
        if after is None or (before and before.default is after.default):
            return
        model = after.default
        self._observer.answering(model.name, model.version, model.metadata.created)
        if before is not None and before.default.version != model.version:
            log.info("version %d takes the place of version %d", model.version, before.default.version)

    def _retire(self, models: Sequence[LoadedModel]) -> None:
        """Let nobody get ``models`` from now on, and then let go of each once its last request is done."""
        if not models:
            return
        with self._lock:
            gone = {model.version for model in models}
            self._loaded = {version: model for version, model in self._loaded.items() if version not in gone}
            for model in models:
                self._states[model.version] = VersionState(model.version, State.UNLOADING)
        self._choose()
        for model in models:
            self._observer.serving(model.name, model.version, active=False)
            self._let_go(model)

    def _let_go(self, model: LoadedModel) -> None:
        with self._lock:
            model.retired = True
            idle = model.users == 0
        if idle:
            self._release(model)

    def _release(self, model: LoadedModel) -> None:
        """Let go of a version whose last request is done; its memory goes with the last reference."""
        model.batcher.close()
        with self._lock:
            state = self._states.get(model.version)
            if state is not None and state.state is State.UNLOADING:  # not loaded again meanwhile
                self._states[model.version] = VersionState(model.version, State.END)
        log.info("released version %d of %s", model.version, model.name)

    def _note(self, state: VersionState) -> None:
        with self._lock:
            if state.version not in self._loaded:  # a version that answers stays available
                self._states[state.version] = state

    def _refuse(self, name: str, version: int, reason: str, found: Fingerprint, *, passing: bool) -> None:
        log.error("version %d of %s is kept out: %s", version, name, reason)
        until = time.monotonic() + AGAIN_SECONDS if passing else None
        with self._lock:
            self._refused[version] = Refusal(version, reason, found, until)
        self._note(VersionState(version, State.END, reason))
        self._observer.refused(name, len(self._refused))

    def _forget_refusals(self, name: str, found: list[int]) -> None:
        with self._lock:
            for version in set(self._refused) - set(found):
                del self._refused[version]
            for version in set(self._states) - set(found):
                if self._states[version].state is State.END:
                    del self._states[version]
        self._observer.refused(name, len(self._refused))

    def _explain(self, name: str, looked_at: list[int]) -> None:
        """Say why there is no model, when there is none."""
        if not looked_at:
            self.cannot(no_version(self.models, name))
        elif not self._loaded and (last := self._refused.get(looked_at[-1])) is not None:
            self.cannot(f"No version of {name} can be used; version {last.version}: {last.reason}")
        elif not self._loaded:
            self.cannot(f"{self.models / name / SERVING_FILE} names no version of {name} that is there.")

    def _tell_what_is_passed_over(self, name: str) -> None:
        passed = passed_over_in_words(self.models, name)
        if passed and passed != self._passed_over:
            log.info("passed over in %s: %s", self.models / name, passed)
        self._passed_over = passed


def _in_words(engine: Engine) -> str:
    """Return what was measured to choose the engine's precision, for the log."""
    measured = ", ".join(f"{name} {milliseconds:.2f} ms" for name, milliseconds in engine.measured.items())
    return f"; measured for an image: {measured}" if measured else ""
