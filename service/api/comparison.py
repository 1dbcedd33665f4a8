"""Jobs side by side: where their specs differ and what came out."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from sqlalchemy.orm import Session

from service.api.presentation import last_metrics
from service.api.schemas import ComparedJob, Comparison, Difference
from service.database.tables import Experiment, Job
from service.ledger.states import JobState


def compare(session: Session, jobs: Sequence[Job]) -> Comparison:
    """The jobs side by side, in the order given. Names are left out of the specs: they always differ."""
    compared = []
    for job in jobs:
        experiment = session.get(Experiment, job.experiment_id)
        assert experiment is not None, "a foreign key holds it"
        compared.append(
            ComparedJob(
                id=job.id,
                name=job.name,
                kind=job.kind,
                state=JobState(job.state),
                experiment=experiment.name,
                spec_digest=job.spec_digest,
            )
        )
    specs = [{k: v for k, v in job.spec.items() if k != "name"} for job in jobs]
    metrics = [{key: point.value for key, point in last_metrics(session, job.id).items()} for job in jobs]
    return Comparison(
        jobs=compared,
        spec=[row for row in _side_by_side([dict(_flat(spec)) for spec in specs]) if not _all_equal(row.values)],
        metrics=_side_by_side(metrics),
        results=_side_by_side([dict(_flat(job.result or {})) for job in jobs]),
    )


def _flat(value: Any, pointer: str = "") -> Iterator[tuple[str, Any]]:
    """Leaves by JSON pointer; a list counts as one leaf."""
    if isinstance(value, dict) and value:
        for key, inner in value.items():
            yield from _flat(inner, f"{pointer}/{key.replace('~', '~0').replace('/', '~1')}")
    elif pointer:
        yield pointer, value


def _side_by_side(columns: Sequence[dict[str, Any]]) -> list[Difference]:
    names = dict.fromkeys(name for column in columns for name in column)
    return [Difference(name=name, values=[column.get(name) for column in columns]) for name in names]


def _all_equal(values: Sequence[Any]) -> bool:
    return all(value == values[0] for value in values)
