"""Encoded pictures to the model's input: Pillow, with every limit checked before memory is spent.

A JPEG that has the model's size already goes straight to the library that Pillow calls for it, libjpeg-turbo.
"""

import threading
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import simplejpeg
from PIL import Image

from artifact import Input
from imaging import DamagedPicture, FarTooManyPixels, Pixels, UnknownFormat, UnknownRange, open_picture, to_input
from service.inference.errors import DeadlineExceeded, ImageTooLarge, InvalidImage, UnsupportedImage
from service.inference.offload import offloads_decoding
from service.inference.runtime import Runtime, ThreadRuntime

_SIGNATURES = (b"\xff\xd8", b"\x89PNG", b"RIFF", b"GIF8", b"BM", b"II*\0", b"MM\0*")
_READABLE = "JPEG, PNG, WebP, GIF, BMP, TIFF and AVIF are read"

_MAY_BE_TURNED = (b"Exif", b"ns.adobe.com/xap")  # the two kinds of metadata that hold an orientation

_LARGE_PIXELS = 4_000_000  # from here on a picture's memory matters, so few are decoded at once


class Decoder:
    """Decodes pictures within limits.

    Transparent pixels are laid on white, the colour of the page that most such pictures were made for. Of an animation
    the first frame counts. Profiles of colour spaces are ignored: CMYK becomes RGB by Pillow's plain formula.
    """

    def __init__(
        self,
        max_pixels: int,
        large_at_once: int,
        clock: Callable[[], float] = time.monotonic,
        runtime: Runtime | None = None,
    ) -> None:
        """Take the most pixels of a picture and how many large ones may be decoded at the same time.

        ``runtime`` takes pictures that take long to decode; without it the thread of the caller does.
        """
        self._max_pixels = max_pixels
        self._large = threading.BoundedSemaphore(large_at_once)
        self._clock = clock
        self._runtime = runtime or ThreadRuntime()
        # Pillow's own check raises from twice this number on, wherever it meets a size; below that it only warns.
        Image.MAX_IMAGE_PIXELS = max_pixels
        warnings.filterwarnings("ignore", module=r"PIL\.")  # damaged metadata and the like: nothing for the log

    def decode(self, content: bytes, size: Input, deadline: float) -> Pixels:
        """Return ``content`` as uint8 [H, W, 3] in RGB, of the height and width that ``size`` asks for.

        ``deadline`` is a time of the decoder's clock, in seconds.

        Raises:
            UnsupportedImage: the content is not a picture in one of imaging's ``FORMATS``.
            ImageTooLarge: it has more pixels than allowed; its pixels were not decoded.
            InvalidImage: it is damaged or cut short.
            DeadlineExceeded: other large pictures took all the time.
        """
        if not content:
            raise InvalidImage("The picture is empty; send the bytes of an image file.")
        if (pixels := decode_jpeg_of_size(content, size)) is not None:
            return pixels
        try:
            return self._decode(content, size, deadline)
        except UnknownFormat as error:
            if content.startswith(_SIGNATURES):
                raise InvalidImage("The picture is damaged or cut short: its header cannot be read.") from error
            raise UnsupportedImage(f"The content is not a picture that can be read; {_READABLE}.") from error
        except UnknownRange as error:
            raise InvalidImage(str(error)) from error
        except FarTooManyPixels as error:
            raise ImageTooLarge(
                f"The picture has far more than the {self._max_pixels:,} pixels that are allowed."
            ) from error
        except DamagedPicture as error:
            raise InvalidImage(f"The picture is damaged or cut short ({error}). Send the whole file.") from error

    def _decode(self, content: bytes, size: Input, deadline: float) -> Pixels:
        image = open_picture(content)
        self._check_size(image)
        if not offloads_decoding(image.width * image.height):
            return to_input(image, size)
        return self._runtime.offload(lambda: self._decode_long(image, size, deadline))

    def _check_size(self, image: Image.Image) -> None:
        width, height = image.size
        if width * height > self._max_pixels:
            raise ImageTooLarge(
                f"The picture has {width} x {height} = {width * height:,} pixels; "
                f"at most {self._max_pixels:,} are allowed. Send a smaller one."
            )

    def _decode_long(self, image: Image.Image, size: Input, deadline: float) -> Pixels:
        if self._clock() >= deadline:  # it waited for a thread
            raise DeadlineExceeded("Other requests took all the time until the deadline; try again later.")
        with self._room_for(image, deadline):
            return to_input(image, size)

    @contextmanager
    def _room_for(self, image: Image.Image, deadline: float) -> Iterator[None]:
        if image.width * image.height < _LARGE_PIXELS:
            yield
            return
        if not self._large.acquire(timeout=max(0.0, deadline - self._clock())):
            raise DeadlineExceeded("Other large pictures were decoded until the deadline; try again later.")
        try:
            yield
        finally:
            self._large.release()


def decode_jpeg_of_size(content: bytes, size: Input) -> Pixels | None:
    """Return a plain JPEG of just this size as uint8 [H, W, 3], in a seventh of Pillow's time; None for all others.

    The pixels are those that Pillow makes of it. What is damaged is left to Pillow, which says what is wrong.
    """
    if not content.startswith(b"\xff\xd8"):
        return None
    try:
        height, width, colours, _ = simplejpeg.decode_jpeg_header(content)
        if (height, width) != (size.height, size.width) or colours not in ("YCbCr", "Gray"):
            return None
        if any(mark in content for mark in _MAY_BE_TURNED):  # last, since it reads all of it
            return None
        pixels: Pixels = simplejpeg.decode_jpeg(content)
    except (ValueError, KeyError):  # a KeyError for samplings that it has no name for
        return None
    return pixels
