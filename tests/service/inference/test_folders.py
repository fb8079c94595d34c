"""Why there is no model: what was passed over, and what may have been meant."""

from collections.abc import Callable
from pathlib import Path

import pytest

from artifact import draft, models_in
from service.inference.folders import AmbiguousModel, default_model, no_model, no_version
from tests.models import copy
from tests.service.conftest import MakeServices


def test_default_model(models: Path, published: Path, tmp_path: Path) -> None:
    """The only model is found among folders that are none; of several only the bundled one is chosen."""
    (models / ".cache").mkdir()
    (models / "empty").mkdir()
    (models / "lost+found").mkdir()
    assert default_model(models, models_in(models)) == "colours"
    assert default_model(tmp_path / "nowhere", []) is None
    copy(published, models, 1, name="shapes")
    with pytest.raises(AmbiguousModel, match="colours, shapes"):
        default_model(models, models_in(models))
    copy(published, models, 1, name="cifar10")
    assert default_model(models, models_in(models)) == "cifar10"


def one_too_deep(models: Path) -> Path:
    """Put everything into one more folder."""
    models.rename(models.with_name("inner"))
    models.mkdir()
    models.with_name("inner").rename(models / "models")
    return models


def link_to_a_name(models: Path) -> Path:
    """Give the version a name, and a link to that."""
    (models / "colours" / "1").rename(models / "colours" / "v3")
    (models / "colours" / "current").symlink_to("v3")
    return models


def zeros(models: Path) -> Path:
    """Name the version as Keras's and TensorFlow's old exporters did."""
    (models / "colours" / "1").rename(models / "colours" / "00000123")
    return models


def no_number(models: Path) -> Path:
    """Leave the number out."""
    (models / "colours" / "1").rename(models / "inner")
    (models / "colours").rmdir()
    (models / "inner").rename(models / "colours")
    return models


def as_the_folder(models: Path) -> Path:
    """Name the version where its model's folder belongs."""
    return models / "colours" / "1"


MISTAKES = [
    pytest.param(one_too_deep, "Did you mean MODEL_DIR={models}/models, which has colours?", id="too-deep"),
    pytest.param(lambda models: models / "colours", "Did you mean MODEL_DIR={models} and MODEL_NAME=colours?", id="up"),
    pytest.param(as_the_folder, "The folder is a version itself", id="version"),
    pytest.param(no_number, "{models}/colours is a version itself; move it to {models}/colours/1.", id="no-number"),
    pytest.param(
        link_to_a_name,
        "Passed over in {models}/colours: current (no whole number), v3 (no whole number); a version is a folder with",
        id="names",
    ),
    pytest.param(zeros, "Passed over in {models}/colours: 00000123 (leading zeros);", id="leading-zeros"),
]


@pytest.mark.parametrize(("mistake", "told"), MISTAKES)
def test_a_folder_that_is_not_as_it_should_be(
    services_of: MakeServices, models: Path, mistake: Callable[[Path], Path], told: str
) -> None:
    """Where a version lies in the wrong place, the reason names it, and what to do."""
    services = services_of(model_dir=mistake(models))
    assert services.registry.current is None
    assert told.format(models=models) in services.registry.reason


def test_a_model_that_was_chosen(models: Path) -> None:
    """Where MODEL_NAME is set, the reason names what was passed over there, and the models that there are."""
    assert no_version(models, "shapes").endswith("There is colours; set MODEL_NAME.")
    assert "Passed over: current (no whole number), v3" in no_version(link_to_a_name(models), "colours")
    with draft(models, "empty") as version:
        assert no_version(models, "empty") == f"There is no version of empty in the folder {version.path.parent}."


def test_no_more_than_some_are_named(tmp_path: Path) -> None:
    """A folder with thousands of strange names makes no long sentence."""
    for number in range(1000):
        (tmp_path / "m" / f"v{number}").mkdir(parents=True)
    assert no_version(tmp_path, "m").count("no whole number") == 5
    assert "995 more" in no_version(tmp_path, "m")
    assert len(no_model(tmp_path)) < 500
