import numpy as np

from fieldmark.app.queries import Queries, Query


def query(name, size=100):
    return Query(
        name,
        np.zeros(4, np.float32),
        np.zeros((2, 2, 3), np.uint8),
        None,
        b"x" * size,
        3,
        2,
        (),
        None,
    )


def test_never_more_than_promised_and_the_one_not_asked_for_longest_goes():
    kept = Queries(3)
    for name in "abc":
        kept.put(query(name))
    assert kept.get("a")
    kept.put(query("d"))
    assert [name for name in "abcd" if kept.get(name)] == ["a", "c", "d"]
    kept.put(query("d"))
    assert len(kept) == 3


def test_never_larger_than_promised():
    kept = Queries(100, most_bytes=1000)
    for name in "abcdef":
        kept.put(query(name, 300))
    assert [name for name in "abcdef" if kept.get(name)] == ["d", "e", "f"]
    kept.put(query("g", 5000))
    assert [name for name in "abcdefg" if kept.get(name)] == ["g"]


def test_forgotten_some_time_after_it_was_last_asked_for():
    now = [0.0]
    kept = Queries(seconds=60.0, clock=lambda: now[0])
    kept.put(query("a"))
    kept.put(query("b"))
    now[0] = 50.0
    assert kept.get("a")
    now[0] = 100.0
    assert kept.get("b") is None
    assert kept.get("a") is not None
    now[0] = 161.0
    kept.get("z")
    assert len(kept) == 0
