import sys
from pathlib import Path

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
