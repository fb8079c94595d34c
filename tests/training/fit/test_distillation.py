"""A network can learn the answers of a published version."""

import json
import re
import shutil
from dataclasses import asdict, replace
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import artifact
from artifact.layout import INT8_MODEL
from tests.training.conftest import SMOKE, call, python_layout, write_archive
from training.data.augmentation import Batches, Targets
from training.data.dataset import Dataset, Pixels, Split
from training.evaluation.post_hoc import logits_of
from training.fit.checkpoints import RunFolder
from training.fit.distillation import Teacher, ensemble, soften, soften_each
from training.fit.lineage import Lineage, Origin
from training.fit.recipe import recipe
from training.fit.train import Job, train

pytestmark = pytest.mark.keras

SHADE = Origin("shade", 1, 0.9, 60.0, {"validation_images": 0})
ENVIRONMENT = {"backend": "tensorflow", "precision": "float32", "hardware": "any"}


def by_brightness(images: Pixels) -> Targets:
    """Answer with the first class where a picture is dark and with the third where it is bright."""
    bright = images.mean(axis=(1, 2, 3)) > 128
    return np.where(bright[:, None], [0.02, 0.08, 0.9], [0.9, 0.08, 0.02]).astype(np.float32)


def test_a_temperature_divides_the_logits() -> None:
    """At 2, odds of 81 to 9 to 1 become 9 to 3 to 1; at 1 nothing changes, and a probability of 0 makes no NaN."""
    odds = np.array([[81 / 91, 9 / 91, 1 / 91]], np.float32)
    np.testing.assert_allclose(soften(odds, 2.0), [[9 / 13, 3 / 13, 1 / 13]], rtol=1e-5)
    np.testing.assert_allclose(soften(odds, 1.0), odds, rtol=1e-5)
    np.testing.assert_allclose(soften(np.array([[1, 0]], np.float32), 2.0), [[1, 0]], atol=1e-3)


def test_labels_that_do_not_exclude_each_other_are_softened_each() -> None:
    """At 2, odds of 81 become 9; probabilities need not add up, and 0 and 1 make no infinity."""
    found = soften_each(np.array([[81 / 82, 1 / 82, 0.5]], np.float32), 2.0)
    np.testing.assert_allclose(found, [[0.9, 0.1, 0.5]], rtol=1e-5)
    assert found.dtype == np.float32
    np.testing.assert_allclose(soften_each(np.array([[0, 1]], np.float32), 1.0), [[0, 1]], atol=1e-3)
    black = np.zeros((1, 4, 4, 3), np.uint8)
    several = ensemble([Teacher(by_brightness, (), multi_label=True)])
    targets = several.targets(share=0.5, temperature=2.0)(black, np.ones((1, 3), np.float32))
    expected = 0.5 + 0.5 * soften_each(by_brightness(black), 2.0)
    np.testing.assert_allclose(targets, expected, rtol=1e-5)


def test_targets_mix_answers_and_classes() -> None:
    """A share of 0.75 takes three quarters from the teacher and the rest from the label, in float32."""
    black = np.zeros((1, 4, 4, 3), np.uint8)
    targets = Teacher(by_brightness, ()).targets(share=0.75, temperature=1.0)(black, np.eye(3, dtype=np.float32)[[2]])
    np.testing.assert_allclose(targets, [[0.675, 0.06, 0.265]], rtol=1e-5)
    assert targets.dtype == np.float32


def test_several_teachers_answer_with_their_mean() -> None:
    """Three of whom two agree give their answer two thirds, in float32, and none of them is forgotten."""

    def always_the_first(images: Pixels) -> Targets:
        return np.eye(3, dtype=np.float32)[np.zeros(len(images), int)]

    white = np.full((2, 4, 4, 3), 255, np.uint8)
    bright = Teacher(by_brightness, (SHADE,))
    three = ensemble([bright, Teacher(always_the_first, (replace(SHADE, name="first"),)), bright])
    np.testing.assert_allclose(three.predict(white), [[1.04 / 3, 0.16 / 3, 1.8 / 3]] * 2, rtol=1e-5)
    assert three.predict(white).dtype == np.float32
    assert [origin.name for origin in three.origins] == ["shade", "first", "shade"]


def test_the_teacher_is_asked_about_the_augmented_pictures(small: Dataset) -> None:
    """What it sees are the very pictures that go into the training, not those of the data set."""
    asked: list[Pixels] = []

    def predict(images: Pixels) -> Targets:
        asked.append(images.copy())
        return by_brightness(images)

    teach = Teacher(predict, ()).targets(share=1.0, temperature=1.0)
    batches = Batches(small.train, 3, 16, 2, cutout=16, change=1.0, flip=True, seed=0, teach=teach)
    for images, targets in batches.epoch(0):
        np.testing.assert_array_equal(images, asked[-1])
        np.testing.assert_allclose(targets, by_brightness(images), rtol=1e-5)
    assert len(asked) == len(batches)
    assert not any((asked[0][0] == image).all() for image in small.train.images)


def test_no_teacher_is_asked_about_pictures_alone(small: Dataset) -> None:
    """Where only the pictures of the batches are wanted they are the same, epoch after epoch, and cost no answer."""

    def refuse(images: Pixels, one_hot: Targets) -> Targets:
        raise AssertionError

    taught, plain = (
        Batches(small.train, 3, 16, 2, cutout=8, flip=True, seed=0, teach=teach) for teach in (refuse, None)
    )
    expected = islice(plain.from_epoch(2), 2 * len(plain))
    for images, (wanted, _) in zip(taught.images_from_epoch(2), expected, strict=False):
        np.testing.assert_array_equal(images, wanted)


@pytest.mark.slow
def test_a_network_learns_what_its_teacher_answers(tmp_path: Path) -> None:
    """Of pictures with random labels it gives its teacher's answers, which their labels contradict."""
    rng = np.random.default_rng(0)
    images = (rng.integers(2, size=(240, 1, 1, 1)) * 120 + rng.integers(100, size=(240, 32, 32, 3))).astype(np.uint8)
    train_split, rest = (Split(part, rng.integers(3, size=len(part))) for part in (images[:200], images[200:]))
    dataset = Dataset("two shades", ("a", "b", "c"), train_split, rest, rest)
    chosen = recipe("smoke", epochs=8, batch_size=25)
    trained = train(Job(dataset, chosen, RunFolder(tmp_path), teacher=Teacher(by_brightness, (SHADE,))), ENVIRONMENT)
    answers = logits_of(trained.model, rest.images).argmax(axis=1)
    np.testing.assert_array_equal(answers, by_brightness(rest.images).argmax(axis=1))
    assert trained.state.settings["teachers"] == [asdict(SHADE)]


@pytest.mark.slow
def test_a_published_version_teaches(smoke: tuple[Path, str], tmp_path: Path) -> None:
    """With --teacher the version says who taught it, takes their pictures' size, and its configuration repeats it.

    Its teachers' answers take the place of smoothed labels.
    """
    models, teachers = tmp_path / "models", (smoke[0], shutil.copytree(smoke[0], tmp_path / "again" / "smoke" / "1"))
    arguments = ("--epochs", "1", "--models", models, "--run", tmp_path / "run", "--teacher", *teachers)
    code, _, errors = call([*SMOKE, *arguments])
    assert code == 0, errors
    version = models / "smoke" / "1"
    metadata = artifact.validate(version)
    assert [teacher["version"] for teacher in metadata.training["teachers"]] == [1, 1]
    assert metadata.training["teachers"][0]["training"]["epochs"] == 3
    assert metadata.training["label_smoothing"] == 0
    assert Lineage.read(metadata.training).smoothing() is None
    card = (version / "assets.extra" / "MODEL_CARD.md").read_text(encoding="utf-8")
    assert re.search(r"\| teachers \| smoke version 1: [^;]+; smoke version 1: [^;]+ \|\n", card)
    configuration = (version / "assets.extra" / "config.toml").read_text(encoding="utf-8")
    assert f"teacher = {json.dumps(list(map(str, teachers)))}" in configuration


@pytest.mark.slow
def test_a_teacher_answers_in_int8_where_it_can(smoke: tuple[Path, str], tmp_path: Path) -> None:
    """Of a version with an int8 network that one is asked, so that damage to it is what ends the training."""
    quantized = tmp_path / "models"
    code, _, errors = call(["quantize", smoke[0], "--models", quantized])
    assert code == 0, errors
    version = quantized / "smoke" / "1"
    assert artifact.validate(version).int8 is not None
    (version / INT8_MODEL).with_suffix(".bin").write_bytes(b"damaged")
    code, _, errors = call([*SMOKE, "--models", tmp_path / "m", "--run", tmp_path / "run", "--teacher", version])
    assert code == 1
    assert "sha256" in errors


def test_a_teacher_of_something_else_is_refused(smoke: tuple[Path, str], tmp_path: Path) -> None:
    """One with other labels, or that takes pictures of another size, ends the command before any training."""
    folders = ("--models", tmp_path / "m", "--run", tmp_path / "r")
    arguments = ("--precision", "float32", *folders, "--teacher", smoke[0])
    other = write_archive(tmp_path / "cifar.tar.gz", python_layout())
    code, _, errors = call(["--data", other, "--validation-images", "0", *arguments])
    assert code == 1
    assert "knows disc, square, stripes; the data has airplane" in errors
    for label in ("disc", "square", "stripes"):
        for number in range(12):
            picture = tmp_path / "pictures" / label / f"{number}.png"
            picture.parent.mkdir(parents=True, exist_ok=True)
            Image.new("RGB", (64, 64), (20 * number, 0, 0)).save(picture)
    code, _, errors = call(["--data", tmp_path / "pictures", "--image-size", "48", *arguments])
    assert code == 1
    assert "takes pictures of 32x32 pixels (crop, bicubic), and the training has 48x48" in errors
    code, _, errors = call([*SMOKE, "--models", tmp_path / "m", "--teacher", tmp_path / "nothing"])
    assert code == 1
    assert str(tmp_path / "nothing") in errors
    assert not (tmp_path / "m" / "smoke").exists()
