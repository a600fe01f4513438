"""Files that survive a kill and a power cut: write aside, fsync, rename, fsync the folder.

(docs/design.md; reliability goals C2 to C4.) Everything fieldmark keeps goes through here.
"""

import contextlib
import errno
import hashlib
import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, BinaryIO

from fieldmark.errors import OutputError, StorageError

_FULL = {errno.ENOSPC, errno.EDQUOT}
_DENIED = {errno.EACCES, errno.EPERM, errno.EROFS}


@contextlib.contextmanager
def storage_errors(path: Path) -> Iterator[None]:
    """Turn operating-system write errors into one clear paragraph.

    Raises:
        StorageError: Disk or quota full, I/O error.
        OutputError: Read-only or forbidden place, or a file where a folder is needed.
    """
    try:
        yield
    except OSError as error:
        if error.errno in _FULL:
            raise StorageError(
                f"no space left while writing {path}; what was saved before is intact. "
                "Free some space and run the same command again."
            ) from error
        if error.errno in _DENIED:
            raise OutputError(
                f"cannot write {path}: {error.strerror}. Choose a place you may write to."
            ) from error
        if error.errno in {errno.EEXIST, errno.ENOTDIR}:
            raise OutputError(
                f"cannot write {path}: a file is in the way ({error.strerror})."
            ) from error
        raise StorageError(f"writing {path} failed: {error}.") from error


def sync_folder(folder: Path) -> None:
    """Make renames inside a folder durable."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def make_folder(folder: Path) -> Path:
    """Create a folder and its parents."""
    with storage_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
    return folder


def write_atomic(path: Path, write: Callable[[BinaryIO], object]) -> None:
    """Replace a file as a whole or not at all, durably.

    Args:
        path: File to create or replace; its folder must exist.
        write: Called with a binary file open for writing.
    """
    aside = path.with_name(f".{path.name}.{os.getpid()}.partial")
    with storage_errors(path):
        try:
            with aside.open("wb") as file:
                write(file)
                file.flush()
                os.fsync(file.fileno())
            aside.replace(path)
        except BaseException:
            with contextlib.suppress(OSError):
                aside.unlink()
            raise
        sync_folder(path.parent)


def write_bytes(path: Path, data: bytes) -> None:
    """Write bytes with :func:`write_atomic`."""
    write_atomic(path, lambda file: file.write(data))


def write_text(path: Path, text: str) -> None:
    """Write UTF-8 text with :func:`write_atomic`."""
    write_bytes(path, text.encode())


def write_json(path: Path, data: Any) -> None:
    """Write indented JSON with :func:`write_atomic`; NaN and infinity are refused."""
    write_text(path, json.dumps(data, indent=2, allow_nan=False) + "\n")


def sync_file(path: Path) -> None:
    """Make a finished file's content durable."""
    with path.open("rb") as file:
        os.fsync(file.fileno())


def sha256_of(path: Path) -> str:
    """SHA-256 of a file's content, in hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def sha256_bytes(data: bytes) -> str:
    """SHA-256 of bytes, in hex."""
    return hashlib.sha256(data).hexdigest()
