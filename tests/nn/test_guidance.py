import pytest
import torch

import tiny
from fieldmark.backbones.backbone import Backbone, BackboneConfig
from fieldmark.backbones.watched import watched
from fieldmark.errors import ConfigError, InputError
from fieldmark.nn.cam import coarsen
from fieldmark.nn.guidance import Guidance, GuidanceConfig, guidance_maps, with_leaves


@pytest.fixture(scope="module")
def resnet():
    config = BackboneConfig(
        name="test_resnet", weights="random", mean=(0.2, 0.5, 0.7), std=(0.2, 0.3, 0.4)
    )
    return Backbone.build(config, size=64).eval().double()


def passed(backbone, images, stages=()):
    with watched(backbone, stages) as passes:
        pooled = backbone(images.requires_grad_()).pooled
    return pooled.square().sum(), passes


def test_map_is_that_of_the_normalised_image(resnet):
    """Eq. 5 and 6 take the derivative by (x - mean) / std, and so does the map by hand."""
    torch.manual_seed(0)
    images = torch.rand(2, 3, 64, 64).double()
    total, passes = passed(resnet, images.clone())
    found = guidance_maps(total, passes, ["image"], resnet)[0][0]
    leaf = ((images - resnet.mean) / resnet.std).requires_grad_()
    features = resnet.network(leaf)
    gradient = torch.autograd.grad(features.square().sum(), leaf)[0]
    expected = torch.zeros(2, 64, 64).double()
    for c in range(3):
        expected += leaf.detach()[:, c] * gradient[:, c]
    torch.testing.assert_close(found, expected.clamp_min(0))
    assert not found.requires_grad


def test_shapes_at_every_layer(resnet):
    images = torch.rand(2, 3, 64, 64).double()
    layers = ["image", 0, 1, 2, 3, 4]
    total, passes = passed(resnet, images, (0, 1, 2, 3, 4))
    maps = guidance_maps(total, passes, layers, resnet)[0]
    assert [tuple(m.shape[1:]) for m in maps] == [(n, n) for n in (64, 32, 16, 8, 4, 2)]
    assert all((m >= 0).all() and m.max() > 0 for m in maps)


def test_maps_at_224_pixels_become_7_by_7():
    """Of a real gradient: each cell keeps the largest of its 32 x 32 pixels."""
    backbone = Backbone.build(BackboneConfig(name="test_resnet", weights="random"), size=224).eval()
    total, passes = passed(backbone, torch.rand(2, 3, 224, 224))
    (fine,) = guidance_maps(total, passes, ["image"], backbone)[0]
    assert fine.shape == (2, 224, 224)
    assert (fine >= 0).all()
    assert 0.1 < (fine > 0).float().mean() < 0.9
    coarse = coarsen(fine, passes[0].features.shape)
    assert coarse.shape == (2, 7, 7)
    by_hand = [
        [
            [image[y : y + 32, x : x + 32].max() for x in range(0, 224, 32)]
            for y in range(0, 224, 32)
        ]
        for image in fine
    ]
    assert torch.equal(coarse, torch.tensor(by_hand))
    assert len(coarse.unique()) > 49


def test_map_of_a_stage_is_gradient_times_activation(resnet):
    images = torch.rand(2, 3, 64, 64).double()
    total, passes = passed(resnet, images, (2,))
    x = passes[0].stages[0]
    gradient = torch.autograd.grad(total, x, retain_graph=True)[0]
    expected = (x * gradient).sum(1).clamp_min(0).detach()
    torch.testing.assert_close(guidance_maps(total, passes, [2], resnet)[0][0], expected)


def test_order_of_layers_and_passes_is_kept(resnet):
    images = torch.rand(1, 3, 64, 64).double()
    with watched(resnet, (3, 1)) as passes:
        total = sum(resnet(x.requires_grad_()).pooled.sum() for x in (images, images * 0.3))
    maps = guidance_maps(total, passes, [3, "image", 1], resnet)
    assert [[m.shape[1] for m in row] for row in maps] == [[4, 64, 16]] * 2
    total, alone = passed(resnet, (images * 0.3).detach(), (1,))
    total = alone[0].features.pooled.sum()
    torch.testing.assert_close(maps[1][2], guidance_maps(total, alone, [1], resnet)[0][0])


def test_leaves_are_float32_at_least_and_cut_from_the_views():
    batch = tiny.source("mocov2").batch(0)
    half = batch._replace(views=tuple(v._replace(images=v.images.bfloat16()) for v in batch.views))
    for view in with_leaves(half).views:
        assert view.images.is_leaf
        assert view.images.requires_grad
        assert view.images.dtype == torch.float32


def guided(form, backbone, shared_norm=False, **settings):
    torch.manual_seed(0)
    config = GuidanceConfig(iadm=form, **settings)
    part = Guidance(config, backbone, 4, shared_norm=shared_norm)
    return part.to(torch.float64)


def encoder_gradient(form, resnet, **settings):
    part = guided(form, resnet, **settings)
    images = torch.rand(4, 3, 64, 64, generator=torch.Generator().manual_seed(3)).double()
    total, passes = passed(resnet, images, part.stages)
    weights = [passes[0].features.tokens.square().mean(2)]
    fit = part(total, passes, weights, resnet)
    parameters = [p for p in resnet.network.parameters() if p.requires_grad]
    if not fit.loss.requires_grad:
        return 0.0, fit
    found = torch.autograd.grad(fit.loss, parameters, allow_unused=True, retain_graph=True)
    return max((g.abs().max().item() for g in found if g is not None), default=0.0), fit


def test_released_form_gives_the_encoder_no_gradient(resnet):
    """The stated defect: the claim that IADM guides the encoder cannot hold as released."""
    largest, fit = encoder_gradient("faithful", resnet)
    assert largest == 0
    assert fit.loss > 0


def test_coupled_form_gives_the_encoder_a_gradient(resnet):
    largest, fit = encoder_gradient("coupled_feat", resnet)
    assert largest > 1e-6
    assert fit.loss > 0


def test_second_order_form_gives_the_encoder_a_gradient(resnet):
    largest, fit = encoder_gradient("second_order", resnet)
    assert largest > 0
    assert fit.loss > 0


def test_released_target_is_even(resnet):
    """A mean over the batch, not rescaled, at temperature 1: nothing to fit."""
    part = guided("faithful", resnet)
    images = torch.rand(4, 3, 64, 64).double()
    with watched(resnet) as passes:
        pooled = resnet(images.requires_grad_()).pooled
    fit = part(1e-3 * pooled.square().mean(), passes, [], resnet)
    assert fit.entropy > 0.9999


def test_faithful_divergence_by_hand(resnet):
    part = guided("faithful", resnet)
    images = torch.rand(3, 3, 64, 64).double()
    total, passes = passed(resnet, images)
    part.eval()
    found = part(total, passes, [], resnet).loss
    target = coarsen(guidance_maps(total, passes, ["image"], resnet)[0][0], (2, 2))
    normal = ((images - resnet.mean) / resnet.std).detach()
    looks = torch.einsum("bchw,kc->bkhw", normal, part.branches[0].weight)
    # Batch-norm as it starts, in evaluation: divides by sqrt(1 + eps).
    m = (looks / (1 + part.norm.eps) ** 0.5).relu().amax(1)
    m = coarsen((m - m.min()) / (m.max() - m.min()), (2, 2))
    expected = 0.0
    for b in range(3):
        for row in range(2):
            p, q = target[b, row].softmax(0), m[b, row].softmax(0)
            expected += (p * (p / q).log()).sum().item()
    assert found.item() == pytest.approx(expected / 3, abs=1e-10)


def test_coupled_divergence_by_hand(resnet):
    """The target is rescaled in each photo; the fitted map is the encoder's own attention."""
    part = guided("coupled_feat", resnet)
    total, passes = passed(resnet, torch.rand(3, 3, 64, 64).double())
    weights = torch.rand(3, 4).double()
    found = part(total, passes, [weights], resnet).loss
    target = coarsen(guidance_maps(total, passes, ["image"], resnet)[0][0], (2, 2)).flatten(1)
    expected = 0.0
    for g, a in zip(target, weights, strict=True):
        p = ((g - g.min()) / (g.max() - g.min()) / 0.4).softmax(0)
        q = (a / 0.4).softmax(0)
        expected += (p * (p / q).log()).sum().item()
    assert found.item() == pytest.approx(expected / 3, abs=1e-9)


def test_shared_norm_is_the_one_that_is_given(resnet):
    part = guided("faithful", resnet, shared_norm=True)
    assert part.norm is None
    shared = torch.nn.BatchNorm1d(4).double()
    total, passes = passed(resnet, torch.rand(2, 3, 64, 64).double())
    part(total, passes, [], resnet, shared)
    assert shared.num_batches_tracked == 1
    own = guided("second_order", resnet, shared_norm=True)
    assert own.norm is not None


def test_several_layers_are_averaged(resnet):
    alone = [encoder_gradient("coupled_feat", resnet, layers=(x,))[1] for x in ("image", 2)]
    both = encoder_gradient("coupled_feat", resnet, layers=("image", 2))[1]
    assert both.loss.item() == pytest.approx(sum(fit.loss.item() for fit in alone) / 2)


def test_stages_that_are_not_there_are_refused(resnet):
    with pytest.raises(InputError, match="choose among them, or the image"):
        encoder_gradient("coupled_feat", resnet, layers=(9,))


@pytest.mark.parametrize("form", ["coupled_feat", "faithful"])
def test_stages_that_the_feature_does_not_pass_through_are_refused(form):
    vit = Backbone.build(BackboneConfig(name="test_vit", weights="random"), size=64)
    with pytest.raises(
        InputError, match=r"method.layers holds -1, but 'test_vit' does not compute"
    ):
        guided(form, vit, layers=("image", -1))
    assert guided(form, vit, layers=("image", -2)).stages == (-2,)


def test_second_order_refuses_fused_attention():
    vit = Backbone.build(BackboneConfig(name="test_vit", weights="random"), size=64)
    for block in vit.network.blocks:
        block.attn.fused_attn = True
    with pytest.raises(ConfigError, match="TIMM_FUSED_ATTN=0"):
        guided("second_order", vit)
    guided("coupled_feat", vit)
