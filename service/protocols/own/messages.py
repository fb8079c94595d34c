"""Requests to pictures: multipart forms, raw bodies, JSON and tensors, each within the limits."""

import binascii
import io
from base64 import b64decode
from typing import Annotated, Any, TypeVar

import msgspec
import numpy as np
import numpy.typing as npt
from flask import Request
from msgspec import Struct
from numpy.lib import format as npy

from artifact import Input
from service.inference.errors import InvalidRequest, UnsupportedBody
from service.inference.items import Item, check_count
from service.web.bodies import json_body, read_body, read_form
from service.web.operations import JSON, Binary, Content

NPY = "application/x-npy"
_NPY_MAGIC = b"\x93NUMPY"
_RAW = ("application/octet-stream", "")
_IMAGE_HINT = (
    'Send one as multipart field "image" (curl -F image=@photo.jpg), as a raw image/* body, '
    'or as JSON {"image": "<base64>"}.'
)
_IMAGES_HINT = 'Send them as multipart fields "images", as JSON {"images": ["<base64>", ...]}, or as a uint8 tensor.'
# For examples: a PNG.
ONE_RED_PIXEL = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAIAAACQd1PeAAAADElEQVR4nGP4z8AAAAMBAQDJ/pLvAAAAAElFTkSuQmCC"
# What may be in a body, for the routes to declare. Any bytes will do as a picture; what is no picture is told later.
Base64 = Annotated[bytes, msgspec.Meta(min_length=1, description="In base64.", extra_json_schema={"format": "picture"})]
_BASE64 = msgspec.Meta(
    description="A picture in base64, or a data: URL of one.",
    extra_json_schema={"format": "picture", "minLength": 1},
)
_ANY_BASE64 = msgspec.Meta(
    description="A picture as in a request for one; what is none gets its own error.",
    extra_json_schema={"examples": [ONE_RED_PIXEL]},
)
_IMAGE_TYPES = ("image/jpeg", "image/png", "image/webp", "image/gif", "image/bmp", "image/tiff", "image/avif")
_IMAGE_FIELDS = ("image", "file")
_IMAGES_FIELDS = ("images", "files", "image", "file")
_Json = TypeVar("_Json", bound=Struct)

_OTHER_VALUES = 100  # values that JSON may hold beside the pictures


class ImageForm(Struct):
    """One picture in a form; the field may be called ``file`` as well."""

    image: Binary


class ImagesForm(Struct):
    """Pictures in a form; the fields may be called ``files``, ``image`` or ``file`` as well."""

    images: Annotated[list[Binary], msgspec.Meta(min_length=1)]


class ImageJson(Struct):
    """One picture in JSON."""

    image: Annotated[str, _BASE64]


class ImagesJson(Struct):
    """Pictures in JSON."""

    images: Annotated[list[Annotated[Any, _ANY_BASE64]], msgspec.Meta(min_length=1)]


IMAGE_BODIES = (
    Content(("multipart/form-data",), ImageForm),
    Content((*_IMAGE_TYPES, "application/octet-stream"), Binary),
    Content((JSON,), ImageJson, example={"image": ONE_RED_PIXEL}),
)
IMAGES_BODIES = (
    Content(("multipart/form-data",), ImagesForm),
    Content((JSON,), ImagesJson, example={"images": [ONE_RED_PIXEL, ONE_RED_PIXEL]}),
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
    if value.startswith("data:"):
        value = value.partition(",")[2]
    try:
        content = b64decode("".join(value.split()), validate=True)
    except (binascii.Error, ValueError) as error:
        raise InvalidRequest(f"The picture is not valid base64: {error}.") from error
    if not content:
        raise InvalidRequest("The picture is an empty string; send the base64 of an image file.")
    return Item(content)


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
    """Return the array of an .npy body. The header is checked first: it could ask for any amount of memory."""
    stream = io.BytesIO(body)
    try:
        version = npy.read_magic(stream)
        read_header = npy.read_array_header_1_0 if version == (1, 0) else npy.read_array_header_2_0
        shape, fortran, dtype = read_header(stream)
    except Exception as error:  # the header is Python text from outside; its reader raises many things
        raise InvalidRequest(f"The header of the .npy body cannot be read: {error}") from error
    expected = (size.height, size.width, 3)
    if dtype != np.uint8 or len(shape) != 4 or shape[1:] != expected or fortran or shape[0] < 1:
        order = " in Fortran order" if fortran else ""
        raise InvalidRequest(
            f"The array is {dtype} {list(shape)}{order}; it must be uint8 [N, {expected[0]}, {expected[1]}, 3]."
        )
    check_count(shape[0], max_items)
    start, count = stream.tell(), int(np.prod(shape))
    if len(body) - start != count:
        raise InvalidRequest(f"The .npy body holds {len(body) - start} bytes of data; its header says {count}.")
    return np.frombuffer(body, np.uint8, count, start).reshape(shape)
