import importlib.util
from pathlib import Path

import numpy as np
import pytest
import torch
from torchvision.transforms import v2
from torchvision.transforms.v2 import functional as F  # noqa: N812

from fieldmark import rng
from fieldmark.data.layout import MemoryPhotos
from fieldmark.data.resample import Axis, _gather, blur_radius, index_on_host
from fieldmark.data.sampling import draw_views
from fieldmark.data.views import (
    BatchSource,
    Guide,
    MultiView,
    ViewMaker,
    ViewSpec,
    center_views,
    epoch_order,
    render,
)
from fieldmark.errors import ConfigError, InputError

_spec = importlib.util.spec_from_file_location("photos", Path(__file__).with_name("photos.py"))
photos = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(photos)

CPU = torch.device("cpu")
PLAIN = {"jitter_probability": 0.0, "gray": 0.0}


@pytest.fixture(scope="module")
def store():
    return photos.ragged()


def image(store, row):
    return torch.from_numpy(store.photo(row).copy()).permute(2, 0, 1).float() / 255


def reference_geometry(store, row, draws, index, spec):
    """The same view by torchvision's float operations, in MoCo's order."""
    crops = draws.crops
    out = F.resized_crop(
        image(store, row),
        int(crops.top[index]),
        int(crops.left[index]),
        int(crops.height[index]),
        int(crops.width[index]),
        [spec.size, spec.size],
        antialias=True,
    )
    if draws.sigma[index] > 0:
        kernel = 2 * blur_radius(spec.blur_sigma[1], spec.size) + 1
        sigma = float(draws.sigma[index])
        out = F.gaussian_blur(out, [kernel, kernel], [sigma, sigma])
    return F.horizontal_flip(out) if draws.flipped[index] else out


def drawn(store, rows, spec, **address):
    address = {"seed": 1, "epoch": 0, "view": 0} | address
    return draw_views(spec, store.shapes[rows], rows, **address)


@pytest.mark.parametrize("size", [16, 64, 96])
@pytest.mark.parametrize(
    ("dtype", "mean", "largest"), [(torch.float32, 1e-6, 1e-5), (torch.bfloat16, 1 / 255, 4 / 255)]
)
def test_geometry_equals_torchvision(store, size, dtype, mean, largest):
    spec = ViewSpec(size=size, scale=(0.05, 1.0), **PLAIN)
    rows = np.tile(np.arange(len(store)), 4)
    for view in range(2):
        draws = drawn(store, rows, spec, view=view)
        if view:  # The same rows drawn the same parameters; vary them by hand.
            draws = draws._replace(flipped=~draws.flipped, sigma=np.linspace(0.1, 2, len(rows)))
        images = render(store, rows, draws, spec, device=CPU, dtype=dtype)
        assert images.dtype == dtype
        expected = torch.stack(
            [reference_geometry(store, row, draws, i, spec) for i, row in enumerate(rows)]
        )
        error = (images.float() - expected).abs()
        assert error.mean() <= mean
        assert error.max() <= largest


def test_center_views_equal_torchvision(store):
    rows = np.array([7, 0, 1, 2, 3, 4, 5, 0, 6])
    for size, crop in [(64, 0.875), (96, 1.0), (16, 0.9), (224, 0.875)]:
        view = center_views(store, rows, size, crop)
        chain = v2.Compose([v2.Resize(round(size / crop), antialias=True), v2.CenterCrop(size)])
        expected = torch.stack([chain(image(store, row)) for row in rows])
        assert (view.images - expected).abs().max() <= 2e-5
        assert not view.flipped.any()
        assert view.rows.tolist() == rows.tolist()


def test_center_views_in_bfloat16_stay_close(store):
    rows = np.arange(len(store))
    exact = center_views(store, rows, 64).images
    error = (center_views(store, rows, 64, dtype=torch.bfloat16).images.float() - exact).abs()
    assert error.mean() <= 1 / 255
    assert error.max() <= 4 / 255


def test_box_and_flip_say_where_the_pixels_come_from():
    # Each pixel holds its own place: red grows with x, green with y.
    high, wide = 200, 250
    y, x = np.mgrid[:high, :wide]
    photo = np.stack([x, y, np.zeros_like(x)], axis=2).astype(np.uint8)
    store = MemoryPhotos([photo] * 64)
    spec = ViewSpec(size=32, blur=0.0, **PLAIN)
    (view,) = ViewMaker(store, MultiView(specs=(spec,)), seed=0).make(np.arange(64), 0)
    red, green = view.images[:, 0].mean(1) * 255, view.images[:, 1].mean(2) * 255
    red = torch.where(view.flipped[:, None], red.flip(1), red)
    x0, y0, x1, y1 = view.boxes.T
    middle_x, middle_y = (x0 + x1) / 2 * wide - 0.5, (y0 + y1) / 2 * high - 0.5
    torch.testing.assert_close(red.mean(1), middle_x, atol=0.3, rtol=0)
    torch.testing.assert_close(green.mean(1), middle_y, atol=0.3, rtol=0)
    # The slope over the view is the width of the box.
    torch.testing.assert_close(
        (red[:, -2] - red[:, 1]) / 29 * 32, (x1 - x0) * wide, atol=1.0, rtol=0
    )
    assert 10 < view.flipped.sum() < 54


def test_a_view_depends_on_its_address_only(store):
    specs = (ViewSpec(size=32, count=2, solarize=0.5), ViewSpec(size=16, scale=(0.05, 0.3)))
    multi = MultiView(specs=specs)
    maker = ViewMaker(store, multi, seed=3)
    rows = np.array([5, 0, 3, 2])
    together = maker.make(rows, 4)
    assert [view.images.shape[-1] for view in together] == [32, 32, 16]
    shuffled = maker.make(rows[::-1].copy(), 4)
    for index, row in enumerate(rows):
        alone = maker.make(rows[index : index + 1], 4)
        for view, mixed, single in zip(together, shuffled, alone):
            # Sums may be ordered otherwise in a batch of another shape: equal to rounding.
            torch.testing.assert_close(view.images[index], single.images[0], atol=1e-5, rtol=0)
            torch.testing.assert_close(
                mixed.images[-1 - index], single.images[0], atol=1e-5, rtol=0
            )
            assert torch.equal(view.boxes[index], single.boxes[0])
            assert view.rows[index] == row
    first, second, _ = together
    assert not torch.equal(first.boxes, second.boxes)
    assert not torch.equal(maker.make(rows, 5)[0].boxes, first.boxes)
    assert not torch.equal(ViewMaker(store, multi, seed=4).make(rows, 4)[0].boxes, first.boxes)
    assert torch.equal(maker.make(rows, 4)[0].images, first.images)


def test_images_lie_between_0_and_1(store):
    strong = ViewSpec(size=24, brightness=1.0, contrast=1.0, saturation=1.0, hue=0.5, solarize=0.5)
    for view in ViewMaker(store, MultiView(specs=(strong,)), seed=0).make(np.arange(8), 0):
        assert view.images.min() >= 0
        assert view.images.max() <= 1
        assert view.images.isfinite().all()


def test_solarize_inverts_bright_pixels(store):
    plain = ViewSpec(size=32, flip=0.0, blur=0.0, **PLAIN)
    inverted = plain.model_copy(update={"solarize": 1.0, "solarize_threshold": 0.6})
    rows = np.arange(4)
    a, b = (
        ViewMaker(store, MultiView(specs=(spec,)), seed=0).make(rows, 0)[0].images
        for spec in (plain, inverted)
    )
    torch.testing.assert_close(b, F.solarize(a, 0.6))


def test_a_row_without_photo_is_refused():
    store = photos.ragged()
    store.shapes[2] = 0
    maker = ViewMaker(store, MultiView(specs=(ViewSpec(size=16),)), seed=0)
    with pytest.raises(InputError, match="row 2 has no stored photo"):
        maker.make(np.array([1, 2]), 0)
    with pytest.raises(InputError, match="row 99 is not in"):
        center_views(store, np.array([99]), 16)


def test_guides_move_the_centres_of_crops():
    store = MemoryPhotos([np.zeros((100, 100, 3), np.uint8)] * 200)
    multi = MultiView(specs=(ViewSpec(size=8, scale=(0.01, 0.04)),))
    rows = np.arange(200)
    boxes = np.tile([0.6, 0.2, 0.8, 0.4], (200, 1))
    maps = np.zeros((200, 5, 5))
    maps[:, 1, 3] = 1.0
    for guide in (Guide(boxes=boxes), Guide(maps=maps)):
        (view,) = ViewMaker(store, multi, seed=0, guide=guide).make(rows, 0)
        x, y = (view.boxes[:, 0] + view.boxes[:, 2]) / 2, (view.boxes[:, 1] + view.boxes[:, 3]) / 2
        assert x.min() >= 0.59
        assert x.max() <= 0.81
        assert x.std() > 0.04
        assert y.min() >= 0.19
        assert y.max() <= 0.41
        assert y.std() > 0.04


def source(store, **changes):
    settings = {"batch_size": 12, "seed": 5} | changes
    return BatchSource(store, np.arange(40), MultiView(specs=(ViewSpec(size=8),)), **settings)


@pytest.fixture(scope="module")
def forty():
    return MemoryPhotos([photos.textured(20, 22, seed) for seed in range(40)])


def test_an_epoch_shows_each_photo_at_most_once(forty):
    batches = source(forty)
    assert batches.steps_per_epoch == 3
    for epoch in range(2):
        rows = np.concatenate([batches.batch_rows(epoch * 3 + step) for step in range(3)])
        assert len(np.unique(rows)) == 36
    assert not np.array_equal(batches.batch_rows(0), batches.batch_rows(3))
    later = source(forty).batch(4)
    assert torch.equal(later.rows, batches.batch(4).rows)
    assert torch.equal(later.views[0].images, batches.batch(4).views[0].images)


@pytest.mark.parametrize(("micros", "world"), [(1, 1), (3, 1), (1, 2), (2, 3)])
def test_micro_batches_and_processes_cut_the_same_batch(forty, micros, world):
    batches = source(forty)
    whole = batches.batch(1)
    parts = [
        batches.batch(1, micro, micros, rank, world)
        for micro in range(micros)
        for rank in range(world)
    ]
    assert torch.equal(torch.cat([part.rows for part in parts]), whole.rows)
    assert torch.equal(torch.cat([part.views[0].boxes for part in parts]), whole.views[0].boxes)
    assert len({part.key for part in parts}) == micros * world
    assert parts[-1].key == rng.seed_of("method", 5, 1, micros - 1, world - 1)


def test_impossible_batches_are_refused(forty):
    with pytest.raises(ConfigError, match="and usable are 40"):
        source(forty, batch_size=41)
    with pytest.raises(ConfigError, match="multiple of 5"):
        source(forty).batch(0, 0, 5)


def test_epoch_order_ignores_the_order_given():
    rows = np.array([4, 9, 2, 7, 5, 30])
    order = epoch_order(rows, 0, 1)
    assert sorted(order) == sorted(rows)
    assert np.array_equal(order, epoch_order(rows[::-1].copy(), 0, 1))
    assert not np.array_equal(order, epoch_order(rows, 0, 2))


def test_whole_views_equal_torchvision_on_mild_photos():
    # Colours near mid-gray are never clamped, so the whole chain must agree; hue is off.
    store = MemoryPhotos(
        [(photos.textured(120, 140, seed) // 5 + 100).astype(np.uint8) for seed in range(24)]
    )
    spec = ViewSpec(size=48, brightness=0.2, contrast=0.4, saturation=0.4, hue=0.0, gray=0.3)
    rows = np.arange(24)
    draws = drawn(store, rows, spec)
    colour, steps = draws.colour, (F.adjust_brightness, F.adjust_contrast, F.adjust_saturation)
    expected = []
    for i in rows:
        # Blur last, as in MoCo; flip commutes with all of it.
        sharp = draws._replace(sigma=np.zeros(24))
        out = reference_geometry(store, i, sharp, i, spec)
        for which in colour.order[i]:
            if which < 3:
                out = steps[which](out, float(colour.factors[i, which]))
        if colour.gray[i]:
            out = F.rgb_to_grayscale(out, num_output_channels=3)
        if draws.sigma[i] > 0:
            kernel, sigma = 2 * blur_radius(2.0, 48) + 1, float(draws.sigma[i])
            out = F.gaussian_blur(out, [kernel, kernel], [sigma, sigma])
        expected.append(out)
    expected = torch.stack(expected)
    for dtype, mean, largest in [(torch.float32, 1e-4, 1e-3), (torch.bfloat16, 1 / 255, 4 / 255)]:
        error = (render(store, rows, draws, spec, device=CPU, dtype=dtype).float() - expected).abs()
        assert error.mean() <= mean
        assert error.max() <= largest


def test_pixels_on_a_device_are_gathered_alike(store):
    rows = np.array([3, 0, 7, 0])
    y = Axis(np.zeros(4), np.ones(4), np.array([5, 0, 20, 159]), np.array([92, 160, 100, 1]))
    x = Axis(np.zeros(4), np.ones(4), np.array([0, 30, 73, 0]), np.array([300, 20, 100, 160]))
    host = index_on_host(store)
    device = host._replace(data=torch.from_numpy(host.data))
    a, b = (_gather(pixels, rows, y, x, 304, CPU, torch.float32) for pixels in (host, device))
    for index in range(4):
        h, w = y.length[index], x.length[index]
        assert torch.equal(a[index, :h, :, :w], b[index, :h, :, :w])
        assert a[index, :h, :, :w].min() >= -128
    photo = torch.from_numpy(store.photo(0)[159:, :160].transpose(0, 2, 1).copy())
    assert torch.equal(b[3, :1, :, :160], photo.float() - 128)


def test_extreme_photos_give_finite_views():
    extremes = [(1, 1), (2, 3000), (3000, 2), (700, 900), (8, 8)]
    store = MemoryPhotos([np.full((h, w, 3), 200, np.uint8) for h, w in extremes])
    rows = np.arange(5)
    (view,) = ViewMaker(store, MultiView(specs=(ViewSpec(size=16, **PLAIN),)), seed=0).make(rows, 0)
    for images in (view.images, center_views(store, rows, 16).images):
        torch.testing.assert_close(images, torch.full_like(images, 200 / 255))
