"""``/v1/models``: the REST API of TensorFlow Serving.

Beside the form of ``messages.py``, what it answers is in ``model_servers/http_rest_api_handler.cc`` and
``model_servers/get_model_status_impl.cc`` of https://github.com/tensorflow/serving.
"""

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Annotated, Any

import numpy as np
from flask import Blueprint, Request, Response
from msgspec import Meta, Struct

from artifact.files import read_regular
from artifact.layout import SAVED_MODEL
from artifact.signature import Signature, Tensor, signatures
from artifact.validate import MOST_GRAPH
from service.inference.errors import InvalidRequest, ModelUnavailable, NotExplainable, UnknownModel
from service.inference.loaded import LoadedModel
from service.inference.registry import Registry, State, VersionState
from service.protocols.own.explain import LabelQuery, check_label, explanation, label_index, label_of
from service.protocols.own.messages import example_picture, example_probabilities
from service.protocols.tensorflow_serving.messages import (
    CLASSIFY_BODY,
    PREDICT_BODY,
    Explanations,
    Outputs,
    Predictions,
    Results,
    classifications,
    classify_request,
    predict_request,
)
from service.protocols.tensors import shortest
from service.web.bodies import read_body
from service.web.errors import PREDICTION_ERRORS, Dialect
from service.web.operations import (
    JSON,
    AnyOf,
    Content,
    ModelName,
    PerModel,
    VersionLabel,
    json_response,
    only,
    operation,
    read_query,
)
from service.web.services import Services
from service.web.which import described_query, key_of

_LARGEST_VERSION = 2**63 - 1
_START = "START"  # on disk, and about to be looked at
_STATES = (_START, *(state.value for state in State))
NEWEST = 0  # stands for a version that answers, where the path names none
Version = Annotated[
    int,
    PerModel(
        lambda model: only(int, "The version that is served; 0 stands for it.", model.version, 0),
        Annotated[int, Meta(description="The number of a version that is served; 0 stands for one that answers.")],
    ),
]
View = Callable[..., Any]
_REGRESS = re.compile(r"/v1/models/[^/:]+(/versions/\d+|/labels/[^/:]+)?:regress")


class TensorFlowError(Struct):
    """What was wrong."""

    error: str


class HealthStatus(Struct):
    """Why a version is in its state: ``OK``, or what is wrong with it."""

    error_code: Annotated[str, Meta(extra_json_schema={"enum": ["OK", "FAILED_PRECONDITION"]})] = "OK"
    error_message: str = ""


class ModelVersionStatus(Struct):
    """One version, and where it is in its life."""

    version: str
    state: Annotated[str, Meta(extra_json_schema={"enum": _STATES})]
    status: HealthStatus


class VersionStatus(Struct):
    """One version, in a list as those of a model are."""

    model_version_status: list[ModelVersionStatus]


class ModelStatus(Struct):
    """The versions of a model, the newest first.

    ``ready`` is not of TensorFlow Serving: the clients of KServe's V1 protocol, which has the same path, ask for it.
    """

    model_version_status: list[ModelVersionStatus]
    ready: bool


class ModelSpec(Struct):
    """Which version of which model this is about."""

    name: str
    signature_name: str
    version: str


class Dimension(Struct):
    """One dimension of a tensor; -1 is any size."""

    size: str
    name: str = ""


class TensorShape(Struct):
    """The dimensions of a tensor."""

    dim: list[Dimension]
    unknown_rank: bool


class TensorInfo(Struct):
    """One input or output of a signature; ``name`` is the tensor's name in the graph."""

    dtype: str
    tensor_shape: TensorShape
    name: str


class SignatureDefinition(Struct):
    """What a signature takes and gives."""

    inputs: dict[str, TensorInfo]
    outputs: dict[str, TensorInfo]
    method_name: str
    defaults: dict[str, Any] = {}


class SignatureMap(Struct):
    """Signatures by name."""

    signature_def: dict[str, SignatureDefinition]


class SignatureMetadata(Struct):
    """The one kind of metadata that there is."""

    signature_def: SignatureMap


class ModelMetadata(Struct):
    """The signatures of one version."""

    model_spec: ModelSpec
    metadata: SignatureMetadata


def _malformed(method: str, path: str) -> str:
    """Return what is wrong with a request whose path is no route."""
    if (method, path) == ("GET", "/v1/models"):
        return "Missing model name in request."
    if method == "POST" and _REGRESS.fullmatch(path):
        return "The model is a classifier and has no signature for regression; use :predict or :classify."
    return f"Malformed request: {method} {path}"


DIALECT = Dialect(
    "/v1/",
    TensorFlowError,
    lambda failure: TensorFlowError(failure.message),
    one_fault=True,
    unknown_path=400,
    no_route=_malformed,
)

_status_operation = operation(errors=(InvalidRequest, UnknownModel))
_metadata_operation = operation(errors=(InvalidRequest, UnknownModel, ModelUnavailable))
_predict_operation = operation(
    body=(Content((JSON,), PREDICT_BODY, lambda model: {"instances": [{"b64": example_picture(model)}]}),),
    answers={200: {JSON: AnyOf((Predictions, Outputs))}},
    errors=(UnknownModel, *PREDICTION_ERRORS),
    example=lambda model: Predictions([example_probabilities(model)]),
)
_classify_operation = operation(
    body=(
        Content((JSON,), CLASSIFY_BODY, lambda model: {"examples": [{"image_bytes": {"b64": example_picture(model)}}]}),
    ),
    errors=(UnknownModel, *PREDICTION_ERRORS),
    example=lambda model: Results([list(zip(model.metadata.labels, example_probabilities(model), strict=True))]),
)
_explain_operation = operation(
    query=described_query(LabelQuery, label=label_of()),
    body=(Content((JSON,), PREDICT_BODY),),
    answers={200: {JSON: Explanations}},
    errors=(UnknownModel, *PREDICTION_ERRORS, NotExplainable),
)


def blueprint(services: Services) -> Blueprint:
    """Return the routes of TensorFlow Serving."""
    routes = Blueprint("tensorflow_serving", __name__, url_prefix="/v1/models")

    @routes.get("/<model:name>")
    @_status_operation
    def status(name: ModelName) -> ModelStatus:
        """Tell the state of all versions of a model."""
        return ModelStatus(statuses(services, name), ready=services.models.of(name).unready is None)

    @routes.get("/<model:name>/versions/<int:version>")
    @_status_operation
    def version_status(name: ModelName, version: Version) -> VersionStatus:
        """Tell the state of one version."""
        return VersionStatus(statuses(services, name, version))

    @routes.get("/<model:name>/labels/<label:label>")
    @_status_operation
    def label_status(name: ModelName, label: VersionLabel) -> VersionStatus:
        """Tell the state of the version that has a label."""
        return VersionStatus(statuses(services, name, labelled(services, name, label)))

    @_of_versions(routes, "/metadata", "GET")
    @_metadata_operation
    def metadata(
        request: Request, name: ModelName, version: Version = NEWEST, label: VersionLabel = ""
    ) -> ModelMetadata:
        """Describe the signatures of a version."""
        with servable(services, name, version, label, key_of(request)) as model:
            return described(model)

    @_of_versions(routes, ":predict")
    @_predict_operation
    def predict(request: Request, name: ModelName, version: Version = NEWEST, label: VersionLabel = "") -> Response:
        """Give the probabilities of all labels for each picture.

        Images for the signature ``serving_default``, or pictures in files for ``serve_bytes``; in rows (``instances``),
        to which ``predictions`` answers, or in columns (``inputs``), to which ``outputs`` does.
        """
        with servable(services, name, version, label, key_of(request)) as model:
            return json_response(_predict(services, model, request))

    @_of_versions(routes, ":classify")
    @_classify_operation
    def classify(request: Request, name: ModelName, version: Version = NEWEST, label: VersionLabel = "") -> Results:
        """Give all labels with their scores for each example.

        An example has its picture as the feature ``images``, a flat list, or ``image_bytes``, a file.
        """
        with servable(services, name, version, label, key_of(request)) as model:
            return _classify(services, model, request)

    # What KServe's V1 protocol has beside TensorFlow Serving.
    @_of_versions(routes, ":explain")
    @_explain_operation
    def explain(request: Request, name: ModelName, version: Version = NEWEST, label: VersionLabel = "") -> Response:
        """Say for each picture which part of it spoke for a label, as KServe's V1 protocol has it.

        Pictures come as for ``:predict``. The label is the most probable one of each, unless the query names one.
        """
        with servable(services, name, version, label, key_of(request)) as model:
            return _explain(services, model, request)

    return routes


def _of_versions(routes: Blueprint, path: str, method: str = "POST") -> Callable[[View], View]:
    """Route what follows a model, one of its versions, and the version with a label, to one view."""

    def register(view: View) -> View:
        for endpoint, which in (("", ""), ("version_", "/versions/<int:version>"), ("label_", "/labels/<label:label>")):
            rule = f"/<model:name>{which}{path}"
            routes.add_url_rule(rule, f"{endpoint}{view.__name__}", view, methods=[method])
        return view

    return register


def _check_version(version: int | None) -> None:
    if version and version > _LARGEST_VERSION:
        raise InvalidRequest(f"Failed to convert version: {version} to numeric.")


@contextmanager
def servable(
    services: Services, name: str, version: int | None = None, label: str = "", key: str | None = None
) -> Iterator[LoadedModel]:
    """Give the version that is asked for, as ``Models.use`` does; say that it is unknown as these clients know it.

    Version 0 is one that answers: OpenVINO Model Server's clients ask for it where their users name none.
    """
    _check_version(version)
    if label:
        labelled(services, name, label)
    try:
        with services.models.use(name, label or version or None, key) as model:
            yield model
    except UnknownModel as error:
        asked = f"Specific({name}, {label or version})" if label or version else f"Latest({name})"
        raise UnknownModel(f"Servable not found for request: {asked}. {error}") from error


def labelled(services: Services, name: str, label: str) -> int:
    """Return the version of a model that has ``label``.

    Raises:
        InvalidRequest: none has it.
        UnknownModel: there is no such model.
    """
    version = services.models.of(name).plan.labels.get(label)
    if version is None:
        raise InvalidRequest(f"Unrecognized servable version label: {label}.")
    return version


def statuses(services: Services, name: str, version: int | None = None) -> list[ModelVersionStatus]:
    """Return the states of the versions of a model, the newest first; only that of ``version`` where it is told.

    Raises:
        UnknownModel: there is no such version.
    """
    _check_version(version)
    states = _states(services.models.of(name)) if name in services.models.names else []
    if not states:
        raise UnknownModel(f"Could not find any versions of model {name}")
    asked = [status for status in states if not version or version == int(status.version)]
    if not asked:
        raise UnknownModel(f"Could not find version {version} of model {name}")
    return asked


def _states(registry: Registry) -> list[ModelVersionStatus]:
    """Return the versions that were looked at and those that will be next, the newest first.

    Those that are older than what was looked at are passed over by the registry, and so they are here.
    """
    known = registry.states
    newest = max((state.version for state in known), default=0)
    next_ones = [
        ModelVersionStatus(str(version), _START, HealthStatus())
        for version in registry.available
        if version > newest and registry.pin in (None, version)
    ]
    return [*reversed(next_ones), *(_version_status(state) for state in reversed(known))]


def _version_status(state: VersionState) -> ModelVersionStatus:
    health = HealthStatus() if state.fault is None else HealthStatus("FAILED_PRECONDITION", state.fault)
    return ModelVersionStatus(str(state.version), state.state.value, health)


def described(model: LoadedModel) -> ModelMetadata:
    """Return the signatures of ``model``.

    Raises:
        ModelUnavailable: its files are gone.
    """
    try:
        found = signatures(read_regular(model.path / SAVED_MODEL, MOST_GRAPH))
    except (OSError, ValueError) as error:  # it was removed or replaced after it was loaded
        raise ModelUnavailable(f"{SAVED_MODEL} of version {model.version} cannot be read: {error}") from error
    definitions = {name: _definition(signature) for name, signature in found.items()}
    return ModelMetadata(
        ModelSpec(model.name, signature_name="", version=str(model.version)),
        SignatureMetadata(SignatureMap(definitions)),
    )


def _definition(signature: Signature) -> SignatureDefinition:
    return SignatureDefinition(
        {name: _tensor(tensor) for name, tensor in signature.inputs.items()},
        {name: _tensor(tensor) for name, tensor in signature.outputs.items()},
        signature.method,
    )


def _tensor(tensor: Tensor) -> TensorInfo:
    shape = TensorShape([Dimension(str(size)) for size in tensor.shape or ()], unknown_rank=tensor.shape is None)
    return TensorInfo(tensor.dtype, shape, tensor.name)


def _predict(services: Services, model: LoadedModel, request: Request) -> Predictions | Outputs:
    pictures = predict_request(read_body(request), model.metadata.input, services.settings.max_batch)
    predictions = services.predictor.predict_all(model, pictures.items, services.deadline(request))
    # The probabilities alone, also where the signature has a second output. TensorFlow Serving would answer with an
    # object for each row then, and clients would break on a version that tells more than the one before.
    rows = shortest(predictions.probabilities).tolist()
    return Predictions(rows) if pictures.rows else Outputs(rows)


def _classify(services: Services, model: LoadedModel, request: Request) -> Results:
    items = classify_request(read_body(request), model.metadata.input, services.settings.max_batch)
    predictions = services.predictor.predict_all(model, items, services.deadline(request))
    return classifications(model.metadata.labels, predictions.probabilities)


def _explain(services: Services, model: LoadedModel, request: Request) -> Response:
    label = read_query(request, LabelQuery).label
    check_label(model, label)
    pictures = predict_request(read_body(request), model.metadata.input, services.settings.max_batch)
    deadline = services.deadline(request)

    def answer() -> Response:
        answers = Explanations([], [])
        for item in pictures.items:
            explained = services.explainer.explain(model, item, deadline)
            answers.predictions += shortest(explained.probabilities[np.newaxis]).tolist()
            answers.explanations.append(explanation(explained, model, label_index(explained, model, label)))
        return json_response(answers)

    return services.runtime.offload(answer)
