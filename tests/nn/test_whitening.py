import numpy as np
import pytest
import torch

from fieldmark.errors import InputError
from fieldmark.nn.whitening import fit_instance_lda, fit_whitening, normalise


def unit_vectors(count=200, dim=8, seed=0):
    generator = torch.Generator().manual_seed(seed)
    scales = torch.linspace(2, 0.2, dim)
    turn, _ = torch.linalg.qr(torch.randn(dim, dim, generator=generator))
    return normalise(torch.randn(count, dim, generator=generator) * scales @ turn + 0.5)


def test_against_numpy():
    x = unit_vectors()
    whitening = fit_whitening(x, 5, 0.25)
    y = whitening(x).double().numpy()
    values, vectors = np.linalg.eigh(np.cov(x.double().numpy().T, bias=True))
    expected = (x.double().numpy() - x.double().numpy().mean(0)) @ vectors[:, ::-1][:, :5]
    expected = expected * values[::-1][:5] ** -0.25
    # The same up to each direction's sign and one common scale.
    scale = np.linalg.norm(y) / np.linalg.norm(expected)
    np.testing.assert_allclose(np.abs(y), np.abs(expected) * scale, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize(("power", "even"), [(0.5, True), (0.0, False)])
def test_power_one_half_makes_directions_equal(power, even):
    y = fit_whitening(unit_vectors(), 8, power)(unit_vectors())
    covariance = torch.cov(y.T)
    off = covariance - torch.diag(covariance.diag())
    assert off.abs().max() < 1e-4 * covariance.diag().max()
    ratio = covariance.diag().max() / covariance.diag().min()
    assert (ratio < 1.01) == even


def test_chunks_and_order_do_not_matter():
    x = unit_vectors()
    whole = fit_whitening(x, 4)
    pieces = fit_whitening((x.flip(0)[i : i + 7] for i in range(0, 200, 7)), 4)
    torch.testing.assert_close(pieces.projection, whole.projection, rtol=1e-4, atol=1e-5)


def test_signs_do_not_depend_on_the_eigen_solver(monkeypatch):
    x = unit_vectors()
    first = fit_whitening(x, 8).projection
    solve = torch.linalg.eigh

    def mirrored(matrix):
        values, vectors = solve(matrix)
        return values, -vectors

    monkeypatch.setattr(torch.linalg, "eigh", mirrored)
    assert torch.equal(fit_whitening(x, 8).projection, first)


def test_fewer_directions_where_photos_span_fewer():
    x = unit_vectors(count=4, dim=8)
    assert fit_whitening(x, 100).projection.shape == (8, 3)
    flat = x.clone()
    flat[:, 4:] = 0
    assert fit_whitening(unit_vectors(50) * (torch.arange(8) < 3), 8).projection.shape[1] == 3


@pytest.mark.parametrize(
    ("embeddings", "dim", "message"),
    [
        (torch.ones(1, 4), 2, "at least 2 photos, got 1"),
        (torch.ones(5, 4), 2, "all embeddings are the same"),
        (torch.full((5, 4), torch.nan), 2, "NaN"),
        (torch.eye(4), 0, "whiten_dim must be >= 1, got 0"),
        ([], 2, "got 0"),
    ],
)
def test_what_cannot_be_whitened(embeddings, dim, message):
    with pytest.raises(InputError, match=message):
        fit_whitening(embeddings, dim)


def views_of(photos=60, dim=6, seed=0):
    """Photos that differ along axes 0, 2 and 3 and whose views differ, far more, along axis 1."""
    generator = torch.Generator().manual_seed(seed)
    signal = torch.randn(photos, 1, dim, generator=generator) * torch.tensor(
        [1.0, 0, 1.0, 1.0, 0, 0]
    )
    change = torch.randn(photos, 4, dim, generator=generator)
    change = change * torch.tensor([0.05, 3.0, 0.05, 0.05, 0.05, 0.05])
    return signal + change


def recall(x, y):
    return ((normalise(x) @ normalise(y).T).argmax(1) == torch.arange(len(x))).float().mean()


def test_instance_lda_lets_views_of_a_photo_find_each_other():
    train, test = views_of(seed=0), views_of(seed=1)
    before = recall(test[:, 0], test[:, 1])
    lda = fit_instance_lda(train, 3, shrinkage=0.001)
    after = recall(lda(test[:, 0]), lda(test[:, 1]))
    pca = fit_whitening(train.flatten(0, 1), 3)
    assert after > before + 0.3
    assert after > recall(pca(test[:, 0]), pca(test[:, 1])) + 0.2


def test_instance_lda_needs_views():
    with pytest.raises(InputError, match="2 views"):
        fit_instance_lda(torch.rand(5, 1, 4), 2)


def test_instance_lda_of_few_photos_keeps_every_direction():
    """Against the formula: deviations from each photo's mean, shrunk, to a power, nothing dropped."""
    generator = torch.Generator().manual_seed(0)
    views = torch.randn(6, 3, 12, generator=generator, dtype=torch.float64)
    found = fit_instance_lda(views.float(), None, 0.25, 0.5)
    assert found.projection.shape == (12, 12)
    deviations = (views - views.mean(1, keepdim=True)).flatten(0, 1)
    within = deviations.T @ deviations / (6 * 2)
    within = 0.5 * within + 0.5 * within.trace() / 12 * torch.eye(12, dtype=torch.float64)
    values, vectors = torch.linalg.eigh(within)
    expected = vectors @ torch.diag(values**-0.25) @ vectors.T
    x = torch.randn(5, 12, generator=generator, dtype=torch.float64)
    by_hand = (x - views.mean((0, 1))) @ expected
    # The same up to a rotation and one scale: all similarities agree.
    similarities = [normalise(y) @ normalise(y).T for y in (found(x.float()), by_hand.float())]
    torch.testing.assert_close(*similarities, rtol=1e-4, atol=1e-5)
    assert fit_instance_lda(views.float(), 12, 0.25, 0.5).projection.shape[1] == 5  # their span


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32, torch.float64])
def test_directions_are_unit_vectors_in_at_least_float32(dtype):
    whitening = fit_whitening(unit_vectors(40), 4)
    x = (3 * unit_vectors(5, seed=1)).to(dtype).requires_grad_()
    found = whitening.directions(x)
    assert found.dtype == (torch.float32 if dtype == torch.bfloat16 else dtype)
    expected = normalise(whitening(normalise(x)))
    torch.testing.assert_close(found.float(), expected, atol=1e-5, rtol=1e-4)
    found.sum().backward()
    assert x.grad.abs().max() > 0
