"""Requests to pictures: multipart forms, raw bodies, JSON and tensors, each within the limits."""

import base64
import binascii
import io
import re
import urllib.parse
from typing import Annotated, Any, TypeVar

import msgspec
import numpy as np
import numpy.typing as npt
import PIL.Image
from flask import Request
from msgspec import Struct

from artifact import Input
from service.inference.errors import InvalidRequest, UnsupportedBody
from service.inference.items import Item, check_count
from service.inference.loaded import LoadedModel
from service.web.bodies import json_body, read_body, read_form
from service.web.operations import JSON, Binary, Content

NPY = "application/x-npy"
_NPY_MAGIC = b"\x93NUMPY"
# Where the header begins, behind its length, by the version of the format; and what it says of an array, in any order.
_NPY_BEGIN = {b"\1\0": 10, b"\2\0": 12, b"\3\0": 12}
_NPY_HEADER = re.compile(
    rb"""\{(?:\s*(?:
        (['"])descr\1\s*:\s*(['"])(?P<kind>[!#-&(-\[\]-~]{1,20})\2
        |(['"])fortran_order\4\s*:\s*(?P<fortran>True|False)
        |(['"])shape\6\s*:\s*\(\s*(?P<shape>(?:[0-9]{1,20}\s*,\s*){0,32}(?:[0-9]{1,20}\s*)?)\)
    )\s*,?){3}\s*\}\s*""",
    re.VERBOSE,
)
_NPY_HEADER_BYTES = 10_000
_UINT8 = re.compile(r"[|<>=]?u1|B|uint8")
_RAW = ("application/octet-stream", "")
_IMAGE_HINT = (
    'Send one as multipart field "image" (curl -F image=@photo.jpg), as a raw image/* body, '
    'or as JSON {"image": "<base64>"}.'
)
_IMAGES_HINT = 'Send them as multipart fields "images", as JSON {"images": ["<base64>", ...]}, or as a uint8 tensor.'
# What may be in a body, for the routes to declare. Any bytes will do as a picture; what is no picture is told later.
_BASE64 = {"format": "picture", "minLength": 1}
Base64 = Annotated[
    str, msgspec.Meta(min_length=1, description="In base64, or a data: URL of it.", extra_json_schema=_BASE64)
]
_ANY_BASE64 = msgspec.Meta(description="A picture as in a request for one; what is none gets its own error.")
_IMAGE_TYPES = (
    *("image/jpeg", "image/png", "image/webp", "image/gif", "image/bmp", "image/tiff", "image/avif"),
    *("image/heic", "image/heif"),
)
_IMAGE_FIELDS = ("image", "file")
_IMAGES_FIELDS = ("images", "files", "image", "file")
_Json = TypeVar("_Json", bound=Struct)

_OTHER_VALUES = 100  # values that JSON may hold beside the pictures

# What people send in place of base64, by how it looks, and what they are told; and the one thing that is read.
_DATA_URL = re.compile(r"\s*data:", re.IGNORECASE)
_NO_BASE64 = (
    (
        re.compile(r"[a-z][a-z0-9+.-]*://", re.IGNORECASE),
        "The picture is an address, and addresses are not fetched; send the content of the file in base64",
    ),
    (
        re.compile(r"[A-Za-z]:[\\/]|\\\\|~|\.{0,2}/(?!9j/)|[^\n]{1,255}\.[A-Za-z]{3,4}\Z"),
        "The picture is the path of a file, which is not here; send the content of the file in base64",
    ),
    (
        re.compile(r"(?=[^-_]*[-_])[\w-]+={0,2}\Z", re.ASCII),
        "The picture is in base64's alphabet for addresses, with - and _; send the usual one, with + and /",
    ),
)


class ImageForm(Struct):
    """One picture in a form; the field may be called ``file`` as well."""

    image: Binary


class ImagesForm(Struct):
    """Pictures in a form; the fields may be called ``files``, ``image`` or ``file`` as well."""

    images: Annotated[list[Binary], msgspec.Meta(min_length=1)]


class ImageJson(Struct):
    """One picture in JSON."""

    image: Annotated[
        str, msgspec.Meta(description="A picture in base64, or a data: URL of one.", extra_json_schema=_BASE64)
    ]


class ImagesJson(Struct):
    """Pictures in JSON."""

    images: Annotated[list[Annotated[Any, _ANY_BASE64]], msgspec.Meta(min_length=1)]


def example_picture(model: LoadedModel) -> str:
    """Return a picture for examples, of the size that ``model`` takes: a PNG in base64."""
    content = io.BytesIO()
    PIL.Image.new("RGB", (model.metadata.input.width, model.metadata.input.height), "red").save(content, "PNG")
    return base64.b64encode(content.getvalue()).decode()


def example_probabilities(model: LoadedModel) -> list[float]:
    """Return probabilities for examples of answers, one for each label of ``model``; the first is the largest."""
    others = len(model.metadata.labels) - 1
    return [round(1 - 0.1 * bool(others), 3), *[round(0.1 / others, 6) for _ in range(others)]]


IMAGE_BODIES = (
    Content(("multipart/form-data",), ImageForm),
    Content((*_IMAGE_TYPES, "application/octet-stream"), Binary),
    Content((JSON,), ImageJson, example=lambda model: {"image": example_picture(model)}),
)
IMAGES_BODIES = (
    Content(("multipart/form-data",), ImagesForm),
    Content((JSON,), ImagesJson, example=lambda model: {"images": [example_picture(model)] * 2}),
    Content((NPY, "application/octet-stream"), Binary),
)


def read_image(request: Request) -> Item:
    """Return the one picture of ``request``.

    Raises:
        ServiceError: there is none, there are several, or the body cannot be read; the message says what to change.
    """
    kind = request.mimetype
    if kind == "multipart/form-data":
        items = _form_items(request, _IMAGE_FIELDS, _IMAGE_HINT)
        if len(items) > 1:
            raise InvalidRequest(f"There are {len(items)} pictures; send one, or all of them to /predict/batch.")
        return items[0]
    if kind == JSON:
        return _decoded(_json(request, ImageJson, _IMAGE_HINT, _OTHER_VALUES).image)
    if kind.startswith("image/") or kind in _RAW:
        return Item(_body(request, _IMAGE_HINT))
    raise UnsupportedBody(f"The content type {kind!r} is not read here. {_IMAGE_HINT}")


def read_images(request: Request, size: Input, max_items: int) -> list[Item]:
    """Return the pictures of a batch request, in order; a bad one carries its error.

    A tensor is uint8 [N, H, W, 3] with the height and width of ``size``.

    Raises:
        TooManyItems: there are more than ``max_items``.
        ServiceError: there are none, or the body cannot be read; the message says what to change.
    """
    kind = request.mimetype
    if kind == "multipart/form-data":
        items = _form_items(request, _IMAGES_FIELDS, _IMAGES_HINT)
    elif kind == JSON:
        values = _json(request, ImagesJson, _IMAGES_HINT, max_items + _OTHER_VALUES).images
        check_count(len(values), max_items)
        items = [_decoded_or_error(value) for value in values]
    elif kind in (NPY, "application/npy", *_RAW):
        items = [Item(image) for image in _tensor(_body(request, _IMAGES_HINT), kind, size, max_items)]
    else:
        raise UnsupportedBody(f"The content type {kind!r} is not read here. {_IMAGES_HINT}")
    check_count(len(items), max_items)
    return items


def _body(request: Request, hint: str) -> bytes:
    body = read_body(request)
    if not body:
        raise InvalidRequest(f"The body is empty. {hint}")
    return body


def _form_items(request: Request, fields: tuple[str, ...], hint: str) -> list[Item]:
    form = read_form(request)
    files = [file for file in form.files if file.field in fields]
    texts = [name for name in fields if name in form.texts]
    if texts and not files:
        raise InvalidRequest(f'The field "{texts[0]}" is text, not a file; with curl write -F {texts[0]}=@photo.jpg.')
    if not files:
        raise InvalidRequest(f"There is no picture in the form. {hint}")
    return [Item(file.content, file.name) for file in files]


def _json(request: Request, type_: type[_Json], hint: str, max_values: int) -> _Json:
    try:
        return json_body(request, type_, max_values)
    except InvalidRequest as error:
        raise InvalidRequest(f"{error} {hint}") from error


def _decoded_or_error(value: Any) -> Item:
    try:
        return _decoded(value)
    except InvalidRequest as error:
        return Item(error)


def _decoded(value: Any) -> Item:
    """Return the bytes of a base64 string; a ``data:`` URL, as browsers make them, will do too."""
    if not isinstance(value, str):
        raise InvalidRequest(f"A picture in JSON must be a base64 string, not {_json_type(value)}.")
    try:
        return Item(decode_base64(value))
    except ValueError as error:
        raise InvalidRequest(f"{error}.") from error


def base64_at(text: str, at: str) -> bytes:
    """Return what ``text``, which stands ``at`` this path of its document, holds; see ``decode_base64``.

    Raises:
        InvalidRequest: it holds no picture; the message says what it is, and where.
    """
    try:
        return decode_base64(text)
    except ValueError as error:
        raise InvalidRequest(f"{error} - at `{at}`.") from error


def decode_base64(text: str) -> bytes:
    """Return what a picture in base64, or a ``data:`` URL of one, holds.

    Raises:
        ValueError: it is something else, or nothing; the message says what.
    """
    if _DATA_URL.match(text):
        return _data_url(text)
    try:
        content = binascii.a2b_base64(text, strict_mode=True)
    except ValueError:
        content = _unusual_base64(text)
    if not content:
        raise ValueError("The picture is an empty string; send the base64 of an image file")
    return content


def _data_url(text: str) -> bytes:
    kind, comma, data = text.partition(",")
    if not comma or not data.strip():
        raise ValueError("The picture is a data: URL without data, which would follow a comma")
    if kind.rstrip().lower().endswith(";base64"):
        return _unusual_base64(urllib.parse.unquote(data) if "%" in data else data)
    return urllib.parse.unquote_to_bytes(data)


def _unusual_base64(text: str) -> bytes:
    """Return the content of base64 that may be broken into lines; say what it is where it is none."""
    try:
        return binascii.a2b_base64("".join(text.split()), strict_mode=True)
    except ValueError as error:
        told = next((told for looks_so, told in _NO_BASE64 if looks_so.match(text.strip())), None)
        raise ValueError(told or f"The picture is not valid base64: {error}") from error


def _json_type(value: Any) -> str:
    names = {dict: "an object", list: "a list", bool: "true or false", type(None): "null"}
    return names.get(type(value), "a number")


def _tensor(body: bytes, kind: str, size: Input, max_items: int) -> npt.NDArray[np.uint8]:
    """Return the images of a tensor body, uint8 [N, H, W, 3], without a copy."""
    if body.startswith(_NPY_MAGIC):
        return _npy(body, size, max_items)
    if kind not in _RAW:
        raise InvalidRequest("The body does not begin as an .npy file does; write it with numpy.save.")
    shape = (size.height, size.width, 3)
    if len(body) % (size.height * size.width * 3):
        raise InvalidRequest(
            f"The body has {len(body)} bytes, which is no whole number of uint8 images {shape}; "
            "pictures in files go into multipart fields or JSON."
        )
    images = np.frombuffer(body, np.uint8).reshape(-1, *shape)
    check_count(len(images), max_items)
    return images


def _npy(body: bytes, size: Input, max_items: int) -> npt.NDArray[np.uint8]:
    """Return the array of an .npy body, whose header has to say just what is expected.

    NumPy's own reader makes any type and any number of what the header says, and raises many things.
    """
    kind, fortran, shape, start = _npy_header(body)
    expected = (size.height, size.width, 3)
    if not _UINT8.fullmatch(kind) or len(shape) != 4 or shape[1:] != expected or fortran or shape[0] < 1:
        name = "uint8" if _UINT8.fullmatch(kind) else ascii(kind)
        order = " in Fortran order" if fortran else ""
        raise InvalidRequest(
            f"The array is {name} {list(shape)}{order}; it must be uint8 [N, {expected[0]}, {expected[1]}, 3]."
        )
    count = shape[0] * size.height * size.width * 3
    if len(body) - start != count:
        raise InvalidRequest(f"The .npy body holds {len(body) - start} bytes of data; its header says {count}.")
    check_count(shape[0], max_items)
    return np.frombuffer(body, np.uint8, count, start).reshape(shape)


def _npy_header(body: bytes) -> tuple[str, bool, tuple[int, ...], int]:
    """Return what the header of an .npy body says: type, whether in Fortran order, shape; and where the data begin."""
    begin = _NPY_BEGIN.get(body[len(_NPY_MAGIC) : len(_NPY_MAGIC) + 2])
    if begin is None:
        raise InvalidRequest("The header of the .npy body is of an unknown version; 1.0, 2.0 and 3.0 are read.")
    start = begin + int.from_bytes(body[len(_NPY_MAGIC) + 2 : begin], "little")
    if start > len(body):
        raise InvalidRequest("The header of the .npy body is cut short.")
    found = _NPY_HEADER.fullmatch(body[begin:start]) if start - begin <= _NPY_HEADER_BYTES else None
    if found is None or None in (found["kind"], found["fortran"], found["shape"]):
        raise InvalidRequest("The header of the .npy body is not that of a plain array of numbers.")
    shape = tuple(int(side) for side in found["shape"].split(b",") if side.strip())
    return found["kind"].decode("latin-1"), found["fortran"] == b"True", shape, start
