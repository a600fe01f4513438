"""Does a split leak? The same picture in train and test, or under two labels."""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from fieldmark.data.audit import AuditConfig, likeness, near_groups
from fieldmark.data.splits import Split
from fieldmark.data.store import PhotoStore


class Leaks(NamedTuple):
    """Groups of catalog rows that show the same picture, nearly or exactly."""

    between: list[list[int]]
    """Groups with photos in train and in test: an encoder may know the answer."""
    across: list[list[int]]
    """Groups with photos of more than one class: at least one label is wrong."""
    test_photos: int
    """Test photos that have a copy in train."""


def find_leaks(
    store: PhotoStore, split: Split, *, progress: Callable[[int, int], None] | None = None
) -> Leaks:
    """Look for the same picture on both sides of a split, and in several classes.

    Args:
        store: Decoded photos.
        split: Labelled photos; only those that can be used.
        progress: Called with photos done and photos in all.
    """
    rows = np.concatenate([split.train_rows, split.test_rows])
    labels = np.concatenate([split.train_labels, split.test_labels])
    is_test = np.arange(len(rows)) >= len(split.train_rows)
    found = likeness(map(store.photo, rows.tolist()), len(rows), progress)
    between, across, tests = [], [], 0
    for group in near_groups(found.hashes, found.thumbs, AuditConfig()):
        named = sorted(rows[group].tolist())
        if len(set(is_test[group].tolist())) > 1:
            between.append(named)
            tests += int(is_test[group].sum())
        if len(set(labels[group].tolist())) > 1:
            across.append(named)
    return Leaks(between, across, tests)
