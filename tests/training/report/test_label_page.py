"""The report of a version that tells several labels has a line for each, and needs nothing else."""

import dataclasses

import numpy as np
import pytest

from tests.reports import Page, contents
from training.data.dataset import Split
from training.evaluation.multi_label import MultiLabelEvaluation
from training.publish.report import comparison_of, page_of
from training.report.contents import Contents

LABELS = ("red", "<b>green</b>", "blue")


def several(pictures: int = 40, labels: tuple[str, ...] = LABELS, *, shown: bool = True) -> Contents:
    """Return contents in which the first picture has a red that is not told, and the second a green that it has not."""
    rng = np.random.default_rng(0)
    has = rng.random((pictures, len(labels))) < 0.4
    has[0, 0], has[1, 1] = True, False
    probabilities = np.where(has, 0.9, 0.1).astype(np.float32)
    probabilities[0, 0], probabilities[1, 1] = 0.05, 0.97
    images = rng.integers(256, size=(pictures, 32, 32, 3), dtype=np.uint8)
    names = tuple(f"{number}.png" for number in range(pictures))
    split = Split(images, has.astype(np.int64), names=names)
    evaluation = MultiLabelEvaluation(labels, "drawn test", split, probabilities, np.full(len(labels), 0.5))
    return dataclasses.replace(contents(evaluation), pictures=shown)


def test_each_label_has_its_line_and_its_mistakes() -> None:
    """The one that is ranked worst first; mistakes are shown with what they have and what was told."""
    page = page_of(several())
    text = " ".join(Page(page).text.split())
    assert "All labels right 95.00% 38 of 40 pictures" in text
    assert "Mean average precision" in text
    assert "Micro F1" in text
    assert text.index("label pictures average precision threshold") < text.index("red")
    assert "red 5.0% not told, but it has it" in text
    assert "<b>green</b> 97.0% told, but it has it not" in text
    assert "<b>" not in page
    assert "Labels that stand together" in text
    read = Page(page)
    assert not {"script", "link", "iframe"} & {tag for tag, _ in read.elements}
    anchors = {attributes.get("id") for _, attributes in read.elements}
    links = {attributes["href"][1:] for tag, attributes in read.elements if tag == "a"}
    assert links <= anchors, "every link leads somewhere"


def test_pictures_may_be_left_out() -> None:
    """Neither thumbnails nor names of files are there then, and it says so."""
    page = page_of(several(shown=False))
    assert "<img" not in page
    assert ".png" not in page
    assert "as --no-pictures asks for" in page


def test_two_versions_stand_side_by_side() -> None:
    """What the second tells otherwise, rightly and wrongly, with its pictures; labels by what they lost."""
    before, after = several(), several()
    assert isinstance(after.evaluation, MultiLabelEvaluation)
    probabilities = after.evaluation.probabilities.copy()
    probabilities[0, 0], probabilities[2, 2] = 0.9, 1 - probabilities[2, 2]  # one is put right, another is broken
    better = dataclasses.replace(after.evaluation, probabilities=probabilities)
    before = dataclasses.replace(before, title="version 1")
    after = dataclasses.replace(after, title="version 2", evaluation=better)
    page = comparison_of("colours", before, after)
    text = " ".join(Page(page).text.split())
    assert "Fixed: 1" in text
    assert "Broken: 1" in text
    assert "Wrong in another way: 0" in text
    assert "They tell other labels of 2 pictures." in text
    assert "Paired bootstrap over the images: p = " in text
    has = np.array(LABELS)[better.has[0]].tolist()
    assert f"has {', '.join(has)} version 1: {', '.join(each for each in has if each != 'red') or 'no label'}" in text
    table = text[text.index("label pictures version 1 version 2 difference") :]
    assert table.index("blue") < table.index("<b>green</b>") < table.index("red"), "what lost most stands first"
    assert "<b>" not in page
    assert not {"script", "link", "iframe"} & {tag for tag, _ in Page(page).elements}
    without = comparison_of("colours", before, dataclasses.replace(after, pictures=False))
    assert "<img" not in without
    assert ".png" not in without


@pytest.mark.parametrize("number", [1, 21, 300])
def test_any_number_of_labels_has_room(number: int) -> None:
    """Of many, the pairs that most pictures have are listed in place of a table of all; the page stays small."""
    page = page_of(several(labels=tuple(f"label {place}" for place in range(number)) if number > 1 else ("a", "b")))
    assert len(page) < 3_000_000
    assert ("The pairs that most pictures have" in page) == (number > 20)
