"""``fieldmark index migrate`` and the upkeep commands on drawn birds."""

import json
import shutil

import numpy as np
import pytest

from fieldmark.encoder import Encoder
from fieldmark.errors import CatalogError, InputError
from fieldmark.index.places import open_index
from fieldmark.workflows import migrate as module
from fieldmark.workflows.index import index_photos, search_photos
from fieldmark.workflows.migrate import migrate_index
from fieldmark.workflows.spaces import hold_index
from tiny import save_encoder


@pytest.fixture(scope="module")
def encoders(tmp_path_factory):
    place = tmp_path_factory.mktemp("encoders")
    return [save_encoder(place / "old"), save_encoder(place / "new", seed=1)]


@pytest.fixture
def birds(sample, tmp_path):
    folder = tmp_path / "birds"
    for file in sorted(sample.photos.rglob("*.jpg"))[::5]:
        (folder / file.parent.name).mkdir(parents=True, exist_ok=True)
        shutil.copy(file, folder / file.parent.name)
    return folder


@pytest.fixture
def made(encoders, birds, tmp_path):
    index_photos(encoders[0], birds, tmp_path / "index", device="cpu")
    return tmp_path / "index"


def keys_of(index):
    with open_index(index) as opened:
        return [item.key for item in opened.items()]


def identities(encoders):
    return [Encoder.load(folder, device="cpu").identity for folder in encoders]


def test_searches_use_the_old_encoder_until_all_photos_have_the_new(
    made, encoders, birds, monkeypatch
):
    old, new = identities(encoders)
    keys = keys_of(made)
    query = str(birds / keys[0])
    before = search_photos(made, [query], device="cpu")[0].hits
    monkeypatch.setattr(module, "COMMIT", 4)
    steps = []

    def stop(what, done, total, note=""):
        steps.append((done, total))
        if done == 8:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        migrate_index(made, encoders[1], birds, device="cpu", batch_size=2, progress=stop)
    with open_index(made) as index:
        assert len(index.pending(new)) == len(keys) - 8
        assert index.stats().current == old
    # Meanwhile: the old one as before, the new one as far as it is, both to be chosen.
    assert search_photos(made, [query], device="cpu")[0].hits == before
    part = search_photos(made, [query], k=99, encoder=new[:8], device="cpu")[0].hits
    assert len(part) == 8
    assert part[0].key == keys[0]
    assert search_photos(made, [query], encoder=str(encoders[0]), device="cpu")[0].hits == before
    # Photos are added and changed with the old encoder; it can no longer be complete without them.
    shutil.copy(birds / keys[1], birds / "new.jpg")
    shutil.copy(birds / keys[2], birds / keys[0])
    told = index_photos(encoders[0], birds, made, device="cpu")
    assert (told["added"], told["changed"]) == (1, 1)
    told = migrate_index(made, encoders[1], birds, device="cpu", progress=lambda *a: None)
    assert told["embedded"] == len(keys) - 8 + 2
    assert (told["switched"], told["lacking"], told["current"]) == (True, 0, new)
    with open_index(made) as index:
        direct = Encoder.load(encoders[1], device="cpu").embed([birds / key for key in keys])
        np.testing.assert_allclose(index.vectors(keys), direct, atol=5e-3)
        assert index.stats().current == new
    told = migrate_index(made, encoders[1], birds, device="cpu")
    assert (told["embedded"], told["switched"], told["dropped"]) == (0, False, None)
    told = migrate_index(made, encoders[1], birds, drop_old=True, device="cpu")
    assert told["dropped"] == old
    assert [folder.name for folder in (made / "encoders").iterdir()] == [new[:12]]
    with open_index(made) as index:
        assert [space.identity for space in index.stats().spaces] == [new]


def test_another_encoder_is_refused_while_migrating_and_named_how(made, encoders, birds):
    migrate_index(made, encoders[1], birds, switch=False, device="cpu")
    with pytest.raises(InputError, match="fieldmark index migrate"):
        index_photos(encoders[1], birds, made, device="cpu")
    assert index_photos(encoders[0], birds, made, device="cpu")["changed"] == 0
    with pytest.raises(InputError, match="cannot be dropped while"):
        migrate_index(made, encoders[1], birds, switch=False, drop_old=True, device="cpu")


def test_photos_without_a_vector_keep_the_old_encoder_in_use(made, encoders, birds, tmp_path):
    old, new = identities(encoders)
    gone, broken, stale, *rest = keys_of(made)
    aside = shutil.move(birds / gone, tmp_path / "aside.jpg")
    good = (birds / broken).read_bytes()
    (birds / broken).write_bytes(b"\xff\xd8\xff rubbish")
    kept = (birds / stale).read_bytes()
    shutil.copy(birds / rest[0], birds / stale)
    told = migrate_index(made, encoders[1], birds, drop_old=True, device="cpu")
    assert [told[name] for name in ("embedded", "missing", "refused", "changed", "lacking")] == [
        len(rest), 1, 1, 1, 3
    ]  # fmt: skip
    assert (told["switched"], told["current"], told["dropped"]) == (False, old, None)
    lines = (made / "problems.csv").read_text().splitlines()
    assert [line.split(",")[0] for line in lines[1:]] == sorted([gone, broken, stale])
    (birds / stale).write_bytes(kept)
    told = migrate_index(made, encoders[1], birds, incomplete=True, device="cpu")
    assert (told["embedded"], told["lacking"], told["switched"]) == (1, 2, True)
    # When they are back the building command gives them the vector that they lack (and looks again
    # at the one that was written anew).
    shutil.move(aside, birds / gone)
    (birds / broken).write_bytes(good)
    told = index_photos(encoders[1], birds, made, device="cpu")
    assert (told["changed"], told["unchanged"], told["added"]) == (3, len(rest), 0)
    with open_index(made) as index:
        assert index.pending(new) == []
        assert index.get([gone])[0].label == gone.split("/")[0]


def test_another_folder_changes_nothing_and_one_process_works_at_a_time(
    made, encoders, birds, tmp_path
):
    (tmp_path / "elsewhere").mkdir()
    shutil.copy(next(birds.rglob("*.jpg")), tmp_path / "elsewhere" / "x.jpg")
    with pytest.raises(CatalogError, match=r"none of the .* photos of the index"):
        migrate_index(made, encoders[1], tmp_path / "elsewhere", incomplete=True, device="cpu")
    with open_index(made) as index, hold_index(index, made):
        assert index.stats().current == identities(encoders)[0]


def test_upkeep_on_the_command_line(made, encoders, birds, run, tmp_path):
    count = len(keys_of(made))
    code, text, _ = run("index", "migrate", made, encoders[1], birds, "--no-switch", "--json")
    assert (code, json.loads(text)["embedded"]) == (0, count)
    code, text, _ = run("index", "stats", made, "--json")
    told = json.loads(text)
    assert (told["items"], told["labelled"], len(told["spaces"])) == (count, count, 2)
    assert sum(told["labels"].values()) == count
    code, text, _ = run("index", "stats", made)
    assert f"{count} photos" in text
    assert "in use" in text
    code, text, _ = run("index", "backup", made, tmp_path / "copy")
    assert (code, f"{count} photos, 2 encoders" in text) == (0, True)
    assert run("index", "backup", made, tmp_path / "copy")[0] == 2
    shutil.move(birds / keys_of(made)[0], tmp_path / "aside.jpg")
    run("index", "build", encoders[0], birds, "--out", made)
    code, text, _ = run("index", encoders[0], birds, "--out", made, "--forget-missing", "--json")
    assert (code, json.loads(text)["forgotten"]) == (0, 1)
    code, text, _ = run("index", "compact", made)
    assert (code, "exact search" in text) == (0, True)
    assert "nothing wrong" in run("index", "verify", made)[1]
    # The copy stands alone, and stays as it was.
    assert len(keys_of(tmp_path / "copy")) == count
    query = str(next(birds.rglob("*.jpg")))
    assert search_photos(tmp_path / "copy", [query], device="cpu")[0].hits[0].score > 0.99
    code, _, error = run("index", "migrate", tmp_path / "none", encoders[1], birds)
    assert (code, "there is no index in" in error) == (2, True)


def test_damage_is_listed_with_exit_code_1(made, run):
    with open_index(made) as index:
        index._db.execute("UPDATE vectors SET crc = crc + 1 WHERE item = 1")
    (card,) = made.glob("encoders/*/encoder.safetensors")
    card.write_bytes(card.read_bytes()[:-1] + b"x")
    code, text, _ = run("index", "verify", made, "--json")
    told = json.loads(text)
    assert (code, told["sound"], len(told["problems"])) == (1, False, 2)
    assert "is damaged; embed the photo again" in told["problems"][0]
    assert "its hash is" in told["problems"][1]
    code, text, _ = run("index", "verify", made)
    assert (code, "2 wrong" in text) == (1, True)


def test_migration_goes_the_way_back(made, encoders, birds):
    old, new = identities(encoders)
    migrate_index(made, encoders[1], birds, device="cpu")
    told = migrate_index(made, encoders[0], birds, device="cpu")
    assert (told["embedded"], told["before"], told["current"]) == (0, new, old)
