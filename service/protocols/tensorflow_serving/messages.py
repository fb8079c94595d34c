"""TensorFlow Serving's JSON: types of its requests and answers, and requests to pictures.

The form is that of ``g3doc/api_rest.md`` and ``util/json_tensor.cc`` in https://github.com/tensorflow/serving. A model
has the signatures ``serving_default``, whose input is ``images``, and ``serve_bytes``, whose input is ``image_bytes``.
"""

import functools
from collections.abc import Sequence
from typing import Annotated, Any, Literal, NamedTuple

import msgspec
import numpy as np
from msgspec import UNSET, Meta, Struct, UnsetType

from artifact import Input
from service.inference.engine import Probabilities
from service.inference.errors import InvalidRequest
from service.inference.items import Item, check_count
from service.protocols.own.explain import Explanation
from service.protocols.own.messages import Base64, base64_at
from service.protocols.tensors import UInt8, image_type, images_type, most_values, shortest
from service.web.bodies import parse_json
from service.web.operations import AnyOf, PerModel

_PICTURE_INPUTS = ("image_bytes", "images")
_OTHER_VALUES = 1000  # values that JSON may hold beside the pictures

_PICTURE_KEY = b'"b64"'  # nothing else in a request has it

Probability = Annotated[float, Meta(ge=0, le=1)]


def _one_of(*keys: str) -> dict[str, Any]:
    """Return the schema of an object that has exactly one of ``keys``."""
    return {"oneOf": [{"required": [key]} for key in keys]}


def _not_one_of(first: str, second: str) -> dict[str, Any]:
    """Return the schema of an object that has both keys, or neither."""
    return {"anyOf": [{"required": [first, second]}, _none_of(first, second)]}


def _none_of(*keys: str) -> dict[str, Any]:
    """Return the schema of an object that has none of ``keys``."""
    return {"not": {"anyOf": [{"required": [key]} for key in keys]}}


def _check_one_of(body: Struct, *keys: str) -> None:
    """Raise ValueError, which msgspec tells together with the place, unless ``body`` has exactly one of ``keys``."""
    if sum(getattr(body, key) is not UNSET for key in keys) != 1:
        raise ValueError(f"An object must have exactly one of the keys {' and '.join(keys)}")


class Picture(Struct, forbid_unknown_fields=True):
    """A picture as a file's content."""

    b64: Base64


class PictureInstance(Struct, forbid_unknown_fields=True):
    """A row of ``serve_bytes``: a picture, bare or by the input's name.

    Clients of OpenVINO Model Server know only the name ``images``, for both kinds of input.
    """

    b64: Base64 | UnsetType = UNSET
    image_bytes: Picture | UnsetType = UNSET
    images: Picture | UnsetType = UNSET

    def __post_init__(self) -> None:
        """Check that it is one of them."""
        _check_one_of(self, "b64", *_PICTURE_INPUTS)


class PictureColumns(Struct):
    """The columns of ``serve_bytes``, under one of the names that rows have."""

    image_bytes: Annotated[list[Picture], Meta(min_length=1)] | UnsetType = UNSET
    images: Annotated[list[Picture], Meta(min_length=1)] | UnsetType = UNSET

    def __post_init__(self) -> None:
        """Check that it is one of them."""
        _check_one_of(self, *_PICTURE_INPUTS)


class _Predict(Struct):
    def __post_init__(self) -> None:
        _check_one_of(self, "instances", "inputs")


class PredictPictures(_Predict):
    """Pictures as files' content, in rows or in columns."""

    signature_name: Literal["", "serve_bytes"] = ""
    instances: (
        Annotated[
            list[Annotated[PictureInstance, Meta(extra_json_schema=_one_of("b64", *_PICTURE_INPUTS))]],
            Meta(min_length=1),
        ]
        | UnsetType
    ) = UNSET
    inputs: (
        Annotated[
            Annotated[list[Picture], Meta(min_length=1)] | PictureColumns,
            Meta(extra_json_schema={"not": {"type": "object", **_not_one_of(*_PICTURE_INPUTS)}}),
        ]
        | UnsetType
    ) = UNSET


class Predictions(Struct):
    """The probabilities of each row's labels."""

    predictions: list[list[Probability]]


class Outputs(Struct):
    """The only output, which is the probabilities of each picture's labels."""

    outputs: list[list[Probability]]


class Explanations(Struct):
    """The probabilities of each picture's labels, and what spoke for one of them; for clients of KServe's V1."""

    predictions: list[list[Probability]]
    explanations: list[Explanation]


class Results(Struct):
    """The labels of each example with their scores, in descending order."""

    results: list[list[tuple[str, Probability]]]


class Pictures(NamedTuple):
    """What a request wants to be predicted, and whether it has it in rows."""

    items: list[Item]
    rows: bool


@functools.lru_cache(maxsize=8)
def _predict_images(size: Input) -> Any:
    """Return the type of a request to ``serving_default``: images of ``size``, in rows or in columns."""
    image, images = image_type(size), images_type(size)
    instance = msgspec.defstruct(
        "ImageInstance",
        [("images", image)],
        forbid_unknown_fields=True,
        namespace={"__doc__": "A row of ``serving_default`` by the input's name."},
    )
    columns = msgspec.defstruct(
        "ImageColumns", [("images", images)], namespace={"__doc__": "The columns of ``serving_default``."}
    )
    rows = Annotated[list[image | instance], Meta(min_length=1)]  # type: ignore[valid-type]  # made at run time
    return msgspec.defstruct(
        "PredictImages",
        [
            ("signature_name", Literal["", "serving_default"], ""),
            ("instances", rows | UnsetType, UNSET),
            ("inputs", images | columns | UnsetType, UNSET),
        ],
        bases=(_Predict,),
        namespace={"__doc__": "Images as integers from 0 to 255, in rows or in columns."},
    )


@functools.lru_cache(maxsize=8)
def _classify(size: Input) -> Any:
    """Return the type of a request to classify pictures, or images of ``size`` as flat lists in row-major order."""
    values = size.height * size.width * 3
    features = msgspec.defstruct(
        "Features",
        [
            ("images", Annotated[list[UInt8], Meta(min_length=values, max_length=values)] | UnsetType, UNSET),
            ("image_bytes", Picture | Annotated[list[Picture], Meta(min_length=1, max_length=1)] | UnsetType, UNSET),
        ],
        namespace={"__doc__": "A picture, as an image in a flat list or as a file's content; others are ignored."},
    )
    return msgspec.defstruct(
        "Classify",
        [
            ("examples", Annotated[list[features], Meta(min_length=1)]),  # type: ignore[valid-type]  # made at run time
            ("context", features | UnsetType, UNSET),
            ("signature_name", Literal["", "serving_default", "serve_bytes"], ""),
        ],
        namespace={"__doc__": "Pictures to classify. Each is in its example, or one for all is in the context."},
    )


_ROWS_OR_COLUMNS = Meta(extra_json_schema=_one_of("instances", "inputs"))
_HAS_PICTURE = _one_of("images", "image_bytes")
_HAS_NONE = _none_of("images", "image_bytes")
_IN_EXAMPLES_OR_CONTEXT = Meta(
    extra_json_schema={
        "oneOf": [
            {"properties": {"examples": {"items": _HAS_PICTURE}, "context": _HAS_NONE}},
            {"properties": {"examples": {"items": _HAS_NONE}, "context": _HAS_PICTURE}, "required": ["context"]},
        ]
    }
)
PREDICT_BODY = AnyOf(
    (
        PerModel(lambda model: Annotated[_predict_images(model.metadata.input), _ROWS_OR_COLUMNS]),
        Annotated[PredictPictures, _ROWS_OR_COLUMNS],
    )
)
CLASSIFY_BODY = PerModel(lambda model: Annotated[_classify(model.metadata.input), _IN_EXAMPLES_OR_CONTEXT])


class _Signed(Struct):
    signature_name: str = ""


def predict_request(text: bytes, size: Input, max_items: int) -> Pictures:
    """Return the pictures of a predict request: at most ``max_items``, as files' content or as uint8 of ``size``.

    Where no signature is named, what is sent says which one is meant, as in OpenVINO Model Server.

    Raises:
        InvalidRequest: it is not JSON of the form that the signature takes; the message says where.
        TooManyItems: there are too many pictures, or values.
    """
    most = _most_values(size, max_items)
    signature = parse_json(text, _Signed, most).signature_name
    pictures = signature == "serve_bytes" or (not signature and _PICTURE_KEY in text)
    if signature in ("", "serving_default") and not pictures:
        return _images(parse_json(text, _predict_images(size), most), max_items)
    if pictures:
        return _pictures(parse_json(text, PredictPictures, most), max_items)
    raise unknown_signature(signature)


def unknown_signature(name: str) -> InvalidRequest:
    """Return the error that tells that there is no signature of this ``name``."""
    return InvalidRequest(
        f'Serving signature name: "{name[:100]}" not found in signature def; '
        "there are serving_default, for images, and serve_bytes, for image_bytes."
    )


def classify_request(text: bytes, size: Input, max_items: int) -> list[Item]:
    """Return the pictures of a classify request, one for each example; see ``predict_request``."""
    body = parse_json(text, _classify(size), _most_values(size, max_items))
    check_count(len(body.examples), max_items)
    shared = [] if body.context is UNSET else _features(body.context, size, "$.context")
    items = []
    for index, example in enumerate(body.examples):
        found = shared + _features(example, size, f"$.examples[{index}]")
        if len(found) != 1:
            raise InvalidRequest(
                f"Example {index} has {len(found)} pictures, counting that of the context; "
                "give it one, as the feature images or as the feature image_bytes."
            )
        items += found
    return items


def classifications(labels: Sequence[str], probabilities: Probabilities) -> Results:
    """Return each row of float32 [N, classes] as pairs of label and score, in descending order."""
    orders = np.argsort(-probabilities, axis=1, kind="stable")  # [N, classes]
    return Results(
        [
            [(labels[index], row[index]) for index in order]
            for order, row in zip(orders, shortest(probabilities).tolist(), strict=True)
        ]
    )


def _most_values(size: Input, max_items: int) -> int:
    return most_values(size, max_items) + max_items + _OTHER_VALUES  # an object around each picture


def _images(body: Any, max_items: int) -> Pictures:
    rows = body.instances is not UNSET
    if rows:
        images = [getattr(instance, "images", instance) for instance in body.instances]
    else:
        images = getattr(body.inputs, "images", body.inputs)
    check_count(len(images), max_items)
    return Pictures([Item(image) for image in np.array(images, dtype=np.uint8)], rows)


def _pictures(body: Any, max_items: int) -> Pictures:
    rows = body.instances is not UNSET
    pictures: Sequence[Any]
    if rows:
        pictures = [instance.image_bytes or instance.images or instance for instance in body.instances]
    elif isinstance(body.inputs, PictureColumns):
        pictures = body.inputs.image_bytes or body.inputs.images or []
    else:
        pictures = body.inputs
    check_count(len(pictures), max_items)
    at = "$.instances" if rows else "$.inputs"
    items = [Item(base64_at(picture.b64, f"{at}[{index}]")) for index, picture in enumerate(pictures)]
    return Pictures(items, rows)


def _features(example: Any, size: Input, at: str) -> list[Item]:
    """Return the pictures among the features of one example, which stands ``at`` this path of the request."""
    items = []
    if example.images is not UNSET:
        items.append(Item(np.array(example.images, dtype=np.uint8).reshape(size.height, size.width, 3)))
    if example.image_bytes is not UNSET:
        picture = example.image_bytes
        text = picture[0].b64 if isinstance(picture, list) else picture.b64
        items.append(Item(base64_at(text, f"{at}.image_bytes")))
    return items
