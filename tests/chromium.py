"""The browser of the tests: Debian's Chromium, or Google's, if one is installed."""

import contextlib
import shutil
from collections.abc import Iterator
from typing import Final

import pytest
from playwright.sync_api import Browser, sync_playwright

PROGRAM: Final = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")

needed: Final = pytest.mark.skipif(PROGRAM is None, reason="Chromium is not installed")


@contextlib.contextmanager
def running() -> Iterator[Browser]:
    """Run a Chromium without network traffic of its own until the block ends."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=PROGRAM,
            args=["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update"],
        )
        yield browser
        browser.close()
