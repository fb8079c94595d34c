"""Several models and versions over HTTP: which one a request is for, and how it is set which of them answers."""

import hashlib
from pathlib import Path
from typing import Any

import pytest
from flask.testing import FlaskClient

from service.app import create_app
from service.inference.plan import SERVING_FILE
from service.settings import Token
from tests.models import LABELS, copy
from tests.service.conftest import MakeServices
from tests.service.pictures import plain

TOKEN = {"Authorization": "Bearer secret"}
RED = plain("red")


@pytest.fixture
def folder(models: Path, published: Path) -> Path:
    """A folder with two models of two versions each: colours 1 and 2, fruits 3 and 5."""
    copy(published, models, 2, ("scarlet", *LABELS[1:]))
    copy(published, models, 3, ("cherry", *LABELS[1:]), name="fruits")
    copy(published, models, 5, ("strawberry", *LABELS[1:]), name="fruits")
    return models


@pytest.fixture
def client(services_of: MakeServices, folder: Path) -> FlaskClient:
    """A client of a service with both models, of which colours is the default, and a token for changes."""
    token = Token("ann", hashlib.sha256(b"secret").digest())
    services = services_of(
        model_dir=folder, model_name="colours", api_tokens=(token,), without_token=("probes", "predictions")
    )
    return create_app(services).test_client()


def label(client: FlaskClient, query: str = "", **headers: str) -> str:
    """Return the label that a red picture gets."""
    response = client.post(f"/predict{query}", data=RED, content_type="image/png", headers=headers)
    assert response.status_code == 200, response.text
    told: str = response.json["predictions"][0]["label"]  # type: ignore[index]
    return told


def put(client: FlaskClient, path: str, body: Any, status: int = 200) -> Any:
    """Change something with the token; return the answer."""
    response = client.put(path, json=body, headers=TOKEN)
    assert response.status_code == status, response.text
    return response.json


def test_a_request_says_which_model_and_version(client: FlaskClient) -> None:
    """By its query, for one picture, for many and for an explanation; an answer names what answered."""
    assert label(client) == "scarlet"
    assert label(client, "?model=fruits") == "strawberry"
    put(client, "/models/fruits/serving", {"versions": "all"})
    assert label(client, "?model=fruits&version=3&top=1") == "cherry"
    batch = client.post("/predict/batch?model=fruits&version=3", data={"images": [open_file(RED)]})
    assert batch.json["model"] == {"name": "fruits", "version": 3}  # type: ignore[index]
    assert client.get("/model?model=fruits").json["version"] == 5  # type: ignore[index]
    assert client.get("/model?model=fruits&version=3").json["labels"][0] == "cherry"  # type: ignore[index]
    assert "fruits" in client.get("/model/card?model=fruits").text


def open_file(content: bytes) -> Any:
    """Return a file of a form."""
    import io

    return io.BytesIO(content), "red.png"


@pytest.mark.parametrize(
    ("query", "status", "told"),
    [
        ("?model=pets", 404, "There is no model 'pets' here; 'colours', 'fruits' are served."),
        ("?model=fruits&version=3", 404, "Version 3 of 'fruits' is not served; version 5 is."),
        ("?version=canary", 404, "No version of 'colours' has the label 'canary'; the labels are: none."),
        ("?version=0", 400, "The version is '0', but it must be a number from 1 on, or a label."),
        ("?version=", 400, "The version is '', but it must be"),
        ("?model=a&model=b", 400, "The query parameter model is given more than once."),
    ],
)
def test_what_is_not_there_is_told(client: FlaskClient, query: str, status: int, told: str) -> None:
    """An unknown model, version or label is a 404 that names those that there are."""
    for path in ("/predict", "/predict/batch", "/explain"):
        response = client.post(f"{path}{query}", data=RED, content_type="image/png")
        assert response.status_code == status
        assert told in response.json["message"]  # type: ignore[index]


def test_the_list_of_models(client: FlaskClient) -> None:
    """It has all models and versions, which of them answer, and what is set of them."""
    put(client, "/models/fruits/serving", {"labels": {"stable": 3, "next": 5}, "traffic": {"stable": 3, "next": 1}})
    answer: Any = client.get("/models").json
    assert answer["default"] == "colours"
    colours, fruits = answer["models"]
    assert (colours["name"], colours["state"], colours["version"]) == ("colours", "ready", 2)
    assert [(each["version"], each["state"], each["share"]) for each in colours["versions"]] == [
        (1, "ON_DISK", 0.0),
        (2, "AVAILABLE", 1.0),
    ]
    assert [(each["version"], each["labels"], each["share"]) for each in fruits["versions"]] == [
        (3, ["stable"], 0.75),
        (5, ["next"], 0.25),
    ]
    assert fruits["version"] == 3
    assert fruits["memory_mb"] > 0
    assert fruits["serving"] == {"labels": {"stable": 3, "next": 5}, "traffic": {"stable": 3.0, "next": 1.0}}


def test_promote_and_roll_back_are_one_call(client: FlaskClient, folder: Path) -> None:
    """The stable label goes to a version by its number, or to the one that has another label; the file says so."""
    put(client, "/models/fruits/labels/canary", {"version": 5})
    put(client, "/models/fruits/labels/stable", {"version": 3})
    assert label(client, "?model=fruits") == "cherry"
    assert label(client, "?model=fruits&version=canary") == "strawberry"
    told: Any = client.get("/model?model=fruits").json
    assert (told["serving"], told["shares"]) == ({"labels": {"canary": 5, "stable": 3}}, {"3": 1.0})
    put(client, "/models/fruits/labels/stable", {"version": "canary"})
    assert label(client, "?model=fruits") == "strawberry"
    put(client, "/models/fruits/labels/stable", {"version": 3})
    assert label(client, "?model=fruits") == "cherry"
    assert '"stable": 3' in (folder / "fruits" / SERVING_FILE).read_text()
    assert client.delete("/models/fruits/labels/canary", headers=TOKEN).status_code == 200
    assert client.get("/models/fruits/serving").json == {"labels": {"stable": 3}}


def test_a_client_stays_with_its_version(client: FlaskClient) -> None:
    """With X-Darkroom-Sticky its requests go to one version, in each protocol; without it chance decides."""
    put(client, "/models/colours/serving", {"labels": {"old": 1, "new": 2}, "traffic": {"old": 1, "new": 1}})
    of_client = {key: label(client, **{"X-Darkroom-Sticky": key}) for key in map(str, range(20))}
    assert set(of_client.values()) == {"red", "scarlet"}
    for key, told in of_client.items():
        headers = {"X-Darkroom-Sticky": key}
        assert label(client, **headers) == told
        tensor = {"name": "images", "datatype": "UINT8", "shape": [1, 32, 32, 3], "data": [255, 0, 0] * 1024}
        answer: Any = client.post("/v2/models/colours/infer", json={"inputs": [tensor]}, headers=headers).json
        assert answer["model_version"] == {"red": "1", "scarlet": "2"}[told]
    assert {label(client) for _ in range(40)} == {"red", "scarlet"}


def test_the_protocols_name_versions_by_number_and_label(client: FlaskClient) -> None:
    """TensorFlow Serving's paths and those of V2 reach each version that is loaded, and tell which there are."""
    put(client, "/models/fruits/serving", {"labels": {"stable": 3, "canary": 5}})
    pixels = [[[255, 0, 0]] * 32] * 32
    rows = {"instances": [pixels]}
    for which, version in (("", 3), ("/labels/canary", 5), ("/labels/stable", 3), ("/versions/5", 5)):
        assert client.post(f"/v1/models/fruits{which}:predict", json=rows).status_code == 200
        body = {"examples": [{"images": [255, 0, 0] * 1024}]}
        first = client.post(f"/v1/models/fruits{which}:classify", json=body).json["results"][0][0]  # type: ignore[index]
        assert first[0] == {3: "cherry", 5: "strawberry"}[version]
        spec: Any = client.get(f"/v1/models/fruits{which}/metadata").json
        assert spec["model_spec"]["version"] == str(version)
    status: Any = client.get("/v1/models/fruits").json
    assert [each["version"] for each in status["model_version_status"]] == ["5", "3"]
    assert client.get("/v1/models/fruits/labels/canary").json["model_version_status"][0]["version"] == "5"  # type: ignore[index]
    tensor = {"name": "images", "datatype": "UINT8", "shape": [1, 32, 32, 3], "data": [255, 0, 0] * 1024}
    for which, version in (("", 3), ("/versions/canary", 5), ("/versions/3", 3)):
        answer: Any = client.post(f"/v2/models/fruits{which}/infer", json={"inputs": [tensor]}).json
        assert (answer["model_name"], answer["model_version"]) == ("fruits", str(version))
    assert client.get("/v2/models/fruits").json["versions"] == ["3", "5"]  # type: ignore[index]
    assert client.get("/v2/models/fruits/config").json["version_policy"] == {"specific": {"versions": [3, 5]}}  # type: ignore[index]
    stats: Any = client.get("/v2/models/stats").json
    assert [(each["name"], each["version"]) for each in stats["model_stats"]] == [
        ("colours", "2"),
        ("fruits", "3"),
        ("fruits", "5"),
    ]


def test_the_repository_loads_and_unloads(client: FlaskClient) -> None:
    """By V2's calls, with a token alone; an unloaded model is not ready, and says how it is loaded."""
    for call in ("load", "unload"):
        assert client.post(f"/v2/repository/models/fruits/{call}").status_code == 401
    assert client.post("/v2/repository/models/fruits/unload", headers=TOKEN).status_code == 200
    response = client.post("/predict?model=fruits", data=RED, content_type="image/png")
    assert response.status_code == 503
    assert "load" in response.json["message"]  # type: ignore[index]
    assert client.get("/v2/models/fruits/ready").status_code == 503
    index: Any = client.post("/v2/repository/index").json
    assert {(each["name"], each["version"], each["state"]) for each in index} == {
        ("colours", "1", "UNAVAILABLE"),
        ("colours", "2", "READY"),
        ("fruits", "3", "UNAVAILABLE"),
        ("fruits", "5", "UNAVAILABLE"),
    }
    assert label(client) == "scarlet"
    assert client.post("/v2/repository/models/fruits/load", json={}, headers=TOKEN).status_code == 200
    assert label(client, "?model=fruits") == "strawberry"
    assert client.post("/v2/repository/models/pets/load", headers=TOKEN).status_code == 404


@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        ("PUT", "/models/fruits/serving", {}),
        ("PUT", "/models/fruits/labels/stable", {"version": 3}),
        ("DELETE", "/models/fruits/labels/stable", None),
    ],
)
def test_changes_need_a_token(
    client: FlaskClient, services_of: MakeServices, folder: Path, method: str, path: str, body: Any
) -> None:
    """Without one nothing is changed, and where the service knows none nobody may change anything."""
    assert client.open(path, method=method, json=body).status_code == 401
    open_to_all = create_app(services_of(model_dir=folder, model_name="colours")).test_client()
    response = open_to_all.open(path, method=method, json=body)
    assert (response.status_code, response.json["error"]) == (403, "forbidden")  # type: ignore[index]
    assert not (folder / "fruits" / SERVING_FILE).exists()


@pytest.mark.parametrize(
    ("path", "body", "status", "told"),
    [
        ("/models/fruits/serving", {"shadow": "next"}, 400, "That cannot be set: shadow names 'next'"),
        ("/models/fruits/serving", {"label": {}}, 400, "unknown field `label`"),
        ("/models/fruits/serving", {"versions": [4]}, 400, "There is no version 4 of 'fruits'; there are: 3, 5."),
        ("/models/pets/serving", {}, 404, "There is no model 'pets' here"),
        ("/models/fruits/labels/stable", {"version": 9}, 400, "There is no version 9 of 'fruits'"),
        ("/models/fruits/labels/stable", {"version": "canary"}, 400, "No version of 'fruits' has the label 'canary'."),
        ("/models/fruits/labels/stable", {}, 400, "missing required field `version`"),
    ],
)
def test_what_cannot_be_set_is_told(
    client: FlaskClient, folder: Path, path: str, body: Any, status: int, told: str
) -> None:
    """Whatever is wrong is a sentence, and nothing is written."""
    assert told in put(client, path, body, status)["message"]
    assert not (folder / "fruits" / SERVING_FILE).exists()


def test_what_a_shadow_disagrees_on(client: FlaskClient) -> None:
    """The list of models counts how often the second version gave an image another label."""
    put(client, "/models/fruits/serving", {"labels": {"stable": 3, "next": 5}, "shadow": "next"})
    assert label(client, "?model=fruits") == "cherry"
    services = client.application.extensions["services"]
    assert services.shadow.flush(10)
    [entry] = [entry for entry in client.get("/models").json["models"] if entry["name"] == "fruits"]  # type: ignore[index]
    assert entry["shadows"] == [
        {"version": 5, "compared_with": 3, "agreed": 0, "disagreed": 1, "dropped": 0, "failed": 0}
    ]
    assert [each["shadow"] for each in entry["versions"]] == [False, True]


def test_the_description_is_of_all_models(client: FlaskClient) -> None:
    """Of several models the paths take any; of one the only name that there is."""
    described: Any = client.get("/openapi.json").json
    [name] = [
        parameter
        for parameter in described["paths"]["/v2/models/{name}/infer"]["post"]["parameters"]
        if parameter["name"] == "name"
    ]
    assert "enum" not in name["schema"]
    assert name["description"] == "The name of a model; GET /models lists them."
