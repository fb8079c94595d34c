"""Explains answers: which part of a picture spoke for a label; ``evidence.py`` says how that is known.

The network for it is compiled when a version is first asked for an explanation. So what predicts is no slower, and a
service that explains nothing holds the weights once. One explanation is made at a time, and few wait.
"""

import logging
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import NamedTuple

import numpy as np

from artifact import Input
from artifact.files import fingerprint
from imaging import Pixels, part_seen
from service.inference.batcher import LATE
from service.inference.decoder_pool import Decoded
from service.inference.decoding import Decoder
from service.inference.engine import Probabilities
from service.inference.errors import DeadlineExceeded, EngineFailed, ModelUnavailable, NotExplainable, QueueFull
from service.inference.evidence import Evidence, EvidenceNetwork, Grid, Told
from service.inference.heat_map import LEAST_SHARP_SIDE, MOST_SIDE, Box, HeatMap, in_sight
from service.inference.items import Item
from service.inference.loaded import LoadedModel
from service.inference.runtime import Event, Runtime, ThreadRuntime
from service.inference.steps import STEPS, timed
from service.inference.watch import spare_memory

log = logging.getLogger(__name__)

_MOST_WAITING = 16
_COPIES = 4  # of the weights that there are at one time while a network is read and compiled
_FIXED = 64 * 1024**2  # bytes that it takes beside them


class Explained(NamedTuple):
    """What a version says of one picture: the probabilities [classes], and what spoke for each label, and where.

    ``evidence`` is float32 [h, w, classes]; ``view`` is all of the picture in grey, uint8 [h, w], where that was asked
    for; the rest is as in ``HeatMap``.
    """

    probabilities: Probabilities
    evidence: Evidence
    area: Box
    seen: Box
    width: int
    height: int
    view: Pixels | None

    def heat_map(self, label: int) -> HeatMap:
        """Return the map of the label of this number."""
        return HeatMap(self.evidence[..., label], self.area, self.seen, self.width, self.height)


class Explainer:
    """Decodes pictures and explains what a version answers to them."""

    def __init__(
        self, decoder: Decoder, clock: Callable[[], float] = time.monotonic, runtime: Runtime | None = None
    ) -> None:
        """Take what decodes, the clock that deadlines are told in, and what requests wait in."""
        self._decoder = decoder
        self._clock = clock
        self._turns = _Turns(clock, runtime or ThreadRuntime())

    def explain(self, model: LoadedModel, item: Item, deadline: float, *, view: bool = False) -> Explained:
        """Return what spoke for the labels of one picture; it takes as long as an answer, and is no work for a loop.

        With ``view`` the picture itself is there as well, for ``picture``; it is decoded once for both.

        Raises:
            NotExplainable: the version's network is of another kind, or another engine runs it.
            ServiceError: the picture cannot be used, too many wait, the time is up, or there is no memory for it.
        """
        make = model.engine.explaining
        if make is None:
            raise NotExplainable(_why_not(model))
        if steps := STEPS.get():
            steps.model = model.name, model.version
        with timed("decode", images=1):
            decoded, (width, height) = self._decoded(model, item, deadline, MOST_SIDE if view else None)
        with ExitStack() as turn:
            with timed("queue", images=1):
                turn.enter_context(self._turns.take(deadline))
            with timed("engine", batch_size=1, precision=model.engine.precision):
                if model.evidence is None:
                    model.evidence = _made(make, model)
                network = model.evidence
                told = _run(network, decoded.pixels)
        seen = Box(*part_seen(width, height, model.metadata.input))
        area = _in_picture(network.grid, model.metadata.input, seen)
        return Explained(told.probabilities[0], told.evidence[0], area, seen, width, height, decoded.view)

    def picture(self, item: Item, explained: Explained, label: int, deadline: float) -> bytes:
        """Return a PNG of the map of the label of this number over the picture.

        Where a small model has had a large picture decoded to next to nothing, that is decoded once more.

        Raises:
            ServiceError: the time is up.
        """
        if not isinstance(item.content, bytes):
            raise TypeError("only the picture of a file is shown")
        view = explained.view
        if view is None or max(view.shape) < min(LEAST_SHARP_SIDE, max(explained.width, explained.height)):
            view = self._decoder.decode(item.content, MOST_SIDE, deadline)
        return explained.heat_map(label).over(in_sight(view))

    def _decoded(
        self, model: LoadedModel, item: Item, deadline: float, view: int | None
    ) -> tuple[Decoded, tuple[int, int]]:
        """Return the model's input, and the width and height of the picture when it is upright."""
        if isinstance(item.content, bytes):
            return self._decoder.decode_and_measure(item.content, model.metadata.input, deadline, view)
        if isinstance(item.content, np.ndarray):
            height, width, _ = item.content.shape
            return Decoded(item.content), (width, height)
        raise item.content


class _Turns:
    """Lets one caller work at a time, in the order in which they came."""

    def __init__(self, clock: Callable[[], float], runtime: Runtime) -> None:
        self._clock = clock
        self._runtime = runtime
        self._lock = threading.Lock()
        self._busy = False
        self._waiting: list[Event] = []

    @contextmanager
    def take(self, deadline: float) -> Iterator[None]:
        """Wait for a turn, and keep it for the block.

        Raises:
            QueueFull: too many wait.
            DeadlineExceeded: it did not come until then.
        """
        self._enter(deadline)
        try:
            if self._clock() >= deadline:
                raise DeadlineExceeded(LATE)
            yield
        finally:
            self._leave()

    def _enter(self, deadline: float) -> None:
        with self._lock:
            if not self._busy:
                self._busy = True
                return
            if len(self._waiting) >= _MOST_WAITING:
                raise QueueFull("Too many pictures wait to be explained already; try again in a moment.")
            turn = self._runtime.event()
            self._waiting.append(turn)
        try:
            came = turn.wait(max(0.0, deadline - self._clock()))
        except BaseException:  # as where there is no memory to wait
            if not self._withdrawn(turn):
                self._leave()
            raise
        if not came and self._withdrawn(turn):
            raise DeadlineExceeded(LATE)

    def _withdrawn(self, turn: Event) -> bool:
        """Wait for ``turn`` no more; say whether it had not come yet."""
        with self._lock:
            if turn not in self._waiting:
                return False
            self._waiting.remove(turn)
            return True

    def _leave(self) -> None:
        with self._lock:
            following = self._waiting.pop(0) if self._waiting else None
            self._busy = following is not None
        if following is not None:
            self._runtime.wake([following])


def _made(make: Callable[[], EvidenceNetwork], model: LoadedModel) -> EvidenceNetwork:
    """Return what ``make`` makes of the files of ``model``, if there is memory for it, and they are still the same."""
    weights = model.metadata.parameters * (1 if model.engine.precision == "int8" else 4)  # bytes
    if _COPIES * weights + _FIXED > spare_memory():
        raise QueueFull("There is not enough memory to explain answers at the moment; try again later.")
    started = time.monotonic()
    try:
        network = make()
        unchanged = fingerprint(model.path) == model.fingerprint
    except MemoryError:
        raise
    except Exception as error:  # noqa: BLE001 - the engine may raise anything on files that are gone
        log.warning("version %d cannot be explained: %s", model.version, error)
        unchanged = False
    if not unchanged:
        raise ModelUnavailable(f"The files of version {model.version} have changed since it was loaded.")
    log.info("prepared to explain version %d in %.2f s", model.version, time.monotonic() - started)
    return network


def _run(network: EvidenceNetwork, pixels: Pixels) -> Told:
    """Return what ``network`` tells of one picture."""
    try:
        told = network.run(pixels[np.newaxis])
    except Exception as error:
        log.exception("the engine failed to explain a picture")
        raise EngineFailed("The engine failed on this picture; the log has the details.") from error
    if not (np.isfinite(told.evidence).all() and np.isfinite(told.probabilities).all()):
        log.error("the engine explained a picture with values that are no numbers")
        raise EngineFailed("The engine's answer is not made of numbers.")
    return told


def _in_picture(grid: Grid, size: Input, seen: Box) -> Box:
    """Return where the ``grid`` of an input of ``size`` lies in a picture of which that shows the part ``seen``."""
    across, down = (seen.right - seen.left) / size.width, (seen.bottom - seen.top) / size.height
    return Box(
        seen.left + across * grid.left,
        seen.top + down * grid.top,
        seen.left + across * grid.right,
        seen.top + down * grid.bottom,
    )


def _why_not(model: LoadedModel) -> str:
    if model.engine.name != "openvino":
        return "Answers are explained by OpenVINO only; start the service with ENGINE=openvino."
    return (
        f"The network of {model.name}, version {model.version}, does not end in pooling and a linear layer, or its "
        "maps are too large, so that nothing tells where in a picture its answers come from. The networks that "
        "`darkroom train` makes of a folder of pictures can be explained."
    )
