import csv
import math

import numpy as np
import pytest
from sklearn import metrics

from fieldmark.errors import InputError
from fieldmark.evaluation.classification import (
    LABELS,
    confusion_matrix,
    confusion_table,
    measure_classification,
)


def made_up(photos=400, classes=12, seed=0):
    generator = np.random.default_rng(seed)
    labels = generator.integers(0, classes - 2, photos)  # the last two have no test photos
    logits = generator.normal(0, 1, (photos, classes))
    logits[np.arange(photos), labels] += 1.5
    return logits, labels


def test_every_measure_equals_that_of_scikit_learn():
    logits, labels = made_up()
    found = measure_classification(logits, labels)
    predicted = logits.argmax(1)
    there = np.unique(labels)
    assert not set(predicted) <= set(there)  # classes without test photos are predicted too
    settings = {"labels": there, "average": "macro", "zero_division": 0}
    every = np.arange(logits.shape[1])
    expected = {
        "top1": metrics.accuracy_score(labels, predicted),
        "top5": metrics.top_k_accuracy_score(labels, logits, k=5, labels=every),
        "recall": metrics.recall_score(labels, predicted, **settings),
        "precision": metrics.precision_score(labels, predicted, **settings),
        "f1": metrics.f1_score(labels, predicted, **settings),
    }
    for name, value in expected.items():
        assert found.measures[name] == pytest.approx(100 * value, abs=1e-9), name
    np.testing.assert_array_equal(
        found.confusion, metrics.confusion_matrix(labels, predicted, labels=every)
    )
    assert found.confusion.dtype == np.int64


def test_by_hand():
    # Class 0: two of two right. Class 1: one of two, the other taken for 0. Class 2: never right.
    labels = np.array([0, 0, 1, 1, 2])
    predicted = np.array([0, 0, 1, 0, 1])
    found = measure_classification(np.eye(3)[predicted], labels)
    assert found.confusion.tolist() == [[2, 0, 0], [1, 1, 0], [0, 1, 0]]
    assert found.measures["top1"] == pytest.approx(60)
    assert found.measures["top5"] == 100
    assert found.measures["recall"] == pytest.approx(100 * (1 + 0.5 + 0) / 3)
    assert found.measures["precision"] == pytest.approx(100 * (2 / 3 + 1 / 2 + 0) / 3)
    assert found.measures["f1"] == pytest.approx(100 * (0.8 + 0.5 + 0) / 3)
    assert found.measures["f1_paper"] == pytest.approx(2 * 60 * 50 / 110)


@pytest.mark.parametrize(
    ("accuracy", "recall", "printed"), [(89.2, 87.6, 88.4), (87.5, 85.2, 86.3)]
)
def test_the_papers_f1_is_the_one_that_the_paper_prints(accuracy, recall, printed):
    """A class so large that it sets the accuracy, and another that sets the recall."""
    many, few = 100_000, 1_000
    other = round(few * (2 * recall - accuracy) / 100)
    right = round((accuracy / 100 * (many + few)) - other)
    labels = np.repeat([0, 1], [many, few])
    predicted = np.concatenate([np.arange(many) >= right, np.arange(few) < other]).astype(int)
    found = measure_classification(np.eye(2)[predicted], labels).measures
    assert found["top1"] == pytest.approx(accuracy, abs=0.01)
    assert found["recall"] == pytest.approx(recall, abs=0.1)
    assert found["f1_paper"] == pytest.approx(printed, abs=0.1)
    assert "harmonic mean" in LABELS["f1_paper"]


def test_top5_counts_five_and_equal_logits_go_to_the_smaller_class():
    logits = np.arange(10.0)[None].repeat(2, 0)
    measures = measure_classification(logits, np.array([5, 4])).measures
    assert measures["top5"] == 50  # class 5 is fifth, class 4 sixth
    flat = measure_classification(np.zeros((7, 7)), np.arange(7))
    assert flat.measures["top5"] == pytest.approx(100 * 5 / 7)
    assert flat.confusion[:, 0].tolist() == [1] * 7


def test_order_of_photos_and_scale_of_logits_do_not_matter():
    logits, labels = made_up(seed=3)
    order = np.random.default_rng(1).permutation(len(labels))
    first = measure_classification(logits, labels)
    other = measure_classification(7 * logits[order] - 2, labels[order])
    assert first.measures == pytest.approx(other.measures)
    np.testing.assert_array_equal(first.confusion, other.confusion)


def test_no_test_photos():
    found = measure_classification(np.zeros((0, 3)), np.zeros(0, np.int64))
    assert all(math.isnan(value) for value in found.measures.values())
    assert found.confusion.sum() == 0


def test_nothing_right_is_zero_everywhere():
    measures = measure_classification(np.eye(6)[[1, 2]] * 1.0, np.array([0, 1])).measures
    assert measures == dict.fromkeys(LABELS, 0.0) | {"top5": 100.0}


@pytest.mark.parametrize(
    ("logits", "labels", "words"),
    [
        (np.zeros((2, 2)), [0, 2], "labels run from 0 to 2"),
        (np.array([[0.0, 1.0], [np.nan, 0.0]]), [0, 1], "photo 1 are not finite"),
    ],
)
def test_what_cannot_be_measured_is_refused(logits, labels, words):
    with pytest.raises(InputError, match=words):
        measure_classification(logits, np.array(labels))


def test_the_table_names_true_classes_down_and_predicted_across():
    counts = confusion_matrix(np.array([0, 0, 1]), np.array([1, 1, 1]), 2)
    lines = list(csv.DictReader(confusion_table(counts, ["a, b", "c"]).splitlines()))
    assert lines == [
        {"true class": "a, b", "a, b": "0", "c": "2"},
        {"true class": "c", "a, b": "0", "c": "1"},
    ]
