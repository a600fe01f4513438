import csv

import numpy as np
import pytest
from PIL import Image

from fieldmark.encoder import Encoder
from fieldmark.errors import OutputError
from fieldmark.storage import sha256_of
from fieldmark.workflows import embed
from fieldmark.workflows.embed import embed_photos
from tiny import save_encoder

COUNT = 9


@pytest.fixture
def photos(tmp_path):
    folder = tmp_path / "photos"
    folder.mkdir()
    generator = np.random.default_rng(0)
    for index in range(COUNT):
        pixels = generator.integers(0, 256, (40, 50, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"{index}.jpg")
    return folder


@pytest.fixture
def encoder(tmp_path):
    return save_encoder(tmp_path / "encoder")


def run(encoder, photos, out, **settings):
    return embed_photos(encoder, photos, out, device="cpu", precision="fp32", **settings)


def read(out):
    if out.suffix == ".npz":
        with np.load(out, allow_pickle=False) as arrays:
            return {name: arrays[name] for name in ("path", "content_hash", "embedding")}
    import pyarrow.parquet as parquet

    table = parquet.read_table(out)
    embedding = np.stack(table["embedding"].to_numpy(zero_copy_only=False))
    return {
        "path": np.array(table["path"].to_pylist()),
        "content_hash": np.array(table["content_hash"].to_pylist()),
        "embedding": embedding,
    }


@pytest.mark.parametrize("name", ["t.npz", "t.parquet"])
def test_table_holds_what_the_encoder_says(tmp_path, photos, encoder, monkeypatch, name):
    monkeypatch.setattr(embed, "CHUNK", 4)
    result = run(encoder, photos, tmp_path / name)
    table = read(tmp_path / name)
    assert table["path"].tolist() == [f"{index}.jpg" for index in range(COUNT)]
    expected = Encoder.load(encoder, device="cpu", precision="fp32").embed(photos)
    np.testing.assert_allclose(table["embedding"], expected, atol=1e-5)
    assert table["content_hash"][3] == sha256_of(photos / "3.jpg")
    assert result.summary["embedded"] == result.summary["photos"] == COUNT
    assert result.summary["problems"] is None
    left = {path.name for path in tmp_path.iterdir()}
    assert left == {"photos", "encoder", name}


def test_bad_photos_are_listed_beside(tmp_path, photos, encoder):
    (photos / "2.jpg").write_bytes(b"no photo")
    good = (photos / "4.jpg").read_bytes()
    (photos / "4.jpg").write_bytes(good[: len(good) // 2])
    result = run(encoder, photos, tmp_path / "t.npz")
    assert (result.summary["refused"], result.summary["damaged"]) == (1, 1)
    with (tmp_path / "t.npz.problems.csv").open(newline="") as file:
        rows = [(row["path"], row["status"], row["code"]) for row in csv.DictReader(file)]
    assert rows[0] == ("2.jpg", "refused", "format_not_allowed")
    assert rows[1][:2] == ("4.jpg", "damaged")
    assert "2.jpg" not in read(tmp_path / "t.npz")["path"]


def test_a_stopped_run_goes_on_and_ends_with_the_same_table(tmp_path, photos, encoder, monkeypatch):
    monkeypatch.setattr(embed, "CHUNK", 2)
    run(encoder, photos, tmp_path / "whole.npz")
    inner = embed._embed
    done = []

    def stop_at_third(encoder, catalog, span, *rest):
        if len(done) == 2:
            raise KeyboardInterrupt
        done.append(span.start)
        return inner(encoder, catalog, span, *rest)

    monkeypatch.setattr(embed, "_embed", stop_at_third)
    with pytest.raises(KeyboardInterrupt):
        run(encoder, photos, tmp_path / "t.npz")
    assert not (tmp_path / "t.npz").exists()

    def note(encoder, catalog, span, *rest):
        done.append(span.start)
        return inner(encoder, catalog, span, *rest)

    monkeypatch.setattr(embed, "_embed", note)
    run(encoder, photos, tmp_path / "t.npz")
    assert done == [0, 2, 4, 6, 8], "photos were embedded twice or never"
    whole, resumed = read(tmp_path / "whole.npz"), read(tmp_path / "t.npz")
    assert all(np.array_equal(whole[name], resumed[name]) for name in whole)


def test_what_another_job_left_is_not_used(tmp_path, photos, encoder, monkeypatch):
    monkeypatch.setattr(embed, "CHUNK", 2)

    def stop(*arguments, **settings):
        raise KeyboardInterrupt

    monkeypatch.setattr(embed, "_write", stop)
    with pytest.raises(KeyboardInterrupt):
        run(encoder, photos, tmp_path / "t.npz")
    monkeypatch.undo()
    other = save_encoder(tmp_path / "other", seed=1)
    run(other, photos, tmp_path / "t.npz")
    expected = Encoder.load(other, device="cpu", precision="fp32").embed(photos)
    np.testing.assert_allclose(read(tmp_path / "t.npz")["embedding"], expected, atol=1e-5)


def test_running_again(tmp_path, photos, encoder):
    out = tmp_path / "t.parquet"
    run(encoder, photos, out)
    before = out.stat().st_mtime_ns
    assert run(encoder, photos, out).summary["already_complete"]
    assert out.stat().st_mtime_ns == before
    other = save_encoder(tmp_path / "other", seed=1)
    with pytest.raises(OutputError, match="--overwrite"):
        run(other, photos, out)
    Image.new("RGB", (40, 40)).save(photos / "0.jpg")
    with pytest.raises(OutputError, match="--overwrite"):
        run(encoder, photos, out)
    run(other, photos, out, overwrite=True)


def test_places_that_cannot_be_written(tmp_path, photos, encoder):
    with pytest.raises(OutputError, match=r"\.parquet or \.npz"):
        run(encoder, photos, tmp_path / "t.csv")
    (tmp_path / "d.npz").mkdir()
    with pytest.raises(OutputError, match="is a folder"):
        run(encoder, photos, tmp_path / "d.npz")
    (tmp_path / "mine.npz").write_text("notes")
    with pytest.raises(OutputError, match="something else"):
        run(encoder, photos, tmp_path / "mine.npz")
    assert (tmp_path / "mine.npz").read_text() == "notes"
