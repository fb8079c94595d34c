"""The page of a check in a real Chromium, opened as a file."""

import importlib.resources
from pathlib import Path

import pytest
from PIL import Image
from playwright.sync_api import Browser, expect

from tests.end_to_end.browser import overflow, visit
from training.check.findings import LEAVE_OUT, MOVE_TO, Kind, Report, Suggestion
from training.check.page import write_page

pytestmark = [pytest.mark.process, pytest.mark.slow]


@pytest.fixture
def page_file(tmp_path: Path) -> Path:
    """A page with a finding of each kind, more than are shown of one, and names that are made to break it."""
    folder = tmp_path / "Bilder <ü>"
    (folder / "a").mkdir(parents=True)
    names = ["a/1.png", "a/<b>2&.png", "a/hochkant.png"]
    for name, size in zip(names, [(320, 200), (200, 200), (100, 400)], strict=True):
        Image.new("RGB", size, (200, 80, 40)).save(folder / name)
    found = [Suggestion(names[0], kind, LEAVE_OUT, 0.9, "why <script>", tuple(names[1:])) for kind in Kind]
    found += [Suggestion(names[2], Kind.WRONG_LABEL, f"{MOVE_TO}b", 0.8, "likelier") for _ in range(60)]
    found.append(Suggestion("a/gone.png", Kind.DAMAGED, LEAVE_OUT, 1.0, "cut short"))
    report = Report(folder, 3, {"a": 3, "b": 0}, tuple(found), ("Few pictures.",), {"PNG": 3}, (100, 200, 200))
    file = tmp_path / "check.html"
    write_page(report, file)
    return file


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_page_works_from_a_file(page_file: Path, browser: Browser, scheme: str) -> None:
    """It asks for nothing beside itself, shows every kind with thumbnails in their shape, and is accessible."""
    with visit(browser, f"file://{page_file.parent}", f"/{page_file.name}", color_scheme=scheme) as page:
        expect(page.get_by_role("heading", level=1)).to_have_text("Bilder <ü>")
        for kind in Kind:
            expect(page.get_by_role("region", name=kind.heading)).to_be_visible()
        expect(page.get_by_text("why <script>").first).to_be_visible()
        expect(page.get_by_text("cannot be shown")).to_have_count(1)
        tall = page.get_by_role("img", name="a/hochkant.png").first
        assert tall.evaluate("image => image.naturalHeight / image.naturalWidth") == 4
        expect(page.get_by_role("region", name=Kind.WRONG_LABEL.heading).get_by_role("listitem")).to_have_count(48)
        axe = importlib.resources.files("axe_playwright_python") / "axe.min.js"
        page.evaluate(axe.read_text(encoding="utf-8"))  # the page allows no scripts
        violations = page.evaluate("axe.run()")["violations"]
        assert [(each["id"], [node["html"] for node in each["nodes"]]) for each in violations] == []


def test_the_page_fits_a_telephone(page_file: Path, browser: Browser) -> None:
    """Nothing lies beside the window."""
    with visit(
        browser, f"file://{page_file.parent}", f"/{page_file.name}", viewport={"width": 360, "height": 740}
    ) as page:
        assert overflow(page) == 0
