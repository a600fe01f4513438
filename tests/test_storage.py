import errno
import os
import subprocess
import sys

import pytest

from fieldmark import storage
from fieldmark.errors import OutputError, StorageError


def test_a_failed_write_leaves_the_old_file_and_no_debris(tmp_path):
    path = tmp_path / "a.json"
    storage.write_json(path, {"a": 1})

    def fail(file):
        file.write(b"half")
        raise RuntimeError

    with pytest.raises(RuntimeError):
        storage.write_atomic(path, fail)
    assert path.read_text() == '{\n  "a": 1\n}\n'
    assert list(tmp_path.iterdir()) == [path]


def test_the_file_is_synced_before_it_is_renamed_and_the_folder_after(tmp_path, monkeypatch):
    calls = []
    real_sync, real_replace = os.fsync, type(tmp_path).replace
    monkeypatch.setattr(os, "fsync", lambda fd: (calls.append("fsync"), real_sync(fd))[1])
    monkeypatch.setattr(
        type(tmp_path),
        "replace",
        lambda self, to: (calls.append("rename"), real_replace(self, to))[1],
    )
    storage.write_bytes(tmp_path / "a", b"x")
    assert calls == ["fsync", "rename", "fsync"]


@pytest.mark.parametrize(
    ("code", "kind", "words"),
    [
        (errno.ENOSPC, StorageError, "no space left"),
        (errno.EROFS, OutputError, "cannot write"),
        (errno.EIO, StorageError, "failed"),
        (errno.EEXIST, OutputError, "in the way"),
    ],
)
def test_system_errors_become_one_paragraph(tmp_path, code, kind, words):
    with pytest.raises(kind, match=words), storage.storage_errors(tmp_path):
        raise OSError(code, os.strerror(code))


def test_nan_is_not_json(tmp_path):
    with pytest.raises(ValueError, match="JSON"):
        storage.write_json(tmp_path / "a.json", {"x": float("nan")})


def test_importing_fieldmark_is_quick_and_leaves_torch_out():
    code = (
        "import time; t = time.perf_counter(); import fieldmark; s = time.perf_counter() - t;"
        "import sys; assert 'torch' not in sys.modules; print(s)"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert float(out.stdout) < 0.3
