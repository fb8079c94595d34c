"""HEIC as telephones write it: a grid of tiles, each a picture of its own, that the container joins and turns."""

import itertools
import struct
from collections.abc import Sequence

from PIL import Image

from tests.service.pictures import encoded

_HIDDEN = 1  # of an item: it is a part, and no picture to show
_IN_FILE, _IN_META = 0, 1  # where an item's bytes are


def grid(image: Image.Image, side: int, turns: int = 0) -> bytes:
    """Return ``image`` as a grid of tiles of ``side`` pixels, which divide it, turned ``turns`` times to the left."""
    columns, rows = image.width // side, image.height // side
    boxes = [
        (column * side, row * side, (column + 1) * side, (row + 1) * side)
        for row in range(rows)
        for column in range(columns)
    ]
    tiles = [encoded(image.crop(box), "HEIF", quality=90) for box in boxes]
    return joined(tiles, (columns, rows), side, turns)


def joined(tiles: Sequence[bytes], shape: tuple[int, int], side: int, turns: int = 0) -> bytes:
    """Return a grid of ``shape``, columns and rows, of ``tiles``; those that are the same share their bytes."""
    columns, rows = shape
    streams = [tile[tile.rindex(b"mdat") + 4 :] for tile in tiles]
    different = list(dict.fromkeys(streams))
    starts = dict(zip(different, itertools.accumulate(map(len, different), initial=0), strict=False))  # in the data
    at = tiles[0].index(b"hvcC") - 4
    configuration = tiles[0][at : at + int.from_bytes(tiles[0][at : at + 4], "big")]
    size = "I" if max(columns, rows) * side > 0xFFFF else "H"
    layout = struct.pack(f">BBBB{size}{size}", 0, size == "I", rows - 1, columns - 1, columns * side, rows * side)
    whole = len(tiles) + 1  # the item of the grid; those of the tiles come before it

    def meta(offset: int) -> bytes:
        places = []
        for number, stream in enumerate(streams, start=1):
            places.append(struct.pack(">HHHHII", number, _IN_FILE, 0, 1, offset + starts[stream], len(stream)))
        places.append(struct.pack(">HHHHII", whole, _IN_META, 0, 1, 0, len(layout)))
        kinds = [_item(number, b"hvc1", _HIDDEN) for number in range(1, whole)] + [_item(whole, b"grid")]
        properties = [configuration, _size(side, side), _size(columns * side, rows * side)]
        properties.append(_box(b"irot", bytes([turns])))
        of_tiles = [struct.pack(">HBBB", number, 2, 0x80 | 1, 2) for number in range(1, whole)]
        of_whole = struct.pack(">HBBB", whole, 2, 3, 0x80 | 4)
        references = struct.pack(f">HH{len(tiles)}H", whole, len(tiles), *range(1, whole))
        return _full(
            b"meta",
            _full(b"hdlr", bytes(4) + b"pict" + bytes(13)),
            _full(b"pitm", struct.pack(">H", whole)),
            _full(b"iinf", struct.pack(">H", whole), *kinds),
            _full(b"iref", _box(b"dimg", references)),
            _box(
                b"iprp",
                _box(b"ipco", *properties),
                _full(b"ipma", struct.pack(">I", whole), *of_tiles, of_whole),
            ),
            _full(b"iloc", b"\x44\x00", struct.pack(">H", whole), *places, version=1),
            _box(b"idat", layout),
        )

    head = _box(b"ftyp", b"heic", bytes(4), b"mif1heic")
    return head + meta(len(head) + len(meta(0)) + 8) + _box(b"mdat", *starts)


def _box(kind: bytes, *contents: bytes) -> bytes:
    content = b"".join(contents)
    return struct.pack(">I", 8 + len(content)) + kind + content


def _full(kind: bytes, *contents: bytes, version: int = 0, flags: int = 0) -> bytes:
    return _box(kind, struct.pack(">I", version << 24 | flags), *contents)


def _item(number: int, kind: bytes, flags: int = 0) -> bytes:
    return _full(b"infe", struct.pack(">HH", number, 0), kind, b"\0", version=2, flags=flags)


def _size(width: int, height: int) -> bytes:
    return _full(b"ispe", struct.pack(">II", width, height))
