"""``fieldmark datasets``: the field's data sets, how to get them, and what is in a folder."""

from pathlib import Path
from typing import Annotated, Any

import typer

from fieldmark.cli.console import Json, emit


def command(
    dataset: Annotated[
        str | None,
        typer.Argument(
            metavar="[NAME[:LEVEL][=PATH]]",
            help="A data set to tell more of; with =PATH, its folder to open and check.",
        ),
    ] = None,
    table: Annotated[
        Path | None,
        typer.Option(help="Write the opened data set as CSV with path, label, split."),
    ] = None,
    json: Json = False,
) -> None:
    """List the data sets that fieldmark reads as they are downloaded, or open one of them.

    Nothing is ever downloaded: NAME alone says where to get it and what its folder looks like.
    NAME=PATH opens the folder, compares it with the official counts, and says what is annotated. A
    part of a data set opens too, and says that it is one. NAME:LEVEL takes the labels of a coarser
    level, such as families.

    Examples:

      fieldmark datasets

      fieldmark datasets cub200

      fieldmark datasets cub200=CUB_200_2011 --table cub.csv

      fieldmark datasets aircraft:manufacturer=fgvc-aircraft-2013b
    """
    from fieldmark.errors import ConfigError
    from fieldmark.workflows.datasets import describe_dataset, list_datasets, open_dataset

    name, equals, path = (dataset or "").partition("=")
    if table is not None and not equals:
        raise ConfigError(
            f"--table needs a data set that is opened, as NAME=PATH, got '{dataset or ''}'."
        )
    if equals:
        found = open_dataset(name, Path(path), table=table)
        emit(json, found, _opened(found))
    elif name:
        facts = describe_dataset(name)
        emit(json, facts, _described(facts))
    else:
        known = list_datasets()
        emit(json, {"datasets": known}, "\n".join(map(_line, known)))


def _line(facts: dict[str, Any]) -> str:
    parts = ", ".join(f"{count:,} {part}" for part, count in facts["photos"].items())
    size = f"{facts['classes']} classes, {parts}" if facts["classes"] else "any size"
    return f"{facts['name']:<15} {facts['title']:<20} {size}"


def _described(facts: dict[str, Any]) -> str:
    lines = [_line(facts), f"  split     {facts['split']}", f"  get it    {facts['source']}"]
    lines += [f"  licence   {facts['licence']}"]
    lines += [f"  cite      {facts['citation']}"] if facts["citation"] else []
    lines += [f"  overlap   {facts['overlap']}"] if facts["overlap"] else []
    return "\n".join(
        [*lines, "  layout", *(f"    {line}" for line in facts["layout"].splitlines())]
    )


def _opened(found: dict[str, Any]) -> str:
    parts = ", ".join(f"{count:,} {part}" for part, count in sorted(found["photos"].items()))
    lines = [f"{found['title']}: {found['classes']} classes ({found['level']}), {parts}"]
    if found["subset"]:
        lines.append(
            f"  A PART: {found['subset']}. Its numbers are not those of the whole data set, and are "
            "marked so everywhere."
        )
    elif found["citation"]:
        lines.append("  complete: classes and photos as official")
    levels = ", ".join(f"{level} ({count})" for level, count in found["levels"].items())
    lines += [f"  levels     {levels}"] if levels else []
    lines += [f"  annotated  {', '.join(found['annotated'])}"] if found["annotated"] else []
    lines += [f"  split      {found['split']}", f"  licence    {found['licence']}"]
    lines += [f"  cite       {found['citation']}"] if found["citation"] else []
    lines += [f"  overlap    {found['overlap']}"] if found["overlap"] else []
    lines += [f"  written    {found['table']}"] if found["table"] else []
    return "\n".join(lines)
