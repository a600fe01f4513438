"""What the labels make of all photos: guesses, how right they are, and what to label next.

After every change of a label all photos are classified again. One thread does it, the latest state counts:
who asks while it is busy gets the answer to the state after his.
"""

import threading
import time
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int

from fieldmark.app.answers import Packed, pack
from fieldmark.app.derived import Derived, Made, Report, Working
from fieldmark.app.heads import Fit, Heads
from fieldmark.app.library import Library, View
from fieldmark.app.problems import HttpProblem
from fieldmark.evaluation.significance import wilson
from fieldmark.label.classifier import FieldClassifier
from fieldmark.label.next import Likeness, fit_likeness, pick_next
from fieldmark.workflows.label import Labelled

_CHUNK = 16_384
_LIKENESS: Made[Likeness] = Made("likeness", 1, urgency=3)
_SUSPECTS: Made[Any] = Made("suspects", 1, urgency=0)
_LEAST_SURE = 0.5
"""Probability of two labels together from which on a photo is a case for these two."""
_DOUBTED = 0.2
"""Share of photos without a label, the least sure, that are cases: which ones these are does not depend on
how sure the head is on the whole."""
_TYPICAL = 3
_FLATTERED = "the way of guessing was chosen by the same photos, which flatters it a little"
_SOON = "guessed in the simplest way; a better one is being chosen and soon takes its place"
_ODDER = "photos that were chosen as the next to label are odder than the rest, of which more may be right"


class Guesses(NamedTuple):
    """What a classifier says of every photo."""

    view: View
    fit: Fit | None
    """None with too few labels."""
    why: str | None
    """Why there are none."""
    classes: list[str]
    probabilities: Float[np.ndarray, "N C"]
    best: Int[np.ndarray, " N"]
    second: Int[np.ndarray, " N"]
    unknown: Bool[np.ndarray, " N"] | None
    sets: Int[np.ndarray, " N"] | None
    seconds: float

    @property
    def change(self) -> int:
        """Number of the last change of a label that it knows of."""
        return self.view.labels.change


class Live:
    """Keeps guesses of the labels as they are.

    Args:
        library: Of the index.
        derived: Computes what takes longer.
        heads: Classifiers of the library's labels.
    """

    def __init__(self, library: Library, derived: Derived, heads: Heads) -> None:
        self._library, self._derived, self._heads = library, derived, heads
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="fieldmark-guesses")
        self._lock = threading.Lock()
        self._next: Future[Guesses] | None = None
        """Not begun yet."""
        self._last: Guesses | None = None
        self._forgotten = 0
        self._packed: tuple[Guesses, bool, Packed] | None = None

    def close(self) -> None:
        """Finish."""
        self._pool.shutdown(cancel_futures=True)

    def forget(self) -> None:
        """Photos were added, changed or removed."""
        with self._lock:
            self._last, self._packed = None, None
            self._forgotten += 1

    # -- guesses

    def ask(self, change: int) -> "Future[Guesses]":
        """Guesses that know of a change, and of the photos as they are; for one or many who wait."""
        with self._lock:
            last, now = self._last, self._library.view()
            if (
                last is not None
                and last.change >= max(change, now.labels.change)
                and last.view.table is now.table
                and (last.fit is None or last.fit.number >= self._heads.number)
            ):
                ready: Future[Guesses] = Future()
                ready.set_result(last)
                return ready
            if self._next is None:
                self._next = self._pool.submit(self._guess)
            return self._next

    def now(self, seconds: float = 10.0) -> Guesses | None:
        """Guesses of the labels as they are; None where they are not there in time."""
        try:
            return self.ask(0).result(seconds)
        except TimeoutError:
            return None

    def _guess(self) -> Guesses:
        with self._lock:
            self._next = None
        while True:
            forgotten = self._forgotten
            made = self._made(self._library.view())
            with self._lock:
                if made is not None and forgotten == self._forgotten:
                    self._last = made
                    return made
            time.sleep(0.01)  # Photos are being exchanged this moment.

    def _made(self, view: View) -> Guesses | None:
        began = time.monotonic()
        x = view.table.vectors
        count = len(view.table.keys)
        nothing = np.full(count, -1)
        try:
            fit = self._heads.at(view.labels.change)
        except HttpProblem as problem:
            if problem.problem.code != "too_few_labels":
                raise
            why = problem.problem.detail
            empty = np.zeros((count, 0), np.float32)
            return Guesses(view, None, why, [], empty, nothing, nothing, None, None, 0.0)
        made = fit.classifier
        if made.n_features_in_ != x.shape[1]:
            return None  # Of an encoder that was changed this moment.
        classes = [str(name) for name in made.classes_]
        probabilities = np.empty((count, len(classes)), np.float32)
        unknown = np.zeros(count, bool)
        sets = np.zeros(count, np.int64)
        for first in range(0, count, _CHUNK):
            part = slice(first, first + _CHUNK)
            probabilities[part] = made.predict_proba(x[part])
            if made.rejection_ is not None:
                unknown[part] = made.is_unknown(x[part])
            if made.sets_ is not None:
                sets[part] = made.sets_.members(probabilities[part]).sum(axis=1)
        rows = np.arange(count)
        best = probabilities.argmax(axis=1) if count else nothing
        rest = probabilities.copy()
        rest[rows, best] = -1
        second = rest.argmax(axis=1) if count else nothing
        return Guesses(
            view,
            fit,
            None,
            classes,
            probabilities,
            best,
            second,
            None if made.rejection_ is None else unknown,
            None if made.sets_ is None else sets,
            time.monotonic() - began,
        )

    def pack(self, made: Guesses) -> Packed:
        """As the page takes it: arrays in the order of the table."""
        likeness = self._likeness(made.view, wait_seconds=0.0)
        known = not isinstance(likeness, Working)
        with self._lock:
            last = self._packed
            if last is not None and last[0] is made and last[1] == known:
                return last[2]
        covered = None
        if isinstance(likeness, Likeness):
            covered = round(likeness.covered(made.view.labelled), 4)
        rows = np.arange(len(made.best))
        none = made.fit is None
        told = {
            "change": made.change,
            "snapshot": made.view.table.snapshot,
            "why": made.why,
            "classes": made.classes,
            "guess": made.best.tolist(),
            "probability": [] if none else _two_digits(made.probabilities[rows, made.best]),
            "second": made.second.tolist(),
            "second_probability": []
            if none
            else _two_digits(made.probabilities[rows, made.second]),
            "unknown": None if made.unknown is None else made.unknown.astype(int).tolist(),
            "set_size": None if made.sets is None else made.sets.tolist(),
            "accuracy": None if made.fit is None else accuracy(made.fit),
            "coverage": covered,
            "seconds": round(made.seconds, 3),
            "final": made.fit is None or not made.fit.provisional,
        }
        packed = pack(told)
        with self._lock:
            self._packed = made, known, packed
        return packed

    def _likeness(self, view: View, wait_seconds: float = 1.0) -> Likeness | Working:
        x = view.table.vectors

        def make(report: Report) -> Likeness:
            report("comparing photos with each other", 0, 0)
            return fit_likeness(x)

        if not len(x):
            return Working(done=0, total=0, what="no photos")
        return self._derived.ask(_LIKENESS, view.table.snapshot, make, wait_seconds=wait_seconds)

    # -- what to label

    def next(self, count: int, where: str | None, skip: Sequence[str]) -> dict[str, Any] | Working:
        """The photos whose labels would help most.

        Args:
            count: How many.
            where: Choose among these.
            skip: Keys that are not wanted.
        """
        view = self._library.view()
        likeness = self._likeness(view)
        if isinstance(likeness, Working):
            if len(view.table.keys):
                return likeness
            return {"change": view.labels.change, "photos": [], "covered": 0.0}
        made = self.now()
        if made is None or made.view.table is not view.table:
            return Working(done=0, total=0, what="classifying photos")
        view = made.view
        allowed = ~view.table.missing
        if where is not None:
            chosen = np.zeros(len(allowed), bool)
            chosen[self._library.chosen(where, view)] = True
            allowed &= chosen
        allowed[[view.table.row_of[key] for key in skip if key in view.table.row_of]] = False
        probabilities = made.probabilities if made.classes else None
        picked = pick_next(
            likeness, view.labelled, count, probabilities=probabilities, allowed=allowed
        )
        photos = []
        for row, gain in zip(picked.rows.tolist(), picked.gains.tolist(), strict=True):
            best = int(made.best[row])
            photos.append(
                {
                    "key": view.table.keys[row],
                    "media": view.table.media[row],
                    "guess": made.classes[best] if made.classes else None,
                    "probability": round(float(made.probabilities[row, best]), 4)
                    if made.classes
                    else None,
                    "gain": round(gain, 6),
                }
            )
        return {
            "change": view.labels.change,
            "photos": photos,
            "covered": round(likeness.covered(view.labelled), 4),
        }

    def pairs(self, count: int, photos: int) -> dict[str, Any] | None:
        """Labels that are hard to tell apart, with photos that may be of either.

        Args:
            count: Pairs of labels, the hardest first.
            photos: Of each pair, the least sure first.

        Returns:
            None where the guesses are not there in time.
        """
        made = self.now()
        if made is None:
            return None
        view = made.view
        told: dict[str, Any] = {"change": view.labels.change, "pairs": []}
        if made.fit is None:
            return told
        free = np.flatnonzero(~view.labelled & ~view.table.missing)
        p = made.probabilities[free, made.best[free]]
        q = made.probabilities[free, made.second[free]]
        case = np.flatnonzero((p + q >= _LEAST_SURE) & (q > 0))
        share = q[case] / p[case]
        least = np.argsort(-share, kind="stable")[: max(photos, int(_DOUBTED * len(free)))]
        rows, doubt = free[case[least]], share[least]
        both = np.sort(np.stack([made.best[rows], made.second[rows]], axis=1), axis=1)
        kinds, of = np.unique(both, axis=0, return_inverse=True)
        weight = np.bincount(of.ravel(), weights=doubt, minlength=len(kinds))
        for pair in np.argsort(-weight, kind="stable")[:count].tolist():
            first, second = kinds[pair].tolist()
            chosen = rows[of.ravel() == pair]
            gap = np.abs(made.probabilities[chosen, first] - made.probabilities[chosen, second])
            chosen = chosen[np.argsort(gap, kind="stable")][:photos]
            names = made.classes[first], made.classes[second]
            told["pairs"].append(
                {
                    "first": names[0],
                    "second": names[1],
                    "photos": [_between(made, row, first, second) for row in chosen.tolist()],
                    "typical": {
                        "first": _keys(view, self.typical(view, names[0], _TYPICAL)),
                        "second": _keys(view, self.typical(view, names[1], _TYPICAL)),
                    },
                }
            )
        return told

    @staticmethod
    def typical(view: View, name: str, count: int) -> list[int]:
        """Rows of a label that stand for its different looks, the commonest look first."""
        if name not in view.labels.names:
            return []
        rows = np.flatnonzero(view.labels.of == view.labels.names.index(name))
        return rows[medoids(view.table.vectors[rows], count)].tolist()

    def suspects(self) -> dict[str, Any] | Working:
        """Labels that are probably wrong, surest first."""
        view = self._library.view()
        change, photos = self._library.labelled_of(view)
        labelled = np.flatnonzero(view.labelled)

        def make(report: Report) -> dict[str, Any]:
            report("judging labels", 0, 0)
            return _suspects(view, change, photos, labelled)

        if len(set(photos.labels)) < 2:
            return {"change": change, "judged": 0, "photos": []}
        of = {"change": change}
        found: dict[str, Any] | Working = self._derived.ask(
            _SUSPECTS, view.table.snapshot, make, of=of, wait_seconds=2.0
        )
        return found

    # -- one label

    def species(self, name: str, taxonomy: dict[str, str] | None = None) -> dict[str, Any]:
        """A label: typical and odd photos, and what it is mixed up with.

        Raises:
            HttpProblem: 404 ``no_such_label``.
        """
        view = self._library.view()
        if name not in view.labels.names:
            raise HttpProblem(404, "no_such_label", f"no photo has the label {name!r}.")
        x, of = view.table.vectors, view.labels.of
        own = view.labels.names.index(name)
        rows = np.flatnonzero(of == own)
        mean = x[rows].mean(axis=0)
        odd = rows[np.argsort(x[rows] @ mean, kind="stable")][: min(6, len(rows) // 2)]
        told = {
            "label": name,
            "photos": len(rows),
            "typical": [_photo(view, row) for row in self.typical(view, name, 6)],
            "odd": [_photo(view, row) for row in odd.tolist()],
            "nearest": self._nearest(view, own),
        }
        return told if taxonomy is None else told | {"taxonomy": taxonomy}

    def _nearest(self, view: View, own: int) -> list[dict[str, Any]]:
        """Other labels by how alike their middles are and how often held-out photos are mixed up."""
        names = view.labels.names
        known = view.labelled
        of = view.labels.of[known]
        sums = np.zeros((len(names), view.table.vectors.shape[1]), np.float64)
        np.add.at(sums, of, view.table.vectors[known])
        middle = sums / np.bincount(of, minlength=len(names))[:, None]
        # All photos share a large mean; what is left tells labels apart.
        middle -= middle.mean(axis=0)
        middle /= np.maximum(np.linalg.norm(middle, axis=1, keepdims=True), 1e-12)
        likeness = middle @ middle[own]
        mixed, total = self._mixed(names[own])

        def nearness(place: int) -> float:
            # A label that is often mixed up with this one is near, however its middle lies.
            return float(likeness[place]) + 2 * mixed[names[place]] / max(total, 1)

        order = sorted((at for at in range(len(names)) if at != own), key=nearness, reverse=True)
        return [
            {
                "label": names[place],
                "likeness": round(float(likeness[place]), 4),
                "confused": round(mixed[names[place]] / total, 4) if total else None,
            }
            for place in order[:5]
        ]

    def _mixed(self, name: str) -> tuple[Counter[str], int]:
        """How often held-out photos of a label were taken for another, or the other way round."""
        mixed: Counter[str] = Counter()
        total = 0
        made = self.now(2.0)
        if made is None or made.fit is None:
            return mixed, 0
        for label, guess in made.fit.classifier.tested():
            if label == name or guess == name:
                total += 1
                if label != guess:
                    mixed[guess if label == name else label] += 1
        return mixed, total


def accuracy(fit: Fit) -> dict[str, Any] | None:
    """How often the guesses are right, by labelled photos that the head had not seen."""
    tested = fit.classifier.tested()
    if not tested:
        return None
    right = sum(label == guess for label, guess in tested)
    low, high = wilson(right, len(tested))
    by_class = []
    of: dict[str, list[bool]] = {}
    for label, guess in tested:
        of.setdefault(label, []).append(label == guess)
    for label in sorted(of):
        least, most = wilson(sum(of[label]), len(of[label]))
        by_class.append(
            {
                "label": label,
                "estimate": round(sum(of[label]) / len(of[label]), 4),
                "low": round(least, 4),
                "high": round(most, 4),
                "photos": len(of[label]),
            }
        )
    caveat = _SOON if fit.provisional else _FLATTERED
    return {
        "estimate": round(right / len(tested), 4),
        "low": round(low, 4),
        "high": round(high, 4),
        "photos": len(tested),
        "how": f"each was guessed by the others alone (cross-validation); {caveat}; {_ODDER}",
        "labels": by_class,
    }


def medoids(x: Float[np.ndarray, "N D"], count: int) -> Int[np.ndarray, " K"]:
    """Rows that stand for different looks among some photos.

    The first is the most central one; each further one is that which stands best for what is not stood
    for yet (greedy facility location, as :func:`fieldmark.label.next.pick_next` chooses).
    """
    step = max(1, len(x) // 2000)
    alike = np.maximum(x @ x[::step].T, 0)
    covered = np.zeros(alike.shape[1], np.float32)
    found: list[int] = []
    while len(found) < min(count, len(x)):
        gains = np.maximum(alike - covered, 0).sum(axis=1)
        gains[found] = -1
        found.append(int(gains.argmax()))
        covered = np.maximum(covered, alike[found[-1]])
    return np.array(found, np.int64)


def _suspects(
    view: View, change: int, photos: Labelled, rows: Int[np.ndarray, " M"]
) -> dict[str, Any]:
    made = FieldClassifier().fit(photos.vectors, photos.labels, groups=photos.groups)
    return {
        "change": change,
        "judged": made.validation_.photos,
        "photos": [
            {
                **_photo(view, int(rows[suspect.row])),
                "label": photos.labels[suspect.row],
                "suggested": str(made.classes_[suspect.suggested]),
                "score": round(suspect.score, 4),
            }
            for suspect in made.suspects()[:500]
        ],
    }


def _photo(view: View, row: int) -> dict[str, str]:
    return {"key": view.table.keys[row], "media": view.table.media[row]}


def _keys(view: View, rows: Sequence[int]) -> list[str]:
    return [view.table.keys[row] for row in rows]


def _between(made: Guesses, row: int, first: int, second: int) -> dict[str, Any]:
    one, other = made.probabilities[row, first], made.probabilities[row, second]
    return {
        **_photo(made.view, row),
        "first": round(float(one), 4),
        "second": round(float(other), 4),
        "other": round(max(0.0, 1 - float(one) - float(other)), 4),
    }


def _two_digits(values: Float[np.ndarray, " N"]) -> list[float]:
    return values.astype(np.float64).round(2).tolist()
