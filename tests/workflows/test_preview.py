import json

import numpy as np
import pytest
from PIL import Image

from fieldmark.cli import preview as cli
from fieldmark.errors import CatalogError, ConfigError, OutputError
from fieldmark.workflows.preview import make_rows, preview, preview_sheet
from fieldmark.workflows.recipe import load_recipe


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("photos")
    rng = np.random.default_rng(0)
    for index, (height, width) in enumerate([(60, 80), (90, 40), (50, 50), (30, 200)]):
        pixels = rng.integers(0, 256, (height, width, 3), dtype=np.uint8)
        (folder / f"kind{index % 2}").mkdir(exist_ok=True)
        Image.fromarray(pixels).save(folder / f"kind{index % 2}" / f"foto é鳥 {index}.png")
    (folder / "broken.jpg").write_bytes(b"\xff\xd8\xff\xe0 not a photo")
    return folder


def recipe(*sets):
    return load_recipe("mocov2", ["size=32", *sets])


def test_a_sheet_is_written_with_every_readable_photo(folder, tmp_path):
    out = tmp_path / "new" / "sheet.png"
    result = preview(folder, recipe("views.preset=plumage"), out, photos=10, views=3)
    assert len(result["photos"]) == 4
    assert [one["path"] for one in result["skipped"]] == ["broken.jpg"]
    assert {len(views) for views in result["views"].values()} == {4}
    assert not any("gray" in text or "hue" in text for v in result["views"].values() for text in v)
    assert "hue" in {change["field"] for change in result["changes"]}
    json.dumps(result, allow_nan=False)
    with Image.open(out) as sheet:
        assert sheet.width > 4 * 200
        assert sheet.height > 4 * 200
        again = np.asarray(sheet)
    preview(folder, recipe("views.preset=plumage"), out, photos=10, views=3)
    assert np.array_equal(np.asarray(Image.open(out)), again)


def test_the_sheet_shows_the_views_themselves():
    photo = np.zeros((40, 40, 3), np.uint8)
    photo[:, 20:] = (250, 10, 30)
    (row,) = make_rows(["a/b.png"], [photo], recipe().multi_view(), 32, 1.0, views=2, seed=0)
    assert len(row.tiles) == 3
    assert row.tiles[-1].caption[0] == "evaluation"
    assert row.tiles[0].pixels.shape == (32, 32, 3)
    sheet = preview_sheet([row], title="t", facts="f", notes=["a note"])
    wanted = np.abs(sheet.astype(int) - [250, 10, 30]).max(axis=2) <= 3
    assert wanted.sum() > 10_000


def test_a_recipe_without_training_shows_the_evaluation_only(folder, tmp_path):
    start = load_recipe("start", ["size=32"])
    result = preview(folder, start, tmp_path / "sheet.jpg", photos=2)
    assert {len(views) for views in result["views"].values()} == {1}


def test_unusable_requests_are_explained(folder, tmp_path):
    with pytest.raises(OutputError, match=r"sheet\.txt"):
        preview(folder, recipe(), tmp_path / "sheet.txt")
    lonely = tmp_path / "lonely"
    lonely.mkdir()
    (lonely / "x.jpg").write_bytes(b"\xff\xd8\xff")
    with pytest.raises(CatalogError, match=r"x\.jpg"):
        preview(lonely, recipe(), tmp_path / "sheet.png")
    with pytest.raises(ConfigError, match="did you mean 'plumage'"):
        recipe("views.preset=plumag")


def test_the_command_prints_one_json_object(folder, tmp_path, capsys):
    out = tmp_path / "sheet.webp"
    cli.command(folder, recipe="mocov2", out=out, count=1, views=1, size=32, json=True)
    result = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert result["sheet"] == str(out)
    assert out.is_file()
