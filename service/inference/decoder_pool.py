"""Decodes pictures that may cost any time for their size in processes that are kept warm, and ended when needed."""

import logging
import math
import signal
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing.connection import Pipe
from pathlib import Path
from typing import NamedTuple

import msgspec
import numpy as np

import imaging
from artifact import Input
from imaging import Pixels, TooMuchWork, UndecodablePicture, webp_size
from machine import start_thread
from service.inference.decoder_process import Answer, Grant, Opened, Order
from service.inference.errors import DeadlineExceeded, ImageTooLarge, InvalidImage, QueueFull, ServiceError
from service.inference.limits import DecodingMemory, check_pixels
from service.inference.runtime import Event, Runtime

log = logging.getLogger(__name__)

_ROOT = Path(__file__).parents[2]
_MODULE = "service.inference.decoder_process"
_MEBIBYTE = 1024 * 1024

# Until a picture is open: readers take its file apart, in memory of which each process always has so much.
_OPENING_MEMORY = 32 * _MEBIBYTE
_OPENING_SECONDS = 0.25  # of the processor, and more for a long file; what people send takes a tenth of it
_BYTES_A_SECOND = 50_000_000
_WEBP_MEMORY = 20  # bytes of a pixel, most of which its reader takes as soon as it is open

# All that people send takes less than half of this time. Measured: 60 ns of the processor for a pixel of an AVIF.
_DECODING_SECONDS = 0.5
_PIXELS_A_SECOND = 8_000_000
_SPARE = 1.25  # of the memory that decoding should take

_NO_PROCESS = "There is no memory to decode this picture at the moment; try again later, or send it as a JPEG."


class Decoded(NamedTuple):
    """A picture as a model's input, uint8 [H, W, 3].

    ``upright`` is the width and height of the picture itself, where they are known. The ``view`` is all of it in
    grey, uint8 [h, w], where that was asked for.
    """

    pixels: Pixels
    upright: tuple[int, int] | None = None
    view: Pixels | None = None


@dataclass(eq=False)
class _Job:
    content: bytes
    size: Input | int
    view: int | None
    deadline: float
    done: Event
    outcome: "Decoded | UndecodablePicture | ServiceError | None" = None


class DecoderPool:
    """Processes that decode, each fed by a thread of its own; whoever asks waits as its runtime does."""

    def __init__(
        self,
        processes: int,
        max_pixels: int,
        memory: DecodingMemory,
        runtime: Runtime,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Start nothing yet. ``max_pixels`` is the most of a picture, and others may take of ``memory`` as well."""
        self._processes = processes
        self._max_pixels = max_pixels
        self._memory = memory
        self._runtime = runtime
        self._clock = clock
        self._jobs: deque[_Job] = deque()
        self._work = threading.Condition()
        self._idle = 0
        self._threads: list[threading.Thread] = []

    def decode(self, content: bytes, size: Input | int, deadline: float, view: int | None = None) -> Decoded:
        """Return the picture in ``content`` as it is for an input of ``size``, or all of it, with that longest side.

        With a ``view``, all of it is there as well, in grey, with no side longer than that many pixels.

        Raises:
            UndecodablePicture: it is damaged, of no known format, or takes far more work than its size asks for.
            ImageTooLarge: it has too many pixels, or takes too much memory.
            QueueFull: no process can be started for it.
            DeadlineExceeded: it is not decoded at ``deadline``, a time of the clock in seconds.
        """
        job = _Job(content, size, view, deadline, self._runtime.event())
        with self._work:
            self._jobs.append(job)
            try:
                if len(self._jobs) > self._idle and len(self._threads) < self._processes:
                    self._start()
            except QueueFull:
                self._jobs.remove(job)
                raise
            self._work.notify()
        job.done.wait(max(0.0, deadline - self._clock()))
        if job.outcome is None:
            raise DeadlineExceeded("The picture was not decoded until the deadline; try again later, or send a JPEG.")
        if isinstance(job.outcome, Exception):
            raise job.outcome
        return job.outcome

    def warm(self) -> None:
        """Start one process, so that the first picture need not wait for it."""
        with self._work:
            if not self._threads:
                self._start()

    def _start(self) -> None:
        thread = threading.Thread(target=self._serve, name=f"decoder {len(self._threads)}", daemon=True)
        try:
            start_thread(thread)
        except MemoryError as error:
            if not self._threads:  # that could do its work
                raise QueueFull(_NO_PROCESS) from error
        else:
            self._threads.append(thread)

    def _serve(self) -> None:
        process: _Process | None = None
        try:
            while True:
                process = _alive(process)  # before there is a picture, so that this need not wait
                job = self._next()
                process = _alive(process)
                if self._clock() < job.deadline:  # else who asked has gone
                    job.outcome = QueueFull(_NO_PROCESS) if process is None else self._outcome(process, job)
                    self._runtime.wake([job.done])
        except Exception:  # as where there is no memory even to wait for a picture
            log.exception("the thread ends that feeds a process that decodes; the next picture has another")
        finally:
            with self._work:
                self._threads.remove(threading.current_thread())
            if process is not None:
                process.end()

    def _next(self) -> _Job:
        with self._work:
            self._idle += 1
            try:
                while not self._jobs:
                    self._work.wait()
            finally:
                self._idle -= 1
            return self._jobs.popleft()

    def _outcome(self, process: "_Process", job: _Job) -> Decoded | UndecodablePicture | ServiceError:
        try:
            return self._decode(process, job)
        except (UndecodablePicture, ServiceError) as error:
            return error
        except MemoryError:
            process.end()
            return QueueFull("There is no memory for this picture at the moment; try again later.")
        except Exception:
            log.exception("no process could be asked to decode a picture")
            process.end()
            return InvalidImage("The picture cannot be decoded here; send it as a JPEG or a PNG.")

    def _decode(self, process: "_Process", job: _Job) -> Decoded:
        deadline, memory = job.deadline, _memory_at_once(job.content, self._max_pixels)
        with self._memory.take(memory, deadline):
            seconds = _OPENING_SECONDS + len(job.content) / _BYTES_A_SECOND
            order = Order(job.size, self._max_pixels, _OPENING_MEMORY + memory, seconds, job.view)
            opened = process.open(order, job.content, self._left(job))
            try:
                check_pixels(opened.width, opened.height, self._max_pixels)
                with self._memory.take(max(0, opened.memory - memory), deadline):
                    return process.decode(_grant(opened), opened, self._left(job))
            except ServiceError:
                process.drop()
                raise

    def _left(self, job: _Job) -> float:
        return max(0.0, job.deadline - self._clock())


class _Process:
    """One process; it has ended where it had to be, or did by itself, while it worked on a picture."""

    def __init__(self) -> None:
        self._connection, theirs = Pipe()
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, "-m", _MODULE, str(theirs.fileno())],
                cwd=_ROOT,
                pass_fds=(theirs.fileno(),),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,  # where libraries write in plain text what they think of a file
            )
        self._asked = False  # it waits for a grant
        self.ended = False

    def open(self, order: Order, content: bytes, seconds: float) -> Opened:
        """Let it open the picture in ``content`` within ``seconds``."""
        self._send(msgspec.json.encode(order))
        self._send(content)
        opened = self._answer(seconds).opened
        if opened is None:
            raise ValueError("it answered a picture's size with something else")
        self._asked = True
        return opened

    def decode(self, grant: Grant, opened: Opened, seconds: float) -> Decoded:
        """Let it decode the picture that it has ``opened`` within ``seconds``."""
        self._asked = False
        self._send(msgspec.json.encode(grant))
        answer = self._answer(seconds)
        pixels = self._pixels(opened.size.height, opened.size.width, 3)
        return Decoded(pixels, opened.upright, None if answer.view is None else self._pixels(*answer.view))

    def _pixels(self, *shape: int) -> Pixels:
        return np.frombuffer(self._received(1.0, math.prod(shape)), np.uint8).reshape(shape)

    def drop(self) -> None:
        """Let it forget the picture that it has opened."""
        if self._asked:
            self._asked = False
            self._send(b"null")

    def end(self) -> int:
        """Kill it where it lives; return the exit code, negative for a signal."""
        self.ended = True
        self._connection.close()
        self._process.kill()
        return self._process.wait()

    def _answer(self, seconds: float) -> Answer:
        answer = msgspec.json.decode(self._received(seconds, 64 * 1024), type=Answer)
        if answer.fault is not None:
            raise _error(answer.fault.error, answer.fault.message)
        return answer

    def _received(self, seconds: float, most: int) -> bytes:
        try:
            if self._connection.poll(seconds):
                return self._connection.recv_bytes(most)
        except (EOFError, OSError) as error:
            raise self._died() from error
        self.end()
        raise DeadlineExceeded("The picture took too long to decode; send it as a JPEG or a PNG.")

    def _send(self, message: bytes) -> None:
        try:
            self._connection.send_bytes(message)
        except OSError as error:
            raise self._died() from error

    def _died(self) -> UndecodablePicture | ServiceError:
        """Return what a picture is told whose process has ended."""
        self.ended = True
        self._connection.close()
        try:
            code = self._process.wait(1.0)
        except subprocess.TimeoutExpired:
            code = self.end()
        if code == -signal.SIGPROF:
            return TooMuchWork("decoding it takes far longer than other pictures of its size")
        log.warning("a process ended with code %d while it decoded a picture", code)
        if code == -signal.SIGKILL:  # as the kernel does it where memory is short
            return ImageTooLarge("Decoding the picture took more memory than there is; send a smaller one.")
        return InvalidImage("The picture is damaged: what reads its format fails on it.")


def _alive(process: _Process | None) -> _Process | None:
    """Return ``process``, or another where it has ended; None where none can be started."""
    if process is not None and not process.ended:
        return process
    try:
        return _Process()
    except (OSError, MemoryError) as error:
        log.error("no process can be started that decodes pictures: %s", str(error) or type(error).__name__)
        return None


def _memory_at_once(content: bytes, max_pixels: int) -> int:
    """Return the bytes that opening the picture in ``content`` takes, where that is as much as decoding it."""
    size = webp_size(content)
    if size is None:
        return 0
    check_pixels(*size, max_pixels)
    return size[0] * size[1] * _WEBP_MEMORY + 8 * _MEBIBYTE


def _grant(opened: Opened) -> Grant:
    seconds = _DECODING_SECONDS + opened.width * opened.height / _PIXELS_A_SECOND
    return Grant(int(_SPARE * opened.memory), seconds)


def _error(name: str, message: str) -> UndecodablePicture | ServiceError:
    if name == MemoryError.__name__:
        return ImageTooLarge("Decoding the picture takes more memory than its size asks for; send it as a JPEG.")
    kind: type[UndecodablePicture] = getattr(imaging, name)
    return kind(message)
