"""Errors: each has a status, all are JSON."""

import logging

import pytest
from flask import Flask, abort

from service.inference.errors import ServiceError
from service.web import errors

_KINDS = {kind.__name__: kind for kind in ServiceError.__subclasses__()}


@pytest.fixture
def app() -> Flask:
    """An application whose one route raises what it is told to."""
    app = Flask(__name__)
    errors.register(app)

    @app.get("/<kind>")
    def fail(kind: str) -> str:
        if kind.isdigit():
            abort(int(kind))
        if kind == "memory":
            raise MemoryError
        raise _KINDS.get(kind, ZeroDivisionError)("what went wrong")

    return app


@pytest.mark.parametrize("kind", _KINDS.values())
def test_every_error_is_rendered(app: Flask, kind: type[ServiceError]) -> None:
    """Every error of the service has a status, a short name, and shows its message."""
    response = app.test_client().get(f"/{kind.__name__}")
    assert response.status_code >= 400
    answer = response.json
    assert answer == {"success": False, "error": errors.name_of(kind("x")), "message": "what went wrong"}
    assert ("Retry-After" in response.headers) == (response.status_code == 503)


def test_unknown_error_is_logged_and_not_shown(app: Flask, caplog: pytest.LogCaptureFixture) -> None:
    """An unexpected exception is a 500 whose body shows nothing of it; the log has the trace."""
    with caplog.at_level(logging.ERROR):
        response = app.test_client().get("/anything")
    assert response.status_code == 500
    assert response.json["error"] == "internal_error"  # type: ignore[index]
    assert "ZeroDivisionError" not in response.text
    assert "what went wrong" not in response.text
    assert caplog.records[0].exc_info is not None


def test_what_there_is_no_memory_for_may_come_again(app: Flask, caplog: pytest.LogCaptureFixture) -> None:
    """It is no fault of the code: a 503 that says when to ask again, and a line without a trace."""
    response = app.test_client().get("/memory")
    assert (response.status_code, response.headers["Retry-After"]) == (503, "1")
    assert "no memory" in response.text
    assert [record.exc_info for record in caplog.records] == [None]


@pytest.mark.parametrize("status", [400, 404, 405, 411, 414, 501])
def test_http_errors_are_json(app: Flask, status: int) -> None:
    """What Flask itself refuses is told in the same form."""
    response = app.test_client().get(f"/{status}")
    assert response.status_code == status
    assert response.json is not None
    assert set(response.json) == {"success", "error", "message"}
