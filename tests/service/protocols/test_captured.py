"""``/captured`` and ``/review``, in this process: who may look, what they are shown, and what becomes of it."""

import hashlib
import io
import json
from base64 import b64encode
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from flask import Flask
from flask.testing import FlaskClient
from PIL import Image
from werkzeug.test import TestResponse

from service.app import DIALECTS, create_app
from service.serving import plain_requests
from service.serving.gateway import Room
from service.serving.loop import Loop
from service.serving.short_requests import ShortRequests
from service.settings import Token
from service.web.services import Services
from tests.service.conftest import MakeServices
from tests.service.loops import on_a_loop
from tests.service.pictures import encoded, plain

Make = Callable[..., "Kept"]

TOKEN = "token-of-anna"  # noqa: S105 - of the tests
ANNA, BEN = {"reviewer": "anna-1234"}, {"reviewer": "ben-12345"}
GUARDED = (
    ("GET", "/review"),
    ("GET", "/captured/summary"),
    ("GET", "/captured/labels"),
    ("GET", f"/captured/{'0' * 64}/picture"),
    ("POST", "/captured/take"),
    ("POST", f"/captured/{'0' * 64}/review"),
    ("POST", f"/captured/{'0' * 64}/undo"),
)


def tokens() -> tuple[Token, ...]:
    """Return the one token that is known."""
    return (Token("anna", hashlib.sha256(TOKEN.encode()).digest()),)


class Kept:
    """An application that keeps pictures, asked by somebody with a token."""

    def __init__(self, services: Services, folder: Path) -> None:
        self.services, self.folder = services, folder
        self.app: Flask = create_app(services)
        self.client: FlaskClient = self.app.test_client()
        self.headers = {"Authorization": f"Bearer {TOKEN}"}

    def predict(self, *pictures: bytes, **headers: str) -> None:
        """Send pictures, each in a request of its own, and wait until they are kept."""
        for picture in pictures:
            self.answer("/predict", data=picture, content_type="image/png", headers=headers)
        self.written()

    def answer(self, path: str, *, headers: dict[str, str] | None = None, **request: Any) -> Any:
        """POST and return the answer, which has to be a good one."""
        response = self.client.post(path, headers={**self.headers, **(headers or {})}, **request)
        assert response.status_code == 200, response.text
        return response.json

    def get(self, path: str) -> TestResponse:
        """GET."""
        return self.client.get(path, headers=self.headers)

    def written(self) -> None:
        """Wait until all that is to be kept is kept."""
        assert self.services.captures is not None
        assert self.services.captures.flush(10)

    def files(self) -> set[str]:
        """Return the paths of the pictures that are kept."""
        found = (path for path in self.folder.rglob("*.*") if path.is_file())
        return {str(path.relative_to(self.folder)) for path in found if path.suffix in (".png", ".jpg", ".tif")}

    def take(self, count: int = 8, **reviewer: str) -> list[Any]:
        """Take pictures to label."""
        found: list[Any] = self.answer("/captured/take", json={**(reviewer or ANNA), "count": count})["pictures"]
        return found


@pytest.fixture
def make(services_of: MakeServices, models: Path, tmp_path: Path) -> Make:
    """Makes an application that keeps all pictures, with other settings where they are given."""

    def begin(**settings: Any) -> Kept:
        values = {"capture_dir": tmp_path / "captured", "capture_share": 1.0, "api_tokens": tokens(), **settings}
        services = services_of(model_dir=models, **values)
        assert services.captures is not None
        services.captures.start()
        return Kept(services, tmp_path / "captured")

    return begin


@pytest.fixture
def kept(make: Make) -> Kept:
    """Return an application that keeps all pictures."""
    return make()


def test_what_shows_pictures_always_needs_a_token(make: Make) -> None:
    """Without one it is a 401; where none is known a 403 that names the settings; and whatever else is open."""
    known = make(without_token=("probes", "metrics", "predictions"))
    assert known.client.get("/model").status_code == known.client.get("/").status_code == 200
    nobody = make(api_tokens=None)
    for method, path in GUARDED:
        assert known.client.open(path, method=method).status_code == 401, path
        assert known.client.open(path, method=method, headers=known.headers).status_code in (200, 404, 415), path
        response = nobody.client.open(path, method=method, headers=known.headers)
        assert response.status_code == 403, path
        assert "API_TOKENS" in response.json["message"]  # type: ignore[index]


def test_a_service_that_keeps_nothing_says_so(services_of: MakeServices, models: Path) -> None:
    """By the name of the setting."""
    client = create_app(services_of(model_dir=models, api_tokens=tokens())).test_client()
    for method, path in GUARDED:
        body = {"reviewer": "anna-1234", "label": None} if method == "POST" else None
        response = client.open(path, method=method, json=body, headers={"Authorization": f"Bearer {TOKEN}"})
        assert response.status_code == 404, path
        assert "CAPTURE_DIR" in response.json["message"]  # type: ignore[index]


def test_another_page_cannot_use_what_the_browser_keeps(kept: Kept) -> None:
    """Browsers say which page a request comes from; a link to a page is all that another origin may have."""
    for method, path in GUARDED:
        for site, mode, refused in (
            ("cross-site", "no-cors", True),
            ("same-site", "cors", True),
            ("cross-site", "navigate", method == "POST"),
            ("same-origin", "cors", False),
            ("none", "navigate", False),
        ):
            headers = {**kept.headers, "Sec-Fetch-Site": site, "Sec-Fetch-Mode": mode}
            status = kept.client.open(path, method=method, headers=headers).status_code
            assert (status == 403) is refused, (path, site, mode)


@pytest.mark.parametrize("content_type", ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data", ""])
def test_what_a_form_can_send_is_not_read(kept: Kept, content_type: str) -> None:
    """Old browsers do not say where a request comes from; but no page can make them send JSON without asking."""
    kept.predict(plain("red"))
    [picture] = kept.take()
    body = json.dumps({**ANNA, "label": "red"})
    for path in (f"/captured/{picture['id']}/review", f"/captured/{picture['id']}/undo", "/captured/take"):
        response = kept.client.post(path, data=body, content_type=content_type, headers=kept.headers)
        assert response.status_code == 415
    assert kept.files() == {f"waiting/{picture['id']}.png"}


def test_the_loop_by_its_routes(kept: Kept) -> None:
    """Pictures are taken, shown, labelled, skipped and taken back; the summary tells what came of it."""
    pictures = [plain(colour) for colour in ("red", "lime", "blue", "yellow")]
    kept.predict(*pictures)
    taken = {picture["id"]: picture for picture in kept.take()}
    assert set(taken) == {hashlib.sha256(picture).hexdigest() for picture in pictures}
    red, lime, blue, yellow = (taken[hashlib.sha256(picture).hexdigest()] for picture in pictures)
    assert (red["model"], red["version"], red["reasons"]) == ("colours", 1, ["random"])
    assert red["predictions"][0]["label"] == "red"
    assert yellow["reasons"] == ["random", "small_margin"]
    for picture, label in ((red, "red"), (lime, "green"), (blue, "sky")):
        said = kept.answer(f"/captured/{picture['id']}/review", json={**ANNA, "label": label})
        assert said == {"id": picture["id"], "label": label}
    kept.answer(f"/captured/{yellow['id']}/review", json={**ANNA, "label": None})
    assert kept.answer(f"/captured/{lime['id']}/undo", json=ANNA)["id"] == lime["id"]
    assert [picture["id"] for picture in kept.take()] == [lime["id"]]
    assert kept.get("/captured/labels").json == {"model": ["red", "green", "blue"], "added": ["sky"]}
    summary = kept.get("/captured/summary").json
    assert summary is not None
    assert (summary["waiting"], summary["reviewed"], summary["skipped"]) == (1, 2, 1)
    assert summary["kinds"]["random"] == {"waiting": 1, "reviewed": 2, "skipped": 1}
    assert summary["kinds"]["small_margin"] == {"waiting": 0, "reviewed": 0, "skipped": 1}
    [accuracy] = summary["accuracy"]
    assert (accuracy["version"], accuracy["answers"], accuracy["right"], accuracy["accuracy"]) == (1, 2, 1, 0.5)
    assert 0 < accuracy["low"] < 0.5 < accuracy["high"] < 1
    assert (summary["max_megabytes"], summary["days"]) == (1024, 30.0)
    assert summary["oldest"].endswith("+00:00")
    assert kept.files() == {
        f"reviewed/red/reviewed-{red['id'][:32]}.png",
        f"reviewed/sky/reviewed-{blue['id'][:32]}.png",
        *(f"waiting/{picture['id']}.png" for picture in (lime, yellow)),
    }


def test_reviewed_pictures_go_where_it_is_set(make: Make, tmp_path: Path) -> None:
    """Such as into the folder of the training, beside the pictures that are there."""
    (tmp_path / "data" / "red").mkdir(parents=True)
    (tmp_path / "data" / "red" / "1.png").write_bytes(plain("red"))
    kept = make(reviewed_dir=tmp_path / "data")
    kept.predict(plain("red"))
    [picture] = kept.take()
    kept.answer(f"/captured/{picture['id']}/review", json={**ANNA, "label": "red"})
    assert {path.name for path in (tmp_path / "data" / "red").iterdir()} == {
        "1.png",
        f"reviewed-{picture['id'][:32]}.png",
    }
    kept.answer(f"/captured/{picture['id']}/undo", json=ANNA)
    assert [path.name for path in (tmp_path / "data" / "red").iterdir()] == ["1.png"]


@pytest.mark.process
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "AVIF"])
def test_pictures_are_shown_as_small_jpegs(kept: Kept, kind: str) -> None:
    """Whatever came is decoded and written anew, whole and upright, with no bytes of the stranger's file."""
    wide = Image.fromarray(np.random.default_rng(0).integers(0, 256, (300, 1200, 3), np.uint8))
    content = encoded(wide, kind, **({"exif": turned()} if kind in ("JPEG", "PNG", "WEBP") else {}))
    kept.predict(content)
    [picture] = kept.take()
    response = kept.get(f"/captured/{picture['id']}/picture")
    assert response.content_type == "image/jpeg"
    assert response.headers["X-Content-Type-Options"] == "nosniff"
    assert response.headers["Cross-Origin-Resource-Policy"] == "same-origin"
    assert response.headers["Cache-Control"] == "no-store"
    shown = Image.open(io.BytesIO(response.data))
    assert shown.format == "JPEG"
    assert shown.size == ((160, 640) if kind in ("JPEG", "PNG", "WEBP") else (640, 160))
    assert "exif" not in shown.info


def turned() -> Image.Exif:
    """Return the metadata of a picture that lies on its side."""
    exif = Image.Exif()
    exif[0x0112] = 6
    return exif


def test_small_pictures_are_not_enlarged(kept: Kept) -> None:
    """The page does that, without blurring them."""
    kept.predict(plain("red", size=(20, 12)))
    [picture] = kept.take()
    assert Image.open(io.BytesIO(kept.get(f"/captured/{picture['id']}/picture").data)).size == (20, 12)


def test_two_people_see_different_pictures(kept: Kept) -> None:
    """And who says something of another's is told."""
    kept.predict(plain("red"), plain("blue"))
    [anna], [ben] = kept.take(1), kept.take(1, **BEN)
    assert anna["id"] != ben["id"]
    response = kept.client.post(f"/captured/{ben['id']}/review", json={**ANNA, "label": "red"}, headers=kept.headers)
    assert (response.status_code, response.json["error"]) == (409, "taken_by_another")  # type: ignore[index]


@pytest.mark.parametrize(
    ("path", "body", "told"),
    [
        ("/captured/take", {"reviewer": "short"}, "reviewer"),
        ("/captured/take", {"reviewer": "with space"}, "reviewer"),
        ("/captured/take", {**ANNA, "count": 1000}, "count"),
        ("/captured/take", [], "array"),
        ("/captured/{id}/review", ANNA, "label"),
        ("/captured/{id}/review", {**ANNA, "label": "../../etc"}, "no slashes"),
        ("/captured/{id}/review", {**ANNA, "label": "x" * 101}, "label"),
        ("/captured/{id}/review", {**ANNA, "label": 7}, "label"),
    ],
)
def test_bad_input_is_told(kept: Kept, path: str, body: Any, told: str) -> None:
    """A 400 that says what is wrong, and nothing is done."""
    kept.predict(plain("red"))
    [picture] = kept.take()
    response = kept.client.post(path.format(id=picture["id"]), json=body, headers=kept.headers)
    assert response.status_code == 400
    assert told in response.json["message"]  # type: ignore[index]
    assert kept.files() == {f"waiting/{picture['id']}.png"}


@pytest.mark.parametrize("identity", ["0" * 64, "..", "..%2f..%2fetc", "x"])
def test_what_is_not_there_is_a_404(kept: Kept, identity: str) -> None:
    """Whatever stands for a picture's id."""
    assert kept.get(f"/captured/{identity}/picture").status_code == 404
    response = kept.client.post(f"/captured/{identity}/review", json={**ANNA, "label": "a"}, headers=kept.headers)
    assert response.status_code in (404, 405)


def protocols() -> dict[str, Callable[[bytes], dict[str, Any]]]:
    """Return the ways to send a picture, by path: the arguments of a client's POST."""

    def text(content: bytes) -> str:
        return b64encode(content).decode()

    return {
        "/predict": lambda content: {"data": {"image": (io.BytesIO(content), "a.png")}},
        "/predict?top=1": lambda content: {"json": {"image": text(content)}},
        "/predict/batch": lambda content: {"data": {"images": [(io.BytesIO(content), "a.png")]}},
        "/v1/models/colours:predict": lambda content: {
            "json": {"signature_name": "serve_bytes", "instances": [{"b64": text(content)}]}
        },
        "/v1/models/colours:classify": lambda content: {
            "json": {"examples": [{"image_bytes": {"b64": text(content)}}]}
        },
        "/v2/models/colours/infer": lambda content: {
            "json": {"inputs": [{"name": "image_bytes", "shape": [1], "datatype": "BYTES", "data": [text(content)]}]}
        },
    }


@pytest.mark.parametrize("path", protocols())
def test_pictures_of_every_protocol_are_kept_unless_asked_not_to(kept: Kept, path: str) -> None:
    """The header counts wherever a picture comes, and the file is the one that was sent."""
    content = plain("red")
    request = protocols()[path]
    kept.answer(path, headers={"X-Darkroom-Capture": "no"}, **request(content))
    kept.written()
    assert kept.files() == set()
    kept.answer(path, **request(content))
    kept.written()
    assert kept.files() == {f"waiting/{hashlib.sha256(content).hexdigest()}.png"}


def test_long_requests_are_kept_unless_asked_not_to(kept: Kept) -> None:
    """Those whose pictures are decoded in a thread, which has to know what the request asked for."""
    pictures = [plain(f"rgb({n}, 0, 0)") for n in range(20)]

    def batch() -> dict[str, Any]:
        return {"data": {"images": [(io.BytesIO(picture), "a.png") for picture in pictures]}}

    def work(loop: Loop) -> None:
        kept.services.predictor._runtime = loop  # as in a worker
        kept.answer("/predict/batch", headers={"X-Darkroom-Capture": "no"}, **batch())
        kept.written()
        assert kept.files() == set()
        kept.answer("/predict/batch", headers={"X-Request-ID": "an-id"}, **batch())

    on_a_loop(work)
    kept.written()
    assert len(kept.files()) == 20
    answers = list(kept.folder.glob("waiting/*.json"))
    assert {json.loads(answer.read_bytes())["request_id"] for answer in answers} == {"an-id"}


def test_tensors_are_not_kept(kept: Kept) -> None:
    """There is no file of them to label."""
    pixels = np.full((2, 32, 32, 3), 200, np.uint8)
    kept.answer("/predict/batch", data=pixels.tobytes(), content_type="application/octet-stream")
    kept.written()
    assert kept.files() == set()


def test_short_requests_are_kept_unless_asked_not_to(kept: Kept) -> None:
    """Those that need no parser and no Flask; one that asks for it changes nothing for the next on the same loop."""
    pictures = [plain(colour) for colour in ("red", "lime", "blue")]

    def work(loop: Loop) -> list[bytes | None]:
        short = ShortRequests(kept.app, DIALECTS, kept.services, loop, Room(10_000_000))
        return [
            short.answer(plain_request(picture, header))
            for picture, header in zip(pictures, ("", "X-Darkroom-Capture: no\r\n", ""), strict=True)
        ]

    assert all(answer and answer.startswith(b"HTTP/1.1 200") for answer in on_a_loop(work))
    kept.written()
    ids = [hashlib.sha256(picture).hexdigest() for picture in pictures]
    assert kept.files() == {f"waiting/{ids[0]}.png", f"waiting/{ids[2]}.png"}


def plain_request(picture: bytes, header: str) -> plain_requests.PlainRequest:
    """Return a whole request for a prediction."""
    head = f"Host: localhost\r\nAuthorization: Bearer {TOKEN}\r\nContent-Type: image/png\r\n{header}"
    found = plain_requests.read(
        f"POST /predict HTTP/1.1\r\n{head}Content-Length: {len(picture)}\r\n\r\n".encode() + picture
    )
    assert found is not None
    return found


def test_the_page_says_what_is_kept(make: Make, client: FlaskClient) -> None:
    """How much, where and for how long, before anybody sends a picture; and how to send one that is not kept."""
    page = make(capture_share=0.02, capture_max_mb=500, capture_days=7.0).get("/").text
    for told in ("2 of 100 by chance", "at most 500 MB", "at most 7 days", "Keep none of mine", 'href="review"'):
        assert told in page
    page = client.get("/").text
    assert "The service keeps none of them." in page
    assert "review" not in page
    assert "{" not in page


def test_a_folder_that_fails_is_told(make: Make, tmp_path: Path) -> None:
    """Who reviews gets a 503 with a sentence; who asks for a prediction never notices, and the metrics count it."""
    kept = make()
    (tmp_path / "captured").write_text("a file")
    for path in ("/captured/summary", "/captured/labels"):
        response = kept.get(path)
        assert response.status_code == 503
        assert response.headers["Retry-After"]
        assert "folder of kept pictures" in response.json["message"]  # type: ignore[index]
    kept.predict(plain("red"))
    assert 'darkroom_captures_total{outcome="failed"} 1.0' in kept.get("/metrics").text


def test_pictures_are_counted_by_what_becomes_of_them(kept: Kept) -> None:
    """From the beginning, so that the first one is seen as an increase."""
    assert 'darkroom_captures_total{outcome="dropped"} 0.0' in kept.get("/metrics").text
    kept.predict(plain("red"), plain("red"), plain("blue"))
    text = kept.get("/metrics").text
    assert 'darkroom_captures_total{outcome="kept"} 2.0' in text
    assert 'darkroom_captures_total{outcome="duplicate"} 1.0' in text
