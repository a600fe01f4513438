"""What a collection of photos is made of: bad files, duplicates, bursts, leakage between splits.

Near-duplicates are found in two steps that never hold an N × N matrix: photos whose 64-bit
perceptual hashes agree in at least one byte are compared by hash, and those that differ in few bits
by their 16 × 16 colour thumbnails.

Source: perceptual hash as in Zauner 2010, "Implementation and Benchmarking of Perceptual Image Hash
Functions", section 3.2.1 (signs of low DCT coefficients against their median); one byte in common by
the pigeonhole principle, as in Norouzi et al. 2012, arXiv:1307.2982.
"""

import itertools
import math
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from datetime import datetime
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float32, Float64, Int64, UInt8, UInt64
from PIL import Image
from pydantic import Field

from fieldmark.config import Config
from fieldmark.data.catalog import Catalog
from fieldmark.data.decode import Limits, Pixels
from fieldmark.data.sandbox import DecodePool, Job, Reply

_DECODE_SIDE = 64
_THUMB = 16
_GRAY = 32
_LOW = 8
_PAIRS_AT_ONCE = 2**21
_THUMBS_AT_ONCE = 10_000
_SAME = 1
"""Grey levels by which thumbnails of one picture may differ. Parts under a fixed camera differ by few."""


class AuditConfig(Config):
    """When photos count as the same picture or as one burst."""

    hash_bits: int = Field(default=7, ge=0, le=7)
    """Bits of 64 by which perceptual hashes of near-duplicates may differ; 7 is the most that can be
    found for certain."""
    near_difference: float = Field(default=7.0, gt=0, le=255)
    """Largest root mean square difference of near-duplicates' thumbnails, in grey levels, after
    their mean colours are made equal."""
    burst_seconds: float = Field(default=10.0, gt=0)
    """Longest time between two photos of one burst."""
    burst_difference: float = Field(default=40.0, gt=0, le=255)
    """Largest root mean square difference of thumbnails in one burst, in grey levels."""


class Problem(NamedTuple):
    """A file that is not used, with the reason."""

    path: str
    sha256: str | None
    status: str
    """``damaged``, ``refused`` or ``skipped`` (not a photo at all)."""
    code: str
    detail: str


class Audit(NamedTuple):
    """What was found; groups hold catalog rows in order."""

    good: int
    bytes: int
    formats: dict[str, int]
    originals: Int64[np.ndarray, "M 2"]
    """Height and width of each photo that has pixels."""
    problems: list[Problem]
    notes: dict[str, int]
    """Harmless oddities and how often."""
    exact: list[list[int]]
    """Files with the same bytes."""
    near: list[list[int]]
    """Files that show the same picture, exact duplicates counted once."""
    bursts: list[list[int]]
    leaks: list[list[int]]
    """Groups, exact or near, that lie in more than one split."""


class _Collector:
    """Gathers a few hundred bytes per photo while the pool decodes."""

    def __init__(self, count: int) -> None:
        self.hashes: list[str | None] = [None] * count
        self.thumbs: UInt8[np.ndarray, "N 768"] = np.zeros((count, 3 * _THUMB**2), np.uint8)
        self.phash: UInt64[np.ndarray, " N"] = np.zeros(count, np.uint64)
        self.seconds: Float64[np.ndarray, " N"] = np.full(count, np.nan)
        self.present: Bool[np.ndarray, " N"] = np.zeros(count, bool)
        self.originals: list[tuple[int, int]] = []
        self.formats: Counter[str] = Counter()
        self.notes: Counter[str] = Counter()
        self.bytes = 0
        self.damaged = 0

    def take(self, reply: Reply) -> None:
        self.hashes[reply.id] = reply.content_hash
        self.bytes += reply.bytes
        photo = reply.photo
        if photo is None:
            return
        self.present[reply.id] = True
        self.thumbs[reply.id], gray = describe(photo.pixels)
        self.phash[reply.id] = perceptual_hash(gray[None])[0]
        self.seconds[reply.id] = seconds_of(photo.taken)
        self.originals.append(photo.original)
        self.formats[photo.format] += 1
        self.notes.update(note.partition(":")[0] for note in photo.notes)
        self.damaged += photo.damage is not None


def audit(
    catalog: Catalog,
    *,
    config: AuditConfig | None = None,
    limits: Limits | None = None,
    workers: int | None = None,
    progress: Callable[[int, int], None] | None = None,
    splits: list[str | None] | None = None,
) -> Audit:
    """Look at every photo of a catalog once.

    Args:
        catalog: The photos.
        config: When photos count as the same.
        limits: What one photo may cost.
        workers: As in :class:`fieldmark.data.sandbox.DecodePool`.
        progress: Called with photos done and photos in all.
        splits: Split of each row; by default the catalog's own.

    Returns:
        Everything found. Every file of the source is counted in ``good`` or listed in ``problems``.
    """
    config = config or AuditConfig()
    found = _Collector(len(catalog))
    problems = [Problem(s.path, None, "skipped", s.code, s.detail) for s in catalog.skipped]
    bad: list[tuple[int, Problem]] = []
    with DecodePool(workers, limits=limits, short_side=_DECODE_SIDE) as pool:
        jobs = (Job(r.row, catalog.location(r.row), r.box) for r in catalog.rows)
        for done, reply in enumerate(pool.map(jobs), 1):
            found.take(reply)
            problem = _problem(catalog, reply)
            if problem is not None:
                bad.append((reply.id, problem))
            if progress is not None:
                progress(done, len(catalog))
    problems = [problem for _, problem in sorted(bad)] + problems
    exact = exact_groups(found.hashes)
    first = {group[0]: group for group in exact}
    alone = found.present.copy()
    for group in exact:
        alone[group[1:]] = False
    rows = np.flatnonzero(alone)
    near = [
        [int(rows[i]) for i in group]
        for group in near_groups(found.phash[rows], found.thumbs[rows], config)
    ]
    whole = _joined(near, first)
    splits = catalog.splits if splits is None else splits
    leaks = [group for group in whole if len({splits[row] for row in group} - {None}) > 1]
    return Audit(
        good=int(found.present.sum()) - found.damaged,
        bytes=found.bytes,
        formats=dict(found.formats.most_common()),
        originals=np.array(found.originals, np.int64).reshape(-1, 2),
        problems=problems,
        notes=dict(found.notes.most_common()),
        exact=exact,
        near=near,
        bursts=burst_groups(found.seconds, found.thumbs, config),
        leaks=leaks,
    )


def _problem(catalog: Catalog, reply: Reply) -> Problem | None:
    path = catalog[reply.id].path
    if reply.error is not None:
        return Problem(path, reply.content_hash, "refused", reply.error.code, reply.error.detail)
    if reply.photo is not None and reply.photo.damage is not None:
        code, _, detail = reply.photo.damage.partition(": ")
        return Problem(path, reply.content_hash, "damaged", code, detail)
    return None


def _joined(near: list[list[int]], exact: dict[int, list[int]]) -> list[list[int]]:
    """Groups of near-duplicates with the exact copies of their members."""
    groups = [
        sorted(row for member in group for row in exact.get(member, [member])) for group in near
    ]
    covered = {member for group in near for member in group}
    groups += [group for member, group in exact.items() if member not in covered]
    return sorted(groups)


def seconds_of(taken: str | None) -> float:
    """When a photo was taken, in seconds since 1970 by the camera's clock; NaN where that is not known."""
    if taken is None:
        return math.nan
    try:
        moment = datetime.strptime(taken, "%Y:%m:%d %H:%M:%S")
    except ValueError:
        return math.nan
    return (moment - datetime(1970, 1, 1)).total_seconds()


def describe(pixels: Pixels) -> tuple[UInt8[np.ndarray, " 768"], Float32[np.ndarray, "32 32"]]:
    """A photo's 16 × 16 colour thumbnail, flat, and its 32 × 32 grey one; aspect is ignored."""
    image = Image.fromarray(np.ascontiguousarray(pixels))
    box = Image.Resampling.BOX
    thumb = np.asarray(image.resize((_THUMB, _THUMB), box)).reshape(-1)
    gray = np.asarray(image.convert("L").resize((_GRAY, _GRAY), box), np.float32)
    return thumb, gray


class Likeness(NamedTuple):
    """What near-duplicates are found by."""

    hashes: UInt64[np.ndarray, " N"]
    thumbs: UInt8[np.ndarray, "N 768"]

    def all_alike(self) -> bool:
        """Whether every photo shows the same picture, but for what compressing it changes."""
        return len(self.thumbs) > 1 and int(np.ptp(self.thumbs, axis=0).max()) <= _SAME


def likeness(
    photos: Iterable[Pixels], count: int, progress: Callable[[int, int], None] | None = None
) -> Likeness:
    """Describe photos that are decoded already.

    Args:
        photos: Pixels, one photo after another.
        count: How many they are.
        progress: Called with photos done and photos in all.
    """
    found = Likeness(np.zeros(count, np.uint64), np.zeros((count, 3 * _THUMB**2), np.uint8))
    for index, pixels in enumerate(photos):
        found.thumbs[index], gray = describe(pixels)
        found.hashes[index] = perceptual_hash(gray[None])[0]
        if progress is not None and (index + 1 == count or index % 64 == 63):
            progress(index + 1, count)
    return found


def _cosines() -> Float32[np.ndarray, "8 32"]:
    k, x = np.arange(_LOW)[:, None], np.arange(_GRAY)[None]
    return np.cos(np.pi * k * (2 * x + 1) / (2 * _GRAY)).astype(np.float32)


def perceptual_hash(grays: Float32[np.ndarray, "B 32 32"]) -> UInt64[np.ndarray, " B"]:
    """64 signs of the 8 × 8 lowest DCT coefficients against their median; the first bit is 0.

    The constant term is left out: brightness says nothing about which picture it is.
    """
    basis = _cosines()
    low = (basis @ grays @ basis.T).reshape(len(grays), -1)
    rest = low[:, 1:]
    bits = np.zeros(low.shape, bool)
    bits[:, 1:] = rest > np.median(rest, axis=1, keepdims=True)
    return np.packbits(bits, axis=1).view(">u8").astype(np.uint64)[:, 0]


def _popcount(values: UInt64[np.ndarray, "..."]) -> UInt8[np.ndarray, "..."]:
    if hasattr(np, "bitwise_count"):
        counted: UInt8[np.ndarray, ...] = np.bitwise_count(values)
        return counted
    # NumPy 1.26: sums of bits in pairs, nibbles, bytes (Hacker's Delight, figure 5-2).
    one, two, four = (
        np.uint64(v) for v in (0x5555555555555555, 0x3333333333333333, 0x0F0F0F0F0F0F0F0F)
    )
    values = values - ((values >> np.uint64(1)) & one)
    values = (values & two) + ((values >> np.uint64(2)) & two)
    values = (values + (values >> np.uint64(4))) & four
    with np.errstate(over="ignore"):
        return ((values * np.uint64(0x0101010101010101)) >> np.uint64(56)).astype(np.uint8)


class _Forest:
    """Connected components of pairs that arrive in any order."""

    def __init__(self, count: int) -> None:
        self.parent = np.arange(count)

    def root(self, node: int) -> int:
        while self.parent[node] != node:
            self.parent[node] = self.parent[self.parent[node]]
            node = int(self.parent[node])
        return node

    def join(self, one: int, other: int) -> None:
        a, b = self.root(one), self.root(other)
        self.parent[max(a, b)] = min(a, b)

    def groups(self) -> list[list[int]]:
        members: dict[int, list[int]] = {}
        for node in np.flatnonzero(self.parent != np.arange(len(self.parent))):
            root = self.root(int(node))
            members.setdefault(root, [root]).append(int(node))
        return [members[root] for root in sorted(members)]


def exact_groups(hashes: list[str | None]) -> list[list[int]]:
    """Rows with the same content."""
    rows: dict[str, list[int]] = {}
    for row, content in enumerate(hashes):
        if content is not None:
            rows.setdefault(content, []).append(row)
    return [group for group in rows.values() if len(group) > 1]


def near_groups(
    hashes: UInt64[np.ndarray, " N"], thumbs: UInt8[np.ndarray, "N 768"], config: AuditConfig
) -> list[list[int]]:
    """Rows that show the same picture, joined transitively; memory grows with N, not N²."""
    forest = _Forest(len(hashes))
    leaders = _join_equal(hashes, thumbs, config, forest)
    for one, other in _candidates(hashes[leaders], config.hash_bits):
        for part in range(0, len(one), _THUMBS_AT_ONCE):
            i = leaders[one[part : part + _THUMBS_AT_ONCE]]
            j = leaders[other[part : part + _THUMBS_AT_ONCE]]
            # What is joined already needs no second look.
            fresh = forest.parent[i] != forest.parent[j]
            i, j = i[fresh], j[fresh]
            same = difference(thumbs[i], thumbs[j]) <= config.near_difference
            for a, b in zip(i[same], j[same], strict=True):
                forest.join(int(a), int(b))
    return forest.groups()


def _join_equal(
    hashes: UInt64[np.ndarray, " N"],
    thumbs: UInt8[np.ndarray, "N 768"],
    config: AuditConfig,
    forest: _Forest,
) -> Int64[np.ndarray, " L"]:
    """Join rows of equal hash to leaders; only leaders go on.

    Blank photos and copies share one hash: comparing all their pairs would take N² time.
    """
    order = np.argsort(hashes, kind="stable")
    starts = np.flatnonzero(np.diff(hashes[order], prepend=~hashes[order[:1]]))
    leaders: list[int] = []
    for begin, end in itertools.pairwise([*starts.tolist(), len(order)]):
        rest = order[begin:end]
        while len(rest):
            leader, rest = int(rest[0]), rest[1:]
            leaders.append(leader)
            same = np.zeros(len(rest), bool)
            for part in range(0, len(rest), _THUMBS_AT_ONCE):
                rows = rest[part : part + _THUMBS_AT_ONCE]
                gap = difference(thumbs[rows], thumbs[np.full(len(rows), leader)])
                same[part : part + len(rows)] = gap <= config.near_difference
            for row in rest[same]:
                forest.join(leader, int(row))
            rest = rest[~same]
    return np.array(sorted(leaders), np.int64)


def difference(
    one: UInt8[np.ndarray, "P 768"], other: UInt8[np.ndarray, "P 768"]
) -> Float32[np.ndarray, " P"]:
    """Root mean square difference of thumbnails in grey levels, mean colours made equal."""
    gap = (one.astype(np.float32) - other).reshape(len(one), _THUMB**2, 3)
    gap -= gap.mean(axis=1, keepdims=True)
    return np.sqrt((gap**2).mean(axis=(1, 2)))


def _candidates(
    hashes: UInt64[np.ndarray, " N"], bits: int
) -> Iterator[tuple[Int64[np.ndarray, " P"], Int64[np.ndarray, " P"]]]:
    """Pairs whose hashes differ in at most ``bits`` bits, some of them several times."""
    for byte in range(8):
        keys = (hashes >> np.uint64(8 * byte)) & np.uint64(255)
        order = np.argsort(keys, kind="stable")
        edges = np.searchsorted(keys[order], np.arange(257, dtype=np.uint64))
        for begin, end in itertools.pairwise(edges):
            rows = order[begin:end]
            mine = hashes[rows]
            step = max(1, _PAIRS_AT_ONCE // max(1, len(rows)))
            for start in range(0, len(rows), step):
                part = mine[start : start + step, None] ^ mine[None, start:]
                i, j = np.nonzero(_popcount(part) <= bits)
                later = j > i
                yield rows[start + i[later]], rows[start + j[later]]


def burst_groups(
    seconds: Float64[np.ndarray, " N"], thumbs: UInt8[np.ndarray, "N 768"], config: AuditConfig
) -> list[list[int]]:
    """Rows taken within seconds of each other that look alike."""
    timed = np.flatnonzero(np.isfinite(seconds))
    order = timed[np.argsort(seconds[timed], kind="stable")]
    forest = _Forest(len(seconds))
    # Several cameras may take turns, so a few neighbours in time are compared, not only the next.
    for step in (1, 2, 3):
        one, other = order[:-step], order[step:]
        close = seconds[other] - seconds[one] <= config.burst_seconds
        one, other = one[close], other[close]
        for part in range(0, len(one), _THUMBS_AT_ONCE):
            i, j = one[part : part + _THUMBS_AT_ONCE], other[part : part + _THUMBS_AT_ONCE]
            alike = difference(thumbs[i], thumbs[j]) <= config.burst_difference
            for a, b in zip(i[alike], j[alike], strict=True):
                forest.join(int(a), int(b))
    return forest.groups()
