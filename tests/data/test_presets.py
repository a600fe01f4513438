import pytest

from fieldmark.data.presets import PRESETS, apply_preset
from fieldmark.data.sampling import MultiView, ViewSpec
from fieldmark.errors import ConfigError

STRONG = MultiView(
    specs=(ViewSpec(size=64, count=2, solarize=0.2), ViewSpec(size=32, scale=(0.05, 0.3)))
)


def test_the_five_domains_are_there():
    assert set(PRESETS) == {"natural", "plumage", "vehicle", "product", "part"}


@pytest.mark.parametrize("name", PRESETS)
def test_a_preset_only_weakens_and_says_why(name):
    for before, after in zip(STRONG.specs, apply_preset(name, STRONG).specs):
        changed = {
            field
            for field in ViewSpec.model_fields
            if getattr(before, field) != getattr(after, field)
        }
        assert changed <= {change.field for change in PRESETS[name].changes}
        for field in changed - {"scale", "ratio", "blur_sigma"}:
            assert getattr(after, field) < getattr(before, field)
        assert after.ratio[0] >= before.ratio[0]
        assert after.scale[0] >= before.scale[0]
    text = PRESETS[name].describe()
    for change in PRESETS[name].changes:
        assert len(change.reason) > 10
        assert change.reason in text


def test_what_each_domain_protects():
    assert apply_preset("natural", STRONG) == STRONG
    plumage = apply_preset("plumage", STRONG).specs[0]
    assert (plumage.hue, plumage.gray, plumage.flip) == (0.0, 0.0, 0.5)
    assert apply_preset("vehicle", STRONG).specs[0].hue == STRONG.specs[0].hue
    assert apply_preset("product", STRONG).specs[0].flip == 0.0
    part = apply_preset("part", STRONG)
    assert part.specs[0].ratio == (1.0, 1.0)
    # A range wholly outside the limit lands on it instead of turning over.
    assert part.specs[1].scale == (0.4, 0.4)


def test_a_weak_view_stays_weak():
    weak = MultiView(specs=(ViewSpec(size=32, blur=0.1, blur_sigma=(0.1, 0.5)),))
    spec = apply_preset("vehicle", weak).specs[0]
    assert (spec.blur, spec.blur_sigma) == (0.1, (0.1, 0.5))


def test_an_unknown_preset_names_the_closest():
    with pytest.raises(ConfigError, match="did you mean 'plumage'"):
        apply_preset("plumages", STRONG)
