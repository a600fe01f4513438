"""Pictures of the report: neighbours, look-alike pairs, thumbnails, the map's geometry."""

import base64
import io

import numpy as np
from PIL import Image

from fieldmark.evaluation.report import (
    ConfusablePair,
    EmbeddingMap,
    choose_points,
    confusable_pairs,
    encode_photos,
    neighbour_sheets,
)
from fieldmark.evaluation.report.maps import SIDE, coloured_classes, draw_map


def unit(rows):
    rows = np.asarray(rows, dtype=np.float32)
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def cloud(count=40, seed=0):
    rng = np.random.default_rng(seed)
    labels = [f"class {i % 5}" for i in range(count)]
    return [f"{i}.jpg" for i in range(count)], labels, unit(rng.normal(size=(count, 8)))


def test_neighbours_equal_a_plain_sort():
    photos, labels, embeddings = cloud()
    sheets = neighbour_sheets(photos, labels, embeddings, count=9, neighbours=4)
    assert len(sheets) == 9
    for sheet in sheets:
        row = photos.index(sheet.photo)
        scores = [(float(embeddings[row] @ embeddings[other]), other) for other in range(40)]
        best = sorted((s for s in scores if s[1] != row), reverse=True)[:4]
        assert [near.photo for near in sheet.start] == [photos[other] for _, other in best]
        for near in sheet.start:
            assert near.hit == (near.label == sheet.label)
        assert sheet.trained == ()


def test_queries_come_from_different_classes_first_and_never_from_lone_ones():
    photos, labels, embeddings = cloud()
    labels[7] = "alone"
    sheets = neighbour_sheets(photos, labels, embeddings, embeddings, count=5)
    assert len({sheet.label for sheet in sheets}) == 5
    assert (
        len({sheet.photo for sheet in neighbour_sheets(photos, labels, embeddings, count=30)}) == 30
    )
    everything = neighbour_sheets(photos, labels, embeddings, count=99)
    assert "alone" not in {sheet.label for sheet in everything}
    assert len(everything) == 39


def test_without_labels_nothing_is_called_a_hit():
    photos, _, embeddings = cloud()
    sheets = neighbour_sheets(photos, [None] * 40, embeddings, count=6)
    assert len(sheets) == 6
    assert all(near.hit is None for sheet in sheets for near in sheet.start)
    assert neighbour_sheets(["a"], [None], embeddings[:1]) == ()


def test_confusable_pairs_equal_plain_loops():
    photos, labels, embeddings = cloud(60, seed=4)
    after = unit(embeddings + 0.3)
    pairs = confusable_pairs(photos, labels, embeddings, after, count=99)

    def rate(vectors, first, second):
        wrong = total = 0
        for row in range(60):
            if labels[row] not in (first, second):
                continue
            total += 1
            scores = vectors @ vectors[row]
            scores[row] = -9
            found = labels[int(scores.argmax())]
            wrong += found != labels[row] and found in (first, second)
        return 100 * wrong / total

    assert pairs
    for pair in pairs:
        assert pair.start is not None
        assert pair.trained is not None
        assert np.isclose(pair.start, rate(embeddings, pair.first, pair.second))
        assert np.isclose(pair.trained, rate(after, pair.first, pair.second))
        assert all(labels[photos.index(name)] == pair.first for name in pair.photos_first)
        assert all(labels[photos.index(name)] == pair.second for name in pair.photos_second)
    trained = [pair.trained for pair in pairs if pair.trained is not None]
    assert trained == sorted(trained, reverse=True)  # classes are of equal size here


def test_perfect_embeddings_confuse_nothing():
    labels = [f"class {i % 4}" for i in range(20)]
    embeddings = unit(np.eye(4)[[i % 4 for i in range(20)]])
    assert confusable_pairs([str(i) for i in range(20)], labels, embeddings) == ()
    assert confusable_pairs(["a", "b"], ["x", "x"], embeddings[:2]) == ()


def test_thumbnails_are_middle_squares_encoded_once():
    pixels = np.zeros((60, 120, 3), dtype=np.uint8)
    pixels[:, 30:90] = 255
    calls = []

    def read(name):
        calls.append(name)
        return pixels

    encoded = encode_photos(["a", "b", "a"], read, side=40, small=["b", "c"], small_side=20)
    assert set(encoded) == {"a", "b", "c"}
    sizes = {}
    for name, uri in encoded.items():
        image = Image.open(io.BytesIO(base64.b64decode(uri.split(",")[1])))
        sizes[name] = image.size
        assert np.asarray(image.convert("L")).min() > 220
    assert sizes == {"a": (40, 40), "b": (40, 40), "c": (20, 20)}


def test_tiny_photos_are_not_enlarged():
    uri = encode_photos(["a"], lambda _: np.zeros((5, 3, 3), dtype=np.uint8))["a"]
    assert Image.open(io.BytesIO(base64.b64decode(uri.split(",")[1]))).size == (3, 3)


def test_budget_lowers_quality_then_drops_the_maps_photos():
    rng = np.random.default_rng(0)
    noise = {str(i): rng.integers(0, 255, (112, 112, 3), dtype=np.uint8) for i in range(20)}
    shown, small = list(noise)[:5], list(noise)[5:]
    rich = encode_photos(shown, noise.__getitem__, small=small)
    poor = encode_photos(shown, noise.__getitem__, small=small, budget_bytes=30_000)
    poorest = encode_photos(shown, noise.__getitem__, small=small, budget_bytes=9_000)
    assert set(rich) == set(poor) == set(noise)
    assert sum(map(len, poor.values())) <= 30_000 < sum(map(len, rich.values()))
    assert sum(map(len, poorest.values())) <= 9_000
    assert set(shown) <= set(poorest)


def test_sample_for_the_map_keeps_class_shares():
    labels = ["common"] * 900 + ["rare"] * 100
    rows = choose_points(labels, limit=200)
    assert len(rows) == len(set(rows.tolist())) == 200
    assert sorted(rows.tolist()) == rows.tolist()
    assert 15 <= sum(labels[row] == "rare" for row in rows) <= 25
    assert choose_points(labels[:7]).tolist() == list(range(7))


def test_trained_map_is_turned_onto_the_start():
    rng = np.random.default_rng(0)
    start = rng.normal(size=(30, 2)) * [3, 1]
    angle = 2.0
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    mirrored = start @ turn * [1, -1] * 7 + 40
    pairs = [tuple(map(tuple, xy.tolist())) for xy in (start, mirrored)]
    drawing = draw_map(EmbeddingMap(tuple("abcde" * 6), ("x",) * 30, *pairs), (), {})
    assert drawing is not None
    for point in drawing.points:
        assert point.trained is not None
        assert np.allclose(point.start, point.trained, atol=0.11)
        assert all(0 <= value <= SIDE for value in point.start)


def test_map_survives_points_that_coincide():
    same = ((1.0, 1.0),) * 5
    drawing = draw_map(EmbeddingMap(tuple("abcde"), (None,) * 5, same, same), (), {})
    assert drawing is not None
    assert all(np.isfinite(point.start).all() for point in drawing.points)
    assert draw_map(EmbeddingMap(("a",), (None,), ((0.0, 0.0),)), (), {}) is None


def test_confusable_classes_are_coloured_first():
    labels = ["big"] * 9 + ["one"] * 2 + ["two"] * 2 + ["other"]
    pair = ConfusablePair("one", "two", 1.0)
    assert coloured_classes(labels, (pair,)) == ("one", "two", "big", "other")
    assert len(coloured_classes([str(i) for i in range(40)], ())) == 8
