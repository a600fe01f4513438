"""``fieldmark index`` and ``fieldmark search``: photos that can be asked for their like.

INDEX/
├── index.sqlite  nearest-1.faiss …   items, vectors and labels (fieldmark.index)
├── uploads/                          photos that came over HTTP (app.uploads)
├── parts.sqlite                      where asked for: places of photos (workflows.parts)
├── encoders/0123456789ab/            each encoder that has vectors here, so the index stands alone
└── problems.csv                      photos that cannot be read
"""

import re
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from fieldmark import storage
from fieldmark.data.catalog import Catalog, collector_paused
from fieldmark.data.stream import Embedded
from fieldmark.data.tables import csv_text
from fieldmark.encoder import Encoder
from fieldmark.errors import CatalogError, InputError
from fieldmark.index.index import Hit, Index, Item, Stamp
from fieldmark.index.parts import FILE as PARTS
from fieldmark.index.places import Place, is_server, open_index, shown
from fieldmark.workflows.facts import keep_facts, read_facts
from fieldmark.workflows.parts import keep_parts
from fieldmark.workflows.photos import ShowProgress, quiet
from fieldmark.workflows.spaces import (
    choose_space,
    hold_index,
    keep_encoder,
    load_encoder,
    remember_photos,
)

COMMIT = 256
"""Photos per durable step: what a kill can cost."""


UPLOADS = "uploads"
"""Folder, in an index's folder, of photos that the index itself keeps; their keys begin with it."""
_UPLOAD = re.compile(rf"{UPLOADS}/[0-9a-f]{{16}}\.[a-z0-9]{{1,8}}")


def upload_of(place: Place, key: str) -> Path | None:
    """The file of a photo that an index itself keeps; None for other keys."""
    if is_server(place) or not _UPLOAD.fullmatch(key):
        return None
    return Path(place) / key


class Scan(NamedTuple):
    """What has happened to a source since it was last looked at; rows of its catalog, or keys."""

    new: list[int]
    changed: list[int]
    back: list[str]
    """Were missing and are there again, unchanged."""
    gone: list[str]
    unchanged: int
    sizes: dict[int, tuple[int, int]]
    """Size and time of change of new and changed rows, from before they were read."""


def index_photos(
    encoder: Path,
    photos: Path,
    out: Place,
    *,
    batch_size: int = 64,
    workers: int | None = None,
    device: str = "auto",
    forget_missing: bool = False,
    problems_file: Path | None = None,
    parts: bool = False,
    facts: Path | None = None,
    progress: ShowProgress = quiet,
) -> dict[str, Any]:
    """Embed what is new or changed in a source, and mark what is gone; run again at any time.

    Args:
        encoder: Encoder or run folder; what an index has begun with.
        photos: Folder, table or shards.
        out: The index: a folder, or a server's URL.
        batch_size: Photos per forward pass.
        workers: Decoding threads; by default one per processor.
        device: Where to compute.
        forget_missing: Remove items whose photos are gone, with their labels; else they are kept
            and marked.
        problems_file: Where to list photos that cannot be read; by default ``problems.csv`` in the
            index's folder, and nowhere for a server's.
        parts: Keep places of photos too, for region search; an index that has them keeps them.
        facts: Table of what else is known of photos, for filters (:mod:`fieldmark.workflows.facts`).
        progress: Told how far it is.

    Returns:
        ``index``, ``encoder`` (identity), ``items``, ``added``, ``changed``, ``unchanged``,
        ``missing`` (photos that are gone), ``back``, ``forgotten``, ``refused``, ``problems``, ``parts``
        (of :func:`fieldmark.workflows.parts.keep_parts`, or None) and ``facts`` (of
        :func:`fieldmark.workflows.facts.keep_facts`, or None).

    Raises:
        CatalogError: No photo there, or none of those that are in the index: another folder, or a
            disk that is not mounted. Nothing is changed then.
        InputError: The index belongs to another encoder, or parts are asked of a server.
        BusyError: Another process is adding photos to it.
    """
    known = None if facts is None else read_facts(facts)
    # Rows of many photos come last: Python would look for garbage among them while it loads.
    loaded = Encoder.load(encoder, device=device)
    catalog = Catalog.open(photos)
    if parts and is_server(out):
        raise InputError(
            f"places of photos lie in a file of the index's folder, and {shown(out)} is a server's; make an "
            "index in a folder for region search."
        )
    if problems_file is None and not is_server(out):
        problems_file = Path(out) / "problems.csv"
    with open_index(out, create=True) as index, hold_index(index, out):
        _claim(index, loaded, out, encoder)
        with collector_paused():
            scan = scan_source(
                index, catalog, photos, lacking=index.pending(loaded.identity), place=out
            )
        remember_photos(index, loaded.identity, photos)
        index.update(scan.back, missing=False)
        index.update(scan.gone, missing=True)
        problems: list[tuple[str, str, str]] = []
        rows = sorted([*scan.new, *scan.changed])
        new, done, counts = set(scan.new), 0, {"added": 0, "changed": 0}
        stream = loaded.stream(catalog, batch_size=batch_size, workers=workers, rows=rows)
        while chunk := list(islice(stream, COMMIT)):
            for item in chunk:
                if item.problem is not None:
                    path = catalog[rows[item.position]].path
                    detail = item.problem.detail.removeprefix(f"{path}: ")
                    problems.append((path, item.problem.code, detail))
            good = [item for item in chunk if item.embedding is not None]
            for kind, wanted in (("added", True), ("changed", False)):
                part = [item for item in good if (rows[item.position] in new) == wanted]
                if part:
                    _keep(index, catalog, part, rows, scan, added=wanted)
                    counts[kind] += len(part)
            done += len(chunk)
            progress("embedding photos", done, len(rows))
        forgotten = index.remove(_missing(index)) if forget_missing else 0
        found = None
        if parts or (not is_server(out) and (Path(out) / PARTS).exists()):
            found = keep_parts(
                index,
                catalog,
                loaded,
                Path(out),
                batch_size=batch_size,
                workers=workers,
                progress=progress,
            )
        told_of = None if known is None else keep_facts(index, known)
        told = index.stats()
    if rows and problems_file is not None:
        write_problems(problems_file, problems)
    return {
        "index": shown(out),
        "encoder": loaded.identity,
        "items": told.items,
        **counts,
        "unchanged": scan.unchanged,
        "missing": told.missing,
        "back": len(scan.back),
        "forgotten": forgotten,
        "refused": len(rows) - counts["added"] - counts["changed"],
        "problems": str(problems_file) if problems and problems_file else None,
        "parts": found,
        "facts": told_of,
    }


def _missing(index: Index) -> list[str]:
    return [item.key for item in index.items("missing = true")]


def _claim(index: Index, encoder: Encoder, place: Place, given: Path) -> None:
    """The index's own encoder, or its first."""
    current = index.stats().current
    if current is not None and current != encoder.identity:
        raise InputError(
            f"{shown(place)} was made with encoder {current[:12]}…, and this is {encoder.identity[:12]}…; "
            "embeddings of different encoders cannot be compared. Give that encoder, move the index to this "
            f"one (fieldmark index migrate {shown(place)} ENCODER PHOTOS), or give a new --out."
        )
    keep_encoder(index, place, encoder, given)


def scan_source(
    index: Index,
    catalog: Catalog,
    source: Path,
    *,
    lacking: Sequence[str] = (),
    place: Place | None = None,
) -> Scan:
    """Compare a source with what an index knows of it, by size and time of change.

    Args:
        index: The index.
        catalog: The source's photos.
        source: What it was opened from.
        lacking: Keys without a vector, which count as changed.
        place: Of the index; photos that it keeps itself are not looked for in the source.

    Raises:
        CatalogError: A photo is listed twice, or none of the index's photos is there.
    """
    known, wanting = index.stamps(), set(lacking)
    if place is not None:
        known = {key: stamp for key, stamp in known.items() if not keeps(place, key)}
    seen: set[str] = set()
    new: list[int] = []
    changed: list[int] = []
    back: list[str] = []
    sizes: dict[int, tuple[int, int]] = {}
    unchanged = 0
    for row in catalog.rows:
        key = row.path
        if key in seen:
            raise CatalogError(
                f"{source} lists {key} more than once; an index holds each photo once. Cut out boxes as "
                "photos of their own first."
            )
        seen.add(key)
        signature = catalog.signature(row.row)
        now = (-1, -1) if signature is None else signature[:2]
        before = known.get(key)
        if before is not None and before[:2] == now and key not in wanting:
            unchanged += 1
            if before[2]:
                back.append(key)
            continue
        sizes[row.row] = now
        (new if before is None else changed).append(row.row)
    there = [key for key, stamp in known.items() if not stamp[2]]
    gone = [key for key in there if key not in seen]
    if there and len(gone) == len(there) and not back:
        raise CatalogError(
            f"none of the {len(there):,} photos of the index is in {source}, such as {gone[0]}; nothing "
            "was changed. Is the disk mounted, and is this the folder that was indexed? Other photos want "
            "an index of their own."
        )
    return Scan(new, changed, back, gone, unchanged, sizes)


def keeps(place: Place, key: str) -> bool:
    """Whether an index itself keeps a photo."""
    file = upload_of(place, key)
    return file is not None and file.is_file()


def _keep(
    index: Index,
    catalog: Catalog,
    chunk: Sequence[Embedded],
    rows: Sequence[int],
    scan: Scan,
    *,
    added: bool,
) -> None:
    """One durable step."""
    entries = [catalog[rows[item.position]] for item in chunk]
    keys = [row.path for row in entries]
    vectors = np.stack([item.embedding for item in chunk if item.embedding is not None])
    stamps = [
        Stamp(*scan.sizes[row.row], item.content_hash or "")
        for row, item in zip(entries, chunk, strict=True)
    ]
    if not added:
        index.update(keys, vectors=vectors, stamps=stamps, missing=False)
        return
    told = ({"split": row.split, "group": row.group} for row in entries)
    metas = [{name: value for name, value in each.items() if value is not None} for each in told]
    index.add(keys, vectors, metas=metas, stamps=stamps)
    labels = {row.path: row.label for row in entries if row.label is not None}
    if labels:
        index.set_labels(labels, by=f"{catalog.source.name} (folders or table)")


def write_problems(file: Path, problems: Sequence[tuple[str, str, str]]) -> None:
    """List photos that cannot be used: path, code and reason of each."""
    storage.write_text(file, csv_text(["path", "code", "detail"], problems))


class Answer(NamedTuple):
    """What was found for one query."""

    query: str
    hits: list[Hit]


def search_photos(
    index: Place,
    queries: Sequence[str],
    *,
    k: int = 10,
    where: str | None = None,
    encoder: str | None = None,
    device: str = "auto",
) -> list[Answer]:
    """Photos of an index that look most like others.

    Args:
        index: From :func:`index_photos`: a folder, or a server's URL.
        queries: Photo files, or keys of photos in the index (which are then left out of their own
            answers).
        k: How many.
        where: Filter (:mod:`fieldmark.index.where`).
        encoder: Whose vectors: the beginning of an identity, or the encoder's folder; by default those
            that the index uses. In a migration that is not done, photos without such a vector are not
            found.
        device: Where to compute.

    Raises:
        ArtifactError: No index, or its encoder is gone.
        PhotoError: A query cannot be read.
        InputError: A filter that makes no sense.
    """
    with open_index(index) as opened:
        space, loaded = choose_space(opened.stats(), index, encoder, device=device)
        inside = {item.key for item in _inside(opened, queries)}
        files = [query for query in queries if query not in inside]
        found: dict[str, list[Hit]] = {}
        if inside:
            hits = opened.like(list(inside), k, where=where, identity=space.identity)
            found = dict(zip(inside, hits, strict=True))
        if files:
            loaded = loaded or load_encoder(index, space, device=device)
            vectors = loaded.embed([Path(file) for file in files])
            hits = opened.search(vectors, k, where=where, identity=space.identity)
            found |= zip(files, hits, strict=True)
    return [Answer(query, found[query]) for query in queries]


def _inside(index: Index, queries: Sequence[str]) -> Iterator[Item]:
    """Those of the queries that are keys, and no files that lie there too."""
    for query in queries:
        if not Path(query).is_file():
            try:
                yield from index.get([query])
            except InputError:
                continue
