"""``GET /model``: what is served, what else is there, and what is kept out."""

from datetime import UTC, datetime
from typing import Any

from flask import Blueprint
from msgspec import UNSET, Struct, UnsetType

from artifact import Calibration, Familiarity, Input, Int8, Metrics
from service.inference.registry import LoadedModel
from service.protocols.own.health import EngineInUse, engine_in_use
from service.web.card import model_card
from service.web.operations import operation
from service.web.services import Services


class RefusedVersion(Struct):
    """A version that is kept out, and why."""

    version: int
    reason: str


class ModelAnswer(Struct):
    """The version that answers; ``version`` is null where there is none, ``reason`` says why, and the rest is missing.

    Name and version are the folder's, which is what clients go by.
    """

    name: str | None
    version: int | None
    reason: str | None
    pinned: bool
    versions: list[int]
    refused: list[RefusedVersion]
    loaded: str | UnsetType = UNSET
    engine: EngineInUse | UnsetType = UNSET
    labels: tuple[str, ...] | UnsetType = UNSET
    input: Input | UnsetType = UNSET
    metrics: Metrics | UnsetType = UNSET
    int8: Int8 | UnsetType | None = UNSET
    calibration: Calibration | UnsetType | None = UNSET
    familiarity: Familiarity | UnsetType | None = UNSET
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
    model_card: str | UnsetType | None = UNSET


def blueprint(services: Services) -> Blueprint:
    """Return the route that describes the model."""
    routes = Blueprint("model", __name__)

    @routes.get("/model")
    @operation()
    def model() -> ModelAnswer:
        """Describe the version that answers; null where there is none, with the reason."""
        registry = services.registry
        current = registry.current
        answer = ModelAnswer(
            name=registry.name,
            version=current.version if current else None,
            reason=None if current else registry.reason,
            pinned=registry.pin is not None,
            versions=registry.available,
            refused=[RefusedVersion(refusal.version, refusal.reason) for refusal in registry.refused],
        )
        if current:
            _describe(answer, current)
        return answer

    return routes


def _describe(answer: ModelAnswer, model: LoadedModel) -> None:
    answer.loaded = datetime.fromtimestamp(model.loaded_at, UTC).isoformat(timespec="seconds")
    answer.engine = engine_in_use(model)
    answer.model_card = model_card(model)
    for field in answer.__struct_fields__:
        if getattr(answer, field) is UNSET:
            setattr(answer, field, getattr(model.metadata, field))
