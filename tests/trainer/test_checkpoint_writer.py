"""Checkpoints beside the training: what is written is the state of its step, and the loop waits only where it must."""

import threading
import weakref

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


def test_the_next_one_waits_for_the_one_before_so_there_is_one_copy_at_most():
    copies, disk = [], _Disk()

    def first(copy):
        copies.append(weakref.ref(copy["weight"]))
        disk.write({})

    def second(copy):
        assert disk.written == [{}]
        assert copies[0]() is None

    with CheckpointWriter(CPU) as writer:
        writer.begin({"weight": torch.zeros(3)}, first)
        threading.Timer(0.1, disk.go.set).start()
        writer.begin({"weight": torch.zeros(3)}, second)


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
