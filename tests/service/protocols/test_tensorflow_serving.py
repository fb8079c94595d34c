"""TensorFlow Serving's REST API, in this process: the cases of that server's own tests, and input that nobody means."""

import gzip
import json
import shutil
import time
from base64 import b64encode
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import requests
from flask.testing import FlaskClient
from jsonschema_rs import Draft202012Validator
from prometheus_client import CollectorRegistry
from werkzeug.test import TestResponse

from artifact.layout import METADATA, SAVED_MODEL
from service.app import create_app, make_services
from service.inference.items import Item
from service.observe.metrics import Metrics
from service.settings import Settings
from service.web.services import Services
from tests.models import LABELS, SIDE, copy
from tests.service.conftest import MakeServices, StartService
from tests.service.pictures import plain

MODEL = "/v1/models/colours"
COLOURS = {"red": (255, 0, 0), "green": (0, 255, 0), "blue": (0, 0, 255)}
FILES = {"red": "red", "green": "lime", "blue": "blue"}


def image(colour: str) -> Any:
    """Return an image of one colour in nested lists, [H][W][3]."""
    return np.full((SIDE, SIDE, 3), COLOURS[colour], np.uint8).tolist()


def flat(colour: str) -> list[int]:
    """Return an image of one colour as the flat list of a feature."""
    values: list[int] = np.array(image(colour)).ravel().tolist()
    return values


def b64(colour: str) -> dict[str, str]:
    """Return a picture of one colour as the content of a file."""
    return {"b64": b64encode(plain(FILES[colour])).decode()}


RED, GREEN, BLUE = image("red"), image("green"), image("blue")
BYTES = {"signature_name": "serve_bytes"}


def best(response: TestResponse) -> list[str]:
    """Return the most probable label of each row or column of an answer to predict."""
    assert response.status_code == 200, response.text
    rows = next(iter(response.json.values()))  # type: ignore[union-attr]
    return [LABELS[int(np.argmax(row))] for row in rows]


def error(response: TestResponse) -> str:
    """Return the message of an error, which is all that its body has."""
    assert response.json is not None
    assert list(response.json) == ["error"], response.text
    assert response.content_type == "application/json"
    message: str = response.json["error"]
    return message


def version(number: int, state: str, code: str = "OK", message: str = "") -> dict[str, Any]:
    """Return the status of one version as it is answered."""
    return {"version": str(number), "state": state, "status": {"error_code": code, "error_message": message}}


def states(client: FlaskClient, path: str = MODEL) -> list[Any]:
    """Return the states that a status request tells."""
    answer = client.get(path).json
    assert answer is not None
    found: list[Any] = answer["model_version_status"]
    return found


# Status


def test_status(client: FlaskClient) -> None:
    """The status of all versions, and of one, is that of TensorFlow Serving's documentation; KServe's word is added."""
    listed = {
        "model_version_status": [
            {"version": "1", "state": "AVAILABLE", "status": {"error_code": "OK", "error_message": ""}}
        ]
    }
    for path in (f"{MODEL}/versions/1", f"{MODEL}/versions/01", f"{MODEL}/versions/0"):
        response = client.get(path)
        assert response.status_code == 200
        assert response.json == listed
    assert client.get(MODEL).json == {**listed, "ready": True}


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("/v1/models/foo", "Could not find any versions of model foo"),
        ("/v1/models/foo/versions/1", "Could not find any versions of model foo"),
        (f"{MODEL}/versions/99", "Could not find version 99 of model colours"),
        (f"{MODEL}/versions/{2**63 - 1}", f"Could not find version {2**63 - 1} of model colours"),
        ("/v1/models/foo/metadata", "Servable not found for request: Latest(foo). There is no model 'foo' here"),
        (f"{MODEL}/versions/7/metadata", "Servable not found for request: Specific(colours, 7). Version 7"),
    ],
)
def test_unknown_model_or_version_is_not_found(client: FlaskClient, path: str, message: str) -> None:
    """What is not served is a 404 that begins as TensorFlow Serving's does."""
    response = client.get(path)
    assert response.status_code == 404
    assert error(response).startswith(message)


@pytest.fixture
def services(services_of: MakeServices, models: Path) -> Services:
    """The parts of a service of the test's own, that has loaded version 1."""
    return services_of(model_dir=models)


@pytest.fixture
def own(services: Services) -> FlaskClient:
    """A client of the service of the test's own."""
    return create_app(services).test_client()


def test_status_follows_a_swap(services: Services, own: FlaskClient, models: Path, published: Path) -> None:
    """A new version takes over, and the one before unloads while it is in use and then has its end."""
    copy(published, models, 2)
    assert states(own) == [version(1, "AVAILABLE")]  # until the next look
    with services.registry.use() as model:
        services.models.refresh()
        assert states(own) == [version(2, "AVAILABLE"), version(1, "UNLOADING")]
    model.batcher.join(10)
    assert states(own) == [version(2, "AVAILABLE"), version(1, "END")]
    assert states(own, f"{MODEL}/versions/1") == [version(1, "END")]


def test_status_of_a_refused_version(services: Services, own: FlaskClient, models: Path, published: Path) -> None:
    """A version that is kept out has its end with the reason; the one before is available, and can be asked for."""
    (copy(published, models, 2) / METADATA).write_text("{")
    services.models.refresh()
    refused, served = states(own)
    fault = services.registry.refused[0].reason
    assert (refused, served) == (version(2, "END", "FAILED_PRECONDITION", fault), version(1, "AVAILABLE"))
    assert states(own, f"{MODEL}/versions/2") == [refused]
    response = own.post(f"{MODEL}/versions/2:predict", json={"instances": [RED]})
    assert response.status_code == 404
    assert error(response).startswith("Servable not found for request: Specific(colours, 2).")


def test_status_passes_over_what_is_not_served(services_of: MakeServices, models: Path, published: Path) -> None:
    """Versions that are older than the one that answers, or beside the one that is pinned, are not known."""
    copy(published, models, 2)
    newest = create_app(services_of(model_dir=models)).test_client()
    pinned = create_app(services_of(model_dir=models, model_version=1)).test_client()
    assert states(newest) == [version(2, "AVAILABLE")]
    assert states(pinned) == [version(1, "AVAILABLE")]
    assert newest.get(f"{MODEL}/versions/1").status_code == 404
    assert pinned.get(f"{MODEL}/versions/2").status_code == 404


@pytest.fixture
def starting(models: Path) -> Iterator[FlaskClient]:
    """A client of a service that knows its model's name and has not looked at the folder yet."""
    settings = Settings(model_dir=models, model_name="colours")
    services = make_services(settings, Metrics(CollectorRegistry()), draining=lambda: False)
    yield create_app(services).test_client()
    services.models.close()


def test_before_the_first_look(starting: FlaskClient) -> None:
    """While the service starts, what is on disk starts, and what needs a model is a 503 that says when to try again."""
    assert states(starting) == [version(1, "START")]
    for response in (
        starting.get(f"{MODEL}/metadata"),
        starting.post(f"{MODEL}:predict", json={"instances": [RED]}),
        starting.post(f"{MODEL}/versions/1:classify", json={"examples": [{"images": flat("red")}]}),
    ):
        assert response.status_code == 503
        assert response.headers["Retry-After"] == "5"
        assert "still being loaded" in error(response)


def test_without_a_model(services_of: MakeServices, tmp_path: Path) -> None:
    """Where there is no version of the model that was chosen, its status is a 404; where none was chosen, all is."""
    chosen = create_app(services_of(model_dir=tmp_path, model_name="colours")).test_client()
    assert error(chosen.get(MODEL)) == "Could not find any versions of model colours"
    assert chosen.post(f"{MODEL}:predict", json={"instances": [RED]}).status_code == 503
    none = create_app(services_of(model_dir=tmp_path)).test_client()
    assert none.get(MODEL).status_code == 404
    assert none.post(f"{MODEL}:predict", json={"instances": [RED]}).status_code == 404


# Metadata


def tensor(name: str, dtype: str, *sizes: int) -> dict[str, Any]:
    """Return one input or output as TensorFlow Serving writes it."""
    dimensions = [{"size": str(size), "name": ""} for size in sizes]
    return {"dtype": dtype, "tensor_shape": {"dim": dimensions, "unknown_rank": False}, "name": name}


def signature(inputs: dict[str, Any], call: str) -> dict[str, Any]:
    """Return a signature of the colours as TensorFlow Serving writes it; ``call`` is its function in the graph."""
    return {
        "inputs": inputs,
        "outputs": {
            "familiarity": tensor(f"{call}:0", "DT_FLOAT", -1),
            "probabilities": tensor(f"{call}:1", "DT_FLOAT", -1, 3),
        },
        "method_name": "tensorflow/serving/predict",
        "defaults": {},
    }


@pytest.mark.parametrize("path", [f"{MODEL}/metadata", f"{MODEL}/versions/1/metadata"])
def test_metadata(client: FlaskClient, path: str) -> None:
    """Metadata has the signatures of the SavedModel as protocol buffers in JSON: sizes and the version are strings."""
    initialiser = tensor("NoOp", "DT_INVALID")
    initialiser["tensor_shape"]["unknown_rank"] = True
    assert client.get(path).json == {
        "model_spec": {"name": "colours", "signature_name": "", "version": "1"},
        "metadata": {
            "signature_def": {
                "signature_def": {
                    "serving_default": signature(
                        {"images": tensor("serving_default_images:0", "DT_UINT8", -1, SIDE, SIDE, 3)},
                        "StatefulPartitionedCall_1",
                    ),
                    "serve_bytes": signature(
                        {"image_bytes": tensor("serve_bytes_image_bytes:0", "DT_STRING", -1)},
                        "StatefulPartitionedCall",
                    ),
                    "__saved_model_init_op": {
                        "inputs": {},
                        "outputs": {"__saved_model_init_op": initialiser},
                        "method_name": "",
                        "defaults": {},
                    },
                }
            }
        },
    }


def test_metadata_of_a_version_that_was_removed(own: FlaskClient, models: Path) -> None:
    """A version that answers from memory but is gone from the disk has no metadata: a 503 says so."""
    shutil.rmtree(models / "colours")
    response = own.get(f"{MODEL}/metadata")
    assert response.status_code == 503
    assert SAVED_MODEL in error(response)
    assert best(own.post(f"{MODEL}:predict", json={"instances": [RED]})) == ["red"]


# Predict


def test_version_0_is_the_one_that_answers(client: FlaskClient) -> None:
    """Metadata and predictions of version 0 are those of the served version, as OpenVINO's client asks."""
    assert client.get(f"{MODEL}/versions/0/metadata").json == client.get(f"{MODEL}/versions/1/metadata").json
    assert best(client.post(f"{MODEL}/versions/0:predict", json={"instances": [RED]})) == ["red"]


GOOD = [
    pytest.param({"instances": [RED, BLUE]}, id="rows"),
    pytest.param({"instances": [{"images": RED}, {"images": BLUE}]}, id="named-rows"),
    pytest.param({"instances": [RED, {"images": BLUE}]}, id="mixed-rows"),
    pytest.param({"inputs": [RED, BLUE]}, id="columns"),
    pytest.param({"inputs": {"images": [RED, BLUE]}}, id="named-columns"),
    pytest.param({"inputs": {"images": [RED, BLUE], "other": 1}}, id="columns-with-another"),
    pytest.param({"signature_name": "", "instances": [RED, BLUE]}, id="empty-signature"),
    pytest.param({"signature_name": "serving_default", "instances": [RED, BLUE]}, id="named-signature"),
    pytest.param({"instances": [RED, BLUE], "parameters": {"x": [None]}}, id="other-key"),
    pytest.param({**BYTES, "instances": [b64("red"), b64("blue")]}, id="bytes-rows"),
    pytest.param(
        {**BYTES, "instances": [{"image_bytes": b64("red")}, {"image_bytes": b64("blue")}]}, id="bytes-named-rows"
    ),
    pytest.param({**BYTES, "inputs": [b64("red"), b64("blue")]}, id="bytes-columns"),
    pytest.param({**BYTES, "inputs": {"image_bytes": [b64("red"), b64("blue")]}}, id="bytes-named-columns"),
    pytest.param({"instances": [b64("red"), b64("blue")]}, id="bytes-without-signature"),
    pytest.param({"inputs": {"images": [b64("red"), b64("blue")]}}, id="bytes-as-model-server"),
    pytest.param({"instances": [{"images": b64("red")}, {"images": b64("blue")}]}, id="bytes-rows-as-model-server"),
]


@pytest.mark.parametrize("path", [f"{MODEL}:predict", f"{MODEL}/versions/1:predict"])
@pytest.mark.parametrize("body", GOOD)
def test_predict(client: FlaskClient, path: str, body: dict[str, Any]) -> None:
    """Rows and columns, images and files, bare and by name, are predicted in order; the one output has no name."""
    response = client.post(path, json=body)
    assert best(response) == ["red", "blue"]
    assert list(response.json or {}) == ["predictions" if "instances" in body else "outputs"]


def test_version_in_the_path_chooses(own: FlaskClient, services: Services, models: Path, published: Path) -> None:
    """The version in the path is the one that answers; without one it is the newest."""
    copy(published, models, 2)
    services.models.refresh()
    body = {"instances": [RED]}
    assert best(own.post(f"{MODEL}:predict", json=body)) == ["red"]
    assert best(own.post(f"{MODEL}/versions/2:predict", json=body)) == ["red"]
    response = own.post(f"{MODEL}/versions/1:predict", json=body)
    assert response.status_code == 404
    assert "version 2 is" in error(response)


@pytest.mark.parametrize(
    "path",
    [
        "/v1/models/foo:predict",
        "/v1/models/foo/versions/50:predict",
        f"{MODEL}99:predict",
        f"{MODEL}/versions/99:predict",
    ],
)
def test_predict_by_an_unknown_model_or_version(client: FlaskClient, path: str) -> None:
    """A model or a version that is not served is a 404."""
    response = client.post(path, json={"instances": [1]})
    assert response.status_code == 404
    assert error(response).startswith("Servable not found for request: ")


@pytest.mark.parametrize(
    "content_type", ["application/x-www-form-urlencoded", "text/plain", "multipart/form-data", "image/png", None]
)
def test_content_type_does_not_matter(client: FlaskClient, content_type: str | None) -> None:
    """The body is JSON whatever its content type says, such as what curl -d sends."""
    body = json.dumps({"instances": [GREEN]})
    assert best(client.post(f"{MODEL}:predict", data=body, content_type=content_type)) == ["green"]


def test_numbers_are_exact_and_short(client: FlaskClient, app: Any) -> None:
    """Every probability reads back as the float32 that the engine gave, in as few digits as that takes."""
    images = np.random.default_rng(1).integers(0, 256, (20, SIDE, SIDE, 3), dtype=np.uint8)
    services: Services = app.extensions["services"]
    with services.registry.use() as model:
        answers = services.predictor.predict_all(model, [Item(image) for image in images], services.deadline())
    body = json.dumps({"instances": images.tolist()}, separators=(",", ":"))
    answer = json.loads(client.post(f"{MODEL}:predict", data=body).text, parse_float=str)
    assert answer["predictions"] == [[str(value) for value in row] for row in answers.probabilities]


def test_only_probabilities_are_answered(telling: FlaskClient) -> None:
    """A version that tells more answers as one that does not, so that its clients need not change."""
    assert best(telling.post(f"{MODEL}:predict", json={"instances": [RED]})) == ["red"]
    columns = telling.post(f"{MODEL}:predict", json={"inputs": {"images": [RED, BLUE]}}).json
    assert np.shape(columns["outputs"]) == (2, 3)  # type: ignore[index]
    classes = telling.post(f"{MODEL}:classify", json={"examples": [{"images": flat("red")}]}).json
    assert [label for label, _ in classes["results"][0]] == ["red", "green", "blue"]  # type: ignore[index]


def pixels(*values: Any) -> list[Any]:
    """Return an image whose first pixel is ``values``."""
    return [[list(values), *RED[0][1:]], *RED[1:]]


# What the types forbid: a fault of the form, which the description forbids as well.
BAD_FORMS = [
    pytest.param({}, "instances and inputs", id="neither"),
    pytest.param({"instances": [RED], "inputs": [RED]}, "instances and inputs", id="both"),
    pytest.param({"instances": []}, "`array` of length >= 1 - at `$.instances`", id="no-rows"),
    pytest.param({"inputs": []}, "`array` of length >= 1 - at `$.inputs`", id="no-columns"),
    pytest.param({"inputs": {}}, "`images` - at `$.inputs`", id="empty-columns"),
    pytest.param({"inputs": {"images": []}}, "length >= 1 - at `$.inputs.images`", id="no-named-columns"),
    pytest.param({"instances": None}, "got `null` - at `$.instances`", id="null"),
    pytest.param({"instances": 1}, "got `int` - at `$.instances`", id="number"),
    pytest.param({"instances": "x"}, "got `str` - at `$.instances`", id="string"),
    pytest.param({"instances": {"images": RED}}, "got `object` - at `$.instances`", id="object"),
    pytest.param({"instances": ["x", "y"]}, "at `$.instances[0]`", id="strings"),
    pytest.param({"instances": RED}, "at `$.instances[0][0][0]`", id="image-without-batch"),
    pytest.param({"instances": [[RED]]}, "got `array` - at `$.instances[0][0][0][0]`", id="one-list-too-many"),
    pytest.param({"instances": [RED, RED[:-1]]}, "length >= 32 - at `$.instances[1]`", id="a-row-of-pixels-too-few"),
    pytest.param({"instances": [[*RED, RED[0]]]}, "length <= 32 - at `$.instances[0]`", id="a-row-of-pixels-too-many"),
    pytest.param({"instances": [[RED[0][:-1], *RED[1:]]]}, "length >= 32 - at `$.instances[0][0]`", id="ragged"),
    pytest.param({"instances": [pixels(1, 2)]}, "length >= 3 - at `$.instances[0][0][0]`", id="two-channels"),
    pytest.param({"instances": [pixels(1, 2, 3, 4)]}, "length <= 3 - at `$.instances[0][0][0]`", id="four-channels"),
    pytest.param({"instances": [pixels()]}, "length >= 3 - at `$.instances[0][0][0]`", id="no-channels"),
    pytest.param({"instances": [pixels(1, [2], 3)]}, "at `$.instances[0][0][0][1]`", id="list-for-a-number"),
    pytest.param({"instances": [RED, pixels(1, 300, 3)]}, "<= 255 - at `$.instances[1][0][0][1]`", id="over-255"),
    pytest.param({"instances": [pixels(1, 2, 256)]}, "<= 255 - at `$.instances[0][0][0][2]`", id="256"),
    pytest.param({"instances": [pixels(-1, 2, 3)]}, ">= 0 - at `$.instances[0][0][0][0]`", id="negative"),
    pytest.param({"instances": [pixels(2**31, 2, 3)]}, "<= 255 - at", id="over-int32"),
    pytest.param({"instances": [pixels(2**64, 2, 3)]}, "<= 255 - at", id="over-int64"),
    pytest.param({"instances": [pixels(-(2**64), 2, 3)]}, ">= 0 - at", id="under-int64"),
    pytest.param({"instances": [pixels(0.5, 2, 3)]}, "got `float` - at `$.instances[0][0][0][0]`", id="float"),
    pytest.param({"instances": [pixels(True, 2, 3)]}, "got `bool` - at `$.instances[0][0][0][0]`", id="boolean"),
    pytest.param({"instances": [pixels(None, 2, 3)]}, "got `null` - at `$.instances[0][0][0][0]`", id="null-pixel"),
    pytest.param({"instances": [pixels("1", 2, 3)]}, "got `str` - at `$.instances[0][0][0][0]`", id="string-pixel"),
    pytest.param({"inputs": {"images": [pixels(1, 2, 256)]}}, "at `$.inputs.images[0][0][0][2]`", id="column"),
    pytest.param({"instances": [{"images": pixels(1, 2, 256)}]}, "`$.instances[0].images[0][0][2]`", id="named-row"),
    pytest.param({"instances": [{"images": RED, "x": 1}]}, "unknown field `x` - at `$.instances[0]`", id="other-name"),
    pytest.param({"instances": [{"pictures": RED}]}, "`pictures` - at `$.instances[0]`", id="wrong-name"),
    pytest.param({"instances": [{}]}, "`images` - at `$.instances[0]`", id="empty-row"),
    pytest.param({"signature_name": "serving_default", "instances": [b64("red")]}, "at `$.instances[0]`", id="file"),
    pytest.param({"instances": [b64("red"), RED]}, "at `$.instances[1]`", id="file-and-image"),
    pytest.param({"signature_name": 100}, "got `int` - at `$.signature_name`", id="number-as-signature"),
    pytest.param({"signature_name": None, "instances": [RED]}, "`$.signature_name`", id="null-as-signature"),
    pytest.param({"signature_name": "x", "instances": [RED]}, '"x" not found in signature def', id="no-signature"),
    pytest.param(
        {"signature_name": "__saved_model_init_op", "instances": [RED]}, "not found in signature def", id="initialiser"
    ),
    pytest.param({**BYTES, "instances": [RED]}, "at `$.instances[0]`", id="image-as-file"),
    pytest.param({**BYTES, "instances": ["abcd"]}, "got `str` - at `$.instances[0]`", id="text-as-file"),
    pytest.param({**BYTES, "instances": []}, "length >= 1 - at `$.instances`", id="no-files"),
    pytest.param({**BYTES, "inputs": []}, "length >= 1 - at `$.inputs`", id="no-file-columns"),
    pytest.param(
        {**BYTES, "inputs": b64("red")}, "image_bytes and images - at `$.inputs`", id="one-file-without-batch"
    ),
    pytest.param({**BYTES}, "instances and inputs", id="neither-of-files"),
    pytest.param({**BYTES, "instances": [b64("red")], "inputs": [b64("red")]}, "instances and inputs", id="both-files"),
    pytest.param({**BYTES, "instances": [{"b64": 1}]}, "got `int` - at `$.instances[0].b64`", id="number-as-base64"),
    pytest.param({**BYTES, "instances": [{"b64": ""}]}, "at `$.instances[0].b64`", id="empty-file"),
    pytest.param({**BYTES, "instances": [{"b64": "AA==", "x": 1}]}, "unknown field `x`", id="file-and-another-key"),
    pytest.param({**BYTES, "inputs": {}}, "image_bytes and images", id="no-file-column"),
    pytest.param(
        {"inputs": {"images": [b64("red")], "image_bytes": [b64("red")]}}, "image_bytes and images", id="two-columns"
    ),
    pytest.param({**BYTES, "instances": [{}]}, "and images - at `$.instances[0]`", id="no-file"),
    pytest.param(
        {**BYTES, "instances": [{**b64("red"), "image_bytes": b64("red")}]},
        "and images - at `$.instances[0]`",
        id="two-files-in-a-row",
    ),
    pytest.param({**BYTES, "inputs": {"image_bytes": b64("red")}}, "at `$.inputs.image_bytes`", id="column-no-list"),
]


@pytest.mark.parametrize(("body", "hint"), BAD_FORMS)
def test_bad_form_is_told_with_its_place(client: FlaskClient, body: dict[str, Any], hint: str) -> None:
    """What does not have the form of the signature is a 400 that says where in the JSON the fault is."""
    response = client.post(f"{MODEL}:predict", json=body)
    assert response.status_code == 400
    assert hint in error(response)


# What the description cannot forbid: a fault of the content, or of the JSON itself.
BAD_CONTENTS = [
    pytest.param(b"", "truncated", id="empty"),
    pytest.param(b"instances = [1, 2]", "not valid JSON", id="no-json"),
    pytest.param(b'{"instances": [1', "not valid JSON", id="cut"),
    pytest.param(b'{"instances": [1]} x', "not valid JSON", id="more-than-json"),
    pytest.param(b"\xff\xfe{}", "not valid JSON", id="other-encoding"),
    pytest.param(b'{"signature_name": "\xff"}', "JSON", id="not-utf-8"),
    pytest.param(b"[1]", "got `array`", id="list"),
    pytest.param(b"1", "got `int`", id="number"),
    pytest.param(b'{"instances": [NaN]}', "not valid JSON", id="nan"),
    pytest.param(b'{"instances": [[[[-Infinity]]]]}', "not valid JSON", id="infinity"),
    pytest.param(b'{"instances": [' + b"9" * 5000 + b"]}", "JSON", id="huge-integer"),
    pytest.param(json.dumps({"instances": [pixels(1.0, 2, 3)]}).encode(), "got `float`", id="whole-float"),
    pytest.param(json.dumps({"instances": [pixels(1e2, 2, 3)]}).encode(), "got `float`", id="exponent"),
    pytest.param(json.dumps({**BYTES, "instances": [{"b64": "$$$$"}]}).encode(), "base64", id="no-base64"),
    pytest.param(json.dumps({**BYTES, "instances": [{"b64": "abcde"}]}).encode(), "base64", id="cut-base64"),
    pytest.param(
        json.dumps({**BYTES, "instances": [b64("red"), {"b64": "dGV4dA=="}]}).encode(), "Picture 1: ", id="no-picture"
    ),
    pytest.param(
        json.dumps({**BYTES, "inputs": [{"b64": b64encode(plain("red")[:40]).decode()}]}).encode(),
        "cut short",
        id="cut-picture",
    ),
    pytest.param(
        json.dumps({**BYTES, "instances": [{"b64": "AA=="}] * 101}).encode(), "at most 100", id="too-many-files"
    ),
    pytest.param(b'{"instances": [' + b"[]," * 300_000 + b"1]}", "send fewer", id="memory-bomb"),
]


@pytest.mark.parametrize(("body", "hint"), BAD_CONTENTS)
def test_bad_content_is_told(client: FlaskClient, body: bytes, hint: str) -> None:
    """What is no JSON, no picture, or too much, is a 400 that says so; clients of this API expect no other status."""
    response = client.post(f"{MODEL}:predict", data=body)
    assert response.status_code == 400
    assert hint in error(response)


def test_too_many_images(client: FlaskClient) -> None:
    """More images than are allowed in one request are refused, however they are written."""
    small = json.dumps(np.zeros((101, SIDE, SIDE, 3), np.uint8).tolist(), separators=(",", ":")).encode()
    for body in (b'{"instances":' + small + b"}", b'{"inputs":{"images":' + small + b"}}"):
        response = client.post(f"{MODEL}:predict", data=body)
        assert response.status_code == 400
        assert "send fewer" in error(response)


@pytest.mark.parametrize(
    "start",
    [b"", b'{"instances":', b'{"inputs":{"images":', b'{"signature_name":', b'{"other":', b'{"examples":[{"images":'],
)
@pytest.mark.parametrize("bracket", [b"[", b'{"a":'])
@pytest.mark.parametrize("verb", ["predict", "classify"])
def test_deep_nesting_is_refused_at_once(client: FlaskClient, start: bytes, bracket: bytes, verb: str) -> None:
    """A hundred thousand brackets, anywhere, are a 400 and take no time."""
    started = time.monotonic()
    response = client.post(f"{MODEL}:{verb}", data=start + bracket * 100_000)
    assert response.status_code == 400
    assert time.monotonic() - started < 1
    assert error(response)


def test_of_equal_keys_the_last_counts(client: FlaskClient) -> None:
    """A key that is there twice counts by its last value, as in most readers of JSON; each value must be right."""
    body = '{"signature_name": "serving_default", "instances": %s, "instances": %s, "signature_name": ""}'
    assert best(client.post(f"{MODEL}:predict", data=body % (json.dumps([RED]), json.dumps([BLUE])))) == ["blue"]
    assert client.post(f"{MODEL}:predict", data=body % ("[1]", json.dumps([BLUE]))).status_code == 400


# Classify


def scores(response: TestResponse) -> list[list[tuple[str, float]]]:
    """Return the pairs of label and score that classify answered."""
    assert response.status_code == 200, response.text
    assert response.json is not None
    assert list(response.json) == ["results"]
    return [[(label, score) for label, score in example] for example in response.json["results"]]


@pytest.mark.parametrize("path", [f"{MODEL}:classify", f"{MODEL}/versions/1:classify"])
@pytest.mark.parametrize(
    "body",
    [
        pytest.param({"examples": [{"images": flat("red")}, {"images": flat("blue")}]}, id="images"),
        pytest.param({"examples": [{"image_bytes": b64("red")}, {"image_bytes": b64("blue")}]}, id="files"),
        pytest.param(
            {"examples": [{"image_bytes": [b64("red")]}, {"image_bytes": [b64("blue")]}]}, id="files-in-lists"
        ),
        pytest.param({"examples": [{"image_bytes": b64("red")}, {"images": flat("blue")}]}, id="one-of-each"),
        pytest.param(
            {**BYTES, "examples": [{"image_bytes": b64("red")}, {"image_bytes": b64("blue")}]}, id="signature"
        ),
        pytest.param(
            {
                "signature_name": "serving_default",
                "context": {"caption": "seaside"},
                "examples": [{"images": flat("red"), "weight": 1.5}, {"images": flat("blue")}],
            },
            id="other-features",
        ),
    ],
)
def test_classify(client: FlaskClient, path: str, body: dict[str, Any]) -> None:
    """Examples are answered in order by labels with their scores, the highest first."""
    red, blue = scores(client.post(path, json=body))
    assert [label for label, _ in red] == ["red", "green", "blue"]
    assert [label for label, _ in blue] == ["blue", "red", "green"]
    assert [score for _, score in red] == pytest.approx([0.99933, 0.000335, 0.000335], abs=1e-5)


@pytest.mark.parametrize("feature", [{"images": flat("blue")}, {"image_bytes": b64("blue")}])
def test_context_is_part_of_every_example(client: FlaskClient, feature: dict[str, Any]) -> None:
    """A picture in the context is the picture of every example."""
    results = scores(client.post(f"{MODEL}:classify", json={"context": feature, "examples": [{}, {"caption": "x"}]}))
    assert [example[0][0] for example in results] == ["blue", "blue"]


BAD_CLASSIFY = [
    pytest.param({}, "`examples`", id="no-examples"),
    pytest.param({"instances": [RED]}, "`examples`", id="instances"),
    pytest.param({"examples": []}, "length >= 1 - at `$.examples`", id="empty"),
    pytest.param({"examples": {"images": flat("red")}}, "got `object` - at `$.examples`", id="object"),
    pytest.param({"examples": [flat("red")]}, "got `array` - at `$.examples[0]`", id="list"),
    pytest.param({"examples": [{"images": flat("red")}, {}]}, "Example 1 has 0 pictures", id="none"),
    pytest.param({"examples": [{"images": flat("red"), "image_bytes": b64("red")}]}, "0 has 2 pictures", id="two"),
    pytest.param(
        {"context": {"images": flat("red")}, "examples": [{"image_bytes": b64("red")}]},
        "Example 0 has 2 pictures",
        id="in-the-context-too",
    ),
    pytest.param(
        {"context": {"images": flat("red"), "image_bytes": b64("red")}, "examples": [{}]},
        "Example 0 has 2 pictures",
        id="two-in-the-context",
    ),
    pytest.param({"examples": [{"images": RED}]}, "at `$.examples[0].images", id="nested"),
    pytest.param(
        {"examples": [{"images": flat("red")[:-1]}]}, "length >= 3072 - at `$.examples[0].images`", id="short"
    ),
    pytest.param(
        {"examples": [{"images": [*flat("red"), 1]}]}, "length <= 3072 - at `$.examples[0].images`", id="long"
    ),
    pytest.param({"examples": [{"images": [256, *flat("red")[1:]]}]}, "at `$.examples[0].images[0]`", id="256"),
    pytest.param({"examples": [{"images": [-1, *flat("red")[1:]]}]}, "at `$.examples[0].images[0]`", id="negative"),
    pytest.param({"examples": [{"images": [0.5, *flat("red")[1:]]}]}, "at `$.examples[0].images[0]`", id="float"),
    pytest.param({"examples": [{"images": [True, *flat("red")[1:]]}]}, "at `$.examples[0].images[0]`", id="boolean"),
    pytest.param({"examples": [{"images": None}]}, "got `null` - at `$.examples[0].images`", id="null"),
    pytest.param({"examples": [{"image_bytes": "abcd"}]}, "at `$.examples[0].image_bytes`", id="text"),
    pytest.param({"examples": [{"image_bytes": []}]}, "length >= 1 - at `$.examples[0].image_bytes`", id="no-file"),
    pytest.param({"examples": [{"image_bytes": [b64("red")] * 2}]}, "length <= 1", id="two-files"),
    pytest.param({"examples": [{}], "context": 1}, "at `$.context`", id="context-number"),
    pytest.param({"examples": [{"images": flat("red")}], "signature_name": "x"}, "at `$.signature_name`", id="sign"),
]


@pytest.mark.parametrize(("body", "hint"), BAD_CLASSIFY)
def test_bad_classify_is_told(client: FlaskClient, body: dict[str, Any], hint: str) -> None:
    """Examples that do not have one picture each, in a form that is taken, are a 400 that says where."""
    response = client.post(f"{MODEL}:classify", json=body)
    assert response.status_code == 400
    assert hint in error(response)


def test_too_many_examples(client: FlaskClient) -> None:
    """More examples than are allowed are refused, though they share one picture."""
    body = {"context": {"image_bytes": b64("red")}, "examples": [{}] * 101}
    response = client.post(f"{MODEL}:classify", json=body)
    assert response.status_code == 400
    assert "at most 100" in error(response)


# The description


@pytest.fixture(scope="module")
def schema_of(app: Any) -> Any:
    """Makes a validator of what ``/openapi.json`` says of the body of a route."""
    description = app.test_client().get("/openapi.json").json

    def make(verb: str) -> Draft202012Validator:
        body = description["paths"][f"/v1/models/{{name}}:{verb}"]["post"]["requestBody"]
        schema = body["content"]["application/json"]["schema"]
        return Draft202012Validator({**schema, "components": description["components"]})

    return make


def test_description_allows_what_is_taken(schema_of: Any) -> None:
    """The schemas of the bodies allow all that these tests send and that is predicted."""
    predict = schema_of("predict")
    refused = [case.id for case in GOOD if not predict.is_valid(case.values[0])]
    assert refused == []
    classify = schema_of("classify")
    assert classify.is_valid({"examples": [{"images": flat("red")}, {"image_bytes": b64("red")}], "context": {"x": 1}})
    assert classify.is_valid({"examples": [{}, {"x": None}], "context": {"images": flat("red")}})


def test_description_forbids_what_is_refused(schema_of: Any) -> None:
    """The schemas of the bodies forbid all that these tests send in a wrong form."""
    predict, classify = schema_of("predict"), schema_of("classify")
    assert [case.id for case in BAD_FORMS if predict.is_valid(case.values[0])] == []
    assert [case.id for case in BAD_CLASSIFY if classify.is_valid(case.values[0])] == []


# Paths, methods, bodies


@pytest.mark.parametrize(
    ("method", "path", "message"),
    [
        ("GET", "/v1/foo", "Malformed request: GET /v1/foo"),
        ("POST", "/v1/foo", "Malformed request: POST /v1/foo"),
        ("GET", "/v1/models", "Missing model name in request."),
        ("POST", "/v1/models", "Malformed request: POST /v1/models"),
        ("GET", "/v1/models/", "Malformed request: GET /v1/models/"),
        ("GET", "/v1/models/debug/model_name", "Malformed request: GET /v1/models/debug/model_name"),
        ("POST", f"{MODEL}:unknown", f"Malformed request: POST {MODEL}:unknown"),
        ("POST", f"{MODEL}:predict/", f"Malformed request: POST {MODEL}:predict/"),
        ("GET", f"{MODEL}/version/50:predict", f"Malformed request: GET {MODEL}/version/50:predict"),
        ("POST", f"{MODEL}/version/50:regress", f"Malformed request: POST {MODEL}/version/50:regress"),
        ("POST", f"{MODEL}/versions/HELLO:predict", f"Malformed request: POST {MODEL}/versions/HELLO:predict"),
        ("POST", f"{MODEL}/versions/-1:predict", f"Malformed request: POST {MODEL}/versions/-1:predict"),
        ("POST", f"{MODEL}/versions/1.0:predict", f"Malformed request: POST {MODEL}/versions/1.0:predict"),
        ("POST", f"{MODEL}/versions/:predict", f"Malformed request: POST {MODEL}/versions/:predict"),
        ("POST", f"{MODEL}/versions/{2**64 - 1}:predict", f"Failed to convert version: {2**64 - 1} to numeric."),
        ("GET", f"{MODEL}/versions/{2**63}", f"Failed to convert version: {2**63} to numeric."),
        ("POST", f"{MODEL}/label/some:regress", f"Malformed request: POST {MODEL}/label/some:regress"),
        (
            "POST",
            f"{MODEL}/versions/50/labels/some:regress",
            f"Malformed request: POST {MODEL}/versions/50/labels/some:regress",
        ),
        ("POST", f"{MODEL}/labels/canary:predict", "Unrecognized servable version label: canary."),
        ("POST", f"{MODEL}/labels/canary:classify", "Unrecognized servable version label: canary."),
        ("GET", f"{MODEL}/labels/canary", "Unrecognized servable version label: canary."),
        ("GET", f"{MODEL}/labels/canary/metadata", "Unrecognized servable version label: canary."),
        ("POST", f"{MODEL}:regress", "The model is a classifier"),
        ("POST", f"{MODEL}/versions/1:regress", "The model is a classifier"),
        ("GET", f"{MODEL}:regress", f"Malformed request: GET {MODEL}:regress"),
    ],
)
def test_malformed_path(client: FlaskClient, method: str, path: str, message: str) -> None:
    """A path that is none of this API's is a 400, as it is for TensorFlow Serving; so are labels and regression."""
    response = client.open(path, method=method, data=b"{}")
    assert response.status_code == 400
    assert error(response).startswith(message)


@pytest.mark.parametrize(
    ("method", "path", "allowed"),
    [
        ("GET", f"{MODEL}:predict", "POST"),
        ("PUT", f"{MODEL}/versions/1:predict", "POST"),
        ("DELETE", f"{MODEL}:classify", "POST"),
        ("POST", MODEL, "GET"),
        ("POST", f"{MODEL}/versions/1", "GET"),
        ("POST", f"{MODEL}/metadata", "GET"),
    ],
)
def test_wrong_method(client: FlaskClient, method: str, path: str, allowed: str) -> None:
    """A method that a path does not take is a 405 that names those that it takes."""
    response = client.open(path, method=method)
    assert response.status_code == 405
    assert allowed in response.headers["Allow"]
    assert allowed in error(response)


def test_compressed_body(client: FlaskClient) -> None:
    """A body in gzip is read as what is in it."""
    body = gzip.compress(json.dumps({"instances": [GREEN]}).encode())
    assert best(client.post(f"{MODEL}:predict", data=body, headers={"Content-Encoding": "gzip"})) == ["green"]


@pytest.mark.parametrize(
    ("body", "encoding", "status", "hint"),
    [
        pytest.param(b"{}", "gzip", 400, "not valid gzip", id="not-compressed"),
        pytest.param(gzip.compress(b"{}" * 1000)[:-12], "gzip", 400, "cut short", id="cut"),
        pytest.param(gzip.compress(bytes(3_000_000)), "gzip", 413, "1,000,000 bytes", id="bomb"),
        pytest.param(b" " * 1_000_001, "identity", 413, "1,000,000 bytes", id="over-the-limit"),
        pytest.param(b"{}", "br", 415, "'br'", id="another-encoding"),
    ],
)
@pytest.mark.parametrize("path", [f"{MODEL}:predict", f"{MODEL}:classify"])
def test_body_that_cannot_be_read(
    client: FlaskClient, path: str, body: bytes, encoding: str, status: int, hint: str
) -> None:
    """Bodies that are too large or badly compressed are refused in this API's form."""
    response = client.post(path, data=body, headers={"Content-Encoding": encoding})
    assert response.status_code == status
    assert hint in error(response)


def test_deadline(services_of: MakeServices, models: Path) -> None:
    """A request that takes too long is a 504."""
    late = create_app(services_of(model_dir=models, request_deadline=0.0)).test_client()
    response = late.post(f"{MODEL}:predict", json={"instances": [RED]})
    assert response.status_code == 504
    assert "deadline" in error(response)


@pytest.mark.process
def test_chunked_body(shared_service: StartService) -> None:
    """A body that comes in chunks, as some clients send it, is predicted by the service as people run it."""
    url = shared_service().url
    body = json.dumps({"instances": [BLUE]}).encode()
    pieces = (body[start : start + 1000] for start in range(0, len(body), 1000))
    response = requests.post(f"{url}{MODEL}:predict", data=pieces, timeout=30)
    assert response.status_code == 200
    assert int(np.argmax(response.json()["predictions"][0])) == LABELS.index("blue")
