"""Any order of calls, kills and reopenings against a plain dict, for each engine (R11).

Two connections are open at once, as two processes have them, and every call goes through one of them,
so a search index in memory that missed what the other wrote is found out.
"""

import itertools
import shutil
from dataclasses import dataclass, field, replace

import numpy as np
import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    rule,
    run_state_machine_as_test,
)
from vectors import ENCODER, OTHER, unit

from fieldmark.errors import ArtifactError, ConflictError, InputError
from fieldmark.index import sqlite as module
from fieldmark.index.index import Item, Stamp
from fieldmark.index.postgres import PostgresIndex
from fieldmark.index.sqlite import SqliteIndex
from fieldmark.index.where import holds, parse

DIMS = {ENCODER: 8, OTHER: 5}
_names = itertools.count()

KEYS = ["a.jpg", "b/a.jpg", "ä b/ü.jpg", "100%_'\".jpg", "c", "d", "e", "f"]
hands = st.integers(0, 1)
picks = st.lists(st.integers(0, 15), min_size=1, max_size=4, unique=True)
"""Numbers of keys: mostly of those that fit the call, see ``States.pick``."""
identities = st.sampled_from([None, ENCODER, OTHER])
named = st.sampled_from([ENCODER, OTHER])
seeds = st.integers(0, 30)
counts = st.sampled_from([1, 2, 3, 10])
metas = st.sampled_from([{}, {"year": 2019}, {"year": "2019", "site": {"name": "pond"}}])
stamps = st.sampled_from([None, *(Stamp(n, n + 1, str(n % 2) * 64) for n in range(3))])
labels = st.sampled_from(["wren", "house sparrow", "Zaunkönig", None])
filters = st.sampled_from(
    [
        None,
        'label = "wren"',
        "label is null",
        "missing = true",
        "year = 2019 or site.name contains 'PON'",
        'key > "b"',
    ]
)


@dataclass(frozen=True)
class Entry:
    """What is known of one item."""

    item: Item
    vectors: dict = field(default_factory=dict)


class Halted(Exception):
    """A writer dies here."""


def vector(identity, seed):
    return unit(1, DIMS[identity], seed=seed)[0]


def write_half(index, keys, then=lambda: None):
    """Begin to write, and die before the end."""
    with index._write():
        index.remove(keys)
        index.add(["new"], vector(index.stats().current, 1)[None])
        then()
        raise Halted


class States(RuleBasedStateMachine):
    """An index and the dict that it must be equal to."""

    def __init__(self, store):
        super().__init__()
        self.store = store
        self.hands = [store.open(), store.open()]
        self.known: dict[str, Entry] = {}
        self.spaces, self.current = [], None
        self.told: list[tuple] = []
        self.hands[0].add_space(ENCODER, DIMS[ENCODER])
        self.spaces, self.current = [ENCODER], ENCODER

    @initialize(both=st.booleans())
    def begin(self, both):
        self.add(0, [0, 2, 4, 6], 100, None, Stamp(1, 1, "0" * 64), None)
        if both:
            self.move(0, use=False)

    def teardown(self):
        for hand in self.hands:
            hand.close()
        self.store.forget()

    def refused(self, call, kind=InputError):
        with pytest.raises(kind):
            call()

    def pick(self, numbers, there=True):
        """Keys that are there, or not yet; one in eight is any key."""
        among = [key for key in KEYS if (key in self.known) == there] or KEYS
        found = [(KEYS if n == 15 else among)[n % len(among)] for n in numbers]
        return list(dict.fromkeys(found))

    def rows(self, identity, keys, seed):
        return np.stack([vector(identity, seed + place) for place in range(len(keys))])

    # -- writing

    @rule(
        hand=hands,
        numbers=picks,
        seed=seeds,
        meta=st.none() | metas,
        stamp=st.none() | stamps,
        identity=identities,
    )
    def add(self, hand, numbers, seed, meta, stamp, identity):
        keys = self.pick(numbers, there=False)
        space = identity or self.current
        rows = self.rows(space, keys, seed)
        more = {} if meta is None else {"metas": [meta] * len(keys)}
        if stamp is not None:
            more["stamps"] = [stamp] * len(keys)

        def call():
            self.hands[hand].add(keys, rows, identity=identity, **more)

        if set(keys) & set(self.known) or space not in self.spaces:
            self.refused(call)
            return
        call()
        for key, row in zip(keys, rows, strict=True):
            item = Item(key, dict(meta or {}), None, 1, stamp, False)
            self.known[key] = Entry(item, {space: row})

    @rule(
        hand=hands,
        numbers=picks,
        seed=st.none() | seeds,
        meta=st.none() | metas,
        stamp=st.none() | st.lists(stamps, min_size=4, max_size=4),
        missing=st.none() | st.booleans(),
        identity=identities,
        damaged=st.integers(0, 5).map(lambda n: n == 0),
    )
    def update(self, hand, numbers, seed, meta, stamp, missing, identity, damaged):
        keys = self.pick(numbers)
        self.change(hand, keys, seed, meta, stamp, missing, identity, damaged)

    def change(self, hand, keys, seed, meta, stamp, missing, identity, damaged):
        space = identity or self.current
        given = {"missing": missing, "identity": identity}
        if meta is not None:
            given["metas"] = [meta] * len(keys)
        if stamp is not None:
            given["stamps"] = stamp[: len(keys)]
        if seed is not None:
            given["vectors"] = self.rows(space, keys, seed) * (2 if damaged else 1)

        def call():
            self.hands[hand].update(keys, **given)

        lost = space not in self.spaces and (seed is not None or stamp is not None)
        if not set(keys) <= set(self.known) or lost or (damaged and seed is not None):
            self.refused(call)
            return
        call()
        for place, key in enumerate(keys):
            item, vectors = self.known[key].item, dict(self.known[key].vectors)
            if stamp is not None:
                new = stamp[place]
                if new and item.stamp and new.sha256 != item.stamp.sha256:
                    vectors = {name: kept for name, kept in vectors.items() if name == space}
                item = item._replace(stamp=new)
            if meta is not None:
                item = item._replace(meta=meta)
            if missing is not None:
                item = item._replace(missing=missing)
            if (stamp, meta, missing) != (None, None, None):
                item = item._replace(version=item.version + 1)
            if seed is not None:
                vectors[space] = given["vectors"][place]
            self.known[key] = Entry(item, vectors)

    @rule(hand=hands, numbers=picks)
    def remove(self, hand, numbers):
        keys = self.pick(numbers)
        there = set(keys) & set(self.known)
        assert self.hands[hand].remove(keys) == len(there)
        for key in there:
            del self.known[key]

    @rule(
        hand=hands,
        changes=st.dictionaries(st.integers(0, 15), labels, min_size=1, max_size=3),
        seen=st.sampled_from(["nothing", "all", "an older state"]),
    )
    def label(self, hand, changes, seen):
        changes = {self.pick([number])[0]: label for number, label in changes.items()}
        versions = {key: self.known[key].item.version for key in changes if key in self.known}
        expected = None if seen == "nothing" else versions
        if seen == "an older state" and versions:
            expected = versions | {min(versions): versions[min(versions)] - 1}

        def call():
            return self.hands[hand].set_labels(changes, by="Ida", expected=expected)

        if len(versions) < len(changes):
            self.refused(call)
            return
        if seen == "an older state":
            self.refused(call, ConflictError)
            return
        for key, label in changes.items():
            item = self.known[key].item
            if item.label != label:
                self.told.append((key, item.label, label, "Ida"))
                item = item._replace(label=label, version=item.version + 1)
                self.known[key] = replace(self.known[key], item=item)
        assert call() == {key: self.known[key].item.version for key in changes}

    # -- encoders

    @rule(hand=hands, identity=named, grown=st.integers(0, 9).map(lambda n: int(n == 0)))
    def add_space(self, hand, identity, grown):
        def call():
            self.hands[hand].add_space(identity, DIMS[identity] + grown)

        if grown:
            # A space that is not there would be made: not what is tried here.
            if identity in self.spaces:
                self.refused(call)
            return
        call()
        if identity not in self.spaces:
            self.spaces.append(identity)

    @rule(hand=hands, identity=named)
    def use_space(self, hand, identity):
        def call():
            self.hands[hand].use_space(identity)

        lacking = [e for e in self.known.values() if identity not in e.vectors]
        if identity not in self.spaces or lacking:
            self.refused(call)
            return
        call()
        self.current = identity

    @rule(hand=hands, identity=named)
    def drop_space(self, hand, identity):
        def call():
            self.hands[hand].drop_space(identity)

        if identity not in self.spaces or identity == self.current:
            self.refused(call)
            return
        call()
        self.spaces.remove(identity)
        for entry in self.known.values():
            entry.vectors.pop(identity, None)

    @rule(hand=hands, use=st.booleans())
    def move(self, hand, use):
        """All that it takes to go over to the other encoder, with another connection halfway."""
        other = ENCODER if self.current == OTHER else OTHER
        self.add_space(hand, other, 0)
        for seed, key in enumerate(self.known):
            if other not in self.known[key].vectors:
                self.change(1 - hand, [key], 50 + seed, None, None, None, other, False)
        if use:
            self.use_space(hand, other)

    # -- reading

    @rule(hand=hands, seed=seeds, k=counts, where=filters, identity=identities)
    def search(self, hand, seed, k, where, identity):
        space = identity or self.current
        query = vector(space, seed)
        call = lambda: self.hands[hand].search(query[None], k, where=where, identity=identity)  # noqa: E731
        if space not in self.spaces:
            self.refused(call)
            return
        (hits,) = call()
        self.are_nearest(hits, query, k, where, space)

    @rule(hand=hands, number=st.integers(0, 15), k=counts, where=filters)
    def like(self, hand, number, k, where):
        (key,) = self.pick([number])
        if key not in self.known or self.current not in self.known[key].vectors:
            self.refused(lambda: self.hands[hand].like([key], k))
            return
        (hits,) = self.hands[hand].like([key], k, where=where)
        self.are_nearest(hits, self.known[key].vectors[self.current], k, where, self.current, key)

    def are_nearest(self, hits, query, k, where, space, but=None):
        """Ties at the end of the list may fall either way."""
        among = {
            key: float(entry.vectors[space] @ query)
            for key, entry in self.known.items()
            if space in entry.vectors
            and key != but
            and (where is None or holds(parse(where), entry.item.facts()))
        }
        best = sorted(among.values(), reverse=True)[:k]
        np.testing.assert_allclose([hit.score for hit in hits], best, atol=1e-5)
        np.testing.assert_allclose([hit.score for hit in hits], [among[h.key] for h in hits], atol=1e-5)  # fmt: skip
        assert len({hit.key for hit in hits}) == len(hits)
        assert hits == sorted(hits, key=lambda hit: (-hit.score, hit.key))
        assert [hit.item for hit in hits] == [self.known[hit.key].item for hit in hits]

    @rule(hand=hands, where=filters)
    def choose(self, hand, where):
        wanted = [
            entry.item
            for _, entry in sorted(self.known.items())
            if where is None or holds(parse(where), entry.item.facts())
        ]
        assert list(self.hands[hand].items(where)) == wanted

    @rule(hand=hands)
    def verify(self, hand):
        assert self.hands[hand].verify() == []

    # -- upkeep and accidents

    @rule(hand=hands, gone=st.booleans(), number=st.integers(0, 14))
    def compact(self, hand, gone, number):
        if gone:
            # What the other one knows is then of a past that is compacted away.
            self.search(1 - hand, 0, 1, None, None)
            self.remove(hand, [number])
        self.hands[hand].compact()

    @rule(hand=hands)
    def reopen(self, hand):
        self.hands[hand].close()
        self.hands[hand] = self.store.open()

    @rule(numbers=picks, halfway=st.booleans())
    def kill(self, numbers, halfway):
        """Both processes die, one of them in the middle of writing."""
        self.hands = self.store.kill(self.hands, self.pick(numbers) if halfway else [])

    @rule(hand=hands, numbers=picks)
    def fail(self, hand, numbers):
        """A call that fails in its middle leaves nothing behind."""
        keys = self.pick(numbers)
        with pytest.raises(Halted):
            write_half(self.hands[hand], keys)

    @invariant()
    def equal(self):
        number = len(self.told) % 2
        index = self.hands[number]
        assert list(index.items()) == [entry.item for _, entry in sorted(self.known.items())]
        stats = index.stats()
        assert (stats.items, stats.missing, stats.labelled, stats.current) == (
            len(self.known),
            sum(entry.item.missing for entry in self.known.values()),
            sum(entry.item.label is not None for entry in self.known.values()),
            self.current,
        )
        assert [(space.identity, space.dim, space.vectors) for space in stats.spaces] == [
            (name, DIMS[name], sum(name in entry.vectors for entry in self.known.values()))
            for name in self.spaces
        ]
        assert [(c.key, c.before, c.after, c.by) for c in index.history()] == self.told
        assert index.stamps() == {
            key: (entry.item.stamp.size, entry.item.stamp.modified_ns, entry.item.missing)
            for key, entry in self.known.items()
            if entry.item.stamp is not None
        }
        for name in self.spaces:
            there = {k: e.vectors[name] for k, e in self.known.items() if name in e.vectors}
            assert index.pending(name) == sorted(set(self.known) - set(there))
            found = index.vectors(list(there), identity=name)
            np.testing.assert_array_equal(found, [*there.values()] or found)


class Folder:
    """An embedded index; a kill leaves its files as they are at that moment."""

    def __init__(self, place):
        self.place = place / f"index-{next(_names)}"

    def open(self):
        index = SqliteIndex(self.place, create=True)
        # A copied folder asks nothing of the disk; that calls are durable is the killed writers' test.
        index._db.execute("PRAGMA synchronous = OFF")
        return index

    def kill(self, hands, keys):
        copy = self.place.with_name(f"index-{next(_names)}")
        if keys:
            # Parts of a change that is larger than memory are in the log before it is committed.
            hands[0]._db.execute("PRAGMA cache_size = 1")
            with pytest.raises(Halted):
                write_half(hands[0], keys, lambda: shutil.copytree(self.place, copy))
        else:
            shutil.copytree(self.place, copy)
        for hand in hands:
            hand.close()
        shutil.rmtree(self.place)
        self.place = copy
        return [self.open(), self.open()]

    def forget(self):
        shutil.rmtree(self.place, ignore_errors=True)


class Server:
    """A server's index; a kill ends the connection without a word."""

    def __init__(self, url):
        self.url, self.name = url, f"states_{next(_names)}"

    def open(self):
        index = PostgresIndex(self.url, name=self.name, create=True)
        # The server itself does not die here, so waiting for its disk would prove nothing.
        index._db.execute("SET synchronous_commit = off")
        return index

    def kill(self, hands, keys):
        def end():
            number = hands[0]._db.info.backend_pid
            hands[1]._db.execute("SELECT pg_terminate_backend(%s, 5000)", (number,))

        if keys:
            with pytest.raises((ArtifactError, Halted)):
                write_half(hands[0], keys, end)
        else:
            end()
        for hand in hands:
            hand.close()
        return [self.open(), self.open()]

    def forget(self):
        with PostgresIndex(self.url, name=self.name) as index:
            index._db.execute(f"DROP SCHEMA {self.name} CASCADE")


@pytest.mark.parametrize(
    ("engine", "examples"),
    [
        ("sqlite", 25),
        ("postgres", 6),
        pytest.param("sqlite", 2000, marks=pytest.mark.slow),
        pytest.param("postgres", 300, marks=pytest.mark.slow),
    ],
)
def test_any_order_of_calls_and_kills_is_that_of_a_dict(
    engine, examples, request, tmp_path, monkeypatch
):
    monkeypatch.setattr(module, "_SAVED_FROM", 3)
    if engine == "sqlite":
        make = lambda: States(Folder(tmp_path))  # noqa: E731
    else:
        url = request.getfixturevalue("server")
        make = lambda: States(Server(url))  # noqa: E731
    run_state_machine_as_test(
        make,
        settings=settings(
            max_examples=examples,
            stateful_step_count=30,
            deadline=None,
            suppress_health_check=list(HealthCheck),
        ),
    )
