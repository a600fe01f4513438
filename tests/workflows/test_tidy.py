"""``fieldmark duplicates``, ``outliers`` and ``cluster`` over an index of drawn birds."""

import csv
import json
import shutil

import numpy as np
import pytest
from PIL import Image, ImageOps

from fieldmark.errors import ConflictError, InputError, LabelError, OutputError
from fieldmark.index.places import open_index
from fieldmark.workflows.cluster import apply_names, cluster_photos
from fieldmark.workflows.duplicates import find_duplicates
from fieldmark.workflows.index import index_photos
from fieldmark.workflows.outliers import find_outliers
from tiny import save_encoder

TAKEN = 0x9003


@pytest.fixture(scope="module")
def encoder(tmp_path_factory):
    return save_encoder(tmp_path_factory.mktemp("encoder") / "encoder")


@pytest.fixture(scope="module")
def prepared(sample, encoder, tmp_path_factory):
    """32 birds of four species, an exact copy, two changed ones and a burst; and their index."""
    place = tmp_path_factory.mktemp("tidy")
    photos = place / "birds"
    for file in sorted(sample.photos.rglob("*.jpg"))[::2]:
        (photos / file.parent.name).mkdir(parents=True, exist_ok=True)
        shutil.copy(file, photos / file.parent.name)
    files = sorted(photos.rglob("*.jpg"))
    shutil.copy(files[0], photos / "copy.jpg")
    with Image.open(files[5]) as bird:
        bird.save(photos / "0-smaller.jpg", quality=60)
    with Image.open(files[9]) as bird:
        ImageOps.mirror(bird).save(photos / "mirrored.jpg", quality=92)
    scene = Image.open(files[12]).resize((96, 96))
    for shot in range(2):
        moved = scene.copy()
        moved.paste(Image.open(files[20]).resize((30, 30)), (20 + 30 * shot, 30))
        exif = Image.Exif()
        exif.get_ifd(0x8769)[TAKEN] = f"2024:05:01 10:00:0{shot}"
        moved.save(photos / f"burst{shot}.jpg", quality=95, exif=exif)
    index_photos(encoder, photos, place / "index", device="cpu")
    keys = [file.relative_to(photos).as_posix() for file in files]
    return place / "index", photos, keys


@pytest.fixture
def made(prepared, tmp_path):
    return shutil.copytree(prepared[0], tmp_path / "index"), *prepared[1:]


def read_table(file):
    with file.open(newline="") as opened:
        return list(csv.DictReader(opened))


def groups_of(told, kind):
    return [{p["path"] for p in g["photos"]} for g in told["groups"] if g["kind"] == kind]


def test_copies_are_told_from_look_alikes_on_the_pixels(prepared, tmp_path):
    index, photos, keys = prepared
    told = find_duplicates(index, photos=photos, threshold=0.5, out=tmp_path / "found.csv")
    assert groups_of(told, "exact") == [{keys[0], "copy.jpg"}]
    wanted = [{keys[5], "0-smaller.jpg"}, {keys[9], "mirrored.jpg"}]
    assert sorted(groups_of(told, "near"), key=sorted) == sorted(wanted, key=sorted)
    assert groups_of(told, "burst") == [{"burst0.jpg", "burst1.jpg"}]
    assert (told["exact"], told["near"], told["burst"], told["candidate"]) == (1, 2, 1, 0)
    # All drawn birds are near for an untrained encoder: most pairs merely look alike.
    assert told["alike"] > 100
    assert told["pairs"] == told["alike"] + 3
    assert (told["spare"], told["across"], told["unreadable"]) == (3, 0, 0)
    for group in told["groups"]:
        sizes = [photo["bytes"] for photo in group["photos"]]
        assert sizes == sorted(sizes, reverse=True)
    rows = read_table(tmp_path / "found.csv")
    assert len(rows) == 8
    assert {row["path"] for row in rows if row["kind"] == "exact"} == {keys[0], "copy.jpg"}
    with pytest.raises(OutputError, match="nothing is overwritten"):
        find_duplicates(index, out=tmp_path / "found.csv")


def test_without_photos_near_pairs_are_candidates(prepared):
    index, _, keys = prepared
    told = find_duplicates(index, threshold=0.99)
    assert (told["exact"], told["near"], told["checked"]) == (1, 0, False)
    assert told["candidate"] >= 1
    stricter, wider = (find_duplicates(index, photos=p) for p in (None, prepared[1]))
    assert stricter["threshold"] > wider["threshold"]
    few = find_duplicates(index, where=f'key in ("{keys[0]}", "copy.jpg", "{keys[9]}")')
    assert (few["photos"], few["exact"]) == (3, 1)
    with pytest.raises(InputError, match="must be a cosine"):
        find_duplicates(index, threshold=2.0)


def test_photos_that_cannot_be_read_are_candidates(made, tmp_path):
    index, photos, keys = made
    some = shutil.copytree(photos, tmp_path / "some")
    (some / "0-smaller.jpg").unlink()
    (some / keys[9]).write_bytes(b"\xff\xd8\xff rubbish")
    told = find_duplicates(index, photos=some, threshold=0.9)
    assert told["unreadable"] == 2
    assert groups_of(told, "near") == []
    assert any({keys[5], "0-smaller.jpg"} <= group for group in groups_of(told, "candidate"))


def test_outliers_are_ranked_and_written(made, tmp_path):
    index = made[0]
    with open_index(index) as opened:
        x = opened.vectors([item.key for item in opened.items()])
        names = [item.key for item in opened.items()]
        opened.set_labels(dict.fromkeys(names))
        # Vectors of three kinds, one photo against all of them.
        random = np.random.default_rng(0)
        centres = random.normal(size=(3, x.shape[1])) + 2
        made_up = centres[np.arange(len(names)) % 3]
        made_up += 0.1 * random.normal(size=x.shape)
        made_up[7] *= -1
        made_up /= np.linalg.norm(made_up, axis=1, keepdims=True)
        opened.update(names, vectors=made_up.astype(np.float32))
        labels = {key: "abc"[i % 3] for i, key in enumerate(names)}
        opened.set_labels(labels | {names[4]: "c"})
    told = find_outliers(index, count=5, out=tmp_path / "outliers.csv")
    assert told["outliers"][0]["path"] == names[7]
    scores = [row["score"] for row in told["outliers"]]
    assert (len(scores), scores) == (5, sorted(scores, reverse=True))
    assert scores[0] > 1 > told["usual"]
    rows = read_table(tmp_path / "outliers.csv")
    assert [row["path"] for row in rows] == [row["path"] for row in told["outliers"]]
    told = find_outliers(index, count=1, by_label=True, where=f'key != "{names[7]}"')
    (worst,) = told["outliers"]
    assert (worst["path"], worst["label"], worst["nearest"]) == (names[4], "c", "b")
    assert told["doubted"] == 1
    with pytest.raises(InputError, match="has 1 labels"):
        find_outliers(index, by_label=True, where='label = "a"')
    with pytest.raises(OutputError):
        find_outliers(index, out=tmp_path / "outliers.csv")


def test_the_table_comes_back_as_labels(made, tmp_path):
    index, _, _ = made
    out = tmp_path / "clusters.csv"
    told = cluster_photos(index, out=out, count=8)
    rows = read_table(out)
    assert (told["photos"], told["clusters"], len(rows)) == (37, 8, 37)
    assert told["agreement"] is not None
    for cluster in range(8):
        mine = [row for row in rows if int(row["cluster"]) == cluster]
        assert [int(row["rank"]) for row in mine] == list(range(len(mine)))
        distances = [float(row["distance"]) for row in mine]
        assert distances == sorted(distances)
        assert {row["medoid"] for row in mine} == {mine[0]["path"]}
    pairs = read_table(tmp_path / "clusters-pairs.csv")
    assert len(pairs) == 7
    for again in (out, tmp_path / "clusters-pairs.csv"):
        with pytest.raises(OutputError, match="nothing is overwritten"):
            cluster_photos(index, out=again.with_name("clusters.csv"))
    # Two clusters get one name, one photo another, one none; the spreadsheet writes semicolons.
    wanted = {}
    for row in rows:
        if row["cluster"] in "12":
            row["name"] = " Bewick's wren "
            wanted[row["path"]] = "Bewick's wren"
    first, second = [row for row in rows if row["cluster"] == "0"][:2]
    first["name"], second["name"] = "größe", ""
    wanted[first["path"]] = "größe"
    with out.open("w", encoding="utf-8-sig", newline="") as file:
        writer = csv.DictWriter(file, rows[0].keys(), delimiter=";")
        writer.writeheader()
        writer.writerows(rows)
    with pytest.raises(ConflictError, match="have another label already"):
        apply_names(index, out)
    before = find_labels(index)
    told = apply_names(index, out, existing="replace", dry_run=True)
    assert (told["labelled"], told["absent"], told["unnamed"]) == (len(wanted), 1, 36 - len(wanted))
    assert find_labels(index) == before
    told = apply_names(index, out, existing="keep")
    assert told["kept"] + told["labelled"] == len(wanted)
    assert find_labels(index) == {k: before[k] or wanted.get(k) for k in before}
    with pytest.raises(ConflictError, match="have another label already"):
        apply_names(index, out)
    told = apply_names(index, out, existing="replace")
    assert find_labels(index) == before | wanted
    with open_index(index) as opened:
        assert {change.by for change in opened.history(first["path"])[-1:]} == {"cluster"}
    told = apply_names(index, out, existing="replace")
    assert (told["labelled"], told["same"]) == (0, len(wanted))
    # Someone else labels one of them meanwhile: nothing is labelled, whatever was said.
    with open_index(index) as opened:
        opened.set_labels({first["path"]: "robin"})
    with pytest.raises(ConflictError, match="got another label since"):
        apply_names(index, out, existing="replace")


def find_labels(index):
    with open_index(index) as opened:
        return {item.key: item.label for item in opened.items()}


@pytest.mark.parametrize("links", ["symbolic", "hard", "copy"])
def test_folders_are_merged_and_renamed_and_photos_stay_as_they_were(made, tmp_path, links):
    index, photos, _ = made
    with open_index(index) as opened:
        opened.set_labels({item.key: None for item in opened.items()})
    before = {p: (p.read_bytes(), p.stat().st_mtime_ns) for p in photos.rglob("*.jpg")}
    place = tmp_path / "sorted"
    told = cluster_photos(index, folders=place, photos=photos, count=6, links=links)
    files = sorted(place.glob("cluster-*/*.jpg"))
    assert (len(files), told["left_out"]) == (37, 0)
    assert all(file.is_symlink() == (links == "symbolic") for file in files)
    assert all((file.stat().st_nlink > 1) == (links == "hard") for file in files)
    rows = {row["file"]: row for row in read_table(place / "clusters.csv")}
    for file in files:
        row = rows[file.name]
        assert file.read_bytes() == (photos / row["path"]).read_bytes()
        assert file.parent.name == f"cluster-{int(row['cluster']):04d}"
        assert file.name.startswith(f"{int(row['cluster']):04d}-{int(row['rank']):04d}-")
    if links == "symbolic":
        assert not files[0].readlink().is_absolute()
    with pytest.raises(OutputError, match="nothing is overwritten"):
        cluster_photos(index, folders=place, photos=photos)
    # One is renamed, one put into it, one moved as a folder into it, one photo taken out.
    name = "Wren or größe".replace("ö", "o\u0308")  # as some systems write it
    (place / "cluster-0000").rename(place / name)
    for file in (place / "cluster-0001").iterdir():
        file.rename(place / name / file.name)
    (place / "cluster-0002").rename(place / name / "cluster-0002")
    out = next((place / name).glob("*.jpg"))
    out.rename(tmp_path / out.name)
    (place / name / "notes.txt").write_text("mine")
    (place / name / ".DS_Store").write_text("")
    told = apply_names(index, place, dry_run=True)
    members = [r["path"] for r in rows.values() if int(r["cluster"]) < 3 and r["file"] != out.name]
    assert (told["labelled"], told["absent"], told["foreign"]) == (len(members), 1, 1)
    assert told["names"] == {"Wren or größe": len(members)}
    assert told["unnamed"] == 37 - 1 - len(members)
    apply_names(index, place)
    labels = find_labels(index)
    assert {key for key, label in labels.items() if label == "Wren or größe"} == set(members)
    assert {labels[key] for key in labels if key not in members} == {None}
    # The same photo in two folders is no answer.
    (place / "other").mkdir()
    twice = next(file for file in (place / name).glob("*.jpg"))
    shutil.copy(twice, place / "other" / twice.name, follow_symlinks=False)
    with pytest.raises(LabelError, match="lies in two folders"):
        apply_names(index, place)
    assert {p: (p.read_bytes(), p.stat().st_mtime_ns) for p in before} == before


def test_file_names_are_made_harmless(encoder, sample, tmp_path):
    photos = tmp_path / "photos"
    names = ["a:b?.jpg", "a. .jpg", "x" * 180 + ".jpg", "ключ\n.jpg", "-rf.jpg"]
    photos.mkdir()
    for file, name in zip(sorted(sample.photos.rglob("*.jpg")), names):
        shutil.copy(file, photos / name)
    index_photos(encoder, photos, tmp_path / "index", device="cpu")
    cluster_photos(tmp_path / "index", folders=tmp_path / "out", photos=photos, count=2)
    made = [file.name for file in (tmp_path / "out").glob("*/*")]
    assert len(made) == 5
    for name in made:
        assert len(name.encode()) <= 120
        assert not set('\\/:*?"<>|\n') & set(name)
    told = apply_names(tmp_path / "index", tmp_path / "out")
    assert (told["unnamed"], told["foreign"]) == (5, 0)


def test_what_cannot_be_sorted_or_applied_says_why(made, tmp_path):
    index, photos, _ = made
    with pytest.raises(InputError, match="say where to"):
        cluster_photos(index)
    with pytest.raises(InputError, match="where the photos are"):
        cluster_photos(index, folders=tmp_path / "x")
    with pytest.raises(InputError, match="would be taken for photos"):
        cluster_photos(index, folders=photos / "sorted", photos=photos)
    (tmp_path / "others").mkdir()
    Image.new("RGB", (40, 40)).save(tmp_path / "others" / "z.jpg")
    with pytest.raises(InputError, match="none of the 37 photos is a file"):
        cluster_photos(index, folders=tmp_path / "x", photos=tmp_path / "others", count=3)
    assert not (tmp_path / "x").exists()
    assert not list(tmp_path.glob(".*partial"))
    with pytest.raises(InputError, match="has no photo to sort for this filter"):
        cluster_photos(index, out=tmp_path / "c.csv", where='label = "nobody"')
    (tmp_path / "bad.csv").write_text("path,cluster\na,1\n")
    with pytest.raises(LabelError, match="lacks the columns file, label, name"):
        apply_names(index, tmp_path / "bad.csv")
    (tmp_path / "bad.csv").write_text("path,name,label,file\na,x,,f\na,y,,f\n")
    with pytest.raises(LabelError, match="a has two names"):
        apply_names(index, tmp_path / "bad.csv")
    (tmp_path / "bad.csv").write_text("path,name,label,file\nnowhere.jpg,x,,f\n")
    with pytest.raises(InputError, match=r"has no item 'nowhere\.jpg'"):
        apply_names(index, tmp_path / "bad.csv")
    (tmp_path / "bad.csv").write_text(f"path,name,label,file\nnowhere.jpg,{'x' * 600},,f\n")
    with pytest.raises(LabelError, match="is no label"):
        apply_names(index, tmp_path / "bad.csv")


def test_command_line(made, run, tmp_path):
    index, photos, _ = made
    code, text, _ = run("duplicates", index, "--photos", photos, "--json")
    assert (code, json.loads(text)["exact"]) == (0, 1)
    code, text, _ = run("duplicates", index, "--photos", photos, "--threshold", 0.5)
    assert (code, "merely look alike" in text, "of the same bytes" in text) == (0, True, True)
    assert "give --photos to be sure" in run("duplicates", index)[1]
    code, text, _ = run("outliers", index, "-n", 3, "--json")
    assert (code, len(json.loads(text)["outliers"])) == (0, 3)
    assert "are nearer to another label" in run("outliers", index, "--by-label")[1]
    code, text, _ = run("cluster", index, "--folders", tmp_path / "s", "--photos", photos)
    assert (code, "37 photos are in" in text) == (0, True)
    (tmp_path / "s" / "cluster-0000").rename(tmp_path / "s" / "wren")
    code, _, error = run("cluster", index, "--apply", tmp_path / "s")
    assert (code, "nothing was labelled" in error) == (2, True)
    more = ["--apply", tmp_path / "s", "--existing", "replace"]
    code, text, _ = run("cluster", index, *more, "--dry-run")
    assert (code, "would get a label" in text) == (0, True)
    code, text, _ = run("cluster", index, *more, "--json")
    assert json.loads(text)["names"].keys() == {"wren"}
    assert run("cluster", index, "--out", tmp_path / "c.csv", "-k", "many")[0] == 2
    assert run("cluster", index, "--out", tmp_path / "c.csv", "-k", 99)[0] == 2
