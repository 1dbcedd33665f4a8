"""Small evaluations on digits, for tests, and their contexts without the rest of a run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from barlow_lab.journal import Journal
from barlow_lab.specs import KnnSpec, LinearSpec, parse_spec
from trainer.runtime.context import Context
from trainer.runtime.stopping import StopRequests

SMALL: dict[str, Any] = {"data": {"name": "digits", "limit": 203}, "images": {"size": 8, "resize": 8}, "batch_size": 32}


def spec_of(kind: str = "knn", **fields: Any) -> KnnSpec | LinearSpec:
    if kind == "linear":
        fields = {"protocol": "cached-features", **fields}
    spec = parse_spec({"kind": kind, **SMALL, "backbone_from": {"random": 3}, "backbone": {"name": "tiny"}, **fields})
    assert isinstance(spec, KnnSpec | LinearSpec)
    return spec


def context_in(folder: Path, *, rank: int = 0, world_size: int = 1, inputs: dict[str, Any] | None = None) -> Context:
    folder.mkdir(parents=True, exist_ok=True)
    device = torch.device("cpu")
    return Context(
        rank=rank,
        world_size=world_size,
        device=device,
        threads=2,
        run_folder=folder,
        attempt_folder=folder,
        attempt=1,
        inputs=inputs or {},
        journal=Journal(folder / "journal.jsonl") if rank == 0 else None,
        stop=StopRequests(folder / "control.json", rank=rank, device=device),
    )
