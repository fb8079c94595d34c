"""The pages for people, in this process: their files, and the headers that bind them to this origin."""

import io
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from flask import Flask
from flask.testing import FlaskClient
from prometheus_client import CollectorRegistry

from service.app import create_app, make_services
from service.observe.metrics import Metrics
from service.settings import Settings
from service.web.docs import SWAGGER_FILES
from service.web.static_files import PAGES

ASSETS, SAMPLES = (sorted(path.name for path in (PAGES / folder).iterdir()) for folder in ("assets", "samples"))
ADDRESSES = (
    "/",
    "/docs",
    "/favicon.ico",
    *(f"/assets/{name}" for name in ASSETS),
    *(f"/samples/{name}" for name in SAMPLES),
    *(f"/docs/{name}" for name in SWAGGER_FILES),
)


@pytest.fixture(scope="module")
def bundled(root: Path) -> Iterator[Flask]:
    """The application with the bundled model."""
    services = make_services(Settings(model_dir=root / "models"), Metrics(CollectorRegistry()), draining=lambda: False)
    services.models.refresh()
    yield create_app(services)
    services.models.close()


def rules(policy: str) -> dict[str, str]:
    """Return a Content-Security-Policy as directive -> sources."""
    return dict(directive.strip().partition(" ")[::2] for directive in policy.split(";"))


@pytest.mark.parametrize("address", ADDRESSES)
def test_every_file_is_given_and_may_do_nothing_but_what_it_needs(client: FlaskClient, address: str) -> None:
    """Nothing runs that was not served from here, no other page frames it, and no address leaks."""
    response = client.get(address)
    assert response.status_code == 200
    assert response.data
    policy = rules(response.headers["Content-Security-Policy"])
    assert policy["default-src"] == policy["frame-ancestors"] == policy["base-uri"] == "'none'"
    assert policy["form-action"] == "'self'"
    assert policy.get("script-src", "'self'") == "'self'"
    assert not re.search(r"https?:|\*", response.headers["Content-Security-Policy"])
    assert response.headers["X-Content-Type-Options"] == "nosniff"
    assert response.headers["Referrer-Policy"] == "no-referrer"


@pytest.mark.parametrize("accept", [None, "*/*", "application/json", "text/html"])
def test_the_root_is_the_page_whatever_is_accepted(client: FlaskClient, accept: str | None) -> None:
    """``GET /`` is the page for every client, under a policy without inline scripts and styles."""
    response = client.get("/", headers={"Accept": accept} if accept else {})
    assert response.content_type == "text/html; charset=utf-8"
    assert "<title>Darkroom</title>" in response.text
    policy = rules(response.headers["Content-Security-Policy"])
    assert policy["style-src"] == policy["connect-src"] == policy["script-src"] == "'self'"
    assert policy["img-src"] == "'self' blob:"


@pytest.mark.parametrize("address", ADDRESSES)
def test_what_a_client_has_is_not_sent_again(client: FlaskClient, address: str) -> None:
    """Caches ask each time and get an empty 304 where nothing changed, compressed or not."""
    first = client.get(address, headers={"Accept-Encoding": "gzip"})
    assert first.headers["Cache-Control"] == "no-cache"
    again = client.get(address, headers={"If-None-Match": first.headers["ETag"], "Accept-Encoding": "gzip"})
    assert again.status_code == 304
    assert again.data == b""
    assert again.headers["ETag"] == first.headers["ETag"]
    assert client.get(address, headers={"If-None-Match": '"another"'}).status_code == 200


@pytest.mark.parametrize(
    "address",
    [
        "/assets/none.js",
        "/assets/a%00b.js",
        "/assets/" + "a" * 300,
        "/assets/..",
        "/assets/index.html",
        "/assets/..%2Findex.html",
        "/assets/../../app.py",
        "/assets/..%2f..%2fapp.py",
        "/samples/..%2Fpage.js",
        "/samples/page.js",
        "/docs/index.css",
        "/docs/..%2f__init__.py",
    ],
)
def test_no_other_file_can_be_had(client: FlaskClient, address: str) -> None:
    """Only the files that the description lists are given; all else is a 404, wherever the path points."""
    response = client.get(address)
    assert response.status_code == 404
    assert response.json is not None
    assert response.json["error"] == "not_found"


def test_every_file_of_the_pages_is_served() -> None:
    """What lies in the folder and what the routes know are the same files."""
    files = {str(path.relative_to(PAGES)) for path in PAGES.rglob("*") if path.is_file()}
    served = {address.removeprefix("/") for address in ADDRESSES if address.startswith(("/assets/", "/samples/"))}
    assert files == {*served, "docs.html"}
    assert len(served) > 15


@pytest.mark.parametrize("address", ["/", "/docs"])
def test_pages_refer_to_what_is_there(client: FlaskClient, address: str) -> None:
    """Every script, style, picture, link and form of a page is on this service, by an address relative to it."""
    page = client.get(address).text
    found = re.findall(r'(?:href|src|action)="([^"]+)"', page)
    assert len(found) > 5
    assert not [reference for reference in found if reference.startswith(("/", "http", "//"))]
    for reference in found:
        assert client.get(f"/{reference.removeprefix('./')}").status_code in (200, 405), reference


@pytest.mark.parametrize("name", SAMPLES)
def test_the_bundled_model_knows_the_samples(bundled: Flask, name: str) -> None:
    """A sample drawing that is offered is one that the model is right about, and not by a hair."""
    content = bundled.test_client().get(f"/samples/{name}").data
    assert len(content) < 8 * 1024
    answer = bundled.test_client().post("/predict", data={"image": (io.BytesIO(content), name)}).json
    assert answer is not None
    best, second = answer["predictions"][:2]
    assert best["label"] == Path(name).stem
    assert best["probability"] > 4 * second["probability"]
