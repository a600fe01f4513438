"""Setting labels: several people at once, and nobody overwrites what he has not seen."""

import threading
from collections.abc import Mapping
from typing import NamedTuple

from pydantic import BaseModel

from fieldmark.app.library import Library
from fieldmark.app.problems import HttpProblem, Problem
from fieldmark.errors import ConflictError, InputError
from fieldmark.index.index import Item, LabelChange, check_label
from fieldmark.index.places import open_index

MOST = 10_000
"""Labels that one request may set."""
_TRIES = 20
"""Times that somebody else may come in between, of photos whose version was not given."""


class Now(BaseModel):
    """What a photo is labelled at this moment."""

    label: str | None
    version: int
    by: str
    """Who said so; empty where nobody is known."""


class Changed(Problem):
    """Somebody else was faster."""

    now: dict[str, Now]


class ChangedMeanwhile(HttpProblem):
    """409: photos that were changed since the caller looked; nothing was labelled."""

    def __init__(self, now: Mapping[str, Now]) -> None:
        keys = sorted(now)
        first = now[keys[0]]
        who = f" by {first.by}" if first.by else ""
        said = "has no label" if first.label is None else f"is '{first.label}'"
        more = f" and {len(keys) - 1:,} more" if len(keys) > 1 else ""
        detail = (
            f"{keys[0]}{more} changed since you looked: it {said} now{who}. Nothing was labelled."
        )
        told = {key: each.model_dump() for key, each in now.items()}
        super().__init__(409, "changed_meanwhile", detail, keys=keys, more={"now": told})


class Done(NamedTuple):
    """What was done."""

    change: int
    versions: dict[str, int]
    before: dict[str, str | None]


class Editor:
    """Sets labels in an index, durably, and tells the library.

    Args:
        library: Of the same index.
    """

    def __init__(self, library: Library) -> None:
        self._library = library
        # A connection of its own: a label does not wait until photos are read anew.
        self._index = open_index(library.place)
        self._lock = threading.Lock()

    def close(self) -> None:
        """Let go of the index."""
        with self._lock:
            self._index.close()

    def set(
        self, labels: Mapping[str, str | None], expected: Mapping[str, int], *, by: str
    ) -> Done:
        """Label photos, all or none; durable when it returns.

        Args:
            labels: By key; None takes a label away.
            expected: Versions that the caller has seen.
            by: Who says so.

        Raises:
            ChangedMeanwhile: A photo has another version than expected.
            HttpProblem: 404 ``no_such_photo``, 422 for something that is no label.
        """
        for label in labels.values():
            check_label(label)
        keys = list(labels)
        for _ in range(_TRIES):
            items = self._get(keys)
            late = [
                item.key for item in items if expected.get(item.key, item.version) != item.version
            ]
            if late:
                raise ChangedMeanwhile(self._now(late))
            seen = {item.key: item.version for item in items}
            try:
                versions = self._index.set_labels(labels, by=by, expected=seen)
            except ConflictError as error:
                late = [key for key in error.keys if key in expected]
                if late:
                    raise ChangedMeanwhile(self._now(late)) from None
                continue
            before = {item.key: item.label for item in items}
            return Done(self._library.look().labels.change, versions, before)
        raise HttpProblem(
            503,
            "busy",
            "others are labelling the same photos; try again.",
            headers={"Retry-After": "1"},
        )

    def rename(self, old: str, new: str, *, by: str) -> Done:
        """Give all photos of a label another one, in one step.

        Raises:
            HttpProblem: 404 ``no_such_label``.
            InputError: ``new`` is no label.
        """
        check_label(new)
        for _ in range(_TRIES):
            view = self._library.look()
            if old not in view.labels.names:
                raise HttpProblem(404, "no_such_label", f"no photo has the label {old!r}.")
            rows = (view.labels.of == view.labels.names.index(old)).nonzero()[0].tolist()
            labels: dict[str, str | None] = {view.table.keys[row]: new for row in rows}
            expected = {view.table.keys[row]: int(view.labels.version[row]) for row in rows}
            try:
                return self.set(labels, expected, by=by)
            except ChangedMeanwhile:
                continue
        raise HttpProblem(
            503,
            "busy",
            "others are labelling the same photos; try again.",
            headers={"Retry-After": "1"},
        )

    def item(self, key: str) -> tuple[Item, list[LabelChange]]:
        """A photo as it is now, and its history.

        Raises:
            HttpProblem: 404 ``no_such_photo``.
        """
        return self._get([key])[0], self._index.history(key)

    def _get(self, keys: list[str]) -> list[Item]:
        try:
            return self._index.get(keys)
        except InputError:
            absent = [key for key in keys if not self._has(key)]
            raise HttpProblem(
                404,
                "no_such_photo",
                f"there is no photo {absent[0]!r}." if absent else "a photo was removed meanwhile.",
                keys=absent[:1000],
            ) from None

    def _has(self, key: str) -> bool:
        try:
            return bool(self._index.get([key]))
        except InputError:
            return False

    def _now(self, keys: list[str]) -> dict[str, Now]:
        found = {}
        for item in self._get(keys[:1000]):
            lines = self._index.history(item.key)
            # Folders and tables are no person, but worth telling too.
            found[item.key] = Now(
                label=item.label, version=item.version, by=lines[-1].by if lines else ""
            )
        return found
