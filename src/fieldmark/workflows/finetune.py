"""``fieldmark finetune``: teach a whole encoder its classes from labels, and measure the classifier.

OUT/
├── classifier/encoder/      the fine-tuned encoder, an artifact like any other
├── classifier/head.safetensors  classifier/classes.json
├── result.json              the contract of --json     ├── confusion.csv  photos.csv
└── store/  checkpoints/  metrics.jsonl  training.json
"""

import csv
import hashlib
import io
import json
import logging
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from safetensors.torch import save as to_safetensors

from fieldmark import __version__, rng, runtime, storage
from fieldmark.backbones.provenance import Provenance
from fieldmark.backbones.weights import read_tensors
from fieldmark.data.benchmarks.folders import told_licence
from fieldmark.data.catalog import Catalog
from fieldmark.data.splits import Split
from fieldmark.data.store import PhotoStore, begun_short_side
from fieldmark.data.views import BatchSource, center_views
from fieldmark.encoder import Encoder
from fieldmark.errors import ArtifactError, LabelError
from fieldmark.evaluation.classification import (
    Classification,
    confusion_table,
    measure_classification,
)
from fieldmark.evaluation.compare import paired_bootstraps
from fieldmark.nn.classifier import ClassHead, Classifier
from fieldmark.training.finetune import FinetuneConfig, SupervisedObjective, build_classifier
from fieldmark.training.lock import hold_run
from fieldmark.training.loop import FitResult, fit
from fieldmark.workflows.photos import (
    Say,
    ShowProgress,
    affordable_batch,
    find_split,
    quiet,
    say_nothing,
    sharp_side,
    usable_split,
)
from fieldmark.workflows.run import claim_folder
from fieldmark.workflows.train import narrator, on_device

_log = logging.getLogger("fieldmark")
_HEAD, _CLASSES, _RUN = "head.safetensors", "classes.json", "finetune.json"


def finetune(
    encoder: Path,
    photos: Path,
    out: Path,
    *,
    labels: Path | None = None,
    config: FinetuneConfig = FinetuneConfig(),  # noqa: B008 - frozen
    store: Path | None = None,
    device: str = "auto",
    progress: ShowProgress = quiet,
    say: Say = _log.info,
) -> dict[str, Any] | None:
    """Fine-tune an encoder on the labelled train photos; measure it once on the test photos.

    Called again with the same arguments it continues where it stopped. The last epoch counts,
    never the best on test.

    Args:
        encoder: Encoder or run folder; ``RUN/encoders/start`` gives the plain supervised reference.
        photos: Folder, table or shards.
        out: Folder for classifier, measures and checkpoints.
        labels: Table ``path,class,split``; None: the photos' own folders ``train`` and ``test``.
        config: Settings.
        store: Folder of decoded photos that several runs share, complete; by default the run's own.
        device: ``auto`` or a torch device.
        progress: Told how far each part is.
        say: Told what the user should know.

    Returns:
        The contract of ``--json``; None in all processes but the first.

    Raises:
        ArtifactError: The encoder cannot be loaded.
        LabelError: No labels, fewer than two classes, or no train or test photo that can be read.
        OutputError: ``out`` holds something else, or a run with other settings.
    """
    began = time.time()
    where = runtime.pick_device(device)
    with runtime.processes(device=where), ExitStack() as stack:
        start = Encoder.load(encoder, device="cpu")
        config = config.for_start(start.provenance)
        catalog = Catalog.open(Path(photos))
        split, told = _labels(catalog, labels)
        out = Path(out)
        if runtime.rank() == 0:
            claim_folder(out, _RUN, "a fine-tuned classifier")
            storage.write_json(
                out / _RUN, {"format": "fieldmark-finetune", "fieldmark": __version__}
            )
            stack.enter_context(hold_run(out))
        else:
            say, progress = say_nothing, quiet
        runtime.barrier()
        if store is None and runtime.rank() == 0:
            _decode(catalog, split, out / "store", start.size, config, progress)
        runtime.barrier()
        kept = PhotoStore.open(store or out / "store")
        usable = _readable(split, kept, say)
        notes = _notes(split, usable)
        say(f"start: {start.spec.backbone.config.name}, {start.provenance.sentence()}")
        train, lowered = affordable_batch(config.train, len(usable.train_rows))
        if lowered:
            notes.append(lowered[0].upper() + lowered[1:])
        config = config.model_copy(update={"train": train})
        for note in notes:
            say(note)
        seed = rng.seed_of("heads", train.seed)
        objective = SupervisedObjective(
            config,
            build_classifier(start.spec, len(split.classes), config, seed=seed),
            _by_row(usable, len(catalog)),
        )
        held = on_device(kept, where)
        source = BatchSource(
            held,
            usable.train_rows,
            objective.views(config, start.size),
            batch_size=train.batch_size,
            seed=train.seed,
            device=where,
        )
        fitted = fit(
            objective,
            source,
            train,
            out,
            observer=narrator(progress, say),
            identity=_identity(start, usable, catalog, config),
            device=where,
        )
        if runtime.rank() != 0:
            return None
        save_classifier(
            out / "classifier",
            objective.classifier,
            split.classes,
            card={
                "role": "fine-tuned with labels",
                "photos": len(usable.train_rows),
                "photos_source": Path(photos).resolve().name,
                "photos_licence": told_licence(Path(photos)),
                "settings": config.dump(),
            },
            provenance=_provenance(start.provenance, usable, Path(photos)),
        )
        # What is measured is what was saved.
        classifier, classes = load_classifier(out / "classifier")
        logits = classify(classifier.to(where), held, usable.test_rows, where, progress)
        found = measure_classification(logits, usable.test_labels)
        result = {
            "encoder": str(encoder),
            "labels": told,
            "size": start.size,
            "classes": len(classes),
            "train_photos": len(usable.train_rows),
            "test_photos": len(usable.test_rows),
            **_measured(found, logits, usable, classes, fitted),
            "epochs": fitted.epochs,
            "steps": fitted.step,
            "precision": fitted.precision,
            "images_per_second": round(fitted.images_per_second, 1),
            "seconds": round(time.time() - began, 1),
            "settings": config.dump(),
            "notes": [*notes, *fitted.notes],
            "left_out": [
                {"path": r.path, "code": r.code, "detail": r.detail}
                for r in kept.records
                if r.status == "refused"
            ],
            "classifier": str(out / "classifier"),
        }
        _write(out, found, logits, usable, classes, kept)
        storage.write_json(out / "result.json", result)
        return result


def _labels(catalog: Catalog, table: Path | None) -> tuple[Split, str]:
    split, told = find_split(catalog, table)
    if split is None or not len(split.train_rows):
        raise LabelError(
            f"{catalog.source} names no labelled train and test photos of its own; give --labels with "
            "a table path,class,split, or photos in train/CLASS/ and test/CLASS/."
        )
    _check_classes(split, told)
    return split, told


def _check_classes(split: Split, told: str) -> None:
    classes = np.unique(split.train_labels)
    if len(classes) < 2:
        only = split.classes[int(classes[0])]
        raise LabelError(
            f"all {len(split.train_rows)} train photos of {told} are of one class, '{only}'; telling "
            "classes apart needs at least two."
        )


def _decode(
    catalog: Catalog,
    split: Split,
    folder: Path,
    size: int,
    config: FinetuneConfig,
    progress: ShowProgress,
) -> None:
    rows = np.concatenate([split.train_rows, split.test_rows])
    # A run that goes on keeps its photos as they are, however full the disk has become.
    side = begun_short_side(folder) or sharp_side(
        size, config.smallest_crop, len(rows), folder=folder
    )
    PhotoStore.build(
        catalog,
        folder,
        short_side=side,
        rows=rows.tolist(),
        progress=lambda done, total: progress("decoding photos", done, total),
    )


def _readable(split: Split, store: PhotoStore, say: Say) -> Split:
    """Those of the labelled photos that can be used."""
    usable = usable_split(split, np.asarray(store.usable, np.int64))
    for name, before, after in (
        ("train", split.train_rows, usable.train_rows),
        ("test", split.test_rows, usable.test_rows),
    ):
        if not len(after):
            raise LabelError(
                f"none of the {len(before)} labelled {name} photos can be read; run fieldmark check on "
                "them."
            )
    _check_classes(usable, "the labels that can be read")
    for record in store.records[:3]:
        say(f"not used: {record.path} ({record.code}: {record.detail})")
    return usable


def _notes(split: Split, usable: Split) -> list[str]:
    notes = []
    lost = len(split.train_rows) + len(split.test_rows)
    lost -= len(usable.train_rows) + len(usable.test_rows)
    if lost:
        notes.append(f"{lost} labelled photos cannot be read and are left out.")
    unseen = np.setdiff1d(usable.test_labels, usable.train_labels)
    if len(unseen):
        shown = ", ".join(split.classes[int(label)] for label in unseen[:3])
        notes.append(
            f"{len(unseen)} classes have test photos and no train photos ({shown}): none of those test "
            "photos can be right."
        )
    return notes


def _by_row(split: Split, count: int) -> Int[torch.Tensor, " R"]:
    # Test photos stay without a label here: they could not train even by mistake.
    labels = torch.full((count,), -1, dtype=torch.long)
    labels[torch.from_numpy(split.train_rows)] = torch.from_numpy(split.train_labels)
    return labels


def _identity(
    start: Encoder, split: Split, catalog: Catalog, config: FinetuneConfig
) -> dict[str, Any]:
    told = [split.train_rows.tolist(), split.train_labels.tolist(), split.classes]
    settings = config.dump()
    del settings["train"]
    return {
        "photos": {"count": len(split.train_rows), "fingerprint": catalog.fingerprint()},
        "labels": hashlib.sha256(json.dumps(told).encode()).hexdigest(),
        "encoder": start.identity,
        **settings,
    }


def _provenance(before: Provenance, split: Split, photos: Path) -> Provenance:
    """The same, and that it has now seen labels."""
    name = photos.resolve().name
    classes = len(np.unique(split.train_labels))
    seen = f"{len(split.train_rows)} photos of {classes} classes of {name}"
    kept = before.labels_seen not in {"none", "unknown"}
    data = name if before.how == "random" else f"{before.data}, then {name}"
    return before.model_copy(
        update={
            "how": "supervised",
            "data": data,
            "labels_seen": f"{before.labels_seen}; {seen}" if kept else seen,
            "notes": (
                *before.notes,
                f"started as: {before.sentence()}",
                "fine-tuned with labels by fieldmark finetune",
            ),
        }
    )


def save_classifier(
    folder: Path,
    classifier: Classifier,
    classes: list[str],
    *,
    card: dict[str, Any],
    provenance: Provenance,
) -> None:
    """Write the encoder as an artifact, the head as safetensors and the classes as JSON.

    Args:
        folder: Gets ``encoder/``, ``head.safetensors`` and ``classes.json``.
        classifier: What to save; its encoder is copied.
        classes: Names, in the order of the logits.
        card: For the encoder's card.
        provenance: Of the fine-tuned encoder.
    """
    storage.make_folder(folder)
    encoder = Encoder(classifier.spec, card, device="cpu")
    encoder.spec.backbone.provenance = provenance
    encoder.save(folder / "encoder")
    head = {k: v.detach().cpu().contiguous() for k, v in classifier.head.state_dict().items()}
    storage.write_bytes(folder / _HEAD, to_safetensors(head))
    # Written last and with the encoder's identity: a head belongs to one encoder only.
    storage.write_json(folder / _CLASSES, {"classes": classes, "encoder": encoder.identity})


def load_classifier(folder: Path) -> tuple[Classifier, list[str]]:
    """Read what :func:`save_classifier` wrote, in evaluation mode on the CPU.

    Raises:
        ArtifactError: If a part is missing, damaged, or of another encoder.
    """
    folder = Path(folder)
    encoder = Encoder.load(folder / "encoder", device="cpu")
    try:
        told = json.loads((folder / _CLASSES).read_text(encoding="utf-8"))
        classes, identity = list(told["classes"]), told["encoder"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ArtifactError(
            f"{folder / _CLASSES} is missing or damaged ({error}); run fieldmark finetune again."
        ) from None
    if identity != encoder.identity:
        raise ArtifactError(
            f"the head in {folder} was trained with encoder {str(identity)[:12]}…, and beside it lies "
            f"{encoder.identity[:12]}…; copy the whole folder again."
        )
    head = ClassHead(encoder.spec.raw_dim, len(classes))
    try:
        head.load_state_dict(read_tensors(folder / _HEAD))
    except RuntimeError as error:
        raise ArtifactError(
            f"{folder / _HEAD} does not fit {len(classes)} classes of {encoder.spec.raw_dim} numbers: "
            f"{str(error).splitlines()[-1].strip()}"
        ) from None
    return Classifier(encoder.spec, head).eval().requires_grad_(False), classes


def classify(
    classifier: Classifier,
    store: Any,
    rows: Int[np.ndarray, " N"],
    device: torch.device,
    progress: ShowProgress = quiet,
    *,
    batch_size: int = 64,
) -> Float[np.ndarray, "N C"]:
    """Logits of rows of a photo store, from the plain look at each photo."""
    logits = np.empty((len(rows), classifier.classes), np.float32)
    spec = classifier.spec
    for begin in range(0, len(rows), batch_size):
        part = np.asarray(rows[begin : begin + batch_size], np.int64)
        view = center_views(store, part, spec.size, spec.crop, device=device)
        logits[begin : begin + len(part)] = classifier.predict(view.images).cpu().numpy()
        progress("classifying test photos", begin + len(part), len(rows))
    return logits


def _measured(
    found: Classification,
    logits: Float[np.ndarray, "N C"],
    split: Split,
    classes: list[str],
    fitted: FitResult,
) -> dict[str, Any]:
    right = (logits.argmax(1) == split.test_labels).astype(np.float64)
    ends = paired_bootstraps({"top1": (np.zeros_like(right), right)}, split.test_labels)["top1"]
    low, high = 100 * ends.low, 100 * ends.high
    m = found.measures
    wrong = found.confusion.copy()
    np.fill_diagonal(wrong, 0)
    worst = np.argsort(-wrong, axis=None, kind="stable")[:5]
    pairs = [divmod(int(place), len(classes)) for place in worst if wrong.flat[place]]
    return {
        "measures": dict(m),
        "interval": {"top1": [low, high] if np.isfinite([low, high]).all() else None},
        "confused": [
            {"true": classes[a], "predicted": classes[b], "photos": int(wrong[a, b])}
            for a, b in pairs
        ],
        "sentence": (
            f"Fine-tuned with the labels of {len(split.train_rows):,} photos of "
            f"{len(np.unique(split.train_labels)):,} classes for {fitted.epochs:g} epochs: "
            f"{m['top1']:.1f} % of {len(right):,} test photos are given their class "
            f"(five guesses: {m['top5']:.1f} %), macro recall {m['recall']:.1f} %."
        ),
    }


def _write(
    out: Path,
    found: Classification,
    logits: Float[np.ndarray, "N C"],
    split: Split,
    classes: list[str],
    store: PhotoStore,
) -> None:
    storage.write_text(out / "confusion.csv", confusion_table(found.confusion, classes))
    shares = torch.from_numpy(logits).softmax(1).numpy()
    names = store.paths
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["path", "class", "predicted", "probability"])
    for row, label, share in zip(split.test_rows, split.test_labels, shares, strict=True):
        guess = int(share.argmax())
        writer.writerow([names[row], classes[label], classes[guess], f"{share[guess]:.4f}"])
    storage.write_text(out / "photos.csv", text.getvalue())
