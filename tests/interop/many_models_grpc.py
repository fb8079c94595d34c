"""The same as many_models.py by gRPC: ``python -m tests.interop.many_models_grpc HOST:PORT TOKEN``.

KServe's client has messages of the same names as Triton's, so that it is not among these.
"""

import sys
from typing import Any, NamedTuple

import grpc
import tritonclient.grpc as triton
from ovmsclient.tfs_compat.grpc.tensors import make_tensor_proto
from ovmsclient.tfs_compat.protos.tensorflow_serving.apis import (
    get_model_status_pb2,
    model_management_pb2,
    model_service_pb2_grpc,
    predict_pb2,
    prediction_service_pb2_grpc,
)
from tritonclient.utils import InferenceServerException

from tests.interop.checks import COLOURS, check, raises, run, wait

VERSIONS = (("colours", "1"), ("colours", "2"), ("fruits", "3"), ("fruits", "5"))


class Service(NamedTuple):
    """Where the service is, and the headers that let one change it."""

    grpc: str
    headers: dict[str, str]


@check
def triton_asks_each_version(service: Service) -> None:
    """Each version by its number and its label; it loads and unloads with the token alone."""
    with triton.InferenceServerClient(service.grpc) as client:
        images = triton.InferInput("images", list(COLOURS.shape), "UINT8")
        images.set_data_from_numpy(COLOURS)
        for name, version in (*VERSIONS, ("fruits", "canary"), ("fruits", "")):
            response = client.infer(name, [images], version).get_response()
            number = {"canary": "5", "": "3"}.get(version, version)
            assert (response.model_name, response.model_version) == (name, number)
        with raises(InferenceServerException):
            client.unload_model("fruits")
        client.unload_model("fruits", headers=service.headers)
        wait(lambda: not client.is_model_ready("fruits"))
        client.load_model("fruits", headers=service.headers)
        wait(lambda: client.is_model_ready("fruits"))


@check
def tensorflow_serving_asks_each_version(service: Service) -> None:
    """Versions by number and label; a configuration that is loaded says which there are, and what they are called."""
    with grpc.insecure_channel(service.grpc) as channel:
        prediction = prediction_service_pb2_grpc.PredictionServiceStub(channel)
        models = model_service_pb2_grpc.ModelServiceStub(channel)

        def answered(**spec: Any) -> int:
            request = predict_pb2.PredictRequest()
            request.model_spec.name = "fruits"
            if "version" in spec:
                request.model_spec.version.value = spec["version"]
            if "label" in spec:
                request.model_spec.version_label = spec["label"]
            request.inputs["images"].CopyFrom(make_tensor_proto(COLOURS))
            return int(prediction.Predict(request).model_spec.version.value)

        assert [answered(), answered(version=5), answered(label="canary"), answered(label="stable")] == [3, 5, 5, 3]
        with raises(grpc.RpcError):
            answered(label="next")
        reload = model_management_pb2.ReloadConfigRequest()
        for name, labels in (("colours", {}), ("fruits", {"stable": 5, "next": 3})):
            config = reload.config.model_config_list.config.add(name=name, base_path="/anywhere")
            config.model_version_policy.all.SetInParent()
            config.version_labels.update(labels)
        with raises(grpc.RpcError):
            models.HandleReloadConfigRequest(reload)
        assert models.HandleReloadConfigRequest(reload, metadata=tuple(service.headers.items())).status.error_code == 0
        wait(lambda: answered() == 5 and answered(label="next") == 3)
        status = get_model_status_pb2.GetModelStatusRequest()
        status.model_spec.name = "fruits"
        states = {each.version: each.state for each in models.GetModelStatus(status).model_version_status}
        assert states == {3: 30, 5: 30}  # AVAILABLE


if __name__ == "__main__":
    run(Service(sys.argv[1], {"authorization": f"Bearer {sys.argv[2]}"}))
