"""``POST /explain`` and KServe's ``:explain``, in this process: map, box and picture lie where they should."""

import io
import threading
import time
from base64 import b64encode
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from flask.testing import FlaskClient
from PIL import Image

from service.app import create_app
from service.inference import explainer
from service.inference.evidence import EvidenceNetwork
from service.web.services import Services
from tests.models import SIDE, copy
from tests.service.conftest import MakeServices
from tests.service.pictures import encoded, png_header

WIDTH, HEIGHT = 80, 40  # of a picture whose left and right quarter the model does not see
SQUARE = (30, 10, 40, 20)  # red


def picture(kind: str = "PNG", **options: Any) -> bytes:
    """Return a black picture with a red square, and a blue border where the model does not look."""
    image = Image.new("RGB", (WIDTH, HEIGHT), "blue")
    image.paste("black", (20, 0, 60, HEIGHT))
    image.paste("red", SQUARE)
    return encoded(image, kind, **options)


def explained(client: FlaskClient, content: bytes, query: str = "", content_type: str = "image/png") -> Any:
    """Return the explanation of a picture."""
    response = client.post(f"/explain{query}", data=content, content_type=content_type)
    assert response.status_code == 200, response.text
    return response.json["explanation"]  # type: ignore[index]


def test_the_first_label_is_explained(client: FlaskClient) -> None:
    """The answer has the label and probability of /predict, a map, where it lies, and the box of what is red."""
    content = picture()
    response = client.post("/explain", data=content, content_type="image/png")
    assert response.status_code == 200, response.text
    answer: Any = response.json
    assert answer["success"] is True
    assert answer["model"] == {"name": "colours", "version": 1}
    predicted: Any = client.post("/predict", data=content, content_type="image/png").json
    found = answer["explanation"]
    assert {key: found[key] for key in ("label", "probability")} == predicted["predictions"][0]
    assert found["label"] == "red"
    assert np.array(found["map"]).shape == (SIDE, SIDE)
    assert found["image"] == {"width": WIDTH, "height": HEIGHT}
    assert found["area"] == {"left": 20, "top": 0, "right": 60, "bottom": 40}
    box = [found["box"][side] for side in ("left", "top", "right", "bottom")]
    np.testing.assert_allclose(box, SQUARE, atol=1.3)  # a cell is 1.25 pixels wide


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "AVIF"])
def test_every_format_is_explained(client: FlaskClient, kind: str) -> None:
    """Whichever process decodes a picture, its size is known, and the box lies in it."""
    found = explained(client, picture(kind), content_type=f"image/{kind.lower()}")
    assert found["image"] == {"width": WIDTH, "height": HEIGHT}
    np.testing.assert_allclose([found["box"]["left"], found["box"]["top"]], SQUARE[:2], atol=2.6)


@pytest.mark.parametrize(
    ("kind", "width", "shown"),
    [
        ("JPEG", 2400, 300),  # as it was decoded for a small model; all others are decoded to all that they have
        *((kind, 2400, 640) for kind in ("PNG", "WEBP", "GIF", "AVIF", "HEIF")),
        *((kind, 800, 640) for kind in ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "AVIF", "HEIF")),
        *((kind, 80, 256) for kind in ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "AVIF", "HEIF")),
    ],
)
def test_every_picture_is_shown_in_its_shape(client: FlaskClient, kind: str, width: int, shown: int) -> None:
    """Whichever process decodes it, once or twice: red is where it was, and neither side is too long or too short."""
    image = Image.open(io.BytesIO(picture())).resize((width, width // 2), Image.Resampling.NEAREST)
    response = client.post("/explain?format=png", data=encoded(image, kind), content_type=f"image/{kind.lower()}")
    assert response.status_code == 200, response.text
    drawn = Image.open(io.BytesIO(response.data))
    assert drawn.size == (shown, shown // 2)
    pixels = np.asarray(drawn.convert("RGB").resize((80, 40))).astype(int)
    assert pixels[15, 35, 1] > 150, "yellow, where the square is"
    assert pixels[15, 25, 1] < 60, "violet, beside it"
    assert np.ptp(pixels[15, 5]) == 0, "grey, where the model did not look"


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", ["JPEG", "WEBP", "TIFF"])
def test_the_box_lies_in_the_upright_picture(client: FlaskClient, kind: str, orientation: int) -> None:
    """However a camera was held: what counts is the picture as people see it."""
    exif = Image.Exif()
    exif[0x0112] = orientation
    lying: Image.Image = Image.open(io.BytesIO(picture()))
    undo = {2: 0, 3: 3, 4: 1, 5: 5, 6: 2, 7: 6, 8: 4}  # Pillow's transpositions that lay it down so
    if orientation in undo:
        lying = lying.transpose(Image.Transpose(undo[orientation]))
    content = encoded(lying, kind, exif=exif, quality=95)
    found = explained(client, content, content_type=f"image/{kind.lower()}")
    assert found["image"] == {"width": WIDTH, "height": HEIGHT}
    box = [found["box"][side] for side in ("left", "top", "right", "bottom")]
    np.testing.assert_allclose(box, SQUARE, atol=3)


def test_any_label_can_be_explained(client: FlaskClient) -> None:
    """The label of the query is the one that is explained; where nothing speaks for it there is no box."""
    green = explained(client, picture(), "?label=green")
    assert green["label"] == "green"
    assert green["probability"] < 0.5
    assert green["box"] is None
    assert not np.array(green["map"]).any()


def test_the_map_is_shown_over_the_picture(client: FlaskClient) -> None:
    """As a PNG of the upright picture: yellow where it is red, violet where it is black, grey where nobody looked."""
    for query, headers in (("?format=png", {}), ("", {"Accept": "image/png"}), ("", {"Accept": "image/*"})):
        response = client.post(f"/explain{query}", data=picture(), content_type="image/png", headers=headers)
        assert response.status_code == 200, response.text
        assert response.content_type == "image/png"
        shown = Image.open(io.BytesIO(response.data))
        assert shown.size == (256, 128)
        pixels = np.asarray(shown.convert("RGB")).astype(int)
        scale = 256 / WIDTH
        red, black, blue = (pixels[int(y * scale), int(x * scale)] for x, y in ((35, 15), (50, 35), (5, 20)))
        assert red[:2].min() > red[2] + 50
        assert black[2] > black[1]
        assert np.ptp(blue) == 0


def test_json_is_what_is_asked_for_otherwise(client: FlaskClient) -> None:
    """Anything goes unless PNG is preferred; the query has the last word."""
    for query, accept in (("", "*/*"), ("", "application/json, image/png"), ("?format=json", "image/png")):
        response = client.post(f"/explain{query}", data=picture(), content_type="image/png", headers={"Accept": accept})
        assert response.content_type == "application/json"


@pytest.mark.parametrize(
    ("query", "told"),
    [
        ("?label=purple", "has no label 'purple'; it has red, green, blue. GET /model lists them."),
        ("?label=", "has no label ''"),
        ("?format=svg", "format is 'svg', but it must be json or png"),
        ("?label=red&label=green", "label is given more than once"),
    ],
)
def test_what_cannot_be_asked_is_told(client: FlaskClient, query: str, told: str) -> None:
    """The message names what there is."""
    response = client.post(f"/explain{query}", data=picture(), content_type="image/png")
    assert (response.status_code, response.json["error"]) == (400, "invalid_request")  # type: ignore[index]
    assert told in response.json["message"]  # type: ignore[index]


@pytest.mark.parametrize(
    ("content", "content_type", "status", "error"),
    [
        pytest.param(b"no picture", "image/png", 415, "unsupported_image", id="no-picture"),
        pytest.param(picture()[:100], "image/png", 400, "invalid_image", id="cut-short"),
        pytest.param(png_header(3000, 3000), "image/png", 413, "image_too_large", id="too-large"),
        pytest.param(b"{}", "application/json", 400, "invalid_request", id="no-image"),
        pytest.param(b"a", "text/plain", 415, "unsupported_body", id="no-such-body"),
    ],
)
@pytest.mark.parametrize("query", ["", "?format=png"])
def test_errors_are_those_of_predict(
    client: FlaskClient, content: bytes, content_type: str, status: int, error: str, query: str
) -> None:
    """What is wrong with a picture or a body has the status, name and sentence that /predict has for it."""
    response = client.post(f"/explain{query}", data=content, content_type=content_type)
    assert (response.status_code, response.json["error"]) == (status, error)  # type: ignore[index]
    assert response.json == client.post("/predict", data=content, content_type=content_type).json


def test_model_says_whether_it_explains(client: FlaskClient, services_of: MakeServices, models: Path) -> None:
    """``/model`` has it; what does not explain says so with a 501 and a sentence, in KServe's form as well."""
    assert client.get("/model").json["explains"] is True  # type: ignore[index]
    other = services_of(model_dir=models)
    assert other.registry.current is not None
    other.registry.current.engine.explaining = None
    silent = create_app(other).test_client()
    assert silent.get("/model").json["explains"] is False  # type: ignore[index]
    response = silent.post("/explain", data=picture(), content_type="image/png")
    assert (response.status_code, response.json["error"]) == (501, "not_explainable")  # type: ignore[index]
    assert "does not end in pooling and a linear layer" in response.json["message"]  # type: ignore[index]
    response = silent.post("/v1/models/colours:explain", json={"instances": [{"b64": b64encode(picture()).decode()}]})
    assert response.status_code == 501
    assert "does not end in pooling" in response.json["error"]  # type: ignore[index]
    other.registry.current.engine.name = "tensorflow"
    response = silent.post("/explain", data=picture(), content_type="image/png")
    assert "start the service with ENGINE=openvino" in response.json["message"]  # type: ignore[index]


def test_kserve_explains_each_instance(client: FlaskClient) -> None:
    """Each picture has its probabilities and an explanation of its first label, whichever way it comes."""
    content = picture()
    dark = np.zeros((SIDE, SIDE, 3), np.uint8)
    dark[3:5, 8:20] = (0, 0, 255)
    one = explained(client, content)
    for path in ("/v1/models/colours:explain", "/v1/models/colours/versions/1:explain"):
        answer: Any = client.post(path, json={"instances": [{"b64": b64encode(content).decode()}] * 2}).json
        assert answer["explanations"] == [one, one]
        assert np.array(answer["predictions"]).shape == (2, 3)
        assert max(answer["predictions"][0]) == pytest.approx(one["probability"])
    answer = client.post("/v1/models/colours:explain", json={"instances": [dark.tolist()]}).json
    [blue] = answer["explanations"]
    assert blue["label"] == "blue"
    assert blue["box"] == {"left": 8, "top": 3, "right": 20, "bottom": 5}
    answer = client.post("/v1/models/colours:explain?label=green", json={"inputs": [dark.tolist()]}).json
    assert [each["label"] for each in answer["explanations"]] == ["green"]


def test_kserve_is_told_what_is_wrong(client: FlaskClient) -> None:
    """Errors are in the protocol's form."""
    instances = {"instances": [{"b64": b64encode(picture()).decode()}]}
    for path, body, status, told in (
        ("/v1/models/colours:explain?label=purple", instances, 400, "has no label 'purple'"),
        ("/v1/models/other:explain", instances, 404, "Servable not found"),
        ("/v1/models/colours:explain", {"instances": [{"b64": "AAAA"}]}, 400, "not a picture"),
    ):
        response = client.post(path, json=body)
        assert response.status_code == status, response.text
        assert told in response.json["error"]  # type: ignore[index]


@pytest.fixture
def services(services_of: MakeServices, models: Path) -> Services:
    """A service in this process whose version nobody has asked to be explained."""
    return services_of(model_dir=models)


def asked(services: Services, **headers: str) -> Any:
    """Return the response to a question for an explanation."""
    client = create_app(services).test_client()
    return client.post("/explain", data=picture(), content_type="image/png", headers=headers)


def test_what_explains_is_made_once_it_is_asked_for(services: Services, models: Path) -> None:
    """No service holds it that nobody asks; a version that takes the place of another has its own."""
    first = services.registry.current
    assert first is not None
    assert first.evidence is None
    assert asked(services).status_code == 200
    made = first.evidence
    assert made is not None
    assert asked(services).status_code == 200
    assert first.evidence is made
    copy(first.path, models, 2, labels=("rot", "grün", "blau"))
    services.models.refresh()
    assert services.registry.current is not first
    assert asked(services).json["explanation"]["label"] == "rot"


def test_files_that_changed_explain_nothing(services: Services) -> None:
    """What explains must be of the network that answers: a version whose files are others by now is not explained."""
    current = services.registry.current
    assert current is not None
    (current.path / "more").write_text("more")
    response = asked(services)
    assert (response.status_code, response.json["error"]) == (503, "model_unavailable")
    assert "have changed since it was loaded" in response.json["message"]
    assert current.evidence is None


def test_there_may_be_no_memory_for_it(services: Services, monkeypatch: pytest.MonkeyPatch) -> None:
    """What would take more than there is, is not made; the answer says to come back."""
    monkeypatch.setattr(explainer, "spare_memory", lambda: 1024**2)
    response = asked(services)
    assert (response.status_code, response.json["error"]) == (503, "queue_full")
    assert response.headers["Retry-After"]


class Slow(EvidenceNetwork):
    """A network that waits until it may answer."""

    def __init__(self, network: EvidenceNetwork) -> None:
        self.grid = network.grid
        self._network = network
        self.started, self.gate = threading.Semaphore(0), threading.Semaphore(0)
        self.most = self.now = 0

    def run(self, images: Any) -> Any:
        """Count how many run at a time."""
        self.now += 1
        self.most = max(self.most, self.now)
        self.started.release()
        assert self.gate.acquire(timeout=10)
        self.now -= 1
        return self._network.run(images)


def slowed(services: Services) -> Slow:
    """Put a slow network in the place of the one that explains, and return it."""
    assert asked(services).status_code == 200
    current = services.registry.current
    assert current is not None
    assert current.evidence is not None
    current.evidence = slow = Slow(current.evidence)
    return slow


def test_one_is_made_at_a_time_and_few_wait(services: Services) -> None:
    """Others wait for their turn, too many are refused, and nobody waits beyond the deadline."""
    slow = slowed(services)
    statuses: list[int] = []
    app = create_app(services)

    def ask() -> None:
        response = app.test_client().post("/explain", data=picture(), content_type="image/png")
        statuses.append(response.status_code)

    threads = [threading.Thread(target=ask) for _ in range(explainer._MOST_WAITING + 3)]
    for thread in threads:
        thread.start()
    assert slow.started.acquire(timeout=10)
    limit = time.monotonic() + 10
    while len(statuses) < 2 and time.monotonic() < limit:
        time.sleep(0.01)
    assert statuses == [503, 503]
    slow.gate.release(len(threads))
    for thread in threads:
        thread.join(10)
    assert sorted(statuses) == [200] * (explainer._MOST_WAITING + 1) + [503] * 2
    assert slow.most == 1


def test_nobody_waits_beyond_the_deadline(services_of: MakeServices, models: Path) -> None:
    """Who would have to wait longer for a turn gets a 504 at the deadline, and whoever comes later is answered."""
    services = services_of(model_dir=models, request_deadline=1.0)
    slow = slowed(services)
    statuses: list[int] = []
    first = threading.Thread(target=lambda: statuses.append(asked(services).status_code))
    first.start()
    assert slow.started.acquire(timeout=10)
    assert asked(services).status_code == 504
    slow.gate.release(2)
    first.join(10)
    assert statuses == [200]
    assert asked(services).status_code == 200


def test_a_failing_engine_is_told(services: Services, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the engine raises, or answers that is no number, is a 500 that says so; the next one may do well."""
    assert asked(services).status_code == 200
    told = EvidenceNetwork.run

    def broken(self: EvidenceNetwork, images: Any) -> Any:
        answer = told(self, images)
        answer.evidence[:] = np.nan
        return answer

    def raising(self: EvidenceNetwork, images: Any) -> Any:
        raise RuntimeError

    for run in (broken, raising):
        monkeypatch.setattr(EvidenceNetwork, "run", run)
        response = asked(services)
        assert (response.status_code, response.json["error"]) == (500, "engine_failed")
    monkeypatch.undo()
    assert asked(services).status_code == 200
