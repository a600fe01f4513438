"""What only the server engine can do, and what can go wrong with a server."""

import numpy as np
import pytest
from vectors import DIM, ENCODER, unit

from fieldmark.errors import ArtifactError, InputError
from fieldmark.index.postgres import PostgresIndex


def test_many_vectors_are_searched_with_hnsw_whose_recall_was_measured(server):
    x = unit(1500, 16)
    with PostgresIndex(server, name="many", create=True, exact_up_to=500) as index:
        index.add_space(ENCODER, 16)
        keys = [f"{i:04d}" for i in range(1500)]
        index.add(keys, x, metas=[{"n": i} for i in range(1500)])
        assert index.stats().search == {"kind": "exact"}
        index.compact()
        told = index.stats().search
        assert told["kind"] == "approximate"
        assert told["recall"] >= 0.99
        queries = unit(40, 16, seed=4)
        truth = np.argsort(-(queries @ x.T), axis=1)[:, :10]
        found = [[int(hit.key) for hit in hits] for hits in index.search(queries)]
        assert np.mean([len(set(a) & set(b)) / 10 for a, b in zip(found, truth.tolist())]) > 0.95
        few = index.search(queries, 5, where="n >= 1480")
        best = 1480 + np.argsort(-(queries @ x[1480:].T), axis=1)[:, :5]
        assert [[int(hit.key) for hit in hits] for hits in few] == best.tolist()
        assert len(index.search(queries[:1], 1400)[0]) == 1400


def test_indexes_share_a_database_and_know_nothing_of_each_other(server):
    with (
        PostgresIndex(server, name="one", create=True) as one,
        PostgresIndex(server, name="two", create=True) as two,
    ):
        one.add_space(ENCODER, DIM)
        one.add(["a"], unit(1))
        assert two.stats().items == 0
        two.add_space(ENCODER, DIM + 1)
        assert one.search(unit(1))[0][0].key == "a"


def test_what_cannot_be_opened_says_why(server):
    with pytest.raises(ArtifactError, match="has no index 'nothing'"):
        PostgresIndex(server, name="nothing")
    with pytest.raises(InputError, match="is no name of an index"):
        PostgresIndex(server, name="x; drop schema y", create=True)
    with pytest.raises(ArtifactError, match="cannot be reached"):
        PostgresIndex("postgresql://127.0.0.1:1/none")
    with PostgresIndex(server, name="newer", create=True) as index:
        index._db.execute("UPDATE format SET version = 99")
    with pytest.raises(ArtifactError, match=r"newer fieldmark \(format 99"):
        PostgresIndex(server, name="newer")


def test_damaged_vectors_are_named(server):
    with PostgresIndex(server, name="damaged", create=True) as index:
        index.add_space(ENCODER, DIM)
        index.add(list("ab"), unit(2))
        assert index.verify() == []
        index._db.execute("UPDATE vectors_1 SET crc = crc + 1 WHERE item = 1")
        (told,) = index.verify()
        assert told.startswith("a: its vector of encoder aaaaaaaaaaaa… is damaged")
        with pytest.raises(ArtifactError, match="vector of 'a' is damaged in the database"):
            index.vectors(["a"])


def test_a_lost_connection_is_told(server):
    with PostgresIndex(server, name="lost", create=True) as index:
        index.add_space(ENCODER, DIM)
        with PostgresIndex(server, name="lost") as other:
            number = index._db.info.backend_pid
            other._db.execute("SELECT pg_terminate_backend(%s)", (number,))
        with pytest.raises(ArtifactError, match="cannot be reached or went away"):
            index.add(["a"], unit(1))
    with PostgresIndex(server, name="lost") as again:
        assert again.stats().items == 0
