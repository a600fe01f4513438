"""``fieldmark classify``: names for photos."""

from pathlib import Path
from typing import Annotated, Any

import typer

from fieldmark.cli.console import IndexPlace, Json, emit, progress_bars


def command(
    index: IndexPlace,
    out: Annotated[Path, typer.Option(help="Table to write: .csv or .parquet.")],
    photos: Annotated[
        Path | None,
        typer.Argument(
            help="Folder, table or tar shard; without, the index's photos that have no label."
        ),
    ] = None,
    where: Annotated[
        str | None, typer.Option(help="Of the index's own photos those for which this holds.")
    ] = None,
    head: Annotated[
        str, typer.Option(help="auto (by cross-validation), mean, logistic or neighbours.")
    ] = "auto",
    coverage: Annotated[
        float, typer.Option(help="Share of photos whose true label shall be in their set.")
    ] = 0.9,
    lost: Annotated[
        float, typer.Option(help="Share of photos of known labels that may be called unknown.")
    ] = 0.05,
    taxonomy: Annotated[
        Path | None,
        typer.Option(help="Table: label, and a column for each coarser level, coarsest first."),
    ] = None,
    least: Annotated[float, typer.Option(help="Probability that a name must reach.")] = 0.9,
    darwin_core: Annotated[
        bool, typer.Option("--darwin-core", help="Write Darwin Core terms, as for GBIF.")
    ] = False,
    classifier: Annotated[
        Path | None, typer.Option(help="Use this one, saved before, as it is.")
    ] = None,
    save: Annotated[Path | None, typer.Option(help="Folder to save the classifier in.")] = None,
    encoder: Annotated[
        str | None,
        typer.Option(help="Whose vectors: beginning of an identity, or an encoder's folder."),
    ] = None,
    batch_size: Annotated[int, typer.Option(min=1, help="Photos per forward pass.")] = 64,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:1 …")] = "auto",
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace OUT.")] = False,
    json: Json = False,
) -> None:
    """Name photos by the labels in an index, and say how sure that is.

    A head is chosen and calibrated on held-out labels. Every photo gets its most likely label with a
    probability, the set of labels that it may have, and whether it looks like none of them; with a
    taxonomy also the deepest name that is sure enough. Stopped while it embeds, the same command goes on.

    Examples:

      fieldmark classify birds.index new-photos --out new.csv

      fieldmark classify birds.index --out rest.parquet --taxonomy birds.csv --darwin-core
    """
    from fieldmark.workflows.classify import classify

    with progress_bars() as bars:
        told = classify(
            index,
            photos,
            out,
            where=where,
            head=head,
            coverage=coverage,
            lost=lost,
            taxonomy=taxonomy,
            least=least,
            darwin_core=darwin_core,
            classifier=classifier,
            save=save,
            encoder=encoder,
            batch_size=batch_size,
            device=device,
            overwrite=overwrite,
            progress=bars,
        )
    emit(json, told, _text(told))


def _text(told: dict[str, Any]) -> str:
    lines = [f"{told['out']} names {told['photos']:,} photos by {told['labels']} labels."]
    right = ""
    if told["accuracy"] is not None:
        right = f", right on {told['accuracy']:.1%} of {told['held_out']:,} held-out labels"
    lines.append(f"Head: {told['head']}{right}.")
    if told["coverage"] is None:
        lines.append("No sets: too few labels can be held out.")
    elif told["mean_set"] is not None:
        lines.append(
            f"A set holds the true label of {told['coverage']:.0%} of photos like the labelled ones; it has "
            f"{told['mean_set']:g} labels on average."
        )
    if told["lost"] is None:
        lines.append("Unknown photos cannot be told: too few labels.")
    else:
        area = "" if told["auroc"] is None else f"; AUROC on held-out labels {told['auroc']:.2f}"
        lines.append(
            f"{told['unknown']:,} look like none of the labels, as {told['lost']:.0%} of photos of known "
            f"labels do{area}."
        )
    if told["levels"] is not None:
        named = ", ".join(f"{count:,} {level}" for level, count in told["levels"].items() if count)
        lines.append(f"Named at: {named}.")
    if told["refused"]:
        lines.append(f"{told['refused']:,} could not be read: {told['out']}.problems.csv.")
    return "\n".join(lines)
