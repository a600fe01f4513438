import itertools

import numpy as np
import pytest
import torch
from pydantic import ValidationError
from scipy.stats import chisquare, ks_2samp
from torchvision.transforms import v2
from torchvision.transforms.v2 import ColorJitter, GaussianBlur

from fieldmark.data.sampling import MultiView, ViewSpec, draw_crops, draw_views

COUNT = 3000
SPEC = ViewSpec(size=32, scale=(0.1, 0.9), flip=0.3, gray=0.2, blur=0.4, solarize=0.1)
ADDRESS = {"seed": 11, "epoch": 2, "view": 1}


@pytest.fixture(autouse=True)
def _seeded():
    torch.manual_seed(0)


def draws(spec=SPEC, height=200, width=260, count=COUNT):
    shapes = np.tile([height, width], (count, 1))
    return draw_views(spec, shapes, np.arange(count), **ADDRESS)


# The last two shapes do not admit most candidates: the fall-back is compared too.
@pytest.mark.parametrize(
    ("height", "width"), [(200, 260), (160, 160), (60, 200), (400, 40), (9, 7)]
)
def test_crops_are_distributed_as_torchvisions(height, width):
    crops = draws(height=height, width=width).crops
    photo = torch.empty(3, height, width)
    transform = v2.RandomResizedCrop(32, SPEC.scale, SPEC.ratio)
    theirs = np.array([list(transform.make_params([photo]).values())[:4] for _ in range(COUNT)])
    top, left, h, w = theirs.T
    assert (crops.top + crops.height <= height).all()
    assert (crops.left + crops.width <= width).all()
    for ours, reference in [
        (crops.top, top),
        (crops.left, left),
        (crops.height, h),
        (crops.width, w),
        (crops.height * crops.width, h * w),
        (np.log(crops.width / crops.height), np.log(w / h)),
    ]:
        assert ks_2samp(ours, reference, method="asymp").pvalue > 0.01


def test_the_first_candidate_that_fits_is_taken():
    # Only squares fit a square photo at full scale: everything else falls back to the centre.
    spec = ViewSpec(size=8, scale=(1.0, 1.0), ratio=(1.5, 2.0))
    crops = draw_crops(spec, np.array([[100, 100]]), np.array([0]), **ADDRESS)
    # Too narrow for the ratio: full width, height = width / 1.5, in the middle.
    assert (crops.top[0], crops.left[0], crops.height[0], crops.width[0]) == (16, 0, 67, 100)


def test_jitter_is_distributed_as_torchvisions():
    spec = ViewSpec(size=32, brightness=0.4, contrast=0.3, saturation=1.4, hue=0.1)
    spec = spec.model_copy(update={"jitter_probability": 1.0})
    colour = draws(spec).colour
    transform = ColorJitter(spec.brightness, spec.contrast, spec.saturation, spec.hue)
    theirs = [transform.make_params([]) for _ in range(COUNT)]
    names = ("brightness_factor", "contrast_factor", "saturation_factor", "hue_factor")
    for index, name in enumerate(names):
        reference = [float(params[name]) for params in theirs]
        assert ks_2samp(colour.factors[:, index], reference, method="asymp").pvalue > 0.01
    orders, counts = np.unique(colour.order, axis=0, return_counts=True)
    assert len(orders) == len(list(itertools.permutations(range(4))))
    assert chisquare(counts).pvalue > 0.01


def test_blur_is_distributed_as_torchvisions():
    sigma = draws().sigma
    transform = GaussianBlur(13, SPEC.blur_sigma)
    theirs = [transform.make_params([])["sigma"][0] for _ in range(COUNT)]
    assert ks_2samp(sigma[sigma > 0], theirs, method="asymp").pvalue > 0.01


def test_chances_are_met_and_independent():
    drawn = draws()
    untouched = (drawn.colour.factors == (1, 1, 1, 0)).all(axis=1)
    events = {
        "flip": (drawn.flipped, SPEC.flip),
        "jitter": (~untouched, SPEC.jitter_probability),
        "gray": (drawn.colour.gray, SPEC.gray),
        "blur": (drawn.sigma > 0, SPEC.blur),
        "solarize": (drawn.solarized, SPEC.solarize),
    }
    for happened, chance in events.values():
        assert abs(happened.mean() - chance) < 4 * np.sqrt(chance * (1 - chance) / COUNT)
    # Factors only of jittered views: the neutral ones would tie them to the chance of jitter.
    crops, factors = drawn.crops, drawn.colour.factors
    chances = [happened for name, (happened, _) in events.items() if name != "jitter"]
    rest = [crops.width / crops.height, crops.top / (201 - crops.height), *factors.T]
    table = np.corrcoef([one[~untouched] for one in [*chances, *rest]])
    assert np.abs(table - np.eye(len(table))).max() < 0.08


def test_a_draw_does_not_depend_on_its_neighbours():
    shapes = np.tile([50, 70], (6, 1))
    rows = np.array([9, 3, 7, 1, 0, 4])
    together = draw_views(SPEC, shapes, rows, **ADDRESS)
    alone = draw_views(SPEC, shapes[:1], rows[2:3], **ADDRESS)
    assert np.array_equal(together.colour.factors[2], alone.colour.factors[0])
    assert together.crops.top[2] == alone.crops.top[0]
    assert together.sigma[2] == alone.sigma[0]


def test_tiny_photos_still_give_crops():
    crops = draws(ViewSpec(size=8, scale=(0.01, 0.02)), height=1, width=3, count=50).crops
    assert (crops.height == 1).all()
    assert (crops.width >= 1).all()
    assert (crops.left + crops.width <= 3).all()


@pytest.mark.parametrize(
    "wrong",
    [
        {"scale": (0.0, 1.0)},
        {"scale": (0.5, 0.2)},
        {"ratio": (2.0, 1.0)},
        {"blur_sigma": (0.0, 1.0)},
        {"flip": 1.1},
        {"hue": 0.6},
        {"size": 2},
        {"count": 0},
    ],
)
def test_impossible_settings_are_refused(wrong):
    with pytest.raises(ValidationError):
        ViewSpec(**({"size": 32} | wrong))


def test_multi_view_counts():
    multi = MultiView(
        specs=(ViewSpec(size=64, count=2), ViewSpec(size=32, count=4, scale=(0.05, 0.2)))
    )
    assert (multi.count, multi.smallest_scale, multi.largest_size) == (6, 0.05, 64)
    assert [spec.size for spec in multi.each()] == [64, 64, 32, 32, 32, 32]
    with pytest.raises(ValidationError):
        MultiView(specs=())
