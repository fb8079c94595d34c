"""The pictures of the page in the documents, taken of the real page; ``make screenshots`` writes them."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from PIL import Image, ImageStat
from playwright.sync_api import Browser, expect

from tests.end_to_end.browser import visit
from tests.service.running import RunningService, start

pytestmark = [pytest.mark.process, pytest.mark.slow]

WIDTH, HEIGHT = 1000, 700
MOST_BYTES = 200_000


@pytest.fixture(scope="module")
def service(root: Path) -> Iterator[RunningService]:
    """A service with the bundled model."""
    running = start({"MODEL_DIR": str(root / "models"), "DRAIN_SECONDS": "0"})
    try:
        running.wait_until_ready()
        yield running
    finally:
        running.kill()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_page_looks_as_in_the_documents(
    root: Path, browser: Browser, service: RunningService, pytestconfig: pytest.Config, tmp_path: Path, scheme: str
) -> None:
    """With the bundled pictures on it, the page shows an answer for each, in the light and in the dark."""
    pictures = sorted((root / "docs" / "pictures").iterdir())
    size = {"width": WIDTH, "height": HEIGHT}
    shown = root / "docs" / "images" / f"page-{scheme}.png"
    taken = tmp_path / shown.name
    with visit(browser, service.url, color_scheme=scheme, viewport=size) as page:
        page.locator("input[type=file]").first.set_input_files([str(picture) for picture in pictures])
        cards = page.locator("#cards > li")
        expect(cards.filter(has=page.locator(".answers li"))).to_have_count(len(pictures))
        page.screenshot(path=taken, full_page=True)
    if pytestconfig.getoption("--write-screenshots"):
        with Image.open(taken) as picture:
            picture.quantize(128).save(shown, optimize=True)
    with Image.open(shown) as picture, Image.open(taken) as now:
        assert picture.width == now.width == WIDTH
        assert (ImageStat.Stat(now.convert("L")).mean[0] > 128) == (scheme == "light")
    assert shown.stat().st_size < MOST_BYTES
    assert f"docs/images/{shown.name}" in (root / "README.md").read_text(encoding="utf-8")
