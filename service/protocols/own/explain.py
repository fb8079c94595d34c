"""``POST /explain``: which part of a picture spoke for a label."""

from collections.abc import Callable
from typing import Annotated, Any

from flask import Blueprint, Request, Response
from msgspec import UNSET, Meta, Struct, UnsetType

from service.inference.errors import InvalidRequest, NotExplainable, UnknownModel
from service.inference.explainer import Explained
from service.inference.heat_map import SHARE
from service.inference.loaded import LoadedModel
from service.protocols.own.health import ServedModel
from service.protocols.own.messages import IMAGE_BODIES, read_image
from service.web.errors import PREDICTION_ERRORS
from service.web.operations import JSON, Binary, json_response, operation, read_query
from service.web.services import Services
from service.web.which import WhichQuery, asked, described_query

PNG = "image/png"

_FEW = 10  # labels that an error names
_FORMATS = {"json": JSON, "png": PNG}
_LABEL = "The label to look for; without it, the most probable one."
_FORMAT = "json or png; without it, what Accept asks for, which is JSON unless it prefers image/png."
_Pixel = Annotated[float, Meta(description="In pixels of the picture when it is upright.")]


class ExplainQuery(WhichQuery, kw_only=True):
    """What ``/explain`` takes in its address."""

    label: Annotated[str, Meta(description=_LABEL)] | UnsetType = UNSET
    format: Annotated[str, Meta(description=_FORMAT)] | UnsetType = UNSET


class LabelQuery(Struct):
    """The label to explain."""

    label: Annotated[str, Meta(description=_LABEL)] | UnsetType = UNSET


class Part(Struct):
    """A part of a picture."""

    left: _Pixel
    top: _Pixel
    right: _Pixel
    bottom: _Pixel


class PictureSize(Struct):
    """How large the picture is when it is upright."""

    width: int
    height: int


class Explanation(Struct):
    """What spoke for one label, and where.

    The numbers of ``map``, in rows, say what each cell added to the label's logit; those below 0 spoke against it.
    ``area`` is the part of the picture that the cells divide evenly; at the edges it may reach beyond it. ``box`` holds
    the strongest cell and all beside it that have half of its number; it is null where nothing spoke for the label.
    """

    label: str
    probability: Annotated[float, Meta(ge=0, le=1)]
    map: list[list[float]]
    area: Part
    box: Part | None
    image: PictureSize


class ExplainAnswer(Struct):
    """The explanation of one label of one picture."""

    success: bool
    explanation: Explanation
    model: ServedModel


def blueprint(services: Services) -> Blueprint:
    """Return the route that explains."""
    routes = Blueprint("explain", __name__)

    @routes.post("/explain")
    @operation(
        query=described_query(
            ExplainQuery,
            label=label_of(),
            format=lambda _: Annotated[str, Meta(description=_FORMAT, extra_json_schema={"enum": list(_FORMATS)})],
        ),
        body=IMAGE_BODIES,
        answers={200: {JSON: ExplainAnswer, PNG: Binary}},
        errors=(UnknownModel, *PREDICTION_ERRORS, NotExplainable),
    )
    def explain(request: Request) -> Response:
        """Say which part of a picture spoke for a label.

        The picture comes as for ``/predict``. The answer has a heat map as numbers and a box around its strongest part,
        or is a PNG of the map over the picture.
        """
        query = read_query(request, ExplainQuery)
        shows = _wanted(request, query) == PNG
        with services.models.use(*asked(request, query)) as model:
            item, deadline = read_image(request), services.deadline(request)
            check_label(model, query.label)

            def answer() -> Response:
                explained = services.explainer.explain(model, item, deadline, view=shows)
                index = label_index(explained, model, query.label)
                if not shows:
                    told = explanation(explained, model, index)
                    return json_response(ExplainAnswer(True, told, ServedModel(model.name, model.version)))
                return Response(services.explainer.picture(item, explained, index, deadline), content_type=PNG)

            return services.runtime.offload(answer)

    return routes


def label_of(description: str = _LABEL) -> Callable[[LoadedModel], Any]:
    """Return what describes a query parameter that is one of a model's labels."""
    return lambda model: Annotated[
        str, Meta(description=description, extra_json_schema={"enum": list(model.metadata.labels)})
    ]


def check_label(model: LoadedModel, label: str | UnsetType) -> None:
    """Raise InvalidRequest where ``model`` has no such ``label``; none at all will do."""
    labels = model.metadata.labels
    if label is UNSET or label in labels:
        return
    some = ", ".join(labels[:_FEW]) + (f" and {len(labels) - _FEW:,} more" if len(labels) > _FEW else "")
    raise InvalidRequest(f"The model has no label {label[:100]!r}; it has {some}. GET /model lists them.")


def label_index(explained: Explained, model: LoadedModel, label: str | UnsetType) -> int:
    """Return the number of ``label``, which ``check_label`` let through, or else of the most probable one."""
    if label is UNSET:
        return int(explained.probabilities.argmax())
    return model.metadata.labels.index(label)


def explanation(explained: Explained, model: LoadedModel, index: int) -> Explanation:
    """Return what is told of the label of number ``index``."""
    heat_map = explained.heat_map(index)
    box = heat_map.box(SHARE)
    return Explanation(
        label=model.metadata.labels[index],
        # Seven digits are what a float32 holds; of the map four tell more than the network is exact.
        probability=float(f"{explained.probabilities[index]:.7g}"),
        map=[[float(f"{value:.4g}") for value in row] for row in heat_map.values.tolist()],
        area=_part(heat_map.area),
        box=None if box is None else _part(box),
        image=PictureSize(heat_map.width, heat_map.height),
    )


def _part(box: tuple[float, float, float, float]) -> Part:
    return Part(*(round(side, 1) for side in box))


def _wanted(request: Request, query: ExplainQuery) -> str:
    """Return the content type of the answer that is asked for."""
    if query.format is UNSET:
        return request.accept_mimetypes.best_match([JSON, PNG]) or JSON
    if query.format not in _FORMATS:
        raise InvalidRequest(f"The query parameter format is {query.format[:40]!r}, but it must be json or png.")
    return _FORMATS[query.format]
