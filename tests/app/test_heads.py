import threading

import numpy as np
import pytest

from fieldmark.app.heads import Heads
from fieldmark.app.problems import HttpProblem
from fieldmark.workflows.label import Labelled

NAMES = ["robin", "tit", "wren"]


class Labels:
    """Photos that are labelled one after another."""

    def __init__(self, count, kinds=2):
        self.count, self.kinds, self.reads = count, kinds, 0

    def __call__(self):
        self.reads += 1
        of = np.arange(self.count) % self.kinds
        rng = np.random.default_rng(0)
        x = (rng.normal(size=(self.count, 8)) * 0.3 + np.eye(8)[of]).astype(np.float32)
        return self.count, Labelled(x, [NAMES[k] for k in of], np.arange(self.count))


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
    import fieldmark.app.heads as module

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
