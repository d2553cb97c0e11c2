"""A real browser, Debian's Chromium, and watched pages: errors, and requests to other hosts, are faults."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal
from urllib.parse import urlsplit

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, ConsoleMessage, Page, Request, expect, sync_playwright

PATIENCE_MS = 20_000
expect.set_options(timeout=PATIENCE_MS)
NAMES = ("chromium", "chromium-browser", "google-chrome")
WIDE, NARROW = 1280, 375

Scheme = Literal["light", "dark"]


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """Chromium; of one module, because its driver keeps an event loop running in this thread."""
    path = next(filter(None, map(shutil.which, NAMES)), None)
    if path is None:
        pytest.skip("no Chromium: install the package chromium")
    with sync_playwright() as driver:
        # The sandbox wants user namespaces, which root in a container has not.
        chromium = driver.chromium.launch(executable_path=path, args=["--no-sandbox", "--disable-gpu"])
        yield chromium
        chromium.close()


@contextmanager
def watched_page(
    browser: Browser, url: str, width: int = WIDE, scheme: Scheme = "light", allowed: tuple[str, ...] = ()
) -> Iterator[Page]:
    """A page at ``url``; at the end no error was in its console, and it has asked no host but its own.

    ``allowed`` are parts of errors that are expected.
    """
    context = browser.new_context(
        viewport={"width": width, "height": 800}, color_scheme=scheme, accept_downloads=True, reduced_motion="reduce"
    )
    page, errors, outside = context.new_page(), list[str](), list[str]()

    def on_console(message: ConsoleMessage) -> None:
        if message.type in ("error", "warning"):
            errors.append(message.text)

    def on_request(request: Request) -> None:
        asked = urlsplit(request.url)
        if asked.scheme not in ("blob", "data") and asked.netloc != urlsplit(url).netloc:
            outside.append(request.url)

    page.on("console", on_console)
    page.on("pageerror", lambda error: errors.append(str(error)))
    page.on("request", on_request)
    page.set_default_timeout(PATIENCE_MS)
    try:
        page.goto(url)
        yield page
        assert [text for text in errors if not any(part in text for part in allowed)] == []
        assert outside == []
    finally:
        context.close()


def check_accessible(page: Page) -> None:
    """Nothing that axe-core knows of is wrong: names of controls, roles, contrast, order of headings."""
    violations = Axe().run(page).response["violations"]
    assert [(v["id"], [node["html"] for node in v["nodes"]]) for v in violations] == []


def check_fits(page: Page) -> None:
    """No part of the page lies beside the window."""
    width, inner = page.evaluate("[document.documentElement.scrollWidth, window.innerWidth]")
    assert width <= inner, f"{width} pixels in a window of {inner}"
