"""The field's data sets in their official layouts: opened, checked, or refused with the reason."""

from pathlib import Path

import numpy as np
import pytest

from fieldmark.data.benchmarks import BENCHMARKS, Benchmark, open_benchmark
from fieldmark.data.benchmarks.folders import halves
from fieldmark.data.benchmarks.vehicles import body_of, make_of
from fieldmark.data.catalog import Catalog
from fieldmark.data.splits import match_split
from fieldmark.errors import CatalogError, LabelError, PhotoError
from layouts import (
    CARS,
    LAYOUTS,
    cars196_of_one_list,
    imagenet_with_solution,
    photo,
    shards,
    text,
)


@pytest.fixture
def opened(tmp_path):
    """Write a replica and open it."""

    def call(name: str) -> Benchmark:
        return open_benchmark(name, LAYOUTS[name.partition(":")[0]](tmp_path))

    return call


# Classes, train, val and test photos of each replica; classes of the first and the last photo.
EXPECTED = {
    "cub200": (3, 3, 0, 3, "001.Black_footed_Albatross", "003.Sooty_Crow"),
    "cars196": (3, 6, 0, 6, CARS[0], CARS[2]),
    "aircraft": (3, 9, 0, 3, "707-320", "737-200"),
    "nabirds": (3, 3, 0, 3, "American Goldfinch (Female)", "Mallard"),
    "flowers102": (2, 2, 2, 4, "001", "077"),
    "butterfly200": (3, 4, 0, 3, "001.Atro", "003.Vane"),
    "dogs": (2, 6, 0, 4, "n02085620-Chihuahua", "n02085782-Japanese_spaniel"),
    "pets": (2, 2, 0, 2, "Abyssinian", "great_pyrenees"),
    "food101": (2, 2, 0, 2, "apple_pie", "sushi"),
    "inaturalist": (3, 6, 0, 6, "0 Corvus vulgaris", "2 Parus vulgaris"),
    "imagenet": (2, 4, 0, 2, "n01440764", "n01443537"),
    "tinyimagenet": (2, 4, 0, 2, "n02124075", "n02124075"),
    "leedsbutterfly": (2, 3, 0, 3, "001 Danaus plexippus", "002"),
    "folder": (2, 4, 0, 4, "crow", "owl"),
}


@pytest.mark.parametrize("name", BENCHMARKS)
def test_every_layout_opens_with_its_official_split_and_its_photos_can_be_read(name, opened):
    found = opened(name)
    classes, *parts, first, last = EXPECTED[name]
    assert len(found.classes) == classes
    assert [len(found.rows(part)) for part in ("train", "val", "test")] == parts
    catalog = found.catalog()
    labels = [label for label in catalog.labels if label]
    assert {first, last} <= set(labels)
    assert len(labels) == len(found) == sum(parts)
    for row in range(len(found)):
        assert catalog.read(row)[:2] in (b"\xff\xd8", b"\x89P")
    assert len(set(found.paths)) == len(found)


@pytest.mark.parametrize("name", [name for name in BENCHMARKS if BENCHMARKS[name].facts.classes])
def test_a_part_of_a_data_set_says_that_it_is_one(name, opened):
    found = opened(name)
    assert found.subset == f"{len(found.classes)} of {found.facts.classes} classes"


def test_all_of_a_data_set_is_not_called_a_part(opened):
    found = opened("cub200")
    whole = found.facts._replace(photos={"train": 3, "test": 3}, classes=3)
    assert Benchmark(**{**vars(found), "facts": whole}).subset is None
    fewer = whole._replace(photos={"train": 1_003, "test": 3})
    assert Benchmark(**{**vars(found), "facts": fewer}).subset == "6 of 1,006 photos"


# The others' photos are found by looking into folders, so none can be missing.
LISTED = sorted(BENCHMARKS.keys() - {"leedsbutterfly", "imagenet", "folder"})


@pytest.mark.parametrize("name", LISTED)
def test_photos_that_are_listed_and_not_there_are_a_half_unpacked_archive(name, tmp_path):
    root = LAYOUTS[name](tmp_path)
    found = open_benchmark(name, root)
    (found.root / found.paths[-1]).unlink()
    with pytest.raises(CatalogError, match=f"1 of {len(found)} photos") as caught:
        open_benchmark(name, root)
    assert found.paths[-1] in str(caught.value)
    assert "layout should be" in str(caught.value)


@pytest.mark.parametrize(
    ("name", "file"),
    [
        ("cub200", "CUB_200_2011/train_test_split.txt"),
        ("cub200", "CUB_200_2011/classes.txt"),
        ("cars196", "stanford_cars/devkit/cars_meta.mat"),
        ("cars196", "stanford_cars/cars_test_annos_withlabels.mat"),
        ("aircraft", "fgvc-aircraft-2013b/data/images_variant_test.txt"),
        ("nabirds", "nabirds/hierarchy.txt"),
        ("flowers102", "flowers-102/setid.mat"),
        ("butterfly200", "Butterfly200/Butterfly200_val_release.txt"),
        ("dogs", "stanford_dogs/test_list.mat"),
        ("pets", "oxford-iiit-pet/annotations/trainval.txt"),
        ("food101", "food-101/meta/test.txt"),
        ("inaturalist", "val.json"),
        ("tinyimagenet", "tiny-imagenet-200/val/val_annotations.txt"),
    ],
)
def test_a_missing_file_is_named_with_the_layout(name, file, tmp_path):
    root = LAYOUTS[name](tmp_path)
    (tmp_path / file).unlink()
    with pytest.raises(CatalogError) as caught:
        open_benchmark(name, root)
    assert Path(file).name in str(caught.value)
    assert BENCHMARKS[name].facts.layout in str(caught.value)


@pytest.mark.parametrize("name", [name for name in BENCHMARKS if name != "folder"])
def test_another_folder_is_refused(name, tmp_path):
    photo(tmp_path / "a.jpg")
    with pytest.raises(CatalogError, match="layout should be"):
        open_benchmark(name, tmp_path)
    with pytest.raises(CatalogError, match="there is no folder"):
        open_benchmark(name, tmp_path / "nowhere")


@pytest.mark.parametrize("name", ["aircraft", "cub200", "pets"])
def test_the_data_sets_own_folder_and_the_one_above_are_the_same(name, tmp_path):
    root = LAYOUTS[name](tmp_path)
    above, inner = (
        open_benchmark(name, place) for place in (root, root / BENCHMARKS[name].facts.folder)
    )
    assert above.paths == inner.paths
    assert above.split_hash() == inner.split_hash()


def test_more_than_there_should_be_is_refused(opened, monkeypatch, tmp_path):
    found = opened("cub200")
    reader = BENCHMARKS["cub200"]
    for facts, complaint in (
        (found.facts._replace(classes=2), "lists 3 classes"),
        (found.facts._replace(photos={"train": 2, "test": 9}), "lists 3 photos in train"),
        (found.facts._replace(photos={"train": 9, "test": 9, "gallery": 1}), "no photo in gallery"),
    ):
        made = Benchmark(**{**vars(found), "facts": facts})
        monkeypatch.setitem(BENCHMARKS, "cub200", reader._replace(read=lambda _, made=made: made))
        with pytest.raises(CatalogError, match=complaint):
            open_benchmark("cub200", tmp_path)


def test_cub_has_boxes_parts_masks_and_attributes(opened):
    found = opened("cub200")
    assert found.boxes is not None
    assert found.parts is not None
    assert found.attributes is not None
    np.testing.assert_allclose(found.boxes[2], [1, 2, 4, 5.5])
    assert found.parts.names == ("back", "left eye")
    np.testing.assert_allclose(found.parts.points[4], [[5.5, 1], [5.5, 2]])
    assert found.parts.visible[4].tolist() == [False, True]
    mask = found.mask(0)
    assert mask is not None
    # Two of ten annotators marked the corner, eight the bird.
    assert mask.sum() == 8
    assert mask[2:4, 3:7].all()
    assert found.mask(1) is None
    attributes = found.attributes()
    assert attributes.names[1] == "has_wing_color::blue"
    assert attributes.present[:2].tolist() == [[True, False], [False, True]]


def test_a_damaged_mask_is_a_photo_error(opened):
    found = opened("cub200")
    (found.root / found.masks.files[0]).write_bytes(b"no picture")
    with pytest.raises(PhotoError, match="cannot be read"):
        found.mask(0)


def test_what_a_mask_file_means(tmp_path):
    for name, inside in (("flowers102", 64), ("pets", 15), ("leedsbutterfly", 2)):
        found = open_benchmark(name, LAYOUTS[name](tmp_path / name))
        row = next(i for i, file in enumerate(found.masks.files) if file)
        assert abs(int(found.mask(row).sum()) - inside) <= (4 if name == "flowers102" else 0)


def test_aircraft_counts_pixels_from_one_and_has_three_levels(opened):
    found = opened("aircraft")
    np.testing.assert_allclose(found.boxes[0], [2, 1, 9, 7])
    families = open_benchmark("aircraft:family", found.root)
    assert families.classes == ("A300", "Boeing 707", "Boeing 737")
    # Manufacturers stand above families, variants below.
    assert families.coarser == {"manufacturer": ("Airbus", "Boeing", "Boeing")}
    makers = open_benchmark("aircraft:manufacturer", found.root)
    assert makers.classes == ("Airbus", "Boeing")
    assert np.bincount(makers.labels).tolist() == [4, 8]
    assert makers.coarser == {}
    assert makers.subset == "12 of 10,000 photos"
    assert makers.split_hash() != found.split_hash()


def test_an_unknown_level_or_data_set_names_those_there_are(opened, tmp_path):
    opened("aircraft")
    with pytest.raises(
        CatalogError, match="no level 'genus'; it has: variant, family, manufacturer"
    ):
        open_benchmark("aircraft:genus", tmp_path)
    with pytest.raises(CatalogError, match="did you mean 'aircraft'"):
        open_benchmark("aircrafts", tmp_path)


def test_nabirds_reads_its_tree_and_photographers(opened):
    found = opened("nabirds")
    assert found.coarser["species"] == ("American Goldfinch", "American Goldfinch", "Mallard")
    assert found.coarser["family"] == ("Finches", "Finches", "Ducks")
    assert found.coarser["order"] == ("Perching Birds", "Perching Birds", "Ducks, Geese, and Swans")
    assert found.groups[:2] == ("Ruth Cantwell", "Ruth Cantwell")
    assert found.groups[4] != found.groups[5]  # unknown photographers are not one person


def test_nabirds_keeps_visual_categories_of_one_name_apart(tmp_path):
    root = LAYOUTS["nabirds"](tmp_path)
    classes = tmp_path / "nabirds" / "classes.txt"
    classes.write_text(classes.read_text().replace("(Male)", "(Female)"))
    assert len(open_benchmark("nabirds", root).classes) == 3


def test_both_forms_of_stanford_cars(tmp_path, opened):
    three = opened("cars196")
    np.testing.assert_allclose(three.boxes[1], [10, 20, 31, 40])
    assert three.coarser["make"] == ("AM General", "Buick", "Ford")
    assert three.coarser["body"] == ("SUV", "other", "Pickup")
    (tmp_path / "one").mkdir()
    one = open_benchmark("cars196", cars196_of_one_list(tmp_path / "one"))
    assert (one.paths[0], one.splits[:2], one.classes) == (
        "car_ims/000000.jpg",
        ("train", "test"),
        three.classes,
    )


def test_makes_and_bodies_of_cars():
    assert make_of("Land Rover LR2 SUV 2012") == "Land Rover"
    assert make_of("MINI Cooper Roadster Convertible 2012") == "MINI"
    assert body_of("Chevrolet Silverado 1500 Hybrid Crew Cab 2012") == "Pickup"
    assert body_of("Hyundai Veloster Hatchback 2012") == "Hatchback"


def test_butterflies_train_on_train_and_val_together(opened):
    found = opened("butterfly200")
    assert found.coarser["genus"] == ("genus 001", "genus 002", "genus 003")
    assert found.coarser["family"] == ("family 001", "family 001", "family 002")
    assert found.splits.count("train") == 4


def test_dogs_and_tiny_imagenet_have_boxes_where_they_are_given(tmp_path):
    dogs = open_benchmark("dogs", LAYOUTS["dogs"](tmp_path / "dogs"))
    np.testing.assert_allclose(dogs.boxes[0], [1, 2, 9, 7])
    assert np.isnan(dogs.boxes[1]).all()
    tiny = open_benchmark("tinyimagenet", LAYOUTS["tinyimagenet"](tmp_path / "tiny"))
    np.testing.assert_allclose(tiny.boxes[0], [0, 10, 64, 59])
    np.testing.assert_allclose(tiny.boxes[-1], [0, 32, 45, 63])


def test_inaturalist_takes_the_list_whose_photos_are_there(opened):
    found = opened("inaturalist")
    assert found.paths[0].startswith("train_mini/")
    assert found.coarser["family"] == ("Corvidae", "Corvidae", "Paridae")
    assert found.coarser["class"] == ("Aves",) * 3


def test_imagenets_flat_validation_folder_is_read_with_its_table(tmp_path):
    found = open_benchmark("imagenet", imagenet_with_solution(tmp_path))
    tests = {found.paths[i]: found.classes[found.labels[i]] for i in found.rows("test")}
    assert tests == {"val/v_0.JPEG": "n01443537", "val/v_1.JPEG": "n01440764"}


def test_leeds_is_split_by_us_and_says_so(opened):
    found = opened("leedsbutterfly")
    assert found.splits == ("train", "test") * 3
    assert found.facts.split.startswith("ours")


def test_malformed_lists_are_named_with_their_line(tmp_path):
    root = LAYOUTS["cub200"](tmp_path)
    inner = tmp_path / "CUB_200_2011"
    good = (inner / "images.txt").read_text()
    for changed, complaint in (
        (good + "7\n", "line 7 of images.txt has 1 fields"),
        (good + good.splitlines()[0] + "\n", "images.txt lists 1 twice"),
        (good + "99 001.Black_footed_Albatross/x.jpg\n", "says nothing of 1 photos, such as 99"),
    ):
        (inner / "images.txt").write_text(changed)
        with pytest.raises(CatalogError, match=complaint):
            open_benchmark("cub200", root)
    (inner / "images.txt").write_text(good)
    (inner / "bounding_boxes.txt").write_text("1 a b c d\n")
    with pytest.raises(CatalogError, match=r"line 1 of bounding_boxes\.txt has no numbers"):
        open_benchmark("cub200", root)
    text(inner / "image_class_labels.txt", *(f"{i} 77" for i in range(1, 7)))
    with pytest.raises(CatalogError, match=r"classes\.txt has no class 77"):
        open_benchmark("cub200", root)


def test_a_damaged_matlab_or_json_file_is_named(tmp_path):
    root = LAYOUTS["flowers102"](tmp_path / "f")
    (tmp_path / "f" / "flowers-102" / "setid.mat").write_bytes(b"MATLAB 5.0 no more")
    with pytest.raises(CatalogError, match=r"setid\.mat cannot be read as a MATLAB file"):
        open_benchmark("flowers102", root)
    (tmp_path / "i").mkdir()
    root = LAYOUTS["inaturalist"](tmp_path / "i")
    (root / "val.json").write_text("{")
    with pytest.raises(CatalogError, match=r"val\.json cannot be read as JSON"):
        open_benchmark("inaturalist", root)


@pytest.mark.parametrize("name", BENCHMARKS)
def test_the_table_of_a_data_set_is_what_every_command_takes(name, opened, tmp_path):
    found = opened(name)
    place = tmp_path / "elsewhere" / "table.csv"
    place.parent.mkdir()
    place.write_text(found.table(place.parent), encoding="utf-8")
    catalog = Catalog.open(place)
    split = match_split(catalog, place)
    assert len(split.train_rows) == len(found.rows("train"))
    assert len(split.test_rows) == len(found.rows("test"))
    assert split.classes == sorted(found.classes)
    assert catalog.read(0) == found.catalog().read(0)


def test_a_table_may_leave_out_what_takes_no_part(opened, tmp_path):
    found = opened("flowers102")
    table = tmp_path / "table.csv"
    table.write_text(found.table(tmp_path, parts=("train", "test")))
    assert Catalog.open(table).splits.count("val") == 0
    assert len(Catalog.open(table)) == len(found) - 2
    split = match_split(Catalog.open(table), table)
    assert (len(split.train_rows), len(split.test_rows)) == (2, 4)


def test_shards_are_read_where_they_lie(tmp_path):
    found = open_benchmark("folder", shards(tmp_path))
    assert found.counts == {"train": 4, "test": 4}
    assert found.facts.split == "yours; the validation photos are the test part"
    assert found.catalog().read(5) == Catalog.open(tmp_path).read(5)
    table = tmp_path / "split.csv"
    table.write_text(found.table(tmp_path))
    assert len(match_split(Catalog.open(tmp_path), table).test_rows) == 4


def test_photos_without_a_split_are_halved_whatever_their_order(tmp_path):
    for name, count in (("crow", 5), ("owl", 4), ("jay", 1)):
        for i in range(count):
            photo(tmp_path / name / f"{i}.jpg")
    found = open_benchmark("folder", tmp_path)
    assert found.facts.split.startswith("ours")
    for label, name in enumerate(found.classes):
        tests = [found.splits[i] for i in np.flatnonzero(found.labels == label)].count("test")
        assert tests == {"crow": 2, "owl": 2, "jay": 0}[name]
    paths, labels = list(found.paths), found.labels
    again = halves(paths[::-1], labels[::-1])
    assert again[::-1] == list(found.splits)


def test_photos_without_labels_are_refused(tmp_path):
    for i in range(3):
        photo(tmp_path / f"{i}.jpg")
    with pytest.raises(CatalogError, match="3 of 3 photos have no label"):
        open_benchmark("folder", tmp_path)


def test_a_split_table_in_the_folder_is_used_and_its_errors_told(tmp_path):
    for i in range(4):
        photo(tmp_path / "images" / f"{i}.jpg")
    lines = [f"images/{i}.jpg,{'ab'[i % 2]},{'train' if i < 2 else 'test'}" for i in range(4)]
    text(tmp_path / "split.csv", "path,class,split", *lines)
    found = open_benchmark("folder", tmp_path)
    assert found.counts == {"train": 2, "test": 2}
    assert found.facts.name == tmp_path.name
    text(tmp_path / "split.csv", "path,class,split", *lines[:2])
    with pytest.raises(LabelError, match="no photo with split 'test'"):
        open_benchmark("folder", tmp_path)


@pytest.mark.parametrize(
    ("lines", "complaint"),
    [
        (["class", "crow"], "needs a column 'class' and one for each coarser level"),
        (["class,family", "crow,Corvidae"], "says nothing of 1 classes, such as 'owl'"),
        (["class,family", "crow,Corvidae", "owl,"], "leaves the family of 'owl' empty"),
    ],
)
def test_a_table_of_levels_must_cover_all_classes(lines, complaint, tmp_path):
    LAYOUTS["folder"](tmp_path)
    assert open_benchmark("folder:family", tmp_path).classes == ("Corvidae", "Strigidae")
    text(tmp_path / "levels.csv", *lines)
    with pytest.raises(CatalogError, match=complaint):
        open_benchmark("folder", tmp_path)


def test_the_split_hash_knows_photo_class_and_part_but_not_their_order(opened):
    found = opened("cub200")
    order = np.random.default_rng(0).permutation(len(found))
    shuffled = Benchmark(
        **{
            **vars(found),
            "paths": tuple(found.paths[i] for i in order),
            "labels": found.labels[order],
            "splits": tuple(found.splits[i] for i in order),
        }
    )
    assert shuffled.split_hash() == found.split_hash()
    moved = Benchmark(**{**vars(found), "splits": ("test", *found.splits[1:])})
    assert moved.split_hash() != found.split_hash()


def test_facts_are_complete():
    for name, reader in BENCHMARKS.items():
        facts = reader.facts
        assert facts.name == name
        assert all((facts.title, facts.source, facts.licence, facts.layout, facts.split))
        assert bool(facts.classes) == bool(facts.photos)
    assert sum(BENCHMARKS["cub200"].facts.photos.values()) == 11_788
    assert sum(BENCHMARKS["nabirds"].facts.photos.values()) == 48_562
    assert sum(BENCHMARKS["cars196"].facts.photos.values()) == 16_185


def test_unicode_and_blanks_in_class_names(tmp_path):
    for name in ("Grünspecht 1", "白鷺"):
        for part in ("train", "test"):
            photo(tmp_path / part / name / "a b.jpg")
    found = open_benchmark("folder", tmp_path)
    assert found.classes == ("Grünspecht 1", "白鷺")
    table = tmp_path / "t.csv"
    table.write_text(found.table(tmp_path), encoding="utf-8")
    assert len(found.catalog().read(0)) > 100
    assert match_split(Catalog.open(table), table).classes == ["Grünspecht 1", "白鷺"]
