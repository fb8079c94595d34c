"""Small copies of pictures that lie in a page itself, and no more of them than it has room for."""

import base64
import io
from collections.abc import Iterable

from markupsafe import escape
from PIL import Image

from training.data.dataset import Pixels

_SIDE = 96  # pixels of the longer side at most
_QUALITY = 70
_AROUND = 300  # bytes of the page around a thumbnail and its words


class Album:
    """Thumbnails for one page, which together take at most ``room`` bytes of it."""

    def __init__(self, room: int) -> None:
        self._left = room

    def add(self, image: Pixels, words: Iterable[str]) -> str | None:
        """Return the address of a thumbnail of ``image`` uint8 [H, W, 3]; None where there is no more room for it.

        ``words`` are what is said of it, which takes room as well.
        """
        address = _address(image) if self._left > 0 else ""
        self._left -= len(address) + sum(len(escape(text).encode()) for text in words) + _AROUND
        return address if self._left >= 0 else None


def data_address(picture: Image.Image, kind: str, **options: int) -> str:
    """Return the ``data:`` address that has ``picture`` itself, as a file of ``kind`` (Pillow's name of the format)."""
    stream = io.BytesIO()
    picture.save(stream, kind, **options)
    return f"data:{Image.MIME[kind]};base64,{base64.b64encode(stream.getvalue()).decode()}"


def _address(image: Pixels) -> str:
    """Return a ``data:`` address that has the picture itself, as WebP; one that is small already keeps its size."""
    small = Image.fromarray(image)
    small.thumbnail((_SIDE, _SIDE))
    return data_address(small, "WEBP", quality=_QUALITY, method=4)
