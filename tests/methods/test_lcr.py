import pytest
import torch

import tiny
from fieldmark.backbones.backbone import Backbone, BackboneConfig
from fieldmark.backbones.watched import watched
from fieldmark.encoder import Encoder
from fieldmark.errors import ConfigError
from fieldmark.nn import cam
from fieldmark.nn.spec import same_weights
from fieldmark.training.loop import fit
from fieldmark.types import Progress

START = Progress(0, 10, 0.0)
BASES = ["mocov2", "mocov3", "simclr"]


def fitting(base="mocov2", **settings):
    return tiny.fitting("lcr", base, **settings)


def gradient_of_fit(method, batch):
    """Largest gradient of the divergence alone, on backbone and on attention."""
    output = method(batch, START)
    alone = method.base(batch, START).loss
    (output.loss - alone).backward()
    return [
        max((p.grad.abs().max().item() for p in part.parameters() if p.grad is not None), default=0)
        for part in (method.backbone, method.attention)
    ]


@pytest.mark.parametrize("base", BASES)
def test_loss_is_contrast_plus_divergence_of_the_last_map(base):
    method, batch = fitting(base, weight=0.7, projections=3, sign="+loss")
    method.eval()  # the attention's batch-norm then does not depend on who else is there
    total = method(batch, START).loss
    with watched(method.backbone) as seen:
        contrast = method.base(batch, START).loss
    expected = 0.0
    for features in (each.features for each in seen):
        gradient = torch.autograd.grad(contrast * 8, features.last, retain_graph=True)[0]
        g = (features.last * gradient).sum(1).relu().detach()
        low, high = g.amin((1, 2), keepdim=True), g.amax((1, 2), keepdim=True)
        g = torch.where(high > low, (g - low) / (high - low).clamp_min(1e-30), 1.0)
        p = g.flatten(1).div(0.4).softmax(1)
        q = method.attention.weights(features.tokens).div(0.4).softmax(1)
        expected = expected + (p * (p / q).log()).sum() / 8 / len(seen)
    assert total.item() == pytest.approx((contrast + 0.7 * expected).item(), abs=1e-9)
    assert len(seen) == (1 if base == "mocov2" else 2)


def test_divergence_reaches_encoder_and_attention():
    backbone, attention = gradient_of_fit(*fitting())
    assert backbone > 0
    assert attention > 0


def test_constant_target_differs_from_a_learning_one_where_maps_are_large():
    first, batch = fitting(target="raw", detach_target=True)
    second, _ = fitting(target="raw", detach_target=False)
    assert gradient_of_fit(first, batch)[0] != gradient_of_fit(second, batch)[0]


def test_signs_give_other_maps():
    losses = set()
    for sign in ("+loss", "-loss", "+score"):
        method, batch = fitting(sign=sign)
        losses.add(method(batch, START).loss.item())
    assert len(losses) == 3


def test_target_entropy_shows_that_the_released_target_is_even():
    faithful, batch = fitting(faithful=True)
    repaired, _ = fitting()
    assert faithful(batch, START).parts["target_entropy"] > 0.999
    assert repaired(batch, START).parts["target_entropy"] < 0.95


def test_faithful_is_all_switches_at_once():
    method, batch = fitting(faithful=True)
    by_hand, _ = fitting(
        sign="+loss",
        target="raw",
        softmax="rows",
        map_temperature=1.0,
        detach_target=False,
        norm_scope="batch",
    )
    assert method(batch, START).loss.item() == by_hand(batch, START).loss.item()
    assert method.attention.norm_scope == "batch"


def test_base_trains_as_it_would_alone_when_nothing_is_fitted(tmp_path):
    """Attached with weight 0, MoCo v2 is the same MoCo v2 to the bit."""
    config = tiny.train_config(epochs=1)
    attached = tiny.method("lcr", weight=0.0)
    fit(attached, tiny.source("mocov2"), config, tmp_path / "attached")
    torch.manual_seed(0)
    plain = tiny.method("mocov2")
    fit(plain, tiny.source("mocov2"), config, tmp_path / "plain")
    assert tiny.largest_difference(tiny.state(plain), tiny.state(attached.base)) == 0


def test_attention_ships_and_needs_no_training_code(tmp_path):
    method = tiny.method("lcr")
    spec = method.exports()["student"]
    images = torch.rand(2, 3, tiny.SIZE, tiny.SIZE)
    with torch.no_grad():
        spec.eval()
        features = spec.backbone(images)
        weighed = method.attention.eval()(features).pooled
        assert torch.allclose(spec(images), torch.nn.functional.normalize(weighed), atol=1e-6)
        assert not torch.allclose(
            spec(images), torch.nn.functional.normalize(features.pooled), atol=1e-3
        )


def test_saved_encoder_holds_the_attention(tmp_path):
    backbone = Backbone.build(BackboneConfig(name="test_resnet", weights="random"), size=32)
    spec = tiny.METHODS["lcr"](tiny.config("lcr"), backbone).exports()["student"]
    encoder = Encoder(spec, device="cpu", precision="fp32")
    encoder.save(tmp_path / "encoder")
    again = Encoder.load(tmp_path / "encoder", device="cpu", precision="fp32")
    assert same_weights(encoder.spec, again.spec)
    images = torch.rand(3, 3, 32, 32)
    assert torch.equal(encoder.encode(images), again.encode(images))


def at_64(name):
    backbone = Backbone.build(BackboneConfig(name=name, weights="random"), size=64)
    torch.manual_seed(0)
    return tiny.METHODS["lcr"](tiny.config("lcr"), backbone)


def large(batch):
    views = (
        view._replace(images=torch.nn.functional.interpolate(view.images, (64, 64)))
        for view in batch.views
    )
    return batch._replace(views=tuple(views))


def test_map_is_of_the_last_cells_that_the_feature_is_computed_from():
    """Of a network that pools its class token: what the last block but one hands on."""
    batch = large(tiny.source("mocov2").batch(0))
    assert at_64("test_resnet").stage is None
    method = at_64("test_vit")
    assert method.stage == -2
    assert method(batch, START).parts["target_entropy"] < 0.98
    # The same by hand.
    held = []
    block = method.backbone.network.blocks[-2]
    hook = block.register_forward_hook(lambda part, inputs, output: held.append(output))
    with watched(method.backbone, (-2,)) as passes:
        output = method.base(batch, START)
    hook.remove()
    (found,) = method._maps(output, passes, len(batch.rows))
    gradient = torch.autograd.grad(output.similarity.sum(), held[0])[0]
    expected = (held[0] * gradient)[:, 1:].sum(2).relu().unflatten(1, (4, 4))
    low, high = (end(expected, (1, 2), keepdim=True) for end in (torch.amin, torch.amax))
    torch.testing.assert_close(found, (expected - low) / (high - low))


def test_unknown_base_and_settings_are_named():
    kind = tiny.METHODS["lcr"].config_type
    with pytest.raises(ConfigError, match="did you mean 'mocov2'"):
        kind.parse({"base": "mocov22"}, "[method]")
    with pytest.raises(ConfigError, match=r"queue_sise.*\[method.contrast\].*queue_size"):
        kind.parse({"contrast": {"queue_sise": 3}}, "[method]")


def test_compile_is_refused(tmp_path):
    config = tiny.train_config(compile=True)
    with pytest.raises(ConfigError, match="compile = true cannot be used with LCR"):
        fit(tiny.method("lcr"), tiny.source("mocov2"), config, tmp_path)


def test_maps_come_from_a_sum_not_a_mean():
    """A photo's map does not depend on how many photos share its batch."""
    method, batch = fitting()
    method.eval()
    small = batch._replace(
        views=tuple(type(v)(*(field[:4] for field in v)) for v in batch.views), rows=batch.rows[:4]
    )
    found = []
    for part in (batch, small):
        with watched(method.backbone) as seen:
            output = method.base(part, START)
        gradient = cam.gradients(output.loss * len(part.rows), [seen[0].features.last])[0]
        found.append(gradient[:4])
    assert torch.allclose(*found, atol=1e-12)
