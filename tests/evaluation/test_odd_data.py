"""Data as it comes: lone photos, classes that train never shows, two classes, thousands of them."""

import numpy as np
import pytest

from fieldmark.errors import InputError
from fieldmark.evaluation.clusters import cluster
from fieldmark.evaluation.evaluate import (
    EvalConfig,
    compare,
    evaluate_encoder,
    probe_fraction,
    subset_table,
)
from fieldmark.evaluation.fewshot import few_shot
from fieldmark.evaluation.openset import open_set

FEW = EvalConfig(fractions=(0.5,), subset_seeds=2)


def photos(labels, dim=16, noise=0.3, seed=0):
    generator = np.random.default_rng(seed)
    labels = np.asarray(labels, np.int64)
    centres = np.random.default_rng(99).standard_normal((int(labels.max(initial=0)) + 1, dim))
    x = centres[labels] + noise * generator.standard_normal((len(labels), dim))
    return (x / np.linalg.norm(x, axis=1, keepdims=True)).astype(np.float32), labels


def names(count):
    return [f"class {i}" for i in range(count)]


def written_out(x, labels):
    """Rank-1 and average precision, one query after another."""
    hits, precisions = [], []
    for i in range(len(x)):
        order = [j for j in np.argsort(-(x @ x[i]), kind="stable") if j != i]
        right = labels[order] == labels[i]
        if right.any():
            hits.append(right[0])
            ranks = np.flatnonzero(right) + 1
            precisions.append(np.mean(np.arange(1, len(ranks) + 1) / ranks))
    return 100 * np.mean(hits), 100 * np.mean(precisions)


def test_a_class_with_one_photo_is_counted_and_left_out_of_retrieval_only():
    x, labels = photos([0] * 6 + [1] * 6 + [2])
    result = evaluate_encoder(x, labels, x, labels, names(3), FEW)
    assert result.lone == 1
    rank1, precision = written_out(x, labels)
    assert result.measures["rank1"] == pytest.approx(rank1)
    assert result.measures["map"] == pytest.approx(precision)
    assert np.isnan(result.per_query["map"][-1])
    assert not np.isnan(result.per_query["linear"][-1])
    # A class of one photo keeps it at every fraction.
    assert ",1,1" not in subset_table(["p"] * 13, labels, names(3), FEW).splitlines()[-1]


def test_a_class_that_only_test_has_is_never_guessed_and_counts_as_wrong():
    x, labels = photos([0] * 8 + [1] * 8 + [2] * 8, noise=0.05)
    seen = labels < 2
    result = evaluate_encoder(x[seen], labels[seen], x, labels, names(3), FEW)
    for name in ("knn", "linear", "linear@50"):
        assert result.measures[name] == pytest.approx(100 * 2 / 3)
    assert not (result.predictions["linear"] == 2).any()
    assert result.measures["rank1"] == 100


@pytest.mark.parametrize("side", ["train", "test"])
def test_an_empty_side_leaves_out_what_needs_it(side):
    x, labels = photos([0] * 5 + [1] * 5)
    none, nothing = x[:0], labels[:0]
    if side == "train":
        result = evaluate_encoder(none, nothing, x, labels, names(2), FEW)
        assert set(result.measures) == {"rank1", "rank5", "rank10", "map", "map_at_r"}
        with pytest.raises(InputError, match="the gallery is to be the labelled train photos"):
            evaluate_encoder(
                none, nothing, x, labels, names(2), EvalConfig(gallery="train", fractions=())
            )
    else:
        result = evaluate_encoder(x, labels, none, nothing, names(2), FEW)
        assert all(np.isnan(value) for value in result.measures.values())
    assert compare(result, result).verdict.text == (
        "no difference shown" if side == "train" else "not measured"
    )


@pytest.mark.parametrize("where", ["train", "test"])
@pytest.mark.parametrize("value", [np.nan, np.inf, 0.0])
def test_features_that_are_no_directions_are_refused_by_number(where, value):
    x, labels = photos([0] * 5 + [1] * 5)
    bad = x.copy()
    bad[3] = value
    sides = (bad, x) if where == "train" else (x, bad)
    with pytest.raises(InputError, match="3"):
        evaluate_encoder(sides[0], labels, sides[1], labels, names(2), FEW)


def test_two_classes():
    x, labels = photos([0] * 20 + [1] * 20, dim=4, noise=1.5)
    result = evaluate_encoder(x[::2], labels[::2], x[1::2], labels[1::2], names(2), FEW)
    rank1, precision = written_out(x[1::2], labels[1::2])
    assert (result.measures["rank1"], result.measures["map"]) == pytest.approx((rank1, precision))
    assert result.classification["top5"] == 100
    found = compare(result, result)
    assert np.isfinite([found.gains["map"].low, found.gains["map"].high]).all()
    assert 0 <= cluster(x, labels, seeds=range(1)).measures["nmi"] <= 100
    assert "auroc" in open_set(x[::2], labels[::2], x[1::2], labels[1::2]).measures
    with pytest.raises(InputError):
        few_shot(x, labels, shots=1)


def test_one_query_is_answered_and_nothing_is_claimed():
    x, labels = photos([0] * 6 + [1] * 6)
    result = evaluate_encoder(x, labels, x[:1], labels[:1], names(2), FEW)
    assert result.lone == 1
    assert np.isnan(result.measures["map"])
    assert result.measures["linear"] in {0.0, 100.0}
    found = compare(result, result)
    assert found.verdict.text == "not measured"
    assert "1 of 1 class" in found.verdict.sentence or "0 of 0 class" in found.verdict.sentence


def test_one_class():
    x, labels = photos([0] * 8)
    result = evaluate_encoder(x, labels, x, labels, names(1), FEW)
    assert {result.measures[name] for name in ("rank1", "map", "knn", "linear")} == {100.0}
    assert compare(result, result).verdict.text == "no difference shown"
    with pytest.raises(InputError):
        few_shot(x, labels)


def test_labels_beyond_the_classes_are_refused_with_both_numbers():
    x, labels = photos([0] * 4 + [1] * 4)
    with pytest.raises(InputError, match=r"from 0 to 1; with 1 classes they must run from 0 to 0"):
        evaluate_encoder(x, labels, x, labels, names(1), FEW)


@pytest.mark.parametrize("count", [500, pytest.param(5_000, marks=pytest.mark.slow)])
def test_thousands_of_classes_have_the_numbers_that_few_have(count):
    x, labels = photos(np.repeat(np.arange(count), 3), dim=64, noise=0.3)
    train = np.tile([True, False, False], count)
    config = EvalConfig(fractions=(), linear=True)
    result = evaluate_encoder(
        x[train], labels[train], x[~train], labels[~train], names(count), config
    )
    assert result.measures["rank1"] > 90
    # Two photos a class in test: R is 1, and mean average precision at 1 is rank-1.
    assert result.measures["map_at_r"] == pytest.approx(result.measures["rank1"])
    assert result.measures["linear"] > 90
    assert len(np.unique(result.predictions["linear"])) > 0.9 * count
    few = labels[~train] < 50
    alone = x[~train][few]
    expected = (np.argsort(-(alone @ x[~train].T), axis=1)[:, 1] // 2) == labels[~train][few]
    assert result.per_query["rank1"][few].mean() == pytest.approx(expected.mean())


def test_a_fraction_below_one_photo_a_class_takes_one_of_each():
    x, labels = photos(np.repeat(np.arange(10), 3))
    right = probe_fraction(x, labels, x, labels, 10, 0.01, FEW)
    assert right.shape == (2, 30)
    assert 0 < right.mean() <= 1
