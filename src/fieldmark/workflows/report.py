"""Write a run's report, and write it again from what the run kept."""

from pathlib import Path
from typing import NamedTuple

from fieldmark import storage
from fieldmark.errors import ArtifactError
from fieldmark.evaluation.report import ReportData, render

DATA_NAME = "report.json"
PAGE_NAME = "report.html"


class ReportResult(NamedTuple):
    """What was written."""

    page: Path
    verdict: str
    sentence: str
    shipped: str
    photos: int
    bytes: int


def write_report(run: Path, data: ReportData) -> ReportResult:
    """Keep a report's data in the run folder and render its page.

    Args:
        run: Run folder; made if it is missing.
        data: What to say; thumbnails included, so the page can be rendered again anywhere.

    Returns:
        Where the page is and what it says.

    Raises:
        OutputError: If the folder cannot be written.
        StorageError: If the disk is full.
    """
    storage.make_folder(run)
    # The data first: a page can always be made again from it, not the other way round.
    storage.write_text(run / DATA_NAME, data.to_json())
    return _render(data, run / PAGE_NAME)


def read_report(run: Path) -> ReportData:
    """Read the data kept in a run folder.

    Args:
        run: Run folder, or its ``report.json`` itself.

    Raises:
        ArtifactError: If there is none, or it is damaged or from a newer version.
    """
    path = run if run.is_file() else run / DATA_NAME
    try:
        text = path.read_text(encoding="utf-8")
    except (FileNotFoundError, NotADirectoryError):
        raise ArtifactError(
            f"{run} holds no {DATA_NAME}; it is written at the end of fieldmark train. Give the "
            "folder that was --out there, or run the same training command again to finish it."
        ) from None
    except (OSError, UnicodeDecodeError) as error:
        raise ArtifactError(f"{path} cannot be read: {error}.") from None
    return ReportData.from_json(text, str(path))


def rebuild_report(run: Path, out: Path | None = None) -> ReportResult:
    """Render a run's page again without computing anything anew.

    Args:
        run: Run folder, or its ``report.json``.
        out: Where to write the page; ``report.html`` beside the data when left out.

    Raises:
        ArtifactError: If the run holds no usable report data.
        OutputError: If the page cannot be written.
    """
    data = read_report(run)
    folder = run.parent if run.is_file() else run
    return _render(data, out if out is not None else folder / PAGE_NAME)


def _render(data: ReportData, page: Path) -> ReportResult:
    storage.make_folder(page.parent)
    render(data, page)
    outcome = data.outcome
    return ReportResult(
        page, outcome.word, outcome.sentence, outcome.shipped, len(data.photos), page.stat().st_size
    )
