"""``/openapi.json``: it is valid, it has every route, it says what the service does, and people can read it."""

import base64
import io
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

import jsonschema_rs
import msgspec
import pytest
import schemathesis
from flask import Blueprint, Flask
from flask.testing import FlaskClient
from PIL import Image

from service.app import create_app
from service.inference.loaded import LoadedModel
from service.web import openapi
from service.web.operations import Content, ModelName, ModelVersion, PerModel, operation
from tests.models import copy
from tests.service.conftest import MakeServices


def described(app: Flask) -> Any:
    """Return the description that ``app`` gives of itself."""
    response = app.test_client().get("/openapi.json")
    assert response.status_code == 200, response.text
    return response.json


@pytest.fixture
def description(app: Flask) -> Any:
    """The description of the service with the colours model."""
    return described(app)


@pytest.fixture
def app_without_a_model(services_of: MakeServices, tmp_path: Path) -> Flask:
    """The application over an empty model folder."""
    return create_app(services_of(model_dir=tmp_path))


def operations(description: Any) -> list[Any]:
    """Return all operations of ``description``."""
    return [operation for methods in description["paths"].values() for operation in methods.values()]


def texts(node: Any) -> Iterator[str]:
    """Yield every string in ``node``, however deep."""
    if isinstance(node, str):
        yield node
    elif isinstance(node, dict | list):
        for item in node.values() if isinstance(node, dict) else node:
            yield from texts(item)


def references(node: Any) -> Iterator[str]:
    """Yield the target of every ``$ref`` in ``node``."""
    return (text for text in texts(node) if text.startswith("#/"))


@pytest.mark.parametrize("which", ["app", "app_without_a_model"])
def test_the_description_is_valid(which: str, request: pytest.FixtureRequest) -> None:
    """It is OpenAPI 3.1, its schemas are JSON Schema, and all that it refers to is there; also without a model."""
    description = described(request.getfixturevalue(which))
    schemathesis.openapi.from_dict(description).validate()
    for schema in description["components"]["schemas"].values():
        jsonschema_rs.meta.validate({"$schema": "https://json-schema.org/draft/2020-12/schema", **schema})
    for reference in references(description):
        _, components, kind, name = reference.split("/")
        assert name in description[components][kind], reference


def test_every_route_for_programs_is_described(app: Flask, description: Any) -> None:
    """The rules and methods that the application answers are those described, but for pages and their files."""
    answered = {
        (re.sub(r"<(?:[^:>]+:)?(\w+)>", r"{\1}", rule.rule), method.lower())
        for rule in app.url_map.iter_rules()
        for method in (rule.methods or set()) - {"HEAD", "OPTIONS"}
    }
    described = {(path, method) for path, methods in description["paths"].items() for method in methods}
    assert {path for path, _ in answered - described} == {
        *(
            "/",
            "/favicon.ico",
            "/assets/{name}",
            "/samples/{name}",
            "/docs",
            "/docs/{name}",
            "/model/{plot}",
            "/review",
        ),
    }
    assert described <= answered


def test_people_can_read_it(description: Any) -> None:
    """Everything says what it is: groups, operations, parameters, answers and types; texts are Markdown."""
    tags = {tag["name"]: tag["description"] for tag in description["tags"]}
    assert list(tags)[:2] == ["Predict", "Model"], "what most come for is first"
    assert not [name for name in tags if "_" in name]
    for operation_ in operations(description):
        assert operation_["summary"]
        assert not operation_["summary"].endswith(".")
        assert all(tags[tag] for tag in operation_["tags"])
        for parameter in operation_.get("parameters", []):
            assert parameter.get("description") or "enum" in parameter["schema"], parameter
        assert all(response["description"] for response in operation_["responses"].values())
    for name, schema in description["components"]["schemas"].items():
        assert schema.get("description"), f"{name} has no docstring"
    assert [text for text in texts(description) if "``" in text or "\n   " in text] == []


def test_operations_have_names_of_their_own(description: Any) -> None:
    """Generated clients call operations by their ids, which are unique and fit to be names."""
    ids = [operation_["operationId"] for operation_ in operations(description)]
    assert len(set(ids)) == len(ids)
    assert all(name.isidentifier() for name in ids)


def test_examples_are_right(client: FlaskClient, description: Any) -> None:
    """The example of every JSON body is answered, so that whoever tries one out sees how it works."""
    tried = 0
    for path, methods in description["paths"].items():
        for method, operation_ in methods.items():
            content = operation_.get("requestBody", {}).get("content", {}).get("application/json", {})
            if "example" in content and "{label}" not in path:  # of which the model has none
                filled = path.replace("{name}", "colours").replace("{version}", "1")
                response = client.open(filled, method=method, json=content["example"])
                assert response.status_code == 200, response.text
                tried += 1
    assert tried >= 6


def test_examples_are_those_of_the_model(description: Any, client: FlaskClient) -> None:
    """A picture in an example has the model's size, and an answer its labels, in the form of the answers that come."""
    post = description["paths"]["/predict"]["post"]
    picture = base64.b64decode(post["requestBody"]["content"]["application/json"]["example"]["image"])
    assert Image.open(io.BytesIO(picture)).size == (32, 32)
    shown = post["responses"]["200"]["content"]["application/json"]["example"]
    answer: Any = client.post("/predict", data=picture, content_type="image/png").json
    assert shown.keys() == answer.keys()
    assert {each["label"] for each in shown["predictions"]} == {each["label"] for each in answer["predictions"]}
    assert sum(each["probability"] for each in shown["predictions"]) == pytest.approx(1)
    assert shown["model"] == answer["model"]
    model = description["paths"]["/model"]["get"]["responses"]["200"]["content"]["application/json"]["example"]
    assert model == client.get("/model").json


def test_examples_are_what_the_description_allows(description: Any) -> None:
    """Each example of an answer has the schema of that answer."""
    shown = [
        content
        for operation_ in operations(description)
        for response in operation_["responses"].values()
        for content in response.get("content", {}).values()
        if "example" in content
    ]
    assert len(shown) >= 6
    for content in shown:
        schema = {**content["schema"], "components": description["components"]}
        jsonschema_rs.validator_for(schema).validate(content["example"])


def test_the_description_is_made_once_for_a_version(
    services_of: MakeServices, published: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Making it takes longer than many predictions, so that it is kept until another version answers."""
    made: list[Any] = []
    describe = openapi.describe

    def counted(*arguments: Any, several: bool) -> Any:
        made.append(arguments)
        return describe(*arguments, several=several)

    monkeypatch.setattr(openapi, "describe", counted)
    copy(published, tmp_path, 1)
    services = services_of(model_dir=tmp_path)
    app = create_app(services)
    first = described(app)
    assert described(app) == first
    assert len(made) == 1
    copy(published, tmp_path, 2)
    services.models.refresh()
    assert "2" in str(described(app)["paths"]["/v1/models/{name}/versions/{version}"]["get"]["parameters"])
    assert len(made) == 2


def test_errors_are_described_in_the_words_of_their_protocol(app: Flask, description: Any) -> None:
    """A status that an error has is told with the type that its protocol tells errors in."""
    content = description["paths"]["/predict"]["post"]["responses"]["413"]["content"]
    assert content["application/json"]["schema"] == {"$ref": "#/components/schemas/ErrorAnswer"}
    retry = description["paths"]["/predict"]["post"]["responses"]["503"]["headers"]
    assert retry["Retry-After"] == {"$ref": "#/components/headers/Retry-After"}


class Pixels(msgspec.Struct):
    """A test's own body."""

    data: list[int]


def _row(model: LoadedModel) -> Any:
    return Annotated[list[int], msgspec.Meta(min_length=model.metadata.input.width)]


def application_of(blueprint: Blueprint) -> Flask:
    """Return an application with nothing but ``blueprint``."""
    app = Flask("test", static_folder=None)
    app.register_blueprint(blueprint)
    return app


def test_a_route_without_a_declaration_is_an_error() -> None:
    """A route cannot be forgotten in the description: it is not made at all."""
    blueprint = Blueprint("forgetful", __name__)

    @blueprint.get("/forgotten")
    def forgotten() -> str:
        return ""

    with pytest.raises(ValueError, match="/forgotten does not declare"):
        openapi.describe(application_of(blueprint), (), None)


def test_types_follow_the_model(services_of: MakeServices, published: Path, tmp_path: Path) -> None:
    """Types that depend on the model are those of the one that answers, by its folder; without one they are open."""
    blueprint = Blueprint("own", __name__)

    @blueprint.post("/<name>/<int:version>")
    @operation(body=(Content(("application/json",), PerModel(_row)),))
    def rows(name: ModelName, version: ModelVersion) -> Pixels:
        """Take rows."""
        return Pixels([int(version)])

    copy(published, tmp_path, 7, name="hues")
    app = application_of(blueprint)

    def types(model: Any) -> list[Any]:
        post = openapi.describe(app, (), model)["paths"]["/{name}/{version}"]["post"]
        body = post["requestBody"]["content"]["application/json"]["schema"]
        return [*(parameter["schema"] for parameter in post["parameters"]), body]

    name, version, body = types(services_of(model_dir=tmp_path).registry.current)
    assert (name["enum"], version["enum"], body["minItems"]) == (["hues"], [7], 32)
    assert types(None) == [{"type": "string"}, {"anyOf": [{"type": "integer"}, {"type": "string"}]}, {}]
