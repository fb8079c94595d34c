"""``tensorflow.serving.PredictionService`` and ``ModelService``: TensorFlow Serving over gRPC.

Beside the messages, what it answers is in ``servables/tensorflow`` of https://github.com/tensorflow/serving.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Literal

import msgspec
import numpy as np
import numpy.typing as npt
from google.protobuf.any_pb2 import Any as Packed
from google.protobuf.json_format import ParseDict
from google.protobuf.wrappers_pb2 import Int64Value
from werkzeug.exceptions import NotImplemented as Unimplemented

from artifact import Input
from artifact.validate import EMBEDDING, FAMILIARITY, OUTPUT
from service.inference.engine import Images
from service.inference.errors import InvalidRequest
from service.inference.items import Item, check_count
from service.inference.loaded import LoadedModel
from service.inference.plan import InvalidPlan, Latest, Plan
from service.inference.predictions import Predictions
from service.protocols.grpc import tensorflow_serving_pb2 as messages
from service.protocols.grpc.calls import STICKY, Message, Method
from service.protocols.open_inference.routes import outputs_of
from service.protocols.tensorflow_serving.messages import classifications, unknown_signature
from service.protocols.tensorflow_serving.routes import described, labelled, servable, statuses
from service.web.services import Services

_DEFAULT, _BYTES = "serving_default", "serve_bytes"
_PIXELS, _FILES = "images", "image_bytes"  # the inputs of these
_SIGNATURE_DEF = "signature_def"  # the one kind of metadata that there is
_SIGNATURE_TYPE = "type.googleapis.com/tensorflow.serving.SignatureDefMap"
_MOST_SHOWN = 80  # characters of what a client sent


def _predict(services: Services, request: Message, deadline: float) -> Message:
    """Answer with the outputs of the signature that are asked for; without a filter with all but the embedding."""
    with _servable(services, request.model_spec) as model:
        pictures = _Pictures(model.metadata.input, services.settings.max_batch)
        items = pictures.of_inputs(request.model_spec.signature_name, request.inputs)
        wanted = _wanted(request.output_filter, list(outputs_of(model)))
        predictions = services.predictor.predict_all(model, items, deadline, embedding=EMBEDDING in wanted)
    response = messages.PredictResponse(model_spec=_spec(model, request.model_spec.signature_name or _DEFAULT))
    for name in wanted:
        response.outputs[name].CopyFrom(_floats(_output(predictions, name)))
    return response


def _classify(services: Services, request: Message, deadline: float) -> Message:
    """Answer with all labels of each example with their scores, in descending order."""
    with _servable(services, request.model_spec) as model:
        if request.model_spec.signature_name not in ("", _DEFAULT, _BYTES):
            raise unknown_signature(request.model_spec.signature_name)
        items = _Pictures(model.metadata.input, services.settings.max_batch).of_examples(request.input)
        predictions = services.predictor.predict_all(model, items, deadline)
    results = classifications(model.metadata.labels, predictions.probabilities).results
    rows = [
        messages.Classifications(classes=[messages.Class(label=label, score=score) for label, score in row])
        for row in results
    ]
    return messages.ClassificationResponse(
        result=messages.ClassificationResult(classifications=rows),
        model_spec=_spec(model, request.model_spec.signature_name or _DEFAULT),
    )


def _regress(_services: Services, _request: Message, _deadline: float) -> Message:
    raise InvalidRequest("The model is a classifier and has no signature for regression; call Predict or Classify.")


def _multi_inference(_services: Services, _request: Message, _deadline: float) -> Message:
    raise Unimplemented("Several signatures cannot be asked in one call here; call Classify or Predict for each.")


def _model_metadata(services: Services, request: Message, _deadline: float) -> Message:
    """Describe the signatures of a version."""
    if list(request.metadata_field) != [_SIGNATURE_DEF]:
        raise InvalidRequest(f"The metadata_field has to be {_SIGNATURE_DEF}, which is all that there is.")
    with _servable(services, request.model_spec) as model:
        signatures = msgspec.to_builtins(described(model).metadata.signature_def)
    told = ParseDict(signatures, messages.SignatureDefMap(), ignore_unknown_fields=True)
    return messages.GetModelMetadataResponse(
        model_spec=_spec(model, ""),
        metadata={_SIGNATURE_DEF: Packed(type_url=_SIGNATURE_TYPE, value=told.SerializeToString())},
    )


def _model_status(services: Services, request: Message, _deadline: float) -> Message:
    """Tell the state of the versions of a model."""
    spec = request.model_spec
    name, version, label = _asked(services, spec)
    found = statuses(services, name, labelled(services, name, label) if label else version)
    return messages.GetModelStatusResponse(
        model_version_status=[ParseDict(msgspec.to_builtins(status), messages.ModelVersionStatus()) for status in found]
    )


def _reload(services: Services, request: Message, _deadline: float) -> Message:
    """Follow a configuration: models that it lists are loaded, by its policies and labels, and all others unloaded."""
    configs = {config.name: config for config in request.config.model_config_list.config}
    if not configs:
        raise InvalidRequest("The configuration has no model_config_list, or one without a model.")
    plans = {name: _plan(services, config) for name, config in configs.items()}
    for name, plan in plans.items():
        if plan != services.models.of(name).plan:
            services.models.follow(name, plan)
    for name in services.models.names:
        if name not in plans:
            services.models.unload(name)
        elif services.models.of(name).unready is not None:
            services.models.load(name)
    return messages.ReloadConfigResponse(status=messages.StatusProto())


def _plan(services: Services, config: Message) -> Plan:
    """Return what ``config`` says of a model's versions, and for the rest what is set of it now."""
    policy = config.model_version_policy
    kind = policy.WhichOneof("policy_choice")
    versions: Latest | list[int] | Literal["all"] = Latest(1)
    if kind == "latest":
        versions = Latest(max(1, policy.latest.num_versions))
    elif kind == "specific":
        versions = list(policy.specific.versions)
    elif kind == "all":
        versions = "all"
    before = services.models.of(config.name).plan
    plan = msgspec.structs.replace(before, versions=versions, labels=dict(config.version_labels))
    try:
        plan.check()
    except InvalidPlan as error:
        raise InvalidRequest(f"The configuration of {config.name!r} cannot be followed: {error}.") from error
    return plan


@contextmanager
def _servable(services: Services, spec: Message) -> Iterator[LoadedModel]:
    """Give the version that ``spec`` asks for, to predict with it; see ``servable``."""
    with servable(services, *_asked(services, spec), STICKY.get()) as model:
        yield model


def _asked(services: Services, spec: Message) -> tuple[str, int | None, str]:
    """Return what ``spec`` asks for: a model, and one of its versions by its number, by a label, or any."""
    if not spec.name:
        raise InvalidRequest("The model_spec has no name of a model.")
    if spec.WhichOneof("version_choice") == "version_label":
        label = str(spec.version_label)
        labelled(services, spec.name, label)  # says where there is none
        return str(spec.name), None, label
    return str(spec.name), int(spec.version.value) if spec.HasField("version") else None, ""


def _spec(model: LoadedModel, signature: str) -> Message:
    return messages.ModelSpec(name=model.name, version=Int64Value(value=model.version), signature_name=signature)


def _wanted(filters: Sequence[str], outputs: list[str]) -> list[str]:
    """Return which of ``outputs`` to answer with."""
    for name in filters:
        if name not in outputs:
            raise InvalidRequest(
                f"Output tensor alias not found in signature: {name[:_MOST_SHOWN]}. Outputs expected to be in the set "
                f"{{{','.join(outputs)}}}."
            )
    return list(dict.fromkeys(filters)) or [name for name in outputs if name != EMBEDDING]


def _output(predictions: Predictions, name: str) -> npt.NDArray[np.float32]:
    """Return an output as its signature has it: float32 [N, columns], and [N] for the familiarity."""
    found = {OUTPUT: predictions.probabilities, FAMILIARITY: predictions.familiarity, EMBEDDING: predictions.embedding}
    values = found[name]
    assert values is not None, f"{name} is an output of the model"  # noqa: S101 - by ``_wanted``
    return values


def _floats(values: npt.NDArray[np.float32]) -> Message:
    """Return ``values`` in the field that clients in languages without NumPy read."""
    return messages.TensorProto(
        dtype=messages.DT_FLOAT, tensor_shape=_shape(values.shape), float_val=values.ravel().tolist()
    )


def _shape(sizes: Sequence[int]) -> Message:
    return messages.TensorShapeProto(dim=[messages.TensorShapeProto.Dim(size=size) for size in sizes])


class _Pictures:
    """Takes the pictures out of requests: up to so many, and pixels of the size that a model takes."""

    def __init__(self, size: Input, most: int) -> None:
        self._image = [size.height, size.width, 3]
        self._values = size.height * size.width * 3
        self._most = most

    def of_inputs(self, signature: str, inputs: Message) -> list[Item]:
        """Return the pictures of a request to predict, by name and type of its one input.

        Where no signature is named, the type says which one is meant; clients of OpenVINO Model Server know only the
        name ``images``, for both kinds.
        """
        if signature not in ("", _DEFAULT, _BYTES):
            raise unknown_signature(signature)
        names = list(inputs)
        if len(names) != 1 or names[0] not in (_PIXELS, _FILES):
            raise InvalidRequest(
                f"The request has {len(names)} inputs, or one of another name; give one, {_PIXELS} or {_FILES}."
            )
        tensor = inputs[names[0]]
        kind = {_DEFAULT: messages.DT_UINT8, _BYTES: messages.DT_STRING}.get(signature, tensor.dtype)
        if kind != tensor.dtype or kind not in (messages.DT_UINT8, messages.DT_STRING):
            raise InvalidRequest(
                f"The input {names[0]} has the type {_type_name(tensor.dtype)}; {_DEFAULT} takes {_PIXELS}, DT_UINT8 "
                f"{self._expected()}, and {_BYTES} takes {_FILES}, DT_STRING [N]."
            )
        if kind == messages.DT_STRING:
            return [Item(content) for content in self._strings(tensor)]
        return [Item(image) for image in self._pixels(tensor)]

    def of_examples(self, sent: Message) -> list[Item]:
        """Return the pictures of a request to classify, one for each example."""
        kind = sent.WhichOneof("kind")
        if kind is None:
            raise InvalidRequest("The input has no examples.")
        examples = getattr(sent, kind).examples
        check_count(len(examples), self._most)
        shared = self._features(sent.example_list_with_context.context) if kind == "example_list_with_context" else []
        items: list[Item] = []
        for index, example in enumerate(examples):
            found = shared + self._features(example)
            if len(found) != 1:
                raise InvalidRequest(
                    f"Example {index} has {len(found)} pictures, counting that of the context; "
                    f"give it one, as the feature {_PIXELS} or as the feature {_FILES}."
                )
            items += found
        if not items:
            raise InvalidRequest("The input has no examples.")
        return items

    def _features(self, example: Message) -> list[Item]:
        """Return the pictures among the features of one example; others are ignored."""
        features = example.features.feature
        files = list(features[_FILES].bytes_list.value) if _FILES in features else []
        check_count(len(files), self._most)
        items = [Item(content) for content in files]
        if _PIXELS in features:
            values = features[_PIXELS].int64_list.value
            if len(values) != self._values:
                raise InvalidRequest(
                    f"The feature {_PIXELS} has {len(values)} integers in its int64_list; "
                    f"an image has {' x '.join(map(str, self._image))} = {self._values}."
                )
            items.append(Item(_bytes_of(np.array(values, np.int64)).reshape(self._image)))
        return items

    def _strings(self, tensor: Message) -> list[bytes]:
        """Return the elements of a tensor of strings, [N] or [N, 1]."""
        strings = tensor.string_val
        check_count(len(strings), self._most)
        sizes = self._sizes(tensor)
        count = sizes[0] if sizes and sizes[1:] in ([], [1]) else 1 if sizes == [] else -1
        if count != len(strings) or not strings:
            raise InvalidRequest(
                f"The tensor of files has {len(strings)} elements in string_val, and the shape {_shown(sizes)}; "
                "it must be [N], and have all elements there."
            )
        return list(strings)

    def _pixels(self, tensor: Message) -> Images:
        """Return a tensor of pixels as uint8 [N, H, W, 3]."""
        sizes = self._sizes(tensor)
        if sizes is None or sizes[1:] != self._image or sizes[0] < 1:
            raise InvalidRequest(
                f"The tensor of images has the shape {_shown(sizes)}, but the model takes {self._expected()}."
            )
        check_count(sizes[0], self._most)
        count = sizes[0] * self._values
        content, numbers = tensor.tensor_content, tensor.int_val
        if content and not numbers and len(content) == count:
            values = np.frombuffer(content, np.uint8)
        elif numbers and not content and len(numbers) <= count:
            values = _bytes_of(np.array(numbers, np.int64))
            values = np.pad(values, (0, count - len(values)), mode="edge")  # the last stands for all that follow
        else:
            raise InvalidRequest(
                f"The tensor of images has {len(content)} bytes of tensor_content and {len(numbers)} values of "
                f"int_val, and its shape {_shown(sizes)} wants {count} in one of them."
            )
        return values.reshape(sizes)

    def _sizes(self, tensor: Message) -> list[int] | None:
        """Return the shape of ``tensor``; None where it has none."""
        return None if tensor.tensor_shape.unknown_rank else [dim.size for dim in tensor.tensor_shape.dim]

    def _expected(self) -> str:
        return f"[N, {', '.join(map(str, self._image))}]"


def _bytes_of(values: npt.NDArray[np.int64]) -> npt.NDArray[np.uint8]:
    """Return ``values`` as bytes.

    Raises:
        InvalidRequest: one of them is below 0 or above 255.
    """
    if len(values) and not 0 <= values.min() <= values.max() <= np.iinfo(np.uint8).max:
        raise InvalidRequest("A value of an image is no integer from 0 to 255.")
    return values.astype(np.uint8)


def _type_name(number: int) -> str:
    known = messages.DataType.values()
    return messages.DataType.Name(number) if number in known else str(number)


def _shown(sizes: list[int] | None) -> str:
    return "of unknown rank" if sizes is None else str(sizes[: _MOST_SHOWN // 8])


SERVICES = {
    "tensorflow.serving.PredictionService": {
        "Predict": Method(messages.PredictRequest, _predict, predicts=True),
        "Classify": Method(messages.ClassificationRequest, _classify, predicts=True),
        "Regress": Method(messages.UnreadRequest, _regress),
        "MultiInference": Method(messages.UnreadRequest, _multi_inference),
        "GetModelMetadata": Method(messages.GetModelMetadataRequest, _model_metadata),
    },
    "tensorflow.serving.ModelService": {
        "GetModelStatus": Method(messages.GetModelStatusRequest, _model_status),
        "HandleReloadConfigRequest": Method(messages.ReloadConfigRequest, _reload),
    },
}
