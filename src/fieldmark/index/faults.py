"""SQLite's errors in fieldmark's words, for every file of an index that is a database."""

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
