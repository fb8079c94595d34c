"""Triton's own client: ``python tests/interop/triton.py HOST:PORT`` against a service with the colours model."""

import sys
from typing import Any

import numpy as np
import tritonclient.http as triton
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
    assert server["name"] == "darkroom"
    assert {"binary_tensor_data", "classification"} <= set(server["extensions"])
    model = client.get_model_metadata("colours")
    assert model["inputs"] == [{"name": "images", "datatype": "UINT8", "shape": [-1, 32, 32, 3]}]
    assert model["outputs"] == [
        {"name": "probabilities", "datatype": "FP32", "shape": [-1, 3]},
        {"name": "familiarity", "datatype": "FP32", "shape": [-1, 1]},
    ]
    assert model["versions"] == ["1"]


@check
def configuration_and_index(client: Any) -> None:
    """The model's configuration and the repository's index can be read."""
    config = client.get_model_config("colours")
    assert config["input"][0]["data_type"] == "TYPE_UINT8"
    assert config["max_batch_size"] > 1
    assert [(model["name"], model["state"]) for model in client.get_model_repository_index()] == [("colours", "READY")]


@check
def statistics_count_inferences(client: Any) -> None:
    """An inference of three images adds one success and three inferences."""
    before = client.get_inference_statistics("colours")["model_stats"][0]
    infer(client)
    after = client.get_inference_statistics("colours")["model_stats"][0]
    assert after["inference_count"] == before["inference_count"] + 3
    succeeded = [stats["inference_stats"]["success"] for stats in (before, after)]
    assert succeeded[1]["count"] == succeeded[0]["count"] + 1
    assert succeeded[1]["ns"] > succeeded[0]["ns"]
    assert after["last_inference"] > 0


@check
def every_way_of_carrying_tensors(client: Any) -> None:
    """JSON and binary, in and out, plain and compressed either way, give the same probabilities."""
    for binary_in in (False, True):
        for binary_out in (False, True):
            for encoding in (None, "gzip", "deflate"):
                result = infer(client, binary_in=binary_in, binary_out=binary_out, encoding=encoding)
                answer = result.as_numpy("probabilities")
                assert answer.dtype == np.float32
                np.testing.assert_allclose(answer, PROBABLE, atol=1e-4)
                assert result.get_response()["id"] == "a-name"


@check
def encoded_pictures(client: Any) -> None:
    """A BYTES tensor of PNG files is decoded by the server."""
    encoded = triton.InferInput("image_bytes", [3], "BYTES")
    encoded.set_data_from_numpy(np.array(PICTURES, dtype=np.object_), binary_data=True)
    answer = client.infer("colours", [encoded]).as_numpy("probabilities")
    np.testing.assert_allclose(answer, PROBABLE, atol=1e-4)


@check
def every_output(client: Any) -> None:
    """Without a word on outputs both come, in binary and in JSON; asked for, one comes alone."""
    for binary in (False, True):
        asked = [triton.InferRequestedOutput(name, binary_data=binary) for name in ("familiarity", "probabilities")]
        for outputs in (None, asked):
            result = client.infer("colours", [images(binary=True)], outputs=outputs)
            np.testing.assert_allclose(result.as_numpy("probabilities"), PROBABLE, atol=1e-4)
            np.testing.assert_allclose(result.as_numpy("familiarity"), np.full((3, 1), 8.0), atol=0.05)
        alone = client.infer("colours", [images(binary=True)], outputs=asked[:1])
        assert alone.as_numpy("probabilities") is None
        assert alone.as_numpy("familiarity").shape == (3, 1)


@check
def classification(client: Any) -> None:
    """The classification extension gives scores, indices and labels."""
    for binary in (False, True):
        output = triton.InferRequestedOutput("probabilities", binary_data=binary, class_count=2)
        classes = client.infer("colours", [images(binary=True)], outputs=[output]).as_numpy("probabilities")
        assert classes.shape == (3, 2)
        best = [entry.decode() if isinstance(entry, bytes) else entry for entry in classes[:, 0]]
        assert [entry.split(":")[2] for entry in best] == list(LABELS)
        assert [int(entry.split(":")[1]) for entry in best] == [0, 1, 2]
        assert all(float(entry.split(":")[0]) > 0.99 for entry in best)


@check
def faults_are_told(client: Any) -> None:
    """A wrong shape and an unknown model are errors with a message, and the connection goes on."""
    wrong = triton.InferInput("images", [1, 2, 2, 3], "UINT8")
    wrong.set_data_from_numpy(np.zeros((1, 2, 2, 3), np.uint8))
    for model, status in (("colours", "400"), ("shapes", "404")):
        with raises(InferenceServerException) as raised:
            client.infer(model, [wrong])
        assert raised[0].status() == status  # type: ignore[attr-defined]
        assert len(raised[0].message()) > 10  # type: ignore[attr-defined]
    assert client.is_server_ready()


def images(*, binary: bool) -> triton.InferInput:
    """Return three plain pictures as the tensor that the model takes."""
    tensor = triton.InferInput("images", list(COLOURS.shape), "UINT8")
    tensor.set_data_from_numpy(COLOURS, binary_data=binary)
    return tensor


def infer(
    client: Any, *, binary_in: bool = True, binary_out: bool = True, encoding: str | None = None
) -> triton.InferResult:
    """Ask for the probabilities of three plain pictures."""
    return client.infer(
        "colours",
        [images(binary=binary_in)],
        outputs=[triton.InferRequestedOutput("probabilities", binary_data=binary_out)],
        request_id="a-name",
        request_compression_algorithm=encoding,
        response_compression_algorithm=encoding,
    )


if __name__ == "__main__":
    with triton.InferenceServerClient(sys.argv[1]) as connected:
        run(connected)
