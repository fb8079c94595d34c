"""The OpenAPI 3.1 description of the service, made of what the routes declare of themselves."""

from __future__ import annotations

import http
import importlib.metadata
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import msgspec
from flask import Flask
from werkzeug.routing import Rule

from artifact import Metadata
from service.errors import BODY_ERRORS, Dialect, ServiceError, dialect_of
from service.operations import JSON, Content, Operation, PerModel, declared

_REFERENCE = "#/components/schemas/{name}"
_IMPLIED_METHODS = ("HEAD", "OPTIONS")
_REQUEST_ID = {"description": "The request's name in the log.", "schema": {"type": "string"}}
_RETRY_AFTER = {"description": "Seconds to wait before trying again.", "schema": {"type": "integer"}}
_BODY_METHODS = ("POST", "PUT", "PATCH")

Schema = dict[str, Any]


class _Route(NamedTuple):
    rule: Rule
    method: str
    operation: Operation


def describe(app: Flask, dialects: Sequence[Dialect], metadata: Metadata | None) -> Schema:
    """Return the description of all routes of ``app``.

    What they take depends on the model, whose ``metadata`` says how large its images are; without a model there is no
    more to say of it than that it is anything.

    Raises:
        ValueError: a route does not declare what it takes and gives.
    """
    routes = list(_routes(app))
    schemas = _Schemas(routes, dialects, metadata)
    paths: dict[str, Schema] = {}
    for route in routes:
        paths.setdefault(_path(route.rule), {})[route.method.lower()] = _operation(route, schemas, dialects)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Darkroom",
            "version": version(),
            "description": "Classifies pictures. Errors say what to change.",
        },
        "paths": dict(sorted(paths.items())),
        "components": {
            "schemas": schemas.components,
            "headers": {"X-Request-ID": _REQUEST_ID, "Retry-After": _RETRY_AFTER},
        },
    }


def version() -> str:
    """Return the version of the project; ``0`` where it was not installed but only copied."""
    try:
        return importlib.metadata.version("darkroom")
    except importlib.metadata.PackageNotFoundError:
        return "0"


def _routes(app: Flask) -> Iterator[_Route]:
    for rule in app.url_map.iter_rules():
        operation = declared(app.view_functions[rule.endpoint])
        if operation is None:
            raise ValueError(f"the route {rule.rule} does not declare its operation")
        for method in sorted((rule.methods or set()).difference(_IMPLIED_METHODS)):
            yield _Route(rule, method, operation)


class _Schemas:
    """The schemas of all types of all routes, by type."""

    def __init__(self, routes: Sequence[_Route], dialects: Sequence[Dialect], metadata: Metadata | None) -> None:
        self._metadata = metadata
        types = {id(type_): type_ for route in routes for type_ in self._types(route, dialects)}
        found, self.components = msgspec.json.schema_components(list(types.values()), ref_template=_REFERENCE)
        self._by_id = dict(zip(types, found, strict=True))
        self._kept = types  # an id stands for a type as long as that lives

    def of(self, type_: Any) -> Schema:
        """Return the schema of a type that some route declares."""
        return dict(self._by_id[id(self._resolved(type_))])

    def of_query(self, type_: type[msgspec.Struct]) -> Schema:
        """Return the whole schema of a Struct of query parameters."""
        schema: Schema = self.components[self.of(type_)["$ref"].rpartition("/")[2]]
        return schema

    def _types(self, route: _Route, dialects: Sequence[Dialect]) -> Iterator[Any]:
        operation = route.operation
        yield from (self._resolved(content.type) for content in operation.body)
        yield from (type_ for answer in operation.answers.values() for type_ in answer.values())
        yield from operation.path.values()
        yield from (header.type for header in operation.headers)
        yield dialect_of(route.rule.rule, dialects).body
        if operation.query:
            yield operation.query

    def _resolved(self, type_: Any) -> Any:
        if not isinstance(type_, PerModel):
            return type_
        return type_.type_for(self._metadata) if self._metadata else Any


def _path(rule: Rule) -> str:
    return re.sub(r"<(?:[^:>]+:)?([^>]+)>", r"{\1}", rule.rule)


def _operation(route: _Route, schemas: _Schemas, dialects: Sequence[Dialect]) -> Schema:
    operation = route.operation
    described: Schema = {
        "operationId": route.rule.endpoint.replace(".", "_"),
        "tags": [route.rule.endpoint.partition(".")[0]],
        "summary": operation.summary,
        "responses": _responses(operation, schemas, dialect_of(route.rule.rule, dialects), route.method),
    }
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
        {"in": "path", "name": name, "required": True, "schema": schemas.of(operation.path[name])}
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
    rest = dict(schema)
    description = rest.pop("description", "")
    return {"in": place, "name": name, "required": required, "description": description, "schema": rest}


def _contents(body: Sequence[Content], schemas: _Schemas) -> Schema:
    contents: Schema = {}
    for content in body:
        described: Schema = {"schema": schemas.of(content.type)}
        if content.example is not None:
            described["example"] = content.example
        contents.update(dict.fromkeys(content.media_types, described))
    return contents


def _responses(operation: Operation, schemas: _Schemas, dialect: Dialect, method: str) -> Schema:
    by_status: dict[int, dict[str, list[Schema]]] = {}
    for status, answer in operation.answers.items():
        for media_type, type_ in answer.items():
            by_status.setdefault(status, {}).setdefault(media_type, []).append(schemas.of(type_))
    errors = _errors(operation, method)
    for error in errors:
        alternatives = by_status.setdefault(dialect.status(error), {}).setdefault(JSON, [])
        told = schemas.of(dialect.body)
        if told not in alternatives:
            alternatives.append(told)
    return {
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


def _errors(operation: Operation, method: str) -> tuple[type[ServiceError], ...]:
    return (*operation.errors, *(BODY_ERRORS if method in _BODY_METHODS or operation.query else ()))


def _description(status: int, errors: Sequence[type[ServiceError]], dialect: Dialect) -> str:
    faults = [" ".join((error.__doc__ or "").split()) for error in errors if dialect.status(error) == status]
    return " ".join(faults) or http.HTTPStatus(status).phrase


def _headers(status: int) -> Schema:
    headers = {"X-Request-ID": {"$ref": "#/components/headers/X-Request-ID"}}
    if status == http.HTTPStatus.SERVICE_UNAVAILABLE:
        headers["Retry-After"] = {"$ref": "#/components/headers/Retry-After"}
    return headers
