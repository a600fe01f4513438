"""The same picture in train and test, or in two classes."""

from pathlib import Path

import numpy as np

from fieldmark.data.catalog import Catalog
from fieldmark.data.leakage import find_leaks
from fieldmark.data.splits import Split
from fieldmark.data.store import PhotoStore
from scenes import scene


def test_copies_are_found_between_the_parts_and_across_classes(tmp_path: Path) -> None:
    for i in range(10):
        scene(i).save(tmp_path / f"{i}.png")
    scene(1).resize((80, 60)).save(tmp_path / "5.png")  # in test, of the same class
    scene(2).save(tmp_path / "6.jpg", quality=60)  # in test, of another class
    (tmp_path / "6.png").unlink()
    scene(3).save(tmp_path / "4.png")  # both in train, of two classes
    catalog = Catalog.open(tmp_path)
    assert [row.path for row in catalog.rows][6] == "6.jpg"
    store = PhotoStore.build(catalog, tmp_path / "store", short_side=64, workers=0)
    split = Split(
        np.array([0, 1, 2, 3, 4]),
        np.array([0, 0, 0, 0, 1]),
        np.array([5, 6, 7, 8, 9]),
        np.array([0, 1, 1, 1, 1]),
        ["a", "b"],
    )
    seen: list[tuple[int, int]] = []
    leaks = find_leaks(store, split, progress=lambda *told: seen.append(told))
    assert sorted(leaks.between) == [[1, 5], [2, 6]]
    assert sorted(leaks.across) == [[2, 6], [3, 4]]
    assert leaks.test_photos == 2
    assert seen[-1] == (10, 10)
    apart = split._replace(
        train_rows=np.array([0, 1, 3]), train_labels=np.array([0, 0, 0]), test_rows=np.array([7, 8, 9]),
        test_labels=np.array([1, 1, 1]),
    )  # fmt: skip
    assert find_leaks(store, apart) == ([], [], 0)
