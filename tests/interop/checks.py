"""What the checks with real clients share. They run outside pytest, in the environment that has these clients."""

import io
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
from PIL import Image

Check = Callable[[Any], None]

LABELS = ("red", "green", "blue")
COLOURS = np.stack([np.full((32, 32, 3), colour, np.uint8) for colour in ((255, 0, 0), (0, 255, 0), (0, 0, 255))])
# softmax(8 * [1, 0, 0]) and so on: what the colours model answers
PROBABLE = np.where(np.eye(3, dtype=bool), 0.99933, 0.000335)

_CHECKS: list[Check] = []


def png(pixels: "np.ndarray[Any, np.dtype[np.uint8]]") -> bytes:
    """Return uint8 ``pixels``, [H, W, 3], as a PNG file."""
    content = io.BytesIO()
    Image.fromarray(pixels).save(content, "PNG")
    return content.getvalue()


PICTURES = [png(colour) for colour in COLOURS]


def check(function: Check) -> Check:
    """Register ``function`` as one that ``run`` calls."""
    _CHECKS.append(function)
    return function


@contextmanager
def raises(kind: type[Exception]) -> Iterator[list[Exception]]:
    """Fail unless the block raises ``kind``, which the list then holds."""
    raised: list[Exception] = []
    try:
        yield raised
    except kind as error:
        raised.append(error)
    assert raised, f"no {kind.__name__} was raised"


def run(client: Any) -> None:
    """Call every registered check with ``client`` and name it when it is done; the first failure ends the program."""
    for function in _CHECKS:
        print(f"{function.__name__} ... ", end="", flush=True)
        function(client)
        print("ok")


def wait(condition: Callable[[], bool]) -> None:
    """Wait until all workers have heard of a change."""
    limit = time.monotonic() + 30
    good = 0
    while good < 20:  # times, one after the other: each may be another worker's
        assert time.monotonic() < limit, "it takes too long"
        good = good + 1 if condition() else 0
        time.sleep(0.02)
