import math

import numpy as np
import pytest
import torch

import tiny
from fieldmark import rng
from fieldmark.backbones.backbone import Backbone, BackboneConfig
from fieldmark.data.views import ViewMaker
from fieldmark.methods.house import House, HouseConfig
from fieldmark.nn.diffusion import diffuse
from fieldmark.types import Progress
from fieldmark.workflows.recipe import load_recipe

START = Progress(0, 10, 0.0)


def unit(row):
    length = math.sqrt(sum(v * v for v in row))
    return [v / length for v in row]


def whiten(method, row):
    """Centre, project and scale one vector, number by number."""
    mean, projection = method.whitening.mean.tolist(), method.whitening.projection.tolist()
    centred = [v - m for v, m in zip(unit(row), mean)]
    columns = len(projection[0])
    return unit([sum(c * p[k] for c, p in zip(centred, projection)) for k in range(columns)])


def begun(**settings):
    method = tiny.method("house", **settings)
    source = tiny.source("house")
    method.start_epoch(START, source)
    return method, source


def test_loss_is_the_cosine_to_the_photos_own_vector_by_hand():
    method, source = begun()
    method.double()
    batch = source.batch(0)
    bank = dict(zip(method.bank.rows.tolist(), method.bank.vectors.tolist()))
    total = 0.0
    for view in batch.views:
        with torch.no_grad():
            pooled = method.backbone(view.images.double()).pooled.tolist()
        for row, vector in zip(batch.rows.tolist(), pooled):
            total += 1 - sum(a * b for a, b in zip(whiten(method, vector), bank[row]))
    expected = total / (2 * len(batch.rows))
    assert method(batch, START).loss.item() == pytest.approx(expected, abs=1e-9)


def test_bank_holds_the_mean_of_mirrored_looks_at_the_larger_input():
    method, source = begun(looks=3, teacher_scales=(2.0,), diffusion=0)
    spec = (
        House.views(method.config, 2 * tiny.SIZE)
        .specs[0]
        .model_copy(update={"count": 3, "scale": (0.3, 1.0)})
    )
    seed = rng.seed_of("house", "teacher", source.seed)
    maker = ViewMaker(source.maker.store, type(source.maker.multi_view)(specs=(spec,)), seed=seed)
    looks = []
    for view in maker.make(source.rows, 0):
        assert view.images.shape[2] == 2 * tiny.SIZE
        with torch.no_grad():
            there = method.teacher(view.images).pooled.tolist()
            back = method.teacher(view.images.flip(3)).pooled.tolist()
        looks.append([unit([a + b for a, b in zip(unit(x), unit(y))]) for x, y in zip(there, back)])
    # The teacher runs in reduced precision where the hardware has it.
    mean = torch.tensor(looks).mean((0, 1))
    assert torch.allclose(method.whitening.mean, mean, atol=0.01)
    for place, row in enumerate(method.bank.rows.tolist()):
        assert row == source.rows[place]
        mean = np.mean([whiten(method, look[place]) for look in looks], 0)
        assert np.dot(unit(mean), method.bank.vectors[place].tolist()) > 0.98


def test_the_teacher_looks_at_every_input_once():
    sizes = []

    class Noted(tiny.method("house").teacher.__class__):
        def forward(self, images, *rest, **named):
            sizes.append(images.shape[2])
            return super().forward(images, *rest, **named)

    method = tiny.method("house", looks=2, teacher_scales=(1.0, 2.0, 2.0))
    method.teacher.__class__ = Noted
    method.start_epoch(START, tiny.source("house"))
    # A runner compares its arithmetic on some photos first, and asks about mirrored ones too.
    assert set(sizes) == {tiny.SIZE, 2 * tiny.SIZE}
    assert sizes.count(2 * tiny.SIZE) == 4


@pytest.mark.parametrize("flip", [0.0, 0.5])
def test_the_teacher_mirrors_and_stretches_only_what_the_student_may(flip):
    source = tiny.source("house")
    own = source.maker.multi_view.specs[0].model_copy(update={"flip": flip, "ratio": (1.0, 1.0)})
    source.maker.multi_view = source.maker.multi_view.model_copy(update={"specs": (own,)})
    images = []

    class Noted(tiny.method("house").teacher.__class__):
        def forward(self, batch, *rest, **named):
            images.append(batch.clone())
            return super().forward(batch, *rest, **named)

    method = tiny.method("house", looks=3, teacher_scales=(2.0,))
    method.teacher.__class__ = Noted
    drawn = []
    make = ViewMaker.make

    def noting(maker, rows, epoch):
        drawn.append(maker.multi_view.specs[0])
        return make(maker, rows, epoch)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ViewMaker, "make", noting)
        method.start_epoch(START, source)
    assert [(spec.flip, spec.ratio) for spec in drawn] == [(flip, (1.0, 1.0))]
    # A runner compares its arithmetic on a few of them first.
    large = [batch for batch in images if batch.shape == (32, 3, 2 * tiny.SIZE, 2 * tiny.SIZE)]
    different = {batch.contiguous().numpy().tobytes() for batch in large}
    mirrored = {batch.flip(3).contiguous().numpy().tobytes() for batch in large}
    assert len(different) == (6 if flip else 3)
    assert len(different & mirrored) == (6 if flip else 0)


@pytest.mark.parametrize(
    ("preset", "drawn"), [("natural", ((0.3, 1.0), 0.5)), ("part", ((0.4, 1.0), 0.0))]
)
def test_presets_limit_the_teachers_crops(preset, drawn):
    source, seen = tiny.source("house"), []
    source.maker.multi_view = load_recipe("fieldmark", (f"views.preset={preset}",)).multi_view()
    make = ViewMaker.make

    def noting(maker, rows, epoch):
        seen.extend((spec.scale, spec.flip) for spec in maker.multi_view.specs)
        return make(maker, rows, epoch)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ViewMaker, "make", noting)
        tiny.method("house", looks=2).start_epoch(START, source)
    assert set(seen) == {drawn}


def test_targets_are_shared_among_mutual_neighbours():
    alone, _ = begun(diffusion=0)
    shared, _ = begun(diffusion=0.7, neighbours=3)
    expected = diffuse(alone.bank.vectors, 3, 0.7)
    torch.testing.assert_close(shared.bank.vectors, expected)
    assert (shared.bank.vectors - alone.bank.vectors).norm(dim=1).max() > 0.1
    assert torch.equal(shared.bank.rows, alone.bank.rows)


def test_the_teacher_is_asked_once():
    method, _ = begun()
    before = tiny.state(method)
    # No photos to look at: it must not try.
    method.start_epoch(Progress(4, 10, 1.0), None)
    assert tiny.largest_difference(before, tiny.state(method)) == 0


def test_few_photos_leave_directions_empty():
    method = tiny.method("house", dim=64)
    method.start_epoch(START, tiny.source("house", photos=8))
    empty = method.whitening.projection.abs().sum(0) == 0
    assert 0 < empty.sum() < 64
    assert torch.isfinite(method.bank.vectors).all()


def test_photos_that_whitening_was_not_fitted_on_are_in_the_bank_too():
    method, source = begun(fit_photos=8)
    assert torch.equal(method.bank.rows, torch.from_numpy(source.rows))
    assert torch.allclose(method.bank.vectors.norm(dim=1), torch.ones(32), atol=1e-5)


def test_a_photo_looks_for_its_own_vector():
    method, source = begun()
    batch = source.batch(0)
    right = method(batch, START).loss
    method.bank.vectors.copy_(method.bank.vectors.roll(1, 0))
    assert method(batch, START).loss > right + 0.1


def test_teacher_stays_and_student_moves():
    method, source = begun()
    teacher, student = tiny.state(method.teacher), tiny.state(method.backbone)
    optimizer = torch.optim.SGD([p for p in method.parameters() if p.requires_grad], lr=0.1)
    method(source.batch(0), START).loss.backward()
    optimizer.step()
    assert tiny.largest_difference(teacher, tiny.state(method.teacher)) == 0
    assert tiny.largest_difference(student, tiny.state(method.backbone)) > 0


def test_bank_goes_with_a_checkpoint():
    method, source = begun()
    fresh = tiny.method("house", seed=3)
    fresh.load_state_dict(method.state_dict())
    batch = source.batch(1)
    assert torch.equal(fresh(batch, START).loss, method(batch, START).loss)


def test_colours_are_left_alone():
    spec = House.views(HouseConfig(), 96).specs[0]
    assert not spec.jitters
    assert spec.gray == spec.blur == 0


def test_recipe_trains_this_at_the_starts_statistics():
    recipe = load_recipe("fieldmark")
    assert recipe.method_name == "house"
    assert recipe.backbone.normalization == "frozen"
    assert recipe.backbone.blend < 1
    assert recipe.method == HouseConfig()


@pytest.mark.parametrize(("name", "size"), [("vit_tiny_patch16_224", 70), ("gmixer_12_224", 64)])
def test_networks_that_do_not_take_every_size_are_asked_at_one_they_take(name, size):
    arguments = {"patch_size": 14} if size == 70 else {}
    config = BackboneConfig(name=name, weights="random", arguments=arguments)
    method = House(HouseConfig(looks=2, dim=8), Backbone.build(config, size=size))
    method.start_epoch(START, tiny.source("house", photos=8))
    assert torch.isfinite(method.bank.vectors).all()
    assert len(method.bank) == 8


def built(how, size=64, **settings):
    backbone = Backbone.build(BackboneConfig(name="test_resnet", weights="random"), size=size)
    backbone.provenance = backbone.provenance.model_copy(update={"how": how})
    return House(HouseConfig(**settings), backbone)


def test_it_says_when_its_premise_is_void():
    assert built("supervised").notes == ()
    (note,) = built("random").notes
    assert "--recipe simclr" in note
    # Made for 160 px.
    for settings in ({"size": 160}, {"teacher_scales": (1.0,)}):
        (note,) = built("supervised", **settings).notes
        assert "no more than what it teaches" in note
        assert "--size" in note
