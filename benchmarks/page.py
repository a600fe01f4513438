"""Is the page quick? First paint, scrolling, the map, and label to whole set classified again, in Chromium.

Two real services, each looked at by headless Chromium with software rendering on a window of 1440 × 900:

- 10,000 real photos, of which a few hundred keep their label: five loads on a browser without a cache (first
  contentful paint; twelve photos decoded and painted), the grid scrolled 700 pixels a frame and to random
  places (a row of the window without a frame or photo in it is blank), and five times: draw around about thirty
  photos on the map, type a name, Enter. The clock runs from that Enter until the answer that classifies every
  photo has come and two frames were drawn;
- 100,000 made-up points: the map dragged and zoomed for 120 frames each. While it moves on a machine without a
  GPU, the page draws a fair sample of the points, and all of them when it rests; ``drawn_while_moving`` says how
  many in the last such frame (null: all).

    python benchmarks/page.py INDEX PHOTOS [--chromium /usr/bin/chromium]

INDEX is copied, labels of all but --labelled of its photos are taken away in the copy.
"""

import argparse
import json
import os
import random
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from pathlib import Path
from typing import Any

import numpy as np
from playwright.sync_api import Page, sync_playwright

from _record import measured, record
from fieldmark.index.index import Stamp
from fieldmark.index.places import open_index

# Names that are not nearly the same: the page would ask twice.
_NAMES = ("quail", "night heron", "crested lark", "dusky owlet", "eastern fox")
_PAINTED = "document.querySelectorAll('.cell img:not(.cell-coming)').length >= 12"
_SCROLL = """async (jump) => {
  const grid = document.querySelector('.grid'), steps = [];
  let blank = 0, last = performance.now();
  const frame = () => new Promise((done) => requestAnimationFrame(() => {
    const channel = new MessageChannel();
    channel.port1.onmessage = done;
    channel.port2.postMessage(0);
  }));
  for (let i = 0; i < (jump ? 60 : 150); i += 1) {
    grid.scrollTop = jump ? Math.random() * grid.scrollHeight : grid.scrollTop + 700;
    await frame();
    const now = performance.now();
    steps.push(now - last);
    last = now;
    const box = grid.getBoundingClientRect();
    const cells = [...grid.querySelectorAll('.cell')].map((cell) => cell.getBoundingClientRect());
    for (const y of [box.top + 60, box.top + box.height / 2, box.bottom - 60])
      if (!cells.some((cell) => cell.top <= y + 40 && cell.bottom >= y - 40)) blank += 1;
  }
  steps.sort((a, b) => a - b);
  const at = (share) => steps[Math.floor(share * (steps.length - 1))];
  return { frames: steps.length, median_ms: at(0.5), p95_ms: at(0.95), blank };
}"""
_MOVE = """(kind) => new Promise((done) => {
  const canvas = document.querySelector('.map-canvas'), box = canvas.getBoundingClientRect();
  const x = box.left + box.width / 2, y = box.top + box.height / 2, steps = [];
  const send = (type, dx, dy) => canvas.dispatchEvent(new PointerEvent(type, {
    pointerId: 1, clientX: x + dx, clientY: y + dy, button: 0, bubbles: true, pointerType: 'mouse' }));
  canvas.setPointerCapture = () => {};
  if (kind === 'pan') send('pointerdown', 0, 0);
  let last = 0, i = 0;
  const frame = (now) => {
    if (last) steps.push(now - last);
    last = now;
    i += 1;
    if (i > 120) {
      if (kind === 'pan') send('pointerup', 0, 0);
      steps.sort((a, b) => a - b);
      const mean = steps.reduce((a, b) => a + b) / steps.length;
      done({ frames_per_second: 1000 / mean, p95_ms: steps[Math.floor(0.95 * steps.length)] });
      return;
    }
    if (kind === 'pan') send('pointermove', 120 * Math.sin(i / 9), 80 * Math.cos(i / 7));
    else canvas.dispatchEvent(new WheelEvent('wheel', {
      deltaY: i % 60 < 30 ? -60 : 60, clientX: x + 50, clientY: y, bubbles: true, cancelable: true }));
    requestAnimationFrame(frame);
  };
  requestAnimationFrame(frame);
})"""


class Served:
    """A service in a process of its own."""

    def __init__(self, index: Path, photos: Path | None) -> None:
        command = [sys.executable, "-m", "fieldmark", "serve", str(index), "--port", "0"]
        command += ["--json", "--no-open"] + (["--photos", str(photos)] if photos else [])
        began = time.perf_counter()
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        assert self.process.stdout is not None
        self.url = json.loads(self.process.stdout.readline())["url"]
        self.seconds_to_start = time.perf_counter() - began

    def __enter__(self) -> "Served":
        return self

    def __exit__(self, *_: object) -> None:
        self.process.terminate()
        self.process.wait(30)
        assert self.process.stdout is not None
        self.process.stdout.close()

    def wait(self, path: str, seconds: float = 1800) -> None:
        """Until a derived answer is ready."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            with urllib.request.urlopen(self.url + path, timeout=120) as answer:
                if answer.status == 200 and json.loads(answer.read()).get("final", True):
                    return
            time.sleep(2)
        raise SystemExit(f"{path} was not ready in {seconds:.0f} s")


def keep_labels(index: Path, count: int) -> int:
    """Take away all labels but some."""
    with open_index(index) as opened:
        keys = [item.key for item in opened.items("label is not null")]
        kept = set(random.Random(0).sample(keys, min(count, len(keys))))
        taken = [key for key in keys if key not in kept]
        for begin in range(0, len(taken), 5000):
            opened.set_labels(dict.fromkeys(taken[begin : begin + 5000]), by="benchmark")
    return len(kept)


def make_points(folder: Path, count: int) -> Path:
    """An index of made-up vectors: 500 kinds in 32 dimensions, no photos behind them."""
    rng = np.random.default_rng(0)
    kinds = rng.normal(size=(500, 32))
    vectors = kinds[rng.integers(0, 500, count)] + 0.6 * rng.normal(size=(count, 32))
    vectors = (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)
    with open_index(folder, create=True) as index:
        index.add_space("0" * 64, 32, {"network": "made up"})
        for begin in range(0, count, 10_000):
            rows = range(begin, min(begin + 10_000, count))
            stamps = [Stamp(1, 1, f"{row:064x}") for row in rows]
            index.add(
                [f"{row:06d}.jpg" for row in rows], vectors[rows.start : rows.stop], stamps=stamps
            )
    return folder


def load_times(browser: Any, url: str, times: int = 5) -> dict[str, Any]:
    """Of a page that was never seen before."""
    found = []
    for _ in range(times):
        context = browser.new_context(viewport={"width": 1440, "height": 900}, bypass_csp=True)
        page = context.new_page()
        page.goto(f"{url}explore")
        page.wait_for_function(_PAINTED, polling="raf", timeout=60_000)
        painted = page.evaluate("performance.now()")
        first = page.evaluate("performance.getEntriesByName('first-contentful-paint')[0].startTime")
        found.append((first / 1000, painted / 1000))
        context.close()
    names = ("first_contentful_paint_s", "twelve_photos_painted_s")
    return {name: spread([one[i] for one in found]) for i, name in enumerate(names)}


def spread(values: list[float]) -> dict[str, float]:
    """Least, middle and most."""
    told = {"least": min(values), "median": statistics.median(values), "most": max(values)}
    return {name: round(value, 3) for name, value in told.items()}


def open_explore(browser: Any, url: str) -> Page:
    """The page with its map there."""
    page: Page = browser.new_context(
        viewport={"width": 1440, "height": 900}, bypass_csp=True
    ).new_page()
    page.goto(f"{url}explore")
    page.wait_for_selector(".map-canvas", timeout=120_000)
    page.wait_for_timeout(2000)
    return page


def lasso(page: Page, wanted: int) -> int:
    """Draw around about so many photos at the middle of the map; how many were chosen."""
    box = page.locator(".map-canvas").bounding_box()
    assert box is not None
    x, y = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
    radius, chosen = 20.0, 0
    for _ in range(16):
        page.keyboard.press("Escape")
        page.mouse.move(x + radius, y)
        page.mouse.down()
        for part in range(1, 25):
            angle = 2 * np.pi * part / 24
            page.mouse.move(x + radius * np.cos(angle), y + radius * np.sin(angle))
        page.mouse.up()
        page.wait_for_timeout(300)
        count = page.locator(".chosen-count")
        chosen = int(count.inner_text().split()[0].replace(",", "")) if count.count() else 0
        if 0.8 * wanted <= chosen <= 1.2 * wanted:
            break
        radius *= 1.5 if not chosen else min(1.6, max(0.6, (wanted / chosen) ** 0.5))
    return chosen


def label_times(page: Page) -> dict[str, Any]:
    """From Enter until every photo is classified again and drawn."""
    page.get_by_label("Draw around photos").click()
    seconds, counts = [], []
    for name in _NAMES:
        counts.append(lasso(page, 30))
        page.keyboard.press("l")
        page.keyboard.type(name)
        with page.expect_response(
            lambda answer: "/api/v1/guesses" in answer.url and answer.status == 200, timeout=60_000
        ) as answered:
            began = time.perf_counter()
            page.keyboard.press("Enter")
        classes = answered.value.json()["classes"]
        page.evaluate("new Promise((d) => requestAnimationFrame(() => requestAnimationFrame(d)))")
        seconds.append(time.perf_counter() - began)
        assert name in classes
        page.wait_for_timeout(2500)
    return {"chosen": counts, "seconds": spread(seconds), "each": [round(s, 3) for s in seconds]}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("index", type=Path)
    parser.add_argument("photos", type=Path)
    parser.add_argument("--labelled", type=int, default=300)
    parser.add_argument("--points", type=int, default=100_000)
    parser.add_argument("--made", type=Path, help="Where the made-up index is kept between runs.")
    parser.add_argument("--chromium", default=os.environ.get("FIELDMARK_CHROMIUM", "chromium"))
    arguments = parser.parse_args()
    chromium = shutil.which(arguments.chromium)
    if chromium is None:
        raise SystemExit(f"no Chromium at {arguments.chromium}")
    result: dict[str, Any] = {"viewport": [1440, 900], "rendering": "software (headless)"}
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        result["browser"] = browser.version
        copy = Path(folder) / "index"
        shutil.copytree(arguments.index, copy)
        kept = keep_labels(copy, arguments.labelled)
        with Served(copy, arguments.photos) as served:
            served.wait("api/v1/map")
            served.wait("api/v1/guesses")
            time.sleep(5)
            photos = json.loads(urllib.request.urlopen(f"{served.url}api/v1/library").read())
            page = open_explore(browser, served.url)
            page.wait_for_timeout(3000)
            page.close()
            part: dict[str, Any] = {"photos": photos["photos"], "labelled": kept}
            part |= {"measured": measured(), "seconds_to_start": round(served.seconds_to_start, 2)}
            part |= load_times(browser, served.url)
            page = open_explore(browser, served.url)
            part["label_to_classified"] = label_times(page)
            page.keyboard.press("Escape")
            part["scroll"] = page.evaluate(_SCROLL, False)
            part["jumps"] = page.evaluate(_SCROLL, True)
            page.close()
            result["ten_thousand"] = part
        made = arguments.made or Path(folder) / "made"
        if not made.exists():
            make_points(made, arguments.points)
        with Served(made, None) as served:
            served.wait("api/v1/map")
            page = open_explore(browser, served.url)
            page.wait_for_timeout(4000)
            points: dict[str, Any] = {"points": arguments.points, "measured": measured()}
            for kind in ("pan", "zoom"):
                points[kind] = page.evaluate(_MOVE, kind)
                points[kind]["drawn_while_moving"] = page.evaluate(
                    "Number(document.querySelector('.map-canvas').dataset.drawnMoving ?? 'NaN') || null"
                )
                page.wait_for_timeout(1500)
            result["map"] = points
        browser.close()
    record("page", result)


if __name__ == "__main__":
    main()
