"""A host with GPUs, by a driver that is not there: its slots, what a rank is given, and when a GPU counts as empty.

The ranks forget the GPU that they were given before torch looks for it, and compute on the CPU.
"""

from __future__ import annotations

import os
import signal
import uuid
from collections.abc import Iterator
from pathlib import Path

import pynvml
import pytest
import torch
from fake_nvml import FakeGpu, FakeNvml
from worker_host import Host, at_work, small_pretraining

from service.settings import Settings
from worker.devices import (
    EMPTY_WITHIN_BYTES,
    Device,
    discover,
    is_empty,
    refusal_of_torch,
    with_baselines,
)
from worker.process import marked

GIB = 2**30


@pytest.fixture
def driver(monkeypatch: pytest.MonkeyPatch) -> FakeNvml:
    driver = FakeNvml([FakeGpu("GPU-aaaa", 80 * GIB), FakeGpu("GPU-bbbb", 40 * GIB)])
    driver.install(monkeypatch)
    return driver


@pytest.fixture
def gpu_host(driver: FakeNvml, database: Settings, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Host]:
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    said = "open(os.path.dirname(__file__) + f'/{os.getpid()}', 'w').write(os.environ.get('CUDA_VISIBLE_DEVICES', ''))"
    (tmp_path / "sitecustomize.py").write_text(f"import os; {said}; os.environ['CUDA_VISIBLE_DEVICES'] = ''")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path), prepend=os.pathsep)
    yield from at_work(Host(database, slots=None))
    assert driver.sessions == 0


def test_a_slot_is_a_gpu_with_its_uuid_and_memory(gpu_host: Host) -> None:
    slots = gpu_host.slots("host-1")
    assert [(slot.index, slot.kind, slot.device_uuid, slot.memory_bytes) for slot in slots] == [
        (0, "cuda", "GPU-aaaa", 80 * GIB),
        (1, "cuda", "GPU-bbbb", 40 * GIB),
    ]


def test_a_gpu_that_is_lost_at_the_start_is_no_slot_and_the_others_are(driver: FakeNvml) -> None:
    driver.lost = {"GPU-aaaa"}
    assert [(device.index, device.uuid) for device in discover("host-1", None, os.environ)] == [(1, "GPU-bbbb")]
    driver.lost = {"GPU-aaaa", "GPU-bbbb"}
    with pytest.raises(ValueError, match="none of the 2 GPUs of this host answers"):
        discover("host-1", None, os.environ)
    assert driver.sessions == 0


def test_a_driver_that_does_not_work_is_refused_and_none_means_cpu_slots(driver: FakeNvml) -> None:
    for missing in (pynvml.NVML_ERROR_LIBRARY_NOT_FOUND, pynvml.NVML_ERROR_DRIVER_NOT_LOADED):
        driver.broken = missing
        assert {device.kind for device in discover("host-1", 2, os.environ)} == {"cpu"}
    for broken in (pynvml.NVML_ERROR_LIB_RM_VERSION_MISMATCH, pynvml.NVML_ERROR_UNKNOWN):
        driver.broken = broken
        with pytest.raises(ValueError, match="the NVIDIA driver does not work"):
            discover("host-1", 2, os.environ)
    (gpu,) = with_baselines([Device(0, "cuda", "GPU-aaaa", 80 * GIB)], {"GPU-aaaa": 0}, in_use=set())
    assert not is_empty(gpu), "nobody can say so now"


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a GPU")
def test_gpus_that_torch_cannot_use_are_refused_with_its_reason(driver: FakeNvml) -> None:
    driver.refusal = refusal_of_torch(["GPU-aaaa"], os.environ)
    assert driver.refusal is not None
    assert "NVIDIA" in driver.refusal or "not compiled with CUDA" in driver.refusal
    with pytest.raises(ValueError, match="torch cannot use the GPUs of this host: ") as refused:
        discover("host-1", None, os.environ)
    assert driver.refusal in str(refused.value)
    driver.gpus = []
    assert {device.kind for device in discover("host-1", 2, os.environ)} == {"cpu"}


def test_each_rank_sees_its_own_gpu_and_no_other(gpu_host: Host) -> None:
    pair = gpu_host.post(small_pretraining(epochs=2000, resources={"slots": 2}))
    gpu_host.wait_for_step(pair, 1)
    seen = _visible(gpu_host.attempt(pair).id)
    assert seen == ["GPU-aaaa", "GPU-bbbb"]
    gpu_host.cancel(pair)
    assert gpu_host.finish(pair).state == "cancelled"

    singles = [gpu_host.post(small_pretraining(epochs=2000)) for _ in range(2)]
    for job_id in singles:
        gpu_host.wait_for_step(job_id, 1)
    assert sorted(gpu for job_id in singles for gpu in _visible(gpu_host.attempt(job_id).id)) == [
        "GPU-aaaa",
        "GPU-bbbb",
    ]
    for job_id in singles:
        gpu_host.cancel(job_id)
        gpu_host.finish(job_id)


@pytest.mark.faults
def test_a_gpu_whose_memory_a_lost_attempt_holds_takes_no_job_until_it_is_empty(
    gpu_host: Host, driver: FakeNvml
) -> None:
    first = driver.gpus[0]
    idle = first.used
    job_id = gpu_host.post(small_pretraining(epochs=2000))
    gpu_host.wait_for_step(job_id, 1)
    (slot,) = [slot for slot in gpu_host.slots("host-1") if slot.attempt_id is not None]
    assert slot.device_uuid == first.uuid
    first.used = idle + EMPTY_WITHIN_BYTES + 1
    lost = gpu_host.attempt(job_id)
    gpu_host.lose(lost)
    gpu_host.wait(lambda: not marked(lost.id))
    gpu_host.wait(lambda: len(gpu_host.attempts_of(job_id)) == 2 and gpu_host.attempt(job_id).state == "running")
    held, taken = gpu_host.slots("host-1")
    assert (held.quarantined_at is not None, held.attempt_id) == (True, lost.id)
    assert (taken.device_uuid, taken.attempt_id) == ("GPU-bbbb", gpu_host.attempt(job_id).id)
    driver.lost = {first.uuid}
    for _ in range(10):
        gpu_host.schedule()
    assert gpu_host.slots("host-1")[0].quarantined_at is not None, "a GPU that does not answer is not empty"
    driver.lost, first.used = set(), idle + EMPTY_WITHIN_BYTES
    gpu_host.wait(lambda: gpu_host.slots("host-1")[0].quarantined_at is None)
    gpu_host.cancel(job_id)
    gpu_host.finish(job_id)


@pytest.mark.faults
def test_a_gpu_that_falls_off_the_bus_fails_one_attempt_and_not_job_after_job(gpu_host: Host, driver: FakeNvml) -> None:
    job_id = gpu_host.post(small_pretraining(epochs=2000))
    gpu_host.wait_for_step(job_id, 1)
    first = gpu_host.attempt(job_id)
    (slot,) = [slot for slot in gpu_host.slots("host-1") if slot.attempt_id is not None]
    driver.lost = {slot.device_uuid}
    for pid in marked(first.id):
        os.kill(pid, signal.SIGABRT)
    gpu_host.wait(lambda: len(gpu_host.attempts_of(job_id)) == 2 and gpu_host.attempt(job_id).state == "running")
    ended = gpu_host.attempts_of(job_id)[0]
    assert ended.outcome == "crashed"
    held, taken = sorted(gpu_host.slots("host-1"), key=lambda one: one.device_uuid != slot.device_uuid)
    assert held.quarantined_at is not None
    assert taken.attempt_id == gpu_host.attempt(job_id).id
    waits = gpu_host.post(small_pretraining(epochs=1))
    for _ in range(10):
        gpu_host.schedule()
    assert gpu_host.attempts_of(waits) == []
    driver.lost = set()
    gpu_host.wait(lambda: len(gpu_host.attempts_of(waits)) == 1)
    gpu_host.finish(waits)
    gpu_host.cancel(job_id)
    gpu_host.finish(job_id)


def _visible(attempt_id: uuid.UUID) -> list[str]:
    """The CUDA_VISIBLE_DEVICES that the ranks of an attempt were given."""
    folder = Path(os.environ["PYTHONPATH"].split(os.pathsep)[0])
    return sorted((folder / str(pid)).read_text() for pid in marked(attempt_id))
