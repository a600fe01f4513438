import math
import sys
from functools import partial
from pathlib import Path

import pytest
import torch

import tiny
from fieldmark.methods import METHODS

sys.path.insert(0, str(Path(__file__).parent))
import checks

pytestmark = pytest.mark.parametrize("name", list(METHODS))
FAST = {"momentum": 0.99}
"""Settings under which 300 steps are a long time."""
NEEDED = {"ppssl": {"teacher": "fieldmark:folder", "texts": "birds"}}
"""What the user must have set for all of a method's ablations."""
LIGHT = {"weight": 0.1}
"""Further losses weigh less here: maps of two by two cells of noise are mostly noise."""


def contrast_of(name):
    """The settings that hold temperature and momentum: those of the method underneath, if any."""
    settings = tiny.config(name)
    return settings.contrast if hasattr(settings, "base") else settings


def fast(name):
    known, own = type(contrast_of(name)).model_fields, type(tiny.config(name)).model_fields
    chosen = {key: value for key, value in FAST.items() if key in known}
    return {**chosen, **{key: value for key, value in LIGHT.items() if key in own}}


def build(name):
    return partial(tiny.method, name)


def test_output(name):
    checks.output(build(name), name)


@pytest.mark.parametrize("batch_norm", [False, True])
def test_forward_reads_only(name, batch_norm):
    checks.purity(partial(tiny.method, name, batch_norm=batch_norm), name)


def test_every_view_counts(name):
    checks.every_view_counts(build(name), name)


def test_gradients_reach_what_trains_and_nothing_else(name):
    checks.gradient_flow(build(name), name)


def test_after_step_once_per_step(name, tmp_path):
    checks.once_per_step(build(name), name, tmp_path)


def test_accumulation_is_a_larger_batch_or_refused(name, tmp_path):
    checks.accumulation(build(name), name, tmp_path)


def test_resume_is_exact(name, tmp_path):
    checks.resume(build(name), name, tmp_path)


def test_one_batch_can_be_learnt(name):
    checks.overfit(partial(tiny.method, name, **fast(name)))


@pytest.mark.slow
@pytest.mark.parametrize("seed", [1, 2])
def test_one_batch_can_be_learnt_from_other_starts(name, seed):
    checks.overfit(partial(tiny.method, name, **fast(name)), seed=seed)


def test_exports_are_encoders_without_heads(name):
    method = tiny.method(name)
    for spec in method.exports().values():
        embedding = spec(torch.rand(3, 3, tiny.SIZE, tiny.SIZE))
        assert embedding.shape == (3, method.backbone.dim)
        assert torch.allclose(embedding.norm(dim=1), torch.ones(3), atol=1e-5)
    assert "student" in method.exports()


def test_all_state_is_saved(name):
    method = tiny.method(name)
    saved = method.state_dict()
    for key, buffer in method.named_buffers():
        assert key in saved, f"{key} would be lost: {buffer.shape}"


def test_views_take_their_size_from_the_caller(name):
    kind = METHODS[name]
    views = kind.views(kind.config_type(), 96)
    assert {spec.size for spec in views.specs} == {96}
    assert views.count == 2


def test_settings_are_described(name):
    for key, field in METHODS[name].config_type.model_fields.items():
        assert field.description, f"{key} needs a sentence below it"


def test_it_says_what_it_is_for(name):
    summary = METHODS[name].summary
    for key, text in summary._asdict().items():
        assert text.strip() == text, key
        assert 10 <= len(text) <= 120, f"{key} must fit a line"
        assert not text.endswith("."), key


def test_ablations_change_settings_that_exist(name):
    kind = METHODS[name]
    for study, variants in kind.ablations.items():
        assert len(variants) >= 2, f"{study} compares nothing"
        for variant, tables in variants.items():
            changed = dict(tables.get("method", {}))
            if "name" not in changed:
                changed = {**NEEDED.get(name, {}), **changed}
                kind.config_type.parse(changed, f"{study}, {variant}")


def test_file_is_one_page(name):
    path = Path(sys.modules[METHODS[name].__module__].__file__)
    assert len(path.read_text().splitlines()) <= 170


def test_loss_at_start_is_finite_and_bounded_by_hand(name):
    """With unit vectors and temperature t a cross-entropy over n lies in [0, log n + 2/t]."""
    method = tiny.method(name)
    batch = tiny.source(name).batch(0)
    loss = method(batch, checks.START).loss.item()
    # Losses without a temperature compare cosines as they are.
    temperature = getattr(contrast_of(name), "temperature", 1.0)
    assert 0 <= loss <= 2 * (math.log(64 + 1) + 2 / temperature)
