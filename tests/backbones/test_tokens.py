import pytest
import torch

from fieldmark.backbones.backbone import Backbone, BackboneConfig
from fieldmark.backbones.tokens import capture_attention
from fieldmark.errors import InputError


@pytest.fixture(scope="module")
def vit():
    return Backbone.build(BackboneConfig(name="test_vit", weights="random"), size=64).eval()


@pytest.fixture(scope="module")
def convnet():
    return Backbone.build(BackboneConfig(name="test_resnet", weights="random"), size=64).eval()


IMAGES = torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
TOKENS = 16


@torch.no_grad()
def test_attention_of_chosen_blocks(vit):
    plain = vit(IMAGES)
    features = vit(IMAGES, attention=(-1, 0))
    last, first = features.attention
    assert last.shape == (2, 2, TOKENS + 1, TOKENS + 1)
    torch.testing.assert_close(last.sum(-1), torch.ones(2, 2, TOKENS + 1))
    assert not torch.allclose(first, last)
    torch.testing.assert_close(features.pooled, plain.pooled)
    # The map is what the block used: values weighted by it give the block's own output.
    block = vit.network.blocks[0]
    x = (IMAGES - vit.mean) / vit.std
    x = vit.network.norm_pre(vit.network._pos_embed(vit.network.patch_embed(x)))
    value = block.attn.qkv(block.norm1(x)).view(2, TOKENS + 1, 3, 2, -1)[:, :, 2].transpose(1, 2)
    expected = block.attn.proj((first @ value).transpose(1, 2).flatten(2))
    torch.testing.assert_close(block.attn(block.norm1(x)), expected)


@torch.no_grad()
def test_fused_attention_comes_back(vit):
    states = [block.attn.fused_attn for block in vit.network.blocks]
    vit(IMAGES, attention=(0, 1))
    assert [block.attn.fused_attn for block in vit.network.blocks] == states
    assert all(not block.attn.attn_drop._forward_pre_hooks for block in vit.network.blocks)


@torch.no_grad()
def test_attention_may_be_reduced_as_it_comes(vit, convnet):
    whole = vit(IMAGES, attention=(1, 0)).attention
    with capture_attention(vit.network, (1, 0), "vit", reduce=lambda a: a.mean(1)) as maps:
        vit(IMAGES)
    for reduced, full in zip(maps(), whole, strict=True):
        assert torch.equal(reduced, full.mean(1))
    assert (vit.attention_blocks, convnet.attention_blocks) == (6, 0)


def test_attention_carries_gradients(vit):
    vit(IMAGES, attention=(-1,)).attention[0].square().sum().backward()
    assert vit.network.patch_embed.proj.weight.grad is not None
    vit.zero_grad()


def test_attention_needs_a_transformer(vit, convnet):
    with pytest.raises(InputError, match="no attention"):
        convnet(IMAGES, attention=(0,))
    with pytest.raises(InputError, match="6 blocks"):
        vit(IMAGES, attention=(6,))


@torch.no_grad()
def test_keeping_every_token_is_the_full_network(vit):
    everything = torch.arange(TOKENS).expand(2, -1)
    kept, full = vit(IMAGES, keep=everything), vit(IMAGES)
    torch.testing.assert_close(kept.tokens, full.tokens)
    torch.testing.assert_close(kept.cls, full.cls)
    order = torch.randperm(TOKENS, generator=torch.Generator().manual_seed(1)).expand(2, -1)
    shuffled = vit(IMAGES, keep=order)
    torch.testing.assert_close(shuffled.tokens, full.tokens[:, order[0]])
    assert shuffled.shape == (4, 4)


@torch.no_grad()
def test_dropped_tokens_are_never_seen(vit):
    keep = torch.tensor([[0, 5, 6], [1, 2, 15]])
    changed = IMAGES.clone()
    changed[0, :, 48:, 48:] = 0  # the last cell, dropped in the first image only
    changed[1, :, :16, 48:] = 0  # cell 3, dropped in the second image
    features = vit(IMAGES, keep=keep)
    assert features.tokens.shape == (2, 3, vit.token_dim)
    torch.testing.assert_close(vit(changed, keep=keep).tokens, features.tokens)
    changed[1, :, 48:, 48:] = 0
    assert not torch.allclose(vit(changed, keep=keep).tokens, features.tokens)


@torch.no_grad()
def test_masked_tokens_are_replaced_before_position_is_added(vit):
    mask = torch.zeros(2, TOKENS, dtype=torch.bool)
    torch.testing.assert_close(vit(IMAGES, mask=mask).tokens, vit(IMAGES).tokens)
    mask[:, 7] = True
    changed = IMAGES.clone()
    changed[:, :, 16:32, 48:] = 0  # cell 7
    token = torch.randn(vit.token_dim)
    first = vit(IMAGES, mask=mask, mask_token=token).tokens
    torch.testing.assert_close(vit(changed, mask=mask, mask_token=token).tokens, first)
    assert not torch.allclose(vit(IMAGES, mask=mask).tokens, first)


def test_tokens_that_do_not_exist(vit, convnet):
    with pytest.raises(InputError, match="plain vision transformer"):
        convnet(IMAGES, keep=torch.zeros(2, 3, dtype=torch.long))
    with pytest.raises(InputError, match=r"\[0, 16\)"):
        vit(IMAGES, keep=torch.full((2, 3), 16))
    with pytest.raises(InputError, match="9 tokens"):
        vit(IMAGES, mask=torch.zeros(2, 9, dtype=torch.bool))
    with pytest.raises(InputError, match="stages"):
        vit(IMAGES, mask=torch.zeros(2, 16, dtype=torch.bool), stages=(0,))
