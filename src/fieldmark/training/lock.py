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


def _take(path: Path) -> BinaryIO:
    with storage.storage_errors(path):
        file = path.open("a+b")
    try:
        if fcntl is not None:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
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
