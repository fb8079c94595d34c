"""``/v2/...``: the Open Inference Protocol V2 of KServe, with Triton's extensions for binary tensors, classification,
model configuration, statistics and the repository's index.
"""

from collections.abc import Callable, Sequence
from typing import Annotated, Any

from flask import Blueprint, Request, Response
from msgspec import UNSET, Meta, Struct, UnsetType

from artifact.validate import EMBEDDING, FAMILIARITY, OUTPUT
from service import __version__
from service.captures.errors import Forbidden
from service.inference.errors import ModelUnavailable, UnknownModel
from service.inference.loaded import LoadedModel
from service.inference.offload import offloads_numbers
from service.inference.plan import Latest
from service.inference.registry import Registry, State
from service.observe.metrics import Duration
from service.protocols.open_inference.messages import (
    BINARY,
    JSON_LENGTH,
    ClassTensor,
    InferResponse,
    json_request,
    read_request,
    respond,
)
from service.protocols.own.health import readiness
from service.protocols.own.messages import example_picture, example_probabilities
from service.web.bodies import parse_json, read_body
from service.web.errors import PREDICTION_ERRORS, Dialect
from service.web.operations import JSON, Binary, Content, Header, ModelName, ModelVersion, PerModel, operation
from service.web.services import Services
from service.web.which import key_of

NEWEST = 0  # stands for the version that answers, where the path names none
_PLATFORM = "tensorflow_savedmodel"  # what a version is on disk; Triton tells what runs it as the backend

EXTENSIONS = ["binary_tensor_data", "classification", "model_configuration", "model_repository", "statistics"]

# Triton's words for the states of a version.
_STATES = {
    State.LOADING: "LOADING",
    State.AVAILABLE: "READY",
    State.UNLOADING: "UNLOADING",
    State.END: "UNAVAILABLE",
}
_INDEX_VALUES = 100  # values that the JSON of a request for the index may hold
_MODEL_ERRORS = (UnknownModel, ModelUnavailable)
_JSON_LENGTH = Header(
    JSON_LENGTH, Annotated[int, Meta(ge=0)], "The length of the JSON in bytes, where binary tensors follow it."
)

View = Callable[..., Any]


class InferenceError(Struct):
    """What went wrong."""

    error: str


DIALECT = Dialect("/v2", InferenceError, lambda failure: InferenceError(failure.message), one_fault=True)


class ServerMetadata(Struct):
    """The server, and the extensions of the protocol that it knows."""

    name: str
    version: str
    extensions: list[str]


class ServerLive(Struct):
    """The server is up."""

    live: bool


class ServerReady(Struct):
    """Whether the server can answer inference requests."""

    ready: bool


class ModelReady(Struct):
    """Whether a model can answer inference requests."""

    name: str
    ready: bool


class TensorMetadata(Struct):
    """An input or an output; -1 stands for the number of images."""

    name: str
    datatype: str
    shape: list[int]


class ModelMetadataResponse(Struct):
    """A model: the versions that can be asked for, what it needs and what it gives."""

    name: str
    versions: list[str]
    platform: str
    inputs: list[TensorMetadata]
    outputs: list[TensorMetadata]


class LatestVersions(Struct):
    """Follow the newest versions, and how many of them."""

    num_versions: int


class SpecificVersions(Struct):
    """Serve these versions and no others."""

    versions: list[int]


class VersionPolicy(Struct):
    """Which versions are served: ``latest`` or ``specific``."""

    latest: LatestVersions | UnsetType = UNSET
    specific: SpecificVersions | UnsetType = UNSET


class InputConfig(Struct):
    """An input as Triton's ModelInput tells it; ``dims`` is without the number of images."""

    name: str
    data_type: str
    dims: list[int]
    format: str = "FORMAT_NONE"
    optional: bool = False


class OutputConfig(Struct):
    """An output as Triton's ModelOutput tells it."""

    name: str
    data_type: str
    dims: list[int]


class DynamicBatching(Struct):
    """How requests are put together: what waits while the engine runs is its next batch, up to the preferred size."""

    preferred_batch_size: list[int]
    max_queue_delay_microseconds: int = 0


class ModelConfig(Struct):
    """A model's configuration, as far as Triton's ModelConfig has words for it."""

    name: str
    platform: str
    backend: str
    version_policy: VersionPolicy
    max_batch_size: int
    input: list[InputConfig]
    output: list[OutputConfig]
    dynamic_batching: DynamicBatching


class DurationStatistics(Struct):
    """How often something was done, and how long it took in all, in nanoseconds."""

    count: int
    ns: int


class InferenceStatistics(Struct):
    """Where the time of requests went; input is decoding, output is nothing here, and nothing is cached."""

    success: DurationStatistics
    fail: DurationStatistics
    queue: DurationStatistics
    compute_input: DurationStatistics
    compute_infer: DurationStatistics
    compute_output: DurationStatistics
    cache_hit: DurationStatistics
    cache_miss: DurationStatistics


class BatchStatistics(Struct):
    """Times by the size of the batch; Triton's form for what is not counted here."""

    batch_size: int
    compute_input: DurationStatistics
    compute_infer: DurationStatistics
    compute_output: DurationStatistics


class ModelStatistics(Struct):
    """What a version did so far in all workers; ``last_inference`` is in milliseconds since the epoch."""

    name: str
    version: str
    last_inference: int
    inference_count: int
    execution_count: int
    inference_stats: InferenceStatistics
    batch_stats: list[BatchStatistics]


class Statistics(Struct):
    """The statistics of model versions."""

    model_stats: list[ModelStatistics]


class IndexRequest(Struct):
    """Which versions to list: all, or those that are ``ready``."""

    ready: bool = False


class LoadRequest(Struct):
    """How to load a model; which versions, and from where, is for the model folder to say."""

    parameters: dict[str, Any] = {}


class Nothing(Struct):
    """It is done."""


class IndexEntry(Struct):
    """A version in the model folder, its state in Triton's words, and why it is not served where that is known."""

    name: str
    version: str
    state: str
    reason: str


def blueprint(services: Services) -> Blueprint:
    """Return the routes of the protocol."""
    routes = Blueprint("open_inference", __name__, url_prefix="/v2")
    _add_server(routes, services)
    _add_repository(routes, services)
    _add_model(routes, services)
    _add_statistics(routes, services)
    _add_inference(routes, services)
    return routes


def _of_model(routes: Blueprint, path: str = "", method: str = "GET") -> Callable[[View], View]:
    """Route ``/models/NAME`` and ``/models/NAME/versions/VERSION``, and what follows them, to one view."""

    def register(view: View) -> View:
        endpoint = view.__name__
        routes.add_url_rule(f"/models/<model:name>{path}", endpoint, view, methods=[method])
        versioned = f"/models/<model:name>/versions/<version:version>{path}"
        routes.add_url_rule(versioned, f"{endpoint}_of_version", view, methods=[method])
        return view

    return register


def _add_server(routes: Blueprint, services: Services) -> None:
    @routes.get("")
    @operation()
    def server_metadata() -> ServerMetadata:
        """Describe the server."""
        return ServerMetadata("darkroom", __version__, EXTENSIONS)

    @routes.get("/health/live")
    @operation()
    def server_live() -> ServerLive:
        """Say that the server is up."""
        return ServerLive(live=True)

    @routes.get("/health/ready")
    @operation(also=(503,))
    def server_ready() -> tuple[ServerReady, int]:
        """Say whether the server can answer inference requests now; 503 where it cannot."""
        ready = readiness(services)[0] == "ready"
        return ServerReady(ready), 200 if ready else 503


def _add_repository(routes: Blueprint, services: Services) -> None:
    @routes.post("/repository/index")
    @operation(body=(Content((JSON,), IndexRequest),), body_required=False)
    def repository_index(request: Request) -> list[IndexEntry]:
        """List the versions in the model folder and their states; the body may be empty."""
        body = read_body(request)
        asked = parse_json(body, IndexRequest, _INDEX_VALUES) if body else IndexRequest()
        entries = (entry for registry in services.models.registries for entry in index(registry))
        return [entry for entry in entries if entry.state == "READY" or not asked.ready]

    @routes.post("/repository/models/<model:name>/load")
    @operation(body=(Content((JSON,), LoadRequest),), body_required=False, errors=(Forbidden, *_MODEL_ERRORS))
    def repository_load(request: Request, name: ModelName) -> Nothing:
        """Load a model that was unloaded, or that had to make room, and wait for that; the body may be empty."""
        services.runtime.offload(lambda: services.models.load(name))
        return Nothing()

    @routes.post("/repository/models/<model:name>/unload")
    @operation(body=(Content((JSON,), LoadRequest),), body_required=False, errors=(Forbidden, UnknownModel))
    def repository_unload(request: Request, name: ModelName) -> Nothing:
        """Let go of a model until it is loaded by such a request, or until the service starts again."""
        services.runtime.offload(lambda: services.models.unload(name))
        return Nothing()


def _add_model(routes: Blueprint, services: Services) -> None:
    @_of_model(routes)
    @operation(errors=_MODEL_ERRORS)
    def model_metadata(name: ModelName, version: ModelVersion = NEWEST) -> ModelMetadataResponse:
        """Describe what a model takes and gives.

        Instead of ``images`` it takes ``image_bytes``, BYTES [N], the content of image files.
        """
        model = services.models.check(name, version or None)
        return describe(model, services.models.of(name).loaded)

    @_of_model(routes, "/ready")
    @operation(also=(503,), errors=_MODEL_ERRORS)
    def model_ready(name: ModelName, version: ModelVersion = NEWEST) -> tuple[ModelReady, int]:
        """Say whether a model can answer now; 503 where it cannot."""
        registry = services.models.of(name)
        registry.check(version or None)
        ready = registry.unready is None and not services.draining()
        return ModelReady(name, ready), 200 if ready else 503

    @_of_model(routes, "/config")
    @operation(errors=_MODEL_ERRORS)
    def model_config(name: ModelName, version: ModelVersion = NEWEST) -> ModelConfig:
        """Give a model's configuration as Triton does."""
        model = services.models.check(name, version or None)
        return configuration(model, services.models.of(name), services.settings.max_batch)


def _add_statistics(routes: Blueprint, services: Services) -> None:
    @routes.get("/models/stats")
    @operation()
    def statistics() -> Statistics:
        """Say what the versions that are loaded did so far, and how long it took; nothing where there are none."""
        models = (model for registry in services.models.registries for model in registry.loaded)
        return Statistics([statistics_of(services, model) for model in models])

    @_of_model(routes, "/stats")
    @operation(errors=_MODEL_ERRORS)
    def model_statistics(name: ModelName, version: ModelVersion = NEWEST) -> Statistics:
        """Say what a model did so far, and how long it took."""
        return Statistics([statistics_of(services, services.models.check(name, version or None))])


def _add_inference(routes: Blueprint, services: Services) -> None:
    most = services.settings.max_batch
    bodies = (
        Content(
            (JSON,),
            PerModel(lambda model: json_request(model.metadata.input, most, tuple(outputs_of(model)))),
            _request,
        ),
        Content((BINARY,), Binary),
    )

    @_of_model(routes, "/infer", "POST")
    @operation(
        headers=(_JSON_LENGTH,),
        body=bodies,
        answers={200: {JSON: InferResponse, BINARY: Binary}},
        errors=(UnknownModel, *PREDICTION_ERRORS),
        example=_response,
    )
    def infer(request: Request, name: ModelName, version: ModelVersion = NEWEST) -> Response:
        """Classify a batch of pictures.

        The input is ``images``, UINT8 [N, height, width, 3] in RGB, or ``image_bytes``, BYTES [N], the content of image
        files, in JSON as base64. Tensors may follow the JSON in binary, and do in the answer where that is asked for.
        A model's output ``embedding`` is in the answer only where it is asked for by name.
        """
        with services.models.use(name, version or None, key_of(request)) as model:
            wanted, items = read_request(request, model.metadata.input, most, list(outputs_of(model)))
            deadline, embedding = services.deadline(request), EMBEDDING in wanted.names
            predictions = services.predictor.predict_all(model, items, deadline, embedding=embedding)

            def answer() -> Response:
                return respond(wanted, model, predictions)

            numbers = len(items) * sum(outputs_of(model)[name] for name in wanted.names)
            return services.runtime.offload(answer) if offloads_numbers(numbers) else answer()


def _request(model: LoadedModel) -> dict[str, Any]:
    """Return an example of a request: the three most probable labels of one picture."""
    picture = {"name": "image_bytes", "datatype": "BYTES", "shape": [1], "data": [example_picture(model)]}
    return {"inputs": [picture], "outputs": [{"name": OUTPUT, "parameters": {"classification": 3}}]}


def _response(model: LoadedModel) -> InferResponse:
    """Return the answer to the example, as far as that can be told before."""
    labelled = zip(example_probabilities(model), model.metadata.labels, strict=True)
    best = [f"{probability}:{index}:{label}" for index, (probability, label) in enumerate(labelled)][:3]
    tensor = ClassTensor(shape=[1, len(best)], data=best)
    return InferResponse(model_name=model.name, model_version=str(model.version), outputs=[tensor])


def index(registry: Registry) -> list[IndexEntry]:
    """Return all versions in ascending order: those that were looked at, and those that are only on disk."""
    name = registry.name or ""
    entries = {
        state.version: IndexEntry(name, str(state.version), _STATES[state.state], state.fault or "")
        for state in registry.states
    }
    for version in registry.available:
        entries.setdefault(version, IndexEntry(name, str(version), "UNAVAILABLE", "It is not loaded."))
    return [entries[version] for version in sorted(entries)]


def outputs_of(model: LoadedModel) -> dict[str, int]:
    """Return the outputs by name, and how many values each has a picture.

    A score has one, in a dimension of its own as Triton wants it.
    """
    outputs = {OUTPUT: len(model.metadata.labels)}
    if model.metadata.familiarity is not None:
        outputs[FAMILIARITY] = 1
    if model.engine.embedding:
        outputs[EMBEDDING] = model.engine.embedding
    return outputs


def describe(model: LoadedModel, loaded: Sequence[LoadedModel]) -> ModelMetadataResponse:
    """Return what ``model`` takes and gives, of which versions ``loaded`` answer."""
    size = model.metadata.input
    return ModelMetadataResponse(
        name=model.name,
        versions=[str(other.version) for other in loaded],
        platform=_PLATFORM,
        inputs=[TensorMetadata("images", "UINT8", [-1, size.height, size.width, 3])],
        outputs=[TensorMetadata(name, "FP32", [-1, width]) for name, width in outputs_of(model).items()],
    )


def configuration(model: LoadedModel, registry: Registry, max_batch: int) -> ModelConfig:
    """Return the configuration of ``model`` as Triton has it; its versions are those of ``registry``."""
    size = model.metadata.input
    return ModelConfig(
        name=model.name,
        platform=_PLATFORM,
        backend=model.engine.name,
        version_policy=_policy(registry),
        max_batch_size=max_batch,
        input=[
            InputConfig("images", "TYPE_UINT8", [size.height, size.width, 3]),
            InputConfig("image_bytes", "TYPE_STRING", [1], optional=True),
        ],
        output=[OutputConfig(name, "TYPE_FP32", [width]) for name, width in outputs_of(model).items()],
        dynamic_batching=DynamicBatching([model.pace.most]),
    )


def _policy(registry: Registry) -> VersionPolicy:
    if registry.pin is not None:
        return VersionPolicy(specific=SpecificVersions([registry.pin]))
    if isinstance(registry.plan.versions, Latest) and not registry.plan.named:
        return VersionPolicy(latest=LatestVersions(registry.plan.versions.latest))
    return VersionPolicy(specific=SpecificVersions([model.version for model in registry.loaded]))


def statistics_of(services: Services, model: LoadedModel) -> ModelStatistics:
    """Return what ``model`` did so far, in all workers."""
    totals = services.metrics.totals(model.name, model.version)
    nothing = DurationStatistics(0, 0)
    return ModelStatistics(
        name=model.name,
        version=str(model.version),
        last_inference=int(totals.last_inference * 1000),
        inference_count=totals.images,
        execution_count=totals.engine.times,
        inference_stats=InferenceStatistics(
            success=_duration(totals.success),
            fail=_duration(totals.failure),
            queue=_duration(totals.queue),
            compute_input=_duration(totals.decode),
            compute_infer=_duration(totals.engine),
            compute_output=nothing,
            cache_hit=nothing,
            cache_miss=nothing,
        ),
        batch_stats=[],
    )


def _duration(duration: Duration) -> DurationStatistics:
    return DurationStatistics(duration.times, round(duration.seconds * 1e9))
