"""This process's place among the ranks of an attempt."""

from __future__ import annotations

import os
from dataclasses import dataclass

import torch
import torch.distributed as dist
from torch._C._distributed_c10d import FileStore

from barlow_lab.environment import RENDEZVOUS_FILE

LOOPBACK = "lo"
"""Linux's name of the interface."""


@dataclass(frozen=True, slots=True)
class Rank:
    """Rank, number of ranks, and the device this rank computes on."""

    rank: int
    world_size: int
    device: torch.device


def join() -> Rank:
    """Join the process group, if there is more than one rank.

    RANK, WORLD_SIZE, LOCAL_RANK and LOCAL_WORLD_SIZE come from the environment, as the worker, `barlow-train --ranks`
    and torchrun set them; without them the process is alone. The ranks meet at the file BARLOW_RENDEZVOUS_FILE if it is
    set (the first two do: a file is nobody else's, and collides with no port), else at torchrun's address. NCCL on
    CUDA, gloo on the CPU; between ranks of one host both keep to loopback.

    Raises:
        ValueError: WORLD_SIZE is above 1 and there is no place to meet.
        OSError: this rank was given a GPU that torch cannot use, or there are fewer GPUs than ranks.
    """
    rank, world_size = int(os.environ.get("RANK", "0")), int(os.environ.get("WORLD_SIZE", "1"))
    local_ranks = int(os.environ.get("LOCAL_WORLD_SIZE", world_size))
    device = _device(int(os.environ.get("LOCAL_RANK", rank)), local_ranks)
    if world_size > 1:
        meeting_file = os.environ.get(RENDEZVOUS_FILE)
        if meeting_file is None and not {"MASTER_ADDR", "LOCAL_WORLD_SIZE"} <= os.environ.keys():
            raise ValueError(
                f"WORLD_SIZE is {world_size} and there is no place to meet: start the ranks with barlow-train --ranks "
                f"{world_size}; whatever starts some on other hosts sets MASTER_ADDR and LOCAL_WORLD_SIZE"
            )
        if local_ranks == world_size:
            _keep_to_loopback()
        dist.init_process_group(
            "nccl" if device.type == "cuda" else "gloo",
            init_method="env://" if meeting_file is None else None,
            store=FileStore(meeting_file, world_size) if meeting_file is not None else None,
            rank=rank,
            world_size=world_size,
            device_id=device if device.type == "cuda" else None,
        )
    return Rank(rank, world_size, device)


def _keep_to_loopback() -> None:
    """Whatever the shell says: gloo and NCCL ask nobody who they are, and left to themselves listen at the address of
    the host's name, or at that of its first network."""
    os.environ["GLOO_SOCKET_IFNAME"] = LOOPBACK
    os.environ["NCCL_SOCKET_IFNAME"] = f"={LOOPBACK}"  # without the sign whatever begins so
    os.environ["NCCL_RAS_ENABLE"] = "0"  # it tells of ranks to whoever asks at NCCL_RAS_ADDR
    os.environ.pop("NCCL_COMM_ID", None)  # an address for the ranks of NCCL to meet at; torch gives them theirs


def _device(local_rank: int, local_ranks: int) -> torch.device:
    """The GPU of this rank: the only visible one, else the one numbered as the rank; the CPU where there is none."""
    if not torch.cuda.is_available():
        given = os.environ.get("CUDA_VISIBLE_DEVICES", "").strip()
        if given not in ("", "-1"):
            raise OSError(
                f"torch cannot use the GPU that CUDA_VISIBLE_DEVICES={given} gives this rank: {_why_no_cuda()}. "
                "See nvidia-smi; to compute on the CPU, set CUDA_VISIBLE_DEVICES to nothing"
            )
        return torch.device("cpu")
    count = torch.cuda.device_count()
    if count < local_ranks and "CUDA_VISIBLE_DEVICES" not in os.environ:
        raise OSError(
            f"{local_ranks} ranks on this host and {count} GPU(s), and each rank needs one of its own: start at most "
            f"{count}; with CUDA_VISIBLE_DEVICES set to nothing they compute on the CPU"
        )
    device = torch.device("cuda", local_rank if count > 1 else 0)
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
