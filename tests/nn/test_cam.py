import math

import pytest
import torch

from fieldmark.backbones.watched import in_cells
from fieldmark.errors import InputError
from fieldmark.nn import cam


def softmax(values, temperature):
    powers = [math.exp(v / temperature) for v in values]
    return [p / sum(powers) for p in powers]


def divergence_by_hand(target, fitted, temperature, *, rows):
    total = 0.0
    for first, second in zip(target.tolist(), fitted.tolist()):
        groups = (
            zip(first, second) if rows else [([v for r in first for v in r], [v for r in second for v in r])]
        )  # fmt: skip
        for ours, theirs in groups:
            p, q = softmax(ours, temperature), softmax(theirs, temperature)
            total += sum(a * math.log(a / b) for a, b in zip(p, q))
    return total / len(target)


@pytest.mark.parametrize("rows", [False, True])
def test_divergence_is_the_papers(rows):
    torch.manual_seed(0)
    target, fitted = torch.rand(3, 4, 5).double(), torch.rand(3, 4, 5).double()
    expected = divergence_by_hand(target, fitted, 0.4, rows=rows)
    found = cam.map_divergence(target, fitted, temperature=0.4, rows=rows)
    assert found.item() == pytest.approx(expected, abs=1e-12)
    assert cam.map_divergence(target, target, rows=rows).item() == pytest.approx(0, abs=1e-12)


@pytest.mark.parametrize("temperature", [0.4, 1.0])
def test_an_images_target_sums_to_one_and_as_released_to_its_number_of_rows(temperature):
    x = torch.rand(3, 7, 7).double()
    for rows, total in ((True, 7.0), (False, 1.0)):
        shares = cam.log_shares(x, temperature, rows=rows).exp()
        torch.testing.assert_close(shares.sum((1, 2)), torch.full((3,), total).double())
    by_hand = torch.tensor([softmax(row, temperature) for row in x[1].tolist()]).double()
    torch.testing.assert_close(cam.log_shares(x, temperature, rows=True)[1].exp(), by_hand)


def test_divergence_times_the_batch_is_the_released_sum():
    """0.01 on a sum over 128 photos is 1.28 on the mean that we take."""
    target, fitted = torch.rand(128, 7, 7).double(), torch.rand(128, 7, 7).double()
    p, log_q = target.softmax(-1), fitted.log_softmax(-1)
    released = 0.01 * torch.nn.functional.kl_div(log_q, p, reduction="sum")
    ours = 1.28 * cam.map_divergence(target, fitted, temperature=1.0, rows=True)
    assert ours.item() == pytest.approx(released.item(), abs=1e-12)


def test_temperature_must_be_positive():
    with pytest.raises(ValueError, match="temperature must be > 0, got 0"):
        cam.map_divergence(torch.rand(1, 2, 2), torch.rand(1, 2, 2), temperature=0.0)


@pytest.mark.parametrize(("sign", "factor"), [("+loss", 1), ("-loss", -1), ("+score", 1)])
def test_map_is_gradient_times_activation(sign, factor):
    torch.manual_seed(1)
    activation, gradient = torch.randn(2, 3, 3, 4).double(), torch.randn(2, 3, 3, 4).double()
    found = cam.activation_map(activation, gradient, sign)
    for b in range(2):
        for y in range(3):
            for x in range(3):
                total = sum(float(activation[b, y, x, c] * gradient[b, y, x, c]) for c in range(4))
                assert found[b, y, x].item() == pytest.approx(max(0.0, factor * total), abs=1e-12)


def test_gradients_are_those_of_the_sum():
    x = torch.randn(4, 3, dtype=torch.float64, requires_grad=True)
    hidden = x * 2
    per_sample = hidden.pow(2).sum(1)
    found = cam.gradients(per_sample.mean() * 4, [hidden])[0]
    assert torch.allclose(found, 2 * hidden.detach(), atol=1e-12)
    assert not found.requires_grad
    # The graph is still there for the loss itself.
    per_sample.mean().backward()
    assert x.grad is not None


def test_gradients_survive_half_precision():
    """Below 6e-8 fp16 knows only zero; the map is scaled on its way."""
    x = torch.ones(1, 1, dtype=torch.float16, requires_grad=True)
    total = (x * torch.tensor(2.0**-14, dtype=torch.float16)).float().sum() * 2.0**-12
    (found,) = cam.gradients(total, [x])
    assert found.item() == pytest.approx(2.0**-26, rel=1e-2)


def test_layers_that_take_no_part_are_named():
    x = torch.randn(2, requires_grad=True)
    with pytest.raises(InputError, match="does not pass"):
        cam.gradients((x * 1).sum(), [torch.randn(2, requires_grad=True)])


@pytest.mark.parametrize("scope", ["image", "batch"])
def test_rescaled_maps_lie_between_zero_and_one(scope):
    x = torch.tensor([[[1.0, 2.0], [3.0, 5.0]], [[10.0, 10.0], [10.0, 11.0]]])
    found = cam.rescale(x, scope)
    if scope == "image":
        assert found[0].flatten().tolist() == pytest.approx([0, 0.25, 0.5, 1])
        assert found[1].flatten().tolist() == pytest.approx([0, 0, 0, 1])
        assert torch.equal(cam.rescale(x[:1], scope), found[:1])
    else:
        assert found[0, 0, 0] == 0
        assert found[1, 1, 1] == pytest.approx(1)
        assert found[1, 0, 0].item() == pytest.approx(0.9)


def test_even_map_prefers_nothing():
    assert cam.rescale(torch.zeros(2, 3, 3), "image").eq(1).all()
    assert cam.rescale(torch.full((2, 3, 3), 7.0), "image").eq(1).all()


def test_coarse_cell_keeps_the_largest():
    x = torch.zeros(1, 224, 224)
    x[0, 33, 70] = 5.0
    found = cam.coarsen(x, (7, 7))
    assert found.shape == (1, 7, 7)
    assert found[0, 1, 2] == 5
    assert found.sum() == 5


def test_entropy_tells_even_from_sharp():
    even, sharp = torch.zeros(1, 7, 7), torch.zeros(1, 7, 7)
    sharp[0, 3, 3] = 100.0
    assert cam.map_entropy(even).item() == pytest.approx(1)
    assert cam.map_entropy(sharp).item() == pytest.approx(0, abs=1e-6)
    # The raw maps of the released code: at most 7e-4.
    assert cam.map_entropy(torch.rand(4, 7, 7) * 7e-4, temperature=1.0, rows=True) > 0.999999


@pytest.mark.parametrize("layout", ["NCHW", "NHWC", "tokens"])
def test_cells_of_every_layout(layout):
    tokens = torch.randn(2, 6, 5)
    shape = (2, 3)
    last = {
        "NCHW": tokens.unflatten(1, shape).permute(0, 3, 1, 2),
        "NHWC": tokens.unflatten(1, shape),
        "tokens": torch.cat([torch.zeros(2, 1, 5), tokens], 1),
    }[layout]
    assert torch.equal(in_cells(last, layout, shape), tokens.unflatten(1, shape))
