"""A real service on drawn birds, and Chromium looking at its page."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import pytest

from fieldmark.data.aviary import AviaryConfig
from fieldmark.index.places import open_index
from fieldmark.workflows.index import index_photos
from fieldmark.workflows.sample import sample
from tiny import save_encoder

WEB = Path(__file__).parents[2] / "web"
LAPTOP = {"width": 1440, "height": 900}
PHONE = {"width": 390, "height": 844}


class Running:
    """A service in a process of its own, which can be killed and started again at the same address."""

    def __init__(self, *arguments, port=0):
        self.arguments = [str(argument) for argument in arguments]
        self.port = port
        self.process = None

    def start(self):
        command = [sys.executable, "-m", "fieldmark", "serve", *self.arguments]
        command += ["--port", str(self.port), "--json", "--no-open"]
        self.process = subprocess.Popen(
            command, stdout=subprocess.PIPE, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"}
        )
        told = json.loads(self.process.stdout.readline())
        self.url = told["url"].rstrip("/")
        self.port = int(self.url.rpartition(":")[2])
        return self

    def kill(self):
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()

    def stop(self):
        if self.process.poll() is None:
            self.process.terminate()
            self.process.wait(20)

    def get(self, path):
        with urllib.request.urlopen(self.url + path, timeout=30) as answer:
            return json.loads(answer.read())


def wait_for(holds, seconds=10.0):
    """Until something holds; what it last gave."""
    end = time.monotonic() + seconds
    while True:
        found = holds()
        if found or time.monotonic() > end:
            assert found
            return found
        time.sleep(0.1)


@pytest.fixture(scope="session")
def chromium():
    path = os.environ.get("FIELDMARK_CHROMIUM") or shutil.which("chromium")
    if not path:
        pytest.skip("NOT RUN: flows in the browser need Chromium (FIELDMARK_CHROMIUM)")
    return path


@pytest.fixture(scope="session")
def browser(chromium):
    from playwright.sync_api import sync_playwright

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


@pytest.fixture
def copy(birds, tmp_path):
    """An index that a test may write into."""
    shutil.copytree(birds / "index", tmp_path / "index")
    return tmp_path / "index"


@pytest.fixture
def service(birds, copy):
    running = Running(copy, "--photos", birds / "photos" / "images").start()
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
    """Open a page: ``open_page(url, dark=…, phone=…)``."""
    opened = []

    def make(url, *, dark=False, phone=False):
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
        page.goto(url)
        return page

    yield make
    for context, watched in opened:
        context.close()
        assert not watched.wrong
