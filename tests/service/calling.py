"""Calls by gRPC with our own messages; the clients that others wrote are in tests/interop."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import grpc

from service.protocols.grpc import health_pb2, open_inference_pb2, tensorflow_serving_pb2

V2 = "/inference.GRPCInferenceService/"
PREDICTION = "/tensorflow.serving.PredictionService/"
MODEL = "/tensorflow.serving.ModelService/"
HEALTH = "/grpc.health.v1.Health/Check"

_ANSWERS = {
    V2 + "ModelInfer": open_inference_pb2.ModelInferResponse,
    V2 + "ServerReady": open_inference_pb2.ServerReadyResponse,
    V2 + "ServerLive": open_inference_pb2.ServerLiveResponse,
    PREDICTION + "Predict": tensorflow_serving_pb2.PredictResponse,
    PREDICTION + "Classify": tensorflow_serving_pb2.ClassificationResponse,
    HEALTH: health_pb2.HealthCheckResponse,
}


class Told(NamedTuple):
    """What a call got: gRPC's code by its name, the sentence where it failed, the answer, and the metadata."""

    code: str
    sentence: str
    answer: Any
    metadata: Mapping[str, str]


class Caller:
    """Calls one address on one connection of its own."""

    def __init__(self, address: str, options: Sequence[tuple[str, int]] = ()) -> None:
        """Take the address, HOST:PORT, and options of gRPC's channel."""
        self.address = address
        own = ("grpc.use_local_subchannel_pool", 1)
        self.channel = grpc.insecure_channel(address, [own, *options])

    def call(self, path: str, message: Any, metadata: Mapping[str, str] | None = None, timeout: float = 30) -> Told:
        """Return what the method at ``path`` answers to ``message``, a message or bytes."""
        content = message if isinstance(message, bytes) else message.SerializeToString()
        method: Any = self.channel.unary_unary(path)
        sent = tuple((metadata or {}).items())
        try:
            answer, call = method.with_call(content, timeout=timeout, metadata=sent)
        except grpc.RpcError as error:
            return Told(error.code().name, error.details(), None, _metadata(error))
        kind = _ANSWERS.get(path)
        return Told("OK", "", kind.FromString(answer) if kind is not None else answer, _metadata(call))

    def close(self) -> None:
        """End the connection."""
        self.channel.close()


def _metadata(call: Any) -> dict[str, str]:
    return dict((*(call.initial_metadata() or ()), *(call.trailing_metadata() or ())))


def infer(
    content: bytes, shape: Sequence[int], name: str = "images", datatype: str = "UINT8", model: str = "colours"
) -> Any:
    """Return a request of V2 whose one input is ``content``, raw."""
    tensor = {"name": name, "datatype": datatype, "shape": shape}
    return open_inference_pb2.ModelInferRequest(model_name=model, inputs=[tensor], raw_input_contents=[content])


def predict(name: str = "images", model: str = "colours", **tensor: Any) -> Any:
    """Return a request of TensorFlow Serving to predict a tensor, whose ``shape`` and other fields are told."""
    shape = {"dim": [{"size": size} for size in tensor.pop("shape")]}
    return tensorflow_serving_pb2.PredictRequest(
        model_spec={"name": model}, inputs={name: tensorflow_serving_pb2.TensorProto(tensor_shape=shape, **tensor)}
    )
