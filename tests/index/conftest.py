import itertools
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from vectors import DIM, ENCODER

from fieldmark.index.sqlite import SqliteIndex

_names = itertools.count()


@pytest.fixture(params=["sqlite", "postgres"])
def reopen(request, tmp_path):
    """Opens the same index, as often as wanted; what holds for one engine must hold for all."""
    opened, name = [], f"index_{next(_names)}"
    url = request.getfixturevalue("server") if request.param == "postgres" else None

    def call(**more):
        if url is None:
            index = SqliteIndex(tmp_path / "index", create=True, **more)
        else:
            from fieldmark.index.postgres import PostgresIndex

            index = PostgresIndex(url, name=name, create=True, **more)
        opened.append(index)
        return index

    yield call
    for index in opened:
        index.close()


@pytest.fixture
def index(reopen):
    made = reopen()
    made.add_space(ENCODER, DIM, {"network": "tiny"})
    return made
