"""Encoded pictures to the model's input: Pillow, with every limit checked before memory and time are spent.

A JPEG or PNG whose structure shows how much work it is, as nearly all are, is decoded here, in a thread where that
takes long. All others are decoded in processes that can be ended. A JPEG that has the model's size already goes
straight to the library that Pillow calls for it, libjpeg-turbo.
"""

import time
import warnings
from collections.abc import Callable
from contextlib import nullcontext

import numpy as np
import simplejpeg
from PIL import Image

from artifact import Input
from imaging import (
    DamagedPicture,
    FarTooManyPixels,
    Pixels,
    Plain,
    TooMuchWork,
    UnknownFormat,
    UnknownRange,
    open_picture,
    plain_structure,
    prepare,
    to_input,
    to_input_and_view,
    upright_size,
    whole,
)
from service.inference.decoder_pool import Decoded, DecoderPool
from service.inference.errors import DeadlineExceeded, ImageTooLarge, InvalidImage, UnsupportedImage
from service.inference.limits import DecodingMemory, check_pixels
from service.inference.offload import offloads_decoding
from service.inference.runtime import Runtime, ThreadRuntime

_SIGNATURES = (b"\xff\xd8", b"\x89PNG", b"RIFF", b"GIF8", b"BM", b"II*\0", b"MM\0*")
_AVIF = b"ftyp"  # of AVIF, HEIC and films, behind a length
_HEIC = (b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1")  # behind that
_READABLE = "JPEG, PNG, WebP, GIF, BMP, TIFF, AVIF and HEIC are read"

_MAY_BE_TURNED = (b"Exif", b"ns.adobe.com/xap")  # the two kinds of metadata that hold an orientation
_FEW_PASSES = 16  # of a picture that is as small as a model's input

# What is plain and takes up to 100 ms stays in this process, which nothing could end: pixels, in all passes together.
_MOST_WORK = {"JPEG": 40_000_000, "PNG": 8_000_000}
_LARGE = 16 * 1024 * 1024  # bytes: from here on a picture's memory matters


class Decoder:
    """Decodes pictures within limits.

    Transparent pixels are laid on white, the colour of the page that most such pictures were made for. Of an animation
    the first frame counts. Profiles of colour spaces are ignored: CMYK becomes RGB by Pillow's plain formula.
    """

    def __init__(
        self,
        max_pixels: int,
        memory: int,
        processes: int = 1,
        clock: Callable[[], float] = time.monotonic,
        runtime: Runtime | None = None,
    ) -> None:
        """Take the most pixels of a picture, the bytes that all may take at once, and the most processes.

        ``runtime`` takes pictures that take long to decode; without it the thread of the caller does.
        """
        self._max_pixels = max_pixels
        self._clock = clock
        self._runtime = runtime or ThreadRuntime()
        self._memory = DecodingMemory(memory, self._runtime, clock)
        self._pool = DecoderPool(processes, max_pixels, self._memory, self._runtime, clock)
        # Pillow's own check raises from twice this number on, wherever it meets a size; below that it only warns.
        Image.MAX_IMAGE_PIXELS = max_pixels
        warnings.filterwarnings("ignore", module=r"PIL\.")  # damaged metadata and the like: nothing for the log

    def warm(self) -> None:
        """Start a process, so that the first picture that needs one does not wait for it."""
        self._pool.warm()

    def decode(self, content: bytes, size: Input | int, deadline: float) -> Pixels:
        """Return ``content`` as uint8 [H, W, 3] in RGB, of the height and width that ``size`` asks for.

        Where that is a number, it is all of the picture in its shape, with no side longer than that many pixels.
        ``deadline`` and errors are as in ``decode_and_measure``.
        """
        return self._decode_or_say(content, size, deadline).pixels

    def decode_and_measure(
        self, content: bytes, size: Input, deadline: float, view: int | None = None
    ) -> tuple[Decoded, tuple[int, int]]:
        """Return the same, and the width and height of the picture itself when it is upright.

        With a ``view``, all of the picture is there as well, in grey, as sharp as what was decoded for ``size``: no
        side is longer than that many pixels, but for a picture that is the input itself.
        ``deadline`` is a time of the decoder's clock, in seconds.

        Raises:
            UnsupportedImage: the content is not a picture in one of imaging's ``FORMATS``.
            ImageTooLarge: it has more pixels than allowed, or takes more memory; its pixels were not decoded.
            InvalidImage: it is damaged or cut short, or made to take long.
            QueueFull: there is no memory for what decodes it at the moment.
            DeadlineExceeded: it, or other large pictures, took all the time.
        """
        decoded = self._decode_or_say(content, size, deadline, view)
        return decoded, decoded.upright or upright_size(open_picture(content))

    def _decode_or_say(self, content: bytes, size: Input | int, deadline: float, view: int | None = None) -> Decoded:
        """Return what becomes of a picture; say what is wrong with it where nothing does."""
        if not content:
            raise InvalidImage("The picture is empty; send the bytes of an image file.")
        try:
            return self._decode(content, size, deadline, view)
        except UnknownFormat as error:
            if content.startswith(_SIGNATURES):
                raise InvalidImage("The picture is damaged or cut short: its header cannot be read.") from error
            if content[4:8] == _AVIF and content[8:12] in _HEIC:
                raise InvalidImage(
                    "The picture is a HEIC, as iPhones take them, and is damaged or of a rare kind; send it as a JPEG."
                ) from error
            raise UnsupportedImage(f"The content is not a picture that can be read; {_READABLE}.") from error
        except UnknownRange as error:
            raise InvalidImage(str(error)) from error
        except MemoryError as error:
            raise ImageTooLarge("Decoding the picture takes more memory than there is; send a smaller one.") from error
        except TooMuchWork as error:
            raise InvalidImage(
                f"The picture is made to take long to decode: {error}. Save it again and send that."
            ) from error
        except FarTooManyPixels as error:
            raise ImageTooLarge(
                f"The picture has far more than the {self._max_pixels:,} pixels that are allowed."
            ) from error
        except DamagedPicture as error:
            raise InvalidImage(f"The picture is damaged or cut short ({error}). Send the whole file.") from error

    def _decode(self, content: bytes, size: Input | int, deadline: float, view: int | None) -> Decoded:
        known = plain_structure(content)
        if known is None and not (content.startswith(_SIGNATURES) or content[4:8] == _AVIF):
            raise UnknownFormat("it begins like none")
        if known is None:
            return self._pool.decode(content, size, deadline, view)
        check_pixels(known.width, known.height, self._max_pixels)
        if isinstance(size, int):
            size = whole(open_picture(content, known=known), size)
        if (pixels := decode_jpeg_of_size(content, size, known)) is not None:
            return Decoded(pixels, (size.width, size.height), None if view is None else _in_grey(pixels))
        if known.work > _MOST_WORK[known.format]:
            return self._pool.decode(content, size, deadline, view)
        if not offloads_decoding(known.work):
            return _read(open_picture(content, known=known), size, view)
        return self._runtime.offload(lambda: self._decode_long(content, known, size, deadline, view))

    def _decode_long(self, content: bytes, known: Plain, size: Input, deadline: float, view: int | None) -> Decoded:
        if self._clock() >= deadline:  # it waited for a thread
            raise DeadlineExceeded("Other requests took all the time until the deadline; try again later.")
        image = open_picture(content, known=known)
        memory = prepare(image, size)
        with self._memory.take(memory, deadline) if memory >= _LARGE else nullcontext():
            return _read(image, size, view)


def _in_grey(pixels: Pixels) -> Pixels:
    return np.asarray(Image.fromarray(pixels).convert("L"))


def _read(image: Image.Image, size: Input, view: int | None) -> Decoded:
    if view is None:
        return Decoded(to_input(image, size))
    pixels, shown = to_input_and_view(image, size, view)
    return Decoded(pixels, view=shown)


def decode_jpeg_of_size(content: bytes, size: Input, known: Plain) -> Pixels | None:
    """Return a plain JPEG of just this size as uint8 [H, W, 3], in a seventh of Pillow's time; None for all others.

    ``known`` is what its structure shows. The pixels are those that Pillow makes of it. What is damaged is left to
    Pillow, which says what is wrong.
    """
    if known.format != "JPEG" or known.passes > _FEW_PASSES or (known.height, known.width) != (size.height, size.width):
        return None
    try:
        _, _, colours, _ = simplejpeg.decode_jpeg_header(content)
        if colours not in ("YCbCr", "Gray"):
            return None
        if any(mark in content for mark in _MAY_BE_TURNED):  # last, since it reads all of it
            return None
        pixels: Pixels = simplejpeg.decode_jpeg(content)
    except Exception:  # noqa: BLE001 - it may raise more than it says, as a KeyError for samplings without a name
        return None
    return pixels
