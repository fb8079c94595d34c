"""Operations: what a route takes and gives, declared where its code is.

The types of an operation do three things at once: msgspec parses requests by them, encodes answers from them, and
``/openapi.json`` is made of them. So the description of the service cannot say anything else than its code does.
"""

import difflib
import functools
import typing
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Annotated, Any, NamedTuple, TypeVar
from urllib.parse import parse_qsl

import msgspec
from flask import Flask, Request, Response
from flask import request as current_request
from msgspec import Struct
from werkzeug.exceptions import HTTPException

from service.inference.errors import InvalidRequest, QueueFull, ServiceError
from service.inference.loaded import LoadedModel
from service.inference.plan import LABEL
from service.web.errors import OWN, Dialect, dialect_of

JSON = "application/json"
Binary = Annotated[Any, msgspec.Meta(extra_json_schema={"type": "string", "format": "binary"})]  # bytes as they are

Query = TypeVar("Query", bound=Struct)
View = Callable[..., Any]

_ATTRIBUTE = "operation"
_PAGE_TYPES = {"text/html", "text/css", "text/javascript", "image/png", "image/svg+xml", "image/webp"}
_NAMED_PARAMETER = 40  # characters of one that is not known


@dataclass(frozen=True)
class PerModel:
    """A type that depends on the model that is served, such as an image of its height and width.

    In ``Annotated`` it stands beside the type that holds for all models. Where several are served, ``of_several`` takes
    its place, if there is that.
    """

    type_for: Callable[[LoadedModel], Any]
    of_several: Any = None


@dataclass(frozen=True)
class AnyOf:
    """Several types, each of which may be sent or answered; msgspec has no unions of several Structs."""

    types: tuple[Any, ...]


def only(type_: type, description: str, *values: object) -> Any:
    """Return ``type_`` with ``values`` as all that it may be."""
    return Annotated[type_, msgspec.Meta(description=description, extra_json_schema={"enum": list(values)})]


# What the paths of the protocols name. That a value is one that is served is checked by the registry.
ModelName = Annotated[
    str,
    PerModel(
        lambda model: only(str, "The model that is served.", model.name),
        Annotated[str, msgspec.Meta(description="The name of a model; GET /models lists them.")],
    ),
]
ModelVersion = Annotated[
    int | str,
    PerModel(
        lambda model: only(int, "The version that is served, or a label of it.", model.version),
        Annotated[int | str, msgspec.Meta(description="The number of a version that is served, or its label.")],
    ),
]


_LABEL = Annotated[
    str,
    msgspec.Meta(
        description="What a version is called, by serving.json: letters, digits, '.', '_' and '-'.",
        extra_json_schema={"pattern": f"^{LABEL.pattern}$"},
    ),
]
VersionLabel = Annotated[
    str,
    PerModel(
        lambda model: (
            only(str, "What a version is called, by serving.json.", *model.labels) if model.labels else _LABEL
        ),
        _LABEL,
    ),
]


@dataclass(frozen=True)
class Content:
    """One way to send a request's body: its media types and its type, for msgspec; ``Any`` says nothing of it.

    ``example`` makes one that the model answers.
    """

    media_types: tuple[str, ...]
    type: Any = Any
    example: Callable[[LoadedModel], Any] | None = None


@dataclass(frozen=True)
class Header:
    """A request's header that the route reads."""

    name: str
    type: Any
    description: str


@dataclass(frozen=True)
class Operation:
    """What ``/openapi.json`` says of one route, and how to call it without Flask."""

    summary: str
    description: str
    query: type[Struct] | None
    headers: tuple[Header, ...]
    body: tuple[Content, ...]
    body_required: bool
    answers: Mapping[int, Mapping[str, Any]]  # status -> media type -> type
    errors: tuple[type[ServiceError], ...]
    answer: Callable[..., Any]  # takes the request and the path's parameters
    path: Mapping[str, Any] = field(default_factory=dict)  # parameter -> type
    example: Callable[[LoadedModel], Any] | None = None  # of what a 200 has as JSON

    @property
    def is_page(self) -> bool:
        """Whether it gives a page for people, or a file that pages need, which is no API."""
        types = set(self.answers.get(200, ()))
        return bool(types) and types <= _PAGE_TYPES


def operation(
    *,
    query: type[Struct] | None = None,
    headers: tuple[Header, ...] = (),
    body: tuple[Content, ...] = (),
    body_required: bool = True,
    answers: Mapping[int, Mapping[str, Any]] | None = None,
    also: tuple[int, ...] = (),
    errors: tuple[type[ServiceError], ...] = (),
    example: Callable[[LoadedModel], Any] | None = None,
) -> Callable[[View], View]:
    """Declare what a view takes and gives; the view may then return a Struct, or a Struct and a status.

    Its first parameter may be the ``request``. Views that predict take it so: they also run where Flask has none.

    The docstring's first line is the summary, the rest the description. The type of a 200 is what the view returns;
    ``also`` names other statuses with the same type. ``answers`` (status -> media type -> type) replaces both where a
    view makes its Response itself. ``errors`` is what can go wrong, beside the limits on bodies, which hold everywhere.
    ``example`` makes an example of the answer, of the model that is loaded.
    """

    def declare(view: View) -> View:
        hints = typing.get_type_hints(view, include_extras=True)
        returned = hints.pop("return")
        wants_request = hints.pop("request", None) is not None
        summary, _, description = (view.__doc__ or "").strip().partition("\n")
        declared = Operation(
            summary=summary.rstrip("."),
            description=" ".join(description.split()),
            query=query,
            headers=headers,
            body=body,
            body_required=body_required,
            answers=answers or {status: {JSON: _body_type(returned)} for status in (200, *also)},
            errors=errors,
            answer=view if wants_request else lambda _, **values: view(**values),
            path=hints,
            example=example,
        )

        @functools.wraps(view)
        def respond(**values: Any) -> Response:
            return response_of(declared.answer(current_request, **values))

        setattr(respond, _ATTRIBUTE, declared)
        return respond

    return declare


def declared(view: View) -> Operation | None:
    """Return what ``operation`` declared of ``view``; None where nothing was."""
    found: Operation | None = getattr(view, _ATTRIBUTE, None)
    return found


class Prediction(NamedTuple):
    """An operation that predicts: the rule that a path matches, and the values that the path has for it."""

    rule: str
    values: Mapping[str, Any]
    operation: Operation


def prediction_at(app: Flask, path: str) -> Prediction | None:
    """Return what answers a POST to ``path`` of ``app``; None where that does not predict."""
    try:
        rule, values = app.url_map.bind("").match(path, "POST", return_rule=True)
    except HTTPException:
        return None
    operation = declared(app.view_functions[rule.endpoint])
    # What waits for the engine may find its queue full, and nothing else may.
    predicts = operation is not None and QueueFull in operation.errors
    return Prediction(rule.rule, values, operation) if operation and predicts else None


def query_fault(operation: Operation, path: str, query: str, dialects: Sequence[Dialect]) -> str | None:
    """Return what is told a client whose ``query`` has a parameter that the operation at ``path`` does not take.

    It is None where there is no such parameter, where a protocol of ``dialects`` says what becomes of it, and for
    pages, to which links may have any.
    """
    if not query or operation.is_page or dialect_of(path, dialects) is not OWN:
        return None
    taken = _parameters(operation.query)
    unknown = next((name for name, _ in parse_qsl(query, keep_blank_values=True) if name not in taken), None)
    if unknown is None:
        return None
    hint = f"it takes {', '.join(taken)}." if taken else "it takes none."
    for near in difflib.get_close_matches(unknown.lower(), taken, n=1):
        hint = f"did you mean {near}?"
    return f"This route has no query parameter {unknown[:_NAMED_PARAMETER]!r}; {hint}"


def _parameters(query: Any) -> tuple[str, ...]:
    """Return the names of the parameters in ``query``, which may be described for each model."""
    kind = typing.get_args(query)[0] if typing.get_origin(query) is Annotated else query
    return () if kind is None else kind.__struct_fields__


def read_query(request: Request, query: type[Query]) -> Query:
    """Return the query parameters of ``request``; that there are no others is checked before, by ``query_fault``.

    Raises:
        InvalidRequest: one has a value that is not allowed, or several.
    """
    if not request.query_string:
        return msgspec.convert({}, query)
    for name in query.__struct_fields__:
        if len(request.args.getlist(name)) > 1:
            raise InvalidRequest(f"The query parameter {name} is given more than once.")
    try:
        return msgspec.convert(request.args.to_dict(), query, strict=False)
    except msgspec.ValidationError as error:
        name = str(error).rpartition(" - at `$.")[2].rstrip("`")
        schema = msgspec.json.schema(query)["$defs"][query.__name__]["properties"][name]
        lowest = f" from {schema['minimum']} on" if "minimum" in schema else ""
        raise InvalidRequest(
            f"The query parameter {name} is {request.args.get(name, '')[:40]!r}, "
            f"but it must be of type {schema['type']}{lowest}. {schema.get('description', '')}"
        ) from error


def json_response(answer: Any, status: int = 200) -> Response:
    """Return ``answer``, which msgspec can encode, as JSON with a line end, which is kind to terminals."""
    return Response(msgspec.json.encode(answer) + b"\n", status, content_type=JSON)


def response_of(answer: Any) -> Response:
    """Return what a view returned as a response."""
    if isinstance(answer, Response):
        return answer
    return json_response(*answer) if isinstance(answer, tuple) else json_response(answer)


def _body_type(returned: Any) -> Any:
    """Return the type of the body of a view that returns ``returned``: ``Answer`` or ``tuple[Answer, int]``."""
    return typing.get_args(returned)[0] if typing.get_origin(returned) is tuple else returned
