import numpy as np
import pytest

from fieldmark.errors import InputError
from fieldmark.evaluation.fewshot import few_shot


def photos(spread, classes=8, each=20, dim=16, seed=0):
    draw = np.random.default_rng(seed)
    labels = np.repeat(np.arange(classes), each)
    means = draw.normal(size=(classes, dim))
    return (means[labels] + spread * draw.normal(size=(len(labels), dim))).astype(
        np.float32
    ), labels


def test_separated_classes_are_always_told_and_noise_never_better_than_chance():
    sure = few_shot(*photos(0.001), episodes=50)
    assert sure.accuracy == 100
    noise = few_shot(
        np.random.default_rng(1).normal(size=(160, 16)).astype(np.float32),
        np.repeat(np.arange(8), 20),
    )
    assert abs(noise.accuracy - 20) < 2
    assert 0 < noise.margin < 1


def test_more_shots_and_fewer_ways_are_easier():
    x, labels = photos(1.2)
    one = few_shot(x, labels).accuracy
    assert few_shot(x, labels, shots=5).accuracy > one + 5
    assert few_shot(x, labels, ways=2).accuracy > one + 5


def test_an_episode_by_hand():
    # Two classes of two photos: with one shot each, one query each; the answer follows by cosine.
    x = np.array([[1, 0], [1, 0.1], [0, 1], [0.1, 1]], np.float32)
    found = few_shot(x, np.array([3, 3, 9, 9]), ways=2, shots=1, queries=5, episodes=10)
    assert found.episodes.tolist() == [1.0] * 10


def test_both_sides_of_a_comparison_get_the_same_episodes():
    x, labels = photos(1.0)
    same = few_shot(x * 3, labels, episodes=40)
    np.testing.assert_array_equal(same.episodes, few_shot(x, labels, episodes=40).episodes)
    other = few_shot(x, labels, episodes=40, seed=1)
    assert not np.array_equal(same.episodes, other.episodes)


def test_classes_with_too_few_photos_take_no_part():
    x, labels = photos(0.5, classes=4, each=6)
    labels[labels == 3] = np.arange(100, 106)  # six classes of one photo
    assert few_shot(x, labels, ways=3, shots=5, episodes=4).episodes.shape == (4,)
    with pytest.raises(InputError, match="need 4 classes of 6 photos or more; there are 3"):
        few_shot(x, labels, ways=4, shots=5)
    with pytest.raises(InputError, match="ways >= 2"):
        few_shot(x, labels, ways=1)


def test_a_class_that_cannot_ask_is_not_shown_either():
    x, labels = photos(0.001, classes=3)
    # Photos of one-photo classes look like class 0 and would take its queries.
    x = np.concatenate([x, x[:1].repeat(9, axis=0)])
    labels = np.concatenate([labels, np.arange(50, 59)])
    assert few_shot(x, labels, ways=3, episodes=30).accuracy == 100
