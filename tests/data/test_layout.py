"""Every store keeps pixels in the same order, and views of all of them agree."""

import numpy as np
import torch
from PIL import Image

from fieldmark.data.catalog import Catalog
from fieldmark.data.layout import MemoryPhotos
from fieldmark.data.store import PhotoStore
from fieldmark.data.views import center_views


def test_ragged_photos_are_shown_and_empty_ones_skipped():
    gen = np.random.default_rng(0)
    photos = [gen.integers(0, 256, (h, w, 3), dtype=np.uint8) for h, w in [(3, 5), (0, 4), (7, 2)]]
    store = MemoryPhotos(photos)
    assert len(store) == 3
    assert store.usable.tolist() == [0, 2]
    assert store.usable.dtype == np.int64
    assert store.shapes.tolist() == [[3, 5], [0, 0], [7, 2]]
    assert store.shapes.dtype == np.int32
    assert store.offsets.dtype == np.int64
    assert store.short_side == 2
    for row in store.usable:
        assert np.array_equal(store.photo(row), photos[row])
        assert np.shares_memory(store.photo(row), store.data)


def test_all_stores_give_the_same_view_which_is_the_photo(tmp_path):
    gen = np.random.default_rng(0)
    photos = [gen.integers(0, 256, (24, w, 3), dtype=np.uint8) for w in (24, 40, 31)]
    (tmp_path / "photos").mkdir()
    for index, photo in enumerate(photos):
        Image.fromarray(photo).save(tmp_path / "photos" / f"{index}.png")
    built = PhotoStore.build(
        Catalog.open(tmp_path / "photos"), tmp_path / "store", short_side=24, workers=0
    )
    rows = np.arange(3)
    # At the photo's own size a view is a cut of the photo, so an order mixed up in the same way
    # everywhere shows too.
    cuts = [photo[:, (photo.shape[1] - 24 + 1) // 2 :][:, :24] for photo in photos]
    expected = torch.from_numpy(np.stack(cuts)).permute(0, 3, 1, 2) / 255
    for store in (MemoryPhotos(photos), built, built.to("cpu"), built._copied("cpu")):
        images = center_views(store, rows, 24, 1.0).images
        torch.testing.assert_close(images, expected, atol=1e-5, rtol=0)
