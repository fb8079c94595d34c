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
import pi_heif
from PIL import AvifImagePlugin, Image

from artifact import Input
from imaging import UndecodablePicture, open_picture, prepare, to_input, to_input_and_view, upright_size, whole
from machine import give_large_blocks_back, stand_back

_MEMORY = Path("/proc/self/statm")  # in pages; the sixth number is the data's, which the limit counts
_DATA = 5


class Order(msgspec.Struct):
    """What to open: how large the input is, or the longest side of all of the picture; the limits until it is open.

    With a ``view``, all of the picture is wanted as well, in grey, with no side longer than that many pixels.
    """

    size: Input | int
    max_pixels: int  # beyond twice this many, Pillow does not read on
    memory: int  # bytes, beside the file itself
    seconds: float  # of the processor
    view: int | None = None


class Opened(msgspec.Struct):
    """What a picture says it is, before its pixels are decoded."""

    width: int
    height: int
    upright: tuple[int, int]  # width and height as people see it
    memory: int  # bytes that decoding takes at most
    size: Input  # of what comes of it


class Grant(msgspec.Struct):
    """What decoding may take."""

    memory: int  # bytes
    seconds: float  # of the processor


class Fault(msgspec.Struct):
    """Why there are no pixels: the name of one of imaging's errors, or of Python's for the end of the memory."""

    error: str
    message: str


class Answer(msgspec.Struct):
    """One of the first two is there; or none of them, where the pixels follow, and those of the view behind them."""

    opened: Opened | None = None
    fault: Fault | None = None
    view: tuple[int, int] | None = None  # its height and width


def main(descriptor: int) -> None:
    """Answer orders until the other side is gone."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a terminal sends it to all; the worker decides when this ends
    stand_back()  # requests for pictures that need no such process go first
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    give_large_blocks_back()
    warnings.simplefilter("ignore")
    AvifImagePlugin.DEFAULT_MAX_THREADS = 1  # each has memory of its own
    pi_heif.options.DECODE_THREADS = 0  # none beside this one for the tiles of an iPhone's photograph
    with Connection(descriptor) as connection, contextlib.suppress(EOFError, OSError):
        while True:
            order = msgspec.json.decode(connection.recv_bytes(), type=Order)
            _answer(connection, order, connection.recv_bytes())


def _answer(connection: Connection, order: Order, content: bytes) -> None:
    Image.MAX_IMAGE_PIXELS = order.max_pixels
    try:
        _limit(order.memory, order.seconds)
        image = open_picture(content)
        size = whole(image, order.size) if isinstance(order.size, int) else order.size
        opened = Opened(image.width, image.height, upright_size(image), prepare(image, size), size)
        _send(connection, Answer(opened=opened))
        grant = msgspec.json.decode(connection.recv_bytes(), type=Grant | None)
        if grant is None:
            return
        _limit(grant.memory, grant.seconds)
        if order.view is None:
            pixels, view = to_input(image, size), None
        else:
            pixels, view = to_input_and_view(image, size, order.view)
    except (UndecodablePicture, MemoryError) as error:
        _limit(None, 0)  # to have the memory for the answer
        _send(connection, Answer(fault=Fault(type(error).__name__, str(error)[:500])))
        return
    finally:
        _limit(None, 0)
    _send(connection, Answer(view=None if view is None else view.shape))
    connection.send_bytes(pixels.tobytes())
    if view is not None:
        connection.send_bytes(view.tobytes())


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
