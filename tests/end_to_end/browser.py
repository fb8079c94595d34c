"""Pages in a real browser, used as people use them, and watched for what should not happen."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from playwright.sync_api import Browser, ConsoleMessage, Page, Request

_WIDTH, _HEIGHT = 1200, 900


@contextmanager
def visit(browser: Browser, url: str, path: str = "/", *, expected: str = "", **options: Any) -> Iterator[Page]:
    """Give the page at ``url`` + ``path``; fail afterwards on what went wrong out of sight.

    That is a request to another origin, an exception, and an error or a warning in the console, where violations of the
    content security policy are told as well. Errors with the text ``expected`` are let through. ``options`` are those
    of a browser's context.
    """
    faults: list[str] = []

    def hear(message: ConsoleMessage) -> None:
        if message.type in ("error", "warning") and not (expected and expected in message.text):
            faults.append(message.text)

    def follow(request: Request) -> None:
        if not request.url.startswith((f"{url}/", f"blob:{url}/", "data:")):
            faults.append(f"a request to {request.url}")

    context = browser.new_context(**{"viewport": {"width": _WIDTH, "height": _HEIGHT}, **options})
    try:
        page = context.new_page()
        page.on("console", hear)
        page.on("pageerror", lambda error: faults.append(str(error)))
        page.on("request", follow)
        # File choosers are caught from now on; that would take effect too late for one that a key opens at once.
        page.on("filechooser", lambda _: None)
        page.goto(url + path)
        yield page
    finally:
        context.close()
    assert not faults, faults


def drop(page: Page, *paths: Path) -> None:
    """Drop files and folders on the page, as from a file manager."""
    devtools = page.context.new_cdp_session(page)
    data = {"items": [], "files": [str(path) for path in paths], "dragOperationsMask": 1}
    for kind in ("dragEnter", "dragOver", "drop"):
        devtools.send("Input.dispatchDragEvent", {"type": kind, "x": _WIDTH // 2, "y": 20, "data": data})


def paste(page: Page, content: bytes, name: str, media_type: str) -> None:
    """Paste a file that is in the clipboard, as after copying a picture from another program."""
    page.evaluate(
        """([content, name, type]) => {
            const clipboardData = new DataTransfer();
            clipboardData.items.add(new File([new Uint8Array(content)], name, { type }));
            document.body.dispatchEvent(new ClipboardEvent("paste", { clipboardData, bubbles: true }));
        }""",
        [list(content), name, media_type],
    )


def tab_to(page: Page, name: str) -> None:
    """Press Tab until the element with the accessible name ``name`` has the focus."""
    for _ in range(50):
        page.keyboard.press("Tab")
        if page.evaluate("document.activeElement.innerText.trim()") == name:
            return
    raise AssertionError(f"the keyboard does not come to {name!r}")


def overflow(page: Page) -> int:
    """Return how many pixels of the page lie beside the window."""
    pixels: int = page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth")
    return pixels
