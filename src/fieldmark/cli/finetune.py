"""``fieldmark finetune``: supervised fine-tuning, the reference that label-free training is held to."""

from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from fieldmark.cli.console import Json, emit, progress_bars
from fieldmark.cli.train import Device, Epochs, Photos


def command(
    encoder: Annotated[
        Path,
        typer.Argument(
            help="Encoder folder or run folder; RUN/encoders/start is the untrained start."
        ),
    ],
    photos: Photos,
    out: Annotated[Path, typer.Option(help="Folder of the result; give it again to continue.")],
    labels: Annotated[
        Path | None,
        typer.Option(
            help="Table path,class,split: train photos teach, test photos are asked once. Without it "
            "the photos' own folders train/ and test/ are used."
        ),
    ] = None,
    epochs: Epochs = None,
    batch_size: Annotated[int | None, typer.Option(min=2, help="Photos per step.")] = None,
    lr: Annotated[
        float | None,
        typer.Option(
            help="Learning rate of the network; the head's is 10 times it. Default 3e-4, SGD 0.01."
        ),
    ] = None,
    optimizer: Annotated[
        Literal["adamw", "sgd"] | None, typer.Option(help="adamw (default) or sgd.")
    ] = None,
    normalization: Annotated[
        Literal["frozen", "slow", "train"] | None,
        typer.Option(
            help="Batch-norm while training: frozen (default for trained weights), slow or train "
            "(default for random ones)."
        ),
    ] = None,
    seed: Annotated[int | None, typer.Option(min=0, help="Seed of everything drawn.")] = None,
    sets: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="KEY=VALUE",
            help="Override a setting: label_smoothing=0, train.lr=1e-3",
        ),
    ] = None,
    device: Device = "auto",
    json: Json = False,
) -> None:
    """Teach a whole encoder its classes from labels, and measure the classifier on the test photos.

    This is the supervised reference: what the same network reaches when every train photo has a
    label. Top-1, top-5, macro recall, precision and F1, the confusion matrix, and the classifier
    itself are written to OUT. Running the same command again continues where it stopped.

    Examples:

      fieldmark finetune run/encoders/start photos/ --labels split.csv --out supervised

      fieldmark finetune run photos/ --labels split.csv --out tuned --optimizer sgd --lr 0.01

      fieldmark eval tuned/classifier photos/ --labels split.csv --against run/encoders/start
    """
    from fieldmark.config import apply_sets, merge
    from fieldmark.training.finetune import SGD, FinetuneConfig
    from fieldmark.workflows.finetune import finetune

    given = {"epochs": epochs, "batch_size": batch_size, "lr": lr, "optimizer": optimizer}
    given["seed"] = seed
    data: dict[str, Any] = {"train": {k: v for k, v in given.items() if v is not None}}
    if normalization is not None:
        data["normalization"] = normalization
    data = apply_sets(data, sets or ())
    usual = FinetuneConfig().dump()
    if data["train"].get("optimizer") == "sgd":
        usual = merge(usual, {"train": SGD})
    data = merge(usual, data)
    config = FinetuneConfig.parse(data, "the options of fieldmark finetune")
    with progress_bars() as bars:
        result = finetune(
            encoder,
            photos,
            out,
            labels=labels,
            config=config,
            device=device,
            progress=bars,
            say=bars.say,
        )
    if result is not None:
        emit(json, result, _text(result, out))


def _text(result: dict[str, Any], out: Path) -> str:
    from fieldmark.evaluation.classification import LABELS

    lines = [result["sentence"], ""]
    for name, label in LABELS.items():
        lines.append(f"{label:<64}{result['measures'][name]:7.2f}")
    if result["interval"]["top1"]:
        low, high = result["interval"]["top1"]
        lines[2] += f"   [{low:.2f}, {high:.2f}]"
    if result["confused"]:
        lines += ["", "Taken for another class most often:"]
        lines += [
            f"  {pair['true']} → {pair['predicted']}: {pair['photos']}"
            for pair in result["confused"]
        ]
    lines += ["", *result["notes"]] if result["notes"] else []
    lines += ["", f"Classifier: {result['classifier']}", f"Confusions: {out / 'confusion.csv'}"]
    return "\n".join(lines)
