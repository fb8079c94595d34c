"""What training decodes is what the service decodes, to the bit."""

import functools
import io
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from artifact import Input
from imaging import FORMATS, Pixels, plain_structure
from service.inference.decoding import Decoder, decode_jpeg_of_size
from service.inference.errors import ServiceError
from tests.photographs import paths, photographs
from tests.service.pictures import encoded, plain, png_header
from training.data.decoding import UnreadablePicture, decode, read, shorter_side

INPUTS = (
    Input(height=32, width=32),
    Input(height=32, width=32, resize="stretch", interpolation="bilinear"),
    Input(height=96, width=64),
    Input(height=224, width=224, resize="stretch"),
    Input(height=450, width=700, interpolation="lanczos"),  # larger than the photographs
)
ORIENTATIONS = range(1, 9)


def by_service(content: bytes, picture: Input) -> Pixels:
    """Decode as the service does, its short way for JPEGs included."""
    return service_decoder().decode(content, picture, time.monotonic() + 60)


@functools.cache
def service_decoder() -> Decoder:
    """Return the service's decoder, whose process goes on for the next test."""
    return Decoder(max_pixels=50_000_000, memory=10**9)


def require_same(content: bytes, picture: Input) -> None:
    """Find out where training and service see different pixels, or no picture at all."""
    ours, theirs = decode(content, picture), by_service(content, picture)
    assert ours.dtype == np.uint8
    assert ours.shape == (picture.height, picture.width, 3)
    assert ours.std() > 5, "the photograph is lost, so this test would prove nothing"
    np.testing.assert_array_equal(ours, theirs)


def with_alpha(photograph: Image.Image, mode: str = "RGBA") -> Image.Image:
    """Return a photograph that fades from left to right."""
    image = photograph.convert(mode)
    image.putalpha(Image.linear_gradient("L").rotate(90).resize(image.size))
    return image


def sixteen_bit(photograph: Image.Image) -> Image.Image:
    """Return a photograph in 16-bit grey, which uses the low byte as well."""
    return Image.fromarray(np.asarray(photograph.convert("L")).astype(np.uint16) * 255 + 7)


def turned(orientation: int) -> Image.Exif:
    """Return EXIF data that say how the picture lies."""
    exif = Image.Exif()
    exif[0x0112] = orientation
    return exif


def variants(photograph: Image.Image) -> Iterator[tuple[str, bytes]]:
    """Yield a photograph in every format and mode, by name."""
    palette = photograph.quantize(64)
    ways: list[tuple[str, Image.Image, dict[str, Any]]] = [
        ("JPEG", photograph, {"quality": 80}),
        ("JPEG", photograph, {"quality": 95, "subsampling": "4:4:4", "progressive": True}),
        ("JPEG", photograph.convert("L"), {}),
        ("JPEG", photograph.convert("CMYK"), {}),
        ("JPEG", photograph.resize((2600, 1700)), {}),  # decoded at reduced scale
        ("JPEG", photograph.resize((2600, 1700)), {"exif": turned(6)}),
        ("JPEG", photograph.resize((20, 13)), {}),
        ("JPEG", photograph.resize((64, 96)), {"quality": 60}),  # just the size of an input
        ("JPEG", photograph.resize((224, 224)), {"exif": turned(8)}),
        ("MPO", photograph, {}),
        ("PNG", photograph, {}),
        ("PNG", with_alpha(photograph), {}),
        ("PNG", with_alpha(photograph, "LA"), {}),
        ("PNG", palette, {}),
        ("PNG", palette, {"transparency": 3}),
        ("PNG", photograph.convert("1"), {}),
        ("PNG", sixteen_bit(photograph), {}),
        ("PNG", photograph.resize((9, 700)), {}),
        ("WEBP", photograph, {}),
        ("WEBP", with_alpha(photograph.resize((300, 200))), {"lossless": True, "method": 0}),
        ("TIFF", photograph, {"compression": "tiff_lzw"}),
        ("TIFF", photograph.convert("CMYK"), {}),
        ("TIFF", sixteen_bit(photograph), {}),
        ("BMP", photograph, {}),
        ("GIF", palette, {}),
        ("GIF", photograph, {"save_all": True, "append_images": [palette.convert("RGB").rotate(180)]}),
        ("AVIF", photograph.resize((300, 200)), {"speed": 10}),
        ("HEIF", photograph.resize((300, 200)), {}),
    ]
    for kind, image, options in ways:
        named = ", ".join(f"{name}={value}" for name, value in options.items() if isinstance(value, int | str))
        yield f"{kind} {image.mode} {image.size} {named}", encoded(image, kind, **options)


@pytest.mark.parametrize(
    "photograph",
    [
        pytest.param(photographs()[0], id="china"),
        pytest.param(photographs()[2], id="grace_hopper", marks=pytest.mark.slow),
    ],
)
def test_photographs_have_the_services_pixels(photograph: Image.Image) -> None:
    """In every format, mode and size, and by both rules, a photograph is for training what it is for the service."""
    for name, content in variants(photograph):
        for picture in INPUTS:
            try:
                require_same(content, picture)
            except AssertionError as error:
                pytest.fail(f"{name} for {picture}: {error}")


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF"])
def test_turned_photographs_have_the_services_pixels(kind: str) -> None:
    """Each of EXIF's eight orientations is undone in the same way, whatever the picture is scaled to."""
    photograph = photographs()[0].resize((320, 214))
    seen = set()
    for orientation in ORIENTATIONS:
        content = encoded(photograph, kind, exif=turned(orientation), quality=90)
        for picture in INPUTS[:3]:
            require_same(content, picture)
        seen.add(decode(content, INPUTS[0]).tobytes())
    assert len(seen) == 8


def test_a_jpeg_of_the_models_size_has_the_services_pixels() -> None:
    """Where the service takes its short way past Pillow, training still sees what it sees."""
    for photograph in photographs():
        for options in ({"subsampling": "4:2:0"}, {"subsampling": "4:4:4"}, {"progressive": True}, {"quality": 20}):
            content = encoded(photograph.resize((32, 32)), "JPEG", **options)
            known = plain_structure(content)
            assert known is not None
            assert decode_jpeg_of_size(content, INPUTS[0], known) is not None, "it did not take the short way"
            require_same(content, INPUTS[0])


def test_the_files_themselves_have_the_services_pixels() -> None:
    """A file that is read from the disk is decoded as its bytes are."""
    for path in paths():
        for picture in INPUTS:
            np.testing.assert_array_equal(read(path, picture), by_service(path.read_bytes(), picture))


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF", "BMP", "GIF", "AVIF", "HEIF"])
def test_what_the_service_refuses_training_leaves_out(kind: str) -> None:
    """A photograph that is cut short somewhere is unreadable for both or the same for both."""
    whole = encoded(photographs()[0].resize((120, 80)), kind)
    unreadable = 0
    for end in range(1, len(whole), len(whole) // 25):
        content = whole[:end]
        try:
            theirs = by_service(content, INPUTS[0])
        except ServiceError:
            unreadable += 1
            with pytest.raises(UnreadablePicture):
                decode(content, INPUTS[0])
        else:
            np.testing.assert_array_equal(decode(content, INPUTS[0]), theirs)
    assert unreadable > 10


def test_formats_beyond_the_services_are_read_too() -> None:
    """What only Pillow knows, such as PPM, is read, and looks as it does in PNG."""
    photograph = photographs()[0].resize((100, 80))
    expected = decode(encoded(photograph), INPUTS[0])
    for kind in ("PPM", "TGA", "PCX"):
        assert kind not in FORMATS
        np.testing.assert_array_equal(decode(encoded(photograph, kind), INPUTS[0]), expected)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        pytest.param(b"", "the file is empty", id="empty"),
        pytest.param(b"not a picture", "it is not a picture", id="text"),
        pytest.param(bytes(128) + b"DICM" + bytes(200), "it is a DICOM file, .* save it as PNG", id="dicom"),
        pytest.param(b"%PDF-1.7 ...", "it is a PDF", id="pdf"),
        pytest.param(b"\n<!DOCTYPE html><title>404</title>", "it is a web page", id="html"),
        pytest.param(plain("red", "JPEG", size=(80, 80))[:-100], r"damaged or cut short \(", id="cut"),
        pytest.param(png_header(20_000, 6_000), "too many", id="large"),
        pytest.param(png_header(60_000, 60_000), "far too many pixels", id="bomb"),
        pytest.param(encoded(Image.new("F", (9, 9)), "TIFF"), "32 bits a channel", id="float"),
        pytest.param(plain("red", "EPS"), "it is not a picture", id="runs-a-program"),
    ],
)
def test_why_a_picture_is_unreadable(content: bytes, reason: str) -> None:
    """Each kind of fault has a reason in words, and pixels beyond the limit are never decoded."""
    with pytest.raises(UnreadablePicture, match=reason):
        decode(content, INPUTS[0])


def test_why_a_file_is_unreadable(tmp_path: Path) -> None:
    """A file that is not there, or that no memory could hold, has a reason, too."""
    with pytest.raises(UnreadablePicture, match="No such file"):
        read(tmp_path / "none.png", INPUTS[0])
    with (tmp_path / "huge.bmp").open("wb") as file:
        file.truncate(2 * 1024**3)
    with pytest.raises(UnreadablePicture, match=r"2,147,483,648 bytes are too many"):
        read(tmp_path / "huge.bmp", INPUTS[0])


def test_the_shorter_side(tmp_path: Path) -> None:
    """It comes from the header of any picture, and is None for what has none."""
    assert [shorter_side(path) for path in paths()] == [427, 427, 512]
    (tmp_path / "cut.png").write_bytes(plain("red")[:20])
    assert shorter_side(tmp_path / "cut.png") is None
    assert shorter_side(tmp_path / "none.png") is None


def test_an_image_is_decoded_from_its_bytes_alone() -> None:
    """Decoding leaves no file open and does not depend on where the bytes came from."""
    content = encoded(photographs()[1])
    expected = np.asarray(Image.open(io.BytesIO(content)).resize((700, 500), Image.Resampling.BICUBIC, reducing_gap=3))
    np.testing.assert_array_equal(decode(content, Input(height=500, width=700, resize="stretch")), expected)
