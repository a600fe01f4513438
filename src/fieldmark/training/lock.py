"""One process at a time on one run folder (reliability goal C11)."""

import contextlib
import json
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from fieldmark import storage
from fieldmark.errors import BusyError

try:
    import fcntl
except ImportError:  # pragma: no cover - Windows has no such locks; there the run is not guarded
    fcntl = None  # type: ignore[assignment]

_LOCK = "run.lock"
_LOOK = 0.1
"""Seconds after which a lock that cannot be had is somebody's: ``is_held`` holds one for an instant."""
_held: dict[Path, tuple[BinaryIO, int]] = {}


@contextlib.contextmanager
def hold_run(run: Path) -> Iterator[None]:
    """Keep other processes off a run folder for a block.

    The operating system lets go of the lock when the process ends in whatever way, so a killed run
    can be continued at once. May be nested within one process.

    Raises:
        BusyError: Another process works on this run; names it.
    """
    path = storage.make_folder(run).resolve() / _LOCK
    file, depth = _held.get(path) or (_take(path), 0)
    _held[path] = (file, depth + 1)
    try:
        yield
    finally:
        if depth:
            _held[path] = (file, depth)
        else:
            # The file stays: removing it would let two later processes lock two different files.
            del _held[path]
            file.close()


def is_held(run: Path) -> bool:
    """Whether a process works on a run folder right now.

    Asks by taking a shared lock for an instant, so it also knows of processes in other containers
    and does not mind a file that a killed process left. False where the system has no locks.
    """
    if fcntl is None:
        return False
    try:
        with (run / _LOCK).open("rb") as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        return False
    return False


def _lock(file: BinaryIO) -> None:
    end = time.monotonic() + _LOOK
    while True:
        try:
            return fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() > end:
                raise
            time.sleep(_LOOK / 10)


def _take(path: Path) -> BinaryIO:
    with storage.storage_errors(path):
        file = path.open("a+b")
    try:
        if fcntl is not None:
            _lock(file)
    except BlockingIOError:
        file.seek(0)
        holder = file.read().decode(errors="replace").strip()
        file.close()
        with contextlib.suppress(ValueError, KeyError, TypeError):
            told = json.loads(holder)
            holder = f"process {told['pid']}, started {told['started']}"
        raise BusyError(
            f"another process is working on {path.parent} ({holder}); wait for it, stop it, or "
            "choose another --out."
        ) from None
    except OSError:
        # Some network file systems have no locks; the run is then not guarded.
        pass
    started = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    file.truncate(0)
    file.write(json.dumps({"pid": os.getpid(), "started": started}).encode())
    file.flush()
    return file
