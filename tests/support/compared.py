"""An experiment with metrics, correlation records and scores of several seeds, for tests of a comparison's page."""

from __future__ import annotations

from io import BytesIO
from typing import Any

import numpy as np
from journals import RecordedJob
from lab import Lab
from recorded import record
from varied import VariedExperiment

from service.settings import Settings

FEATURES = 16
STEPS = (0, 20, 40)


def compared(lab: Lab, settings: Settings) -> VariedExperiment:
    """Two values of one field with two seeds each, judged, and raw pixels; each pretraining has 41 points of the loss,
    records at `STEPS` and a top-1 of 80 and more."""
    made = VariedExperiment(lab, settings, seeds=2, grid={"objective.lambda": [0.01, 0.05]})
    for number, job in enumerate(job for name, job in made.jobs.items() if name.startswith("pretrain")):
        for step in range(3, 41):
            apart = 100.0 if step > 20 and number % 2 else 1.0  # where a deviation is larger than its mean
            values = {"loss": (100 + 10 * number) / step, "on_diagonal": 2.0**-step, "off_diagonal": apart}
            job.journal.metrics(step, 1, values)
        for step in STEPS:
            correlation(job, step, seed=number)
    made.end()
    return made


def correlation(job: RecordedJob, step: int, *, seed: int = 0, features: int = FEATURES) -> None:
    """A record of a matrix that comes nearer to the identity with each step, without a picture."""
    noise = np.random.default_rng([seed, step]).normal(size=(features, features)) / (2 + step)
    matrix = np.clip(np.eye(features) * (1 - 1 / (1 + step)) + noise, -1, 1)
    spectrum = np.linalg.svd(matrix, compute_uv=False).astype(np.float32)
    file = f"correlation/step-{step:08d}.npz"
    arrays = {"correlation": matrix.astype(np.float16), "spectrum": spectrum, "spectrum_a": spectrum**2}
    write_record(job, file, arrays)
    facts = {"dim": features, "n": 64, "floor": 0.1, "summary": {"diagonal": {"mean": float(np.diag(matrix).mean())}}}
    job.journal.append("correlation", step=step, epoch=1, file=file, image=file.replace("npz", "png"), **facts)
    record(job)


def write_record(job: RecordedJob, file: str, arrays: dict[str, Any]) -> None:
    """The .npz of a record, as the trainer writes it."""
    raw = BytesIO()
    np.savez_compressed(raw, allow_pickle=False, **arrays)
    path = job.folder / file
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(raw.getvalue())
