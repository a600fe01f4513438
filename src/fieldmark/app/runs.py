"""The runs that a service shows: found below the places it was given, known by an opaque id."""

import hashlib
import os
import threading
import time
from collections import OrderedDict
from collections.abc import Iterator
from pathlib import Path

from fieldmark.app import runfolder, runreport
from fieldmark.app.problems import HttpProblem
from fieldmark.app.runfolder import Lines, Pace, RunCard
from fieldmark.errors import ArtifactError
from fieldmark.evaluation.report import ReportData
from fieldmark.workflows.report import DATA_NAME, read_report

_DEPTH = 6
"""Folders between a place and a run; benchmarks have four."""
_FOLDERS = 20_000
"""Folders that are looked into below all places."""
_FRESH = 3.0
"""Seconds for which what was found is taken as it is."""
_REPORTS = 4
"""Reports that are kept read; one is a few megabytes."""
_LARGEST = 100_000_000
"""Bytes of a report's data."""


class Runs:
    """Finds runs and reads them; every answer is from the files as they are now.

    Args:
        places: Run folders, or folders that hold some.
    """

    def __init__(self, places: tuple[Path, ...]) -> None:
        self._places = places
        self._lock = threading.Lock()
        self._found: dict[str, tuple[Path, str]] = {}
        self._looked = -_FRESH
        self._reports: OrderedDict[Path, tuple[tuple[int, int], ReportData]] = OrderedDict()

    def cards(self) -> list[RunCard]:
        """All runs: those that run first, then by when they last wrote something."""
        cards = [runfolder.card(folder, run, name) for run, (folder, name) in self._look().items()]
        cards.sort(key=lambda card: card.updated, reverse=True)
        return sorted(cards, key=lambda card: card.state != "running")

    def card(self, run: str) -> RunCard:
        """One run.

        Raises:
            HttpProblem: 404, not known.
        """
        folder, name = self._of(run)
        return runfolder.card(folder, run, name)

    def pace(self, told: RunCard) -> Pace:
        """How fast it goes."""
        return runfolder.pace(self._of(told.run)[0], told)

    def metrics(self, run: str, since: int) -> Lines:
        """Lines of its log from number ``since`` on."""
        return runfolder.metrics(self._of(run)[0], since)

    def ending(self, told: RunCard) -> runreport.Ending | None:
        """What it says at its end; None before, and where its report cannot be read."""
        if told.state != "finished":
            return None
        try:
            return runreport.ending(self._report(told.run))
        except HttpProblem:
            return None

    def page(self, run: str) -> runreport.Page:
        """Its report as a page of its own.

        Raises:
            HttpProblem: 404, there is none.
        """
        return runreport.report_page(self._report(run))

    def small_photo(self, run: str, photo: str) -> tuple[str, bytes]:
        """Type and bytes of a photo of the report's pairs, by its content's hash.

        Raises:
            HttpProblem: 404, there is none.
        """
        found = runreport.small_photos(self._report(run)).get(photo)
        if found is None:
            raise HttpProblem(404, "no_photo", "the run's report shows no such photo.")
        return found

    def _report(self, run: str) -> ReportData:
        folder, _ = self._of(run)
        path = folder / DATA_NAME
        try:
            about = path.stat()
            mark = (about.st_mtime_ns, about.st_size)
            with self._lock:
                kept = self._reports.get(path)
            if kept and kept[0] == mark:
                return kept[1]
            if about.st_size > _LARGEST:
                raise ArtifactError("too large")
            data = read_report(path)
        except (OSError, ArtifactError):
            # Not the error's own words: they name the folder.
            raise HttpProblem(
                404,
                "no_report",
                "this run has no report that can be read; it is written at the end.",
            ) from None
        with self._lock:
            self._reports[path] = (mark, data)
            self._reports.move_to_end(path)
            while len(self._reports) > _REPORTS:
                self._reports.popitem(last=False)
        return data

    def _of(self, run: str) -> tuple[Path, str]:
        with self._lock:
            known = self._found.get(run)
        if known is None or not runfolder.is_run(known[0]):
            known = self._look().get(run)
        if known is None:
            raise HttpProblem(404, "no_run", "there is no such run, or it was moved away.")
        return known

    def _look(self) -> dict[str, tuple[Path, str]]:
        with self._lock:
            if time.monotonic() - self._looked >= _FRESH:
                self._found = {_id(folder): (folder, name) for folder, name in self._search()}
                self._looked = time.monotonic()
            return self._found

    def _search(self) -> Iterator[tuple[Path, str]]:
        budget = [_FOLDERS]
        for place in self._places:
            root = place.resolve()
            # Where the place itself is the run, its own name is all there is to say.
            for folder in _runs_below(root, _DEPTH, budget):
                name = folder.relative_to(root).as_posix() if folder != root else root.name
                yield folder, runfolder.clean_text(name)


def _runs_below(folder: Path, depth: int, budget: list[int]) -> Iterator[Path]:
    budget[0] -= 1
    if budget[0] < 0:
        return
    if runfolder.is_run(folder):
        yield folder
        return
    if depth == 0:
        return
    try:
        with os.scandir(folder) as entries:
            # Links are not followed: they may lead in circles, or out of what was given.
            names = sorted(
                entry.name
                for entry in entries
                if not entry.name.startswith(".") and entry.is_dir(follow_symlinks=False)
            )
    except OSError:
        return
    for name in names:
        yield from _runs_below(folder / name, depth - 1, budget)


def _id(folder: Path) -> str:
    return hashlib.sha256(os.fsencode(folder)).hexdigest()[:24]
