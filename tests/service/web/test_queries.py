"""Query parameters: those that a route has are read, and any other is told, since it would else be as good as none."""

from typing import Any

import pytest
from flask.testing import FlaskClient

from tests.service.pictures import plain


@pytest.mark.parametrize(
    ("method", "address", "told"),
    [
        ("POST", "/predict?topk=3", "has no query parameter 'topk'; did you mean top?"),
        ("POST", "/predict?Top=3", "did you mean top?"),
        ("POST", "/predict/batch?top=1&labels=2", "has no query parameter 'labels'; it takes model, version, top."),
        ("POST", "/predict?=", "has no query parameter ''"),
        ("POST", f"/predict?{'x' * 5000}", f"has no query parameter '{'x' * 40}'"),
        ("GET", "/models?version=3", "has no query parameter 'version'; it takes none."),
        ("GET", "/model?versions=3", "did you mean version?"),
        ("GET", "/health/ready?full", "it takes none."),
        ("GET", "/metrics?name[]=up", "it takes none."),
        ("GET", "/openapi.json?x=1", "it takes none."),
        ("HEAD", "/model?x=1", None),
    ],
)
def test_a_parameter_that_a_route_does_not_have_is_told(
    client: FlaskClient, method: str, address: str, told: str | None
) -> None:
    """It is a 400 that names the parameter, and the one that was meant, or those that there are."""
    response = client.open(address, method=method, data=plain("red") if method == "POST" else None)
    assert response.status_code == 400
    if told is not None:
        answer: Any = response.json
        assert answer["error"] == "invalid_request"
        assert told in answer["message"]


@pytest.mark.parametrize(
    "address",
    ["/?utm_source=mail", "/docs?x=1", "/assets/base.css?v=2", "/v2/models/colours?x=1", "/v1/models/colours?x=1"],
)
def test_links_to_pages_and_the_protocols_may_have_others(client: FlaskClient, address: str) -> None:
    """Mails add parameters to links; clients of the protocols may send what other servers know."""
    assert client.get(address).status_code == 200


def test_a_browsers_question_is_answered_whatever_the_address(client: FlaskClient) -> None:
    """What is wrong with the address is told with the request that follows, which a page can read."""
    assert client.options("/predict?topk=3").status_code == 200


def test_a_parameter_that_is_there_twice_is_refused(client: FlaskClient) -> None:
    """What a query parameter is described to be, one value, is what is taken; nobody has to guess which one counts."""
    response = client.post("/predict?top=1&top=2", data=plain("red"))
    assert response.status_code == 400
    assert "top is given more than once" in response.json["message"]  # type: ignore[index]
