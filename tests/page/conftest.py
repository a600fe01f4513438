"""A real service on drawn birds, and Chromium looking at its page."""

import os
import shutil

import pytest

from fieldmark.data.aviary import AviaryConfig
from fieldmark.index.places import open_index
from fieldmark.workflows.index import index_photos
from fieldmark.workflows.sample import sample
from runfolders import make_run
from serving import Running
from tiny import save_encoder

LAPTOP = {"width": 1440, "height": 900}
PHONE = {"width": 390, "height": 844}


@pytest.fixture(scope="session")
def chromium():
    path = os.environ.get("FIELDMARK_CHROMIUM") or shutil.which("chromium")
    if not path:
        pytest.skip("NOT RUN: flows in the browser need Chromium (FIELDMARK_CHROMIUM)")
    return path


@pytest.fixture(scope="session")
def browser(chromium):
    from playwright.sync_api import expect, sync_playwright

    expect.set_options(timeout=15_000)
    with sync_playwright() as playwright:
        found = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        yield found
        found.close()


@pytest.fixture(scope="session")
def birds(tmp_path_factory):
    """Photos of drawn birds, an encoder, and an index of both in which a third has labels."""
    root = tmp_path_factory.mktemp("birds")
    drawn = sample(root / "photos", AviaryConfig(species=6, per_species=24, size=160))
    encoder = save_encoder(root / "encoder")
    index_photos(encoder, drawn.photos, root / "index", parts=True)
    with open_index(root / "index") as index:
        keys = [item.key for item in index.items()]
        index.set_labels({key: None for row, key in enumerate(keys) if row % 3})
    return root


@pytest.fixture(scope="session")
def writable(birds, tmp_path_factory):
    place = shutil.copytree(birds / "index", tmp_path_factory.mktemp("writable") / "index")
    running = Running(place, "--photos", birds / "photos" / "images").start()
    yield running
    running.stop()


@pytest.fixture
def service(writable):
    """A service that a test may write into, and kill: the next one finds it as this one did."""
    before = writable.labels()
    yield writable
    if writable.process.poll() is not None:
        writable.start()
    now = writable.labels()
    changed = {key: label for key, label in before.items() if label != now[key]}
    if changed:
        writable.put("/api/v1/labels", {"labels": changed})


@pytest.fixture(scope="session")
def shared_service(birds, tmp_path_factory):
    """One service for all tests that only look: photos of which a third has labels, and a finished run."""
    place = tmp_path_factory.mktemp("shared")
    photos = shutil.copytree(birds / "photos" / "images", place / "photos")
    some = min(photos.rglob("*.*"))
    shutil.copy(some, some.with_stem("again"))
    shutil.copytree(birds / "index", place / "index")
    index_photos(birds / "encoder", photos, place / "index", parts=True)
    make_run(place / "runs" / "first", finished=True)
    running = Running(place / "index", "--photos", photos, "--runs", place / "runs").start()
    yield running
    running.stop()


class Watched:
    """A page that must not have errors of its own, nor break its content security policy."""

    def __init__(self, page):
        self.page = page
        self.wrong = []
        page.on("pageerror", lambda error: self.wrong.append(str(error)))
        page.on("dialog", lambda dialog: (self.wrong.append(dialog.message), dialog.dismiss()))
        page.on("console", self._heard)

    def _heard(self, message):
        if message.type == "error" and "Failed to load resource" not in message.text:
            self.wrong.append(message.text)


@pytest.fixture
def open_page(browser):
    """Open a page: ``open_page(url, dark=…, phone=…, deaf=…)``; a deaf one hears of nobody's labels."""
    opened = []

    def make(url, *, dark=False, phone=False, deaf=False):
        context = browser.new_context(
            viewport=PHONE if phone else LAPTOP,
            device_scale_factor=2 if phone else 1,
            has_touch=phone,
            is_mobile=phone,
            color_scheme="dark" if dark else "light",
        )
        page = context.new_page()
        watched = Watched(page)
        opened.append((context, watched))
        page.set_default_timeout(15_000)
        if deaf:
            page.route("**/labels/changes*", lambda route: route.abort())
        page.goto(url)
        return page

    yield make
    for context, watched in opened:
        context.close()
        assert not watched.wrong
