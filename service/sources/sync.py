"""One pass of a sync: what a source has is brought into the folder of models, and what is of no use any more goes."""

import logging
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from artifact.errors import DAMAGED, DENIED, NO_SPACE, UNREACHABLE, SourceFails
from artifact.fetching import fetch_version, forget_drafts, remove_version
from artifact.files import write_whole
from artifact.layout import version_path
from service.inference.plan import SERVING_FILE, STABLE, InvalidPlan, Plan, plan_of, read_plan
from service.sources.catalogue import Catalogue, Model, Source, Version
from service.sources.journal import Journal

log = logging.getLogger(__name__)

FOLDER = ".source"  # in the folder of models, for what the sync itself needs
JOURNAL = "journal.json"

_FIRST_HOLD, _LONGEST_HOLD = 15.0, 3600.0  # seconds until what was not as it should be is fetched again

Served = Callable[[], set[tuple[str, int]]]
"""The versions that answer in this process, by the names of their models."""


class _Held(NamedTuple):
    """A fault of something that has not changed since, and until when it is not tried again."""

    mark: str
    fault: SourceFails
    until: float
    seconds: float


class Sync:
    """Brings the models of a source into a folder."""

    def __init__(
        self, source: Source, models: Path, names: tuple[str, ...] | None, pinned: int | None, served: Served
    ) -> None:
        """Take the source and the folder; ``names`` limits the models, and version ``pinned`` is needed as well.

        What is ``served`` is never removed.
        """
        self._source = source
        self._models = models
        self._names = names
        self._pinned = pinned
        self._served = served
        self._journal = Journal(models / FOLDER / JOURNAL, str(source))
        self._held: dict[tuple[str, int], _Held] = {}
        self._faults: list[SourceFails] = []
        self.doing: str | None = None
        """What is being fetched, in words."""

    def run(self) -> None:
        """Bring the folder up to date.

        Raises:
            SourceFails: some of it could not be had; what could was taken over, and what was there before still is.
            Stopped: somebody asked for an end.
        """
        fault: SourceFails | None = None
        try:
            self._run()
        except SourceFails as error:
            fault = error
            raise
        except OSError as error:
            fault = SourceFails(NO_SPACE, f"{self._models} cannot be written: {error.strerror or error}")
            raise fault from error
        finally:
            self.doing = None
            self._note(fault)

    def _run(self) -> None:
        self._forget_missing()
        held = self._held.get(("", 0))
        known = held.mark if held and time.monotonic() < held.until else self._journal.mark
        catalogue = self._source.look(known)
        if catalogue is None:
            if held and known == held.mark:
                raise held.fault
            return
        try:
            self._take_over(catalogue)
        finally:
            self._source.close()

    def _take_over(self, catalogue: Catalogue) -> None:
        self._faults = [] if catalogue.fault is None else [catalogue.fault]
        for name, model in catalogue.models.items():
            if self._names is None or name in self._names:
                self._take_model(name, model)
        self._journal.mark = None
        if self._faults:
            if catalogue.mark:
                self._hold(("", 0), catalogue.mark, self._faults[0])
            raise self._faults[0]
        self._held.pop(("", 0), None)
        self._journal.mark = catalogue.mark or None

    def _take_model(self, name: str, model: Model) -> None:
        """Fetch the versions of a model that are needed and the file that names them, and remove what is left."""
        before = len(self._faults)
        folder = self._models / name
        serving = model.serving.read() if model.serving and self._is_new(name, model.serving.mark) else None
        try:
            plan = read_plan(folder) if serving is None else plan_of(serving)
        except InvalidPlan as error:
            place = self._models if serving is None else self._source
            self._faults.append(SourceFails(DAMAGED, f"{SERVING_FILE} of {name} in {place} is not good: {error}"))
            return
        newest_first = model.versions.numbers[::-1]
        first = _before(plan, folder)
        here = {number for number in newest_first if number in first and self._take(name, number, model)}
        if len(self._faults) == before:
            self._take_serving(name, model, serving)
        named = plan.named | ({self._pinned} if self._pinned else set())
        wanted: set[int] = set()
        for number in newest_first:
            if number in named or sum(other > number for other in here) < plan.newest:
                wanted.add(number)
                if number not in here and self._take(name, number, model):
                    here.add(number)
        forget_drafts(self._models, name, wanted - here)
        if len(self._faults) == before:
            self._remove_old(name, here)

    def _take_serving(self, name: str, model: Model, content: bytes | None) -> None:
        """Take the file over that says which versions answer, where it is another than before."""
        file = self._models / name / SERVING_FILE
        if content is not None and model.serving is not None:
            file.parent.mkdir(exist_ok=True)
            write_whole(file, content)
            self._journal.serving[name] = model.serving.mark
            log.info("took over %s of %s from %s", SERVING_FILE, name, self._source)
        elif model.serving is None and name in self._journal.serving:
            del self._journal.serving[name]
            file.unlink(missing_ok=True)

    def _take(self, name: str, number: int, model: Model) -> bool:
        """Fetch a version unless it is here; say whether it is, then. One that is not whole is none yet."""
        version = model.versions.get(number)
        return version is not None and self._take_version(name, number, version)

    def _take_version(self, name: str, number: int, version: Version) -> bool:
        """Fetch a version unless it is here; say whether it is."""
        ours = self._journal.versions.get(name, {}).get(str(number))
        path = version_path(self._models, name, number)
        if ours == version.mark and path.is_dir():
            return True
        held = self._held.get((name, number))
        if held and held.mark == version.mark and time.monotonic() < held.until:
            self._faults.append(held.fault)
            return False
        self.doing = f"Version {number} of {name} is being fetched from {self._source}."
        begun = time.monotonic()
        try:
            size = fetch_version(version.offered, self._models, name, number, replace=ours is not None)
        except SourceFails as fault:
            if fault.reason in (UNREACHABLE, DENIED):
                raise
            self._faults.append(fault)
            if fault.reason != NO_SPACE:
                self._hold((name, number), version.mark, fault)
            return False  # an older one may be good, and better than none
        self._held.pop((name, number), None)
        if size is not None or ours is not None:
            self._journal.versions.setdefault(name, {})[str(number)] = version.mark
            self._journal.write(None)
        if size is not None:
            seconds = time.monotonic() - begun
            log.info(
                "fetched version %d of %s from %s: %.1f MB in %.1f s", number, name, self._source, size / 1e6, seconds
            )
        return True

    def _hold(self, what: tuple[str, int], mark: str, fault: SourceFails) -> None:
        """Remember that ``what`` has a fault, so that it is not fetched again at every look."""
        held = self._held.get(what)
        seconds = min(2 * held.seconds, _LONGEST_HOLD) if held and held.mark == mark else _FIRST_HOLD
        self._held[what] = _Held(mark, fault, time.monotonic() + seconds, seconds)

    def _remove_old(self, name: str, needed: set[int]) -> None:
        """Remove versions that were fetched and that newer ones have replaced, but the last of them.

        That one may still answer, here or in another worker, and is what one goes back to.
        """
        fetched = self._journal.versions.get(name, {})
        served = self._served()
        old = sorted({int(number) for number in fetched if int(number) < max(needed, default=0)} - needed)
        for number in [number for number in old[:-1] if (name, number) not in served]:
            remove_version(version_path(self._models, name, number))
            log.info("removed version %d of %s from %s, which newer ones have replaced", number, name, self._models)
            del fetched[str(number)]

    def _is_new(self, name: str, mark: str) -> bool:
        return self._journal.serving.get(name) != mark

    def _forget_missing(self) -> None:
        """Forget what was fetched and is gone, so that it is fetched again where it is needed."""
        for name, fetched in self._journal.versions.items():
            for number in [number for number in fetched if not version_path(self._models, name, int(number)).is_dir()]:
                del fetched[number]
                self._journal.mark = None

    def _note(self, fault: SourceFails | None) -> None:
        try:
            self._journal.write(str(fault) if fault else None)
        except OSError as error:
            log.warning("%s cannot be written: %s", self._models / FOLDER, error)


def _before(plan: Plan, folder: Path) -> set[int]:
    """Return the versions that have to be in ``folder`` before ``plan`` is.

    Where a plan already says who answers, all that the new one names: no label leads to nothing for a moment. Where
    none does, the newest version answers, and one that is fetched must not do so that the plan does not mean to: so
    those come first that answer by the plan, then the plan, and then the others.
    """
    try:
        now = read_plan(folder)
    except InvalidPlan:
        now = Plan()
    if now.traffic or STABLE in now.labels:
        return plan.named
    answering = plan.traffic or ((STABLE,) if STABLE in plan.labels else ())
    return {number for number in map(plan.version_of, answering) if number is not None}
