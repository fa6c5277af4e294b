"""The page in a browser: Debian's chromium, headless, driven by Playwright."""

from __future__ import annotations

import os
import pathlib
import shutil
import subprocess
from collections.abc import Iterator
from typing import Any

import pytest
from playwright.sync_api import Browser, Page, sync_playwright

ROOT = pathlib.Path(__file__).resolve().parents[3]
PROGRAM = os.environ.get(
    "JEPSEN_COMPOSER_REHEARSE", str(ROOT / "target/debug/jepsen-composer-rehearse")
)


def make_report(directory: pathlib.Path) -> pathlib.Path:
    """Renders the report of a rehearsal or a store."""
    subprocess.run([PROGRAM, "report", directory], check=True, stdout=subprocess.DEVNULL)
    return directory / "report.html"


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    """One browser for all tests."""
    found = shutil.which("chromium") or shutil.which("chromium-browser")
    if found is None:
        pytest.skip("no chromium is installed: apt-get install chromium")
    with sync_playwright() as playwright:
        # As root in a container, chromium has no sandbox of its own.
        browser = playwright.chromium.launch(executable_path=found, args=["--no-sandbox"])
        yield browser
        browser.close()


class Opened:
    """A page that is open, and what it complained of."""

    def __init__(self, browser: Browser, report: pathlib.Path, theme: str, fragment: str) -> None:
        self.context = browser.new_context(
            color_scheme=theme,  # type: ignore[arg-type]
            viewport={"width": 1300, "height": 850},
        )
        self.page: Page = self.context.new_page()
        self.complaints: list[str] = []
        self.requests: list[str] = []
        self.page.on("console", lambda message: self.complaints.append(message.text))
        self.page.on("pageerror", lambda error: self.complaints.append(str(error)))
        self.page.on("request", lambda request: self.requests.append(request.url))
        self.page.goto(report.resolve().as_uri() + fragment)
        self.until("window.report && report.openedMs !== null")

    def js(self, expression: str, argument: Any = None) -> Any:
        return self.page.evaluate(expression, argument)

    def until(self, expression: str) -> None:
        """Waits until an expression is true."""
        # The page's policy forbids eval, which a bare expression would be.
        self.page.wait_for_function(f"() => {expression}")

    def range(self) -> tuple[float, float]:
        """The part of the time axis that is in sight, in nanoseconds."""
        t0, t1 = self.js("report.range()")
        return t0, t1

    def selected(self) -> str | None:
        selection = self.js("report.selection()")
        return None if selection is None else str(selection["title"])

    def locate(self, kind: str, number: int) -> tuple[float, float]:
        """Where a command, by its id, or an operation, by its index, is drawn."""
        self.js("report.redraw()")
        at = self.js("([kind, number]) => report.locate(kind, number)", [kind, number])
        assert at is not None, f"{kind} {number} is not drawn"
        return at["x"], at["y"]


@pytest.fixture
def open_report(browser: Browser) -> Iterator[Any]:
    """Opens reports, and looks afterwards whether one complained or asked for anything."""
    opened: list[Opened] = []

    def open_one(report: pathlib.Path, theme: str = "light", fragment: str = "") -> Opened:
        opened.append(Opened(browser, report, theme, fragment))
        return opened[-1]

    yield open_one
    for page in opened:
        page.context.close()
    for page in opened:
        assert page.complaints == []
        assert [url for url in page.requests if not url.startswith(("file:", "data:"))] == []
