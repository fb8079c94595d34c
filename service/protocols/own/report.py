"""``POST /report``: somebody says that the answer to a picture is wrong, so that it is kept for people to label.

What it keeps is bounded as what doubts choose. It changes something, which a prediction does not, so no form of another
page may send it: browsers ask first before they send what is read here, and are told no (see ``Origins``).
"""

from typing import Annotated

from flask import Blueprint, Request
from msgspec import UNSET, Meta, Struct, UnsetType

from service.captures.errors import NothingKept
from service.inference.errors import UnknownModel, UnsupportedBody
from service.protocols.own.explain import check_label, label_of
from service.protocols.own.health import ServedModel
from service.protocols.own.messages import IMAGE_BODIES, ImageJson, read_image
from service.web.errors import PREDICTION_ERRORS
from service.web.operations import JSON, Content, operation, read_query
from service.web.services import Services
from service.web.which import WhichQuery, asked, described_query

_LABEL = "The label that would be right, as far as whoever reports it knows; a hint for those who review."
_FORM, _FILE, _ = IMAGE_BODIES
_SENT_BY_FORMS = (*_FORM.media_types, "application/x-www-form-urlencoded", "text/plain", "")


class ReportQuery(WhichQuery, kw_only=True):
    """What ``/report`` takes in its address."""

    label: Annotated[str, Meta(description=_LABEL)] | UnsetType = UNSET


class ReportAnswer(Struct):
    """Whether the picture is kept for the review; it is not where the request says ``X-Darkroom-Capture: no``."""

    success: bool
    kept: bool
    model: ServedModel


def blueprint(services: Services) -> Blueprint:
    """Return the route that takes what people call wrong."""
    routes = Blueprint("report", __name__)

    @routes.post("/report")
    @operation(
        query=described_query(ReportQuery, label=label_of(_LABEL)),
        body=(_FILE, Content((JSON,), ImageJson)),
        errors=(UnknownModel, *PREDICTION_ERRORS, NothingKept),
    )
    def report(request: Request) -> ReportAnswer:
        """Say that the answer to a picture is wrong.

        The picture comes as for ``/predict``, but not in a form. It is answered once more, and kept with that answer
        for people to label. Where more are reported than are kept, it is a 503 with Retry-After.
        """
        if services.captures is None:
            raise NothingKept("The service keeps no pictures: set CAPTURE_DIR to a folder for them.")
        if request.mimetype in _SENT_BY_FORMS:
            raise UnsupportedBody(
                "Forms are not read here, which any page could send; send the file itself, with its own content type "
                '(curl --data-binary @photo.jpg -H \'Content-Type: image/jpeg\'), or JSON {"image": "<base64>"}.'
            )
        query = read_query(request, ReportQuery)
        label = query.label
        with services.models.use(*asked(request, query)) as model:
            item = read_image(request)
            check_label(model, label)
            output = services.predictor.predict_one(model, item, services.deadline(request), pass_on=False)
            suggested = None if label is UNSET else label
            kept = services.captures.report(model, item, output, suggested)
            return ReportAnswer(success=True, kept=kept, model=ServedModel(model.name, model.version))

    return routes
