"""Jobs side by side: what evaluations measured of which backbone, where specs differ, and what came out."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from barlow_lab.specs import written_out
from service.api.comparison_schemas import ComparedJob, Comparison, Difference
from service.api.presentation import last_metrics
from service.comparison.lined_up import line_up
from service.comparison.values import all_equal, flat
from service.database.tables import Experiment, Job
from service.ledger.states import JobState


def compare(session: Session, jobs: Sequence[Job]) -> Comparison:
    """The jobs side by side, in the order given. Names are left out of the specs: they always differ."""
    specs = [{k: v for k, v in written_out(job.spec).items() if k != "name"} for job in jobs]
    metrics = [{key: point.value for key, point in last_metrics(session, job.id).items()} for job in jobs]
    return compare_scores(session, jobs).model_copy(
        update={
            "spec": [r for r in _side_by_side([dict(flat(spec)) for spec in specs]) if not all_equal(r.values)],
            "metrics": _side_by_side(metrics),
            "results": _side_by_side([dict(flat(job.result or {})) for job in jobs]),
        }
    )


def compare_scores(session: Session, jobs: Sequence[Job]) -> Comparison:
    """The jobs with the results of the evaluations among them lined up, and nothing of their specs."""
    wanted = {job.experiment_id for job in jobs}
    experiments = {e.id: e.name for e in session.scalars(select(Experiment).where(Experiment.id.in_(wanted)))}
    lined_up = line_up(session, jobs)
    return Comparison(
        jobs=[
            ComparedJob(
                id=job.id,
                name=job.name,
                kind=job.kind,
                state=JobState(job.state),
                experiment=experiments[job.experiment_id],
                spec_digest=job.spec_digest,
            )
            for job in jobs
        ],
        evaluations=lined_up.evaluations,
        backbones=lined_up.backbones,
        groups=lined_up.groups,
        scores=lined_up.scores,
        spec=[],
        metrics=[],
        results=[],
    )


def _side_by_side(columns: Sequence[dict[str, Any]]) -> list[Difference]:
    names = dict.fromkeys(name for column in columns for name in column)
    return [Difference(name=name, values=[column.get(name) for column in columns]) for name in names]
