"""What is wrong with a single picture is told by its kind, and an ordinary one is left alone."""

from pathlib import Path

import pytest

from training.check.findings import Kind
from training.check.pictures import Facts
from training.check.quality import find, range_in_words

GOOD = Facts(b"", b"", "JPEG", 400, 300, 30.0, 220.0, 500.0)


def kinds(changed: Facts, path: str = "a/odd.jpg") -> list[Kind]:
    """Return what is told of one picture among ten good ones; nothing is told of those."""
    found = list(find([GOOD] * 10 + [changed], [Path("a/good.jpeg")] * 10 + [Path(path)]))
    assert {place for place, *_ in found} <= {10}
    return [kind for _, kind, *_ in found]


def facts(**changes: object) -> Facts:
    """Return the facts of a good picture with changes."""
    return Facts(**{**vars(GOOD), **changes})


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, []),
        ({"darkest": 128.0, "brightest": 129.0, "sharpness": 0.5}, [Kind.BLANK]),
        ({"darkest": 2.0, "brightest": 20.0}, [Kind.DARK]),
        ({"darkest": 240.0, "brightest": 255.0}, [Kind.BRIGHT]),
        ({"sharpness": 3.0}, [Kind.BLURRED]),
        ({"width": 40, "height": 60}, [Kind.TINY]),
        ({"width": 4000, "height": 300}, [Kind.ODD]),
        ({"format": "PNG"}, [Kind.ODD]),
        ({"format": "MPO"}, []),
    ],
)
def test_each_kind_is_told(changes: dict[str, object], expected: list[Kind]) -> None:
    """One fault, one kind; several pictures in one JPEG, as phones write them, are none."""
    assert kinds(facts(**changes)) == expected


def test_a_folder_of_tiny_pictures_is_no_folder_of_faults() -> None:
    """What all are is what they are meant to be: tiny, and unsharp when they are made larger."""
    small = facts(width=32, height=32, sharpness=8.0)
    assert list(find([small] * 20, [Path("a.jpg")] * 20)) == []


def test_a_folder_that_is_nearly_black_is_told_once() -> None:
    """What holds for most pictures is in how they were saved; what to do is said of all."""
    dark = facts(darkest=0.0, brightest=14.0)
    assert list(range_in_words([dark] * 3 + [GOOD] * 4)) == []
    (said,) = range_in_words([dark] * 4 + [GOOD] * 3)
    assert said.startswith("Most pictures are nearly black")
