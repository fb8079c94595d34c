"""``POST /predict`` and ``/predict/batch``, in this process: right answers, and for bad input an error that helps."""

import io
import json
from base64 import b64encode
from typing import Any

import numpy as np
import pytest
from flask.testing import FlaskClient
from PIL import Image
from werkzeug.test import TestResponse

from tests.models import LABELS, SIDE
from tests.service.pictures import encoded, plain, png_header

RED, GREEN, BLUE = (plain(colour) for colour in ("red", "lime", "blue"))


def b64(content: bytes) -> str:
    """Return ``content`` in base64."""
    return b64encode(content).decode()


def form(*files: bytes | tuple[bytes, str], field: str = "image") -> dict[str, Any]:
    """Return the client's arguments for a multipart form."""
    named = [file if isinstance(file, tuple) else (file, "picture") for file in files]
    return {"data": {field: [(io.BytesIO(content), name) for content, name in named]}}


def raw(content: bytes, content_type: str) -> dict[str, Any]:
    """Return the client's arguments for a body as it is."""
    return {"data": content, "content_type": content_type}


def npy(array: Any) -> bytes:
    """Return ``array`` as the content of an .npy file."""
    stream = io.BytesIO()
    np.save(stream, array)
    return stream.getvalue()


def labels_of(response: TestResponse) -> list[str]:
    """Return the best label of each result."""
    return [result["predictions"][0]["label"] for result in response.json["results"]]  # type: ignore[index]


def tensor(*colours: tuple[int, int, int]) -> "np.ndarray[Any, np.dtype[np.uint8]]":
    """Return one picture of each colour, uint8 [N, H, W, 3]."""
    return np.stack([np.full((SIDE, SIDE, 3), colour, np.uint8) for colour in colours])


def test_pictures_are_told_that_are_not_familiar(telling: FlaskClient) -> None:
    """Beside the labels stands whether a picture is like those of the training, of each one in a batch."""
    for picture, familiar in ((RED, True), (plain("black"), False)):
        answer = telling.post("/predict", **raw(picture, "image/png")).json
        assert answer is not None
        assert list(answer) == ["success", "predictions", "familiar", "model"]
        assert answer["familiar"] is familiar
        assert len(answer["predictions"]) == 3
        assert sum(prediction["probability"] for prediction in answer["predictions"]) == pytest.approx(1, abs=1e-5)
    files = form(RED, b"no picture", plain("black"), BLUE, field="images")
    results = telling.post("/predict/batch", **files).json["results"]  # type: ignore[index]
    assert [result.get("familiar") for result in results] == [True, None, False, True]
    assert list(results[0]) == ["index", "filename", "predictions", "familiar"]
    assert "error" in results[1]


def test_nothing_is_told_where_the_version_does_not(client: FlaskClient) -> None:
    """A version without a threshold says of no picture whether it is familiar."""
    results = client.post("/predict/batch", **form(RED, plain("black"), field="images")).json["results"]  # type: ignore[index]
    assert [list(result) for result in results] == [["index", "filename", "predictions"]] * 2


@pytest.mark.parametrize(
    "request_arguments",
    [
        pytest.param(form(GREEN), id="multipart-image"),
        pytest.param(form(GREEN, field="file"), id="multipart-file"),
        pytest.param(raw(GREEN, "image/png"), id="raw"),
        pytest.param(raw(plain("lime", "JPEG"), "image/png"), id="raw-with-another-type"),
        pytest.param(raw(GREEN, "application/octet-stream"), id="octet-stream"),
        pytest.param({"data": GREEN}, id="raw-without-type"),
        pytest.param({"json": {"image": b64(GREEN)}}, id="json"),
        pytest.param({"json": {"image": f"data:image/png;base64,{b64(GREEN)}"}}, id="data-url"),
    ],
)
def test_every_way_to_send_a_picture_answers(client: FlaskClient, request_arguments: dict[str, Any]) -> None:
    """A picture is classified the same whichever way it is sent, and the answer has the documented form."""
    response = client.post("/predict", **request_arguments)
    assert response.status_code == 200, response.text
    answer = response.json
    assert answer is not None
    assert list(answer) == ["success", "predictions", "model"]
    assert answer["success"] is True
    assert answer["model"] == {"name": "colours", "version": 1}
    assert answer["predictions"][0]["label"] == "green"
    # softmax(8 * [0, 1, 0])
    assert [prediction["probability"] for prediction in answer["predictions"]] == pytest.approx(
        [0.99933, 0.000335, 0.000335],
        abs=2e-5,  # JPEG changes a colour a little
    )


@pytest.mark.parametrize(("top", "count"), [("1", 1), ("2", 2), ("3", 3), ("99", 3), ("9" * 400, 3)])
def test_top_limits_the_labels(client: FlaskClient, top: str, count: int) -> None:
    """``top=k`` gives the k most probable labels; more than there are gives all."""
    answer = client.post(f"/predict?top={top}", **form(BLUE)).json
    assert answer is not None
    probabilities = [prediction["probability"] for prediction in answer["predictions"]]
    assert len(probabilities) == count
    assert probabilities == sorted(probabilities, reverse=True)
    assert answer["predictions"][0]["label"] == "blue"


@pytest.mark.parametrize("mode", ["CMYK", "LA", "L", "1", "P", "RGBA", "I;16"])
def test_unusual_pictures_answer(client: FlaskClient, mode: str) -> None:
    """CMYK, palette, grey, 1-bit, 16-bit and transparent pictures are classified, not refused."""
    kind = "TIFF" if mode == "CMYK" else "PNG"
    response = client.post("/predict", **form(plain("white", kind, mode=mode)))
    assert response.status_code == 200, response.text
    assert {prediction["label"] for prediction in response.json["predictions"]} == set(LABELS)  # type: ignore[index]


@pytest.mark.parametrize("content", [plain("red", size=(1, 1)), plain("red", "GIF"), plain("red", "WEBP")])
def test_small_and_other_formats_answer(client: FlaskClient, content: bytes) -> None:
    """A picture of one pixel, a GIF and a WebP are classified rightly."""
    assert client.post("/predict", **form(content)).json["predictions"][0]["label"] == "red"  # type: ignore[index]


def test_animation_counts_by_its_first_frame(client: FlaskClient) -> None:
    """Of an animated GIF the first frame is classified."""
    frames = [Image.new("RGB", (32, 32), colour) for colour in ("blue", "red", "red")]
    content = encoded(frames[0], "GIF", save_all=True, append_images=frames[1:])
    assert client.post("/predict", **form(content)).json["predictions"][0]["label"] == "blue"  # type: ignore[index]


BAD_REQUESTS = [
    pytest.param({"data": b""}, 400, "invalid_request", "empty", id="empty-body"),
    pytest.param(raw(b"", "image/png"), 400, "invalid_request", "empty", id="empty-image"),
    pytest.param(form(b""), 400, "invalid_image", "empty", id="empty-file"),
    pytest.param({"data": {"other": "1"}}, 415, "unsupported_body", "-F image=@", id="urlencoded"),
    pytest.param(form(RED, field="photo"), 400, "invalid_request", "-F image=@", id="no-image-field"),
    pytest.param(
        {"data": {"image": "photo.jpg"}, "content_type": "multipart/form-data"},
        400,
        "invalid_request",
        "image=@photo.jpg",
        id="image-as-text-field",
    ),
    pytest.param(form(RED, BLUE), 400, "invalid_request", "/predict/batch", id="two-images"),
    pytest.param(form(b"hello, world"), 415, "unsupported_image", "JPEG, PNG", id="text-as-image"),
    pytest.param(raw(b"%PDF-1.7 ...", "image/png"), 415, "unsupported_image", "JPEG, PNG", id="pdf"),
    pytest.param(raw(b"%!PS-Adobe-3.0 EPSF-3.0\n", "image/eps"), 415, "unsupported_image", "JPEG", id="postscript"),
    pytest.param(form(plain("red", "JPEG", (64, 64))[:400]), 400, "invalid_image", "cut short", id="truncated-jpeg"),
    pytest.param(form(RED[:-30]), 400, "invalid_image", "cut short", id="truncated-png"),
    pytest.param(form(RED[:10]), 400, "invalid_image", "cut short", id="ten-bytes-of-png"),
    pytest.param(form(png_header(20000, 20000)), 413, "image_too_large", "4,000,000", id="20000x20000"),
    pytest.param(form(png_header(2**31 - 1, 2**31 - 1)), 413, "image_too_large", "4,000,000", id="bomb-header"),
    pytest.param(
        form(encoded(Image.new("1", (20000, 1000)))), 413, "image_too_large", "4,000,000", id="decompression-bomb"
    ),
    pytest.param(raw(RED, "multipart/form-data"), 400, "invalid_request", "boundary", id="no-boundary"),
    pytest.param(
        raw(b"--x\r\nnonsense", "multipart/form-data; boundary=x"), 400, "invalid_request", "malformed", id="bad-form"
    ),
    pytest.param(
        raw(b"--x\r\nnonsense", "multipart/form-data; boundary=\xfc"),
        400,
        "invalid_request",
        "boundary",
        id="odd-boundary",
    ),
    pytest.param(raw(b'{"image": ', "application/json"), 400, "invalid_request", "not valid JSON", id="cut-json"),
    pytest.param(raw(b"\xff\xfe{}", "application/json"), 400, "invalid_request", "not valid JSON", id="json-encoding"),
    pytest.param(raw(b"[1]", "application/json"), 400, "invalid_request", '"image"', id="json-list"),
    pytest.param({"json": {"picture": "x"}}, 400, "invalid_request", '"image"', id="json-without-image"),
    pytest.param(
        {"json": {"image": 5}}, 400, "invalid_request", "Expected `str`, got `int` - at `$.image`", id="json-number"
    ),
    pytest.param({"json": {"image": None}}, 400, "invalid_request", "Expected `str`, got `null`", id="json-null"),
    pytest.param({"json": {"image": ""}}, 400, "invalid_request", "empty", id="json-empty-string"),
    pytest.param({"json": {"image": "$$$"}}, 400, "invalid_request", "base64", id="bad-base64"),
    pytest.param({"json": {"image": "abcde"}}, 400, "invalid_request", "base64", id="cut-base64"),
    pytest.param({"json": {"image": "ä"}}, 400, "invalid_request", "base64", id="base64-not-ascii"),
    pytest.param({"json": {"image": b64(b"text")}}, 415, "unsupported_image", "JPEG", id="base64-of-text"),
    pytest.param(raw(b'{"image": NaN}', "application/json"), 400, "invalid_request", "not valid JSON", id="json-nan"),
    pytest.param(
        raw(b'{"image": ' + b"9" * 5000 + b"}", "application/json"), 400, "invalid_request", "JSON", id="huge-integer"
    ),
    pytest.param(
        raw(b'{"a":' * 50 + b"[" * 40 + b'"x"', "application/json"), 400, "invalid_request", "JSON", id="nested"
    ),
    pytest.param(raw(b"[" * 100_000, "application/json"), 413, "too_many_items", "send fewer", id="nested-too-deep"),
    pytest.param(
        raw(b"[" + b"[]," * 100_000 + b"1]", "application/json"), 413, "too_many_items", "fewer", id="json-memory-bomb"
    ),
    pytest.param(raw(b"a=1", "text/plain"), 415, "unsupported_body", "'text/plain'", id="text-plain"),
    pytest.param(raw(b"\0" * 1_000_001, "image/png"), 413, "body_too_large", "1,000,000 bytes", id="body-over-limit"),
]


@pytest.mark.parametrize(("request_arguments", "status", "error", "hint"), BAD_REQUESTS)
def test_bad_input_is_told_what_to_change(
    client: FlaskClient, request_arguments: dict[str, Any], status: int, error: str, hint: str
) -> None:
    """Bad input is answered with the right status and JSON that names the error and says what to change."""
    response = client.post("/predict", **request_arguments)
    assert response.status_code == status, response.text
    answer = response.json
    assert answer is not None
    assert set(answer) == {"success", "error", "message"}
    assert answer["success"] is False
    assert answer["error"] == error
    assert hint in answer["message"]


@pytest.mark.parametrize("top", ["-1", "0", "00", "all", "1.5", "", "%C2%B2", "+1"])
def test_bad_top_is_refused(client: FlaskClient, top: str) -> None:
    """``top`` that is not a positive integer is a 400 that says so."""
    response = client.post(f"/predict?top={top}", **form(RED))
    assert response.status_code == 400
    assert "integer from 1 on" in response.json["message"]  # type: ignore[index]


@pytest.mark.parametrize(
    "request_arguments",
    [
        pytest.param(form(RED, GREEN, BLUE, field="images"), id="multipart-images"),
        pytest.param(form(RED, GREEN, BLUE, field="files"), id="multipart-files"),
        pytest.param({"json": {"images": [b64(RED), b64(GREEN), b64(BLUE)]}}, id="json"),
        pytest.param(raw(npy(tensor((255, 0, 0), (0, 255, 0), (0, 0, 255))), "application/x-npy"), id="npy"),
        pytest.param(raw(npy(tensor((9, 0, 0), (0, 9, 0), (0, 0, 9))), "application/octet-stream"), id="npy-by-magic"),
        pytest.param(
            raw(tensor((255, 0, 0), (0, 255, 0), (0, 0, 255)).tobytes(), "application/octet-stream"), id="raw-tensor"
        ),
    ],
)
def test_every_way_to_send_a_batch_answers_in_order(client: FlaskClient, request_arguments: dict[str, Any]) -> None:
    """A batch is classified item by item, in its order, whichever way it is sent."""
    response = client.post("/predict/batch", **request_arguments)
    assert response.status_code == 200, response.text
    answer = response.json
    assert answer is not None
    assert list(answer) == ["success", "results", "model"]
    assert answer["success"] is True
    assert labels_of(response) == ["red", "green", "blue"]
    assert [result["index"] for result in answer["results"]] == [0, 1, 2]


def test_bad_items_do_not_fail_the_others(client: FlaskClient) -> None:
    """Each item of a batch has its name and its own answer or error; ``success`` tells that one has an error."""
    files = [(RED, "a.png"), (b"text", "b.txt"), (BLUE, "c.png"), (RED[:40], "d.png"), (b"", "e.png")]
    response = client.post("/predict/batch?top=1", **form(*files, field="images"))
    assert response.status_code == 200
    answer = response.json
    assert answer is not None
    assert answer["success"] is False
    assert [result["filename"] for result in answer["results"]] == ["a.png", "b.txt", "c.png", "d.png", "e.png"]
    assert [result.get("error") for result in answer["results"]] == [
        None,
        "unsupported_image",
        None,
        "invalid_image",
        "invalid_image",
    ]
    assert answer["results"][0]["predictions"][0]["label"] == "red"
    assert answer["results"][2]["predictions"][0]["label"] == "blue"
    assert all(("predictions" in result) != ("error" in result) for result in answer["results"])


def test_bad_json_items_carry_their_error(client: FlaskClient) -> None:
    """A value of a JSON batch that is no base64 string fails alone."""
    answer = client.post("/predict/batch", json={"images": [7, b64(RED), "$"]}).json
    assert answer is not None
    assert [result.get("error") for result in answer["results"]] == ["invalid_request", None, "invalid_request"]


def test_long_batch_keeps_its_order(client: FlaskClient) -> None:
    """A batch of several engine batches comes back in order."""
    colours = [(255, 0, 0), (0, 255, 0), (0, 0, 255)]
    order = [index % 3 for index in range(100)]
    body = tensor(*(colours[index] for index in order)).tobytes()
    response = client.post("/predict/batch", **raw(body, "application/octet-stream"))
    assert labels_of(response) == [LABELS[index] for index in order]


ONE = tensor((1, 2, 3))
BAD_BATCHES = [
    pytest.param({"data": b""}, 400, "empty", id="empty"),
    pytest.param({"json": {"images": []}}, 400, "length >= 1", id="empty-list"),
    pytest.param({"json": {"images": "x"}}, 400, "Expected `array`, got `str`", id="not-a-list"),
    pytest.param({"json": {"image": "x"}}, 400, '"images"', id="single-key"),
    pytest.param({"json": {"images": ["x"] * 101}}, 413, "at most 100", id="over-the-limit"),
    pytest.param({"json": {"images": ["x"] * 10_000}}, 413, "fewer", id="ten-thousand-items"),
    pytest.param(form(*[RED] * 101, field="images"), 413, "100 parts", id="form-over-the-limit"),
    pytest.param(raw(bytes(101 * SIDE * SIDE * 3), "application/octet-stream"), 413, "at most 100", id="long-tensor"),
    pytest.param(raw(RED, "image/png"), 415, '"images"', id="one-raw-image"),
    pytest.param(raw(b"x" * 100, "application/octet-stream"), 400, "(32, 32, 3)", id="tensor-of-odd-length"),
    pytest.param(raw(b"x" * 100, "application/x-npy"), 400, "numpy.save", id="no-npy"),
    pytest.param(raw(npy(ONE)[:60], "application/x-npy"), 400, "header", id="npy-cut-in-header"),
    pytest.param(raw(npy(ONE)[:-1], "application/x-npy"), 400, "its header says 3072", id="npy-cut-short"),
    pytest.param(raw(npy(ONE) + b"x", "application/x-npy"), 400, "its header says 3072", id="npy-too-long"),
    pytest.param(raw(npy(ONE.astype(np.float32)), "application/x-npy"), 400, "uint8 [N, 32, 32, 3]", id="npy-float"),
    pytest.param(raw(npy(ONE[0]), "application/x-npy"), 400, "uint8 [N, 32, 32, 3]", id="npy-without-batch"),
    pytest.param(raw(npy(ONE[:, :16]), "application/x-npy"), 400, "[1, 16, 32, 3]", id="npy-of-another-size"),
    pytest.param(
        raw(npy(np.asfortranarray(tensor((1, 2, 3), (4, 5, 6)))), "application/x-npy"), 400, "Fortran", id="f"
    ),
    pytest.param(raw(npy(ONE[:0]), "application/x-npy"), 400, "[0, 32, 32, 3]", id="npy-of-nothing"),
    pytest.param(
        raw(npy(np.array([{}], dtype=object)), "application/x-npy"), 400, "uint8 [N, 32, 32, 3]", id="npy-of-objects"
    ),
    pytest.param(
        raw(npy(ONE).replace(b"(1, 32", b"(9**99, 32"), "application/x-npy"), 400, "header", id="npy-with-code"
    ),
]


@pytest.mark.parametrize(("request_arguments", "status", "hint"), BAD_BATCHES)
def test_bad_batch_is_told_what_to_change(
    client: FlaskClient, request_arguments: dict[str, Any], status: int, hint: str
) -> None:
    """A batch request that cannot be used at all is a 4xx with a message that helps."""
    response = client.post("/predict/batch", **request_arguments)
    assert response.status_code == status, response.text
    answer = response.json
    assert answer is not None
    assert answer["success"] is False
    assert hint in answer["message"]


def test_answer_is_plain_json(client: FlaskClient) -> None:
    """Answers are JSON that any parser takes: no NaN, numbers and not strings."""
    text = client.post("/predict", **form(RED)).text
    assert json.loads(text, parse_constant=pytest.fail)["predictions"][0]["probability"] > 0.99
