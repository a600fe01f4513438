import json

import numpy as np
import pytest

from fieldmark.errors import ArtifactError, InputError
from fieldmark.evaluation.evaluate import (
    Comparison,
    EvalConfig,
    EvalResult,
    compare,
    evaluate_encoder,
    two_by_two,
)

FAST = EvalConfig(fractions=(0.5, 0.2), subset_seeds=2)
CLASSES = [f"species {i}" for i in range(8)]


def photos(seed, noise, each=12, dim=16):
    """Embeddings of one set of photos under an encoder that sees them with some noise."""
    labels = np.repeat(np.arange(8), each)
    centres = np.random.default_rng(5).standard_normal((8, dim))
    own = np.random.default_rng(seed).standard_normal((len(labels), dim))
    return (centres[labels] + noise * own).astype(np.float32), labels


def evaluate(noise, config=FAST):
    return evaluate_encoder(*photos(0, noise), *photos(1, noise), CLASSES, config)


@pytest.fixture(scope="module")
def start():
    return evaluate(2.0)


@pytest.fixture(scope="module")
def better():
    return evaluate(1.0)


def test_measures(start):
    names = [
        "rank1",
        "rank5",
        "rank10",
        "map",
        "map_at_r",
        "knn",
        "linear",
        "linear@50",
        "linear@20",
    ]
    assert list(start.measures) == names
    for name, value in start.measures.items():
        assert 12.5 < value < 100
        assert value == pytest.approx(100 * start.per_query[name].mean())
        assert start.per_class(name).mean() == pytest.approx(value)  # classes are of equal size
    assert start.measures["linear@20"] < start.measures["linear"]
    assert set(start.spread) == {"linear@50", "linear@20"}
    assert start.lone == 0


def test_better_encoder_helped_and_the_other_way_hurt(start, better):
    gain = compare(start, better)
    assert gain.verdict.text == "helped"
    assert set(gain.gains) == set(start.measures)
    assert gain.gains["map"].value == pytest.approx(better.measures["map"] - start.measures["map"])
    assert gain.gains["map"].low > 0
    assert "96 test photos of 8 classes" in gain.verdict.sentence
    assert compare(better, start).verdict.text == "hurt"
    assert compare(start, start).verdict.text == "no difference shown"


def test_json_and_back(start, better):
    again = EvalResult.from_dict(json.loads(json.dumps(start.to_dict(), allow_nan=False)))
    assert again.measures == start.measures
    for name, values in start.per_query.items():
        np.testing.assert_array_equal(again.per_query[name], values)
    found = compare(again, better)
    assert found == compare(start, better)
    plain = json.loads(json.dumps(found.to_dict(), allow_nan=False))
    assert Comparison.from_dict(plain) == found
    assert plain["verdict"] == "helped"
    assert {"rank1", "rank5", "map", "linear"} <= set(plain["start"]) & set(plain["gain"])
    assert len(plain["interval"]["map"]) == 2


def test_lone_photos_survive_json():
    x, labels = photos(1, 1.0)
    labels = labels.copy()
    labels[labels == 7] = 6
    labels[0] = 7
    result = evaluate_encoder(x, labels, x, labels, CLASSES, FAST)
    assert result.lone == 1
    again = EvalResult.from_dict(json.loads(json.dumps(result.to_dict(), allow_nan=False)))
    assert np.isnan(again.per_query["map"][0])
    assert np.isnan(again.per_class("map")[7])
    assert compare(result, again).verdict.text == "no difference shown"


def test_without_train_photos_only_retrieval_is_measured():
    x, labels = photos(1, 1.0)
    result = evaluate_encoder(x[:0], labels[:0], x, labels, CLASSES, FAST)
    assert set(result.measures) == {"rank1", "rank5", "rank10", "map", "map_at_r"}


def test_without_pairs_nothing_is_claimed():
    x, _ = photos(1, 1.0)
    result = evaluate_encoder(x[:0], np.arange(0), x[:8], np.arange(8), CLASSES, FAST)
    found = compare(result, result)
    assert found.verdict.text == "not measured"
    json.dumps(found.to_dict(), allow_nan=False)
    json.dumps(result.to_dict(), allow_nan=False)


def test_other_photos_cannot_be_compared(start):
    x, labels = photos(1, 1.0)
    other = evaluate_encoder(x[:0], labels[:0], x[:50], labels[:50], CLASSES, FAST)
    with pytest.raises(InputError, match="different photos"):
        compare(start, other)


def test_labels_out_of_range():
    x, labels = photos(1, 1.0)
    with pytest.raises(InputError, match="with 3 classes"):
        evaluate_encoder(x, labels, x, labels, CLASSES[:3], FAST)


def test_foreign_json_is_refused():
    with pytest.raises(ArtifactError, match="not an evaluation"):
        EvalResult.from_dict({"format": "something"})


def test_two_by_two(start, better):
    grid = two_by_two({("start", "plain"): start, ("trained", "post"): better}, ("map",))
    assert grid == {
        "map": {
            "start": {"plain": start.measures["map"], "post": None},
            "trained": {"plain": None, "post": better.measures["map"]},
        }
    }
