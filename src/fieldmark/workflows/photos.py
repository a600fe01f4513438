"""Which photos a run trains on and which it is tested on, decoded and ready."""

import logging
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Int, Int64

from fieldmark import rng, runtime
from fieldmark.backbones.backbone import Backbone
from fieldmark.data.audit import AuditConfig, likeness, near_groups
from fieldmark.data.catalog import Catalog
from fieldmark.data.sampling import ViewSpec
from fieldmark.data.splits import Split, match_split
from fieldmark.data.store import PhotoStore, begun_short_side, choose_short_side
from fieldmark.errors import CatalogError
from fieldmark.methods import METHODS
from fieldmark.training.config import TrainConfig
from fieldmark.workflows.post import LOOKS
from fieldmark.workflows.recipe import Recipe
from fieldmark.workflows.reference import SCALE

_log = logging.getLogger("fieldmark")
Say = Callable[[str], None]


@runtime_checkable
class ShowProgress(Protocol):
    """Told that ``done`` of ``total`` of something are finished."""

    def __call__(self, what: str, done: int, total: int, note: str = "") -> None:
        """Take notice; ``note`` is a short remark such as a speed."""


def quiet(what: str, done: int, total: int, note: str = "") -> None:
    """Show nothing."""


def say_nothing(text: str) -> None:
    """One voice is enough for several processes."""


class Photos(NamedTuple):
    """A run's photos."""

    catalog: Catalog
    store: PhotoStore
    split: Split | None
    """Labelled photos; only those that can be used."""
    split_source: str
    """Where the labels come from, in words."""
    train_rows: Int[np.ndarray, " N"]
    """Rows that training may read."""
    transductive: bool
    held_out: Int[np.ndarray, " H"]
    """Rows kept from training to judge on; none where there are labelled test photos."""


_LEAST_HELD_OUT, _MOST_HELD_OUT = 100, 500
_LOOKED_AT = 200
"""Photos, at most, of which it is asked whether they all show the same."""

# As if crops were this small: a photo that is scaled twice by little each time is blurred twice. At
# 128 px the same network has mAP 25.2 on cub50 from photos of 152 px, 26.2 from 240, 26.9 from 288.
_SHARP = 0.2


def short_side(
    recipe: Recipe, count: int, *, looks: Sequence[ViewSpec] = (), folder: Path | None = None
) -> int:
    """Short side at which a run keeps its photos, in pixels.

    Args:
        recipe: Says it, or says how small crops get; never less than what whole photos need.
        count: Photos to keep.
        looks: Further looks at them (:func:`further_looks`).
        folder: Where the store goes, if the disk's free room should count.
    """
    smallest = recipe.multi_view().smallest_scale if recipe.trains else 1.0
    # A larger look needs the pixels that a smaller crop at the network's own input would.
    same = [look.scale[0] * (recipe.size / look.size) ** 2 for look in looks]
    smallest = min([smallest, *same])
    return recipe.photos.short_side or sharp_side(recipe.size, smallest, count, folder=folder)


def further_looks(recipe: Recipe, start: Backbone, *, labelled: bool) -> tuple[ViewSpec, ...]:
    """Looks that a run takes at photos beside training's views, larger than the network's input.

    Args:
        recipe: Every setting.
        start: The network before training.
        labelled: Whether labelled test photos judge; else the start seen larger does.
    """
    if not recipe.trains or recipe.method is None:
        return ()
    looks = METHODS[recipe.method_name].further_looks(recipe.method, start)
    if not labelled and recipe.held_out and start.provenance.how != "random":
        looks += (LOOKS.model_copy(update={"size": start.larger_input(SCALE)}),)
    return tuple(map(recipe.protect, looks))


def sharp_side(size: int, smallest: float, count: int, *, folder: Path | None = None) -> int:
    """Short side that neither training's smallest crops nor embedding's whole photos suffer from.

    Args:
        size: Input of the network, pixels.
        smallest: Smallest crop, as share of the photo's area.
        count: Photos to keep.
        folder: Where the store goes, if the disk's free room should count.
    """
    return choose_short_side(size, min(_SHARP, smallest), count, folder=folder)


def prepare(
    catalog: Catalog,
    labels: tuple[Split | None, str],
    recipe: Recipe,
    folder: Path,
    *,
    start: Backbone | None = None,
    transductive: bool = False,
    progress: ShowProgress = quiet,
    say: Say = _log.info,
) -> Photos:
    """Decode what is needed once, and choose what is trained on.

    Args:
        catalog: Photos.
        labels: What :func:`find_split` found for them.
        recipe: Says how large photos are kept.
        folder: Where the photo store goes.
        start: The network before training: photos are kept sharp enough for larger looks too.
        transductive: Also train on the test photos, without their labels.
        progress: Told how far decoding is.
        say: Told when the disk has no room for photos as large as wanted.

    Raises:
        CatalogError: No photo is usable, or none is left to train on.
    """
    split, split_source = labels
    labelled = split is not None and len(split.test_rows) > 0
    looks = () if start is None else further_looks(recipe, start, labelled=labelled)
    wanted = short_side(recipe, len(catalog), looks=looks)
    # A run that goes on keeps its photos as they are, however full the disk has become.
    begun = begun_short_side(folder)
    side = wanted if recipe.photos.short_side else begun
    side = side or short_side(recipe, len(catalog), looks=looks, folder=folder)
    if side < wanted:
        why = (
            f"they were decoded so before ({folder})"
            if begun
            else "the disk had no room for more (they may take half of what is free)"
        )
        say(
            f"photos are kept at a short side of {side} pixels where {wanted} would be best: {why}."
        )

    def show(done: int, total: int) -> None:
        progress("decoding photos", done, total)

    if runtime.rank() == 0:
        store = PhotoStore.build(
            catalog,
            folder,
            short_side=side,
            include_damaged=recipe.photos.include_damaged,
            progress=show,
        )
        runtime.barrier()
    else:
        runtime.barrier()
        store = PhotoStore.open(folder, include_damaged=recipe.photos.include_damaged)
    usable = np.asarray(store.usable, dtype=np.int64)
    train_rows = usable
    if split is not None:
        if not transductive:
            train_rows = np.setdiff1d(usable, split.test_rows)
        split = usable_split(split, usable)
    if not len(train_rows):
        raise CatalogError(
            f"every usable photo of {catalog.source} is in the probe's test half, so none is left to train "
            "on; add unlabelled photos, or give --transductive to train on the test photos too."
        )
    _refuse_one_picture(store, catalog.source)
    held_out = train_rows[:0]
    if recipe.trains and recipe.held_out and not labelled:
        held_out = _hold_out_with_copies(store, train_rows, recipe.held_out, progress)
        train_rows = np.setdiff1d(train_rows, held_out)
    return Photos(catalog, store, split, split_source, train_rows, transductive, held_out)


def _refuse_one_picture(store: PhotoStore, source: Path) -> None:
    rows = store.usable[:: max(1, len(store.usable) // _LOOKED_AT)]
    if likeness(map(store.photo, rows.tolist()), len(rows)).all_alike():
        raise CatalogError(
            f"the {len(store.usable):,} usable photos of {source} all show the same picture, or nothing at "
            "all, so there is nothing to tell apart; look at some of the files, and run 'fieldmark "
            "check' on the folder."
        )


def _hold_out_with_copies(
    store: PhotoStore, rows: Int[np.ndarray, " N"], share: float, progress: ShowProgress
) -> Int[np.ndarray, " H"]:
    """Photos to keep from training, such that training shows no copy of any of them."""
    found = likeness(
        map(store.photo, rows.tolist()), len(rows), partial(progress, "finding copies")
    )
    plain = hold_out(rows, share)
    # Under a fixed camera everything looks like a copy of everything; then only true ones count.
    for config in (AuditConfig(), AuditConfig(hash_bits=0, near_difference=0.5)):
        groups = near_groups(found.hashes, found.thumbs, config)
        kept = hold_out(rows, share, [rows[group].tolist() for group in groups])
        if len(kept) >= len(plain) / 2:
            return kept
    return plain


def hold_out(
    rows: Int[np.ndarray, " N"], share: float, copies: Sequence[Sequence[int]] = ()
) -> Int[np.ndarray, " H"]:
    """Photos to keep from training where nobody gave labels to judge by.

    Args:
        rows: Usable photos.
        share: Wanted share; at least ``_LEAST_HELD_OUT`` photos but no more than a fifth, and at
            most ``_MOST_HELD_OUT``. 0 keeps none.
        copies: Groups of rows that show the same picture; of each all are kept or none, and none
            of a group that is too large.

    Returns:
        Rows in ascending order, the same for the same photos.
    """
    if not share:
        return rows[:0]
    least = min(_LEAST_HELD_OUT, len(rows) // 5)
    count = min(_MOST_HELD_OUT, max(least, round(share * len(rows))))
    order = rows[np.argsort(rng.mix("held out", rows), kind="stable")]
    group_of = {row: group for group in copies for row in group}
    kept: list[int] = []
    asked: set[int] = set()
    for row in order.tolist():
        group = group_of.get(row, [row])
        if row not in asked and len(kept) + len(group) <= count:
            kept += group
        asked.update(group)
    return np.sort(np.array(kept, dtype=rows.dtype))


def find_split(catalog: Catalog, probe: Path | None) -> tuple[Split | None, str]:
    """Labels and halves of photos, and where they come from in words.

    Args:
        catalog: The photos.
        probe: Table ``path,class,split``; None: the folders ``train`` and ``test`` of the photos
            themselves, where they are there and have classes.

    Returns:
        None and nothing when there are no labelled test photos.

    Raises:
        LabelError: The table cannot be used.
    """
    if probe is not None:
        return match_split(catalog, probe), f"table {probe.name}"
    labelled = [
        (row.row, row.label, row.split)
        for row in catalog.rows
        if row.label is not None and row.split in {"train", "test"}
    ]
    if not any(split == "test" for _, _, split in labelled):
        return None, ""
    classes = sorted({label for _, label, _ in labelled if label is not None})
    index = {name: i for i, name in enumerate(classes)}

    def half(name: str) -> tuple[Int64[np.ndarray, " n"], Int64[np.ndarray, " n"]]:
        chosen = [(row, index[label]) for row, label, split in labelled if split == name and label]
        pairs = np.array(chosen, np.int64).reshape(-1, 2)
        return pairs[:, 0], pairs[:, 1]

    split = Split(*half("train"), *half("test"), classes)
    return split, "folders train and test of the photos"


def usable_split(split: Split, usable: Int[np.ndarray, " N"]) -> Split:
    """Leave out labelled photos that cannot be decoded, and say how many."""
    keep_train = np.isin(split.train_rows, usable)
    keep_test = np.isin(split.test_rows, usable)
    lost = int((~keep_train).sum() + (~keep_test).sum())
    if lost:
        _log.warning(
            "%d labelled photos cannot be used (damaged or refused); see the report.", lost
        )
    return split._replace(
        train_rows=split.train_rows[keep_train],
        train_labels=split.train_labels[keep_train],
        test_rows=split.test_rows[keep_test],
        test_labels=split.test_labels[keep_test],
    )


def note_on_mirroring(recipe: Recipe) -> str:
    """A sentence for the user where training mirrors photos, which not all photos stand."""
    if not any(spec.flip for spec in recipe.multi_view().specs):
        return ""
    return (
        "Photos are mirrored at random in training; where left and right differ (text, X-rays, left- and "
        "right-hand parts) switch that off: --set views.override.flip=0, or views.preset=part or product."
    )


def note_on_small_photos(recipe: Recipe, start: Backbone, data: Photos) -> str:
    """A sentence for the user where most photos do not hold what a method's teacher looks for."""
    assert recipe.method is not None
    looks = METHODS[recipe.method_name].further_looks(recipe.method, start)
    largest = max((look.size for look in looks), default=0)
    typical = float(np.median(data.store.shapes[data.train_rows].min(axis=1)))
    if largest <= recipe.size or typical >= largest:
        return ""
    return (
        f"Most photos are smaller than the {largest} px at which the teacher looks (short side "
        f"{typical:.0f} px for half of them or more), so it sees little more than what it teaches; give "
        "larger originals where there are some, or lower --size."
    )


def affordable_batch(config: TrainConfig, photos: int) -> tuple[TrainConfig, str]:
    """The same with a batch no larger than the photos there are.

    Args:
        config: What is asked for.
        photos: Photos to train on.

    Returns:
        Settings, and a sentence for the user where the batch was made smaller.
    """
    parts = config.accumulate * runtime.world_size()
    lowered = photos // parts * parts
    if photos >= config.batch_size or lowered < 2:
        return config, ""
    return config.model_copy(update={"batch_size": lowered}), (
        f"there are {photos} photos to train on, fewer than one batch of {config.batch_size}; a batch "
        f"takes {lowered} instead (train.batch_size)."
    )
