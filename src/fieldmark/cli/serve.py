"""``fieldmark serve``: the page and the API."""

import logging
import sys
import webbrowser
from pathlib import Path
from typing import Annotated

import typer

from fieldmark.cli.console import Json, emit, messages, progress_bars
from fieldmark.errors import MissingExtraError


def command(
    place: Annotated[
        str,
        typer.Argument(
            help="An index (folder or postgresql:// URL), a run folder, or a folder of runs."
        ),
    ],
    photos: Annotated[
        Path | None,
        typer.Option(help="Where the photos are now; by default where they were indexed."),
    ] = None,
    runs: Annotated[
        list[Path] | None,
        typer.Option(help="Run folder, or folder of runs, to show beside; may be given again."),
    ] = None,
    api: Annotated[bool, typer.Option("--api", help="The API alone, without the page.")] = False,
    host: Annotated[
        str, typer.Option(help="Address to listen at; others than this machine's need --tokens.")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65_535, help="0 takes a free one.")] = 8000,
    name: Annotated[
        list[str] | None,
        typer.Option(
            help="Further NAME or NAME:PORT that browsers call it by; may be given again."
        ),
    ] = None,
    tokens: Annotated[
        Path | None, typer.Option(help="File of tokens, from fieldmark token add.")
    ] = None,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:1 …")] = "auto",
    max_upload_mb: Annotated[
        float, typer.Option(min=0.001, help="Largest photo that is taken, in megabytes.")
    ] = 50.0,
    open_page: Annotated[
        bool | None,
        typer.Option(
            "--open/--no-open", help="Show the page in the browser; by default at a terminal."
        ),
    ] = None,
    log: Annotated[
        bool, typer.Option("--log", help="A line on stderr for every request, without queries.")
    ] = False,
    json: Json = False,
) -> None:
    """Show an index or a run in the browser, and answer programs over HTTP, until Ctrl-C.

    Only this machine is served unless --host says otherwise, which --tokens must go with. A finished
    run's photos are indexed first, once, in RUN/index. With --json one line with the url is printed
    when the service is ready.

    Examples:

      fieldmark serve birds.index

      fieldmark serve runs/birds --port 0 --no-open --json

      fieldmark serve birds.index --host 0.0.0.0 --tokens tokens.toml --name birds.example
    """
    try:
        import fastapi  # noqa: F401
        import prometheus_client  # noqa: F401
        import uvicorn  # noqa: F401
    except ImportError as error:
        raise MissingExtraError(error.name or "fastapi", "app", "to serve") from None
    from fieldmark.app.run import check_exposure, serve
    from fieldmark.app.settings import Settings
    from fieldmark.index.places import shown as printable
    from fieldmark.workflows.serve import find_shown

    settings = Settings(
        runs=tuple(runs or ()),
        page=not api,
        host=host,
        port=port,
        names=tuple(name or ()),
        tokens=tokens,
        device=device,
        max_upload_bytes=int(max_upload_mb * 1e6),
    )
    check_exposure(settings)
    with progress_bars() as bars:
        shown = find_shown(place, photos=photos, device=device, progress=bars)
    if shown.note:
        messages().print(shown.note, markup=False)
    settings = settings.model_copy(
        update={
            "place": shown.place,
            "photos": shown.photos,
            "runs": tuple(dict.fromkeys((*shown.runs, *settings.runs))),
        }
    )
    _log_to_stderr(requests=log)

    def ready(url: str) -> None:
        text = f"fieldmark serves {printable(place)} at {url} (Ctrl-C stops it)"
        emit(json, {"url": url, "place": printable(place), "tokens": tokens is not None}, text)
        wanted = sys.stdout.isatty() if open_page is None else open_page
        if wanted and not api and not json:
            webbrowser.open(url)

    serve(settings, ready=ready)
    messages().print("fieldmark: stopped.", markup=False)


def _log_to_stderr(*, requests: bool) -> None:
    logging.basicConfig(level=logging.WARNING, format="%(asctime)s %(name)s %(message)s")
    # What clients send wrong is counted, and is no news to whoever runs the service.
    logging.getLogger("uvicorn.error").setLevel(logging.ERROR)
    logging.getLogger("fieldmark.access").setLevel(logging.INFO if requests else logging.WARNING)
