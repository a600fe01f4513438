import itertools
import math

import pytest
import torch

from fieldmark.backbones.backbone import Backbone, BackboneConfig
from fieldmark.nn import saliency


def draw(*shape, seed=0, dtype=torch.float64):
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def build(name, size=64, **arguments):
    config = BackboneConfig(name=name, weights="random", arguments=arguments)
    return Backbone.build(config, size=size).eval()


@pytest.fixture(scope="module")
def vit():
    return build("test_vit")


@pytest.fixture(scope="module")
def convnet():
    return build("test_resnet")


IMAGES = draw(2, 3, 64, 64, seed=1, dtype=torch.float32)


# Reading


def test_logarithms_rank_cells_as_the_papers_product_does():
    layers = [draw(3, 196, seed=seed).softmax(1) for seed in range(12)]
    product = torch.ones(3, 196, dtype=torch.float64)
    for layer in layers:
        product = product * 1000 * layer
    assert torch.equal(saliency.fuse(layers).argsort(1), product.argsort(1))
    # In float32 the bare product of twelve such numbers is zero everywhere; the sum is not.
    small = [layer.float() * 1e-3 for layer in layers]
    assert torch.stack(small).prod(0).max() == 0
    assert torch.equal(saliency.fuse(small).argsort(1), product.argsort(1))


def test_a_cell_that_one_layer_ignores_is_last():
    layers = torch.full((2, 1, 3), 0.3)
    layers[1, 0, 1] = 0.0
    fused = saliency.fuse(list(layers))
    assert torch.isfinite(fused).all()
    assert fused.argmin().item() == 1


@torch.no_grad()
def test_attention_is_the_class_tokens_row_averaged_over_heads(vit):
    maps = vit(IMAGES, attention=tuple(range(6))).attention
    expected = torch.zeros(2, 16, dtype=torch.float64)
    for attention, image, cell in itertools.product(maps, range(2), range(16)):
        heads = [attention[image, head, 0, 1 + cell].item() for head in range(2)]
        expected[image, cell] += math.log(sum(heads) / 2)
    features, found = saliency.look(vit, IMAGES)
    torch.testing.assert_close(found.flatten(1).double(), expected, rtol=1e-4, atol=1e-4)
    assert found.shape == (2, 4, 4)
    torch.testing.assert_close(features.pooled, vit(IMAGES).pooled)
    last = saliency.look(vit, IMAGES, "last")[1].flatten(1)
    torch.testing.assert_close(last, maps[-1].mean(1)[:, 0, 1:].log())


@torch.no_grad()
def test_fused_attention_is_off_only_while_looking(vit):
    seen = []
    hook = vit.network.blocks[0].attn.register_forward_pre_hook(
        lambda module, _: seen.append(module.fused_attn)
    )
    before = [block.attn.fused_attn for block in vit.network.blocks]
    vit(IMAGES)
    saliency.look(vit, IMAGES)
    vit(IMAGES)
    hook.remove()
    assert seen == [before[0], False, before[0]]
    assert [block.attn.fused_attn for block in vit.network.blocks] == before


def test_register_tokens_are_left_out():
    attention = draw(1, 8, 8).softmax(2)
    row = saliency.attention_row(attention, 4, by_class=True)
    assert torch.equal(row, attention[:, 0, 4:])


def test_without_class_token_the_cells_own_rows_are_averaged():
    attention = draw(2, 5, 5).softmax(2)
    row = saliency.attention_row(attention, 4, by_class=False)
    for image, cell in itertools.product(range(2), range(4)):
        mean = sum(attention[image, 1 + other, 1 + cell].item() for other in range(4)) / 4
        assert row[image, cell].item() == pytest.approx(mean)


@torch.no_grad()
@pytest.mark.parametrize(
    ("pool", "by_class"), [("token", True), ("avg", False), ("avgmax", False), ("max", False)]
)
def test_a_class_token_that_is_not_pooled_is_not_asked(pool, by_class):
    vit = build("test_vit", global_pool=pool)
    attention = vit(IMAGES, attention=(-1,)).attention[0].mean(1)
    features, found = saliency.look(vit, IMAGES, "last")
    assert features.cls is not None
    expected = attention[:, 0, 1:] if by_class else attention[:, 1:, 1:].mean(1)
    torch.testing.assert_close(found.flatten(1), expected.log())


@torch.no_grad()
@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("test_vit", {"class_token": False, "global_pool": "avg"}),
        ("test_vit2", {}),
        ("test_vit3", {}),
        ("test_resnet", {}),
        ("test_convnext", {}),
        ("test_efficientnet", {}),
        ("test_mambaout", {}),
    ],
)
@pytest.mark.parametrize("layers", ["fused", "last"])
def test_any_network_has_a_saliency(name, arguments, layers):
    backbone = build(name, **arguments)
    features, found = saliency.look(backbone, IMAGES, layers)
    assert torch.isfinite(found).all()
    assert len(found) == 2
    assert found.flatten(1).std(1).min() > 0
    torch.testing.assert_close(features.pooled, backbone(IMAGES).pooled)


def test_energy_is_the_length_of_each_cells_vector():
    fine, coarse = draw(2, 3, 4, 4), draw(2, 5, 2, 2, seed=1)
    found = saliency.energy([fine])
    for image, y, x in itertools.product(range(2), range(4), range(4)):
        length = math.sqrt(sum(fine[image, c, y, x].item() ** 2 for c in range(3)))
        assert found[image, y, x].item() == pytest.approx(math.log(length))
    fused = saliency.energy([fine, coarse])
    assert fused.shape == (2, 4, 4)
    # Corners of the finer grid lie beyond the coarse cells' centres: they take the coarse value.
    assert fused[0, 0, 0].item() == pytest.approx(
        math.log(fine[0, :, 0, 0].norm()) + math.log(coarse[0, :, 0, 0].norm())
    )


@torch.no_grad()
@pytest.mark.parametrize(("name", "once"), [("test_resnet", True), ("mobilenetv2_035", False)])
def test_convolutional_networks_fuse_their_coarse_maps(name, once):
    """Every map once: MobileNetV2's last map is another than its last stage's, a ResNet's is not."""
    config = BackboneConfig(name=name, weights="random")
    convnet = Backbone.build(config, size=64).eval()
    assert convnet.stage_strides == (2, 4, 8, 16, 32)
    features = convnet(IMAGES, stages=(3, 4))
    last = features.tokens.transpose(1, 2).unflatten(2, features.shape)
    fused = saliency.look(convnet, IMAGES, "fused")[1]
    maps = [*features.stages, last]
    assert torch.equal(maps[-1], maps[-2]) == once
    torch.testing.assert_close(fused, saliency.energy(maps[:-1] if once else maps))
    assert fused.shape == (2, 4, 4)
    torch.testing.assert_close(
        saliency.look(convnet, IMAGES, "last")[1], last.norm(dim=1).log(), rtol=1e-4, atol=1e-4
    )


@torch.no_grad()
@pytest.mark.parametrize("layers", ["fused", "last"])
def test_attention_between_channels_is_not_taken_for_saliency(layers):
    backbone = Backbone.build(
        BackboneConfig(name="xcit_nano_12_p16_224", weights="random"), size=64
    )
    features, found = saliency.look(backbone.eval(), torch.rand(2, 3, 64, 64), layers)
    torch.testing.assert_close(found, features.tokens.norm(dim=2).log().view(2, 4, 4))


@torch.no_grad()
def test_half_precision_maps_are_read_in_float32(vit, convnet):
    for backbone in (vit, convnet):
        with torch.autocast("cpu", torch.bfloat16):
            assert saliency.look(backbone, IMAGES)[1].dtype == torch.float32


# Choosing


@pytest.mark.parametrize(("inclusive", "count"), [(False, 58), (True, 59)])
def test_the_paper_keeps_58_of_196_cells(inclusive, count):
    scores = draw(5, 14, 14)
    kept = saliency.keep_cells(scores, 0.3, inclusive=inclusive)
    assert kept.flatten(1).sum(1).tolist() == [count] * 5
    for image in range(5):
        values = sorted(scores[image].flatten().tolist(), reverse=True)
        threshold = values[math.floor(0.3 * 196)]
        for y, x in itertools.product(range(14), range(14)):
            value = scores[image, y, x].item()
            above = value >= threshold if inclusive else value > threshold
            assert kept[image, y, x].item() == above


@pytest.mark.parametrize(
    ("cells", "share", "count"), [(100, 0.29, 29), (4, 0.1, 1), (16, 1.0, 16), (64, 0.3, 19)]
)
def test_share_kept(cells, share, count):
    side = math.isqrt(cells)
    assert saliency.keep_cells(draw(1, side, side), share).sum().item() == count


@pytest.mark.parametrize(("inclusive", "count"), [(False, 1), (True, 1)])
def test_fewer_than_one_cell(inclusive, count):
    # The threshold is the largest value: only that cell is as large.
    kept = saliency.keep_cells(draw(1, 2, 2), 0.2, inclusive=inclusive)
    assert kept.sum().item() == count


def test_ties_do_not_change_the_count():
    assert saliency.keep_cells(torch.zeros(2, 14, 14), 0.3).flatten(1).sum(1).tolist() == [58, 58]


def test_share_must_make_sense():
    with pytest.raises(ValueError, match="share must be in"):
        saliency.keep_cells(draw(1, 2, 2), 0.0)


def test_selections():
    scores = draw(4, 10, 10)
    best = saliency.keep_cells(saliency.order_cells(scores, "attention", 1), 0.5)
    worst = saliency.keep_cells(saliency.order_cells(scores, "inverse", 1), 0.5)
    assert torch.equal(best, ~worst)
    chance = [saliency.order_cells(scores, "random", seed) for seed in (1, 1, 2)]
    assert torch.equal(chance[0], chance[1])
    assert not torch.equal(chance[0], chance[2])
    kept = saliency.keep_cells(chance[0], 0.5)
    assert 0.3 < (kept & best).sum().item() / best.sum().item() < 0.7
    assert not torch.equal(kept[0], kept[1])


# Masking


@torch.no_grad()
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_masked_pixels_are_exactly_zero_for_the_network(dtype):
    backbone = build("test_vit")
    backbone.mean.copy_(torch.tensor([0.485, 0.456, 0.406]).view(1, 3, 1, 1))
    kept = saliency.keep_cells(draw(2, 4, 4), 0.3)
    images = IMAGES.to(dtype)
    shown = saliency.show_cells(images, kept, backbone.mean)
    inputs = []
    hook = backbone.network.patch_embed.register_forward_pre_hook(
        lambda _, arguments: inputs.append(arguments[0])
    )
    backbone(shown)
    hook.remove()
    for image, y, x in itertools.product(range(2), range(64), range(64)):
        if kept[image, y // 16, x // 16]:
            assert torch.equal(shown[image, :, y, x], images[image, :, y, x].float())
        else:
            assert inputs[0][image, :, y, x].abs().max() == 0


# Against boxes


def plain_hits(kept, box, side=20):
    """Count subpixels; exact where box corners lie on their edges."""
    h, w = kept.shape
    inside = covered = 0
    fine_h, fine_w = h * side, w * side
    for y, x in itertools.product(range(fine_h), range(fine_w)):
        stays = kept[y // side, x // side].item()
        cy, cx = (y + 0.5) / fine_h, (x + 0.5) / fine_w
        within = box[0] <= cx <= box[2] and box[1] <= cy <= box[3]
        inside += stays and within
        covered += within
    total = kept.double().mean().item() * fine_h * fine_w
    return inside / total, inside / covered, covered / (fine_h * fine_w)


def test_hits_against_counting():
    kept = saliency.keep_cells(draw(3, 2, 4), 0.5)
    boxes = torch.tensor([[0.0, 0.0, 1.0, 1.0], [0.25, 0.1, 0.7, 0.55], [0.1, 0.6, 0.15, 1.0]])
    hits = saliency.mask_hits(kept, boxes)
    for image in range(3):
        expected = plain_hits(kept[image], boxes[image].tolist())
        found = (hits.inside[image], hits.covered[image], hits.area[image])
        assert [value.item() for value in found] == pytest.approx(expected, abs=1e-6)
    torch.testing.assert_close(hits.inside / hits.area, hits.covered / hits.kept)


def test_a_blind_mask_has_no_lift():
    scores = torch.rand(4000, 8, 8, generator=torch.Generator().manual_seed(0))
    boxes = torch.tensor([[0.3, 0.2, 0.8, 0.7]]).expand(4000, 4)
    hits = saliency.mask_hits(saliency.keep_cells(scores, 0.3), boxes)
    assert (hits.inside.mean() / hits.area.mean()).item() == pytest.approx(1.0, abs=0.03)


def test_boxes_beyond_the_image_and_empty_ones():
    kept = torch.ones(2, 4, 4, dtype=torch.bool)
    boxes = torch.tensor([[-1.0, -1.0, 0.5, 2.0], [0.7, 0.7, 0.7, 0.9]])
    hits = saliency.mask_hits(kept, boxes)
    assert hits.area.tolist() == [0.5, 0.0]
    assert hits.inside.tolist() == [0.5, 0.0]
    assert hits.covered.tolist() == [1.0, 0.0]
    assert saliency.mask_hits(~kept, boxes).inside.tolist() == [0.0, 0.0]
