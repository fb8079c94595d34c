"""Which class is taken for which, and the pictures of it."""

from tests.reports import evaluation
from training.report.confusion import Confusion


def test_pictures_are_in_the_cells_that_count_them() -> None:
    """Wrong answers stand with the surest first, right ones with the least sure first; every picture is in one cell."""
    answered = evaluation({0: 1, 1: 1, 2: 2, 29: 0})
    confusion = Confusion.of(answered)
    assert {cell: len(pictures) for cell, pictures in confusion.pictures.items()} == {
        (0, 0): 7, (0, 1): 2, (0, 2): 1, (1, 1): 10, (2, 0): 1, (2, 2): 9,
    }  # fmt: skip
    assert confusion.pictures[0, 1].tolist() == [1, 0]
    assert sorted(index for pictures in confusion.pictures.values() for index in pictures.tolist()) == list(range(30))
    assert confusion.mistakes == [(0, 1), (0, 2), (2, 0)]
    assert [confusion.taken_for(label) for label in range(3)] == [1, None, 0]
    answered.probabilities[11] = (0.2, 0.6, 0.2)
    assert Confusion.of(answered).pictures[1, 1][0] == 11
