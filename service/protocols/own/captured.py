"""``/captured``: the pictures that were kept for people to label, with what they say of them, and how right it was.

The page ``/review`` is made of these routes. All of them need a token, also where others need none.
"""

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Annotated, TypeVar

import msgspec
import simplejpeg
from flask import Blueprint, Request, Response, g
from msgspec import Meta, Struct

from artifact.accuracy import accuracy_interval
from service.captures.choice import REASONS, KeptAnswer, Ranked
from service.captures.errors import NothingKept, TakenByAnother, UnknownCapture
from service.captures.folder import CaptureFolder
from service.captures.index import REVIEWED, SKIPPED, WAITING, Row
from service.captures.keeper import Keeper
from service.captures.labels import MOST_CHARACTERS
from service.inference.errors import (
    DeadlineExceeded,
    ImageTooLarge,
    InvalidImage,
    UnsupportedBody,
    UnsupportedImage,
)
from service.web.bodies import json_body
from service.web.errors import CAPTURE_ERRORS
from service.web.operations import JSON, Binary, Content, operation
from service.web.services import Services

_SIDE = 640  # pixels, of what people are shown
_QUALITY = 88
_MOST_VALUES = 100  # of a request
_MOST_AT_ONCE = 20
_MEGABYTE = 1_000_000
_JPEG = "image/jpeg"

_Document = TypeVar("_Document", bound=Struct)
_Result = TypeVar("_Result")

_Reviewer = Annotated[
    str,
    Meta(
        pattern="^[0-9A-Za-z_-]{8,64}$",
        description="Who looks at pictures: a word of its own for each person, window or program, made by chance.",
    ),
]
_Id = Annotated[str, Meta(pattern="^[0-9a-f]{64}$", description="The sha256 of the picture's file.")]
_Label = Annotated[str, Meta(min_length=1, max_length=MOST_CHARACTERS)]


class Take(Struct):
    """Who wants pictures to label, and how many at most, those that he has and did not label among them."""

    reviewer: _Reviewer
    count: Annotated[int, Meta(ge=1, le=_MOST_AT_ONCE)] = 8


class Review(Struct):
    """What a picture shows; null where it cannot be said, and nobody else should be asked."""

    reviewer: _Reviewer
    label: Annotated[_Label | None, Meta(description="The name of the class, which may be a new one.")]


class Undo(Struct):
    """Who takes back what he said."""

    reviewer: _Reviewer


class KeptPicture(Struct):
    """A picture that waits for a label, why it was kept, and what it was answered, the most probable label first.

    ``suggested`` is the label that somebody says is right who reported the answer: a hint, which nobody has checked.
    """

    id: str
    kept: str
    reasons: list[str]
    model: str
    version: int
    predictions: list[Ranked]
    familiar: bool | None
    suggested: str | None


class Taken(Struct):
    """Pictures that nobody else is given for two minutes, and how many wait in all."""

    pictures: list[KeptPicture]
    waiting: int


class Labels(Struct):
    """The labels of the models that answer, in their order, the default one's first, and those that people added."""

    model: list[str]
    added: list[str]


class Reviewed(Struct):
    """What was said of a picture."""

    id: str
    label: str | None


class Kind(Struct):
    """How many pictures were kept for a reason, by what became of them; a picture may have several reasons."""

    waiting: int
    reviewed: int
    skipped: int


class Accuracy(Struct):
    """How many of a version's answers to the random share were right, of those that were reviewed; 95% interval.

    All numbers but ``answers`` and ``right`` are fractions of 1.
    """

    model: str
    version: int
    answers: int
    right: int
    accuracy: float
    low: float
    high: float


class SummaryAnswer(Struct):
    """What was kept, what became of it, and the accuracy in production by version, the newest first."""

    waiting: int
    reviewed: int
    skipped: int
    kinds: dict[str, Kind]
    megabytes: float
    max_megabytes: int
    days: float
    oldest: str | None
    accuracy: list[Accuracy]


def blueprint(services: Services) -> Blueprint:
    """Return the routes of the pictures that were kept."""
    routes = Blueprint("captured", __name__)
    _add_looking(routes, services)
    _add_labelling(routes, services)
    return routes


def _add_looking(routes: Blueprint, services: Services) -> None:
    @routes.get("/captured/summary")
    @operation(errors=CAPTURE_ERRORS)
    def summary() -> SummaryAnswer:
        """Tell how many pictures were kept and labelled, and the accuracy in production.

        That is measured on the share that chance chose, whatever the pictures show: each counts as often as it was
        drawn, until somebody has labelled it. Skipped pictures do not count.
        """
        return _in_folder(services, lambda folder: _summary(services, folder))

    @routes.get("/captured/labels")
    @operation(errors=CAPTURE_ERRORS)
    def labels() -> Labels:
        """List the labels that pictures can be given."""
        added = _in_folder(services, CaptureFolder.labels)
        models = [registry.current for registry in services.models.registries]
        known = list(dict.fromkeys(label for model in models if model for label in model.metadata.labels))
        return Labels(known, [label for label in added if label not in known])

    @routes.get("/captured/<identity>/picture")
    @operation(
        answers={200: {_JPEG: Binary}},
        errors=(
            *CAPTURE_ERRORS, UnknownCapture, InvalidImage, ImageTooLarge, UnsupportedImage, DeadlineExceeded,
        ),
    )  # fmt: skip
    def picture(request: Request, identity: _Id) -> Response:
        """Show a picture, decoded and written anew as a JPEG of at most 640 pixels a side."""
        content = _in_folder(services, lambda folder: folder.content(identity))
        pixels = services.predictor.preview(content, _SIDE, services.deadline(request))
        response = Response(simplejpeg.encode_jpeg(pixels, quality=_QUALITY), content_type=_JPEG)
        response.headers["Cross-Origin-Resource-Policy"] = "same-origin"
        return response


def _add_labelling(routes: Blueprint, services: Services) -> None:
    @routes.post("/captured/take")
    @operation(body=(Content((JSON,), Take),), errors=CAPTURE_ERRORS)
    def take(request: Request) -> Taken:
        """Give pictures to label, which nobody else is given meanwhile."""
        asked = _document(request, Take)

        def lease(folder: CaptureFolder) -> Taken:
            rows = folder.lease(asked.reviewer, asked.count)
            return Taken([_picture(row) for row in rows], folder.summary().counts[WAITING]["all"])

        return _in_folder(services, lease)

    @routes.post("/captured/<identity>/review")
    @operation(body=(Content((JSON,), Review),), errors=(*CAPTURE_ERRORS, UnknownCapture, TakenByAnother))
    def review(request: Request, identity: _Id) -> Reviewed:
        """Say what a picture shows; its file then lies in the folder of that label."""
        said, user = _document(request, Review), g.get("user")

        def settle(folder: CaptureFolder) -> Reviewed:
            if said.label is None:
                folder.skip(identity, said.reviewer, user)
                return Reviewed(identity, None)
            return Reviewed(identity, folder.confirm(identity, said.label, said.reviewer, user))

        return _in_folder(services, settle)

    @routes.post("/captured/<identity>/undo")
    @operation(body=(Content((JSON,), Undo),), errors=(*CAPTURE_ERRORS, UnknownCapture, TakenByAnother))
    def undo(request: Request, identity: _Id) -> KeptPicture:
        """Take back what the same reviewer said of a picture, which he then has again."""
        said = _document(request, Undo)
        return _in_folder(services, lambda folder: _picture(folder.undo(identity, said.reviewer)))


def _in_folder(services: Services, work: Callable[[CaptureFolder], _Result]) -> _Result:
    """Return ``work(folder)``, done in a thread, since it waits for a disk and perhaps for other processes."""

    def use() -> _Result:
        with _keeper(services).folder() as folder:
            return work(folder)

    return services.runtime.offload(use)


def _keeper(services: Services) -> Keeper:
    if services.captures is None:
        raise NothingKept("The service keeps no pictures: set CAPTURE_DIR to a folder for them.")
    return services.captures


def _document(request: Request, type_: type[_Document]) -> _Document:
    """Return the JSON of ``request``; of no other type, which a form on any page could send."""
    if request.mimetype != JSON:
        raise UnsupportedBody(f"The content type {request.mimetype!r} is not read here; send {JSON}.")
    return json_body(request, type_, _MOST_VALUES)


def _picture(row: Row) -> KeptPicture:
    answer = msgspec.json.decode(row.answer, type=KeptAnswer)
    return KeptPicture(
        row.id, _iso(row.kept), row.reasons, answer.model, answer.version, answer.predictions, answer.familiar,
        row.suggested,
    )  # fmt: skip


def _summary(services: Services, folder: CaptureFolder) -> SummaryAnswer:
    found, settings = folder.summary(), services.settings
    counts = {state: found.counts[state] for state in (WAITING, REVIEWED, SKIPPED)}
    return SummaryAnswer(
        **{state: counted["all"] for state, counted in counts.items()},
        kinds={reason: Kind(**{state: counted[reason] for state, counted in counts.items()}) for reason in REASONS},
        megabytes=round(found.bytes / _MEGABYTE, 3),
        max_megabytes=settings.capture_max_mb,
        days=settings.capture_days,
        oldest=None if found.oldest is None else _iso(found.oldest),
        accuracy=[
            Accuracy(
                drawn.model, drawn.version, drawn.answers, drawn.right, round(drawn.right / drawn.answers, 6),
                *(round(bound, 6) for bound in accuracy_interval(drawn.right, drawn.answers)),
            )
            for drawn in found.drawn
        ],
    )  # fmt: skip


def _iso(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="seconds")
