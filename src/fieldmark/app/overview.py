"""All photos at once: the map, clusters, odd ones and copies, as arrays in the order of the table."""

import json
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float

from fieldmark import storage
from fieldmark.app.answers import Packed, pack, pack_bytes
from fieldmark.app.derived import Derived, Made, Report, Working
from fieldmark.app.library import Library, View
from fieldmark.app.problems import HttpProblem
from fieldmark.data.catalog import Catalog
from fieldmark.errors import FieldmarkError
from fieldmark.evaluation.plane import FEW, Plane, flat, lay_out
from fieldmark.index.alike import Held, read_items
from fieldmark.workflows.cluster import name_of, sort_photos
from fieldmark.workflows.duplicates import Decoder, decode_here, group_duplicates
from fieldmark.workflows.outliers import rank_outliers

ODDEST = 500
"""Outliers that are told."""
_KINDS = {"near": "same", "candidate": "alike"}
"""What the page calls groups of copies."""


def _of_json(body: bytes) -> Packed:
    json.loads(body)
    return pack_bytes(body)


def _kind(name: str, version: int, urgency: int) -> Made[Packed]:
    return Made(name, version, urgency, dump=lambda packed: packed.plain, load=_of_json)


_FLAT = _kind("flat", 1, 0)
_MAP = _kind("map", 1, 9)
_CLUSTERS = _kind("clusters", 1, 2)
_OUTLIERS = _kind("outliers", 1, 1)
_DUPLICATES = _kind("duplicates", 1, 5)


class Overview:
    """Answers about all photos, made from the library in the background.

    Args:
        library: Of the index.
        derived: Computes and keeps them.
        folder: Where places on the map are remembered; None: only while the service runs.
        photos: Where the photos are; None where they are not to be seen.
        decoder: Opens photos to compare pixels; photos are not trusted.
    """

    def __init__(
        self,
        library: Library,
        derived: Derived,
        folder: Path | None,
        *,
        photos: Callable[[], Path | None] = lambda: None,
        decoder: Decoder = decode_here,
    ) -> None:
        self._library, self._derived = library, derived
        self._places = _Places(folder)
        self._photos, self._decoder = photos, decoder

    # -- map

    def map(self, view: View) -> Packed:
        """Places of photos; the principal components until better ones are there."""

        def good(report: Report) -> Packed:
            made = self._lay_out(view, report)
            return _plane(view, made, final=True)

        final = False
        try:
            made = self._derived.ask(_MAP, view.table.snapshot, good, wait_seconds=0.3)
            if isinstance(made, Packed):
                return made
        except HttpProblem as problem:
            status = problem.problem.status
            if status == 409:
                raise
            # A plain map is better than none, and nobody need ask again for one that cannot be made.
            final = status != 503
        quick = self._derived.peek(_FLAT, view.table.snapshot, of={"final": final})
        if quick is None:
            quick = _plane(view, _flat(view.table.vectors), final=final)
            self._derived.keep(_FLAT, view.table.snapshot, quick, of={"final": final})
        return quick

    def map_progress(self, view: View) -> Working | None:
        """How far the good map is; None where it is there."""
        return self._derived.progress(_MAP, view.table.snapshot)

    def _lay_out(self, view: View, report: Report) -> Plane:
        table = view.table
        if not len(table.keys):
            return _flat(table.vectors)
        start, put = self._places.read(table.identity, table.keys)
        known = ~np.isnan(start).any(axis=1)
        # What was only put beside others does not count as laid out.
        settle = bool(known.any() and (known & ~put).mean() < 1 - FEW)

        def show(done: int, total: int) -> None:
            report("laying out the map", done, total)

        made = lay_out(
            table.vectors, start=start if known.any() else None, settle=settle, show=show
        )
        moved = settle or not known.any() or known.mean() < 1 - FEW
        beside = np.zeros(len(known), bool) if moved else put | ~known
        self._places.write(table.identity, table.keys, made.places, beside)
        return made

    # -- clusters

    def clusters(self, view: View, count: int | None) -> Packed | Working:
        """Photos in more groups than there are kinds."""

        def make(report: Report) -> Packed:
            report("sorting photos", 0, 0)
            return pack(_sorted(view, count))

        of = {"count": count}
        return self._derived.ask(_CLUSTERS, view.table.snapshot, make, of=of, wait_seconds=1.0)

    # -- outliers

    def outliers(self, view: View, *, by_label: bool) -> Packed | Working:
        """The photos that belong least."""

        def make(report: Report) -> Packed:
            report("comparing photos", 0, 0)
            labels = [view.label(row) for row in range(len(view.table.keys))]
            ranked = rank_outliers(labels, view.table.vectors, by_label=by_label)
            rows = [] if ranked is None else ranked.rows[:ODDEST].tolist()
            scores = [] if ranked is None else ranked.scores[:ODDEST].tolist()
            return pack(
                {
                    "snapshot": view.table.snapshot,
                    "change": view.labels.change,
                    "usual": None if ranked is None else ranked.usual,
                    "rows": rows,
                    "scores": [round(score, 4) for score in scores],
                    "nearest": [] if ranked is None else ranked.nearest[:ODDEST],
                }
            )

        of: dict[str, Any] = {"by_label": by_label}
        if by_label:
            of["change"] = view.labels.change
        return self._derived.ask(_OUTLIERS, view.table.snapshot, make, of=of, wait_seconds=1.0)

    # -- duplicates

    def duplicates(self, view: View) -> Packed | Working:
        """Photos that are there more than once; pixels decide where the photos are to be seen."""

        def make(report: Report) -> Packed:
            def progress(what: str, done: int, total: int, note: str = "") -> None:
                report(what, done, total)

            if not view.table.keys:
                nothing = {"checked": False, "unreadable": 0, "groups": []}
                return pack({"snapshot": view.table.snapshot} | nothing)
            with self._library.open() as index:
                held = _same_rows(read_items(index), view)
            place = self._photos()
            catalog = None
            if place is not None:
                report("looking for the photos", 0, 0)
                try:
                    catalog = Catalog.open(place)
                except FieldmarkError:
                    catalog = None  # A disk that is not there: near pairs are only alike then.
            made = group_duplicates(
                held.items,
                held.vectors,
                catalog=catalog,
                decoder=self._decoder,
                progress=progress,
            )
            groups = []
            for group in made.groups:
                likeness = held.vectors[group.rows] @ held.vectors[group.rows[0]]
                groups.append(
                    {
                        "kind": _KINDS.get(group.kind, group.kind),
                        "rows": group.rows,
                        "cosine": round(float(np.clip(likeness.min(), -1, 1)), 4),
                    }
                )
            return pack(
                {
                    "snapshot": view.table.snapshot,
                    "checked": catalog is not None,
                    "unreadable": made.unreadable,
                    "groups": groups,
                }
            )

        return self._derived.ask(_DUPLICATES, view.table.snapshot, make, wait_seconds=0.5)


def _same_rows(held: Held, view: View) -> Held:
    """Items of a table's rows; what has gone meanwhile ends the computation by itself."""
    place = {item.key: row for row, item in enumerate(held.items)}
    rows = [place[key] for key in view.table.keys if key in place]
    return Held([held.items[row] for row in rows], held.vectors[rows])


def _flat(x: Float[np.ndarray, "N D"]) -> Plane:
    return flat(x) if len(x) else Plane(np.zeros((0, 2)), "")


def _plane(view: View, made: Plane, *, final: bool) -> Packed:
    rounded = made.places.round(4)
    return pack(
        {
            "snapshot": view.table.snapshot,
            "how": made.how,
            "final": final,
            "x": rounded[:, 0].tolist(),
            "y": rounded[:, 1].tolist(),
        }
    )


def _sorted(view: View, count: int | None) -> dict[str, Any]:
    table = view.table
    told: dict[str, Any] = {"snapshot": table.snapshot, "kinds": 0}
    if not len(table.keys):
        return told | {"clusters": [], "assigned": [], "merges": []}
    made = sort_photos(table.vectors, count=count)
    assigned = made.found.assigned
    medoids = dict(zip(assigned[made.order[::-1]].tolist(), made.order[::-1].tolist(), strict=True))
    common: dict[int, Counter[str]] = {}
    for row in np.flatnonzero(view.labelled).tolist():
        name = view.label(row)
        if name is not None:
            common.setdefault(int(assigned[row]), Counter())[name] += 1
    clusters = [
        {
            "name": name_of(cluster),
            "size": size,
            "medoid": medoids[cluster],
            "label": common[cluster].most_common(1)[0][0] if cluster in common else None,
        }
        for cluster, size in enumerate(np.bincount(assigned).tolist())
    ]
    merges = [
        {"first": a, "second": b, "cosine": round(float(cosine), 4)}
        for (a, b), cosine in zip(made.merges.pairs.tolist(), made.merges.cosines, strict=True)
    ]
    return told | {
        "kinds": made.kinds,
        "clusters": clusters,
        "assigned": assigned.tolist(),
        "merges": merges,
    }


class _Places:
    """Where photos are on the map, so that they stay there when others are added."""

    def __init__(self, folder: Path | None) -> None:
        self._folder = folder
        self._held: dict[str, dict[str, tuple[float, float, bool]]] = {}

    def _file(self, identity: str) -> Path | None:
        return None if self._folder is None else self._folder / f"places-{identity[:12]}.json"

    def read(
        self, identity: str | None, keys: tuple[str, ...]
    ) -> tuple[Float[np.ndarray, "N 2"], Any]:
        """Places by key (NaN where there is none), and whether they were only put beside others."""
        name = str(identity)
        if name not in self._held:
            self._held[name] = self._load(name)
        known = self._held[name]
        found = np.full((len(keys), 2), np.nan)
        put = np.zeros(len(keys), bool)
        for row, key in enumerate(keys):
            if key in known:
                x, y, beside = known[key]
                found[row], put[row] = (x, y), beside
        return found, put

    def _load(self, identity: str) -> dict[str, tuple[float, float, bool]]:
        file = self._file(identity)
        if file is None:
            return {}
        try:
            head, _, body = file.read_bytes().partition(b"\n")
            if head.decode() != storage.sha256_bytes(body):
                return {}
            told = json.loads(body)
            return {
                key: (float(x), float(y), bool(put))
                for key, x, y, put in zip(
                    told["keys"], told["x"], told["y"], told["put"], strict=True
                )
            }
        except (OSError, ValueError, KeyError, TypeError):
            return {}  # Another map is as good.

    def write(
        self,
        identity: str | None,
        keys: tuple[str, ...],
        places: Float[np.ndarray, "N 2"],
        put: Any,
    ) -> None:
        name = str(identity)
        rounded = places.round(5)
        self._held[name] = {
            key: (x, y, bool(beside))
            for key, (x, y), beside in zip(keys, rounded.tolist(), put.tolist(), strict=True)
        }
        file = self._file(name)
        if file is None:
            return
        body = json.dumps(
            {
                "keys": list(keys),
                "x": rounded[:, 0].tolist(),
                "y": rounded[:, 1].tolist(),
                "put": put.astype(int).tolist(),
            }
        ).encode()
        try:
            storage.make_folder(file.parent)
            storage.write_bytes(file, storage.sha256_bytes(body).encode() + b"\n" + body)
        except (FieldmarkError, OSError):
            return  # The map is kept while the service runs.
