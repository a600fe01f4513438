import math

import pytest
import torch
from torch.nn.functional import normalize

import tiny
from fieldmark.training import health
from fieldmark.training.health import MEASURES, HealthProbe


def test_spread_is_one_on_the_sphere_and_zero_in_collapse():
    torch.manual_seed(0)
    even = normalize(torch.randn(4000, 16), dim=1)
    assert health.feature_spread(even) == pytest.approx(1.0, abs=0.02)
    assert health.feature_spread(even[:1].expand(50, 16)) == pytest.approx(0, abs=1e-4)


@pytest.mark.parametrize("count", [5, 40])
def test_effective_rank_counts_directions(count):
    """Both ways of the product: fewer photos than dimensions, and more."""
    features = torch.eye(20)[torch.arange(count) % 4]
    equal = features if count % 4 == 0 else features[:4]
    assert health.effective_rank(equal) == pytest.approx(4, abs=0.01)
    x = torch.randn(count, 20).double()
    singular = torch.linalg.svdvals(x)
    share = singular / singular.sum()
    expected = math.exp(-sum(p * math.log(p) for p in share.tolist()))
    assert health.effective_rank(x.float()) == pytest.approx(expected, rel=1e-3)


def test_alignment_uniformity_and_recall_as_loops():
    torch.manual_seed(1)
    a, b = (normalize(torch.randn(7, 4).double(), dim=1).float() for _ in range(2))
    squared = [[sum((x - y) ** 2 for x, y in zip(p, q)) for q in b.tolist()] for p in a.tolist()]
    assert health.alignment(a, b) == pytest.approx(
        sum(squared[i][i] for i in range(7)) / 7, rel=1e-5
    )
    found = sum(min(range(7), key=lambda j: squared[i][j]) == i for i in range(7))
    assert health.view_recall(a, b) == pytest.approx(found / 7)
    rows = a.tolist()
    pairs = [
        math.exp(-2 * sum((x - y) ** 2 for x, y in zip(rows[i], rows[j])))
        for i in range(7)
        for j in range(i)
    ]
    assert health.uniformity(a) == pytest.approx(math.log(sum(pairs) / len(pairs)), rel=1e-4)


def test_collapse_finds_nothing():
    same = normalize(torch.ones(9, 4), dim=1)
    assert health.view_recall(same, same) == 0.0


def test_neighbour_agreement():
    before = torch.tensor([[1, 2], [0, 2]])
    after = torch.tensor([[2, 1], [0, 3]])
    assert health.neighbour_agreement(before, after) == 0.75
    points = normalize(torch.tensor([[1.0, 0], [0.9, 0.1], [0, 1], [0.1, 0.9]]), dim=1)
    assert health.neighbours(points, 1).flatten().tolist() == [1, 0, 3, 2]


def probe(start, **settings):
    return HealthProbe.build(
        start, tiny.ArrayStore(24), range(24), tiny.views("mocov2"), size=16, photos=12, **settings
    )


def test_at_the_start_nothing_has_moved():
    method = tiny.method("mocov2")
    encoder = method.exports()["student"]
    looked = probe(encoder).look(encoder)
    assert set(looked) == set(MEASURES)
    assert looked["start_neighbours"] == 1
    assert looked["weight_distance"] == 0
    assert looked["feature_distance"] == pytest.approx(0, abs=1e-6)


def test_a_look_changes_nothing_and_repeats():
    method = tiny.method("mocov2", batch_norm=True).train()
    method.backbone.network[1].eval()  # as a frozen layer is
    encoder = method.exports()["student"]
    before = tiny.state(method)
    look = probe(encoder)
    assert look.look(encoder) == look.look(encoder)
    assert tiny.largest_difference(before, tiny.state(method)) == 0
    assert method.training
    assert method.backbone.network[4].training
    assert not method.backbone.network[1].training


def test_distances_tell_how_far_it_went():
    encoder = tiny.method("mocov2").exports()["student"]
    look = probe(encoder)
    with torch.no_grad():
        for parameter in encoder.parameters():
            parameter.mul_(1.5)
    looked = look.look(encoder)
    assert looked["weight_distance"] == pytest.approx(0.5, rel=1e-4)
    assert looked["feature_distance"] > 1e-4
    assert looked["start_neighbours"] < 1


def test_the_sample_depends_on_the_seed_alone():
    encoder = tiny.method("mocov2").exports()["student"]
    first, again, other = (probe(encoder, seed=s).look(encoder) for s in (0, 0, 1))
    assert first == again != other
