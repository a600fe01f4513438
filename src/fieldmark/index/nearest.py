"""Nearest neighbours with FAISS: exact while that is fast, else IVF with a recall that was measured.

Derived from an index's vectors and never the truth: whatever is missing, damaged or old is made anew.
"""

import json
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

import faiss as typed_faiss
import numpy as np
from jaxtyping import Float, Int

from fieldmark import rng, storage

faiss: Any = typed_faiss
"""Its stubs lack half of what it has."""
EXACT_UP_TO = 200_000
"""Vectors that are searched one by one; beyond, an exact search takes longer than a person notices."""
RECALL = 0.99
_TUNED_AT, _TUNED_ON = 10, 1000
_FEW = 20_000
"""Chosen vectors, at most, that are compared one by one instead of through the index."""
_VERSION = 1

Ids = Int[np.ndarray, " N"]


class Found(NamedTuple):
    """Neighbours of each query, nearest first; -1 where there are fewer."""

    ids: Int[np.ndarray, "Q K"]
    scores: Float[np.ndarray, "Q K"]


class Nearest:
    """A FAISS index over unit vectors with ids.

    Attributes:
        settings: ``kind`` (``exact`` or ``approximate``); where approximate ``lists``, ``probes``,
            ``recall`` (at 10, of the index's own vectors against exact search) and ``trained_on``.
    """

    def __init__(self, index: Any, settings: dict[str, Any]) -> None:
        self._index = index
        self.settings = settings

    @classmethod
    def build(
        cls, ids: Ids, vectors: Float[np.ndarray, "N D"], *, exact_up_to: int = EXACT_UP_TO
    ) -> "Nearest":
        """Make it from all vectors.

        Args:
            ids: Distinct, 0 or more.
            vectors: Unit vectors.
            exact_up_to: More vectors than these are searched approximately.
        """
        dim = vectors.shape[1]
        if len(ids) <= exact_up_to:
            index = faiss.IndexIDMap2(faiss.IndexFlatIP(dim))
            index.add_with_ids(vectors, ids)
            return cls(index, {"kind": "exact"})
        lists = int(4 * np.sqrt(len(ids)))
        quantizer = faiss.IndexFlatIP(dim)
        index = faiss.IndexIVFFlat(quantizer, dim, lists, faiss.METRIC_INNER_PRODUCT)
        # The quantizer is Python's; without this it would be freed before the index.
        index.own_fields = True
        quantizer.this.disown()
        index.cp.seed = 0
        index.set_direct_map_type(faiss.DirectMap.Hashtable)
        chosen = np.argsort(rng.mix("ivf", ids), kind="stable")[: 64 * lists]
        index.train(vectors[np.sort(chosen)])
        index.add_with_ids(vectors, ids)
        made = cls(index, {"kind": "approximate", "lists": lists, "trained_on": len(ids)})
        made._tune(ids, vectors)
        return made

    def _tune(self, ids: Ids, vectors: Float[np.ndarray, "N D"]) -> None:
        """Look into as many lists as these vectors need for the recall that is promised.

        Each is asked for its like, not for itself, which any search finds: new photos are none of them.
        """
        chosen = np.argsort(rng.mix("tune", ids), kind="stable")[:_TUNED_ON]
        own, queries = ids[chosen], vectors[chosen]
        flat = faiss.IndexFlatIP(vectors.shape[1])
        flat.add(vectors)
        truth = _others(ids[flat.search(queries, _TUNED_AT + 1)[1]], own)
        probes, lists = 1, self.settings["lists"]
        while True:
            self.settings["probes"] = probes
            self._index.nprobe = probes
            found = _others(self.search(queries, _TUNED_AT + 1).ids, own)
            hits = [len(np.intersect1d(a, b)) for a, b in zip(found, truth, strict=True)]
            self.settings["recall"] = float(np.mean(hits)) / _TUNED_AT
            if self.settings["recall"] >= RECALL or probes >= lists:
                return
            probes = min(lists, probes * 2)

    def __len__(self) -> int:
        return int(self._index.ntotal)

    def add(self, ids: Ids, vectors: Float[np.ndarray, "N D"]) -> None:
        """Take in further vectors."""
        if len(ids):
            self._index.add_with_ids(vectors, ids)

    def remove(self, ids: Ids) -> None:
        """Take vectors out; ids that are not there do no harm."""
        if len(ids):
            # With a hash table from ids to places FAISS takes a plain array only.
            exact = self.settings["kind"] == "exact"
            chosen = faiss.IDSelectorBatch if exact else faiss.IDSelectorArray
            self._index.remove_ids(chosen(np.asarray(ids, np.int64)))

    @property
    def outgrown(self) -> bool:
        """Whether so much was added that it should be built anew."""
        return outgrown(self.settings, len(self))

    def search(
        self, queries: Float[np.ndarray, "Q D"], k: int, *, among: Ids | None = None
    ) -> Found:
        """Nearest vectors by inner product.

        Args:
            queries: Unit vectors.
            k: How many.
            among: Only these ids.
        """
        if not len(self) or not len(queries) or (among is not None and not len(among)):
            return Found(
                np.full((len(queries), k), -1, np.int64),
                np.full((len(queries), k), -np.inf, np.float32),
            )
        if among is None:
            scores, ids = self._index.search(queries, k)
            return Found(ids, scores)
        among = np.asarray(among, np.int64)
        approximate = self.settings["kind"] != "exact"
        if approximate and len(among) <= _FEW:
            return self._compare(queries, k, among)
        selector = faiss.IDSelectorBatch(among)
        if approximate:
            # Of few chosen ones, those near the query lie in more lists than all near ones do.
            share = max(len(among) / len(self), 1e-3)
            probes = min(self.settings["lists"], int(np.ceil(self.settings["probes"] / share)))
            parameters = faiss.SearchParametersIVF(sel=selector, nprobe=probes)
        else:
            parameters = faiss.SearchParameters(sel=selector)
        scores, ids = self._index.search(queries, k, params=parameters)
        return Found(ids, scores)

    def _compare(self, queries: Float[np.ndarray, "Q D"], k: int, among: Ids) -> Found:
        part = faiss.IndexFlatIP(self._index.d)
        part.add(np.stack([self._index.reconstruct(int(each)) for each in among]))
        scores, places = part.search(queries, k)
        return Found(np.where(places >= 0, among[places], -1), scores)

    def save(self, place: Path, mark: dict[str, Any]) -> None:
        """Write ``PLACE.faiss`` and, last, ``PLACE.json`` with its hash.

        Args:
            place: Path without suffix.
            mark: What it was made from; :meth:`load` gives it back.
        """
        data = faiss.serialize_index(self._index).tobytes()
        file = place.with_suffix(".faiss")
        storage.write_bytes(file, data)
        told = {"version": _VERSION, "sha256": storage.sha256_of(file), **self.settings}
        storage.write_json(place.with_suffix(".json"), {"settings": told, "mark": mark})

    @classmethod
    def load(cls, place: Path) -> "tuple[Nearest, dict[str, Any]] | None":
        """What :meth:`save` wrote, if it is there and whole."""
        with suppress(OSError, ValueError, KeyError, TypeError, RuntimeError):
            settings, mark, digest = _told(place)
            data = place.with_suffix(".faiss").read_bytes()
            # FAISS reads a damaged file into wild memory: the hash decides before it may look.
            if storage.sha256_bytes(data) != digest:
                return None
            index = faiss.deserialize_index(np.frombuffer(data, np.uint8))
            if settings["kind"] == "approximate":
                index.nprobe = settings["probes"]
            return cls(index, settings), mark
        return None

    @staticmethod
    def settings_of(place: Path) -> tuple[dict[str, Any], dict[str, Any]] | None:
        """Settings and mark of what :meth:`load` would read, without reading the vectors."""
        with suppress(OSError, ValueError, KeyError, TypeError):
            settings, mark, _ = _told(place)
            return (settings, mark) if place.with_suffix(".faiss").is_file() else None
        return None


def _others(found: Int[np.ndarray, "Q K"], own: Int[np.ndarray, " Q"]) -> list[Any]:
    """The first ten of each row but its own."""
    return [row[row != each][:_TUNED_AT] for row, each in zip(found, own, strict=True)]


def outgrown(settings: dict[str, Any], count: int) -> bool:
    """Whether so many vectors want to be built anew; see :attr:`Nearest.settings`."""
    if settings["kind"] == "exact":
        return count > EXACT_UP_TO
    return bool(count > 2 * settings["trained_on"])


def _told(place: Path) -> tuple[dict[str, Any], dict[str, Any], str]:
    """Settings, mark and hash of a file of vectors."""
    told = json.loads(place.with_suffix(".json").read_text(encoding="utf-8"))
    settings, mark = dict(told["settings"]), dict(told["mark"])
    if settings.pop("version") != _VERSION:
        raise ValueError("another version")
    return settings, mark, str(settings.pop("sha256"))
