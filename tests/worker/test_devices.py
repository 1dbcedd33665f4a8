"""Slots of a host: GPUs that are visible, or CPU slots."""

import pytest

from worker.devices import Device, cores, discover, is_empty, visible

GPUS = [Device(index, "cuda", f"GPU-{letter}bcd", 2**30) for index, letter in enumerate("xyz")]


def test_cpu_slots_share_the_memory_and_are_named_after_the_node() -> None:
    slots = discover("host-1", 3)
    if slots[0].kind == "cuda":
        pytest.skip("this host has GPUs")
    assert [slot.uuid for slot in slots] == ["cpu-host-1-0", "cpu-host-1-1", "cpu-host-1-2"]
    assert all(is_empty(slot) for slot in slots)
    assert len(discover("host-1", None)) == max(1, cores() // 2)


@pytest.mark.parametrize(
    ("wanted", "left"),
    [
        (None, [0, 1, 2]),
        ("", []),
        ("2,0", [2, 0]),
        ("GPU-y", [1]),
        ("GPU-", []),  # not one device
        ("0,-1,2", [0]),  # CUDA stops at the first that it does not know
        ("0, 1", [0, 1]),
    ],
)
def test_cuda_visible_devices_is_read_as_cuda_reads_it(wanted: str | None, left: list[int]) -> None:
    assert [device.index for device in visible(GPUS, wanted)] == left
