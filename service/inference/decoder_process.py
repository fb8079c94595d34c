"""Decodes pictures in a process of its own, where it can be stopped: run as ``python -m``, with a descriptor.

Through the descriptor come an order (JSON) and a picture's file. The answer is an ``Opened``, or a fault. Where the
other side then sends a ``Grant``, the pixels follow, or a fault. Processor time is limited by a timer whose signal ends
the process, memory by a limit on its data.
"""

import contextlib
import resource
import signal
import sys
import warnings
from multiprocessing.connection import Connection
from pathlib import Path

import msgspec
from PIL import AvifImagePlugin, Image

from artifact import Input
from imaging import UndecodablePicture, open_picture, prepare, to_input
from machine import give_large_blocks_back, stand_back

_MEMORY = Path("/proc/self/statm")  # in pages; the sixth number is the data's, which the limit counts
_DATA = 5


class Order(msgspec.Struct):
    """What to open: how large the input is, and the limits until it is open."""

    size: Input
    max_pixels: int  # beyond twice this many, Pillow does not read on
    memory: int  # bytes, beside the file itself
    seconds: float  # of the processor


class Opened(msgspec.Struct):
    """What a picture says it is, before its pixels are decoded."""

    width: int
    height: int
    memory: int  # bytes that decoding takes at most


class Grant(msgspec.Struct):
    """What decoding may take."""

    memory: int  # bytes
    seconds: float  # of the processor


class Fault(msgspec.Struct):
    """Why there are no pixels: the name of one of imaging's errors, or of Python's for the end of the memory."""

    error: str
    message: str


class Answer(msgspec.Struct):
    """One of the two is there; or none of them, where the pixels follow."""

    opened: Opened | None = None
    fault: Fault | None = None


def main(descriptor: int) -> None:
    """Answer orders until the other side is gone."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a terminal sends it to all; the worker decides when this ends
    stand_back()  # requests for pictures that need no such process go first
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    give_large_blocks_back()
    warnings.simplefilter("ignore")
    AvifImagePlugin.DEFAULT_MAX_THREADS = 1  # each has memory of its own
    with Connection(descriptor) as connection, contextlib.suppress(EOFError, OSError):
        while True:
            order = msgspec.json.decode(connection.recv_bytes(), type=Order)
            _answer(connection, order, connection.recv_bytes())


def _answer(connection: Connection, order: Order, content: bytes) -> None:
    Image.MAX_IMAGE_PIXELS = order.max_pixels
    try:
        _limit(order.memory, order.seconds)
        image = open_picture(content)
        opened = Opened(image.width, image.height, prepare(image, order.size))
        _send(connection, Answer(opened=opened))
        grant = msgspec.json.decode(connection.recv_bytes(), type=Grant | None)
        if grant is None:
            return
        _limit(grant.memory, grant.seconds)
        pixels = to_input(image, order.size)
    except (UndecodablePicture, MemoryError) as error:
        _limit(None, 0)  # to have the memory for the answer
        _send(connection, Answer(fault=Fault(type(error).__name__, str(error)[:500])))
        return
    finally:
        _limit(None, 0)
    _send(connection, Answer())
    connection.send_bytes(pixels.tobytes())


def _limit(memory: int | None, seconds: float) -> None:
    """Allow so many bytes more than there are now, None for any, and so much more processor time, 0 for any."""
    signal.setitimer(signal.ITIMER_PROF, seconds)
    _, most = resource.getrlimit(resource.RLIMIT_DATA)
    limits = (most, most)
    if memory is not None and _MEMORY.is_file():  # not on macOS
        pages = int(_MEMORY.read_text(encoding="ascii").split()[_DATA])
        wanted = pages * resource.getpagesize() + memory
        limits = (wanted if most == resource.RLIM_INFINITY else min(wanted, most), most)
    resource.setrlimit(resource.RLIMIT_DATA, limits)


def _send(connection: Connection, answer: Answer) -> None:
    connection.send_bytes(msgspec.json.encode(answer))


if __name__ == "__main__":
    main(int(sys.argv[1]))
