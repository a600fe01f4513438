import json
import re
import shutil

import numpy as np
import pytest
from PIL import Image

from fieldmark.backbones.backbone import Backbone, BackboneConfig
from fieldmark.encoder import Encoder
from fieldmark.errors import ArtifactError, InputError, LabelError, OutputError, PhotoError
from fieldmark.nn.spec import EncoderSpec
from fieldmark.workflows.explain import explain

EVIL = "a<b>&\"'é鳥"


@pytest.fixture(scope="module")
def encoder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("encoder") / "encoder"
    backbone = Backbone.build(BackboneConfig(name="test_resnet", weights="random"), size=64)
    Encoder(EncoderSpec(backbone), device="cpu").save(folder)
    return folder


@pytest.fixture(scope="module")
def folder(sample, tmp_path_factory):
    """Two classes of drawn birds under names that a page must escape, and one of one photo."""
    folder = tmp_path_factory.mktemp("named")
    kinds = sorted(path for path in sample.photos.iterdir() if path.is_dir())
    for name, kind, count in ((EVIL, kinds[0], 5), ("plain", kinds[1], 5), ("lone", kinds[2], 1)):
        (folder / name).mkdir()
        for index, photo in enumerate(sorted(kind.iterdir())[:count]):
            shutil.copy(photo, folder / name / f"{index} {name}.jpg")
    (folder / "plain" / "broken.jpg").write_bytes(b"\xff\xd8\xff\xe0 not a photo")
    return folder


def photo(folder, name, index=0):
    return folder / name / f"{index} {name}.jpg"


def check_page(text):
    """Nothing is fetched, nothing foreign runs, and names are text."""
    policy = re.search(r'Content-Security-Policy" content="([^"]*)"', text).group(1)
    assert "default-src &#39;none&#39;" in policy or "default-src 'none'" in policy
    assert "unsafe" not in policy
    for attribute in re.findall(r'(?:src|href)="([^"]*)"', text):
        assert attribute.startswith(("data:", "#")), attribute
    assert "url(" not in text
    assert not re.search(r"https?:", text)
    assert text.count("<script") == 1
    assert " style=" not in text
    images = re.findall(r"<img [^>]*>", text)
    assert images
    assert all(re.search(r'alt="[^"]+"', image) for image in images)
    assert "<b>" not in text


def test_a_pair_becomes_a_page(encoder, folder, tmp_path):
    out = tmp_path / "new" / "pair.html"
    result = explain(encoder, [photo(folder, EVIL), photo(folder, EVIL, 1)], out)
    text = out.read_text(encoding="utf-8")
    check_page(text)
    assert "a&lt;b&gt;&amp;" in text
    embedded = Encoder.load(encoder, device="cpu").embed(
        [photo(folder, EVIL), photo(folder, EVIL, 1)]
    )
    assert result["similarity"] == pytest.approx(float(embedded[0] @ embedded[1]), abs=1e-4)
    assert f"Similarity {result['similarity']:.2f}" in text
    assert result["exact"]
    assert result["not_placed"] == pytest.approx([0, 0], abs=1e-5)
    assert np.asarray(result["maps"]["first"]).shape == (16, 16)
    assert result["faithfulness"]["shown"] in {"better than chance", "not shown", "worse"}
    json.dumps(result, allow_nan=False)
    again = tmp_path / "again.html"
    explain(encoder, [photo(folder, EVIL), photo(folder, EVIL, 1)], again)
    assert again.read_text(encoding="utf-8") == text


def test_the_same_photo_twice_matches_itself_place_by_place(encoder, folder, tmp_path):
    out = tmp_path / "same.png"
    result = explain(encoder, [photo(folder, "plain"), photo(folder, "plain")], out)
    assert result["similarity"] == pytest.approx(1, abs=1e-5)
    assert result["matches"]
    assert all(match["first"] == match["second"] for match in result["matches"])
    with Image.open(out) as sheet:
        assert sheet.width > 2 * 330
        assert sheet.height > 2 * 330


def test_one_photo_becomes_a_picture_through_the_command(encoder, folder, tmp_path, run):
    out = tmp_path / "one.png"
    code, stdout, _ = run("explain", encoder, photo(folder, EVIL), "--out", out, "--json")
    assert code == 0
    result = json.loads(stdout.splitlines()[-1])
    assert result["kind"] == "photo"
    assert all(part["falls"] > 0 for part in result["parts"])
    with Image.open(out) as sheet:
        assert sheet.width > 2 * 330


def test_two_classes_become_a_page_by_folder_and_by_table(encoder, folder, tmp_path, run):
    out = tmp_path / "classes.html"
    code, stdout, stderr = run(
        "explain", encoder, folder, "--classes", EVIL, "plain", "--out", out, "--json"
    )  # fmt: skip
    assert code == 0, stderr
    result = json.loads(stdout.splitlines()[-1])
    check_page(out.read_text(encoding="utf-8"))
    assert result["classes"] == [EVIL, "plain"]
    assert result["photos"] == [5, 5]
    assert [one["path"] for one in result["skipped"]] == ["plain/broken.jpg"]
    for mark in result["marks"]:
        assert len(mark["places"]) == 10
    table = tmp_path / "labels.csv"
    files = sorted(folder.glob("plain/[0-9]*.jpg"))
    lines = [f"{path.resolve()},{number % 2}" for number, path in enumerate(files)]
    table.write_text("\n".join(["path,class", *lines]), "utf-8")
    by_table = explain(
        encoder, [folder], tmp_path / "table.png", classes=("0", "1"), labels=table, count=2
    )
    assert by_table["photos"] == [2, 2]


def test_what_cannot_be_explained_is_told(encoder, folder, tmp_path):
    out = tmp_path / "x.html"
    one = photo(folder, "plain")
    with pytest.raises(ArtifactError, match="no encoder at"):
        explain(tmp_path / "absent", [one], out)
    with pytest.raises(OutputError, match=r"x\.txt"):
        explain(encoder, [one], tmp_path / "x.txt")
    with pytest.raises(PhotoError, match=r"broken\.jpg"):
        explain(encoder, [one, folder / "plain" / "broken.jpg"], out)
    with pytest.raises(PhotoError, match=r"absent\.jpg: there is no such file"):
        explain(encoder, [tmp_path / "absent.jpg"], out)
    with pytest.raises(InputError, match="got 3"):
        explain(encoder, [one, one, one], out)
    with pytest.raises(InputError, match="--classes A B"):
        explain(encoder, [folder], out)
    with pytest.raises(InputError, match="no classes were asked for"):
        explain(encoder, [one], out, labels=tmp_path / "t.csv")
    with pytest.raises(InputError, match="got 2 places"):
        explain(encoder, [one, one], out, classes=("a", "b"))
    with pytest.raises(LabelError, match="did you mean 'plain'"):
        explain(encoder, [folder], out, classes=("plan", EVIL))
    with pytest.raises(LabelError, match="the same, 'plain'"):
        explain(encoder, [folder], out, classes=("plain", "plain"))
    with pytest.raises(LabelError, match="'lone' has 1 photo in"):
        explain(encoder, [folder], out, classes=("plain", "lone"))
    with pytest.raises(LabelError, match="does not tell classes"):
        explain(encoder, [folder / "plain"], out, classes=("a", "b"))
    table = tmp_path / "other.csv"
    table.write_text("path,class\nnowhere.jpg,a\n")
    with pytest.raises(LabelError, match=r"none of the 1 photos.*nowhere\.jpg"):
        explain(encoder, [folder], out, classes=("a", "b"), labels=table)
    assert not out.exists()


def test_the_command_says_what_is_wrong_in_a_paragraph(encoder, folder, tmp_path, run):
    code, _, stderr = run("explain", tmp_path / "absent", photo(folder, "plain"))
    assert code == 2
    assert "no encoder" in stderr
    assert "Traceback" not in stderr
