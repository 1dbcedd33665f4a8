"""A driver with GPUs, on a machine without: what worker.devices asks of NVML, with figures that a test sets."""

from __future__ import annotations

from dataclasses import dataclass, field
from types import SimpleNamespace

import pynvml
import pytest


@dataclass
class FakeGpu:
    """One GPU; `used` is the memory in use, in bytes."""

    uuid: str
    total: int = 80 * 2**30
    used: int = 500 * 2**20


@dataclass
class FakeNvml:
    """Functions of NVML over `gpus`. A GPU that is `lost` has fallen off the bus: every question about it fails."""

    gpus: list[FakeGpu]
    lost: set[str] = field(default_factory=set)
    sessions: int = 0
    broken: int | None = None
    """The error of every nvmlInit, if there is one."""
    refusal: str | None = None
    """Why torch can use no GPU, if it cannot."""
    NVMLError = pynvml.NVMLError
    NVML_ERROR_LIBRARY_NOT_FOUND = pynvml.NVML_ERROR_LIBRARY_NOT_FOUND
    NVML_ERROR_DRIVER_NOT_LOADED = pynvml.NVML_ERROR_DRIVER_NOT_LOADED

    def install(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Be the driver of worker.devices."""
        monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
        monkeypatch.setattr("worker.devices.pynvml", self)
        monkeypatch.setattr("worker.devices.refusal_of_torch", lambda uuids, environment: self.refusal)

    def nvmlInit(self) -> None:
        if self.broken is not None:
            raise pynvml.NVMLError(self.broken)
        self.sessions += 1

    def nvmlShutdown(self) -> None:
        self.sessions -= 1
        if self.lost:
            raise pynvml.NVMLError(pynvml.NVML_ERROR_GPU_IS_LOST)

    def nvmlDeviceGetCount(self) -> int:
        return len(self.gpus)

    def nvmlDeviceGetHandleByIndex(self, index: int) -> FakeGpu:
        return self._answering(self.gpus[index])

    def nvmlDeviceGetHandleByUUID(self, uuid: str) -> FakeGpu:
        for gpu in self.gpus:
            if gpu.uuid == uuid:
                return self._answering(gpu)
        raise pynvml.NVMLError(pynvml.NVML_ERROR_NOT_FOUND)

    def nvmlDeviceGetUUID(self, gpu: FakeGpu) -> str:
        return self._answering(gpu).uuid

    def nvmlDeviceGetMemoryInfo(self, gpu: FakeGpu) -> SimpleNamespace:
        self._answering(gpu)
        return SimpleNamespace(total=gpu.total, used=gpu.used)

    def _answering(self, gpu: FakeGpu) -> FakeGpu:
        assert self.sessions > 0, "asked outside of a session"
        if gpu.uuid in self.lost:
            raise pynvml.NVMLError(pynvml.NVML_ERROR_GPU_IS_LOST)
        return gpu
