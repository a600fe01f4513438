"""``fieldmark classify``: names for photos, from the labels of an index.

OUT.csv                    a line a photo
OUT.csv.problems.csv       photos that cannot be read
.OUT.csv.embeddings.npz    while new photos are embedded; a stopped command goes on from it
"""

import io
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Bool, Float

import fieldmark
from fieldmark import storage
from fieldmark.data.tables import csv_text, read_columns
from fieldmark.errors import ArtifactError, InputError, LabelError, MissingExtraError, OutputError
from fieldmark.index.alike import read_items
from fieldmark.index.index import Space
from fieldmark.index.places import Place, open_index, shown
from fieldmark.label.classifier import FieldClassifier
from fieldmark.label.taxonomy import LEAST, Name, Taxonomy
from fieldmark.workflows.embed import embed_photos
from fieldmark.workflows.label import fit_classifier, labelled_photos
from fieldmark.workflows.photos import ShowProgress, quiet
from fieldmark.workflows.spaces import choose_space, find_encoder

SUFFIXES = (".csv", ".parquet")
_ROWS = 16_384
"""Photos that are classified at a time."""
_LABEL = ("label", "class", "species", "name")
"""What a taxonomy's column of labels may be called, first match wins."""
_NO_RANK = ("label", "class", "name")
DARWIN_RANKS = ("kingdom", "phylum", "class", "order", "family", "subfamily", "genus")
"""Levels that Darwin Core has a term for."""


class Asked(NamedTuple):
    """Photos to name."""

    paths: list[str]
    hashes: list[str]
    vectors: Float[np.ndarray, "N D"]
    refused: int


class Named(NamedTuple):
    """What is said of a photo."""

    path: str
    sha256: str
    label: str
    probability: float
    members: list[str]
    """Of its set; empty where too few labels allow none."""
    unknown: bool
    familiarity: float
    name: Name


def classify(
    index: Place,
    photos: Path | None,
    out: Path,
    *,
    where: str | None = None,
    head: str = "auto",
    coverage: float = 0.9,
    lost: float = 0.05,
    taxonomy: Path | None = None,
    least: float = LEAST,
    darwin_core: bool = False,
    classifier: Path | None = None,
    save: Path | None = None,
    encoder: str | None = None,
    batch_size: int = 64,
    device: str = "auto",
    overwrite: bool = False,
    progress: ShowProgress = quiet,
) -> dict[str, Any]:
    """Name photos by a classifier of the labels in an index.

    Args:
        index: Folder, or a server's URL, with labels.
        photos: Folder, table or shard; None: the index's own photos without a label.
        out: ``.csv`` or ``.parquet`` to write.
        where: Of the index's own photos only these (with or without a label).
        head: "auto", "mean", "logistic" or "neighbours".
        coverage: Share of photos whose label shall be in their set, in (0, 1).
        lost: Share of photos of known labels that may be called unknown, in (0, 1).
        taxonomy: Table with a column ``label`` (or species, name) and a column for each coarser level,
            coarsest first; photos are named at the deepest level that is likely enough.
        least: Probability that a name must reach, in (0, 1].
        darwin_core: Write Darwin Core terms instead.
        classifier: Saved before; nothing is fitted.
        save: Folder to save the classifier in.
        encoder: Whose vectors, as for ``search``: the beginning of an identity, or the encoder's folder.
        batch_size: Photos per forward pass.
        device: Where to embed.
        overwrite: Whether ``out`` may be replaced.
        progress: Told how far it is.

    Returns:
        ``out``, ``photos``, ``refused``, ``labels``, ``labelled``, ``head``, ``accuracy`` (held out; None
        where unknown), ``unknown`` and ``auroc`` (of telling unknown, on held-out labels; None where it
        cannot be said), ``coverage`` (None where no sets could be made), ``mean_set``, and ``levels``:
        photos named at each.

    Raises:
        InputError: Fewer than two labels, or options that do not fit together.
        ArtifactError: A classifier of another encoder, or an encoder that is gone.
        LabelError: A taxonomy that does not fit the labels.
        OutputError: ``out`` is there already.
        MissingExtraError: Parquet without pyarrow.
    """
    _check(out, photos, where, overwrite)
    with open_index(index) as opened:
        space, _ = choose_space(opened.stats(), index, encoder)
        chosen = read_items(opened, "label is not null", identity=space.identity)
        own = None
        if photos is None:
            own = read_items(opened, where or "label is null", identity=space.identity)
    labelled = labelled_photos(chosen)
    if classifier is not None:
        made = _loaded(classifier, space, index)
    else:
        made = fit_classifier(labelled, index, head=head, coverage=coverage, lost=lost)
    tree = None if taxonomy is None else read_taxonomy(taxonomy)
    if tree is not None:
        tree.require([str(name) for name in made.classes_])
    if save is not None:
        made.save(save, about={"encoder": space.identity, "index": shown(index)})
    if own is not None:
        hashes = [item.stamp.sha256 if item.stamp else "" for item in own.items]
        asked = Asked([item.key for item in own.items], hashes, own.vectors, 0)
        work = None
    else:
        assert photos is not None
        work = out.with_name(f".{out.name}.embeddings.npz")
        given = encoder is not None and Path(encoder).is_dir()
        folder = Path(encoder) if encoder is not None and given else find_encoder(index, space)
        asked = _embed(folder, photos, work, out, batch_size, device, progress)
    named = list(_name(made, asked, tree, least))
    _write(out, _darwin(named, tree, space) if darwin_core else _plain(named, tree))
    if work is not None:
        work.unlink(missing_ok=True)
    return _told(out, asked, made, named, tree)


def _check(out: Path, photos: Path | None, where: str | None, overwrite: bool) -> None:
    if out.suffix not in SUFFIXES:
        raise OutputError(f"--out must end in {' or '.join(SUFFIXES)}, got '{out.name}'.")
    if out.suffix == ".parquet":
        _arrow()
    if out.exists() and not overwrite:
        raise OutputError(f"{out} is there already; give another name, or add --overwrite.")
    if photos is not None and where is not None:
        raise InputError(
            "--where chooses among the index's own photos; leave it out where other photos are given."
        )


def _loaded(folder: Path, space: Space, index: Place) -> FieldClassifier:
    made = FieldClassifier.load(folder)
    of = made.about_.get("encoder")
    if of != space.identity:
        raise ArtifactError(
            f"{folder} was fitted on embeddings of encoder {str(of)[:12]}…, and {shown(index)} holds those of "
            f"{space.identity[:12]}…; fit it again."
        )
    return made


def _embed(
    encoder: Path,
    photos: Path,
    work: Path,
    out: Path,
    batch_size: int,
    device: str,
    progress: ShowProgress,
) -> Asked:
    def show(done: int, total: int) -> None:
        progress("embedding photos", done, total)

    # What an earlier command left is of other photos, if it is not of these.
    told = embed_photos(
        encoder,
        photos,
        work,
        batch_size=batch_size,
        device=device,
        overwrite=True,
        progress=show,
    ).summary
    problems = out.with_name(f"{out.name}.problems.csv")
    problems.unlink(missing_ok=True)
    if told["problems"]:
        Path(told["problems"]).replace(problems)
    with np.load(work, allow_pickle=False) as arrays:
        return Asked(
            [str(path) for path in arrays["path"]],
            [str(digest) for digest in arrays["content_hash"]],
            arrays["embedding"].astype(np.float32),
            told["refused"],
        )


def _name(
    made: FieldClassifier, asked: Asked, tree: Taxonomy | None, least: float
) -> Iterator[Named]:
    labels = [str(name) for name in made.classes_]
    flat = Taxonomy((), dict.fromkeys(labels, ())) if tree is None else tree
    for first in range(0, len(asked.paths), _ROWS):
        x = asked.vectors[first : first + _ROWS]
        probabilities = made.predict_proba(x)
        unknown, familiarity = made.is_unknown(x), made.familiarity(x)
        inside: Bool[np.ndarray, "N C"] | None = None
        if made.sets_ is not None:
            inside = made.sets_.members(probabilities)
        names = flat.roll_up(probabilities, labels, least=least)
        order = np.argsort(-probabilities, axis=1, kind="stable")
        for at, best in enumerate(order[:, 0].tolist()):
            members: list[str] = []
            if inside is not None:
                members = [labels[c] for c in order[at, : int(inside[at].sum())]]
            yield Named(
                asked.paths[first + at],
                asked.hashes[first + at],
                labels[best],
                float(probabilities[at, best]),
                members,
                bool(unknown[at]),
                float(familiarity[at]),
                Name(None, None, names[at].probability) if unknown[at] else names[at],
            )


def _plain(named: Sequence[Named], tree: Taxonomy | None) -> list[dict[str, Any]]:
    rows = []
    for one in named:
        row: dict[str, Any] = {
            "path": one.path,
            "label": one.label,
            "probability": round(one.probability, 4),
            "unknown": one.unknown,
            "familiarity": round(one.familiarity, 3),
            "set": "|".join(one.members),
            "set_size": len(one.members),
        }
        if tree is not None:
            row |= {
                "level": one.name.level,
                "name": one.name.name,
                "name_probability": round(one.name.probability, 4),
            }
        rows.append(row)
    return rows


def _darwin(named: Sequence[Named], tree: Taxonomy | None, space: Space) -> list[dict[str, Any]]:
    """Occurrences as GBIF's publishers send them.

    Source:
        Darwin Core quick reference guide, dwc.tdwg.org/terms; basisOfRecord from its vocabulary.
    """
    today = datetime.now(UTC).date().isoformat()
    ranks = [] if tree is None else [rank for rank in DARWIN_RANKS if rank in tree.levels]
    rows = []
    for one in named:
        row: dict[str, Any] = {
            "occurrenceID": f"urn:sha256:{one.sha256}" if one.sha256 else one.path,
            "basisOfRecord": "MachineObservation",
            "occurrenceStatus": "present",
            "associatedMedia": one.path,
            "scientificName": one.name.name,
            # What labels are is not known unless their column says so.
            "taxonRank": None if one.name.level in _NO_RANK else one.name.level,
            "verbatimIdentification": None if one.unknown else one.label,
            "identificationVerificationStatus": "unverified",
            "identifiedBy": f"fieldmark {fieldmark.__version__}, encoder {space.identity[:12]}",
            "dateIdentified": today,
            "identificationRemarks": _remark(one),
        }
        for rank in ranks:
            row[rank] = _above(one, tree, rank)
        rows.append(row)
    return rows


def _remark(one: Named) -> str:
    text = f"probability {one.name.probability if one.name.name else one.probability:.3f}"
    if one.unknown:
        text += "; looks like none of the known labels"
    if len(one.members) > 1:
        text += f"; may be {', '.join(one.members)}"
    return text


def _above(one: Named, tree: Taxonomy | None, rank: str) -> str | None:
    """Names above, and of, the level that the photo is named at."""
    if tree is None or one.name.level is None:
        return None
    place = tree.levels.index(rank)
    if one.name.level == tree.finest:
        return tree.names[one.label][place]
    at = tree.levels.index(one.name.level)
    if place > at:
        return None
    row = next(row for row in tree.names.values() if row[at] == one.name.name)
    return row[place]


def _write(out: Path, rows: list[dict[str, Any]]) -> None:
    if out.suffix == ".parquet":
        arrow = _arrow()
        table = arrow.Table.from_pylist(rows)
        sink = io.BytesIO()
        arrow.parquet.write_table(table, sink)
        storage.write_bytes(out, sink.getvalue())
        return
    names = list(rows[0]) if rows else ["path", "label", "probability"]
    cells = (
        [str(value).lower() if isinstance(value, bool) else value for value in row.values()]
        for row in rows
    )
    storage.write_text(out, csv_text(names, cells))


def _arrow() -> Any:
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError:
        raise MissingExtraError("pyarrow", "parquet", "to write Parquet") from None
    return pyarrow


def read_taxonomy(table: Path) -> Taxonomy:
    """Names at each level for each label, from a table.

    The column of labels is ``label`` (or class, species, name, where there is none); every other
    column is a level, in their order, coarsest first.

    Raises:
        CatalogError: The table cannot be read.
        LabelError: No column of labels, no level, or a label on two lines that differ.
    """
    rows = read_columns(table)
    columns = list(rows[0])
    lowered = {name.lower(): name for name in columns}
    label = next((lowered[name] for name in _LABEL if name in lowered), None)
    levels = [name for name in columns if name != label]
    if label is None or not levels:
        raise LabelError(
            f"{table} is no taxonomy: it has the columns {', '.join(columns)}; give 'label' and one column "
            "for each coarser level, as order, family, genus."
        )
    names: dict[str, tuple[str | None, ...]] = {}
    for number, row in enumerate(rows, 1):
        of = row.get(label)
        if of is None:
            raise LabelError(f"{table}, line {number}: the column '{label}' is empty.")
        told = tuple(row.get(level) for level in levels)
        if names.setdefault(of, told) != told:
            raise LabelError(f"{table} has two lines for '{of}' that differ; leave one.")
    return Taxonomy([level.lower() for level in levels], names, finest=label.lower())


def _told(
    out: Path,
    asked: Asked,
    made: FieldClassifier,
    named: Sequence[Named],
    tree: Taxonomy | None,
) -> dict[str, Any]:
    unknown = [one for one in named if one.unknown]
    at = [one.name.level for one in named if not one.unknown]
    told = made.validation_
    rejected = made.rejection_
    auroc = None if rejected is None or np.isnan(rejected.auroc) else round(rejected.auroc, 4)
    sizes = [len(one.members) for one in named]
    return {
        "out": str(out),
        "photos": len(named),
        "refused": asked.refused,
        "labels": len(made.classes_),
        "head": str(made.spec_),
        "accuracy": None if np.isnan(told.accuracy) else round(told.accuracy, 4),
        "held_out": told.photos,
        "unknown": len(unknown),
        "lost": None if rejected is None else rejected.lost,
        "auroc": auroc,
        "coverage": None if made.sets_ is None else made.sets_.coverage,
        "mean_set": round(float(np.mean(sizes)), 2) if sizes and made.sets_ is not None else None,
        "levels": None
        if tree is None
        else {
            name or "none": at.count(name) for name in (tree.finest, *reversed(tree.levels), None)
        },
    }
