import numpy as np
import pytest

from fieldmark.errors import InputError
from fieldmark.evaluation.clusters import agreement
from fieldmark.index.clusters import estimate_kinds, find_clusters, suggest_merges


def kinds(count=12, each=25, dim=16, seed=0):
    random = np.random.default_rng(seed)
    centres = random.normal(size=(count, dim))
    labels = random.permutation(np.repeat(np.arange(count), each))
    x = centres[labels] + 0.45 * random.normal(size=(len(labels), dim))
    return (x / np.linalg.norm(x, axis=1, keepdims=True)).astype(np.float32), labels


def test_more_clusters_than_kinds_are_pure_and_merging_gives_the_kinds_back():
    x, labels = kinds()
    found = find_clusters(x, 36)
    counts = np.zeros((36, 12), int)
    np.add.at(counts, (found.assigned, labels), 1)
    assert counts.max(axis=1).sum() / len(x) > 0.95
    assert agreement(found.assigned, labels).accuracy < 70
    merges = suggest_merges(found, 12)
    assert agreement(merges.merged[found.assigned], labels).accuracy > 90
    names = counts.argmax(axis=1)
    right = names[merges.pairs[:, 0]] == names[merges.pairs[:, 1]]
    assert right[:12].mean() > 0.9
    assert right[-5:].mean() < 0.5
    assert (np.diff(merges.cosines) <= 1e-6).all()


def test_clusters_are_numbered_by_size_and_their_centres_are_the_means():
    x, _ = kinds()
    found = find_clusters(x, 20)
    sizes = np.bincount(found.assigned)
    assert (np.diff(sizes) <= 0).all()
    assert sizes.min() > 0
    for cluster in (0, 7, len(sizes) - 1):
        mean = x[found.assigned == cluster].mean(axis=0)
        mean /= np.linalg.norm(mean)
        np.testing.assert_allclose(found.centres[cluster], mean, atol=1e-5)
    own = np.einsum("nd,nd->n", x, found.centres[found.assigned])
    np.testing.assert_allclose(found.distances, 1 - own, atol=1e-5)
    # Nearly everyone is with the centre that is nearest.
    assert ((x @ found.centres.T).argmax(axis=1) == found.assigned).mean() > 0.97


def test_the_same_every_time_and_another_for_another_seed():
    x, _ = kinds()
    one, same, other = (find_clusters(x, 30, seed=seed) for seed in (3, 3, 4))
    np.testing.assert_array_equal(one.assigned, same.assigned)
    np.testing.assert_array_equal(one.centres, same.centres)
    assert (one.assigned != other.assigned).any()


@pytest.mark.parametrize("count", [1, 2, 5])
def test_few_photos(count):
    x, _ = kinds(5, 1)
    found = find_clusters(x, count)
    assert sorted(set(found.assigned.tolist())) == list(range(count))
    merges = suggest_merges(found, 2)
    assert len(merges.pairs) == count - 1
    assert merges.merged.max() == min(2, count) - 1
    assert 1 <= estimate_kinds(x[:count]) <= count


def test_too_many_clusters_are_refused():
    x, _ = kinds(2, 3)
    for count in (0, 7):
        with pytest.raises(InputError, match=r"6 photos cannot make . clusters; give 1 to 6"):
            find_clusters(x, count)


def test_copies_of_one_photo_do_no_harm():
    x = np.repeat(kinds(1, 1)[0], 30, axis=0)
    found = find_clusters(x, 4)
    assert len(found.assigned) == 30
    assert found.distances.max() < 1e-5
    suggest_merges(found, 2)
    assert estimate_kinds(x) >= 1


def test_kinds_are_estimated_within_a_factor_of_two():
    for count in (6, 30):
        x, _ = kinds(count, 20, 64)
        assert count / 2 <= estimate_kinds(x) <= 2 * count
