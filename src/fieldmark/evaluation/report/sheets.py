"""Pictures for the report: small photos, neighbour sheets, pairs of classes taken for each other."""

import base64
import io
from collections.abc import Callable, Iterable, Mapping, Sequence

import numpy as np
from jaxtyping import Float, Int64, UInt8
from PIL import Image, features

from fieldmark import rng
from fieldmark.evaluation.report.data import (
    ConfusablePair,
    Neighbour,
    NeighbourSheet,
    ReportData,
)

_STEPS = ((1.0, 78), (1.0, 62), (0.85, 60), (0.7, 55), (0.55, 50), (0.42, 45))
"""Side (as a share) and quality, tried in turn until the photos fit the budget."""


def thumbnail(pixels: UInt8[np.ndarray, "H W 3"], *, side: int, quality: int) -> bytes:
    """The middle square of a photo as WebP (JPEG where Pillow lacks WebP).

    Args:
        pixels: Upright RGB photo.
        side: Pixels of the square, at most; photos are never enlarged.
        quality: 1 to 100.
    """
    short = min(pixels.shape[:2])
    image = Image.fromarray(np.ascontiguousarray(pixels))
    x, y = (image.width - short) / 2, (image.height - short) / 2
    size = min(side, short)
    square = image.resize((size, size), Image.Resampling.LANCZOS, box=(x, y, x + short, y + short))
    buffer = io.BytesIO()
    if features.check("webp"):
        square.save(buffer, "WEBP", quality=quality, method=4)
    else:
        square.save(buffer, "JPEG", quality=quality, optimize=True)
    return buffer.getvalue()


def encode_photos(
    photo_ids: Iterable[str],
    read: Callable[[str], UInt8[np.ndarray, "H W 3"]],
    *,
    side: int = 112,
    small: Iterable[str] = (),
    small_side: int = 72,
    budget_bytes: int = 5_500_000,
) -> dict[str, str]:
    """Encode each photo once, small enough that the page stays sendable by e-mail.

    Args:
        photo_ids: Photos shown in sheets; repeated ids are encoded once.
        read: Gives the pixels of a photo, such as ``lambda photo: store.photo(row_of[photo])``.
        side: Pixels of the square thumbnails.
        small: Photos that only the map shows, at ``small_side`` pixels.
        small_side: Pixels of those.
        budget_bytes: Largest total of the returned text. Size and quality are lowered to meet it;
            photos that still do not fit are left out, those of the map first.

    Returns:
        Photo id to ``data:`` URI.
    """
    sides = dict.fromkeys(small, small_side) | dict.fromkeys(photo_ids, side)
    order = sorted(sides, key=lambda photo: -sides[photo])
    sample = order[:: max(1, len(order) // 48)]
    share, quality = _STEPS[-1]
    for share, quality in _STEPS:
        # A sample tells the total well enough; encoding everything at each step would not pay.
        sizes = [len(_uri(read(photo), round(sides[photo] * share), quality)) for photo in sample]
        if sum(sizes) / max(1, len(sizes)) * len(order) <= budget_bytes * 0.95:
            break
    encoded: dict[str, str] = {}
    total = 0
    for photo in order:
        uri = _uri(read(photo), round(sides[photo] * share), quality)
        if total + len(uri) > budget_bytes:
            break
        encoded[photo] = uri
        total += len(uri)
    return encoded


def _uri(pixels: UInt8[np.ndarray, "H W 3"], side: int, quality: int) -> str:
    data = thumbnail(pixels, side=max(8, side), quality=quality)
    kind = "webp" if data[:4] == b"RIFF" else "jpeg"
    return f"data:image/{kind};base64,{base64.b64encode(data).decode('ascii')}"


def photo_ids_of(data: ReportData) -> tuple[list[str], list[str]]:
    """Photos that the sheets of a report name, and photos that only its map names."""
    shown: dict[str, None] = {}
    for sheet in data.sheets:
        shown[sheet.photo] = None
        shown.update(dict.fromkeys(near.photo for near in (*sheet.start, *sheet.trained)))
    for pair in data.confusable:
        shown.update(dict.fromkeys((*pair.photos_first, *pair.photos_second)))
    points = data.map.photos if data.map else ()
    return list(shown), [photo for photo in dict.fromkeys(points) if photo not in shown]


def neighbour_sheets(
    photos: Sequence[str],
    labels: Sequence[str | None],
    start: Float[np.ndarray, "N D"],
    trained: Float[np.ndarray, "N E"] | None = None,
    *,
    count: int = 12,
    neighbours: int = 5,
    seed: int = 0,
) -> tuple[NeighbourSheet, ...]:
    """Nearest photos of queries picked by chance, so that nobody chose the pretty ones.

    Args:
        photos: Photo id per row.
        labels: Class per row; None where not known.
        start: L2-normalised embeddings of the start.
        trained: The same photos under the trained encoder, if there is one.
        count: Queries to show. With labels they come from different classes where possible.
        neighbours: Photos found per query.
        seed: Chooses the queries.
    """
    if len(photos) < 2:
        return ()
    draw = rng.mix("report-queries", seed, np.arange(len(photos)))
    rows: list[int] = []
    taken: set[str] = set()
    by_chance = [int(row) for row in np.argsort(draw, kind="stable")]
    # Classes with one photo cannot have a hit; they would show two rows of misses and no news.
    sizes: dict[str | None, int] = {}
    for label in labels:
        sizes[label] = sizes.get(label, 0) + 1
    for fresh in (True, False):
        for row in by_chance:
            label = labels[row]
            if len(rows) == count:
                break
            if row in rows or (label is not None and sizes[label] < 2):
                continue
            if fresh and label in taken:
                continue
            rows.append(row)
            if label is not None:
                taken.add(label)
    queries = np.array(rows, dtype=np.int64)
    near_start = _nearest(start, queries, neighbours)
    near_trained = _nearest(trained, queries, neighbours) if trained is not None else None

    def found(row: int, near: Int64[np.ndarray, " K"]) -> tuple[Neighbour, ...]:
        return tuple(
            Neighbour(
                photos[other],
                labels[other],
                None
                if labels[row] is None or labels[other] is None
                else labels[other] == labels[row],
            )
            for other in near.tolist()
        )

    return tuple(
        NeighbourSheet(
            photos[row],
            labels[row],
            found(row, near_start[index]),
            found(row, near_trained[index]) if near_trained is not None else (),
        )
        for index, row in enumerate(rows)
    )


def _nearest(
    embeddings: Float[np.ndarray, "N D"], rows: Int64[np.ndarray, " Q"], count: int
) -> Int64[np.ndarray, "Q K"]:
    """The ``count`` most similar other photos of each row, nearest first."""
    count = min(count, len(embeddings) - 1)
    found = np.empty((len(rows), count), dtype=np.int64)
    # About 64 MB of similarities at a time.
    chunk = max(1, 16_000_000 // max(1, len(embeddings)))
    for begin in range(0, len(rows), chunk):
        part = rows[begin : begin + chunk]
        similarity = embeddings[part] @ embeddings.T
        similarity[np.arange(len(part)), part] = -np.inf
        best = np.argpartition(-similarity, count - 1, axis=1)[:, :count]
        order = np.argsort(-np.take_along_axis(similarity, best, axis=1), axis=1, kind="stable")
        found[begin : begin + chunk] = np.take_along_axis(best, order, axis=1)
    return found


def confusable_pairs(
    photos: Sequence[str],
    labels: Sequence[str],
    start: Float[np.ndarray, "N D"],
    trained: Float[np.ndarray, "N E"] | None = None,
    *,
    count: int = 8,
    examples: int = 3,
) -> tuple[ConfusablePair, ...]:
    """Classes whose photos most often have a nearest photo of the other class.

    The rate of a pair is the percentage of the two classes' photos whose nearest other photo
    belongs to the other class of the pair. Pairs are ranked by the trained encoder's rate, or the
    start's when there is none. Example photos are confused ones first.
    """
    names = sorted(set(labels))
    if len(names) < 2 or len(photos) < 3:
        return ()
    index_of = {name: index for index, name in enumerate(names)}
    classes = np.array([index_of[label] for label in labels], dtype=np.int64)
    sizes = np.bincount(classes, minlength=len(names))
    everyone = np.arange(len(photos), dtype=np.int64)

    def confusions(embeddings: Float[np.ndarray, "N D"]) -> dict[tuple[int, int], list[int]]:
        nearest = _nearest(embeddings, everyone, 1)[:, 0]
        pairs: dict[tuple[int, int], list[int]] = {}
        for row in np.flatnonzero(classes[nearest] != classes):
            one, other = int(classes[row]), int(classes[nearest[row]])
            pairs.setdefault((min(one, other), max(one, other)), []).append(int(row))
        return pairs

    before = confusions(start)
    after = confusions(trained) if trained is not None else None
    shown = before if after is None else after

    def rate(pairs: Mapping[tuple[int, int], list[int]], pair: tuple[int, int]) -> float:
        return 100.0 * len(pairs.get(pair, ())) / int(sizes[pair[0]] + sizes[pair[1]])

    # A pair of two photos would lead with 100 %; weigh by how sure the rate is.
    ranked = sorted(
        shown, key=lambda pair: (-len(shown[pair]) / (sizes[pair[0]] + sizes[pair[1]] + 8), pair)
    )

    def pictures(name: int, confused: Sequence[int]) -> tuple[str, ...]:
        rows = [row for row in confused if classes[row] == name]
        rows += [row for row in np.flatnonzero(classes == name).tolist() if row not in rows]
        return tuple(photos[row] for row in rows[:examples])

    return tuple(
        ConfusablePair(
            names[pair[0]],
            names[pair[1]],
            rate(before, pair),
            rate(after, pair) if after is not None else None,
            pictures(pair[0], shown[pair]),
            pictures(pair[1], shown[pair]),
        )
        for pair in ranked[:count]
    )


def choose_points(
    labels: Sequence[str | None], *, limit: int = 900, seed: int = 0
) -> Int64[np.ndarray, " M"]:
    """Rows for the map: all of them, or a sample in which every class keeps its share.

    Args:
        labels: Class per row.
        limit: Most points; beyond about a thousand a map is mud and its photos weigh megabytes.
        seed: Chooses the sample.

    Returns:
        Rows in rising order.
    """
    total = len(labels)
    if total <= limit:
        return np.arange(total, dtype=np.int64)
    draw = rng.mix("report-map", seed, np.arange(total))
    order = np.argsort(draw, kind="stable")
    # Walking the rows sorted by class at an even stride gives each class its share.
    names = {label: index for index, label in enumerate(sorted({str(item) for item in labels}))}
    classes = np.array([names[str(label)] for label in labels], dtype=np.int64)
    sorted_rows = order[np.argsort(classes[order], kind="stable")]
    picked = sorted_rows[np.linspace(0, total - 1, limit).astype(np.int64)]
    return np.sort(picked).astype(np.int64)
