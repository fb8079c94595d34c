"""Wrong labels are found by what has not learned them, and right ones are left alone."""

import numpy as np
import pytest

from training.check.labels import Answers, ask, doubtful, in_confident_joint, judged, probably_wrong


def clusters(classes: int, of_each: int, spread: float = 0.35) -> tuple[np.ndarray, np.ndarray]:
    """Return features float32 [N, 16] around a centre for each class, and the classes int64 [N]."""
    rng = np.random.default_rng(0)
    truth = np.repeat(np.arange(classes), of_each)
    centres = rng.normal(0, 1, (classes, 16))
    return (centres[truth] + rng.normal(0, spread, (len(truth), 16))).astype(np.float32), truth


@pytest.mark.keras
@pytest.mark.parametrize("classes", [2, 5])
def test_planted_errors_are_found(classes: int) -> None:
    """Of a tenth wrong labels most are told, with the right one, and next to nothing else."""
    features, truth = clusters(classes, 60)
    given = truth.copy()
    wrong = np.random.default_rng(1).choice(len(truth), len(truth) // 10, replace=False)
    given[wrong] = (truth[wrong] + 1) % classes
    found = probably_wrong(ask(features, given, classes, np.arange(len(truth))), given)
    assert len({place for place, *_ in found} & set(wrong.tolist())) >= 0.8 * len(wrong)
    assert np.mean([truth[place] == class_ for place, class_, _ in found]) >= 0.9
    certainties = [certainty for *_, certainty in found]
    assert certainties == sorted(certainties, reverse=True)


@pytest.mark.keras
def test_nothing_is_told_of_right_labels() -> None:
    """Classes that are far apart have no errors."""
    features, truth = clusters(3, 40, spread=0.1)
    assert probably_wrong(ask(features, truth, 3, np.arange(len(truth))), truth) == []


@pytest.mark.keras
def test_copies_do_not_vouch_for_one_another() -> None:
    """A picture with a wrong label that is there five times is told, since its copies are in one fold with it."""
    features, given = clusters(3, 40)
    features = np.concatenate([features, np.repeat(features[:1], 5, axis=0)])
    given = np.concatenate([given, np.full(5, 2)])
    groups = np.concatenate([np.arange(120), np.full(5, 200)])
    found = {place for place, *_ in probably_wrong(ask(features, given, 3, groups), given)}
    assert found >= set(range(120, 125))


@pytest.mark.keras
@pytest.mark.parametrize("given", [[0, 0, 0, 0], [0, 1], [0, 1, 1, 1, 1], [0, 0, 1, 1]])
def test_too_few_pictures_are_no_error(given: list[int]) -> None:
    """One class, one picture of a class, and two of each: nothing is told, and nothing fails."""
    features = np.random.default_rng(0).normal(size=(len(given), 8)).astype(np.float32)
    classes = np.array(given)
    groups = np.zeros(len(given), np.int64) if given == [0, 0, 1, 1] else np.arange(len(given))
    assert probably_wrong(ask(features, classes, 2, groups), classes) == []


def joint(pictures: int, labels: int) -> tuple[np.ndarray, np.ndarray]:
    """Return features float32 [N, 16] that are sums of a direction for each label, and the labels int64 [N, labels]."""
    rng = np.random.default_rng(0)
    has = (rng.random((pictures, labels)) < 0.4).astype(np.int64)
    directions = rng.normal(0, 1, (labels, 16))
    return (has @ directions + rng.normal(0, 0.25, (pictures, 16))).astype(np.float32), has


@pytest.mark.keras
def test_labels_that_are_missing_or_too_many_are_found() -> None:
    """Where a picture may have several: nearly all that were planted, and next to nothing else; each for itself."""
    features, truth = joint(300, 4)
    given = truth.copy()
    planted = {(place, place % 4) for place in np.random.default_rng(1).choice(300, 20, replace=False).tolist()}
    for place, label in planted:
        given[place, label] = 1 - given[place, label]
    found = doubtful(ask(features, given, 4, np.arange(300)), given)
    told = {(place, label) for place, label, _ in found}
    assert len(told & planted) >= 0.9 * len(planted)
    assert len(told & planted) >= 0.9 * len(told)
    assert {int(given[place, label]) for place, label in told} == {0, 1}
    certainties = [certainty for *_, certainty in found]
    assert certainties == sorted(certainties, reverse=True)


@pytest.mark.keras
@pytest.mark.parametrize(
    "given", [[[0], [0], [0]], [[1], [1], [1]], [[1], [0]], [[1, 0], [0, 0], [0, 0], [0, 1]], [[0, 0], [1, 1], [1, 1]]]
)
def test_too_few_pictures_with_several_labels_are_no_error(given: list[list[int]]) -> None:
    """Labels that none has, that all have, and that one has: nothing is told, and nothing fails."""
    classes = np.array(given)
    features = np.random.default_rng(0).normal(size=(len(given), 8)).astype(np.float32)
    assert doubtful(ask(features, classes, classes.shape[1], np.arange(len(given))), classes) == []


def test_the_confident_joint_counts_as_in_the_paper() -> None:
    """A picture counts where its probability of another class reaches the mean of that class's own pictures."""
    probabilities = np.array([[0.9, 0.1], [0.7, 0.3], [0.15, 0.85], [0.2, 0.8], [0.45, 0.55], [np.nan, np.nan]])
    classes = np.array([0, 0, 1, 1, 0, 1])
    # Thresholds: (0.9 + 0.7 + 0.45) / 3 = 0.683 and (0.85 + 0.8) / 2 = 0.825.
    assert not in_confident_joint(Answers(probabilities, 1.0), classes).any()
    classes[2] = 0  # (0.9 + 0.7 + 0.15 + 0.45) / 4 = 0.55 and 0.8
    assert np.flatnonzero(in_confident_joint(Answers(probabilities, 1.0), classes)).tolist() == [2]


def answering(classes: np.ndarray, changes: dict[int, int], number: int) -> Answers:
    """Return answers that are as sure as can be of each picture's class, or of that in ``changes``."""
    answered = classes.copy()
    answered[list(changes)] = list(changes.values())
    return Answers(np.eye(number)[answered], 1.0)


def test_what_the_network_cannot_tell_is_no_wrong_label() -> None:
    """A rare class that looks like a frequent one would be called wrong as a whole, and be moved away by --apply."""
    classes = np.repeat([0, 1, 2], [200, 40, 40])
    subtle = dict.fromkeys(range(200, 213), 0)  # a third of the rare class
    single = {245: 0, 250: 1}
    found = probably_wrong(answering(classes, subtle | single, 3), classes)
    assert [(place, class_) for place, class_, _ in found] == [(245, 0), (250, 1)]


def test_two_of_five_pictures_are_no_two_wrong_labels() -> None:
    """Of a class that has hardly any, those that look like the frequent one are what it needs most."""
    classes = np.repeat([0, 1], [200, 5])
    assert probably_wrong(answering(classes, {200: 0, 201: 0}, 2), classes) == []
    assert [place for place, *_ in probably_wrong(answering(classes, {200: 0}, 2), classes)] == [200]


def test_a_class_of_which_most_are_taken_for_others_is_not_judged() -> None:
    """Four pictures of each of many classes teach too little for a verdict on those that are mostly answered wrong."""
    classes = np.repeat(np.arange(50), 4)
    changes = {place: (classes[place] + 7) % 50 for place in range(60) if place % 4 < 3}  # three of four
    answers = answering(classes, changes | {100: 3}, 50)
    assert [place for place, *_ in probably_wrong(answers, classes)] == [100]
    assert judged(answers, classes).sum() == 140
