"""The OpenAPI 3.1 description of the service, made of what the routes declare of themselves."""

import importlib
import inspect
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from http import HTTPStatus
from typing import Any, NamedTuple, cast

import msgspec
from flask import Flask
from werkzeug.routing import Rule

from service import __version__
from service.inference.errors import InvalidRequest, ServiceError
from service.inference.loaded import LoadedModel
from service.web.errors import BODY_ERRORS, OWN, Dialect, dialect_of
from service.web.operations import JSON, AnyOf, Content, Operation, PerModel, declared

_DESCRIPTION = (
    "Classifies pictures. Errors say what to change. Bodies may be compressed with gzip or deflate, both ways. "
    "Every answer has an ``X-Request-ID``: the one of the request, where it has one of 1 to 128 printable characters. "
    "A service may keep pictures for people to label, and says so on its page; of a request with "
    "``X-Darkroom-Capture: no`` it keeps none."
)
_REFERENCE = "#/components/schemas/{name}"
_IMPLIED_METHODS = ("HEAD", "OPTIONS")
_REQUEST_ID = {"description": "The request's name in the log.", "schema": {"type": "string"}}
_RETRY_AFTER = {"description": "Seconds to wait before trying again.", "schema": {"type": "integer"}}
_TEXTS = ("summary", "description")
_BODY_METHODS = ("POST", "PUT", "PATCH")

# Of blueprints: those that stand first in the description, and the names that are not made of their own.
_ORDER = ("predict", "model", "health", "metrics")
_TITLES = {
    "open_inference": "Open Inference Protocol V2",
    "tensorflow_serving": "TensorFlow Serving",
    "docs": "OpenAPI",
}

Schema = dict[str, Any]


class _Route(NamedTuple):
    rule: Rule
    method: str
    operation: Operation


def describe(
    app: Flask,
    dialects: Sequence[Dialect],
    model: LoadedModel | None,
    refusals: Sequence[HTTPStatus] = (),
    *,
    several: bool = False,
) -> Schema:
    """Return the description of the routes of ``app`` that are for programs; any may answer with one of ``refusals``.

    What they take depends on ``model``, such as on the size of its images; without a model there is no more to say of
    it than that it is anything. Where ``several`` are served, ``model`` is the default one.

    Raises:
        ValueError: a route does not declare what it takes and gives.
    """
    routes = [route for route in _routes(app) if not route.operation.is_page]
    schemas = _Schemas(routes, dialects, model, several=several)
    paths: dict[str, Schema] = {}
    for route in routes:
        paths.setdefault(_path(route.rule), {})[route.method.lower()] = _operation(route, schemas, dialects, refusals)
    description: Schema = {
        "openapi": "3.1.0",
        "info": {
            "title": "Darkroom",
            "version": __version__,
            "description": _DESCRIPTION,
            "license": {"name": "MIT", "identifier": "MIT"},
        },
        # Beside this description, wherever a proxy has put it; without this it would be the origin's root.
        "servers": [{"url": "./"}],
        "tags": list(_tags(app, routes)),
        "paths": dict(sorted(paths.items())),
        "components": {
            "schemas": schemas.components,
            "headers": {"X-Request-ID": _REQUEST_ID, "Retry-After": _RETRY_AFTER},
        },
    }
    if HTTPStatus.UNAUTHORIZED in refusals:
        description["components"]["securitySchemes"] = {"token": {"type": "http", "scheme": "bearer"}}
        description["security"] = [{"token": []}]
    return cast(Schema, _markdown(description))


def _routes(app: Flask) -> Iterator[_Route]:
    for rule in app.url_map.iter_rules():
        operation = declared(app.view_functions[rule.endpoint])
        if operation is None:
            raise ValueError(f"the route {rule.rule} does not declare its operation")
        for method in sorted((rule.methods or set()).difference(_IMPLIED_METHODS)):
            yield _Route(rule, method, operation)


class _Schemas:
    """The schemas of all types of all routes, by type."""

    def __init__(
        self, routes: Sequence[_Route], dialects: Sequence[Dialect], model: LoadedModel | None, *, several: bool
    ) -> None:
        self._model = model
        self._several = several
        self._chosen: dict[int, Any] = {}
        types = {id(type_): type_ for route in routes for type_ in self._types(route, dialects)}
        found, self.components = msgspec.json.schema_components(list(types.values()), ref_template=_REFERENCE)
        self._by_id = dict(zip(types, found, strict=True))
        self._kept = types  # an id stands for a type as long as that lives

    def of(self, type_: Any) -> Schema:
        """Return the schema of a type that some route declares."""
        if isinstance(type_, AnyOf):
            return {"anyOf": [self.of(alternative) for alternative in type_.types]}
        return dict(self._by_id[id(self._resolved(type_))])

    def of_query(self, type_: type[msgspec.Struct]) -> Schema:
        """Return the whole schema of a Struct of query parameters."""
        schema: Schema = self.components[self.of(type_)["$ref"].rpartition("/")[2]]
        return schema

    def example(self, make: Callable[[LoadedModel], Any] | None) -> Schema:
        """Return what says that ``make`` gives an example; nothing where it does not, or where there is no model."""
        if make is None or self._model is None:
            return {}
        return {"example": msgspec.to_builtins(make(self._model))}

    def _types(self, route: _Route, dialects: Sequence[Dialect]) -> Iterator[Any]:
        operation = route.operation
        for content in operation.body:
            yield from (self._resolved(type_) for type_ in _alternatives(content.type))
        for answer in operation.answers.values():
            yield from (type_ for answered in answer.values() for type_ in _alternatives(answered))
        yield from (self._resolved(type_) for type_ in operation.path.values())
        yield from (header.type for header in operation.headers)
        yield dialect_of(route.rule.rule, dialects).body
        if operation.query:
            yield self._resolved(operation.query)

    def _resolved(self, type_: Any) -> Any:
        """Return the type that holds for the model, the same object each time."""
        if id(type_) not in self._chosen:
            self._chosen[id(type_)] = self._choose(type_)
        return self._chosen[id(type_)]

    def _choose(self, type_: Any) -> Any:
        notes = (type_, *getattr(type_, "__metadata__", ()))
        per_model = next((note for note in notes if isinstance(note, PerModel)), None)
        if per_model is None:
            return type_
        if self._model is None:
            return Any if type_ is per_model else type_
        if self._several and per_model.of_several is not None:
            return per_model.of_several
        return per_model.type_for(self._model)


def _alternatives(type_: Any) -> tuple[Any, ...]:
    return type_.types if isinstance(type_, AnyOf) else (type_,)


def _tags(app: Flask, routes: Sequence[_Route]) -> Iterator[Schema]:
    """Yield the groups of routes: a blueprint each, described by the first paragraph of its module.

    They stand in the order in which people meet them; what most come for is first.
    """
    names = dict.fromkeys(_blueprint(route) for route in routes)
    for name in sorted(names, key=lambda name: _ORDER.index(name) if name in _ORDER else len(_ORDER)):
        module = importlib.import_module(app.blueprints[name].import_name)
        yield {"name": _title(name), "description": (module.__doc__ or "").partition("\n\n")[0].replace("\n", " ")}


def _blueprint(route: _Route) -> str:
    endpoint: str = route.rule.endpoint
    return endpoint.partition(".")[0]


def _title(blueprint: str) -> str:
    return _TITLES.get(blueprint, blueprint.replace("_", " ").capitalize())


def _markdown(node: Any) -> Any:
    """Return ``node`` with its texts, which are docstrings, in Markdown."""
    if isinstance(node, dict):
        return {key: _text(value) if key in _TEXTS else _markdown(value) for key, value in node.items()}
    return [_markdown(item) for item in node] if isinstance(node, list) else node


def _text(docstring: Any) -> Any:
    if not isinstance(docstring, str):  # a field of that name
        return _markdown(docstring)
    return inspect.cleandoc(docstring).replace("``", "`")


def _path(rule: Rule) -> str:
    return re.sub(r"<(?:[^:>]+:)?([^>]+)>", r"{\1}", rule.rule)


def _operation(route: _Route, schemas: _Schemas, dialects: Sequence[Dialect], refusals: Sequence[HTTPStatus]) -> Schema:
    operation, dialect = route.operation, dialect_of(route.rule.rule, dialects)
    described: Schema = {
        "operationId": route.rule.endpoint.replace(".", "_"),
        "tags": [_title(_blueprint(route))],
        "summary": operation.summary,
        "responses": _responses(operation, schemas, dialect, route.method),
    }
    for status in refusals:
        told = {"content": {JSON: {"schema": schemas.of(dialect.body)}}}
        described["responses"][str(status.value)] = {"description": status.phrase, "headers": _headers(status), **told}
    if operation.description:
        described["description"] = operation.description
    if parameters := _parameters(route, schemas):
        described["parameters"] = parameters
    if operation.body:
        described["requestBody"] = {"required": operation.body_required, "content": _contents(operation.body, schemas)}
    return described


def _parameters(route: _Route, schemas: _Schemas) -> list[Schema]:
    operation = route.operation
    parameters = [
        _parameter("path", name, schemas.of(operation.path[name]), required=True)
        for name in sorted(route.rule.arguments)
    ]
    if operation.query:
        schema = schemas.of_query(operation.query)
        for name, property_ in schema["properties"].items():
            required = name in schema["required"]
            parameters.append(_parameter("query", name, property_, required=required))
    for header in operation.headers:
        schema = {**schemas.of(header.type), "description": header.description}
        parameters.append(_parameter("header", header.name, schema, required=False))
    return parameters


def _parameter(place: str, name: str, schema: Mapping[str, Any], *, required: bool) -> Schema:
    texts = {"description": schema["description"]} if "description" in schema else {}
    rest = {key: value for key, value in schema.items() if key != "description"}
    return {"in": place, "name": name, "required": required, **texts, "schema": rest}


def _contents(body: Sequence[Content], schemas: _Schemas) -> Schema:
    contents: Schema = {}
    for content in body:
        described: Schema = {"schema": schemas.of(content.type), **schemas.example(content.example)}
        contents.update(dict.fromkeys(content.media_types, described))
    return contents


def _responses(operation: Operation, schemas: _Schemas, dialect: Dialect, method: str) -> Schema:
    by_status: dict[int, dict[str, list[Schema]]] = {}
    for status, answer in operation.answers.items():
        by_status[status] = {media_type: [schemas.of(type_)] for media_type, type_ in answer.items()}
    errors = _errors(operation, method, dialect)
    for error in errors:
        alternatives = by_status.setdefault(dialect.status(error), {}).setdefault(JSON, [])
        told = schemas.of(dialect.body)
        if told not in alternatives:
            alternatives.append(told)
    responses: Schema = {
        str(status): {
            "description": _description(status, errors, dialect),
            "headers": _headers(status),
            "content": {
                media_type: {"schema": found[0] if len(found) == 1 else {"anyOf": found}}
                for media_type, found in contents.items()
            },
        }
        for status, contents in sorted(by_status.items())
    }
    if JSON in by_status.get(200, {}):
        responses["200"]["content"][JSON].update(schemas.example(operation.example))
    return responses


def _errors(operation: Operation, method: str, dialect: Dialect) -> tuple[type[ServiceError], ...]:
    if method in _BODY_METHODS or operation.query:
        return (*operation.errors, *BODY_ERRORS)
    return (*operation.errors, InvalidRequest) if dialect is OWN else operation.errors  # a parameter that is not taken


def _description(status: int, errors: Sequence[type[ServiceError]], dialect: Dialect) -> str:
    faults = [" ".join((error.__doc__ or "").split()) for error in errors if dialect.status(error) == status]
    return " ".join(faults) or HTTPStatus(status).phrase


def _headers(status: int) -> Schema:
    headers = {"X-Request-ID": {"$ref": "#/components/headers/X-Request-ID"}}
    if status in (HTTPStatus.SERVICE_UNAVAILABLE, HTTPStatus.TOO_MANY_REQUESTS):
        headers["Retry-After"] = {"$ref": "#/components/headers/Retry-After"}
    return headers
