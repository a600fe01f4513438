import numpy as np
import pytest
from madeup import clusters
from sklearn.model_selection import cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.estimator_checks import parametrize_with_checks

from fieldmark.errors import ArtifactError, InputError
from fieldmark.evaluation.calibration import measure_calibration
from fieldmark.evaluation.linear import Probe
from fieldmark.label.classifier import FieldClassifier, _carried

NAMES = np.array(["auk", "bunting", "coot", "dunlin", "eider", "finch"])


TYPED = "types of arguments are checked while tests run; outside they are not"


@parametrize_with_checks(
    [FieldClassifier()],
    expected_failed_checks=lambda _: {"check_do_not_raise_errors_in_init_or_set_params": TYPED},
)
def test_it_is_a_classifier_as_scikit_learn_wants_them(estimator, check, recwarn):
    check(estimator)


@pytest.fixture(scope="module")
def made():
    x, labels = clusters(each=40, spread=1.0)
    return FieldClassifier().fit(x, NAMES[labels])


def test_it_knows_how_sure_it_may_be(made):
    x, labels = clusters(each=200, spread=1.0, seed=1)
    mass = made.predict_proba(x)
    np.testing.assert_allclose(mass.sum(axis=1), 1)
    right = (made.predict(x) == NAMES[labels]).mean()
    assert right == pytest.approx(made.validation_.accuracy, abs=0.08)
    assert measure_calibration(np.log(mass + 1e-12), labels).ece < 6
    sets = made.predict_set(x)
    covered = np.mean([NAMES[label] in found for label, found in zip(labels, sets)])
    assert covered == pytest.approx(0.9, abs=0.04)
    assert all(found[0] == best for found, best in zip(sets, made.predict(x)))


def test_new_classes_are_unknown_until_they_are_labelled(made):
    x, labels = clusters(each=40, spread=0.4)
    known = labels < 5
    classifier = FieldClassifier("logistic").fit(x[known], NAMES[labels[known]])
    new, truth = clusters(each=40, spread=0.4, seed=1)
    unknown = classifier.is_unknown(new)
    assert unknown[truth == 5].mean() > 0.5
    assert unknown[truth < 5].mean() < 0.2
    temperature, spec = classifier.temperature_, classifier.spec_
    classifier.refit(x, NAMES[labels])
    assert (classifier.temperature_, classifier.spec_) == (temperature, spec)
    assert (classifier.predict(new[truth == 5]) == "finch").mean() > 0.9
    assert classifier.is_unknown(new[truth == 5]).mean() < 0.2


def test_refit_ends_where_fit_does_whatever_classes_come_and_go():
    x, labels = clusters(each=30)
    names = NAMES[labels]
    without = (names != "auk") & (names != "eider")
    classifier = FieldClassifier("logistic").fit(x[without], names[without]).refit(x, names)
    fresh = FieldClassifier("logistic").fit(x, names)
    query, _ = clusters(seed=1)
    assert classifier.classes_.tolist() == NAMES.tolist()
    assert (classifier.predict(query) == fresh.predict(query)).mean() > 0.95
    classifier.refit(x[without], names[without])
    assert not set(classifier.predict(query)) & {"auk", "eider"}


def test_a_refit_begins_with_each_class_where_it_was():
    head = Probe(np.arange(6, dtype=np.float32).reshape(3, 2), np.arange(3, dtype=np.float32))
    moved = _carried(head, np.array(["b", "c", "d"]), np.array(["a", "b", "d", "e"]))
    assert moved is not None
    assert moved.weight.tolist() == [[0, 0], [0, 1], [4, 5], [0, 0]]
    assert moved.bias.tolist() == [0, 0, 2, 0]


def test_wrong_labels_are_suspected():
    x, labels = clusters(each=30, spread=0.2)
    names = NAMES[labels]
    names[:3] = np.roll(NAMES, 1)[labels[:3]]
    found = FieldClassifier().fit(x, names).suspects()
    assert {suspect.row for suspect in found[:3]} == {0, 1, 2}
    assert [NAMES[suspect.suggested] for suspect in found[:3]] == [
        NAMES[labels[suspect.row]] for suspect in found[:3]
    ]


def test_with_few_labels_it_says_that_it_cannot_say():
    x, labels = clusters(each=1)
    classifier = FieldClassifier().fit(x, NAMES[labels])
    assert (classifier.predict(x) == NAMES[labels]).all()
    assert not classifier.is_unknown(x).any()
    assert np.isnan(classifier.validation_.accuracy)
    with pytest.raises(InputError, match=r"cover 90% need 20 labelled photos .* fitted on 0"):
        classifier.predict_set(x)


def test_photos_of_a_group_are_held_out_together():
    x, labels = clusters(each=20, spread=3.0)
    # Every photo has a twin; with random labels only the twin could tell.
    labels = np.random.default_rng(0).integers(0, 6, len(labels))
    twins, names = np.vstack([x, x]), np.tile(NAMES[labels], 2)
    groups = np.tile(np.arange(len(x)), 2)
    fooled = FieldClassifier("neighbours").fit(twins, names).validation_.accuracy
    honest = FieldClassifier("neighbours").fit(twins, names, groups=groups).validation_.accuracy
    assert fooled > 0.6
    assert honest < 0.35


def test_it_works_in_pipelines_and_cross_validation():
    x, labels = clusters()
    scores = cross_val_score(make_pipeline(StandardScaler(), FieldClassifier("mean")), x, labels)
    assert scores.mean() > 0.8
    with pytest.raises(
        InputError, match="must be one of auto, mean, logistic, neighbours, got 'svm'"
    ):
        FieldClassifier("svm").fit(x, labels)


@pytest.mark.parametrize(
    ("head", "dim"), [("mean", 12), ("logistic", 12), ("neighbours", 12), ("mean", 300)]
)
def test_a_saved_classifier_answers_the_same(tmp_path, head, dim):
    x, labels = clusters(dim=dim)
    made = FieldClassifier(head, coverage=0.8, lost=0.1).fit(x, NAMES[labels])
    made.save(tmp_path / "c", about={"encoder": "e" * 64})
    again = FieldClassifier.load(tmp_path / "c")
    query, _ = clusters(dim=dim, seed=1)
    np.testing.assert_array_equal(again.predict_proba(query), made.predict_proba(query))
    np.testing.assert_array_equal(again.is_unknown(query), made.is_unknown(query))
    assert again.predict_set(query) == made.predict_set(query)
    assert again.get_params() == made.get_params()
    assert again.about_ == {"encoder": "e" * 64}
    assert again.validation_ == made.validation_
    again.refit(x, NAMES[labels])
    assert (again.predict(query) == made.predict(query)).all()


def test_damaged_classifiers_are_refused(tmp_path):
    x, labels = clusters()
    folder = tmp_path / "c"
    with pytest.raises(ArtifactError, match="holds no classifier"):
        FieldClassifier.load(folder)
    made = FieldClassifier("mean").fit(x, NAMES[labels])
    with pytest.raises(InputError, match="labels are texts"):
        FieldClassifier("mean").fit(x, labels).save(folder)
    made.save(folder)
    card, tensors = folder / "classifier.json", folder / "classifier.safetensors"
    sound, bytes_ = card.read_text(), tensors.read_bytes()
    tensors.write_bytes(bytes_[:-9] + bytes([bytes_[-9] ^ 1]) + bytes_[-8:])
    with pytest.raises(ArtifactError, match="damaged"):
        FieldClassifier.load(folder)
    tensors.write_bytes(bytes_)
    for text, words in (
        (sound.replace('"version": 1', '"version": 2'), "reads 1. Update"),
        (sound.replace("fieldmark classifier", "another"), "no classifier of fieldmark"),
        (sound[:-20], "cannot be read"),
        ("[1, 2]", "no classifier of fieldmark"),
        (sound.replace('"temperature"', '"temper"'), "damaged: 'temperature'"),
        (sound.replace('"mean"', '"neighbours"'), "damaged"),
    ):
        card.write_text(text)
        with pytest.raises(ArtifactError, match=words):
            FieldClassifier.load(folder)


def test_few_photos_of_many_kinds_are_fitted_without_a_warning():
    # Warnings are errors here; scikit-learn would take so many kinds for a regression.
    x = np.random.default_rng(0).normal(size=(40, 8))
    labels = [f"kind {row}" for row in (*range(39), 0)]
    assert len(FieldClassifier().fit(x, labels).classes_) == 39


@pytest.mark.parametrize("head", ["mean", "logistic", "neighbours"])
def test_what_was_chosen_is_gone_on_from_in_another_process(head):
    x, labels = clusters(each=20)
    names = NAMES[labels]
    before = FieldClassifier(head, lost=0.1).fit(x[:90], names[:90])
    found = FieldClassifier.resumed(before.choice(), x, names)
    wanted = before.refit(x, names)
    query, _ = clusters(seed=1)
    np.testing.assert_allclose(found.predict_proba(query), wanted.predict_proba(query), atol=1e-6)
    assert (found.is_unknown(query) == wanted.is_unknown(query)).all()
    assert found.predict_set(query) == wanted.predict_set(query)
    assert found.tested() == wanted.tested()
    assert len(found.tested()) == found.validation_.photos == 90
    assert (found.spec_, found.lost) == (wanted.spec_, 0.1)
    assert found.suspects() == []


def test_a_choice_that_cannot_be_gone_on_from_is_refused():
    x, labels = clusters(each=10)
    choice = FieldClassifier().fit(x, NAMES[labels]).choice()
    told, _, tensors = choice.partition(b"\n")
    for damaged in (b"", told, b"{}\n" + tensors, b"[]\n" + tensors, told + b"\n" + tensors[:-9]):
        with pytest.raises(ArtifactError, match="chosen before"):
            FieldClassifier.resumed(damaged, x, NAMES[labels])
    with pytest.raises(ArtifactError, match="12 numbers"):
        FieldClassifier.resumed(choice, x[:, :8], NAMES[labels])
