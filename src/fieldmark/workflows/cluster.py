"""``fieldmark cluster``: sort photos into groups for a person to name, and take the names back as labels.

clusters.csv              a line for each photo, the most typical of its cluster first
clusters-pairs.csv        which clusters may be one, the most alike first

DIR/
├── clusters.csv  clusters-pairs.csv
├── cluster-0000/0000-0000-wren_12.jpg …    links (or copies), named so that they may be put together
└── cluster-0001/ …

Names come back from the column ``name`` or from the names of the folders, wherever a photo lies then. What
still has the name that it was given here counts as not named.
"""

import csv
import io
import os
import re
import shutil
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
from jaxtyping import Float, Int

from fieldmark import storage
from fieldmark.data.catalog import Catalog
from fieldmark.data.tables import csv_text, delimiter_of
from fieldmark.errors import ConflictError, InputError, LabelError, OutputError
from fieldmark.index.alike import read_items
from fieldmark.index.clusters import (
    MOST,
    PER_KIND,
    Clusters,
    Merges,
    estimate_kinds,
    find_clusters,
    suggest_merges,
)
from fieldmark.index.index import Item, check_label
from fieldmark.index.places import Place, open_index, shown

Links = Literal["symbolic", "hard", "copy"]
Existing = Literal["refuse", "keep", "replace"]
TABLE, PAIRS = "clusters.csv", "clusters-pairs.csv"
BY = "cluster"
"""Who labelled, in the history."""
_COLUMNS = ("path", "name", "cluster", "merged", "rank", "distance", "medoid", "label", "file")
_GIVEN = re.compile(r"cluster-\d{4,}")
_LONGEST_NAME = 100


class Grouping(NamedTuple):
    """Rows in groups."""

    found: Clusters
    merges: Merges
    order: Int[np.ndarray, " N"]
    """Rows by cluster, the most typical first."""
    ranks: Int[np.ndarray, " N"]
    """Of each row in its cluster, from 0."""
    kinds: int
    """Estimated."""


class Sorted(NamedTuple):
    """Photos in groups."""

    items: list[Item]
    found: Clusters
    merges: Merges
    order: Int[np.ndarray, " N"]
    ranks: Int[np.ndarray, " N"]
    kinds: int


def cluster_photos(
    index: Place,
    *,
    out: Path | None = None,
    folders: Path | None = None,
    photos: Path | None = None,
    count: int | None = None,
    merge_to: int | None = None,
    links: Links = "symbolic",
    where: str | None = None,
    seed: int = 0,
) -> dict[str, Any]:
    """Sort the photos of an index into more groups than there are kinds.

    Args:
        index: Folder, or a server's URL.
        out: CSV to write; the pairs go beside it.
        folders: New folder for links to the photos.
        photos: Where the photos are; needed for folders.
        count: Clusters; by default three for each kind that is estimated.
        merge_to: Groups in the column ``merged``; by default the kinds that are estimated.
        links: Of the folders. Hard links need the same disk.
        where: Only these photos.
        seed: Of k-means.

    Returns:
        ``index``, ``photos``, ``clusters``, ``kinds`` (estimated), ``merged`` (groups), ``smallest``,
        ``largest`` (photos), ``agreement`` (of photos with labels, the share that has its cluster's
        commonest; None without labels), ``out``, ``folders``, ``left_out`` (without a file), and
        ``pairs``: the clusters most alike, ``one``, ``other``, ``cosine``.

    Raises:
        InputError: Nowhere to write, no photos, or more clusters than photos.
        OutputError: Something is there already.
    """
    if out is None and folders is None:
        raise InputError("say where to: --out clusters.csv, --folders DIR, or both.")
    if folders is not None and photos is None:
        raise InputError("links need to know where the photos are: --photos DIR.")
    for file in [out, _pairs_file(out)] if out is not None else []:
        if file is not None and file.exists():
            raise OutputError(
                f"{file} is there already; nothing is overwritten. Give another name."
            )
    if (
        folders is not None
        and folders.exists()
        and (not folders.is_dir() or any(folders.iterdir()))
    ):
        raise OutputError(f"{folders} is there already; nothing is overwritten. Give a new folder.")
    if folders is not None and photos is not None and _inside(folders, photos):
        raise InputError(
            f"{folders} lies in {photos}: the links would be taken for photos; give a folder elsewhere."
        )
    with open_index(index) as opened:
        held = read_items(opened, where)
    if not held.items:
        raise InputError(
            f"{shown(index)} has no photo to sort{' for this filter' if where else ''}."
        )
    made = Sorted(held.items, *sort_photos(held.vectors, count=count, merge_to=merge_to, seed=seed))
    if out is not None:
        storage.write_text(out, _table(made))
        storage.write_text(_pairs_file(out), _pairs(made))
    left_out = 0
    if folders is not None and photos is not None:
        left_out = _link(made, Catalog.open(photos), folders, links)
    sizes = np.bincount(made.found.assigned)
    return {
        "index": shown(index),
        "photos": len(made.items),
        "clusters": len(sizes),
        "kinds": made.kinds,
        "merged": int(made.merges.merged.max()) + 1,
        "smallest": int(sizes.min()),
        "largest": int(sizes.max()),
        "agreement": _label_agreement(made),
        "out": str(out) if out else None,
        "folders": str(folders) if folders else None,
        "left_out": left_out,
        "pairs": [
            {"one": name_of(a), "other": name_of(b), "cosine": round(float(cosine), 4)}
            for (a, b), cosine in zip(
                made.merges.pairs[:10].tolist(), made.merges.cosines, strict=False
            )
        ],
    }


def sort_photos(
    x: Float[np.ndarray, "N D"],
    *,
    count: int | None = None,
    merge_to: int | None = None,
    seed: int = 0,
) -> Grouping:
    """Cluster, order and suggest; see :func:`cluster_photos`.

    Args:
        x: Unit vectors.
        count: Clusters; by default three for each kind that is estimated.
        merge_to: Groups that clusters are joined to; by default the kinds that are estimated.
        seed: Of k-means.
    """
    kinds = estimate_kinds(x)
    found = find_clusters(x, count or min(PER_KIND * kinds, len(x), MOST), seed=seed)
    merges = suggest_merges(found, merge_to or kinds)
    order = np.lexsort((found.distances, found.assigned))
    starts = np.searchsorted(found.assigned[order], found.assigned[order])
    ranks = np.empty(len(x), np.int64)
    ranks[order] = np.arange(len(x)) - starts
    return Grouping(found, merges, order, ranks, kinds)


def name_of(cluster: int) -> str:
    """What a cluster is called until someone names it."""
    return f"cluster-{cluster:04d}"


def _pairs_file(out: Path) -> Path:
    return out.with_name(f"{out.stem}-pairs.csv")


def _label_agreement(made: Sorted) -> float | None:
    """How far clusters agree with the labels that are known."""
    known: dict[int, Counter[str]] = {}
    for item, cluster in zip(made.items, made.found.assigned.tolist(), strict=True):
        if item.label is not None:
            known.setdefault(cluster, Counter())[item.label] += 1
    total = sum(each.total() for each in known.values())
    if not total:
        return None
    return round(sum(max(each.values()) for each in known.values()) / total, 4)


def _table(made: Sorted) -> str:
    text = io.StringIO()
    writer = csv.DictWriter(text, _COLUMNS, lineterminator="\n")
    writer.writeheader()
    medoids = {int(made.found.assigned[row]): made.items[row].key for row in made.order[::-1]}
    for row in made.order.tolist():
        cluster = int(made.found.assigned[row])
        item = made.items[row]
        writer.writerow(
            {
                "path": item.key,
                "name": name_of(cluster),
                "cluster": cluster,
                "merged": int(made.merges.merged[cluster]),
                "rank": int(made.ranks[row]),
                "distance": f"{made.found.distances[row]:.4f}",
                "medoid": medoids[cluster],
                "label": item.label or "",
                "file": _file_name(made, row),
            }
        )
    return text.getvalue()


def _pairs(made: Sorted) -> str:
    sizes = np.bincount(made.found.assigned)
    rows = (
        [name_of(a), name_of(b), f"{cosine:.4f}", sizes[a], sizes[b]]
        for (a, b), cosine in zip(made.merges.pairs.tolist(), made.merges.cosines, strict=True)
    )
    return csv_text(["one", "other", "cosine", "photos_of_one", "photos_of_other"], rows)


def _file_name(made: Sorted, row: int) -> str:
    """One of its own in all folders, so that folders can be put together; in order of typicality."""
    base = unicodedata.normalize("NFC", made.items[row].key.rsplit("/", 1)[-1])
    clean = re.sub(r'[\\/:*?"<>|]|[^\w .()+,=@-]', "_", base).strip(". ")
    stem, dot, suffix = clean.rpartition(".")
    while len(clean.encode()) > _LONGEST_NAME and stem:
        stem = stem[:-1]
        clean = stem + dot + suffix
    # A suffix alone may be too long.
    clean = clean.encode()[:_LONGEST_NAME].decode(errors="ignore")
    return f"{made.found.assigned[row]:04d}-{made.ranks[row]:04d}-{clean}"


def _link(made: Sorted, catalog: Catalog, folders: Path, links: Links) -> int:
    """Fill a new folder, whole or not at all; returns how many photos have no file."""
    files = {row.path: catalog.file(row.row) for row in catalog.rows}
    chosen = [(row, files.get(made.items[row].key)) for row in made.order.tolist()]
    there = [(row, file) for row, file in chosen if file is not None and file.is_file()]
    if not there:
        raise InputError(
            f"none of the {len(chosen):,} photos is a file in {catalog.source}; give the folder that was "
            "indexed (photos inside tar shards cannot be linked)."
        )
    aside = folders.with_name(f".{folders.name}.{os.getpid()}.partial")
    make = _maker(links, folders)
    with storage.storage_errors(folders):
        storage.make_folder(folders.parent)
        aside.mkdir()
        try:
            for cluster in np.unique(made.found.assigned[[row for row, _ in there]]):
                (aside / name_of(int(cluster))).mkdir()
            for row, file in there:
                inside = name_of(int(made.found.assigned[row]))
                make(file, aside / inside / _file_name(made, row))
            storage.write_text(aside / TABLE, _table(made))
            storage.write_text(aside / PAIRS, _pairs(made))
            if folders.exists():
                folders.rmdir()
            aside.rename(folders)
        except BaseException:
            shutil.rmtree(aside, ignore_errors=True)
            raise
    return len(chosen) - len(there)


def _inside(folder: Path, photos: Path) -> bool:
    """Whether a folder would be read with the photos; beside a table there may be anything."""
    return photos.is_dir() and photos.resolve() in folder.resolve().parents


def _maker(links: Links, folders: Path) -> Callable[[Path, Path], object]:
    """How a photo is put into a folder."""
    if links == "copy":
        return shutil.copyfile
    if links == "hard":
        return lambda file, at: at.hardlink_to(file.resolve())
    # Relative, so that photos and folders can be moved together; from where the folder will be.
    final = folders.parent.resolve() / folders.name

    def link(file: Path, at: Path) -> None:
        at.symlink_to(os.path.relpath(file.resolve(), final / at.parent.name))

    return link


def apply_names(
    index: Place,
    names: Path,
    *,
    existing: Existing = "refuse",
    dry_run: bool = False,
) -> dict[str, Any]:
    """Take names that a person gave to clusters back as labels.

    Args:
        index: Folder, or a server's URL.
        names: The edited table, or the folder with folders that were renamed and put together.
        existing: Photos that have another label already: refuse all, keep theirs, or replace it.
        dry_run: Change nothing, only say what would be.

    Returns:
        ``index``, ``labelled`` (photos whose label changes), ``same`` (have it already), ``kept``
        (have another, which stays), ``unnamed`` (in a group without a name of its own), ``absent``
        (of the table, but in no folder or without a name), ``foreign`` (files that were not put
        there), ``names`` (photos by name), ``changes`` (the first hundred: ``path``, ``before``,
        ``after``) and ``dry_run``.

    Raises:
        LabelError: A table that cannot be read, a photo with two names, a name that is no label.
        ConflictError: Photos that were labelled otherwise since the clusters were made, or, with
            ``refuse``, that have another label. Nothing is labelled then.
        InputError: A photo that the index does not have.
    """
    told = _read_folders(names) if names.is_dir() else _read_table(names)
    with open_index(index) as opened:
        items = dict(zip(told.names, opened.get(list(told.names)), strict=True))
        late = [key for key, item in items.items() if _changed(item, told, key)]
        if late:
            raise ConflictError(
                f"{_some(late)} got another label since the clusters were made; nothing was labelled. Take "
                "these out of the folders or of the table, or make the clusters anew.",
                late,
            )
        other = [key for key, item in items.items() if item.label not in (None, told.names[key])]
        if other and existing == "refuse":
            key = other[0]
            raise ConflictError(
                f"{_some(other)} have another label already ({key}: {items[key].label!r}, now "
                f"{told.names[key]!r}); nothing was labelled. Say what counts: --existing keep, or "
                "--existing replace.",
                other,
            )
        kept = set(other) if existing == "keep" else set()
        labels = {
            key: told.names[key]
            for key, item in items.items()
            if key not in kept and item.label != told.names[key]
        }
        if labels and not dry_run:
            versions = {key: items[key].version for key in labels}
            opened.set_labels(labels, by=BY, expected=versions)
    return {
        "index": shown(index),
        "labelled": len(labels),
        "same": len(items) - len(labels) - len(kept),
        "kept": len(kept),
        "unnamed": told.unnamed,
        "absent": told.absent,
        "foreign": told.foreign,
        "names": dict(Counter(told.names.values()).most_common()),
        "changes": [
            {"path": key, "before": items[key].label, "after": label}
            for key, label in list(labels.items())[:100]
        ],
        "dry_run": dry_run,
    }


class _Named(NamedTuple):
    """What a person said."""

    names: dict[str, str]
    """By key."""
    before: dict[str, str | None]
    """Labels when the clusters were made."""
    unnamed: int
    absent: int
    foreign: int


def _changed(item: Item, told: _Named, key: str) -> bool:
    return item.label not in (told.before[key], told.names[key])


def _some(keys: Sequence[str]) -> str:
    more = f" and {len(keys) - 3:,} more" if len(keys) > 3 else ""
    return ", ".join(keys[:3]) + more


def _read_table(file: Path) -> _Named:
    names: dict[str, str] = {}
    before: dict[str, str | None] = {}
    unnamed = absent = 0
    for row in _rows(file):
        key, name = row["path"], _label(row["name"])
        if not name:
            absent += 1
        elif _GIVEN.fullmatch(name):
            unnamed += 1
        elif names.setdefault(key, name) != name:
            raise LabelError(f"{key} has two names in {file}: {names[key]!r} and {name!r}.")
        before[key] = row["label"] or None
    return _Named(names, before, unnamed, absent, 0)


def _rows(file: Path) -> Iterator[dict[str, str]]:
    needed = {"path", "name", "label", "file"}
    try:
        text = file.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise LabelError(f"{file} cannot be read: {error}.") from None
    delimiter = delimiter_of(text.partition("\n")[0])
    reader = csv.DictReader(io.StringIO(text), delimiter=delimiter, restval="")
    lacking = needed - set(reader.fieldnames or ())
    if lacking:
        raise LabelError(
            f"{file} lacks the columns {', '.join(sorted(lacking))}; give the table that fieldmark cluster "
            "wrote, with names in the column 'name'."
        )
    yield from reader


def _read_folders(folder: Path) -> _Named:
    """Names of the topmost folders in which photos lie now."""
    manifest = folder / TABLE
    known = {row["file"]: row for row in _rows(manifest)}
    found: dict[str, str] = {}
    foreign = 0
    for place, _, files in os.walk(folder):
        parts = Path(place).relative_to(folder).parts
        for name in files:
            file = unicodedata.normalize("NFC", name)
            if not parts or file.startswith("."):
                continue
            if file not in known:
                foreign += 1
            elif found.setdefault(file, parts[0]) != parts[0]:
                raise LabelError(
                    f"{file} lies in two folders of {folder}: {found[file]!r} and {parts[0]!r}; leave it in one."
                )
    names = {known[file]["path"]: _label(place) for file, place in found.items()}
    named = {key: name for key, name in names.items() if not _GIVEN.fullmatch(name)}
    before = {row["path"]: row["label"] or None for row in known.values()}
    return _Named(named, before, len(names) - len(named), len(known) - len(found), foreign)


def _label(name: str) -> str:
    """A name as a label: systems write the same letter in several ways."""
    clean = unicodedata.normalize("NFC", name).strip()
    try:
        return check_label(clean) or "" if clean else ""
    except InputError as error:
        raise LabelError(str(error)) from None
