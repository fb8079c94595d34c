"""The report of a training in a real Chromium: as a file, and as the service shows it."""

import importlib.resources
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from playwright.sync_api import Browser, Page, expect

from artifact.layout import REPORT
from tests.end_to_end.browser import overflow, tab_to, visit
from tests.models import add_files, copy
from tests.reports import contents, evaluation
from tests.service.running import start
from training.data.dataset import LeftOut, Split
from training.data.findings import Example, Finding
from training.evaluation.multi_label import MultiLabelEvaluation
from training.publish.report import comparison_of
from training.report.page import comparison_page, report_page

pytestmark = [pytest.mark.process, pytest.mark.slow]

LABELS = ("<script>document.title = 'taken'</script>", "猫のとても長い名前" * 6, "blue")
WRONG = {0: 1, 1: 1, 2: 2, 29: 0}


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a report, ``report.html``, and a comparison, ``comparison.html``, of everything that they show.

    ``labels.html`` is a comparison of versions that tell several labels.
    """
    folder = tmp_path_factory.mktemp("pages")
    finding = Finding("Twice", 2, "Remove one.", (Example("a/1.png", "as b/2.png", np.zeros((40, 20, 3), np.uint8)),))
    answered = evaluation(WRONG, LABELS)
    after = contents(
        answered,
        uncalibrated=evaluation({5: 1}, LABELS).probabilities,
        findings=(finding,),
        left_out=(LeftOut("a/3.png", "the file is empty"),),
        warnings=("It was trained on some of these pictures.",),
    )
    before = contents(evaluation({0: 2, 12: 2, 13: 0}, LABELS), title="version 1")
    (folder / "report.html").write_text(report_page(after), encoding="utf-8")
    (folder / "comparison.html").write_text(comparison_page("colours", before, after), encoding="utf-8")
    several = [contents(_several(LABELS, wrong), title=f"version {wrong}") for wrong in (1, 2)]
    (folder / "labels.html").write_text(comparison_of("colours", *several), encoding="utf-8")
    return folder


def _several(labels: tuple[str, ...], wrong: int) -> MultiLabelEvaluation:
    """Return answers of which every so many are wrong."""
    rng = np.random.default_rng(0)
    has = rng.random((24, len(labels))) < 0.4
    probabilities = np.where(has, 0.9, 0.1).astype(np.float32)
    probabilities[wrong :: wrong + 2] = 0.7
    images = rng.integers(256, size=(24, 32, 32, 3), dtype=np.uint8)
    split = Split(images, has.astype(np.int64), names=tuple(f"{number}.png" for number in range(24)))
    return MultiLabelEvaluation(labels, "drawn test", split, probabilities, np.full(len(labels), 0.5))


@pytest.fixture(scope="module")
def url(published: Path, pages: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a service whose model carries that report."""
    models = tmp_path_factory.mktemp("models")
    version = copy(published, models, 1)
    add_files(version, {REPORT: (pages / "report.html").read_bytes()})
    service = start({"MODEL_DIR": str(models), "DRAIN_SECONDS": "0"})
    service.wait_until_ready()
    yield service.url
    service.kill()


def seen(page: Page) -> int:
    """Return how many pictures are loaded and in sight."""
    loaded = "images => images.filter(image => image.naturalWidth && image.checkVisibility()).length"
    found: int = page.locator("main li img").evaluate_all(loaded)
    return found


def test_the_service_shows_it(browser: Browser, url: str) -> None:
    """A link on the page leads there; pictures, style and diagrams are let through, and labels run nothing."""
    with visit(browser, url) as page:
        page.get_by_role("link", name="Model").click()
        expect(page.get_by_role("heading", name="colours", exact=True)).to_be_visible()
        expect(page).to_have_title("colours, version 1")
        assert seen(page) == 5  # the mistakes, and one of the finding
        expect(page.get_by_text("<script>document").first).to_be_visible()
        assert page.evaluate("getComputedStyle(document.querySelector('.bar')).fillOpacity") == "0.55"
        page.get_by_text("The model card", exact=True).click()
        expect(page.get_by_text("Tells red, green and blue apart.")).to_be_visible()
        page.get_by_role("link", name="Classify").click()
        expect(page.get_by_role("button", name="Choose pictures")).to_be_visible()


@pytest.mark.parametrize("javascript", [True, False])
def test_a_cell_shows_its_pictures(browser: Browser, pages: Path, javascript: bool) -> None:
    """From a file and without a script: a number of the matrix brings its pictures, by the keyboard as well."""
    with visit(browser, f"file://{pages}", "/report.html", java_script_enabled=javascript) as page:
        cell = page.get_by_role("link", name="taken for blue: 1")
        assert cell.get_attribute("href") == "#cell-0-2"
        panel = page.locator("#cell-0-2")
        expect(panel).to_be_hidden()
        cell.focus()
        page.keyboard.press("Enter")
        expect(panel).to_be_visible()
        expect(panel).to_be_in_viewport()
        expect(panel.get_by_role("img")).to_have_count(1)
        panel.get_by_role("link", name="Back to all").click()
        expect(panel).to_be_hidden()
        expect(page.get_by_role("heading", name="What is taken for what")).to_be_in_viewport()


def test_the_keyboard_comes_to_everything(browser: Browser, pages: Path) -> None:
    """Tab reaches the links of the sections, the cells and the table behind the diagram, which Enter opens."""
    with visit(browser, f"file://{pages}", "/report.html") as page:
        tab_to(page, "Classes")
        tab_to(page, "7")
        tab_to(page, "The same as a table")
        page.keyboard.press("Enter")
        expect(page.get_by_role("cell", name="88.75%").or_(page.get_by_text("93% to 100%")).first).to_be_visible()


@pytest.mark.parametrize("name", ["/report.html", "/comparison.html", "/labels.html"])
@pytest.mark.parametrize("width", [320, 390])
def test_a_phone_has_room_for_all(browser: Browser, pages: Path, name: str, width: int) -> None:
    """The page does not move sideways; what is wider moves within its own frame."""
    with visit(browser, f"file://{pages}", name, viewport={"width": width, "height": 640}) as page:
        assert overflow(page) == 0
        for summary in page.locator("summary").all():
            summary.click()
        assert overflow(page) == 0


@pytest.mark.parametrize(("scheme", "ground"), [("light", "rgb(246, 247, 247)"), ("dark", "rgb(17, 22, 21)")])
def test_it_is_light_and_dark_and_white_on_paper(browser: Browser, pages: Path, scheme: str, ground: str) -> None:
    """The page has its reader's colours on a screen; in print it is white, and tables are whole."""
    with visit(browser, f"file://{pages}", "/report.html", color_scheme=scheme) as page:
        assert page.evaluate("getComputedStyle(document.body).backgroundColor") == ground
        page.emulate_media(media="print")
        assert page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
        assert page.evaluate("getComputedStyle(document.body).color") == "rgb(0, 0, 0)"
        expect(page.get_by_role("navigation")).to_be_hidden()
        assert page.evaluate("getComputedStyle(document.querySelector('.tall')).maxHeight") == "none"


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("which", ["report", "comparison", "labels", "service"])
def test_axe_has_nothing_to_object(browser: Browser, url: str, pages: Path, which: str, scheme: str) -> None:
    """Contrast, names, roles and structure follow axe-core's rules, with everything open that can be."""
    axe = importlib.resources.files("axe_playwright_python") / "axe.min.js"
    place = (url, "/model/card") if which == "service" else (f"file://{pages}", f"/{which}.html")
    with visit(browser, *place, color_scheme=scheme, bypass_csp=True) as page:
        for summary in page.locator("summary").all():
            summary.click()
        if which in ("report", "service"):
            page.get_by_role("link", name="taken for blue: 1").click()
        page.add_script_tag(content=axe.read_text(encoding="utf-8"))
        found = page.evaluate("axe.run()")
        assert len(found["passes"]) > 15
        assert [(fault["id"], [node["html"] for node in fault["nodes"]]) for fault in found["violations"]] == []
