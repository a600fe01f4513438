import csv
import hashlib
import itertools
import json

import numpy as np
import pytest
import simplejpeg
import torch
from PIL import Image
from sklearn.linear_model import LogisticRegression
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from fieldmark.data import aviary as module
from fieldmark.data.aviary import (
    MARKS,
    PARTS,
    SPECIES_LIMIT,
    VERSION,
    Aviary,
    AviaryConfig,
    draw,
    species,
    swapped_places,
    write,
)
from fieldmark.errors import ConfigError, OutputError

# Pixels of AviaryConfig(species=16, per_species=2, size=64, seed=0) in version 1. Methods were
# tuned on these pixels: if this fails, restore them or raise VERSION and measure all again.
GOLDEN: dict[int, str] = {1: "c19bf565e19ded2d5a434e70532caad7d064ff2231a2d9ab6a949ec6d58772f1"}


@pytest.fixture(scope="module")
def aviary() -> Aviary:
    return draw(AviaryConfig(species=16, per_species=4, size=64))


@pytest.fixture(scope="module")
def many() -> Aviary:
    return draw(AviaryConfig(species=8, per_species=64, size=32, seed=3))


def test_species_differ_in_at_least_the_promised_number_of_marks():
    words = [species(number).forms for number in range(SPECIES_LIMIT)]
    distance = {
        (i, j): sum(a != b for a, b in zip(words[i], words[j], strict=True))
        for i, j in itertools.combinations(range(SPECIES_LIMIT), 2)
    }
    assert min(distance.values()) == 3
    assert {d for (_, j), d in distance.items() if j < 16} == {4}
    for count in (16, SPECIES_LIMIT):
        for mark in range(len(MARKS)):
            assert np.bincount([word[mark] for word in words[:count]]).tolist() == [count // 4] * 4


def test_species_names_are_unique():
    assert len({species(number).name[3:] for number in range(SPECIES_LIMIT)}) == SPECIES_LIMIT


def test_pixels_are_frozen():
    drawn = draw(AviaryConfig(species=16, per_species=2, size=64, seed=0))
    digest = hashlib.sha256(drawn.images.tobytes() + drawn.backgrounds.tobytes()).hexdigest()
    assert digest == GOLDEN[VERSION]


def test_photo_depends_on_its_number_only(aviary):
    fewer = draw(AviaryConfig(species=16, per_species=1, size=64))
    fields = ("images", "backgrounds", "masks", "boxes", "parts", "mark_boxes", "mark_visible")
    for field in (*fields, "labels", "test"):
        assert np.array_equal(getattr(aviary, field)[:16], getattr(fewer, field)), field


def test_other_seed_other_photos(aviary):
    other = draw(AviaryConfig(species=16, per_species=1, size=64, seed=1))
    assert not (aviary.images[:16] == other.images).all(axis=(1, 2, 3)).any()


def test_nothing_but_the_marks_depends_on_the_species(monkeypatch):
    """The same photos drawn as another species share every background and every pose."""
    config = AviaryConfig(species=2, per_species=8, size=32)
    first = draw(config)
    monkeypatch.setattr(module.drawing, "species", lambda number: species(number + 7))
    second = draw(config)
    assert np.array_equal(first.backgrounds, second.backgrounds)
    assert np.array_equal(first.parts, second.parts)
    assert not np.array_equal(first.images, second.images)


def test_forms_of_a_mark_cover_about_the_same_area():
    paint = module.paint.paint
    photos = np.arange(24)
    areas = []
    for form in range(4):
        painted = paint(photos, np.full((24, 5), form), 64, 0)
        sides = painted.mark_boxes[:, :, 2:] - painted.mark_boxes[:, :, :2]
        assert (sides[:, :4].max(axis=2) > 3).mean() > 0.95, "a mark is too small to be seen"
        pale = (painted.images.min(axis=3) > 170).mean(axis=(1, 2))
        dark = (painted.images.max(axis=3) < 60).mean(axis=(1, 2))
        areas.append([pale.mean(), dark.mean()])
    areas = np.asarray(areas)
    spread = areas.max(axis=0) - areas.min(axis=0)
    assert (spread < 0.006).all(), areas


def test_split_is_a_quarter_of_every_species(aviary):
    assert np.bincount(aviary.labels[aviary.test_rows]).tolist() == [1] * 16
    assert np.bincount(aviary.labels[aviary.train_rows]).tolist() == [3] * 16


def test_boxes_masks_and_parts_agree(aviary):
    for i in range(len(aviary.images)):
        x0, y0, x1, y1 = aviary.boxes[i]
        assert 0 <= x0 < x1 <= 64
        assert 0 <= y0 < y1 <= 64
        rows, columns = np.nonzero(aviary.masks[i])
        assert rows.min() >= y0
        assert rows.max() < y1
        assert columns.min() >= x0
        assert columns.max() < x1
        assert (x1 - x0) * (y1 - y0) > 500, "birds fill a good part of the photo"
    inside = (aviary.parts >= aviary.boxes[:, None, :2] - 2) & (
        aviary.parts <= aviary.boxes[:, None, 2:] + 2
    )
    birdy = [PARTS.index(part) for part in ("eye", "breast", "wing")]
    assert inside[:, birdy].all()


def test_the_bird_changes_only_its_own_pixels(aviary):
    changed = (aviary.images != aviary.backgrounds).any(axis=3)
    outside = np.ones_like(changed)
    for i, (x0, y0, x1, y1) in enumerate(aviary.boxes.astype(int)):
        # Feet and soft edges lie a little outside.
        outside[i, max(0, y0 - 2) : y1 + 8, max(0, x0 - 2) : x1 + 2] = False
    assert not (changed & outside).any()
    assert changed[aviary.masks].mean() > 0.98


def test_eyes_are_dark_where_they_are_said_to_be(aviary):
    column, row = aviary.parts[:, PARTS.index("eye")].astype(int).T
    at = np.arange(len(row))
    free = aviary.mark_visible[:, MARKS.index("eye")] > 0.99
    assert aviary.images[at, row, column].max(axis=1)[free].mean() < 110
    assert free.mean() > 0.7


def test_mark_visible_tells_hidden_marks(aviary):
    assert aviary.mark_visible.min() >= 0
    assert aviary.mark_visible.max() <= 1 + 1e-5
    assert aviary.mark_visible.min() < 0.7, "no leaf ever hides a mark"
    assert aviary.mark_visible.mean() > 0.9


@pytest.fixture(scope="module")
def swapped() -> tuple[Aviary, Aviary]:
    """An aviary, and the same birds on the surroundings of other birds."""
    config = AviaryConfig(species=4, per_species=8, size=64)
    return draw(config), draw(config, places=swapped_places(config, seed=2))


def test_swapped_surroundings_keep_every_pixel_inside_the_bird(swapped):
    own, moved = swapped
    assert np.array_equal(own.masks, moved.masks)
    assert np.array_equal(own.boxes, moved.boxes)
    assert np.array_equal(own.mark_visible, moved.mark_visible)
    # At its edge, a pixel shows both the bird and what is behind it.
    inside = own.masks.copy()
    for axis in (1, 2):
        for step in (-2, -1, 1, 2):
            inside &= np.roll(own.masks, step, axis=axis)
    assert inside.mean() > 0.1
    assert np.array_equal(own.images[inside], moved.images[inside])


def test_swapped_surroundings_are_those_of_the_other_photo(swapped, monkeypatch):
    own, moved = swapped
    differs = (own.images != moved.images).any(axis=3)
    assert differs[~own.masks].mean() > 0.95

    # Light, noise, leaves in front and where the twig is belong to the bird's photo.
    def develop(dice, picture, canvas):
        return (canvas.clip(0, 1) * 255).astype(np.uint8).transpose(0, 2, 3, 1)

    monkeypatch.setattr(module.paint, "expose", develop)
    monkeypatch.setattr(module.paint, "leaves_in_front", lambda dice, picture: [])
    monkeypatch.setattr(module.paint, "twig", lambda *_: None)
    plain, bare = draw(own.config), draw(own.config, places=moved.places)
    assert np.array_equal(bare.backgrounds, plain.backgrounds[moved.places])
    assert not np.array_equal(bare.backgrounds, plain.backgrounds)


@pytest.mark.parametrize("shape", [(2, 8), (4, 8), (5, 3), (16, 4), (3, 1)])
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_places_are_swapped_with_another_species_of_the_same_split(shape, seed):
    config = AviaryConfig(species=shape[0], per_species=shape[1], size=16)
    plain = draw(config)
    assert np.array_equal(plain.places, np.arange(len(plain.images)))
    places = swapped_places(config, seed)
    assert sorted(places) == list(range(len(plain.images)))
    assert (plain.labels[places] != plain.labels).all()
    assert np.array_equal(plain.test[places], plain.test)
    assert np.array_equal(places, swapped_places(config, seed))


def test_other_seeds_swap_otherwise():
    config = AviaryConfig(species=4, per_species=32)
    assert len({tuple(swapped_places(config, seed)) for seed in range(4)}) > 1


def test_places_may_come_from_outside_the_aviary_and_must_be_one_per_photo():
    config = AviaryConfig(species=2, per_species=2, size=16)
    outside = draw(config, places=np.array([4, 5, 6, 7]))
    inside = draw(AviaryConfig(species=2, per_species=4, size=16))
    assert not np.array_equal(outside.images, inside.images[:4])
    for wrong in (np.arange(3), np.array([0, 1, 2, -1])):
        with pytest.raises(ConfigError, match=r"one photo number, 0 or more, for each of 4"):
            draw(config, places=wrong)


def test_swapped_photos_do_not_mix_with_others_in_a_folder(tmp_path):
    config = AviaryConfig(species=2, per_species=2, size=16)
    moved = draw(config, places=swapped_places(config))
    write(moved, tmp_path)
    assert json.loads((tmp_path / "aviary.json").read_text())["places"] == moved.places.tolist()
    with pytest.raises(OutputError, match="other settings"):
        write(draw(config), tmp_path)


def _colour_statistics(images):
    """Mean, deviation and histogram of every channel, joint histogram of coarse colours."""
    pixels = images.reshape(len(images), -1, 3)
    flat = pixels.astype(np.float32) / 255
    coarse = (pixels // 64).astype(np.int64) @ np.array([16, 4, 1])
    features = [flat.mean(axis=1), flat.std(axis=1)]
    features.append(np.stack([np.bincount(code, minlength=64) for code in coarse]) / flat.shape[1])
    for channel in range(3):
        levels = pixels[:, :, channel] // 16
        features.append(np.stack([np.bincount(level, minlength=16) for level in levels]))
    return np.concatenate(features, axis=1)


def _thumbnails(images, side=8):
    step = images.shape[1] // side
    cells = images.reshape(len(images), side, step, side, step, 3).mean(axis=(2, 4))
    return cells.reshape(len(images), -1)


def _times_chance(features, aviary):
    """The better of two simple classifiers, as a multiple of guessing."""
    train, test, labels = aviary.train_rows, aviary.test_rows, aviary.labels
    scores = []
    for model in (LogisticRegression(C=0.03, max_iter=500), KNeighborsClassifier(15)):
        fitted = make_pipeline(StandardScaler(), model).fit(features[train], labels[train])
        scores.append(fitted.score(features[test], labels[test]))
    return max(scores) * len(aviary.species)


def test_colour_alone_does_not_tell_the_species(many):
    assert _times_chance(_colour_statistics(many.images), many) < 2


def test_background_alone_does_not_tell_the_species(many):
    background = np.concatenate(
        [_colour_statistics(many.backgrounds), _thumbnails(many.backgrounds)], axis=1
    )
    # 128 test photos of 8 species: a standard error of guessing is 0.23 of chance; the exact
    # figure, on enough photos, is in benchmarks/results.
    assert _times_chance(background, many) < 1.5


def test_the_control_would_notice_a_telling_background(many):
    told = many.backgrounds.copy()
    told[:, :4, :4] = (many.labels * 30)[:, None, None, None]
    assert _times_chance(_thumbnails(told), many) > 2


def test_write_makes_folders_of_classes_and_tables(tmp_path):
    drawn = draw(AviaryConfig(species=3, per_species=4, size=32))
    table = write(drawn, tmp_path / "birds", masks=True)
    assert table == tmp_path / "birds" / "split.csv"
    with table.open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0]) == ["path", "class", "split"]
    assert [row["split"] for row in rows].count("test") == 3
    for i, row in enumerate(rows):
        path = tmp_path / "birds" / row["path"]
        assert path.parent.name == row["class"] == drawn.species[drawn.labels[i]].name
        shown = simplejpeg.decode_jpeg(path.read_bytes()).astype(int)
        assert np.abs(shown - drawn.images[i]).mean() < 4
        mask = tmp_path / "birds" / "masks" / f"{row['class']}/{i:05d}.png"
        assert np.array_equal(np.asarray(Image.open(mask)) > 0, drawn.masks[i])
    with (tmp_path / "birds" / "parts.csv").open(newline="") as file:
        parts = list(csv.DictReader(file))
    boxes = [[float(row[name]) for name in ("x_1", "y_1", "x_2", "y_2")] for row in parts]
    assert np.array_equal(np.asarray(boxes, dtype=np.float32), drawn.boxes)
    assert float(parts[5]["eye_x"]) == pytest.approx(drawn.parts[5, 1, 0], abs=0.01)
    record = json.loads((tmp_path / "birds" / "aviary.json").read_text())
    assert record["version"] == VERSION
    assert len(record["species"]) == 3


def test_write_again_is_the_same_and_other_content_is_refused(tmp_path):
    drawn = draw(AviaryConfig(species=2, per_species=2, size=16))
    write(drawn, tmp_path)
    before = {p: p.read_bytes() for p in tmp_path.rglob("*") if p.is_file()}
    write(drawn, tmp_path)
    assert before == {p: p.read_bytes() for p in tmp_path.rglob("*") if p.is_file()}
    with pytest.raises(OutputError, match="other settings"):
        write(draw(AviaryConfig(species=2, per_species=3, size=16)), tmp_path)
    (tmp_path / "aviary.json").unlink()
    with pytest.raises(OutputError, match="something else"):
        write(drawn, tmp_path)
    with pytest.raises(OutputError, match="is a file"):
        write(drawn, tmp_path / "split.csv")


@pytest.mark.parametrize("wrong", [{"species": 1}, {"species": 65}, {"size": 8}, {"specie": 4}])
def test_impossible_aviaries_are_refused(wrong):
    with pytest.raises(ConfigError, match=next(iter(wrong))):
        AviaryConfig.parse(wrong, "the test")


def _small_network(classes):
    def block(inside, outside):
        return (
            torch.nn.Conv2d(inside, outside, 3, 2, 1, bias=False),
            torch.nn.BatchNorm2d(outside),
            torch.nn.ReLU(),
            torch.nn.Conv2d(outside, outside, 3, 1, 1, bias=False),
            torch.nn.BatchNorm2d(outside),
            torch.nn.ReLU(),
        )

    return torch.nn.Sequential(
        *block(3, 16),
        *block(16, 32),
        *block(32, 64),
        *block(64, 128),
        torch.nn.AdaptiveAvgPool2d(1),
        torch.nn.Flatten(),
        torch.nn.Linear(128, classes),
    )


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_a_small_supervised_network_learns_the_species():
    torch.manual_seed(0)
    drawn = draw(AviaryConfig())
    images = torch.from_numpy(drawn.images).permute(0, 3, 1, 2)
    labels = torch.from_numpy(drawn.labels)
    train, test = torch.from_numpy(drawn.train_rows), torch.from_numpy(drawn.test_rows)
    network = _small_network(16)
    epochs, batch = 20, 64
    optimizer = torch.optim.AdamW(network.parameters(), 3e-3, weight_decay=1e-2)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, 3e-3, total_steps=epochs * (len(train) // batch)
    )
    for _ in range(epochs):
        for rows in train[torch.randperm(len(train))].split(batch)[: len(train) // batch]:
            shown = images[rows].float() / 255 - 0.5
            if torch.rand(()) < 0.5:
                shown = shown.flip(3)
            loss = torch.nn.functional.cross_entropy(network(shown), labels[rows])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
    network.eval()
    with torch.no_grad():
        named = network(images[test].float() / 255 - 0.5).argmax(1)
    accuracy = (named == labels[test]).float().mean().item()
    assert accuracy >= 0.8
