"""How a model version is loaded: checked, compiled, warmed and measured; the same in a worker and where it is tried."""

import errno
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from artifact import Input, InvalidVersion, Metadata, validate
from machine import check_room_for_thread
from service.inference.engine import Engine, Outputs
from service.inference.pace import Pace, measure
from service.inference.predictions import columns_without_embedding, interpret

_WARM_UP = (1, 2)  # images: a lone one, and several
_SUM_TOLERANCE = 0.02  # bfloat16 keeps 8 bits, so ten probabilities add up to 1 no better than this
_MOST_CHARACTERS = 1000  # of a fault
_SHORT = (errno.ENOMEM, errno.EAGAIN, errno.EMFILE, errno.ENFILE)
_SHORT_IN_WORDS = (
    *map(os.strerror, _SHORT),
    "can't start new thread",
    "bad_alloc",
)  # of OpenVINO, which has no numbers


class Refused(Exception):
    """A version is not to be loaded; the message is its fault, and ``passing`` says whether that may pass."""

    def __init__(self, fault: str, *, passing: bool) -> None:
        super().__init__(fault)
        self.passing = passing


@dataclass(frozen=True)
class Loaded:
    """A version that can answer: what it is, what runs it, and how large batches should be."""

    metadata: Metadata
    engine: Engine
    pace: Pace


def load_version(path: Path, load_engine: Callable[[Path], Engine]) -> Loaded:
    """Load the version in folder ``path``, and take all the memory that answering with it will need.

    Raises:
        InvalidVersion: it is not a version that can be trusted.
        Exception: whatever else the engine raises on it; ``fault_of`` says it in words.
    """
    metadata = validate(path)
    engine = load_engine(path)
    _warm(engine, metadata)
    pace = measure(engine, metadata.input)
    _fill(engine, metadata.input, pace)
    return Loaded(metadata, engine, pace)


def fault_of(error: Exception) -> str:
    """Return in words why a version is kept out that raised ``error`` when it was loaded."""
    if isinstance(error, InvalidVersion):
        return error.fault
    if isinstance(error, Refused):
        return str(error)
    text = " ".join(str(error).split())[:_MOST_CHARACTERS]
    if isinstance(error, OSError):
        return f"it cannot be read: {text}"
    return f"the engine cannot run it: {type(error).__name__}: {text}"


def is_passing(error: Exception) -> bool:
    """Say whether the version that raised ``error`` may be loaded later as it is: something else was in the way."""
    if isinstance(error, Refused):
        return error.passing
    return not isinstance(error, InvalidVersion) or isinstance(error.__cause__, OSError)


def lacks_something(error: Exception) -> bool:
    """Say whether ``error`` tells that memory, threads or files are short, which may pass at any moment."""
    if isinstance(error, OSError):
        return error.errno in _SHORT
    told = str(error)
    return isinstance(error, MemoryError) or any(words in told for words in _SHORT_IN_WORDS)


def _warm(engine: Engine, metadata: Metadata) -> None:
    """Run the batch sizes that come first, and check that the answers are probabilities, and all numbers."""
    size, columns = metadata.input, columns_without_embedding(metadata) + engine.embedding
    for images in _WARM_UP:
        outputs = engine.predict(_black(images, size), embedding=engine.embedding > 0)
        if outputs.shape != (images, columns):
            raise ValueError(f"it answers {outputs.shape} to {images} images, not {(images, columns)}")
        if fault := _fault(outputs, metadata):
            raise ValueError(f"what it answers are not probabilities: {fault}")


def _fault(outputs: Outputs, metadata: Metadata) -> str:
    """Return what is wrong with the probabilities in ``outputs``, float32 [N, columns]; nothing where they are some."""
    probabilities = interpret(outputs, metadata).probabilities
    finite = bool(np.isfinite(outputs).all())
    if metadata.task == "multi-label":
        within = bool(((probabilities >= 0) & (probabilities <= 1)).all())
        return "" if finite and within else "they are not from 0 to 1"
    adds_up = bool(np.abs(probabilities.sum(axis=1) - 1).max() <= _SUM_TOLERANCE)
    return "" if finite and adds_up else "they do not add up to 1"


def _fill(engine: Engine, size: Input, pace: Pace) -> None:
    """Run the largest batch in all streams at once, which is as much memory as the engine will ever hold."""
    pictures = _black(pace.most, size)
    check_room_for_thread()
    with ThreadPoolExecutor(engine.streams) as pool:
        for _ in pool.map(lambda stream: engine.predict(pictures, stream), range(engine.streams)):
            pass


def _black(images: int, size: Input) -> np.ndarray[tuple[int, ...], np.dtype[np.uint8]]:
    return np.zeros((images, size.height, size.width, 3), np.uint8)
