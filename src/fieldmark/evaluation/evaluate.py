"""Every labelled measure of an encoder, and the comparison of two (docs/protocols.md)."""

import csv
import hashlib
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from jaxtyping import Float, Int
from pydantic import Field

from fieldmark.config import Config
from fieldmark.errors import ArtifactError, InputError
from fieldmark.evaluation.calibration import measure_calibration
from fieldmark.evaluation.classification import measure_classification
from fieldmark.evaluation.compare import Interval, Verdict, judge, paired_bootstraps
from fieldmark.evaluation.knn import weighted_knn
from fieldmark.evaluation.linear import label_subset, logistic_probe
from fieldmark.evaluation.retrieval import Matrix, evaluate_retrieval, percent
from fieldmark.evaluation.significance import Gain, combine_seeds

_FORMAT = "fieldmark-evaluation"
_VERSION = 1


class EvalConfig(Config):
    """How encoders are measured; the same for both sides of a comparison."""

    gallery: Literal["test", "train"] = "test"
    """Where test photos look for their class: among each other (leave-one-out, the protocol of the
    fine-grained papers) or among the labelled train photos (query/gallery)."""
    knn_k: int = 200
    """Neighbours that vote; all train photos when there are fewer."""
    knn_temperature: float = 0.1
    """Weights of the votes are exp(cosine / temperature)."""
    probe_strength: float = 20.0
    """Weight of the data against the penalty in logistic regression (scikit-learn's C)."""
    fractions: tuple[float, ...] = (0.5, 0.2, 0.1)
    """Shares of the train labels that further linear probes are given, each in (0, 1)."""
    subset_seeds: int = 3
    """Random subsets that the measures at a fraction are averaged over."""
    linear: bool = True
    """Whether linear probes are fitted at all."""
    sgd_probe: bool = False
    """Whether ``fieldmark eval`` also fits the linear probe of the fine-grained literature."""
    sgd_views: int = Field(default=10, ge=1)
    """Random views of each train photo that it learns from, in turn."""
    seed: int = 0
    """Seeds the subsets."""

    @property
    def seeds(self) -> range:
        """Of the label subsets."""
        return range(self.seed, self.seed + self.subset_seeds)


@dataclass(frozen=True)
class EvalResult:
    """What one encoder reaches on a labelled split."""

    measures: dict[str, float]
    """Percent: ``rank1``, ``rank5``, ``rank10``, ``map``, ``map_at_r``, ``knn``, ``linear``,
    ``linear@50`` and so on; what could not be measured is absent."""
    per_query: dict[str, Float[np.ndarray, " Q"]]
    """The same for each test photo, in [0, 1]; NaN where a photo has none. Means of these times 100
    are the measures."""
    labels: Int[np.ndarray, " Q"]
    """Class of each test photo."""
    classes: list[str]
    predictions: dict[str, Int[np.ndarray, " Q"]] = field(default_factory=dict)
    """Predicted class of each test photo by ``knn`` and ``linear``."""
    train_photos: int = 0
    lone: int = 0
    """Test photos without another of their class: not part of retrieval measures."""
    spread: dict[str, float] = field(default_factory=dict)
    """Standard deviation over label subsets, in points, of the measures at a fraction."""
    classification: dict[str, float] = field(default_factory=dict)
    """Percent: ``top1``, ``top5``, ``recall`` and so on of the linear probe with all labels, see
    :mod:`fieldmark.evaluation.classification`, and ``ece``, its calibration error."""

    def per_class(self, measure: str) -> Float[np.ndarray, " C"]:
        """A measure of each class in percent; NaN for a class without test photos."""
        values = self.per_query[measure]
        return np.array([percent(values[self.labels == c]) for c in range(len(self.classes))])

    def with_predictions(self, name: str, predicted: Int[np.ndarray, " Q"]) -> "EvalResult":
        """The same with one more classifier's answers for the test photos."""
        right = (predicted == self.labels).astype(np.float64)
        return replace(
            self,
            measures={**self.measures, name: percent(right)},
            per_query={**self.per_query, name: right},
            predictions={**self.predictions, name: predicted},
        )

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON; NaN becomes None."""
        return {
            "format": _FORMAT,
            "version": _VERSION,
            "measures": {k: _plain(v) for k, v in self.measures.items()},
            "spread": dict(self.spread),
            "classification": {k: _plain(v) for k, v in self.classification.items()},
            "train_photos": self.train_photos,
            "test_photos": len(self.labels),
            "lone": self.lone,
            "classes": list(self.classes),
            "labels": self.labels.tolist(),
            "predictions": {k: v.tolist() for k, v in self.predictions.items()},
            "per_query": {k: [_plain(x) for x in v] for k, v in self.per_query.items()},
        }

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> "EvalResult":
        """Read what :meth:`to_dict` wrote.

        Raises:
            ArtifactError: If it is something else, or of a newer version.
        """
        if data.get("format") != _FORMAT or data.get("version") != _VERSION:
            raise ArtifactError(
                f"this is not an evaluation of version {_VERSION} (format {data.get('format')!r}, version "
                f"{data.get('version')!r}); evaluate again with this version of fieldmark."
            )
        return cls(
            measures={k: _number(v) for k, v in data["measures"].items()},
            per_query={
                k: np.array([_number(x) for x in v], np.float64)
                for k, v in data["per_query"].items()
            },
            labels=np.array(data["labels"], np.int64),
            classes=list(data["classes"]),
            predictions={k: np.array(v, np.int64) for k, v in data["predictions"].items()},
            train_photos=int(data["train_photos"]),
            lone=int(data["lone"]),
            spread=dict(data["spread"]),
            classification={k: _number(v) for k, v in data.get("classification", {}).items()},
        )


@dataclass(frozen=True)
class Comparison:
    """Gains of one encoder over another on the same photos."""

    start: dict[str, float]
    """Measures of the start, percent."""
    trained: dict[str, float]
    """Measures of the other, percent."""
    gains: dict[str, Interval]
    """Points gained and 95 % interval, for each measure that both have."""
    verdict: Verdict

    def to_dict(self) -> dict[str, Any]:
        """Plain data, in the form that ``fieldmark train --json`` prints."""
        return {
            "verdict": self.verdict.text,
            "sentence": self.verdict.sentence,
            "start": {k: _plain(v) for k, v in self.start.items()},
            "trained": {k: _plain(v) for k, v in self.trained.items()},
            "gain": {k: _plain(v.value) for k, v in self.gains.items()},
            "interval": {
                k: [v.low, v.high] if np.isfinite([v.low, v.high]).all() else None
                for k, v in self.gains.items()
            },
        }

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> "Comparison":
        """Read what :meth:`to_dict` wrote."""
        ends = {k: v or (None, None) for k, v in data["interval"].items()}
        return cls(
            {k: _number(v) for k, v in data["start"].items()},
            {k: _number(v) for k, v in data["trained"].items()},
            {
                k: Interval(_number(v), _number(ends[k][0]), _number(ends[k][1]))
                for k, v in data["gain"].items()
            },
            Verdict(data["verdict"], data["sentence"]),
        )


def evaluation_file(results: Mapping[str, EvalResult], photos: Sequence[str]) -> dict[str, Any]:
    """What ``evaluation.json`` holds of encoders that were measured on the same photos.

    Args:
        results: ``encoder``, and where there is one, what it is held ``against``.
        photos: Paths of the test photos, in the order of the results.
    """
    labels = next(iter(results.values())).labels
    # Names alone: the same photos are below another folder in another place.
    names = "".join(
        f"{path.rpartition('/')[2]}\0{label}\n" for path, label in zip(photos, labels, strict=True)
    )
    return {
        "photos_sha256": hashlib.sha256(names.encode()).hexdigest(),
        "results": {name: side.to_dict() for name, side in results.items()},
    }


def evaluate_encoder(
    train: Matrix,
    train_labels: Int[np.ndarray, " N"],
    test: Float[np.ndarray, "Q D"],
    test_labels: Int[np.ndarray, " Q"],
    classes: list[str],
    config: EvalConfig = EvalConfig(),  # noqa: B008 - frozen
) -> EvalResult:
    """Measure one encoder from its embeddings of a labelled split.

    Retrieval is leave-one-out among the test photos, or searches the train photos
    (``config.gallery``); kNN and linear probes learn from the train photos and are tested on the test
    photos.

    Args:
        train: Embeddings of the labelled train photos; may be empty, then only leave-one-out
            retrieval is measured.
        train_labels: Indices into ``classes``.
        test: Embeddings of the test photos.
        test_labels: Indices into ``classes``.
        classes: Names.
        config: Settings.

    Raises:
        InputError: If an embedding is zero or not finite, labels and embeddings do not match, or the
            train photos are to be searched and there are none.
    """
    for labels in (train_labels, test_labels):
        if len(labels) and not (labels.min() >= 0 and labels.max() < len(classes)):
            raise InputError(
                f"labels run from {labels.min()} to {labels.max()}; with {len(classes)} classes they "
                f"must run from 0 to {len(classes) - 1}."
            )
    test_labels = np.asarray(test_labels, np.int64)
    if config.gallery == "train":
        if not len(train):
            raise InputError(
                "the gallery is to be the labelled train photos, and there are none; give a table with "
                "photos in 'train', or use the gallery 'test'."
            )
        scores = evaluate_retrieval(
            test, test_labels, gallery=train, gallery_labels=np.asarray(train_labels)
        )
    else:
        scores = evaluate_retrieval(test, test_labels)
    per_query: dict[str, npt.NDArray[np.float64]] = {
        "rank1": scores.hits(1),
        "rank5": scores.hits(5),
        "rank10": scores.hits(10),
        "map": scores.average_precision,
        "map_at_r": scores.ap_at_r,
    }
    predictions: dict[str, npt.NDArray[np.int64]] = {}
    spread: dict[str, float] = {}
    classification: dict[str, float] = {}
    if len(train) and len(test):
        predictions["knn"] = weighted_knn(
            train, train_labels, test, classes=len(classes), k=config.knn_k,
            temperature=config.knn_temperature,
        )  # fmt: skip
        if config.linear:
            logits = logistic_probe(
                train, train_labels, classes=len(classes), strength=config.probe_strength
            ).scores(test)
            predictions["linear"] = logits.argmax(axis=1)
            classification = measure_classification(logits, test_labels).measures
            classification["ece"] = measure_calibration(logits, test_labels).ece
        for name, predicted in predictions.items():
            per_query[name] = (predicted == test_labels).astype(np.float64)
        for fraction in config.fractions if config.linear else ():
            right = probe_fraction(
                train, train_labels, test, test_labels, len(classes), fraction, config
            )
            name = f"linear@{fraction * 100:g}"
            per_query[name] = right.mean(axis=0)
            spread[name] = float(right.mean(axis=1).std() * 100)
    return EvalResult(
        measures={name: percent(values) for name, values in per_query.items()},
        per_query=per_query,
        labels=test_labels,
        classes=list(classes),
        predictions=predictions,
        train_photos=len(train),
        lone=scores.lone,
        spread=spread,
        classification=classification,
    )


def probe_fraction(
    train: Matrix,
    train_labels: Int[np.ndarray, " N"],
    test: Float[np.ndarray, "Q D"],
    test_labels: Int[np.ndarray, " Q"],
    classes: int,
    fraction: float,
    config: EvalConfig = EvalConfig(),  # noqa: B008 - frozen
) -> Float[np.ndarray, "S Q"]:
    """Linear probes that are given a part of the train labels: right (1) or wrong (0).

    Args:
        train: Embeddings of the labelled train photos.
        train_labels: 0 to ``classes - 1``.
        test: Embeddings of the test photos.
        test_labels: Their classes.
        classes: Number of classes.
        fraction: In (0, 1]; of every class at least one photo.
        config: Seeds of the subsets, and the probe's strength.

    Returns:
        One line a subset, one column a test photo.
    """
    right = []
    for seed in config.seeds:
        rows = label_subset(np.asarray(train_labels), fraction, seed)
        probe = logistic_probe(
            train[rows],
            np.asarray(train_labels)[rows],
            classes=classes,
            strength=config.probe_strength,
        )
        right.append(probe.predict(test) == test_labels)
    return np.array(right, np.float64)


def subset_table(
    paths: Sequence[str],
    labels: Int[np.ndarray, " N"],
    classes: Sequence[str],
    config: EvalConfig = EvalConfig(),  # noqa: B008 - frozen
) -> str:
    """Which train photos each probe at a fraction was given, as CSV: one line a photo.

    Subsets of one seed are nested, so the column of a seed holds the smallest fraction whose subset
    has the photo (1: only the probe with all labels has it).

    Args:
        paths: Of the train photos.
        labels: Of the train photos; indices into ``classes``.
        classes: Names.
        config: Settings that the probes were fitted with.
    """
    smallest = np.ones((len(paths), len(config.seeds)))
    for column, seed in enumerate(config.seeds):
        for fraction in sorted(config.fractions, reverse=True):
            smallest[label_subset(labels, fraction, seed), column] = fraction
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["path", "class", *(f"seed {seed}" for seed in config.seeds)])
    for path, label, row in zip(paths, labels, smallest, strict=True):
        writer.writerow([path, classes[int(label)], *(f"{share:g}" for share in row)])
    return text.getvalue()


def compare(
    start: EvalResult,
    trained: EvalResult,
) -> Comparison:
    """Gains with intervals, and the verdict.

    Args:
        start: Measures of the starting encoder.
        trained: Measures of the other encoder on the same photos, size and post-processing.

    Raises:
        InputError: If the two were measured on different photos.
    """
    if start.classes != trained.classes or not np.array_equal(start.labels, trained.labels):
        raise InputError(
            f"the two evaluations are of different photos ({len(start.labels)} of "
            f"{len(start.classes)} classes, {len(trained.labels)} of {len(trained.classes)}); "
            "evaluate both encoders on the same split."
        )
    shared = [name for name in start.per_query if name in trained.per_query]
    raw = paired_bootstraps(
        {name: (start.per_query[name], trained.per_query[name]) for name in shared},
        start.labels,
    )
    gains = {name: interval.scaled(100.0) for name, interval in raw.items()}
    queried = ~np.isnan(start.per_query["rank1"])
    verdict = judge(
        start.measures,
        trained.measures,
        gains,
        photos=int(queried.sum()),
        classes=len(np.unique(start.labels[queried])),
    )
    return Comparison(dict(start.measures), dict(trained.measures), gains, verdict)


def gain_over_seeds(
    start: Sequence[EvalResult],
    trained: Sequence[EvalResult],
    measure: str,
) -> Gain:
    """The gain in one measure, over photos and seeds, in points.

    Args:
        start: Of the one side, by seed.
        trained: Of the other side, on the same photos.
        measure: One that all of them have.
    """
    before, after = (
        np.stack([result.per_query[measure] for result in side]) for side in (start, trained)
    )
    return combine_seeds(before, after, trained[0].labels).scaled(100.0)


def two_by_two(
    results: Mapping[tuple[str, str], EvalResult],
    measures: tuple[str, ...] = ("rank1", "map", "linear"),
) -> dict[str, dict[str, dict[str, float | None]]]:
    """{start, trained} x {plain, post-processed} in percent.

    Args:
        results: By (``start`` or ``trained``, ``plain`` or ``post``); missing cells are None.
        measures: Which to show.

    Returns:
        Measure, encoder, processing.
    """
    return {
        measure: {
            encoder: {
                how: _plain(results[encoder, how].measures.get(measure, float("nan")))
                if (encoder, how) in results
                else None
                for how in ("plain", "post")
            }
            for encoder in ("start", "trained")
        }
        for measure in measures
    }


def _plain(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None


def _number(value: float | None) -> float:
    return float("nan") if value is None else float(value)
