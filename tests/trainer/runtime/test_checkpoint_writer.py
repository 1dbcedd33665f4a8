"""Checkpoints beside the training: what is written is the state of its step, and the loop waits only where it must."""

import threading

import pytest
import runs
import torch

from trainer.runtime.checkpoint_writer import CheckpointWriter

CPU = torch.device("cpu")


class _Disk:
    """A `write` that takes as long as it is held, and may fail; a test that waits for it in vain goes on after 20 s."""

    def __init__(self, error=None):
        self.go, self.begun, self.written, self._error = threading.Event(), threading.Event(), [], error

    def write(self, copy):
        self.begun.set()
        assert self.go.wait(20)
        if self._error is not None:
            raise self._error
        self.written.append(copy)


def test_the_loop_goes_on_and_what_is_written_is_the_state_as_it_was():
    weight, metrics, disk = torch.zeros(3), {"loss": 1.0}, _Disk()
    flat = torch.arange(8.0)
    state = {"model": {"weight": weight, "half": flat[4:]}, "groups": [{"rates": (weight, 0.5)}], "metrics": metrics}
    with CheckpointWriter(CPU) as writer:
        writer.begin(state, disk.write)
        assert disk.begun.wait(20)
        weight += 1
        flat += 1
        metrics["loss"] = 2.0
        writer.look()
        assert disk.written == []
        disk.go.set()
    zeros = torch.zeros(3)
    model = {"weight": zeros, "half": torch.arange(4.0, 8.0)}
    assert runs.same(disk.written, [{"model": model, "groups": [{"rates": (zeros, 0.5)}], "metrics": {"loss": 1.0}}])
    assert isinstance(disk.written[0]["groups"][0]["rates"], tuple)
    assert disk.written[0]["model"]["half"].untyped_storage().nbytes() == 16, "not all that it is a part of"


def test_the_next_one_waits_for_the_one_before_and_takes_its_memory():
    seen, disk = [], _Disk()

    def write(copy):
        weight, first = copy["model"][0]
        seen.append((weight.data_ptr(), weight.clone(), first.dtype))
        disk.write(copy)

    with CheckpointWriter(CPU) as writer:
        writer.begin({"model": [(torch.zeros(3), torch.zeros(2))]}, write)
        threading.Timer(0.1, disk.go.set).start()
        writer.begin({"model": [(torch.ones(3), torch.zeros(2, dtype=torch.float64)), torch.zeros(1)]}, write)
        assert len(disk.written) >= 1
    assert seen[0][0] == seen[1][0]
    assert runs.same([weight for _, weight, _ in seen], [torch.zeros(3), torch.ones(3)])
    assert [dtype for *_, dtype in seen] == [torch.float32, torch.float64], "not the memory of another kind"
    assert disk.written[1]["model"][1].shape == (1,)


def _full():
    return _Disk(OSError(28, "No space left on device", "state.pt"))


def _in_the_loop(disk, then=lambda writer: None):
    """A loop that begins a checkpoint and comes to `then`."""
    with CheckpointWriter(CPU) as writer:
        writer.begin({}, disk.write)
        then(writer)


@pytest.mark.parametrize("where", ["look", "wait", "begin", "end"])
def test_what_the_thread_fails_with_is_raised_where_the_loop_looks_next_and_once(where):
    full, other, writers = _full(), _Disk(), []
    full.go.set()
    other.go.set()

    def then(writer):
        writers.append(writer)
        if where == "look":
            writer._thread.join()
            writer.look()
        if where == "wait":
            writer.wait()
        if where == "begin":
            writer.begin({}, other.write)

    with pytest.raises(OSError, match="No space left") as caught:
        _in_the_loop(full, then)
    assert not hasattr(caught.value, "__notes__")
    writers[0].look()
    assert not other.begun.is_set()


def _fail(writer):
    raise ValueError("of the loop")


def test_an_error_in_the_loop_waits_for_the_checkpoint_and_stands_before_its_error():
    disk, full = _Disk(), _full()
    for one in (disk, full):
        threading.Timer(0.1, one.go.set).start()
        with pytest.raises(ValueError, match="of the loop") as caught:
            _in_the_loop(one, _fail)
        assert one.go.is_set()
    assert disk.written == [{}]
    assert "No space left on device: 'state.pt'" in caught.value.__notes__[0]


def test_who_interrupts_does_not_wait():
    disk, writers = _Disk(), []

    def interrupt(writer):
        writers.append(writer)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        _in_the_loop(disk, interrupt)
    assert disk.written == []
    disk.go.set()
    writers[0].wait()
    assert disk.written == [{}]
