"""``fieldmark embed``: a table of embeddings for every photo."""

from pathlib import Path
from typing import Annotated, Literal

import typer

from fieldmark.cli.console import Json, emit, progress_bars


def command(
    encoder: Annotated[
        Path,
        typer.Argument(
            help="Encoder folder, the run folder it lies in, or an ONNX file of export."
        ),
    ],
    photos: Annotated[
        Path, typer.Argument(help="Folder, table (CSV, JSONL, Parquet) or tar shard.")
    ],
    out: Annotated[Path, typer.Option(help="Table to write: .parquet or .npz.")],
    batch_size: Annotated[int, typer.Option(min=1, help="Photos per forward pass.")] = 64,
    workers: Annotated[
        int | None, typer.Option(min=1, help="Decoding threads; one per processor by default.")
    ] = None,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:1 …")] = "auto",
    precision: Annotated[
        Literal["auto", "fp32", "bf16", "fp16"],
        typer.Option(help="auto: the fastest that agrees with fp32 (cosine 0.999)."),
    ] = "auto",
    engine: Annotated[
        Literal["auto", "torch", "onnx"],
        typer.Option(help="auto: for many photos on a CPU the faster one, where both embed alike."),
    ] = "auto",
    overwrite: Annotated[
        bool,
        typer.Option("--overwrite", help="Replace a table of other photos or another encoder."),
    ] = False,
    json: Json = False,
) -> None:
    """Write path, content hash and embedding of every photo.

    Run the same command again after a stop: it goes on where it was. Photos that cannot be read are
    listed beside the table and stop nothing.

    Examples:

      fieldmark embed run photos --out photos.parquet

      fieldmark embed run/encoders/start photos --out start.npz --device cpu

      fieldmark embed run photos --out photos.npz --json | tail -1
    """
    from fieldmark.workflows.embed import embed_photos

    with progress_bars() as bars:
        result = embed_photos(
            encoder,
            photos,
            out,
            batch_size=batch_size,
            workers=workers,
            device=device,
            precision=precision,
            engine=engine,
            overwrite=overwrite,
            progress=lambda done, total: bars("embedding photos", done, total),
        )
    emit(json, result.summary, result.text)
