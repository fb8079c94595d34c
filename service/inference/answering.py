"""Which of a model's loaded versions answers a request: by its plan and, where several share them, by chance."""

import hashlib
import random
from collections.abc import Mapping
from itertools import accumulate
from typing import NamedTuple

from service.inference.errors import UnknownModel
from service.inference.loaded import LoadedModel
from service.inference.plan import Plan


class Answering(NamedTuple):
    """The versions that answer requests that name none, each with its share of these; all shares add up to 1."""

    shares: tuple[tuple[LoadedModel, float], ...]

    @property
    def default(self) -> LoadedModel:
        """The version with the largest share, the first of several."""
        return max(self.shares, key=lambda share: share[1])[0]

    def pick(self, key: str | None = None) -> LoadedModel:
        """Return one of the versions, by chance in their shares, or always the same one for ``key``."""
        if len(self.shares) == 1:
            return self.shares[0][0]
        place = random.random() if key is None else _place(self.default.name, key)  # noqa: S311 - it guards nothing
        limits = accumulate(share for _, share in self.shares)
        found = (model for limit, (model, _) in zip(limits, self.shares, strict=True) if place < limit)
        return next(found, self.default)  # the last limit may be rounded to less than 1


def choose(plan: Plan, loaded: Mapping[int, LoadedModel], before: Answering | None) -> Answering | None:
    """Return which of the ``loaded`` versions, by number, answer from now on; None where none is loaded.

    Where none of those can that should by the ``plan``, the one goes on that answered most requests ``before``, or else
    the newest one answers whose engine does not fail.
    """
    if not loaded:
        return None
    asked = plan.answering
    found = {version: weight for version, weight in asked.items() if version in loaded}
    if found:
        total = sum(found.values())
        return Answering(tuple((loaded[version], weight / total) for version, weight in found.items()))
    former = loaded.get(before.default.version) if asked and before else None
    good = [version for version, model in loaded.items() if not model.batcher.failing]
    return Answering(((former or loaded[max(good or loaded)], 1.0),))


def find(plan: Plan, loaded: Mapping[int, LoadedModel], version: int | str, name: str) -> LoadedModel:
    """Return the loaded version of the model ``name`` that ``version`` means, a number or a label.

    Raises:
        UnknownModel: it is not loaded, or there is no such label.
    """
    if isinstance(version, str) and version not in plan.labels:
        labels = ", ".join(sorted(plan.labels)) or "none"
        raise UnknownModel(f"No version of {name!r} has the label {version[:70]!r}; the labels are: {labels}.")
    number = plan.labels[version] if isinstance(version, str) else version
    if number not in loaded:
        called = f"Version {number}, called {version!r}," if isinstance(version, str) else f"Version {version}"
        others = [str(other) for other in sorted(loaded)]
        served = f"version {others[0]} is" if len(others) == 1 else f"versions {', '.join(others)} are"
        raise UnknownModel(f"{called} of {name!r} is not served; {served}.")
    return loaded[number]


def tell(plan: Plan, loaded: Mapping[int, LoadedModel]) -> None:
    """Tell each of the ``loaded`` versions what the ``plan`` calls it, and which one answers in its shadow, if any."""
    shadow = None if plan.shadow is None else plan.version_of(plan.shadow)
    for version, model in loaded.items():
        model.labels = tuple(plan.labels_of(version))
        model.shadow = shadow if shadow in loaded and shadow != version else None


def _place(name: str, key: str) -> float:
    """Return a number of 0 to 1 that is always the same for ``key`` and the model ``name``."""
    digest = hashlib.blake2b(f"{name}\0{key}".encode(errors="surrogateescape"), digest_size=8).digest()
    return int.from_bytes(digest) / 2**64
