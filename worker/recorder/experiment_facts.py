"""What is said of an experiment that varies in MLflow: by its spec and the rows of its jobs, as they are now."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from datetime import datetime
from functools import cached_property
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from barlow_lab.specs.expansion import varied_by_all
from barlow_lab.specs.experiment import MOST_JOBS
from barlow_lab.specs.variation import Path, Varied, read_axes, text_of
from service.comparison.plots.choice import without_retried
from service.comparison.summary import Summary, summary
from service.database.tables import Experiment, Job
from service.ledger.states import JobState
from worker.recorder.facts import source_tags

_LONGEST_VALUES = 200


class ExperimentFacts:
    """Of one experiment and its jobs. One that another was made in place of, a retry, counts as that one alone."""

    def __init__(self, session: Session, experiment: Experiment) -> None:
        self._session = session
        self._experiment = experiment
        self.every_job = session.scalars(select(Job).where(Job.experiment_id == experiment.id).order_by(Job.id)).all()
        """Those that another was made in place of as well."""
        self.states: dict[str, int] = dict(Counter(job.state for job in self.every_job))
        """How many of all its jobs are in which state."""
        self.jobs = without_retried(self.every_job)

    @property
    def name(self) -> str:
        """Of the experiment."""
        return self._experiment.name

    @property
    def start(self) -> datetime:
        """When its first job began."""
        return min((job.started_at for job in self.jobs if job.started_at), default=self._experiment.created_at)

    @property
    def end(self) -> datetime | None:
        """When its last job ended; None: some have not."""
        ends = [job.finished_at for job in self.jobs if JobState(job.state).terminal]
        return max(end for end in ends if end) if len(ends) == len(self.jobs) else None

    @property
    def status(self) -> str:
        """In MLflow's words."""
        states = {job.state for job in self.jobs}
        if self.end is None:
            return "RUNNING"
        return "FAILED" if JobState.FAILED in states else "KILLED" if JobState.CANCELLED in states else "FINISHED"

    def tags(self) -> dict[str, str]:
        """Tags of the run."""
        varies = [f"{_name(owner, one)}: {_values(one)}" for owner, one in self._varied]
        kinds = ", ".join(f"{count:,} {kind}" for kind, count in Counter(job.kind for job in self.jobs).items())
        counted = Counter(job.state for job in self.jobs)
        tags = {
            "barlow.experiment": self._experiment.name,
            "barlow.varies": "\n".join(varies),
            "barlow.jobs": f"{len(self.jobs):,}: {kinds}",
            "barlow.states": ", ".join(f"{counted[state]:,} {state}" for state in JobState if counted[state]),
        }
        users = {job.user_name for job in self.jobs}
        if len(users) == 1 and (user := users.pop()) is not None:
            tags["mlflow.user"] = user
        return tags | source_tags(None)

    def table(self) -> Summary:
        """What came of it, over seeds."""
        shared = set(self._heads) if len(self._heads) == 1 else set()
        paths = [one.path for owner, one in self._varied if owner is None or owner in shared]
        return summary(self._session, self.jobs, [path for path in dict.fromkeys(paths) if path != ("seed",)])

    def description(self, table: Summary) -> str:
        """What it is, with what came of it first, for a column of a table."""
        fields = [f"{_name(owner, one)} ({len(one.values):,})" for owner, one in self._varied]
        what = f"{len(self.jobs):,} jobs by {', '.join(fields)}"
        return " · ".join(words for words in (table.headline, what) if words)

    @cached_property
    def _body(self) -> Mapping[str, Any]:
        return self._experiment.spec or {}

    @property
    def _heads(self) -> list[str]:
        return varied_by_all(self._body.get("jobs", {}))

    @property
    def _varied(self) -> Iterator[tuple[str | None, Varied]]:
        """The fields that vary, with the job that says so; None: the experiment."""
        for owner, value in ((None, self._body), *self._body.get("jobs", {}).items()):
            for axis in read_axes(owner, value, MOST_JOBS)[0]:
                yield from ((owner, one) for one in axis.fields)


def _name(owner: str | None, varied: Varied) -> str:
    path: Path = varied.path if owner is None else (owner, *varied.path)
    return ".".join(path)


def _values(varied: Varied) -> str:
    text = ", ".join(value if isinstance(value, str) else text_of(value) for value in varied.values)
    return text if len(text) <= _LONGEST_VALUES else f"{text[: _LONGEST_VALUES - 1]}…"
