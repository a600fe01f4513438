import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fieldmark.errors import InputError
from fieldmark.evaluation import retrieval
from fieldmark.evaluation.retrieval import (
    RetrievalScores,
    evaluate_cmd_retrieval,
    evaluate_retrieval,
)


def loops(scores, labels, gallery_labels, leave_one_out):
    """The definitions of the protocol, one photo at a time."""
    rank, full, at_r = [], [], []
    for q in range(len(scores)):
        others = [g for g in range(len(gallery_labels)) if not (leave_one_out and g == q)]
        others.sort(key=lambda g: (-scores[q][g], g))
        places = [i + 1 for i, g in enumerate(others) if gallery_labels[g] == labels[q]]
        if not places:
            rank.append(0), full.append(np.nan), at_r.append(np.nan)
            continue
        r = len(places)
        rank.append(places[0])
        full.append(sum((j + 1) / place for j, place in enumerate(places)) / r)
        at_r.append(sum((j + 1) / place for j, place in enumerate(places) if place <= r) / r)
    return np.array(rank), np.array(full), np.array(at_r)


def exact_vectors(generator, count):
    """Unit vectors whose cosines are exact in float32, with many ties: (±1, ±1, ±1, ±1) / 2."""
    return generator.choice([-0.5, 0.5], (count, 4)).astype(np.float32)


def clustered(seed, count, dim=8, classes=5):
    generator = np.random.default_rng(seed)
    labels = generator.integers(0, classes, count)
    centres = generator.standard_normal((classes, dim))
    x = centres[labels] + generator.standard_normal((count, dim))
    return (x / np.linalg.norm(x, axis=1, keepdims=True)).astype(np.float32), labels


def test_vector_worked_by_hand():
    angles = np.radians([0, 10, 25, 90])
    x = np.stack([np.cos(angles), np.sin(angles)], axis=1)
    scores = evaluate_retrieval(x, np.array([0, 1, 0, 1]))
    assert scores.rank_k(1) == 0
    assert scores.rank_k(2) == 75
    assert scores.rank_k(5) == 100
    assert scores.summary()["map"] == pytest.approx(100 * (0.5 + 1 / 3 + 0.5 + 0.5) / 4, abs=1e-9)
    assert scores.summary()["map"] == pytest.approx(45.8333, abs=1e-4)


@settings(deadline=None, max_examples=40)
@given(
    seed=st.integers(0, 10_000),
    count=st.integers(2, 40),
    classes=st.integers(1, 12),
    chunk_bytes=st.sampled_from([1, 300, 4_000, 2**28]),
)
def test_equals_loops_with_ties_and_any_chunks(seed, count, classes, chunk_bytes):
    generator = np.random.default_rng(seed)
    x, labels = exact_vectors(generator, count), generator.integers(0, classes, count)
    scores = evaluate_retrieval(x, labels, chunk_bytes=chunk_bytes)
    rank, full, at_r = loops((x @ x.T).tolist(), labels, labels, leave_one_out=True)
    np.testing.assert_array_equal(scores.rank, rank)
    np.testing.assert_allclose(scores.average_precision, full, atol=1e-12)
    np.testing.assert_allclose(scores.ap_at_r, at_r, atol=1e-12)


@settings(deadline=None, max_examples=30)
@given(seed=st.integers(0, 10_000), queries=st.integers(1, 15), targets=st.integers(1, 30))
def test_gallery_equals_loops(seed, queries, targets):
    generator = np.random.default_rng(seed)
    x, y = exact_vectors(generator, queries), exact_vectors(generator, targets)
    labels, gallery_labels = generator.integers(0, 6, queries), generator.integers(0, 6, targets)
    scores = evaluate_retrieval(x, labels, gallery=y, gallery_labels=gallery_labels)
    rank, full, at_r = loops((x @ y.T).tolist(), labels, gallery_labels, leave_one_out=False)
    np.testing.assert_array_equal(scores.rank, rank)
    np.testing.assert_allclose(scores.average_precision, full, atol=1e-12)
    np.testing.assert_allclose(scores.ap_at_r, at_r, atol=1e-12)


def test_more_queries_than_a_tile_equals_loops():
    x, labels = clustered(3, 300)
    scores = evaluate_retrieval(x, labels)
    similarity = (torch.from_numpy(x).double() @ torch.from_numpy(x).double().T).numpy()
    order = np.argsort(-(similarity - 9 * np.eye(len(x))), axis=1)[:, :-1]
    hits = labels[order] == labels[:, None]
    precision = hits.cumsum(axis=1) / np.arange(1, len(x))
    np.testing.assert_allclose(
        scores.average_precision, (precision * hits).sum(axis=1) / hits.sum(axis=1), rtol=1e-4
    )


@settings(deadline=None, max_examples=25)
@given(seed=st.integers(0, 10_000), count=st.integers(3, 60))
def test_invariant_to_order_rotation_and_scale(seed, count):
    x, labels = clustered(seed, count)
    generator = np.random.default_rng(seed + 1)
    base = evaluate_retrieval(x, labels)
    shuffle = generator.permutation(count)
    moved = evaluate_retrieval(x[shuffle], labels[shuffle])
    np.testing.assert_allclose(moved.average_precision, base.average_precision[shuffle], atol=1e-6)
    rotation = np.linalg.qr(generator.standard_normal((8, 8)))[0]
    turned = evaluate_retrieval(x @ rotation, labels)
    np.testing.assert_allclose(turned.average_precision, base.average_precision, atol=2e-2)
    scaled = evaluate_retrieval(x * 2.0 ** generator.integers(-40, 40, (count, 1)), labels)
    np.testing.assert_allclose(scaled.average_precision, base.average_precision, atol=2e-2)
    known = base.rank > 0
    for values in (base.average_precision[known], base.ap_at_r[known]):
        assert ((values >= 0) & (values <= 1)).all()
    assert (base.ap_at_r[known] <= base.average_precision[known] + 1e-12).all()


def test_chunking_does_not_change_a_bit(monkeypatch):
    x, labels = clustered(5, 700, dim=64)
    x = x[np.random.default_rng(0).integers(0, 350, 700)]  # exact duplicates
    base = evaluate_retrieval(x, labels)
    for chunk_bytes in (700 * 4 * 256, 2**40):
        again = evaluate_retrieval(x, labels, chunk_bytes=chunk_bytes)
        for one, other in zip(base, again):
            np.testing.assert_array_equal(one, other)


def test_identical_embeddings_tie_by_gallery_index():
    # 900 copies of one vector stand at many places of the matrix product.
    generator = np.random.default_rng(0)
    x = generator.standard_normal((1000, 37)).astype(np.float32)
    x[50:950] = x[50]
    labels = np.zeros(1000, np.int64)
    labels[949] = 1  # the last copy
    labels[3] = 1
    rank = evaluate_retrieval(x, labels).rank[949]
    twins = evaluate_retrieval(
        x[3:4], labels[3:4], gallery=x[50:950], gallery_labels=labels[50:950]
    )
    assert twins.rank[0] == 900
    assert rank > 899  # row 3 is farther than its 899 copies


def test_all_embeddings_equal():
    x, labels = np.ones((6, 3), np.float32), np.array([0, 1, 0, 1, 0, 1])
    rank, full, _ = loops(np.ones((6, 6)).tolist(), labels, labels, leave_one_out=True)
    scores = evaluate_retrieval(x, labels)
    np.testing.assert_array_equal(scores.rank, rank)
    np.testing.assert_allclose(scores.average_precision, full)


def test_lone_queries_are_skipped_and_counted():
    x, labels = clustered(1, 20)
    labels[7], labels[12] = 91, 92
    scores = evaluate_retrieval(x, labels)
    assert scores.lone == 2
    assert np.isnan(scores.average_precision[[7, 12]]).all()
    assert np.isnan(scores.hits(5)[[7, 12]]).all()
    kept = np.delete(np.arange(20), [7, 12])
    assert scores.summary()["map"] == pytest.approx(scores.average_precision[kept].mean() * 100)


def test_only_lone_queries():
    summary = evaluate_retrieval(np.eye(3), np.arange(3)).summary()
    assert all(np.isnan(value) for value in summary.values())


def test_perfect_and_hopeless():
    x = np.repeat(np.eye(4), 3, axis=0)
    assert set(evaluate_retrieval(x, np.repeat(np.arange(4), 3)).summary().values()) == {100.0}
    assert evaluate_retrieval(x, np.tile(np.arange(3), 4)).rank_k(1) == 0


def test_tensors_and_halves_are_taken():
    x, labels = clustered(2, 30)
    base = evaluate_retrieval(x, labels).summary()
    assert evaluate_retrieval(torch.from_numpy(x), labels).summary() == base
    assert evaluate_retrieval(x.astype(np.float16), labels).summary()["map"] == pytest.approx(
        base["map"], abs=1
    )


@pytest.mark.parametrize("value", [np.nan, np.inf, 0.0])
def test_bad_embeddings_are_refused(value):
    x, labels = clustered(0, 10)
    x[4] = value
    with pytest.raises(InputError, match="row 4"):
        evaluate_retrieval(x, labels)
    good, _ = clustered(0, 10)
    with pytest.raises(InputError, match="gallery embeddings: row 4"):
        evaluate_retrieval(good, labels, gallery=x, gallery_labels=labels)


def test_mismatches_are_refused():
    x, labels = clustered(0, 10)
    # evaluate_retrieval itself is stopped earlier here, by the shapes in its signature.
    with pytest.raises(InputError, match="one label for each"):
        retrieval._check(x, labels[:9], x, labels)
    with pytest.raises(InputError, match="same encoder"):
        retrieval._check(x, labels, x[:, :4], labels)
    with pytest.raises(InputError, match="belong together"):
        evaluate_retrieval(x, labels, gallery=x)
    with pytest.raises(InputError, match="at least 1"):
        evaluate_retrieval(x, labels).hits(0)


def test_blocks_stay_small(monkeypatch):
    seen = []
    inner = retrieval._ranks
    monkeypatch.setattr(
        retrieval,
        "_ranks",
        lambda scores, wanted: seen.append(scores.nbytes) or inner(scores, wanted),
    )
    x, labels = clustered(0, 600)
    evaluate_retrieval(x, labels, chunk_bytes=40_000)
    assert max(seen) <= 40_000
    assert sum(seen) == 600 * 600 * 4


def test_summary_names():
    scores = RetrievalScores(
        np.array([1, 7, 0]), np.array([1.0, 0.5, np.nan]), np.array([1, 0, np.nan])
    )
    assert scores.summary() == {
        "rank1": 50.0,
        "rank5": 50.0,
        "rank10": 100.0,
        "map": 75.0,
        "map_at_r": 50.0,
    }


def test_cmd_retrieval_equals_loops():
    draw = np.random.default_rng(5)
    train, test = draw.normal(size=(60, 6)), draw.normal(size=(45, 6))
    train_labels, test_labels = draw.integers(0, 4, 60), draw.integers(0, 4, 45)
    found = evaluate_cmd_retrieval(train, train_labels, test, test_labels, depth=20)
    unit = [x / np.linalg.norm(x) for x in (*train, *test)]
    gallery = [i for i in range(105) if i < 60 or (i - 60) % 9]
    labels = np.concatenate([train_labels, test_labels])
    for place, query in enumerate(range(60, 105, 9)):
        near = sorted(gallery, key=lambda i: -float(unit[i] @ unit[query]))[:20]
        hits = [labels[i] == labels[query] for i in near]
        shares = [sum(hits[: j + 1]) / (j + 1) for j in range(20) if hits[j]]
        assert found.average_precision[place] == pytest.approx(np.mean(shares))
        assert found.rank[place] == hits.index(True) + 1


def test_cmd_retrieval_counts_what_it_finds_among_the_first_only():
    # One of three relevant photos is found, first: leave-one-out has less than 1, this has 1.
    train = np.array([[1, 0], [-1, 0.1], [-1, -0.1], [0, 1]], np.float32)
    test = np.array([[1, 0.01]], np.float32)
    labels = np.array([7, 7, 7, 8])
    found = evaluate_cmd_retrieval(train, labels, test, np.array([7]), depth=2)
    assert found.average_precision.tolist() == [1.0]
    deep = evaluate_cmd_retrieval(train[1:], labels[1:], test, np.array([7]), depth=1)
    assert (deep.rank.tolist(), deep.average_precision.tolist()) == ([4], [0.0])
    assert deep.rank_k(1) == 0
    lone = evaluate_cmd_retrieval(train, labels, test, np.array([9]))
    assert lone.lone == 1
    assert np.isnan(lone.average_precision[0])
