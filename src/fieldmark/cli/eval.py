"""``fieldmark eval``: measure an encoder, alone or against another."""

from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from fieldmark.cli.console import Json, emit, progress_bars

_NAMES = {
    "rank1": "rank-1 (R@1)",
    "rank5": "rank-5 (R@5)",
    "rank10": "rank-10 (R@10)",
    "map": "mAP",
    "map_at_r": "mAP@R",
    "knn": "weighted kNN",
    "linear": "linear, all labels",
    "linear_sgd": "linear, SGD protocol",
    "view_recall": "view recall",
    "effective_rank": "effective rank",
}


def command(
    encoder: Annotated[
        Path, typer.Argument(help="Encoder folder, or run folder of fieldmark train.")
    ],
    photos: Annotated[Path, typer.Argument(help="Folder of photos, table or tar shards.")],
    labels: Annotated[
        Path | None,
        typer.Option(
            help="Table path,class,split: train photos teach the probes, test photos are asked."
        ),
    ] = None,
    against: Annotated[
        Path | None, typer.Option(help="Encoder to compare with, as RUN/encoders/start.")
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(
            help="Folder for evaluation.json, photos.csv (one line a photo), confusion.csv and "
            "label_subsets.csv."
        ),
    ] = None,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:1 or mps.")] = "auto",
    batch_size: Annotated[int, typer.Option(min=1, help="Photos per forward pass.")] = 64,
    seed: Annotated[int, typer.Option(min=0, help="Seeds label subsets.")] = 0,
    gallery: Annotated[
        Literal["test", "train"],
        typer.Option(
            help="test: each test photo searches the others; train: it searches train photos."
        ),
    ] = "test",
    sgd_probe: Annotated[
        bool,
        typer.Option(
            "--sgd-probe",
            help="Also fit the linear probe of the fine-grained papers (SGD, rate 30, 100 epochs).",
        ),
    ] = False,
    json: Json = False,
) -> None:
    """Measure how well an encoder tells classes apart; with --against, say whether it is better.

    Retrieval is leave-one-out among the test photos (--gallery train searches the train photos
    instead); gains carry 95 % intervals (the wider of two paired bootstraps, over photos and over
    classes). Without labels only label-free measures are taken, and the verdict is "not measured".

    Examples:

      fieldmark eval run/encoder photos/ --labels split.csv

      fieldmark eval run/encoders/student photos/ --labels split.csv --against run/encoders/start

      fieldmark eval run photos/ --json --out measured/
    """
    from fieldmark.evaluation.evaluate import EvalConfig
    from fieldmark.workflows.evaluate import evaluate

    with progress_bars() as bars:
        found = evaluate(
            encoder,
            photos,
            labels=labels,
            against=against,
            out=out,
            config=EvalConfig(gallery=gallery, seed=seed, sgd_probe=sgd_probe),
            device=device,
            batch_size=batch_size,
            progress=bars,
        )
    emit(json, found.data, _text(found.data, out))


def _text(data: dict[str, Any], out: Path | None) -> str:
    lines = []
    if "sentence" in data:
        lines += [f"Verdict: {data['verdict']}", data["sentence"], ""]
    else:
        lines += [
            f"{data['test_photos']:,} test photos of {data['classes']:,} classes, "
            f"{data['train_photos']:,} labelled train photos, {data['size']} px",
            "",
        ]
    for name, value in data["measures"].items():
        if value is None:
            continue
        label = _NAMES.get(name) or name.replace("linear@", "linear, ") + " % of labels"
        if "start" in data and data["start"].get(name) is not None:
            line = f"{label:<24}{data['start'][name]:7.2f} → {data['trained'][name]:6.2f}"
            ends = data["interval"].get(name)
            if ends:
                line += f"   {data['gain'][name]:+z.2f}  [{ends[0]:+z.2f}, {ends[1]:+z.2f}]"
        else:
            line = f"{label:<24}{value:7.2f}"
        lines.append(line)
    lines += _classification(data.get("classification", {}))
    if data.get("lone"):
        lines.append(
            f"{data['lone']} test photos are the only one of their class: not in retrieval."
        )
    if data["left_out"]:
        lines.append(
            f"{len(data['left_out'])} photos could not be read and are left out (--json lists them)."
        )
    lines += data["notes"]
    if out is not None:
        lines += ["", f"Written: {out / 'evaluation.json'}"]
    return "\n".join(lines)


def _classification(sides: dict[str, dict[str, float | None]]) -> list[str]:
    """The linear probe as a classifier; start → trained where two encoders are compared."""
    from fieldmark.evaluation.classification import LABELS

    if not sides:
        return []
    lines = ["", "Linear probe with all labels, as a classifier:"]
    for key, label in {**LABELS, "ece": "expected calibration error"}.items():
        values = [sides[name].get(key) for name in ("against", "encoder") if name in sides]
        shown = " → ".join("-" if value is None else f"{value:.2f}" for value in values)
        lines.append(f"{label:<64}{shown}")
    return [*lines, ""]
