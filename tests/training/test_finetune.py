import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional

import tiny
from fieldmark.backbones.backbone import Backbone, BackboneConfig
from fieldmark.data.views import BatchSource
from fieldmark.errors import LabelError
from fieldmark.methods import METHODS
from fieldmark.nn.classifier import ClassHead, Classifier
from fieldmark.nn.spec import EncoderSpec, PostConfig
from fieldmark.nn.whitening import Whitening
from fieldmark.training.finetune import FinetuneConfig, SupervisedObjective, build_classifier
from fieldmark.training.loop import fit
from fieldmark.training.optim import parameter_groups
from fieldmark.types import Progress

START = Progress(0, 10, 0.0)
LABELS = torch.arange(32) % 4


def objective(labels=LABELS, seed=0, **settings):
    config = FinetuneConfig(**settings)
    torch.manual_seed(seed)
    head = ClassHead(16, 4, lr_ratio=config.head_rate)
    spec = EncoderSpec(tiny.TinyBackbone(seed=seed))
    return SupervisedObjective(config, Classifier(spec, head), labels.clone())


def source(rows=np.arange(32), **settings):  # noqa: B008
    views = SupervisedObjective.views(FinetuneConfig(**settings), tiny.SIZE)
    return BatchSource(tiny.ArrayStore(32), rows, views, batch_size=8, seed=0)


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_loss_is_cross_entropy_of_each_photos_own_label(smoothing):
    method = objective(label_smoothing=smoothing).double().eval()
    method.classifier.head.weight.data *= 100  # at the start all classes are alike
    batch = source().batch(0)
    batch = batch._replace(views=(batch.views[0]._replace(images=batch.views[0].images.double()),))
    result = method(batch, START)
    logits = method.classifier(batch.views[0].images).float().double().tolist()
    total = right = 0.0
    for row, scores in zip(batch.rows.tolist(), logits, strict=True):
        norm = np.log(np.sum(np.exp(scores)))
        target = np.full(4, smoothing / 4)
        target[row % 4] += 1 - smoothing
        total -= sum(t * (s - norm) for t, s in zip(target, scores, strict=True))
        right += np.argmax(scores) == row % 4
    assert result.loss.item() == pytest.approx(total / 8, rel=1e-6)
    assert result.parts["accuracy"].item() == pytest.approx(right / 8)
    assert result.carry == {}


def test_labels_of_other_photos_do_not_matter_and_those_of_the_batch_do():
    method, batch = objective(), source().batch(0)
    method.classifier.head.weight.data *= 100
    loss = method(batch, START).loss.item()
    others = torch.ones(32, dtype=torch.bool)
    others[batch.rows] = False
    method.labels[others] = 3 - method.labels[others]
    assert method(batch, START).loss.item() == loss
    method.labels[batch.rows[0]] = (method.labels[batch.rows[0]] + 1) % 4
    assert method(batch, START).loss.item() != loss


def test_a_photo_without_label_cannot_train_by_mistake():
    labels = LABELS.clone()
    labels[5] = -1
    method = objective(labels)
    whole = BatchSource(
        tiny.ArrayStore(32),
        np.arange(32),
        SupervisedObjective.views(FinetuneConfig(), tiny.SIZE),
        batch_size=32,
        seed=0,
    )
    with pytest.raises(IndexError):
        method(whole.batch(0), START)


def test_every_part_learns_and_the_head_ten_times_faster():
    method = objective()
    method.classifier.head.weight.data *= 100
    method(source().batch(0), START).loss.backward()
    assert all(p.grad is not None and p.grad.abs().max() > 0 for p in method.parameters())
    config = FinetuneConfig().train
    rates = {id(p): g["lr_ratio"] for g in parameter_groups(method, config) for p in g["params"]}
    decays = {
        id(p): g["weight_decay"] for g in parameter_groups(method, config) for p in g["params"]
    }
    head = method.classifier.head
    assert rates[id(head.weight)] == rates[id(head.bias)] == 10
    assert {rates[id(p)] for p in method.classifier.spec.parameters()} == {1.0}
    assert (decays[id(head.weight)], decays[id(head.bias)]) == (config.weight_decay, 0)


def test_the_network_is_saved_once():
    state = objective().state_dict()
    assert "labels" in state
    assert len([key for key in state if key.endswith("network.0.weight")]) == 1


def test_resume_is_exact(tmp_path):
    whole, config = objective(), tiny.train_config(epochs=2)
    fit(whole, source(), config, tmp_path / "whole")
    first = objective()
    real = first.before_step

    def stop(progress):
        if progress.step == 3:
            raise KeyboardInterrupt
        real(progress)

    first.before_step = stop
    config = tiny.train_config(epochs=2, checkpoint_seconds=0)
    with pytest.raises(KeyboardInterrupt):
        fit(first, source(), config, tmp_path / "parts")
    second = objective(seed=7)
    assert fit(second, source(), config, tmp_path / "parts").resumed_from == 3
    assert tiny.largest_difference(tiny.state(whole), tiny.state(second)) == 0


def test_one_batch_can_be_learnt():
    method, batch = objective(), source().batch(0)
    optimizer = torch.optim.AdamW(method.parameters(), lr=0.01)
    for _ in range(100):
        optimizer.zero_grad()
        method(batch, START).loss.backward()
        optimizer.step()
    result = method(batch, START)
    assert result.parts["accuracy"] == 1
    # The best that smoothing by 0.1 over 4 classes allows.
    least = -(0.925 * np.log(0.925) + 0.075 * np.log(0.025))
    assert least <= result.loss.item() < least + 0.05


def test_views_are_crops_and_flips_unless_colours_are_asked_for():
    (plain,) = SupervisedObjective.views(FinetuneConfig(smallest_crop=0.3), 48).specs
    assert (plain.count, plain.size, plain.scale) == (1, 48, (0.3, 1.0))
    assert not plain.jitters
    assert (plain.gray, plain.blur, plain.solarize, plain.flip) == (0, 0, 0, 0.5)
    (bright,) = SupervisedObjective.views(FinetuneConfig(jitter=0.4), 48).specs
    assert bright.jitters
    assert bright.hue == 0


def test_the_classifier_is_a_copy_without_post_processing():
    backbone = Backbone.build(BackboneConfig(name="test_resnet", weights="random"), size=32)
    post = PostConfig(whiten_dim=4, flip=True, pooling="gem", gem_power=2.0, crop=0.9)
    spec = EncoderSpec(backbone, post, whitening=Whitening(backbone.token_dim, 4))
    with torch.no_grad():
        for parameter in backbone.parameters():
            parameter.mul_(1.1)  # no longer those that the seed gives
    spec.eval().requires_grad_(False)
    images = torch.rand(3, 3, 32, 32)
    config = FinetuneConfig(
        normalization="slow", train_from_stage=1, lr_ratios=(0.5, 1.0), head_rate=3.0
    )
    made = build_classifier(spec, 5, config, seed=3)
    assert made.spec.whitening is None
    assert not made.spec.post.flip
    assert (made.spec.post.pooling, made.spec.crop) == ("gem", 0.9)
    settings = made.spec.backbone.config
    assert (settings.normalization, settings.train_from_stage) == ("slow", 1)
    assert settings.lr_ratios == (0.5, 1.0)
    assert made.head.lr_ratio == 3
    learns = [p.requires_grad for p in made.spec.backbone.parameters()]
    assert any(learns)
    assert not all(learns)
    made.eval()
    with torch.no_grad():
        pooled = spec.readout(spec.features(images))
        assert torch.equal(made(images), functional.linear(pooled, made.head.weight))
    again = build_classifier(spec, 5, config, seed=3)
    assert torch.equal(made.head.weight, again.head.weight)
    assert not torch.equal(made.head.weight, build_classifier(spec, 5, config, seed=4).head.weight)


@pytest.mark.parametrize(
    ("how", "asked", "kept"),
    [
        ("random", None, "train"),
        ("supervised", None, "frozen"),
        ("distilled", None, "frozen"),
        ("supervised", "train", "train"),
        ("random", "slow", "slow"),
    ],
)
def test_batch_statistics_are_kept_where_the_start_has_good_ones(how, asked, kept):
    backbone = Backbone.build(BackboneConfig(name="test_resnet", weights="random"), size=32)
    backbone.provenance = backbone.provenance.model_copy(update={"how": how})
    config = FinetuneConfig(normalization=asked)
    made = build_classifier(EncoderSpec(backbone), 5, config, seed=0)
    assert made.spec.backbone.config.normalization == kept
    norm = next(m for m in made.train().modules() if isinstance(m, nn.BatchNorm2d))
    assert norm.training == (kept == "train")


@pytest.mark.parametrize("name", list(METHODS))
def test_what_a_method_exports_can_be_fine_tuned_with_all_its_modules(name):
    backbone = Backbone.build(BackboneConfig(name="test_resnet", weights="random"), size=64)
    exported = METHODS[name](tiny.config(name), backbone).exports()
    spec = exported.get("teacher", exported["student"])
    made = build_classifier(spec.eval(), 5, FinetuneConfig(), seed=0)
    assert made.spec.describe()["inserted"] == spec.describe()["inserted"]
    images = torch.rand(4, 3, 64, 64)
    with torch.no_grad():
        embedded = functional.normalize(made.eval().spec.readout(made.spec.features(images)))
        torch.testing.assert_close(embedded, spec.raw(images))
    made.train().head.weight.data.normal_()
    made(images).square().sum().backward()
    still = [key for key, p in made.named_parameters() if not p.requires_grad or p.grad is None]
    assert still == []


def test_labels_that_fit_no_class_are_refused():
    with pytest.raises(LabelError, match="the largest label is 4; the head has 4 classes"):
        objective(torch.tensor([0, 4]))
    with pytest.raises(LabelError, match="the largest label is -1"):
        objective(torch.tensor([-1, -1]))
    with pytest.raises(ValueError, match="the head takes 8 numbers"):
        Classifier(EncoderSpec(tiny.TinyBackbone()), ClassHead(8, 4))
