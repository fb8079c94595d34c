"""What schemathesis must be told of this service: how a picture looks, and a tensor of the model's size.

JSON Schema cannot say that some bytes are a picture, or an array of a shape. The model takes images of SIDE x SIDE.
What is changed here makes requests that the description allows right in what it cannot say; wrong ones stay wrong.
"""

import io
import json
from base64 import b64encode
from typing import Any
from urllib.parse import urlencode

import numpy as np
import schemathesis
from hypothesis import strategies as st
from schemathesis.core.parameters import ParameterLocation

from service.protocols.open_inference.messages import JSON_LENGTH
from tests.service.pictures import plain

SIDE = 2  # pixels
VALUES = SIDE * SIDE * 3  # of one image, uint8 [SIDE, SIDE, 3]
FORMATS = ("jpeg", "png", "webp", "gif", "bmp", "tiff", "avif", "heic")
KINDS = {"heic": "HEIF"}  # Pillow's names, where these are others
TENSOR = {
    "inputs": [
        {
            "name": "images",
            "datatype": "UINT8",
            "shape": [1, SIDE, SIDE, 3],
            "parameters": {"binary_data_size": VALUES},
        }
    ]
}

pictures = st.sampled_from([plain("red", KINDS.get(kind, kind), size=(3, 2)) for kind in FORMATS])
images = st.binary(min_size=VALUES, max_size=VALUES)


def padded(picture: bytes) -> bytes:
    """Return a picture that is long enough to be a tensor of whole images as well; decoders stop before the rest."""
    return picture + bytes(-len(picture) % VALUES)


def npy(content: list[bytes]) -> bytes:
    """Return images as the content of an .npy file, uint8 [N, SIDE, SIDE, 3]."""
    stream = io.BytesIO()
    np.save(stream, np.frombuffer(b"".join(content), np.uint8).reshape(-1, SIDE, SIDE, 3))
    return stream.getvalue()


schemathesis.openapi.format("binary", pictures.map(padded))
schemathesis.openapi.format("picture", pictures.map(lambda picture: b64encode(picture).decode()))
schemathesis.openapi.media_type("application/x-npy", st.lists(images, min_size=1, max_size=5).map(npy))
for kind in FORMATS:
    schemathesis.openapi.media_type(f"image/{kind}", st.just(plain("red", KINDS.get(kind, kind))))


@schemathesis.hook
def before_load_schema(_: schemathesis.HookContext, raw_schema: dict[str, Any]) -> None:
    """Say of pairs of label and score what this version of schemathesis understands: it stumbles over their two types.

    It reads ``prefixItems`` in requests, but makes an invalid schema of them in answers.
    """
    pairs = raw_schema["components"]["schemas"]["Results"]["properties"]["results"]["items"]["items"]
    pairs["items"] = {"anyOf": pairs.pop("prefixItems")}


@schemathesis.hook
def filter_case(_: schemathesis.HookContext, case: schemathesis.Case[Any]) -> bool:
    """Leave out what gunicorn answers by itself: a request line of more than 4,094 bytes."""
    return len(urlencode(case.query or {}, doseq=True)) < 3000


@schemathesis.hook
def map_case(_: schemathesis.HookContext, case: schemathesis.Case[Any]) -> schemathesis.Case[Any]:
    """Write integers as integers, since JSON Schema counts 1.0 as one; let shapes of tensors agree with their data."""
    in_json = case.media_type == "application/json" and isinstance(case.body, dict)
    if in_json and case.meta and not case.meta.is_negative_at(ParameterLocation.BODY):
        body = _whole(case.body)
        for tensor in body["inputs"] if case.path.endswith("/infer") else []:
            _agree(tensor)
        case.body = body
    return case


def _agree(tensor: Any) -> None:
    """Make the first dimension of an inference request's tensor the number of images in its data, where it has both."""
    match tensor:
        case {"shape": [int(), *_] as shape, "data": [_, *_] as data}:
            if isinstance(data[0], int):
                del data[len(data) // VALUES * VALUES :]
            shape[0] = len(data) // VALUES if isinstance(data[0], int) else len(data)


def _whole(node: Any) -> Any:
    if isinstance(node, dict):
        return {key: _whole(value) for key, value in node.items()}
    if isinstance(node, list):
        return [_whole(item) for item in node]
    return int(node) if isinstance(node, float) and node.is_integer() else node


@schemathesis.hook
def before_call(_: schemathesis.HookContext, case: schemathesis.Case[Any], kwargs: dict[str, Any]) -> None:
    """Let the header that says where the JSON of an inference request ends agree with its body."""
    if not case.path.endswith("/infer") or case.meta is None or case.meta.is_negative_at(ParameterLocation.HEADER):
        return
    if case.media_type == "application/json":
        case.headers.pop(JSON_LENGTH, None)
    elif not case.meta.is_negative_at(ParameterLocation.BODY):
        text = json.dumps(TENSOR).encode() if JSON_LENGTH in case.headers else b""  # without JSON it is all pixels
        case.headers[JSON_LENGTH] = str(len(text))
        kwargs["data"] = text + bytes(VALUES)


@schemathesis.check
def allowed_data_is_answered(
    _: schemathesis.CheckContext, response: schemathesis.Response, case: schemathesis.Case[Any]
) -> None:
    """Fail where a request that the description allows gets no answer; schemathesis itself puts up with 404 and 5xx."""
    if case.meta and case.meta.generation.mode.is_positive:
        assert 200 <= response.status_code < 300, response.text
