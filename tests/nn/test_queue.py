import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fieldmark.nn.queue import NO_ROW, KeyQueue


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 9), st.lists(st.integers(1, 12), max_size=8))
def test_is_a_first_in_first_out_list(size, pushes):
    queue, expected, row = KeyQueue(size, 2), [], 0
    for count in pushes:
        rows = torch.arange(row, row + count)
        row += count
        queue.push(torch.stack([rows, -rows], 1).float(), rows)
        expected = (expected + rows.tolist())[-size:]
    kept = sorted(r for r in queue.rows.tolist() if r != NO_ROW)
    assert kept == expected
    for key, r in zip(queue.keys.tolist(), queue.rows.tolist()):
        if r != NO_ROW:
            assert key == [r, -r]


def test_oldest_are_replaced_in_order():
    queue = KeyQueue(4, 1)
    for rows in ([0, 1, 2], [3, 4], [5]):
        queue.push(torch.tensor(rows).float()[:, None], torch.tensor(rows))
    assert queue.rows.tolist() == [4, 5, 2, 3]
    assert int(queue.pointer) == 2


def test_a_saved_queue_continues_where_it_was():
    queue, again = KeyQueue(5, 2), KeyQueue(5, 2, seed=9)
    queue.push(torch.randn(7, 2), torch.arange(7))
    again.load_state_dict(queue.state_dict())
    for one in (queue, again):
        one.push(torch.ones(2, 2), torch.tensor([10, 11]))
    assert torch.equal(queue.keys, again.keys)
    assert torch.equal(queue.rows, again.rows)


def test_starts_with_unit_vectors_of_no_photo():
    queue = KeyQueue(16, 8)
    assert torch.allclose(queue.keys.norm(dim=1), torch.ones(16))
    assert not queue.same_photo(torch.arange(16)).any()
    assert not torch.equal(queue.keys, KeyQueue(16, 8, seed=1).keys)


def test_knows_keys_of_the_same_photo():
    queue = KeyQueue(4, 1)
    queue.push(torch.zeros(3, 1), torch.tensor([7, 8, 7]))
    assert queue.same_photo(torch.tensor([7, 9])).tolist() == [
        [True, False, True, False],
        [False, False, False, False],
    ]


@pytest.mark.parametrize(("size", "dim"), [(0, 4), (4, 0)])
def test_refuses_empty_shapes(size, dim):
    with pytest.raises(ValueError, match="size >= 1 and dim >= 1"):
        KeyQueue(size, dim)
