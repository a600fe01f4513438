import numpy as np
import pytest

from fieldmark.errors import InputError
from fieldmark.evaluation.taxonomy import measure_mistakes

# Four species of three genera of two families.
GENUS = ["Corvus", "Corvus", "Pica", "Parus"]
FAMILY = ["Corvidae", "Corvidae", "Corvidae", "Paridae"]


def test_mistakes_by_hand():
    labels = np.array([0, 0, 0, 0, 3, 1])
    predicted = np.array([0, 1, 2, 3, 3, 0])
    found = measure_mistakes(labels, predicted, {"genus": GENUS, "family": FAMILY})
    assert found["mistakes"] == pytest.approx(100 * 4 / 6)
    assert found["within genus"] == pytest.approx(50)
    assert found["within family"] == pytest.approx(75)
    # 1 and 0 share a genus (twice), 2 and 0 a family, 3 and 0 nothing.
    assert found["severity"] == pytest.approx((1 + 2 + 3 + 1) / 4)


def test_the_order_of_levels_does_not_matter():
    labels, predicted = np.array([0, 0, 2]), np.array([1, 3, 0])
    one = measure_mistakes(labels, predicted, {"genus": GENUS, "family": FAMILY})
    assert one == measure_mistakes(labels, predicted, {"family": FAMILY, "genus": GENUS})


def test_no_mistakes_and_no_levels():
    labels = np.array([0, 1])
    assert measure_mistakes(labels, labels, {"genus": GENUS})["severity"] == 0
    assert measure_mistakes(labels, labels[::-1], {}) == {"mistakes": 100.0, "severity": 1.0}


def test_a_level_must_know_every_class():
    with pytest.raises(InputError, match="'genus' names groups for 4 classes; there are 5"):
        measure_mistakes(np.array([4]), np.array([0]), {"genus": GENUS})
