import pytest
import torch

from fieldmark.nn.bank import PhotoBank


def filled():
    bank = PhotoBank(3)
    bank.fill(torch.tensor([9, 2, 5]), torch.tensor([[9.0] * 3, [2.0] * 3, [5.0] * 3]))
    return bank


def test_vectors_come_by_row_whatever_the_order():
    bank = filled()
    rows = torch.tensor([5, 9, 9, 2])
    assert bank.of(rows)[:, 0].tolist() == [5.0, 9.0, 9.0, 2.0]
    assert len(bank) == 3


def test_a_checkpoint_brings_its_length():
    fresh = PhotoBank(3)
    fresh.load_state_dict(filled().state_dict())
    assert torch.equal(fresh.vectors, filled().vectors)
    assert torch.equal(fresh.rows, filled().rows)


def test_another_width_is_refused():
    with pytest.raises(RuntimeError, match="size mismatch"):
        PhotoBank(4).load_state_dict(filled().state_dict())


def test_what_is_loaded_is_a_copy():
    bank, fresh = filled(), PhotoBank(3)
    fresh.load_state_dict(bank.state_dict())
    bank.vectors.zero_()
    assert fresh.vectors.abs().sum() > 0
