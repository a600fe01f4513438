"""``fieldmark index`` and ``fieldmark search``: photos that can be asked for their like.

INDEX/
├── index.sqlite  nearest-1.faiss …   items, vectors and labels (fieldmark.index)
├── parts.sqlite                      where asked for: places of photos (workflows.parts)
├── encoders/0123456789ab/            each encoder that has vectors here, so the index stands alone
└── problems.csv                      photos that cannot be read
"""

import csv
import io
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float

from fieldmark import storage
from fieldmark.data.catalog import Catalog, signature_of
from fieldmark.data.stream import Embedded
from fieldmark.encoder import Encoder
from fieldmark.errors import CatalogError, InputError
from fieldmark.index.index import Hit, Index, Item, Stamp
from fieldmark.index.parts import FILE as PARTS
from fieldmark.index.sqlite import SqliteIndex
from fieldmark.training.lock import hold_run
from fieldmark.workflows.parts import keep_parts
from fieldmark.workflows.photos import ShowProgress, quiet

COMMIT = 256
"""Photos per durable step: what a kill can cost."""


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
    out: Path,
    *,
    batch_size: int = 64,
    workers: int | None = None,
    device: str = "auto",
    forget_missing: bool = False,
    parts: bool = False,
    progress: ShowProgress = quiet,
) -> dict[str, Any]:
    """Embed what is new or changed in a source, and mark what is gone; run again at any time.

    Args:
        encoder: Encoder or run folder; what an index has begun with.
        photos: Folder, table or shards.
        out: The index.
        batch_size: Photos per forward pass.
        workers: Decoding threads; by default one per processor.
        device: Where to compute.
        forget_missing: Remove items whose photos are gone, with their labels; else they are kept
            and marked.
        parts: Keep places of photos too, for region search; an index that has them keeps them.
        progress: Told how far it is.

    Returns:
        ``index``, ``encoder`` (identity), ``items``, ``added``, ``changed``, ``unchanged``,
        ``missing`` (photos that are gone), ``back``, ``forgotten``, ``refused``, ``problems`` and ``parts``
        (of :func:`fieldmark.workflows.parts.keep_parts`, or None).

    Raises:
        CatalogError: No photo there, or none of those that are in the index: another folder, or a
            disk that is not mounted. Nothing is changed then.
        InputError: The index belongs to another encoder.
        BusyError: Another process is adding photos to it.
    """
    catalog = Catalog.open(photos)
    loaded = Encoder.load(encoder, device=device)
    with SqliteIndex(out, create=True) as index, hold_run(Path(out) / "adding"):
        _claim(index, loaded, Path(out))
        scan = scan_source(index, catalog, photos)
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
        if parts or (Path(out) / PARTS).exists():
            found = keep_parts(
                index,
                catalog,
                loaded,
                Path(out),
                batch_size=batch_size,
                workers=workers,
                progress=progress,
            )
        told = index.stats()
    if rows:
        storage.write_text(Path(out) / "problems.csv", _table(problems))
    return {
        "index": str(out),
        "encoder": loaded.identity,
        "items": told.items,
        **counts,
        "unchanged": scan.unchanged,
        "missing": told.missing,
        "back": len(scan.back),
        "forgotten": forgotten,
        "refused": len(rows) - counts["added"] - counts["changed"],
        "problems": str(Path(out) / "problems.csv") if problems else None,
        "parts": found,
    }


def _missing(index: Index) -> list[str]:
    return [item.key for item in index.items("missing = true")]


def _claim(index: SqliteIndex, encoder: Encoder, out: Path) -> None:
    """The index's own encoder, or its first."""
    told = index.stats()
    if told.current is not None and told.current != encoder.identity:
        raise InputError(
            f"{out} was made with encoder {told.current[:12]}…, and this is {encoder.identity[:12]}…; "
            "embeddings of different encoders cannot be compared. Give that encoder "
            f"({_encoder_folder(out, told.current)}), or a new --out."
        )
    place = _encoder_folder(out, encoder.identity)
    if not (place / "encoder.json").is_file():
        storage.make_folder(place.parent)
        encoder.save(place)
    about = {
        "network": encoder.spec.backbone.config.name,
        "size": encoder.size,
        "weights": encoder.provenance.sentence(),
    }
    index.add_space(encoder.identity, encoder.dim, about)


def _encoder_folder(out: Path, identity: str) -> Path:
    return Path(out) / "encoders" / identity[:12]


def scan_source(index: Index, catalog: Catalog, source: Path) -> Scan:
    """Compare a source with what an index knows of it, by size and time of change.

    Raises:
        CatalogError: A photo is listed twice, or none of the index's photos is there.
    """
    known = index.stamps()
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
        signature = signature_of(catalog.location(row.row))
        location = catalog.location(row.row)
        now = (
            (signature.size if location.size < 0 else location.size, signature.modified_ns)
            if signature is not None
            else (-1, -1)
        )
        before = known.get(key)
        if before is not None and before[:2] == now:
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


def _table(problems: Sequence[tuple[str, str, str]]) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["path", "code", "detail"])
    writer.writerows(problems)
    return text.getvalue()


class Answer(NamedTuple):
    """What was found for one query."""

    query: str
    hits: list[Hit]


def search_photos(
    index: Path,
    queries: Sequence[str],
    *,
    k: int = 10,
    where: str | None = None,
    device: str = "auto",
) -> list[Answer]:
    """Photos of an index that look most like others.

    Args:
        index: From :func:`index_photos`.
        queries: Photo files, or keys of photos in the index (which are then left out of their own
            answers).
        k: How many.
        where: Filter (:mod:`fieldmark.index.where`).
        device: Where to compute.

    Raises:
        ArtifactError: No index, or its encoder is gone.
        PhotoError: A query cannot be read.
        InputError: A filter that makes no sense.
    """
    with SqliteIndex(index) as opened:
        current = opened.stats().current
        if current is None:
            raise InputError(f"{index} is empty; add photos with fieldmark index first.")
        inside = {item.key for item in _inside(opened, queries)}
        files = [query for query in queries if query not in inside]
        found = dict(
            zip(inside, opened.like(list(inside), k, where=where), strict=True) if inside else ()
        )
        if files:
            vectors = embed_queries(Path(index), current, files, device=device)
            found |= zip(files, opened.search(vectors, k, where=where), strict=True)
    return [Answer(query, found[query]) for query in queries]


def embed_queries(
    index: Path, identity: str, files: Sequence[str], *, device: str = "auto"
) -> Float[np.ndarray, "N D"]:
    """Embeddings of photo files by an index's own encoder."""
    encoder = Encoder.load(_encoder_folder(index, identity), device=device)
    return encoder.embed([Path(file) for file in files])


def _inside(index: Index, queries: Sequence[str]) -> Iterator[Item]:
    """Those of the queries that are keys, and no files that lie there too."""
    for query in queries:
        if not Path(query).is_file():
            try:
                yield from index.get([query])
            except InputError:
                continue
