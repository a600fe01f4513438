"""``fieldmark duplicates``: photos of an index that are there more than once.

*Exact*: the same bytes. *Near*: the same picture saved again, confirmed on the pixels. *Burst*: shots of the
same scene within seconds, by the camera's clock. What merely looks alike is none of these, and with
look-alikes that is most of what an encoder finds near.
"""

from collections.abc import Callable, Iterable, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float, Int

from fieldmark import storage
from fieldmark.data.audit import AuditConfig, seconds_of
from fieldmark.data.catalog import Catalog
from fieldmark.data.decode import Photo, decode
from fieldmark.data.same import DECODE_SIDE, SAME, Look, look, sameness
from fieldmark.data.tables import csv_text
from fieldmark.errors import InputError, OutputError, PhotoError
from fieldmark.index.alike import (
    Pairs,
    close_pairs,
    connected,
    neighbours,
    read_items,
    usual_distance,
)
from fieldmark.index.index import Item
from fieldmark.index.places import Place, open_index, shown
from fieldmark.workflows.photos import ShowProgress, quiet

CHECKED, UNCHECKED = 0.6, 0.2
"""Share of the usual distance to the fifth nearest photo up to which pairs are looked at: where pixels
decide, nearly all copies are within; where they cannot, only what is far nearer than usual."""
_REMEMBERED = 2048
"""Photos kept decoded, 20 kB each."""


Decoder = Callable[[Catalog, int], Photo]
"""Opens a photo of a catalog, small, or raises PhotoError."""


def decode_here(catalog: Catalog, row: int) -> Photo:
    """Open a photo in this process."""
    return decode(catalog.read(row), short_side=DECODE_SIDE)


class Group(NamedTuple):
    """Photos that belong together."""

    kind: str
    """``exact``, ``near``, ``burst``, or ``candidate`` where pixels could not be compared."""
    rows: list[int]
    """The largest file first."""


def find_duplicates(
    index: Place,
    *,
    photos: Path | None = None,
    threshold: float | None = None,
    where: str | None = None,
    out: Path | None = None,
    progress: ShowProgress = quiet,
) -> dict[str, Any]:
    """Find photos that are there more than once.

    Args:
        index: Folder, or a server's URL.
        photos: Where the photos are, to compare pixels; without, near pairs are only candidates.
        threshold: Cosine from which on pairs are looked at, in [-1, 1]; by default from the index's
            own distances: ``CHECKED`` or ``UNCHECKED`` times the usual one.
        where: Only these photos.
        out: CSV to write: ``group,kind,path,label,bytes,cosine`` (to the group's first).
        progress: Told how far it is.

    Returns:
        ``index``, ``photos``, ``checked`` (whether pixels were compared), ``threshold``, ``pairs``
        (looked at), ``alike`` (of these, not the same picture), ``unreadable`` (photos), ``exact``,
        ``near``, ``burst`` and ``candidate`` (groups), ``spare`` (photos that could go: all but the
        first of each exact and near group), ``across`` (such groups with more than one label), and
        ``groups``: each with ``kind`` and ``photos`` (``path``, ``label``, ``bytes``, ``cosine``).

    Raises:
        InputError: A threshold that is no cosine.
        OutputError: The table is there already.
    """
    if threshold is not None and not -1 <= threshold <= 1:
        raise InputError(f"threshold must be a cosine from -1 to 1, got {threshold}.")
    if out is not None and out.exists():
        raise OutputError(f"{out} is there already; nothing is overwritten. Give another name.")
    with open_index(index) as opened:
        items, x = read_items(opened, where)
    made = group_duplicates(
        items,
        x,
        catalog=None if photos is None else Catalog.open(photos),
        threshold=threshold,
        progress=progress,
    )
    groups = made.groups
    told = [_describe(group, items, x) for group in groups]
    if out is not None:
        storage.write_text(out, _table(told))
    counts = {
        kind: sum(group.kind == kind for group in groups)
        for kind in ("exact", "near", "burst", "candidate")
    }
    sure = [group for group in groups if group.kind in ("exact", "near")]
    return {
        "index": shown(index),
        "photos": len(items),
        "checked": photos is not None,
        "threshold": round(made.threshold, 4),
        "pairs": made.pairs,
        "alike": made.alike,
        "unreadable": made.unreadable,
        **counts,
        "spare": sum(len(group.rows) - 1 for group in sure),
        "across": sum(len({items[r].label for r in g.rows} - {None}) > 1 for g in sure),
        "out": str(out) if out else None,
        "groups": told,
    }


class Grouped(NamedTuple):
    """Photos that are there more than once."""

    groups: list[Group]
    threshold: float
    """Cosine from which on pairs were looked at."""
    pairs: int
    alike: int
    """Of the pairs: not the same picture."""
    unreadable: int


def group_duplicates(
    items: Sequence[Item],
    x: Float[np.ndarray, "N D"],
    *,
    catalog: Catalog | None,
    threshold: float | None = None,
    decoder: Decoder = decode_here,
    progress: ShowProgress = quiet,
) -> Grouped:
    """Group photos that are held in memory; see :func:`find_duplicates`.

    Args:
        items: Of the index.
        x: Their vectors.
        catalog: Where the photos are; None: near pairs are only candidates.
        threshold: Cosine from which on pairs are looked at.
        decoder: Opens photos.
        progress: Told how far it is.
    """
    exact = _exact(items)
    alone = np.setdiff1d(np.arange(len(items)), [row for rows in exact for row in rows[1:]])
    around = neighbours(x[alone])
    cosine = threshold
    if cosine is None:
        share = CHECKED if catalog is not None else UNCHECKED
        cosine = 1 - share * usual_distance(around)
    pairs = close_pairs(around, cosine)
    pairs = Pairs(alone[pairs.rows], pairs.cosines)
    checked = _Checked([], [], [], set())
    if catalog is not None:
        checked = _check(catalog, items, pairs, decoder, progress)
    else:
        checked.unknown.extend(pairs.rows.tolist())
    return Grouped(
        _groups(items, exact, checked),
        float(cosine),
        len(pairs.rows),
        len(pairs.rows) - sum(map(len, checked[:3])),
        len(checked.unreadable),
    )


def _exact(items: Sequence[Item]) -> list[list[int]]:
    rows: dict[str, list[int]] = {}
    for row, item in enumerate(items):
        if item.stamp is not None and item.stamp.sha256:
            rows.setdefault(item.stamp.sha256, []).append(row)
    return [group for group in rows.values() if len(group) > 1]


class _Checked(NamedTuple):
    """Pairs by what their pixels say."""

    same: list[list[int]]
    burst: list[list[int]]
    unknown: list[list[int]]
    unreadable: set[int]


class _Seen(NamedTuple):
    look: Look
    seconds: float


def _check(
    catalog: Catalog,
    items: Sequence[Item],
    pairs: Pairs,
    decoder: Decoder,
    progress: ShowProgress,
) -> _Checked:
    places = {row.path: row.row for row in catalog.rows}
    found = _Checked([], [], [], set())

    @lru_cache(maxsize=_REMEMBERED)
    def see(row: int) -> _Seen | None:
        place = places.get(items[row].key)
        if place is not None:
            try:
                photo = decoder(catalog, place)
                return _Seen(look(photo.pixels), seconds_of(photo.taken))
            except PhotoError:
                pass
        found.unreadable.add(row)
        return None

    # Pairs of one photo follow each other, so that few photos are read twice.
    ordered = sorted(pairs.rows.tolist())
    for done, (a, b) in enumerate(ordered, 1):
        one, other = see(a), see(b)
        if one is None or other is None:
            found.unknown.append([a, b])
        elif sameness(one.look, other.look) >= SAME:
            found.same.append([a, b])
        elif abs(one.seconds - other.seconds) <= AuditConfig().burst_seconds:
            found.burst.append([a, b])
        if done % 64 == 0 or done == len(ordered):
            progress("comparing pixels", done, len(ordered))
    return found


def _groups(
    items: Sequence[Item], exact: Sequence[Sequence[int]], checked: _Checked
) -> list[Group]:
    """Exact and near copies joined; bursts and candidates apart, for they may be look-alikes."""
    copies = [[rows[0], row] for rows in exact for row in rows[1:]]
    found: list[Group] = []
    for rows in connected(_array([*copies, *checked.same]), len(items)):
        hashes = {stamp.sha256 for row in rows if (stamp := items[row].stamp) is not None}
        found.append(Group("exact" if len(hashes) == 1 else "near", rows))
    for kind, pairs in (("burst", checked.burst), ("candidate", checked.unknown)):
        found += [Group(kind, rows) for rows in connected(_array(pairs), len(items))]

    def size(row: int) -> tuple[int, str]:
        stamp = items[row].stamp
        return (-(stamp.size if stamp else 0), items[row].key)

    return [group._replace(rows=sorted(group.rows, key=size)) for group in found]


def _array(pairs: Iterable[Sequence[int]]) -> Int[np.ndarray, "P 2"]:
    return np.array(list(pairs), np.int64).reshape(-1, 2)


def _describe(group: Group, items: Sequence[Item], x: Any) -> dict[str, Any]:
    cosines = x[group.rows] @ x[group.rows[0]]
    return {
        "kind": group.kind,
        "photos": [
            {
                "path": items[row].key,
                "label": items[row].label,
                "bytes": stamp.size if (stamp := items[row].stamp) else None,
                "cosine": round(min(1.0, float(cosine)), 4),
            }
            for row, cosine in zip(group.rows, cosines, strict=True)
        ],
    }


def _table(groups: Sequence[dict[str, Any]]) -> str:
    rows = (
        [number, group["kind"], *photo.values()]
        for number, group in enumerate(groups, 1)
        for photo in group["photos"]
    )
    return csv_text(["group", "kind", "path", "label", "bytes", "cosine"], rows)
