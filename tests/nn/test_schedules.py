import math

import pytest

from fieldmark.nn.schedules import cosine, linear, steps, warm_up


@pytest.mark.parametrize(
    ("fraction", "expected"),
    [(-1.0, 1.0), (0.0, 1.0), (1 / 3, 0.75), (0.5, 0.5), (2 / 3, 0.25), (1.0, 0.0), (2.0, 0.0)],
)
def test_cosine(fraction, expected):
    assert cosine(1.0, 0.0, fraction) == pytest.approx(expected, abs=1e-12)


def test_cosine_is_mocos_formula():
    for epoch in range(0, 101, 7):
        expected = 0.03 * 0.5 * (1 + math.cos(math.pi * epoch / 100))
        assert cosine(0.03, 0.0, epoch / 100) == pytest.approx(expected)


def test_cosine_up_is_moco_v3s_momentum():
    for share in (0.0, 0.25, 0.9):
        expected = 1 - 0.5 * (1 + math.cos(math.pi * share)) * (1 - 0.99)
        assert cosine(0.99, 1.0, share) == pytest.approx(expected)


def test_linear_and_steps_and_warm_up():
    assert linear(0.0, 4.0, 0.25) == 1.0
    assert [steps(1.0, (60.0, 80.0), 0.5, epoch) for epoch in (59.9, 60.0, 79.0, 80.0, 99.0)] == [
        1,
        0.5,
        0.5,
        0.25,
        0.25,
    ]
    assert [warm_up(2.0, epoch, 4.0) for epoch in (0.0, 1.0, 4.0, 9.0)] == [0, 0.5, 2, 2]
    assert warm_up(2.0, 0.0, 0.0) == 2.0
