import csv
import fcntl
import json
import shutil
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from fieldmark.backbones.backbone import Backbone, BackboneConfig
from fieldmark.data.catalog import Catalog
from fieldmark.data.splits import match_split
from fieldmark.encoder import Encoder
from fieldmark.errors import CatalogError, ConfigError, LabelError, OutputError
from fieldmark.evaluation.labelfree import CHANGE_PRICE
from fieldmark.training.log import read_metrics
from fieldmark.workflows import judgement, photos
from fieldmark.workflows.plan import plan
from fieldmark.workflows.recipe import load_recipe
from fieldmark.workflows.train import narrator, read_result, train

SETS = ("train.epochs=1", "health.photos=16", "train.tensorboard=false")


@pytest.fixture(scope="module")
def finished(sample, tmp_path_factory):
    run = tmp_path_factory.mktemp("runs") / "run"
    result = train(sample.photos, run, load_recipe("smoke", SETS), probe=sample.probe)
    return run, result


def test_the_result_keeps_the_contract_of_json(finished):
    run, result = finished
    assert result["verdict"] in {"helped", "hurt", "no difference shown"}
    for side in ("start", "trained"):
        for measure in ("rank1", "rank5", "map", "linear"):
            assert 0 <= result[side][measure] <= 100
    for measure in ("rank1", "map"):
        low, high = result["interval"][measure]
        assert low <= result["gain"][measure] <= high
        difference = result["trained"][measure] - result["start"][measure]
        assert result["gain"][measure] == pytest.approx(difference)
    assert json.loads(json.dumps(result, allow_nan=False)) == read_result(run)


def test_every_encoder_is_kept_and_the_shipped_one_is_what_the_verdict_says(finished, sample):
    run, result = finished
    files = sorted(sample.photos.rglob("*.*"))[:3]
    embedded = {}
    for who in ("start", "student", "teacher"):
        embedded[who] = Encoder.load(run / "encoders" / who, device="cpu").embed(files)
    shipped = Encoder.load(run, device="cpu")
    expected = "teacher" if result["shipped"] == "trained" else "start"
    np.testing.assert_array_equal(shipped.embed(files), embedded[expected])
    assert not np.allclose(embedded["start"], embedded["student"])
    assert str(sample.photos) not in (run / "encoder" / "encoder.json").read_text()


def test_a_blended_run_ends_part_of_the_way_from_the_start(sample, tmp_path):
    # One arithmetic for both; left to itself, a run takes what is faster at that moment.
    sets = (*SETS, "train.precision=fp32")
    train(sample.photos, tmp_path / "whole", load_recipe("smoke", sets))
    train(sample.photos, tmp_path / "part", load_recipe("smoke", (*sets, "backbone.blend=0.25")))

    def weights(run, who):
        encoder = Encoder.load(tmp_path / run / "encoders" / who, device="cpu")
        return encoder.spec.backbone.network.state_dict()

    start = weights("whole", "start")
    for who in ("student", "teacher"):
        whole, part = weights("whole", who), weights("part", who)
        moved = 0.0
        for name, value in start.items():
            if value.is_floating_point():
                moved = max(moved, float((whole[name] - value).abs().max()))
                expected = value + 0.25 * (whole[name] - value)
                torch.testing.assert_close(part[name], expected, atol=1e-6, rtol=1e-5)
        assert moved > 1e-4
    note = "weights lie 25% of the way"
    assert note in (tmp_path / "part" / "report.html").read_text()
    assert note not in (tmp_path / "whole" / "report.html").read_text()


def test_photos_that_must_not_be_mirrored_ship_without_it(sample, tmp_path):
    recipe = load_recipe(
        "start",
        ("views.preset=part", "size=32", "post.whiten_dim=8"),
        extra={"backbone": {"name": "test_resnet", "weights": "random"}},
    )
    assert recipe.post.flip
    train(sample.photos, tmp_path, recipe, probe=sample.probe)
    assert not Encoder.load(tmp_path / "encoders" / "start", device="cpu").post.flip
    assert "Mirrored photos are not averaged in" in (tmp_path / "report.html").read_text()


def test_the_same_command_again_trains_nothing_and_says_the_same(finished, sample):
    run, result = finished
    log = (run / "metrics.jsonl").read_bytes()
    said = []
    again = train(
        sample.photos, run, load_recipe("smoke", SETS), probe=sample.probe, say=said.append
    )
    assert again["start"] == result["start"]
    assert again["trained"] == result["trained"]
    assert (run / "metrics.jsonl").read_bytes() == log
    assert any("already" in text for text in said)


def test_other_settings_in_the_same_folder_are_refused_by_name(finished, sample):
    run, _ = finished
    recipe = load_recipe("smoke", (*SETS, "method.temperature=0.3"))
    with pytest.raises(OutputError, match=r"method\.temperature was 0\.2 and is now 0\.3"):
        train(sample.photos, run, recipe, probe=sample.probe)


def test_a_folder_with_other_things_is_left_alone(sample, tmp_path):
    (tmp_path / "thesis.doc").write_text("precious")
    with pytest.raises(OutputError, match="not empty"):
        train(sample.photos, tmp_path, load_recipe("smoke", SETS))
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.doc"]


def test_test_photos_are_never_trained_on_unless_asked(sample, tmp_path, prepared):
    recipe = load_recipe("smoke")
    split = match_split(Catalog.open(sample.photos), sample.probe)
    data = prepared(sample.photos, recipe, tmp_path, probe=sample.probe)
    assert not set(data.train_rows) & set(split.test_rows)
    assert set(data.train_rows) == set(split.train_rows)
    data = prepared(sample.photos, recipe, tmp_path, probe=sample.probe, transductive=True)
    assert set(split.test_rows) <= set(data.train_rows)


def test_without_labels_the_verdict_is_not_measured(sample, tmp_path):
    result = train(sample.photos, tmp_path / "run", load_recipe("smoke", SETS))
    assert result["verdict"] == "not measured"
    told = result["label_free"]
    # From random weights there is no start to agree with: views that find each other decide.
    assert told["agreement_gain"] is None
    assert (result["shipped"] == "trained") == (told["interval"][0] > 0)
    assert (result["shipped"] == "trained") == (told["reading"] == "helped")
    assert result["start"] == {"rank1": None, "rank5": None, "map": None, "linear": None}
    assert 0 <= result["label_free"]["trained"]["view_recall"] <= 100
    assert "not measured" in (tmp_path / "run" / "report.html").read_text().lower()
    shown = json.loads((tmp_path / "run" / "report.json").read_text())
    assert len(shown["sheets"]) == 12  # pictures need no labels
    assert {near["hit"] for sheet in shown["sheets"] for near in sheet["trained"]} == {None}
    assert len(shown["map"]["photos"]) == 64
    assert not shown["confusable"]


def save_weights(file):
    """A start that is not drawn at random, as far as anyone can tell."""
    config = BackboneConfig(name="test_resnet", weights="random", seed=1)
    state = Backbone.build(config, size=32).network.state_dict()
    metadata = {"architecture": "test_resnet", "supervision": "supervised", "data": "ImageNet-1k"}
    save_file(state, file, metadata)


def test_without_labels_photos_are_held_out_and_decide_what_ships(
    sample, tmp_path, monkeypatch, prepared
):
    weights = tmp_path / "start.safetensors"
    save_weights(weights)
    sets = (*SETS, f"backbone.weights={weights}", "backbone.name=test_resnet")
    recipe = load_recipe("smoke", sets)
    photos_ = prepared(sample.photos, recipe, tmp_path / "store")
    assert len(photos_.held_out) == 64 // 5
    assert not set(photos_.train_rows) & set(photos_.held_out)
    result = train(sample.photos, tmp_path / "run", recipe)
    told = result["label_free"]
    assert told["held_out"] == 64 // 5
    low, high = told["agreement_interval"]
    assert low <= told["agreement_gain"] <= high
    difference = told["trained"]["agreement"] - told["start"]["agreement"]
    price = CHANGE_PRICE * told["trained"]["neighbours_changed"]
    assert price > 0
    assert told["agreement_gain"] == pytest.approx(difference - price)
    assert (result["shipped"] == "trained") == (low > 0)
    assert "kept from training" in (tmp_path / "run" / "report.html").read_text()
    # Where the reference is what was trained, it must ship.
    trained = Encoder.load(tmp_path / "run" / "encoders" / "teacher", device="cpu")
    monkeypatch.setattr(
        judgement,
        "reference_embeddings",
        lambda start, store, fit, rows, **_: trained.embed_store(store, rows),
    )
    monkeypatch.setattr(judgement, "yardstick", lambda reference: reference)
    again = train(sample.photos, tmp_path / "other", recipe)
    assert again["label_free"]["trained"]["agreement"] == pytest.approx(100)
    assert again["label_free"]["reading"] == "helped"
    assert again["shipped"] == "trained"
    assert again["verdict"] == "not measured"


@pytest.mark.parametrize(
    ("photos_", "share", "kept"),
    [
        (100, 0.1, 20),
        (500, 0.1, 100),
        (3000, 0.1, 300),
        (9000, 0.1, 500),
        (3000, 0.0, 0),
        (3, 0.1, 0),
    ],
)
def test_how_many_photos_are_held_out(photos_, share, kept):
    rows = np.arange(7, 7 + photos_)
    held_out = photos.hold_out(rows, share)
    assert len(held_out) == kept == len(np.unique(held_out))
    assert set(held_out) <= set(rows)
    np.testing.assert_array_equal(held_out, photos.hold_out(rows[::-1].copy(), share))


def test_of_copies_all_are_held_out_or_none():
    rows = np.arange(100)
    plain = photos.hold_out(rows, 0.1)
    pairs = [[row, (row + 50) % 100] for row in range(50)]
    kept = photos.hold_out(rows, 0.1, pairs)
    assert len(kept) == 20 == len(set(kept))
    assert set(kept) == {(row + 50) % 100 for row in kept}
    # Alone in its group a photo is drawn as before.
    np.testing.assert_array_equal(photos.hold_out(rows, 0.1, [[3]]), plain)
    # A group that is too large trains.
    large = plain.tolist() + [row for row in range(100) if row not in plain][:10]
    kept = photos.hold_out(rows, 0.1, [large])
    assert len(kept) == 20
    assert not set(kept) & set(large)


def saved_copies(folder, pictures, copies):
    """Random pictures, each in several files: bytes of their own, the same to the eye."""
    generator = np.random.default_rng(0)
    folder.mkdir()
    for index in range(pictures):
        coarse = Image.fromarray(generator.integers(0, 256, (6, 6, 3), dtype=np.uint8))
        picture = coarse.resize((64, 64), Image.Resampling.BICUBIC)
        for copy in range(copies):
            picture.save(folder / f"{index:03d}-{copy}.jpg", quality=95 - copy)
    return folder


def test_no_copy_of_a_held_out_photo_trains(tmp_path, prepared):
    folder = saved_copies(tmp_path / "photos", 40, 2)
    data = prepared(folder, load_recipe("smoke"), tmp_path / "store")
    names = [row.path.partition("-")[0] for row in data.catalog.rows]
    held_out, trained = ({names[row] for row in rows} for rows in (data.held_out, data.train_rows))
    assert len(data.held_out) == 16
    assert not held_out & trained


def test_where_all_look_alike_photos_are_held_out_nevertheless(tmp_path, prepared):
    folder = saved_copies(tmp_path / "photos", 2, 20)
    data = prepared(folder, load_recipe("smoke"), tmp_path / "store")
    assert len(data.held_out) == 8


@pytest.mark.parametrize("recipe", ["smoke", "start"])
def test_photos_of_one_picture_are_refused_before_training(tmp_path, recipe, prepared):
    (tmp_path / "photos").mkdir()
    for index in range(12):
        Image.new("RGB", (64 + index, 64), (0, 0, index % 2)).save(tmp_path / f"photos/{index}.png")
    with pytest.raises(CatalogError, match=r"12 usable photos .* all show the same picture"):
        prepared(tmp_path / "photos", load_recipe(recipe), tmp_path / "store")


def test_labelled_test_photos_need_none_held_out(sample, tmp_path, prepared):
    data = prepared(sample.photos, load_recipe("smoke"), tmp_path, probe=sample.probe)
    assert not len(data.held_out)


def in_train_and_test(photos, folder):
    """A quarter of the photos below ``test``, the others below ``train``."""
    for row in Catalog.open(photos).rows:
        target = folder / ("test" if row.row % 4 == 0 else "train") / row.path
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(photos / row.path, target)


def test_folders_named_train_and_test_turn_the_verdict_on(sample, tmp_path, prepared):
    in_train_and_test(sample.photos, tmp_path / "photos")
    data = prepared(tmp_path / "photos", load_recipe("smoke"), tmp_path / "store")
    assert data.split is not None
    assert len(data.split.test_rows) == 16
    assert not set(data.train_rows) & set(data.split.test_rows)


@pytest.mark.parametrize("labelled", ["table", "folders", "nothing"])
def test_a_plan_counts_the_photos_that_training_will_use(sample, tmp_path, prepared, labelled):
    source, probe = sample.photos, sample.probe if labelled == "table" else None
    if labelled == "folders":
        source = tmp_path / "photos"
        in_train_and_test(sample.photos, source)
    recipe = load_recipe("smoke", SETS)
    used = prepared(source, recipe, tmp_path / "store", probe=probe).train_rows
    told = plan(source, recipe, probe=probe, device="cpu", seconds=0.1)
    assert told["train_photos"] == len(used)


def test_recipe_start_trains_nothing_and_compares_with_the_plain_network(sample, tmp_path):
    recipe = load_recipe(
        "start",
        ("size=32", "backbone.name=test_resnet", "backbone.weights=random", "post.whiten_dim=8"),
    )
    result = train(sample.photos, tmp_path / "run", recipe, probe=sample.probe)
    assert result["shipped"] == "start"
    assert result["sentence"].startswith("Nothing was trained")
    assert result["grid"]["map"]["start"]["post"] == result["trained"]["map"]
    assert result["grid"]["map"]["start"]["plain"] == result["start"]["map"]
    assert not (tmp_path / "run" / "checkpoints").exists()
    assert Encoder.load(tmp_path / "run").dim == 8


def test_a_run_is_one_process_s_from_beginning_to_end(sample, tmp_path, monkeypatch):
    sets = ("size=32", "backbone.name=test_resnet", "backbone.weights=random")
    run = tmp_path / "run"

    def evaluating(*_, **_more):
        with (run / "run.lock").open("a") as other, pytest.raises(BlockingIOError):
            fcntl.flock(other, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return {"verdict": "not measured"}

    monkeypatch.setattr(judgement, "judge", evaluating)
    result = train(sample.photos, run, load_recipe("start", sets), probe=sample.probe)
    assert result == {"verdict": "not measured"}
    with (run / "run.lock").open("a") as other:
        fcntl.flock(other, fcntl.LOCK_EX | fcntl.LOCK_NB)  # given back


def test_no_folder_of_this_machine_is_handed_on():
    settings = {
        "backbone": {"name": "resnet18", "weights": "/home/ada/w.safetensors"},
        "method": {"teacher": "open_clip:ViT-B-32:/home/ada/w.safetensors", "texts": "birds"},
    }
    judgement.without_paths(settings)
    assert settings["backbone"] == {"name": "resnet18"}
    method = settings["method"]
    assert method == {"teacher": "open_clip:ViT-B-32:w.safetensors", "texts": "birds"}
    judgement.without_paths({"method": {"texts": "/home/ada/mine.toml"}})


@pytest.mark.parametrize("smallest", [0.05, 0.2, 0.9])
def test_photos_are_kept_as_sharp_for_fine_tuning_as_for_training(smallest):
    kept = photos.sharp_side(128, smallest, 100)
    assert kept >= photos.sharp_side(128, 0.2, 100) > 1.5 * 128
    assert kept == photos.sharp_side(128, min(smallest, 0.2), 100)


@pytest.mark.parametrize("sets", [(), ("photos.short_side=80",)])
def test_whole_photos_are_kept_sharp(sets):
    side = photos.short_side(load_recipe("start", ("size=64", *sets)), 10)
    assert side == (80 if sets else 144)  # 64 / sqrt(0.2), up to a multiple of 8


def network(name="mobilenetv2_035", size=128, how="random"):
    backbone = Backbone.build(BackboneConfig(name=name, weights="random"), size=size)
    backbone.provenance = backbone.provenance.model_copy(update={"how": how})
    return backbone


@pytest.mark.parametrize(
    ("recipe", "labelled", "how", "side"),
    [
        ("fieldmark", True, "random", 416),  # 224 / sqrt(0.3), for the teacher
        ("fieldmark", False, "supervised", 416),
        ("gentle", True, "supervised", 288),
        ("gentle", False, "supervised", 416),  # for the yardstick
        ("gentle", False, "random", 288),  # which a random start has not
        ("start", False, "supervised", 288),
    ],
)
def test_photos_are_kept_for_the_largest_look_at_them(recipe, labelled, how, side):
    settings = load_recipe(recipe, ("size=128",))
    looks = photos.further_looks(settings, network(how=how), labelled=labelled)
    assert photos.short_side(settings, 10, looks=looks) == side
    by_hand = load_recipe(recipe, ("size=128", "photos.short_side=200"))
    assert photos.short_side(by_hand, 10, looks=looks) == 200


def test_no_look_is_larger_than_the_network_takes():
    settings = load_recipe("fieldmark", ("size=224",))
    looks = photos.further_looks(settings, network(size=224), labelled=True)
    assert {look.size for look in looks} == {224}


def test_larger_looks_neither_enlarge_photos_nor_fill_the_disk(
    sample, tmp_path, monkeypatch, prepared
):
    recipe, start = load_recipe("fieldmark"), network()
    room = SimpleNamespace(free=10**12)
    monkeypatch.setattr("fieldmark.data.store.shutil.disk_usage", lambda path: room)
    kept = prepared(sample.photos, recipe, tmp_path / "a", start=start)
    assert kept.store.short_side == 416
    assert kept.store.shapes.max() == 32
    room.free = 1_000_000
    said = []
    kept = prepared(sample.photos, recipe, tmp_path / "b", start=start, say=said.append)
    assert kept.store.short_side == recipe.size
    assert "128 pixels where 416 would be best" in said[0]


@pytest.mark.parametrize(
    ("sets", "said"),
    [((), True), (("views.override.flip=0",), False), (("views.preset=part",), False)],
)
def test_mirroring_is_said_with_the_way_to_switch_it_off(sets, said):
    note = photos.note_on_mirroring(load_recipe("fieldmark", sets))
    assert bool(note) == said
    assert not said or "--set views.override.flip=0" in note


@pytest.mark.parametrize(("size", "small"), [(16, False), (32, True)])
def test_photos_smaller_than_the_teachers_input_are_named(sample, tmp_path, size, small, prepared):
    recipe = load_recipe("fieldmark", (f"size={size}",))
    start = network("test_resnet", size)
    data = prepared(sample.photos, recipe, tmp_path, start=start)
    note = photos.note_on_small_photos(recipe, start, data)
    assert bool(note) == small
    assert not small or ("64 px" in note and "short side 32 px" in note and "--size" in note)
    gentle = load_recipe("gentle", (f"size={size}",))
    assert photos.note_on_small_photos(gentle, start, data) == ""


def test_few_photos_are_not_whitened_to_many_directions(sample, tmp_path):
    sets = ("size=32", "backbone.name=test_resnet", "backbone.weights=random")
    run = tmp_path / "run"
    train(sample.photos, run, load_recipe("start", sets), probe=sample.probe)
    encoder = Encoder.load(run, device="cpu")
    assert encoder.post.whiten_dim is None
    assert encoder.post.flip
    notes = json.loads((run / "report.json").read_text())["notes"]
    assert any("too few for 256 directions" in note for note in notes)


def test_from_some_fifty_photos_on_all_directions_are_whitened(sample, tmp_path):
    sets = ("size=32", "backbone.name=test_resnet", "backbone.weights=random", "post.whiten_dim=40")
    train(sample.photos, tmp_path / "run", load_recipe("start", sets))
    encoder = Encoder.load(tmp_path / "run", device="cpu")
    assert encoder.post.whiten_dim == encoder.dim == encoder.spec.raw_dim > 40
    notes = json.loads((tmp_path / "run" / "report.json").read_text())["notes"]
    assert any("64 training photos are too few to choose 40 by" in note for note in notes)


def test_the_label_subsets_are_kept(finished, sample):
    run, _ = finished
    lines = list(csv.DictReader((run / "label_subsets.csv").read_text().splitlines()))
    split = match_split(Catalog.open(sample.photos), sample.probe)
    assert len(lines) == len(split.train_rows)
    tenth = [line for line in lines if line["seed 0"] == "0.1"]
    assert {line["class"] for line in tenth} == set(split.classes)
    assert {line["seed 0"] for line in lines} == {"0.1", "0.2", "0.5", "1"}


@pytest.mark.parametrize(
    ("ship", "verdict", "shipped"),
    [
        ("best", "helped", "trained"),
        ("best", "no difference shown", "start"),
        ("best", "hurt", "start"),
        ("best", "not measured", "start"),
        ("trained", "hurt", "trained"),
        ("start", "helped", "start"),
    ],
)
def test_what_ships(ship, verdict, shipped):
    recipe = load_recipe("smoke", (f"ship={ship}",))
    assert judgement._choose(recipe, verdict, True) == shipped


def test_more_epochs_go_on_from_the_end(sample, tmp_path):
    run = tmp_path / "run"
    train(sample.photos, run, load_recipe("smoke", SETS), probe=sample.probe)
    steps = len(read_metrics(run, "train"))
    said = []
    more = load_recipe("smoke", (*SETS, "train.epochs=2"))
    train(sample.photos, run, more, probe=sample.probe, say=said.append)
    assert len(read_metrics(run, "train")) == 2 * steps
    assert any("epochs changed from 1 to 2" in text for text in said)


def test_every_shipped_recipe_reads():
    from fieldmark.workflows.recipe import available

    for name in available():
        recipe = load_recipe(name)
        assert recipe.name == name
        if recipe.trains:
            assert recipe.multi_view().count >= 2


def test_recipe_errors_name_the_closest_valid_key():
    with pytest.raises(ConfigError, match=r"did you mean 'temperature'"):
        load_recipe("smoke", ("method.temprature=0.1",))
    with pytest.raises(ConfigError, match=r"did you mean 'mocov2'"):
        load_recipe("moco2")
    with pytest.raises(ConfigError, match=r"did you mean 'simclr'"):
        load_recipe("smoke", ("method.name=simcl",))


def test_moco_is_another_name_of_mocov2():
    assert load_recipe("moco") == load_recipe("mocov2")


def test_views_can_be_overridden_by_a_recipe():
    views = load_recipe(
        "smoke", ("views.override.scale=[0.5, 1.0]", "views.preset=plumage")
    ).multi_view()
    assert all(spec.scale == (0.5, 1.0) for spec in views.specs)
    assert all(spec.hue == 0 for spec in views.specs)


@pytest.mark.parametrize("where", ["empty", "no-such-folder"])
def test_photos_that_are_not_there_are_refused_before_anything_is_written(tmp_path, where):
    (tmp_path / "empty").mkdir()
    with pytest.raises(CatalogError, match=where):
        train(tmp_path / where, tmp_path / "run", load_recipe("smoke", SETS))
    assert not (tmp_path / "run").exists()


def test_a_probe_table_that_cannot_be_used_is_refused_before_anything_is_written(sample, tmp_path):
    table = tmp_path / "probe.csv"
    table.write_text("path,class,split\na.jpg,a,test\n")
    with pytest.raises(LabelError, match="no photo with split 'train'"):
        train(sample.photos, tmp_path / "run", load_recipe("smoke", SETS), probe=table)
    assert not (tmp_path / "run").exists()


def test_a_run_keeps_the_size_of_its_photos_when_the_disk_has_changed(
    sample, tmp_path, monkeypatch, prepared
):
    said = []
    recipe = load_recipe("smoke")
    room = SimpleNamespace(free=1_000_000)
    monkeypatch.setattr("fieldmark.data.store.shutil.disk_usage", lambda path: room)
    small = prepared(sample.photos, recipe, tmp_path, say=said.append)
    assert small.store.short_side < photos.short_side(recipe, len(small.catalog))
    assert "no room for more" in said[0]
    room.free = 10**12
    again = prepared(sample.photos, recipe, tmp_path, say=said.append)
    assert again.store.short_side == small.store.short_side
    fresh = prepared(sample.photos, recipe, tmp_path / "fresh", say=said.append)
    assert fresh.store.short_side > small.store.short_side
    assert len(said) == 2


def test_a_preparation_has_a_bar_of_its_own():
    shown = []
    told = narrator(lambda what, done, total, note="": shown.append((what, done, total)), print)
    told.preparing("asking the teacher", 32, 80)
    assert shown == [("asking the teacher", 32, 80)]


def test_what_a_method_has_to_say_is_said_and_kept_in_the_report(sample, tmp_path):
    sets = (
        *SETS,
        "size=32",
        "backbone.name=test_resnet",
        "backbone.weights=random",
        "train.batch_size=32",
        "method.contrast.queue_size=64",
    )
    said = []
    run = tmp_path / "run"
    train(sample.photos, run, load_recipe("ppssl", sets), say=said.append)
    notes = json.loads((run / "report.json").read_text())["notes"]
    for told in (said, notes):
        assert any("AIS IS OFF" in text and "To get one" in text for text in told)
        assert sum("mirrored at random" in text for text in told) == 1
    with pytest.raises(ConfigError, match=r"method\.ais = true needs a text-image teacher"):
        load_recipe("ppssl", (*sets, "method.ais=true"))
