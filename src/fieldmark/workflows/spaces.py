"""The encoders of an index: where each one's folder is, and that it is the one that it should be.

An index in a folder keeps a copy of every encoder that has vectors in it. A server keeps none: it
remembers in which folder each was when photos were added, and whoever has it elsewhere says where.
"""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from fieldmark import storage
from fieldmark.encoder import Encoder
from fieldmark.errors import ArtifactError, InputError
from fieldmark.index.index import Index, Space, Stats
from fieldmark.index.places import Place, is_server, shown
from fieldmark.index.postgres import PostgresIndex
from fieldmark.training.lock import hold_run

_PHOTOS = "photos"
_LEAST = 4
"""Characters of an identity that are enough to mean it."""


def encoder_folder(place: Place, identity: str) -> Path:
    """Where an index in a folder keeps an encoder."""
    return Path(place) / "encoders" / identity[:12]


@contextmanager
def hold_index(index: Index, place: Place) -> Iterator[None]:
    """Keep other processes off adding photos to an index for a block; they may search and label.

    Raises:
        BusyError: Another process adds photos to it.
    """
    held = index.hold() if isinstance(index, PostgresIndex) else hold_run(Path(place) / "adding")
    with held:
        yield


def keep_encoder(index: Index, place: Place, encoder: Encoder, given: Path) -> None:
    """Make room for an encoder's vectors, and keep the encoder or remember where it is.

    Args:
        index: The index.
        place: Where it is.
        encoder: Loaded from ``given``.
        given: Encoder or run folder.
    """
    about = {
        "network": encoder.spec.backbone.config.name,
        "size": encoder.size,
        "weights": encoder.provenance.sentence(),
    }
    for space in index.stats().spaces:
        if space.identity == encoder.identity and _PHOTOS in space.about:
            about[_PHOTOS] = space.about[_PHOTOS]
    if is_server(place):
        about["folder"] = str(Path(given).resolve())
    else:
        folder = encoder_folder(place, encoder.identity)
        if not (folder / "encoder.json").is_file():
            storage.make_folder(folder.parent)
            encoder.save(folder)
    index.add_space(encoder.identity, encoder.dim, about)


def remember_photos(index: Index, identity: str, photos: Path) -> None:
    """Note where the photos of an encoder's vectors were seen."""
    place = str(Path(photos).resolve())
    for space in index.stats().spaces:
        if space.identity == identity and space.about.get(_PHOTOS) != place:
            index.add_space(identity, space.dim, {**space.about, _PHOTOS: place})


def photos_of(space: Space) -> Path | None:
    """Where the photos were when they were last looked for; None where nobody noted it."""
    place = space.about.get(_PHOTOS)
    return Path(place) if isinstance(place, str) and place else None


def drop_encoder(index: Index, place: Place, identity: str) -> None:
    """Forget an encoder's vectors, and its copy in the index's folder."""
    index.drop_space(identity)
    if not is_server(place):
        shutil.rmtree(encoder_folder(place, identity), ignore_errors=True)


def current_space(told: Stats, place: Place) -> Space:
    """The space that searches use.

    Raises:
        InputError: The index is empty.
    """
    for space in told.spaces:
        if space.identity == told.current:
            return space
    raise InputError(f"{shown(place)} is empty; add photos with fieldmark index first.")


def choose_space(
    told: Stats, place: Place, encoder: str | None, *, device: str = "auto"
) -> tuple[Space, Encoder | None]:
    """The space that is asked for.

    Args:
        told: What the index holds.
        place: Where it is.
        encoder: The beginning of an identity, or the encoder's folder; None: the current one.
        device: Where to compute.

    Returns:
        The space, and its encoder where a folder was given.

    Raises:
        InputError: The index has no vectors of this encoder.
    """
    current = current_space(told, place)
    if encoder is None:
        return current, None
    loaded = Encoder.load(encoder, device=device) if Path(encoder).is_dir() else None
    begins = encoder.lower().removesuffix("…") if loaded is None else loaded.identity
    found = [space for space in told.spaces if space.identity.startswith(begins)]
    if len(found) == 1 and len(begins) >= _LEAST:
        return found[0], loaded
    known = ", ".join(space.identity[:12] for space in told.spaces)
    raise InputError(
        f"{shown(place)} has no vectors of one encoder {encoder!r}; it has of {known}. Give the beginning of "
        f"an identity ({_LEAST} characters or more), or an encoder's folder."
    )


def find_encoder(place: Place, space: Space) -> Path:
    """The folder in which an index's own encoder should be.

    Raises:
        ArtifactError: The index is a server's, and the folder is not on this machine.
    """
    if not is_server(place):
        return encoder_folder(place, space.identity)
    told = space.about.get("folder")
    if told is None or not Path(str(told)).is_dir():
        raise ArtifactError(
            f"encoder {space.identity[:12]}… of {shown(place)} is not on this machine"
            f"{f' (it was in {told} where photos were added)' if told else ''}; say where it is: "
            "--encoder FOLDER."
        )
    return Path(str(told))


def load_encoder(place: Place, space: Space, *, device: str = "auto") -> Encoder:
    """An index's own encoder.

    Raises:
        ArtifactError: It is not where it should be, or another one is there.
    """
    here = find_encoder(place, space)
    encoder = Encoder.load(here, device=device)
    if encoder.identity != space.identity:
        raise ArtifactError(
            f"{here} holds encoder {encoder.identity[:12]}…, and {shown(place)} wants "
            f"{space.identity[:12]}…; say where that is: --encoder FOLDER."
        )
    return encoder
