"""What a benchmark measures beyond every run: levels, surroundings, where the encoder looks."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from fieldmark.backbones.backbone import Backbone, BackboneConfig
from fieldmark.data.aviary import AviaryConfig, draw, write
from fieldmark.data.benchmarks import open_benchmark
from fieldmark.encoder import Encoder
from fieldmark.evaluation.evaluate import evaluate_encoder
from fieldmark.nn.contributions import contributions
from fieldmark.nn.spec import EncoderSpec, PostConfig
from fieldmark.workflows import bench as bench_module
from fieldmark.workflows import leaderboard, protocols
from fieldmark.workflows.bench import bench
from fieldmark.workflows.photos import find_split
from fieldmark.workflows.recipe import load_recipe
from fieldmark.workflows.sides import Side, measure

EXTRA = {"backbone": {"name": "test_resnet", "weights": "random"}, "size": 64}
SETS = ("train.epochs=2", "health.photos=16")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Drawn birds with masks, boxes, a coarser level and a word on themselves."""
    place = tmp_path_factory.mktemp("annotated")
    write(draw(AviaryConfig(species=4, per_species=20, size=64)), place, masks=True)
    names = sorted(path.name for path in (place / "images").iterdir())
    groups = [f"{name},{'early' if i < 2 else 'late'}\n" for i, name in enumerate(names)]
    (place / "levels.csv").write_text("class,half\n" + "".join(groups))
    (place / "about.toml").write_text('title = "Drawn birds"\nsplit = "drawn"\noverlap = "none"\n')
    return place


@pytest.fixture(scope="module")
def opened(folder):
    return open_benchmark("folder", folder)


@pytest.fixture(scope="module")
def data(opened, folder, tmp_path_factory, prepared):
    place = tmp_path_factory.mktemp("data")
    table = place / "table.csv"
    table.write_text(opened.table(place, parts=("train", "test")))
    recipe = load_recipe("start", extra=EXTRA)
    return prepared(table, recipe, place / "store", table)


@pytest.fixture(scope="module")
def side(data):
    backbone = Backbone.build(BackboneConfig(name="test_resnet", weights="random"), size=64)
    recipe = load_recipe("start", extra=EXTRA)
    return measure(
        "start", EncoderSpec(backbone), PostConfig(), recipe, data, torch.device("cpu")
    ).plain


@pytest.fixture(scope="module")
def finished(folder, tmp_path_factory):
    out = tmp_path_factory.mktemp("bench") / "out"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(bench_module, "_TRIAL_SECONDS", 0.05)
        found = bench(
            {"folder": folder},
            out,
            methods=["smoke"],
            seeds=1,
            sets=SETS,
            extra=EXTRA,
            best_on_test=True,
        )
    return out, found


def test_a_folder_tells_boxes_masks_levels_and_what_it_is(opened):
    assert (opened.facts.title, opened.facts.split) == ("Drawn birds", "drawn")
    assert set(opened.coarser) == {"half"}
    row = int(opened.rows("test")[0])
    mask = opened.mask(row)
    high, wide = np.nonzero(mask)
    x0, y0, x1, y1 = opened.boxes[row]
    # The box is drawn around the whole bird, what is hidden included.
    assert x0 - 1 <= wide.min() < wide.max() <= x1 + 1
    assert y0 - 1 <= high.min() < high.max() <= y1 + 1


def test_boxes_reach_the_network_where_masks_do(opened, data, side):
    truth = protocols._Truth(opened, data)
    rows = data.split.test_rows[:12]
    view = protocols._see(side.encoder, data, rows)
    inside = truth.alpha(rows, view).numpy() > 0.5
    boxes = truth.box(rows, view) * 64
    for mask, (x0, y0, x1, y1) in zip(inside, boxes, strict=True):
        high, wide = np.nonzero(mask)
        assert max(x0, 0) - 1.5 <= wide.min() <= max(x0, 0) + 8
        assert min(x1, 64) - 8 <= wide.max() + 1 <= min(x1, 64) + 1.5
        assert max(y0, 0) - 1.5 <= high.min() <= max(y0, 0) + 8
        assert min(y1, 64) - 8 <= high.max() + 1 <= min(y1, 64) + 1.5


def test_an_encoder_that_looks_at_the_bird_alone_has_all_its_energy_there(
    opened, data, side, monkeypatch
):
    truth = protocols._Truth(opened, data)
    seen = []

    def knowing(spec, images):
        rows = data.split.test_rows[len(seen) : len(seen) + len(images)]
        seen.extend(rows)
        view = protocols._see(side.encoder, data, rows)
        return (truth.alpha(rows, view) > 0.5).float()

    monkeypatch.setattr(protocols, "contributions", knowing)
    found = protocols.measure_photos(opened, data, side)
    assert found["energy"] == pytest.approx(100, abs=1e-6)
    assert found["pointing"] == 100
    assert found["iou"] == pytest.approx(100, abs=1e-6)
    assert found["lift"] > 1.5


def test_surroundings_come_from_another_class_and_the_same_in_every_run(opened, data, side):
    rows, labels = data.split.test_rows, data.split.test_labels
    donors = protocols._donors(rows, labels)
    of = dict(zip(rows.tolist(), labels.tolist(), strict=True))
    assert all(of[int(donor)] != of[int(row)] for row, donor in zip(rows, donors, strict=True))
    assert np.array_equal(donors, protocols._donors(rows, labels))
    assert len(np.unique(donors)) > len(donors) / 3
    found = protocols.measure_photos(opened, data, side)
    assert {"knn:blur", "knn:jpeg", "knn:cover", "knn:swap"} <= set(found)
    assert protocols.measure_photos(opened, data, side) == found


@pytest.fixture(scope="module")
def wide(tmp_path_factory, prepared):
    """Photos much wider than high, each with one red thing anywhere, and masks of those things."""
    place = tmp_path_factory.mktemp("wide")
    random = np.random.default_rng(0)
    lines = ["path,class,split\n"]
    for i in range(28):
        pixels = random.integers(0, 60, (96, 168, 3), np.uint8)
        pixels[..., 1 + i % 2] += 120
        mask = np.zeros((96, 168), np.uint8)
        y, x = random.integers(0, 56), random.integers(36, 92)
        mask[y : y + 40, x : x + 40] = 255
        pixels[mask > 0] = (255, 0, 0)
        for kind, picture in (("images", pixels), ("masks", mask)):
            file = place / kind / "ab"[i % 2] / f"{i}.png"
            file.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(picture).save(file)
        lines.append(f"images/{'ab'[i % 2]}/{i}.png,{'ab'[i % 2]},{'train' if i < 8 else 'test'}\n")
    (place / "split.csv").write_text("".join(lines))
    found = open_benchmark("folder", place)
    table = place / "table.csv"
    table.write_text(found.table(place, parts=("train", "test")))
    recipe = load_recipe("start", extra=EXTRA)
    return found, prepared(table, recipe, place / "store", table)


def red(images):
    return (images[:, 0] - images[:, 1:].amax(1)).numpy() > 0.5


def test_masks_are_cut_as_the_network_sees_photos_that_are_not_square(wide, side):
    found, data = wide
    rows = data.split.test_rows
    view = protocols._see(side.encoder, data, rows)
    shown = red(view.images)
    assert 0.1 < shown.mean() < 0.5
    differs = shown != (protocols._Truth(found, data).alpha(rows, view).numpy() > 0.5)
    # The rim of a thing is a pixel wide.
    assert differs.mean() < 0.06


def test_other_surroundings_show_no_second_object(wide, side, monkeypatch):
    found, data = wide
    embedded = np.concatenate([side.encoder.embed_store(data.store, data.split.train_rows)])
    seen = []
    encode = Encoder.encode

    def watched(self, images):
        seen.append(images)
        return encode(self, images)

    monkeypatch.setattr(Encoder, "encode", watched)
    assert "knn:swap" in protocols.measure_photos(found, data, side._replace(train=embedded))
    swapped = seen[-1]
    view = protocols._see(side.encoder, data, data.split.test_rows)
    own = protocols._Truth(found, data).alpha(data.split.test_rows, view).numpy()
    assert red(swapped)[own > 0.9].all()
    assert red(swapped)[own < 0.1].mean() < 0.01
    assert not torch.allclose(swapped, view.images, atol=0.2)


def test_coarser_levels_are_the_same_embeddings_under_other_labels(opened, data, side):
    split = data.split
    told = protocols.measure_levels(opened, split, side, side)
    assert set(told) == {"half"}
    index = np.array([0, 0, 1, 1])
    expected = evaluate_encoder(
        side.train,
        index[split.train_labels],
        side.test,
        index[split.test_labels],
        ["early", "late"],
    )
    assert told["half"].classes == 2
    assert told["half"].after.measures == expected.measures


def test_levels_are_rows_of_their_own_with_gains(finished, folder):
    out, found = finished
    rows = {(row["data"], row["method"]): row for row in found["rows"]}
    coarse = rows[f"{folder.name}:half", "smoke"]
    assert coarse["level_of"] == folder.name
    assert coarse["measures"]["map"] > rows[folder.name, "smoke"]["measures"]["map"]
    assert set(coarse["gains"]) == {"rank1", "map", "linear"}
    assert "knn:swap" in rows[folder.name, "smoke"]["measures"]
    assert "lift" in rows[folder.name, "start"]["measures"]
    assert f"{folder.name}:half" in (out / "table.csv").read_text()


def test_best_on_test_is_a_marked_column_and_changes_nothing_else(finished, folder):
    out, found = finished
    run = out / "cells" / folder.name / "smoke" / "seed-0"
    epochs = [json.loads(line) for line in (run / "epochs.jsonl").read_text().splitlines()]
    assert [epoch["epoch"] for epoch in epochs] == [1, 2]
    row = next(row for row in found["rows"] if row["method"] == "smoke")
    # The last line is the run's own result, the column the best of all lines.
    assert epochs[-1]["map"] == pytest.approx(row["measures"]["map"], abs=1e-4)
    for name in ("rank1", "map", "linear"):
        best = max(epoch[name] for epoch in epochs)
        assert row["measures"][f"best:{name}"] == pytest.approx(best)
    table = (out / "table.md").read_text()
    assert "mAP best on test †" in table
    assert "† Literature protocol" in table
    assert "best:map" not in next(r for r in found["rows"] if r["method"] == "start")["measures"]


def test_the_best_epoch_of_each_measure_is_found_whenever_it_was(tmp_path):
    assert bench_module._best_on_test(tmp_path) == {}
    names = leaderboard.EACH_EPOCH
    lines = [{"epoch": i, **dict.fromkeys(names, value)} for i, value in enumerate((3.0, 7.0, 5.0))]
    lines[2]["map"] = 9.0
    (tmp_path / "epochs.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    best = bench_module._best_on_test(tmp_path)
    assert best == {f"best:{name}": 9.0 if name == "map" else 7.0 for name in names}


def test_cells_with_the_same_start_share_what_they_find_of_it(data, tmp_path, monkeypatch):
    backbone = Backbone.build(BackboneConfig(name="test_resnet", weights="random"), size=64)
    recipe = load_recipe("start", extra=EXTRA)
    post = PostConfig(whitening="pca", whiten_dim=8)

    def asked(**more):
        more = {"kept": tmp_path, "post": post, "recipe": recipe, **more}
        return measure(
            "start", EncoderSpec(backbone), data=data, device=torch.device("cpu"), **more
        )

    alone = asked(kept=None)
    first = asked()

    def never(*_, **__):
        raise AssertionError("embedded again")

    with monkeypatch.context() as patch:
        patch.setattr(Encoder, "embed_store", never)
        second = asked()
    for one, other in ((alone, first), (first, second)):
        for a, b in zip(one, other, strict=True):
            np.testing.assert_array_equal(a.train, b.train)
            np.testing.assert_array_equal(a.test, b.test)
            assert a.result.measures == b.result.measures
    assert second.post.encoder.identity == first.post.encoder.identity
    assert len(list(tmp_path.glob("*.json"))) == 1
    # Another post-processing is another start; a damaged file is none.
    asked(post=post.model_copy(update={"whiten_dim": 6}))
    assert len(list(tmp_path.glob("*.json"))) == 2
    for file in tmp_path.glob("*.safetensors"):
        file.write_bytes(file.read_bytes()[:100])
    np.testing.assert_array_equal(asked().post.test, first.post.test)


def test_plain_and_whitened_are_one_pass_and_the_same_as_two(data):
    backbone = Backbone.build(BackboneConfig(name="test_resnet", weights="random"), size=64)
    recipe = load_recipe("start", extra=EXTRA)
    device = torch.device("cpu")
    for post in (
        PostConfig(whitening="pca", whiten_dim=8),
        PostConfig(whitening="pca", whiten_dim=8, flip=True),
    ):
        both = measure("start", EncoderSpec(backbone), post, recipe, data, device)
        for side in both:
            fresh = Encoder(side.encoder.spec)
            # The first photos decide on the arithmetic.
            fresh.embed_store(data.store, data.split.train_rows)
            again = fresh.embed_store(data.store, data.split.test_rows)
            np.testing.assert_allclose(side.test, again, atol=1e-5)
        assert both.plain.encoder.dim > both.post.encoder.dim == 8
    same = measure("start", EncoderSpec(backbone), PostConfig(), recipe, data, device)
    assert same.plain is same.post


def test_contributions_are_each_cell_s_share_of_the_pooled_feature():
    backbone = Backbone.build(BackboneConfig(name="test_resnet", weights="random"), size=64)
    spec = EncoderSpec(backbone).eval()
    images = torch.rand(3, 3, 64, 64)
    maps = contributions(spec, images)
    with torch.no_grad():
        features = spec.backbone(images)
    assert maps.shape == (3, *features.shape)
    assert maps[1, 0, 1] == pytest.approx(float(features.tokens[1, 1].norm()), rel=1e-5)


def test_what_a_folder_says_wrongly_is_named(tmp_path, folder):
    from fieldmark.errors import CatalogError

    place = tmp_path / "birds"
    place.mkdir()
    (place / "images").symlink_to(Path(folder) / "images")
    (place / "split.csv").write_text((folder / "split.csv").read_text())
    (place / "about.toml").write_text("titel = 'Birds'\n")
    with pytest.raises(CatalogError, match=r"about\.toml: 'titel = .* may say title, split"):
        open_benchmark("folder", place)
    (place / "about.toml").unlink()
    (place / "boxes.csv").write_text("path,x_1,y_1,x_2\n")
    with pytest.raises(CatalogError, match=r"boxes\.csv needs the columns path, x_1"):
        open_benchmark("folder", place)
    (place / "boxes.csv").write_text("path,x_1,y_1,x_2,y_2\na.jpg,5,5,5,9\n")
    with pytest.raises(CatalogError, match=r"line 2: the box .* is empty"):
        open_benchmark("folder", place)
    (place / "boxes.csv").write_text("path,x_1,y_1,x_2,y_2\na.jpg,5,five,6,9\n")
    with pytest.raises(CatalogError, match="line 2: the box is no four numbers"):
        open_benchmark("folder", place)


def test_a_run_without_labels_takes_part_too(tmp_path, data, side):
    bare = data._replace(split=None)
    recipe = load_recipe("start", extra=EXTRA)
    found = measure(
        "start", side.encoder.spec, PostConfig(), recipe, bare, torch.device("cpu"), kept=tmp_path
    )
    assert isinstance(found.plain, Side)
    assert found.plain.result is None
    assert found.plain.test.shape == (0, side.encoder.dim)
    assert find_split(data.catalog, None)[0] is not None
