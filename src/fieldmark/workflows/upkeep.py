"""``fieldmark index verify``, ``compact``, ``backup`` and ``stats``: keeping an index well."""

import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from fieldmark import storage
from fieldmark.encoder import Encoder
from fieldmark.errors import FieldmarkError, InputError
from fieldmark.index.places import Place, is_server, open_index, read_url, shown
from fieldmark.index.sqlite import FILE, SqliteIndex
from fieldmark.workflows.index import UPLOADS
from fieldmark.workflows.spaces import encoder_folder


def verify_index(index: Place) -> dict[str, Any]:
    """Read all of an index and its encoders, and tell what is wrong.

    Returns:
        ``index``, ``items``, ``problems`` (a sentence each) and ``sound``.

    Raises:
        ArtifactError: It is so damaged that it cannot be opened.
    """
    with open_index(index) as opened:
        problems = opened.verify()
        items = sum(1 for _ in opened.items())
        identities: list[str] = []
        try:
            identities = [space.identity for space in opened.stats().spaces]
        except FieldmarkError as error:
            # Damaged vectors, which are named above.
            if not problems:
                problems.append(str(error))
    if not is_server(index):
        problems += _encoder_problems(Path(index), identities)
    return {"index": shown(index), "items": items, "problems": problems, "sound": not problems}


def _encoder_problems(index: Path, identities: Sequence[str]) -> Iterator[str]:
    wanted = {encoder_folder(index, identity) for identity in identities}
    for folder in sorted(wanted.union((index / "encoders").glob("[0-9a-f]*"))):
        try:
            found = Encoder.load(folder, device="cpu").identity
        except FieldmarkError as error:
            yield str(error)
        else:
            if found[:12] != folder.name:
                yield f"{folder} holds another encoder ({found[:12]}…); copy the right one there"


def compact_index(index: Place) -> dict[str, Any]:
    """Give back the room of what was removed, and make the search index anew.

    Returns:
        ``index``, ``search`` (how neighbours are found now), and of a folder ``bytes_before`` and
        ``bytes``.
    """
    before = _bytes(index)
    with open_index(index) as opened:
        opened.compact()
        search = opened.stats().search
    sizes = {} if before is None else {"bytes_before": before, "bytes": _bytes(index)}
    return {"index": shown(index), "search": search, **sizes}


def _bytes(index: Place) -> int | None:
    if is_server(index):
        return None
    return sum(file.stat().st_size for file in Path(index).glob(f"{FILE}*"))


def back_up_index(index: Place, out: Path) -> dict[str, Any]:
    """Copy an index, its encoders and the photos that it keeps itself as they are now, while others go on using it.

    Args:
        index: Folder; servers have tools of their own.
        out: A new folder, which is an index then.

    Returns:
        ``index``, ``out``, ``items`` and ``encoders``.

    Raises:
        InputError: A server's index, or a folder that is not empty.
    """
    with open_index(index) as opened:
        if not isinstance(opened, SqliteIndex):
            _, name = read_url(str(index))
            raise InputError(
                f"{shown(index)} is a server's index; back it up with the server's own tool: pg_dump "
                f"--schema={name}."
            )
        told = opened.stats()
        # Encoders never change, so they may follow; the database comes first, in one state.
        opened.back_up(out)
        copied = 0
        for space in told.spaces:
            folder = encoder_folder(index, space.identity)
            if folder.is_dir():
                with storage.storage_errors(out):
                    shutil.copytree(folder, encoder_folder(out, space.identity))
                copied += 1
        if (Path(index) / UPLOADS).is_dir():
            with storage.storage_errors(out):
                unfinished = shutil.ignore_patterns(".*")
                shutil.copytree(Path(index) / UPLOADS, out / UPLOADS, ignore=unfinished)
    with SqliteIndex(out) as copy:
        items = copy.stats().items
    return {"index": shown(index), "out": str(out), "items": items, "encoders": copied}


def index_stats(index: Place) -> dict[str, Any]:
    """What an index holds.

    Returns:
        ``index``, ``engine``, ``items``, ``missing``, ``labelled``, ``labels`` (photos by label),
        ``current`` (identity of the encoder in use), ``search``, and ``spaces``: of each encoder
        ``identity``, ``dim``, ``vectors``, ``lacking`` (items without one) and ``about``.
    """
    with open_index(index) as opened:
        told = opened.stats()
        labels: dict[str, int] = {}
        for item in opened.items("label is not null"):
            if item.label is not None:
                labels[item.label] = labels.get(item.label, 0) + 1
    return {
        "index": shown(index),
        "engine": told.engine,
        "items": told.items,
        "missing": told.missing,
        "labelled": told.labelled,
        "labels": dict(sorted(labels.items(), key=lambda pair: (-pair[1], pair[0]))),
        "current": told.current,
        "search": told.search,
        "spaces": [
            {
                "identity": space.identity,
                "dim": space.dim,
                "vectors": space.vectors,
                "lacking": told.items - space.vectors,
                "about": space.about,
            }
            for space in told.spaces
        ],
    }
