"""The page of a whole `vmp-edge serve` in a real browser."""

import contextlib
import json

import pytest
from browser import open_browser, resize
from bundles import make_manifest, write_bundle
from serving import serve
from synthetic_sources import wait_until

pytest.importorskip("aiohttp", reason="needs aiohttp, of the extra `serve`")

TOKEN = "correct-horse-battery"


@pytest.fixture(scope="module")
def shared_browser():
    with open_browser() as browser:
        yield browser


@pytest.fixture
def browser(shared_browser):
    """The browser, without the page and the log of an earlier test."""
    shared_browser.get("about:blank")
    complaints(shared_browser)
    return shared_browser


@contextlib.contextmanager
def serving(bundle, *arguments):
    """Run `vmp-edge serve`, and give its address."""
    with serve(bundle, *arguments) as server:
        try:
            yield f"http://localhost:{json.loads(server.stdout.readline())['port']}/"
        finally:
            server.terminate()
            server.communicate(timeout=60)
    assert server.returncode == 143


class Page:
    """One camera's part of the page, as a user sees and uses it."""

    def __init__(self, browser, camera=0):
        self.browser = browser
        self.camera = camera

    def ask(self, expression):
        """Evaluate JavaScript, in which `camera` is the camera's part of the page."""
        camera = f"""const camera = document.querySelector('[data-camera="{self.camera}"]');"""
        return self.browser.execute_script(f"{camera} return {expression};")

    def text(self, part):
        return self.ask(f"camera?.querySelector('.{part}')?.textContent")

    def pixels(self, part):
        return self.ask(f"camera.querySelector('.{part}').toDataURL()")

    def picture_number(self):
        return int(self.ask("camera?.querySelector('.live').dataset.number") or 0)

    def press(self):
        self.ask("camera.querySelector('.toggle').click()")

    def overflows(self):
        return self.ask("document.documentElement.scrollWidth > window.innerWidth")


def complaints(browser):
    return [entry["message"] for entry in browser.get_log("browser") if entry["level"] in ("SEVERE", "WARNING")]


def test_the_page_is_alive_and_stops_and_starts(browser, bundle, video):
    resize(browser, 1200, 900)
    with serving(bundle, "--source", video, "--source", "nothing.mp4") as address:
        browser.get(address)
        page, broken = Page(browser), Page(browser, 1)
        wait_until(lambda: page.picture_number() > 1 and page.text("label"))
        assert browser.title == "brightness" and page.text("name") == str(video)

        labels, drawn = set(), {part: set() for part in ("live", "timeline", "latency-graph", "drops-graph")}

        def everything_changes():
            labels.add(page.text("label"))
            for part, seen in drawn.items():
                seen.add(page.pixels(part))
            return {"brighter", "darker"} <= labels and all(len(seen) > 2 for seen in drawn.values())

        wait_until(everything_changes)
        assert page.text("latency").endswith("p95") and " of " in page.text("drops")
        assert page.ask("[...camera.querySelectorAll('.top li')].map((row) => row.children.length)") == [3, 3, 3]
        widths = page.ask("[...camera.querySelectorAll('.fill')].map((fill) => parseFloat(fill.style.width))")
        assert sorted(widths, reverse=True) == widths and sum(widths) == pytest.approx(100, abs=0.1)
        classes = page.ask("[...document.querySelectorAll('#labels li')].map((row) => row.textContent)")
        assert classes == ["brighter", "darker", "steady"]
        assert broken.text("state") == "failed" and "does not exist" in broken.text("message")

        for part in (".name", ".label", ".message", ".top span"):
            style = f"getComputedStyle(camera.querySelector('{part}'))"
            assert page.ask(f"{style}.unicodeBidi") == "isolate", "signs of writing direction change nothing beside it"
        assert page.ask("getComputedStyle(document.querySelector('#labels bdi')).unicodeBidi") == "isolate"

        page.press()
        wait_until(lambda: page.text("toggle") == "Start" and page.text("state") == "stopped")
        number = page.picture_number()
        frames = browser.execute_script("return fetch('/api/state').then((r) => r.json())")["cameras"][0]["frames"]
        page.press()
        wait_until(lambda: page.text("toggle") == "Stop" and page.picture_number() > number + 3)
        state = browser.execute_script("return fetch('/api/state').then((r) => r.json())")
        assert state["cameras"][0]["state"] == "running" and state["cameras"][0]["frames"] > frames
        assert state["viewers"] == 1 and not page.overflows()
        assert complaints(browser) == []
    wait_until(lambda: "connection lost" in page.ask("document.querySelector('#connection').textContent"))


def test_the_page_says_that_a_window_is_filling_up(browser, tmp_path, video):
    bundle = write_bundle(tmp_path / "long", make_manifest(span=4.0))  # 3 s; the video has 2, and is played again
    with serving(bundle, "--source", video, "--loop") as address:
        browser.get(address)
        page, seen = Page(browser), set()

        def two_shares_are_seen():
            seen.add(page.text("label"))
            return sum((text or "").startswith("filling the window of 3 s: ") for text in seen) > 2

        wait_until(two_shares_are_seen)
        assert page.text("score") == "" and not page.overflows()
        assert complaints(browser) == []


def test_on_a_phone_nothing_sticks_out_and_labels_are_text(browser, tmp_path, video):
    labels = ("<img src=x onerror=document.title='bad'>", "somebody-opens-the-refrigerator-door-" * 3, "steady")
    bundle = write_bundle(tmp_path / "long", make_manifest(labels=labels))
    backgrounds = set()
    with serving(bundle, "--source", video, "--source", video) as address:
        for width, dark in ((390, False), (320, True)):
            resize(browser, width, 800, scale=2, mobile=True, dark=dark)
            browser.get(address)
            page = Page(browser, 1)
            wait_until(lambda page=page: page.picture_number() > 1 and page.text("label") == labels[1])
            browser.execute_script("document.querySelector('#classes').open = true")
            assert page.ask("window.innerWidth") == width and not page.overflows()
            assert page.ask("camera.getBoundingClientRect().right") <= width
            assert page.ask("camera.querySelector('.toggle').getBoundingClientRect().height") >= 40, "a thumb's size"
            assert page.ask("document.images.length") == 0
            backgrounds.add(page.ask("getComputedStyle(document.body).backgroundColor"))
        assert complaints(browser) == []
    assert len(backgrounds) == 2, "dark and light"


def test_the_token_is_asked_for(browser, bundle, video):
    resize(browser, 390, 800, scale=2, mobile=True)
    with serving(bundle, "--source", video, "--host", "0.0.0.0", "--token", TOKEN) as address:

        def log_in(token):
            browser.execute_script(
                "document.querySelector('#token').value = arguments[0]; document.querySelector('button').click()", token
            )

        browser.get(address)
        page = Page(browser)
        assert page.ask("document.querySelector('h1').textContent") == "Token needed" and not page.overflows()
        log_in("not this one, surely")
        wait_until(lambda: page.ask("document.querySelector('.problem')?.textContent") == "That is not the token.")
        log_in(TOKEN)
        wait_until(lambda: page.picture_number() > 1)
        assert browser.current_url == address
        browser.delete_all_cookies()
        browser.get(f"{address}?token={TOKEN}")
        wait_until(lambda: page.picture_number() > 1)
        assert browser.current_url == address and not page.ask("document.cookie"), "the token is out of scripts' reach"
