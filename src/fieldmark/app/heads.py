"""The classifier of an index's labels, as they are now."""

import copy
import threading
from collections.abc import Callable
from typing import NamedTuple

from fieldmark.app.problems import HttpProblem
from fieldmark.label.classifier import FieldClassifier
from fieldmark.workflows.label import Labelled

_GROWN = 1.2
"""From so many times as many labels on, head and temperature are chosen anew."""
_DIFFERENT = 0.2
"""The same for labels that were changed, as a share of all."""


class Fit(NamedTuple):
    """A classifier, and what it knows."""

    classifier: FieldClassifier
    change: int
    """Number of the last change of a label that it knows of."""
    photos: int
    """With a label."""
    chosen_on: int
    """Labelled photos when head and temperature were chosen by cross-validation."""
    chosen_at: int
    """Number of the last change then: ``suspects`` and ``validation_`` are of that moment."""


class Heads:
    """Keeps one classifier: fitted when first asked for, then refitted when labels change.

    A refit takes milliseconds. Choosing and calibrating the head anew takes about a second for a
    thousand labels, and is done in a thread of its own from time to time while the old one answers.

    Args:
        read: Labelled photos, and the number of the last change that they show.
    """

    def __init__(self, read: Callable[[], tuple[int, Labelled]]) -> None:
        self._read = read
        self._lock = threading.Lock()
        self._fit: Fit | None = None
        self._choosing: threading.Thread | None = None
        self._forgotten = 0

    def current(self, change: int = 0) -> FieldClassifier:
        """A classifier that knows of a change, and of later ones where there are any.

        Args:
            change: Number of a change of a label.

        Raises:
            HttpProblem: 409 ``too_few_labels`` with fewer than two.
        """
        return self.at(change).classifier

    def at(self, change: int = 0) -> Fit:
        """The same with what it knows; callers at the same moment share one fit."""
        with self._lock:
            fit = self._fit
            if fit is not None and fit.change >= change:
                return fit
            now, photos = self._read()
            if fit is not None and now == fit.change:
                return fit
            _require(photos)
            if fit is None:
                fit = _choose(now, photos)
            else:
                # A copy: others may be asking the one that is there.
                refitted = copy.copy(fit.classifier).refit(photos.vectors, photos.labels)
                fit = fit._replace(classifier=refitted, change=now, photos=len(photos.labels))
                if _outgrown(fit):
                    self._choose_aside(now, photos)
            self._fit = fit
            return fit

    @property
    def chosen_at(self) -> int:
        """Number of the last change when the head was chosen; 0 before there is one."""
        fit = self._fit
        return 0 if fit is None else fit.chosen_at

    def forget(self) -> None:
        """Of other vectors from now on: photos were added, changed or removed."""
        with self._lock:
            self._fit = None
            self._forgotten += 1

    def _choose_aside(self, change: int, photos: Labelled) -> None:
        if self._choosing is not None and self._choosing.is_alive():
            return
        self._choosing = threading.Thread(
            target=self._chosen,
            args=(change, photos, self._forgotten),
            name="fieldmark-head",
            daemon=True,
        )
        self._choosing.start()

    def _chosen(self, change: int, photos: Labelled, forgotten: int) -> None:
        fit = _choose(change, photos)
        with self._lock:
            if self._fit is None or forgotten != self._forgotten:
                return  # Of vectors that are no more.
            if self._fit.change > change:
                now, latest = self._read()
                refitted = fit.classifier.refit(latest.vectors, latest.labels)
                fit = fit._replace(classifier=refitted, change=now, photos=len(latest.labels))
            self._fit = fit


def _require(photos: Labelled) -> None:
    names = sorted(set(photos.labels))
    if len(names) < 2:
        known = f"only '{names[0]}'" if names else "none"
        raise HttpProblem(
            409,
            "too_few_labels",
            f"there is {known} as a label; a classifier tells two or more apart. Label some photos of "
            "another kind.",
        )


def _choose(change: int, photos: Labelled) -> Fit:
    made = FieldClassifier().fit(photos.vectors, photos.labels, groups=photos.groups)
    return Fit(made, change, len(photos.labels), len(photos.labels), change)


def _outgrown(fit: Fit) -> bool:
    few, many = sorted((fit.photos, fit.chosen_on))
    return many >= _GROWN * few or fit.change - fit.chosen_at >= max(10, _DIFFERENT * fit.chosen_on)
