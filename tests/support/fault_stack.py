"""The stack of the fault suite: a `barlow up` with two slots and short times, its jobs, and ways to look at them."""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from running_stack import Up
from stack_view import StackView

from barlow_lab.run_folder import run_folder
from service.database.engine import make_engine
from service.settings import Settings
from worker.process import marked

LEASE = 9.0
TIMES = {
    "TICK": 0.5,
    "POLL": 3.0,
    "HEARTBEAT": 0.5,
    "LEASE": LEASE,
    "STOP_GRACE": 3.0,
    "RETRY_BACKOFF": 0.2,
    "RECORDER": 0.3,
}


def settings(**seconds: float) -> dict[str, str]:
    """The environment of a stack with short times; some may be other ones."""
    return {f"BARLOW_{name}_SECONDS": str(value) for name, value in {**TIMES, **seconds}.items()}


def pretrain(slots: int = 1, *, epochs: int = 12, **run: Any) -> dict[str, Any]:
    """A pretraining of 8 steps an epoch, about 40 an idle second, every step recorded, a checkpoint every 4."""
    return {
        "kind": "pretrain",
        "data": {"name": "digits", "limit": 256},
        "views": {"preset": "small_images", "size": 32},
        "backbone": {"name": "tiny"},
        "projector": {"widths": [16, 16]},
        "optimizer": {"name": "adamw", "learning_rate": 0.003, "reference_batch_size": None},
        "epochs": epochs,
        "batch_size": 32,
        "resources": {"slots": slots},
        "run": {
            "record": {"metrics_every_steps": 1, "correlation_every_epochs": 6},
            "checkpoint": {"every_steps": 4},
            **run,
        },
    }


def middling_pretrain(**run: Any) -> dict[str, Any]:
    """The same on both slots, for about a lease."""
    return pretrain(2, epochs=24, **run)


def long_pretrain(slots: int = 1, **run: Any) -> dict[str, Any]:
    """The same for longer than a lease. A step of two ranks takes twice the time of one rank's."""
    return pretrain(slots, epochs=60 if slots == 1 else 36, **run)


def knn(source: uuid.UUID | str | None = None, **run: Any) -> dict[str, Any]:
    """A kNN evaluation of a job's backbone; without one, of the raw pixels."""
    return {
        "kind": "knn",
        "data": {"name": "digits", "limit": 400},
        "images": {"size": 32, "resize": 32},
        "backbone_from": {"pixels": True} if source is None else {"job": str(source)},
        "run": run,
    }


@dataclass
class FaultStack(Up, StackView):
    """A running stack and short ways to give it jobs and to look at them, whatever of it is away."""

    settings: Mapping[str, str] = field(default_factory=settings)
    arguments: tuple[str, ...] = ("--slots", "2")

    def start(self) -> None:
        super().start()
        self.engine = make_engine(Settings(database_url=self.endpoints["database"]))

    def run(self, job_id: uuid.UUID) -> Path:
        return run_folder(self.directory / "runs", job_id)

    def marked(self, attempt_id: uuid.UUID) -> list[int]:
        return marked(attempt_id)
