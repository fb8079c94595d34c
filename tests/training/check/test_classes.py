"""Classes that are few, uneven or confused are told, and others are not."""

import numpy as np

from training.check.classes import confused, in_words
from training.check.labels import Answers


def test_few_and_uneven_classes_are_told() -> None:
    """With their numbers, and nothing is said of classes that are about alike."""
    assert list(in_words({"cat": 300, "dog": 12, "eel": 40})) == [
        "Few pictures, under 20: dog (12).",
        "Uneven classes: 300 pictures of cat, and 12 of dog.",
    ]
    assert list(in_words({"cat": 100, "dog": 30})) == []


def test_classes_that_are_answered_as_one_another_are_told() -> None:
    """By the share of both, also where only one is taken for the other; unanswered pictures do not count."""
    classes = np.repeat([0, 1, 2], 20)
    answered = classes.copy()
    answered[:10] = 1  # half of the first as the second
    answered[45] = 0  # one picture is chance
    probabilities = np.eye(3)[answered] * 0.8 + 0.1
    probabilities[59] = np.nan
    assert confused(Answers(probabilities, 1.0), classes, ("a", "b", "c")) == [("a", "b", 0.25)]


def test_a_rare_class_that_is_taken_for_a_frequent_one_is_told() -> None:
    """Though those are few of both together: half of 20 pictures beside 400 others."""
    classes = np.repeat([0, 1], [400, 20])
    answered = classes.copy()
    answered[400:410] = 0
    assert confused(Answers(np.eye(2)[answered], 1.0), classes, ("a", "b")) == [("a", "b", 0.25)]
