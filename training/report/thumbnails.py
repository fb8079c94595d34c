"""Small copies of pictures that lie in a page itself, and no more of them than it has room for."""

import base64
import io

from PIL import Image

from training.data.dataset import Pixels

_SIDE = 96  # pixels of the longer side at most
_QUALITY = 70
_AROUND = 400  # bytes of the page around a thumbnail: its names and its numbers


class Album:
    """Thumbnails for one page, which together take at most ``room`` bytes of it."""

    def __init__(self, room: int) -> None:
        self._left = room

    def add(self, image: Pixels) -> str | None:
        """Return the address of a thumbnail of ``image`` uint8 [H, W, 3]; None where there is no more room."""
        address = _address(image) if self._left > 0 else ""
        self._left -= len(address) + _AROUND
        return address if self._left >= 0 else None


def _address(image: Pixels) -> str:
    """Return a ``data:`` address that has the picture itself, as WebP; one that is small already keeps its size."""
    small = Image.fromarray(image)
    small.thumbnail((_SIDE, _SIDE), Image.Resampling.BOX, reducing_gap=None)
    stream = io.BytesIO()
    small.save(stream, "WEBP", quality=_QUALITY, method=4)
    return f"data:image/webp;base64,{base64.b64encode(stream.getvalue()).decode()}"
