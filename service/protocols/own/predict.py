"""``POST /predict`` and ``POST /predict/batch``."""

from collections.abc import Iterator, Sequence
from itertools import repeat
from typing import Annotated

import numpy as np
from flask import Blueprint, Request
from msgspec import UNSET, Meta, Struct, UnsetType

from service.inference.engine import Output, Outputs, Probabilities
from service.inference.errors import ServiceError
from service.inference.items import Item
from service.inference.predictions import interpret
from service.inference.registry import LoadedModel
from service.protocols.own.health import ServedModel
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
    def predict(request: Request) -> PredictAnswer:
        """Classify one picture.

        The content type says how it comes: as a form, as the file itself, or as JSON.
        """
        top = read_query(request, PredictQuery).top
        with services.registry.use() as model:
            item = read_image(request)
            output = services.predictor.predict_one(model, item, services.deadline(request))
            [(predictions, familiar)] = _predictions(output[np.newaxis], model, top)
            return PredictAnswer(success=True, predictions=predictions, familiar=familiar, model=_model(model))

    @routes.post("/predict/batch")
    @operation(query=PredictQuery, body=IMAGES_BODIES, errors=PREDICTION_ERRORS)
    def predict_batch(request: Request) -> BatchAnswer:
        """Classify many pictures; a bad one carries its own error.

        The content type says how they come: as a form, as JSON, as an .npy file, or as raw uint8 [N, height, width, 3].
        """
        top = read_query(request, PredictQuery).top
        with services.registry.use() as model:
            items = read_images(request, model.metadata.input, services.settings.max_batch)
            outputs = services.predictor.predict_each(model, items, services.deadline(request))
            return BatchAnswer(
                success=not any(isinstance(output, ServiceError) for output in outputs),
                results=_results(items, outputs, model, top),
                model=_model(model),
            )

    return routes


def _results(
    items: Sequence[Item], outputs: Sequence[Output | ServiceError], model: LoadedModel, top: int
) -> list[Result]:
    """Return what came of each of ``items``; ``outputs`` are the engine's, or what is wrong with the picture."""
    good = [output for output in outputs if not isinstance(output, ServiceError)]
    predictions = iter(_predictions(np.stack(good), model, top) if good else ())
    return [
        Result(index, item.filename, error=name_of(output), message=str(output))
        if isinstance(output, ServiceError)
        else Result(index, item.filename, *next(predictions))
        for index, (item, output) in enumerate(zip(items, outputs, strict=True))
    ]


def _predictions(outputs: Outputs, model: LoadedModel, top: int) -> Iterator[tuple[list[Prediction], bool | UnsetType]]:
    """Yield the ``top`` labels of each of ``outputs``, float32 [N, columns], and whether the picture is familiar."""
    predicted = interpret(outputs, model.metadata)
    labels = _top_labels(predicted.probabilities, model, top)
    return zip(labels, predicted.familiar or repeat(UNSET), strict=False)


def _top_labels(probabilities: Probabilities, model: LoadedModel, top: int) -> list[list[Prediction]]:
    """Return the ``top`` most probable labels of each row of ``probabilities``, float32 [N, classes]."""
    best = np.argsort(-probabilities, axis=1, kind="stable")[:, :top]  # [N, top]
    labels, rows = model.metadata.labels, np.arange(len(best))[:, np.newaxis]
    return [
        # Seven digits are what a float32 holds; more would be noise of the conversion.
        [Prediction(labels[index], float(f"{value:.7g}")) for index, value in zip(indices, values, strict=True)]
        for indices, values in zip(best.tolist(), probabilities[rows, best].tolist(), strict=True)
    ]


def _model(model: LoadedModel) -> ServedModel:
    return ServedModel(model.name, model.version)
