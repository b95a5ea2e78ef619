# Copyright 2026 The vit-scratch authors. Licensed under the Apache License, Version 2.0.
"""A real browser without a window, for the tests of the page."""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

# Names of a file that notes that a browser ran. Who sets it (.ci/run) wants the tests with a browser to run, not to be
# skipped; who does not may have none.
WANTED = "VIT_SCRATCH_BROWSER_TESTS"
NAMES = ("chromium", "chromium-browser", "google-chrome")


@contextmanager
def chromium() -> Iterator:
    """Debian's Chromium, driven by Playwright, which would fetch a browser of its own from the network."""
    found = next(filter(None, map(shutil.which, NAMES)), None)
    if found is None:
        missing = f"none of {', '.join(NAMES)} is installed (on Debian: apt install chromium)"
        pytest.fail(missing) if WANTED in os.environ else pytest.skip(missing)
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        # Chromium's sandbox needs a user other than root, and containers have little shared memory.
        browser = playwright.chromium.launch(
            executable_path=found, args=["--no-sandbox", "--disable-dev-shm-usage", "--disable-gpu"]
        )
        if WANTED in os.environ:
            Path(os.environ[WANTED]).write_text(f"{browser.browser_type.name} {browser.version}\n", encoding="utf-8")
        try:
            yield browser
        finally:
            browser.close()
