import math
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import tiny
from fieldmark.encoder import Encoder
from fieldmark.methods.msam import MSAMConfig
from fieldmark.nn.losses import info_nce, normalize
from fieldmark.training.log import read_metrics
from fieldmark.training.loop import fit
from fieldmark.training.optim import learning_rate, parameter_groups
from fieldmark.types import Progress
from fieldmark.workflows.recipe import load_recipe

sys.path.insert(0, str(Path(__file__).parents[1] / "contract"))
import checks

START = Progress(0, 10, 0.0)


def fitting(**settings):
    """In float64 and with gates open, so that the module is part of what is compared."""
    method, batch = tiny.fitting("msam", **settings)
    with torch.no_grad():
        for backbone in (method.backbone, method.teacher):
            for module in backbone.insertions.values():
                module.gamma.fill_(0.5)
    return method, batch


def unit(x):
    return [[v / math.sqrt(sum(u * u for u in row)) for v in row] for row in x.tolist()]


def dot(a, b):
    return sum(x * y for x, y in zip(a, b, strict=True))


def by_hand(method, batch, *, swap=False):
    """Appendix A.3 of the reconstruction with its switches, one number at a time."""
    config = method.config
    first, second = batch.views[::-1] if swap else batch.views
    with torch.no_grad():
        student = unit(method.head(method.backbone(first.images).pooled))
        teacher = unit(method.teacher_head(method.teacher(second.images).pooled))
    total = 0.0
    for i in range(len(student)):
        anchor = student[i] if config.anchor == "query" else teacher[i]
        positive = math.exp(dot(student[i], teacher[i]) / config.temperature)
        if config.negatives == "queue":
            others = method.queue.keys.tolist()
        else:
            others = [key for j, key in enumerate(teacher) if j != i]
        below = sum(math.exp(dot(anchor, other) / config.temperature) for other in others)
        below += positive if config.include_positive else 0.0
        total += math.log(positive / below)
    mean = total / len(student)
    return (-mean if config.sign == "minimise" else mean), teacher


SWITCHES = [
    {},
    {"anchor": "momentum"},
    {"include_positive": False},
    {"negatives": "in_batch"},
    {"negatives": "in_batch", "include_positive": False, "anchor": "momentum"},
    {"sign": "printed"},
    {"faithful": True},
    {"module": "pyramid"},
    {"module": "none", "temperature": 0.3},
]


@pytest.mark.parametrize("settings", SWITCHES, ids=str)
def test_loss_is_plain_loops(settings):
    method, batch = fitting(**settings)
    expected, keys = by_hand(method, batch)
    result = method(batch, START)
    assert result.loss.item() == pytest.approx(expected, abs=1e-6)
    assert torch.allclose(result.carry["keys"], torch.tensor(keys).double(), atol=1e-6)


def test_symmetric_averages_both_ways_and_queues_both_keys():
    method, batch = fitting(symmetric=True)
    there, back = by_hand(method, batch)[0], by_hand(method, batch, swap=True)[0]
    result = method(batch, START)
    assert result.loss.item() == pytest.approx((there + back) / 2, abs=1e-6)
    method.after_step(START, result.carry)
    assert method.queue.rows[:16].tolist() == batch.rows.repeat_interleave(2).tolist()


def test_published_setting_gives_the_papers_sanity_values():
    axis = torch.eye(8)
    query = axis[:1].expand(5, 8)
    same, apart = axis[:1].expand(64, 8), axis[1:2].expand(64, 8)
    assert info_nce(query, query, same, 0.1).item() == pytest.approx(math.log(65), abs=1e-5)
    assert math.log(65) == pytest.approx(4.1744, abs=1e-4)
    found = info_nce(query, query, apart, 0.1).item()
    assert found == pytest.approx(math.log(1 + 64 * math.exp(-10)), abs=1e-6)
    assert found == pytest.approx(0.0029, abs=1e-4)
    # Without the positive below, the loss of a solved batch is negative.
    alone = info_nce(query, query, apart, 0.1, include_positive=False).item()
    assert alone == pytest.approx(math.log(64) - 10, abs=1e-5)


@pytest.mark.parametrize("module", ["block", "pyramid", "stem"])
def test_modules_learn_at_their_own_rate_and_the_log_says_how_far_gates_opened(module, tmp_path):
    method = tiny.method("msam", module=module, module_rate=30.0)
    names = {id(p): name for name, p in method.named_parameters()}
    config = tiny.train_config(epochs=1, optimizer="adam", lr=1e-3, weight_decay=0.3)
    rates = {
        names[id(p)]: (group["lr_ratio"], group["weight_decay"])
        for group in parameter_groups(method, config)
        for p in group["params"]
    }
    for name, (rate, decay) in rates.items():
        assert rate == (30.0 if ".insertions." in name else 1.0), name
        if name.endswith("gamma"):
            assert decay == 0
    assert {decay for name, (_, decay) in rates.items() if ".insertions." in name} == {0, 0.3}
    fit(method, tiny.source("msam"), config, tmp_path)
    gates = [line["gate"] for line in read_metrics(tmp_path, "train")]
    assert gates[0] == 0
    # Adam's first steps are as large as its rate.
    assert gates[1] == pytest.approx(0.03, rel=0.01)


def test_without_a_module_there_is_no_gate():
    method, batch = fitting(module="none")
    assert method(batch, START).parts == {}


def test_defaults_are_the_papers_and_recipe_has_its_schedule():
    config = MSAMConfig()
    assert (config.temperature, config.momentum, config.queue_size) == (0.1, 0.999, 64)
    recipe = load_recipe("msam")
    assert recipe.method == config
    train = recipe.train
    assert (train.optimizer, train.betas, train.weight_decay) == ("adam", (0.9, 0.999), 0.0)
    assert (train.epochs, train.batch_size) == (40, 64)
    (spec,) = tiny.METHODS["msam"].views(config, 224).specs
    assert (spec.gray, spec.blur, spec.flip, spec.jitter_probability) == (0.0, 0.0, 0.5, 0.8)
    rates = [learning_rate(train, Progress(epoch, 40, float(epoch))) for epoch in range(40)]
    assert [rates[epoch] for epoch in (0, 9, 10, 20, 30, 39)] == pytest.approx(
        [1e-4, 1e-4, 1e-5, 1e-6, 1e-7, 1e-7]
    )


def test_faithful_is_every_printed_value_unless_set():
    config = MSAMConfig(faithful=True)
    assert (config.update, config.sign, config.anchor, config.include_positive, config.module) == (
        "printed",
        "printed",
        "momentum",
        False,
        "stem",
    )
    assert (config.module_rate, MSAMConfig().module_rate) == (1.0, 10.0)
    assert MSAMConfig(faithful=True, sign="minimise", module="block").sign == "minimise"
    # What a run stores comes back as it was.
    assert MSAMConfig.parse(config.dump(), "here") == config
    assert MSAMConfig().update == "ema"
    asked = load_recipe("msam", ["method.faithful=true"]).method
    assert asked == config


def moved_share(**settings):
    """How much of the gap to the student the teacher closes in one step, per parameter."""
    method, batch = fitting(**settings)
    before = [p.clone() for p in (*method.teacher.parameters(), *method.teacher_head.parameters())]
    with torch.no_grad():
        for parameter in (*method.backbone.parameters(), *method.head.parameters()):
            parameter.add_(1.0)
    method.after_step(START, method(batch, START).carry)
    after = (*method.teacher.parameters(), *method.teacher_head.parameters())
    assert len(before) > len(list(method.head.parameters())) + 6
    return [(new - old).unique() for new, old in zip(after, before, strict=True)]


def test_teacher_moves_by_a_thousandth_of_the_gap_modules_included():
    for share in moved_share():
        torch.testing.assert_close(share, torch.full_like(share, 1e-3))


def test_the_printed_update_rule_overwrites_the_teacher():
    for share in moved_share(update="printed"):
        torch.testing.assert_close(share, torch.full_like(share, 0.999))


def test_no_gradient_reaches_the_teacher_and_keys_enter_the_queue_in_order():
    method, batch = fitting()
    held = method.queue.keys.clone()
    result = method(batch, START)
    result.loss.backward()
    teachers = (*method.teacher.parameters(), *method.teacher_head.parameters())
    assert all(p.grad is None and not p.requires_grad for p in teachers)
    assert torch.equal(method.queue.keys, held)
    for turn in range(9):
        keys = torch.full((8, 16), float(turn), dtype=torch.float64)
        method.after_step(START, {"keys": keys, "rows": batch.rows})
    # 64 slots: the first batch's place is taken by the ninth.
    assert [int(method.queue.keys[8 * slot, 0]) for slot in range(8)] == [8, 1, 2, 3, 4, 5, 6, 7]


def agreement(steps=40, **settings):
    """Cosine between what student and teacher make of two views, before and after training."""
    method, batch = tiny.method("msam", momentum=0.9, **settings), checks.pairs()

    @torch.no_grad()
    def closeness():
        first = normalize(method.head(method.backbone(batch.views[0].images).pooled))
        second = normalize(method.head(method.backbone(batch.views[1].images).pooled))
        both = first @ second.T
        own = both.diagonal().mean()
        return float(own - (both.sum() - both.diagonal().sum()) / (len(both) ** 2 - len(both)))

    optimizer = torch.optim.SGD([p for p in method.parameters() if p.requires_grad], lr=0.2)
    before = closeness()
    for step in range(steps):
        progress = Progress(step, steps, float(step))
        result = method(batch, progress)
        optimizer.zero_grad()
        result.loss.backward()
        optimizer.step()
        method.after_step(progress, result.carry)
    return before, closeness()


def test_positives_get_closer_than_others_and_with_the_printed_sign_they_do_not():
    before, after = agreement()
    assert after > before + 0.1
    before, after = agreement(sign="printed")
    assert after < before, "without the minus the views are driven apart"


def test_the_printed_anchor_gives_negatives_no_say():
    """Anchor and negatives from the teacher: what negatives there are does not change the gradient."""

    def gradient(anchor, seed):
        method, batch = fitting(anchor=anchor, include_positive=False)
        torch.manual_seed(seed)
        method.queue.push(normalize(torch.randn(64, 16)), torch.arange(64))
        method(batch, START).loss.backward()
        return torch.cat([p.grad.flatten() for p in method.head.parameters()])

    torch.testing.assert_close(gradient("momentum", 1), gradient("momentum", 2))
    assert not torch.allclose(gradient("query", 1), gradient("query", 2))


@pytest.mark.parametrize("module", ["block", "pyramid", "stem"])
def test_both_exports_hold_the_modules(module):
    method = tiny.method("msam", module=module)
    for spec in method.exports().values():
        assert len(spec.backbone.insertions) == {"block": 2, "pyramid": 1, "stem": 1}[module]
        kinds = [item["kind"] for item in spec.describe()["insertions"].values()]
        assert set(kinds) == {f"msam_{module}"}
    assert "insertions" not in tiny.method("msam", module="none").exports()["teacher"].describe()


@pytest.mark.parametrize("optimizer", ["adam", "adamw", "sgd", "lars"])
def test_without_contrast_the_start_is_exported_with_the_module_untrained(tmp_path, optimizer):
    start = tiny.TinyBackbone(batch_norm=True)
    method = tiny.method("msam", batch_norm=True, contrast=False)
    before = tiny.state(method)
    config = tiny.train_config(optimizer=optimizer, lr=0.1, weight_decay=0.05, epochs=1)
    fit(method, tiny.source("msam"), config, tmp_path)
    assert tiny.largest_difference(before, tiny.state(method)) == 0
    student = method.exports()["student"].eval()
    assert len(student.backbone.insertions) == 2
    images = torch.rand(3, 3, tiny.SIZE, tiny.SIZE)
    with torch.no_grad():
        assert torch.equal(student.backbone(images).pooled, start.eval()(images).pooled)


def test_ablations_name_settings_that_exist():
    recipe = load_recipe("msam")
    for variants in type(tiny.method("msam")).ablations.values():
        for changes in variants.values():
            data = recipe.dump()
            for table, values in changes.items():
                data[table] = {**data[table], **values}
            assert type(recipe).parse(data, "ablation").method_name == "msam"


@pytest.mark.slow
def test_an_artifact_embeds_without_the_training_code(tmp_path):
    from fieldmark.backbones.backbone import Backbone, BackboneConfig
    from fieldmark.methods.msam import MSAM

    backbone = Backbone.build(BackboneConfig(name="test_resnet", weights="random"), size=32)
    method = MSAM(MSAMConfig(dim=8), backbone)
    Encoder(method.exports()["teacher"], device="cpu").save(tmp_path / "encoder")
    code = (
        "import sys, numpy\n"
        "from fieldmark.encoder import Encoder\n"
        f"encoder = Encoder.load({str(tmp_path / 'encoder')!r}, device='cpu')\n"
        "assert encoder.embed([numpy.zeros((40, 40, 3), numpy.uint8)]).shape == (1, encoder.dim)\n"
        "assert len(encoder.spec.backbone.insertions) == 3\n"
        "bad = [m for m in sys.modules if m.startswith(('fieldmark.methods', 'fieldmark.training'))]\n"
        "assert not bad, bad\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=250)
