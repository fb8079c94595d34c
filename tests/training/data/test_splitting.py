"""Splits are the same everywhere, and every class has its part of each."""

import random
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from training.data.folders import File
from training.data.splitting import interleave, keep_together, split_off


def files(**counts: int) -> list[File]:
    """Return so many files of each class."""
    return [
        File(Path("/data", label, f"{number}.jpg"), f"{label}/{number}.jpg", label)
        for label, count in counts.items()
        for number in range(count)
    ]


def labels(chosen: list[File]) -> Counter[str]:
    """Return how many files each class has."""
    return Counter(file.label for file in chosen)


def test_each_class_gives_its_share() -> None:
    """A tenth of each class is split off, at least one of two, and none of a single one; nothing is lost."""
    given = files(many=200, some=30, few=5, two=2, one=1)
    kept, split = split_off(given, 0.1)
    assert labels(split) == {"many": 20, "some": 3, "few": 1, "two": 1}
    assert labels(kept) == {"many": 180, "some": 27, "few": 4, "two": 1, "one": 1}
    assert sorted(kept + split, key=given.index) == given


def test_the_order_on_the_disk_and_the_folders_place_do_not_matter() -> None:
    """The same files, listed in another order and lying elsewhere, are split and ordered the same."""
    given = files(a=50, b=20)
    moved = [File(Path("/elsewhere", file.name), file.name, file.label) for file in given]
    random.Random(0).shuffle(moved)
    for expected, found in zip(split_off(given, 0.1), split_off(moved, 0.1), strict=True):
        assert [file.name for file in interleave(expected)] == [file.name for file in interleave(found)]


def test_the_split_is_not_that_of_the_names_order() -> None:
    """What is split off is spread over the names: cameras number what they take one after the other."""
    _, split = split_off(files(a=1000), 0.1)
    numbers = sorted(int(file.path.stem) for file in split)
    assert numbers[0] < 100
    assert numbers[-1] > 900
    assert 350 < numbers[50] < 650


def test_one_file_more_moves_few_others() -> None:
    """Adding pictures to a class leaves nearly all of the test's pictures where they were."""
    before = set(split_off(files(a=100), 0.1)[1])
    after = set(split_off(files(a=103), 0.1)[1])
    assert len(before & after) >= 8


@pytest.mark.parametrize("held_out", [10, 37, 100, 200])
def test_the_end_has_all_classes_in_their_parts(held_out: int) -> None:
    """However many are held out from the end, each class gives its part, to within one file."""
    given = files(many=200, some=100, few=20)
    last = labels(interleave(given)[-held_out:])
    for label, count in labels(given).items():
        assert abs(last[label] - held_out * count / len(given)) <= 1


def test_each_class_keeps_a_file_to_train_on() -> None:
    """Holding out all but as many files as there are classes leaves one of each."""
    given = files(many=50, two=2, one=1)
    ordered = interleave(given)
    assert labels(ordered[:3]) == {"many": 1, "two": 1, "one": 1}
    assert sorted(ordered, key=given.index) == given


def test_near_duplicates_come_first_and_classes_keep_their_places() -> None:
    """So none is held out from the end, whatever the number; what may not move does not."""
    classes = np.array([0, 1, 0, 1, 0, 1, 0, 1, 0, 1])
    groups = np.array([0, 1, 2, 3, 4, 5, 2, 3, 4, 1])
    order = keep_together(classes, groups, np.ones(10, bool))
    assert sorted(order.tolist()) == list(range(10))
    assert np.array_equal(classes[order], classes)
    assert groups[order].tolist() == [2, 1, 2, 1, 4, 3, 4, 3, 0, 5]
    still = keep_together(classes, groups, np.arange(10) < 8)
    assert still[8:].tolist() == [8, 9]


def test_without_duplicates_the_order_stays() -> None:
    """The splits are those of the names alone."""
    assert keep_together(np.array([0, 1, 0]), np.array([2, 0, 1]), np.ones(3, bool)).tolist() == [0, 1, 2]
