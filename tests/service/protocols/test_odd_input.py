"""What people send that is nearly right: odd .npy headers, base64 that is none, byte order marks, names in Latin-1."""

import codecs
import io
import json
import struct
import urllib.parse
from base64 import b64encode, urlsafe_b64encode
from typing import Any

import numpy as np
import pytest
from flask.testing import FlaskClient

from tests.models import SIDE
from tests.service.pictures import plain

GREEN = plain("lime")
IMAGES = np.full((2, SIDE, SIDE, 3), (0, 255, 0), np.uint8)
SHAPE = f"({', '.join(map(str, IMAGES.shape))})"
IN_BASE64 = b64encode(GREEN).decode()


def npy(header: bytes | str, version: tuple[int, int] = (1, 0), content: bytes = IMAGES.tobytes()) -> bytes:
    """Return an .npy file whose header is the text ``header``."""
    text = header if isinstance(header, bytes) else header.encode("latin-1")
    return b"\x93NUMPY" + bytes(version) + struct.pack("<H" if version == (1, 0) else "<I", len(text)) + text + content


def plain_header(descr: str = "'|u1'", fortran: str = "False", shape: str = SHAPE) -> str:
    """Return a header as NumPy writes it."""
    return f"{{'descr': {descr}, 'fortran_order': {fortran}, 'shape': {shape}, }}" + " " * 20 + "\n"


def ask(client: FlaskClient, body: bytes) -> Any:
    """Post an .npy file."""
    return client.post("/predict/batch", data=body, content_type="application/x-npy")


def saved(array: Any, **options: Any) -> bytes:
    """Return ``array`` as NumPy itself writes it."""
    stream = io.BytesIO()
    np.lib.format.write_array(stream, array, **options)
    return stream.getvalue()


@pytest.mark.parametrize(
    "body",
    [
        pytest.param(saved(IMAGES), id="as-numpy"),
        pytest.param(saved(IMAGES, version=(2, 0)), id="version-2"),
        pytest.param(saved(IMAGES, version=(3, 0)), id="version-3"),
        pytest.param(saved(IMAGES.astype(">u1")), id="big-endian-of-one-byte"),
        pytest.param(npy(plain_header().replace("'", '"')), id="double-quotes"),
        pytest.param(npy(f"{{'shape':{SHAPE},'descr':'<u1','fortran_order':False}}"), id="another-order"),
        pytest.param(npy(plain_header(descr="'uint8'")), id="type-by-name"),
    ],
)
def test_every_plain_npy_is_read(client: FlaskClient, body: bytes) -> None:
    """Whoever wrote it, in whichever version of the format."""
    response = ask(client, body)
    assert response.status_code == 200, response.text
    assert [result["predictions"][0]["label"] for result in response.json["results"]] == ["green", "green"]


ODD_NPY = {
    "bytes-8": saved(IMAGES.astype(np.uint64)),
    "big-endian": saved(IMAGES.astype(">u2")),
    "signed": saved(IMAGES.view(np.int8)),
    "booleans": saved(IMAGES.view(np.bool_)),
    "complex": saved(IMAGES.astype(complex)),
    "text": saved(IMAGES.astype("U1")),
    "dates": saved(IMAGES.astype("M8[7Y]")),
    "void": saved(IMAGES.view("V3")),
    "objects": npy(plain_header(descr="'|O'")),
    "structured": saved(np.zeros(4, [("a", "u1"), ("ä", "u1", (3,))]), version=(3, 0)),
    "structured-tuple": npy(plain_header(descr="('u1', [('a', 'u1')])")),
    "subarray": npy(plain_header(descr="('u1', (32, 3))", shape="(2, 32)")),
    "surrogates": npy(plain_header(descr="[('\\ud800', 'u1')]")),
    "title": npy(plain_header(descr="[(('a', 'b'), 'u1')]")),
    "no-type": npy(plain_header(descr="None")),
    "made-up-type": npy(plain_header(descr="'u1,u1'")),
    "type-of-shape": npy(plain_header(descr="'(2,3)u1'")),
    "huge-type": npy(plain_header(descr="'V2147483647'")),
    "fortran": npy(plain_header(fortran="True")),
    "fortran-number": npy(plain_header(fortran="0")),
    "negative": npy(plain_header(shape="(-2, 32, 32, 3)")),
    "negative-and-huge": npy(plain_header(shape="(-1, -32, -32, 3)")),
    "zero": npy(plain_header(shape="(0, 32, 32, 3)"), content=b""),
    "empty-shape": npy(plain_header(shape="()"), content=b"\1"),
    "one-dimension": npy(plain_header(shape="(6144,)")),
    "five-dimensions": npy(plain_header(shape="(1, 2, 32, 32, 3)")),
    "40-dimensions": npy(plain_header(shape=f"({'1, ' * 40})")),
    "huge": npy(plain_header(shape="(99999999999, 32, 32, 3)")),
    "overflow": npy(plain_header(shape="(9223372036854775807, 32, 32, 3)")),
    "of-5000-digits": npy(plain_header(shape=f"(0x{'f' * 5000}, 32, 32, 3)")),
    "decimal-of-5000-digits": npy(plain_header(shape=f"({'9' * 5000}, 32, 32, 3)")),
    "booleans-in-shape": npy(plain_header(shape="(True, 32, 32, 3)"), content=bytes(3072)),
    "floats-in-shape": npy(plain_header(shape="(2.0, 32, 32, 3)")),
    "text-in-shape": npy(plain_header(shape="('2', 32, 32, 3)")),
    "shape-list": npy(plain_header(shape="[2, 32, 32, 3]")),
    "python-2": npy(plain_header(shape="(2L, 32L, 32L, 3L)")),
    "empty-places": npy(plain_header(shape="(2,, 32, 32, 3)")),
    "other-digits": npy(plain_header(shape="(٢, 32, 32, 3)").encode(), (3, 0)),
    "extra-key": npy("{'descr': '|u1', 'fortran_order': False, 'shape': (2, 32, 32, 3), 'x': 1}"),
    "key-twice": npy("{'descr': '|u1', 'descr': '|u1', 'shape': (2, 32, 32, 3)}"),
    "key-missing": npy("{'descr': '|u1', 'shape': (2, 32, 32, 3)}"),
    "code": npy("__import__('os').getpid()"),
    "call": npy(plain_header(shape="(int('2'), 32, 32, 3)")),
    "escape": npy(plain_header(descr="'\\d'")),
    "nested": npy("(" * 9000),
    "nothing": npy(""),
    "null-bytes": npy(b"\0" * 100),
    "no-text": npy(b"\xff\xfe\xfd", (3, 0)),
    "long": npy(plain_header() + " " * 20_000, (2, 0)),
    "length-beyond": b"\x93NUMPY\1\0\xff\xff" + plain_header().encode(),
    "length-cut": b"\x93NUMPY\2\0\1",
    "version-0": npy(plain_header(), (0, 0)),
    "version-4": npy(plain_header(), (4, 0)),
    "version-1.1": npy(plain_header(), (1, 1)),
    "magic-only": b"\x93NUMPY",
    "trailing": npy(plain_header()) + b"\0",
    "short": npy(plain_header())[:-1],
    "two-files": npy(plain_header()) * 2,
}


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("body", [pytest.param(body, id=name) for name, body in ODD_NPY.items()])
def test_odd_headers_are_refused(client: FlaskClient, body: bytes) -> None:
    """Whatever else NumPy would make of a header, it is the client's fault, and told in a short sentence."""
    for content_type in ("application/x-npy", "application/octet-stream"):
        response = client.post("/predict/batch", data=body, content_type=content_type)
        assert response.status_code == 400, response.text
        assert 20 < len(response.json["message"]) < 400  # type: ignore[index]


def test_too_many_of_an_npy_are_too_many(client: FlaskClient) -> None:
    """A header that says the truth about 101 images is refused for their number."""
    assert ask(client, saved(np.zeros((101, SIDE, SIDE, 3), np.uint8))).status_code == 413


@pytest.mark.parametrize(
    "tensor",
    [
        {"shape": [10**30, SIDE, SIDE, 3]},
        {"shape": [-1, SIDE, SIDE, 3]},
        {"shape": [0, SIDE, SIDE, 3]},
        {"shape": [1] * 500},
        {"shape": []},
        {"shape": [1.5, SIDE, SIDE, 3]},
        {"shape": [True, SIDE, SIDE, 3]},
        {"parameters": {"binary_data_size": 10**30}},
        {"parameters": {"binary_data_size": -1}},
        {"datatype": "FP32"},
        {"datatype": "OBJECT"},
        {"datatype": "\ud800"},
    ],
)
def test_odd_tensors_are_refused(client: FlaskClient, tensor: dict[str, Any]) -> None:
    """The same holds for the header of a tensor of the Open Inference Protocol."""
    usual = {"name": "images", "datatype": "UINT8", "shape": [1, SIDE, SIDE, 3]}
    content = IMAGES[:1].tobytes()
    told = {**usual, "parameters": {"binary_data_size": len(content)}, **tensor}
    text = json.dumps({"inputs": [told]}).encode()
    headers = {"Inference-Header-Content-Length": str(len(text))}
    response = client.post("/v2/models/colours/infer", data=text + content, headers=headers)
    assert response.status_code == 400, response.text
    assert len(response.json["error"]) < 600  # type: ignore[index]


def requests_with(picture: str) -> dict[str, tuple[str, Any]]:
    """Return a request of each protocol that has ``picture`` where base64 belongs: path and document."""
    tensor = {"name": "image_bytes", "datatype": "BYTES", "shape": [1], "data": [picture]}
    rows = {"signature_name": "serve_bytes", "instances": [{"b64": picture}]}
    return {
        "own": ("/predict", {"image": picture}),
        "v1": ("/v1/models/colours:predict", rows),
        "v1-columns": ("/v1/models/colours:predict", {"inputs": {"image_bytes": [{"b64": picture}]}}),
        "v1-classify": ("/v1/models/colours:classify", {"examples": [{"image_bytes": {"b64": picture}}]}),
        "v2": ("/v2/models/colours/infer", {"inputs": [tensor]}),
    }


PROTOCOLS = tuple(requests_with(""))


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize(
    "picture",
    [
        pytest.param(IN_BASE64, id="base64"),
        pytest.param(f"{IN_BASE64[:40]}\r\n{IN_BASE64[40:]}\n", id="base64-in-lines"),
        pytest.param(f"data:image/png;base64,{IN_BASE64}", id="data-url"),
        pytest.param(f"DATA:image/png;name=a.png;BASE64,{IN_BASE64}", id="data-url-with-parameters"),
        pytest.param(f"data:;base64,{urllib.parse.quote(IN_BASE64)}", id="data-url-in-percent-signs"),
        pytest.param(f"data:image/png,{urllib.parse.quote(GREEN)}", id="data-url-without-base64"),
    ],
)
def test_pictures_in_text_are_read(client: FlaskClient, protocol: str, picture: str) -> None:
    """base64 and data: URLs, as browsers make them, are pictures to every protocol."""
    path, document = requests_with(picture)[protocol]
    response = client.post(path, json=document)
    assert response.status_code == 200, response.text


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize(
    ("picture", "hint"),
    [
        ("https://example.com/cat.jpg", "an address, and addresses are not fetched"),
        ("s3://bucket/cat", "an address, and addresses are not fetched"),
        ("file:///home/anna/cat.jpg", "an address, and addresses are not fetched"),
        ("/home/anna/cat.jpg", "the path of a file, which is not here"),
        ("~/cat", "the path of a file, which is not here"),
        ("cat.jpeg", "the path of a file, which is not here"),
        ("../pets/cat.PNG", "the path of a file, which is not here"),
        ("C:\\Users\\anna\\cat.jpg", "the path of a file, which is not here"),
        ("\\\\server\\share\\cat", "the path of a file, which is not here"),
        (urlsafe_b64encode(b"\xff" * 6).decode(), "with - and _; send the usual one"),
        ("data:image/png;base64", "without data"),
        ("data:image/png;base64,", "without data"),
        ("data:image/png;base64,$", "base64"),
        ("/9j/4AA=QS", "not valid base64"),
        ("abcde", "not valid base64"),
        ("b'iVBORw0KGgo='", "not valid base64"),
    ],
)
def test_what_is_no_base64_is_named(client: FlaskClient, protocol: str, picture: str, hint: str) -> None:
    """Whoever sends an address, a path or another alphabet is told so, by every protocol."""
    path, document = requests_with(picture)[protocol]
    response = client.post(path, json=document)
    assert response.status_code == 400
    answer = response.json
    assert answer is not None
    assert hint in answer.get("message", answer.get("error"))


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_a_byte_order_mark_is_no_part_of_json(client: FlaskClient, protocol: str) -> None:
    """Editors and shells of Windows write one before UTF-8."""
    path, document = requests_with(IN_BASE64)[protocol]
    body = codecs.BOM_UTF8 + json.dumps(document).encode()
    response = client.post(path, data=body, content_type="application/json")
    assert response.status_code == 200, response.text


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-16-be", "utf-32"])
@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_other_encodings_of_json_are_named(client: FlaskClient, protocol: str, encoding: str) -> None:
    """JSON is in UTF-8 by its standard; what is in another encoding is told which."""
    path, document = requests_with(IN_BASE64)[protocol]
    response = client.post(path, data=json.dumps(document).encode(encoding), content_type="application/json")
    assert response.status_code == 400
    assert "UTF-16" in response.text


def form(*heads: bytes, content: bytes = GREEN) -> dict[str, Any]:
    """Return the client's arguments for a form with a part of each head."""
    parts = b"".join(b"--b\r\n" + head + b"\r\n\r\n" + content + b"\r\n" for head in heads)
    return {"data": parts + b"--b--\r\n", "content_type": "multipart/form-data; boundary=b"}


USUAL = b'Content-Disposition: form-data; name="images"; filename="a.png"'


@pytest.mark.parametrize(
    ("head", "name"),
    [
        pytest.param(USUAL.replace(b"a.png", "ä.png".encode("latin-1")), "ä.png", id="latin-1"),
        pytest.param(USUAL.replace(b"a.png", "ä.png".encode()), "ä.png", id="utf-8"),
        pytest.param(USUAL + b"\r\nX-Comment: \xe4", "a.png", id="in-another-header"),
        pytest.param(USUAL.replace(b"a.png", b"\xe4%22.png"), 'ä".png', id="with-a-quote"),
        pytest.param(USUAL.replace(b'filename="a.png"', b"filename*=iso-8859-1''%E4.png"), "ä.png", id="rfc-5987"),
        pytest.param(
            USUAL.replace(b'filename="a.png"', b"filename*=UTF-8''%FF.png"), "\ufffd.png", id="rfc-5987-broken"
        ),
        pytest.param(USUAL.replace(b"a.png", "猫.png".encode("shift_jis")), None, id="shift-jis"),
    ],
)
def test_names_of_files_may_be_in_any_encoding(client: FlaskClient, head: bytes, name: str | None) -> None:
    """A name never costs a picture, its own or another's; Latin-1 is what is not UTF-8 taken for."""
    response = client.post("/predict/batch", **form(USUAL, head))
    assert response.status_code == 200, response.text
    answered = response.json
    assert answered is not None
    assert [result["predictions"][0]["label"] for result in answered["results"]] == ["green", "green"]
    assert name is None or answered["results"][1]["filename"] == name


def test_other_fields_may_be_in_any_encoding(client: FlaskClient) -> None:
    """A field that nobody asks for does not fail the form either."""
    other = b'Content-Disposition: form-data; name="\xe4"'
    assert client.post("/predict/batch", **form(USUAL, other)).status_code == 200
    assert client.post("/predict/batch", **form(other, USUAL + b"\r\nX-Comment: a")).status_code == 200


def test_what_looks_like_a_head_inside_a_picture_stays(client: FlaskClient) -> None:
    """Only heads are read anew: a picture with the boundary's text inside keeps its bytes."""
    inside = GREEN[:-12] + b"--b\r\n\xe4\r\n\r\n"
    response = client.post("/predict/batch", **form(USUAL + b"\r\nX-Comment: \xe4", content=inside + GREEN[-12:]))
    assert response.status_code == 200
