"""Decoding: every kind of picture becomes the model's input, within limits."""

import functools
import io
import random
import struct
import threading
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import simplejpeg
from PIL import Image, ImageOps
from PIL.PngImagePlugin import PngInfo

from artifact import Input
from imaging import Pixels, plain_structure, to_input
from service.inference import decoding
from service.inference.decoding import Decoder, decode_jpeg_of_size
from service.inference.errors import DeadlineExceeded, ImageTooLarge, InvalidImage, ServiceError, UnsupportedImage
from tests.service.pictures import encoded, plain, png_header

INPUT = Input(height=32, width=32)
MAX_PIXELS = 40_000_000


def decode(content: bytes, size: Input = INPUT, max_pixels: int = MAX_PIXELS) -> Pixels:
    """Decode ``content`` with a decoder of so many pixels."""
    return decoder_of(max_pixels).decode(content, size, deadline=time.monotonic() + 30)


@functools.cache
def decoder_of(max_pixels: int) -> Decoder:
    """Return a decoder that has a gigabyte; its process goes on for the next test."""
    return Decoder(max_pixels, memory=10**9)


def noise(height: int = 32, width: int = 32) -> Pixels:
    """Return random pixels, uint8 [height, width, 3], the same each time."""
    return np.random.default_rng(0).integers(0, 256, (height, width, 3), np.uint8)


def close(pixels: Pixels, colour: tuple[int, int, int], tolerance: int = 2) -> bool:
    """Say whether all ``pixels`` are of ``colour``, as near as ``tolerance`` levels."""
    return bool(np.abs(pixels.astype(int) - colour).max() <= tolerance)


def test_picture_of_the_input_size_passes_unchanged() -> None:
    """A lossless picture of exactly the model's size reaches the model bit by bit."""
    pixels = noise()
    decoded = decode(encoded(Image.fromarray(pixels)))
    assert decoded.dtype == np.uint8
    np.testing.assert_array_equal(decoded, pixels)


@pytest.mark.parametrize(
    "content",
    [
        pytest.param(plain("red", "JPEG", quality=95), id="jpeg"),
        pytest.param(plain("red", "JPEG", quality=95, progressive=True), id="progressive-jpeg"),
        pytest.param(plain("red", "PNG"), id="png"),
        pytest.param(plain("red", "PNG", mode="P"), id="palette-png"),
        pytest.param(plain("red", "PNG", mode="RGBA"), id="rgba-png"),
        pytest.param(plain("red", "WEBP"), id="webp"),
        pytest.param(plain("red", "WEBP", lossless=True, mode="RGBA"), id="webp-with-alpha"),
        pytest.param(plain("red", "GIF"), id="gif"),
        pytest.param(plain("red", "BMP"), id="bmp"),
        pytest.param(plain("red", "TIFF"), id="tiff"),
        pytest.param(plain("red", "TIFF", compression="tiff_lzw"), id="tiff-lzw"),
        pytest.param(plain("red", "AVIF", quality=100), id="avif"),
        pytest.param(plain("red", "HEIF", quality=100), id="heic"),
        pytest.param(plain("red", "HEIF", quality=100, mode="RGBA"), id="heic-with-alpha"),
        pytest.param(plain("red", "JPEG", mode="CMYK", quality=95), id="cmyk-jpeg"),
        pytest.param(plain("red", "TIFF", mode="CMYK"), id="cmyk-tiff"),
        pytest.param(plain("red", "PNG", size=(1, 1)), id="one-pixel"),
        pytest.param(plain("red", "PNG", size=(3000, 2)), id="very-wide"),
        pytest.param(plain("red", "JPEG", size=(4000, 3000)), id="photo"),
        pytest.param(encoded(Image.new("RGB", (40, 40), "red"), "MPO"), id="mpo"),
    ],
)
def test_formats_and_modes(content: bytes) -> None:
    """A red picture is red in every format, mode and size that is read."""
    decoded = decode(content)
    assert decoded.shape == (32, 32, 3)
    assert close(decoded, (255, 0, 0), tolerance=4)


@pytest.mark.parametrize(
    ("mode", "value", "grey"), [("L", 100, 100), ("1", 1, 255), ("I;16", 25700, 100), ("I;16", 65535, 255)]
)
@pytest.mark.parametrize("size", [32, 50])
def test_grey_pictures(mode: str, value: int, grey: int, size: int) -> None:
    """Grey, 1-bit and 16-bit pictures keep their brightness: 16 bits are scaled to 8 and not clipped."""
    assert close(decode(encoded(Image.new(mode, (size, size), value))), (grey,) * 3, tolerance=0)


@pytest.mark.parametrize("mode", ["I", "F"])
def test_pixels_without_a_range_are_refused(mode: str) -> None:
    """Pictures of 32 bits a channel, whose range nobody knows, are refused with what to do instead."""
    with pytest.raises(InvalidImage, match="8 or 16 bits"):
        decode(encoded(Image.new(mode, (32, 32), 7), "TIFF"))


@pytest.mark.parametrize("size", [32, 64])
@pytest.mark.parametrize(
    ("image", "expected"),
    [
        pytest.param(Image.new("RGBA", (64, 64), (255, 0, 0, 0)), (255, 255, 255), id="transparent"),
        pytest.param(Image.new("RGBA", (64, 64), (255, 0, 0, 128)), (255, 127, 127), id="half"),
        pytest.param(Image.new("LA", (64, 64), (0, 0)), (255, 255, 255), id="grey-transparent"),
    ],
)
def test_transparency_is_laid_on_white(image: Image.Image, expected: tuple[int, int, int], size: int) -> None:
    """Transparent pixels show white, whatever colour they hide."""
    assert close(decode(encoded(image.resize((size, size)))), expected)


def test_transparent_palette_and_colour_key() -> None:
    """Transparency that a palette or a key colour expresses counts as well."""
    palette = Image.new("P", (32, 32), 0)
    palette.putpalette([255, 0, 0, 0, 255, 0])
    assert close(decode(encoded(palette, transparency=0)), (255, 255, 255))
    assert close(decode(encoded(Image.new("RGB", (32, 32), (9, 9, 9)), transparency=(9, 9, 9))), (255, 255, 255))


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF", "AVIF", "HEIF"])
def test_exif_orientation_is_undone(orientation: int, kind: str) -> None:
    """A picture that a camera stored turned or mirrored is seen upright, as every browser shows it."""
    upright = Image.new("RGB", (64, 64), "white")
    upright.paste((255, 0, 0), (0, 0, 32, 32))
    upright.paste((0, 0, 255), (32, 0, 64, 32))
    upright.paste((0, 255, 0), (0, 32, 32, 64))
    store = {
        1: None,
        2: Image.Transpose.FLIP_LEFT_RIGHT,
        3: Image.Transpose.ROTATE_180,
        4: Image.Transpose.FLIP_TOP_BOTTOM,
        5: Image.Transpose.TRANSPOSE,
        6: Image.Transpose.ROTATE_90,
        7: Image.Transpose.TRANSVERSE,
        8: Image.Transpose.ROTATE_270,
    }[orientation]
    stored = upright if store is None else upright.transpose(store)
    exif = Image.Exif()
    exif[0x0112] = orientation
    decoded = decode(encoded(stored, kind, exif=exif, quality=95))
    corners = [decoded[4, 4], decoded[4, 27], decoded[27, 4], decoded[27, 27]]
    for corner, colour in zip(corners, [(255, 0, 0), (0, 0, 255), (0, 255, 0), (255, 255, 255)], strict=True):
        assert close(corner, colour, tolerance=12)


def test_orientation_of_a_photo_that_is_not_square() -> None:
    """A sideways photo is cut in the middle of what one sees, also when it is decoded at reduced scale."""
    upright = Image.new("RGB", (1000, 2000), "red")
    upright.paste((0, 0, 255), (0, 500, 1000, 1500))  # the middle square
    exif = Image.Exif()
    exif[0x0112] = 6
    content = encoded(upright.transpose(Image.Transpose.ROTATE_90), "JPEG", exif=exif, quality=95)
    assert close(decode(content)[1:-1], (0, 0, 255), tolerance=8)
    stretched = decode(content, Input(height=32, width=16, resize="stretch"))
    assert stretched.shape == (32, 16, 3)
    assert close(stretched[2, 8], (255, 0, 0), tolerance=8)
    assert close(stretched[16, 8], (0, 0, 255), tolerance=8)


def test_crop_takes_the_centre_and_stretch_takes_all() -> None:
    """``crop`` keeps the aspect ratio and cuts the sides off; ``stretch`` keeps the sides."""
    image = Image.new("RGB", (96, 32), "red")
    image.paste((0, 0, 255), (32, 0, 64, 32))
    assert close(decode(encoded(image)), (0, 0, 255), tolerance=0)
    stretched = decode(encoded(image), Input(height=32, width=32, resize="stretch"))
    assert close(stretched[:, 0], (255, 0, 0), tolerance=4)
    assert close(stretched[:, 16], (0, 0, 255), tolerance=4)
    assert close(stretched[:, -1], (255, 0, 0), tolerance=4)


@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic", "lanczos"])
def test_scaling_is_pillows(interpolation: str) -> None:
    """Scaling uses the filter that the metadata names."""
    image = Image.fromarray(noise(48, 48))
    expected = np.asarray(image.resize((32, 32), Image.Resampling[interpolation.upper()]))
    size = Input(height=32, width=32, interpolation=interpolation)  # type: ignore[arg-type]  # from the parameters
    np.testing.assert_array_equal(decode(encoded(image), size), expected)


def test_reduced_decoding_looks_the_same() -> None:
    """A large JPEG decoded at reduced scale differs little from one decoded whole and scaled down."""
    image = Image.fromarray(noise(8, 8)).resize((2048, 2048), Image.Resampling.BICUBIC)
    content = encoded(image, "JPEG", quality=95)
    whole = np.asarray(Image.open(io.BytesIO(content)).resize((32, 32), Image.Resampling.BICUBIC))
    assert np.abs(decode(content).astype(int) - whole).mean() < 1


def test_input_need_not_be_square() -> None:
    """Height and width are not mixed up."""
    assert decode(plain("red", size=(100, 100)), Input(height=20, width=40)).shape == (20, 40, 3)


def test_first_frame_of_an_animation() -> None:
    """Of animated GIF, WebP and APNG the first frame counts, and of a TIFF the first page."""
    frames = [Image.new("RGB", (32, 32), colour) for colour in ("blue", "red")]
    for kind in ("GIF", "WEBP", "PNG", "TIFF"):
        content = encoded(frames[0], kind, save_all=True, append_images=frames[1:])
        assert close(decode(content), (0, 0, 255), tolerance=4), kind


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "GIF", "WEBP", "BMP", "TIFF", "AVIF", "HEIF"])
def test_every_cut_and_every_flip_is_an_error_that_clients_understand(kind: str) -> None:
    """A file cut short or damaged anywhere gives a picture or an error for the client, never another exception."""
    content = encoded(Image.fromarray(noise(20, 20)), kind)
    cuts = [content[:end] for end in range(1, len(content), max(1, len(content) // 60))]
    randomness = np.random.default_rng(1)
    for _ in range(150):
        damaged = bytearray(content)
        for position in randomness.integers(0, len(content), 3):
            damaged[position] = randomness.integers(0, 256)
        cuts.append(bytes(damaged))
    outcomes = set()
    for cut in cuts:
        try:
            assert decode(cut).shape == (32, 32, 3)
        except ServiceError as error:
            outcomes.add(type(error))
    assert InvalidImage in outcomes
    assert outcomes <= {InvalidImage, UnsupportedImage, ImageTooLarge}


@pytest.mark.parametrize("kind", ["EPS", "PDF", "PPM", "ICO", "TGA", "PCX"])
def test_other_formats_are_not_read(kind: str) -> None:
    """Formats outside the list are refused, also where Pillow could read them: some would run other programs."""
    with pytest.raises(UnsupportedImage, match="JPEG, PNG"):
        decode(plain("red", kind))


@pytest.mark.parametrize("brand", [b"heic", b"mif1"])
def test_a_heic_that_cannot_be_read_is_named(brand: bytes) -> None:
    """Who sends one that is damaged, or of a kind that is not read, is told so, and what to send."""
    content = b"\0\0\0\x18ftyp" + brand + b"\0\0\0\0mif1heic" + bytes(100)
    with pytest.raises(InvalidImage, match=r"is a HEIC, as iPhones take them, and is damaged .* send it as a JPEG"):
        decode(content)


def test_size_is_checked_before_pixels_are_decoded() -> None:
    """A picture over the limit is refused by its header: its pixels are not even there."""
    with pytest.raises(ImageTooLarge, match=r"8000 x 8000 = 64,000,000 pixels; at most 40,000,000"):
        decode(png_header(8000, 8000))
    with pytest.raises(ImageTooLarge, match=r"far more than the 40,000,000"):
        decode(plain("red", "GIF").replace(struct.pack("<HH", 32, 32), struct.pack("<HH", 20_000, 20_000), 1))
    assert decode(plain("red", size=(100, 100)), max_pixels=10_000).shape == (32, 32, 3)
    with pytest.raises(ImageTooLarge):
        decode(plain("red", size=(101, 100)), max_pixels=10_000)


def test_limit_above_pillows_own_is_kept() -> None:
    """A limit that is higher than Pillow's default lets such pictures in."""
    assert decode(encoded(Image.new("1", (10_000, 9_500))), max_pixels=100_000_000).shape == (32, 32, 3)


def test_broken_exif_does_not_refuse_the_picture() -> None:
    """EXIF data that cannot be read counts as no EXIF data."""
    assert close(decode(plain("red", "JPEG", quality=95, exif=b"Exif\0\0II*\0\xff\xff\xff\xff")), (255, 0, 0), 4)


def test_text_chunk_bomb_costs_nothing() -> None:
    """A PNG whose compressed text would fill the memory is answered: its pixels are good."""
    text = PngInfo()
    text.add_text("comment", "x" * 80_000_000, zip=True)
    assert close(decode(encoded(Image.new("RGB", (32, 32), "red"), pnginfo=text)), (255, 0, 0))


def test_few_large_pictures_at_once() -> None:
    """Large pictures wait for each other, at most until the deadline, so that their memory does not add up."""
    decoder = Decoder(MAX_PIXELS, memory=60_000_000)
    large = plain("red", size=(2800, 2800))
    held, go_on = threading.Event(), threading.Event()

    def hold(image: Image.Image, size: Input) -> Pixels:
        held.set()
        go_on.wait(10)
        return to_input(image, size)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(decoding, "to_input", hold)
        holder = threading.Thread(target=decoder.decode, args=(large, INPUT, time.monotonic() + 10))
        holder.start()
        held.wait(10)
    with pytest.raises(DeadlineExceeded):
        decoder.decode(large, INPUT, deadline=time.monotonic() + 0.05)
    assert decoder.decode(plain("red"), INPUT, deadline=time.monotonic() + 0.05).shape == (32, 32, 3)
    go_on.set()
    holder.join()
    assert decoder.decode(large, INPUT, deadline=time.monotonic() + 10).shape == (32, 32, 3)


def by_pillow(content: bytes) -> Pixels | str:
    """Return what ``outcome`` returns where there is no short way."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(decoding, "decode_jpeg_of_size", lambda *_: None)
        return outcome(content)


def outcome(content: bytes) -> Pixels | str:
    """Return what the service makes of ``content``, uint8 [32, 32, 3], or the error that it tells."""
    try:
        return decode(content)
    except ServiceError as error:
        return f"{type(error).__name__}: {error}"


def same(first: Pixels | str, second: Pixels | str) -> bool:
    """Say whether two outcomes are the same pixels or the same error."""
    if isinstance(first, str) or isinstance(second, str):
        return isinstance(first, str) and isinstance(second, str) and first == second
    return bool(np.array_equal(first, second))


SHORT_WAY = [
    pytest.param("RGB", {"subsampling": "4:4:4"}, id="444"),
    pytest.param("RGB", {"subsampling": "4:2:2"}, id="422"),
    pytest.param("RGB", {"subsampling": "4:2:0"}, id="420"),
    pytest.param("RGB", {"quality": 100, "subsampling": "4:2:0"}, id="420-fine"),
    pytest.param("RGB", {"quality": 5}, id="coarse"),
    pytest.param("RGB", {"progressive": True}, id="progressive"),
    pytest.param("RGB", {"progressive": True, "subsampling": "4:4:4"}, id="progressive-444"),
    pytest.param("RGB", {"optimize": True, "restart_marker_blocks": 1}, id="restart-markers"),
    pytest.param("RGB", {"comment": b"a comment", "icc_profile": b"no profile"}, id="comment-and-profile"),
    pytest.param("L", {}, id="grey"),
    pytest.param("L", {"progressive": True}, id="progressive-grey"),
]


def short_way(content: bytes) -> Pixels | None:
    """Return what the short way makes of ``content``."""
    known = plain_structure(content)
    return decode_jpeg_of_size(content, INPUT, known) if known else None


@pytest.mark.parametrize(("mode", "options"), SHORT_WAY)
def test_jpeg_of_the_input_size_has_pillows_pixels(mode: str, options: dict[str, Any]) -> None:
    """A JPEG that has the model's size takes the short way, and each of its pixels is as Pillow decodes it."""
    content = encoded(Image.fromarray(noise()).convert(mode), "JPEG", **options)
    assert short_way(content) is not None, "it did not take the short way, so this proves nothing"
    expected = np.asarray(Image.open(io.BytesIO(content)).convert("RGB"))
    np.testing.assert_array_equal(decode(content), expected)


@pytest.mark.parametrize(
    "content",
    [
        pytest.param(encoded(Image.fromarray(noise()).convert("CMYK"), "JPEG"), id="cmyk"),
        pytest.param(encoded(Image.fromarray(noise(33, 32)), "JPEG"), id="other-height"),
        pytest.param(encoded(Image.fromarray(noise(32, 31)), "JPEG"), id="other-width"),
        pytest.param(encoded(Image.fromarray(noise()), "PNG"), id="png"),
        pytest.param(encoded(Image.fromarray(noise()), "JPEG")[:-20], id="cut-short"),
    ],
)
def test_other_pictures_take_the_long_way(content: bytes) -> None:
    """CMYK, other sizes, other formats and damaged files are left to Pillow."""
    assert short_way(content) is None


@pytest.mark.parametrize("error", [KeyError, RuntimeError, MemoryError])
def test_what_the_short_way_raises_is_left_to_pillow(error: type[Exception]) -> None:
    """It may raise anything: the picture is decoded all the same."""
    content = encoded(Image.fromarray(noise()), "JPEG")

    def fail(_: bytes) -> None:
        raise error

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(simplejpeg, "decode_jpeg", fail)
        assert short_way(content) is None
        np.testing.assert_array_equal(decode(content), np.asarray(Image.open(io.BytesIO(content)).convert("RGB")))


def test_the_end_of_the_memory_is_told() -> None:
    """Where decoding takes more memory than there is, the picture is too large."""

    def fail(_: object, __: object) -> None:
        raise MemoryError

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(decoding, "to_input", fail)
        with pytest.raises(ImageTooLarge, match="more memory than there is"):
            decode(plain("red", size=(60, 60)))


def with_exif(orientation: int) -> dict[str, Any]:
    """Return options that write ``orientation`` into the EXIF data."""
    exif = Image.Exif()
    exif[0x0112] = orientation
    return {"exif": exif}


def with_xmp(orientation: int) -> dict[str, Any]:
    """Return options that write ``orientation`` into the XMP data."""
    return {
        "xmp": b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">'
        b'<rdf:Description xmlns:tiff="http://ns.adobe.com/tiff/1.0/" tiff:Orientation="%d"/></rdf:RDF></x:xmpmeta>'
        % orientation
    }


@pytest.mark.parametrize("metadata", [with_exif, with_xmp])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_orientation_of_a_jpeg_of_the_input_size(metadata: Callable[[int], dict[str, Any]], orientation: int) -> None:
    """A picture of the model's size that says how it lies, in EXIF or XMP data, is turned as Pillow turns it."""
    content = encoded(Image.fromarray(noise()), "JPEG", quality=95, **metadata(orientation))
    image = Image.open(io.BytesIO(content))
    assert image.getexif()[0x0112] == orientation
    turned = np.asarray(ImageOps.exif_transpose(image))
    np.testing.assert_array_equal(decode(content), turned)
    assert orientation == 1 or not np.array_equal(turned, np.asarray(image))


@pytest.mark.parametrize("options", [{}, {"progressive": True}, {"subsampling": "4:4:4"}, {"restart_marker_blocks": 1}])
def test_damaged_jpegs_end_as_pillow_ends(options: dict[str, Any]) -> None:
    """Each of 150 damaged files gives the pixels, or the error, that it gives without the short way."""
    chance = random.Random(0)
    good = encoded(Image.fromarray(noise()), "JPEG", **options)
    pixels = 0
    for _ in range(150):
        content = bytearray(good)
        for _ in range(chance.randint(1, 3)):
            at = chance.randrange(2, len(content))
            damage = chance.choice(("change", "drop", "insert", "cut"))
            if damage == "change":
                content[at] = chance.randrange(256)
            elif damage == "cut":
                del content[max(at, len(content) // 2) :]
            else:
                content[at : at + 2 * (damage == "drop")] = b"" if damage == "drop" else chance.randbytes(2)
        damaged = bytes(content)
        ours, theirs = outcome(damaged), by_pillow(damaged)
        assert same(ours, theirs), damaged.hex()
        pixels += not isinstance(ours, str)
    assert 10 < pixels < 140, "nearly all or none could be read, so this test would prove little"


@pytest.mark.parametrize("deadline", [-1.0, 0.0])
def test_nothing_long_is_decoded_after_the_deadline(deadline: float) -> None:
    """A picture that takes long is not begun when the time is up, as it may be after waiting for a thread."""
    decoder = Decoder(MAX_PIXELS, memory=10**9)
    with pytest.raises(DeadlineExceeded):
        decoder.decode(plain("red", size=(600, 600)), INPUT, time.monotonic() + deadline)
