"""Correlation records of several jobs at common steps: spectra, and the matrix C in a bounded size."""

from __future__ import annotations

import base64
import uuid
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from sqlalchemy import exists, select, tuple_
from sqlalchemy.orm import Session

from barlow_lab.run_folder import run_folder
from service.comparison.plots.choice import Group, first_seeds_first
from service.comparison.plots.curves import rounded
from service.comparison.plots.record_arrays import SPECTRA, record_arrays
from service.comparison.seed_groups import seed_of
from service.database.tables import Correlation, Job

MOST_JOBS = 8
MOST_STEPS = 12
ALL_CELLS = 1_600_000
"""Entries of all matrices of a page together: 12 steps of 8 jobs with 128 features each."""
MOST_SIDE = 256
MOST_RANKS = 200
"""Numbers of a spectrum, at ranks that lie evenly on a logarithmic axis."""
_LEVELS = 127
"""An entry is one byte: C times this, plus this; or _NO_NUMBER."""
_NO_NUMBER = 255


def matrices(session: Session, runs_dir: Path, groups: Sequence[Group]) -> dict[str, Any]:
    """For the page: the steps of the slider, and by job its records, of which each step names one by its number.

    Of each group its first job comes before any second one. Steps are those that all these jobs have records of, where
    there are two such steps; else those that any has, at which a job shows the last record that it had by then.
    """
    turns = first_seeds_first(groups)
    recorded = exists().where(Correlation.job_id == Job.id)
    some = set(session.scalars(select(Job.id).where(Job.id.in_([job.id for _, job in turns]), recorded)))
    having = [(place, job) for place, job in turns if job.id in some]
    chosen = sorted(having[:MOST_JOBS], key=lambda pair: pair[0])
    at: dict[uuid.UUID, list[int]] = {}
    for job_id, step in session.execute(
        select(Correlation.job_id, Correlation.step)
        .where(Correlation.job_id.in_([job.id for _, job in chosen]))
        .order_by(Correlation.job_id, Correlation.step)
    ):
        at.setdefault(job_id, []).append(step)
    common = _common([set(at[job.id]) for _, job in chosen])
    steps = _evenly(common, MOST_STEPS)
    last = {job.id: [_last_by(at[job.id], step) for step in steps] for _, job in chosen}
    wanted = {(job_id, step) for job_id, each in last.items() for step in each if step is not None}
    place_of = tuple_(Correlation.job_id, Correlation.step)
    query = select(Correlation.job_id, Correlation.step, Correlation.dim, Correlation.file)
    rows = {(row.job_id, row.step): row for row in session.execute(query.where(place_of.in_(wanted)))}
    # A record that went meanwhile, as a retry's resume takes those beyond its checkpoint, is not there.
    shown = {job_id: [rows.get((job_id, step)) for step in each] for job_id, each in last.items()}
    count = len(rows)
    side = min(MOST_SIDE, int((ALL_CELLS / max(1, count)) ** 0.5))
    return {
        "jobs": [len(chosen), len(having)],
        "kept": [len(steps), len(common)],
        "steps": steps,
        "panels": [
            {"name": job.name, "group": place, "seed": seed_of(job)}
            | _records(shown[job.id], run_folder(runs_dir, job.id), side)
            for place, job in chosen
        ],
    }


def _common(steps: Sequence[set[int]]) -> list[int]:
    shared = set.intersection(*steps) if steps else set()
    return sorted(shared if len(shared) > 1 else set().union(*steps))


def _evenly(values: Sequence[int], most: int) -> list[int]:
    """At most so many, the first and the last among them."""
    if len(values) <= most:
        return list(values)
    return [values[round(i * (len(values) - 1) / (most - 1))] for i in range(most)]


def _last_by(steps: Sequence[int], step: int) -> int | None:
    return next((one for one in reversed(steps) if one <= step), None)


def _records(shown: Sequence[Any | None], folder: Path, side: int) -> dict[str, Any]:
    found: dict[int, int] = {}
    records: list[dict[str, Any]] = []
    for row in shown:
        if row is not None and row.step not in found:
            found[row.step] = len(records)
            records.append(_record(row, folder, side))
    return {"records": records, "at": [None if row is None else found[row.step] for row in shown]}


def _record(row: Any, folder: Path, side: int) -> dict[str, Any]:
    told = {"step": row.step, "dim": row.dim}
    try:
        arrays = record_arrays(folder / row.file, within=folder)
    except (OSError, ValueError):
        return told
    spectra = {name: _thinned(arrays[name]) for name in SPECTRA if name in arrays}
    return {**told, "spectra": spectra, **_picture(arrays, row.dim, side)}


def _thinned(spectrum: Any) -> list[list[Any]]:
    """Ranks from 1, and the values there."""
    last = len(spectrum)
    ranks = sorted({round(last ** (i / (MOST_RANKS - 1))) for i in range(MOST_RANKS)})
    return [ranks, [rounded(float(spectrum[rank - 1])) for rank in ranks]]


def _picture(arrays: Mapping[str, Any], dim: int, side: int) -> dict[str, Any]:
    """The matrix in base64 with at most so many rows: of every k-th feature, so that an entry stays one of C.

    `apart`: from one row's feature to the next one's.
    """
    import numpy as np

    if "matrix" in arrays:
        every = -(-len(arrays["matrix"]) // side)
        kept = arrays["matrix"][::every, ::every]
        apart, said = every, "" if every == 1 else f"1 feature of {every}"
    elif "blocks" in arrays:
        whole = arrays["blocks"]
        every = -(-len(whole) // side)
        edge = len(whole) // every * every
        cut = whole[:edge, :edge].reshape(edge // every, every, edge // every, every)
        kept = np.sqrt(np.mean(np.square(cut), axis=(1, 3)))
        apart = dim // len(kept)
        said = f"RMS of blocks of {apart}"
    else:
        return {}
    numbers = np.isfinite(kept)
    levels = np.clip(np.rint(np.where(numbers, kept, 0) * _LEVELS), -_LEVELS, _LEVELS) + _LEVELS
    levels = np.where(numbers, levels, _NO_NUMBER).astype(np.uint8)
    cells = base64.b64encode(levels.tobytes()).decode()
    return {"side": len(kept), "apart": apart, "said": said, "gaps": not numbers.all(), "cells": cells}
