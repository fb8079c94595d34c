"""Which versions of a model are loaded, what they are called, and which of them answers: ``serving.json``.

The file lies beside the versions, as ``models/NAME/serving.json``; without one the newest version answers:

    {"versions": {"latest": 2},
     "labels": {"stable": 3, "canary": 4},
     "traffic": {"stable": 90, "canary": 10},
     "shadow": "canary"}

``versions`` is ``{"latest": N}``, a list of numbers, or ``"all"``, as the policies of TensorFlow Serving are; what the
rest names is loaded as well. ``traffic`` shares requests that name no version, in any unit. Without it they go to
``stable``, if there is that label, or else to the newest version.
"""

import logging
import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Literal

import msgspec
from msgspec import Meta, Struct

from artifact.files import read_regular, write_whole
from artifact.publish import sync_folder

log = logging.getLogger(__name__)

SERVING_FILE = "serving.json"
STABLE = "stable"  # the label that answers where no traffic is shared

MOST_BYTES_OF_PLAN = 64 * 1024
LABEL = re.compile(r"[A-Za-z][A-Za-z0-9._-]{0,62}")
NUMBER = re.compile(r"[1-9][0-9]{0,18}")

Number = Annotated[int, Meta(ge=1, le=2**63 - 1)]
Which = Annotated[str, Meta(description="A label, or the number of a version.")]


class InvalidPlan(Exception):
    """What is set of a model's versions cannot be followed; the message says why."""


class Latest(Struct, frozen=True, forbid_unknown_fields=True):
    """The newest versions, and how many of them."""

    latest: Annotated[int, Meta(ge=1, le=1000)]


class Plan(Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """What is set of a model's versions: which are loaded, their labels, and which of them answers.

    ``traffic`` has weights, of labels or numbers of versions; ``shadow`` is one that answers as well, and whose answers
    are only compared.
    """

    versions: Latest | list[Number] | Literal["all"] = Latest(1)
    labels: dict[str, Number] = {}
    traffic: dict[Which, Annotated[float, Meta(ge=0)]] = {}
    shadow: Which | None = None

    @property
    def newest(self) -> float:
        """How many of the newest versions are loaded."""
        if isinstance(self.versions, Latest):
            return self.versions.latest
        return math.inf if self.versions == "all" else 0

    @property
    def named(self) -> set[int]:
        """The versions that are loaded whatever else there is."""
        listed = self.versions if isinstance(self.versions, list) else []
        asked = (*self.traffic, *([] if self.shadow is None else [self.shadow]))
        found = (self.version_of(which) for which in asked)
        return {*listed, *self.labels.values(), *(version for version in found if version is not None)}

    @property
    def answering(self) -> dict[int, float]:
        """Which versions share the requests that name none, and the weight of each; empty where the newest answers."""
        weights = self.traffic or ({STABLE: 1.0} if STABLE in self.labels else {})
        found: dict[int, float] = {}
        for which, weight in weights.items():
            version = self.version_of(which)
            if version is not None and weight > 0:
                found[version] = found.get(version, 0.0) + weight
        return found

    def version_of(self, which: str) -> int | None:
        """Return the version that ``which`` means, a label or a number; None for a label that there is not."""
        return int(which) if NUMBER.fullmatch(which) else self.labels.get(which)

    def labels_of(self, version: int) -> list[str]:
        """Return what ``version`` is called."""
        return [label for label, number in self.labels.items() if number == version]

    def check(self) -> None:
        """Raise InvalidPlan where what it says does not go together."""
        for label in self.labels:
            if not LABEL.fullmatch(label):
                raise InvalidPlan(
                    f"{label[:70]!r} is no label: it begins with a letter, and has letters, digits, '.', '_' and '-'"
                )
        for what, which in (*(("traffic", which) for which in self.traffic), ("shadow", self.shadow)):
            if which is not None and self.version_of(which) is None:
                raise InvalidPlan(f"{what} names {which[:70]!r}, which is neither a number nor one of the labels")
        if self.traffic and not (0 < sum(self.traffic.values()) < math.inf):
            raise InvalidPlan("the weights of traffic add up to nothing, or to no number")


def plan_of(content: bytes) -> Plan:
    """Return the plan in ``content``, which is JSON.

    Raises:
        InvalidPlan: it is none.
    """
    try:
        plan = msgspec.json.decode(content, type=Plan)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise InvalidPlan(str(error)) from error
    plan.check()
    return plan


def with_label(plan: Plan, label: str, version: int | None) -> Plan:
    """Return ``plan`` with ``label`` for ``version``, or without it where that is None.

    Raises:
        InvalidPlan: it is no label, or one that something else in the plan goes by.
    """
    labels: Mapping[str, int] = {name: number for name, number in plan.labels.items() if name != label}
    changed = msgspec.structs.replace(plan, labels={**labels, **({} if version is None else {label: version})})
    changed.check()
    return changed


def read_plan(folder: Path) -> Plan:
    """Return the plan of the model whose versions are in ``folder``; the default where there is none.

    Raises:
        InvalidPlan: it cannot be read, or says what is none.
    """
    path = folder / SERVING_FILE
    try:
        content = read_regular(path, MOST_BYTES_OF_PLAN)
    except FileNotFoundError:
        return Plan()
    except (OSError, ValueError) as error:
        raise InvalidPlan(f"it cannot be read: {error}") from error
    return plan_of(content)


def write_plan(folder: Path, plan: Plan) -> None:
    """Write the plan of the model whose versions are in ``folder``, whole or not at all.

    Raises:
        OSError: the folder cannot be written.
    """
    write_whole(folder / SERVING_FILE, msgspec.json.format(msgspec.json.encode(plan), indent=2) + b"\n")
    sync_folder(folder)


class FollowedPlan:
    """The plan of a model as it is followed: read again when its file changes, and kept where that is faulty."""

    def __init__(self) -> None:
        """Begin with the default plan, which is followed until ``look`` finds another."""
        self.plan = Plan()
        self.fault = ""
        """Why what the file says now is not followed; empty where it is, or where there is none."""
        self._stamp: tuple[int, ...] | None = None

    def look(self, folder: Path) -> None:
        """Read the plan of the model whose versions are in ``folder``, if it has changed."""
        found = _stamp(folder)
        if found == self._stamp and not self.fault:
            return
        try:
            plan, fault = read_plan(folder), ""
        except InvalidPlan as error:
            plan, fault = self.plan, str(error)
            if fault != self.fault:
                log.error("%s of %s is not followed: %s", SERVING_FILE, folder.name, fault)
        else:
            if plan != self.plan:
                log.info("%s of %s says: %s", SERVING_FILE, folder.name, plan)
        self.plan, self._stamp, self.fault = plan, found, fault


def _stamp(folder: Path) -> tuple[int, ...] | None:
    """Return what changes with the plan of the model in ``folder``; None where there is none."""
    try:
        found = (folder / SERVING_FILE).stat()
    except OSError:
        return None
    return (found.st_mtime_ns, found.st_size, found.st_ino, found.st_mode)
