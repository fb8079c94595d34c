"""``GET /model``: what is served, what else is there, and what is kept out."""

from datetime import UTC, datetime
from typing import Annotated, Any

from flask import Blueprint, Request
from msgspec import UNSET, Meta, Struct, UnsetType

from artifact import Calibration, Familiarity, Input, Int8, Metrics, MultiLabel, Reference
from artifact.accuracy import accuracy_interval
from service.inference.errors import UnknownModel
from service.inference.loaded import LoadedModel
from service.inference.plan import Plan
from service.observe.window import Drift
from service.protocols.own.health import EngineInUse, engine_in_use
from service.web.operations import operation, read_query
from service.web.services import Services
from service.web.which import WHICH_QUERY, WhichQuery, asked


class RefusedVersion(Struct):
    """A version that is kept out, and why."""

    version: int
    reason: str


class ShiftAnswer(Struct):
    """How far counts have moved: the population stability index, less what chance adds, and a chi-square test."""

    population_stability_index: float
    p_value: float


class DriftAnswer(Struct):
    """How far the last ``answers`` have moved from those to pictures that the version had not learned from.

    ``embedding_distance`` is that of the mean embeddings, in units of their spread.
    """

    answers: int
    labels: ShiftAnswer
    confidence: ShiftAnswer
    familiarity: ShiftAnswer | UnsetType = UNSET
    embedding_distance: float | UnsetType = UNSET


class ModelAnswer(Struct):
    """The version that answers; ``version`` is null where there is none, ``reason`` says why, and the rest is missing.

    Name and version are the folder's, which is what clients go by. ``serving`` is what is set of the versions. Where a
    picture may have several labels, ``task`` is ``multi-label``, and ``thresholds`` has the probability from which on
    each label is told.
    """

    name: str | None
    version: int | None
    reason: str | None
    pinned: bool
    versions: list[int]
    refused: list[RefusedVersion]
    serving: Plan
    shares: Annotated[
        dict[str, float], Meta(description="Which versions share the requests that name none, each from 0 to 1.")
    ]
    loaded: str | UnsetType = UNSET
    engine: EngineInUse | UnsetType = UNSET
    explains: Annotated[bool, Meta(description="Whether /explain answers.")] | UnsetType = UNSET
    labels: tuple[str, ...] | UnsetType = UNSET
    input: Input | UnsetType = UNSET
    metrics: Metrics | UnsetType = UNSET
    accuracy_95: (
        Annotated[
            tuple[float, float] | None,
            Meta(
                description="The 95% confidence interval of the accuracy, by Wilson; null where that was not measured."
            ),
        ]
        | UnsetType
    ) = UNSET
    int8: Int8 | UnsetType | None = UNSET
    calibration: Calibration | UnsetType | None = UNSET
    familiarity: Familiarity | UnsetType | None = UNSET
    reference: Reference | UnsetType | None = UNSET
    drift: DriftAnswer | UnsetType | None = UNSET
    parameters: int | UnsetType = UNSET
    megaflops: float | UnsetType = UNSET
    created: str | UnsetType = UNSET
    training: dict[str, Any] | UnsetType = UNSET
    dataset: dict[str, Any] | UnsetType = UNSET
    revision: str | UnsetType = UNSET
    libraries: dict[str, str] | UnsetType = UNSET
    hardware: str | UnsetType = UNSET
    training_seconds: float | UnsetType = UNSET
    schema_version: int | UnsetType = UNSET
    task: str | UnsetType = UNSET
    thresholds: dict[str, float] | UnsetType = UNSET
    multi_label: MultiLabel | UnsetType = UNSET
    model_card: str | UnsetType | None = UNSET


_OF_MULTI_LABEL = ("task", "thresholds", "multi_label")  # not there where a picture has one label


def blueprint(services: Services) -> Blueprint:
    """Return the route that describes the model."""
    routes = Blueprint("model", __name__)

    @routes.get("/model")
    @operation(
        query=WHICH_QUERY,
        errors=(UnknownModel,),
        example=lambda current: _answer(services, current.name, current),
    )
    def model(request: Request) -> ModelAnswer:
        """Describe the version that answers; null where there is none, with the reason."""
        name, version, _ = asked(request, read_query(request, WhichQuery))
        registry = services.models.of(name)
        return _answer(services, name, registry.current if version is None else registry.check(version))

    return routes


def _answer(services: Services, name: str | None, current: LoadedModel | None) -> ModelAnswer:
    registry = services.models.of(name)
    answer = ModelAnswer(
        name=registry.name,
        version=current.version if current else None,
        reason=None if current else registry.reason,
        pinned=registry.pin is not None,
        versions=registry.available,
        refused=[RefusedVersion(refusal.version, refusal.reason) for refusal in registry.refused],
        serving=registry.plan,
        shares={str(version): round(share, 6) for version, share in registry.shares().items()},
    )
    if current:
        answer.drift = _drift(services.metrics.drift(current.name, current.version))
        _describe(answer, current)
    return answer


def _drift(found: Drift | None) -> DriftAnswer | None:
    if found is None:
        return None
    shifts = {name: ShiftAnswer(*shift) for name, shift in found.shifts.items()}
    distance = UNSET if found.embedding is None else found.embedding
    return DriftAnswer(answers=found.answers, embedding_distance=distance, **shifts)


def _describe(answer: ModelAnswer, model: LoadedModel) -> None:
    answer.loaded = datetime.fromtimestamp(model.loaded_at, UTC).isoformat(timespec="seconds")
    answer.engine = engine_in_use(model)
    answer.explains = model.engine.explaining is not None
    answer.model_card = model.card
    metrics = model.metadata.metrics
    if metrics.images and not model.metadata.multi_label:
        low, high = accuracy_interval(round(metrics.accuracy * metrics.images), metrics.images)
        answer.accuracy_95 = round(low, 6), round(high, 6)
    for field in answer.__struct_fields__:
        value = getattr(model.metadata, field, None)
        if getattr(answer, field) is UNSET and (value is not None or field not in _OF_MULTI_LABEL):
            setattr(answer, field, value)
