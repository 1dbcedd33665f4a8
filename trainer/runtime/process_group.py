"""This process's place among the ranks of an attempt."""

from __future__ import annotations

import os
from dataclasses import dataclass

import torch
import torch.distributed as dist
from torch._C._distributed_c10d import FileStore

from trainer.runtime.meeting import RENDEZVOUS_FILE


@dataclass(frozen=True, slots=True)
class Place:
    """Rank, number of ranks, and the device this rank computes on."""

    rank: int
    world_size: int
    device: torch.device


def join() -> Place:
    """Join the process group, if there is more than one rank.

    RANK, WORLD_SIZE and LOCAL_RANK come from the environment, as the worker and torchrun set them; without them the
    process is alone. The ranks meet at the file BARLOW_RENDEZVOUS_FILE if it is set (the worker does: a file cannot
    collide with another job's port), else at torchrun's address. NCCL on CUDA, gloo on the CPU.

    Raises:
        ValueError: WORLD_SIZE is above 1 and there is no place to meet.
        OSError: this rank was given a GPU that torch cannot use.
    """
    rank, world_size = int(os.environ.get("RANK", "0")), int(os.environ.get("WORLD_SIZE", "1"))
    device = _device(int(os.environ.get("LOCAL_RANK", rank)))
    if world_size > 1:
        meeting_file = os.environ.get(RENDEZVOUS_FILE)
        if meeting_file is None and "MASTER_ADDR" not in os.environ:
            raise ValueError(f"WORLD_SIZE is {world_size}: set {RENDEZVOUS_FILE}, or start the ranks with torchrun")
        dist.init_process_group(
            "nccl" if device.type == "cuda" else "gloo",
            init_method="env://" if meeting_file is None else None,
            store=FileStore(meeting_file, world_size) if meeting_file is not None else None,
            rank=rank,
            world_size=world_size,
            device_id=device if device.type == "cuda" else None,
        )
    return Place(rank, world_size, device)


def _device(local_rank: int) -> torch.device:
    """The GPU of this rank: the only visible one, else the one numbered as the rank; the CPU where there is none."""
    if not torch.cuda.is_available():
        given = os.environ.get("CUDA_VISIBLE_DEVICES", "").strip()
        if given not in ("", "-1"):
            raise OSError(
                f"torch cannot use the GPU that CUDA_VISIBLE_DEVICES={given} gives this rank: {_why_no_cuda()}. "
                "See nvidia-smi; to compute on the CPU, set CUDA_VISIBLE_DEVICES to nothing"
            )
        return torch.device("cpu")
    device = torch.device("cuda", local_rank if torch.cuda.device_count() > 1 else 0)
    torch.cuda.set_device(device)
    return device


def _why_no_cuda() -> str:
    try:
        torch.cuda.init()  # type: ignore[no-untyped-call]
    except (RuntimeError, AssertionError) as error:  # the latter where torch is built without CUDA
        return str(error).strip().splitlines()[0].rstrip(".")
    return "it finds none"


def broadcast_integers(values: list[int], device: torch.device) -> list[int]:
    """Rank 0's whole numbers, on every rank."""
    if not dist.is_initialized():
        return values
    tensor = torch.tensor(values, dtype=torch.int64, device=device)
    dist.broadcast(tensor, src=0)
    return [int(v) for v in tensor.tolist()]


def leave() -> None:
    """Wait for the others, so that nobody breaks a collective of theirs by going first, and leave the group."""
    if dist.is_initialized():
        dist.barrier()
        dist.destroy_process_group()
