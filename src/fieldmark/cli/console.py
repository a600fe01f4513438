"""What every command shares: where text goes, JSON mode, progress with an ETA."""

import json
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    SpinnerColumn,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

Json = Annotated[
    bool, typer.Option("--json", help="Print one JSON object as the last line on stdout.")
]
IndexPlace = Annotated[
    str, typer.Argument(help="From fieldmark index: a folder, or a postgresql:// URL.")
]


def messages() -> Console:
    """Everything meant for a person goes to stderr, so that stdout stays clean for --json."""
    return Console(stderr=True, no_color="NO_COLOR" in os.environ, highlight=False)


def emit(json_mode: bool, data: dict[str, Any], text: str) -> None:
    """Print a command's result: one line of JSON, or text for a person."""
    if json_mode:
        sys.stdout.write(json.dumps(data, allow_nan=False) + "\n")
        sys.stdout.flush()
    else:
        Console(no_color="NO_COLOR" in os.environ, highlight=False, soft_wrap=True).print(
            text, markup=False
        )


class Bars:
    """Progress bars by name: the callbacks that workflows take."""

    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self._tasks: dict[str, TaskID] = {}

    def __call__(self, what: str, done: int, total: int, note: str = "") -> None:
        """Show that ``done`` of ``total`` of ``what`` are finished."""
        if what not in self._tasks:
            self._tasks[what] = self._progress.add_task(what, total=total, note=note)
        self._progress.update(self._tasks[what], completed=done, total=total, note=note)

    def say(self, text: str) -> None:
        """Print a line above the bars."""
        self._progress.console.print(text, markup=False)


@contextmanager
def progress_bars() -> Iterator[Bars]:
    """Bars with elapsed time and ETA on stderr; plain lines when stderr is not a terminal."""
    console = messages()
    with Progress(
        SpinnerColumn(),
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("ETA"),
        TimeRemainingColumn(),
        TextColumn("{task.fields[note]}", markup=False),
        console=console,
        disable=not console.is_terminal,
    ) as progress:
        yield Bars(progress)
