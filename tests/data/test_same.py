import numpy as np
import pytest
from PIL import Image, ImageEnhance, ImageFilter, ImageOps

from fieldmark.data.same import SAME, look, sameness


def picture(seed, side=160):
    """Something like a photo: large soft shapes with detail on them."""
    random = np.random.default_rng(seed)
    layers = [
        Image.fromarray(random.integers(0, 256, (n, n, 3), dtype=np.uint8)).resize(
            (side, side * 3 // 4), Image.Resampling.BICUBIC
        )
        for n in (4, 9, 24)
    ]
    return Image.blend(Image.blend(layers[0], layers[1], 0.45), layers[2], 0.3)


def pixels(image):
    return np.asarray(image.convert("RGB"))


CHANGES = {
    "smaller": lambda image: image.resize((90, 70)),
    "brighter": lambda image: ImageEnhance.Brightness(image).enhance(1.3),
    "less contrast": lambda image: ImageEnhance.Contrast(image).enhance(0.6),
    "mirrored": ImageOps.mirror,
    "cropped": lambda image: image.crop((8, 6, 160, 120)),
    "cropped on all sides": lambda image: image.crop((6, 4, 152, 116)),
    "softer": lambda image: image.filter(ImageFilter.GaussianBlur(1)),
    "cropped and mirrored": lambda image: ImageOps.mirror(image.crop((0, 0, 150, 113))),
}


@pytest.mark.parametrize("name", CHANGES)
def test_a_picture_saved_again_is_the_same(name):
    for seed in range(3):
        image = picture(seed)
        one, other = look(pixels(image)), look(pixels(CHANGES[name](image)))
        assert sameness(one, other) >= SAME
        assert sameness(other, one) >= SAME


def test_other_pictures_are_not():
    looks = [look(pixels(picture(seed))) for seed in range(6)]
    assert max(sameness(a, b) for i, a in enumerate(looks) for b in looks[:i]) < 0.8


def test_a_burst_is_not_the_same_picture():
    """The scene stands still and a small part of it moved, which a correlation does not see."""
    scene, bird = picture(1), picture(2).resize((40, 40))
    shots = []
    for left in (55, 67):
        shot = scene.copy()
        shot.paste(bird, (left, 40))
        shots.append(look(pixels(shot)))
    whole = np.corrcoef(shots[0].large.ravel(), shots[1].large.ravel())[0, 1]
    assert whole > 0.7
    assert sameness(shots[0], shots[1]) < SAME
    assert sameness(shots[0], shots[0]) > 0.999


def test_black_bars_do_not_make_pictures_the_same():
    shots = []
    for seed in (3, 4):
        shot = Image.new("RGB", (160, 160))
        shot.paste(picture(seed).resize((160, 70)).point(lambda v: 170 + v // 4), (0, 45))
        shots.append(look(pixels(shot)))
    assert np.corrcoef(shots[0].large.ravel(), shots[1].large.ravel())[0, 1] > 0.95
    assert sameness(*shots) < SAME


def test_pictures_without_anything_on_them_are_never_confirmed():
    grey = look(np.full((60, 80, 3), 128, np.uint8))
    assert sameness(grey, grey) < SAME
    assert sameness(grey, look(pixels(picture(0)))) < SAME
