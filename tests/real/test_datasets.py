"""Real data sets in their own layouts: opened as what they are, leaks that others found are found."""

import os
from pathlib import Path

import numpy as np
import pytest

from fieldmark.data.benchmarks import open_benchmark
from fieldmark.data.catalog import Catalog
from fieldmark.data.decode import decode
from fieldmark.data.leakage import find_leaks
from fieldmark.data.splits import match_split
from fieldmark.data.store import PhotoStore
from fieldmark.data.views import center_views
from fieldmark.workflows.photos import Photos
from fieldmark.workflows.protocols import _Truth

pytestmark = pytest.mark.real
DATA = Path(os.environ.get("FIELDMARK_DATA", ""))


@pytest.fixture(autouse=True)
def _data() -> None:
    if not os.environ.get("FIELDMARK_DATA"):
        pytest.skip("FIELDMARK_DATA is not set: it names a folder with cub50 and cars196")


def test_a_real_part_of_cub_opens_and_says_what_it_is() -> None:
    found = open_benchmark("cub200", DATA / "cub50")
    assert found.subset == "50 of 200 classes"
    assert found.counts == {"train": 1500, "test": 1389}
    assert found.classes[0] == "001.Black_footed_Albatross"
    assert found.coarser["kind"][0] == "Albatross"
    # The folder's own table of the split says the same.
    split = match_split(Catalog.open(DATA / "cub50" / "images"), DATA / "cub50" / "split.csv")
    assert len(split.test_rows) == 1389
    assert found.boxes is not None
    catalog = found.catalog()
    for row in range(0, len(found), 400):
        height, width = decode(catalog.read(row)).pixels.shape[:2]
        x0, y0, x1, y1 = found.boxes[row]
        assert 0 <= x0 < x1 <= width + 1
        assert 0 <= y0 < y1 <= height + 1


def test_known_duplicates_across_classes_of_cars_are_found(tmp_path: Path) -> None:
    found = open_benchmark("folder", DATA / "cars196")
    table = tmp_path / "cars.csv"
    table.write_text(found.table(tmp_path), encoding="utf-8")
    catalog = Catalog.open(table)
    store = PhotoStore.build(catalog, tmp_path / "store", short_side=48)
    leaks = find_leaks(store, match_split(catalog, table))
    names = np.array([row.label for row in catalog.rows])
    pairs = {tuple(sorted(set(names[group]))) for group in leaks.across}
    # The same photos stand under Acura RL and TSX: label noise of the source.
    assert any(all("Acura" in name for name in pair) for pair in pairs)
    assert len(leaks.across) == 13


def test_boxes_of_whole_photos_lie_where_the_network_sees_the_bird(tmp_path: Path) -> None:
    """The same patch of the photo, read from the file and from what the network is shown."""
    found = open_benchmark("cub200", DATA / "cub50")
    assert found.boxes is not None
    table = tmp_path / "cub.csv"
    table.write_text(found.table(tmp_path, parts=("train", "test")), encoding="utf-8")
    catalog = Catalog.open(table)
    rows = np.arange(0, len(catalog), 60, dtype=np.int64)
    store = PhotoStore.build(catalog, tmp_path / "store", short_side=288, rows=rows.tolist())
    data = Photos(catalog, store, None, "", rows, False, rows[:0])
    truth = _Truth(found, data)
    view = center_views(store, rows, 128, 0.875)
    boxes, windows = truth.box(rows, view), view.boxes.numpy()
    for row, box, window, image in zip(rows, boxes, windows, view.images.numpy(), strict=True):
        pixels = decode(catalog.read(int(row))).pixels
        height, width = pixels.shape[:2]
        x0, y0, x1, y1 = np.round(np.clip(box, 0, 1) * 128).astype(int)
        seen = image[:, y0:y1, x0:x1].mean(axis=(1, 2))
        corners = np.array([x0, y0, x1, y1]) / 128
        low, span = window[[0, 1, 0, 1]], (window[2:] - window[:2])[[0, 1, 0, 1]]
        place = (low + corners * span) * [width, height, width, height]
        left, top, right, bottom = np.round(place).astype(int)
        expected = pixels[top:bottom, left:right].mean(axis=(0, 1)) / 255
        np.testing.assert_allclose(seen, expected, atol=0.02)
        # And the box of the list is that place, as far as the network sees it.
        listed = np.clip(found.boxes[row], [left, top, left, top], [right, bottom, right, bottom])
        np.testing.assert_allclose(listed, [left, top, right, bottom], atol=2.5)
