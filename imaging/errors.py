"""What can be wrong with a picture, told apart once for training and service; each has words of its own for it."""

from collections.abc import Iterator
from contextlib import contextmanager

from PIL import Image, UnidentifiedImageError


class UndecodablePicture(ValueError):
    """A picture cannot be decoded."""


class UnknownFormat(UndecodablePicture):
    """It is no picture in a format that was asked for, or its beginning is damaged."""


class FarTooManyPixels(UndecodablePicture):
    """It has, somewhere inside, a size of more than twice the pixels that Pillow is allowed."""


class TooMuchWork(UndecodablePicture):
    """Decoding it would take far more work than its size asks for, as only a picture made for that does."""


class UnknownRange(UndecodablePicture):
    """Its numbers have no fixed range, so that nobody knows which is white; the message says what to do."""


class DamagedPicture(UndecodablePicture):
    """It is damaged or cut short; the message is what the reader of its format says."""


@contextmanager
def classified() -> Iterator[None]:
    """Turn whatever Pillow raises on hostile or broken content into an ``UndecodablePicture``; memory may still end."""
    try:
        yield
    except (UndecodablePicture, MemoryError):
        raise
    except UnidentifiedImageError as error:
        raise UnknownFormat(str(error)) from error
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise FarTooManyPixels(str(error)) from error
    except Exception as error:  # Pillow's readers raise nearly anything on broken files: SyntaxError, struct.error, ...
        raise DamagedPicture(str(error)) from error
