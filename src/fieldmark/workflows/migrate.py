"""``fieldmark index migrate``: an index moves from one encoder to another while it is used.

Vectors of the new encoder are put beside the old ones, in durable steps; searches use the old one until all
photos have both. Photos that cannot be embedded now (gone, unreadable, or with another content than the
index knows) keep the old encoder in use: those without a new vector would silently not be found any more.
"""

from collections.abc import Sequence
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from fieldmark.data.catalog import Catalog
from fieldmark.data.stream import Embedded
from fieldmark.encoder import Encoder
from fieldmark.errors import CatalogError, InputError
from fieldmark.index.index import Index
from fieldmark.index.places import Place, is_server, open_index, shown
from fieldmark.workflows.index import COMMIT, UPLOADS, keeps, write_problems
from fieldmark.workflows.photos import ShowProgress, quiet
from fieldmark.workflows.spaces import (
    current_space,
    drop_encoder,
    hold_index,
    keep_encoder,
    remember_photos,
)

Problem = tuple[str, str, str]


class Moved(NamedTuple):
    """What became of the photos that had no vector of the new encoder."""

    embedded: int
    problems: list[Problem]
    """Path, code and reason of those that still have none."""


def migrate_index(
    index: Place,
    encoder: Path,
    photos: Path,
    *,
    switch: bool = True,
    incomplete: bool = False,
    drop_old: bool = False,
    batch_size: int = 64,
    workers: int | None = None,
    device: str = "auto",
    problems_file: Path | None = None,
    progress: ShowProgress = quiet,
) -> dict[str, Any]:
    """Give every photo of an index a vector of another encoder, then search with that one.

    Run again it goes on: after a stop, or to catch up with photos that were added meanwhile.

    Args:
        index: Folder, or a server's URL.
        encoder: The new one: encoder or run folder.
        photos: Where the index's photos are: folder, table or shards.
        switch: Search with the new encoder once every photo has a vector of it.
        incomplete: Switch although some have none. They keep their labels, are not found, and get
            their vector when ``fieldmark index`` meets them again.
        drop_old: After switching, forget the vectors of the encoder that was in use, for good.
        batch_size: Photos per forward pass.
        workers: Decoding threads; by default one per processor.
        device: Where to compute.
        problems_file: Where to list photos that got no vector; by default ``problems.csv`` in the
            index's folder, and nowhere for a server's.
        progress: Told how far it is.

    Returns:
        ``index``, ``encoder`` (the new one's identity), ``before`` (in use until now), ``items``,
        ``embedded`` (now), ``lacking`` (have no vector of it), of these ``missing`` (gone),
        ``changed`` (to be brought up to date first) and ``refused`` (unreadable); ``switched`` (now),
        ``current`` (in use), ``dropped`` (identity, or None) and ``problems`` (file, or None).

    Raises:
        CatalogError: None of the index's photos is there: another folder, or a disk that is not mounted.
        InputError: An empty index, or ``drop_old`` where it is not clear which.
        BusyError: Another process is adding photos to it.
    """
    if drop_old and not switch:
        raise InputError("the old encoder cannot be dropped while searches use it; leave out one.")
    catalog = Catalog.open(photos)
    with open_index(index) as opened, hold_index(opened, index):
        before = current_space(opened.stats(), index).identity
        new = Encoder.load(encoder, device=device)
        keep_encoder(opened, index, new, encoder)
        pending = opened.pending(new.identity)
        moved = _embed(
            opened,
            index,
            catalog,
            photos,
            new,
            pending,
            progress,
            batch_size=batch_size,
            workers=workers,
        )
        remember_photos(opened, new.identity, photos)
        lacking = len(moved.problems)
        switched = switch and before != new.identity and (incomplete or not lacking)
        if switched:
            opened.use_space(new.identity, incomplete=incomplete)
        current = new.identity if switched else before
        dropped = None
        if drop_old and current == new.identity:
            dropped = _drop(opened, index, before, new.identity)
        items = opened.stats().items
    if problems_file is None and not is_server(index):
        problems_file = Path(index) / "problems.csv"
    if pending and problems_file is not None:
        write_problems(problems_file, moved.problems)
    codes = [code for _, code, _ in moved.problems]
    gone, stale = codes.count("missing"), codes.count("changed")
    return {
        "index": shown(index),
        "encoder": new.identity,
        "before": before,
        "items": items,
        "embedded": moved.embedded,
        "lacking": lacking,
        "missing": gone,
        "changed": stale,
        "refused": lacking - gone - stale,
        "switched": switched,
        "current": current,
        "dropped": dropped,
        "problems": str(problems_file) if moved.problems and problems_file else None,
    }


def _embed(
    index: Index,
    place: Place,
    catalog: Catalog,
    source: Path,
    encoder: Encoder,
    pending: Sequence[str],
    progress: ShowProgress,
    **how: Any,
) -> Moved:
    sources = [(catalog, {row.path: row.row for row in catalog.rows})]
    if any(keeps(place, key) for key in pending):
        kept = Catalog.open(Path(place) / UPLOADS)
        sources.append((kept, {f"{UPLOADS}/{row.path}": row.row for row in kept.rows}))
    known = {key for _, rows in sources for key in rows}
    total = sum(key in known for key in pending)
    problems = [(key, "missing", f"is not in {source.name}") for key in pending if key not in known]
    if pending and not total and len(pending) == index.stats().items:
        raise CatalogError(
            f"none of the {len(pending):,} photos of the index is in {source}, such as {pending[0]}; nothing "
            "was changed. Is the disk mounted, and is this the folder that was indexed?"
        )
    done = embedded = 0
    for photos, rows in sources:
        there = [key for key in pending if key in rows]
        stream = encoder.stream(photos, rows=[rows[key] for key in there], **how)
        while chunk := list(islice(stream, COMMIT)):
            good, bad = _usable(index, there, chunk)
            problems += bad
            if good:
                vectors = np.stack([item.embedding for item in good if item.embedding is not None])
                keys = [there[item.position] for item in good]
                index.update(keys, vectors=vectors, identity=encoder.identity)
                embedded += len(good)
            done += len(chunk)
            progress("embedding photos", done, total)
    return Moved(embedded, sorted(problems))


def _usable(
    index: Index, keys: Sequence[str], chunk: Sequence[Embedded]
) -> tuple[list[Embedded], list[Problem]]:
    """Those that show what the index's own vectors were made from, and why not of the others."""
    good: list[Embedded] = []
    bad: list[Problem] = []
    for item, known in zip(chunk, index.get([keys[i.position] for i in chunk]), strict=True):
        if item.embedding is None:
            code = "unreadable" if item.problem is None else item.problem.code
            detail = "" if item.problem is None else item.problem.detail
            bad.append((known.key, code, detail.removeprefix(f"{known.key}: ")))
        elif known.stamp is not None and known.stamp.sha256 != item.content_hash:
            told = "its file is another than the one that was indexed; run fieldmark index first"
            bad.append((known.key, "changed", told))
        else:
            good.append(item)
    return good, bad


def _drop(index: Index, place: Place, before: str, new: str) -> str | None:
    """Forget the encoder that was in use; where the switch was made earlier, the only other one."""
    others = [space.identity for space in index.stats().spaces if space.identity != new]
    old = [before] if before != new else others
    if len(old) > 1:
        raise InputError(
            f"{shown(place)} has vectors of {len(old)} other encoders ({', '.join(i[:12] for i in old)}); it "
            "is not clear which to drop."
        )
    for identity in old:
        drop_encoder(index, place, identity)
    return old[0] if old else None
