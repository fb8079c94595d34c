"""The page on which people label pictures, in a real Chromium, against the real service."""

import hashlib
import importlib.resources
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, Error, Locator, Page, expect

from tests.end_to_end.browser import overflow, visit
from tests.service.pictures import plain
from tests.service.running import RunningService, metric, start, wait_for

pytestmark = [pytest.mark.process, pytest.mark.slow]

Keep = Callable[..., "Kept"]

TOKEN = "token-of-anna"  # noqa: S105 - of the tests
PASSWORD: dict[str, Any] = {"http_credentials": {"username": "anna", "password": TOKEN}}
SHADES = [f"rgb({200 + n}, 0, 0)" for n in range(50)]  # which the model calls red


class Kept:
    """A service that keeps all pictures, and its folder."""

    def __init__(self, service: RunningService, folder: Path) -> None:
        self.service, self.folder, self.url = service, folder, service.url

    def predict(self, *pictures: bytes) -> None:
        """Send pictures, and wait until they are kept."""
        before = metric(self.service, "captures_total")
        for picture in pictures:
            assert self.service.predict(picture).status_code == 200
        wait_for(lambda: metric(self.service, "captures_total") == before + len(pictures), self.service.log)

    def labelled(self) -> dict[str, int]:
        """Return how many pictures lie in the folder of each label."""
        return {path.name: len(list(path.iterdir())) for path in self.folder.glob("reviewed/*")}

    def until(self, **labelled: int) -> None:
        """Wait until so many lie there."""
        wait_for(lambda: self.labelled() == labelled, lambda: str(self.labelled()))


@pytest.fixture
def keep(shared_models: Path, tmp_path: Path) -> Iterator[Keep]:
    """Starts a service that keeps what it is sent."""
    with ExitStack() as stack:

        def begin(*pictures: bytes, **more: str) -> Kept:
            settings = {"CAPTURE_DIR": str(tmp_path / "captured"), "CAPTURE_SHARE": "1", "DRAIN_SECONDS": "0"}
            tokens = {"API_TOKENS": f"anna:{hashlib.sha256(TOKEN.encode()).hexdigest()}"}
            open_to_all = {"WITHOUT_TOKEN": "probes,metrics,predictions"}
            service = start({"MODEL_DIR": str(shared_models), **settings, **tokens, **open_to_all, **more})
            stack.callback(service.kill)
            service.wait_until_ready()
            kept = Kept(service, tmp_path / "captured")
            kept.predict(*pictures)
            return kept

        yield begin


def listed(page: Page) -> list[str]:
    """Return the labels in the list, when the next picture is shown."""
    expect(page.locator("#work[aria-busy=false]")).to_be_visible()
    return page.locator("[role=option] span:nth-child(2)").all_text_contents()


def press(page: Page, key: str) -> None:
    """Press a key that deals with the picture, and wait for another one, or for the end."""
    expect(page.locator("#work[aria-busy=false]")).to_be_visible()
    before = page.locator("#picture").get_attribute("src")
    page.keyboard.press(key)
    page.wait_for_function(
        """before => !document.getElementById('empty').hidden
            || (document.getElementById('work').ariaBusy === 'false'
            && document.getElementById('picture').src !== before)""",
        arg=before,
    )


def test_pictures_are_labelled_by_keys_alone(browser: Browser, keep: Keep) -> None:
    """The first label by Enter, others by their digit, by moving to it or by typing, new ones too; skip, and undo."""
    kept = keep(*(plain(shade) for shade in SHADES[:7]))
    with visit(browser, kept.url, "/review", **PASSWORD) as page:
        assert listed(page) == ["red", "green", "blue"]
        expect(page.locator("#left")).to_have_text("7 pictures wait")
        expect(page.locator("#why")).to_contain_text("colours, version 1, said red")
        expect(page.locator("#why")).to_contain_text("chosen by chance")
        press(page, "Enter")
        kept.until(red=1)
        press(page, "2")
        kept.until(red=1, green=1)
        page.keyboard.press("ArrowDown")
        page.keyboard.press("ArrowDown")
        press(page, "Enter")
        kept.until(red=1, green=1, blue=1)
        page.keyboard.type("gr")
        assert listed(page) == ["green", "New label: gr"]
        press(page, "Enter")
        kept.until(red=1, green=2, blue=1)
        page.keyboard.type("Käse 2")
        assert listed(page) == ["New label: Käse 2"]
        press(page, "Enter")
        kept.until(red=1, green=2, blue=1, **{"Käse 2": 1})
        assert listed(page) == ["red", "green", "blue", "Käse 2"]
        press(page, "ArrowLeft")
        kept.until(red=1, green=2, blue=1)
        press(page, "4")
        kept.until(red=1, green=2, blue=1, **{"Käse 2": 1})
        press(page, "ArrowRight")
        expect(page.locator("#left")).to_have_text("1 picture waits")
        press(page, "Enter")
        expect(page.get_by_text("No picture waits for a label.")).to_be_visible()
        expect(page.locator("#counts")).to_contain_text("6 labelled, 1 skipped, 0 waiting")
        expect(page.locator("#accuracy tbody")).to_contain_text("colours, version 1")
        expect(page.locator("#accuracy tbody")).to_contain_text("2 of 6")
        assert kept.labelled() == {"red": 2, "green": 2, "blue": 1, "Käse 2": 1}


def test_undo_brings_back_the_same_picture(browser: Browser, keep: Keep) -> None:
    """Also from the end, and one after another as they were labelled."""
    kept = keep(plain("red"), plain("blue"))
    with visit(browser, kept.url, "/review", **PASSWORD) as page:
        assert listed(page)[0] == "red"
        press(page, "Enter")
        assert listed(page)[0] == "blue"
        press(page, "Enter")
        kept.until(red=1, blue=1)
        page.get_by_role("button", name="Undo the last one").click()
        assert listed(page)[0] == "blue"
        press(page, "ArrowLeft")
        assert listed(page)[0] == "red"
        expect(page.get_by_role("button", name="Undo", exact=True)).to_be_disabled()
        kept.until()


def test_a_key_that_is_held_labels_one_picture(browser: Browser, keep: Keep) -> None:
    """A finger that stays on a key labels nothing that nobody has looked at."""
    kept = keep(*(plain(shade) for shade in SHADES[:5]))
    with visit(browser, kept.url, "/review", **PASSWORD) as page:
        listed(page)
        for key, labelled in (("Enter", 1), ("1", 2)):
            for _ in range(6):
                page.keyboard.down(key)  # from the second time on as a repetition
                page.wait_for_timeout(50)
            page.keyboard.up(key)
            kept.until(red=labelled)


def test_tens_of_pictures_a_minute(browser: Browser, keep: Keep) -> None:
    """The next picture is there before it is asked for: fifty take a second each at the most."""
    kept = keep(*(plain(shade) for shade in SHADES))
    with visit(browser, kept.url, "/review", **PASSWORD) as page:
        listed(page)
        begun = time.monotonic()
        for _ in SHADES:
            press(page, "Enter")
        assert time.monotonic() - begun < len(SHADES)
        kept.until(red=len(SHADES))


def test_two_people_label_different_pictures(browser: Browser, keep: Keep) -> None:
    """Each has pictures of his own, and nobody is told that another was first."""
    kept = keep(*(plain(shade) for shade in SHADES[:40]))
    with (
        visit(browser, kept.url, "/review", **PASSWORD) as anna,
        visit(browser, kept.url, "/review", **PASSWORD) as ben,
    ):
        for _ in range(10):
            for page in (anna, ben):
                listed(page)
                press(page, "Enter")
        kept.until(red=20)
        for page in (anna, ben):
            expect(page.locator("#message")).to_be_empty()


def test_without_a_token_there_is_nothing_to_see(browser: Browser, keep: Keep) -> None:
    """The browser is asked for a password; who has none gets neither page nor pictures."""
    kept = keep(plain("red"))
    with visit(browser, kept.url, expected="401") as page:
        expect(page.get_by_role("link", name="Review")).to_be_visible()
        with pytest.raises(Error, match="ERR_INVALID_AUTH_CREDENTIALS"):  # nobody is there to be asked
            page.goto(f"{kept.url}/review")


def test_fingers_are_enough(browser: Browser, keep: Keep) -> None:
    """On a phone a label is pressed, nothing lies beside the window, and no keyboard comes up by itself."""
    kept = keep(plain("red"), plain("blue"))
    phone: dict[str, Any] = {"viewport": {"width": 360, "height": 740}, "has_touch": True, "is_mobile": True}
    with visit(browser, kept.url, "/review", **PASSWORD, **phone) as page:
        listed(page)
        assert overflow(page) == 0
        assert page.evaluate("document.activeElement.tagName") == "BODY"
        page.get_by_role("option", name="green").tap()
        kept.until(green=1)
        page.get_by_role("button", name="Skip").tap()
        expect(page.get_by_text("No picture waits for a label.")).to_be_visible()


def test_who_wants_it_has_nothing_kept(browser: Browser, keep: Keep, tmp_path: Path) -> None:
    """The page where pictures are sent says what is kept, and has a box for those who want none of it."""
    kept = keep()
    (tmp_path / "red.png").write_bytes(plain("red"))
    with visit(browser, kept.url) as page:
        expect(page.get_by_text("100 of 100 by chance")).to_be_visible()
        for private, count in ((True, 0), (False, 1)):
            page.get_by_label("Keep none of mine").set_checked(private)
            page.locator("#files").set_input_files(tmp_path / "red.png")
            expect(page.locator("#cards .answers li").first).to_be_visible()
            page.wait_for_timeout(600)
            assert metric(kept.service, "captures_total") == count
            page.get_by_role("button", name="Clear").click()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_has_nothing_to_object(browser: Browser, keep: Keep, scheme: str) -> None:
    """Contrast, names, roles and structure follow axe-core's rules: with a picture, while typing, and at the end."""
    kept = keep(plain("red", "TIFF"), plain("blue"))
    axe = importlib.resources.files("axe_playwright_python") / "axe.min.js"
    with visit(browser, kept.url, "/review", color_scheme=scheme, bypass_csp=True, **PASSWORD) as page:
        page.add_script_tag(content=axe.read_text(encoding="utf-8"))
        listed(page)
        faults = violations(page)
        page.keyboard.type("something new")
        faults += violations(page)
        press(page, "Enter")
        listed(page)
        press(page, "Enter")
        expect(page.locator("#accuracy")).to_be_visible()
        assert faults + violations(page) == []


def violations(page: Page) -> list[Any]:
    """Return what axe-core finds."""
    found = page.evaluate("axe.run()")
    assert len(found["passes"]) > 15
    return [(fault["id"], [node["html"] for node in fault["nodes"]]) for fault in found["violations"]]


def report(page: Page, picture: Path, label: str) -> Locator:
    """Send a picture, and say by the keyboard alone that its answer is wrong; return the form."""
    page.locator("#files").set_input_files(picture)
    page.get_by_role("button", name=f"Wrong? {picture.name}").press("Enter")
    expect(page.get_by_role("combobox", name="What does it show?")).to_be_focused()
    page.keyboard.type(label)
    page.keyboard.press("Enter")
    return page.locator(".reporting")


def test_a_wrong_answer_is_reported_and_reviewed_with_its_hint(browser: Browser, keep: Keep, tmp_path: Path) -> None:
    """Somebody names a label; who reviews sees that first, with the reason, and says something else all the same."""
    kept = keep(CAPTURE_SHARE="0", CAPTURE_MARGIN="0")
    (tmp_path / "red.png").write_bytes(plain("red"))
    with visit(browser, kept.url) as page:
        form = report(page, tmp_path / "red.png", "purple")
        expect(form).to_contain_text("The model has no such label.")
        assert page.locator("#all-labels option").evaluate_all("all => all.map(one => one.value)") == [
            "red", "green", "blue",
        ]  # fmt: skip
        page.get_by_role("combobox", name="What does it show?").fill("Blue")
        page.keyboard.press("Enter")
        expect(form).to_contain_text("Thank you: it is kept")
        expect(page.get_by_role("button", name="Report it")).to_be_disabled()
    wait_for(lambda: metric(kept.service, "captures_total") == 1, kept.service.log)
    with visit(browser, kept.url, "/review", **PASSWORD) as page:
        assert listed(page) == ["blue", "red", "green"]
        expect(page.get_by_role("option", name="blue")).to_contain_text("somebody says")
        expect(page.locator("#why")).to_contain_text("somebody called the answer wrong. Somebody says: blue.")
        press(page, "2")
        kept.until(red=1)
        expect(page.locator("#unmeasured")).to_be_visible()


def test_who_wants_nothing_kept_is_offered_no_report(
    browser: Browser, keep: Keep, shared_models: Path, tmp_path: Path
) -> None:
    """Nor is anybody where the service keeps nothing."""
    kept = keep()
    wrong = "Wrong? a.png"
    picture = tmp_path / "a.png"
    picture.write_bytes(plain("red"))
    with visit(browser, kept.url) as page:
        page.get_by_label("Keep none of mine").check()
        page.locator("#files").set_input_files(picture)
        expect(page.locator(".answers li").first).to_be_visible()
        expect(page.get_by_role("button", name=wrong)).to_be_hidden()
        page.get_by_label("Keep none of mine").uncheck()
        expect(page.get_by_role("button", name=wrong)).to_be_visible()
    service = start({"MODEL_DIR": str(shared_models), "DRAIN_SECONDS": "0"})
    try:
        service.wait_until_ready()
        with visit(browser, service.url) as page:
            page.locator("#files").set_input_files(picture)
            expect(page.locator(".answers li").first).to_be_visible()
            assert page.get_by_text("Wrong?").count() == 0
    finally:
        service.kill()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_has_nothing_to_object_to_a_report(browser: Browser, keep: Keep, tmp_path: Path, scheme: str) -> None:
    """Neither open nor sent, and nothing lies beside the window of a phone."""
    kept = keep()
    (tmp_path / "red.png").write_bytes(plain("red"))
    axe = importlib.resources.files("axe_playwright_python") / "axe.min.js"
    with visit(browser, kept.url, color_scheme=scheme, bypass_csp=True) as page:
        page.add_script_tag(content=axe.read_text(encoding="utf-8"))
        form = report(page, tmp_path / "red.png", "nothing")
        faults = violations(page)
        page.get_by_role("combobox").fill("")
        page.keyboard.press("Enter")
        expect(form).to_contain_text("Thank you")
        page.set_viewport_size({"width": 360, "height": 740})
        assert overflow(page) == 0
        assert faults + violations(page) == []
