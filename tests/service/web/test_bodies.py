"""Bodies compressed both ways: what comes in is read within the limits, what goes out is as the client asked."""

import gzip
import json
import time
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import requests
from flask.testing import FlaskClient

from service.app import create_app
from tests.models import SIDE
from tests.service.conftest import MakeServices, StartService
from tests.service.pictures import plain

PICTURE = plain("lime", "BMP")
INFER = "/v2/models/colours/infer"
LENGTH = "Inference-Header-Content-Length"


def raw_deflate(content: bytes) -> bytes:
    """Return ``content`` in deflate without a container, as some clients send it."""
    compressor = zlib.compressobj(wbits=-15)
    return compressor.compress(content) + compressor.flush()


def members(content: bytes, count: int) -> bytes:
    """Return ``content`` as a gzip file of ``count`` members."""
    size = -(-len(content) // count)
    return b"".join(gzip.compress(content[start : start + size]) for start in range(0, len(content), size))


def post(client: FlaskClient, content: bytes, encoding: str) -> Any:
    """Post a picture whose body is ``content`` in ``encoding``."""
    return client.post("/predict", data=content, content_type="image/bmp", headers={"Content-Encoding": encoding})


@pytest.mark.parametrize(
    ("content", "encoding"),
    [
        pytest.param(gzip.compress(PICTURE), "gzip", id="gzip"),
        pytest.param(gzip.compress(PICTURE), "x-gzip", id="gzip-by-its-old-name"),
        pytest.param(gzip.compress(PICTURE), " GZip ", id="gzip-in-capitals"),
        pytest.param(members(PICTURE, 7), "gzip", id="gzip-of-seven-members"),
        pytest.param(gzip.compress(PICTURE) + gzip.compress(b""), "gzip", id="gzip-with-an-empty-member"),
        pytest.param(zlib.compress(PICTURE), "deflate", id="deflate"),
        pytest.param(zlib.compress(PICTURE, 9), "deflate", id="deflate-of-the-best-level"),
        pytest.param(zlib.compress(PICTURE, 0), "deflate", id="deflate-that-is-only-stored"),
        pytest.param(raw_deflate(PICTURE), "deflate", id="deflate-without-container"),
        pytest.param(PICTURE, "identity", id="identity"),
        pytest.param(PICTURE, "", id="empty-header"),
    ],
)
def test_compressed_requests_are_read(client: FlaskClient, content: bytes, encoding: str) -> None:
    """gzip, with one member or several, and deflate, in zlib's container or without it, are read."""
    response = post(client, content, encoding)
    assert response.status_code == 200, response.text
    assert response.json["predictions"][0]["label"] == "green"


@pytest.mark.parametrize(
    ("content", "encoding", "status", "message"),
    [
        pytest.param(PICTURE, "gzip", 400, "not valid gzip", id="no-gzip"),
        pytest.param(PICTURE, "deflate", 400, "not valid deflate", id="no-deflate"),
        pytest.param(gzip.compress(PICTURE)[:-1], "gzip", 400, "cut short", id="gzip-cut-short"),
        pytest.param(gzip.compress(PICTURE)[:5], "gzip", 400, "cut short", id="gzip-cut-in-its-header"),
        pytest.param(zlib.compress(PICTURE)[:-1], "deflate", 400, "cut short", id="deflate-cut-short"),
        pytest.param(
            gzip.compress(PICTURE)[:-8] + bytes(8), "gzip", 400, "incorrect data check", id="gzip-with-wrong-checksum"
        ),
        pytest.param(gzip.compress(PICTURE) + b"more", "gzip", 400, "not valid gzip", id="more-behind-gzip"),
        pytest.param(gzip.compress(PICTURE), "deflate", 400, "not valid deflate", id="gzip-called-deflate"),
        pytest.param(zlib.compress(PICTURE), "gzip", 400, "not valid gzip", id="deflate-called-gzip"),
        pytest.param(b"", "gzip", 400, "empty", id="empty"),
        pytest.param(gzip.compress(b""), "gzip", 400, "empty", id="gzip-of-nothing"),
        pytest.param(gzip.compress(bytes(1_000_001)), "gzip", 413, "1,000,000 bytes", id="bomb"),
        pytest.param(zlib.compress(bytes(10**8)), "deflate", 413, "1,000,000 bytes", id="large-bomb"),
        pytest.param(members(bytes(2_000_000), 100), "gzip", 413, "1,000,000 bytes", id="bomb-in-members"),
        pytest.param(PICTURE, "br", 415, "'br'", id="brotli"),
        pytest.param(gzip.compress(gzip.compress(PICTURE)), "gzip, gzip", 415, "'gzip, gzip'", id="gzip-twice"),
        pytest.param(PICTURE, "x" * 5000, 415, "xxx", id="long-name"),
    ],
)
def test_bad_compressed_requests(client: FlaskClient, content: bytes, encoding: str, status: int, message: str) -> None:
    """What is damaged, too large when unpacked or compressed in an unknown way is refused, and told why."""
    response = post(client, content, encoding)
    assert response.status_code == status, response.text
    assert message in response.json["message"]


def test_exactly_the_limit_is_read(client: FlaskClient) -> None:
    """A body that is just as large as allowed when unpacked is let through."""
    response = post(client, gzip.compress(bytes(1_000_000)), "gzip")
    assert response.status_code == 415
    assert response.json["error"] == "unsupported_image"


LARGE = plain("lime", "BMP", (1100, 1000))


@pytest.mark.parametrize(
    ("content", "encoding"),
    [
        pytest.param(gzip.compress(LARGE), "gzip", id="gzip"),
        pytest.param(members(LARGE, 2), "gzip", id="gzip-of-two-members"),
        pytest.param(raw_deflate(LARGE), "deflate", id="deflate-without-container"),
    ],
)
def test_few_bytes_may_become_many(
    services_of: MakeServices, shared_models: Path, content: bytes, encoding: str
) -> None:
    """A picture of megabytes that is compressed to some thousand bytes is read to its end, piece by piece."""
    for limit, status in ((len(LARGE), 200), (len(LARGE) - 1, 413)):
        client = create_app(services_of(model_dir=shared_models, max_body_bytes=limit)).test_client()
        assert post(client, content, encoding).status_code == status


def test_many_members_cost_no_more_than_their_bytes(services_of: MakeServices, shared_models: Path) -> None:
    """A body of 200,000 empty gzip members, each of which is looked at, does not keep the service busy."""
    client = create_app(services_of(model_dir=shared_models)).test_client()
    started = time.process_time()
    assert post(client, gzip.compress(b"") * 200_000, "gzip").status_code == 400
    assert time.process_time() - started < 3


@pytest.mark.parametrize(("encoding", "compress"), [("gzip", gzip.compress), ("deflate", zlib.compress)])
def test_binary_tensors_are_compressed_both_ways(client: FlaskClient, encoding: str, compress: Any) -> None:
    """The header of the binary extension counts the bytes of the JSON before it is compressed, both ways."""
    images = np.full((100, SIDE, SIDE, 3), (0, 0, 255), np.uint8)
    described = {
        "name": "images",
        "datatype": "UINT8",
        "shape": list(images.shape),
        "parameters": {"binary_data_size": images.nbytes},
    }
    text = json.dumps({"inputs": [described], "parameters": {"binary_data_output": True}}).encode()
    response = client.post(
        INFER,
        data=compress(text + images.tobytes()),
        headers={LENGTH: str(len(text)), "Content-Encoding": encoding, "Accept-Encoding": encoding},
    )
    assert response.status_code == 200, response.text
    assert response.headers["Content-Encoding"] == encoding
    content = zlib.decompress(response.data, wbits=47)  # either container
    length = int(response.headers[LENGTH])
    assert json.loads(content[:length])["outputs"][0]["parameters"] == {"binary_data_size": 1200}
    assert np.frombuffer(content[length:], "<f4").reshape(100, 3).argmax(axis=1).tolist() == [2] * 100


@pytest.mark.parametrize(
    ("accepted", "encoding"),
    [
        ("gzip", "gzip"),
        ("deflate", "deflate"),
        ("gzip, deflate", "gzip"),
        ("deflate;q=1.0, gzip;q=0.5", "deflate"),
        ("br, gzip;q=0.1", "gzip"),
        ("*", "gzip"),
        ("br", None),
        ("identity", None),
        ("gzip;q=0", None),
        ("gzip;q=nonsense", None),
        ("", None),
    ],
)
def test_answers_are_compressed_as_asked(client: FlaskClient, accepted: str, encoding: str | None) -> None:
    """A long answer is compressed in the way that the client likes best, and not where it likes none."""
    plain_answer = client.get("/openapi.json")
    response = client.get("/openapi.json", headers={"Accept-Encoding": accepted})
    assert response.status_code == 200
    assert response.headers.get("Content-Encoding") == encoding
    assert "Accept-Encoding" in response.headers["Vary"]
    assert int(response.headers["Content-Length"]) == len(response.data)
    content = zlib.decompress(response.data, wbits=47) if encoding else response.data
    assert json.loads(content) == plain_answer.json


def test_short_answers_are_left_as_they_are(client: FlaskClient) -> None:
    """An answer that fits into a packet anyway is not compressed."""
    response = client.get("/v2/health/live", headers={"Accept-Encoding": "gzip"})
    assert "Content-Encoding" not in response.headers
    assert response.json == {"live": True}


@pytest.mark.process
def test_compressed_over_a_socket(shared_service: StartService) -> None:
    """A real service reads a compressed body also in chunks, and answers on the same connection afterwards."""
    service = shared_service(MAX_BODY_BYTES="100000")
    compressed = gzip.compress(PICTURE)
    headers = {"Content-Type": "image/bmp", "Content-Encoding": "gzip"}
    with requests.Session() as session:
        for data, status in (
            (compressed, 200),
            (iter([compressed[:50], compressed[50:]]), 200),
            (gzip.compress(bytes(200_000)), 413),
            (iter([gzip.compress(bytes(200_000))]), 413),
            (compressed[:-1], 400),
            (compressed, 200),
        ):
            response = session.post(f"{service.url}/predict", data=data, headers=headers, timeout=10)
            assert response.status_code == status, response.text


@pytest.mark.timing
@pytest.mark.parametrize("encoding", ["gzip", "deflate"])
def test_many_members_are_refused_before_they_are_read(client: FlaskClient, encoding: str) -> None:
    """A body of tens of thousands of empty members is a 400 at once."""
    empty = gzip.compress(b"") if encoding == "gzip" else raw_deflate(b"")
    started = time.monotonic()
    answer = post(client, empty * (900_000 // len(empty)), encoding)
    assert (answer.status_code, answer.json["error"]) == (400, "invalid_request")
    assert "more than 1,000 members" in answer.json["message"]
    assert time.monotonic() - started < 0.5


HEAD = b'--b\r\nContent-Disposition: form-data; name="image"'
END = b"\r\n--b--\r\n"
LONG = 900_000  # bytes


@pytest.mark.timing
@pytest.mark.parametrize(
    ("body", "status", "said"),
    [
        pytest.param(HEAD + b'; filename="' + LONG * b"a" + b'"\r\n\r\na' + END, 400, "heads", id="long-line"),
        pytest.param(HEAD + b"\r\n" + LONG // 6 * b"A: b\r\n" + b"\r\na" + END, 400, "heads", id="many-lines"),
        pytest.param(HEAD + LONG * b" ", 400, "heads", id="head-without-end"),
        pytest.param(90 * (HEAD + 900 * b";a=b" + b"\r\n\r\na\r\n") + END, 400, "heads", id="long-heads"),
        pytest.param(15_000 * (HEAD + b";a=b\r\n\r\na\r\n") + END, 413, "100 parts", id="many-parts"),
        pytest.param(100_000 * b"--b\r\n\r\n" + END, 413, "100 parts", id="many-empty-parts"),
        pytest.param(LONG // 3 * b"--b" + END, 413, "100 parts", id="many-boundaries"),
        pytest.param(LONG * b"-" + b"\r\n" + HEAD + b"\r\n\r\na" + END, 400, "begin with", id="long-preamble"),
        pytest.param(LONG * b"\r", 400, "begin with", id="no-part"),
    ],
)
def test_forms_that_would_take_long_are_refused_before(
    client: FlaskClient, body: bytes, status: int, said: str
) -> None:
    """Heads of parts, their number, and what comes before the first are bounded before a form is parsed."""
    started = time.monotonic()
    answer = client.post("/predict/batch", data=body, content_type="multipart/form-data; boundary=b")
    assert answer.status_code == status
    assert said in answer.get_json()["message"]
    assert time.monotonic() - started < 0.5
