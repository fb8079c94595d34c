"""Triton's own client by gRPC: ``python -m tests.interop.triton_grpc HOST:PORT``; the service has the colours model."""

import queue
import sys
from typing import Any

import numpy as np
import tritonclient.grpc as triton
from tritonclient.grpc import service_pb2, service_pb2_grpc
from tritonclient.utils import InferenceServerException

from tests.interop.checks import COLOURS, LABELS, PICTURES, PROBABLE, check, raises, run


@check
def health_and_metadata(client: Any) -> None:
    """Liveness, readiness and metadata are what the client expects."""
    assert client.is_server_live()
    assert client.is_server_ready()
    assert client.is_model_ready("colours")
    assert client.is_model_ready("colours", "1")
    assert not client.is_model_ready("shapes")
    server = client.get_server_metadata()
    assert server.name == "darkroom"
    assert "classification" in server.extensions
    model = client.get_model_metadata("colours", as_json=True)
    assert model["inputs"] == [{"name": "images", "datatype": "UINT8", "shape": ["-1", "32", "32", "3"]}]
    assert [(output["name"], output["shape"]) for output in model["outputs"]] == [
        ("probabilities", ["-1", "3"]),
        ("familiarity", ["-1", "1"]),
    ]
    assert model["versions"] == ["1"]


@check
def configuration_and_index(client: Any) -> None:
    """The model's configuration and the repository's index can be read."""
    config = client.get_model_config("colours").config
    assert config.input[0].data_type == 2  # TYPE_UINT8
    assert list(config.input[0].dims) == [32, 32, 3]
    assert config.max_batch_size > 1
    assert config.version_policy.latest.num_versions == 1
    [entry] = client.get_model_repository_index().models
    assert (entry.name, entry.version, entry.state) == ("colours", "1", "READY")


@check
def statistics_count_inferences(client: Any) -> None:
    """An inference of three images adds one success and three inferences."""
    before = client.get_inference_statistics("colours").model_stats[0]
    infer(client)
    after = client.get_inference_statistics("colours").model_stats[0]
    assert after.inference_count == before.inference_count + 3
    assert after.inference_stats.success.count == before.inference_stats.success.count + 1
    assert after.inference_stats.success.ns > before.inference_stats.success.ns


@check
def pixels_and_pictures(client: Any) -> None:
    """A tensor of pixels and one of PNG files give the probabilities and the familiarity; compressed as well."""
    for tensor in (images(), pictures()):
        for compression in (None, "gzip", "deflate"):
            result = client.infer("colours", [tensor], request_id="a-name", compression_algorithm=compression)
            np.testing.assert_allclose(result.as_numpy("probabilities"), PROBABLE, atol=1e-4)
            np.testing.assert_allclose(result.as_numpy("familiarity"), np.full((3, 1), 8.0), atol=0.05)
            assert result.get_response().id == "a-name"
    alone = client.infer("colours", [images()], outputs=[triton.InferRequestedOutput("familiarity")])
    assert alone.as_numpy("probabilities") is None
    assert alone.as_numpy("familiarity").shape == (3, 1)


@check
def typed_contents(client: Any) -> None:
    """Tensors whose values are in the fields of their types are read as well."""
    for tensor in (
        {"name": "images", "datatype": "UINT8", "contents": {"uint_contents": COLOURS.ravel().tolist()}},
        {"name": "image_bytes", "datatype": "BYTES", "contents": {"bytes_contents": PICTURES}},
    ):
        shape = list(COLOURS.shape) if tensor["name"] == "images" else [3]
        request = service_pb2.ModelInferRequest(model_name="colours", inputs=[{**tensor, "shape": shape}])
        answer = triton.InferResult(stub(client).ModelInfer(request))
        np.testing.assert_allclose(answer.as_numpy("probabilities"), PROBABLE, atol=1e-4)


@check
def classification(client: Any) -> None:
    """The classification extension gives scores, indices and labels."""
    output = triton.InferRequestedOutput("probabilities", class_count=2)
    classes = client.infer("colours", [images()], outputs=[output]).as_numpy("probabilities")
    assert classes.shape == (3, 2)
    best = [entry.decode().split(":") for entry in classes[:, 0]]
    assert [(int(index), label) for _, index, label in best] == list(enumerate(LABELS))
    assert all(float(score) > 0.99 for score, _, _ in best)


@check
def a_stream(client: Any) -> None:
    """Each message of a stream gets an answer in turn; a fault of one is told, and the next one is answered."""
    answers: queue.Queue[Any] = queue.Queue()
    client.start_stream(callback=lambda result, error: answers.put((result, error)))
    wrong = triton.InferInput("images", [1, 2, 2, 3], "UINT8")
    wrong.set_data_from_numpy(np.zeros((1, 2, 2, 3), np.uint8))
    for tensor in (images(), wrong, pictures()):
        client.async_stream_infer("colours", [tensor])
    first, second, third = (answers.get(timeout=30) for _ in range(3))
    for result, error in (first, third):
        assert error is None
        np.testing.assert_allclose(result.as_numpy("probabilities"), PROBABLE, atol=1e-4)
    assert "shape" in second[1].message()
    client.stop_stream()


@check
def faults_are_told(client: Any) -> None:
    """What is wrong is a code and a sentence, and the connection goes on."""
    wrong = triton.InferInput("images", [1, 2, 2, 3], "UINT8")
    wrong.set_data_from_numpy(np.zeros((1, 2, 2, 3), np.uint8))
    for model, version, code in (
        ("colours", "", "INVALID_ARGUMENT"),
        ("shapes", "", "NOT_FOUND"),
        ("colours", "7", "NOT_FOUND"),
    ):
        with raises(InferenceServerException) as raised:
            client.infer(model, [wrong], model_version=version)
        assert raised[0].status() == f"StatusCode.{code}"  # type: ignore[attr-defined]
        assert len(raised[0].message()) > 10  # type: ignore[attr-defined]
    for call in (client.load_model, client.unload_model):
        with raises(InferenceServerException):
            call("colours")
    assert client.is_server_ready()


def stub(client: Any) -> Any:
    """Return what calls the service with messages of one's own, on the client's connection."""
    return service_pb2_grpc.GRPCInferenceServiceStub(client._channel)


def images() -> triton.InferInput:
    """Return three plain pictures as the tensor that the model takes."""
    tensor = triton.InferInput("images", list(COLOURS.shape), "UINT8")
    return tensor.set_data_from_numpy(COLOURS)


def pictures() -> triton.InferInput:
    """Return three plain pictures as PNG files."""
    tensor = triton.InferInput("image_bytes", [3], "BYTES")
    return tensor.set_data_from_numpy(np.array(PICTURES, dtype=np.object_))


def infer(client: Any) -> triton.InferResult:
    """Ask for the probabilities of three plain pictures."""
    return client.infer("colours", [images()])


if __name__ == "__main__":
    with triton.InferenceServerClient(sys.argv[1]) as connected:
        run(connected)
