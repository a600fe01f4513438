import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from fieldmark import rng


def test_uniform_passes_ks_and_has_uncorrelated_columns():
    draws = rng.uniform(4, 7, 3, np.arange(20_000), 1)
    assert draws.shape == (20_000, 4)
    for column in draws.T:
        assert stats.kstest(column, "uniform").pvalue > 1e-4
    off_diagonal = np.corrcoef(draws.T) - np.eye(4)
    assert np.abs(off_diagonal).max() < 0.03


@given(st.integers(0, 2**40), st.lists(st.integers(0, 10_000), min_size=1, max_size=20))
def test_a_number_depends_on_its_address_only(seed, rows):
    alone = np.stack([rng.uniform(3, seed, row) for row in rows])
    together = rng.uniform(3, seed, np.array(rows))
    np.testing.assert_array_equal(alone, together)


def test_every_word_and_its_place_matter():
    seeds = {
        rng.seed_of(*address) for address in [(1, 2), (2, 1), (1, 2, 0), ("1", 2), (1,), (0, 2)]
    }
    assert len(seeds) == 6


def test_seed_fits_a_signed_64_bit_integer():
    assert all(0 <= rng.seed_of("stage", i) < 2**63 for i in range(1000))


def test_neighbouring_addresses_flip_half_the_bits():
    flips = np.bitwise_count(rng.mix(5, np.arange(5000)) ^ rng.mix(5, np.arange(1, 5001)))
    assert abs(flips.mean() - 32) < 0.5
