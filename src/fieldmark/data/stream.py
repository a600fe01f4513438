"""Photos of any kind, read and made ready ahead of the network that embeds them.

Without torch, so that an exported encoder takes the same photos in the same way.
"""

import hashlib
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import numpy.typing as npt
from jaxtyping import Float
from PIL import Image

from fieldmark.data.catalog import Catalog
from fieldmark.data.decode import decode
from fieldmark.data.look import look_at, short_side
from fieldmark.errors import InputError, PhotoError

if TYPE_CHECKING:
    from torch import Tensor


class Embedded(NamedTuple):
    """One photo's outcome while streaming."""

    position: int
    """Place in the input, from 0."""
    embedding: Float[np.ndarray, " D"] | None
    """Unit vector; None when the photo could not be read."""
    problem: PhotoError | None
    """Why not, or what is damaged."""
    content_hash: str | None = None
    """SHA-256 of the file's bytes, where there is a file."""


class Look(NamedTuple):
    """A photo made ready, or why not."""

    position: int
    image: "npt.NDArray[np.uint8] | Tensor | None"
    problem: PhotoError | None
    content_hash: str | None = None


class Source(NamedTuple):
    """A photo still to be read."""

    photo: Any
    catalog: Catalog | None = None

    def name(self, index: int) -> str:
        """How error texts call it."""
        if self.catalog is not None:
            return self.catalog[int(self.photo)].path
        return str(self.photo) if isinstance(self.photo, (str, Path)) else f"photo {index}"


class Lens(NamedTuple):
    """How an encoder looks at photos."""

    size: int
    """Side of the square, in pixels."""
    crop: float
    """Share of the short side that is kept, in (0, 1]."""


# The decoder may scale down to this many times what is needed. Photos that are hardly larger than
# the input then come out whole, and none is blurred or shifted by being scaled twice by little.
_OVERSAMPLING = 2
_TABLES = {".csv", ".tsv", ".jsonl", ".parquet", ".tar"}


def stream(
    photos: Any,
    lens: Lens,
    encode: "Callable[[list[npt.NDArray[np.uint8] | Tensor]], Float[np.ndarray, 'B D']]",
    *,
    batch_size: int = 64,
    workers: int | None = None,
    rows: Sequence[int] | None = None,
) -> Iterator[Embedded]:
    """Embed photos one after another; bad ones are reported, not raised.

    Memory holds a few batches, whatever the number of photos.

    Args:
        photos: Paths, encoded bytes, uint8 arrays [H W 3], tensors [3 H W] (uint8, or float in
            [0, 1]), PIL images; any iterable of them, a stacked array or tensor, a folder, table or
            shard, or a catalog.
        lens: How the encoder looks.
        encode: Unit vectors of looks: uint8 [S S 3], or float [3 S S] for tensors of floats.
        batch_size: Photos per call of ``encode``.
        workers: Decoding threads; by default one per processor.
        rows: Only these rows of a catalog, in this order.
    """
    numbered = enumerate(sources(photos, rows))
    look = partial(look_of, lens=lens)
    with ThreadPoolExecutor(
        max(1, workers or _processors()), thread_name_prefix="fieldmark-decode"
    ) as pool:
        batches = iter(lambda: list(islice(numbered, batch_size)), [])
        waiting = [pool.map(look, batch) for batch in islice(batches, 2)]
        while waiting:
            looks = list(waiting.pop(0))
            # Decoding of the next batch goes on while this one is embedded.
            waiting.extend(pool.map(look, batch) for batch in islice(batches, 1))
            good = [item.image for item in looks if item.image is not None]
            embeddings = iter(encode(good) if good else ())
            for item in looks:
                vector = None if item.image is None else next(embeddings)
                yield Embedded(item.position, vector, item.problem, item.content_hash)


def gather(outcomes: Iterable[Embedded], dim: int) -> Float[np.ndarray, "N D"]:
    """Join the embeddings of a stream.

    Raises:
        PhotoError: Naming the first photo that cannot be read.
    """
    rows: list[npt.NDArray[np.float32]] = []
    for item in outcomes:
        if item.embedding is None:
            raise item.problem or PhotoError("unreadable", "unknown reason")
        rows.append(item.embedding)
    return np.stack(rows) if rows else np.zeros((0, dim), np.float32)


def sources(photos: Any, rows: Sequence[int] | None = None) -> Iterator[Source]:
    """Each photo of whatever :func:`stream` takes."""
    if isinstance(photos, (str, Path)):
        path = Path(photos)
        many = path.is_dir() or path.suffix.lower() in _TABLES
        photos = Catalog.open(path) if many else [path]
    if isinstance(photos, Catalog):
        for row in range(len(photos)) if rows is None else rows:
            yield Source(int(row), photos)
        return
    single = isinstance(photos, (bytes, Image.Image)) or (
        hasattr(photos, "shape") and len(photos.shape) == 3
    )
    for photo in [photos] if single else photos:
        yield Source(photo)


def look_of(numbered: tuple[int, Source], lens: Lens) -> Look:
    """Read one photo and look at it."""
    index, source = numbered
    photo = source.photo
    digest = None
    try:
        if source.catalog is not None:
            photo = source.catalog.read(int(photo))
        elif isinstance(photo, (str, Path)):
            photo = _read(Path(photo))
        if isinstance(photo, bytes):
            digest = hashlib.sha256(photo).hexdigest()
        return Look(index, *prepare(photo, lens.size, lens.crop), digest)
    except PhotoError as error:
        problem = PhotoError(error.code, f"{source.name(index)}: {error.detail}")
        return Look(index, None, problem, digest)


def prepare(
    photo: Any, size: int, crop: float
) -> "tuple[npt.NDArray[np.uint8] | Tensor, PhotoError | None]":
    """Decode where needed, resize and cut.

    Raises:
        InputError: If it is no photo at all.
        PhotoError: If it cannot be decoded.
    """
    if isinstance(photo, bytes):
        decoded = decode(photo, enough=_OVERSAMPLING * short_side(size, crop))
        damage = None
        if decoded.damage:
            code, _, detail = decoded.damage.partition(": ")
            damage = PhotoError(code, detail)
        return look_at(decoded.pixels, size, crop), damage
    if isinstance(photo, Image.Image):
        photo = np.array(photo.convert("RGB"))  # a copy: torch wants it writable
    # A tensor, told without importing torch.
    if hasattr(photo, "is_floating_point") and photo.ndim == 3 and photo.shape[0] == 3:
        if photo.is_floating_point():
            from fieldmark.data.looktensor import look_at_tensor

            return look_at_tensor(photo.detach(), size, crop), None
        photo = photo.permute(1, 2, 0).cpu().numpy()
    usable = isinstance(photo, np.ndarray) and photo.dtype == np.uint8 and photo.ndim == 3
    if usable and photo.shape[2] == 3 and photo.size:
        return look_at(photo, size, crop), None
    described = (
        f"{type(photo).__name__} {getattr(photo, 'dtype', '')} {getattr(photo, 'shape', '')}"
    )
    raise InputError(
        f"cannot embed {described.strip()}; give paths, encoded bytes, uint8 arrays [H W 3], "
        "tensors [3 H W] (uint8, or float in [0, 1]) or PIL images."
    )


def _read(path: Path) -> bytes:
    try:
        if not path.is_file():
            raise PhotoError("missing", "there is no such file")
        return path.read_bytes()
    except OSError as error:
        raise PhotoError("unreadable", str(error.strerror)) from None


def _processors() -> int:
    # As runtime.processor_count, which comes with torch.
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
