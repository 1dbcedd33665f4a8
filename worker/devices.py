"""What this host can train on: its CUDA GPUs by NVML, or CPU slots. NVML needs no torch and no CUDA context."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from typing import Literal

import psutil
import pynvml

EMPTY_WITHIN_BYTES = 256 * 1024 * 1024
TORCH_SECONDS = 60.0
"""Time for the import of torch from a cold disk and the start of a driver without persistence."""
QUESTION = """\
import sys, torch
wanted = int(sys.argv[1])
try:
    torch.cuda.init()
    for index in range(found := torch.cuda.device_count()):
        torch.ones(1, device=f"cuda:{index}").add(1).item()
except (RuntimeError, AssertionError) as error:
    sys.exit(str(error).strip().splitlines()[0])
if found != wanted:
    sys.exit(f"it finds {found} of {wanted}")
"""
"""A sum on each: of a GPU that is too old for its kernels torch only warns."""

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Device:
    """One slot of this host. `baseline_bytes`: GPU memory that was in use when no job ran; None: not known yet."""

    index: int
    kind: Literal["cuda", "cpu"]
    uuid: str
    memory_bytes: int
    baseline_bytes: int | None = None


def discover(node: str, cpu_slots: int | None, environment: Mapping[str, str]) -> list[Device]:
    """The GPUs of this host that CUDA_VISIBLE_DEVICES lets us see; without any, CPU slots.

    Args:
        node: name of this host, part of the name of a CPU slot.
        cpu_slots: number of CPU slots; None: one per two cores.
        environment: that of ranks, in which torch is asked whether it can use the GPUs.

    Raises:
        ValueError: this host has a driver that does not work, GPUs of which none answers, or a torch that cannot use
            them: its jobs shall not run on the CPU for that, nor fail one after the other.
    """
    gpus = _gpus()
    if gpus:
        if refusal := refusal_of_torch([gpu.uuid for gpu in gpus], environment):
            raise ValueError(
                f"torch cannot use the GPUs of this host: {refusal}. "
                "To compute on the CPU, set CUDA_VISIBLE_DEVICES to nothing"
            )
        return gpus
    count = cpu_slots or max(1, cores() // 2)
    share = memory_bytes() // count
    return [Device(index, "cpu", f"cpu-{node}-{index}", share) for index in range(count)]


def refusal_of_torch(uuids: Sequence[str], environment: Mapping[str, str]) -> str | None:
    """Why torch cannot compute on all of these GPUs, None if it can.

    A process of its own is asked: this one shall hold no CUDA context, and nothing ends a wait in a driver that hangs.
    """
    asked = subprocess.Popen(
        [sys.executable, "-P", "-c", QUESTION, str(len(uuids))],
        env={**environment, "CUDA_VISIBLE_DEVICES": ",".join(uuids)},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        _, errors = asked.communicate(timeout=TORCH_SECONDS)
    except subprocess.TimeoutExpired:
        asked.kill()  # and no wait for it
        return f"it does not come back from the driver in {TORCH_SECONDS:g} s"
    if asked.returncode == 0:
        return None
    said = [line.strip() for line in errors.splitlines() if line.strip()]
    return said[-1].rstrip(".") if said else f"it ends with status {asked.returncode}"


def measure(devices: Sequence[Device], in_use: Collection[str]) -> list[Device]:
    """The devices, with a baseline for each GPU that has none and is not among `in_use` (UUIDs).

    What an orphan still holds must not pass for the idle state of its GPU.
    """
    if all(device.kind == "cpu" or device.baseline_bytes is not None for device in devices):
        return list(devices)
    return with_baselines(devices, used_bytes([d.uuid for d in devices if d.kind == "cuda"]), in_use)


def with_baselines(devices: Sequence[Device], used: Mapping[str, int], in_use: Collection[str]) -> list[Device]:
    """`measure` with what is used now: UUID → bytes."""
    return [
        replace(device, baseline_bytes=used[device.uuid])
        if device.baseline_bytes is None and device.uuid in used and device.uuid not in in_use
        else device
        for device in devices
    ]


def is_empty(device: Device) -> bool:
    """Whether nothing holds the device's memory: within 256 MiB of its baseline. A CPU slot holds none."""
    return device.kind == "cpu" or at_baseline(device, used_bytes([device.uuid]).get(device.uuid))


def at_baseline(device: Device, used: int | None) -> bool:
    """`is_empty` of a GPU with `used` bytes in use; without a figure or a baseline nobody knows, so no."""
    return used is not None and device.baseline_bytes is not None and used - device.baseline_bytes <= EMPTY_WITHIN_BYTES


def used_bytes(uuids: Collection[str]) -> dict[str, int]:
    """GPU memory in use now: UUID → bytes, of the GPUs that answer."""
    used = {}
    with _nvml() as present:
        for uuid in uuids if present else ():
            with suppress(pynvml.NVMLError):
                handle = pynvml.nvmlDeviceGetHandleByUUID(uuid)
                used[uuid] = int(pynvml.nvmlDeviceGetMemoryInfo(handle).used)
    return used


def cores() -> int:
    """CPU cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def memory_bytes() -> int:
    """Main memory of this host."""
    return int(psutil.virtual_memory().total)


def _gpus() -> list[Device]:
    devices = []
    with _nvml(refuse_broken=True) as present:
        count = pynvml.nvmlDeviceGetCount() if present else 0
        for index in range(count):
            try:
                handle = pynvml.nvmlDeviceGetHandleByIndex(index)
                memory = pynvml.nvmlDeviceGetMemoryInfo(handle)
                uuid = pynvml.nvmlDeviceGetUUID(handle)
            except pynvml.NVMLError as error:
                log.warning("GPU %d does not answer and is no slot: %s", index, error)
                continue
            devices.append(Device(index, "cuda", uuid, int(memory.total)))
    if count and not devices:
        raise ValueError(f"none of the {count} GPUs of this host answers: see nvidia-smi, or restart the host")
    return visible(devices, os.environ.get("CUDA_VISIBLE_DEVICES"))


def visible(devices: list[Device], wanted: str | None) -> list[Device]:
    """The devices that a CUDA_VISIBLE_DEVICES value leaves: indices or beginnings of UUIDs, read up to the first
    that is neither, as CUDA does; None leaves all."""
    if wanted is None:
        return devices
    chosen: list[Device] = []
    for word in (part.strip() for part in wanted.split(",")):
        found = [d for d in devices if word and (word == str(d.index) or d.uuid.startswith(word))]
        if len(found) != 1:
            break
        chosen += found
    return chosen


@contextmanager
def _nvml(*, refuse_broken: bool = False) -> Iterator[bool]:
    """NVML for the time of the block; False where the host has no NVIDIA driver, or one that does not answer now.

    Raises:
        ValueError: with `refuse_broken` for a driver that is there and does not work.
    """
    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError as error:
        none = (pynvml.NVML_ERROR_LIBRARY_NOT_FOUND, pynvml.NVML_ERROR_DRIVER_NOT_LOADED)
        if refuse_broken and error.value not in none:
            raise ValueError(
                f"the NVIDIA driver does not work ({error}): see nvidia-smi, or restart the host"
            ) from None
        yield False
        return
    try:
        yield True
    finally:
        with suppress(pynvml.NVMLError):  # of a driver that was lost meanwhile: what was asked is known
            pynvml.nvmlShutdown()
