"""Check a collection of photos before anything is trained on it."""

import os
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from fieldmark.data.audit import Audit, AuditConfig, audit
from fieldmark.data.catalog import Catalog
from fieldmark.data.decode import Limits
from fieldmark.data.splits import read_split
from fieldmark.data.tables import SUFFIXES, csv_text
from fieldmark.storage import make_folder, write_json, write_text

_SHOWN = 5


class CheckResult(NamedTuple):
    """What was found, for programs and for people."""

    summary: dict[str, Any]
    """Plain data, as ``--json`` prints it."""
    text: str
    catalog: Catalog
    audit: Audit


def check(
    photos: Path,
    out: Path | None = None,
    *,
    split: Path | None = None,
    config: AuditConfig | None = None,
    limits: Limits | None = None,
    workers: int | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> CheckResult:
    """Look at every photo: what is bad, what is there twice, what leaks between splits.

    Args:
        photos: Folder, table or shard.
        out: Folder for ``check.json``, ``problems.csv``, ``duplicates.csv``, ``bursts.csv`` and
            ``leakage.csv``; nothing is written without it.
        split: Table with ``path``, ``class``, ``split`` whose splits are looked at for leakage;
            by default the splits of the source, else a ``split.csv`` in the folder.
        config: When photos count as the same.
        limits: What one photo may cost.
        workers: Decoding processes; by default one per processor.
        progress: Called with photos done and photos in all.

    Raises:
        CatalogError: If there is no photo at all.
        LabelError: If the split table cannot be used.
    """
    if out is not None:
        make_folder(out)  # Better now than after an hour of decoding.
    catalog = Catalog.open(photos)
    splits, labels = _splits(catalog, split)
    found = audit(
        catalog, config=config, limits=limits, workers=workers, progress=progress, splits=splits
    )
    summary = _summary(catalog, found, splits, labels)
    if out is not None:
        summary["written"] = _write(out, catalog, found, splits, labels)
        write_json(out / "check.json", summary)
    return CheckResult(summary, _text(summary, catalog, found, out), catalog, found)


def _splits(catalog: Catalog, table: Path | None) -> tuple[list[str | None], list[str | None]]:
    """Split and label of each row."""
    splits, labels = catalog.splits, catalog.labels
    if table is None:
        beside = catalog.source / "split.csv"
        if any(splits) or catalog.source.suffix.lower() in SUFFIXES or not beside.is_file():
            return splits, labels
        table = beside
    by_file = {
        os.path.abspath(file): row.row  # noqa: PTH100 - keeps links
        for row in catalog.rows
        if (file := catalog.file(row.row)) is not None
    }
    by_id = {row.path: row.row for row in catalog.rows}
    splits, labels = [None] * len(catalog), list(labels)
    for line in read_split(table):
        path = os.path.abspath(table.parent / line.path)  # noqa: PTH100 - keeps links
        found = by_file.get(path, by_id.get(line.path))
        if found is not None:
            splits[found], labels[found] = line.split, line.label
    return splits, labels


def _spread(values: Sequence[int]) -> dict[str, int]:
    if not values:
        return {}
    low, middle, high = np.percentile(values, [0, 50, 100], method="nearest")
    return {"smallest": int(low), "median": int(middle), "largest": int(high)}


def _groups(groups: list[list[int]]) -> dict[str, int]:
    return {"groups": len(groups), "photos": sum(len(group) for group in groups)}


def _summary(
    catalog: Catalog, found: Audit, splits: list[str | None], labels: list[str | None]
) -> dict[str, Any]:
    status = Counter(problem.status for problem in found.problems)
    counts = Counter(label for label in labels if label is not None)
    return {
        "source": str(catalog.source),
        "files": len(catalog) + len(catalog.skipped),
        "photos": len(catalog),
        "good": found.good,
        "damaged": status["damaged"],
        "refused": status["refused"],
        "skipped": status["skipped"],
        "bytes": found.bytes,
        "formats": found.formats,
        "short_side": _spread([min(shape) for shape in found.originals.tolist()]),
        "long_side": _spread([max(shape) for shape in found.originals.tolist()]),
        "classes": len(counts),
        "photos_per_class": _spread(list(counts.values())),
        "splits": dict(Counter(split for split in splits if split is not None)),
        "reasons": dict(
            Counter(p.code for p in found.problems if p.status != "skipped").most_common()
        ),
        "notes": found.notes,
        "exact_duplicates": _groups(found.exact),
        "near_duplicates": _groups(found.near),
        "bursts": _groups(found.bursts),
        "leakage": _groups(found.leaks),
    }


def _write(
    out: Path,
    catalog: Catalog,
    found: Audit,
    splits: list[str | None],
    labels: list[str | None],
) -> list[str]:
    def members(kind: str, groups: list[list[int]]) -> list[tuple[object, ...]]:
        return [
            (number, kind, catalog[row].path, labels[row] or "", splits[row] or "")
            for number, group in enumerate(groups)
            for row in group
        ]

    header = ("group", "kind", "path", "label", "split")
    tables = {
        "problems.csv": csv_text(
            ("path", "sha256", "stage", "status", "code", "detail"),
            ((p.path, p.sha256 or "", "check", p.status, p.code, p.detail) for p in found.problems),
        ),
        "duplicates.csv": csv_text(
            header, members("exact", found.exact) + members("near", found.near)
        ),
        "bursts.csv": csv_text(header, members("burst", found.bursts)),
        "leakage.csv": csv_text(header, members("leak", found.leaks)),
    }
    for name, text in tables.items():
        write_text(out / name, text)
    return ["check.json", *tables]


def _size(count: int) -> str:
    amount = float(count)
    for unit in ("B", "kB", "MB", "GB"):
        if amount < 1000:
            return f"{amount:.3g} {unit}"
        amount /= 1000
    return f"{amount:.3g} TB"


def _plain(text: str) -> str:
    """File names may hold anything; on a terminal only what can be printed is shown."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def _text(summary: dict[str, Any], catalog: Catalog, found: Audit, out: Path | None) -> str:
    lines = [
        f"{summary['photos']} photos in {catalog.source}, {_size(summary['bytes'])}: "
        f"{summary['good']} good, {summary['damaged']} damaged, {summary['refused']} refused"
        + (f"; {summary['skipped']} other files" if summary["skipped"] else "")
    ]
    if summary["formats"]:
        lines.append("formats: " + ", ".join(f"{k} {v}" for k, v in summary["formats"].items()))
        short, long = summary["short_side"], summary["long_side"]
        lines.append(
            f"short side {short['smallest']} to {short['largest']} pixels (median {short['median']}), "
            f"long side up to {long['largest']}"
        )
    if summary["classes"]:
        each = summary["photos_per_class"]
        lines.append(
            f"{summary['classes']} classes of {each['smallest']} to {each['largest']} photos "
            f"(median {each['median']})"
        )
    if summary["splits"]:
        lines.append("splits: " + ", ".join(f"{k} {v}" for k, v in summary["splits"].items()))
    lines += [f"note: {count} × {note}" for note, count in summary["notes"].items()]
    bad = [p for p in found.problems if p.status != "skipped"]
    if bad:
        reasons = ", ".join(f"{k} {v}" for k, v in summary["reasons"].items())
        lines.append(f"not used: {reasons}")
        lines += [f"  {_plain(p.path)}: {p.code}, {_plain(p.detail)}" for p in bad[:_SHOWN]]
        if len(bad) > _SHOWN:
            lines.append(f"  … and {len(bad) - _SHOWN} more")
    for key, what in (
        ("exact_duplicates", "files that are exactly the same"),
        ("near_duplicates", "photos that show the same picture"),
        ("bursts", "photos taken in bursts"),
    ):
        if summary[key]["groups"]:
            lines.append(f"{summary[key]['photos']} {what}, in {summary[key]['groups']} groups")
    if summary["leakage"]["groups"]:
        lines.append(
            f"LEAKAGE: {summary['leakage']['groups']} groups of the same picture lie in more than one "
            "split; scores on 'test' will look better than they are"
        )
        for group in found.leaks[:_SHOWN]:
            lines.append("  " + " = ".join(_plain(catalog[row].path) for row in group[:4]))
    elif len(summary["splits"]) > 1:
        lines.append("no picture lies in more than one split")
    if out is not None:
        lines.append(f"lists: {out}/" + ", ".join(summary["written"]))
    elif bad or any(
        summary[k]["groups"] for k in ("exact_duplicates", "near_duplicates", "leakage")
    ):
        lines.append("full lists: run again with --out FOLDER")
    return "\n".join(lines)
