"""The pages for people in a real Chromium, against the real service."""

import csv
import importlib.resources
import io
import json
import re
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import requests
from playwright.sync_api import Browser, Locator, Page, Response, expect

from artifact.layout import METADATA
from client.output import Csv
from tests.end_to_end.browser import drop, overflow, paste, tab_to, visit
from tests.models import copy
from tests.photographs import paths
from tests.service.pictures import plain
from tests.service.running import RunningService, start, wait_for

pytestmark = [pytest.mark.process, pytest.mark.slow]

Start = Callable[..., RunningService]

COLOURS = {"red": "red", "lime": "green", "blue": "blue"}  # what is drawn -> what the model says


@pytest.fixture(scope="module")
def starter() -> Iterator[Start]:
    """Starts services over a folder of models and stops them after the tests."""
    with ExitStack() as stack:

        def begin(models: Path, *, ready: bool = True, **settings: str) -> RunningService:
            service = start({"MODEL_DIR": str(models), "MODEL_POLL_SECONDS": "0.2", "DRAIN_SECONDS": "0", **settings})
            stack.callback(service.kill)
            if ready:
                service.wait_until_ready()
            return service

        yield begin


@pytest.fixture
def modelless(starter: Start, tmp_path: Path) -> tuple[RunningService, Path]:
    """A service whose folder of models is empty, and that folder."""
    models = tmp_path / "models"
    models.mkdir()
    service = starter(models, ready=False)
    wait_for(lambda: service.status("/health/live") == 200, service.log)
    return service, models


@pytest.fixture(scope="module")
def url(starter: Start, shared_models: Path) -> str:
    """The address of a service with that model."""
    return starter(shared_models).url


@pytest.fixture(scope="module")
def bundled_url(starter: Start, root: Path) -> str:
    """The address of a service with the bundled model."""
    return starter(root / "models").url


def save(folder: Path, name: str, content: bytes) -> Path:
    """Write a file and return its path."""
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path


def choose(page: Page, *paths: Path) -> None:
    """Choose files by the button."""
    with page.expect_file_chooser() as chooser:
        page.get_by_role("button", name="Choose pictures").click()
    chooser.value.set_files([str(path) for path in paths])


def card(page: Page, name: str) -> Locator:
    """Return the card of the picture that is called ``name``."""
    return page.locator("#cards > li").filter(has=page.get_by_role("heading", name=name, exact=True))


def names(page: Page) -> list[str]:
    """Return the names on the cards that are shown, from top to bottom."""
    return page.locator("#cards > li:visible h3").all_text_contents()


def answers(page: Page, name: str) -> list[str]:
    """Return the lines of the answer on a card, when it is there; those that are folded away as well."""
    shown = card(page, name).locator(".answers li")
    expect(shown.first).to_be_visible()
    return [line.replace("\n", " ") for line in shown.all_inner_texts()]


def test_a_dropped_picture_gets_its_answer(browser: Browser, url: str, tmp_path: Path) -> None:
    """The card has the picture, its name, all labels with percentages, and bars of those widths; it is read out too."""
    with visit(browser, url) as page:
        drop(page, save(tmp_path, "sun set.png", plain("red")))
        assert answers(page, "sun set.png") == ["red 99.9%", "green < 0.1%", "blue < 0.1%"]
        thumbnail = page.get_by_role("img", name="Thumbnail of sun set.png")
        thumbnail.scroll_into_view_if_needed()
        page.wait_for_function("document.querySelector('#cards img').naturalWidth === 32")
        widths = page.locator("#cards .bar").evaluate_all("bars => bars.map(bar => bar.getBoundingClientRect().width)")
        track = page.locator("#cards .track").first.evaluate("track => track.getBoundingClientRect().width")
        assert widths[0] == pytest.approx(track, rel=0.01)
        assert max(widths[1:]) < 0.01 * track
        expect(page.get_by_role("status").filter(has_text="sun set.png: red, 99.9%.")).to_have_count(1)


def test_a_note_stands_by_what_is_not_familiar(
    browser: Browser, starter: Start, published: Path, url: str, tmp_path: Path
) -> None:
    """Where the model tells, a picture like none of its training has a note, read out too; others have none."""
    copy(published, tmp_path / "models", 1, threshold=4.0)
    note = "This is unlike the pictures the model learned from."
    black, red = save(tmp_path, "black.png", plain("black")), save(tmp_path, "red.png", plain("red"))
    with visit(browser, starter(tmp_path / "models").url) as page:
        choose(page, black)
        expect(card(page, "black.png").get_by_text(note)).to_be_visible()
        assert len(answers(page, "black.png")) == 3
        expect(page.get_by_role("status").filter(has_text=f"black.png: not sure: red, 33.3%. {note}")).to_have_count(1)
        choose(page, red)
        assert answers(page, "red.png")[0] == "red 99.9%"
        expect(card(page, "red.png").get_by_text(note)).to_be_hidden()
    with visit(browser, url) as page:
        choose(page, black)
        assert len(answers(page, "black.png")) == 3
        expect(card(page, "black.png").get_by_text(note)).to_be_hidden()


def test_the_answer_stands_out_and_says_first_whether_it_is_sure(browser: Browser, url: str, tmp_path: Path) -> None:
    """From 80% on it is sure; the label is larger than all else on its card, and the file's name is small."""
    with visit(browser, url) as page:
        choose(page, save(tmp_path, "red.png", plain("red")), save(tmp_path, "yellow.png", plain("yellow")))
        answers(page, "yellow.png")
        for name, mark in (("red.png", "Sure"), ("yellow.png", "Not sure")):
            expect(card(page, name).locator(".mark")).to_have_text(mark)
            size = "element => parseFloat(getComputedStyle(element).fontSize)"
            label = card(page, name).locator(".label").first
            others = [card(page, name).get_by_role("heading"), card(page, name).locator(".label").nth(1)]
            assert label.evaluate(size) > 1.5 * max(other.evaluate(size) for other in others)
            above = card(page, name).locator(".mark").bounding_box()
            below = label.bounding_box()
            assert above is not None
            assert below is not None
            assert above["y"] + above["height"] <= below["y"]
        expect(card(page, "yellow.png").locator(".reason")).to_have_text("No label reaches 80%.")
        expect(card(page, "red.png").locator(".reason")).to_have_text("")
        page.get_by_text("When is it sure?").click()
        expect(page.get_by_text("at least 80%")).to_be_visible()


def test_unlikely_labels_are_folded_away(browser: Browser, url: str, tmp_path: Path) -> None:
    """Those below 1% come and go by a button; the first is always there."""
    with visit(browser, url) as page:
        choose(page, save(tmp_path, "red.png", plain("red")))
        rows = page.locator("#cards .answers li")
        expect(rows.filter(visible=True)).to_have_count(1)
        page.get_by_role("button", name="2 more below 1%").press("Enter")
        expect(rows.filter(visible=True)).to_have_count(3)
        page.get_by_role("button", name="without those below 1%").press("Enter")
        expect(rows.filter(visible=True)).to_have_count(1)


def test_doubt_can_be_looked_at_first(browser: Browser, starter: Start, published: Path, tmp_path: Path) -> None:
    """What is unfamiliar comes first, then what is weak; one button leaves both, those of labels follow by number."""
    copy(published, tmp_path / "models", 1, threshold=4.0)
    drawn = {
        "a": "lime",
        "b": "yellow",
        "c": "black",
        "d": "#ff7f00",
        "e": "blue",
        "f": "blue",
        "g": "blue",
        "h": "lime",
    }
    files = [save(tmp_path, f"{name}.png", plain(colour)) for name, colour in drawn.items()]
    with visit(browser, starter(tmp_path / "models").url) as page:
        choose(page, *files, save(tmp_path, "bad.png", b"bad"))
        expect(page.get_by_text("8 of 9 pictures answered; 1 not.")).to_be_visible()
        assert page.get_by_role("group", name="Show only").get_by_role("button").all_inner_texts() == [
            "all 9", "not sure 2", "blue 3", "red 3", "green 2", "not answered 1",
        ]  # fmt: skip
        page.get_by_role("button", name="Least sure first").click()
        assert [name[0] for name in names(page)][:3] == ["c", "b", "d"]
        assert names(page)[-1] == "bad.png"
        page.get_by_role("button", name="not sure 2").click()
        assert names(page) == ["c.png", "b.png"]
        page.get_by_role("button", name="all 9").click()
        page.get_by_role("button", name="Least sure first").click()
        assert [name[0] for name in names(page)] == [*drawn, "b"]


@pytest.mark.parametrize(("width", "most"), [(1200, 3_000), (390, 8_000)])
def test_two_hundred_pictures_are_pages(browser: Browser, url: str, tmp_path: Path, width: int, most: int) -> None:
    """Forty-eight are on one, each with its answer and the rest by a button; the keyboard turns to the next."""
    files = [save(tmp_path, f"{n}.png", plain(list(COLOURS)[n % 3])) for n in range(200)]
    with visit(browser, url, viewport={"width": width, "height": 844}) as page:
        choose(page, *files)
        expect(page.get_by_text("200 pictures answered.")).to_be_visible()
        assert names(page) == [f"{n}.png" for n in range(48)]
        assert page.evaluate("document.documentElement.scrollHeight") < most
        expect(page.get_by_role("button", name="Previous")).to_be_disabled()
        page.get_by_role("button", name="Next").press("Enter")
        expect(page.get_by_text("49 to 96 of 200")).to_have_role("status")
        assert names(page)[0] == "48.png"
        expect(card(page, "48.png")).to_be_in_viewport()
        page.keyboard.press("Tab")
        details = page.get_by_role("button", name="Details 48.png")
        expect(details).to_be_focused()
        expect(page.get_by_role("button", name="Why? 48.png")).to_be_hidden()
        page.keyboard.press("Enter")
        expect(details).to_have_attribute("aria-expanded", "true")
        expect(page.get_by_role("button", name="Why? 48.png")).to_be_visible()
        assert overflow(page) == 0
        page.get_by_role("button", name="blue 66").click()
        expect(page.get_by_text("1 to 48 of 66")).to_be_visible()
        page.get_by_role("button", name="Next").click()
        assert names(page) == [f"{n}.png" for n in range(146, 200, 3)]
        expect(page.get_by_role("button", name="Next")).to_be_disabled()


def test_results_are_saved(browser: Browser, starter: Start, published: Path, tmp_path: Path) -> None:
    """CSV and JSON have each picture, in the columns and fields that the client writes, whatever its name is."""
    copy(published, tmp_path / "models", 1, threshold=4.0)
    name = """a, "b" é=1.png"""
    files = [
        save(tmp_path, name, plain("red")),
        save(tmp_path, "bad.png", b"bad"),
        save(tmp_path, "c.png", plain("black")),
    ]
    with visit(browser, starter(tmp_path / "models").url) as page:
        choose(page, *files)
        expect(page.get_by_text("2 of 3 pictures answered; 1 not.")).to_be_visible()
        saved = {}
        for kind in ("csv", "json"):
            with page.expect_download() as download:
                page.get_by_role("button", name=f"Download as {kind.upper()}").click()
            assert download.value.suggested_filename == f"darkroom.{kind}"
            saved[kind] = download.value.path().read_text(encoding="utf-8")
    header, *rows = csv.reader(io.StringIO(saved["csv"]))
    assert tuple(header) == Csv.HEADER
    assert rows[0][:3] == [name, "1", "red"]
    assert float(rows[0][3]) == pytest.approx(0.999, abs=0.001)
    assert [row[6] for row in rows] == ["true"] * 3 + [""] + ["false"] * 3
    assert rows[3][:5] == ["bad.png", "", "", "", "unsupported_image"]
    first, bad, last = json.loads(saved["json"])
    assert [each["label"] for each in first["predictions"]] == ["red", "green", "blue"]
    assert first["model"] == {"name": "colours", "version": 1}
    assert (first["file"], first["familiar"], last["familiar"]) == (name, True, False)
    assert bad == {"file": "bad.png", "error": "unsupported_image", "message": rows[3][5]}


def test_a_phone_takes_photographs_and_shows_what_came_of_them(browser: Browser, url: str, tmp_path: Path) -> None:
    """A button opens the camera, and the answer is in sight; where there is no touch screen there is no such button."""
    phone: dict[str, Any] = {"viewport": {"width": 390, "height": 844}, "is_mobile": True, "has_touch": True}
    red = save(tmp_path, "image.jpg", plain("red", "JPEG"))
    with visit(browser, url, **phone) as page:
        for _ in range(2):
            with page.expect_file_chooser() as chooser:
                page.get_by_role("button", name="Take a photograph").tap()
            assert chooser.value.element.get_attribute("capture") == "environment"
            assert not chooser.value.is_multiple()
            chooser.value.set_files(red)
            expect(page.get_by_role("progressbar")).to_be_hidden()
            expect(page.get_by_role("heading", name="Results")).to_be_in_viewport(ratio=1)
            expect(page.locator("#cards .label").first).to_be_in_viewport(ratio=1)
        expect(page.locator("#cards > li")).to_have_count(2)
    with visit(browser, url) as page:
        expect(page.get_by_role("button", name="Choose pictures")).to_be_visible()
        expect(page.get_by_role("button", name="Take a photograph")).to_be_hidden()


@pytest.mark.parametrize("path", ["/docs", "/model/card"])
def test_every_page_leads_back(browser: Browser, url: str, path: str) -> None:
    """A link leads to where pictures are classified."""
    with visit(browser, url, path) as page:
        page.get_by_role("link", name=re.compile("^(Darkroom|Classify)$")).first.click()
        expect(page.get_by_role("button", name="Choose pictures")).to_be_visible()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_page_on_the_model_shows_its_plots(browser: Browser, bundled_url: str, scheme: str) -> None:
    """The report is a link away: plots, a line for each class, and no fault that axe-core finds; it fits a phone."""
    axe = importlib.resources.files("axe_playwright_python") / "axe.min.js"
    with visit(browser, bundled_url, color_scheme=scheme, bypass_csp=True) as page:
        page.get_by_role("link", name="where it errs").click()
        page.get_by_role("link", name="The most confident mistakes").click()
        expect(page.get_by_role("img", name="The most confident mistakes")).to_be_in_viewport()
        for plot in page.locator("figure img").all():
            assert plot.evaluate("image => image.decode().then(() => image.naturalWidth)") > 100
        expect(page.get_by_role("row", name=re.compile("^cat 90.59% 88.60%$"))).to_have_count(1)
        page.add_script_tag(content=axe.read_text(encoding="utf-8"))
        found = page.evaluate("axe.run()")
        assert [(fault["id"], [node["html"] for node in fault["nodes"]]) for fault in found["violations"]] == []
        page.set_viewport_size({"width": 360, "height": 800})
        assert overflow(page) == 0


def test_a_dropped_folder_gives_its_pictures(browser: Browser, url: str, tmp_path: Path) -> None:
    """Pictures are found at any depth, in the order of their numbers, and what is no picture is left out."""
    for name in ("trip/2.png", "trip/10.png", "trip/day/1.png"):
        save(tmp_path, name, plain("blue"))
    save(tmp_path, "trip/IMG_11.HEIC", plain("blue", "HEIF"))  # which browsers have no type for
    save(tmp_path, "trip/notes.txt", b"no picture")
    with visit(browser, url) as page:
        drop(page, tmp_path / "trip")
        expect(page.get_by_text("4 pictures answered.")).to_be_visible()
        assert names(page) == ["trip/2.png", "trip/10.png", "trip/day/1.png", "trip/IMG_11.HEIC"]


def test_a_pasted_picture_gets_its_answer(browser: Browser, url: str) -> None:
    """Pasting works anywhere on the page; pasted text is left alone."""
    with visit(browser, url) as page:
        page.evaluate("document.body.dispatchEvent(new ClipboardEvent('paste', {clipboardData: new DataTransfer()}))")
        paste(page, plain("lime"), "image.png", "image/png")
        assert answers(page, "image.png")[0] == "green 99.9%"
        assert names(page) == ["image.png"]


def test_a_bad_file_does_not_spoil_the_good_ones(browser: Browser, url: str, tmp_path: Path) -> None:
    """Chosen together, each good picture is answered, and the bad file has the service's message beside its name."""
    files = [save(tmp_path, f"{colour}.png", plain(colour)) for colour in COLOURS]
    files.insert(1, save(tmp_path, "letter.png", b"dear reader"))
    with visit(browser, url) as page:
        choose(page, *files)
        expect(page.get_by_text("3 of 4 pictures answered; 1 not.")).to_be_visible()
        assert names(page) == [file.name for file in files]
        for colour, label in COLOURS.items():
            assert answers(page, f"{colour}.png")[0].startswith(label)
        expect(card(page, "letter.png").locator(".message")).to_contain_text("not a picture that can be read")
        expect(card(page, "letter.png")).to_contain_text("no preview")


def test_many_pictures_come_in_order_and_can_be_sifted(browser: Browser, url: str, tmp_path: Path) -> None:
    """Forty pictures go in parts of at most sixteen; buttons leave one kind; a later picture is on top of all."""
    responses: list[Response] = []
    files = [save(tmp_path, f"{n}.png", plain(list(COLOURS)[n % 3])) for n in range(39)]
    files.append(save(tmp_path, "39.png", b"none"))
    with visit(browser, url) as page:
        page.on("response", lambda response: responses.append(response))
        choose(page, *files)
        expect(page.get_by_text("39 of 40 pictures answered; 1 not.")).to_be_visible()
        assert names(page) == [file.name for file in files]
        parts = [response.json()["results"] for response in responses if response.url.endswith("/predict/batch")]
        assert sorted(len(part) for part in parts) == [8, 16, 16]
        expect(page.get_by_role("progressbar")).to_be_hidden()
        page.get_by_role("button", name="green 13").click()
        assert names(page) == [f"{n}.png" for n in range(1, 39, 3)]
        page.get_by_role("button", name="not answered 1").click()
        assert names(page) == ["39.png"]
        drop(page, save(tmp_path, "last.png", plain("red")))
        assert answers(page, "last.png")[0].startswith("red")
        assert names(page)[:2] == ["last.png", "0.png"]


def test_a_name_is_shown_as_text(browser: Browser, url: str, tmp_path: Path) -> None:
    """Markup in a file's name is neither parsed nor run."""
    name = "<img src=x onerror=document.title='run'><b>bold.png"
    with visit(browser, url) as page:
        drop(page, save(tmp_path, name, plain("red")))
        assert answers(page, name)[0].startswith("red")
        assert names(page) == [name]
        assert page.locator("#cards b").count() == 0
        assert page.title() == "Darkroom"


def test_the_keyboard_reaches_everything(browser: Browser, bundled_url: str, tmp_path: Path) -> None:
    """Without a mouse a sample is classified, files are chosen, the command is copied and the results are cleared."""
    with visit(browser, bundled_url, permissions=["clipboard-read", "clipboard-write"]) as page:
        expect(page.get_by_role("list", name="sample drawings")).to_be_visible()
        tab_to(page, "Choose pictures")
        with page.expect_file_chooser() as chooser:
            page.keyboard.press("Enter")
        chooser.value.set_files(str(save(tmp_path, "mine.png", plain("blue"))))
        expect(card(page, "mine.png").locator(".answers li")).to_have_count(5)
        tab_to(page, "frog")
        outline = page.evaluate("getComputedStyle(document.activeElement).outlineStyle")
        assert outline == "solid", "one must see where the focus is"
        page.keyboard.press("Enter")
        assert answers(page, "frog.webp")[0].startswith("frog")
        tab_to(page, "Clear")
        tab_to(page, "The same with curl")
        page.keyboard.press("Space")
        tab_to(page, "Copy")
        page.keyboard.press("Enter")
        expect(page.get_by_role("button", name="Copied")).to_be_visible()
        assert page.evaluate("navigator.clipboard.readText()") == page.locator("#command").text_content()
        page.get_by_role("button", name="Clear").press("Enter")
        assert names(page) == []
        expect(page.get_by_role("button", name="Choose pictures")).to_be_focused()


def test_the_command_does_the_same(browser: Browser, url: str, tmp_path: Path) -> None:
    """Pasted into a shell, curl gets the answers that the page shows, whatever the files are called."""
    cases = [["red.png"], ["""a; b, "c" 'd' $(e) \\f`.png""", "-F.png", "é <g>.png", "tab\there.png"]]
    for case in cases:
        files = [save(tmp_path, name, plain("red")) for name in case]
        with visit(browser, url) as page:
            choose(page, *files)
            expect(page.locator("#cards .answers li:first-child .label")).to_have_text(["red"] * len(case))
            command = page.locator("#command").text_content() or ""
        done = subprocess.run(["sh", "-c", command], cwd=tmp_path, capture_output=True, text=True, check=True)
        assert done.stdout.count('"label":"red","probability":0.999') == len(case), done.stdout


def test_the_command_of_a_sample_does_the_same(browser: Browser, bundled_url: str) -> None:
    """A sample, which nobody has as a file, is fetched on the way."""
    with visit(browser, bundled_url) as page:
        page.get_by_role("button", name="ship").click()
        assert answers(page, "ship.webp")[0].startswith("ship")
        command = page.locator("#command").text_content() or ""
    done = subprocess.run(["sh", "-c", command], capture_output=True, text=True, check=True)
    assert done.stdout.startswith('{"success":true,"predictions":[{"label":"ship"')


def test_the_page_says_which_model_answers(browser: Browser, bundled_url: str, url: str) -> None:
    """Name, version and accuracy where there is one, all labels; and no sample that the model cannot know."""
    with visit(browser, bundled_url) as page:
        expect(
            page.get_by_text("cifar10, version 5: right on 95.53% of 10,000 images (CIFAR-10 test).")
        ).to_be_visible()
        page.get_by_text("The 10 labels it knows").click()
        expect(page.locator("#known li")).to_have_count(10)
        expect(page.get_by_role("button", name="airplane")).to_be_visible()
    with visit(browser, url) as page:
        expect(page.get_by_text("colours, version 1: its accuracy was not measured.")).to_be_visible()
        expect(page.get_by_text("sample drawings")).to_be_hidden()


def test_the_page_waits_for_a_model(
    browser: Browser, modelless: tuple[RunningService, Path], published: Path, tmp_path: Path
) -> None:
    """Without a model it says why, and tries again: what is shown and what was sent come when there is one.

    Of a version that was measured on few pictures, the accuracy stands beside its interval.
    """
    service, models = modelless
    with visit(browser, service.url, expected="503") as page:
        expect(page.get_by_text("No model can answer yet.")).to_be_visible()
        drop(page, save(tmp_path, "early.png", plain("blue")))
        expect(page.get_by_text("the service is busy, going on in 5 s")).to_be_visible()
        copy(published, models, 1)
        expect(page.get_by_text("colours, version 1")).to_be_visible(timeout=10_000)
        expect(card(page, "early.png").locator(".label").first).to_have_text("blue", timeout=10_000)
        measured = copy(published, tmp_path / "measured", 2)
        record = json.loads((measured / METADATA).read_text(encoding="utf-8"))
        record["metrics"].update(accuracy=0.75, images=100, measured_on="colours test")
        (measured / METADATA).write_text(json.dumps(record), encoding="utf-8")
        measured.rename(models / "colours" / "2")
        wait_for(lambda: service.get("/model").json()["version"] == 2, service.log)
        drop(page, save(tmp_path, "late.png", plain("blue")))
        right = "right on 75.00% of 100 images (colours test; 95%: 65.7 to 82.5)"
        expect(page.get_by_text(f"colours, version 2: {right}.")).to_be_visible()


def test_a_file_that_is_gone_does_not_take_the_others_along(
    browser: Browser, modelless: tuple[RunningService, Path], published: Path, tmp_path: Path
) -> None:
    """A file that was removed after it was chosen says so; those that go in the same request are answered."""
    service, models = modelless
    files = [save(tmp_path, f"{n}.png", plain("red")) for n in range(40)]
    with visit(browser, service.url, expected="503") as page:
        choose(page, *files)
        expect(page.get_by_text("the service is busy")).to_be_visible()  # so that the third part was not read yet
        files[-1].unlink()
        copy(published, models, 1)
        expect(page.get_by_text("39 of 40 pictures answered; 1 not.")).to_be_visible(timeout=15_000)
        expect(card(page, "39.png").locator(".message")).to_have_text("The browser cannot read this file.")


def test_pictures_that_wait_can_be_cancelled(
    browser: Browser, modelless: tuple[RunningService, Path], tmp_path: Path
) -> None:
    """Cancel gives up what was not answered; Clear while pictures are under way forgets them for good."""
    service, _ = modelless
    files = [save(tmp_path, f"{n}.png", plain("red")) for n in range(40)]
    with visit(browser, service.url, expected="503") as page:
        choose(page, *files)
        expect(page.get_by_text("the service is busy")).to_be_visible()
        page.get_by_role("button", name="Cancel").press("Enter")
        expect(page.get_by_text("0 of 40 pictures answered; 40 not.")).to_be_visible()
        expect(page.get_by_text("Cancelled.")).to_have_count(40)
        expect(page.get_by_role("button", name="Clear")).to_be_focused()
        choose(page, *files)
        page.get_by_role("button", name="Clear").click()
        expect(page.get_by_role("progressbar")).to_be_hidden()
        expect(page.locator("#status")).to_have_text("")
        assert names(page) == []


def test_the_limits_of_the_service_hold(browser: Browser, starter: Start, published: Path, tmp_path: Path) -> None:
    """Parts that the service finds too large are halved; a file that is too large alone gets the service's message."""
    service = starter(published.parent.parent, MAX_BATCH="3", MAX_BODY_BYTES="40000")
    files = [save(tmp_path, f"{n}.png", plain("red")) for n in range(10)]
    files.insert(4, save(tmp_path, "huge.bmp", plain("red", "BMP", (200, 200))))
    with visit(browser, service.url, expected="413") as page:
        choose(page, *files)
        expect(page.get_by_text("10 of 11 pictures answered; 1 not.")).to_be_visible()
        message = card(page, "huge.bmp").locator(".message")
        expect(message).to_have_text("The body is larger than the 40,000 bytes that are allowed.")
        assert names(page) == [file.name for file in files]


def test_a_service_that_is_gone_is_told(browser: Browser, starter: Start, published: Path, tmp_path: Path) -> None:
    """A picture that cannot be sent says so, instead of waiting for ever."""
    service = starter(published.parent.parent)
    with visit(browser, service.url, expected="ERR_CONNECTION_REFUSED") as page:
        expect(page.get_by_text("colours, version 1")).to_be_visible()
        service.kill()
        drop(page, save(tmp_path, "late.png", plain("red")))
        expect(card(page, "late.png").locator(".message")).to_contain_text("The connection failed")


@pytest.mark.parametrize("width", [320, 390])
def test_a_phone_has_room_for_all(browser: Browser, bundled_url: str, tmp_path: Path, width: int) -> None:
    """Nothing sticks out at the side, not even long names and commands."""
    files = [save(tmp_path, f"{'long' * 40}{n}.png", plain("red")) for n in range(10)]
    with visit(browser, bundled_url, viewport={"width": width, "height": 640}, has_touch=True) as page:
        expect(page.get_by_role("button", name="frog")).to_be_visible()
        assert overflow(page) == 0
        page.get_by_role("button", name="frog").tap()
        assert answers(page, "frog.webp")[0].startswith("frog")
        expect(card(page, "frog.webp")).to_be_in_viewport()
        choose(page, *files, save(tmp_path, "bad.png", b"bad"))
        expect(page.get_by_text("10 of 11 pictures answered; 1 not.")).to_be_visible()
        page.get_by_text("The same with curl").click()
        page.get_by_text("labels it knows").click()
        assert overflow(page) == 0
        cut = "texts => texts.filter(text => text.getBoundingClientRect().right > innerWidth).length"
        assert page.locator("h3, #command").evaluate_all(cut) == 0


@pytest.mark.parametrize(("scheme", "ground"), [("light", "rgb(246, 247, 247)"), ("dark", "rgb(17, 22, 21)")])
def test_light_and_dark_and_still(browser: Browser, url: str, scheme: str, ground: str) -> None:
    """The page is in the colours that its reader has chosen, and nothing moves where that is asked for."""
    with visit(browser, url, color_scheme=scheme, reduced_motion="reduce") as page:
        assert page.evaluate("getComputedStyle(document.body).backgroundColor") == ground
        assert page.evaluate("getComputedStyle(document.documentElement).scrollBehavior") == "auto"
        assert page.evaluate("getComputedStyle(document.querySelector('button')).transitionDuration") == "0s"


def test_the_form_works_without_javascript(browser: Browser, url: str, tmp_path: Path) -> None:
    """One picture can be chosen and sent by the form alone; what needs JavaScript is not shown."""
    with visit(browser, url, java_script_enabled=False) as page:
        expect(page.get_by_role("button", name="Choose pictures")).to_be_hidden()
        page.get_by_label("A picture").set_input_files(save(tmp_path, "red.png", plain("red")))
        page.get_by_role("button", name="Classify").click()
        expect(page.locator("body")).to_contain_text('"predictions":[{"label":"red"')


def test_screen_readers_get_the_structure(browser: Browser, bundled_url: str) -> None:
    """Headings, names, lists and values are there without the look of the page."""
    with visit(browser, bundled_url) as page:
        page.get_by_role("button", name="frog").click()
        assert answers(page, "frog.webp")
        expect(page.locator("body")).to_match_aria_snapshot("""
            - banner:
              - heading "Darkroom" [level=1]
              - navigation "About the service":
                - link "API"
                - link "Model"
                - link "Metrics"
                - link "Health"
            - main:
              - region "What is in the picture?":
                - heading "What is in the picture?" [level=2]
                - status: /cifar10, version 5/
                - button "Choose pictures"
                - list /sample drawings/:
                  - listitem:
                    - button "airplane"
              - region "Results":
                - heading "Results" [level=2]
                - button "Clear"
                - status: /frog\\.webp. frog, \\d+\\.\\d%\\./
                - list:
                  - listitem:
                    - img "Thumbnail of frog.webp"
                    - heading "frog.webp" [level=3]
                    - list:
                      - listitem: /frog \\d+\\.\\d%/
        """)


@pytest.mark.keras
def test_a_heat_map_shows_where_a_photograph_was_looked_at(browser: Browser, starter: Start, imagenet: Path) -> None:
    """By keyboard alone: the map lies on the flower, another label has another one, and it goes away again."""
    _, flower, _ = paths()
    with visit(browser, starter(imagenet.parent.parent).url) as page:
        choose(page, flower)
        assert answers(page, "flower.jpg")[0].startswith("daisy")
        why = page.get_by_role("button", name="Why? flower.jpg")
        expect(why).to_have_attribute("aria-expanded", "false")
        why.focus()
        page.keyboard.press("Enter")
        shown = page.get_by_role("img", name="Heat map of what spoke for daisy in flower.jpg")
        expect(shown).to_be_visible()
        expect(why).to_have_attribute("aria-expanded", "true")
        page.wait_for_function("document.querySelector('figure img').naturalWidth === 640")
        daisy = shown.get_attribute("src")
        red, _, blue = pixel(page, 290, 215)  # of the flower, which is yellow or green
        assert red > blue
        red, _, blue = pixel(page, 130, 20)  # of the leaves, which are violet
        assert red < blue
        assert len(set(pixel(page, 30, 215))) == 1  # grey, since the model does not see it
        page.keyboard.press("Tab")
        page.keyboard.press("ArrowDown")
        second = answers(page, "flower.jpg")[1].rpartition(" ")[0]
        other = page.get_by_role("img", name=f"Heat map of what spoke for {second} in flower.jpg")
        expect(other).to_be_visible()
        assert other.get_attribute("src") != daisy
        page.keyboard.press("Shift+Tab")
        page.keyboard.press("Enter")
        expect(other).to_be_hidden()
        expect(why).to_be_focused()


def test_a_map_that_cannot_be_had_says_why(browser: Browser, starter: Start, published: Path, tmp_path: Path) -> None:
    """What the service answers, or that it is gone, stands where the map would; it may be asked for again."""
    copy(published, tmp_path / "models", 1)
    service = starter(tmp_path / "models")
    with visit(browser, service.url, expected="Failed to load resource") as page:
        choose(page, save(tmp_path, "red.png", plain("red")))
        page.get_by_role("button", name="Why? red.png").click()
        expect(page.get_by_role("img", name="Heat map of what spoke for red in red.png")).to_be_visible()
        page.get_by_role("button", name="Clear").click()
        expect(page.get_by_role("img", name="Heat map")).to_have_count(0)
        choose(page, save(tmp_path, "blue.png", plain("blue")))
        answers(page, "blue.png")
        service.kill()
        page.get_by_role("button", name="Why? blue.png").click()
        expect(card(page, "blue.png").get_by_text("The connection failed")).to_be_visible()


def pixel(page: Page, x: int, y: int) -> list[int]:
    """Return red, green and blue of a pixel of the heat map that is shown."""
    found: list[int] = page.evaluate(
        """([x, y]) => {
            const image = document.querySelector("figure img");
            const canvas = document.createElement("canvas");
            Object.assign(canvas, { width: image.naturalWidth, height: image.naturalHeight });
            const context = canvas.getContext("2d");
            context.drawImage(image, 0, 0);
            return Array.from(context.getImageData(x, y, 1, 1).data.slice(0, 3));
        }""",
        [x, y],
    )
    return found


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_has_nothing_to_object(browser: Browser, bundled_url: str, tmp_path: Path, scheme: str) -> None:
    """Contrast, names, roles and structure follow axe-core's rules, with answers and errors on the page."""
    axe = importlib.resources.files("axe_playwright_python") / "axe.min.js"
    files = [save(tmp_path, f"{n}.png", plain("red")) for n in range(9)]
    with visit(browser, bundled_url, color_scheme=scheme, bypass_csp=True) as page:
        choose(page, *files, save(tmp_path, "bad.png", b"bad"))
        expect(page.get_by_text("9 of 10 pictures answered; 1 not.")).to_be_visible()
        page.get_by_text("The same with curl").click()
        page.get_by_text("labels it knows").click()
        page.get_by_role("button", name="Why? 3.png").click()
        expect(page.get_by_role("img", name="Heat map")).to_be_visible()
        page.add_script_tag(content=axe.read_text(encoding="utf-8"))
        found = page.evaluate("axe.run()")
        assert len(found["passes"]) > 20
        assert [(fault["id"], [node["html"] for node in fault["nodes"]]) for fault in found["violations"]] == []
        choose(page, *(save(tmp_path, f"{n}.png", plain("white")) for n in range(10, 60)))
        expect(page.get_by_text("50 pictures answered.")).to_be_visible()
        page.get_by_role("button", name="Details 13.png").click()
        page.get_by_text("When is it sure?").click()
        found = page.evaluate("axe.run()")
        assert [(fault["id"], [node["html"] for node in fault["nodes"]]) for fault in found["violations"]] == []


def test_docs_show_every_route(browser: Browser, url: str) -> None:
    """Swagger UI comes from the service alone and shows each operation of /openapi.json."""
    paths = requests.get(f"{url}/openapi.json", timeout=10).json()["paths"]
    with visit(browser, url, "/docs") as page:
        expect(page.locator(".opblock")).to_have_count(sum(len(operations) for operations in paths.values()))
        expect(page.locator(".opblock").first).to_contain_text("/predict")
        assert page.locator("[href*='validator'], [src*='validator'], [src^='http']").count() == 0


def test_routes_can_be_tried_in_the_docs(browser: Browser, url: str, tmp_path: Path) -> None:
    """A GET, a form with a file and a JSON document are sent from the page and answered."""
    # Swagger UI warns that it has no field of its own for a file, and takes the general one.
    with visit(browser, url, "/docs", expected="JsonSchema_string_binary") as page:
        health = operation(page, "#operations-Health-health_live")
        health.get_by_role("button", name="Execute").click()
        expect(health.locator(".live-responses-table")).to_contain_text('"status": "live"')

        predict = operation(page, "#operations-Predict-predict_predict")
        predict.locator("input[type=file]").set_input_files(save(tmp_path, "red.png", plain("red")))
        predict.get_by_role("button", name="Execute").click()
        expect(predict.locator(".live-responses-table")).to_contain_text('"label": "red"')

        batch = operation(page, "#operations-Predict-predict_predict_batch")
        batch.get_by_label("Request content type").select_option("application/json")
        batch.locator("textarea").fill('{"images": ["none"]}')
        batch.get_by_role("button", name="Execute").click()
        expect(batch.locator(".live-responses-table")).to_contain_text('"success": false')


def test_pages_work_below_a_path_of_a_proxy(browser: Browser, url: str, tmp_path: Path) -> None:
    """Behind a proxy that serves it below a path, page and docs ask below that path, and nothing at the root."""
    with below_a_path(url) as (proxy, asked):
        with visit(browser, proxy, "/pictures/docs") as page:
            health = operation(page, "#operations-Health-health_live")
            health.get_by_role("button", name="Execute").click()
            expect(health.locator(".live-responses-table")).to_contain_text('"status": "live"')
            expect(health.locator(".curl")).to_contain_text(f"{proxy}/pictures/health/live")
        with visit(browser, proxy, "/pictures/") as page:
            choose(page, save(tmp_path, "red.png", plain("red")))
            expect(card(page, "red.png").locator(".answers li").first).to_contain_text("red")
            page.get_by_role("link", name="Health").click()
            expect(page.locator("body")).to_contain_text('"status":"ready"')
    assert len(asked) > 10
    assert [path for path in asked if not path.startswith("/pictures/")] == []


@contextmanager
def below_a_path(url: str) -> Iterator[tuple[str, list[str]]]:
    """Give the address of a proxy that hands what is below /pictures/ to ``url``, and the paths it is asked for."""
    asked: list[str] = []

    class Proxy(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self._forward(b"")

        def do_POST(self) -> None:
            self._forward(self.rfile.read(int(self.headers["Content-Length"])))

        def _forward(self, body: bytes) -> None:
            asked.append(self.path)
            headers = {name: value for name, value in self.headers.items() if name not in ("Host", "Accept-Encoding")}
            answer = requests.request(
                self.command, url + self.path.removeprefix("/pictures"), data=body, headers=headers, timeout=30
            )
            self.send_response(answer.status_code)
            for name in ("Content-Type", "Content-Security-Policy", "ETag"):
                if name in answer.headers:
                    self.send_header(name, answer.headers[name])
            self.send_header("Content-Length", str(len(answer.content)))
            self.end_headers()
            self.wfile.write(answer.content)

        def log_message(self, *_: object) -> None:
            """Write nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Proxy) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}", asked
        server.shutdown()
        thread.join()


def operation(page: Page, selector: str) -> Locator:
    """Open an operation of the docs and return it."""
    found = page.locator(selector)
    found.locator(".opblock-summary-control").click()
    return found
