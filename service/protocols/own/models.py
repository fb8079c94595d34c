"""``/models``: which models there are, which of their versions answer, and who may change that."""

from typing import Annotated

from flask import Blueprint, Request
from msgspec import UNSET, Meta, Struct, UnsetType

from service.captures.errors import Forbidden
from service.inference.errors import InvalidRequest, ReadOnlyModels, UnknownModel
from service.inference.models import Readiness
from service.inference.plan import InvalidPlan, Plan, plan_of, with_label
from service.inference.registry import Registry, State
from service.inference.shadow import OUTCOMES
from service.observe.metrics import Compared
from service.web.bodies import parse_json, read_body
from service.web.operations import JSON, Content, ModelName, VersionLabel, operation
from service.web.services import Services

_VALUES = 10_000  # that the JSON of a request may hold


class VersionAnswer(Struct):
    """One version; ``share`` is that of requests that name no version, and ``reason`` says why it is kept out."""

    version: int
    state: Annotated[str, Meta(extra_json_schema={"enum": [*(state.value for state in State), "ON_DISK"]})]
    labels: list[str]
    share: Annotated[float, Meta(ge=0, le=1)]
    shadow: bool
    reason: str | None


class ShadowAnswer(Struct):
    """How often the second version gave an image other labels than the one that answered, in all workers so far."""

    version: int
    compared_with: int
    agreed: int
    disagreed: int
    dropped: int
    failed: int


class ModelEntry(Struct):
    """A model, how it stands, and its versions in ascending order; ``version`` answers most requests."""

    name: str
    state: Annotated[str, Meta(extra_json_schema={"enum": [state.value for state in Readiness]})]
    reason: str | None
    version: int | None
    versions: list[VersionAnswer]
    memory_mb: Annotated[float, Meta(description="What loading its versions took in one worker.")]
    serving: Plan
    serving_fault: Annotated[str, Meta(description="Why serving.json is not followed.")] | UnsetType = UNSET
    shadows: list[ShadowAnswer] | UnsetType = UNSET


class ModelsAnswer(Struct):
    """All models; ``default`` answers where a request names none."""

    default: str | None
    models: list[ModelEntry]


class LabelRequest(Struct, forbid_unknown_fields=True):
    """The version that gets the label: its number, or another label that it has."""

    version: int | str


def blueprint(services: Services) -> Blueprint:
    """Return the routes on models and what is set of them."""
    routes = Blueprint("models", __name__)
    changing = (Forbidden, InvalidRequest, ReadOnlyModels, UnknownModel)

    @routes.get("/models")
    @operation()
    def models() -> ModelsAnswer:
        """List all models, their versions, and which of these answer."""
        entries = [_entry(services, registry) for registry in services.models.registries]
        return ModelsAnswer(services.models.default.name, entries)

    @routes.get("/models/<model:name>/serving")
    @operation(errors=(UnknownModel,))
    def serving(name: ModelName) -> Plan:
        """Tell what is set of a model's versions: which are loaded, their labels, and which of them answer."""
        return services.models.of(name).plan

    @routes.put("/models/<model:name>/serving")
    @operation(body=(Content((JSON,), Plan),), errors=changing)
    def set_serving(request: Request, name: ModelName) -> ModelEntry:
        """Set which versions of a model are loaded, their labels, and which of them answer.

        It is written to serving.json beside the versions, which all workers and replicas follow.
        """
        services.models.of(name)
        return _follow(services, name, _plan(read_body(request)))

    @routes.put("/models/<model:name>/labels/<label:label>")
    @operation(body=(Content((JSON,), LabelRequest),), errors=changing)
    def set_label(request: Request, name: ModelName, label: VersionLabel) -> ModelEntry:
        """Give a label to a version: ``stable`` to promote one, or to roll back to another."""
        plan = services.models.of(name).plan
        asked = parse_json(read_body(request), LabelRequest, _VALUES).version
        version = plan.version_of(str(asked))
        if version is None:
            raise InvalidRequest(f"No version of {name!r} has the label {str(asked)[:70]!r}.")
        return _follow(services, name, _with_label(plan, label, version))

    @routes.delete("/models/<model:name>/labels/<label:label>")
    @operation(errors=changing)
    def remove_label(name: ModelName, label: VersionLabel) -> ModelEntry:
        """Take a label from the version that has it."""
        return _follow(services, name, _with_label(services.models.of(name).plan, label, None))

    return routes


def _follow(services: Services, name: str, plan: Plan) -> ModelEntry:
    services.runtime.offload(lambda: services.models.follow(name, plan))
    return _entry(services, services.models.of(name))


def _plan(body: bytes) -> Plan:
    try:
        return plan_of(body)
    except InvalidPlan as error:
        raise InvalidRequest(f"That cannot be set: {error}.") from error


def _with_label(plan: Plan, label: str, version: int | None) -> Plan:
    try:
        return with_label(plan, label, version)
    except InvalidPlan as error:
        raise InvalidRequest(f"The label {label!r} cannot be changed: {error}.") from error


def _entry(services: Services, registry: Registry) -> ModelEntry:
    name, plan, shares = registry.name or "", registry.plan, registry.shares()
    state, reason = services.models.readiness(registry)
    shadow = None if plan.shadow is None else plan.version_of(plan.shadow)
    states = {each.version: (each.state.value, each.fault) for each in registry.states}
    states = {**dict.fromkeys(registry.available, ("ON_DISK", None)), **states}
    entry = ModelEntry(
        name=name,
        state=state.value,
        reason=reason,
        version=registry.current.version if registry.current else None,
        versions=[
            VersionAnswer(
                version, told, plan.labels_of(version), round(shares.get(version, 0.0), 6), version == shadow, fault
            )
            for version, (told, fault) in sorted(states.items())
        ],
        memory_mb=round(registry.memory / 1e6, 1),
        serving=plan,
    )
    if registry.plan_fault:
        entry.serving_fault = registry.plan_fault
    if shadow is not None:
        entry.shadows = [_compared(each) for each in services.metrics.compared(name) if each.shadow == shadow]
    return entry


def _compared(compared: Compared) -> ShadowAnswer:
    counts = {outcome: compared.outcomes.get(outcome, 0) for outcome in OUTCOMES}
    return ShadowAnswer(compared.shadow, compared.version, **counts)
