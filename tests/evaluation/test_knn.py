import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fieldmark.errors import InputError
from fieldmark.evaluation.knn import weighted_knn


def loops(train, labels, test, classes, k, temperature):
    predicted = []
    for photo in test:
        scores = [float(np.dot(photo, other)) for other in train]
        near = sorted(range(len(train)), key=lambda i: (-scores[i], i))[:k]
        votes = [0.0] * classes
        for i in near:
            votes[labels[i]] += np.exp(scores[i] / temperature)
        predicted.append(int(np.argmax(np.round(votes, 9))))
    return predicted


@settings(deadline=None, max_examples=30)
@given(
    seed=st.integers(0, 9999), k=st.integers(1, 60), chunk_bytes=st.sampled_from([1, 2_000, 2**28])
)
def test_equals_loops_with_ties(seed, k, chunk_bytes):
    generator = np.random.default_rng(seed)
    train = generator.choice([-0.5, 0.5], (40, 4)).astype(np.float32)
    test = generator.choice([-0.5, 0.5], (9, 4)).astype(np.float32)
    labels = generator.integers(0, 5, 40)
    # At temperature 1 weights of ties add up to numbers that rarely tie between classes.
    found = weighted_knn(
        train, labels, test, classes=5, k=k, temperature=0.9, chunk_bytes=chunk_bytes
    )
    assert found.tolist() == loops(train, labels, test, 5, k, 0.9)


def test_small_temperature_is_the_nearest_neighbour():
    train = np.eye(3, dtype=np.float32)
    test = np.array([[3, 1, 0], [0, 1, 2]], np.float32)
    found = weighted_knn(train, np.array([2, 0, 1]), test, classes=3, temperature=1e-4)
    assert found.tolist() == [2, 1]


def test_a_majority_of_far_photos_outvotes_at_high_temperature():
    train = np.array([[1, 0], [0.6, 0.8], [0.6, 0.8]], np.float32)
    labels, test = np.array([0, 1, 1]), np.array([[1, 0]], np.float32)
    assert weighted_knn(train, labels, test, classes=2, temperature=10.0)[0] == 1
    assert weighted_knn(train, labels, test, classes=2, temperature=0.1)[0] == 0
    assert weighted_knn(train, labels, test, classes=2, temperature=10.0, k=1)[0] == 0


@pytest.mark.parametrize("bad", [{"k": 0}, {"temperature": 0.0}])
def test_values_are_checked(bad):
    with pytest.raises(InputError, match="usual values"):
        weighted_knn(np.eye(2), np.array([0, 1]), np.eye(2), classes=2, **bad)


def test_an_empty_memory_is_refused():
    with pytest.raises(InputError, match="at least one"):
        weighted_knn(np.zeros((0, 2)), np.zeros(0, np.int64), np.eye(2), classes=2)
