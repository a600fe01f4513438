"""A small index of each format there has been, as SQL, with the answers that it must give for ever.

Run once for a new format, never again for an old one: ``python tests/index/golden.py``.
"""

import contextlib
import json
import sqlite3
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

from vectors import DIM, ENCODER, OTHER, unit

from fieldmark.index import sqlite as module
from fieldmark.index.index import Stamp
from fieldmark.index.sqlite import FILE, SqliteIndex

FOLDER = Path(__file__).with_name("golden")
QUERIES = unit(2, seed=90)
OTHER_QUERIES = unit(2, 5, seed=91)


def fill(index):
    """Everything that an index can hold."""
    index.add_space(ENCODER, DIM, {"network": "tiny", "size": 32})
    keys = ["a.jpg", "b/ä ü.jpg", "c'%_\".png", "d.jpg", "e.jpg", "gone.jpg"]
    metas = [
        {"split": "train", "group": "g1", "year": 2019, "camera": {"name": "x-1"}},
        {"year": 2020.5, "wild": True, "note": None, "tags": ["a", 1]},
        {"year": "2021", "größe": 3},
        {},
        {"split": "test"},
        {},
    ]
    stamps = [Stamp(100 + n, 1_700_000_000_000_000_000 + n, f"{n:x}" * 64) for n in range(4)]
    index.add(keys, unit(6), metas=metas, stamps=[*stamps, None, None])
    index.set_labels({keys[0]: "wren", keys[1]: "Zaunkönig", keys[5]: "gull"}, by="Ida")
    index.set_labels({keys[0]: "house sparrow", keys[1]: None}, by="Jo")
    index.remove(keys[5:])
    index.update(keys[3:4], missing=True)
    index.add_space(OTHER, 5)
    index.update(keys[:3], vectors=unit(3, 5, seed=1), identity=OTHER)
    # Its photo was changed, so its vector of the other encoder is forgotten.
    index.update(keys[2:3], vectors=unit(1, seed=2), stamps=[Stamp(1, 2, "f" * 64)])


def answers(index):
    """All that an index says, as JSON has it; scores to five digits."""
    stats = index.stats()

    def found(hits):
        return [[[hit.key, round(hit.score, 5)] for hit in each] for each in hits]

    keys = [item.key for item in index.items()]
    told = {
        "items": [item._asdict() for item in index.items()],
        "wrens": [item.key for item in index.items('label contains "SPARROW" or year > 2020')],
        "history": [change._asdict() for change in index.history()],
        "stamps": index.stamps(),
        "stats": [stats.items, stats.missing, stats.labelled, stats.current, stats.search],
        "spaces": [space._asdict() for space in stats.spaces],
        "pending": [index.pending(ENCODER), index.pending(OTHER)],
        "vectors": index.vectors(keys).tolist(),
        "search": found(index.search(QUERIES, 4)),
        "filtered": found(index.search(QUERIES, 4, where="missing = false and label is null")),
        "other": found(index.search(OTHER_QUERIES, 4, identity=OTHER)),
        "like": found(index.like(keys[:1], 2)),
        "verify": index.verify(),
    }
    return json.loads(json.dumps(told))


def restore(sql, folder):
    """The index that a dump describes."""
    folder.mkdir()
    with contextlib.closing(sqlite3.connect(folder / FILE)) as db:
        db.executescript(sql)
    return folder


def dump(folder):
    """An index as SQL."""
    with contextlib.closing(sqlite3.connect(folder / FILE)) as db:
        marks = [
            f"PRAGMA {name} = {db.execute(f'PRAGMA {name}').fetchone()[0]};"
            for name in ("application_id", "user_version")
        ]
        return "\n".join([*marks, *db.iterdump()]) + "\n"


def main():
    place = FOLDER / f"format-{module._VERSION}.sql"
    if place.exists():
        sys.exit(f"{place.name} is there; a golden index never changes.")
    with tempfile.TemporaryDirectory() as folder:
        with SqliteIndex(Path(folder) / "index", create=True) as index:
            fill(index)
            told = answers(index)
        place.write_text(dump(Path(folder) / "index"))
    text = json.dumps(told, indent=1, ensure_ascii=False)
    place.with_suffix(".json").write_text(text + "\n")


if __name__ == "__main__":
    main()
