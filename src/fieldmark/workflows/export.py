"""``fieldmark export``: an encoder or classifier as one ONNX file, or as a hub's folder."""

import json
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Int

from fieldmark.data.catalog import Catalog
from fieldmark.data.decode import decode
from fieldmark.data.look import short_side
from fieldmark.encoder import Encoder
from fieldmark.errors import ArtifactError, ConfigError, OutputError, PhotoError
from fieldmark.evaluation.linear import Probe
from fieldmark.evaluation.retrieval import evaluate_retrieval
from fieldmark.export import Exported, Parity, Pixels, Quantisation, export_onnx, quantise
from fieldmark.label.classifier import FieldClassifier
from fieldmark.nn.classifier import ClassHead, EmbeddingHead
from fieldmark.onnx_encoder import OnnxEncoder, check_whole
from fieldmark.workflows.finetune import load_classifier
from fieldmark.workflows.photos import ShowProgress, find_split, quiet

CHECKED = 32
"""Photos, at most, on which ONNX Runtime is compared with PyTorch."""
CALIBRATED, MEASURED = 128, 256
"""Photos, at most, that 8-bit ranges are read from, and on which the loss is measured."""


class ExportResult(NamedTuple):
    """What was written."""

    summary: dict[str, Any]
    text: str


class Source(NamedTuple):
    """What is exported."""

    encoder: Encoder
    head: ClassHead | EmbeddingHead | None
    classes: list[str]


def export_encoder(
    encoder: Path,
    *,
    onnx: Path | None = None,
    hub: Path | None = None,
    int8: bool = False,
    photos: Path | None = None,
    labels: Path | None = None,
    classifier: Path | None = None,
    progress: ShowProgress = quiet,
) -> ExportResult:
    """Write an encoder as an ONNX file, as a hub's folder, or both.

    Args:
        encoder: Encoder or run folder, or the ``classifier`` folder of ``fieldmark finetune``.
        onnx: ``.onnx`` file to write; one that fieldmark exported is replaced.
        hub: Folder to write as ``Encoder.save_pretrained`` does.
        int8: Whether the ONNX file computes in 8 bits; needs photos.
        photos: Folder, table or shard: to check on, and for 8 bits to calibrate and measure on.
        labels: Table ``path,class,split`` of those photos: rank-1 on its test photos is measured
            before and after, ranges are read from its train photos.
        classifier: Saved by ``fieldmark classify --save``: its calibrated probabilities are in the file.
        progress: Told how far it is.

    Returns:
        What was written, checked and lost, and the licences.

    Raises:
        ArtifactError: If the encoder cannot be loaded or exported, or the ONNX model differs.
        ConfigError: If options do not fit together.
        OutputError: If something else lies where the file should go.
        LabelError: If the table cannot be used.
    """
    _check(onnx, hub, int8, photos, labels)
    source = _load(Path(encoder))
    if classifier is not None:
        source = _with_labels(source, classifier, onnx)
    licences = source.encoder.ledger
    summary: dict[str, Any] = {
        "encoder": source.encoder.identity,
        "network": source.encoder.spec.backbone.config.name,
        "size": source.encoder.size,
        "dim": source.encoder.dim,
        "classes": len(source.classes) if source.head is not None else None,
        "licences": licences.dump(),
    }
    sentences = []
    if hub is not None:
        source.encoder.save_pretrained(hub)
        summary["hub"] = str(hub)
        sentences.append(f"{hub} written, as model hubs expect it.")
    if onnx is not None:
        told, said = _onnx(source, onnx, int8, photos, labels, progress)
        summary |= told
        sentences += said
    return ExportResult(summary, "\n".join([*sentences, _capital(licences.sentence())]))


def _check(
    onnx: Path | None, hub: Path | None, int8: bool, photos: Path | None, labels: Path | None
) -> None:
    if onnx is None and hub is None:
        raise ConfigError("nothing to export to: give --onnx FILE.onnx, --hub FOLDER, or both.")
    if onnx is not None and onnx.suffix != ".onnx":
        raise OutputError(f"--onnx must end in .onnx, got '{onnx.name}'.")
    if int8 and (onnx is None or photos is None):
        raise ConfigError(
            "--int8 needs --onnx and --photos: ranges are read from photos, and what 8 bits lose is "
            "measured on others of them; give a folder of at least 8."
        )
    if labels is not None and photos is None:
        raise ConfigError("--labels names photos; give their folder with --photos.")
    if onnx is None or not onnx.exists():
        return
    try:
        if onnx.is_dir():
            raise OutputError(f"{onnx} is a folder; give the name of a file to write.")
        check_whole(onnx.read_bytes(), str(onnx))
    except (ArtifactError, OSError):
        raise OutputError(
            f"{onnx} exists and is no whole file of fieldmark export; remove it or choose another name."
        ) from None


def _load(folder: Path) -> Source:
    for place in (folder, folder / "classifier"):
        if (place / "classes.json").is_file():
            classifier, classes = load_classifier(place)
            return Source(Encoder.load(place / "encoder", device="cpu"), classifier.head, classes)
    return Source(Encoder.load(folder, device="cpu"), None, [])


def _with_labels(source: Source, folder: Path, onnx: Path | None) -> Source:
    """The encoder with a head that a few labels made.

    Raises:
        ArtifactError: It is of another encoder, or no linear layer.
        ConfigError: There is a head already, or no ONNX file to put it into.
    """
    if source.head is not None or onnx is None:
        raise ConfigError(
            "--classifier puts the head of fieldmark classify into an ONNX file: give --onnx, and an encoder "
            "without a head of its own."
        )
    made = FieldClassifier.load(folder)
    of = made.about_.get("encoder")
    if of != source.encoder.identity:
        raise ArtifactError(
            f"{folder} was fitted on embeddings of encoder {str(of)[:12]}…, and this is "
            f"{source.encoder.identity[:12]}…; export that one, or classify with this one."
        )
    if not isinstance(made.head_, Probe):
        raise ArtifactError(
            f"{folder} asks labelled photos ({made.spec_}), which no ONNX file holds; save one with fieldmark "
            "classify --head logistic."
        )
    weight, bias = (torch.from_numpy(part / made.temperature_).float() for part in made.head_)
    return source._replace(
        head=EmbeddingHead(weight, bias), classes=[str(name) for name in made.classes_]
    )


def _onnx(
    source: Source,
    file: Path,
    int8: bool,
    photos: Path | None,
    labels: Path | None,
    progress: ShowProgress,
) -> tuple[dict[str, Any], list[str]]:
    catalog = None if photos is None else Catalog.open(photos)
    checked = None
    if catalog is not None:
        rows = _spread(np.arange(len(catalog)), CHECKED)
        checked = _decode(catalog, rows, source.encoder)
    exported = export_onnx(
        source.encoder, head=source.head, classes=source.classes, photos=checked or None
    )
    parity = Parity(**json.loads(exported.metadata["parity"]))
    sentences = [_capital(parity.sentence())]
    loss = None
    if int8 and catalog is not None:
        exported, loss, said = _int8(source, exported, catalog, labels, progress)
        sentences.append(said)
    exported.save(file)
    size = file.stat().st_size
    outputs = "embedding and probabilities" if source.head is not None else "embedding"
    first = (
        f"{file} written ({size / 1e6:.1f} MB, {exported.metadata['precision']}): photos in as uint8 "
        f"[B H W 3] of any height and width, {outputs} out."
    )
    summary = {
        "onnx": str(file),
        "bytes": size,
        "precision": exported.metadata["precision"],
        "identity": exported.metadata["identity"],
        "parity": parity._asdict(),
        "int8": loss,
    }
    return summary, [first, *sentences]


def _int8(
    source: Source,
    exported: Exported,
    catalog: Catalog,
    labels: Path | None,
    progress: ShowProgress,
) -> tuple[Exported, dict[str, Any], str]:
    split = None if labels is None else find_split(catalog, labels)[0]
    if split is None:
        every = np.arange(len(catalog))
        train, test = every[0::2], every[1::2]
    else:
        train, test = split.train_rows, split.test_rows
    ranges = _decode(catalog, _spread(train, CALIBRATED), source.encoder)
    measured = test if split is not None else _spread(test, MEASURED)
    if len(ranges) < 4 or len(measured) < 4:
        raise ConfigError(
            f"--int8 needs at least 4 photos to read ranges from and 4 others to measure on; "
            f"{len(ranges)} and {len(measured)} are there; give more photos."
        )
    transformer = source.encoder.spec.backbone.is_transformer
    kind: Quantisation = "dynamic" if transformer else "static"
    reduced = quantise(exported, ranges, kind=kind)
    before, good = _embed(exported.encoder(), catalog, measured, "embedding in fp32", progress)
    after, _ = _embed(reduced.encoder(), catalog, measured, "embedding in int8", progress)
    cosine = (before * after).sum(1)
    loss: dict[str, Any] = {
        "kind": kind,
        "calibrated_on": len(ranges),
        "measured_on": len(cosine),
        "cosine_mean": round(float(cosine.mean()), 6),
        "cosine_least": round(float(cosine.min()), 6),
    }
    said = (
        f"8 bits ({kind}, ranges of {len(ranges)} photos) on {len(cosine)} other photos: cosine to fp32 "
        f"{loss['cosine_mean']:.4f} on average, {loss['cosine_least']:.4f} at worst"
    )
    if split is not None:
        truth = split.test_labels[good]
        ranks = [evaluate_retrieval(x, truth).rank_k(1) for x in (before, after)]
        if np.isfinite(ranks).all():
            loss |= {"rank1_fp32": round(ranks[0], 3), "rank1_int8": round(ranks[1], 3)}
            said += (
                f"; rank-1 of {len(truth)} test photos among each other {ranks[0]:.1f} % before, "
                f"{ranks[1]:.1f} % after ({ranks[1] - ranks[0]:+z.1f})"
            )
    return reduced.telling(quantisation=json.dumps(loss)), loss, said + "."


def _embed(
    encoder: OnnxEncoder,
    catalog: Catalog,
    rows: Int[np.ndarray, " N"],
    what: str,
    progress: ShowProgress,
) -> tuple[Float[np.ndarray, "n D"], Int[np.ndarray, " n"]]:
    """Embeddings of the photos that can be read, and which of the rows those are."""
    vectors, good = [], []
    for item in encoder.stream(catalog, batch_size=16, rows=rows.tolist()):
        if item.embedding is not None:
            vectors.append(item.embedding)
            good.append(item.position)
        progress(what, item.position + 1, len(rows))
    if not vectors:
        raise ConfigError("none of the photos to measure on can be read; run fieldmark check.")
    return np.stack(vectors), np.asarray(good, np.int64)


def _decode(catalog: Catalog, rows: Int[np.ndarray, " N"], encoder: Encoder) -> list[Pixels]:
    """Decoded photos, those that can be."""
    enough = 2 * short_side(encoder.size, encoder.spec.crop)
    pixels = []
    for row in rows.tolist():
        try:
            pixels.append(decode(catalog.read(row), enough=enough).pixels)
        except PhotoError:
            continue
    return pixels


def _spread(rows: Int[np.ndarray, " N"], most: int) -> Int[np.ndarray, " n"]:
    """At most so many of the rows, evenly from all."""
    if len(rows) <= most:
        return rows
    return rows[np.linspace(0, len(rows) - 1, most).round().astype(np.int64)]


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]
