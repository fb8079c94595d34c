"""What a batch costs, measured while a network warms up, and how large batches should therefore be.

A batch takes ``fixed`` seconds and some more for each image. A network for photographs takes many times longer for an
image than one for tiny pictures, and gains little from batches.
"""

import time
from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from artifact import Input
from service.inference.engine import Engine

_SIZES = (1, 8)  # images
_CALLS = 2  # of each size
_SHARE = 0.1  # of a batch's time that may be fixed where a core works on it alone
_COMPANY_SECONDS = 0.003  # what is saved by waiting is less than an idle core costs where the company takes longer
_LONG_SECONDS = 0.01  # others should not wait longer for a few images of theirs
_MOST_SECONDS = 0.05
_MOST_COMPANY, _MOST_LONG, _MOST_IMAGES = 8, 16, 32


class Pace(NamedTuple):
    """How many images batches should have; the defaults are right for a network that takes less than 1 ms an image."""

    company: int = _MOST_COMPANY
    """Images that make a batch worth a core of its own."""
    long: int = _MOST_LONG
    """Images whose batch keeps others waiting for too long."""
    most: int = _MOST_IMAGES
    """Images of the longest batch: one more costs as much as the last one, and makes others wait."""


def pace_of(fixed: float, image: float) -> Pace:
    """Return the pace where a batch takes ``fixed`` seconds, and ``image`` more for each image of it."""
    company = min(fixed * (1 - _SHARE) / (_SHARE * image), _COMPANY_SECONDS / image)
    return Pace(
        company=min(max(round(company), 1), _MOST_COMPANY),
        long=min(max(round(_LONG_SECONDS / image), 1), _MOST_LONG),
        most=min(max(round(_MOST_SECONDS / image), 1), _MOST_IMAGES),
    )


def measure(engine: Engine, size: Input, clock: Callable[[], float] = time.perf_counter) -> Pace:
    """Return the pace of ``engine``, measured on one of its streams with a few pictures of ``size``."""
    one, several = (_seconds(engine, size, images, clock) for images in _SIZES)
    image = max(several - one, several * _SHARE) / (_SIZES[1] - _SIZES[0])
    return pace_of(max(one - image, 0.0), image)


def _seconds(engine: Engine, size: Input, images: int, clock: Callable[[], float]) -> float:
    pictures = np.zeros((images, size.height, size.width, 3), np.uint8)
    seconds = []
    for _ in range(_CALLS):
        started = clock()
        engine.predict(pictures, 0)
        seconds.append(clock() - started)
    return min(seconds)
