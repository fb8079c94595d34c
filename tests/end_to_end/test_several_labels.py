"""Several labels of a picture, as people see them: on the service's page, and in the report of a training."""

import importlib.resources
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, expect

from artifact.layout import REPORT
from tests.end_to_end.browser import overflow, visit
from tests.end_to_end.test_page import answers, card, choose, save
from tests.models import add_files, copy
from tests.service.pictures import plain
from tests.service.running import start
from tests.training.report.test_label_page import several
from training.publish.report import page_of

pytestmark = [pytest.mark.process, pytest.mark.slow]


@pytest.fixture(scope="module")
def url(published: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a service whose model tells several colours, and carries a report of such a training."""
    models = tmp_path_factory.mktemp("models")
    version = copy(published, models, 1, thresholds=(0.4, 0.4, 0.5))
    add_files(version, {REPORT: page_of(several()).encode()})
    service = start({"MODEL_DIR": str(models), "DRAIN_SECONDS": "0"})
    service.wait_until_ready()
    yield service.url
    service.kill()


def test_all_labels_of_a_picture_stand_out(browser: Browser, url: str, tmp_path: Path) -> None:
    """Yellow is red and green, white is neither by these thresholds; it is read out, and sorted by what was found."""
    with visit(browser, url) as page:
        expect(page.locator("#model")).to_contain_text("colours, version 1")
        choose(page, save(tmp_path, "yellow.png", plain("yellow")), save(tmp_path, "white.png", plain("white")))
        yellow = answers(page, "yellow.png")
        assert {line.split()[0] for line in yellow[:2]} == {"red", "green"}
        told = card(page, "yellow.png").locator(".answers li:not(.other)")
        expect(told).to_have_count(2)
        assert told.evaluate_all("lines => lines.map(line => getComputedStyle(line).fontWeight)") == ["600", "600"]
        expect(card(page, "yellow.png").locator(".none")).to_be_hidden()
        assert len(answers(page, "white.png")) == 3
        expect(card(page, "white.png").locator(".none")).to_have_text("None of the labels reaches its threshold.")
        expect(card(page, "white.png").locator(".answers li:not(.other)")).to_have_count(0)
    with visit(browser, url) as page:
        choose(page, save(tmp_path, "white.png", plain("white")))
        expect(page.get_by_role("status").filter(has_text="white.png: none of the labels.")).to_have_count(1)


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("path", ["/", "/model/card"])
def test_axe_has_nothing_to_object(browser: Browser, url: str, tmp_path: Path, path: str, scheme: str) -> None:
    """Contrast, names, roles and structure follow axe-core's rules, and nothing lies beside a narrow window."""
    axe = importlib.resources.files("axe_playwright_python") / "axe.min.js"
    with visit(browser, url, path, color_scheme=scheme, bypass_csp=True) as page:
        if path == "/":
            choose(page, save(tmp_path, "yellow.png", plain("yellow")), save(tmp_path, "white.png", plain("white")))
            answers(page, "white.png")
            answers(page, "yellow.png")
        page.add_script_tag(content=axe.read_text(encoding="utf-8"))
        found = page.evaluate("axe.run()")
        assert len(found["passes"]) > 10
        assert [(fault["id"], [node["html"] for node in fault["nodes"]]) for fault in found["violations"]] == []
        page.set_viewport_size({"width": 360, "height": 800})
        assert overflow(page) == 0
