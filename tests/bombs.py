"""Pictures made to take far more time or memory than their bytes."""

import struct
import zlib
from collections.abc import Callable, Mapping

_PNG = b"\x89PNG\r\n\x1a\n"


def scan_bomb(side: int, scans: int) -> bytes:
    """Return a progressive JPEG of ``side`` x ``side`` grey pixels, with many scans of some sixty bytes.

    Each scan says of all blocks that they hold nothing new, in runs of 32,767, and the reader goes through all of them.
    """
    blocks = (-(-side // 8)) ** 2
    runs = -(-blocks // 32767)
    bits = "0" + "1" * 14  # the only code, for a run of 2^14 blocks and as many more as the next 14 bits say
    text = (bits * runs).ljust(-(-15 * runs // 8) * 8, "1")
    data = int(text, 2).to_bytes(len(text) // 8, "big").replace(b"\xff", b"\xff\x00")
    table = b"\x10" + bytes([1, *[0] * 15]) + b"\xe0"  # of alternating components: one code, of one bit
    frame = struct.pack(">BHHB", 8, side, side, 1) + b"\x01\x11\x00"
    head = segment(0xDB, b"\x00" + b"\x01" * 64) + segment(0xC2, frame) + segment(0xC4, table)
    scan = segment(0xDA, b"\x01\x01\x00\x01\x3f\x00") + data
    return b"\xff\xd8" + head + scan * scans + b"\xff\xd9"


def segment(kind: int, data: bytes) -> bytes:
    """Return a segment of a JPEG."""
    return bytes([0xFF, kind]) + struct.pack(">H", 2 + len(data)) + data


def chunk(kind: bytes, data: bytes) -> bytes:
    """Return a chunk of a PNG."""
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(width: int, height: int, bits: int = 8, kind: int = 0, before: bytes = b"", after: bytes = b"") -> bytes:
    """Return a black PNG of few bytes; ``kind`` is 0 for grey and 2 for colours.

    ``before`` and ``after`` are chunks around the data.
    """
    row = 1 + (width * bits * (3 if kind == 2 else 1) + 7) // 8
    compressor = zlib.compressobj(9)
    block = bytes(row * max(1, min(height, 2**20 // row)))
    data = bytearray()
    left = row * height
    while left:
        data += compressor.compress(block[:left])
        left -= min(left, len(block))
    data += compressor.flush()
    header = struct.pack(">IIBBBBB", width, height, bits, kind, 0, 0, 0)
    return _PNG + chunk(b"IHDR", header) + before + chunk(b"IDAT", bytes(data)) + after + chunk(b"IEND", b"")


def webp_header(width: int, height: int) -> bytes:
    """Return some ninety bytes that say they are a WebP animation of ``width`` x ``height``."""
    canvas = (width - 1).to_bytes(3, "little") + (height - 1).to_bytes(3, "little")
    pixel = bytes.fromhex("2f00000000071008fd8f0722a2ff01")  # one, lossless
    frame = bytes(6) + bytes(6) + bytes(3) + b"\x00" + riff(b"VP8L", pixel)
    body = riff(b"VP8X", b"\x02\0\0\0" + canvas) + riff(b"ANIM", bytes(6)) + riff(b"ANMF", frame)
    return riff(b"RIFF", b"WEBP" + body)


def riff(kind: bytes, data: bytes) -> bytes:
    """Return a chunk of a RIFF file."""
    return kind + struct.pack("<I", len(data)) + data + b"\0" * (len(data) % 2)


def gif_with_comments(comments: int) -> bytes:
    """Return a GIF of one pixel behind so many empty comments."""
    head = b"GIF89a" + struct.pack("<HHBBB", 1, 1, 0x80, 0, 0) + bytes(6)
    return (
        head + b"\x21\xfe\x00" * comments + b"\x2c" + struct.pack("<HHHHB", 0, 0, 1, 1, 0) + b"\x02\x02\x44\x01\x00\x3b"
    )


def tiff_with_strips(strips: int) -> bytes:
    """Return a grey TIFF of one pixel a row, with a strip for each row, all of which are the same byte."""
    offsets = 8 + 2 + 9 * 12 + 4 + 1
    entries = (
        *((256, 4, 1, 1), (257, 4, 1, strips), (258, 3, 1, 8), (259, 3, 1, 1), (262, 3, 1, 1)),
        *((273, 4, strips, offsets), (277, 3, 1, 1), (278, 4, 1, 1), (279, 4, strips, offsets + 4 * strips)),
    )
    directory = struct.pack("<H", len(entries)) + b"".join(struct.pack("<HHII", *entry) for entry in entries)
    pixel = struct.pack("<I", offsets - 1)
    head = b"II*\0" + struct.pack("<I", 8) + directory + bytes(4)
    return head + b"\x80" + pixel * strips + struct.pack("<I", 1) * strips


def _texts(count: int) -> bytes:
    return chunk(b"zTXt", b"a\0\0" + zlib.compress(bytes(2**20 - 1), 9)) * count


def _data_bomb() -> bytes:
    compressor = zlib.compressobj(9)
    data = b"".join(compressor.compress(bytes(2**20)) for _ in range(1024)) + compressor.flush()
    return chunk(b"IDAT", data)


HOSTILE: Mapping[str, Callable[[], bytes]] = {
    "7000x7000 JPEG of 16 KB in scans": lambda: scan_bomb(7000, 250),
    "7000x7000 JPEG of 100 KB in scans": lambda: scan_bomb(7000, 1600),
    "511x511 JPEG in scans": lambda: scan_bomb(511, 900),
    "32x32 JPEG in a thousand scans": lambda: scan_bomb(32, 1000),
    "JPEG of empty segments": lambda: b"\xff\xd8" + segment(0xEF, b"") * 1_000_000 + scan_bomb(32, 1)[2:],
    "JPEG of empty comments": lambda: b"\xff\xd8" + segment(0xFE, b"") * 1_000_000 + scan_bomb(32, 1)[2:],
    "JPEG of junk between segments": lambda: b"\xff\xd8" + bytes(8_000_000) + scan_bomb(32, 1)[2:],
    "1x50,000,000 PNG": lambda: png(1, 50_000_000),
    "50,000,000x1 PNG": lambda: png(50_000_000, 1),
    "7071x7071 PNG of 16 bits": lambda: png(7071, 7071, bits=16),
    "PNG of empty chunks": lambda: png(8, 8, before=chunk(b"aaAa", b"") * 500_000),
    "PNG of texts that unpack to a mebibyte each": lambda: png(8, 8, before=_texts(60)),
    "PNG whose data unpack to a gigabyte": lambda: _PNG + png(8, 8)[8:33] + _data_bomb() + chunk(b"IEND", b""),
    "7071x7071 WebP of 90 bytes": lambda: webp_header(7071, 7071),
    "16383x3051 WebP": lambda: webp_header(16383, 3051),
    "GIF of empty comments": lambda: gif_with_comments(2_000_000),
    "TIFF of strips": lambda: tiff_with_strips(1_000_000),
}
"""Small files that are much work, by what they are."""
