"""``fieldmark export``: an encoder for programs that are not fieldmark."""

from pathlib import Path
from typing import Annotated

import typer

from fieldmark.cli.console import Json, emit, progress_bars


def command(
    encoder: Annotated[
        Path,
        typer.Argument(help="Encoder or run folder, or the classifier folder of finetune."),
    ],
    onnx: Annotated[Path | None, typer.Option(help="ONNX file to write.")] = None,
    hub: Annotated[
        Path | None,
        typer.Option(
            help="Folder to write as model hubs expect it: config.json, safetensors, card."
        ),
    ] = None,
    int8: Annotated[
        bool,
        typer.Option("--int8", help="8-bit arithmetic; what it loses is measured on --photos."),
    ] = False,
    photos: Annotated[
        Path | None,
        typer.Option(help="Photos to check on, and for --int8 to calibrate and measure on."),
    ] = None,
    labels: Annotated[
        Path | None,
        typer.Option(
            help="Table path,class,split of those photos: rank-1 before and after --int8."
        ),
    ] = None,
    classifier: Annotated[
        Path | None,
        typer.Option(help="Folder of fieldmark classify --save: probabilities of its labels, too."),
    ] = None,
    json: Json = False,
) -> None:
    """Write an encoder as one ONNX file, or as a folder for a model hub.

    Resizing, cropping and normalising are inside the ONNX graph: it takes decoded photos of any
    shape. It is compared with PyTorch on photos before it is written, and refused when it differs.

    Examples:

      fieldmark export run --onnx birds.onnx

      fieldmark export finetuned/classifier --onnx birds.onnx --photos photos

      fieldmark export run --onnx birds.onnx --classifier birds.classifier

      fieldmark export run --onnx small.onnx --int8 --photos photos --labels split.csv

      fieldmark export run --hub birds-encoder
    """
    from fieldmark.workflows.export import export_encoder

    with progress_bars() as bars:
        result = export_encoder(
            encoder,
            onnx=onnx,
            hub=hub,
            int8=int8,
            photos=photos,
            labels=labels,
            classifier=classifier,
            progress=bars,
        )
    emit(json, result.summary, result.text)
