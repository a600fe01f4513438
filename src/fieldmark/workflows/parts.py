"""``fieldmark index --parts``: cells of every photo, kept up to date beside its vectors."""

import hashlib
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float, Int8, UInt8

from fieldmark import rng, runtime
from fieldmark.data.catalog import Catalog
from fieldmark.data.decode import decode
from fieldmark.data.looktensor import stack
from fieldmark.encoder import Encoder
from fieldmark.errors import PhotoError
from fieldmark.index.index import Index, Item
from fieldmark.index.parts import FILE, Basis, DamagedParts, Hashes, Parts, fit_basis
from fieldmark.nn.detail import Detail
from fieldmark.workflows.photos import ShowProgress, quiet

COMMIT = 256
"""Photos per durable step: what a kill can cost."""
FITTED_ON = 512
"""Photos that the basis is fitted on, at most; spread over all."""
_OUTGROWN = 4
"""A basis of fewer photos is fitted anew when there are so many times as many."""


class Seen(NamedTuple):
    """A photo, resized as a whole."""

    row: int
    pixels: UInt8[np.ndarray, "y x 3"] | None
    """None where it cannot be read."""
    sha256: str


def keep_parts(
    index: Index,
    catalog: Catalog,
    encoder: Encoder,
    out: Path,
    *,
    batch_size: int = 64,
    workers: int | None = None,
    progress: ShowProgress = quiet,
) -> dict[str, Any]:
    """Make cells of photos that have none, or that were read from an older photo; drop what is gone.

    What is damaged is made anew, a file that cannot be read at all as a whole. Stopped at any
    moment, the same call goes on.

    Args:
        index: What its photos are, and the hashes of their content.
        catalog: Where the photos are now.
        encoder: The index's own.
        out: Folder of the index.
        batch_size: Photos per forward pass.
        workers: Decoding threads; by default one per processor.
        progress: Told how far it is.

    Returns:
        ``photos`` with cells, ``made``, ``dropped``, ``refused`` (not read, or changed on the way)
        and ``bytes`` of the file.
    """
    keep = partial(
        _keep,
        index,
        catalog,
        encoder,
        out / FILE,
        batch_size=batch_size,
        workers=workers,
        progress=progress,
    )
    try:
        return keep()
    except DamagedParts:
        for suffix in ("", "-wal", "-shm"):
            (out / (FILE + suffix)).unlink(missing_ok=True)
        return keep()


def _keep(
    index: Index,
    catalog: Catalog,
    encoder: Encoder,
    file: Path,
    *,
    batch_size: int,
    workers: int | None,
    progress: ShowProgress,
) -> dict[str, Any]:
    detail = detail_of(encoder)
    wanted = {item.key: digest for item in index.items() if (digest := hash_of(item))}
    rows = {row.path: row.row for row in catalog.rows if row.path in wanted}
    with closing(Parts(file, create=True)) as parts:
        parts.source = str(Path(catalog.source).resolve())
        parts.keep_spaces([space.identity for space in index.stats().spaces])
        basis = parts.basis(encoder.identity, detail.kind)
        there: dict[str, str] = {}
        if basis is not None:
            there = parts.sound(encoder.identity, basis.projection.shape[1])
        grown = basis is not None and (
            basis.photos < FITTED_ON and len(wanted) >= _OUTGROWN * basis.photos
        )
        if (basis is None or grown) and rows:
            basis = _fit(catalog, sorted(rows.values()), detail, batch_size, workers, progress)
            parts.begin(encoder.identity, detail.kind, basis)
            there = {}
        dropped = parts.keep_only(encoder.identity, wanted)
        behind = sorted(row for key, row in rows.items() if there.get(key) != wanted[key])
        made = 0
        if basis is not None and behind:
            made = _make(
                parts,
                catalog,
                behind,
                wanted,
                encoder,
                detail,
                basis,
                batch_size,
                workers,
                progress,
            )
        current = {key for key, digest in there.items() if wanted.get(key) == digest}
    return {
        "photos": len(current) + made,
        "made": made,
        "dropped": dropped,
        "refused": len(behind) - made,
        "bytes": file.stat().st_size,
    }


def _make(
    parts: Parts,
    catalog: Catalog,
    behind: Sequence[int],
    wanted: Hashes,
    encoder: Encoder,
    detail: Detail,
    basis: Basis,
    batch_size: int,
    workers: int | None,
    progress: ShowProgress,
) -> int:
    made = done = 0
    stream = look_at_all(catalog, behind, detail, workers)
    while chunk := list(islice(stream, COMMIT)):
        # Content that is not what the index knows has no vector yet: it comes with the next scan.
        good = [one for one in chunk if one.sha256 == wanted[catalog[one.row].path]]
        good = [one for one in good if one.pixels is not None]
        grids: dict[int, Int8[np.ndarray, "_h _w D"]] = {}
        for batch, cells in _cells(good, detail, batch_size):
            short = basis.shorten(cells)
            grids.update({one.row: grid for one, grid in zip(batch, short, strict=True)})
        keys = [catalog[row].path for row in grids]
        parts.put(encoder.identity, keys, [wanted[key] for key in keys], list(grids.values()))
        made, done = made + len(grids), done + len(chunk)
        progress("reading parts of photos", done, len(behind))
    return made


def hash_of(item: Item) -> str:
    """SHA-256 of a photo's content as it was embedded; empty where its file was never read."""
    return item.stamp.sha256 if item.stamp is not None else ""


def detail_of(encoder: Encoder) -> Detail:
    """How an encoder's cells are read, on its device."""
    return Detail(encoder.spec.to(encoder.device).backbone)


def read_cells(detail: Detail, pixels: UInt8[np.ndarray, "H W 3"]) -> Float[np.ndarray, "h w D"]:
    """Cells of one upright photo, before any basis."""
    return cells_of(detail, detail.look(pixels))


def cells_of(detail: Detail, looked: UInt8[np.ndarray, "y x 3"]) -> Float[np.ndarray, "h w D"]:
    """The same of a photo that ``detail.look`` has resized."""
    ((_, cells),) = _cells([Seen(0, looked, "")], detail, 1)
    return cells[0]


def _fit(
    catalog: Catalog,
    rows: Sequence[int],
    detail: Detail,
    batch_size: int,
    workers: int | None,
    progress: ShowProgress,
) -> Basis:
    order = np.argsort(rng.mix("parts", np.asarray(rows, np.int64)), kind="stable")
    chosen = [rows[place] for place in order[:FITTED_ON]]
    done = 0

    def grids() -> Iterator[Float[np.ndarray, "_B _h _w _D"]]:
        nonlocal done
        stream = look_at_all(catalog, chosen, detail, workers)
        while chunk := list(islice(stream, COMMIT)):
            good = [one for one in chunk if one.pixels is not None]
            for batch, cells in _cells(good, detail, batch_size):
                yield cells
                done += len(batch)
                progress("learning what parts look like", done, len(chosen))

    return fit_basis(grids(), detail.cells)


def look_at_all(
    catalog: Catalog, rows: Sequence[int], detail: Detail, workers: int | None = None
) -> Iterator[Seen]:
    """Whole photos, read ahead of the network, in the order of the rows."""

    def look(row: int) -> Seen:
        digest = ""
        try:
            data = catalog.read(row)
            digest = hashlib.sha256(data).hexdigest()
            return Seen(row, detail.look(decode(data, enough=2 * detail.side).pixels), digest)
        except PhotoError:
            return Seen(row, None, digest)

    count = max(1, workers or runtime.processor_count())
    with ThreadPoolExecutor(count, thread_name_prefix="fieldmark-decode") as pool:
        numbered = iter(rows)
        waiting = [pool.map(look, list(islice(numbered, 32))) for _ in range(2)]
        while waiting:
            yield from waiting.pop(0)
            if part := list(islice(numbered, 32)):
                waiting.append(pool.map(look, part))


def _cells(
    photos: Sequence[Seen], detail: Detail, batch_size: int
) -> Iterator[tuple[list[Seen], Float[np.ndarray, "B h w D"]]]:
    """Cells in batches of photos of one shape."""
    shapes: dict[tuple[int, ...], list[Seen]] = {}
    for one in photos:
        if one.pixels is not None:
            shapes.setdefault(one.pixels.shape, []).append(one)
    for entries in shapes.values():
        for start in range(0, len(entries), batch_size):
            batch = entries[start : start + batch_size]
            images = stack([one.pixels for one in batch if one.pixels is not None])
            yield batch, detail(images).cpu().numpy()
