"""Memory of batches is used again, and never while a tensor of its last batch lives."""

import numpy as np

from trainer.data.batch import Batch, batch_memory


def _batch() -> Batch:
    return Batch(1, 0, np.arange(2), 8, batch_memory(2, 8, tables=True, pinned=False))


def test_memory_is_used_again_when_the_last_view_of_it_is_gone():
    first = _batch()
    place, view = first.memory.data_ptr(), first.view_a[1]
    del first
    second = _batch()
    assert second.memory.data_ptr() != place, "a view of the first batch is still there"
    del view
    assert _batch().memory.data_ptr() == place


def test_a_batch_of_another_size_gets_memory_of_its_own_size():
    small = batch_memory(2, 8, tables=False, pinned=False)
    expected = 2 * 2 * 3 * 8 * 8
    assert small.numel() == expected
    del small
    assert batch_memory(3, 8, tables=False, pinned=False).numel() == expected // 2 * 3
