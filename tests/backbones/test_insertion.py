import copy
import gc

import pytest
import torch
from torch import nn

from fieldmark.backbones.backbone import Backbone, BackboneConfig
from fieldmark.backbones.insertion import find_places
from fieldmark.errors import InputError
from fieldmark.nn.momentum import follow, frozen_copy

TINY = ["test_resnet", "test_vit"]
OTHERS = [
    "test_efficientnet",
    "test_convnext",
    "resnet50",
    "mobilenetv2_100",
    "convnext_tiny",
    "vit_tiny_patch16_224",
    "vit_small_patch14_reg4_dinov2",
    "swin_tiny_patch4_window7_224",
    "resnetv2_50",
    "regnety_002",
    "densenet121",
]


def build(name, size=64, **settings):
    return Backbone.build(BackboneConfig(name=name, weights="random", **settings), size=size)


def images(size=64, count=2):
    return torch.rand(count, 3, size, size, generator=torch.Generator().manual_seed(0))


class Shift(nn.Module):
    """Adds one learnt number per channel, and remembers the shapes it was given."""

    def __init__(self, channels):
        super().__init__()
        self.shift = nn.Parameter(torch.zeros(channels))
        self.seen = []

    def forward(self, x):
        self.seen.append(tuple(x.shape))
        return x + self.shift[:, None, None]


def with_shifts(name, size=64, **settings):
    backbone = build(name, size, **settings)
    for stage, channels in enumerate(backbone.stage_dims):
        backbone.insert(f"stage{stage}", Shift(channels))
    return backbone.eval()


def check_places(name, size):
    """Each stage's module sees that stage's map, and what it adds is in it and in what follows."""
    plain, backbone = build(name, size).eval(), with_shifts(name, size)
    count, x = len(backbone.stage_dims), images(size)
    assert [module.seen for module in backbone.insertions.values()] == [[]] * count
    with torch.no_grad():
        before = plain(x, stages=range(count))
        assert torch.equal(backbone(x).pooled, before.pooled)
        modules = [backbone.insertions[f"stage{stage}"] for stage in range(count)]
        assert [m.seen for m in modules] == [[tuple(map_.shape)] for map_ in before.stages]
        for stage, module in enumerate(modules):
            module.shift.fill_(0.5)
            after = backbone(x, stages=range(count))
            torch.testing.assert_close(after.stages[stage], before.stages[stage] + 0.5)
            for earlier in range(stage):
                assert torch.equal(after.stages[earlier], before.stages[earlier])
            for later in range(stage + 1, count):
                assert not torch.allclose(after.stages[later], before.stages[later])
            # With and without intermediate maps it is one network.
            assert torch.equal(backbone(x).tokens, after.tokens)
            module.shift.zero_()


@pytest.mark.parametrize("name", TINY)
def test_each_stage_can_be_changed(name):
    check_places(name, 64)


@pytest.mark.slow
@pytest.mark.parametrize("name", OTHERS)
def test_each_stage_of_other_networks_can_be_changed(name):
    backbone = build(name, size=126 if "patch14" in name else 224 if "swin" in name else 64)
    if not backbone.stage_dims:
        with pytest.raises(InputError, match="has no stages"):
            backbone.insert("stage0", Shift(1))
        return
    check_places(name, backbone.size)


def test_class_token_is_not_touched():
    plain, backbone = build("test_vit").eval(), build("test_vit").eval()
    last = len(backbone.stage_dims) - 1
    backbone.insert(f"stage{last}", Shift(backbone.stage_dims[last]))
    with torch.no_grad():
        backbone.insertions[f"stage{last}"].shift.fill_(2.0)
        before, after = plain(images()), backbone(images())
    assert torch.equal(before.cls, after.cls)
    assert not torch.allclose(before.tokens, after.tokens)


def test_rows_and_columns_of_tokens_are_those_of_the_map():
    class Ramp(nn.Module):
        def forward(self, x):
            ramp = torch.arange(x.shape[2] * x.shape[3]).view(1, 1, *x.shape[2:])
            return torch.zeros_like(x) + ramp

    backbone = build("test_vit").eval()
    backbone.insert("stage2", Ramp())
    with torch.no_grad():
        (stage,) = backbone(images(), stages=[2]).stages
    assert stage[0, 0].flatten().tolist() == list(range(16))


def test_image_is_changed_after_normalising():
    backbone = build("test_resnet", mean=(0.5,) * 3, std=(0.25,) * 3).eval()
    seen = []

    class Look(nn.Module):
        def forward(self, x):
            seen.append(x)
            return x * 2

    with torch.no_grad():
        plain = backbone(images() * 2 - 0.5).pooled
        backbone.insert("image", Look())
        doubled = backbone(images()).pooled
    torch.testing.assert_close(seen[0], (images() - 0.5) / 0.25)
    torch.testing.assert_close(doubled, plain)


def test_features_get_the_stages_they_name_and_the_caller_the_ones_it_asked_for():
    class Add(nn.Module):
        stages = (0, -1)

        def forward(self, features):
            assert [stage.shape[1] for stage in features.stages] == [32, 96]
            return features._replace(pooled=features.pooled + features.stages[0].mean())

    backbone = build("test_resnet").eval()
    with torch.no_grad():
        plain = backbone(images(), stages=(1, 0))
        backbone.insert("features", Add())
        after = backbone(images(), stages=(1, 0))
        assert backbone(images()).stages == ()
    assert all(torch.equal(a, b) for a, b in zip(after.stages, plain.stages, strict=True))
    torch.testing.assert_close(after.pooled, plain.pooled + plain.stages[1].mean())


@pytest.mark.parametrize("name", TINY)
def test_a_copy_has_its_own_modules_and_a_teacher_follows_them(name):
    backbone = with_shifts(name)
    backbone.insert("image", Shift(3))
    teacher = frozen_copy(backbone)
    with torch.no_grad():
        before = teacher(images()).pooled
        for parameter in backbone.insertions.parameters():
            parameter.fill_(1.0)
        assert torch.equal(teacher(images()).pooled, before), "the copy reads the original"
        assert not any(p.requires_grad for p in teacher.insertions.parameters())
        follow(teacher, backbone, 0.25)
        assert all(p.eq(0.75).all() for p in teacher.insertions.parameters())
        assert not torch.allclose(teacher(images()).pooled, before)
    # The original may go.
    del backbone
    gc.collect()
    assert torch.isfinite(copy.deepcopy(teacher)(images()).pooled).all()


@pytest.mark.parametrize("name", TINY)
def test_gradient_state_groups_and_modes(name):
    backbone = with_shifts(name, train_from_stage=-1, lr_ratios=(0.1,)).train()
    assert all(module.training for module in backbone.insertions.modules())
    frozen = [n for n, p in backbone.network.named_parameters() if not p.requires_grad]
    assert frozen
    features = backbone(images().to(memory_format=torch.channels_last))
    (features.pooled.square().sum() + features.tokens.square().sum()).backward()
    for key, parameter in backbone.insertions.named_parameters():
        assert parameter.grad is not None, key
        assert parameter.grad.abs().max() > 0, key
    groups = {group["name"]: group for group in backbone.parameter_groups()}
    assert groups["insertions.no_decay"]["lr_ratio"] == 1.0
    assert len(groups["insertions.no_decay"]["params"]) == len(backbone.stage_dims)
    again = Backbone.rebuild(backbone.config, backbone.provenance, size=64)
    assert set(backbone.state_dict()) - set(again.state_dict()) == {
        f"insertions.stage{index}.shift" for index in range(len(backbone.stage_dims))
    }
    assert not any(module.training for module in backbone.eval().insertions.modules())
    late = nn.Sequential(nn.Dropout()).train()
    backbone.insert("image", late)
    assert not any(module.training for module in late.modules())


def test_places_that_do_not_exist_or_are_taken():
    backbone = build("test_resnet")
    with pytest.raises(InputError, match=r"'stage9' of 'test_resnet'.*stage0, stage1.*features"):
        backbone.insert("stage9", nn.Identity())
    backbone.insert("image", nn.Identity())
    with pytest.raises(InputError, match="already holds a module"):
        backbone.insert("image", nn.Identity())
    mixer = build("test_vit")
    mixer.insert("stage1", nn.Identity())
    with pytest.raises(InputError, match="need the whole grid"):
        mixer(images(), keep=torch.arange(4).expand(2, 4))
    with pytest.raises(InputError, match="fill no square"):
        mixer(torch.rand(1, 3, 64, 32))


def test_networks_without_stages_say_so():
    class Blind(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = nn.Conv2d(3, 4, 2)

    assert find_places(Blind(), 8, 0) == []

    class Twice(nn.Module):
        """Its stage is made by a part that runs twice."""

        def __init__(self):
            super().__init__()
            self.layer = nn.Conv2d(3, 3, 1)

        def forward_features(self, x):
            return self.layer(self.layer(x))

        def forward_intermediates(self, x, intermediates_only=True):
            return [self.forward_features(x)]

    with pytest.raises(InputError, match="stage 0"):
        find_places(Twice(), 8, 0)

    class HandsOn(nn.Module):
        """What stage 0 made is handed on unchanged, after its map was taken."""

        def __init__(self):
            super().__init__()
            self.first, self.hand, self.second = nn.Conv2d(3, 4, 2), nn.Identity(), nn.ReLU()

        def forward_features(self, x):
            return self.second(self.hand(self.first(x)))

        def forward_intermediates(self, x, intermediates_only=True):
            first = self.first(x)
            return [first, self.second(self.hand(first))]

    assert [place.part for place in find_places(HandsOn(), 8, 0)] == ["first", "second"]
    plain = build("test_resnet")
    plain._places = list
    with pytest.raises(InputError, match="it has no stages"):
        plain.insert("stage0", nn.Identity())
