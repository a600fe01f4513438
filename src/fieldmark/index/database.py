"""What every file of an index that is a SQLite database shares: its errors in our words, and whose it is."""

import contextlib
import json
import sqlite3
from collections.abc import Callable, Iterator
from pathlib import Path

from fieldmark.errors import ArtifactError, BusyError, StorageError

WAIT_SECONDS = 30.0
"""For other processes that write."""


@contextlib.contextmanager
def sqlite_faults(file: Path, damaged: Callable[[Path, str], ArtifactError]) -> Iterator[None]:
    """Raise what SQLite says as one of fieldmark's errors.

    Args:
        file: The database.
        damaged: The error that names a damaged file, from it and the reason.

    Raises:
        ArtifactError: It is damaged, no database, or must not be opened or written.
        BusyError: Another process writes to it for too long.
        StorageError: No space, or the disk fails.
    """
    try:
        yield
    except sqlite3.OperationalError as error:
        text = str(error)
        if "locked" in text or "busy" in text:
            raise BusyError(
                f"another process has been writing to {file} for over {WAIT_SECONDS:.0f} seconds; try again."
            ) from None
        if "full" in text:
            raise StorageError(
                f"no space left while writing {file}; what was acknowledged before is intact."
            ) from None
        if "readonly" in text or "unable to open" in text:
            raise ArtifactError(f"{file} cannot be opened or written: {text}.") from None
        if "no such" in text or "malformed" in text:
            raise damaged(file, text) from None
        raise StorageError(f"{file}: {text}.") from None
    except (sqlite3.DatabaseError, UnicodeDecodeError, json.JSONDecodeError) as error:
        raise damaged(file, str(error)) from None


def check_format(
    db: sqlite3.Connection, file: Path, *, application: int, newest: int, what: str
) -> bool:
    """Whether a database is still empty, so that its tables must be made.

    Args:
        db: Open.
        file: Where it is, for errors.
        application: Its ``application_id``.
        newest: Format that is known.
        what: What it should be, as "an index".

    Raises:
        ArtifactError: It is a database of something else, or of a newer fieldmark.
    """
    empty = not db.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]
    if not empty and db.execute("PRAGMA application_id").fetchone()[0] != application:
        raise ArtifactError(f"{file} is a database of something else, not {what}; move it away.")
    version = db.execute("PRAGMA user_version").fetchone()[0]
    if version > newest:
        raise ArtifactError(
            f"{file} was written by a newer fieldmark (format {version}, this one reads up to {newest}); "
            "update fieldmark."
        )
    return empty
