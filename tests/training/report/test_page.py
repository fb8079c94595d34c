"""A report shows what came of a training, needs nothing else, and stays small whatever it is about."""

import base64
import dataclasses
import hashlib
import re

import numpy as np
import pytest

from tests.reports import COLOURS, LABELS, Page, contents, evaluation
from training.data.dataset import LeftOut, Split
from training.data.findings import Example, Finding
from training.evaluation.accuracy import Evaluation
from training.report.page import comparison_page, report_page, short

HOSTILE = ("<script>alert(1)</script>", "\"'onload='x' $猫$", "a\u202eb & \N{ROLLING ON THE FLOOR LAUGHING}")
WRONG = {0: 1, 1: 1, 2: 2, 29: 0}
MOST = 3_000_000  # bytes


def panel(page: str, anchor: str) -> str:
    """Return the part of a page that a cell of the matrix leads to."""
    [found] = re.findall(rf'<section class="panel" id="{anchor}".*?</section>', page, re.DOTALL)
    return str(found)


def closest(pixels: np.ndarray) -> str:
    """Return the label whose colour a picture has."""
    return LABELS[int(np.abs(np.array(COLOURS) - pixels.mean(axis=(0, 1))).sum(axis=1).argmin())]


def test_the_figures_are_those_of_the_answers() -> None:
    """Accuracy with its interval, a line for each class, size and time, origin and command are on the page."""
    text = " ".join(Page(report_page(contents(evaluation(WRONG)))).text.split())
    assert "Accuracy 86.67% 26 of 30 right" in text
    assert "95% interval 70.3 to 94.7%" in text
    assert "red 10 87.50% 70.00% green (2)" in text
    assert "green 10 83.33% 100.00%" in text
    assert "blue 10 90.00% 90.00% red (1)" in text
    assert "float32 13.5 MB 2.25 ms 97% of 30 images" in text
    assert "int8 3.5 MB 0.75 ms 96% of 20 images" in text
    assert "code revision abc" in text
    assert "darkroom train --config config.toml" in text
    assert text.index("red 10") < text.index("blue 10") < text.index("green 10"), "the worst class stands first"


def test_every_cell_leads_to_its_pictures() -> None:
    """A number of the matrix is a link to the pictures that it counts, the surest mistakes first."""
    page = report_page(contents(evaluation(WRONG)))
    read = Page(page)
    links = {attributes["href"] for tag, attributes in read.elements if tag == "a" and "cell-" in attributes["href"]}
    assert links == {f"#cell-{cell}" for cell in ("0-0", "0-1", "0-2", "1-1", "2-0", "2-2")}
    found = panel(page, "cell-0-1")
    assert [closest(picture) for picture in Page(found).pictures()] == ["red", "red"]
    assert re.findall(r"test/red/\d+\.png", found) == ["test/red/1.png", "test/red/0.png"]
    assert "7 pictures" in panel(page, "cell-0-0")
    assert [closest(picture) for picture in Page(panel(page, "cell-2-0")).pictures()] == ["blue"]


def test_the_most_confident_mistakes_come_first() -> None:
    """Each is shown with its answer, its label and the name of its file."""
    page = report_page(contents(evaluation(WRONG)))
    _, _, section = page.partition('<section id="mistakes"')
    section, _, _ = section.partition("</section>")
    assert re.findall(r"test/\w+/\d+\.png", section) == [
        f"test/{name}.png" for name in ("blue/29", "red/2", "red/1", "red/0")
    ]
    assert "red 88.7%" in section
    assert "is blue" in section


def test_it_needs_nothing_and_runs_nothing() -> None:
    """No script, no handler, no style in an element, no address but of its own parts; its policy lets its style in."""
    page = report_page(contents(evaluation(WRONG), uncalibrated=evaluation({}).probabilities))
    read = Page(page)
    assert not {"script", "link", "iframe", "object", "base", "form"} & {tag for tag, _ in read.elements}
    for _, attributes in read.elements:
        assert not [name for name in attributes if name.startswith("on") or name == "style"]
        assert attributes.get("src", "data:image/webp;").startswith("data:image/webp;")
        assert attributes.get("href", "#").startswith("#")
    assert "url(" not in page
    assert "@import" not in page
    style = re.findall(r"<style>(.*?)</style>", page, re.DOTALL)
    assert len(style) == 1
    digest = base64.b64encode(hashlib.sha256(style[0].encode()).digest()).decode()
    policies = [attributes["content"] for tag, attributes in read.elements if attributes.get("http-equiv")]
    assert [f"style-src 'sha256-{digest}'" in policy and "default-src 'none'" in policy for policy in policies] == [
        True
    ]
    anchors = {attributes["id"] for _, attributes in read.elements if "id" in attributes}
    leads = {attributes["href"][1:] for tag, attributes in read.elements if tag == "a"}
    assert leads
    assert leads <= anchors


def test_names_are_text_whatever_they_say() -> None:
    """Labels, files and findings that look like HTML, or in any script, are shown as they are."""
    finding = Finding("<b>Twice</b>", 2, "Remove <i>one</i>.", (Example("<a>.png", "<u>same</u>"),))
    left_out = (LeftOut("<img src=x>.png", "<script>damaged</script>"),)
    page = report_page(contents(evaluation(WRONG, HOSTILE), findings=(finding,), left_out=left_out, title="<h1>"))
    read = Page(page)
    assert not {"script", "b", "i", "u"} & {tag for tag, _ in read.elements}
    for name in (*HOSTILE, "<b>Twice</b>: 2", "Remove <i>one</i>.", "<u>same</u>", "<img src=x>.png", "<h1>"):
        assert name in read.text
    assert report_page(contents(evaluation(WRONG, ("\udcff", "b", "c")))).encode()


def test_the_same_contents_make_the_same_page() -> None:
    """Nothing on it comes from chance or the clock."""
    assert report_page(contents(evaluation(WRONG))) == report_page(contents(evaluation(WRONG)))


def test_pictures_can_be_left_out() -> None:
    """Then there are no thumbnails and no names of files, and the figures stay."""
    left_out = (LeftOut("secret.png", "the file is empty"), LeftOut("secret 2.png", "the file is empty"))
    finding = Finding("Twice", 2, "Remove one.", (Example("secret 3.png", "same", np.zeros((8, 8, 3), np.uint8)),))
    kept = contents(evaluation(WRONG), left_out=left_out, findings=(finding,), passed_over=("secret.txt",))
    page = report_page(dataclasses.replace(kept, pictures=False))
    read = Page(page)
    assert read.pictures() == []
    assert not re.search(r"secret|\d\.png", page)
    assert "left out, as --no-pictures asks for" in read.text
    assert "2: the file is empty" in read.text
    assert "Twice: 2" in read.text
    assert 'href="#cell-' not in page
    assert "secret.png" in report_page(kept)


def test_findings_and_what_was_left_out_are_shown() -> None:
    """A finding has its examples, a file that could not be read its reason; where all could be, that is said."""
    image = np.full((40, 20, 3), COLOURS[1], np.uint8)
    finding = Finding(
        "Twice", 12, "Remove one.", (Example("a/1.png", "as b/2.png", image), Example("a/2.png", "alone"))
    )
    left_out = (LeftOut("a/3.png", "the file is empty"),)
    page = report_page(contents(evaluation({}), findings=(finding,), left_out=left_out))
    _, _, section = page.partition('<section id="data"')
    read = Page(section.partition("</section>")[0])
    assert [closest(picture) for picture in read.pictures()] == ["green"]
    assert read.pictures()[0].shape == (40, 20, 3)
    for words in ("Twice: 12", "Remove one.", "a/1.png", "as b/2.png", "a/3.png", "1: the file is empty"):
        assert words in read.text
    assert "Every picture could be read." in Page(report_page(contents(evaluation({})))).text


def test_nothing_wrong_is_said_so() -> None:
    """Without a mistake there is no section of them; without epochs it is said that there are no curves."""
    page = report_page(contents(evaluation({}), history=[]))
    assert 'id="mistakes"' not in page
    assert "#mistakes" not in page
    assert "There are none: nothing was trained in epochs" in page
    assert "100.00%" in page


def test_of_many_classes_the_confused_ones_are_listed() -> None:
    """Where a matrix has no room, the most frequent mistakes are a list that leads to their pictures."""
    rng = np.random.default_rng(0)
    classes = np.arange(400) % 40
    probabilities = np.full((400, 40), 0.01, np.float32)
    probabilities[np.arange(400), np.where(classes == 7, 8, classes)] = 0.9
    split = Split(rng.integers(256, size=(400, 8, 8, 3), dtype=np.uint8), classes)
    labels = tuple(f"class {number}" for number in range(40))
    page = report_page(contents(Evaluation(labels, "made up", split, probabilities)))
    text = " ".join(Page(page).text.split())
    assert "class 7 class 8 10 100.00%" in text
    assert len(Page(panel(page, "cell-7-8")).pictures()) == 10
    assert 'class="matrix"' not in page


@pytest.mark.slow
def test_a_thousand_classes_of_fifty_thousand_pictures_stay_below_three_megabytes() -> None:
    """Also where pictures cannot be compressed and names take many bytes; there is a line for each class."""
    rng = np.random.default_rng(0)
    count, number = 50_000, 1_000
    classes = np.arange(count) % number
    answers = np.where(rng.random(count) < 0.6, classes, (classes + rng.integers(1, number, size=count)) % number)
    probabilities = np.full((count, number), 1e-5, np.float32)
    probabilities[np.arange(count), answers] = rng.uniform(0.1, 1, size=count)
    noise = rng.integers(256, size=(200, 200, 3), dtype=np.uint8)
    images = np.broadcast_to(noise, (count, *noise.shape))
    labels = tuple(f"{index} {'&' * 250}" for index in range(number))
    names = tuple(f"test/{index}{'<' * 250}.png" for index in range(count))
    left_out = tuple(LeftOut(f"{'<' * 300}{index}", f"{'&' * 300}{index}") for index in range(5_000))
    history = [
        {"accuracy": 0.5, "loss": 1 / (1 + epoch), "val_accuracy": 0.4, "val_loss": 0.3} for epoch in range(1_000)
    ]
    answered = Evaluation(labels, "made up", Split(images, classes, names=names), probabilities)
    page = report_page(contents(answered, left_out=left_out, history=history))
    assert len(page.encode()) < MOST
    assert page.count("<img ") > 100
    assert len(set(re.findall(r'<th scope="row"><bdi>(\d+) &amp;', page))) == number
    rolled = Evaluation(labels, "made up", answered.split, np.roll(probabilities, 1, axis=1))
    assert len(comparison_page("both", contents(answered), contents(rolled)).encode()) < MOST


def test_a_comparison_shows_what_has_changed() -> None:
    """What was wrong and is right, what was right and is wrong, and what is wrong in another way, with both answers."""
    before = contents(evaluation({0: 1, 1: 1, 20: 0}), title="version 1")
    after = contents(evaluation({1: 2, 15: 0}), title="version 2")
    page = comparison_page("colours", before, after)
    for anchor, heading, names in (
        ("fixed", "Fixed: 2", {"test/red/0.png", "test/blue/20.png"}),
        ("broken", "Broken: 1", {"test/green/15.png"}),
        ("otherwise", "Wrong in another way: 1", {"test/red/1.png"}),
    ):
        section = page.partition(f'<section id="{anchor}"')[2].partition("</section>")[0]
        assert heading in section
        assert set(re.findall(r"test/\w+/\d+\.png", section)) == names
        assert [closest(picture) for picture in Page(section).pictures()] == [
            name.split("/")[1] for name in re.findall(r"test/\w+/\d+\.png", section)
        ]
    text = " ".join(Page(page).text.split())
    assert "version 1: green 51.3% version 2: blue 51.3%" in text
    assert "26 pictures are right by both, 2 by version 2 alone, 1 by version 1 alone, and 1 by neither" in text
    assert "McNemar's exact test: p = 1; no difference beyond noise at a level of 0.05." in text
    assert "green 10 100.00% 90.00% -10.00" in text
    assert "script" not in {tag for tag, _ in Page(page).elements}


@pytest.mark.parametrize(("name", "shown"), [("a" * 60, "a" * 60), ("ab" * 60, f"{'ab' * 14}a…{'b'}{'ab' * 14}")])
def test_long_names_are_cut_in_the_middle(name: str, shown: str) -> None:
    """Their beginning and their end, which tells one from another, stay."""
    assert short(name) == shown
