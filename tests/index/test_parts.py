"""The store of cells: nothing that is damaged, stale or foreign is believed."""

import sqlite3

import numpy as np
import pytest

from fieldmark.errors import ArtifactError, InputError
from fieldmark.index.match import STEPS
from fieldmark.index.parts import FILE, Basis, DamagedParts, Parts, fit_basis

KIND = "64 px"


def basis(dim=6):
    return Basis(np.zeros(dim, np.float32), np.eye(dim, dtype=np.float32), 40)


def grid(seed, height=3, width=4, dim=6):
    x = np.random.default_rng(seed).standard_normal((height, width, dim))
    return basis(dim).shorten(x)


def contents(parts, hashes, identity="e1"):
    return {
        key: cells
        for reading in parts.read(identity, 6, hashes)
        for key, cells in zip(reading.keys, reading.grids)
    }


@pytest.fixture
def file(tmp_path):
    return tmp_path / FILE


@pytest.fixture
def made(file):
    hashes = {f"p{i}.jpg": f"{i:064x}" for i in range(30)}
    grids = {key: grid(i, *((3, 4) if i % 3 else (4, 3))) for i, key in enumerate(hashes)}
    with Parts(file, create=True) as parts:
        parts.begin("e1", KIND, basis())
        parts.put("e1", list(hashes), list(hashes.values()), list(grids.values()))
    return hashes, grids


def test_a_basis_is_that_of_the_covariance_and_whole_numbers_keep_cosines():
    draws = np.random.default_rng(0)
    mixing = draws.standard_normal((20, 20)) * np.geomspace(1, 0.01, 20)
    cells = (draws.standard_normal((50, 4, 6, 20)) @ mixing.T + 3).astype(np.float32)
    found = fit_basis(np.split(cells, 5), 24)
    flat = cells.reshape(-1, 20).astype(float)
    np.testing.assert_allclose(found.mean, flat.mean(0), atol=1e-4)
    _, _, directions = np.linalg.svd(flat - flat.mean(0), full_matrices=False)
    alike = np.abs((found.projection.T @ directions.T)[np.arange(8), np.arange(8)])
    np.testing.assert_allclose(alike, 1, atol=1e-3)
    assert found.photos == 50
    exact = found.express(cells).reshape(-1, found.projection.shape[1])
    short = found.shorten(cells).reshape(exact.shape) / STEPS
    np.testing.assert_allclose(np.linalg.norm(exact, axis=1), 1, atol=1e-5)
    np.testing.assert_allclose(short[:200] @ short[200:].T, exact[:200] @ exact[200:].T, atol=0.02)


def test_a_photo_takes_eight_kibibytes_at_most():
    cells = np.random.default_rng(0).standard_normal((40, 14, 14, 100)).astype(np.float32)
    kept = fit_basis([cells], 196).projection.shape[1]
    assert 196 * kept <= 8192 < 196 * (kept + 1)
    assert fit_basis([cells], 49).projection.shape[1] == 64


def test_photos_that_look_the_same_everywhere_have_no_parts():
    with pytest.raises(InputError, match="no parts that could be told apart"):
        fit_basis([np.ones((3, 2, 2, 5), np.float32)], 4)


def test_what_is_kept_is_read_back_by_shape(file, made):
    hashes, grids = made
    with Parts(file) as parts:
        assert parts.sound("e1", 6) == hashes
        found = contents(parts, hashes)
        kept = parts.basis("e1", KIND)
        shapes = [reading.grids.shape[1:3] for reading in parts.read("e1", 6, hashes)]
    assert found.keys() == grids.keys()
    assert all(np.array_equal(found[key], grids[key]) for key in grids)
    np.testing.assert_array_equal(kept.projection, np.eye(6))
    assert sorted(shapes) == [(3, 4), (4, 3)]


def test_what_is_of_an_older_photo_a_foreign_encoder_or_no_photo_is_passed_over(file, made):
    hashes, _ = made
    with Parts(file) as parts:
        assert contents(parts, {**hashes, "p3.jpg": "f" * 64}).keys() == hashes.keys() - {"p3.jpg"}
        assert contents(parts, {"p1.jpg": hashes["p1.jpg"], "new.jpg": ""}).keys() == {"p1.jpg"}
        assert contents(parts, hashes, "e2") == {}
        assert parts.basis("e2", KIND) is None
        assert parts.basis("e1", "96 px") is None
        assert parts.keep_only("e1", list(hashes)[:10]) == 20
        assert len(parts.sound("e1", 6)) == 10
        parts.put("e1", ["p0.jpg"], ["a" * 64], [grid(99)])
        assert np.array_equal(contents(parts, {"p0.jpg": "a" * 64})["p0.jpg"], grid(99))
        parts.begin("e2", KIND, basis())
        parts.keep_spaces(["e2"])
        assert parts.basis("e1", KIND) is None
        assert parts.sound("e1", 6) == {}


@pytest.mark.parametrize(
    "change",
    [
        "cells = CAST(x'00' || substr(cells, 2) AS BLOB)",
        "cells = CAST(cells AS TEXT)",
        "cells = substr(cells, 2)",
        "sha256 = '" + "0" * 63 + "9'",
        "height = width, width = height",
        "crc = crc + 1",
        "cells = 'text'",
        "key = 'p1.png'",
    ],
)
def test_an_entry_that_was_changed_is_not_believed(file, made, change):
    hashes, _ = made
    db = sqlite3.connect(file)
    with db:
        assert db.execute(f"UPDATE cells SET {change} WHERE key = 'p1.jpg'").rowcount == 1
    db.close()
    with Parts(file) as parts:
        assert parts.sound("e1", 6).keys() == hashes.keys() - {"p1.jpg"}
        believed = {**hashes, "p1.jpg": "0" * 63 + "9", "p1.png": hashes["p1.jpg"]}
        assert "p1.jpg" not in contents(parts, believed) | contents(parts, hashes)


def test_a_damaged_basis_is_not_believed(file, made):
    db = sqlite3.connect(file)
    with db:
        db.execute(
            "UPDATE spaces SET basis = CAST(substr(basis, 1, 200) || x'41' || substr(basis, 202) AS BLOB)"
        )
    db.close()
    with Parts(file) as parts:
        assert parts.basis("e1", KIND) is None


def test_flipped_bytes_of_the_file_give_an_error_or_what_was_kept(file, made):
    hashes, grids = made
    data = file.read_bytes()
    draws = np.random.default_rng(0)
    outcomes = set()
    for _ in range(60):
        damaged = bytearray(data)
        for place in draws.integers(100, len(data), 40):
            damaged[place] ^= 1 << int(draws.integers(8))
        file.write_bytes(damaged)
        for suffix in ("-wal", "-shm"):
            file.with_name(file.name + suffix).unlink(missing_ok=True)
        try:
            with Parts(file) as parts:
                found = contents(parts, hashes)
                if (kept := parts.basis("e1", KIND)) is not None:
                    np.testing.assert_array_equal(kept.projection, np.eye(6))
        except DamagedParts:
            outcomes.add("error")
            continue
        assert all(np.array_equal(found[key], grids[key]) for key in found)
        outcomes.add("all" if len(found) == len(grids) else "some")
    assert "error" in outcomes or "some" in outcomes


def test_files_that_are_none_say_what_to_do(file, made, tmp_path):
    with pytest.raises(ArtifactError, match=r"holds no parts of photos; .*--parts"):
        Parts(tmp_path / "none" / FILE)
    data = file.read_bytes()
    file.write_bytes(data[: len(data) // 2])
    with pytest.raises(DamagedParts, match=r"is damaged .*--parts"):  # noqa: SIM117
        with Parts(file) as parts:
            parts.sound("e1", 6)
    file.write_bytes(b"no database at all" * 100)
    with pytest.raises(DamagedParts, match="is damaged"):
        Parts(file)
    other = tmp_path / "other.sqlite"
    db = sqlite3.connect(other)
    with db:
        db.execute("CREATE TABLE things (name TEXT)")
    db.close()
    with pytest.raises(ArtifactError, match="a database of something else"):
        Parts(other, create=True)
