"""A real browser, for pages: Debian's chromium, driven by Selenium."""

from __future__ import annotations

import contextlib
import shutil

import pytest


@contextlib.contextmanager
def open_browser():
    """A headless chromium; skips the test where it, its driver or Selenium is absent."""
    webdriver = pytest.importorskip("selenium.webdriver", reason="needs Selenium, of the extra `test`")
    programs = [shutil.which(name) for name in ("chromium", "chromedriver")]
    if None in programs:
        pytest.skip("needs a browser: apt install chromium chromium-driver")
    options = webdriver.ChromeOptions()
    options.binary_location = programs[0]
    for argument in ("--headless=new", "--no-sandbox", "--disable-dev-shm-usage", "--disable-gpu"):
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    with webdriver.Chrome(options=options, service=webdriver.ChromeService(programs[1])) as browser:
        browser.set_page_load_timeout(60)
        yield browser


def resize(browser, width, height, scale=1, mobile=False, dark=False):
    """Gives the page a viewport in CSS pixels, of that many device pixels each; a phone's, or the desktop's."""
    metrics = {"width": width, "height": height, "deviceScaleFactor": scale, "mobile": mobile}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
    scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [scheme]})
