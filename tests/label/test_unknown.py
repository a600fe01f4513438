import numpy as np
import pytest
from madeup import clusters

from fieldmark.errors import InputError
from fieldmark.evaluation.openset import auroc
from fieldmark.label.unknown import fit_familiarity, fit_rejection, left_out_scores


def plain(x, labels, query, shrink=0.4):
    """The two distances in loops, in float64."""

    def shrunk(differences, freedom):
        covariance = differences.T @ differences / freedom
        level = np.trace(covariance) / len(covariance)
        return (1 - shrink) * covariance + shrink * level * np.eye(len(covariance))

    x, query = x.astype(np.float64), query.astype(np.float64)
    means = {label: x[labels == label].mean(axis=0) for label in set(labels)}
    within = shrunk(np.stack([a - means[b] for a, b in zip(x, labels)]), len(x) - len(means))
    overall = shrunk(x - x.mean(axis=0), len(x) - 1)
    scores = []
    for photo in query:
        near = min((photo - m) @ np.linalg.solve(within, photo - m) for m in means.values())
        far = (photo - x.mean(axis=0)) @ np.linalg.solve(overall, photo - x.mean(axis=0))
        scores.append(far - near)
    return np.array(scores)


def test_familiarity_is_the_difference_of_two_mahalanobis_distances():
    x, labels = clusters()
    query, _ = clusters(seed=1)
    found = fit_familiarity(x, labels).scores(query)
    np.testing.assert_allclose(found, plain(x, labels, query), rtol=1e-3, atol=1e-2)


def test_scores_of_left_out_photos_are_nearly_those_of_fits_without_them():
    x, labels = clusters(4, 8, dim=20, spread=1.0)
    known = fit_familiarity(x, labels)
    found = left_out_scores(known, x, labels)
    wanted = np.concatenate(
        [
            fit_familiarity(np.delete(x, row, 0), np.delete(labels, row)).scores(x[row : row + 1])
            for row in range(len(x))
        ]
    )
    naive = known.scores(x)
    assert np.abs(found - wanted).mean() < 0.1 * np.abs(naive - wanted).mean()
    assert np.corrcoef(found, wanted)[0, 1] > 0.99


def test_a_photo_alone_in_its_class_has_no_left_out_score():
    x, labels = clusters(3, 5)
    labels = np.append(labels, 7)
    x = np.vstack([x, x[:1]])
    assert len(left_out_scores(fit_familiarity(x, labels), x, labels)) == 15


def test_new_classes_are_less_familiar_and_the_threshold_loses_what_it_states():
    x, labels = clusters(12, 40, spread=0.5)
    known = labels < 8
    made = fit_familiarity(x[known], labels[known])
    rejection = fit_rejection(made, x[known], labels[known], lost=0.1)
    query, truth = clusters(12, 40, spread=0.5, seed=1)
    scores, own = made.scores(query), truth < 8
    assert auroc(scores.astype(np.float64), own) > 0.85
    assert (scores[own] < rejection.threshold).mean() == pytest.approx(0.1, abs=0.05)
    assert (scores[~own] < rejection.threshold).mean() > 0.4
    assert rejection.auroc > 0.8
    assert 0.3 < rejection.caught <= 1


def test_with_few_classes_nothing_is_claimed():
    x, labels = clusters(3, 8)
    rejection = fit_rejection(fit_familiarity(x, labels), x, labels)
    assert np.isnan(rejection.auroc)
    assert np.isnan(rejection.caught)
    with pytest.raises(InputError, match="class of two photos"):
        fit_rejection(fit_familiarity(x[:3], labels[:3]), x[:3], labels[:3])
    with pytest.raises(InputError, match="between 0 and 1, got 0"):
        fit_rejection(fit_familiarity(x, labels), x, labels, lost=0.0)
    with pytest.raises(InputError, match="no photo"):
        fit_familiarity(x[:0], labels[:0])


def test_wide_embeddings_are_narrowed_to_principal_directions_half_whitened():
    x, labels = clusters(6, 60, dim=300, spread=0.2)
    known = fit_familiarity(x, labels)
    assert known.narrowing is not None
    centred = x - x.mean(axis=0)
    _, values, vectors = np.linalg.svd(centred.astype(np.float64), full_matrices=False)
    turned = centred @ vectors[:256].T / np.sqrt(values[:256])
    turned /= np.linalg.norm(turned, axis=1, keepdims=True)
    np.testing.assert_allclose(known.seen(x) @ known.seen(x).T, turned @ turned.T, atol=1e-3)
    query, _ = clusters(6, 20, dim=300, spread=0.2, seed=1)
    strangers, _ = clusters(6, 20, dim=300, spread=0.2, seed=2)
    strangers = np.roll(strangers, 7, axis=1)
    both = np.concatenate([known.scores(query), known.scores(strangers)]).astype(np.float64)
    assert auroc(both, np.arange(240) < 120) > 0.95
    assert len(left_out_scores(known, x, labels)) == 360
    assert fit_familiarity(x[:, :256], labels).narrowing is None


def test_the_scatter_of_all_is_put_together_of_two_to_rounding():
    x, labels = clusters(9, 20, dim=16)
    labels = labels.copy()
    labels[:7] = 30  # A class of photos of many kinds, and classes of unlike size.
    known = fit_familiarity(x, labels)
    exact = x.astype(np.float64)
    differences = exact - exact.mean(axis=0)
    covariance = 0.6 * differences.T @ differences / (len(x) - 1)
    covariance += 0.4 * np.square(differences).sum() / (len(x) - 1) / 16 * np.eye(16)
    root = known.overall.root.astype(np.float64)
    np.testing.assert_allclose(np.linalg.inv(root @ root.T), covariance, rtol=1e-5, atol=1e-7)


def test_left_out_scores_are_those_of_one_photo_after_another():
    x, labels = clusters(5, 6, dim=10)
    known = fit_familiarity(x, labels)
    share = known.within.share
    centres = (known.means @ known.within.root).astype(np.float64)
    wanted = []
    for row, label in enumerate(labels):
        turned = (x[row] @ known.within.root).astype(np.float64)
        own = turned - centres[label]
        # Inverse of the covariance without this photo, where the ellipsoid is the sphere.
        lost = share * 6 / 5
        inverse = np.linalg.inv(np.eye(10) - lost * np.outer(own, own))
        moved = centres.copy()
        moved[label] = turned - own * 6 / 5
        near = min((turned - centre) @ inverse @ (turned - centre) for centre in moved)
        far = np.square((x[row] - known.mean) @ known.overall.root).sum(dtype=np.float64)
        all_grown = len(x) / (len(x) - 1)
        wanted.append(all_grown**2 * far / (1 - known.overall.share * all_grown * far) - near)
    np.testing.assert_allclose(left_out_scores(known, x, labels), wanted, rtol=1e-5, atol=1e-5)


def test_a_threshold_alone_is_that_of_the_whole_measurement():
    x, labels = clusters(12, 20)
    known = fit_familiarity(x, labels)
    whole = fit_rejection(known, x, labels)
    quick = fit_rejection(known, x, labels, measure=False)
    assert quick.threshold == whole.threshold
    assert np.isnan([quick.auroc, quick.caught]).all()
    assert np.isfinite([whole.auroc, whole.caught]).all()
