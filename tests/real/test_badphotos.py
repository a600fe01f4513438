"""Thousands of malformed, odd and hostile files: no crash, no hang, every one used or listed."""

import os
import tarfile
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fieldmark.data.catalog import Catalog
from fieldmark.data.decode import CODES, decode
from fieldmark.data.store import PhotoStore
from fieldmark.workflows.check import check

pytestmark = pytest.mark.real
DATA = os.environ.get("FIELDMARK_DATA")


@pytest.fixture(scope="module")
def badphotos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    if not DATA:
        pytest.skip("FIELDMARK_DATA is not set: it names a folder with badphotos.tar.xz")
    folder = tmp_path_factory.mktemp("bad")
    with tarfile.open(Path(DATA) / "badphotos.tar.xz") as archive:
        archive.extractall(folder, filter="data")
    return folder / "badphotos"


def entry_of(path: Path) -> str:
    """The path itself, or the hidden folder that it lies in, which is listed as one."""
    hidden = next((i for i, part in enumerate(path.parts) if part.startswith(".")), len(path.parts))
    return "/".join(path.parts[: hidden + 1])


@pytest.mark.timeout(400)
def test_every_file_is_used_or_listed(badphotos: Path, tmp_path: Path) -> None:
    begin = time.monotonic()
    result = check(badphotos, tmp_path)
    seconds = time.monotonic() - begin
    files = {entry_of(p.relative_to(badphotos)) for p in badphotos.rglob("*") if p.is_file()}
    listed = {problem.path for problem in result.audit.problems}
    good = {row.path for row in result.catalog.rows} - listed
    assert files == listed | good
    assert len(good) == result.audit.good
    assert result.summary["files"] == len(files)
    assert {problem.code for problem in result.audit.problems} <= CODES.keys()
    crashed = [p for p in result.audit.problems if p.code in ("decoder_crashed", "too_slow")]
    assert crashed == []
    assert seconds < 180


@pytest.mark.timeout(400)
def test_a_store_is_built_from_what_is_left(badphotos: Path, tmp_path: Path) -> None:
    catalog = Catalog.open(badphotos)
    store = PhotoStore.build(catalog, tmp_path, short_side=64)
    refused = sum(record.status == "refused" for record in store.records)
    assert (store.offsets >= 0).sum() + refused == len(catalog)
    assert len(store.usable) > 1000
    for row in store.usable[:: len(store.usable) // 50]:
        assert store.photo(int(row)).shape[2] == 3


def test_every_orientation_of_a_scene_looks_the_same(badphotos: Path) -> None:
    def small(path: Path) -> np.ndarray:
        image = Image.fromarray(decode(path.read_bytes()).pixels).resize((24, 24))
        values = np.asarray(image, np.float64).ravel()
        return values - values.mean()

    for scene in ("Landscape", "Portrait"):
        files = sorted((badphotos / "exif-orientation").glob(f"{scene}_*.jpg"))
        assert len(files) >= 8
        views = [small(path) for path in files]
        for view in views[1:]:
            cosine = view @ views[0] / np.linalg.norm(view) / np.linalg.norm(views[0])
            assert cosine > 0.95


@pytest.mark.timeout(400)
def test_damaged_jpegs_are_flagged_and_clean_ones_are_not() -> None:
    if not DATA:
        pytest.skip("FIELDMARK_DATA is not set: it names a folder with cub50")
    files = sorted((Path(DATA) / "cub50" / "images").rglob("*.jpg"))
    random = np.random.default_rng(0)
    chosen = [files[i] for i in random.choice(len(files), 30, replace=False)]
    flagged = clean = cuts = 0
    for path in chosen:
        data = path.read_bytes()
        clean += decode(data).damage is not None
        start = data.index(b"\xff\xda")
        for cut in np.linspace(start + 20, len(data) - 10, 20).astype(int):
            flagged += decode(data[:cut]).damage is not None
            cuts += 1
    assert flagged >= 0.95 * cuts
    assert clean <= 0.07 * len(chosen)
