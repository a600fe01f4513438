"""The classifier that a few labels make of an encoder, as scikit-learn has classifiers."""

import json
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Bool, Float
from safetensors import SafetensorError
from safetensors.numpy import load as load_tensors
from safetensors.numpy import save as save_tensors
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import check_is_fitted, validate_data

from fieldmark import storage
from fieldmark.errors import ArtifactError, InputError
from fieldmark.evaluation.linear import Probe
from fieldmark.label.calibration import (
    LEAST_HELD_OUT,
    Sets,
    chances,
    fit_sets,
    fit_temperature,
    photos_for,
)
from fieldmark.label.heads import (
    CANDIDATES,
    Choice,
    Head,
    HeadSpec,
    Neighbours,
    choose_head,
    deal,
    fit_head,
)
from fieldmark.label.mistakes import Suspect, suspects
from fieldmark.label.unknown import (
    Familiarity,
    Metric,
    Narrowing,
    Rejection,
    fit_familiarity,
    fit_rejection,
    left_out_scores,
)

FORMAT = "fieldmark classifier"
FORMAT_VERSION = 1
KINDS = ("auto", "mean", "logistic", "neighbours")


class Validation(NamedTuple):
    """What held-out photos said."""

    photos: int
    """How many could be held out."""
    accuracy: float
    """Of the chosen head, in [0, 1]; NaN where none could be held out."""
    heads: dict[str, float]
    """Of each candidate."""


class FieldClassifier(ClassifierMixin, BaseEstimator):
    """A head on embeddings that knows how sure it is.

    ``fit`` chooses the head by cross-validation, calibrates its probabilities on the held-out photos,
    and learns from them how large a set of classes must be and from where on a photo is of none.
    ``refit`` takes more labels, and new classes, in a fraction of a second: head and temperature stay.

    Args:
        head: "auto", or one kind: "mean", "logistic" or "neighbours".
        coverage: Share of photos whose true class shall be in ``predict_set``, in (0, 1).
        lost: Share of photos of known classes that ``is_unknown`` may take for unknown, in (0, 1).
        folds: Of cross-validation, >= 2.
        seed: Of the folds.

    Example:
        >>> rng = np.random.default_rng(0)
        >>> y = np.repeat(["wren", "robin", "tit"], 20)
        >>> X = rng.normal(size=(60, 8)) + 3 * np.eye(8)[np.unique(y, return_inverse=True)[1]]
        >>> FieldClassifier().fit(X, y).predict(X[:1]).tolist()
        ['wren']
    """

    def __init__(
        self,
        head: str = "auto",
        coverage: float = 0.9,
        lost: float = 0.05,
        folds: int = 5,
        seed: int = 0,
    ) -> None:
        self.head = head
        self.coverage = coverage
        self.lost = lost
        self.folds = folds
        self.seed = seed

    # -- fitting

    def fit(
        self, X: Any, y: Any, groups: Any = None, measure_unknown: bool = True
    ) -> "FieldClassifier":
        """Choose a head, fit and calibrate it.

        Args:
            X: Embeddings [N, D]; lengths do not matter.
            y: Labels.
            groups: Photos of one group (a burst, an individual) are held out together.
            measure_unknown: Whether to measure what ``is_unknown`` catches, which with thousands of
                photos takes a second; ``rejection_`` says NaN without.
        """
        x, of = self._take(X, y)
        folds = deal(of, self.folds, groups=groups, seed=self.seed)
        choice = choose_head(x, of, len(self.classes_), folds, self._candidates())
        self.spec_ = choice.spec
        self.head_ = fit_head(choice.spec, x, of, len(self.classes_))
        held = folds.of >= 0
        self._calibrate(choice, of, held)
        self._known: Familiarity | None = fit_familiarity(x, of)
        self.rejection_: Rejection | None = None
        if held.sum() >= LEAST_HELD_OUT:
            self.rejection_ = fit_rejection(
                self._known, x, of, lost=self.lost, seed=self.seed, measure=measure_unknown
            )
        return self

    def refit(self, X: Any, y: Any) -> "FieldClassifier":
        """Fit the same kind of head to other labels, from where it stands; temperature and sets stay.

        Meant for a few more labels, new classes among them: the encoder is not touched. ``fit`` again
        from time to time, for how sure the head may be changes with the number of labels.

        Args:
            X: Embeddings of all labelled photos, not only of new ones.
            y: Their labels.
        """
        check_is_fitted(self, "head_")
        return self._gone_on(self.head_, X, y)

    def _gone_on(self, head: Head | None, X: Any, y: Any) -> "FieldClassifier":
        before = self.classes_
        x, of = self._take(X, y)
        start = _carried(head, before, self.classes_)
        self.head_ = fit_head(self.spec_, x, of, len(self.classes_), start=start)
        self._known, self._labelled = None, (x, of)
        return self

    @property
    def familiarity_(self) -> Familiarity:
        """What labelled photos look like; after ``refit`` it is fitted when first asked for."""
        check_is_fitted(self, "head_")
        if self._known is None:
            x, of = self._labelled
            self._known = fit_familiarity(x, of)
            known = left_out_scores(self._known, x, of)
            if self.rejection_ is not None and len(known):
                threshold = float(np.quantile(known, self.lost))
                self.rejection_ = self.rejection_._replace(threshold=threshold)
        return self._known

    def _take(self, X: Any, y: Any) -> tuple[Float[np.ndarray, "N D"], Any]:
        if self.head not in KINDS:
            raise InputError(f"head must be one of {', '.join(KINDS)}, got '{self.head}'.")
        X, y = validate_data(self, X, y, dtype=np.float32)
        if y.dtype.kind == "f":
            # Of names and whole numbers it only warns where most photos are of a kind of their own, as at first.
            check_classification_targets(y)
        self.classes_, of = np.unique(y, return_inverse=True)
        return _directed(X), of.astype(np.int64)

    def _candidates(self) -> tuple[HeadSpec, ...]:
        return tuple(spec for spec in CANDIDATES if self.head in ("auto", spec.kind))

    def _calibrate(self, choice: Choice, of: Any, held: Bool[np.ndarray, " N"]) -> None:
        scores, truth = choice.scores[held], of[held]
        self.temperature_ = 1.0
        self.sets_: Sets | None = None
        if len(truth) >= LEAST_HELD_OUT:
            self.temperature_ = fit_temperature(scores, truth)
            if len(truth) >= photos_for(self.coverage):
                self.sets_ = fit_sets(chances(scores, self.temperature_), truth, self.coverage)
        self.held_out_ = np.full(choice.scores.shape, np.nan)
        self.held_out_[held] = chances(scores, self.temperature_)
        self._truth, self._names = of, self.classes_
        self._guessed = np.where(held, self.held_out_.argmax(axis=1), -1)
        accuracy = choice.accuracy.get(str(choice.spec), float("nan"))
        self.validation_ = Validation(int(held.sum()), accuracy, choice.accuracy)

    # -- asking

    def decision_function(self, X: Any) -> Float[np.ndarray, "N C"] | Float[np.ndarray, " N"]:
        """Score of each class; of two classes by how much the second's is larger."""
        scores = self._scores(X)
        return scores[:, 1] - scores[:, 0] if scores.shape[1] == 2 else scores

    def predict_proba(self, X: Any) -> Float[np.ndarray, "N C"]:
        """Calibrated probability of each class, in the order of ``classes_``."""
        return chances(self._scores(X), self.temperature_)

    def predict(self, X: Any) -> Any:
        """The most likely class of each photo, whether or not it is sure."""
        best = self._scores(X).argmax(axis=1)
        return self.classes_[best]

    def predict_set(self, X: Any) -> list[list[Any]]:
        """The classes that each photo may be of, most likely first.

        Raises:
            InputError: If there were too few labels to say.
        """
        probabilities = self.predict_proba(X)
        if self.sets_ is None:
            needed = max(photos_for(self.coverage), LEAST_HELD_OUT)
            raise InputError(
                f"sets that cover {self.coverage:.0%} need {needed} labelled photos of classes with two or "
                f"more; this classifier was fitted on {self.validation_.photos}. Label more and fit again."
            )
        order = np.argsort(-probabilities, axis=1, kind="stable")
        sizes = self.sets_.members(probabilities).sum(axis=1)
        return [
            [self.classes_[column] for column in row[:size]]
            for row, size in zip(order, sizes, strict=True)
        ]

    def familiarity(self, X: Any) -> Float[np.ndarray, " N"]:
        """How much each photo looks like one of a known class; larger is more."""
        x = self._ask(X)
        return self.familiarity_.scores(x)

    def is_unknown(self, X: Any) -> Bool[np.ndarray, " N"]:
        """Which photos seem to be of no known class; none where there were too few labels to say."""
        scores = self.familiarity(X)
        if self.rejection_ is None:
            return np.zeros(len(scores), bool)
        return scores < self.rejection_.threshold

    def tested(self) -> list[tuple[Any, Any]]:
        """Label and guess of each photo that the last ``fit`` held out, for accuracy and mistakes.

        The head was chosen by these guesses, which flatters it a little; more than twenty photos of two
        classes leave little room for that.
        """
        check_is_fitted(self, "head_")
        rows = np.flatnonzero(self._guessed >= 0)
        truth, guesses = self._names[self._truth[rows]], self._names[self._guessed[rows]]
        return list(zip(truth.tolist(), guesses.tolist(), strict=True))

    def suspects(self) -> list[Suspect]:
        """Labels of ``fit`` that are probably wrong, surest first; none of one that was loaded or resumed."""
        check_is_fitted(self, "head_")
        return suspects(self.held_out_, self._truth[: len(self.held_out_)])

    def _scores(self, X: Any) -> Float[np.ndarray, "N C"]:
        x = self._ask(X)
        return self.head_.scores(x)

    def _ask(self, X: Any) -> Float[np.ndarray, "N D"]:
        check_is_fitted(self, "head_")
        return _directed(validate_data(self, X, dtype=np.float32, reset=False))

    # -- keeping

    def save(self, folder: str | Path, *, about: dict[str, Any] | None = None) -> None:
        """Write ``classifier.json`` and ``classifier.safetensors``; labels must be texts.

        Args:
            folder: Made where it is not there; files of that name are replaced.
            about: Told again by :meth:`load`, as the encoder's identity.

        Raises:
            InputError: If labels are no texts.
        """
        check_is_fitted(self, "head_")
        if not all(isinstance(name, str) for name in self.classes_.tolist()):
            raise InputError("only classifiers whose labels are texts can be saved.")
        known = self.familiarity_
        arrays = _arrays(self.head_) | _familiar_arrays(known)
        tensors = save_tensors({name: np.ascontiguousarray(a) for name, a in arrays.items()})
        card = {
            "format": FORMAT,
            "version": FORMAT_VERSION,
            **self._card(),
            "shares": [known.within.share, known.overall.share],
            "sha256": storage.sha256_bytes(tensors),
            "about": about or {},
        }
        target = storage.make_folder(Path(folder))
        storage.write_bytes(target / "classifier.safetensors", tensors)
        storage.write_json(target / "classifier.json", card)

    @classmethod
    def load(cls, folder: str | Path) -> "FieldClassifier":
        """Read what :meth:`save` wrote; ``about_`` is what it was told.

        Raises:
            ArtifactError: If it is not there, damaged, or of a newer fieldmark.
        """
        place = Path(folder)
        try:
            card = json.loads((place / "classifier.json").read_text(encoding="utf-8"))
            data = (place / "classifier.safetensors").read_bytes()
        except FileNotFoundError:
            raise ArtifactError(
                f"{place} holds no classifier; FieldClassifier.save writes one."
            ) from None
        except (OSError, UnicodeDecodeError, json.JSONDecodeError) as error:
            raise ArtifactError(f"{place}/classifier.json cannot be read: {error}.") from None
        if not isinstance(card, dict) or card.get("format") != FORMAT:
            raise ArtifactError(f"{place}/classifier.json is no classifier of fieldmark.")
        if card.get("version") != FORMAT_VERSION:
            raise ArtifactError(
                f"{place} has version {card.get('version')}; this fieldmark reads {FORMAT_VERSION}. "
                "Update fieldmark."
            )
        if storage.sha256_bytes(data) != card.get("sha256"):
            raise ArtifactError(
                f"{place}/classifier.safetensors is damaged (its SHA-256 differs); save it again."
            )
        try:
            return cls._from(card, load_tensors(data))
        except (KeyError, TypeError, ValueError) as error:
            raise ArtifactError(f"{place}/classifier.json is damaged: {error}.") from None

    @classmethod
    def _from(cls, card: dict[str, Any], arrays: dict[str, Any]) -> "FieldClassifier":
        made = cls._carded(card)
        made.head_ = _head(made.spec_, arrays, len(made.classes_))
        within, overall = card["shares"]
        made._known = Familiarity(
            Metric(arrays["within"], within),
            arrays["means"],
            Metric(arrays["overall"], overall),
            arrays["mean"],
            Narrowing(arrays["narrowing.mean"], arrays["narrowing.directions"])
            if "narrowing.mean" in arrays
            else None,
        )
        made.held_out_ = np.empty((0, len(made.classes_)))
        made._truth = made._guessed = np.empty(0, np.int64)
        made._names = made.classes_
        made.about_ = card["about"]
        return made

    def choice(self) -> bytes:
        """What the last ``fit`` chose and measured, for :meth:`resumed`; labels must be texts.

        Labels' names are in it and how held-out photos were guessed, but no photo and no embedding.
        """
        check_is_fitted(self, "head_")
        arrays = {"truth": self._truth, "guessed": self._guessed}
        if self.spec_.kind == "logistic":
            # Others are fitted anew at once.
            arrays |= _arrays(self.head_)
        card = self._card() | {"names": self._names.tolist()}
        tensors = save_tensors({name: np.ascontiguousarray(a) for name, a in arrays.items()})
        return json.dumps(card).encode() + b"\n" + tensors

    @classmethod
    def resumed(cls, choice: bytes, X: Any, y: Any) -> "FieldClassifier":
        """``refit`` to labels in another process, from where ``fit`` ended in one before.

        Args:
            choice: From :meth:`choice`.
            X: Embeddings of all labelled photos, by the same encoder.
            y: Their labels.

        Raises:
            ArtifactError: If the choice cannot be read or is of embeddings of another length.
        """
        told, _, tensors = choice.partition(b"\n")
        try:
            card, arrays = json.loads(told), load_tensors(tensors)
            made = cls._carded(card)
            head = Probe(arrays["weight"], arrays["bias"]) if "weight" in arrays else None
            made._truth, made._guessed = arrays["truth"], arrays["guessed"]
            made._names = np.array(card["names"])
        except (KeyError, TypeError, ValueError, SafetensorError) as error:
            raise ArtifactError(f"what was chosen before cannot be read: {error}.") from None
        if made.n_features_in_ != np.shape(X)[1]:
            raise ArtifactError(
                f"what was chosen before is of embeddings of {made.n_features_in_} numbers, these have "
                f"{np.shape(X)[1]}."
            )
        made.held_out_ = np.empty((0, len(made.classes_)))
        return made._gone_on(head, X, y)

    def _card(self) -> dict[str, Any]:
        return {
            "settings": self.get_params(),
            "classes": self.classes_.tolist(),
            "dim": self.n_features_in_,
            "spec": self.spec_._asdict(),
            "temperature": self.temperature_,
            "sets": None if self.sets_ is None else self.sets_._asdict(),
            "rejection": None if self.rejection_ is None else _plain(self.rejection_._asdict()),
            "validation": _plain(self.validation_._asdict()),
        }

    @classmethod
    def _carded(cls, card: dict[str, Any]) -> "FieldClassifier":
        made = cls(**card["settings"])
        made.classes_ = np.array(card["classes"])
        made.n_features_in_ = card["dim"]
        made.spec_ = HeadSpec(**card["spec"])
        made.temperature_ = card["temperature"]
        made.sets_ = None if card["sets"] is None else Sets(**card["sets"])
        told = card["rejection"]
        made.rejection_ = None if told is None else Rejection(**_numbers(told))
        made.validation_ = Validation(**_numbers(card["validation"]))
        return made


def _directed(x: Float[np.ndarray, "N D"]) -> Float[np.ndarray, "N D"]:
    """Unit vectors; one that is zero points nowhere and is given a direction of its own."""
    lengths = np.linalg.norm(x, axis=1, keepdims=True)
    nowhere = lengths[:, 0] == 0
    if nowhere.any():
        x = np.where(nowhere[:, None], np.float32(1), x)
        lengths[nowhere] = x.shape[1] ** 0.5
    return x / lengths


def _carried(head: Head | None, before: Any, now: Any) -> Head | None:
    """A linear head with its rows where the classes are now; new ones begin at zero."""
    if not isinstance(head, Probe):
        return None
    place = {name: row for row, name in enumerate(before.tolist())}
    rows = [place.get(name, -1) for name in now.tolist()]
    weight = np.vstack([head.weight, np.zeros_like(head.weight[:1])])[rows]
    bias = np.append(head.bias, np.float32(0))[rows]
    return Probe(weight, bias.astype(np.float32))


def _arrays(head: Head) -> dict[str, Any]:
    if isinstance(head, Probe):
        return {"weight": head.weight, "bias": head.bias}
    assert isinstance(head, Neighbours)
    return {"memory": head.memory, "labels": head.labels}


def _head(spec: HeadSpec, arrays: dict[str, Any], classes: int) -> Head:
    if spec.kind == "neighbours":
        return Neighbours(arrays["memory"], arrays["labels"], classes, int(spec.setting))
    return Probe(arrays["weight"], arrays["bias"])


def _familiar_arrays(known: Familiarity) -> dict[str, Any]:
    arrays = {
        "within": known.within.root,
        "means": known.means,
        "overall": known.overall.root,
        "mean": known.mean,
    }
    if known.narrowing is not None:
        arrays |= {f"narrowing.{name}": a for name, a in known.narrowing._asdict().items()}
    return arrays


def _plain(told: dict[str, Any]) -> dict[str, Any]:
    """Without NaN, for which JSON has no word."""
    return {k: None if isinstance(v, float) and np.isnan(v) else v for k, v in told.items()}


def _numbers(told: dict[str, Any]) -> dict[str, Any]:
    return {name: float("nan") if value is None else value for name, value in told.items()}
