"""``POST /predict`` and ``POST /predict/batch``: the labels of one picture, or of many."""

from collections.abc import Iterator, Sequence
from itertools import repeat
from typing import Annotated

import numpy as np
import numpy.typing as npt
from flask import Blueprint, Request
from msgspec import UNSET, Meta, Struct, UnsetType

from service.inference.engine import Output, Outputs, Probabilities
from service.inference.errors import InvalidImage, ServiceError, UnknownModel
from service.inference.items import Item
from service.inference.loaded import LoadedModel
from service.inference.predictions import interpret
from service.protocols.own.health import ServedModel
from service.protocols.own.messages import (
    IMAGE_BODIES,
    IMAGES_BODIES,
    example_probabilities,
    read_image,
    read_images,
)
from service.web.errors import PREDICTION_ERRORS, name_of
from service.web.operations import operation, read_query
from service.web.services import Services
from service.web.which import WhichQuery, asked, described_query


class PredictQuery(WhichQuery, kw_only=True):
    """What ``/predict`` takes in its address."""

    top: Annotated[int, Meta(ge=1, description="How many labels to tell, the most probable first.")] = 5


_QUERY = described_query(PredictQuery)


class Prediction(Struct):
    """One label and how probable it is."""

    label: str
    probability: Annotated[float, Meta(ge=0, le=1)]


Familiar = Annotated[
    bool,
    Meta(description="False for a picture unlike those that the model learned from; missing where that is not told."),
]


Labels = Annotated[
    list[Prediction],
    Meta(
        description="The labels that the picture has, in descending order of their probability: all that reach their "
        "thresholds, which may be none. It is there where a picture may have several, by a multi-label version alone."
    ),
]


class PredictAnswer(Struct, kw_only=True):
    """The most probable labels of one picture, in descending order."""

    success: bool
    predictions: list[Prediction]
    labels: Labels | UnsetType = UNSET
    familiar: Familiar | UnsetType = UNSET
    model: ServedModel


class Result(Struct):
    """What came of one picture of a batch: ``predictions``, or ``error`` and ``message``."""

    index: int
    filename: str | None
    predictions: list[Prediction] | UnsetType = UNSET
    labels: Labels | UnsetType = UNSET
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
    @operation(
        query=_QUERY,
        body=IMAGE_BODIES,
        errors=(UnknownModel, *PREDICTION_ERRORS),
        example=_example,
    )
    def predict(request: Request) -> PredictAnswer:
        """Classify one picture.

        The content type says how it comes: as a form, as the file itself, or as JSON.
        """
        query = read_query(request, PredictQuery)
        top = query.top
        with services.models.use(*asked(request, query)) as model:
            item = read_image(request)
            output = services.predictor.predict_one(model, item, services.deadline(request))
            [(predictions, labels, familiar)] = _predictions(output[np.newaxis], model, top)
            return PredictAnswer(
                success=True, predictions=predictions, labels=labels, familiar=familiar, model=_model(model)
            )

    @routes.post("/predict/batch")
    @operation(
        query=_QUERY,
        body=IMAGES_BODIES,
        errors=(UnknownModel, *PREDICTION_ERRORS),
        example=_batch_example,
    )
    def predict_batch(request: Request) -> BatchAnswer:
        """Classify many pictures; a bad one carries its own error.

        The content type says how they come: as a form, as JSON, as an .npy file, or as raw uint8 [N, height, width, 3].
        """
        query = read_query(request, PredictQuery)
        top = query.top
        with services.models.use(*asked(request, query)) as model:
            items = read_images(request, model.metadata.input, services.settings.max_batch)
            outputs = services.predictor.predict_each(model, items, services.deadline(request))
            for output in outputs:
                if isinstance(output, ServiceError):
                    services.notes.error(name_of(output))
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


def _predictions(
    outputs: Outputs, model: LoadedModel, top: int
) -> Iterator[tuple[list[Prediction], list[Prediction] | UnsetType, bool | UnsetType]]:
    """Yield the ``top`` labels of each of ``outputs``, float32 [N, columns], those told, and whether it is familiar."""
    predicted = interpret(outputs, model.metadata)
    labels = _top_labels(predicted.probabilities, model, top)
    told = repeat(UNSET) if predicted.told is None else _told_labels(predicted.probabilities, predicted.told, model)
    return zip(labels, told, predicted.familiar or repeat(UNSET), strict=False)


def _told_labels(
    probabilities: Probabilities, told: npt.NDArray[np.bool_], model: LoadedModel
) -> list[list[Prediction]]:
    """Return the labels that are ``told``, bool [N, classes], of each row of ``probabilities``, the likeliest first."""
    everything = _top_labels(np.where(told, probabilities, -1), model, probabilities.shape[1])
    return [labels[:count] for labels, count in zip(everything, told.sum(axis=1).tolist(), strict=True)]


def _top_labels(probabilities: Probabilities, model: LoadedModel, top: int) -> list[list[Prediction]]:
    """Return the ``top`` most probable labels of each row of ``probabilities``, float32 [N, classes]."""
    best = np.argsort(-probabilities, axis=1, kind="stable")[:, :top]  # [N, top]
    labels, rows = model.metadata.labels, np.arange(len(best))[:, np.newaxis]
    return [
        # Seven digits are what a float32 holds; more would be noise of the conversion.
        [Prediction(labels[index], float(f"{value:.7g}")) for index, value in zip(indices, values, strict=True)]
        for indices, values in zip(best.tolist(), probabilities[rows, best].tolist(), strict=True)
    ]


def _example(model: LoadedModel) -> PredictAnswer:
    return PredictAnswer(
        success=True,
        predictions=_example_labels(model),
        labels=_example_told(model),
        familiar=_example_familiar(model),
        model=_model(model),
    )


def _batch_example(model: LoadedModel) -> BatchAnswer:
    good = Result(0, "first.jpg", _example_labels(model), _example_told(model), _example_familiar(model))
    bad = Result(1, "second.jpg", error=name_of(InvalidImage()), message="The picture is damaged or cut short.")
    return BatchAnswer(success=False, results=[good, bad], model=_model(model))


def _example_labels(model: LoadedModel) -> list[Prediction]:
    labelled = zip(model.metadata.labels, example_probabilities(model), strict=True)
    return [Prediction(*pair) for pair in labelled][: PredictQuery().top]


def _example_told(model: LoadedModel) -> list[Prediction] | UnsetType:
    """Return what a picture with one label would have told, where it may have several."""
    return UNSET if model.metadata.thresholds is None else _example_labels(model)[:1]


def _example_familiar(model: LoadedModel) -> bool | UnsetType:
    return UNSET if model.metadata.familiarity is None else True


def _model(model: LoadedModel) -> ServedModel:
    return ServedModel(model.name, model.version)
