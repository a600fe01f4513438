"""``fieldmark eval``: what one encoder reaches on a folder of photos, alone or against another."""

import csv
import io
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from fieldmark import storage
from fieldmark.data.catalog import Catalog
from fieldmark.data.decode import decode
from fieldmark.data.sampling import MultiView, ViewSpec
from fieldmark.data.splits import Split, match_split
from fieldmark.data.store import PhotoStore, choose_short_side
from fieldmark.data.views import ViewMaker
from fieldmark.encoder import Encoder
from fieldmark.errors import CatalogError, LabelError, PhotoError
from fieldmark.evaluation.classification import confusion_matrix, confusion_table
from fieldmark.evaluation.compare import Verdict
from fieldmark.evaluation.evaluate import (
    Comparison,
    EvalConfig,
    EvalResult,
    compare,
    evaluate_encoder,
    evaluation_file,
    subset_table,
)
from fieldmark.evaluation.labelfree import (
    LabelFree,
    gain_of_views,
    judge_without_labels,
    measure_views,
)
from fieldmark.evaluation.linear import sgd_probe
from fieldmark.rng import mix, seed_of

ShowProgress = Callable[..., None]
VIEW_PHOTOS = 512
"""Photos that label-free measures are taken on, at most."""
_SEEN_SHARE = 0.8
"""Part of each side that a view shows: two opposite corners of a photo overlap by half its area."""


# Crops and flips only, as the fine-grained papers train their linear classifiers.
_PROBE_VIEWS: dict[str, Any] = {
    "scale": (0.08, 1.0),
    "jitter_probability": 0.0,
    "gray": 0.0,
    "blur": 0.0,
}


class Evaluation(NamedTuple):
    """Everything that was measured."""

    data: dict[str, Any]
    """Plain data for ``--json``."""
    result: EvalResult | None
    against: EvalResult | None
    comparison: Comparison | None


def evaluate(
    encoder: Path,
    photos: Path,
    *,
    labels: Path | None = None,
    against: Path | None = None,
    out: Path | None = None,
    config: EvalConfig = EvalConfig(),  # noqa: B008 - frozen
    device: str = "auto",
    batch_size: int = 64,
    progress: ShowProgress | None = None,
) -> Evaluation:
    """Measure an encoder, and its gain over another one on the same photos.

    Labels come from the table ``labels``, else from the source itself when it names classes (class
    folders, or a table with a label column). Train photos of the split teach kNN and linear probes;
    test photos are queries and gallery. Without any split all labelled photos are test photos, and
    only retrieval is measured. Without labels, label-free measures only.

    Args:
        encoder: Encoder or run folder.
        photos: Folder, table or shards.
        labels: Table path, class, split.
        against: Encoder or run folder to compare with; it takes the place of the start.
        out: Folder for ``evaluation.json``, ``photos.csv`` (one line a test photo),
            ``confusion.csv`` (the linear probe's test photos by true and predicted class) and
            ``label_subsets.csv`` (which train photos each probe at a fraction was given).
        config: Settings.
        device: Where to compute.
        batch_size: Photos per forward pass.
        progress: Called with what, done, total.

    Raises:
        LabelError: If the table is wrong, or no labelled test photo can be read.
        CatalogError: If the source holds no photo.
        ArtifactError: If an encoder cannot be loaded.
    """
    show = progress or _silent
    encoders = {"encoder": Encoder.load(encoder, device=device)}
    if against is not None:
        encoders["against"] = Encoder.load(against, device=device)
    catalog = Catalog.open(photos)
    if not len(catalog):
        raise CatalogError(f"{photos} holds no photo; give a folder, table or tar with photos.")
    if out is not None:
        storage.make_folder(out)
    split, source = _labels(catalog, labels)
    job = _Job(catalog, encoders, batch_size, show)
    if split is None:
        data = _without_labels(job, config)
        results: dict[str, EvalResult] = {}
        comparison = None
        read = None
    else:
        results, read = _with_labels(job, split, config)
        comparison = compare(results["against"], results["encoder"]) if against else None
        data = _summary(results, comparison)
    data = {
        "encoder": str(encoder),
        "against": None if against is None else str(against),
        "photos": len(catalog),
        "labels": source,
        "size": encoders["encoder"].size,
        "gallery": config.gallery,
        "notes": _notes(encoders, source),
        **data,
        "left_out": [
            {"path": p, "code": e.code, "detail": e.detail} for p, e in job.problems.items()
        ],
    }
    found = Evaluation(data, results.get("encoder"), results.get("against"), comparison)
    if out is not None:
        _write(out, found, catalog, read, config)
    return found


class _Job:
    """Embeds rows of a catalog with each encoder and remembers what could not be read."""

    def __init__(
        self,
        catalog: Catalog,
        encoders: dict[str, Encoder],
        batch_size: int,
        progress: ShowProgress,
    ) -> None:
        self.catalog, self.encoders = catalog, encoders
        self.batch_size, self.progress = batch_size, progress
        self.problems: dict[str, PhotoError] = {}

    def embed(
        self, name: str, rows: npt.NDArray[np.int64]
    ) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.bool_]]:
        """Embeddings of some rows, and which of them could be read whole."""
        encoder = self.encoders[name]
        result = np.zeros((len(rows), encoder.dim), np.float32)
        good = np.zeros(len(rows), bool)
        stream = encoder.stream(self._bytes(rows), batch_size=self.batch_size)
        for done, item in enumerate(stream, 1):
            path = self.catalog[int(rows[item.position])].path
            if item.problem is not None:
                # A read error is already known and says more than "no image data".
                self.problems.setdefault(path, item.problem)
            elif item.embedding is not None:
                result[item.position], good[item.position] = item.embedding, True
            self.progress(f"embedding with {name}", done, len(rows))
        return result, good

    def _bytes(self, rows: npt.NDArray[np.int64]) -> Iterator[bytes]:
        for row in rows:
            try:
                yield self.catalog.read(int(row))
            except PhotoError as error:
                self.problems.setdefault(self.catalog[int(row)].path, error)
                yield b""

    def random_views(
        self, name: str, rows: npt.NDArray[np.int64], config: EvalConfig
    ) -> list[npt.NDArray[np.float32]]:
        """Embeddings of the same rows in ``sgd_views`` random crops each."""
        encoder = self.encoders[name]
        spec = ViewSpec(size=encoder.size, **_PROBE_VIEWS)
        result = [np.empty((len(rows), encoder.dim), np.float32) for _ in range(config.sgd_views)]
        with tempfile.TemporaryDirectory() as place:
            side = choose_short_side(encoder.size, spec.scale[0], len(rows), folder=Path(place))
            store = PhotoStore.build(
                self.catalog, Path(place), short_side=side, include_damaged=True, rows=rows.tolist()
            )
            maker = ViewMaker(
                store,
                MultiView(specs=(spec,)),
                seed=seed_of("sgd-probe", "views", config.seed),
                device=encoder.device,
            )
            done, total = 0, len(rows) * config.sgd_views
            for epoch, embeddings in enumerate(result):
                for begin in range(0, len(rows), self.batch_size):
                    part = slice(begin, begin + self.batch_size)
                    images = maker.make(rows[part], epoch)[0].images
                    embeddings[part] = encoder.encode(images).cpu().numpy()
                    done += len(images)
                    self.progress(f"views for the SGD probe, {name}", done, total)
        return result

    def views(self, rows: npt.NDArray[np.int64]) -> Iterator[npt.NDArray[np.uint8]]:
        """Two opposite corners of each photo, the second mirrored, one after the other."""
        for row in rows:
            try:
                pixels = decode(self.catalog.read(int(row))).pixels
            except PhotoError as error:
                self.problems.setdefault(self.catalog[int(row)].path, error)
                continue
            high, wide = (max(1, round(_SEEN_SHARE * side)) for side in pixels.shape[:2])
            yield pixels[:high, :wide]
            yield pixels[-high:, -wide:][:, ::-1]


def _labels(catalog: Catalog, table: Path | None) -> tuple[Split | None, str | None]:
    """The split, and where it comes from in words."""
    if table is not None:
        return match_split(catalog, table), str(table)
    named = np.array([row.row for row in catalog.rows if row.label is not None], np.int64)
    splits = np.array([catalog[int(row)].split or "" for row in named])
    classes = sorted({str(catalog[int(row)].label) for row in named})
    if len(classes) < 2:
        return None, None
    index = {name: i for i, name in enumerate(classes)}
    numbers = np.array([index[str(catalog[int(row)].label)] for row in named], np.int64)
    if (splits == "test").any():
        halves = splits == "train", splits == "test"
        return _split(named, numbers, classes, *halves), "the source's own classes and splits"
    none = np.zeros(len(named), bool)
    return _split(named, numbers, classes, none, ~none), "the source's own classes, not split"


def _split(
    rows: npt.NDArray[np.int64],
    numbers: npt.NDArray[np.int64],
    classes: list[str],
    train: npt.NDArray[np.bool_],
    test: npt.NDArray[np.bool_],
) -> Split:
    return Split(rows[train], numbers[train], rows[test], numbers[test], classes)


def _with_labels(
    job: _Job, split: Split, config: EvalConfig
) -> tuple[dict[str, EvalResult], Split]:
    """Results of each encoder on the photos that could be read, and these photos."""
    rows = np.concatenate([split.train_rows, split.test_rows])
    numbers = np.concatenate([split.train_labels, split.test_labels])
    is_test = np.arange(len(rows)) >= len(split.train_rows)
    embedded = {name: job.embed(name, rows) for name in job.encoders}
    good = np.logical_and.reduce([readable for _, readable in embedded.values()])
    train, test = good & ~is_test, good & is_test
    if not test.any():
        first = next(iter(job.problems.items()))
        raise LabelError(
            f"none of the {is_test.sum()} labelled test photos can be read (first: {first[0]}, "
            f"{first[1]}); run fieldmark check on them."
        )
    results = {}
    for step, (name, (x, _)) in enumerate(embedded.items()):
        job.progress("measuring", step, len(embedded))
        results[name] = evaluate_encoder(
            x[train], numbers[train], x[test], numbers[test], split.classes, config
        )
        if config.sgd_probe and train.any():
            views = job.random_views(name, rows[train], config)
            probe = sgd_probe(
                [(view, numbers[train]) for view in views],
                classes=len(split.classes),
                seed=config.seed,
            )
            results[name] = results[name].with_predictions("linear_sgd", probe.predict(x[test]))
    job.progress("measuring", len(embedded), len(embedded))
    return results, _split(rows, numbers, split.classes, train, test)


def _without_labels(job: _Job, config: EvalConfig) -> dict[str, Any]:
    rows = np.arange(len(job.catalog))
    rows = np.sort(rows[np.argsort(mix("views", config.seed, rows), kind="stable")][:VIEW_PHOTOS])
    measured: dict[str, LabelFree] = {}
    for name, encoder in job.encoders.items():
        parts = []
        for done, item in enumerate(encoder.stream(job.views(rows), batch_size=job.batch_size), 1):
            if item.embedding is not None:
                parts.append(item.embedding)
            job.progress(f"views under {name}", done // 2, len(rows))
        if not parts:
            first = next(iter(job.problems.items()))
            raise CatalogError(
                f"none of {len(rows)} photos of {job.catalog.source} can be read (first: {first[0]}, "
                f"{first[1]}); run fieldmark check on them."
            )
        x = np.stack(parts)
        measured[name] = measure_views(x[0::2], x[1::2])
    trained = measured["encoder"]
    data: dict[str, Any] = {"measures": trained.to_dict(), "test_photos": 0}
    if "against" not in measured:
        verdict = Verdict("not measured", judge_without_labels({}, {}, None, photos=0).sentence)
        return {**data, "verdict": verdict.text, "sentence": verdict.sentence}
    start = measured["against"]
    gain = gain_of_views(start, trained, seed=config.seed)
    verdict = judge_without_labels(
        start.to_dict(), trained.to_dict(), gain, photos=len(trained.found)
    )
    ends = [gain.low, gain.high]
    return {
        **data,
        "verdict": verdict.text,
        "sentence": verdict.sentence,
        "start": start.to_dict(),
        "trained": trained.to_dict(),
        "gain": {"view_recall": gain.value},
        "interval": {"view_recall": ends if np.isfinite(ends).all() else None},
    }


def _summary(results: dict[str, EvalResult], comparison: Comparison | None) -> dict[str, Any]:
    result = results["encoder"]
    data: dict[str, Any] = {
        "train_photos": result.train_photos,
        "test_photos": len(result.labels),
        "classes": len(np.unique(result.labels)),
        "lone": result.lone,
        "measures": {k: v if np.isfinite(v) else None for k, v in result.measures.items()},
        "spread": result.spread,
    }
    if result.classification:
        # Of the linear probe with all labels; on both sides where two encoders are compared.
        data["classification"] = {
            name: {k: v if np.isfinite(v) else None for k, v in side.classification.items()}
            for name, side in results.items()
        }
    return data if comparison is None else {**data, **comparison.to_dict()}


def _notes(encoders: dict[str, Encoder], source: str | None) -> list[str]:
    notes = []
    if source is not None and source.endswith("not split"):
        notes.append(
            "Photos are not split into train and test: some may have been trained on, and kNN and "
            "linear probes are left out. Give --labels with a split for the full measures."
        )
    if "against" in encoders:
        one, other = encoders["encoder"], encoders["against"]
        if one.size != other.size:
            notes.append(
                f"Input sizes differ ({one.size} and {other.size} px), so the gain is not of training alone."
            )
        if one.post != other.post:
            notes.append("Post-processing differs, so the gain is not of training alone.")
    return notes


def _write(
    out: Path, found: Evaluation, catalog: Catalog, read: Split | None, config: EvalConfig
) -> None:
    sides = {"encoder": found.result, "against": found.against}
    full = {name: side for name, side in sides.items() if side is not None}
    if found.result is None or read is None:
        storage.write_json(out / "evaluation.json", {**found.data, "results": {}})
        return
    tests = [catalog[int(row)].path for row in read.test_rows]
    storage.write_json(out / "evaluation.json", {**found.data, **evaluation_file(full, tests)})
    if len(read.train_rows) and config.linear:
        paths = [catalog[int(row)].path for row in read.train_rows]
        table = subset_table(paths, read.train_labels, read.classes, config)
        storage.write_text(out / "label_subsets.csv", table)
    for name, side in sides.items():
        if side is not None and "linear" in side.predictions:
            counts = confusion_matrix(side.labels, side.predictions["linear"], len(side.classes))
            file = "confusion.csv" if name == "encoder" else f"confusion_{name}.csv"
            storage.write_text(out / file, confusion_table(counts, side.classes))
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    known = {name: side for name, side in sides.items() if side is not None}
    measures = list(found.result.per_query)
    guesses = list(found.result.predictions)
    header = [
        f"{side}.{m}" for side in known for m in [*measures, *(f"{g} class" for g in guesses)]
    ]
    writer.writerow(["path", "class", *header])
    classes = found.result.classes
    for i, row in enumerate(read.test_rows):
        cells: list[Any] = [catalog[int(row)].path, classes[int(found.result.labels[i])]]
        for side in known.values():
            cells += [_cell(side.per_query[m][i]) for m in measures]
            cells += [classes[int(side.predictions[g][i])] for g in guesses]
        writer.writerow(cells)
    storage.write_text(out / "photos.csv", text.getvalue())


def _cell(value: float) -> str:
    return "" if np.isnan(value) else f"{value:.6g}"


def _silent(what: str, done: int, total: int, note: str = "") -> None:
    pass
