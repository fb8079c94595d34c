"""The page on the model: the report that its version carries, and its model card."""

import base64
import hashlib
import json
import os
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from urllib.parse import urljoin

import pytest
from flask.testing import FlaskClient

from artifact import read_metadata
from artifact.layout import METADATA, MODEL_CARD, REPORT
from service.app import create_app
from tests.models import add_files, copy
from tests.reports import Page, contents, evaluation
from tests.service.conftest import MakeServices
from training.report.page import report_page

Serve = Callable[[], FlaskClient]

PLOT = b"\x89PNG"
CARD = "# Colours\n\nTells red, green and blue apart.\n"


@pytest.fixture
def version(published: Path, tmp_path: Path) -> Path:
    """A version of the test's own, which is not served yet."""
    return copy(published, tmp_path / "models", 1)


@pytest.fixture
def serve(services_of: MakeServices, version: Path) -> Serve:
    """Return what gives a client of an application with that version."""
    return lambda: create_app(services_of(model_dir=version.parent.parent, precision="float32")).test_client()


def test_a_version_without_a_report_has_its_card_and_its_plots(serve: Serve, version: Path) -> None:
    """It is said that there is none; the page shows plots, as far as they are files of the version, and has them."""
    (version / MODEL_CARD).write_text(f"{CARD}\n![A plot](plot.png)\n\n![Another](../../plot.png)\n")
    add_files(version, {MODEL_CARD: (version / MODEL_CARD).read_bytes(), "assets.extra/plot.png": PLOT})
    (version.parent / "plot.png").write_bytes(b"another")
    client = serve()
    answer = client.get("/model/card")
    assert answer.content_type == "text/html; charset=utf-8"
    page = Page(answer.text)
    assert "There is no report of its training" in page.text
    assert "colours, version 1" in page.text
    assert "Tells red, green and blue apart." in page.text
    shown = [attributes["src"] for tag, attributes in page.elements if tag == "img"][1:]
    assert shown == ["plot.png?model=colours&version=1"]
    plot = client.get(urljoin("/model/card", shown[0]))
    assert (plot.content_type, plot.data) == ("image/png", PLOT)
    assert plot.headers["X-Content-Type-Options"] == "nosniff"
    assert plot.headers["Content-Security-Policy"].startswith("default-src 'none'")
    again = client.get("/model/plot.png", headers={"If-None-Match": plot.headers["ETag"]})
    assert (again.status_code, again.data) == (304, b"")


@pytest.mark.parametrize(
    "name",
    [
        "none.png", "metadata.json", "MODEL_CARD.md", "unlisted.png", "below.png", "pipe.png", "large.png", "gone.png",
        "..%2Fplot.png", "..%2F..%2Fplot.png", "%2Fetc%2Fpasswd", "plot.png%00", "plots/below.png", "a" * 300 + ".png",
    ],
)  # fmt: skip
def test_no_other_file_of_a_version_can_be_had(serve: Serve, version: Path, name: str) -> None:
    """Only plots that the metadata list are given, and of those only regular files of a size that plots have."""
    extra = version / "assets.extra"
    (extra / "plots").mkdir()
    listed = ("plot.png", "plots/below.png", "large.png", "pipe.png", "gone.png")
    add_files(version, {f"assets.extra/{each}": PLOT for each in listed})
    (extra / "unlisted.png").write_bytes(PLOT)
    client = serve()
    for each in ("pipe.png", "gone.png"):
        (extra / each).unlink()
    os.mkfifo(extra / "pipe.png")
    os.truncate(extra / "large.png", 2**34)
    assert client.get("/model/plot.png").status_code == 200
    answer = client.get(f"/model/{name}")
    assert answer.status_code == 404
    assert answer.json is not None
    assert answer.json["error"] == "not_found"


def test_versions_stand_side_by_side(serve: Serve, version: Path) -> None:
    """What each was measured at is in a column, the one that answers is marked, and one that is broken is left out."""
    for number, accuracy, images in ((2, 0.75, 100), (3, 0.875, 1000)):
        metadata = copy(version, version.parent.parent, number) / METADATA
        record = json.loads(metadata.read_text(encoding="utf-8"))
        record["metrics"].update(accuracy=accuracy, images=images, measured_on="<b>test</b>")
        metadata.write_text(json.dumps(record), encoding="utf-8")
    (copy(version, version.parent.parent, 4) / METADATA).write_text("{")
    page = Page(serve().get("/model/card").text)
    assert re.search(r"version\s+1\s+2\s+3, answers now\s", page.text)
    measured = r"75.00% of 100 images \(<b>test</b>; 95%: 65.7 to 82.5\)\s+87.50% of 1,000 images \(<b>test</b>\)"
    assert re.search(rf"Right\s+not measured\s+{measured}", page.text)


def test_a_single_version_stands_beside_nothing(serve: Serve) -> None:
    """There is no table of one column."""
    assert "side by side" not in serve().get("/model/card").text


def test_the_report_is_in_the_page_under_a_policy_that_lets_nothing_else_in(serve: Serve, version: Path) -> None:
    """All of it is there, its style is the only one in the page that is let through, and no script is."""
    report = report_page(contents(evaluation({0: 1})))
    add_files(version, {REPORT: report.encode()})
    client = serve()
    answer = client.get("/model/card")
    assert report.partition("<main>")[2].partition("</main>")[0].strip() in answer.text
    style = report.partition("<style>")[2].partition("</style>")[0]
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    policy = answer.headers["Content-Security-Policy"]
    assert f"style-src 'self' 'sha256-{digest}'; img-src 'self' data:" in policy
    assert "default-src 'none'" in policy
    assert "script-src" not in policy
    assert "unsafe" not in policy
    page = Page(answer.text)
    assert [tag for tag, _ in page.elements].count("main") == 1
    assert [tag for tag, _ in page.elements].count("h1") == 1
    assert ("details", {"class": "card"}) in page.elements
    assert "There is no report" not in page.text
    again = client.get("/model/card", headers={"If-None-Match": answer.headers["ETag"]})
    assert (again.status_code, again.data) == (304, b"")


@pytest.mark.parametrize("report", [b"", b"<main>half", b"\xff\xfe", b"<style></style>no main"])
def test_a_report_that_cannot_be_shown_is_none(serve: Serve, version: Path, report: bytes) -> None:
    """A file that another program wrote there does no harm."""
    add_files(version, {REPORT: report})
    answer = serve().get("/model/card")
    assert answer.status_code == 200
    assert "There is no report of its training" in answer.text


@pytest.mark.parametrize(
    ("accept", "media_type"),
    [
        (None, "text/html"), ("*/*", "text/html"), ("application/json", "text/html"),
        ("text/html,application/xhtml+xml,*/*;q=0.8", "text/html"), ("text/markdown", "text/markdown"),
        ("text/markdown, text/html;q=0.5", "text/markdown"),
    ],
)  # fmt: skip
def test_clients_get_what_they_accept(client: FlaskClient, accept: str | None, media_type: str) -> None:
    """The page is for all who do not ask for Markdown; that is the card as it lies in the version, and in /model."""
    answer = client.get("/model/card", headers={"Accept": accept} if accept else {})
    assert answer.status_code == 200
    assert answer.mimetype == media_type
    assert "Accept" in answer.vary
    assert (answer.text == CARD) == (media_type == "text/markdown")
    described = client.get("/model").json
    assert described is not None
    assert described["model_card"] == CARD


def test_a_card_that_cannot_be_read_is_said_so(serve: Serve, version: Path) -> None:
    """The page is there all the same; who asks for the card alone is told that there is none."""
    add_files(version, {MODEL_CARD: b"\xff"})
    client = serve()
    answer = client.get("/model/card")
    assert answer.status_code == 200
    assert "There is no model card." in answer.text
    assert client.get("/model/card", headers={"Accept": "text/markdown"}).status_code == 404


def test_a_version_that_is_removed_keeps_its_card(serve: Serve, version: Path) -> None:
    """It still answers, and the page has what was read when it was loaded."""
    client = serve()
    shutil.rmtree(version / "assets.extra")
    answer = client.get("/model/card")
    assert answer.status_code == 200
    assert "Tells red, green and blue apart." in answer.text


def test_the_page_refers_to_what_is_there(client: FlaskClient) -> None:
    """Every link, style and drawing is on this service, by an address relative to the page's."""
    page = Page(client.get("/model/card").text)
    found = [value for _, attributes in page.elements for name, value in attributes.items() if name in ("href", "src")]
    assert len(found) > 5
    for reference in found:
        assert reference.startswith("../")
        assert client.get(urljoin("/model/card", reference)).status_code == 200, reference


def test_without_a_model_there_is_nothing_to_show(services_of: MakeServices, tmp_path: Path) -> None:
    """The answer is that of a prediction: 503 with the reason."""
    answer = create_app(services_of(model_dir=tmp_path)).test_client().get("/model/card")
    assert answer.status_code == 503
    assert answer.json is not None
    assert answer.json["error"] == "model_unavailable"


def test_the_bundled_model_has_a_page(root: Path, services_of: MakeServices) -> None:
    """Its card is rendered whole, with its four plots, which nobody had found on the disk."""
    client = create_app(services_of(model_dir=root / "models")).test_client()
    page = Page(client.get("/model/card").text)
    metadata = read_metadata(root / "models" / "cifar10" / "5")
    assert f"{metadata.metrics.accuracy:.2%}" in page.text
    assert "Pictures of something else" in page.text
    assert not re.search(r"^\s*[#|]", page.text, re.MULTILINE)
    assert len([tag for tag, _ in page.elements if tag == "figure"]) == 4
    plots = [attributes["src"] for tag, attributes in page.elements if tag == "img"][1:]
    assert all(client.get(urljoin("/model/card", plot)).data.startswith(b"\x89PNG") for plot in plots)
    ids = {attributes["id"] for _, attributes in page.elements if "id" in attributes}
    parts = [attributes["href"][1:] for tag, attributes in page.elements if attributes.get("href", "").startswith("#")]
    assert {"card-by-class", "card-the-most-confident-mistakes"} <= set(parts) <= ids
    assert 'href="model/card"' in client.get("/").text
