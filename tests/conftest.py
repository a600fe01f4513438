import contextlib
import sys
import tempfile
import warnings
from pathlib import Path

import psutil
import pytest
import torch

# Tests share `tiny`, and child processes start from files beside it.
sys.path.insert(0, str(Path(__file__).parent))


@pytest.fixture(scope="session", autouse=True)
def _one_thread():
    """Results must not depend on the machine's cores, and tiny tensors do not gain from them.

    For the session: what fixtures of a module compute is compared with what its tests do.
    """
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def tiny_backbone():
    from tiny import TinyBackbone

    return TinyBackbone()


@pytest.fixture
def tiny_backbone_with_batch_norm():
    from tiny import TinyBackbone

    return TinyBackbone(batch_norm=True)


@pytest.fixture
def photos():
    """A synthetic store of 32 photos."""
    from tiny import ArrayStore

    return ArrayStore(32)


@pytest.fixture
def run(monkeypatch, capsys):
    """Call the command line as a shell would; returns exit code, stdout and stderr."""

    from fieldmark.cli import app

    def call(*arguments):
        monkeypatch.setattr(sys, "argv", ["fieldmark", *map(str, arguments)])
        try:
            app.main()
            code = 0
        except SystemExit as end:
            code = end.code or 0
        out, err = capsys.readouterr()
        return code, out, err

    return call


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
