import pytest
import torch

from fieldmark.nn.diffusion import diffuse


def unit(count=40, dim=8, seed=0):
    x = torch.randn(count, dim, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return torch.nn.functional.normalize(x, dim=1)


def graph(features, neighbours):
    """Normalised weights of the mutual neighbours, one pair at a time."""
    count = len(features)
    cosine = [[float(a @ b) for b in features] for a in features]
    nearest = [
        sorted((j for j in range(count) if j != i), key=lambda j: -cosine[i][j])[:neighbours]
        for i in range(count)
    ]
    weights = torch.zeros(count, count, dtype=features.dtype)
    for i in range(count):
        for j in nearest[i]:
            if i in nearest[j]:
                weights[i, j] = max(cosine[i][j], 0.0) ** 3
    for i in range(count):
        assert weights[i].count_nonzero() <= neighbours
    degree = [sum(row.tolist()) or 1.0 for row in weights]
    for i in range(count):
        for j in range(count):
            weights[i, j] /= (degree[i] * degree[j]) ** 0.5
    return weights


@pytest.mark.parametrize("neighbours", [1, 4])
@pytest.mark.parametrize("share", [0.3, 0.9])
def test_equals_the_closed_form(neighbours, share):
    features = unit()
    mixed = torch.eye(40, dtype=torch.float64) - share * graph(features, neighbours)
    expected = torch.nn.functional.normalize(torch.linalg.solve(mixed, features), dim=1)
    torch.testing.assert_close(diffuse(features, neighbours, share), expected, atol=2e-5, rtol=0)


def test_rows_are_compared_in_parts(monkeypatch):
    features = unit()
    whole = diffuse(features, 4, 0.6)
    monkeypatch.setattr("fieldmark.nn.measures._PAIRS", 7 * 40)
    torch.testing.assert_close(diffuse(features, 4, 0.6), whole)


def test_photos_that_nobody_chose_keep_their_vector():
    pair = torch.tensor([[1.0, 0.0], [0.96, 0.28], [0.0, -1.0]])
    smooth = diffuse(pair, 1, 0.6)
    torch.testing.assert_close(smooth[2], pair[2])
    assert smooth[0] @ smooth[1] > pair[0] @ pair[1] + 0.01


def test_vectors_move_towards_the_group_and_stay_unit():
    centres = unit(4, 32, seed=1)
    members = centres.repeat_interleave(10, 0) + 0.15 * unit(40, 32, seed=2) * 32**0.5 / 2
    features = torch.nn.functional.normalize(members, dim=1)
    smooth = diffuse(features, 5, 0.6)
    own = torch.arange(4).repeat_interleave(10)
    before, after = ((x @ centres.T)[range(40), own].mean() for x in (features, smooth))
    assert after > before + 0.03
    torch.testing.assert_close(smooth.norm(dim=1), torch.ones(40, dtype=torch.float64))


def test_nothing_to_share_changes_nothing():
    features = unit()
    assert diffuse(features, 5, 0.0) is features
    assert torch.equal(diffuse(features[:1], 5, 0.6), features[:1])
    # More neighbours than photos.
    assert torch.isfinite(diffuse(features[:3], 50, 0.6)).all()


@pytest.mark.parametrize(("neighbours", "share"), [(0, 0.5), (5, 1.0), (5, -0.1)])
def test_settings_out_of_range_are_refused(neighbours, share):
    with pytest.raises(ValueError, match=r"must be (in|at least)"):
        diffuse(unit(), neighbours, share)
