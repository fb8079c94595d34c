"""Encoded pictures to the model's input: Pillow, with every limit checked before memory is spent."""

import io
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import numpy as np
import numpy.typing as npt

# Each import registers one format, and only these: Pillow knows dozens, some of which run other programs (EPS) or are
# rarely fuzzed. JPEG includes MPO, the several pictures in one file that many phones write.
from PIL import (  # noqa: F401
    AvifImagePlugin,
    BmpImagePlugin,
    GifImagePlugin,
    Image,
    JpegImagePlugin,
    PngImagePlugin,
    TiffImagePlugin,
    UnidentifiedImageError,
    WebPImagePlugin,
)

from artifact import Input
from service.errors import DeadlineExceeded, ImageTooLarge, InvalidImage, ServiceError, UnsupportedImage

Pixels = npt.NDArray[np.uint8]

FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "AVIF")

_SIGNATURES = (b"\xff\xd8", b"\x89PNG", b"RIFF", b"GIF8", b"BM", b"II*\0", b"MM\0*")
_READABLE = "JPEG, PNG, WebP, GIF, BMP, TIFF and AVIF are read"

_FILTERS = {
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
    "lanczos": Image.Resampling.LANCZOS,
}

# EXIF orientation -> the transposition that undoes it (Exif 2.3, tag 0x0112).
_ORIENTATION_TAG = 0x0112
_TRANSPOSITIONS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_SIDEWAYS = (5, 6, 7, 8)

_LARGE_PIXELS = 4_000_000  # from here on a picture's memory matters, so few are decoded at once


class Decoder:
    """Decodes pictures within limits.

    Transparent pixels are laid on white, the colour of the page that most such pictures were made for. Of an animation
    the first frame counts. Profiles of colour spaces are ignored: CMYK becomes RGB by Pillow's plain formula.
    """

    def __init__(self, max_pixels: int, large_at_once: int, clock: Callable[[], float] = time.monotonic) -> None:
        """Take the most pixels of a picture and how many large ones may be decoded at the same time."""
        self._max_pixels = max_pixels
        self._large = threading.BoundedSemaphore(large_at_once)
        self._clock = clock
        # Pillow's own check raises from twice this number on, wherever it meets a size; below that it only warns.
        Image.MAX_IMAGE_PIXELS = max_pixels
        warnings.filterwarnings("ignore", module=r"PIL\.")  # damaged metadata and the like: nothing for the log

    def decode(self, content: bytes, size: Input, deadline: float) -> Pixels:
        """Return ``content`` as uint8 [H, W, 3] in RGB, of the height and width that ``size`` asks for.

        ``deadline`` is a time of the decoder's clock, in seconds.

        Raises:
            UnsupportedImage: the content is not a picture in one of ``FORMATS``.
            ImageTooLarge: it has more pixels than allowed; its pixels were not decoded.
            InvalidImage: it is damaged or cut short.
            DeadlineExceeded: other large pictures took all the time.
        """
        if not content:
            raise InvalidImage("The picture is empty; send the bytes of an image file.")
        with _readable_errors(content, self._max_pixels):
            image = Image.open(io.BytesIO(content), formats=FORMATS)
            self._check_size(image)
            with self._room_for(image, deadline):
                return _to_input(image, size)

    def _check_size(self, image: Image.Image) -> None:
        width, height = image.size
        if width * height > self._max_pixels:
            raise ImageTooLarge(
                f"The picture has {width} x {height} = {width * height:,} pixels; "
                f"at most {self._max_pixels:,} are allowed. Send a smaller one."
            )

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


@contextmanager
def _readable_errors(content: bytes, max_pixels: int) -> Iterator[None]:
    """Make what Pillow raises on hostile or broken content an error of the service."""
    try:
        yield
    except (ServiceError, MemoryError):
        raise
    except UnidentifiedImageError as error:
        if content.startswith(_SIGNATURES):
            raise InvalidImage("The picture is damaged or cut short: its header cannot be read.") from error
        raise UnsupportedImage(f"The content is not a picture that can be read; {_READABLE}.") from error
    except Image.DecompressionBombError as error:
        raise ImageTooLarge(f"The picture has far more than the {max_pixels:,} pixels that are allowed.") from error
    except Exception as error:  # Pillow's readers raise nearly anything on broken files: SyntaxError, struct.error, ...
        raise InvalidImage(f"The picture is damaged or cut short ({error}). Send the whole file.") from error


def _to_input(image: Image.Image, size: Input) -> Pixels:
    """Decode ``image`` and bring it to ``size``; uint8 [H, W, 3]."""
    target = (size.width, size.height)
    # Half the work for a picture from a camera: libjpeg decodes at 1/2, 1/4 or 1/8 scale. Twice the target keeps the
    # filter's result as good as the eye can tell; the longer side because the picture may lie on its side.
    image.draft(None, (2 * max(target), 2 * max(target)))
    orientation = _orientation(image)
    if orientation in _SIDEWAYS:
        target = (size.height, size.width)
    image.load()
    fitted = _fit(_eight_bit(image), target, size)
    if orientation in _TRANSPOSITIONS:
        fitted = fitted.transpose(_TRANSPOSITIONS[orientation])
    return np.asarray(_opaque(fitted), dtype=np.uint8)


def _orientation(image: Image.Image) -> int:
    try:
        return int(image.getexif().get(_ORIENTATION_TAG, 1))
    except Exception:  # noqa: BLE001 - broken EXIF data does not make the picture unreadable
        return 1


def _eight_bit(image: Image.Image) -> Image.Image:
    """Return ``image`` in mode RGB or RGBA."""
    if image.mode.startswith("I;16"):
        levels = np.asarray(image).astype(np.uint32)  # Pillow's own conversion clips at 255 instead of scaling
        image = Image.fromarray(((levels * 255 + 32767) // 65535).astype(np.uint8))
    elif image.mode in ("I", "F"):
        raise InvalidImage("Pictures with 32 bits a channel have no fixed range; save it with 8 or 16 bits.")
    return image.convert("RGBA" if image.has_transparency_data else "RGB")


def _fit(image: Image.Image, target: tuple[int, int], size: Input) -> Image.Image:
    """Scale ``image`` to ``target`` (width, height) by the rule of ``size``."""
    if image.size == target:
        return image
    box = _centre(image.size, target) if size.resize == "crop" else None
    return image.resize(target, _FILTERS[size.interpolation], box=box, reducing_gap=3.0)


def _centre(source: tuple[int, int], target: tuple[int, int]) -> tuple[float, float, float, float]:
    """Return the largest centred box of ``source`` that has the aspect ratio of ``target``, in pixels."""
    scale = min(source[0] / target[0], source[1] / target[1])
    width, height = target[0] * scale, target[1] * scale
    left, top = (source[0] - width) / 2, (source[1] - height) / 2
    return left, top, min(left + width, source[0]), min(top + height, source[1])


def _opaque(image: Image.Image) -> Image.Image:
    if image.mode == "RGB":
        return image
    white = Image.new("RGBA", image.size, "white")
    return Image.alpha_composite(white, image).convert("RGB")
