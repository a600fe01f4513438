"""The contract of every engine, against plain Python and brute force."""

import itertools
import threading

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays
from vectors import DIM, ENCODER, OTHER, unit

from fieldmark.errors import ConflictError, InputError
from fieldmark.index.index import Stamp, check_vectors
from fieldmark.index.where import holds, parse

METAS = [
    {"year": 2019, "site": "pond", "wild": True, "note": None},
    {"year": 2020.5, "site": "Wood", "wild": False, "camera": {"name": "x-1"}},
    {"year": "2021", "site": 'a "quoted" one', "größe": 3},
    {"site": "über", "year": 2022, "tags": ["a", "b"], "wild": 1},
    {},
]
FILTERS = [
    'label = "wren"',
    "label is null",
    'label != "wren"',
    'not label = "wren"',
    'label in ("wren", "house sparrow")',
    'label contains "SPARROW"',
    'label contains ""',
    "label = 3",
    "year >= 2020",
    'year = "2021"',
    'year < "3"',
    "year != 2019",
    'year in (2019, "2021")',
    "wild = true",
    "wild != true",
    "wild = 1",
    "note is null",
    "not note is null",
    "year is not null and (wild = false or site contains 'POND')",
    "camera.name = 'x-1'",
    "camera is not null",
    "`größe` > 2.5",
    "größe = 3",
    'site > "a"',
    'site >= "u" or site = "Wood"',
    r'site = "a \"quoted\" one"',
    "missing = true",
    "missing = false and year > 0",
    'missing in (true, "x")',
    "missing is null",
    'key contains "2"',
    'key not in ("p0.jpg", "p1.jpg")',
    'key > "p2.jpg"',
    "tags is not null",
    'tags = "a"',
    "nothing = 1 or not nothing = 1",
]


def filled(index, count=25):
    keys = [f"p{i}.jpg" for i in range(count)]
    index.add(keys, unit(count), metas=[METAS[i % len(METAS)] for i in range(count)])
    index.set_labels({key: ("wren", "house sparrow")[i % 2] for i, key in enumerate(keys) if i % 3})
    index.update(keys[::4], missing=True)
    return keys


@pytest.mark.parametrize("text", FILTERS)
def test_filters_mean_the_same_as_in_plain_python(index, text):
    filled(index)
    wanted = [item.key for item in index.items() if holds(parse(text), item.facts())]
    assert [item.key for item in index.items(text)] == wanted
    hits = index.search(unit(1, seed=5), 100, where=text)[0]
    assert sorted(hit.key for hit in hits) == wanted


def test_filters_are_not_all_or_nothing(index):
    filled(index)
    kept = [len(list(index.items(text))) for text in FILTERS]
    assert sum(0 < count < 25 for count in kept) > len(FILTERS) * 2 / 3


@pytest.mark.parametrize(
    "text",
    [
        "", "label", "label =", 'label = "wren', "label == == 1", "(label is null", "label is null)",
        "label in ()", "label in 3", "= 3", "year >= nothing", "a and", "not", "label contains 3",
        "`a\"b` = 1", "x = 1; drop table items", "label like 'x'", "(" * 80 + "x = 1" + ")" * 80,
    ],
)  # fmt: skip
def test_filters_that_make_no_sense_are_refused_with_the_place(text):
    with pytest.raises(InputError, match=r"the filter .* at .*character \d+"):
        parse(text)


def test_neighbours_are_those_of_brute_force(index):
    keys = filled(index, 200)
    vectors = index.vectors(keys)
    queries = unit(7, seed=3)
    scores = queries @ vectors.T
    for hits, row in zip(index.search(queries, 12), scores, strict=True):
        order = np.argsort(-row, kind="stable")[:12]
        assert [hit.key for hit in hits] == [keys[i] for i in order]
        np.testing.assert_allclose([hit.score for hit in hits], row[order], atol=1e-5)
        assert hits[0].item == index.get([hits[0].key])[0]
    near = index.like(keys[:3], 5)
    own = vectors[:3] @ vectors.T
    np.fill_diagonal(own, -2)
    for hits, row in zip(near, own, strict=True):
        assert [hit.key for hit in hits] == [keys[i] for i in np.argsort(-row)[:5]]
    assert index.search(queries[:0], 3) == []
    assert [len(hits) for hits in index.search(queries, 500)] == [200] * 7


def test_equal_scores_are_in_the_order_of_keys(index):
    same = np.repeat(unit(1), 5, axis=0)
    index.add(list("ecabd"), same)
    assert [hit.key for hit in index.search(same[:1], 5)[0]] == list("abcde")


def test_changes_are_seen_by_the_next_search_also_of_another_process(reopen, index):
    keys = filled(index, 40)
    other = reopen()
    query = unit(1, seed=9)
    first = other.search(query, 1)[0][0].key
    index.remove([first])
    assert other.search(query, 40)[0][0].key != first
    assert len(other.search(query, 40)[0]) == 39
    index.add(["new"], query)
    assert other.search(query, 1)[0][0].key == "new"
    kept = next(key for key in keys if key != first)
    index.update([kept], vectors=-query)
    assert other.search(query, 40)[0][-1].key == kept
    index.compact()
    assert other.search(query, 1)[0][0].key == "new"
    assert index.search(query, 40)[0] == other.search(query, 40)[0]


def test_what_was_written_is_there_after_reopening(reopen, index):
    stamp = Stamp(123, 456, "f" * 64)
    index.add(["ä b/ü.jpg"], unit(1), metas=[{"n": [1, {"x": None}]}], stamps=[stamp])
    index.set_labels({"ä b/ü.jpg": "Zaunkönig"}, by="Ida")
    index.close()
    again = reopen()
    (item,) = again.get(["ä b/ü.jpg"])
    assert item.meta == {"n": [1, {"x": None}]}
    assert (item.label, item.stamp, item.version, item.missing) == ("Zaunkönig", stamp, 2, False)
    np.testing.assert_array_equal(again.vectors(["ä b/ü.jpg"]), unit(1))
    assert again.stamps() == {"ä b/ü.jpg": (123, 456, False)}
    (change,) = again.history()
    assert (change.key, change.before, change.after, change.by) == (
        item.key,
        None,
        "Zaunkönig",
        "Ida",
    )
    told = again.stats()
    assert (told.items, told.missing, told.labelled, told.current) == (1, 0, 1, ENCODER)
    assert told.spaces[0].about == {"network": "tiny"}
    assert again.verify() == []


def refuse(index, match, call):
    before = list(index.items()), index.stats(), index.history()
    with pytest.raises(InputError, match=match):
        call()
    assert (list(index.items()), index.stats(), index.history()) == before


def test_what_cannot_be_is_refused_and_leaves_everything_as_it_was(index):
    filled(index, 5)
    x = unit(2)
    nan = x.copy()
    nan[1, 3] = np.nan
    bad = {
        "has 'p1.jpg' already": lambda: index.add(["new", "p1.jpg"], x),
        "given twice": lambda: index.add(["n", "n"], x),
        "is no key": lambda: index.add(["n", ""], x),
        "is no key;": lambda: index.add(["n", "a\0b"], x),
        "is no key; keys": lambda: index.add(["n", "\udc80"], x),
        "vector 1 has length 2": lambda: index.add(["n", "m"], x * [[1], [2]]),
        "vector 1 has length nan": lambda: index.add(["n", "m"], nan),
        "vector 0 has length 0": lambda: index.add(["n", "m"], x * 0),
        r"shape \[2, 7\]": lambda: index.add(["n", "m"], x[:, :7]),
        r"shape \[1, 8\]": lambda: index.add(["n", "m"], x[:1]),
        "2 keys and 1 metas": lambda: index.add(["n", "m"], x, metas=[{}]),
        "must not be called 'label'": lambda: index.add(["n", "m"], x, metas=[{}, {"label": 1}]),
        "cannot be kept": lambda: index.add(["n", "m"], x, metas=[{}, {"a": float("nan")}]),
        "cannot be kept ": lambda: index.add(["n", "m"], x, metas=[{}, {"a": object()}]),
        "no valid Unicode": lambda: index.add(["n", "m"], x, metas=[{}, {"a": "\0"}]),
        "no vectors of encoder bbbb": lambda: index.add(["n", "m"], x, identity=OTHER),
        "no item 'gone'": lambda: index.update(["p0.jpg", "gone"], missing=True),
        "no item 'lost'": lambda: index.get(["lost"]),
        "no item 'away'": lambda: index.set_labels({"p0.jpg": "wren", "away": "wren"}),
        "is no label": lambda: index.set_labels({"p0.jpg": " "}),
        "k must be 1": lambda: index.search(x, 0),
        r"any number of rows of 8": lambda: index.search(x[:, :3]),
        "is the one that searches use": lambda: index.drop_space(ENCODER),
        "of 8 numbers for encoder": lambda: index.add_space(ENCODER, 9),
    }
    for match, call in bad.items():
        refuse(index, match, call)
    assert index.remove(["gone", "p0.jpg", "p0.jpg"]) == 1


def test_two_encoders_live_side_by_side_until_all_is_moved(index):
    keys = filled(index, 12)
    index.add_space(OTHER, 5)
    y = unit(12, 5, seed=2)
    index.update(keys[:6], vectors=y[:6], identity=OTHER)
    assert index.pending(OTHER) == sorted(keys[6:])
    refuse(index, "6 items have no vector of encoder bbbb", lambda: index.use_space(OTHER))
    refuse(index, "has no vector of this encoder yet", lambda: index.vectors(keys, identity=OTHER))
    # Both can be asked meanwhile.
    assert len(index.search(unit(1, seed=4), 20)[0]) == 12
    assert len(index.search(unit(1, 5, seed=4), 20, identity=OTHER)[0]) == 6
    index.update(keys[6:], vectors=y[6:], identity=OTHER)
    index.use_space(OTHER)
    assert index.stats().current == OTHER
    assert index.like(keys[:1], 1)[0][0].key == keys[1 + int((y[1:] @ y[0]).argmax())]
    index.drop_space(ENCODER)
    assert [space.identity for space in index.stats().spaces] == [OTHER]
    with pytest.raises(InputError, match="no vectors of encoder aaaa"):
        index.search(unit(1), identity=ENCODER)
    assert index.verify() == []


def test_a_photo_that_shows_something_else_keeps_no_old_vector(index):
    index.add_space(OTHER, DIM)
    index.add(["a"], unit(1), stamps=[Stamp(1, 1, "1" * 64)])
    index.update(["a"], vectors=unit(1, seed=1), identity=OTHER)
    # Touched, the same content: nothing is forgotten.
    index.update(["a"], stamps=[Stamp(1, 2, "1" * 64)])
    assert index.pending(OTHER) == []
    index.update(["a"], stamps=[Stamp(1, 3, "2" * 64)], vectors=unit(1, seed=2))
    assert index.pending(OTHER) == ["a"]
    assert index.pending(ENCODER) == []
    assert index.search(unit(1), identity=OTHER) == [[]]


def test_labels_are_changed_only_by_who_saw_the_last_state(index):
    filled(index, 6)
    seen = {key: item.version for key, item in zip("ab", index.get(["p0.jpg", "p3.jpg"]))}
    versions = index.set_labels({"p0.jpg": "wren"}, expected={"p0.jpg": seen["a"]}, by="Ida")
    assert versions == {"p0.jpg": seen["a"] + 1}
    before = index.history()
    with pytest.raises(ConflictError, match=r"p0\.jpg changed since you looked") as caught:
        index.set_labels(
            {"p3.jpg": "gull", "p0.jpg": "gull"},
            expected={"p3.jpg": seen["b"], "p0.jpg": seen["a"]},
        )
    assert caught.value.keys == ["p0.jpg"]
    assert [item.label for item in index.get(["p0.jpg", "p3.jpg"])] == ["wren", None]
    assert index.history() == before
    # The same label again is no change.
    assert index.set_labels({"p0.jpg": "wren"}) == versions
    assert index.history() == before
    index.set_labels({"p0.jpg": None})
    assert [(c.before, c.after, c.by) for c in index.history("p0.jpg")] == [
        (None, "wren", "Ida"),
        ("wren", None, ""),
    ]


def test_the_history_can_be_read_on_from_a_number(index):
    index.add(["a", "b"], unit(2))
    index.set_labels({"a": "wren", "b": "robin"})
    index.set_labels({"a": "tit"})
    first, second, third = index.history()
    assert index.history(since=first.number) == [second, third]
    assert index.history(since=first.number, limit=1) == [second]
    assert index.history("a", since=first.number) == [third]
    assert index.history(since=third.number) == []
    assert index.marks().labels == third.number


def test_marks_tell_what_another_process_changed(reopen, index):
    other = reopen()
    seen = [other.marks()]
    assert seen[0].labels == 0

    def step(change):
        change()
        now, before = other.marks(), seen[-1]
        seen.append(now)
        return now.items != before.items, now.labels != before.labels

    assert step(lambda: index.add(["a", "b"], unit(2))) == (True, False)
    assert step(lambda: index.set_labels({"a": "wren"})) == (False, True)
    assert step(lambda: index.set_labels({"a": "wren"})) == (False, False)
    assert step(lambda: index.update(["a"], missing=True)) == (True, False)
    assert step(lambda: index.update(["a"], metas=[{"year": 1}])) == (True, False)
    assert step(lambda: index.update(["a"], vectors=unit(1, seed=3))) == (True, False)
    assert step(lambda: index.add_space(OTHER, 5)) == (False, False)
    assert step(lambda: index.use_space(OTHER, incomplete=True)) == (True, False)
    assert step(lambda: index.remove(["b"])) == (True, False)
    assert step(lambda: index.items()) == (False, False)
    texts = [mark.items for mark in seen]
    assert len(set(texts)) == 1 + sum(a != b for a, b in itertools.pairwise(texts))


def test_numbers_of_the_history_are_seen_in_their_order(reopen, index):
    index.add([f"p{i}" for i in range(40)], unit(40))
    done, found = threading.Event(), []

    def write(start):
        own = reopen()
        for i in range(start, 40, 2):
            own.set_labels({f"p{i}": "wren"})

    def follow():
        own, last = reopen(), 0
        while True:
            ended = done.is_set()
            lines = own.history(since=last)
            found.extend(line.number for line in lines)
            last = found[-1] if found else 0
            if ended and not lines:
                return

    reader = threading.Thread(target=follow)
    writers = [threading.Thread(target=write, args=(i,)) for i in (0, 1)]
    for thread in (reader, *writers):
        thread.start()
    for thread in writers:
        thread.join()
    done.set()
    reader.join()
    assert found == [line.number for line in index.history()]
    assert len(found) == 40


def test_many_writers_lose_nothing(reopen, index):
    filled(index, 10)
    failures = []

    def work(number):
        mine = reopen()
        try:
            for turn in range(12):
                mine.add([f"w{number}-{turn}"], unit(1, seed=number * 100 + turn))
                mine.set_labels({f"w{number}-{turn}": f"l{turn}"})
                assert mine.search(unit(1), 3)[0]
        except Exception as error:
            failures.append(error)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    told = index.stats()
    assert told.items == 58
    assert len(index.history()) == 48 + sum(1 for i in range(10) if i % 3)
    assert len(index.search(unit(1), 100)[0]) == 58
    assert index.verify() == []


@settings(max_examples=60, deadline=None)
@given(text=st.text(max_size=40))
def test_no_text_breaks_the_parser(text):
    try:
        where = parse(text)
    except InputError:
        return
    assert holds(where, {"label": None}) in (True, False)


numbers = st.sampled_from([0.0, 1.0, -1.0, float("nan"), 3e38]) | st.floats(width=32)
shapes = st.tuples(st.integers(0, 2), st.just(3)) | array_shapes(min_dims=1, max_dims=3, max_side=4)


@settings(max_examples=150, deadline=None)
@given(found=arrays(np.float32, shapes, elements=numbers, fill=numbers))
def test_vectors_that_are_no_unit_vectors_are_refused_and_named(found):
    """Whatever the numbers, without a warning (S4)."""
    with np.errstate(all="ignore"):
        lengths = np.linalg.norm(found.astype(np.float64), axis=-1)
    if found.shape[1:] == (3,) and (np.abs(lengths - 1) < 9e-4).all():
        np.testing.assert_array_equal(check_vectors(found, None, 3), found)
        return
    if found.shape[1:] == (3,) and (np.abs(lengths - 1) < 1.1e-3).all():
        return
    match = r"vector \d has length" if found.shape[1:] == (3,) else "shape"
    with pytest.raises(InputError, match=match):
        check_vectors(found, None, 3)
