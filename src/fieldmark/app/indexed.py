"""The parts of a service that work on an index, put together."""

import tempfile
import threading
from collections import Counter
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float

from fieldmark.app.answers import Packed, pack
from fieldmark.app.derived import Derived
from fieldmark.app.guesses import Live
from fieldmark.app.heads import Heads
from fieldmark.app.kept import Keeper
from fieldmark.app.labels import Editor
from fieldmark.app.library import MEDIA, Library, View
from fieldmark.app.overview import Overview
from fieldmark.app.settings import Settings
from fieldmark.app.uploads import Embed, Uploads
from fieldmark.encoder import Encoder
from fieldmark.index.index import Item, Space, Stats
from fieldmark.index.parts import FILE as PARTS
from fieldmark.index.parts import Parts
from fieldmark.index.places import is_server
from fieldmark.workflows.classify import DARWIN_RANKS
from fieldmark.workflows.spaces import current_space, load_encoder, photos_of

CACHE = "cache"
"""Folder, in an index's folder, of what may be deleted at any time."""


_ASKED = 200
"""Photos of a label whose metadata are asked for coarser names."""


def _encoder(space: Space) -> dict[str, Any]:
    told = {name: space.about.get(name) for name in ("network", "size", "weights")}
    return {"identity": space.identity, **told, "vectors": space.vectors}


class Tables:
    """The whole table as JSON, written once for everybody."""

    def __init__(self) -> None:
        self._last: tuple[View, Packed] | None = None

    def pack(self, view: View) -> Packed:
        """Of a view."""
        last = self._last
        if last is not None and last[0] is view:
            return last[1]
        table, labels = view
        packed = pack(
            {
                "snapshot": table.snapshot,
                "change": labels.change,
                "keys": table.keys,
                "media": table.media,
                "labels": labels.names,
                "label": labels.of.tolist(),
                "version": labels.version.tolist(),
                "missing": table.missing.astype(int).tolist(),
            }
        )
        self._last = view, packed
        return packed


class Indexed:
    """Library, labels, guesses and overviews of one index.

    Args:
        settings: Say which.
        stopping: Set when the service is about to stop.

    Raises:
        FieldmarkError: The index cannot be opened or read.
    """

    def __init__(self, settings: Settings, *, stopping: threading.Event) -> None:
        assert settings.place is not None
        self._settings = settings
        self._private: tempfile.TemporaryDirectory[str] | None = None
        self.library = Library(settings.place, stopping=stopping)
        self._asked = self.library.open()
        self._asking = threading.Lock()
        self.derived = Derived(self._cache(), lambda: self.library.view().table.snapshot)
        keeper = Keeper(self._cache(), lambda: self.library.view().table.identity)
        self.heads = Heads(self.library.labelled, keeper)
        self.live = Live(self.library, self.derived, self.heads)
        self.editor = Editor(self.library)
        self.overview = Overview(
            self.library, self.derived, self._cache() / "map", photos=self.photos
        )
        self.embed: Embed = self._embed_here
        """Embeds a photo's file."""
        self.uploads = Uploads(
            self.library,
            lambda file: self.embed(file),
            photos=settings.photos,
            device=settings.device,
            max_bytes=settings.max_upload_bytes,
        )
        self._encoder: Encoder | None = None
        self.tables = Tables()
        # In this order: nobody guesses with a head of photos that are no more.
        self.library.on_photos += [
            self.heads.forget,
            self.live.forget,
            self.derived.forget_others,
        ]

    def close(self) -> None:
        """Let go of threads and files."""
        self.uploads.close()
        self.heads.close()
        self.live.close()
        self.derived.close()
        self.editor.close()
        self.library.close()
        with self._asking:
            self._asked.close()
        if self._private is not None:
            self._private.cleanup()

    def check(self) -> str:
        """For readiness: whether the index can be read."""
        with self._asking:
            self._asked.marks()
        return self.library.problem or "ok"

    def stats(self) -> Stats:
        """What the index holds."""
        with self._asking:
            return self._asked.stats()

    def describe(self) -> dict[str, Any]:
        """What the index holds, as the page takes it."""
        told, view = self.stats(), self.library.view()
        encoders = [_encoder(space) for space in told.spaces]
        place, photos = self.library.place, self.photos()
        names = {fact.name.lower(): fact.name for fact in view.table.facts}
        return {
            "index": "PostgreSQL" if is_server(place) else Path(place).resolve().name,
            "photos": len(view.table.keys),
            "missing": int(view.table.missing.sum()),
            "labelled": int(view.labelled.sum()),
            "encoder": next((e for e in encoders if e["identity"] == told.current), None),
            "encoders": encoders,
            "fields": [fact._asdict() for fact in view.table.facts],
            "parts": not is_server(place) and (Path(place) / PARTS).is_file(),
            "photos_found": photos is not None and photos.exists(),
            "taxonomy": [names[rank] for rank in DARWIN_RANKS if rank in names],
            "snapshot": view.table.snapshot,
            "change": view.labels.change,
            "search": told.search,
            "without": view.table.without,
        }

    def species(self, name: str) -> dict[str, Any]:
        """A label, with the coarser names that its photos' metadata tell."""
        told = self.live.species(name)
        ranks = self.describe()["taxonomy"]
        if not ranks:
            return told
        view = self.library.view()
        if name not in view.labels.names:
            return told
        rows = np.flatnonzero(view.labels.of == view.labels.names.index(name))[:_ASKED]
        with self._asking:
            items = self._asked.get([view.table.keys[row] for row in rows.tolist()])
        above = {}
        for rank in ranks:
            values = Counter(str(i.meta[rank]) for i in items if i.meta.get(rank) is not None)
            if values:
                above[rank] = values.most_common(1)[0][0]
        return told | {"taxonomy": above}

    def photos(self) -> Path | None:
        """Where the photos are; None where nobody knows."""
        if self._settings.photos is not None:
            return self._settings.photos
        told = self.stats()
        if told.current is None:
            return None
        place = self.library.place
        noted = photos_of(current_space(told, place))
        if noted is None and not is_server(place) and (Path(place) / PARTS).is_file():
            # An index from before photos were remembered.
            with closing(Parts(Path(place) / PARTS)) as parts:
                noted = None if parts.source is None else Path(parts.source)
        return noted

    @staticmethod
    def media_of(item: Item) -> str | None:
        """Name of a photo's pictures."""
        return item.stamp.sha256[:MEDIA] if item.stamp and item.stamp.sha256 else None

    def _cache(self) -> Path:
        if not is_server(self.library.place):
            return Path(self.library.place) / CACHE
        if self._private is None:
            self._private = tempfile.TemporaryDirectory(prefix="fieldmark-")
        return Path(self._private.name)

    def _embed_here(self, file: Path) -> Float[np.ndarray, " D"]:
        """One photo after the other, in this process."""
        with self._asking:
            space = current_space(self._asked.stats(), self.library.place)
            if self._encoder is None or self._encoder.identity != space.identity:
                self._encoder = load_encoder(
                    self.library.place, space, device=self._settings.device
                )
            return self._encoder.embed_file(file)
