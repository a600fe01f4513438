"""``fieldmark datasets``: which of the field's data sets can be opened, and what is in a folder."""

from pathlib import Path
from typing import Any

from fieldmark import storage
from fieldmark.config import suggest
from fieldmark.data.benchmarks import BENCHMARKS, Benchmark, open_benchmark
from fieldmark.errors import CatalogError


def list_datasets() -> list[dict[str, Any]]:
    """Every data set that can be opened.

    Returns:
        Plain data, one dictionary each: ``name``, ``title``, ``photos`` by part, ``classes``,
        ``level``, ``split``, ``source``, ``licence``, ``citation``, ``layout``, ``overlap``.
    """
    return [
        {key: value for key, value in reader.facts._asdict().items() if key != "folder"}
        for reader in BENCHMARKS.values()
    ]


def describe_dataset(name: str) -> dict[str, Any]:
    """One data set, before it is opened.

    Raises:
        CatalogError: If there is no data set of this name.
    """
    found = next((each for each in list_datasets() if each["name"] == name), None)
    if found is None:
        raise CatalogError(suggest(name, BENCHMARKS, "data set"))
    return found


def open_dataset(name: str, path: Path, *, table: Path | None = None) -> dict[str, Any]:
    """Open and check a data set, and say what is in it.

    Args:
        name: One of ``BENCHMARKS``, with ``:LEVEL`` for a coarser level.
        path: Its folder.
        table: CSV ``path,label,split`` to write, for ``--probe`` of every command.

    Raises:
        CatalogError: If the folder is not that data set.
    """
    found = open_benchmark(name, path)
    if table is not None:
        storage.make_folder(table.parent)
        storage.write_text(table, found.table(table.parent))
    facts = found.facts
    return {
        "name": name,
        "title": facts.title,
        "folder": str(found.root),
        "photos": found.counts,
        "classes": len(found.classes),
        "level": facts.level,
        "subset": found.subset,
        "levels": {level: len(set(groups)) for level, groups in found.coarser.items()},
        "annotated": annotated(found),
        "split": facts.split,
        "split_sha256": found.split_hash(),
        "licence": facts.licence,
        "citation": facts.citation,
        "overlap": facts.overlap,
        "table": None if table is None else str(table),
    }


def annotated(benchmark: Benchmark) -> list[str]:
    """What is annotated beside the class."""
    return [
        what
        for what, there in (
            ("boxes", benchmark.boxes),
            ("parts", benchmark.parts),
            ("masks", benchmark.masks),
            ("attributes", benchmark.attributes),
            ("photographers", benchmark.groups),
        )
        if there is not None
    ]
