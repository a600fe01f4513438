import threading
from pathlib import Path

import numpy as np
import pytest

import fieldmark.app.heads as module
from fieldmark.app.heads import Heads
from fieldmark.app.kept import Keeper
from fieldmark.app.problems import HttpProblem
from fieldmark.workflows.label import Labelled

NAMES = ["robin", "tit", "wren"]


class Labels:
    """Photos that are labelled one after another."""

    def __init__(self, count, kinds=2):
        self.count, self.kinds, self.reads, self.names = count, kinds, 0, NAMES

    def __call__(self):
        self.reads += 1
        of = np.arange(self.count) % self.kinds
        rng = np.random.default_rng(0)
        x = (rng.normal(size=(self.count, 8)) * 0.3 + np.eye(8)[of]).astype(np.float32)
        return self.count, Labelled(x, [self.names[k] for k in of], np.arange(self.count))


def ask(heads, change=0):
    return heads.current(change).predict(np.eye(8, dtype=np.float32)[:3]).tolist()


def settle(heads):
    if (choosing := heads._choosing) is not None:
        choosing.join(30)


def test_a_new_label_is_known_at_once_and_an_old_head_answers_what_it_knows():
    labels = Labels(30)
    heads = Heads(labels)
    assert ask(heads)[:2] == ["robin", "tit"]
    labels.count, labels.kinds = 33, 3
    assert heads.at(30).change == 30, "nobody asked for more"
    before = heads.at(30).classifier
    assert ask(heads, 33) == ["robin", "tit", "wren"]
    assert before.classes_.tolist() == ["robin", "tit"], "who holds the old one is not disturbed"
    assert heads.at(33).chosen_on == 30


def test_a_change_that_did_not_come_costs_one_look():
    labels = Labels(30)
    heads = Heads(labels)
    first = heads.at()
    assert heads.at(99) is first
    assert labels.reads == 2


def test_head_and_temperature_are_chosen_anew_when_labels_have_grown():
    labels = Labels(30)
    heads = Heads(labels)
    heads.at()
    labels.count = 60
    heads.at(60)
    settle(heads)
    fit = heads.at(60)
    assert (fit.chosen_on, fit.chosen_at, fit.change) == (60, 60, 60)
    assert fit.classifier.validation_.photos == 60


def test_labels_that_came_while_the_head_was_chosen_are_not_lost(monkeypatch):
    labels = Labels(30)
    heads = Heads(labels)
    heads.at()
    begun, go = threading.Event(), threading.Event()
    choose = module._choose

    def slow(change, photos):
        begun.set()
        assert go.wait(30)
        return choose(change, photos)

    monkeypatch.setattr(module, "_choose", slow)
    labels.count = 60
    heads.at(60)
    assert begun.wait(30)
    labels.count, labels.kinds = 63, 3
    heads.at(63)
    go.set()
    settle(heads)
    fit = heads.at(63)
    assert fit.change == 63
    assert fit.chosen_on == 60
    assert "wren" in fit.classifier.classes_


@pytest.mark.parametrize(("count", "kinds"), [(0, 1), (5, 1)])
def test_fewer_than_two_labels_are_no_classifier(count, kinds):
    with pytest.raises(HttpProblem) as error:
        Heads(Labels(count, kinds)).current()
    assert error.value.problem.code == "too_few_labels"


# -- choices that take long


@pytest.fixture
def slow(monkeypatch):
    """As if every choice took long; counts them, and lets them end when told."""

    class Slow:
        made, go = 0, threading.Event()

    choose = module._choose

    def chosen(change, photos):
        Slow.made += 1
        assert Slow.go.wait(30)
        return choose(change, photos)

    Slow.go.set()
    monkeypatch.setattr(module, "_QUICK", 0)
    monkeypatch.setattr(module, "_FIRST_SECONDS", 0.0)
    monkeypatch.setattr(module, "_choose", chosen)
    return Slow


def keeper(place, identity="bird"):
    (place / "index").mkdir(exist_ok=True)
    return Keeper(place / "index" / "cache", lambda: identity)


def kept(place):
    return place / "index" / "cache" / "head.choice"


def test_the_simplest_head_answers_until_the_best_is_chosen(slow):
    slow.go.clear()
    heads = Heads(Labels(60, 3))
    first = heads.at()
    assert (first.provisional, first.classifier.spec_.kind, first.chosen_at) == (True, "mean", -1)
    assert ask(heads) == NAMES
    assert first.classifier.validation_.photos == 60
    slow.go.set()
    settle(heads)
    best = heads.at()
    assert (best.provisional, best.chosen_at, len(best.classifier.validation_.heads)) == (
        False,
        60,
        7,
    )
    assert best.number == heads.number > first.number, "guesses by the first are made anew"


def test_a_service_that_starts_again_goes_on_from_what_was_chosen(slow, tmp_path):
    labels = Labels(60, 2)
    before = Heads(labels, keeper(tmp_path))
    before.at()
    settle(before)
    chosen = before.at()
    labels.count, labels.kinds = 64, 3
    again = Heads(labels, keeper(tmp_path))
    fit = again.at()
    assert slow.made == 1, "nothing is chosen anew"
    assert (fit.provisional, fit.chosen_on, fit.chosen_at) == (False, 60, 60)
    assert (fit.change, fit.photos) == (64, 64)
    assert fit.classifier.spec_ == chosen.classifier.spec_
    assert fit.classifier.temperature_ == chosen.classifier.temperature_
    assert fit.classifier.tested() == chosen.classifier.tested()
    assert ask(again) == NAMES, "labels are as they are now"


def test_photos_that_come_do_not_cost_a_choice(slow, tmp_path):
    heads = Heads(Labels(60), keeper(tmp_path))
    heads.at()
    settle(heads)
    heads.forget()
    assert not heads.at().provisional
    assert slow.made == 1


def test_a_choice_serves_photos_that_came_while_it_was_made(slow, tmp_path):
    slow.go.clear()
    heads = Heads(Labels(60), keeper(tmp_path))
    heads.at()
    heads.forget()
    slow.go.set()
    settle(heads)
    assert not heads.at().provisional
    assert slow.made == 1


def test_after_enough_new_labels_a_kept_choice_answers_while_another_is_made(slow, tmp_path):
    labels = Labels(60)
    before = Heads(labels, keeper(tmp_path))
    before.at()
    settle(before)
    labels.count = 90
    slow.go.clear()
    again = Heads(labels, keeper(tmp_path))
    fit = again.at()
    assert (fit.provisional, fit.chosen_on, fit.photos) == (False, 60, 90)
    slow.go.set()
    settle(again)
    assert again.at().chosen_on == 90
    assert Heads(labels, keeper(tmp_path)).at().chosen_on == 90, "it takes the other's place"


@pytest.mark.parametrize("how", ["cut", "flipped", "empty", "encoder", "taken back", "others"])
def test_a_choice_that_is_no_good_is_ignored_and_replaced(slow, tmp_path, how):
    labels = Labels(60)
    before = Heads(labels, keeper(tmp_path))
    before.at()
    settle(before)
    data = kept(tmp_path).read_bytes()
    identity = "fish" if how == "encoder" else "bird"
    if how == "cut":
        kept(tmp_path).write_bytes(data[:-7])
    elif how == "flipped":
        kept(tmp_path).write_bytes(data[:-7] + bytes([data[-7] ^ 1]) + data[-6:])
    elif how == "empty":
        kept(tmp_path).write_bytes(b"")
    elif how == "taken back":
        labels.count = 58
    elif how == "others":
        labels.names = ["oak", "ash", "elm"]
    slow.go.clear()
    again = Heads(labels, keeper(tmp_path, identity))
    assert again.at().provisional
    slow.go.set()
    settle(again)
    assert slow.made == 2
    third = Heads(labels, keeper(tmp_path, identity)).at()
    assert not third.provisional
    assert third.chosen_on == labels.count


def test_where_nothing_can_be_kept_all_works_without(slow, tmp_path):
    (tmp_path / "index").write_text("no folder")
    heads = Heads(Labels(60), Keeper(tmp_path / "index" / "cache", lambda: "bird"))
    heads.at()
    settle(heads)
    assert not heads.at().provisional
    # An index that was deleted meanwhile is not made again.
    gone = Heads(Labels(60), Keeper(tmp_path / "gone" / "cache", lambda: "bird"))
    gone.at()
    settle(gone)
    assert not (tmp_path / "gone").exists()


def test_what_is_kept_names_no_photo_and_a_closed_service_keeps_nothing(slow, tmp_path):
    heads = Heads(Labels(60), keeper(tmp_path))
    heads.at()
    settle(heads)
    text = kept(tmp_path).read_bytes()
    assert b"robin" in text
    assert str(Path(tmp_path)).encode() not in text
    kept(tmp_path).unlink()
    slow.go.clear()
    closed = Heads(Labels(60), keeper(tmp_path))
    closed.at()
    choosing = closed._choosing
    closed.close()
    slow.go.set()
    choosing.join(30)
    assert not kept(tmp_path).exists()


def test_quick_choices_are_waited_for_and_not_kept(tmp_path):
    heads = Heads(Labels(60), keeper(tmp_path))
    assert not heads.at().provisional
    assert not kept(tmp_path).parent.exists()
