"""After training: start and trained encoder side by side, what ships, the report."""

import shutil
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int

from fieldmark import rng, storage
from fieldmark.config import to_toml
from fieldmark.data.benchmarks.folders import told_licence
from fieldmark.data.store import PhotoStore
from fieldmark.data.views import ViewMaker
from fieldmark.encoder import Encoder
from fieldmark.evaluation import report
from fieldmark.evaluation.compare import Interval, Verdict
from fieldmark.evaluation.evaluate import (
    Comparison,
    EvalResult,
    compare,
    evaluation_file,
    subset_table,
    two_by_two,
)
from fieldmark.evaluation.labelfree import (
    agreement,
    changed_neighbours,
    decide_without_labels,
    gain_of_agreement,
    gain_of_views,
    judge_without_labels,
    measure_views,
)
from fieldmark.evaluation.projection import project
from fieldmark.nn.places import without_folder
from fieldmark.nn.spec import EncoderSpec, PostConfig
from fieldmark.training.loop import FitResult
from fieldmark.workflows.doctor import versions
from fieldmark.workflows.photos import Photos, ShowProgress
from fieldmark.workflows.post import LOOKS, affordable, describe
from fieldmark.workflows.recipe import Recipe
from fieldmark.workflows.reference import reference_embeddings, yardstick
from fieldmark.workflows.report import write_report
from fieldmark.workflows.run import RunFolder, processor
from fieldmark.workflows.sides import Judged, Side, Witness, measure

MEASURES = ("rank1", "rank5", "map", "linear")
"""What ``--json`` promises, in percent."""
MAP_POINTS = 900
"""Photos on the report's map: more make mud."""


def judge(
    run: RunFolder,
    recipe: Recipe,
    data: Photos,
    start: EncoderSpec,
    candidates: dict[str, EncoderSpec],
    fitted: FitResult | None,
    device: torch.device,
    began: float,
    progress: ShowProgress,
    *,
    kept: Path | None = None,
    witness: Witness | None = None,
) -> dict[str, Any]:
    """Evaluate, decide, ship, report.

    The test photos are read here and nowhere before: the candidate is chosen by rule (last epoch,
    teacher if there is one), so nothing is picked by looking at them.

    Args:
        run: Where everything goes.
        recipe: Every setting.
        data: Photos.
        start: The network before training.
        candidates: ``student`` and ``teacher``, those that there are.
        fitted: How training ended.
        device: Where to compute.
        began: Unix time of the run's beginning.
        progress: Told how far evaluation is.
        kept: Folder where runs with the same start leave what they found of it for one another.
        witness: Told what the judgement rests on.

    Returns:
        The contract of ``--json``.
    """
    processing = _processing(recipe, data)
    wanted = {"start": start, **candidates}
    sides: dict[tuple[str, str], Side] = {}
    for done, (who, spec) in enumerate(wanted.items()):
        progress("evaluating", done, len(wanted), who)
        place = kept if who == "start" else None
        both = measure(who, spec, processing, recipe, data, device, kept=place)
        sides[who, "plain"], sides[who, "post"] = both
    progress("evaluating", len(wanted), len(wanted))

    chosen = _chosen(candidates)
    before = sides["start", "post"] if candidates else sides["start", "plain"]
    after = sides[chosen, "post"]
    verdict, comparison, extra = _verdict(recipe, data, before, after, device)
    reading = extra["label_free"]["reading"] if extra else verdict.text
    shipped = _choose(recipe, reading, bool(candidates))
    summary = _summary(verdict, comparison, shipped, chosen, sides, extra)
    ships_plain = not candidates and shipped == "start" and verdict.text == "hurt"
    finals = {who: sides[who, "post"] for who in ("start", *candidates)}
    if ships_plain:
        finals["start"] = sides["start", "plain"]
    told = {
        "photos_source": data.catalog.source.resolve().name,
        "photos_licence": told_licence(data.catalog.source),
    }
    _save(
        run,
        recipe,
        told,
        finals,
        chosen if shipped == "trained" and candidates else "start",
        summary,
    )
    write_report(
        run.path,
        _report(run, recipe, data, sides, chosen, summary, comparison, fitted, began),
    )
    split = data.split
    if split is not None and len(split.train_rows) and len(split.test_rows):
        names = data.store.paths
        paths = [names[row] for row in split.train_rows]
        table = subset_table(paths, split.train_labels, split.classes)
        storage.write_text(run.path / "label_subsets.csv", table)
    if split is not None and before.result is not None and after.result is not None:
        tests = [data.store.paths[row] for row in split.test_rows]
        measured = evaluation_file({"encoder": after.result, "against": before.result}, tests)
        storage.write_json(run.evaluation, {"short_side": data.store.short_side, **measured})
    if witness is not None:
        witness(Judged(data, before, after))
    storage.write_json(run.result, summary)
    return summary


def measure_candidate(
    recipe: Recipe, data: Photos, exports: dict[str, EncoderSpec], device: torch.device
) -> dict[str, float]:
    """Measures of what would be the candidate if training ended now, post-processed; percent."""
    chosen = _chosen(exports)
    post = _processing(recipe, data)
    side = measure(chosen, exports[chosen], post, recipe, data, device).post
    return {} if side.result is None else side.result.measures


def _processing(recipe: Recipe, data: Photos) -> PostConfig:
    """Post-processing that these photos allow."""
    processing = affordable(recipe.post, len(data.train_rows))
    if not recipe.protect(LOOKS).flip:
        processing = processing.model_copy(update={"flip": False})
    return processing


def _chosen(candidates: dict[str, EncoderSpec]) -> str:
    """By rule, never by looking at the test photos."""
    return "teacher" if "teacher" in candidates else "student" if candidates else "start"


def _verdict(
    recipe: Recipe, data: Photos, before: Side, after: Side, device: torch.device
) -> tuple[Verdict, Comparison | None, dict[str, Any]]:
    if before.result is not None and after.result is not None:
        comparison = compare(before.result, after.result)
        verdict = comparison.verdict
        if not recipe.trains:
            verdict = Verdict(verdict.text, _without_training(verdict))
        return verdict, comparison, {}
    return _without_labels(recipe, data, before, after, device)


def _without_labels(
    recipe: Recipe, data: Photos, before: Side, after: Side, device: torch.device
) -> tuple[Verdict, None, dict[str, Any]]:
    first, second, photos = _two_views(recipe, data, device)
    both = (before, after)
    seen = [
        measure_views(_encode(side.encoder, first), _encode(side.encoder, second)) for side in both
    ]
    gain = gain_of_views(*seen)
    found = [views.to_dict() for views in seen]
    learnt, drawn = None, before.encoder.provenance.how == "random"
    if len(data.held_out) > 1 and not drawn:
        reference = yardstick(
            reference_embeddings(
                before.encoder.spec,
                data.store,
                data.train_rows,
                data.held_out,
                looks=recipe.protect(LOOKS),
                seed=recipe.train.seed,
                device=device,
            )
        )
        old, new = (side.encoder.embed_store(data.store, data.held_out) for side in both)
        agreed = agreement(old, reference), agreement(new, reference)
        changed = changed_neighbours(old, new)
        learnt = gain_of_agreement(agreed[0], agreed[1], changed)
        for values, side in zip(found, agreed, strict=True):
            values["agreement"] = float(side.mean() * 100)
        found[1]["neighbours_changed"] = float(changed.mean() * 100)
    held_out = len(data.held_out)
    verdict = judge_without_labels(
        found[0], found[1], gain, photos=photos, learnt=learnt, held_out=held_out
    )
    extra = {
        "label_free": {
            "start": found[0],
            "trained": found[1],
            "gain": gain.value,
            "interval": [gain.low, gain.high],
            "held_out": held_out,
            "agreement_gain": learnt and learnt.value,
            "agreement_interval": learnt and [learnt.low, learnt.high],
            # A start drawn at random has seen nothing, so it is no yardstick; that views of a photo
            # find each other is then already worth having.
            "reading": decide_without_labels(gain if drawn else learnt),
        }
    }
    return verdict, None, extra


def _without_training(verdict: Verdict) -> str:
    words = {
        "helped": "Nothing was trained. Post-processing helped",
        "hurt": "Nothing was trained. Post-processing hurt, so the plain start ships",
        "no difference shown": "Nothing was trained, and post-processing showed no difference",
    }
    _, _, numbers = verdict.sentence.partition(": ")
    return f"{words[verdict.text]}: {numbers}" if verdict.text in words else verdict.sentence


def _two_views(recipe: Recipe, data: Photos, device: torch.device) -> tuple[Any, Any, int]:
    from fieldmark.data.sampling import MultiView, ViewSpec

    views = (
        recipe.multi_view()
        if recipe.trains
        else MultiView(specs=(ViewSpec(count=2, size=recipe.size),))
    )
    order = np.argsort(rng.mix("verdict", data.train_rows), kind="stable")
    rows = np.sort(data.train_rows[order[: recipe.health.photos]])
    maker = ViewMaker(
        data.store, views, seed=rng.seed_of("verdict", recipe.train.seed), device=device
    )
    first, second = maker.make(rows, 0)[:2]
    return first.images, second.images, len(rows)


def _encode(encoder: Encoder, images: torch.Tensor) -> Float[np.ndarray, "N D"]:
    parts = [encoder.encode(part).float().cpu().numpy() for part in images.split(64)]
    return np.concatenate(parts)


def _choose(recipe: Recipe, reading: str, trained: bool) -> str:
    if not trained or recipe.ship == "start":
        return "start"
    if recipe.ship == "trained" or reading == "helped":
        return "trained"
    return "start"


def _summary(
    verdict: Verdict,
    comparison: Comparison | None,
    shipped: str,
    chosen: str,
    sides: dict[tuple[str, str], Side],
    extra: dict[str, Any],
) -> dict[str, Any]:
    empty = dict.fromkeys(MEASURES)
    summary: dict[str, Any] = {
        "verdict": verdict.text,
        "sentence": verdict.sentence,
        "start": {**empty},
        "trained": {**empty},
        "gain": {},
        "interval": {},
        "shipped": shipped,
        "candidate": chosen,
        **extra,
    }
    if comparison is not None:
        summary.update(comparison.to_dict())
        summary["sentence"] = verdict.sentence
        for side in ("start", "trained"):
            summary[side] = {**empty, **summary[side]}
        summary["candidates"] = {
            f"{who}, {how}": {name: side.result.measures.get(name) for name in MEASURES}
            for (who, how), side in sides.items()
            if side.result is not None
        }
        summary["grid"] = two_by_two(_grid_results(sides, chosen))
    return summary


def _grid_results(
    sides: dict[tuple[str, str], Side], chosen: str
) -> dict[tuple[str, str], EvalResult]:
    cells = {}
    for (who, how), side in sides.items():
        if side.result is not None and who in {"start", chosen}:
            cells["start" if who == "start" else "trained", how] = side.result
    return cells


def _save(
    run: RunFolder,
    recipe: Recipe,
    told: dict[str, str],
    kept: dict[str, Side],
    ships: str,
    summary: dict[str, Any],
) -> None:
    storage.make_folder(run.path / "encoders")
    for who, side in kept.items():
        metrics = (
            {} if side.result is None else {k: round(v, 3) for k, v in side.result.measures.items()}
        )
        side.encoder.card.update(
            role=who,
            recipe=recipe.name,
            settings=recipe.dump(),
            metrics=metrics,
            verdict=summary["verdict"],
            **told,
        )
        without_paths(side.encoder.card["settings"])
        side.encoder.save(run.encoder_of(who))
    aside = run.path / ".encoder.partial"
    shutil.rmtree(aside, ignore_errors=True)
    kept[ships].encoder.save(aside)
    shutil.rmtree(run.encoder, ignore_errors=True)
    aside.rename(run.encoder)
    storage.sync_folder(run.path)


def without_paths(settings: dict[str, Any]) -> None:
    """Take folders of this machine out of settings, which are handed on with the encoder."""
    settings.get("backbone", {}).pop("weights", None)
    method = settings.get("method", {})
    for key, value in method.items():
        if isinstance(value, str):
            method[key] = without_folder(value)


def _report(
    run: RunFolder,
    recipe: Recipe,
    data: Photos,
    sides: dict[tuple[str, str], Side],
    chosen: str,
    summary: dict[str, Any],
    comparison: Comparison | None,
    fitted: FitResult | None,
    began: float,
) -> report.ReportData:
    before = sides["start", "post"] if chosen != "start" else sides["start", "plain"]
    after = sides[chosen, "post"]
    provenance = before.encoder.provenance
    pictures = _pictures(data, before, after)
    content = report.ReportData(
        title=f"{recipe.name} on {Path(data.catalog.source).resolve().name}",
        outcome=report.Outcome(summary["verdict"], summary["sentence"], summary["shipped"]),
        kind="train" if recipe.trains else "start",
        facts=_facts(recipe, data),
        measures=_measures(comparison, summary),
        grids=_grids(summary),
        post_processing=describe(after.encoder.post),
        health=_health(fitted),
        bad_photos=tuple(
            report.BadPhoto(r.path, r.status, r.code, r.detail) for r in data.store.records
        ),
        weights=report.WeightsFacts(
            network=before.encoder.spec.backbone.config.name or "",
            how=provenance.how,
            data=provenance.data,
            labels_seen=provenance.labels_seen,
            licence=provenance.licence,
            source=provenance.source,
            sha256=provenance.sha256,
            notes=provenance.notes,
        ),
        recipe_name=recipe.name,
        recipe=to_toml(recipe),
        machine={
            "processor": processor(),
            "threads": str(torch.get_num_threads()),
            "device": str(before.encoder.device),
        },
        versions={name: version for name, version in versions().items() if version},
        command=" ".join(sys.argv),
        started=time.strftime("%Y-%m-%dT%H:%M:%S", time.localtime(began)),
        run_seconds=time.time() - began,
        notes=tuple(_notes(recipe, data, fitted, after.encoder.post)),
        **pictures,
    )
    rows = {path: row for row, path in enumerate(data.store.paths)}
    shown, small = report.photo_ids_of(content)
    photos = report.encode_photos(shown, lambda name: data.store.photo(rows[name]), small=small)
    return report.ReportData(**{**vars(content), "photos": photos})


def _facts(recipe: Recipe, data: Photos) -> report.Facts:
    return report.Facts(
        photos=len(data.catalog),
        used=len(data.store.usable),
        train=len(data.train_rows),
        test=None if data.split is None else len(data.split.test_rows),
        classes=None if data.split is None else len(np.unique(data.split.test_labels)),
        size=recipe.size,
        split=data.split_source,
        transductive=data.transductive,
    )


def _measures(comparison: Comparison | None, summary: dict[str, Any]) -> tuple[report.Measure, ...]:
    if comparison is None:
        told = summary["label_free"]
        if told["agreement_gain"] is None:
            return ()
        before, after = (told[side]["agreement"] for side in ("start", "trained"))
        low, high = told["agreement_interval"]
        return (report.Measure("agreement", before, after, told["agreement_gain"], low, high),)
    rows = []
    for name, start in comparison.start.items():
        gain: Interval | None = comparison.gains.get(name)
        fraction = int(name.partition("@")[2]) / 100 if name.startswith("linear@") else None
        rows.append(
            report.Measure(
                name,
                start,
                comparison.trained.get(name),
                gain.value if gain else None,
                gain.low if gain else None,
                gain.high if gain else None,
                fraction=fraction,
            )
        )
    return tuple(rows)


def _grids(summary: dict[str, Any]) -> tuple[report.Grid, ...]:
    labels = {"rank1": "Rank-1", "map": "mAP", "linear": "Linear, 100 %"}
    return tuple(
        report.Grid(
            labels[name],
            cells["start"]["plain"],
            cells["start"]["post"],
            cells["trained"]["plain"],
            cells["trained"]["post"],
        )
        for name, cells in summary.get("grid", {}).items()
    )


def _health(fitted: FitResult | None) -> tuple[dict[str, float | None], ...]:
    if fitted is None:
        return ()
    skipped = {"kind", "step"}
    return tuple(
        {key: value for key, value in look.items() if key not in skipped} for look in fitted.health
    )


def _pictures(data: Photos, before: Side, after: Side) -> dict[str, Any]:
    split, names = data.split, data.store.paths
    labels: list[str | None]
    if split is not None and len(split.test_rows):
        photos = [names[row] for row in split.test_rows]
        classes = [split.classes[label] for label in split.test_labels]
        confusable = report.confusable_pairs(photos, classes, before.test, after.test)
        labels, start, trained = [*classes], before.test, after.test
    else:
        # Nobody knows which neighbours are right, but the user sees it.
        seen = np.concatenate([data.train_rows, data.held_out])
        order = np.argsort(rng.mix("pictures", seen), kind="stable")
        rows = np.sort(seen[order[:MAP_POINTS]])
        photos, labels, confusable = [names[row] for row in rows], [None] * len(rows), ()
        start, trained = (side.encoder.embed_store(data.store, rows) for side in (before, after))
    points: Int[np.ndarray, " M"] = report.choose_points(labels, limit=MAP_POINTS)
    places = project(start[points], trained[points], limit=MAP_POINTS)
    flat = [tuple(map(tuple, np.round(place, 4).tolist())) for place in places.places]
    return {
        "sheets": report.neighbour_sheets(photos, labels, start, trained),
        "confusable": confusable,
        "map": report.EmbeddingMap(
            photos=tuple(photos[i] for i in points),
            labels=tuple(labels[i] for i in points),
            start=flat[0],
            trained=flat[1],
            how=places.how,
        ),
    }


def _notes(recipe: Recipe, data: Photos, fitted: FitResult | None, post: PostConfig) -> list[str]:
    notes = []
    if recipe.post.flip and not post.flip:
        notes.append(
            "Mirrored photos are not averaged in: flips are switched off for these photos."
        )
    if recipe.post.whiten_dim and not post.whiten_dim:
        notes.append(
            f"Whitening was left out: {len(data.train_rows)} training photos are too few for "
            f"{recipe.post.whiten_dim} directions (two for each are needed); add photos, or lower "
            "post.whiten_dim."
        )
    elif (post.whiten_dim or 0) > (recipe.post.whiten_dim or 0):
        notes.append(
            f"Whitening keeps all {post.whiten_dim} directions: {len(data.train_rows)} training photos "
            f"are too few to choose {recipe.post.whiten_dim} by (two for each are needed)."
        )
    if data.transductive:
        notes.append("Transductive: the test photos were trained on too, without their labels.")
    if data.split is None:
        notes.append(
            "No labelled test photos were given, so the supervised measures are missing; "
            "a table path,class,split given as --probe turns them on."
            + (
                f" {len(data.held_out):,} photos were kept from training instead, and what ships "
                "follows from them (docs/protocols.md)."
                if len(data.held_out)
                else ""
            )
        )
    if fitted is not None:
        notes += fitted.notes
        notes.append(
            f"Trained {fitted.epochs:g} epochs ({fitted.step} steps) in {fitted.precision} "
            f"arithmetic; batch-norm was {recipe.backbone.normalization}."
        )
        if recipe.backbone.blend < 1:
            notes.append(
                "The trained encoder's weights lie "
                f"{recipe.backbone.blend:.0%} of the way from the start's to those that training "
                "ended with."
            )
    return notes


def photo_store(run: Path) -> PhotoStore:
    """The decoded photos of a run."""
    return PhotoStore.open(RunFolder(run).store)
