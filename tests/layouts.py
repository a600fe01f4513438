"""Small replicas of the official layouts: two or three classes, photos of a few pixels."""

import io
import json
import tarfile
from pathlib import Path

import numpy as np
from PIL import Image
from scipy import io as matlab


def photo(path: Path, size: tuple[int, int] = (12, 8)) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(len(path.name)).integers(0, 256, (*size[::-1], 3), np.uint8)
    Image.fromarray(pixels).save(path, "PNG" if path.suffix == ".png" else "JPEG")


def values(path: Path, array: np.ndarray, **options: object) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(array).save(path, **options)


def text(path: Path, *lines: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")


def cub200(root: Path) -> Path:
    root = root / "CUB_200_2011"
    names = ["001.Black_footed_Albatross", "002.Laysan_Albatross", "003.Sooty_Crow"]
    files = [f"{name}/{name[4:]}_{i}.jpg" for name in names for i in range(2)]
    for file in files:
        photo(root / "images" / file)
    numbers = range(1, len(files) + 1)
    text(root / "images.txt", *(f"{i} {file}" for i, file in zip(numbers, files, strict=True)))
    text(root / "image_class_labels.txt", *(f"{i} {(i + 1) // 2}" for i in numbers))
    text(root / "classes.txt", *(f"{i} {name}" for i, name in enumerate(names, 1)))
    text(root / "train_test_split.txt", *(f"{i} {i % 2}" for i in numbers))
    text(root / "bounding_boxes.txt", *(f"{i} 1.0 2.0 {i}.0 3.5" for i in numbers))
    text(root / "parts" / "parts.txt", "1 back", "2 left eye")
    text(
        root / "parts" / "part_locs.txt",
        *(f"{i} {part} {i}.5 {part}.0 {part - 1}" for i in numbers for part in (1, 2)),
    )
    text(root / "attributes.txt", "1 has_bill_shape::curved_(up_or_down)", "2 has_wing_color::blue")
    # The official file has lines with too many fields.
    text(
        root / "attributes" / "image_attribute_labels.txt",
        "1 1 1 3 2.5",
        "1 2 0 4 1.2",
        "2 2 1 3 0 5.1 7",
    )
    mask = np.zeros((8, 12), np.uint8)
    mask[2:4, 3:7] = 204
    mask[7, 0] = 51
    values(root / "segmentations" / Path(files[0]).with_suffix(".png"), mask)
    return root.parent


def nabirds(root: Path) -> Path:
    root = root / "nabirds"
    ids = [f"0000-{i:04d}" for i in range(6)]
    numbers = ["817", "817", "818", "818", "900", "900"]
    for i, number in zip(ids, numbers, strict=True):
        photo(root / "images" / f"0{number}" / f"{i}.jpg")
    text(root / "images.txt", *(f"{i} 0{n}/{i}.jpg" for i, n in zip(ids, numbers, strict=True)))
    text(root / "image_class_labels.txt", *(f"{i} {n}" for i, n in zip(ids, numbers, strict=True)))
    text(root / "train_test_split.txt", *(f"{i} {k % 2}" for k, i in enumerate(ids)))
    text(
        root / "classes.txt", "0 Birds", "1 Ducks, Geese, and Swans", "2 Perching Birds", "22 Ducks", "23 Finches",
        "300 American Goldfinch", "301 Mallard", "817 American Goldfinch (Female)",
        "818 American Goldfinch (Male)", "900 Mallard",
    )  # fmt: skip
    text(
        root / "hierarchy.txt",
        "1 0",
        "2 0",
        "22 1",
        "23 2",
        "300 23",
        "301 22",
        "817 300",
        "818 300",
        "900 301",
    )
    text(root / "bounding_boxes.txt", *(f"{i} 1 2 3 4" for i in ids))
    text(root / "photographers.txt", *(f"{i} Ruth Cantwell" for i in ids[:4]))
    return root.parent


_CAR = np.dtype(
    [(name, object) for name in ("bbox_x1", "bbox_y1", "bbox_x2", "bbox_y2", "class", "fname")]
)
CARS = ["AM General Hummer SUV 2000", "Ford F-150 Regular Cab 2012", "Buick Regal GS 2012"]


def cars196(root: Path) -> Path:
    root = root / "stanford_cars"
    (root / "devkit").mkdir(parents=True)
    names = np.array(CARS, dtype=object)
    matlab.savemat(root / "devkit" / "cars_meta.mat", {"class_names": names})
    for split, file in (
        ("train", "devkit/cars_train_annos.mat"),
        ("test", "cars_test_annos_withlabels.mat"),
    ):
        rows = [(10, 20, 30 + i, 40, 1 + i % 3, f"{i + 1:05d}.jpg") for i in range(6)]
        for row in rows:
            photo(root / f"cars_{split}" / row[-1])
        matlab.savemat(root / file, {"annotations": np.array(rows, _CAR)})
    return root.parent


def cars196_of_one_list(root: Path) -> Path:
    kinds = np.dtype(
        [
            (name, object)
            for name in (
                "relative_im_path",
                "bbox_x1",
                "bbox_y1",
                "bbox_x2",
                "bbox_y2",
                "class",
                "test",
            )
        ]
    )
    rows = [(f"car_ims/{i:06d}.jpg", 1, 2, 3, 4, 1 + i % 3, i % 2) for i in range(12)]
    for row in rows:
        photo(root / row[0])
    matlab.savemat(
        root / "cars_annos.mat",
        {"annotations": np.array(rows, kinds), "class_names": np.array(CARS, dtype=object)},
    )
    return root


def aircraft(root: Path) -> Path:
    data = root / "fgvc-aircraft-2013b" / "data"
    variants = {
        "707-320": ("Boeing 707", "Boeing"),
        "A300B4": ("A300", "Airbus"),
        "737-200": ("Boeing 737", "Boeing"),
    }
    lines: dict[str, list[tuple[str, str]]] = {"trainval": [], "test": []}
    for number, variant in enumerate([*variants] * 4):
        name = f"{number:07d}"
        photo(data / "images" / f"{name}.jpg")
        lines["test" if number >= 9 else "trainval"].append((name, variant))
    for part, rows in lines.items():
        text(data / f"images_variant_{part}.txt", *(f"{i} {v}" for i, v in rows))
        text(data / f"images_family_{part}.txt", *(f"{i} {variants[v][0]}" for i, v in rows))
        text(data / f"images_manufacturer_{part}.txt", *(f"{i} {variants[v][1]}" for i, v in rows))
    text(data / "images_box.txt", *(f"{i} 3 2 9 7" for rows in lines.values() for i, _ in rows))
    return root


def flowers102(root: Path) -> Path:
    root = root / "flowers-102"
    for number in range(1, 9):
        photo(root / "jpg" / f"image_{number:05d}.jpg")
    matlab.savemat(root / "imagelabels.mat", {"labels": np.array([1, 1, 1, 1, 77, 77, 77, 77])})
    matlab.savemat(root / "setid.mat", {"trnid": [1, 5], "valid": [2, 6], "tstid": [3, 4, 7, 8]})
    painted = np.full((16, 16, 3), (0, 0, 254), np.uint8)
    painted[4:12, 4:12] = 200, 180, 10
    values(root / "segmim" / "segmim_00001.jpg", painted, quality=95, subsampling=0)
    return root.parent


def butterfly200(root: Path) -> Path:
    root = root / "Butterfly200"
    rows = {"train": ["001.Atro/1.jpg 1 1 1 1", "002.Papi/2.jpg 2 2 1 1"]}
    rows["val"] = ["001.Atro/3.jpg 1 1 1 1", "003.Vane/4.jpg 3 3 2 2"]
    rows["test"] = ["001.Atro/5.jpg 1 1 1 1", "002.Papi/6.jpg 2 2 1 1", "003.Vane/7.jpg 3 3 2 2"]
    for part, lines in rows.items():
        text(root / f"Butterfly200_{part}_release.txt", *lines)
        for line in lines:
            photo(root / "images_small" / line.split()[0])
    return root.parent


def dogs(root: Path) -> Path:
    root = root / "stanford_dogs"
    breeds = ["n02085620-Chihuahua", "n02085782-Japanese_spaniel"]
    for split, count in (("train", 3), ("test", 2)):
        files = [f"{breed}/{breed[:9]}_{split}{i}.jpg" for breed in breeds for i in range(count)]
        for file in files:
            photo(root / "Images" / file)
        matlab.savemat(root / f"{split}_list.mat", {"file_list": np.array(files, dtype=object)})
        box = "<bndbox><xmin>1</xmin><ymin>2</ymin><xmax>9</xmax><ymax>7</ymax></bndbox>"
        text(
            root / "Annotation" / files[0].rpartition(".")[0],
            f"<annotation><object>{box}</object></annotation>",
        )
    return root.parent


def pets(root: Path) -> Path:
    root = root / "oxford-iiit-pet"
    lists = {"trainval": ["Abyssinian_1 1 1 1", "great_pyrenees_1 2 2 1"]}
    lists["test"] = ["Abyssinian_2 1 1 1", "great_pyrenees_2 2 2 1"]
    for part, lines in lists.items():
        text(root / "annotations" / f"{part}.txt", *lines)
        for line in lines:
            photo(root / "images" / f"{line.split()[0]}.jpg")
    trimap = np.full((8, 12), 2, np.uint8)
    trimap[2:6, 2:6], trimap[2, 2] = 1, 3
    values(root / "annotations" / "trimaps" / "Abyssinian_1.png", trimap)
    return root.parent


def food101(root: Path) -> Path:
    root = root / "food-101"
    for part, names in {
        "train": ["apple_pie/1", "sushi/2"],
        "test": ["apple_pie/3", "sushi/4"],
    }.items():
        text(root / "meta" / f"{part}.txt", *names)
        for name in names:
            photo(root / "images" / f"{name}.jpg")
    return root.parent


def inaturalist(root: Path) -> Path:
    ranks = {"kingdom": "Animalia", "phylum": "Chordata", "class": "Aves", "order": "Passeriformes"}
    genera = {0: ("Corvidae", "Corvus"), 1: ("Corvidae", "Pica"), 2: ("Paridae", "Parus")}
    categories = [
        {"id": i, "name": f"{genus} vulgaris", "family": family, "genus": genus, **ranks}
        for i, (family, genus) in genera.items()
    ]
    for part in ("train_mini", "val"):
        images, annotations = [], []
        for number in range(6):
            name = f"{part}/{number % 3:05d}_x/{number}.jpg"
            photo(root / name)
            images.append({"id": number, "file_name": name})
            annotations.append({"id": number, "image_id": number, "category_id": number % 3})
        data = {"images": images, "annotations": annotations, "categories": categories}
        (root / f"{part}.json").write_text(json.dumps(data))
    # Another list lies there too; its photos do not.
    absent = {**data, "images": [{"id": 0, "file_name": "train/x/0.jpg"}], "annotations": []}
    (root / "train.json").write_text(json.dumps(absent))
    return root


def imagenet(root: Path) -> Path:
    for part, number in (("train", 2), ("val", 1)):
        for synset in ("n01440764", "n01443537"):
            for i in range(number):
                photo(root / part / synset / f"{synset}_{part}{i}.JPEG")
    return root


def imagenet_with_solution(root: Path) -> Path:
    imagenet(root)
    lines = ["ImageId,PredictionString"]
    for i, synset in enumerate(("n01443537", "n01440764")):
        for old in (root / "val" / synset).iterdir():
            old.rename(root / "val" / f"v_{i}.JPEG")
        (root / "val" / synset).rmdir()
        lines.append(f"v_{i},{synset} 1 2 3 4 {synset} 5 6 7 8 ")
    text(root / "LOC_val_solution.csv", *lines)
    return root


def tinyimagenet(root: Path) -> Path:
    root = root / "tiny-imagenet-200"
    for synset in ("n02124075", "n04067472"):
        for i in range(2):
            photo(root / "train" / synset / "images" / f"{synset}_{i}.JPEG")
        text(root / "train" / synset / f"{synset}_boxes.txt", f"{synset}_0.JPEG\t0\t10\t63\t58")
    for i in range(2):
        photo(root / "val" / "images" / f"val_{i}.JPEG")
    text(
        root / "val" / "val_annotations.txt",
        *(f"val_{i}.JPEG\t{s}\t0\t32\t44\t62" for i, s in enumerate(("n04067472", "n02124075"))),
    )
    return root.parent


def leedsbutterfly(root: Path) -> Path:
    root = root / "leedsbutterfly"
    for species in ("001", "002"):
        for i in range(1, 4):
            photo(root / "images" / f"{species}{i:04d}.png")
    text(root / "descriptions" / "001.txt", "Danaus plexippus", "Monarch")
    indices = np.array([[0, 1], [2, 3]], np.uint8)
    image = Image.fromarray(indices, "P")
    image.putpalette([0, 0, 0, 255, 255, 255, 9, 9, 9, 80, 80, 80])
    (root / "segmentations").mkdir()
    image.save(root / "segmentations" / "0010001_seg0.png")
    return root.parent


def folder(root: Path) -> Path:
    for part in ("train", "test"):
        for name in ("crow", "owl"):
            for i in range(2):
                photo(root / part / name / f"{i}.jpg")
    text(root / "levels.csv", "class,family", "crow,Corvidae", "owl,Strigidae")
    return root


def shards(root: Path) -> Path:
    for part in ("train", "val"):
        with tarfile.open(root / f"{part}-000.tar", "w") as tar:
            for i in range(4):
                buffer = io.BytesIO()
                Image.fromarray(np.full((8, 8, 3), 20 * i, np.uint8)).save(buffer, "JPEG")
                for suffix, data in ((".jpg", buffer.getvalue()), (".cls", str(i % 2).encode())):
                    member = tarfile.TarInfo(f"{part}{i}{suffix}")
                    member.size = len(data)
                    tar.addfile(member, io.BytesIO(data))
    return root


LAYOUTS = {
    "cub200": cub200,
    "cars196": cars196,
    "aircraft": aircraft,
    "nabirds": nabirds,
    "flowers102": flowers102,
    "butterfly200": butterfly200,
    "dogs": dogs,
    "pets": pets,
    "food101": food101,
    "inaturalist": inaturalist,
    "imagenet": imagenet,
    "tinyimagenet": tinyimagenet,
    "leedsbutterfly": leedsbutterfly,
    "folder": folder,
}
