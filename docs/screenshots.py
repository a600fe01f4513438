"""Makes docs/pictures/page-*.webp: the page as it looks, on drawn birds, from a real service.

    python docs/screenshots.py [NAME ...] [--work build/screenshots]

It draws 1,280 photos of eight species, trains on them without labels, indexes and labels them in the work folder
(seven minutes on one core, once: a later call takes what is there), starts ``fieldmark serve`` on a copy and
looks at it with Chromium. With names only those pictures are made again.

Wants Chromium from the system's packages (Debian, Ubuntu: ``apt-get install chromium``) or the browser that
FIELDMARK_CHROMIUM names, and Playwright (in the extra ``dev``); without them nothing is written, and the exit
code is 1. Photos, training, labels and what is clicked are the same in every call; pixels differ with the
processor (as trained numbers do), the version of Chromium and the fonts.
"""

import argparse
import csv
import json
import os
import random
import shutil
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import quote

import numpy as np
from PIL import Image

HERE = Path(__file__).parent
SPECIES, EACH, SIDE, EPOCHS = 8, 160, 288, 110
LABELLED = 0.3
"""Share of photos that have a label when the page is opened."""
QUALITY = 80


class Size(NamedTuple):
    """Of a window, in CSS pixels, and how many real ones stand for each."""

    width: int
    height: int
    scale: float = 1.5


LAPTOP, TALL, PHONE = Size(1280, 800), Size(1280, 1720, 1.2), Size(390, 844)


def prepare(work: Path) -> Path:
    """A folder with photos, a run and an index; what is there is kept."""
    birds, photos = work / "birds", work / "photos"
    if not (birds / "split.csv").exists():  # Written last.
        drawn = ("--species", SPECIES, "--per-species", EACH, "--size", SIDE, "--seed", 0)
        fieldmark("sample", birds, *drawn)
    photos.mkdir(exist_ok=True)
    for photo in birds.glob("images/*/*.jpg"):
        if not (photos / photo.name).exists():
            shutil.copy(photo, photos)
    if not (work / "runs" / "birds" / "result.json").exists():
        _train(birds, work / "runs" / "birds")
    index = work / "birds.index"
    if not index.exists():
        fresh = work / "unlabelled.index"
        fieldmark("index", work / "runs" / "birds", photos, "--out", fresh, "--parts")
        with (work / "labels.csv").open("w", newline="") as file:
            table = csv.writer(file)
            table.writerow(["path", "label"])
            table.writerows(sorted(_labels(birds).items()))
        fieldmark("label", "set", fresh, work / "labels.csv", "--by", "Ida")
        fresh.rename(index)
    return work


def _train(birds: Path, run: Path) -> None:
    fieldmark(
        *("train", birds / "images", "--recipe", "demo", "--epochs", EPOCHS),
        *("--set", "train.precision=fp32", "--set", "train.tensorboard=false"),
        *("--probe", birds / "split.csv", "--out", run),
    )


def _labels(birds: Path) -> dict[str, str]:
    """What Ida has labelled: a part of the photos."""
    with (birds / "split.csv").open() as file:
        of = {Path(row["path"]).name: row["class"] for row in csv.DictReader(file)}
    chosen = random.Random(1).sample(sorted(of), round(LABELLED * len(of)))
    return {photo: written(of[photo]) for photo in chosen}


def written(species: str) -> str:
    """As a person would write it: *ringed-capped finch* for ``00-ringed-capped-finch``."""
    return " ".join(species.partition("-")[2].rsplit("-", 1))


def fieldmark(*words: object) -> None:
    """Run the command line as a reader would."""
    command = [sys.executable, "-m", "fieldmark", *map(str, words)]
    print("$ fieldmark", *words, flush=True)
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)


@contextmanager
def serving(work: Path) -> Iterator[str]:
    """A service on a copy of the index, so that no picture sees what another has labelled."""
    copy = work / "shown.index"
    shutil.rmtree(copy, ignore_errors=True)
    shutil.copytree(work / "birds.index", copy)
    command = [sys.executable, "-m", "fieldmark", "serve", copy, "--photos", work / "photos"]
    command += ["--runs", work / "runs", "--port", "0", "--no-open", "--json"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        yield json.loads(process.stdout.readline())["url"].rstrip("/")
    finally:
        process.terminate()
        process.wait(20)


class Studio:
    """Opens windows on the page.

    Args:
        browser: Playwright's.
        url: Of the service.
        work: What :func:`prepare` made.
    """

    def __init__(self, browser: Any, url: str, work: Path) -> None:
        self._browser, self._url, self.work = browser, url, work

    def get(self, path: str) -> Any:
        """What the service answers; waits until it is there."""
        while True:
            with urllib.request.urlopen(self._url + path, timeout=60) as answer:
                told = json.loads(answer.read())
                if answer.status != 202 and told.get("final", True):
                    return told
            time.sleep(1)

    def ask(self, path: str, body: Mapping[str, Any]) -> Any:
        """The same for a question with a body."""
        data = json.dumps(body).encode()
        head = {"Content-Type": "application/json"}
        request = urllib.request.Request(self._url + path, data=data, headers=head)
        while True:
            with urllib.request.urlopen(request, timeout=60) as answer:
                told = json.loads(answer.read())
                if answer.status != 202:
                    return told
            time.sleep(1)

    def open(self, path: str, size: Size = LAPTOP, *, dark: bool = False) -> Any:
        """A page in a window of its own."""
        phone = size.width < 600
        context = self._browser.new_context(
            viewport={"width": size.width, "height": size.height},
            device_scale_factor=size.scale,
            has_touch=phone,
            is_mobile=phone,
            color_scheme="dark" if dark else "light",
            reduced_motion="reduce",
            locale="en-GB",
            timezone_id="UTC",
        )
        page = context.new_page()
        page.set_default_timeout(60_000)
        page.goto(self._url + path)
        return page


def picture(page: Any) -> Image.Image:
    """What the window shows, once its photos are there."""
    page.wait_for_function(
        """() => [...document.images].every((image) => {
            const { top, bottom, width } = image.getBoundingClientRect();
            return image.complete || width === 0 || bottom < 0 || top > innerHeight;
        })"""
    )
    page.wait_for_timeout(500)
    shot = Image.open(BytesIO(page.screenshot(animations="disabled", caret="hide")))
    page.context.close()
    return shot.convert("RGB")


def side_by_side(shots: list[Image.Image], gap: int = 36) -> Image.Image:
    """Several phones in one picture."""
    width = sum(shot.width for shot in shots) + gap * (len(shots) - 1)
    whole = Image.new("RGB", (width, max(shot.height for shot in shots)), "#c9ccd1")
    left = 0
    for shot in shots:
        whole.paste(shot, (left, 0))
        left += shot.width + gap
    return whole


# -- what is shown


def explore(studio: Studio) -> Image.Image:
    """A line is being drawn around a group on the map."""
    told, guesses = studio.get("/api/v1/map"), studio.get("/api/v1/guesses")
    page = studio.open("/explore?colour=guess")
    page.get_by_role("listbox", name="Photos").get_by_text("%").first.wait_for()
    page.get_by_role("button", name="Draw around photos").click()
    field, legend = (page.locator(one).bounding_box() for one in (".map-field", ".legend"))
    scale = 0.94 * min(field["width"], field["height"])  # As `wholeMap` of the page has it.
    middle = [field["x"] + field["width"] / 2, field["y"] + field["height"] / 2]
    points = np.array([told["x"], told["y"]]).T * scale + middle - scale / 2
    edges = (field["x"] + 70, field["y"], field["x"] + field["width"], field["y"] + field["height"])
    corner = (legend["x"] + legend["width"], legend["y"])
    radius = 0.12 * scale
    x, y = _group(points, np.array(guesses["guess"]), edges, corner, 1.1 * radius)
    line = [(x + dx * radius, y + dy * radius) for dx, dy in _AROUND]
    # Begun where no point is: the card of a photo would stay over the map.
    free = [np.linalg.norm(points - corner, axis=1).min() for corner in line]
    begin = int(np.argmax(free))
    for number, corner in enumerate(line[begin:] + line[:begin]):
        page.mouse.move(*corner, steps=6 if number else 1)
        if number == 0:
            page.mouse.down()
    return picture(page)


_AROUND = ((1, 0), (0.8, 0.55), (0.35, 0.95), (-0.3, 0.9), (-0.85, 0.6))
_AROUND += ((-1.05, 0), (-0.8, -0.6), (-0.25, -1), (0.4, -0.9), (0.85, -0.5))


def _group(points: Any, guess: Any, edges: Any, legend: Any, radius: float) -> Any:
    """A place on the screen with many points of one kind and few of others around it.

    Args:
        points: In pixels.
        guess: Kind of each.
        edges: Of what is seen of the map: left, upper, right, lower.
        legend: Its right upper corner; it lies in the map's left lower one.
        radius: In pixels.
    """
    left, top, right, bottom = edges
    best, most = points[0], -len(points)
    for x, y in points:
        inside = (
            left < x - radius and x + radius < right and top < y - radius and y + radius < bottom
        )
        if not inside or (x - radius < legend[0] and y + radius > legend[1]):
            continue
        near = guess[np.hypot(*(points - (x, y)).T) < radius]
        same = int(np.bincount(near[near >= 0], minlength=1).max())
        if same - (len(near) - same) > most:
            best, most = (x, y), same - (len(near) - same)
    return best


def groups(studio: Studio) -> Image.Image:
    """Groups of look-alikes beside the map, dark."""
    page = studio.open("/explore?show=clusters&colour=guess", dark=True)
    page.locator("input[name=count]").fill("24")
    page.get_by_role("button", name="Group again").click()
    page.locator(".groups-head", has_text="24 groups").wait_for()
    return picture(page)


def search(studio: Studio) -> Image.Image:
    """A box on the wing of a photo, and where it was found in others."""
    key, box = _wing(studio)
    region = ",".join(f"{edge:.4f}" for edge in box)
    page = studio.open(f"/search?key={key}&region={region}")
    page.locator(".match-photo").nth(8).wait_for()
    return picture(page)


def _wing(studio: Studio) -> tuple[str, list[float]]:
    """A photo whose wing is found best in photos of the same species, and the wing's corners."""
    with (studio.work / "birds" / "parts.csv").open() as file:
        rows = {Path(row["path"]).name: row for row in csv.DictReader(file)}
    with (studio.work / "birds" / "split.csv").open() as file:
        of = {Path(row["path"]).name: row["class"] for row in csv.DictReader(file)}
    best: tuple[float, str, list[float]] | None = None
    for key in sorted(of)[::97]:
        box = _around(rows[key], "wing")
        hits = studio.ask("/api/v1/search", {"key": key, "region": box, "k": 13})["hits"][1:]
        right = sum(of[hit["key"]] == of[key] for hit in hits)
        if best is None or right > best[0]:
            best = (right, key, box)
    assert best is not None
    return best[1], best[2]


def _around(row: Mapping[str, str], part: str) -> list[float]:
    """Corners of a mark with what is around it, as fractions of the photo."""
    x0, y0, x1, y1 = (
        float(row[f"{part}_mark_{edge}"]) / SIDE for edge in ("x_1", "y_1", "x_2", "y_2")
    )
    x, y, half = (x0 + x1) / 2, (y0 + y1) / 2, max(x1 - x0, y1 - y0, 0.14) * 0.65
    return [max(0.0, x - half), max(0.0, y - half), min(1.0, x + half), min(1.0, y + half)]


def compare(studio: Studio) -> Image.Image:
    """Two photos of one species: what makes them alike, and a part that both have."""
    first, second = _alike(studio)
    page = studio.open(f"/search?key={first}&with={second}")
    page.locator(".shared-part").first.hover()
    return picture(page)


def _alike(studio: Studio) -> tuple[str, str]:
    """The pair, of a few, that has most parts in common."""
    table = studio.get("/api/v1/table")
    of = {
        key: label for key, label in zip(table["keys"], table["label"], strict=True) if label >= 0
    }
    best, most = ("", ""), -1.0
    for key in list(of)[:: len(of) // 8]:
        question = {"key": key, "k": 6, "where": "label is not null"}
        hits = [hit["key"] for hit in studio.ask("/api/v1/search", question)["hits"]]
        for other in [hit for hit in hits if hit != key and of[hit] == of[key]][:1]:
            pair = {"first": {"key": key}, "second": {"key": other}}
            why = studio.ask("/api/v1/explain/pair", pair)
            worth = len(why["matches"]) + sum(match["adds"] for match in why["matches"])
            if why["believable"] and worth > most:
                best, most = (key, other), worth
    return best


def label(studio: Studio) -> Image.Image:
    """The photo whose label helps most, with choices, one of them beside it."""
    page = studio.open("/label")
    page.locator(".choice-photo").first.hover()
    page.locator(".next-beside").wait_for()
    return picture(page)


def pairs(studio: Studio) -> Image.Image:
    """A photo between two look-alikes."""
    page = studio.open("/label?tab=pairs")
    page.locator(".pair-photos img").nth(3).wait_for()
    return picture(page)


def sure(studio: Studio) -> Image.Image:
    """Many photos that are surely of one kind."""
    page = studio.open("/label?tab=sure")
    page.locator(".sure-grid img").first.wait_for()
    return picture(page)


def species(studio: Studio) -> Image.Image:
    """A species' page, with the field marks that tell it from its look-alike."""
    name = _told_apart(studio)
    page = studio.open(f"/species?label={quote(name[0])}&vs={quote(name[1])}", TALL)
    page.locator(".mark-card img").nth(3).wait_for()
    return picture(page)


def _told_apart(studio: Studio) -> tuple[str, str]:
    """A species and the look-alike that it is told from best."""
    best = ("", "", 0.0)
    names = [one["name"] for one in studio.get("/api/v1/labels")["labels"]]
    for name in names[:4]:
        near = studio.get(f"/api/v1/species?label={quote(name)}")["nearest"][0]["label"]
        question = {"first": name, "second": near, "count": 20}
        told = studio.ask("/api/v1/explain/classes", question)
        if told["right"] / told["total"] > best[2]:
            best = (name, near, told["right"] / told["total"])
    return best[:2]


def train(studio: Studio) -> Image.Image:
    """A run with its verdict, start beside trained."""
    page = studio.open("/train")
    page.get_by_role("link", name="Open the report").wait_for()
    return picture(page)


def curves(studio: Studio) -> Image.Image:
    """The same run's curves, dark."""
    page = studio.open("/train", dark=True)
    heading = page.get_by_role("heading", name="Health over the epochs")
    heading.evaluate("one => one.scrollIntoView()")
    return picture(page)


def phone(studio: Studio) -> Image.Image:
    """The map, a search and labelling on a phone."""
    first = studio.open("/explore?show=map&colour=guess", PHONE)
    first.locator(".map-field").wait_for()
    key, box = _wing(studio)
    region = ",".join(f"{edge:.4f}" for edge in box)
    second = studio.open(f"/search?key={key}&region={region}", PHONE, dark=True)
    second.locator(".match-photo").nth(3).wait_for()
    third = studio.open("/label", PHONE)
    third.locator(".choice-photo").first.wait_for()
    return side_by_side([picture(page) for page in (first, second, third)])


PICTURES: dict[str, Callable[[Studio], Image.Image]] = {
    made.__name__: made
    for made in (
        explore,
        groups,
        search,
        compare,
        label,
        pairs,
        sure,
        species,
        train,
        curves,
        phone,
    )
}


def main() -> int:
    words = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    words.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(PICTURES)}")
    words.add_argument("--work", type=Path, default=HERE.parent / "build" / "screenshots")
    words.add_argument("--out", type=Path, default=HERE / "pictures")
    told = words.parse_args()
    strange = sorted(set(told.names) - set(PICTURES))
    if strange:
        words.error(f"no such picture: {', '.join(strange)}; there are {', '.join(PICTURES)}")
    chromium = os.environ.get("FIELDMARK_CHROMIUM") or shutil.which("chromium")
    if not chromium:
        print("NOT MADE: screenshots need Chromium (Debian, Ubuntu: apt-get install chromium).")
        return 1
    try:
        from playwright.sync_api import sync_playwright
    except ImportError:
        print("NOT MADE: screenshots need Playwright (pip install 'fieldmark[dev]').")
        return 1
    told.work.mkdir(parents=True, exist_ok=True)
    work = prepare(told.work.resolve())
    with serving(work) as url, sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        studio = Studio(browser, url, work)
        for name in told.names or PICTURES:
            file = told.out / f"page-{name}.webp"
            PICTURES[name](studio).save(file, quality=QUALITY, method=6)
            print(f"{file.name}: {file.stat().st_size / 1000:.0f} kB", flush=True)
        browser.close()
    return 0


if __name__ == "__main__":
    sys.exit(main())
