import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from vectors import DIM, ENCODER

from fieldmark.index.sqlite import SqliteIndex


@pytest.fixture(params=["sqlite"])
def reopen(request, tmp_path):
    """Opens the same index, as often as wanted; what holds for one engine must hold for all."""
    opened = []

    def call(**more):
        index = SqliteIndex(tmp_path / "index", create=True, **more)
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
