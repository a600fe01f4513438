"""``fieldmark serve``: what a place is that shall be shown, and what must be made for it first."""

import json
from pathlib import Path
from typing import NamedTuple

from fieldmark.errors import ArtifactError, CatalogError
from fieldmark.index.places import Place, is_server
from fieldmark.index.sqlite import FILE
from fieldmark.workflows.index import index_photos
from fieldmark.workflows.photos import ShowProgress, quiet
from fieldmark.workflows.run import RunFolder


class Shown(NamedTuple):
    """What a service is given."""

    place: str | None
    photos: Path | None
    runs: tuple[Path, ...]
    note: str | None = None
    """What the user should know, a sentence."""


def find_shown(
    place: Place,
    *,
    photos: Path | None = None,
    device: str = "auto",
    progress: ShowProgress = quiet,
) -> Shown:
    """Tell an index from a run; a finished run's photos are indexed once, in ``RUN/index``.

    Args:
        place: Folder of an index, a server's URL, a run folder, or a folder of run folders.
        photos: Where the photos are; by default where the index or the run had them.
        device: Where to compute, where photos must be indexed.
        progress: Told how far that is.

    Raises:
        ArtifactError: The folder is none of these.
        InputError: A URL that cannot be read.
    """
    if is_server(place):
        return Shown(str(place), photos, ())
    folder = Path(place)
    if (folder / FILE).is_file():
        return Shown(str(folder), photos, ())
    if (folder / "run.json").is_file():
        return _of_run(RunFolder(folder), photos, device, progress)
    if any(folder.glob("*/run.json")):
        return Shown(None, photos, (folder,))
    raise ArtifactError(
        f"{folder} is neither an index (fieldmark index ENCODER PHOTOS --out {folder}) nor a run "
        "(fieldmark train PHOTOS), nor a folder of runs; give one of these, or a postgresql:// URL."
    )


def _of_run(run: RunFolder, photos: Path | None, device: str, progress: ShowProgress) -> Shown:
    """A run, and the index of its photos as soon as training has made an encoder."""
    index, runs = run.path / "index", (run.path,)
    if (index / FILE).is_file():
        return Shown(str(index), photos, runs)
    if not (run.result.is_file() and (run.encoder / "encoder.json").is_file()):
        return Shown(
            None,
            photos,
            runs,
            "training is not finished: the run is shown, and its photos when it has an encoder.",
        )
    source = photos
    if source is None:
        told = json.loads((run.path / "run.json").read_text(encoding="utf-8"))
        source = Path(str(told.get("photos", "")))
    try:
        index_photos(run.encoder, source, index, device=device, parts=True, progress=progress)
    except CatalogError as error:
        return Shown(
            None, photos, runs, f"only the run is shown, for its photos are not here: {error}"
        )
    return Shown(str(index), source, runs)
