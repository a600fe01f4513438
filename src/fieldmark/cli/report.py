"""``fieldmark report``: write a run's report again."""

from pathlib import Path
from typing import Annotated

import typer

from fieldmark.cli.console import Json, emit


def command(
    run: Annotated[Path, typer.Argument(help="Run folder of fieldmark train.")],
    out: Annotated[
        Path | None, typer.Option(help="Where to write the page instead of RUN/report.html.")
    ] = None,
    open_page: Annotated[
        bool, typer.Option("--open", help="Show the page in the browser afterwards.")
    ] = False,
    json: Json = False,
) -> None:
    """Write RUN/report.html again from what the run kept; nothing is computed anew.

    The page is one file that needs no network: send it by e-mail, print it, keep it.

    Examples:

      fieldmark report runs/birds --open

      fieldmark report runs/birds --out birds.html --json
    """
    from fieldmark.workflows.report import rebuild_report

    result = rebuild_report(run, out)
    emit(
        json,
        {
            "report": str(result.page),
            "verdict": result.verdict,
            "sentence": result.sentence,
            "shipped": result.shipped,
            "photos": result.photos,
            "bytes": result.bytes,
        },
        f"{result.verdict}: {result.sentence}\nReport: {result.page} "
        f"({result.bytes / 1e6:.1f} MB, opens in any browser)",
    )
    if open_page:
        import webbrowser

        webbrowser.open(result.page.resolve().as_uri())
