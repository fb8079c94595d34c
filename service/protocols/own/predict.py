"""``POST /predict`` and ``POST /predict/batch``."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import repeat
from typing import Annotated

import numpy as np
from flask import Blueprint, request
from msgspec import UNSET, Meta, Struct, UnsetType

from service.inference.answers import Row, read
from service.inference.engine import Probabilities, Rows
from service.inference.errors import ServiceError
from service.inference.items import Item
from service.inference.registry import LoadedModel
from service.protocols.own.messages import IMAGE_BODIES, IMAGES_BODIES, read_image, read_images
from service.web.errors import PREDICTION_ERRORS, name_of
from service.web.operations import operation, read_query
from service.web.services import Services


class PredictQuery(Struct):
    """What ``/predict`` takes in its address."""

    top: Annotated[int, Meta(ge=1, description="How many labels to tell, the most probable first.")] = 5


class Prediction(Struct):
    """One label and how probable it is."""

    label: str
    probability: Annotated[float, Meta(ge=0, le=1)]


class ServedModel(Struct):
    """The model version that answered."""

    name: str
    version: int


Familiar = Annotated[
    bool,
    Meta(description="Whether the picture looks like those that the model was trained on, where the version tells it."),
]


class PredictAnswer(Struct, kw_only=True):
    """The most probable labels of one picture, in descending order."""

    success: bool
    predictions: list[Prediction]
    familiar: Familiar | UnsetType = UNSET
    model: ServedModel


class Result(Struct):
    """What came of one picture of a batch: ``predictions``, or ``error`` and ``message``."""

    index: int
    filename: str | None
    predictions: list[Prediction] | UnsetType = UNSET
    familiar: Familiar | UnsetType = UNSET
    error: str | UnsetType = UNSET
    message: str | UnsetType = UNSET


class BatchAnswer(Struct):
    """One result for each picture, in order; ``success`` is false where any has an error."""

    success: bool
    results: list[Result]
    model: ServedModel


def blueprint(services: Services) -> Blueprint:
    """Return the routes that classify."""
    routes = Blueprint("predict", __name__)

    @routes.post("/predict")
    @operation(query=PredictQuery, body=IMAGE_BODIES, errors=PREDICTION_ERRORS)
    def predict() -> PredictAnswer:
        """Classify one picture.

        The content type says how it comes: as a form, as the file itself, or as JSON.
        """
        top = read_query(request, PredictQuery).top
        with services.registry.use() as model:
            item = read_image(request)
            row = services.predictor.one(model, item, services.deadline())
            [(predictions, familiar)] = _told(row[np.newaxis], model, top)
            return PredictAnswer(success=True, predictions=predictions, familiar=familiar, model=_model(model))

    @routes.post("/predict/batch")
    @operation(query=PredictQuery, body=IMAGES_BODIES, errors=PREDICTION_ERRORS)
    def predict_batch() -> BatchAnswer:
        """Classify many pictures; a bad one carries its own error.

        The content type says how they come: as a form, as JSON, as an .npy file, or as raw uint8 [N, height, width, 3].
        """
        top = read_query(request, PredictQuery).top
        with services.registry.use() as model:
            items = read_images(request, model.metadata.input, services.settings.max_batch)
            answers = services.predictor.many(model, items, services.deadline())
            return BatchAnswer(
                success=not any(isinstance(answer, ServiceError) for answer in answers),
                results=_results(items, answers, model, top),
                model=_model(model),
            )

    return routes


def _results(
    items: Sequence[Item], answers: Sequence[Row | ServiceError], model: LoadedModel, top: int
) -> list[Result]:
    rows = [answer for answer in answers if not isinstance(answer, ServiceError)]
    told = iter(_told(np.stack(rows), model, top) if rows else ())
    return [
        Result(index, item.filename, error=name_of(answer), message=str(answer))
        if isinstance(answer, ServiceError)
        else Result(index, item.filename, *next(told))
        for index, (item, answer) in enumerate(zip(items, answers, strict=True))
    ]


def _told(rows: Rows, model: LoadedModel, top: int) -> Iterator[tuple[list[Prediction], bool | UnsetType]]:
    """Yield what is told of each of ``rows``, float32 [N, columns]: the ``top`` labels, and whether it is familiar."""
    answers = read(rows, model.metadata)
    predictions = _predictions(answers.probabilities, model, top)
    return zip(predictions, answers.familiar or repeat(UNSET), strict=False)


def _predictions(rows: Probabilities, model: LoadedModel, top: int) -> list[list[Prediction]]:
    """Return the ``top`` most probable labels of each of ``rows``, float32 [N, classes]."""
    best = np.argsort(-rows, axis=1, kind="stable")[:, :top]  # [N, top]
    labels = model.metadata.labels
    return [
        # Seven digits are what a float32 holds; more would be noise of the conversion.
        [Prediction(labels[index], float(f"{value:.7g}")) for index, value in zip(indices, values, strict=True)]
        for indices, values in zip(best.tolist(), np.take_along_axis(rows, best, axis=1).tolist(), strict=True)
    ]


def _model(model: LoadedModel) -> ServedModel:
    return ServedModel(model.name, model.version)
