import math

import pytest
import torch

import tiny
from fieldmark.backbones.backbone import Backbone, BackboneConfig
from fieldmark.encoder import Encoder
from fieldmark.errors import ConfigError
from fieldmark.methods.lodisc import LoDisc, LoDiscConfig
from fieldmark.nn import saliency
from fieldmark.nn.momentum import follow
from fieldmark.nn.saliency import keep_cells
from fieldmark.types import Batch, Progress, View

START = Progress(0, 10, 0.0)
SETTINGS = {"hidden": 24, "head_dropout": 0.0}


def images(count=4, size=32, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return [torch.rand(count, 3, size, size, generator=generator) for _ in range(2)]


def batch(count=4, size=32, key=7):
    rows = torch.arange(count)
    boxes, flipped = torch.zeros(count, 4), torch.zeros(count, dtype=torch.bool)
    return Batch(tuple(View(x, rows, boxes, flipped) for x in images(count, size)), rows, key)


def method(name="test_vit", **settings):
    torch.manual_seed(0)
    backbone = Backbone.build(BackboneConfig(name=name, weights="random"), size=32)
    result = LoDisc(LoDiscConfig(**{**SETTINGS, **settings}), backbone)
    with torch.no_grad():
        # As after some steps: the teacher is another network than the student.
        for part in (result.teacher, result.teacher_projector):
            for parameter in part.parameters():
                parameter.mul_(1.1)
    return result


def swapped(of):
    return of._replace(views=of.views[::-1])


# The loss


def unit(x):
    return [[v / math.sqrt(sum(u * u for u in row)) for v in row] for row in x.tolist()]


def ctr(queries, keys, temperature):
    """2 tau times the cross-entropy of each query's own key, in plain loops."""
    total = 0.0
    for i, query in enumerate(queries):
        terms = [math.exp(sum(a * b for a, b in zip(query, key)) / temperature) for key in keys]
        total -= math.log(terms[i] / sum(terms))
    return 2 * temperature * total / len(queries)


@torch.no_grad()
def masked_by_hand(of, x):
    """The masked view, by the paper's product of attention maps, cell by cell."""
    maps = of.teacher(x, attention=tuple(range(of.teacher.attention_blocks))).attention
    product = torch.ones(len(x), maps[0].shape[-1] - 1, dtype=torch.float64)
    for attention in maps:
        product = product * 1000 * attention.mean(1)[:, 0, 1:].double()
    result = of.teacher.mean.expand_as(x).clone()
    side = math.isqrt(product.shape[1])
    step = x.shape[2] // side
    for i, row in enumerate(product.tolist()):
        threshold = sorted(row, reverse=True)[math.floor(0.5 * len(row))]
        for cell, value in enumerate(row):
            if value > threshold:
                y, z = step * (cell // side), step * (cell % side)
                result[i, :, y : y + step, z : z + step] = x[i, :, y : y + step, z : z + step]
    return result


@pytest.mark.parametrize("projector", [True, False])
def test_loss_is_the_papers_in_plain_loops(projector):
    of = method(projector=projector, keep=0.5, temperature=0.3).double().eval()
    looks = [x.double() for x in images()]
    views = tuple(v._replace(images=x) for v, x in zip(batch().views, looks))
    with torch.no_grad():
        q = [unit(of.predictor(of.projector(of.backbone(x).pooled))) for x in looks]
        k = [unit(of.teacher_projector(of.teacher(x).pooled)) for x in looks]
        masked = [masked_by_hand(of, x) for x in looks]
        assert not torch.equal(masked[0], looks[0])
        local = [unit(of.teacher_projector(of.teacher(x).pooled)) for x in masked]
    whole = ctr(q[0], k[1], 0.3) + ctr(q[1], k[0], 0.3)
    part = ctr(q[0], local[1], 0.3) + ctr(q[1], local[0], 0.3)
    result = of(batch()._replace(views=views), START)
    assert result.parts["global"].item() == pytest.approx(whole, abs=1e-9)
    assert result.parts["local"].item() == pytest.approx(part, abs=1e-9)
    assert result.loss.item() == pytest.approx(whole + part, abs=1e-9)


@pytest.mark.parametrize("name", ["test_vit", "test_resnet"])
def test_views_may_change_places(name):
    of = method(name).double().eval()
    of_views = batch()._replace(
        views=tuple(v._replace(images=v.images.double()) for v in batch().views)
    )
    first = of(of_views, START).loss.item()
    assert of(swapped(of_views), START).loss.item() == pytest.approx(first, abs=1e-12)


def test_gradient_flows_through_the_queries_only():
    of = method()
    # Even where somebody forgot to freeze the teacher, no gradient may pass the keys.
    of.teacher.requires_grad_(True)
    of.teacher_projector.requires_grad_(True)
    of(batch(), START).loss.backward()
    for name, parameter in of.named_parameters():
        if name.startswith("teacher"):
            assert parameter.grad is None, name
        else:
            assert parameter.grad.abs().max() > 0, name


# Six passes


def count_passes(of, monkeypatch):
    calls = []
    for name in ("backbone", "teacher"):
        network = getattr(of, name)
        plain = network.network.forward_features

        def counted(x, *args, _plain=plain, _name=name, **kwargs):
            calls.append(_name)
            return _plain(x, *args, **kwargs)

        monkeypatch.setattr(network.network, "forward_features", counted)
    of(batch(), START)
    return calls


@pytest.mark.parametrize(
    ("settings", "teacher"),
    [({}, 4), ({"branches": "local"}, 4), ({"branches": "global"}, 2), ({"faithful": True}, 4)],
)
def test_six_encoder_passes_a_step(settings, teacher, monkeypatch):
    calls = count_passes(method(**settings), monkeypatch)
    assert (calls.count("backbone"), calls.count("teacher")) == (2, teacher)


def test_attention_is_read_in_the_teachers_first_passes_only():
    of = method()
    seen = []
    for network in (of.backbone, of.teacher):
        attention = network.network.blocks[0].attn
        attention.fused_attn = True
        attention.register_forward_pre_hook(lambda module, _: seen.append(module.fused_attn))
    of(batch(), START)
    assert seen == [True, True, False, True, False, True]


# Switches


def losses(**settings):
    return method(**settings).eval()(batch(), START)


def test_branches():
    both, whole, local = (losses(branches=b) for b in ("both", "global", "local"))
    assert set(both.parts) == {"global", "local"}
    assert set(whole.parts) == {"global"}
    assert set(local.parts) == {"local"}
    assert both.loss.item() == pytest.approx(whole.loss.item() + local.loss.item(), abs=1e-6)
    half = losses(local_weight=0.5).loss.item()
    assert half == pytest.approx(whole.loss.item() + 0.5 * local.loss.item(), abs=1e-6)


def kept(monkeypatch, **settings):
    """The cells that were shown, and the scores they were chosen by."""
    seen, scores = [], []

    def keep(values, share, *, inclusive=False):
        seen.append(keep_cells(values, share, inclusive=inclusive))
        return seen[-1]

    look = saliency.look

    def looked(backbone, x, layers):
        features, found = look(backbone, x, layers)
        scores.append((layers, found))
        return features, found

    monkeypatch.setattr(saliency, "keep_cells", keep)
    monkeypatch.setattr(saliency, "look", looked)
    # A patch of 16 pixels: 64 cells.
    losses_of = method(**settings).eval()
    losses_of(batch(size=128), START)
    return torch.cat(seen), torch.cat([found for _, found in scores]), scores[0][0]


def test_share_and_threshold(monkeypatch):
    for settings, count in (({}, 19), ({"keep_threshold": True}, 20), ({"keep": 0.7}, 44)):
        with monkeypatch.context() as patch:
            cells, _, _ = kept(patch, **settings)
        assert cells.flatten(1).sum(1).tolist() == [count] * 8


def test_selection(monkeypatch):
    found = {}
    for selection in ("attention", "inverse", "random"):
        with monkeypatch.context() as patch:
            cells, scores, _ = kept(patch, selection=selection, keep=0.5)
        found[selection] = cells
        mean = scores[cells].mean() - scores[~cells].mean()
        assert (mean > 0) == (selection == "attention") or selection == "random"
    assert torch.equal(found["attention"], ~found["inverse"])
    # The two views of a photo get random masks of their own.
    assert not torch.equal(found["random"][:4], found["random"][4:])


def test_random_masks_come_from_the_key():
    of = method(selection="random").eval()
    first, again = of(batch(), START).loss, of(batch(), START).loss
    assert first.item() == again.item()
    # Grid of 32 px is 2 x 2: try keys until another cell is drawn.
    assert any(of(batch(key=key), START).loss.item() != first.item() for key in range(5))


def test_layers(monkeypatch):
    for layers in ("fused", "last"):
        with monkeypatch.context() as patch:
            assert kept(patch, layers=layers)[2] == layers
    assert LoDiscConfig().layers == "fused"


@pytest.mark.parametrize("repeats", [1, 4])
def test_teacher_follows_as_often_as_asked(repeats):
    of = method(momentum=0.9, ema_repeats=repeats)
    expected = method(momentum=0.9)
    for _ in range(repeats):
        follow(expected.teacher, of.backbone, 0.9)
        follow(expected.teacher_projector, of.projector, 0.9)
    of.after_step(START, {})
    for name in ("teacher", "teacher_projector"):
        states = (tiny.state(getattr(side, name)) for side in (of, expected))
        assert tiny.largest_difference(*states) < 1e-6
    before = tiny.state(of.teacher)
    of.after_step(Progress(10, 10, 1.0), {})
    assert tiny.largest_difference(before, tiny.state(of.teacher)) == 0


def test_faithful_never_runs_a_projector():
    of = method(faithful=True)
    assert (of.config.ema_repeats, of.config.ships) == (4, "prediction")
    assert isinstance(of.projector, torch.nn.Identity)
    assert isinstance(of.teacher_projector, torch.nn.Identity)
    of.eval()
    view = batch().views[0]
    with torch.no_grad():
        pooled, key = of.backbone(view.images), of.teacher(view.images)
        assert torch.equal(pooled.pooled, pooled.cls)
        expected = torch.nn.functional.normalize(of.predictor(pooled.cls))
        torch.testing.assert_close(of._query(view), expected)
        torch.testing.assert_close(of._keys(view, 0)[0], torch.nn.functional.normalize(key.cls))


def test_by_default_the_projector_runs_in_student_and_teacher():
    of = method()
    calls = []
    of.projector.register_forward_hook(lambda *_: calls.append("student"))
    of.teacher_projector.register_forward_hook(lambda *_: calls.append("teacher"))
    of(batch(), START)
    assert sorted(calls) == ["student"] * 2 + ["teacher"] * 4


def test_faithful_is_not_half_faithful():
    with pytest.raises(ConfigError, match="faithful = true means"):
        LoDiscConfig.parse({"faithful": True, "projector": True}, "a recipe")
    resolved = LoDiscConfig(faithful=True, head_dropout=0.0)
    assert LoDiscConfig.parse(resolved.dump(), "a run") == resolved


def test_dropout_is_drawn_from_the_key():
    of = method(head_dropout=0.5)
    found = []
    for key in (1, 1, 2):
        torch.manual_seed(key)  # as the loop does
        found.append(of(batch(), START).loss.item())
    assert found[0] == found[1] != found[2]
    of.eval()
    assert of(batch(), START).loss.item() == of(batch(), START).loss.item()


def test_heads_are_the_releases():
    of = method(head_dropout=0.2)
    names = [type(layer).__name__ for layer in of.projector.layers]
    hidden = ["Linear", "SyncedBatchNorm", "ReLU", "Dropout"]
    assert names == [*hidden, *hidden, "Linear", "SyncedBatchNorm"]
    assert [type(layer).__name__ for layer in of.predictor.layers] == [*hidden, *names[-2:]]
    for head in (of.projector, of.predictor):
        assert all(layer.bias is None for layer in head.layers if hasattr(layer, "in_features"))
        assert head.layers[-1].weight is None


def test_patch_embedding_learns():
    assert all(p.requires_grad for p in method().backbone.parameters())


def test_convolutional_networks_mask_by_energy():
    of = method("test_resnet", keep=0.5)
    result = of(batch(size=64), START)
    result.loss.backward()
    assert set(result.parts) == {"global", "local"}


def test_masked_views_leave_the_teachers_statistics_alone():
    found = {}
    for branches in ("global", "local", "both"):
        config = BackboneConfig(name="test_resnet", weights="random", normalization="train")
        torch.manual_seed(0)
        settings = LoDiscConfig(**SETTINGS, branches=branches)
        of = LoDisc(settings, Backbone.build(config, size=64)).train()
        before = tiny.state(of.teacher)
        for seed in range(3):
            looks = zip(batch().views, images(size=64, seed=seed))
            of(batch()._replace(views=tuple(v._replace(images=x) for v, x in looks)), START)
        assert tiny.largest_difference(before, tiny.state(of.teacher)) > 0.01
        found[branches] = tiny.state(of.teacher) | tiny.state(of.teacher_projector)
    assert tiny.largest_difference(found["global"], found["local"]) == 0
    assert tiny.largest_difference(found["global"], found["both"]) == 0


# What ships


@torch.no_grad()
def test_prediction_ships_as_the_paper_evaluates_it(tmp_path):
    of = method(ships="prediction").eval()
    x = images()[0]
    student = of.predictor(of.projector(of.backbone(x).pooled))
    teacher = of.teacher_projector(of.teacher(x).pooled)
    for name, expected in (("student", student), ("teacher", teacher)):
        spec = of.exports()[name].eval()
        torch.testing.assert_close(spec(x), torch.nn.functional.normalize(expected))
        Encoder(spec, device="cpu", precision="fp32").save(tmp_path / name)
        again = Encoder.load(tmp_path / name, device="cpu", precision="fp32")
        torch.testing.assert_close(again.encode(x), spec(x))
        assert not any(isinstance(module, LoDisc) for module in again.spec.modules())
    plain = method().exports()
    assert all(not spec.inserted for spec in plain.values())


def test_ablations_are_settings():
    assert set(LoDisc.ablations) == {"branches", "selection", "keep", "layers"}
    for study in LoDisc.ablations.values():
        seen = [LoDiscConfig.parse(change["method"], "ablation") for change in study.values()]
        assert len({config.model_dump_json() for config in seen}) == len(seen)
        assert LoDiscConfig() in seen
