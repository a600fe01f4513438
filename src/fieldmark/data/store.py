"""The photo store: every photo decoded once, upright, scaled, uint8, memory-mapped.

Files of a store, in ``FOLDER/<short side>px-v2``:

- ``pixels.bin``: bytes of one photo after another (height × 3 × width, see ``data/layout.py``), in any
  order, with gaps;
- ``journal.jsonl``: what has been decoded so far, one line a photo, appended only after its pixels
  are on disk. It is keyed by content, so a build that was killed, and a folder that has changed,
  go on from it;
- ``index.npz``: settings, and where each catalog row lies; replaced as a whole when a build ends.
"""

import contextlib
import fcntl
import io
import json
import math
import os
import shutil
import time
import zipfile
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Int32, Int64, UInt8

from fieldmark.data.catalog import Catalog, Signature, signature_of
from fieldmark.data.decode import MAX_ASPECT, Limits, Pixels
from fieldmark.data.layout import unpack
from fieldmark.data.sandbox import DecodePool, Job, Reply
from fieldmark.data.worker import content_key
from fieldmark.errors import ArtifactError, BusyError, CatalogError, OutputError
from fieldmark.storage import (
    make_folder,
    storage_errors,
    sync_file,
    write_atomic,
    write_json,
)

_VERSION = 2
_COMMIT_SECONDS = 5.0
_COMMIT_BYTES = 256 * 2**20

Build = Callable[[int, int], None]


class PhotoRecord(NamedTuple):
    """A photo that is refused or damaged."""

    path: str
    code: str
    detail: str
    status: str
    """``damaged`` (it has pixels, and is used only when asked for) or ``refused``."""
    sha256: str | None = None


class Stored(NamedTuple):
    """What the journal knows of a content."""

    offset: int
    height: int
    width: int
    original: tuple[int, int]
    damage: str | None


class StoredTensors(NamedTuple):
    """A store's pixels as tensors on one device."""

    data: Any
    """uint8, flat."""
    offsets: Any
    """int64 [N], -1 where a row has no pixels."""
    shapes: Any
    """int32 [N, 2], height and width."""


class _Journal:
    """Append-only record of decoded contents; a torn last line is cut off."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / "journal.jsonl"
        self._pixels = folder / "pixels.bin"
        self.contents: dict[str, Stored] = {}
        self.files: dict[str, tuple[Signature, str]] = {}
        self._lines: list[str] = []
        self._bytes = 0
        self._since = time.monotonic()
        # Waiting for the disk must not keep the decoding processes waiting for work.
        self._writer = ThreadPoolExecutor(max_workers=1, thread_name_prefix="journal")
        self._writing: Future[None] | None = None
        self._load()

    def _load(self) -> None:
        if not self.path.exists():
            return
        good = 0
        size = self._pixels.stat().st_size if self._pixels.exists() else 0
        with self.path.open("rb") as file:
            for line in file:
                try:
                    if not line.endswith(b"\n"):
                        break
                    item = json.loads(line)
                    height, width = item["s"]
                    stored = Stored(item["o"], height, width, tuple(item["w"]), item["d"])
                    if stored.offset + 3 * height * width > size:
                        break
                    self.contents[item["k"]] = stored
                    self.files[item["p"]] = (Signature(*item["f"]), item["k"])
                except (ValueError, KeyError, TypeError):
                    break
                good += len(line)
        if good < self.path.stat().st_size:
            with storage_errors(self.path), self.path.open("r+b") as file:
                file.truncate(good)
                os.fsync(file.fileno())

    def add(self, path: str, signature: Signature, key: str, stored: Stored) -> None:
        self.contents[key] = stored
        self.files[path] = (signature, key)
        item = {
            "p": path,
            "f": signature,
            "k": key,
            "o": stored.offset,
            "s": (stored.height, stored.width),
            "w": stored.original,
            "d": stored.damage,
        }
        self._lines.append(json.dumps(item, separators=(",", ":")) + "\n")
        self._bytes += 3 * stored.height * stored.width
        due = self._bytes > _COMMIT_BYTES or time.monotonic() - self._since > _COMMIT_SECONDS
        if due and (self._writing is None or self._writing.done()):
            self._hand_over()

    def close(self) -> None:
        """Make everything durable that was added, and wait for it."""
        try:
            if self._lines:
                self._hand_over()
            if self._writing is not None:
                self._writing.result()
        finally:
            self._writer.shutdown()

    def _hand_over(self) -> None:
        if self._writing is not None:
            self._writing.result()  # Raises what went wrong there.
        self._writing = self._writer.submit(self._write, self._lines)
        self._lines, self._bytes, self._since = [], 0, time.monotonic()

    def _write(self, lines: list[str]) -> None:
        """Make pixels durable, then say so: never the other way round."""
        with storage_errors(self.path):
            sync_file(self._pixels)
            with self.path.open("ab") as file:
                file.write("".join(lines).encode())
                file.flush()
                os.fsync(file.fileno())


@contextlib.contextmanager
def _lock(folder: Path) -> Iterator[None]:
    """One builder per store; the lock goes with the process, however it ends."""
    with storage_errors(folder):
        descriptor = os.open(folder / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise BusyError(
                f"another fieldmark process is building the photo store in {folder}; wait for it, or "
                "choose another folder."
            ) from None
        yield
    finally:
        os.close(descriptor)


class PhotoStore:
    """Decoded photos by catalog row.

    Attributes:
        folder: Where the store's files lie.
        short_side: Pixels of the short side, at most.
        shapes: Height and width of each row; 0 where there are no pixels.
        offsets: Where in ``data`` each row begins; -1 where there are no pixels.
        usable: Rows that can be used: good ones, and damaged ones when asked for.
        records: Refused and damaged photos with the reason.
    """

    def __init__(self, folder: Path, *, include_damaged: bool | None = None) -> None:
        try:
            with np.load(folder / "index.npz", allow_pickle=False) as index:
                settings = json.loads(index["settings"].tobytes())
                self.offsets: Int64[np.ndarray, " N"] = index["offsets"]
                self.shapes: Int32[np.ndarray, "N 2"] = index["shapes"]
                self.originals: Int32[np.ndarray, "N 2"] = index["originals"]
                self._damaged = index["damaged"]
            ends = self.offsets + 3 * self.shapes.astype(np.int64).prod(axis=1)
            if ends.max(initial=0) > (folder / "pixels.bin").stat().st_size:
                raise ValueError("pixels.bin is shorter than it was")
        except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
            raise ArtifactError(
                f"{folder} is not a finished photo store ({error}). Build it again with the same "
                "command; what was decoded is reused."
            ) from None
        self.folder = folder
        self.short_side = int(settings["short_side"])
        with_damaged = settings["include_damaged"] if include_damaged is None else include_damaged
        present = self.offsets >= 0
        self.usable: Int64[np.ndarray, " U"] = np.flatnonzero(
            present if with_damaged else present & ~self._damaged
        ).astype(np.int64)

    @classmethod
    def open(cls, folder: Path, *, include_damaged: bool | None = None) -> "PhotoStore":
        """Open the store that was built last in a folder.

        Args:
            folder: As given to :meth:`build`.
            include_damaged: Use damaged photos; by default as when the store was built.

        Raises:
            ArtifactError: If there is no finished store.
        """
        folder = Path(folder)
        try:
            current = json.loads((folder / "current.json").read_text(encoding="utf-8"))["store"]
        except (OSError, ValueError, KeyError):
            raise ArtifactError(
                f"{folder} holds no photo store; it is made by 'fieldmark train' or PhotoStore.build."
            ) from None
        return cls(folder / current, include_damaged=include_damaged)

    @classmethod
    def build(
        cls,
        catalog: Catalog,
        folder: Path,
        *,
        short_side: int,
        include_damaged: bool = False,
        workers: int | None = None,
        progress: Build | None = None,
        rows: Sequence[int] | None = None,
        limits: Limits | None = None,
    ) -> "PhotoStore":
        """Decode the photos of a catalog; what an earlier build decoded is not decoded again.

        Killed at any moment, it goes on where it was when called again. Photos are known by their
        content, so files may be renamed, added, changed and removed between two calls.

        Args:
            catalog: The photos.
            folder: Where stores are kept; one for each short side.
            short_side: Pixels of the short side; photos that are smaller stay as they are.
            include_damaged: Make damaged photos usable.
            workers: Processes; by default one per processor; 0 as in
                :class:`fieldmark.data.sandbox.DecodePool`.
            progress: Called with photos done and photos in all, at most a few times a second.
            rows: Catalog rows to store; by default all.
            limits: What a photo may cost.

        Raises:
            CatalogError: If no photo can be read.
            StorageError: If the disk is full; what was stored is kept.
            OutputError: If the folder cannot be written.
            BusyError: If another process is building there.
        """
        if short_side < 1:
            raise OutputError(
                f"short_side must be at least 1 pixel, got {short_side}; use e.g. 256."
            )
        name = f"{short_side}px-v{_VERSION}"
        place = make_folder(Path(folder) / name)
        wanted = range(len(catalog)) if rows is None else sorted({int(row) for row in rows})
        with _lock(place):
            builder = _Builder(catalog, place, short_side, limits or Limits(), progress)
            builder.decode(wanted, workers)
            builder.finish(include_damaged)
            write_json(Path(folder) / "current.json", {"store": name})
        store = cls(place)
        if not len(store.usable):
            raise CatalogError(_nothing_usable(store, catalog))
        return store

    def __len__(self) -> int:
        return len(self.offsets)

    @cached_property
    def data(self) -> UInt8[np.ndarray, " bytes"]:
        """All pixels, flat, memory-mapped; row r begins at ``offsets[r]``."""
        path = self.folder / "pixels.bin"
        if path.stat().st_size == 0:
            return np.zeros(0, np.uint8)
        return np.memmap(path, np.uint8, mode="r")

    def photo(self, row: int) -> Pixels:
        """Pixels of a catalog row, mapped, not copied.

        Raises:
            CatalogError: If the row has no pixels.
        """
        offset = int(self.offsets[row])
        if offset < 0:
            raise CatalogError(
                f"row {row} has no pixels in the photo store {self.folder}: it was refused or not asked "
                "for; use only rows in 'usable'."
            )
        height, width = (int(v) for v in self.shapes[row])
        return unpack(np.asarray(self.data[offset : offset + 3 * height * width]), height, width)

    @cached_property
    def _rows(self) -> list[dict[str, Any]]:
        with np.load(self.folder / "index.npz", allow_pickle=False) as index:
            lines = index["rows"].tobytes().decode().split("\n")
        return [json.loads(line) for line in lines if line]

    @property
    def paths(self) -> list[str]:
        """The id of each row."""
        return [item["path"] for item in self._rows]

    @cached_property
    def records(self) -> list[PhotoRecord]:
        """Refused and damaged photos."""
        return [
            PhotoRecord(
                item["path"], item["code"], item["detail"], item["status"], item.get("sha256")
            )
            for item in self._rows
            if "code" in item
        ]

    @property
    def nbytes(self) -> int:
        """Bytes of all photos together."""
        return int(3 * self.shapes.astype(np.int64).prod(axis=1).sum())

    def to(self, device: Any) -> StoredTensors:
        """Pixels as tensors on a device; on the CPU the memory map itself.

        Elsewhere the photos are packed without gaps, so ``offsets`` differ from the store's.

        Raises:
            CatalogError: If the pixels do not fit into the device's free memory.
        """
        import warnings

        import torch

        device = torch.device(device)
        if device.type == "cpu":
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # The map is read-only, and nothing writes to it.
                return StoredTensors(
                    torch.from_numpy(self.data),
                    torch.from_numpy(self.offsets.copy()),
                    torch.from_numpy(self.shapes.copy()),
                )
        if not self.fits(device):
            raise CatalogError(
                f"the photo store of {self.nbytes / 2**30:.1f} GiB does not fit on {device}; keep it on "
                "the CPU or choose a smaller short side."
            )
        return self._copied(device)

    def _copied(self, device: Any) -> StoredTensors:
        """All pixels packed without gaps, in the device's memory."""
        import torch

        sizes = 3 * self.shapes.astype(np.int64).prod(axis=1)
        offsets = np.where(self.offsets >= 0, np.cumsum(sizes) - sizes, -1)
        packed = torch.empty(int(sizes.sum()), dtype=torch.uint8, device=device)
        # In file order and in parts, so that a disk reads forward and host memory stays small.
        part = np.empty(min(int(sizes.sum()), 2**28 + int(sizes.max(initial=0))), np.uint8)
        filled = start = 0
        for row in np.flatnonzero(self.offsets >= 0):
            size = int(sizes[row])
            if filled + size > len(part):
                packed[start : start + filled] = torch.from_numpy(part[:filled]).to(device)
                start, filled = start + filled, 0
            begin = int(self.offsets[row])
            part[filled : filled + size] = self.data[begin : begin + size]
            filled += size
        packed[start : start + filled] = torch.from_numpy(part[:filled]).to(device)
        shapes = torch.from_numpy(self.shapes.copy()).to(device)
        return StoredTensors(packed, torch.from_numpy(offsets).to(device), shapes)

    def fits(self, device: Any, share: float = 0.5) -> bool:
        """Whether the pixels take at most a share of the device's free memory."""
        import torch

        device = torch.device(device)
        if device.type != "cuda":
            return device.type == "cpu"
        free, _ = torch.cuda.mem_get_info(device)
        return self.nbytes <= share * free


class _Builder:
    """One build: compares, decodes, and writes the index."""

    def __init__(
        self,
        catalog: Catalog,
        folder: Path,
        short_side: int,
        limits: Limits,
        progress: Build | None,
    ) -> None:
        self._catalog = catalog
        self._folder = folder
        self._short_side = short_side
        self._limits = limits
        self._progress = progress
        self._reported = 0.0
        with storage_errors(folder):
            (folder / "pixels.bin").touch()
        self._journal = _Journal(folder)
        self._keys: dict[int, str] = {}
        self._errors: dict[int, tuple[str, str, str | None]] = {}

    def decode(self, rows: Sequence[int], workers: int | None) -> None:
        """Decode what the journal does not hold."""
        todo = [row for row in rows if not self._is_stored(row)]
        done, total = len(rows) - len(todo), len(rows)
        self._report(done, total, force=True)
        if not todo:
            return
        catalog = self._catalog
        with DecodePool(
            workers,
            limits=self._limits,
            short_side=self._short_side,
            pixels=self._folder / "pixels.bin",
            known=self._journal.contents,
        ) as pool:
            try:
                jobs = (Job(row, catalog.location(row), catalog[row].box) for row in todo)
                for reply in pool.map(jobs):
                    self._take(reply)
                    done += 1
                    self._report(done, total)
            finally:
                self._journal.close()
        self._report(done, total, force=True)

    def _is_stored(self, row: int) -> bool:
        """A file that the file system calls unchanged is not even read."""
        known = self._journal.files.get(_file_id(self._catalog, row))
        if known is None:
            return False
        signature = signature_of(self._catalog.location(row))
        if signature != known[0] or known[1] not in self._journal.contents:
            return False
        self._keys[row] = known[1]
        self._catalog.remember(row, known[1].partition("|")[0], known[0])
        return True

    def _take(self, reply: Reply) -> None:
        row = reply.id
        if reply.content_hash is not None and reply.signature is not None:
            self._catalog.remember(row, reply.content_hash, reply.signature)
        if reply.error is not None:
            self._errors[row] = (reply.error.code, reply.error.detail, reply.content_hash)
            return
        assert reply.content_hash is not None and reply.signature is not None  # noqa: PT018
        key = content_key(reply.content_hash, self._catalog[row].box)
        if reply.reuse:
            stored = self._journal.contents[key]
        else:
            assert reply.photo is not None
            photo = reply.photo
            stored = Stored(reply.offset, *reply.shape, photo.original, photo.damage)
        self._keys[row] = key
        self._journal.add(_file_id(self._catalog, row), reply.signature, key, stored)

    def _report(self, done: int, total: int, *, force: bool = False) -> None:
        now = time.monotonic()
        if self._progress is not None and (force or now - self._reported > 0.2):
            self._reported = now
            self._progress(done, total)

    def finish(self, include_damaged: bool) -> None:
        """Replace the index; the store is valid before and after."""
        count = len(self._catalog)
        offsets = np.full(count, -1, np.int64)
        shapes, originals = np.zeros((count, 2), np.int32), np.zeros((count, 2), np.int32)
        damaged = np.zeros(count, bool)
        lines = []
        for row in self._catalog.rows:
            item: dict[str, Any] = {"path": row.path}
            key = self._keys.get(row.row)
            error = self._errors.get(row.row)
            if key is not None:
                stored = self._journal.contents[key]
                offsets[row.row] = stored.offset
                shapes[row.row] = stored.height, stored.width
                originals[row.row] = stored.original
                item["sha256"] = key.partition("|")[0]
                if stored.damage is not None:
                    damaged[row.row] = True
                    code, _, detail = stored.damage.partition(": ")
                    item |= {"code": code, "detail": detail, "status": "damaged"}
            elif error is not None:
                item |= {"code": error[0], "detail": error[1], "status": "refused"}
                if error[2] is not None:
                    item["sha256"] = error[2]
            lines.append(json.dumps(item) + "\n")
        self._trim()
        settings = {
            "version": _VERSION,
            "short_side": self._short_side,
            "max_aspect": MAX_ASPECT,
            "include_damaged": include_damaged,
        }
        # One file, so that a kill between two of them cannot leave rows of different builds.
        buffer = io.BytesIO()
        np.savez(
            buffer,
            settings=np.frombuffer(json.dumps(settings).encode(), np.uint8),
            rows=np.frombuffer("".join(lines).encode(), np.uint8),
            offsets=offsets,
            shapes=shapes,
            originals=originals,
            damaged=damaged,
        )
        write_atomic(self._folder / "index.npz", lambda file: file.write(buffer.getvalue()))

    def _trim(self) -> None:
        """Give back the room that workers took at the file's end and did not use."""
        contents = self._journal.contents.values()
        end = max((s.offset + 3 * s.height * s.width for s in contents), default=0)
        path = self._folder / "pixels.bin"
        with storage_errors(path):
            if path.stat().st_size > end:
                os.truncate(path, end)


def _file_id(catalog: Catalog, row: int) -> str:
    """What a file's signature is kept under; a table may show one file several times."""
    box = catalog[row].box
    return catalog[row].path if box is None else f"{catalog[row].path}|{box}"


def _nothing_usable(store: PhotoStore, catalog: Catalog) -> str:
    reasons = "; ".join(f"{r.path}: {r.code}, {r.detail}" for r in store.records[:3])
    return (
        f"none of the {len(catalog)} photos in {catalog.source} can be used. First reasons: {reasons}. "
        "Run 'fieldmark check' on the folder for the full list."
    )


def begun_short_side(folder: Path) -> int | None:
    """Short side of the store that was built, or else begun, last in a folder; None for neither."""
    try:
        name = json.loads((folder / "current.json").read_text(encoding="utf-8"))["store"]
    except (OSError, ValueError, KeyError):
        begun = [p for p in folder.glob(f"*px-v{_VERSION}") if p.is_dir()]
        if not begun:
            return None
        name = max(begun, key=lambda path: path.stat().st_mtime).name
    side = str(name).removesuffix(f"px-v{_VERSION}")
    return int(side) if side.isdigit() else None


def choose_short_side(
    size: int,
    smallest_scale: float,
    n_photos: int,
    *,
    folder: Path | None = None,
    budget_bytes: int | None = None,
    aspect: float = 1.4,
) -> int:
    """Short side at which the smallest crop still has about the network's own resolution.

    Args:
        size: Side of the network's input in pixels.
        smallest_scale: Smallest share of a photo's area that a crop may have, in (0, 1].
        n_photos: Photos to store.
        folder: Where the store goes: at most half of the free room there is used.
        budget_bytes: At most so many bytes.
        aspect: Mean ratio of long to short side.

    Returns:
        ``size / sqrt(smallest_scale)`` rounded up to a multiple of 8, lowered to what the budget
        allows, but never below ``size``.
    """
    if not 0 < smallest_scale <= 1:
        raise ValueError(f"smallest_scale must be in (0, 1], got {smallest_scale}")
    wanted = math.ceil(size / math.sqrt(smallest_scale) / 8) * 8
    limits = [] if budget_bytes is None else [budget_bytes]
    if folder is not None:
        existing = next((p for p in (folder, *folder.parents) if p.exists()), Path())
        limits.append(shutil.disk_usage(existing).free // 2)
    if limits and n_photos > 0:
        affordable = math.isqrt(int(min(limits) / (3 * aspect * n_photos)))
        wanted = min(wanted, affordable)
    return max(wanted, size)
