"""Which model and which version a request is for: by its query, and by a header that keeps a client on one version."""

import re
from collections.abc import Callable, Mapping
from typing import Annotated, Any
from urllib.parse import unquote_plus

import msgspec
from flask import Request
from msgspec import UNSET, Meta, Struct, UnsetType

from service.inference.errors import InvalidRequest
from service.inference.loaded import LoadedModel
from service.inference.models import Models
from service.inference.plan import LABEL, NUMBER
from service.web.operations import PerModel

STICKY = "X-Darkroom-Sticky"

_MODEL = "The model to ask; without it, the default one, which GET /models names."
_VERSION = "The version to ask, by its number or a label; without it, one of those that answer."

_IN_PATTERNS = {"model": "^[^/:]+$", "version": f"^({NUMBER.pattern}|{LABEL.pattern})$"}
_IN_PATH = re.compile(r"/v[12]/models/([^/:]+)")
_IN_QUERY = re.compile(r"(?:^|&)model=([^&]*)")

Which = tuple[str | None, int | str | None, str | None]
"""Model, version and key, as ``Models.use`` takes them."""


class WhichQuery(Struct, kw_only=True):
    """What a request says of the model that is to answer."""

    model: Annotated[str, Meta(description=_MODEL)] | UnsetType = UNSET
    version: Annotated[str, Meta(description=_VERSION)] | UnsetType = UNSET


def described_query(query: type[Struct], **of_field: Callable[[LoadedModel], Any]) -> Any:
    """Return ``query`` with its parameters described: model and version as there are, and others by ``of_field``.

    Of several models any may be named, so that only the form of these two is told.
    """

    def described(model: LoadedModel | None) -> Any:
        def schema(name: str) -> dict[str, Any]:
            if model is None:
                return {"pattern": _IN_PATTERNS[name]}
            return {"enum": [model.name] if name == "model" else [str(model.version), *model.labels]}

        def type_of(field: Any) -> Any:
            if field.name in _IN_PATTERNS:
                texts = {"model": _MODEL, "version": _VERSION}
                return (
                    Annotated[str, Meta(description=texts[field.name], extra_json_schema=schema(field.name))]
                    | UnsetType
                )
            if model is not None and field.name in of_field:
                return of_field[field.name](model) | UnsetType
            return field.type

        fields = [
            (field.name, type_of(field), UNSET if field.default is msgspec.NODEFAULT else field.default)
            for field in msgspec.structs.fields(query)
        ]
        return msgspec.defstruct(query.__name__, fields, namespace={"__doc__": query.__doc__}, kw_only=True)

    return Annotated[query, PerModel(described, described(None))]


WHICH_QUERY = described_query(WhichQuery)
"""``WhichQuery`` for routes that take nothing else; one object, so that it is described once."""


def asked(request: Request, query: WhichQuery) -> Which:
    """Return which model, and which version of it, ``request`` is for.

    Raises:
        InvalidRequest: the version is neither a number nor a label.
    """
    model = None if query.model is UNSET else query.model
    return model, None if query.version is UNSET else version_in(query.version), key_of(request)


def version_in(text: str) -> int | str:
    """Return the version that ``text`` names: its number, or a label.

    Raises:
        InvalidRequest: it is neither.
    """
    if NUMBER.fullmatch(text):
        return int(text)
    if LABEL.fullmatch(text):
        return text
    raise InvalidRequest(f"The version is {text[:70]!r}, but it must be a number from 1 on, or a label.")


def key_of(request: Request) -> str | None:
    """Return what keeps the requests of one client on one of the versions that share them; None where chance does."""
    key: str | None = request.environ.get("HTTP_X_DARKROOM_STICKY")
    return key


def lane_of(environ: Mapping[str, Any], models: Models) -> str:
    """Return the model that a request is for, as far as its address tells; nothing where that is the default one."""
    found = _IN_PATH.match(environ["PATH_INFO"])
    name = found[1] if found else None
    if name is None and (found := _IN_QUERY.search(environ.get("QUERY_STRING", ""))):
        name = unquote_plus(found[1])
    return name if name is not None and models.has(name) else ""
