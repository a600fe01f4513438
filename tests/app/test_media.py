"""Pictures on the disk and in memory, and where photos are."""

import os
import threading
from concurrent.futures import Future
from functools import partial

import pytest

from fieldmark.app.decoders import Decoders as RealDecoders
from fieldmark.app.media import Media, Names, Shelf, Size, Store, cache_folder
from fieldmark.app.problems import HttpProblem
from fieldmark.data.derive import Derived
from fieldmark.data.sandbox import Reply
from fieldmark.errors import PhotoError
from fieldmark.workflows.index import upload_of

A, B, C, D = (letter * 32 for letter in "abcd")


def jpeg(size=1000):
    return b"\xff\xd8\xff" + bytes(size - 5) + b"\xff\xd9"


def test_a_picture_is_kept_for_other_processes_and_damage_is_none(tmp_path):
    Store(tmp_path).write(A, Size.small, jpeg())
    other = Store(tmp_path)
    assert other.recall(A, Size.small) is None
    assert other.read(A, Size.small) == jpeg()
    assert other.recall(A, Size.small) == jpeg()
    (file,) = tmp_path.glob("*/*")
    file.write_bytes(jpeg()[:500])
    assert Store(tmp_path).read(A, Size.small) is None
    assert not list(tmp_path.glob("*/.*")), "nothing is left over from writing"


def test_the_oldest_go_when_the_disk_holds_more_than_allowed(tmp_path):
    store = Store(tmp_path, most_bytes=3500, memory_bytes=1)
    for age, name in enumerate((A, B, C)):
        store.write(name, Size.small, jpeg())
        os.utime(store._file(name, Size.small), (age, age))
    assert all(store.has(name, Size.small) for name in (A, B, C))
    store.write(D, Size.small, jpeg())
    assert [store.has(name, Size.small) for name in (A, B, C, D)] == [False, True, True, True]


def test_memory_is_bounded_and_large_ones_are_not_in_it(tmp_path):
    store = Store(tmp_path, memory_bytes=2500)
    for name in (A, B, C):
        store.write(name, Size.small, jpeg())
    store.write(D, Size.large, jpeg())
    assert [store.recall(name, Size.small) is None for name in (A, B, C)] == [True, False, False]
    assert store.recall(D, Size.large) is None
    assert store.read(D, Size.large) == jpeg()


def test_where_the_index_cannot_be_written_a_private_folder_is_used(tmp_path):
    assert (
        cache_folder(tmp_path / "index", tmp_path / "own") == tmp_path / "index" / "cache" / "media"
    )
    (tmp_path / "file").write_text("no folder")
    assert cache_folder(tmp_path / "file", tmp_path / "own") == tmp_path / "own" / "media"
    assert cache_folder(None, tmp_path / "own") == tmp_path / "own" / "media"
    nowhere = Store(tmp_path / "file" / "below")
    nowhere.write(A, Size.small, jpeg())
    assert nowhere.recall(A, Size.small) == jpeg()


class Decoders(RealDecoders):
    def __init__(self):
        self.futures = []

    def submit(self, wish, lane=None):
        self.futures.append(Future())
        return self.futures[-1]


@pytest.fixture
def made(tmp_path):
    names = [Names((A, "", A), ("one.jpg", "two.jpg", "copy.jpg"))]
    photos = tmp_path / "photos"
    photos.mkdir()
    for key in ("one.jpg", "copy.jpg"):
        (photos / key).write_bytes(jpeg())
    decoders = Decoders()
    shelf = Shelf(lambda: names[-1], lambda: photos, partial(upload_of, tmp_path))
    uploaded = {B: b"picture"}.get
    return Media(shelf, Store(tmp_path / "cache"), decoders, uploaded), decoders, shelf, names


def reply(sha256, picture=None):
    return Reply(0, content_hash=sha256, derived=Derived(None, None, picture or jpeg()))


def test_a_picture_is_made_once_however_many_ask_and_then_kept(made):
    media, decoders, shelf, _ = made
    assert shelf.key(A) == "one.jpg", "of copies the first"
    asked = [media.picture(A, Size.small) for _ in range(3)]
    assert len(decoders.futures) == 1
    assert not asked[0].cancel(), "one who gives up takes nothing from the others"
    decoders.futures[0].set_result(reply(A + "0" * 32))
    assert [future.result(1) for future in asked] == [jpeg()] * 3
    assert media.picture(A, Size.small).result(1) == jpeg()
    assert len(decoders.futures) == 1
    assert media.at_hand(A, Size.small) == jpeg()


@pytest.mark.parametrize(
    ("outcome", "status", "code"),
    [
        (reply("9" * 64), 409, "changed"),
        (PhotoError("missing", "there is no such file"), 404, "missing"),
        (PhotoError("broken", "cannot be decoded"), 404, "broken"),
    ],
)
def test_photos_that_cannot_be_shown_say_why_and_may_be_asked_for_again(
    made, outcome, status, code
):
    media, decoders, *_ = made
    for _ in range(2):
        asked = media.picture(A, Size.small)
        if isinstance(outcome, Exception):
            decoders.futures[-1].set_exception(outcome)
        else:
            decoders.futures[-1].set_result(outcome)
        problem = asked.exception(1).problem
        assert (problem.status, problem.code, problem.keys) == (status, code, ["one.jpg"])
    assert len(decoders.futures) == 2
    assert media.at_hand(A, Size.small) is None


def test_only_names_that_are_known_are_looked_for(made):
    media, decoders, *_ = made
    for name in (C, "", "../../etc/passwd"):
        with pytest.raises(HttpProblem) as error:
            media.picture(name, Size.small)
        assert error.value.problem.code == "unknown_photo"
    assert not decoders.futures
    assert media.picture(B, Size.large).result(1) == b"picture"
    media.picture(B, Size.small)
    assert len(decoders.futures) == 1


def test_new_photos_are_found_and_a_photo_that_is_gone_is_missing(made, tmp_path):
    _, _, shelf, names = made
    assert shelf.key(C) is None
    names.append(Names((C, D, B), ("new.jpg", "gone.jpg", "uploads/0123456789abcdef.jpg")))
    assert shelf.key(C) == "new.jpg"
    (tmp_path / "photos" / "new.jpg").write_bytes(jpeg())
    assert shelf.place("new.jpg").file == str(tmp_path / "photos" / "new.jpg")
    with pytest.raises(HttpProblem) as error:
        shelf.place("gone.jpg")
    assert error.value.problem.code == "missing"
    assert shelf.place("uploads/0123456789abcdef.jpg").file == str(
        tmp_path / "uploads" / "0123456789abcdef.jpg"
    )
    with pytest.raises(HttpProblem):
        shelf.place("uploads/../index.sqlite")


def test_pictures_are_made_ahead_until_it_closes(made):
    media, decoders, *_ = made
    media.make_ahead()
    while not decoders.futures:
        threading.Event().wait(0.01)
    decoders.futures[0].set_result(reply(A + "0" * 32))
    media._ahead.join(10)
    assert media.at_hand(A, Size.small) == jpeg()
    assert len(decoders.futures) == 1
