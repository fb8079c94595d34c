"""OpenVINO's TensorFlow Serving client: ``python tests/interop/ovms.py HOST:PORT``; the service has the colours."""

import sys
from typing import Any

import numpy as np
import ovmsclient

from tests.interop.checks import COLOURS, PICTURES, PROBABLE, check, raises, run


@check
def status(client: Any) -> None:
    """The status of the default version and of a named one can be read."""
    for version in (0, 1):
        assert client.get_model_status("colours", version)[1]["state"] == "AVAILABLE"


@check
def metadata(client: Any) -> None:
    """The metadata has the signature's inputs and outputs."""
    signature = client.get_model_metadata("colours")["metadata"]["signature_def"]["signature_def"]["serving_default"]
    assert signature["inputs"]["images"]["dtype"] == "DT_UINT8"
    assert [dimension["size"] for dimension in signature["outputs"]["probabilities"]["tensor_shape"]["dim"]] == [
        "-1",
        "3",
    ]


@check
def prediction(client: Any) -> None:
    """Tensors give probabilities, for the default version and for a named one."""
    for version in (0, 1):
        answer = client.predict({"images": COLOURS}, "colours", version)
        np.testing.assert_allclose(answer, PROBABLE, atol=1e-4)


@check
def prediction_of_encoded_pictures(client: Any) -> None:
    """Pictures as bytes, which this client sends in base64 for the default signature, give probabilities."""
    answer = client.predict({"image_bytes": PICTURES}, "colours")
    np.testing.assert_allclose(answer, PROBABLE, atol=1e-4)


@check
def faults_are_told(client: Any) -> None:
    """An unknown model and a wrong tensor are the client's own errors."""
    for model, images, expected in (
        ("shapes", COLOURS, ovmsclient.ModelNotFoundError),
        ("colours", COLOURS[:, :2], ovmsclient.InvalidInputError),
    ):
        with raises(expected):
            client.predict({"images": images}, model)


if __name__ == "__main__":
    run(ovmsclient.make_http_client(sys.argv[1]))
