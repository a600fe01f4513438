import itertools

import numpy as np
import pytest

from fieldmark.data.aviary import (
    MARKS,
    SPECIES_LIMIT,
    ArrayStore,
    Aviary,
    AviaryConfig,
    draw,
    species,
)


@pytest.fixture(scope="module")
def aviary() -> Aviary:
    return draw(AviaryConfig(species=16, per_species=8, size=64))


def test_species_differ_in_at_least_the_promised_number_of_marks():
    words = [species(number).forms for number in range(SPECIES_LIMIT)]
    distance = {
        (i, j): sum(a != b for a, b in zip(words[i], words[j], strict=True))
        for i, j in itertools.combinations(range(SPECIES_LIMIT), 2)
    }
    assert min(distance.values()) == 3
    assert {d for (_, j), d in distance.items() if j < 16} == {4}
    for count in (16, SPECIES_LIMIT):
        for mark in range(len(MARKS)):
            assert np.bincount([word[mark] for word in words[:count]]).tolist() == [count // 4] * 4


def test_species_names_are_unique():
    assert len({species(number).name[3:] for number in range(SPECIES_LIMIT)}) == SPECIES_LIMIT


def test_photo_depends_on_its_number_only(aviary):
    fewer = draw(AviaryConfig(species=16, per_species=3, size=64))
    for field in ("images", "backgrounds", "masks", "boxes", "parts", "mark_boxes", "test"):
        assert np.array_equal(getattr(aviary, field)[:48], getattr(fewer, field)), field


def test_other_seed_other_photos(aviary):
    other = draw(AviaryConfig(species=16, per_species=8, size=64, seed=1))
    same = (aviary.images == other.images).all(axis=(1, 2, 3))
    assert not same.any()


def test_array_store_shows_ragged_photos_and_skips_empty_ones():
    gen = np.random.default_rng(0)
    photos = [gen.integers(0, 256, (h, w, 3), dtype=np.uint8) for h, w in [(3, 5), (0, 4), (7, 2)]]
    store = ArrayStore(photos)
    assert len(store) == 3
    assert store.usable.tolist() == [0, 2]
    assert store.usable.dtype == np.int64
    assert store.shapes.tolist() == [[3, 5], [0, 0], [7, 2]]
    assert store.shapes.dtype == np.int32
    assert store.offsets.dtype == np.int64
    for row in store.usable:
        assert np.array_equal(store.photo(row), photos[row])
        assert np.shares_memory(store.photo(row), store.data)


def test_array_store_of_an_array_does_not_copy(aviary):
    store = ArrayStore(aviary.images)
    assert np.shares_memory(store.data, aviary.images)
    assert np.array_equal(store.photo(5), aviary.images[5])
