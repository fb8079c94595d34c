"""The Open Inference Protocol V2 with Triton's extensions: what its clients send and read, and their faults as 400."""

import io
import json
import re
import time
from base64 import b64encode
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import requests
from flask import Flask, request
from flask.testing import FlaskClient
from PIL import Image
from werkzeug.test import TestResponse

from artifact import Input
from service.app import create_app
from service.protocols.open_inference.messages import read_request
from tests.models import LABELS, SIDE, copy
from tests.service.conftest import MakeServices, StartService
from tests.service.pictures import plain

INFER = "/v2/models/colours/infer"
LENGTH = "Inference-Header-Content-Length"
PIXELS = SIDE * SIDE * 3
FILES = [plain("red"), plain("lime", "JPEG"), plain("blue", size=(40, 30))]

Json = dict[str, Any]


def tensor(*colours: tuple[int, int, int]) -> npt.NDArray[np.uint8]:
    """Return one picture of each colour, uint8 [N, H, W, 3]."""
    return np.stack([np.full((SIDE, SIDE, 3), colour, np.uint8) for colour in colours])


RGB = tensor((255, 0, 0), (0, 255, 0), (0, 0, 255))
ONE = tensor((0, 255, 0))


def pixels(data: Any = None, **changes: Any) -> Json:
    """Return an input of pixels in JSON; by default one green picture."""
    values = ONE.ravel().tolist() if data is None else data
    return {"name": "images", "datatype": "UINT8", "shape": [1, SIDE, SIDE, 3], "data": values} | changes


def encoded(data: Any, shape: list[int], name: str = "image_bytes") -> Json:
    """Return an input of encoded pictures in JSON."""
    return {"name": name, "datatype": "BYTES", "shape": shape, "data": data}


def announced(shape: list[int], size: Any, name: str = "images", datatype: str = "UINT8") -> Json:
    """Return an input of ``size`` bytes that follow the JSON."""
    return {"name": name, "datatype": datatype, "shape": shape, "parameters": {"binary_data_size": size}}


def elements(*contents: bytes) -> bytes:
    """Return a BYTES tensor as bytes: each element behind its length."""
    return b"".join(len(content).to_bytes(4, "little") + content for content in contents)


def body(inputs: list[Json], **fields: Any) -> Json:
    """Return the client's arguments for a request in JSON."""
    return {"data": json.dumps({"inputs": inputs, **fields}), "content_type": "application/json"}


def with_binary(inputs: list[Json], content: bytes, length: str | None = None, **fields: Any) -> Json:
    """Return the client's arguments for a request with ``content`` behind the JSON, as Triton's client sends it."""
    text = json.dumps({"inputs": inputs, **fields}).encode()
    return {"data": text + content, "headers": {LENGTH: str(len(text)) if length is None else length}}


def b64(*contents: bytes) -> list[str]:
    """Return each of ``contents`` in base64."""
    return [b64encode(content).decode() for content in contents]


def infer(client: FlaskClient, arguments: Json, path: str = INFER) -> Json:
    """Return the answer to an inference request that must succeed."""
    response = client.post(path, **arguments)
    assert response.status_code == 200, response.text
    assert response.content_type == "application/json"
    answer = response.json
    assert isinstance(answer, dict)
    return answer


def split(response: TestResponse) -> tuple[Json, bytes]:
    """Return the JSON of a binary answer, and what follows it."""
    assert response.status_code == 200, response.text
    assert response.content_type == "application/octet-stream"
    length = int(response.headers[LENGTH])
    return json.loads(response.data[:length]), response.data[length:]


def probabilities(answer: Json) -> npt.NDArray[np.float32]:
    """Return the probabilities of an answer in JSON, float32 [N, classes]."""
    (output,) = answer["outputs"]
    assert (output["name"], output["datatype"]) == ("probabilities", "FP32")
    return np.array(output["data"], np.float32).reshape(output["shape"])


def test_server_metadata(client: FlaskClient) -> None:
    """``/v2`` names the server and the extensions that hold."""
    answer = client.get("/v2").json
    assert answer is not None
    assert answer["name"] == "darkroom"
    assert isinstance(answer["version"], str)
    assert answer["extensions"] == [
        "binary_tensor_data",
        "classification",
        "model_configuration",
        "model_repository",
        "statistics",
    ]


def test_live_and_ready(client: FlaskClient) -> None:
    """Probes get 200 and JSON, which KServe's client reads and Triton's does not mind."""
    assert client.get("/v2/health/live").json == {"live": True}
    assert client.get("/v2/health/ready").json == {"ready": True}
    for path in ("/v2/models/colours/ready", "/v2/models/colours/versions/1/ready"):
        response = client.get(path)
        assert response.status_code == 200
        assert response.json == {"name": "colours", "ready": True}


def test_draining_is_not_ready(services_of: MakeServices, shared_models: Path) -> None:
    """While the service stops it is live and not ready, and neither is its model, as at ``/health/ready``."""
    client = create_app(services_of(draining=True, model_dir=shared_models)).test_client()
    assert client.get("/v2/health/live").status_code == 200
    assert client.get("/health/ready").status_code == 503
    ready, model_ready = client.get("/v2/health/ready"), client.get("/v2/models/colours/ready")
    assert (ready.status_code, ready.json) == (503, {"ready": False})
    assert (model_ready.status_code, model_ready.json) == (503, {"name": "colours", "ready": False})


def test_without_a_model(services_of: MakeServices, tmp_path: Path) -> None:
    """Without a model the server is not ready, requests for one are a 503 or a 404, and lists are empty."""
    client = create_app(services_of(model_dir=tmp_path, model_name="colours")).test_client()
    assert client.get("/v2/health/ready").status_code == 503
    assert client.get("/v2/models/stats").json == {"model_stats": []}
    assert client.post("/v2/repository/index").json == []
    assert client.get("/v2/models/other").status_code == 404
    unavailable = [client.get(f"/v2/models/colours{path}") for path in ("", "/ready", "/config", "/stats")]
    unavailable.append(client.post(INFER, **body([pixels()])))
    for response in unavailable:
        assert response.status_code == 503
        assert list(response.json) == ["error"]  # type: ignore[arg-type]


@pytest.mark.parametrize("path", ["", "/versions/1"])
def test_model_metadata(client: FlaskClient, path: str) -> None:
    """The metadata lists the version that can be asked for, the required input and the output."""
    assert client.get(f"/v2/models/colours{path}").json == {
        "name": "colours",
        "versions": ["1"],
        "platform": "tensorflow_savedmodel",
        "inputs": [{"name": "images", "datatype": "UINT8", "shape": [-1, 32, 32, 3]}],
        "outputs": [{"name": "probabilities", "datatype": "FP32", "shape": [-1, 3]}],
    }


@pytest.mark.parametrize("model", ["other", "colours/versions/2", "other/versions/1", "colours/versions/99999999999"])
@pytest.mark.parametrize("path", ["", "/ready", "/config", "/stats", "/infer"])
def test_unknown_models_and_versions(client: FlaskClient, model: str, path: str) -> None:
    """A model or a version that is not served is a 404 that names what is served."""
    url = f"/v2/models/{model}{path}"
    response = client.post(url, **body([pixels()])) if path == "/infer" else client.get(url)
    assert response.status_code == 404
    assert re.search(r"'colours'|version 1", response.json["error"])  # type: ignore[index]


def test_model_config(client: FlaskClient) -> None:
    """The configuration has Triton's words, and dimensions without the number of images."""
    expected = {
        "name": "colours",
        "platform": "tensorflow_savedmodel",
        "backend": "openvino",
        "version_policy": {"latest": {"num_versions": 1}},
        "max_batch_size": 100,
        "input": [
            {
                "name": "images",
                "data_type": "TYPE_UINT8",
                "dims": [32, 32, 3],
                "format": "FORMAT_NONE",
                "optional": False,
            },
            {"name": "image_bytes", "data_type": "TYPE_STRING", "dims": [1], "format": "FORMAT_NONE", "optional": True},
        ],
        "output": [{"name": "probabilities", "data_type": "TYPE_FP32", "dims": [3]}],
        "dynamic_batching": {"preferred_batch_size": [32], "max_queue_delay_microseconds": 0},
    }
    assert client.get("/v2/models/colours/config").json == expected
    assert client.get("/v2/models/colours/versions/1/config").json == expected


def test_pinned_version_is_told_in_the_config(services_of: MakeServices, shared_models: Path) -> None:
    """A pinned version is Triton's specific version policy."""
    client = create_app(services_of(model_dir=shared_models, model_version=1)).test_client()
    config = client.get("/v2/models/colours/config").json
    assert config is not None
    assert config["version_policy"] == {"specific": {"versions": [1]}}


def test_statistics(services_of: MakeServices, shared_models: Path) -> None:
    """Statistics count images, requests and the engine's runs, with times in nanoseconds."""
    client = create_app(services_of(model_dir=shared_models)).test_client()
    before = client.get("/v2/models/stats").json
    assert before is not None
    assert before["model_stats"][0]["last_inference"] == before["model_stats"][0]["inference_count"] == 0
    started = time.time()
    infer(client, body([encoded(b64(*FILES), [3])]))
    infer(client, with_binary([announced([2, SIDE, SIDE, 3], 2 * PIXELS)], RGB[:2].tobytes()))
    answers = [client.get(f"/v2/models/{path}stats").json for path in ("", "colours/", "colours/versions/1/")]
    assert answers[0] == answers[1] == answers[2]
    assert answers[0] is not None
    (stats,) = answers[0]["model_stats"]
    assert (stats["name"], stats["version"], stats["inference_count"], stats["execution_count"]) == (
        "colours",
        "1",
        5,
        2,
    )
    assert started - 1 <= stats["last_inference"] / 1000 <= time.time() + 1
    assert stats["batch_stats"] == []
    counts = {name: duration["count"] for name, duration in stats["inference_stats"].items()}
    assert counts == {
        "success": 2,
        "fail": 0,
        "queue": 2,
        "compute_input": 3,  # files that were decoded
        "compute_infer": 2,
        "compute_output": 0,
        "cache_hit": 0,
        "cache_miss": 0,
    }
    times = {name: duration["ns"] for name, duration in stats["inference_stats"].items()}
    assert 0 < times["compute_infer"] < times["success"] < 1e9 * (time.time() - started)


def test_repository_index(services_of: MakeServices, published: Path, models: Path) -> None:
    """The index has every version in the folder with its state in Triton's words, and why one is kept out."""
    copy(published, models, 2)
    copy(published, models, 3)
    (models / "colours" / "3" / "saved_model.pb").write_bytes(b"nonsense")
    client = create_app(services_of(model_dir=models)).test_client()
    index = client.post("/v2/repository/index").json
    assert isinstance(index, list)
    assert [(entry["name"], entry["version"], entry["state"]) for entry in index] == [
        ("colours", "1", "UNAVAILABLE"),
        ("colours", "2", "READY"),
        ("colours", "3", "UNAVAILABLE"),
    ]
    assert index[0]["reason"] == "It is not loaded."
    assert index[1]["reason"] == ""
    assert "saved_model.pb" in index[2]["reason"]
    assert client.post("/v2/repository/index", json={"ready": True}).json == [index[1]]
    assert client.post("/v2/repository/index", json={"ready": False}).json == index
    assert client.post("/v2/repository/index", json={}).json == index


@pytest.mark.parametrize("content", [b'{"ready": 1}', b"[]", b"{", b"null", b"[" * 90])
def test_bad_requests_for_the_index(client: FlaskClient, content: bytes) -> None:
    """A body that is no request for the index is a 400."""
    response = client.post("/v2/repository/index", data=content)
    assert response.status_code == 400
    assert list(response.json) == ["error"]  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "arguments",
    [
        pytest.param(body([pixels(RGB.ravel().tolist(), shape=list(RGB.shape))]), id="json-flat"),
        pytest.param(body([pixels(RGB.tolist(), shape=list(RGB.shape))]), id="json-nested"),
        pytest.param(with_binary([announced(list(RGB.shape), RGB.nbytes)], RGB.tobytes()), id="binary"),
        pytest.param({"data": RGB.tobytes(), "headers": {LENGTH: "0"}}, id="nothing-but-pixels"),
        pytest.param(body([encoded(b64(*FILES), [3])]), id="json-files"),
        pytest.param(body([encoded(b64(*FILES), [3, 1])]), id="json-files-flat-of-two-dimensions"),
        pytest.param(body([encoded([[file] for file in b64(*FILES)], [3, 1])]), id="json-files-nested"),
        pytest.param(body([encoded(b64(*FILES), [3], name="images")]), id="json-files-as-images"),
        pytest.param(
            with_binary([announced([3], len(elements(*FILES)), "image_bytes", "BYTES")], elements(*FILES)),
            id="binary-files",
        ),
        pytest.param(
            with_binary([announced([3, 1], len(elements(*FILES)), "images", "BYTES")], elements(*FILES)),
            id="binary-files-as-images",
        ),
        pytest.param(with_binary([pixels(RGB.tolist(), shape=list(RGB.shape))], b""), id="json-with-its-length"),
    ],
)
def test_every_way_to_send_pictures(client: FlaskClient, arguments: Json) -> None:
    """Pictures are classified in order, whichever way they come, and the answer has the protocol's form."""
    response = client.post(INFER, **arguments)
    if arguments.get("headers", {}).get(LENGTH) == "0":  # such a request is answered in kind
        answer, binary = split(response)
        rows = np.frombuffer(binary, "<f4").reshape(3, 3)
    else:
        answer = infer(client, arguments)
        rows = probabilities(answer)
        assert set(answer["outputs"][0]) == {"name", "datatype", "shape", "data"}
    assert (answer["model_name"], answer["model_version"]) == ("colours", "1")
    assert "id" not in answer
    assert [LABELS[index] for index in rows.argmax(axis=1)] == ["red", "green", "blue"]
    assert rows.max(axis=1) == pytest.approx(0.99933, abs=2e-5)  # JPEG changes a colour a little


def test_version_in_the_path(client: FlaskClient) -> None:
    """A version may be asked for."""
    answer = infer(client, body([pixels()]), "/v2/models/colours/versions/1/infer")
    assert answer["model_version"] == "1"


def test_the_example_of_the_description_works(client: FlaskClient) -> None:
    """The request that ``/openapi.json`` shows is answered as it says."""
    described = client.get("/openapi.json").json["paths"]["/v2/models/{name}/infer"]  # type: ignore[index]
    example = described["post"]["requestBody"]["content"]["application/json"]["example"]
    (output,) = infer(client, {"json": example})["outputs"]
    assert [text.rpartition(":")[2] for text in output["data"]] == ["red", "green", "blue"]


@pytest.mark.parametrize("id_", ["42", "", 'ä\n"😀', "x" * 1000])
def test_id_comes_back(client: FlaskClient, id_: str) -> None:
    """The request's id is in the answer, as it was."""
    assert infer(client, body([pixels()], id=id_))["id"] == id_


def test_numbers_are_exact(client: FlaskClient) -> None:
    """Probabilities in JSON are the float32 that a binary answer has, without digits that float32 does not hold."""
    image = np.random.default_rng(0).integers(0, 256, (20, SIDE, SIDE, 3)).astype(np.uint8)
    inputs, content = [announced(list(image.shape), image.nbytes)], image.tobytes()
    (output,) = infer(client, with_binary(inputs, content))["outputs"]
    in_binary = with_binary(inputs, content, parameters={"binary_data_output": True})
    _, binary = split(client.post(INFER, **in_binary))
    assert np.array(output["data"], "<f4").tobytes() == binary
    assert max(len(repr(value)) for value in output["data"]) <= len("0.123456789")


BINARY_WISHES = [
    pytest.param({"parameters": {"binary_data_output": True}}, True, id="for-all"),
    pytest.param(
        {"outputs": [{"name": "probabilities", "parameters": {"binary_data": True}}]}, True, id="for-one-output"
    ),
    pytest.param(
        {
            "parameters": {"binary_data_output": True},
            "outputs": [{"name": "probabilities", "parameters": {"binary_data": False}}],
        },
        False,
        id="for-all-but-this",
    ),
    pytest.param({"parameters": {"binary_data_output": False}}, False, id="no"),
    pytest.param({"outputs": [{"name": "probabilities"}]}, False, id="not-said"),
    pytest.param({"outputs": []}, False, id="no-outputs"),
    pytest.param({"parameters": {"sequence_id": 1, "timeout": 5, "mine": "x"}}, False, id="other-parameters"),
]


@pytest.mark.parametrize(("wish", "binary"), BINARY_WISHES)
def test_binary_answers(client: FlaskClient, wish: Json, *, binary: bool) -> None:
    """An answer is in binary where that is asked for; what is said of an output goes before what is said of all."""
    arguments = body([pixels()], **wish)
    if not binary:
        assert probabilities(infer(client, arguments)).argmax() == 1
        return
    answer, content = split(client.post(INFER, **arguments))
    (output,) = answer["outputs"]
    assert output == {
        "datatype": "FP32",
        "name": "probabilities",
        "shape": [1, 3],
        "parameters": {"binary_data_size": 12},
    }
    assert np.frombuffer(content, "<f4") == pytest.approx([0.000335, 0.99933, 0.000335], abs=2e-6)


@pytest.mark.parametrize(("asked", "count"), [(1, 1), (2, 2), (3, 3), (99, 3), (2**63, 3)])
def test_classification(client: FlaskClient, asked: int, count: int) -> None:
    """``classification`` gives the k most probable labels as Triton writes them, in JSON and in binary."""
    inputs = [pixels(RGB[1:].ravel().tolist(), shape=[2, SIDE, SIDE, 3])]
    parameters: Json = {"classification": asked}
    wish: Json = {"outputs": [{"name": "probabilities", "parameters": parameters}]}
    (output,) = infer(client, body(inputs, **wish))["outputs"]
    assert (output["name"], output["datatype"], output["shape"]) == ("probabilities", "BYTES", [2, count])
    expected = [
        *["0.999330:1:green", "0.000335:0:red", "0.000335:2:blue"][:count],
        *["0.999330:2:blue", "0.000335:0:red", "0.000335:1:green"][:count],
    ]
    assert output["data"] == expected
    parameters["binary_data"] = True
    answer, content = split(client.post(INFER, **body(inputs, **wish)))
    assert content == elements(*(text.encode() for text in expected))
    assert answer["outputs"][0]["parameters"] == {"binary_data_size": len(content)}


def test_classification_of_none(client: FlaskClient) -> None:
    """A classification of 0 labels is none, as in Triton."""
    wish = {"outputs": [{"name": "probabilities", "parameters": {"classification": 0}}]}
    assert probabilities(infer(client, body([pixels()], **wish))).shape == (1, 3)


BLACK = np.zeros((1, SIDE, SIDE, 3), np.uint8)
FAMILIARITY = {"name": "familiarity", "datatype": "FP32", "shape": [-1, 1]}


def test_familiarity_is_another_output(telling: FlaskClient) -> None:
    """A version that tells it lists it, and gives it behind the probabilities where no output is asked for."""
    listed = telling.get("/v2/models/colours").json["outputs"]  # type: ignore[index]
    assert listed == [{"name": "probabilities", "datatype": "FP32", "shape": [-1, 3]}, FAMILIARITY]
    configured = telling.get("/v2/models/colours/config").json["output"]  # type: ignore[index]
    assert configured[1] == {"name": "familiarity", "data_type": "TYPE_FP32", "dims": [1]}
    images = np.concatenate([RGB, BLACK])
    answer = infer(telling, body([pixels(images.ravel().tolist(), shape=list(images.shape))]))
    first, second = answer["outputs"]
    assert (first["name"], first["shape"]) == ("probabilities", [4, 3])
    assert (second["name"], second["shape"], second["datatype"]) == ("familiarity", [4, 1], "FP32")
    assert second["data"] == pytest.approx([8.0007, 8.0007, 8.0007, np.log(3)], abs=1e-3)
    raw_answer, content = split(telling.post(INFER, data=images.tobytes(), headers={LENGTH: "0"}))
    assert [output["name"] for output in raw_answer["outputs"]] == ["probabilities", "familiarity"]
    assert np.frombuffer(content, "<f4")[12:] == pytest.approx(second["data"], abs=1e-6)


def test_outputs_come_as_they_are_asked_for(telling: FlaskClient) -> None:
    """Each in its place and its form; what is in binary follows the JSON in the same order."""
    ask = [
        {"name": "familiarity", "parameters": {"binary_data": True, "classification": 2}},
        {"name": "probabilities", "parameters": {"classification": 1}},
    ]
    answer, content = split(telling.post(INFER, **body([pixels()], outputs=ask)))
    first, second = answer["outputs"]
    assert first == {**FAMILIARITY, "shape": [1, 1], "parameters": {"binary_data_size": 4}}
    assert np.frombuffer(content, "<f4") == pytest.approx([8.0007], abs=1e-3)
    assert (second["name"], second["data"]) == ("probabilities", ["0.999330:1:green"])
    (alone,) = infer(telling, body([pixels()], outputs=ask[1:]))["outputs"]
    assert alone == second
    both, content = split(
        telling.post(
            INFER,
            **body(
                [pixels()],
                outputs=[{"name": "probabilities"}, {"name": "familiarity"}],
                parameters={"binary_data_output": True},
            ),
        )
    )
    assert [output["parameters"]["binary_data_size"] for output in both["outputs"]] == [12, 4]
    assert len(content) == 16


EMBEDDING = {"name": "embedding", "datatype": "FP32", "shape": [-1, 4]}
ROWS = [[1, 0, 0, 1], [0, 1, 0, 1], [0, 0, 1, 1]]  # of RGB


def test_the_embedding_is_listed_and_not_there_by_default(embedding_client: FlaskClient) -> None:
    """A version that has one lists it, and gives it only where its name is among the outputs of the request."""
    listed = embedding_client.get("/v2/models/colours").json["outputs"]  # type: ignore[index]
    assert listed == [{"name": "probabilities", "datatype": "FP32", "shape": [-1, 3]}, EMBEDDING]
    configured = embedding_client.get("/v2/models/colours/config").json["output"]  # type: ignore[index]
    assert configured[1] == {"name": "embedding", "data_type": "TYPE_FP32", "dims": [4]}
    wishes: list[Json] = [{}, {"outputs": []}, {"outputs": [{"name": "probabilities"}]}]
    for wish in wishes:
        assert probabilities(infer(embedding_client, body([pixels()], **wish))).argmax() == 1
    answer, content = split(embedding_client.post(INFER, data=RGB.tobytes(), headers={LENGTH: "0"}))
    assert [output["name"] for output in answer["outputs"]] == ["probabilities"]
    assert len(content) == 3 * 3 * 4


@pytest.mark.parametrize(
    "sent",
    [
        pytest.param(body([pixels(RGB.tolist(), shape=list(RGB.shape))]), id="pixels"),
        pytest.param(body([encoded(b64(*FILES), [3])]), id="files"),
    ],
)
def test_the_embedding_comes_where_it_is_named(embedding_client: FlaskClient, sent: Json) -> None:
    """It is a row for each picture, in JSON or in binary, alone or in its place among the others."""
    inputs = json.loads(sent["data"])["inputs"]
    (alone,) = infer(embedding_client, body(inputs, outputs=[{"name": "embedding"}]))["outputs"]
    assert (alone["name"], alone["datatype"], alone["shape"]) == ("embedding", "FP32", [3, 4])
    np.testing.assert_allclose(np.reshape(alone["data"], (3, 4)), ROWS, atol=0.01)  # JPEG changes a colour a little
    wish = [{"name": "embedding", "parameters": {"binary_data": True}}, {"name": "probabilities"}]
    answer, content = split(embedding_client.post(INFER, **body(inputs, outputs=wish)))
    assert answer["outputs"][0] == {**EMBEDDING, "shape": [3, 4], "parameters": {"binary_data_size": 48}}
    assert content == np.array(alone["data"], "<f4").tobytes()
    assert np.reshape(answer["outputs"][1]["data"], (3, 3)).argmax(axis=1).tolist() == [0, 1, 2]


def test_embeddings_of_a_long_request(embedding_client: FlaskClient) -> None:
    """A request that goes to the engine in parts has all rows, in order."""
    images = np.random.default_rng(0).integers(0, 256, (600, SIDE, SIDE, 3)).astype(np.uint8)
    sent = with_binary(
        [announced(list(images.shape), images.nbytes)], images.tobytes(), outputs=[{"name": "embedding"}]
    )
    (output,) = infer(embedding_client, sent)["outputs"]
    rows = np.reshape(output["data"], (600, 4))
    np.testing.assert_allclose(rows[:, :3], images.mean(axis=(1, 2)) / 255, atol=1e-5)


def test_the_description_has_the_embedding_where_the_model_has_it(
    embedding_client: FlaskClient, client: FlaskClient
) -> None:
    """``/openapi.json`` lets a request name it for such a model only."""
    described, without = (of.get("/openapi.json").json["components"]["schemas"] for of in (embedding_client, client))  # type: ignore[index]
    assert described["RequestedEmbedding"]["properties"]["name"] == {"enum": ["embedding"]}
    assert "RequestedEmbedding" not in without


def test_other_protocols_leave_the_embedding_out(embedding_client: FlaskClient) -> None:
    """The project's own answers and TensorFlow Serving's are as those of a version without one."""
    own = embedding_client.post("/predict", data=FILES[0]).json
    assert own is not None
    assert list(own) == ["success", "predictions", "model"]
    answer = embedding_client.post("/v1/models/colours:predict", json={"instances": RGB.tolist()}).json
    assert answer is not None
    assert np.shape(answer["predictions"]) == (3, 3)
    signatures = embedding_client.get("/v1/models/colours/metadata").json["metadata"]["signature_def"]["signature_def"]  # type: ignore[index]
    dimensions = signatures["serving_default"]["outputs"]["embedding"]["tensor_shape"]["dim"]
    assert [dimension["size"] for dimension in dimensions] == ["-1", "4"]


FLAT = ONE.ravel().tolist()
GREEN = FILES[1]
TEXT = json.dumps({"inputs": [announced([1, SIDE, SIDE, 3], PIXELS)]}).encode()


def raw(content: bytes, length: str | None = None) -> Json:
    """Return the client's arguments for a body as it is."""
    return {"data": content, "headers": {} if length is None else {LENGTH: length}}


def binary_pixels(size: Any, content: bytes = ONE.tobytes(), shape: list[int] | None = None) -> Json:
    """Return the client's arguments for one picture in binary, of which ``size`` bytes are announced."""
    return with_binary([announced(shape or [1, SIDE, SIDE, 3], size)], content)


def binary_files(content: bytes, shape: list[int] | None = None) -> Json:
    """Return the client's arguments for a BYTES tensor in binary."""
    return with_binary([announced(shape or [1], len(content), "image_bytes", "BYTES")], content)


BAD_REQUESTS = [
    # The header that tells the length of the JSON.
    pytest.param(raw(TEXT + ONE.tobytes(), "-1"), "must be an integer from 0 to", id="negative-length"),
    pytest.param(raw(TEXT + ONE.tobytes(), "abc"), "must be an integer", id="length-no-number"),
    pytest.param(raw(TEXT + ONE.tobytes(), "1_0"), "must be an integer", id="length-with-underscore"),
    pytest.param(raw(TEXT + ONE.tobytes(), "5,5"), "must be an integer", id="length-twice"),
    pytest.param(raw(TEXT + ONE.tobytes(), "\xb2"), "must be an integer", id="length-superscript"),
    pytest.param(raw(TEXT + ONE.tobytes(), ""), "must be an integer", id="length-empty"),
    pytest.param(raw(TEXT, str(len(TEXT) + 1)), f"0 to {len(TEXT)}", id="length-beyond-the-body"),
    pytest.param(raw(TEXT, "9" * 5000), "must be an integer", id="length-huge"),
    pytest.param(raw(TEXT + ONE.tobytes(), "5"), "not valid JSON", id="length-within-the-json"),
    pytest.param(raw(TEXT + ONE.tobytes(), str(len(TEXT) + 5)), "not valid JSON", id="length-within-the-tensor"),
    pytest.param(raw(TEXT + ONE.tobytes()), "not valid JSON", id="length-missing"),
    pytest.param(raw(b"", "0"), "0 bytes of pixels", id="nothing-at-all"),
    pytest.param(raw(b"x" * 100, "0"), "100 bytes of pixels", id="raw-pixels-of-odd-length"),
    pytest.param(raw(bytes(101 * PIXELS), "0"), "at most 100", id="too-many-raw-pixels"),
    # binary_data_size
    pytest.param(binary_pixels(-1), "Expected `int` >= 0 - at `$.inputs[0].parameters.binary", id="negative-size"),
    pytest.param(binary_pixels("3072"), "Expected `int`, got `str`", id="size-as-text"),
    pytest.param(binary_pixels(1.5), "Expected `int`, got `float`", id="size-as-float"),
    pytest.param(binary_pixels(True), "Expected `int`, got `bool`", id="size-as-bool"),
    pytest.param(binary_pixels(2**70, b""), "0 bytes follow", id="size-overflow"),
    pytest.param(binary_pixels(PIXELS - 1), f"{PIXELS} bytes follow", id="more-than-announced"),
    pytest.param(binary_pixels(PIXELS + 1), f"says {PIXELS + 1}", id="fewer-than-announced"),
    pytest.param(binary_pixels(PIXELS, b""), "0 bytes follow", id="nothing-follows"),
    pytest.param(binary_pixels(0, b""), "0 bytes of pixels", id="empty-tensor"),
    pytest.param(binary_pixels(PIXELS - 1, ONE.tobytes()[1:]), "no whole number of images", id="a-byte-missing"),
    pytest.param(
        binary_pixels(PIXELS, shape=[2, SIDE, SIDE, 3]), "has 1 pictures, its shape says 2", id="shape-of-two"
    ),
    pytest.param(body([pixels(parameters={"binary_data_size": PIXELS})]), "not both", id="data-and-binary-size"),
    pytest.param(
        with_binary([pixels(parameters={"binary_data_size": PIXELS})], ONE.tobytes()), "not both", id="data-twice"
    ),
    pytest.param(with_binary([pixels()], b"more"), "4 bytes follow", id="bytes-nobody-announced"),
    pytest.param(body([announced([1, SIDE, SIDE, 3], PIXELS)]), "0 bytes follow", id="announced-in-plain-json"),
    pytest.param(
        body([{"name": "images", "datatype": "UINT8", "shape": [1, SIDE, SIDE, 3]}]), "either data", id="no-data"
    ),
    pytest.param(
        body(
            [
                {
                    "name": "images",
                    "datatype": "UINT8",
                    "shape": [1, 32, 32, 3],
                    "parameters": {"shared_memory_region": "x"},
                }
            ]
        ),
        "either data",
        id="shared-memory",
    ),
    # BYTES tensors
    pytest.param(binary_files(elements(GREEN)[:-1]), "Element 0", id="file-cut-short"),
    pytest.param(binary_files(elements(GREEN) + b"\1\0\0"), "Element 1", id="element-length-cut-short"),
    pytest.param(binary_files(b"\xff\xff\xff\xff" + GREEN), "Element 0", id="element-length-overflow"),
    pytest.param(binary_files(elements(GREEN, GREEN)), "has 2 pictures, its shape says 1", id="more-files"),
    pytest.param(binary_files(elements(GREEN), [2]), "has 1 pictures, its shape says 2", id="fewer-files"),
    pytest.param(binary_files(elements(*[b""] * 10_000)), "at most 100", id="ten-thousand-empty-files"),
    pytest.param(binary_files(elements(b"")), "empty", id="empty-file"),
    pytest.param(binary_files(elements(b"text")), "not a picture", id="text-as-file"),
    pytest.param(binary_files(elements(GREEN[:60])), "damaged or cut short", id="damaged-file"),
    pytest.param(binary_files(elements(GREEN, b"x"), [2]), "Picture 1:", id="one-bad-file-of-two"),
    pytest.param(body([encoded(["$$$"], [1])]), "base64 data is allowed - at `$.inputs[0].data[0]`", id="no-base64"),
    pytest.param(body([encoded(["ä"], [1])]), "only ASCII characters", id="base64-not-ascii"),
    pytest.param(body([encoded([""], [1])]), "length >= 1 - at `$.inputs[0].data[0]`", id="empty-base64"),
    pytest.param(body([encoded([1], [1])]), "at `$.inputs[0].data[0]`", id="number-as-file"),
    pytest.param(
        body([encoded([b64(GREEN, GREEN)], [1, 1])]), "length <= 1 - at `$.inputs[0].data[0]`", id="ragged-files"
    ),
    pytest.param(body([encoded([], [1])]), "either data", id="no-files"),
    pytest.param(body([encoded(b64(GREEN), [1, 2])]), "`$.inputs[0].shape` is [1, 2]", id="files-of-two-columns"),
    pytest.param(body([encoded(b64(GREEN), [1, 1, 1])]), "shape", id="files-of-three-dimensions"),
    pytest.param(body([encoded(b64(GREEN), [])]), "`$.inputs[0].shape` is []", id="files-without-dimension"),
    pytest.param(body([encoded(FLAT, [1, SIDE, SIDE, 3])]), "at `$.inputs[0].data[0]`", id="pixels-as-bytes"),
    # Shapes
    pytest.param(body([pixels(shape=[-1, SIDE, SIDE, 3])]), "is [-1, 32, 32, 3]", id="negative-count"),
    pytest.param(body([pixels(shape=[1, -32, -32, 3])]), "is [1, -32, -32, 3]", id="negative-dimensions"),
    pytest.param(body([pixels([], shape=[0, SIDE, SIDE, 3])]), "is [0, 32, 32, 3]", id="batch-of-none"),
    pytest.param(body([pixels(shape=[1, 0, SIDE, 3])]), "is [1, 0, 32, 3]", id="zero-dimension"),
    pytest.param(body([pixels(shape=[2**4, 2**60 + 2])]), "`$.inputs[0].shape`", id="overflowing-count"),
    pytest.param(body([pixels(shape=[2**63 - 1, SIDE, SIDE, 3])]), "at most 100", id="huge-count"),
    pytest.param(body([pixels(shape=[2**64, SIDE, SIDE, 3])]), "at most 100", id="count-over-64-bits"),
    pytest.param(body([pixels(shape=[1.0, SIDE, SIDE, 3])]), "at `$.inputs[0].shape[0]`", id="float-dimension"),
    pytest.param(body([pixels(shape=[True, SIDE, SIDE, 3])]), "at `$.inputs[0].shape[0]`", id="bool-dimension"),
    pytest.param(body([pixels(shape="1")]), "at `$.inputs[0].shape`", id="shape-as-text"),
    pytest.param(body([pixels(shape=None)]), "at `$.inputs[0].shape`", id="shape-null"),
    pytest.param(body([pixels(shape=[1, 3, SIDE, SIDE])]), "is [1, 3, 32, 32]", id="channels-first"),
    pytest.param(body([pixels(shape=[SIDE, SIDE, 3])]), "is [32, 32, 3]", id="without-batch"),
    pytest.param(body([pixels(shape=[1, PIXELS])]), "is [1, 3072]", id="flattened-shape"),
    pytest.param(body([pixels(shape=[1] * 10_000)]), "shape", id="ten-thousand-dimensions"),
    pytest.param(body([pixels(shape=[2, SIDE, SIDE, 3])]), "has 1 pictures, its shape says 2", id="shape-says-two"),
    pytest.param(body([pixels(FLAT * 2)]), "has 2 pictures, its shape says 1", id="data-of-two"),
    pytest.param(body([pixels([0] * 101 * PIXELS, shape=[101, SIDE, SIDE, 3])]), "at most 100", id="over-the-most"),
    # Values
    pytest.param(body([pixels([300, *FLAT[1:]])]), "<= 255 - at `$.inputs[0].data[0]`", id="300"),
    pytest.param(body([pixels([-1, *FLAT[1:]])]), ">= 0 - at `$.inputs[0].data[0]`", id="minus-one"),
    pytest.param(body([pixels([*FLAT[1:], 1.5])]), "got `float` - at `$.inputs[0].data[3071]`", id="1.5"),
    pytest.param(body([pixels([True, *FLAT[1:]])]), "got `bool` - at `$.inputs[0].data[0]`", id="true"),
    pytest.param(body([pixels([None, *FLAT[1:]])]), "got `null`", id="null-value"),
    pytest.param(body([pixels(["1", *FLAT[1:]])]), "got `str`", id="text-value"),
    pytest.param(body([pixels([2**64, *FLAT[1:]])]), "at `$.inputs[0].data[0]`", id="value-over-64-bits"),
    pytest.param(body([pixels(FLAT[1:])]), "3071 values", id="a-value-missing"),
    pytest.param(body([pixels([])]), "$.inputs[0].data: ", id="no-values"),
    pytest.param(body([pixels([ONE[0].tolist()[1:]])]), "at `$.inputs[0].data[0]`", id="a-row-missing"),
    pytest.param(body([pixels([[FLAT]])]), "at `$.inputs[0].data[0]", id="nested-otherwise"),
    pytest.param(body([pixels("AAAA")]), "$.inputs[0].data: ", id="text-as-data"),
    pytest.param(body([pixels({"b64": "AAAA"})]), "$.inputs[0].data: ", id="object-as-data"),
    pytest.param(raw(TEXT[:-3] + b',"data":NaN}]}'), "not valid JSON", id="nan"),
    pytest.param(raw(b'{"inputs":[{"name":"images","data":' + b"[" * 100_000), "", id="deep-nesting-that-is-cut"),
    pytest.param(
        raw(json.dumps({"inputs": [pixels("@")]}).encode().replace(b'"@"', b"[" * 50_000 + b"]" * 50_000)),
        "nested too deeply",
        id="deep-nesting",
    ),
    pytest.param(
        raw(json.dumps({"inputs": [pixels("@")]}).encode().replace(b'"@"', b"[" * 120 + b"1" + b"]" * 120)),
        "at `$.inputs[0].data",
        id="nesting-of-120",
    ),
    # Inputs and outputs
    pytest.param(body([]), "length >= 1 - at `$.inputs`", id="no-inputs"),
    pytest.param(raw(b"{}"), "missing required field `inputs`", id="missing-inputs"),
    pytest.param(raw(b'{"inputs":null}'), "at `$.inputs`", id="inputs-null"),
    pytest.param(raw(b'{"inputs":{}}'), "at `$.inputs`", id="inputs-object"),
    pytest.param(raw(b"[]"), "Expected `object`", id="list"),
    pytest.param(raw(b""), "not valid JSON", id="empty-body"),
    pytest.param(raw(b"\xff\xfe{}"), "not valid JSON", id="encoding"),
    pytest.param(body([pixels(), pixels()]), "length <= 1 - at `$.inputs`", id="the-same-input-twice"),
    pytest.param(body([pixels(), encoded(b64(GREEN), [1])]), "length <= 1 - at `$.inputs`", id="both-inputs"),
    pytest.param(body([pixels(name="other")]), "'other' - at `$.inputs[0].name`", id="unknown-input"),
    pytest.param(body([pixels(name="image_bytes")]), "at `$.inputs[0].name`", id="image-bytes-as-uint8"),
    pytest.param(body([pixels(name=None)]), "at `$.inputs[0].name`", id="name-null"),
    pytest.param(body([pixels(datatype="FP32")]), "'FP32' - at `$.inputs[0].datatype`", id="wrong-datatype"),
    pytest.param(body([pixels(datatype="uint8")]), "'uint8'", id="datatype-in-small-letters"),
    pytest.param(body([pixels(datatype=8)]), "at `$.inputs[0].datatype`", id="datatype-number"),
    pytest.param(body([{"name": "images", "shape": [1], "data": []}]), "`datatype`", id="no-datatype"),
    pytest.param(body([{"datatype": "UINT8", "shape": [1], "data": []}]), "`name`", id="no-name"),
    pytest.param(
        body([pixels()], outputs=[{"name": "other"}]), "'other' - at `$.outputs[0].name`", id="unknown-output"
    ),
    pytest.param(
        body([pixels()], outputs=[{"name": "familiarity"}]),
        "'familiarity' - at `$.outputs[0].name`",
        id="output-that-others-have",
    ),
    pytest.param(
        body([pixels()], outputs=[{"name": "embedding"}]),
        "'embedding' - at `$.outputs[0].name`. The input is images, UINT8 [N, 32, 32, 3], or image_bytes, BYTES [N]; "
        "outputs are probabilities.",
        id="embedding-of-a-model-without",
    ),
    pytest.param(body([pixels()], outputs=[{}]), "`name`", id="output-without-name"),
    pytest.param(body([pixels()], outputs=[{"name": "probabilities"}] * 2), "at `$.outputs`", id="output-twice"),
    pytest.param(body([pixels()], outputs="probabilities"), "at `$.outputs`", id="outputs-text"),
    # Parameters and id
    pytest.param(body([pixels()], id=42), "got `int` - at `$.id`", id="id-number"),
    pytest.param(body([pixels()], id=None), "got `null` - at `$.id`", id="id-null"),
    pytest.param(body([pixels()], parameters=[]), "at `$.parameters`", id="parameters-list"),
    pytest.param(body([pixels(parameters=1)]), "at `$.inputs[0].parameters`", id="input-parameters-number"),
    pytest.param(
        body([pixels()], parameters={"binary_data_output": "true"}), "binary_data_output`", id="binary-output-text"
    ),
    *[
        pytest.param(
            body([pixels()], outputs=[{"name": "probabilities", "parameters": parameters}]),
            f"at `$.outputs[0].parameters{where}`",
            id=f"output-{name}",
        )
        for name, where, parameters in [
            ("parameters-list", "", []),
            ("binary-data-number", ".binary_data", {"binary_data": 1}),
            ("negative-classification", ".classification", {"classification": -1}),
            ("classification-text", ".classification", {"classification": "2"}),
            ("classification-float", ".classification", {"classification": 1.5}),
            ("classification-true", ".classification", {"classification": True}),
        ]
    ],
]


@pytest.mark.parametrize(("arguments", "message"), BAD_REQUESTS)
def test_faults_of_the_client(client: FlaskClient, arguments: Json, message: str) -> None:
    """Whatever is wrong with an inference request is a 400 with ``error``, which says what and where."""
    started = time.monotonic()
    response = client.post(INFER, **arguments)
    assert response.status_code == 400, response.text
    assert list(response.json) == ["error"]  # type: ignore[arg-type]
    assert message in response.json["error"]  # type: ignore[index]
    assert time.monotonic() - started < 3


def test_the_service_goes_on_after_faults(client: FlaskClient) -> None:
    """After all these faults a good request is still answered."""
    for case in BAD_REQUESTS:
        client.post(INFER, **case.values[0])  # type: ignore[arg-type]
    assert probabilities(infer(client, body([pixels()]))).argmax() == 1


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", INFER, 405),
        ("GET", "/v2/repository/index", 405),
        ("POST", "/v2", 405),
        ("POST", "/v2/models/colours", 405),
        ("DELETE", "/v2/health/ready", 405),
        ("GET", "/v2/", 404),
        ("GET", "/v2/nothing", 404),
        ("GET", "/v2/models/colours/versions/0", 404),
        ("GET", "/v2/models/colours/versions/-1", 404),
        ("GET", "/v2/models/colours/versions/one", 404),
        ("POST", "/v2/repository/models/colours/load", 403),
        ("POST", "/v2/models/colours/generate", 404),
    ],
)
def test_paths_and_methods(client: FlaskClient, method: str, path: str, status: int) -> None:
    """A path that is none and a method that is not taken are told in the protocol's form, also at ``/v2`` itself."""
    response = client.open(path, method=method)
    assert response.status_code == status
    assert list(response.json) == ["error"]  # type: ignore[arg-type]
    assert ("Allow" in response.headers) == (status == 405)


def test_limits_of_bodies_are_told_in_the_protocol(client: FlaskClient) -> None:
    """A body over the limit, or compressed in an unknown way, has the protocol's form of errors."""
    for arguments, status in (
        ({"data": bytes(1_000_001)}, 413),
        ({"data": b"x", "headers": {"Content-Encoding": "br"}}, 415),
        ({"data": b"x", "headers": {"Content-Encoding": "gzip"}}, 400),
    ):
        response = client.post(INFER, **arguments)
        assert response.status_code == status
        assert list(response.json) == ["error"]  # type: ignore[arg-type]


def test_content_type_does_not_matter(client: FlaskClient) -> None:
    """The content type is not looked at, as in Triton, whose client sends none; a form's is no exception."""
    for content_type in ("application/x-www-form-urlencoded", "text/plain", "multipart/form-data; boundary=x", None):
        infer(client, body([pixels()]) | {"content_type": content_type})


def test_binary_pixels_are_not_copied(app: Flask) -> None:
    """Pixels behind the JSON are looked at where the body has them: a copy could be written to."""
    arguments = with_binary([announced(list(RGB.shape), RGB.nbytes)], RGB.tobytes())
    with app.test_request_context(INFER, method="POST", **arguments):
        _, items = read_request(request, Input(SIDE, SIDE), most=100, outputs=["probabilities"])
    assert len(items) == 3
    for item, image in zip(items, RGB, strict=True):
        assert isinstance(item.content, np.ndarray)
        assert np.array_equal(item.content, image)
        assert not item.content.flags.writeable


@pytest.mark.process
def test_over_a_socket(start_service: StartService) -> None:
    """A real service takes tensors in chunks and in two workers, and both count into the same statistics."""
    service = start_service(WORKERS="2")
    arguments = with_binary([announced(list(RGB.shape), RGB.nbytes)], RGB.tobytes())
    content: bytes = arguments["data"]
    whole = requests.post(service.url + INFER, timeout=10, **arguments)
    chunks = (content[start : start + 1000] for start in range(0, len(content), 1000))
    chunked = requests.post(service.url + INFER, timeout=10, data=chunks, headers=arguments["headers"])
    assert whole.status_code == chunked.status_code == 200
    assert whole.json() == chunked.json()
    for _ in range(8):
        requests.post(service.url + INFER, timeout=10, **arguments)
    (stats,) = service.get("/v2/models/colours/stats").json()["model_stats"]
    assert stats["inference_count"] == 30
    assert stats["inference_stats"]["success"]["count"] == 10


@pytest.mark.process
def test_a_long_answer_to_a_short_request(start_service: StartService, embedding: Path) -> None:
    """A body that is read on the event loop may ask for more numbers than are written there; a thread writes them."""
    service = start_service(MODEL_DIR=str(embedding.parent.parent))
    dot = io.BytesIO()
    Image.new("P", (1, 1)).save(dot, "GIF")
    files = elements(*[dot.getvalue()] * 300)
    wish = [{"name": "embedding"}, {"name": "probabilities"}]
    sent = with_binary([announced([300], len(files), "image_bytes", "BYTES")], files, outputs=wish)
    assert len(sent["data"]) < 16 * 1024
    answer = requests.post(service.url + INFER, timeout=10, **sent)
    assert [output["shape"] for output in answer.json()["outputs"]] == [[300, 4], [300, 3]]
