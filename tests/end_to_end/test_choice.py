"""Choosing models and versions on the page, and comparing two, in a real Chromium against several real versions."""

import csv
import importlib.resources
import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, Page, expect

from tests.end_to_end.browser import overflow, visit
from tests.models import copy
from tests.service.pictures import plain
from tests.service.running import start, wait_for

pytestmark = [pytest.mark.process, pytest.mark.slow]

SAID = {"red": ("red", "red"), "lime": ("green", "blue"), "blue": ("blue", "green")}  # by versions 1 and 2


@pytest.fixture(scope="module")
def url(published: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a service with two versions of one model, which answer differently, and with another model."""
    models = tmp_path_factory.mktemp("several")
    copy(published, models, 1)
    copy(published, models, 2, labels=("red", "blue", "green"))
    copy(published, models, 1, labels=("apple", "pear", "plum"), name="fruits")
    plan = {"versions": "all", "labels": {"stable": 1, "canary": 2}}
    (models / "colours" / "serving.json").write_text(json.dumps(plan))
    service = start({"MODEL_DIR": str(models), "MODEL_NAME": "colours", "DRAIN_SECONDS": "0"})
    try:
        service.wait_until_ready()
        wait_for(lambda: service.get("/models").text.count('"AVAILABLE"') == 3, service.log)
        yield service.url
    finally:
        service.kill()


@pytest.fixture
def pictures(tmp_path: Path) -> list[Path]:
    """Return nine pictures, three of each colour."""
    paths = [tmp_path / f"{colour} {number}.png" for number in range(3) for colour in SAID]
    for path in paths:
        path.write_bytes(plain(path.name.partition(" ")[0]))
    return paths


def send(page: Page, pictures: list[Path]) -> None:
    """Send pictures, and wait for the answers."""
    page.locator("#files").set_input_files(pictures)
    answered(page, len(pictures))


def answered(page: Page, count: int) -> None:
    """Wait for the answers."""
    expect(page.locator("#status")).to_have_text(f"{count} pictures answered.")


def said(page: Page, side: int = 0) -> list[str]:
    """Return the first label on each card that is shown, of one of two versions."""
    labels: list[str] = page.locator("#cards > li").evaluate_all(
        "(cards, side) => cards.map(card => card.querySelectorAll('.side')[side].querySelector('.label').textContent)",
        side,
    )
    return labels


def expected(pictures: list[Path], side: int = 0) -> list[str]:
    """Return what a version says of the pictures."""
    return [SAID[path.name.partition(" ")[0]][side] for path in pictures]


def test_where_there_is_one_version_there_is_no_choice(browser: Browser, root: Path) -> None:
    """The bundled model stands alone."""
    service = start({"MODEL_DIR": str(root / "models"), "DRAIN_SECONDS": "0"})
    try:
        service.wait_until_ready()
        with visit(browser, service.url) as page:
            expect(page.locator("#model")).to_contain_text("cifar10")
            for select in ("#which-model", "#which-version", "#which-other"):
                expect(page.locator(select)).to_have_count(1)
                expect(page.locator(select)).to_be_hidden()
    finally:
        service.kill()


def test_another_model_answers_to_what_is_on_the_page(browser: Browser, url: str, pictures: list[Path]) -> None:
    """Its line, its labels and the links follow, the command too; the address has it, for others to open."""
    with visit(browser, url) as page:
        send(page, pictures)
        assert said(page) == expected(pictures)
        page.get_by_role("combobox", name="Model", exact=True).select_option("fruits")
        answered(page, len(pictures))
        fruits = {"red": "apple", "green": "pear", "blue": "plum"}
        assert said(page) == [fruits[label] for label in expected(pictures)]
        expect(page.locator("#model")).to_contain_text("fruits, version 1")
        expect(page.locator("#known li").first).to_have_text("apple")
        expect(page.get_by_label("Version")).to_be_hidden()
        expect(page.locator("#command")).to_contain_text("predict/batch?model=fruits")
        assert page.url == f"{url}/#model=fruits"
        page.get_by_role("link", name="Model", exact=True).click()
        expect(page.get_by_text("The service answers with fruits, version 1.")).to_be_visible()
        page.get_by_role("link", name="Classify").click()
        expect(page.locator("#model")).to_contain_text("fruits, version 1")
        send(page, pictures[:2])
        assert said(page) == ["apple", "pear"]


def test_another_version_is_asked_and_explained(browser: Browser, url: str, pictures: list[Path]) -> None:
    """By keyboard; what is sent afterwards goes there too, and "Why?" is of the version that answered."""
    with visit(browser, url) as page:
        send(page, pictures[:3])
        asked: list[str] = []
        page.on("request", lambda request: asked.append(request.url))
        version = page.get_by_label("Version")
        version.focus()
        assert version.locator("option").all_text_contents() == ["as the service chooses", "1 (stable)", "2 (canary)"]
        page.keyboard.press("End")
        answered(page, 3)
        assert said(page) == expected(pictures[:3], 1)
        assert page.url == f"{url}/#version=2"
        send(page, pictures[3:5])
        assert said(page) == expected([*pictures[3:5], *pictures[:3]], 1)
        page.get_by_role("button", name="Why? lime 0.png").click()
        expect(page.get_by_role("img", name="Heat map of what spoke for blue in lime 0.png")).to_be_visible()
        [explained] = [address for address in asked if "/explain" in address]
        assert "version=2" in explained
        expect(page.locator("#model")).to_contain_text("colours, version 2")
        page.get_by_role("link", name="Model", exact=True).click()
        expect(page.get_by_text("This is colours, version 2")).to_be_visible()
        page.get_by_role("link", name="1, answers now").click()
        expect(page.get_by_text("The service answers with colours, version 1.")).to_be_visible()


def test_two_versions_are_compared(browser: Browser, url: str, pictures: list[Path]) -> None:
    """Side by side, with what differs marked, counted, sorted and sifted; both are downloaded; the address has it."""
    with visit(browser, url) as page:
        send(page, pictures)
        page.get_by_label("Compare with").select_option("2")
        expect(page.locator("#agreement")).to_have_text("Versions 1 and 2 agree on 3 of 9 pictures.")
        assert (said(page), said(page, 1)) == (expected(pictures), expected(pictures, 1))
        assert page.url == f"{url}/#version=1&other=2"
        marked = page.locator("#cards > li").filter(has_text="differs")
        expect(marked).to_have_count(6)
        expect(marked.first.locator(".which")).to_have_text(["version 1", "version 2 differs"])
        page.get_by_role("button", name="Differing first").click()
        assert said(page)[6:] == ["red"] * 3
        page.get_by_role("button", name="versions differ 6").click()
        assert len(said(page)) == 6
        saved = {}
        for kind in ("csv", "json"):
            with page.expect_download() as download:
                page.get_by_role("button", name=f"Download as {kind.upper()}").click()
            saved[kind] = download.value.path().read_text(encoding="utf-8")
        page.get_by_label("Compare with").select_option("none")
        answered(page, len(pictures))
        expect(page.locator("#agreement")).to_be_empty()
        expect(page.get_by_role("button", name="Differing first")).to_be_hidden()
        assert said(page) == expected(pictures), "in the order in which they were sent"
    rows = list(csv.DictReader(io.StringIO(saved["csv"])))
    lime = [row for row in rows if row["file"] == "lime 0.png" and row["rank"] == "1"]
    assert [(row["label"], row["version"], row["agrees"]) for row in lime] == [
        ("green", "1", "false"), ("blue", "2", "false"),
    ]  # fmt: skip
    assert len(rows) == 9 * 2 * 3
    first, *_ = json.loads(saved["json"])
    assert (first["agrees"], first["model"]["version"], first["other"]["model"]["version"]) == (True, 1, 2)


def test_what_is_not_there_is_not_asked(browser: Browser, url: str, pictures: list[Path]) -> None:
    """An address with a model or a version that is gone opens the page as it is without."""
    for address in ("/#model=gone&version=7", "/#version=7&other=9"):
        with visit(browser, url, address) as page:
            send(page, pictures[:2])
            assert said(page) == expected(pictures[:2])


def test_shared_requests_of_a_page_go_to_one_version(
    browser: Browser, published: Path, tmp_path: Path, pictures: list[Path]
) -> None:
    """Where no model is the default the first one is asked; of two versions that share, one answers to a whole page."""
    models = tmp_path / "models"
    copy(published, models, 1, labels=("one", "green", "blue"))
    copy(published, models, 2, labels=("two", "green", "blue"))
    copy(published, models, 1, name="zebras")
    (models / "colours" / "serving.json").write_text('{"versions": "all", "traffic": {"1": 1, "2": 1}}')
    service = start({"MODEL_DIR": str(models), "DRAIN_SECONDS": "0"})
    answering = set()
    try:
        wait_for(lambda: service.status("/models") == 200 and service.get("/models").text.count('"AVAILABLE"') == 3,
                 service.log)  # fmt: skip
        for _ in range(12):
            with visit(browser, service.url) as page:
                for picture in pictures[::3]:
                    page.locator("#files").set_input_files(picture)
                expect(page.locator("#cards .answers")).to_have_count(3)
                expect(page.locator("#cards .label").nth(6)).to_be_attached()
                [label] = set(said(page))
                number = {"one": 1, "two": 2}[label]
                expect(page.locator("#model")).to_contain_text(f"colours, version {number}")
                assert page.get_by_label("Version").locator("option").all_text_contents()[1:] == ["1 (50%)", "2 (50%)"]
                answering.add(label)
    finally:
        service.kill()
    assert answering == {"one", "two"}


def test_what_comes_meanwhile_can_be_chosen(browser: Browser, published: Path, tmp_path: Path) -> None:
    """Who comes back to the page finds the version that was loaded since, and loses nothing that was chosen."""
    models = tmp_path / "models"
    copy(published, models, 1)
    service = start({"MODEL_DIR": str(models), "MODEL_POLL_SECONDS": "0.2", "DRAIN_SECONDS": "0"})
    try:
        service.wait_until_ready()
        with visit(browser, service.url) as page:
            expect(page.locator("#model")).to_contain_text("colours, version 1")
            expect(page.get_by_label("Version")).to_be_hidden()
            (models / "colours" / "serving.json").write_text('{"versions": "all", "labels": {"stable": 1}}')
            copy(published, models, 2)
            wait_for(lambda: service.get("/models").text.count('"AVAILABLE"') == 2, service.log)
            page.evaluate("dispatchEvent(new Event('focus'))")
            page.get_by_label("Version").select_option("2")
            expect(page.locator("#model")).to_contain_text("colours, version 2")
            page.evaluate("dispatchEvent(new Event('focus'))")
            page.wait_for_timeout(300)
            expect(page.get_by_label("Version")).to_have_value("2")
    finally:
        service.kill()


def test_a_model_that_is_not_loaded_can_be_chosen(
    browser: Browser, published: Path, tmp_path: Path, pictures: list[Path]
) -> None:
    """Where memory is short, the page waits until it is loaded, and then shows its answers."""
    models = tmp_path / "models"
    copy(published, models, 1)
    for name in ("fruits", "trees"):
        copy(published, models, 1, labels=("apple", "pear", "plum"), name=name)
    service = start({"MODEL_DIR": str(models), "MODEL_NAME": "colours", "MODEL_MEMORY_MB": "115", "DRAIN_SECONDS": "0"})
    try:
        service.wait_until_ready()
        wait_for(lambda: '"unloaded"' in service.get("/models").text, service.log)
        with visit(browser, service.url, expected="503") as page:
            send(page, pictures[:2])
            model = page.get_by_role("combobox", name="Model", exact=True)
            names = model.locator("option").all_text_contents()
            [unloaded] = [name for name in names if name.endswith(" (unloaded)")]
            model.select_option(label=unloaded)
            answered(page, 2)
            assert said(page) == ["apple", "pear"]
            expect(page.locator("#model")).to_contain_text(f"{unloaded.removesuffix(' (unloaded)')}, version 1")
            expect(model.locator("option:checked")).to_have_text(unloaded.removesuffix(" (unloaded)"))
    finally:
        service.kill()


def test_few_are_asked_again(browser: Browser, url: str, tmp_path: Path) -> None:
    """Of more than five hundred pictures the newest are; the others say so."""
    path = tmp_path / "red.png"
    path.write_bytes(plain("red"))
    with visit(browser, url) as page:
        page.locator("#files").set_input_files([path] * 510)
        answered(page, 510)
        page.get_by_label("Version").select_option("2")
        expect(page.locator("#status")).to_have_text("500 of 510 pictures answered; 10 not.")
        page.get_by_role("button", name="not answered 10").click()
        expect(page.locator("#cards .message").first).to_contain_text("only the newest 500")


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_has_nothing_to_object(browser: Browser, url: str, pictures: list[Path], scheme: str) -> None:
    """While two versions are compared, with a picture that neither can answer; and all of it fits a phone."""
    axe = importlib.resources.files("axe_playwright_python") / "axe.min.js"
    pictures[4].write_bytes(b"no picture")
    with visit(browser, url, "/#version=1&other=2", color_scheme=scheme, bypass_csp=True) as page:
        page.add_script_tag(content=axe.read_text(encoding="utf-8"))
        page.locator("#files").set_input_files(pictures)
        expect(page.locator("#agreement")).to_have_text("Versions 1 and 2 agree on 3 of 8 pictures.")
        found: Any = page.evaluate("axe.run()")
        assert [(fault["id"], [node["html"] for node in fault["nodes"]]) for fault in found["violations"]] == []
        page.set_viewport_size({"width": 360, "height": 740})
        assert overflow(page) == 0
