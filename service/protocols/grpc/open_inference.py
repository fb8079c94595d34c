"""``inference.GRPCInferenceService``: the Open Inference Protocol V2 with Triton's extensions, as over HTTP."""

from typing import Any

import msgspec
import numpy as np
from google.protobuf.json_format import ParseDict

from artifact import Input
from artifact.validate import EMBEDDING
from service import __version__
from service.inference.errors import InvalidRequest, ModelUnavailable, UnknownModel
from service.inference.items import check_count
from service.inference.loaded import LoadedModel
from service.inference.predictions import Predictions
from service.protocols.grpc import open_inference_pb2 as messages
from service.protocols.grpc.calls import Message, Method, check_model, use_model
from service.protocols.open_inference.messages import (
    ResponseFormat,
    answer_with,
    elements,
    read_tensor,
)
from service.protocols.open_inference.routes import (
    EXTENSIONS,
    configuration,
    describe,
    index,
    outputs_of,
    statistics_of,
)
from service.protocols.own.health import readiness
from service.web.services import Services

_BINARY_DATA = "binary_data"  # of an output; here all are


def _server_live(_services: Services, _request: Message, _deadline: float) -> Message:
    return messages.ServerLiveResponse(live=True)


def _server_ready(services: Services, _request: Message, _deadline: float) -> Message:
    return messages.ServerReadyResponse(ready=readiness(services)[0] == "ready")


def _model_ready(services: Services, request: Message, _deadline: float) -> Message:
    """Say whether a model can answer now; one that is not here cannot."""
    try:
        check_model(services, request.name, request.version)
    except (UnknownModel, ModelUnavailable):
        return messages.ModelReadyResponse(ready=False)
    ready = services.models.of(request.name or None).unready is None
    return messages.ModelReadyResponse(ready=ready and not services.draining())


def _server_metadata(_services: Services, _request: Message, _deadline: float) -> Message:
    return messages.ServerMetadataResponse(name="darkroom", version=__version__, extensions=EXTENSIONS)


def _model_metadata(services: Services, request: Message, _deadline: float) -> Message:
    model = check_model(services, request.name, request.version)
    return _message(describe(model, services.models.of(model.name).loaded), messages.ModelMetadataResponse())


def _model_config(services: Services, request: Message, _deadline: float) -> Message:
    model = check_model(services, request.name, request.version)
    config = configuration(model, services.models.of(model.name), services.settings.max_batch)
    return messages.ModelConfigResponse(config=_message(config, messages.ModelConfig()))


def _model_statistics(services: Services, request: Message, _deadline: float) -> Message:
    if request.name:
        asked = [check_model(services, request.name, request.version)]
    else:
        asked = [model for registry in services.models.registries for model in registry.loaded]
    found = (_message(statistics_of(services, model), messages.ModelStatistics()) for model in asked)
    return messages.ModelStatisticsResponse(model_stats=found)


def _repository_index(services: Services, request: Message, _deadline: float) -> Message:
    entries = (entry for registry in services.models.registries for entry in index(registry))
    found = [entry for entry in entries if entry.state == "READY" or not request.ready]
    entry = messages.RepositoryIndexResponse.ModelIndex
    return messages.RepositoryIndexResponse(models=[_message(each, entry()) for each in found])


def _load(services: Services, request: Message, _deadline: float) -> Message:
    services.models.load(request.model_name)
    return messages.RepositoryModelLoadResponse()


def _unload(services: Services, request: Message, _deadline: float) -> Message:
    services.models.unload(request.model_name)
    return messages.RepositoryModelUnloadResponse()


def _infer(services: Services, request: Message, deadline: float) -> Message:
    """Classify a batch of pictures; the input and the outputs are those of V2 over HTTP, all in binary."""
    most = services.settings.max_batch
    with use_model(services, request.model_name, request.model_version) as model:
        size = model.metadata.input
        binary = _binary(request, size, most)
        wanted, items = read_tensor(_described(request, len(binary)), binary, size, most, list(outputs_of(model)))
        embedding = EMBEDDING in wanted.names
        predictions = services.predictor.predict_all(model, items, deadline, embedding=embedding)
        return _response(wanted, model, predictions)


def _stream_infer(services: Services, request: Message, deadline: float) -> Message:
    return messages.ModelStreamInferResponse(infer_response=_infer(services, request, deadline))


def _fault(sentence: str) -> Message:
    return messages.ModelStreamInferResponse(error_message=sentence)


def _described(request: Message, size: int) -> dict[str, Any]:
    """Return ``request`` as V2 has it in JSON, with ``size`` bytes of data behind it."""
    described = {
        "inputs": [
            {
                "name": tensor.name,
                "datatype": tensor.datatype,
                "shape": list(tensor.shape),
                "parameters": {"binary_data_size": size},
            }
            for tensor in request.inputs
        ],
        "outputs": [
            {"name": output.name, "parameters": {**_parameters(output.parameters), _BINARY_DATA: True}}
            for output in request.outputs
        ],
        "parameters": {"binary_data_output": True},
    }
    return {**described, "id": request.id} if request.id else described


def _parameters(sent: Any) -> dict[str, Any]:
    """Return parameters by name; those without a value are left out."""
    chosen = {name: (parameter, parameter.WhichOneof("parameter_choice")) for name, parameter in sent.items()}
    return {name: getattr(parameter, choice) for name, (parameter, choice) in chosen.items() if choice is not None}


def _binary(request: Message, size: Input, most: int) -> memoryview:
    """Return the data of the one input as bytes, whichever way it came."""
    contents = [tensor.contents for tensor in request.inputs if tensor.HasField("contents")]
    raw = request.raw_input_contents
    if len(contents) + len(raw) > 1:
        raise InvalidRequest(
            f"There are {len(raw)} raw_input_contents and {len(contents)} inputs with contents; "
            "send the data of the one input in one of them."
        )
    if raw:
        return memoryview(raw[0])
    return memoryview(_typed(contents[0], size, most) if contents else b"")


def _typed(contents: Message, size: Input, most: int) -> bytes:
    """Return typed contents as they would be in binary."""
    if contents.bytes_contents:
        check_count(len(contents.bytes_contents), most)
        return elements(contents.bytes_contents)
    check_count(len(contents.uint_contents) // (size.height * size.width * 3), most)
    values = np.array(contents.uint_contents, np.uint32)
    if len(values) and values.max() > np.iinfo(np.uint8).max:
        raise InvalidRequest("A value of uint_contents is above 255, which UINT8 cannot hold.")
    return values.astype(np.uint8).tobytes()


def _response(wanted: ResponseFormat, model: LoadedModel, predictions: Predictions) -> Message:
    answer, binary = answer_with(wanted, model, predictions)
    response = messages.ModelInferResponse(
        model_name=answer.model_name,
        model_version=answer.model_version,
        id=answer.id or "",
        raw_output_contents=binary,
    )
    for tensor in answer.outputs:
        response.outputs.add(name=tensor.name, datatype=str(tensor.__struct_config__.tag), shape=tensor.shape)
    return response


def _message(struct: msgspec.Struct, empty: Message) -> Message:
    """Return ``empty`` with the fields of ``struct``, which have the same names."""
    return ParseDict(msgspec.to_builtins(struct), empty)


_METHODS = {
    "ServerLive": Method(messages.ServerLiveRequest, _server_live),
    "ServerReady": Method(messages.ServerReadyRequest, _server_ready),
    "ModelReady": Method(messages.ModelReadyRequest, _model_ready),
    "ServerMetadata": Method(messages.ServerMetadataRequest, _server_metadata),
    "ModelMetadata": Method(messages.ModelMetadataRequest, _model_metadata),
    "ModelConfig": Method(messages.ModelConfigRequest, _model_config),
    "ModelStatistics": Method(messages.ModelStatisticsRequest, _model_statistics),
    "RepositoryIndex": Method(messages.RepositoryIndexRequest, _repository_index),
    "RepositoryModelLoad": Method(messages.RepositoryModelLoadRequest, _load),
    "RepositoryModelUnload": Method(messages.RepositoryModelUnloadRequest, _unload),
    "ModelInfer": Method(messages.ModelInferRequest, _infer, predicts=True),
    "ModelStreamInfer": Method(messages.ModelInferRequest, _stream_infer, predicts=True, fault=_fault),
}
SERVICES = {"inference.GRPCInferenceService": _METHODS}
