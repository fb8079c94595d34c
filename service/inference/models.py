"""All models of the model folder: each is followed by a registry of its own, and all share the memory.

A model that does not fit is loaded when somebody asks for it, and those that nobody has asked for longest make room.
"""

import gc
import logging
import math
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from enum import StrEnum
from functools import partial
from pathlib import Path
from typing import NamedTuple, Protocol

from artifact import InvalidVersion, models_in, read_metadata, version_path
from machine import lasting_thread, start_thread
from service.inference.batcher import Batcher
from service.inference.errors import InvalidRequest, ModelLoading, ModelUnavailable, ReadOnlyModels, UnknownModel
from service.inference.folders import AmbiguousModel, default_model, no_model
from service.inference.loaded import LoadedModel
from service.inference.plan import SERVING_FILE, Plan, write_plan
from service.inference.registry import Registry
from service.inference.trials import Trials
from service.inference.wishes import Wishes

log = logging.getLogger(__name__)

_MOST_NAMED = 10
_BEGIN_SECONDS = 0.01  # between two looks at whether all models answer, at the start
_GRACE_SECONDS = 2.0  # that a worker waits for other versions once each model answers
_WISHES_SECONDS = 0.1  # between two looks at what other workers were asked for
_FIXED = 48_000_000  # bytes that a version takes beside its weights, roughly
_COPIES = 4  # of the weights that there are while they are read, converted and laid out
_OF_A_PIXEL = 1300  # bytes of what lies between the layers, for each pixel of an input, in the largest batch
_FAILING_SECONDS = 2.0  # between two looks while an engine fails
_AGAIN_SECONDS = 10.0  # after which a model for which there was no memory is tried again
_LEAVE_SECONDS = 3.0  # that versions may take to let go of their memory


class Observer(Protocol):
    """Is told how the look at the folder goes."""

    def looked(self) -> None:
        """Note that the folder was looked at just now, or will be."""

    def ready(self, *, ready: bool) -> None:
        """Note whether a request is answered that names no model or version."""

    def gone(self, name: str) -> None:
        """Note that the model is not served any more."""


class Readiness(StrEnum):
    """How a model stands."""

    READY = "ready"
    LOADING = "loading"
    UNLOADED = "unloaded"
    UNAVAILABLE = "unavailable"


class Memory(NamedTuple):
    """What versions may take in this process: ``limit`` bytes, or None for what there is, which ``spare`` returns."""

    limit: int | None
    spare: Callable[[], int]


@dataclass(frozen=True)
class _Asleep:
    """Why a model is not loaded; a request wakes it after ``until``, a time of the monotonic clock."""

    reason: str
    until: float = 0.0


class Models:
    """Follows the folder of models, and gives the version that answers a request."""

    def __init__(
        self,
        folder: Path,
        names: tuple[str, ...] | None,
        default: str | None,
        make_registry: Callable[[str | None], Registry],
        observer: Observer,
        memory: Memory,
        trials: Trials | None = None,
        wishes: Wishes | None = None,
    ) -> None:
        """Read nothing yet; ``refresh`` or ``start`` does.

        Of the models in ``folder`` those of ``names`` are served, or all; ``default`` answers where a request names
        none, and is found where it is None. ``trials`` know what versions take; ``wishes`` are what the workers of
        the service were asked for.
        """
        self.folder = folder
        self.default = make_registry(default)
        """The model that answers where a request names none; where there is no such model, it says why."""
        self._names = names
        self._make_registry = make_registry
        self._observer = observer
        self._memory = memory
        self._trials = trials
        self._wishes = wishes or Wishes()
        self._others: dict[str, Registry] = {}  # replaced by another one when it changes
        self._asleep: dict[str, _Asleep] = {}  # models that are not loaded though they could be
        self._asked: set[str] = set()  # for, by requests, since the last look
        self._looked_at: set[str] = set()
        self._answers_since = math.inf
        self._ambiguous = False
        self._looking = threading.Lock()
        self._stop, self._wake, self._first = threading.Event(), threading.Event(), threading.Event()
        self._thread: threading.Thread | None = None

    @property
    def registries(self) -> list[Registry]:
        """The registries of all models, that of the default one first."""
        first = [] if self.default.name is None else [self.default]
        return [*first, *self._others.values()]

    @property
    def names(self) -> list[str]:
        """The names of all models, the default one first."""
        return [registry.name for registry in self.registries if registry.name is not None]

    @property
    def count(self) -> int:
        """How many models there are, at least 1."""
        return 1 + len(self._others)

    def has(self, name: str) -> bool:
        """Say whether there is another model of this ``name`` beside the default one."""
        return name in self._others

    @property
    def unready(self) -> str | None:
        """Why the service is not ready; None where it is: the default model answers, and the others were looked at."""
        reason = self.default.unready
        if self._ambiguous and any(registry.unready is None for registry in self._others.values()):
            reason = None
        if reason is None and self._others and self._thread is not None and not self._begun():
            return "Models are still being loaded."
        return reason

    def of(self, name: str | None) -> Registry:
        """Return the registry of model ``name``; None stands for the default one.

        Raises:
            UnknownModel: there is no such model.
            InvalidRequest: none was named, and there are several of which none is the default.
        """
        if name is None and self._ambiguous:
            raise InvalidRequest(
                f"There are several models, so say which one, as in ?model={self.names[0]}; {_served(self.names)}."
            )
        if name is None or name == self.default.name:
            return self.default
        registry = self._others.get(name)
        if registry is None:
            raise UnknownModel(f"There is no model {name[:100]!r} here; {_served(self.names)}.")
        return registry

    def readiness(self, registry: Registry) -> tuple[Readiness, str | None]:
        """Return how a model stands, and why where it is not ready."""
        reason, name = registry.unready, registry.name or ""
        if reason is None:
            return Readiness.READY, None
        if name in self._asked:
            return Readiness.LOADING, "It is being loaded."
        if (asleep := self._asleep.get(name)) is not None:
            return Readiness.UNLOADED, asleep.reason
        return (Readiness.UNAVAILABLE if self._first.is_set() else Readiness.LOADING), reason

    def check(self, name: str | None = None, version: int | str | None = None, key: str | None = None) -> LoadedModel:
        """Return a version that answers now, for looking at, as ``use`` does."""
        return self._awake(name).check(version, key)

    def use(
        self, name: str | None = None, version: int | str | None = None, key: str | None = None
    ) -> AbstractContextManager[LoadedModel]:
        """Give a version that answers; it stays usable inside the ``with`` even if another one takes its place.

        Without a name it is of the default model. ``version`` is a number or a label; without one, ``key`` chooses
        among versions that share the requests, or chance does.

        Raises:
            InvalidRequest: no model was named, and there are several of which none is the default.
            ModelLoading: it is loaded from now on; ask again.
            ModelUnavailable: there is no valid version, or no memory for one.
            UnknownModel: there is no such model, or another version of it is served.
        """
        registry = self._awake(name)
        registry.used = time.monotonic()
        return registry.use(version, key)

    def start(self, poll_seconds: float) -> None:
        """Follow the folder from a thread."""
        self._observer.looked()
        self._thread = lasting_thread(partial(self._follow, poll_seconds), "models")
        start_thread(self._thread)

    def wait(self, patience: float) -> None:
        """Wait up to ``patience`` seconds until all versions were looked at that are wanted.

        Requests may come after that. They do sooner where each model has a version that answers, and a newer one is
        still tried.
        """
        limit = time.monotonic() + patience
        while not self._begun() and (left := limit - time.monotonic()) > 0:
            self._first.wait(min(left, _BEGIN_SECONDS))
        if self._trials is not None:
            self._trials.answering = True

    def close(self, timeout: float = 5.0) -> None:
        """Stop following and release all versions, waiting up to ``timeout`` seconds for the threads of each."""
        self._stop.set()
        self._wake.set()
        if self._trials is not None:
            self._trials.stop()
        if self._thread is not None:
            self._thread.join(timeout)
        for registry in (self.default, *self._others.values()):
            registry.close(timeout)

    def refresh(self) -> None:
        """Look at the folder once: at which models there are, and at the versions of each."""
        with self._looking:
            try:
                self._find()
            except OSError as error:
                self.default.cannot(str(error))
            if not self._first.is_set():  # what is newer may take long to try, and others should not wait for that
                for registry in self.registries:
                    self._look_at(registry, registry.name or "", registry.begin)
            for registry in self.registries:
                if not self._stop.is_set():
                    self._look_at(registry, registry.name or "", registry.refresh)
                    self._looked_at.add(registry.name or "")
        self._observer.looked()

    def load(self, name: str) -> None:
        """Load model ``name`` in all workers, if it is unloaded, and wait for that in this one.

        Raises:
            UnknownModel: there is no such model.
            ModelUnavailable: it cannot be loaded.
        """
        registry = self.of(name)
        self._wishes.load(name)
        self._asked.add(name)
        self.refresh()
        registry.check()

    def unload(self, name: str) -> None:
        """Let go of model ``name`` in all workers until somebody asks to load it.

        Raises:
            UnknownModel: there is no such model.
        """
        self.of(name)
        self._wishes.unload(name)
        self.refresh()

    def follow(self, name: str, plan: Plan) -> None:
        """Write ``plan`` beside the versions of model ``name``, and let all workers follow it at once.

        Raises:
            InvalidRequest: it names a version that is not there.
            ReadOnlyModels: the folder cannot be written.
            UnknownModel: there is no such model.
        """
        registry = self.of(name)
        missing = plan.named - {*registry.available, *(model.version for model in registry.loaded)}
        if missing:
            there = ", ".join(map(str, registry.available)) or "none"
            raise InvalidRequest(f"There is no version {min(missing)} of {name!r}; there are: {there}.")
        try:
            write_plan(self.folder / name, plan)
        except OSError as error:
            raise ReadOnlyModels(
                f"{self.folder / name} cannot be written ({error.strerror}); change {SERVING_FILE} there by hand."
            ) from error
        self._wishes.look()
        self.refresh()

    def _awake(self, name: str | None) -> Registry:
        """Return the registry of model ``name``; where it is not loaded for want of memory, ask for that."""
        registry = self.of(name)
        asleep = self._asleep.get(registry.name or "") if self._asleep else None
        if asleep is None or registry.name is None:
            return registry
        if time.monotonic() < asleep.until:
            raise ModelUnavailable(asleep.reason)
        self._asked.add(registry.name)
        self._wake.set()
        raise ModelLoading(f"Model {registry.name!r} is being loaded, and others make room for it; ask again.")

    def _begun(self) -> bool:
        """Say whether all were looked at, or each model has had a version that answers for a while."""
        if self._first.is_set():
            return True
        registries, now = self.registries, time.monotonic()
        if not registries or not all(registry.loaded or registry.name in self._looked_at for registry in registries):
            return False
        self._answers_since = min(self._answers_since, now)
        return now - self._answers_since > _GRACE_SECONDS

    def _follow(self, poll_seconds: float) -> None:
        while not self._stop.is_set():
            try:
                self.refresh()
            except Exception:
                log.exception("looking for new model versions failed; trying again in %g s", poll_seconds)
            self._first.set()
            self._observer.ready(ready=self.unready is None)
            self._pause(poll_seconds)

    def _pause(self, seconds: float) -> None:
        """Wait for so long, or until somebody asks for something or another engine fails; less while one fails."""
        failing = self._failing()
        limit = time.monotonic() + (min(seconds, _FAILING_SECONDS) if failing else seconds)
        while not self._stop.is_set() and (left := limit - time.monotonic()) > 0:
            if self._wake.wait(min(left, _WISHES_SECONDS)) or self._wishes.changed() or self._failing() - failing:
                self._wake.clear()
                return

    def _failing(self) -> set[Batcher]:
        """Return what stands before the engines that fail now."""
        loaded = (model for registry in self.registries for model in registry.loaded)
        return {model.batcher for model in loaded if model.batcher.failing}

    def _find(self) -> None:
        """Find out which models there are."""
        found = [name for name in models_in(self.folder) if self._names is None or name in self._names]
        if self.default.name is None:
            self._find_default(found)
        for name in found:
            if name != self.default.name and name not in self._others:
                self._others = {**self._others, name: self._make_registry(name)}
        for name in [name for name in self._others if name not in found] if found else ():
            self._remove(name)

    def _find_default(self, found: list[str]) -> None:
        try:
            name = default_model(self.folder, found)
        except AmbiguousModel as error:
            self._ambiguous = True
            self.default.cannot(str(error))
            return
        if name is None:
            self.default.cannot(no_model(self.folder))
        elif name in self._others:  # there were several, and the others are gone
            self.default = self._others[name]
            self._others = {other: registry for other, registry in self._others.items() if other != name}
        else:
            self.default.name = name
        self._ambiguous = False

    def _remove(self, name: str) -> None:
        log.info("model %s is not there any more", name)
        registry = self._others[name]
        self._others = {other: kept for other, kept in self._others.items() if other != name}
        registry.rest("The model was removed.")
        self._observer.gone(name)

    def _look_at(self, registry: Registry, name: str, look: Callable[[], None]) -> None:
        """Look at the versions of a model by ``look``, if it may be loaded."""
        asked = name in self._asked
        if self._wishes.unloaded(name):
            self._lay(registry, f"It was unloaded; POST /v2/repository/models/{name}/load loads it.", math.inf)
        elif registry.loaded or self._may_load(registry, name, asked=asked):
            look()
            self._asleep.pop(name, None)  # only now, so that who asks meanwhile is told that it is being loaded
        if asked:
            self._asked.discard(name)

    def _may_load(self, registry: Registry, name: str, *, asked: bool) -> bool:
        """Say whether there is memory for a model that is not loaded; others make room where it is ``asked`` for."""
        asleep = self._asleep.get(name)
        if asleep is not None and asleep.until != math.inf and not asked:
            return False
        need = self._need(registry, name)
        if self._fits(need) or ((asked or registry is self.default) and self._make_room(need)):
            return True
        if registry is self.default:
            return True  # without it there would be no service; whoever loads it watches what it takes
        if asked:
            until = time.monotonic() + _AGAIN_SECONDS
            self._lay(registry, f"There is no memory for it: it needs about {need / 1e6:.0f} MB.", until)
        else:
            self._lay(registry, "There is no memory for all models at once; it is loaded when somebody asks for it.")
        return False

    def _lay(self, registry: Registry, reason: str, until: float = 0.0) -> None:
        """Let go of a model's versions, for this ``reason``."""
        name = registry.name or ""
        if self._asleep.get(name) != (asleep := _Asleep(reason, until)):
            log.info("model %s is not loaded: %s", name, reason)
        self._asleep = {**self._asleep, name: asleep}
        registry.rest(reason)

    def _make_room(self, need: int) -> bool:
        """Let go of models, the longest unused one first, until there is room; say whether there is."""
        others = [registry for registry in self.registries if registry.loaded and registry is not self.default]
        for registry in sorted(others, key=lambda registry: registry.used):
            self._lay(registry, "It made room for another model; it is loaded when somebody asks for it.")
            gc.collect()
            limit = time.monotonic() + _LEAVE_SECONDS
            while not self._fits(need) and self._memory.limit is None and time.monotonic() < limit:
                self._stop.wait(_WISHES_SECONDS)
            if self._fits(need):
                return True
        return False

    def _fits(self, need: int) -> bool:
        if self._memory.limit is None:
            return need <= self._memory.spare()
        loaded = [registry for registry in self.registries if registry.loaded]
        taken = (max(registry.memory, self._need(registry, registry.name or "")) for registry in loaded)
        return need + sum(taken) <= self._memory.limit

    def _need(self, registry: Registry, name: str) -> int:
        """Return how many bytes the newest version of a model takes, as far as that is known."""
        newest = max(registry.on_disk(), default=None)
        if newest is None:
            return 0
        path = version_path(self.folder, name, newest)
        try:
            metadata = read_metadata(path)
        except InvalidVersion:  # it takes nothing
            return 0
        weights = metadata.parameters * (1 if metadata.int8 else 4)
        estimate = _FIXED + _COPIES * weights + _OF_A_PIXEL * metadata.input.height * metadata.input.width
        return max(estimate, 0 if self._trials is None else self._trials.needs(path))


def _served(names: Sequence[str]) -> str:
    if not names:
        return "none is served"
    named = ", ".join(repr(name) for name in names[:_MOST_NAMED])
    more = f" and {len(names) - _MOST_NAMED} more" if len(names) > _MOST_NAMED else ""
    return f"{named}{more} {'is' if len(names) == 1 else 'are'} served"
