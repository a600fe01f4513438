import contextlib
import itertools
import sys
import tempfile
import warnings
from pathlib import Path

import psutil
import pytest

sys.path.insert(0, str(Path(__file__).parent))

from vectors import DIM, ENCODER

from fieldmark.index.sqlite import SqliteIndex

_names = itertools.count()


@pytest.fixture(scope="session")
def server():
    """URL of a PostgreSQL with pgvector of our own, on a socket in a folder."""
    with warnings.catch_warnings():
        # It asks for a runtime folder, which services and containers have none of.
        warnings.simplefilter("ignore")
        import pgserver
    # Started by root it runs as another user, who must be able to reach the folder.
    with tempfile.TemporaryDirectory() as place:
        Path(place).chmod(0o755)
        started = pgserver.get_server(Path(place) / "data", cleanup_mode=None)
        yield started.get_uri()
        # Nothing of it is to be kept: an orderly end takes ten seconds.
        with contextlib.suppress(psutil.NoSuchProcess):
            master = psutil.Process(started.get_pid())
            master.kill()
            psutil.wait_procs([master], timeout=5)


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
