"""``fieldmark label``: labels into an index and out of it, what to label next, and which are wrong."""

import difflib
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float

from fieldmark import storage
from fieldmark.data.tables import csv_text, read_table
from fieldmark.errors import InputError, LabelError, OutputError
from fieldmark.index.alike import Held, read_items
from fieldmark.index.index import Index, Item, check_label
from fieldmark.index.places import Place, open_index, shown
from fieldmark.index.where import Where
from fieldmark.label.calibration import chances
from fieldmark.label.classifier import FieldClassifier
from fieldmark.label.heads import fit_head
from fieldmark.label.next import GUESS_TEMPERATURE, GUESSES, fit_likeness, pick_next

_NAMED = 3
"""Of many, how many are named in a sentence."""
_LIKE = 0.8
"""Similarity of texts from which on a new label may be a slip of the pen."""


class Labelled(NamedTuple):
    """Labelled photos of an index, ready for a classifier."""

    vectors: Float[np.ndarray, "N D"]
    labels: list[str]
    groups: np.ndarray
    """Bursts and individuals by the metadata ``group``; a photo without is its own."""


def labelled_photos(held: Held) -> Labelled:
    """Those of an index's photos that have a label."""
    rows = [row for row, item in enumerate(held.items) if item.label is not None]
    items = [held.items[row] for row in rows]
    labels = [item.label for item in items if item.label is not None]
    return Labelled(held.vectors[rows], labels, photo_groups(items))


def photo_groups(items: Iterable[Item]) -> np.ndarray:
    """Number of each photo's group, from 0."""
    numbers: dict[object, int] = {}
    return np.array([numbers.setdefault(_group(item), len(numbers)) for item in items], np.int64)


def _group(item: Item) -> tuple[str, str]:
    told = item.meta.get("group")
    return ("photo", item.key) if told is None else ("group", str(told))


def fit_classifier(
    photos: Labelled, place: Place, *, head: str = "auto", coverage: float = 0.9, lost: float = 0.05
) -> FieldClassifier:
    """A classifier of the labels in an index.

    Raises:
        InputError: With fewer than two labels.
    """
    names = sorted(set(photos.labels))
    if len(names) < 2:
        known = f"only '{names[0]}'" if names else "none"
        raise InputError(
            f"{shown(place)} has {known} as a label; a classifier tells two or more apart. Label photos "
            "with fieldmark label set or fieldmark cluster --apply."
        )
    made = FieldClassifier(head, coverage, lost)
    return made.fit(photos.vectors, photos.labels, groups=photos.groups)


# -- set


def set_labels(
    index: Place,
    table: Path,
    *,
    by: str = "",
    known_only: bool = False,
    replace: bool = False,
    dry_run: bool = False,
) -> dict[str, Any]:
    """Take labels from a table; all of them or, where anything is wrong, none.

    Args:
        index: Folder, or a server's URL.
        table: CSV, JSON lines or Parquet with ``path`` and ``label``; lines without a label are passed
            over, so what :func:`next_photos` wrote can be filled in and given back.
        by: Who says so, for the history.
        known_only: Refuse labels that the index does not have yet.
        replace: Whether photos that have another label get this one.
        dry_run: Only look.

    Returns:
        ``set``, ``unchanged`` and ``empty`` (lines), ``new`` (labels that were not there before) and
        ``alike`` (of those: the known label that each looks like).

    Raises:
        CatalogError: The table cannot be read.
        LabelError: A photo with two labels, photos that are not in the index, labels that are not
            known, or that differ from those that are there.
    """
    rows = read_table(table, required=("path", "label"))
    with open_index(index) as opened:
        there = {item.key: item for item in opened.items()}
        wanted, empty = _wanted(rows, table, there)
        known = {item.label for item in there.values() if item.label is not None}
        new = sorted(set(wanted.values()) - known)
        alike = {name: found for name in new if (found := _alike(name, known, new))}
        if known_only and new:
            raise LabelError(_unknown_labels(new, alike, table, known))
        changed = {key: label for key, label in wanted.items() if there[key].label != label}
        others = [key for key in changed if there[key].label is not None]
        if others and not replace:
            key = others[0]
            raise LabelError(
                f"{_count(others, 'photo')} of {table} have another label already, such as {key} "
                f"('{there[key].label}', now '{changed[key]}'); nothing was set. Give --replace where the "
                "table is right."
            )
        if not dry_run:
            versions = {key: there[key].version for key in changed}
            opened.set_labels(changed, by=by or table.name, expected=versions)
    return {
        "index": shown(index),
        "set": len(changed),
        "unchanged": len(wanted) - len(changed),
        "empty": empty,
        "new": new,
        "alike": alike,
        "dry_run": dry_run,
    }


def _wanted(
    rows: Sequence[Mapping[str, str | None]], table: Path, there: Mapping[str, Item]
) -> tuple[dict[str, str], int]:
    wanted: dict[str, str] = {}
    lines: dict[str, int] = {}
    absent: list[str] = []
    empty = 0
    for number, row in enumerate(rows, 1):
        path, label = row["path"], row["label"]
        if path is None or label is None:
            empty += 1
            continue
        key = path if path in there else path.replace("\\", "/").removeprefix("./")
        try:
            check_label(label)
        except InputError as error:
            raise LabelError(f"{table}, photo {number}: {error}") from None
        if key not in there:
            absent.append(path)
        elif wanted.setdefault(key, label) != label:
            raise LabelError(
                f"{table} gives {path} two labels: '{wanted[key]}' (photo {lines[key]}) and '{label}' "
                f"(photo {number}); nothing was set. Leave one."
            )
        lines.setdefault(key, number)
    if absent:
        near = difflib.get_close_matches(absent[0], list(there)[:10_000], 1)
        hint = f" Is it {near[0]}?" if near else ""
        raise LabelError(
            f"{_count(absent, 'photo')} of {table} are not in the index, such as {absent[0]}; nothing was "
            f"set.{hint} Paths are as fieldmark search prints them; add photos with fieldmark index."
        )
    return wanted, empty


def _count(things: Sequence[str], word: str) -> str:
    return f"{len(things):,} {word}{'s' * (len(things) != 1)}"


def _alike(name: str, known: Iterable[str], new: Sequence[str]) -> str | None:
    """A known label, or one that is new too, that this may be a misspelling of."""
    others = [*known, *(other for other in new if other < name)]
    folded = {other.casefold(): other for other in others}
    near = difflib.get_close_matches(name.casefold(), folded, 1, _LIKE)
    return folded[near[0]] if near else None


def _unknown_labels(
    new: Sequence[str], alike: Mapping[str, str], table: Path, known: set[str]
) -> str:
    told = [
        f"'{name}'{f' (is it {alike[name]!r}?)' if name in alike else ''}" for name in new[:_NAMED]
    ]
    more = f" and {len(new) - _NAMED} more" if len(new) > _NAMED else ""
    return (
        f"{table} has labels that the index does not know: {', '.join(told)}{more}; nothing was set. It "
        f"knows {len(known)}. Leave out --known-only to add labels."
    )


# -- next


def next_photos(
    index: Place,
    *,
    count: int = 20,
    where: str | Where | None = None,
    out: Path | None = None,
) -> dict[str, Any]:
    """The photos whose labels would help most.

    Args:
        index: Folder, or a server's URL.
        count: How many.
        where: Choose among these; all photos count as what there is to know.
        out: CSV to write: ``path,label,guess,probability,gain``, with empty labels to fill in.

    Returns:
        ``photos`` (``path``, ``guess``, ``probability``, ``gain``), ``labelled``, ``labels``, and
        ``covered``: share of the photos that labelled ones stand for, in [0, 1].

    Raises:
        InputError: The index is empty or everything is labelled.
        OutputError: The table is there already.
    """
    _free(out)
    with open_index(index) as opened:
        held = read_items(opened)
        allowed = _allowed(opened, held, where)
    labelled = np.array([item.label is not None for item in held.items], bool)
    if not (allowed & ~labelled).any():
        raise InputError(
            f"{shown(index)} has no photo without a label{' that the filter leaves' if where else ''}; "
            "there is nothing to label next."
        )
    probabilities: Float[np.ndarray, "N C"] | None = None
    photos = labelled_photos(held)
    names, of = np.unique(photos.labels, return_inverse=True)
    if len(names) > 1:
        head = fit_head(GUESSES, photos.vectors, of.astype(np.int64), len(names))
        probabilities = chances(head.scores(held.vectors), GUESS_TEMPERATURE)
    likeness = fit_likeness(held.vectors)
    picked = pick_next(likeness, labelled, count, probabilities=probabilities, allowed=allowed)
    rows = []
    for row, gain in zip(picked.rows.tolist(), picked.gains.tolist(), strict=True):
        best = None if probabilities is None else int(probabilities[row].argmax())
        rows.append(
            {
                "path": held.items[row].key,
                "guess": None if best is None else str(names[best]),
                "probability": None
                if probabilities is None or best is None
                else round(float(probabilities[row, best]), 4),
                "gain": round(gain, 6),
            }
        )
    if out is not None:
        header = ["path", "label", "guess", "probability", "gain"]
        storage.write_text(
            out, csv_text(header, ([r["path"], "", *list(r.values())[1:]] for r in rows))
        )
    return {
        "index": shown(index),
        "labelled": int(labelled.sum()),
        "labels": len(set(photos.labels)),
        "covered": round(likeness.covered(labelled), 4),
        "photos": rows,
    }


def _allowed(index: Index, held: Held, where: str | Where | None) -> np.ndarray:
    """Photos that can be shown and that the filter leaves."""
    chosen = None if where is None else {item.key for item in index.items(where)}
    return np.array(
        [not item.missing and (chosen is None or item.key in chosen) for item in held.items], bool
    )


# -- mistakes


def suspect_labels(index: Place, *, count: int = 50, out: Path | None = None) -> dict[str, Any]:
    """Labels that a classifier which has not seen the photo takes for wrong, surest first.

    Args:
        index: Folder, or a server's URL.
        count: How many to tell.
        out: CSV to write: ``path,label,suggested,score``.

    Returns:
        ``photos`` (``path``, ``label``, ``suggested``, ``score``: logarithm of how much likelier the
        suggested label is), ``judged`` and ``suspected`` (of those).

    Raises:
        InputError: With fewer than two labels.
        OutputError: The table is there already.
    """
    _free(out)
    with open_index(index) as opened:
        held = read_items(opened, "label is not null")
    photos = labelled_photos(held)
    classifier = fit_classifier(photos, index)
    found = classifier.suspects()
    rows = [
        {
            "path": held.items[suspect.row].key,
            "label": photos.labels[suspect.row],
            "suggested": str(classifier.classes_[suspect.suggested]),
            "score": round(suspect.score, 4),
        }
        for suspect in found[:count]
    ]
    if out is not None:
        storage.write_text(
            out, csv_text(["path", "label", "suggested", "score"], (row.values() for row in rows))
        )
    return {
        "index": shown(index),
        "judged": classifier.validation_.photos,
        "suspected": len(found),
        "photos": rows,
    }


# -- export


def export_labels(index: Place, out: Path, *, where: str | Where | None = None) -> dict[str, Any]:
    """Write ``path,label`` of every labelled photo, as any command of fieldmark reads it.

    Args:
        index: Folder, or a server's URL.
        out: CSV to write.
        where: Only these.

    Raises:
        OutputError: The table is there already.
    """
    _free(out)
    with open_index(index) as opened:
        rows = [(item.key, item.label) for item in opened.items(where) if item.label is not None]
    storage.write_text(out, csv_text(["path", "label"], rows))
    return {"index": shown(index), "out": str(out), "labels": len(rows)}


def _free(out: Path | None) -> None:
    if out is not None and out.exists():
        raise OutputError(f"{out} is there already; nothing is overwritten. Give another name.")
