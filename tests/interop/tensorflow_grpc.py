"""TensorFlow Serving's stubs, which OpenVINO's client carries, and that client:
``python -m tests.interop.tensorflow_grpc HOST:PORT``; the service has the colours model.
"""

import sys
from typing import Any

import grpc
import numpy as np
import ovmsclient
from ovmsclient.tfs_compat.grpc.tensors import make_ndarray
from ovmsclient.tfs_compat.protos.tensorflow_serving.apis import (
    classification_pb2,
    get_model_metadata_pb2,
    get_model_status_pb2,
    inference_pb2,
    model_management_pb2,
    model_service_pb2_grpc,
    predict_pb2,
    prediction_service_pb2_grpc,
    regression_pb2,
)

from tests.interop.checks import COLOURS, LABELS, PICTURES, PROBABLE, check, raises, run


@check
def client_of_openvino(stubs: Any) -> None:
    """OpenVINO's client gets status, metadata and predictions, of pixels and of files, by the newest and by number."""
    client = ovmsclient.make_grpc_client(stubs.address)
    for version in (0, 1):
        assert client.get_model_status("colours", version)[1]["state"] == "AVAILABLE"
        for images in ({"images": COLOURS}, {"image_bytes": PICTURES}, {"images": PICTURES}):
            answer = client.predict(images, "colours", version)
            np.testing.assert_allclose(answer["probabilities"], PROBABLE, atol=1e-4)
            np.testing.assert_allclose(answer["familiarity"], [8.0] * 3, atol=0.05)
    metadata = client.get_model_metadata("colours")
    assert metadata["inputs"]["images"]["shape"] == [-1, 32, 32, 3]
    assert client.predict({"image_bytes": PICTURES[0]}, "colours")["probabilities"].shape == (1, 3)
    for model, pictures, expected in (
        ("shapes", COLOURS, ovmsclient.ModelNotFoundError),
        ("colours", COLOURS[:, :2], ovmsclient.InvalidInputError),
    ):
        with raises(expected):
            client.predict({"images": pictures}, model)


@check
def prediction(stubs: Any) -> None:
    """Both signatures answer by their names; a filter chooses outputs, and the answer says who gave it."""
    for signature, name, values in (
        ("serving_default", "images", COLOURS),
        ("", "images", COLOURS),
        ("serve_bytes", "image_bytes", PICTURES),
    ):
        answer = stubs.prediction.Predict(request_of(values, name, signature))
        assert list(answer.outputs["probabilities"].float_val) == answer_of(answer, "probabilities").ravel().tolist()
        np.testing.assert_allclose(answer_of(answer, "probabilities"), PROBABLE, atol=1e-4)
        assert answer_of(answer, "familiarity").shape == (3,)
        spec = answer.model_spec
        assert (spec.name, spec.version.value, spec.signature_name) == ("colours", 1, signature or "serving_default")
    request = request_of(COLOURS, "images", "")
    request.output_filter.append("familiarity")
    assert list(stubs.prediction.Predict(request).outputs) == ["familiarity"]


@check
def values_one_by_one(stubs: Any) -> None:
    """Pixels in int_val are read as TensorFlow does: where there are fewer, the last stands for all that follow."""
    request = request_of(COLOURS[:1], "images", "")
    tensor = request.inputs["images"]
    tensor.ClearField("tensor_content")
    tensor.int_val.extend([255, 0, 0] * 1024)
    assert answer_of(stubs.prediction.Predict(request), "probabilities").argmax() == 0
    tensor.ClearField("int_val")
    tensor.int_val.append(7)
    assert answer_of(stubs.prediction.Predict(request), "probabilities").shape == (1, 3)


@check
def classification(stubs: Any) -> None:
    """Examples with pixels, with a file, or with one in the context are classified, the best label first."""
    request = classification_pb2.ClassificationRequest()
    request.model_spec.name = "colours"
    examples = request.input.example_list.examples
    for colour in COLOURS:
        examples.add().features.feature["images"].int64_list.value.extend(colour.ravel().tolist())
    examples.add().features.feature["image_bytes"].bytes_list.value.append(PICTURES[2])
    result = stubs.prediction.Classify(request).result
    assert [row.classes[0].label for row in result.classifications] == [*LABELS, "blue"]
    assert all(row.classes[0].score > 0.99 and len(row.classes) == 3 for row in result.classifications)
    with_context = classification_pb2.ClassificationRequest()
    with_context.model_spec.name = "colours"
    sent = with_context.input.example_list_with_context
    sent.context.features.feature["image_bytes"].bytes_list.value.append(PICTURES[1])
    sent.examples.add()
    [row] = stubs.prediction.Classify(with_context).result.classifications
    assert row.classes[0].label == "green"


@check
def metadata_and_status(stubs: Any) -> None:
    """The signatures and the states of the versions are told."""
    request = get_model_metadata_pb2.GetModelMetadataRequest(metadata_field=["signature_def"])
    request.model_spec.name = "colours"
    packed = stubs.prediction.GetModelMetadata(request).metadata["signature_def"]
    assert packed.type_url.endswith("/tensorflow.serving.SignatureDefMap")
    signatures = get_model_metadata_pb2.SignatureDefMap.FromString(packed.value).signature_def
    assert signatures["serving_default"].inputs["images"].dtype == 4  # DT_UINT8
    assert signatures["serve_bytes"].inputs["image_bytes"].dtype == 7  # DT_STRING
    assert signatures["serving_default"].method_name == "tensorflow/serving/predict"
    status = get_model_status_pb2.GetModelStatusRequest()
    status.model_spec.name = "colours"
    [version] = stubs.model.GetModelStatus(status).model_version_status
    assert (version.version, version.state) == (1, 30)


@check
def faults_are_told(stubs: Any) -> None:
    """Each fault has its code and a sentence."""
    labelled = request_of(COLOURS, "images", "")
    labelled.model_spec.version_label = "stable"
    unknown = request_of(COLOURS, "images", "")
    unknown.model_spec.version.value = 7
    filtered = request_of(COLOURS, "images", "")
    filtered.output_filter.append("logits")
    reload = stubs.model.HandleReloadConfigRequest
    faults = (
        (stubs.prediction.Predict, labelled, "INVALID_ARGUMENT", "stable"),
        (stubs.prediction.Predict, unknown, "NOT_FOUND", "Servable not found"),
        (stubs.prediction.Predict, filtered, "INVALID_ARGUMENT", "{probabilities,familiarity}"),
        (stubs.prediction.Predict, request_of(COLOURS, "images", "other"), "INVALID_ARGUMENT", "signature def"),
        (stubs.prediction.Predict, request_of(COLOURS, "images", "serve_bytes"), "INVALID_ARGUMENT", "DT_UINT8"),
        (stubs.prediction.Predict, request_of(COLOURS / 255, "images", ""), "INVALID_ARGUMENT", "DT_DOUBLE"),
        (stubs.prediction.Predict, predict_pb2.PredictRequest(), "INVALID_ARGUMENT", "name"),
        (stubs.prediction.Regress, regression_pb2.RegressionRequest(), "INVALID_ARGUMENT", "classifier"),
        (stubs.prediction.MultiInference, inference_pb2.MultiInferenceRequest(), "UNIMPLEMENTED", "Classify"),
        (reload, model_management_pb2.ReloadConfigRequest(), "PERMISSION_DENIED", "token"),
    )
    for call, request, code, words in faults:
        with raises(grpc.RpcError) as raised:
            call(request, timeout=30)
        assert raised[0].code().name == code, (raised[0], code)  # type: ignore[attr-defined]
        assert words in raised[0].details(), raised[0]  # type: ignore[attr-defined]


class Stubs:
    """What calls both services on one connection."""

    def __init__(self, address: str) -> None:
        """Connect to ``address``."""
        self.address = address
        channel = grpc.insecure_channel(address)
        self.prediction = prediction_service_pb2_grpc.PredictionServiceStub(channel)
        self.model = model_service_pb2_grpc.ModelServiceStub(channel)


def request_of(values: Any, name: str, signature: str) -> Any:
    """Return a request to predict ``values``, as the input ``name``."""
    request = predict_pb2.PredictRequest()
    request.model_spec.name = "colours"
    request.model_spec.signature_name = signature
    request.inputs[name].CopyFrom(ovmsclient.make_tensor_proto(values))
    return request


def answer_of(answer: Any, name: str) -> Any:
    """Return an output as an array."""
    return make_ndarray(answer.outputs[name])


if __name__ == "__main__":
    run(Stubs(sys.argv[1]))
