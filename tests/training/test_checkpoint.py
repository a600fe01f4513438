import errno
import json
import random

import pytest
import torch
from torch import nn

from fieldmark import storage
from fieldmark.errors import ArtifactError, OutputError, StorageError
from fieldmark.nn.bank import PhotoBank
from fieldmark.training import checkpoint


class Net(nn.Module):
    def __init__(self, width=4):
        super().__init__()
        self.layer = nn.Conv2d(3, width, 2)
        self.tied = self.layer.weight
        self.register_buffer("count", torch.zeros((), dtype=torch.int64))


def made(width=4, kind=torch.optim.SGD, **settings):
    torch.manual_seed(0)
    net = Net(width).to(memory_format=torch.channels_last)
    optimizer = kind(net.parameters(), lr=0.1, **settings)
    net.layer(torch.randn(2, 3, 4, 4)).square().sum().backward()
    optimizer.step()
    return net, optimizer


@pytest.fixture
def saved(tmp_path):
    net, optimizer = made(momentum=0.9)
    for step in (1, 2, 3):
        with torch.no_grad():
            net.layer.bias.fill_(step)
        checkpoint.save(tmp_path, step, net, optimizer, {"step": step}, healthy=step == 1)
    return tmp_path, net, optimizer


@pytest.mark.parametrize(
    ("kind", "settings"),
    [(torch.optim.SGD, {"momentum": 0.9}), (torch.optim.SGD, {}), (torch.optim.AdamW, {})],
)
def test_restores_everything(tmp_path, kind, settings):
    net, optimizer = made(kind=kind, **settings)
    net.count.fill_(7)
    checkpoint.save(tmp_path, 5, net, optimizer, {"note": [1, "x"]})
    other, again = made(kind=kind, **settings)
    with torch.no_grad():
        other.layer.weight.zero_()
    found, passed = checkpoint.load_newest(tmp_path, other, again)
    assert (found.step, found.extra, found.healthy, passed) == (5, {"note": [1, "x"]}, False, [])
    assert torch.equal(other.layer.weight, net.layer.weight)
    assert int(other.count) == 7
    before, after = optimizer.state_dict()["state"], again.state_dict()["state"]
    assert before.keys() == after.keys()
    for index, values in before.items():
        for key, value in values.items():
            assert value is after[index][key] is None or torch.equal(value, after[index][key])
            if value is not None and value.ndim == 4:
                assert after[index][key].is_contiguous(memory_format=torch.channels_last)


def test_nothing_there_is_a_fresh_run(tmp_path):
    assert checkpoint.load_newest(tmp_path / "none", *made()) == (None, [])


def test_keeps_the_last_two_and_the_last_healthy(saved):
    folder, net, optimizer = saved
    checkpoint.save(folder, 4, net, optimizer, {})
    (folder / ".step-00000009.partial").mkdir()
    checkpoint.prune(folder)
    assert [path.name for path in sorted(folder.iterdir())] == [
        "step-00000001",
        "step-00000003",
        "step-00000004",
    ]
    assert checkpoint.last_healthy(folder).name == "step-00000001"


def damages(path, data, how):
    if how == "cut":
        path.write_bytes(data[: len(data) // 2])
    elif how == "empty":
        path.write_bytes(b"")
    elif how == "gone":
        path.unlink()
    else:
        place = int(how) % (8 * len(data))
        data = bytearray(data)
        data[place // 8] ^= 1 << place % 8
        path.write_bytes(bytes(data))


@pytest.mark.parametrize("file", ["model.safetensors", "optimizer.safetensors", "state.json"])
@pytest.mark.parametrize("how", ["cut", "empty", "gone", "3", "1000", "4321"])
def test_a_damaged_one_is_passed_over_and_named(saved, file, how):
    folder, net, optimizer = saved
    path = folder / "step-00000003" / file
    damages(path, path.read_bytes(), how)
    found, passed = checkpoint.load_newest(folder, net, optimizer)
    assert found.step == 2
    assert float(net.layer.bias.detach()[0]) == 2
    assert len(passed) == 1
    assert "step-00000003" in passed[0]
    # It can be made again over the damaged one.
    checkpoint.save(folder, 3, net, optimizer, {})
    assert checkpoint.load_newest(folder, net, optimizer)[0].step == 3


def test_every_flipped_bit_is_noticed(saved):
    folder, _net, _optimizer = saved
    generator = random.Random(0)
    for file in ("model.safetensors", "optimizer.safetensors", "state.json"):
        path = folder / "step-00000003" / file
        data = path.read_bytes()
        for _ in range(25):
            damages(path, data, str(generator.randrange(8 * len(data))))
            with pytest.raises(ArtifactError):
                checkpoint._verified(path.parent)
        path.write_bytes(data)
        checkpoint._verified(path.parent)


def test_no_usable_one_is_an_error_and_not_a_silent_restart(saved):
    folder, net, optimizer = saved
    for path in checkpoint.available(folder):
        (path / "model.safetensors").write_bytes(b"<html>")
    with pytest.raises(ArtifactError, match="no usable checkpoint"):
        checkpoint.load_newest(folder, net, optimizer)


def test_another_network_is_refused(saved):
    folder = saved[0]
    with pytest.raises(ArtifactError, match=r"another network.*of another shape"):
        checkpoint.load_newest(folder, *made(width=5, momentum=0.9))


def with_bank(dim, photos=0):
    net, optimizer = made()
    net.bank = PhotoBank(dim)
    net.bank.fill(torch.arange(photos), torch.rand(photos, dim))
    return net, optimizer


def test_what_is_kept_per_photo_may_have_grown(tmp_path):
    net, optimizer = with_bank(4, photos=6)
    checkpoint.save(tmp_path, 1, net, optimizer, {})
    fresh, again = with_bank(4)
    checkpoint.load_newest(tmp_path, fresh, again)
    assert torch.equal(fresh.bank.vectors, net.bank.vectors)
    with pytest.raises(ArtifactError, match=r"of another shape, such as bank.vectors"):
        checkpoint.load_newest(tmp_path, *with_bank(5))


def test_an_unknown_format_is_refused(saved):
    path = saved[0] / "step-00000003" / "state.json"
    state = json.loads(path.read_text())
    state["format"] = 99
    state["sha256"] = checkpoint._digest(state)
    path.write_text(json.dumps(state))
    with pytest.raises(ArtifactError, match="format 99"):
        checkpoint.read_state(path.parent)


@pytest.mark.parametrize(
    ("number", "kind"),
    [(errno.ENOSPC, StorageError), (errno.EROFS, OutputError), (errno.EIO, StorageError)],
)
@pytest.mark.parametrize("where", ["save_file", "sync_file", "write_json"])
def test_a_failing_disk_leaves_earlier_ones_intact(saved, monkeypatch, number, kind, where):
    folder, net, optimizer = saved

    def fail(*arguments, **settings):
        raise OSError(number, "injected")

    owner = checkpoint if where == "save_file" else storage
    monkeypatch.setattr(owner, where, fail)
    with pytest.raises(kind):
        checkpoint.save(folder, 4, net, optimizer, {})
    monkeypatch.undo()
    found, passed = checkpoint.load_newest(folder, net, optimizer)
    assert (found.step, passed) == (3, [])
    assert not list(folder.glob(".*"))


def test_order_of_durable_steps(tmp_path, monkeypatch):
    """Files are synced before the rename, the folder that names them after it."""
    calls = []
    for name in ("sync_file", "write_json", "sync_folder"):
        real = getattr(storage, name)

        def noted(path, *rest, name=name, real=real):
            calls.append((name, path.name))
            return real(path, *rest)

        monkeypatch.setattr(storage, name, noted)
    real_rename = type(tmp_path).rename

    def rename(self, target):
        calls.append(("rename", target.name))
        return real_rename(self, target)

    monkeypatch.setattr(type(tmp_path), "rename", rename)
    checkpoint.save(tmp_path / "c", 1, *made(), {})
    aside = ".step-00000001.partial"
    expected = [
        ("sync_file", "model.safetensors"),
        ("sync_file", "optimizer.safetensors"),
        ("write_json", "state.json"),
        ("sync_folder", aside),
        ("sync_folder", aside),
        ("rename", "step-00000001"),
        ("sync_folder", "c"),
    ]
    assert calls == expected
