"""The classifier of an index's labels, as they are now."""

import copy
import threading
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from typing import NamedTuple

from fieldmark.app.kept import Choice, Keeper
from fieldmark.app.problems import HttpProblem
from fieldmark.errors import FieldmarkError
from fieldmark.label.classifier import FieldClassifier
from fieldmark.workflows.label import Labelled

_GROWN = 1.2
"""From so many times as many labels on, head and temperature are chosen anew."""
_DIFFERENT = 0.2
"""The same for labels that were changed, as a share of all."""
_QUICK = 20_000_000
"""Photos times labels times numbers of an embedding up to which a choice is waited for: it is made in
about two seconds."""
_FIRST_SECONDS = 3.0
"""How long a choice waits for the guesses that it is to replace: they are waited for, it is not."""


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
    """Number of the last change then: ``suspects`` and ``validation_`` are of that moment; -1 where nothing
    was chosen yet, and the simplest head answers until then."""
    number: int = 0
    """Of the choice, in the order in which they answered."""

    @property
    def provisional(self) -> bool:
        """Whether a better one is being chosen."""
        return self.chosen_at < 0


class Heads:
    """Keeps one classifier: fitted when first asked for, then refitted when labels change.

    A refit takes milliseconds. Choosing and calibrating the head anew takes about a second for a
    thousand labels of a few kinds, and a minute for ten thousand of hundreds; it is done in a thread of
    its own from time to time while the old one answers. The first time, where it would take long, what
    was chosen before the service was last stopped answers, or else the simplest head.

    Args:
        read: Labelled photos, and the number of the last change that they show.
        keeper: Keeps choices that took long; None: they are made anew.
    """

    def __init__(
        self, read: Callable[[], tuple[int, Labelled]], keeper: Keeper | None = None
    ) -> None:
        self._read, self._keeper = read, keeper
        self._lock = threading.Lock()
        self._fit: Fit | None = None
        self._choosing: threading.Thread | None = None
        """None when it has nothing left to do."""
        self._forgotten = self._choices = 0
        self._closed = threading.Event()

    def close(self) -> None:
        """Choose and keep nothing any more."""
        self._closed.set()

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
            key = self._key()
            now, photos = self._read()
            if fit is not None and now == fit.change:
                return fit
            _require(photos)
            if fit is not None:
                # A copy: others may be asking the one that is there.
                refitted = copy.copy(fit.classifier).refit(photos.vectors, photos.labels)
                fit = fit._replace(classifier=refitted, change=now, photos=len(photos.labels))
            elif _quick(photos):
                fit = self._numbered(_choose(now, photos))
            else:
                fit = self._resumed(key, now, photos) or _simplest(now, photos)
                fit = self._numbered(fit)
            self._fit = fit
            if _outgrown(fit):
                self._choose_aside(key, now, photos)
            return fit

    @property
    def number(self) -> int:
        """Of the last choice; 0 before there is one."""
        fit = self._fit
        return 0 if fit is None else fit.number

    def forget(self) -> None:
        """Of other vectors from now on: photos were added, changed or removed."""
        with self._lock:
            self._fit = None
            self._forgotten += 1

    def _key(self) -> str:
        return "" if self._keeper is None else self._keeper.key()

    def _resumed(self, key: str, change: int, photos: Labelled) -> Fit | None:
        """From the last choice of the same index, with the labels as they are now."""
        kept = None if self._keeper is None or key != self._key() else self._keeper.read(key)
        if kept is None or _foreign(kept, change, photos):
            return None
        # Whatever is wrong with it, the choice can be made anew.
        with suppress(FieldmarkError):
            made = FieldClassifier.resumed(kept.classifier, photos.vectors, photos.labels)
            return Fit(made, change, len(photos.labels), kept.chosen_on, kept.chosen_at)
        return None

    def _choose_aside(self, key: str, change: int, photos: Labelled) -> None:
        if self._choosing is not None:
            return
        wait = _FIRST_SECONDS if self._fit is not None and self._fit.provisional else 0.0
        self._choosing = threading.Thread(
            target=self._chosen,
            args=(key, change, photos, self._forgotten, wait),
            name="fieldmark-head",
            daemon=True,
        )
        self._choosing.start()

    def _chosen(self, key: str, change: int, photos: Labelled, forgotten: int, wait: float) -> None:
        failed = True
        try:
            if self._closed.wait(wait):
                return
            fit = _choose(change, photos)
            choice = None if _quick(photos) else _choice(fit, photos)
            failed = False
            with self._lock:
                # What was chosen is good for other photos too, as long as the same encoder saw them.
                mine = forgotten == self._forgotten or (key != "" and key == self._key())
                if self._closed.is_set() or not mine:
                    return
                now, latest = self._read()
                if len(set(latest.labels)) < 2:
                    return
                if now > change or forgotten != self._forgotten:
                    refitted = fit.classifier.refit(latest.vectors, latest.labels)
                    fit = fit._replace(classifier=refitted, change=now, photos=len(latest.labels))
                self._fit = self._numbered(fit)
            if self._keeper is not None and choice is not None and key == self._key():
                self._keeper.write(key, choice)
        finally:
            with self._lock:
                self._choosing = None
                left = self._fit is not None and self._fit.provisional
                if left and not failed and not self._closed.is_set():
                    # The choice was of an encoder that is no more.
                    self._choose_aside(self._key(), *self._read())

    def _numbered(self, fit: Fit) -> Fit:
        self._choices += 1
        return fit._replace(number=self._choices)


def _require(photos: Labelled) -> None:
    names = sorted(set(photos.labels))
    if len(names) < 2:
        told = "no photo has a label yet. Label a few photos of two kinds or more, and all others are guessed."
        if names:
            told = (
                f"all labelled photos are '{names[0]}'. Label a few photos of another kind too: guesses tell "
                "kinds apart, and take two or more."
            )
        raise HttpProblem(
            409,
            "too_few_labels",
            told,
        )


def _choose(change: int, photos: Labelled) -> Fit:
    made = FieldClassifier().fit(photos.vectors, photos.labels, groups=photos.groups)
    return Fit(made, change, len(photos.labels), len(photos.labels), change)


def _simplest(change: int, photos: Labelled) -> Fit:
    """A head that takes a second, and answers while a better one is chosen."""
    made = FieldClassifier("mean").fit(
        photos.vectors, photos.labels, groups=photos.groups, measure_unknown=False
    )
    return Fit(made, change, len(photos.labels), len(photos.labels), -1)


def _choice(fit: Fit, photos: Labelled) -> Choice:
    counts = dict(Counter(photos.labels))
    return Choice(fit.chosen_on, fit.chosen_at, counts, fit.classifier.choice())


def _quick(photos: Labelled) -> bool:
    return photos.vectors.size * len(set(photos.labels)) <= _QUICK


def _foreign(kept: Choice, change: int, photos: Labelled) -> bool:
    """Whether it is of another index that lay here, or of a state that was taken back."""
    same = sum((Counter(kept.labels) & Counter(photos.labels)).values())
    return kept.chosen_at > change or 2 * same < min(kept.chosen_on, len(photos.labels))


def _outgrown(fit: Fit) -> bool:
    few, many = sorted((fit.photos, fit.chosen_on))
    return (
        fit.provisional
        or many >= _GROWN * few
        or fit.change - fit.chosen_at >= max(10, _DIFFERENT * fit.chosen_on)
    )
