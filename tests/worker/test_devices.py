"""Slots of a host: GPUs that are visible, or CPU slots."""

import os

import pytest

from worker.devices import (
    EMPTY_WITHIN_BYTES,
    Device,
    at_baseline,
    cores,
    discover,
    is_empty,
    measure,
    visible,
    with_baselines,
)

GPUS = [Device(index, "cuda", f"GPU-{letter}bcd", 2**30) for index, letter in enumerate("xyz")]


def test_cpu_slots_share_the_memory_and_are_named_after_the_node() -> None:
    slots = discover("host-1", 3, os.environ)
    if slots[0].kind == "cuda":
        pytest.skip("this host has GPUs")
    assert [slot.uuid for slot in slots] == ["cpu-host-1-0", "cpu-host-1-1", "cpu-host-1-2"]
    assert all(is_empty(slot) for slot in slots)
    assert len(discover("host-1", None, os.environ)) == max(1, cores() // 2)


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


def test_the_memory_of_an_orphan_does_not_pass_for_the_idle_state_of_its_gpu() -> None:
    idle, job = 400 * 2**20, 20 * 2**30
    x, y, z = (gpu.uuid for gpu in GPUS)
    first = with_baselines(GPUS, {x: idle, y: idle + job, z: idle}, in_use={y})
    assert [gpu.baseline_bytes for gpu in first] == [idle, None, idle]
    assert not at_baseline(first[1], idle), "nobody knows yet what is idle there"
    later = with_baselines(first, {x: idle + job, y: idle, z: idle}, in_use=set())
    assert [gpu.baseline_bytes for gpu in later] == [idle, idle, idle], "a baseline that is there stays"
    assert [at_baseline(gpu, idle + job) for gpu in later] == [False] * 3


def test_a_gpu_is_empty_within_256_mib_of_its_baseline_and_if_it_answers() -> None:
    (gpu,) = with_baselines(GPUS[:1], {GPUS[0].uuid: 1000}, in_use=set())
    assert at_baseline(gpu, 0)
    assert at_baseline(gpu, 1000 + EMPTY_WITHIN_BYTES)
    assert not at_baseline(gpu, 1001 + EMPTY_WITHIN_BYTES)
    assert not at_baseline(gpu, None)
    assert with_baselines(GPUS, {}, in_use=set()) == GPUS


def test_cpu_slots_are_not_measured() -> None:
    slot = Device(0, "cpu", "cpu-host-1-0", 2**30)
    assert measure([slot], {"cpu-host-1-0"}) == [slot]
    assert is_empty(slot)
