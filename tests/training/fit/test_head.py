"""The head on a frozen backbone: how strongly it is fitted, who answers which picture, and what few pictures leave."""

import dataclasses
from pathlib import Path

import keras
import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression

from tests.training.backbones import NAME, SIDE, blots, pooled
from training.data.dataset import Classes, Dataset, Split, hold_out
from training.evaluation.post_hoc import logits_of
from training.fit import pretrained
from training.fit.checkpoints import RunFolder
from training.fit.features import Vectors
from training.fit.head import Linear, cross_validate, fit_head, rarest_labels
from training.fit.recipe import Recipe
from training.fit.train import Job
from training.network.registry import NO_WEIGHTS

pytestmark = pytest.mark.keras


def clusters(counts: list[int], spread: float = 0.3, dimensions: int = 12) -> tuple[Vectors, Classes]:
    """Return features float32 [N, D] around a centre for each class, in an order of chance, and their classes."""
    rng = np.random.default_rng(0)
    classes = rng.permutation(np.repeat(np.arange(len(counts)), counts))
    centres = rng.normal(size=(len(counts), dimensions))
    features = centres[classes] + spread * rng.normal(size=(len(classes), dimensions))
    return features.astype(np.float32), classes


def right(answers: np.ndarray, classes: Classes) -> float:
    """Return the share of the logits [N, K] that are largest for the right class."""
    return float((answers.argmax(axis=1) == classes).mean())


@pytest.mark.parametrize("counts", [[40, 40], [30, 20, 10], [25] * 6])
def test_every_picture_is_answered_once_by_a_head_that_did_not_see_it(counts: list[int]) -> None:
    """The rows of the folds cover all pictures; what is told apart easily is told apart, by them and by the head."""
    features, classes = clusters(counts)
    folds = cross_validate(features, classes, len(counts))
    assert len(folds.heads) == len(folds.unseen) == 5
    assert sorted(folds.rows) == list(range(len(classes)))
    answers = folds.logits(features)
    assert answers.shape == (len(classes), len(counts))
    assert right(answers, classes[folds.rows]) > 0.95
    head = fit_head(features, classes, len(counts), folds.strength)
    assert head.kernel.dtype == head.bias.dtype == np.float32
    assert right(head.logits(features), classes) > 0.98


def test_answers_follow_the_features_that_are_given() -> None:
    """A row of the answers is what the fold that did not see the picture makes of its row of the features."""
    features, classes = clusters([20, 20, 20])
    folds = cross_validate(features, classes, 3)
    other = features + 1
    expected = {
        row: head.logits(other[[row]])[0] for head, rows in zip(folds.heads, folds.unseen, strict=True) for row in rows
    }
    for row, answer in zip(folds.rows, folds.logits(other), strict=True):
        np.testing.assert_allclose(answer, expected[row], rtol=1e-5, atol=1e-5)


def test_the_strength_follows_from_how_clear_the_pictures_are() -> None:
    """What is clear is fitted strongly; of noise, as little is believed as can be."""
    clear, noise = clusters([40, 40, 40], spread=0.2), clusters([40, 40, 40], spread=30.0)
    found = cross_validate(*clear, 3), cross_validate(*noise, 3)
    assert [each.strength for each in found] == [30.0, 0.03]


@pytest.mark.parametrize("spread", [0.05, 0.3, 0.6])
def test_the_head_is_as_sure_as_the_folds(spread: float) -> None:
    """What it says to new pictures is as far from 0 as what they say to theirs, which all that is expected goes by."""
    features, classes = clusters([60] * 3, spread=spread, dimensions=200)
    known, new = np.arange(180) < 90, np.arange(180) >= 90
    folds = cross_validate(features[known], classes[known], 3)
    head = fit_head(features[known], classes[known], 3, folds.strength, folds.tolerance)
    sizes = [np.linalg.norm(logits, axis=1) for logits in (folds.logits(features[known]), head.logits(features[new]))]
    assert sizes[1].mean() == pytest.approx(sizes[0].mean(), rel=0.05)


def test_the_size_of_the_features_makes_no_difference() -> None:
    """Another backbone may give numbers a thousand times as large around another middle; the answers stay."""
    features, classes = clusters([30, 30, 30], spread=0.8)
    first, second = (cross_validate(each, classes, 3) for each in (features, 1000 * features + 77))
    assert first.strength == second.strength
    np.testing.assert_array_equal(
        first.logits(features).argmax(axis=1), second.logits(1000 * features + 77).argmax(axis=1)
    )


def test_a_class_of_a_single_picture_is_learned_and_not_asked_about() -> None:
    """Its picture is in every fold's training, so that each fold knows the class; the head knows it as well."""
    features, classes = clusters([20, 1, 20])
    folds = cross_validate(features, classes, 3)
    single = int(np.flatnonzero(classes == 1)[0])
    assert sorted(folds.rows) == [row for row in range(41) if row != single]
    for head in folds.heads:
        assert right(head.logits(features[[single]]), classes[[single]]) == 1
    head = fit_head(features, classes, 3, folds.strength)
    assert right(head.logits(features[[single]]), classes[[single]]) == 1


@pytest.mark.parametrize(("counts", "number"), [([2, 2], 2), ([3, 1], 3), ([2, 1, 1], 2), ([4, 2], 4)])
def test_few_pictures_make_fewer_folds(counts: list[int], number: int) -> None:
    """There are as many as the largest class has pictures, and every picture of a class with several is answered."""
    features, classes = clusters(counts)
    folds = cross_validate(features, classes, len(counts))
    assert len(folds.heads) == number
    assert len(folds.rows) == sum(count for count in counts if count > 1)


def test_single_pictures_alone_make_no_folds() -> None:
    """Where every class has one picture, nothing is chosen and nobody is asked; the head still knows them all."""
    features, classes = clusters([1, 1, 1])
    folds = cross_validate(features, classes, 3)
    assert (folds.heads, folds.strength) == ((), 1.0)
    assert folds.rows.shape == (0,)
    assert folds.logits(features).shape[0] == 0
    head = fit_head(features, classes, 3, folds.strength)
    assert right(head.logits(features), classes) == 1


@pytest.mark.parametrize("present", [(0, 1, 3), (1, 3)])
def test_a_class_without_pictures_is_never_answered(present: tuple[int, ...]) -> None:
    """Whatever the features are, another class is likelier than one that was missing among the pictures."""
    features, classes = clusters([20, 20, 20, 20])
    kept = np.isin(classes, present)
    head = fit_head(features[kept], classes[kept], 4, 1.0)
    anything = 20 * np.random.default_rng(1).normal(size=(2_000, features.shape[1])).astype(np.float32)
    assert set(head.logits(anything).argmax(axis=1)) == set(present)
    assert right(head.logits(features[kept]), classes[kept]) > 0.98


@pytest.fixture(scope="module")
def blobs() -> Dataset:
    """Return a data set of 45 pictures in three classes, nine of them for validation."""
    images = blots(54)
    classes = np.arange(54) % 3
    images[..., :] = images // 2 + (classes * 60).astype(np.uint8)[:, None, None, None]
    return hold_out("blobs", ("a", "b", "c"), Split(images[:45], classes[:45]), Split(images[45:], classes[45:]), 9)


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Write the weights of a small backbone into a file; they are at random."""
    file = tmp_path_factory.mktemp("weights") / "small.weights.h5"
    keras.utils.set_random_seed(0)
    keras.applications.MobileNetV3Small(include_top=False, weights=None, input_shape=(SIDE, SIDE, 3)).save_weights(file)
    return file


@pytest.fixture
def job(blobs: Dataset, weights: Path, tmp_path: Path) -> Job:
    """Return a job on that backbone."""
    return Job(blobs, Recipe(backbone=NAME, backbone_weights=str(weights)), RunFolder(tmp_path / "run"))


@pytest.mark.slow
def test_the_network_answers_as_its_head_does(job: Job, blobs: Dataset) -> None:
    """In Keras, the backbone with the head that was fitted gives the logits of the head for the features.

    The features stand in the order of the pictures to train on and then of those held out.
    """
    head = pretrained.fit(job)
    model = pretrained.network(job, head.linear)
    images = np.concatenate([blobs.train.images, blobs.validation.images])
    assert np.array_equal(head.classes, np.concatenate([blobs.train.classes, blobs.validation.classes]))
    np.testing.assert_allclose(head.features, pooled(model, images), atol=1e-3)
    np.testing.assert_allclose(head.linear.logits(head.features), logits_of(model, images), atol=1e-3)
    assert head.accuracy() == right(head.folds.logits(head.features), head.classes[head.folds.rows])


@pytest.mark.slow
def test_a_head_can_be_had_that_has_not_seen_what_is_held_out(job: Job) -> None:
    """It is that of the other pictures alone, with the strength that was found."""
    head = pretrained.fit(job)
    alone, folds = head.without(9), head.folds
    expected = fit_head(head.features[:36], head.classes[:36], 3, folds.strength, folds.tolerance)
    np.testing.assert_array_equal(alone.kernel, expected.kernel)
    assert not np.allclose(alone.kernel, head.linear.kernel)


@pytest.mark.slow
def test_features_are_kept_in_the_run_folder(job: Job, blobs: Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    """A second run on the same pictures computes none anew; those of other weights are not taken for them."""
    first = pretrained.fit(job)

    def fail(_model: keras.Model) -> None:
        raise AssertionError("it asks the backbone again")

    monkeypatch.setattr(pretrained, "embedder", fail)
    again = pretrained.fit(dataclasses.replace(job, dataset=dataclasses.replace(blobs, name="again")))
    np.testing.assert_array_equal(again.features, first.features)
    other = dataclasses.replace(job, recipe=dataclasses.replace(job.recipe, backbone_weights=NO_WEIGHTS))
    with pytest.raises(AssertionError, match="asks the backbone again"):
        pretrained.fit(other)


@pytest.mark.parametrize("held_out", [0, 9])
def test_all_pictures_but_the_test_are_one_split(blobs: Dataset, held_out: int) -> None:
    """They come in their order, and without a copy where they lie one behind the other."""
    whole = np.concatenate([blobs.train.images, blobs.validation.images, blobs.test.images])
    classes = np.arange(54) % 3
    dataset = hold_out("x", blobs.labels, Split(whole[:45], classes[:45]), Split(whole[45:], classes[45:]), held_out)
    together = pretrained.all_but_test(dataset)
    np.testing.assert_array_equal(together.images, whole[:45])
    np.testing.assert_array_equal(together.classes, classes[:45])
    assert np.shares_memory(together.images, whole)
    apart = dataclasses.replace(dataset, train=Split(dataset.train.images.copy(), dataset.train.classes))
    np.testing.assert_array_equal(pretrained.all_but_test(apart).images, whole[:45])


def test_a_linear_layer_is_one() -> None:
    """The logits are the features times the kernel, and the bias."""
    layer = Linear(np.array([[1, 2], [3, 4]], np.float32), np.array([10, 20], np.float32))
    np.testing.assert_array_equal(layer.logits(np.array([[1, 1]], np.float32)), [[14, 26]])


def several(pictures: int, labels: int = 4) -> tuple[Vectors, Classes]:
    """Return features float32 [N, 24] to which each label that a picture has adds its own direction, and the labels."""
    rng = np.random.default_rng(0)
    classes = (rng.random((pictures, labels)) < np.linspace(0.5, 0.15, labels)).astype(np.int64)
    directions = rng.normal(size=(labels, 24))
    return (classes @ directions + 0.3 * rng.normal(size=(pictures, 24))).astype(np.float32), classes


def test_each_of_several_labels_has_a_regression_of_its_own() -> None:
    """Folds answer every picture once, also those without a label; layers are what scikit-learn fits to each label."""
    features, classes = several(240)
    folds = cross_validate(features, classes, 4)
    assert sorted(folds.rows) == list(range(240))
    answers = folds.logits(features)
    assert ((answers > 0) == classes[folds.rows]).mean() > 0.95
    for head, rows in zip(folds.heads, folds.unseen, strict=True):
        np.testing.assert_allclose(classes[rows].mean(axis=0), classes.mean(axis=0), atol=0.15)
        assert head.kernel.shape == (24, 4)
    scale = np.float32(10 / np.sqrt(((features - features.mean(axis=0)) ** 2).sum(axis=1).mean()))
    scaled = scale * (features - features.mean(axis=0))
    head = fit_head(features, classes, 4, 1.0)
    for label in range(4):
        alone = LogisticRegression().fit(scaled, classes[:, label])
        np.testing.assert_allclose(head.logits(features)[:, label], alone.decision_function(scaled), atol=0.01)


def test_a_label_that_a_fold_lacks_or_that_all_have_is_answered_at_once() -> None:
    """Where there is nothing to tell apart there is no regression, and no error either."""
    features, classes = several(60)
    classes[:, 2], classes[:, 3] = 0, 1
    logits = fit_head(features, classes, 4, 1.0).logits(features)
    assert (logits[:, 2] < -5).all()
    assert (logits[:, 3] > 5).all()


def test_pictures_are_spread_by_their_rarest_label() -> None:
    """Those without any are a group of their own."""
    assert rarest_labels(np.array([[1, 1, 0], [1, 0, 0], [0, 0, 0], [1, 0, 1], [0, 0, 1]])).tolist() == [1, 0, 3, 2, 2]
