"""The catalog: which photos there are, in a fixed order, without decoding any.

A folder, a table or WebDataset tar shards become rows with a stable id. Labels are optional and
training never reads them.
"""

import contextlib
import gc
import hashlib
import os
import stat
import tarfile
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from fieldmark.data.decode import sniff
from fieldmark.data.tables import SPLITS, SUFFIXES, box_of, read_table
from fieldmark.errors import CatalogError, PhotoError

PHOTO_SUFFIXES = frozenset(
    [
        ".jpg",
        ".jpeg",
        ".jpe",
        ".jfif",
        ".png",
        ".apng",
        ".webp",
        ".gif",
        ".tif",
        ".tiff",
        ".bmp",
        ".dib",
        ".avif",
        ".heic",
        ".heif",
        ".hif",
    ]
)
"""File names that are taken for photos without looking inside."""

OTHER_SUFFIXES = frozenset(
    [
        ".psd",
        ".eps",
        ".tga",
        ".jp2",
        ".j2k",
        ".jxl",
        ".svg",
        ".raw",
        ".cr2",
        ".cr3",
        ".nef",
        ".arw",
        ".dng",
        ".orf",
        ".rw2",
        ".ppm",
        ".pgm",
        ".pbm",
        ".ico",
        ".fits",
        ".dds",
        ".pcx",
    ]
)
"""Images that fieldmark does not read: they become rows, are refused, and so are listed."""

Box = tuple[float, float, float, float]


class Row(NamedTuple):
    """One photo of the catalog."""

    row: int
    """Position in the catalog."""
    path: str
    """Stable id: path relative to the source, with ``/``; always valid text."""
    label: str | None
    split: str | None
    """``train``, ``val``, ``test`` or None."""
    group: str | None
    box: Box | None
    """x0 y0 x1 y1 in pixels of the upright photo, from table columns x_1, y_1, x_2, y_2."""


class Skipped(NamedTuple):
    """Something in the source that is not a photo, with the reason."""

    path: str
    code: str
    detail: str


class Location(NamedTuple):
    """Where the bytes of a photo lie."""

    file: str
    """Path as the operating system wants it (surrogate escapes for names that are not UTF-8)."""
    offset: int = 0
    size: int = -1
    """Bytes from the offset on; -1 for a whole file."""


class Signature(NamedTuple):
    """What the file system says of a file; when it is unchanged, so is the content."""

    size: int
    modified_ns: int
    changed_ns: int


def _signature(status: os.stat_result) -> Signature:
    return Signature(status.st_size, status.st_mtime_ns, status.st_ctime_ns)


def read_location(location: Location, max_bytes: int = -1) -> tuple[bytes, Signature]:
    """Read a photo's bytes without ever blocking on a FIFO or device.

    Args:
        location: Where to read.
        max_bytes: Refuse more than this; -1 for no limit.

    Raises:
        PhotoError: ``missing``, ``not_regular``, ``unreadable``, ``too_many_bytes`` or ``changed``.
    """
    flags = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)
    try:
        # Opening some devices has effects, so look before opening; fstat then guards the race.
        if not stat.S_ISREG(os.stat(location.file).st_mode):  # noqa: PTH116 - paths stay strings
            raise PhotoError("not_regular", "is a folder, FIFO, socket or device, not a file")
        descriptor = os.open(location.file, flags)
        with open(descriptor, "rb", buffering=0) as file:  # noqa: PTH123 - a descriptor
            status = os.fstat(descriptor)
            if not stat.S_ISREG(status.st_mode):
                raise PhotoError("not_regular", "is a folder, FIFO, socket or device, not a file")
            size = location.size if location.size >= 0 else status.st_size
            if 0 <= max_bytes < size:
                raise PhotoError("too_many_bytes", f"{size} bytes; at most {max_bytes} are allowed")
            if location.offset:
                file.seek(location.offset)
            data = file.read(size)
            while len(data) < size and (more := file.read(size - len(data))):
                data += more
            after = os.fstat(descriptor)
    except FileNotFoundError:
        raise PhotoError("missing", "there is no such file") from None
    except (OSError, ValueError) as error:
        raise PhotoError("unreadable", str(error).replace(location.file, "file")) from None
    if len(data) != size or _signature(after) != _signature(status):
        raise PhotoError("changed", "the file changed while it was being read")
    return data, _signature(status)


def signature_of(location: Location) -> Signature | None:
    """What the file system says of a file without reading it; None if it cannot be asked."""
    try:
        return _signature(os.stat(location.file))  # noqa: PTH116 - paths stay strings
    except (OSError, ValueError):
        return None


@contextlib.contextmanager
def collector_paused() -> Iterator[None]:
    """Let Python not look for cycles of garbage in a block that makes very many small things and none.

    With a hundred thousand photos that would take as long as listing them.
    """
    running = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if running:
            gc.enable()


def _readable(name: str) -> str:
    """Valid text for any file name; bytes that are not UTF-8 are written in hexadecimal."""
    if name.isascii():
        return name
    return name.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")


class Catalog:
    """Photos of a source, in a fixed order. Nothing is decoded and no photo is read on opening.

    Attributes:
        source: The folder, table or shard that was opened.
        rows: One per photo.
        skipped: What lies in the source and is not a photo, with the reason.
        labels: Label of each row, None where unknown.
        splits: ``train``, ``val``, ``test`` or None for each row.
    """

    def __init__(
        self,
        source: Path,
        entries: Iterable[tuple[Row, Location]],
        skipped: Iterable[Skipped] = (),
        signatures: Sequence[Signature] = (),
    ) -> None:
        self.source = source
        self.rows: list[Row] = []
        self._locations: list[Location] = []
        for row, location in entries:
            self.rows.append(row)
            self._locations.append(location)
        self._signatures = signatures
        self.skipped = list(skipped)
        self._hashes: dict[int, tuple[str, Signature]] = {}

    @classmethod
    def open(cls, source: Path, *, table_root: Path | None = None) -> "Catalog":
        """Find the photos of a source.

        Args:
            source: A folder (flat, nested, ``class/…``, ``train|val|test/class/…``), a CSV, TSV,
                JSON lines or Parquet table with a column ``path``, a WebDataset ``.tar`` shard, or a
                folder of shards.
            table_root: Where a table's paths start; by default the table's own folder.

        Raises:
            CatalogError: If there is nothing at the source, or no photo in it.
        """
        with collector_paused():
            return cls._open(Path(source), table_root)

    @classmethod
    def _open(cls, source: Path, table_root: Path | None) -> "Catalog":
        try:
            mode = source.stat().st_mode
        except (OSError, ValueError) as error:
            raise CatalogError(
                f"cannot open {source}: {getattr(error, 'strerror', None) or error}. Give a folder of "
                "photos, a table (.csv, .jsonl, .parquet) or a .tar shard."
            ) from None
        suffix = source.suffix.lower()
        if stat.S_ISDIR(mode):
            catalog = cls._open_folder(source)
        elif suffix in SUFFIXES:
            catalog = cls._open_table(source, table_root)
        elif suffix == ".tar" and stat.S_ISREG(mode):
            catalog = cls._open_shards(source, [source])
        else:
            raise CatalogError(
                f"{source} is neither a folder of photos, nor a table (.csv, .tsv, .jsonl, .parquet), "
                "nor a .tar shard. Give the folder that holds the photo."
            )
        if not catalog.rows:
            seen = "".join(f" {s.path}: {s.detail}." for s in catalog.skipped[:3])
            raise CatalogError(
                f"no photo in {source}: it is empty or holds no JPEG, PNG, WebP, GIF, TIFF, BMP, AVIF "
                f"or HEIC file (hidden files are not looked at).{seen}"
            )
        return catalog

    @classmethod
    def _open_folder(cls, source: Path) -> "Catalog":
        found: list[tuple[tuple[str, ...], str]] = []
        signatures: list[Signature] = []
        skipped: list[Skipped] = []
        for parts, name, seen in _walk(source):
            if isinstance(seen, Signature):
                found.append((parts, name))
                signatures.append(seen)
            else:
                skipped.append(Skipped(_readable("/".join(parts)), *seen))
        if not found:
            shards = sorted(
                source / s.path
                for s in skipped
                if s.code == "not_a_photo" and s.path.endswith(".tar")
            )
            if shards:
                return cls._open_shards(source, shards)
        layout = _layout([parts for parts, _ in found])
        rows = (
            (Row(i, _readable("/".join(parts)), label, split, None, None), Location(name))
            for i, ((parts, name), (split, label)) in enumerate(zip(found, layout, strict=True))
        )
        return cls(source, rows, skipped, signatures)

    @classmethod
    def _open_table(cls, source: Path, root: Path | None) -> "Catalog":
        base = os.fspath(root if root is not None else source.parent)
        entries: list[tuple[Row, Location]] = []
        skipped: list[Skipped] = []
        seen: set[tuple[str, Box | None]] = set()
        for item in read_table(source):
            path = item["path"]
            if path is None:
                skipped.append(Skipped(f"photo {item.line}", "missing", "the path is empty"))
                continue
            box = box_of(item, source)
            if (path, box) in seen:
                skipped.append(Skipped(path, "repeated", "listed more than once in the table"))
                continue
            seen.add((path, box))
            split = item["split"]
            split = SPLITS.get(split.lower(), split) if split else None
            row = Row(
                len(entries), path.replace("\\", "/"), item["label"], split, item["group"], box
            )
            entries.append((row, Location(os.path.join(base, path))))  # noqa: PTH118
        return cls(source, entries, skipped)

    @classmethod
    def _open_shards(cls, source: Path, shards: list[Path]) -> "Catalog":
        entries: list[tuple[Row, Location]] = []
        skipped: list[Skipped] = []
        for shard in shards:
            prefix = "" if shard == source else shard.relative_to(source).as_posix() + "/"
            split = _split_of_shard(shard.name)
            members, labels, problems = _index_shard(shard)
            skipped += [Skipped(_readable(prefix + s.path), s.code, s.detail) for s in problems]
            for name, location in members:
                label = labels.get(_key(name))
                row = Row(len(entries), _readable(prefix + name), label, split, None, None)
                entries.append((row, location))
        return cls(source, entries, skipped)

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, row: int) -> Row:
        return self.rows[row]

    @property
    def labels(self) -> list[str | None]:
        """Label of each row."""
        return [row.label for row in self.rows]

    @property
    def splits(self) -> list[str | None]:
        """Split of each row."""
        return [row.split for row in self.rows]

    def location(self, row: int) -> Location:
        """Where the bytes of a row lie."""
        return self._locations[row]

    def signature(self, row: int) -> Signature | None:
        """What the file system said of a photo when its folder was opened, or says of others now.

        A photo inside a shard has its own size and its shard's times; None if there is no file.
        """
        if self._signatures:
            return self._signatures[row]
        location = self._locations[row]
        found = signature_of(location)
        inside = found is not None and location.size >= 0
        return found._replace(size=location.size) if found and inside else found

    def file(self, row: int) -> Path | None:
        """The row's own file, or None when it lies inside a shard."""
        location = self._locations[row]
        return Path(location.file) if location.size < 0 else None

    def read(self, row: int) -> bytes:
        """Read a row's bytes.

        Raises:
            PhotoError: If the file is gone, is not a regular file, cannot be read, or has changed
                since it was first hashed.
        """
        data, signature = read_location(self._locations[row])
        known = self._hashes.get(row)
        if (
            known is not None
            and known[1] != signature
            and hashlib.sha256(data).hexdigest() != known[0]
        ):
            raise PhotoError("changed", "the file is not the one that was read before")
        return data

    def content_hash(self, row: int) -> str:
        """SHA-256 of the row's bytes in hex; computed once.

        Raises:
            PhotoError: As :meth:`read`.
        """
        known = self._hashes.get(row)
        if known is None:
            data, signature = read_location(self._locations[row])
            known = (hashlib.sha256(data).hexdigest(), signature)
            self._hashes[row] = known
        return known[0]

    def remember(self, row: int, content_hash: str, signature: Signature) -> None:
        """Note a hash that was computed elsewhere, so that no file is read twice."""
        self._hashes[row] = (content_hash, signature)

    def fingerprint(self) -> str:
        """SHA-256 over ids and content hashes; photos that cannot be read count by their id."""
        total = hashlib.sha256()
        for row in self.rows:
            try:
                content = self.content_hash(row.row)
            except PhotoError as error:
                content = error.code
            total.update(f"{row.path}\0{row.box}\0{content}\n".encode())
        return total.hexdigest()


def _walk(root: Path) -> Iterator[tuple[tuple[str, ...], str, Signature | tuple[str, str]]]:
    """Every file below a folder in sorted order: parts, path, and its signature or why it is no photo."""
    # One entry per open folder: the parts so far, and the folders above it, to notice link loops.
    pending: list[tuple[tuple[str, ...], str, frozenset[tuple[int, int]]]] = []
    status = root.stat()
    pending.append(((), os.fspath(root), frozenset([(status.st_dev, status.st_ino)])))
    while pending:
        parts, folder, above = pending.pop()
        try:
            with os.scandir(folder) as scan:
                entries = sorted(scan, key=lambda entry: entry.name)
        except OSError as error:
            yield parts, folder, ("unreadable", f"cannot list the folder: {error.strerror}")
            continue
        folders = []
        for entry in entries:
            here = (*parts, entry.name)
            if entry.name.startswith("."):
                yield here, entry.path, ("hidden", "hidden files and folders are not looked at")
                continue
            try:
                status = entry.stat()
            except OSError as error:
                # Without the target a link cannot be told from a photo that is gone.
                reason = "link_loop" if error.errno == 40 else "missing"  # ELOOP
                yield here, entry.path, (reason, f"cannot follow the link: {error.strerror}")
                continue
            if stat.S_ISDIR(status.st_mode):
                identity = (status.st_dev, status.st_ino)
                if identity in above:
                    yield (
                        here,
                        entry.path,
                        ("link_loop", "the link leads back to a folder above it"),
                    )
                else:
                    folders.append((here, entry.path, above | {identity}))
            elif not stat.S_ISREG(status.st_mode):
                yield here, entry.path, ("not_regular", "is a FIFO, socket or device, not a file")
            else:
                yield here, entry.path, _not_a_photo(entry) or _signature(status)
        pending += reversed(folders)


def _not_a_photo(entry: "os.DirEntry[str]") -> tuple[str, str] | None:
    suffix = os.path.splitext(entry.name)[1].lower()  # noqa: PTH122 - ten times as fast
    if suffix in PHOTO_SUFFIXES or suffix in OTHER_SUFFIXES:
        return None
    try:
        head, _ = read_location(Location(entry.path, 0, min(32, entry.stat().st_size)))
    except (PhotoError, OSError):
        return ("unreadable", "cannot be read")
    return (
        None
        if sniff(head)
        else (
            "not_a_photo",
            f"the name ends in '{suffix}'" if suffix else "neither name nor content is a photo's",
        )
    )


def _layout(paths: list[tuple[str, ...]]) -> Iterator[tuple[str | None, str | None]]:
    """Split and label of each path, read from the folder names."""
    # images/class/x.jpg: a folder that holds all others says nothing.
    skip = 0
    while paths and all(len(parts) > skip + 1 for parts in paths):
        names = {parts[skip] for parts in paths}
        if len(names) > 1 or names.pop().lower() in SPLITS:
            break
        skip += 1
    tops = {parts[skip].lower() for parts in paths if len(parts) > skip + 1}
    split_layout = bool(tops) and tops <= SPLITS.keys()
    for parts in paths:
        rest = [_readable(part) for part in parts[skip:-1]]
        split = SPLITS[rest.pop(0).lower()] if split_layout and rest else None
        yield split, rest[0] if rest else None


def _key(name: str) -> str:
    """WebDataset: everything before the first dot of the file name groups members into one sample."""
    folder, slash, base = name.rpartition("/")
    return folder + slash + base.partition(".")[0]


def _split_of_shard(name: str) -> str | None:
    for word in name.lower().replace("_", "-").replace(".", "-").split("-"):
        if word in SPLITS:
            return SPLITS[word]
    return None


def _index_shard(
    shard: Path,
) -> tuple[list[tuple[str, Location]], dict[str, str], list[Skipped]]:
    """Read a tar's headers once; photos are later read by seeking, nothing is unpacked."""
    members: list[tuple[str, Location]] = []
    labels: dict[str, str] = {}
    skipped: list[Skipped] = []
    try:
        end = shard.stat().st_size
        with tarfile.open(shard, "r:") as tar:
            while (member := tar.next()) is not None:
                tar.members = []  # type: ignore[attr-defined]  # tarfile keeps every header otherwise
                name = member.name.removeprefix("./")
                suffix = Path(name).suffix.lower()
                if member.isdir() or name.rpartition("/")[2].startswith("."):
                    continue
                if not member.isreg() or member.issparse():
                    skipped.append(Skipped(name, "not_regular", "is a link or device in the shard"))
                elif suffix in PHOTO_SUFFIXES or suffix in OTHER_SUFFIXES:
                    if member.offset_data + member.size > end:
                        skipped.append(
                            Skipped(name, "ends_early", "the shard ends inside this photo")
                        )
                    else:
                        members.append(
                            (name, Location(str(shard), member.offset_data, member.size))
                        )
                elif suffix in (".cls", ".txt") and member.size <= 4096:
                    file = tar.extractfile(member)
                    text = file.read().decode("utf-8", "replace").strip() if file else ""
                    if suffix == ".cls" and text:
                        labels[_key(name)] = text
                else:
                    skipped.append(Skipped(name, "not_a_photo", f"the name ends in '{suffix}'"))
    except (tarfile.TarError, OSError, EOFError, ValueError) as error:
        if not members:
            raise CatalogError(
                f"{shard} cannot be read as a tar shard: {error}. Shards must be plain .tar files, "
                "not compressed."
            ) from None
        skipped.append(Skipped("(end)", "ends_early", f"the shard is cut off or broken: {error}"))
    return members, labels, skipped
