"""``POST /predict`` and ``POST /predict/batch``."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from flask import Blueprint, Response, jsonify, request

from service.errors import InvalidRequest, ServiceError, name_of
from service.images_in import Item, read_image, read_images
from service.predictor import Row
from service.registry import LoadedModel

if TYPE_CHECKING:
    from service.app import Services

_DEFAULT_TOP = 5


def blueprint(services: Services) -> Blueprint:
    """Return the routes that classify."""
    routes = Blueprint("predict", __name__)

    @routes.post("/predict")
    def predict() -> Response:
        """Classify one picture."""
        top = _top(request.args.get("top"))
        with services.registry.use() as model:
            item = read_image(request)
            row = services.predictor.one(model, item, services.deadline())
            return jsonify(success=True, predictions=_predictions(row, model, top), model=_model(model))

    @routes.post("/predict/batch")
    def predict_batch() -> Response:
        """Classify many pictures; a bad one carries its own error."""
        top = _top(request.args.get("top"))
        with services.registry.use() as model:
            items = read_images(request, model.metadata.input, services.settings.max_batch)
            answers = services.predictor.many(model, items, services.deadline())
            return jsonify(
                success=not any(isinstance(answer, ServiceError) for answer in answers),
                results=_results(items, answers, model, top),
                model=_model(model),
            )

    return routes


def _results(
    items: Sequence[Item], answers: Sequence[Row | ServiceError], model: LoadedModel, top: int
) -> list[dict[str, Any]]:
    return [
        {"index": index, "filename": item.filename, **_result(answer, model, top)}
        for index, (item, answer) in enumerate(zip(items, answers, strict=True))
    ]


def _result(answer: Row | ServiceError, model: LoadedModel, top: int) -> dict[str, Any]:
    if isinstance(answer, ServiceError):
        return {"error": name_of(answer), "message": str(answer)}
    return {"predictions": _predictions(answer, model, top)}


def _predictions(row: Row, model: LoadedModel, top: int) -> list[dict[str, Any]]:
    """Return the ``top`` most probable labels of ``row``, float32 [classes]."""
    best = np.argsort(-row, kind="stable")[:top]
    # Seven digits are what a float32 holds; more would be noise of the conversion.
    return [{"label": model.metadata.labels[index], "probability": float(f"{row[index]:.7g}")} for index in best]


def _model(model: LoadedModel) -> dict[str, Any]:
    return {"name": model.name, "version": model.version}


def _top(text: str | None) -> int:
    """Return how many labels are asked for; more than there are is no error."""
    if text is None:
        return _DEFAULT_TOP
    if not (text.isascii() and text.isdigit() and text.strip("0")):
        raise InvalidRequest(f"top is {text[:40]!r}, but it must be an integer from 1 on: the number of labels.")
    return int(text[:9])
