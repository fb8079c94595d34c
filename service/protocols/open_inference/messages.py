"""The messages of the Open Inference Protocol V2: tensors in JSON, or in bytes behind it as Triton has them."""

import functools
import operator
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Annotated, Any, Literal, NamedTuple

import msgspec
import numpy as np
from flask import Request, Response
from msgspec import UNSET, Meta, Raw, Struct, UnsetType

from artifact import Input
from artifact.validate import EMBEDDING, FAMILIARITY, OUTPUT
from service.inference.engine import Images, Outputs, Probabilities
from service.inference.errors import InvalidRequest
from service.inference.items import Item, check_count
from service.inference.loaded import LoadedModel
from service.inference.predictions import Predictions
from service.protocols.own.messages import Base64, base64_at
from service.protocols.tensors import FlatType, flat_images, images_type, most_values, nested_images, shortest
from service.web.bodies import parse_json, read_body
from service.web.operations import json_response

JSON_LENGTH = "Inference-Header-Content-Length"  # the header that says where the JSON of a body ends, in bytes
BINARY = "application/octet-stream"

_AT = "$.inputs[0]"
_NUMBER = re.compile(r"[0-9]{1,18}")
_NESTED = re.compile(rb"\s*\[\s*\[")
_LENGTH_BYTES = 4  # little-endian, before each element of a BYTES tensor
_OTHER_VALUES = 1000  # values that JSON may hold beside the pictures

# A list of one, for [N, 1]. As a tuple, beside a type with limits, it would crash msgspec 0.22 in Python's gc.
Element = Base64 | Annotated[list[Base64], Meta(min_length=1, max_length=1)]


class InputParameters(Struct):
    """What is said of an input; ``binary_data_size`` is how many bytes of it follow the JSON."""

    binary_data_size: Annotated[int, Meta(ge=0)] | UnsetType = UNSET


class PixelTensor(Struct, kw_only=True, tag_field="datatype", tag="UINT8"):
    """Pixels, UINT8 [N, height, width, 3], in RGB; ``data`` is flat in row-major order, or nested."""

    name: Literal["images"]
    shape: list[int]
    parameters: InputParameters = msgspec.field(default_factory=InputParameters)
    data: Raw = Raw()


class EncodedTensor(Struct, kw_only=True, tag_field="datatype", tag="BYTES"):
    """Pictures as the content of files, BYTES [N] or [N, 1]; in JSON each is in base64."""

    name: Literal["image_bytes", "images"]
    shape: list[int]
    parameters: InputParameters = msgspec.field(default_factory=InputParameters)
    data: list[Element] | UnsetType = UNSET


class OutputParameters(Struct):
    """How an output is wanted: as bytes behind the JSON, and as its ``classification`` most probable labels."""

    binary_data: bool | UnsetType = UNSET
    classification: Annotated[int, Meta(ge=0)] = 0


class NumberParameters(Struct):
    """How numbers are wanted: as bytes behind the JSON, or in it."""

    binary_data: bool | UnsetType = UNSET


class RequestedProbabilities(Struct, tag_field="name", tag=OUTPUT):
    """The probabilities, or the most probable labels, are asked for."""

    parameters: OutputParameters = msgspec.field(default_factory=OutputParameters)


class RequestedFamiliarity(Struct, tag_field="name", tag=FAMILIARITY):
    """How familiar the pictures look is asked for."""

    parameters: NumberParameters = msgspec.field(default_factory=NumberParameters)


class RequestedEmbedding(Struct, tag_field="name", tag=EMBEDDING):
    """The embedding of the pictures is asked for."""

    parameters: NumberParameters = msgspec.field(default_factory=NumberParameters)


RequestedOutput = RequestedProbabilities | RequestedFamiliarity | RequestedEmbedding
_REQUESTED: dict[str, type[RequestedOutput]] = {
    OUTPUT: RequestedProbabilities,
    FAMILIARITY: RequestedFamiliarity,
    EMBEDDING: RequestedEmbedding,
}
_ONLY_IF_NAMED = (EMBEDDING,)


class RequestParameters(Struct):
    """What is said of the whole request; ``binary_data_output`` asks for outputs as bytes behind the JSON."""

    binary_data_output: bool = False


class InferRequest(Struct, kw_only=True):
    """An inference request: one input, and optionally which outputs are wanted, and how.

    Without, these are all but the embedding.
    """

    id: str | UnsetType = UNSET
    inputs: Annotated[list[PixelTensor | EncodedTensor], Meta(min_length=1, max_length=1)]
    outputs: list[RequestedOutput] = []
    parameters: RequestParameters = msgspec.field(default_factory=RequestParameters)


class BinarySize(Struct):
    """How many bytes of an output follow the JSON."""

    binary_data_size: int


class NumberTensor(Struct, kw_only=True, tag_field="datatype", tag="FP32"):
    """``probabilities``, FP32 [N, classes], ``familiarity``, FP32 [N, 1], or ``embedding``, FP32 [N, D], row by row.

    Without ``data`` the numbers follow the JSON.
    """

    name: str
    shape: list[int]
    parameters: BinarySize | UnsetType = UNSET
    data: list[float] | UnsetType = UNSET


class ClassTensor(Struct, kw_only=True, tag_field="datatype", tag="BYTES"):
    """The most probable labels, BYTES [N, k], each as ``probability:index:label``."""

    name: str = "probabilities"
    shape: list[int]
    parameters: BinarySize | UnsetType = UNSET
    data: list[str] | UnsetType = UNSET


class InferResponse(Struct, kw_only=True):
    """The answer to an inference request."""

    model_name: str
    model_version: str
    id: str | UnsetType = UNSET
    outputs: list[NumberTensor | ClassTensor]


@dataclass(frozen=True)
class ResponseFormat:
    """How the answer to a request is wanted: which outputs, and whether in binary where an output does not say."""

    id: str | UnsetType
    outputs: Sequence[RequestedOutput]
    binary: bool

    @property
    def names(self) -> list[str]:
        """The names of the outputs."""
        return [_name(output) for output in self.outputs]


@functools.lru_cache(maxsize=8)
def json_request(size: Input, most: int, outputs: tuple[str, ...]) -> Any:
    """Return the type of a request all in JSON with up to ``most`` images of ``size``, of a model with ``outputs``.

    It is for descriptions: a request is parsed as ``InferRequest``, and its shape and data are checked afterwards.
    """
    count = _exactly(1, most)
    shape = tuple.__class_getitem__((count, _exactly(size.height), _exactly(size.width), _exactly(3)))
    pixels: Any = Annotated[Any, Meta(extra_json_schema={"anyOf": _flat_or_nested(size)})]
    first_and_second = [msgspec.json.schema(count), {"const": 1}]
    one_or_two = Meta(min_length=1, max_length=2, extra_json_schema={"prefixItems": first_and_second})
    encoded_shape: Any = Annotated[list[count], one_or_two]  # type: ignore[valid-type]
    pictures: Any = Annotated[list[Element], Meta(min_length=1, max_length=most)]
    tensor: Any = _in_json(PixelTensor, shape, pixels) | _in_json(EncodedTensor, encoded_shape, pictures)
    inputs: Any = Annotated[list[tensor], Meta(min_length=1, max_length=1)]
    requested: Any = functools.reduce(operator.or_, [_REQUESTED[name] for name in outputs])
    wanted: Any = Annotated[list[requested], Meta(max_length=len(outputs))]
    return msgspec.defstruct(
        "InferRequestInJson",
        [("inputs", inputs), ("outputs", wanted, [])],
        bases=(InferRequest,),
        namespace={"__doc__": InferRequest.__doc__},
        kw_only=True,
    )


def _in_json(tensor: type[Struct], shape: Any, data: Any) -> Any:
    """Return ``tensor`` with a shape and data of its own, and without binary data."""
    no_binary: Any = Annotated[dict[str, Any], Meta(extra_json_schema={"not": {"required": ["binary_data_size"]}})]
    return msgspec.defstruct(
        f"{tensor.__name__}InJson",
        [("shape", shape), ("data", data), ("parameters", no_binary, msgspec.field(default_factory=dict))],
        bases=(tensor,),
        namespace={"__doc__": tensor.__doc__},
        kw_only=True,
    )


def _exactly(least: int, most: int | None = None) -> Any:
    return Annotated[int, Meta(ge=least, le=least if most is None else most)]


def _flat_or_nested(size: Input) -> list[dict[str, Any]]:
    flat = {**msgspec.json.schema(FlatType), "minItems": size.height * size.width * 3}
    return [flat, msgspec.json.schema(images_type(size))]


def read_request(request: Request, size: Input, most: int, outputs: Sequence[str]) -> tuple[ResponseFormat, list[Item]]:
    """Return how the answer is wanted, and the pictures, up to ``most``; tensors have the height and width of ``size``.

    ``outputs`` are the names of those that the model has, all of which but the embedding are wanted where none is asked
    for.

    A header length of 0 says that the body is nothing but pixels, uint8 [N, H, W, 3]: Triton's raw binary request.

    Raises:
        InvalidRequest: the request is not as the protocol says, or does not fit the model; the message says where.
        TooManyItems: there are more pictures than ``most``.
        SlowBody: the client stopped sending.
    """
    text, binary = _split(read_body(request), request.headers.get(JSON_LENGTH))
    if text is None:
        items = [Item(image) for image in _raw_pixels(binary, size, most)]
        return ResponseFormat(UNSET, _everything(outputs), binary=True), items
    with _explained(size, outputs):
        asked = parse_json(text, InferRequest, most_values(size, most) + _OTHER_VALUES)
        return _read(asked, binary, size, most, outputs)


def read_tensor(
    described: Mapping[str, Any], binary: memoryview, size: Input, most: int, outputs: Sequence[str]
) -> tuple[ResponseFormat, list[Item]]:
    """Return the same of a request that came in another form than JSON.

    ``described`` is an ``InferRequest`` in plain values, and ``binary`` the data of its input.
    """
    with _explained(size, outputs):
        try:
            asked = msgspec.convert(described, InferRequest)
        except msgspec.ValidationError as error:
            raise InvalidRequest(f"The request is not what is taken here: {error}.") from error
        return _read(asked, binary, size, most, outputs)


@contextmanager
def _explained(size: Input, outputs: Sequence[str]) -> Iterator[None]:
    """Add to what is wrong with a request what the model takes and gives."""
    try:
        yield
    except InvalidRequest as error:
        shape = f"[N, {size.height}, {size.width}, 3]"
        raise InvalidRequest(
            f"{error} The input is images, UINT8 {shape}, or image_bytes, BYTES [N]; "
            f"outputs are {' and '.join(outputs)}."
        ) from error


def _read(
    asked: InferRequest, binary: memoryview, size: Input, most: int, outputs: Sequence[str]
) -> tuple[ResponseFormat, list[Item]]:
    _check_outputs(asked.outputs, outputs)
    items = _items(asked.inputs[0], binary, size, most)
    wanted = asked.outputs or _everything(outputs)
    return ResponseFormat(asked.id, wanted, asked.parameters.binary_data_output), items


def _everything(outputs: Sequence[str]) -> list[RequestedOutput]:
    """Return the outputs that are wanted where none is named."""
    return [_REQUESTED[name]() for name in outputs if name not in _ONLY_IF_NAMED]


def _check_outputs(asked: Sequence[RequestedOutput], outputs: Sequence[str]) -> None:
    """Check what is asked for against the names of the outputs that the model has."""
    if len(asked) > len(outputs):
        raise InvalidRequest(f"Expected `array` of length <= {len(outputs)} - at `$.outputs`.")
    for index, output in enumerate(asked):
        if _name(output) not in outputs:
            raise InvalidRequest(f"Invalid value '{_name(output)}' - at `$.outputs[{index}].name`.")


def _name(output: RequestedOutput) -> str:
    return str(output.__struct_config__.tag)


def respond(wanted: ResponseFormat, model: LoadedModel, predictions: Predictions) -> Response:
    """Return ``predictions`` of ``model`` as they are wanted."""
    answer, binary = answer_with(wanted, model, predictions)
    if not binary:
        return json_response(answer)
    text = msgspec.json.encode(answer)
    return Response(b"".join([text, *binary]), content_type=BINARY, headers={JSON_LENGTH: str(len(text))})


def answer_with(
    wanted: ResponseFormat, model: LoadedModel, predictions: Predictions
) -> tuple[InferResponse, list[bytes]]:
    """Return the answer that holds ``predictions`` of ``model``, and the data of those outputs that are in binary."""
    outputs = {OUTPUT: predictions.probabilities}
    if predictions.familiarity is not None:
        outputs[FAMILIARITY] = predictions.familiarity[:, np.newaxis]
    if predictions.embedding is not None:
        outputs[EMBEDDING] = predictions.embedding
    tensors = [_output(requested, wanted.binary, model.metadata.labels, outputs) for requested in wanted.outputs]
    answer = InferResponse(
        model_name=model.name,
        model_version=str(model.version),
        id=wanted.id,
        outputs=[tensor.described for tensor in tensors],
    )
    return answer, [tensor.binary for tensor in tensors if tensor.binary is not None]


class _Output(NamedTuple):
    described: NumberTensor | ClassTensor
    binary: bytes | None = None  # what follows the JSON, where it does not hold the data


def _output(requested: RequestedOutput, binary: bool, labels: Sequence[str], outputs: Mapping[str, Outputs]) -> _Output:
    """Return one of ``outputs``, float32 [N, columns] each, as ``requested``; in ``binary`` where that is not said."""
    in_binary = binary if requested.parameters.binary_data is UNSET else requested.parameters.binary_data
    name = _name(requested)
    if isinstance(requested, RequestedProbabilities) and requested.parameters.classification:
        return _classification(outputs[name], labels, requested.parameters.classification, in_binary)
    return _numbers(name, outputs[name], in_binary)


def _numbers(name: str, values: Outputs, in_binary: bool) -> _Output:
    shape = list(values.shape)
    if in_binary:
        binary = values.astype("<f4").tobytes()
        return _Output(NumberTensor(name=name, shape=shape, parameters=BinarySize(len(binary))), binary)
    return _Output(NumberTensor(name=name, shape=shape, data=shortest(values).ravel().tolist()))


def _classification(probabilities: Probabilities, labels: Sequence[str], count: int, in_binary: bool) -> _Output:
    best = np.argsort(-probabilities, axis=1, kind="stable")[:, :count]  # [N, k]
    shape = list(best.shape)
    texts = [
        f"{row[index]:f}:{index}:{labels[index]}"
        for row, indices in zip(probabilities, best, strict=True)
        for index in indices
    ]
    if in_binary:
        binary = elements([text.encode() for text in texts])
        return _Output(ClassTensor(shape=shape, parameters=BinarySize(len(binary))), binary)
    return _Output(ClassTensor(shape=shape, data=texts))


def _split(body: bytes, json_length: str | None) -> tuple[memoryview | None, memoryview]:
    """Return the JSON of ``body`` and the bytes behind it; None for the JSON where its length is told to be 0."""
    view = memoryview(body)
    if json_length is None:
        return view, view[len(view) :]
    if not _NUMBER.fullmatch(json_length) or int(json_length) > len(view):
        raise InvalidRequest(
            f"The header {JSON_LENGTH} is {json_length[:40]!r}, but it must be an integer from 0 to {len(view)}, "
            "the length of the body."
        )
    length = int(json_length)
    return (view[:length] if length else None), view[length:]


def _items(tensor: PixelTensor | EncodedTensor, binary: memoryview, size: Input, most: int) -> list[Item]:
    """Return the pictures of ``tensor``; ``binary`` is what follows the JSON."""
    in_json = _is_in_json(tensor, binary)
    _check_shape(tensor, size, most)
    pictures: Sequence[Images | bytes]
    if isinstance(tensor, PixelTensor):
        pictures = list(_json_pixels(tensor.data, size, most) if in_json else _pixels(binary, size))
    else:
        pictures = _json_pictures(tensor.data or []) if in_json else _elements(binary, most)
    if len(pictures) != tensor.shape[0]:
        raise InvalidRequest(f"The data of `{_AT}` has {len(pictures)} pictures, its shape says {tensor.shape[0]}.")
    return [Item(picture) for picture in pictures]


def _is_in_json(tensor: PixelTensor | EncodedTensor, binary: memoryview) -> bool:
    """Say whether the data of ``tensor`` is in the JSON, after a check that it is there, and only once."""
    announced = tensor.parameters.binary_data_size
    in_json = tensor.data is not UNSET and bool(tensor.data)
    if in_json == (announced is not UNSET):
        raise InvalidRequest(f"`{_AT}` must have either data or the parameter binary_data_size, and not both.")
    following = 0 if announced is UNSET else announced
    if following != len(binary):
        raise InvalidRequest(
            f"{len(binary)} bytes follow the JSON, but the parameter binary_data_size of `{_AT}` says {following}; "
            f"the header {JSON_LENGTH} must be the length of the JSON."
        )
    return in_json


def _check_shape(tensor: PixelTensor | EncodedTensor, size: Input, most: int) -> None:
    count, *rest = tensor.shape or [0]
    fits = rest == [size.height, size.width, 3] if isinstance(tensor, PixelTensor) else rest in ([], [1])
    if not fits or count < 1:
        raise InvalidRequest(f"`{_AT}.shape` is {str(tensor.shape)[:80]}, which this input cannot have.")
    check_count(count, most)


def _json_pixels(data: Raw, size: Input, most: int) -> Images:
    """Return pixels in JSON, flat or nested, as uint8 [N, H, W, 3]."""
    text = memoryview(data)
    read = nested_images if _NESTED.match(text) else flat_images
    return read(text, size, most, f"{_AT}.data")


def _json_pictures(data: list[str | list[str]]) -> list[bytes]:
    return [
        base64_at(element if isinstance(element, str) else element[0], f"{_AT}.data[{index}]")
        for index, element in enumerate(data)
    ]


def _pixels(content: memoryview, size: Input) -> Images:
    """Return raw pixels as uint8 [N, H, W, 3], without a copy."""
    values = size.height * size.width * 3
    if len(content) % values or not content:
        raise InvalidRequest(
            f"There are {len(content)} bytes of pixels, which is no whole number of images "
            f"of {size.height} x {size.width} x 3 = {values}."
        )
    return np.frombuffer(content, np.uint8).reshape(-1, size.height, size.width, 3)


def _raw_pixels(content: memoryview, size: Input, most: int) -> Images:
    images = _pixels(content, size)
    check_count(len(images), most)
    return images


def _elements(content: memoryview, most: int) -> list[bytes]:
    """Return the elements of a BYTES tensor, each behind its length, which has 4 bytes and is little-endian.

    Raises:
        InvalidRequest: an element is cut short.
        TooManyItems: there are more than ``most``.
    """
    found: list[bytes] = []
    while content:
        check_count(len(found) + 1, most)
        start = _LENGTH_BYTES
        end = start + int.from_bytes(content[:start], "little")
        if len(content) < max(start, end):
            raise InvalidRequest(f"Element {len(found)} of the binary data of `{_AT}` is cut short.")
        found.append(bytes(content[start:end]))
        content = content[end:]
    return found


def elements(contents: Iterable[bytes]) -> bytes:
    """Return ``contents`` as a BYTES tensor has them in binary, each behind its length."""
    return b"".join(len(content).to_bytes(_LENGTH_BYTES, "little") + content for content in contents)
