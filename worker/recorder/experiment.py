"""Postgres rows → the run of an experiment that varies: above those of its jobs, with what came out over its seeds."""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Collection
from pathlib import Path
from typing import Any
from uuid import UUID

from sqlalchemy import Engine, exists, func, select
from sqlalchemy.orm import Session

from barlow_lab.specs.kinds import MAKERS
from service.comparison.plots.page import compare_page
from service.database.away import is_away
from service.database.tables import Experiment, Job, Watermark
from service.ledger.states import JobState
from service.recording import EXPERIMENT_TAG, MLFLOW, POSTGRES, REBUILD, RUN_ID
from worker.log_text import first_line
from worker.recorder.alone import alone
from worker.recorder.description import describe
from worker.recorder.experiment_facts import ExperimentFacts
from worker.recorder.experiment_home import home_of
from worker.recorder.mlflow_run import MlflowRun
from worker.recorder.parents import tell_of_parent
from worker.recorder.position import ExperimentPosition, Overtaken

TABLE = "summary.json"
PAGE = "compare.html"
PAGE_TRIES = 3
"""So often a page is made that cannot be: then the run does without it."""
_PAGE_TOLD = "page"
"""In what MLflow is known to say: the end that the page was made after, or given up."""
_PAGE_FAILED = "page_failed"
"""There: an end, and how often the page after it could not be made."""
_PAGE_SENT = "page_sent"
"""There: the end whose page was begun to be sent."""

log = logging.getLogger(__name__)


class ExperimentExporter:
    """Exports experiments that vary to MLflow. Any number may run: an experiment's advisory lock lets one at it.

    What is said of an experiment hangs on how many of its jobs are in which state: jobs are only ever added, and an
    ended one stays as it is. So it is said again whenever these numbers are others than when it was said last. The page
    that compares its jobs is some megabytes, so it is made at the end alone, once all is recorded that it shows.
    """

    def __init__(self, engine: Engine, client: Any, runs_dir: Path) -> None:
        self._engine = engine
        self._client = client
        self._runs_dir = runs_dir

    def pending(self) -> list[UUID]:
        """Experiments that vary of which MLflow is not known to say how they are, and a job is recorded there."""
        with Session(self._engine) as session:
            recorded = exists().where(Watermark.job_id == Job.id, Watermark.target == MLFLOW)
            some = exists().where(Job.experiment_id == Experiment.id, recorded)
            told: dict[UUID, dict[str, Any]] = dict(
                session.execute(select(Experiment.id, Experiment.mlflow_told).where(Experiment.varies, some)).all()
            )
            counted = select(Job.experiment_id, Job.state, func.count()).where(Job.experiment_id.in_(told))
            states: dict[UUID, dict[str, int]] = {}
            for experiment, state, count in session.execute(counted.group_by(Job.experiment_id, Job.state)):
                states.setdefault(experiment, {})[state] = count
            changed = {one for one in told if told[one].get("states") != states[one]}
            ended = [one for one in told.keys() - changed if all(JobState(state).terminal for state in states[one])]
            without = {one for one in ended if told[one].get(_PAGE_TOLD) != told[one].get("status")}
            return sorted(changed | without - _half_recorded(session, without))

    def export(self, experiment_id: UUID) -> None:
        """Have its run say how it is now; nothing if another exporter is at it.

        Raises:
            Exception: of MLflow or the database; whatever was sent, calling again completes it.
        """
        with alone(self._engine, f"{MLFLOW}.experiment.{experiment_id}") as session:
            if session is None:
                return
            try:
                self._export(session, session.get_one(Experiment, experiment_id))
            except Overtaken as overtaken:
                log.info("%s", overtaken)

    def _export(self, session: Session, experiment: Experiment) -> None:
        facts = ExperimentFacts(session, experiment)
        position = ExperimentPosition(session, experiment.id, experiment.mlflow_told)
        run = self._run(session, experiment, facts, position)
        tags = facts.tags()
        old = position.value.get("tags", {})
        if changed := {key: value for key, value in tags.items() if old.get(key) != value}:
            run.tags(changed)
            position.keep(tags=tags)
        table = facts.table()
        digest = hashlib.sha256(json.dumps([table.columns, table.rows]).encode()).hexdigest()
        if table.rows and position.value.get("table") != digest:
            run.table(TABLE, table.columns, table.rows)
            position.keep(table=digest)
        describe(run, position, facts.description(table))
        status = [facts.status, None if facts.end is None else facts.end.isoformat()]
        if position.value.get("status") != status:
            if facts.end is None:
                run.go_on()
            else:
                run.finish(facts.status, facts.end)
            position.keep(status=status)
        position.keep(states=facts.states)
        if facts.end is None or position.value.get(_PAGE_TOLD) == status or _half_recorded(session, {experiment.id}):
            return
        self._page(session, run, facts, position, status)

    def _page(
        self, session: Session, run: MlflowRun, facts: ExperimentFacts, position: ExperimentPosition, status: list[Any]
    ) -> None:
        """Have the page there, as of the end that `status` says. What keeps MLflow or the database from it passes, and
        is tried for ever; what keeps it from being made does not."""
        try:
            page = compare_page(session, self._runs_dir, facts.every_job, whole=True)
        except Exception as error:
            if is_away(error):
                raise
            end, failed = position.value.get(_PAGE_FAILED, [None, 0])
            failed = failed + 1 if end == status else 1
            position.keep(**{_PAGE_FAILED: [status, failed]})
            if failed < PAGE_TRIES:
                raise
            said = "the MLflow run of experiment %s is without %s, which could not be made %d times: %s; "
            said += "`barlow rebuild-mlflow` of one of its jobs tries again"
            log.warning(said, facts.name, PAGE, failed, first_line(error))
            position.keep(**{_PAGE_TOLD: status})
            return
        begun = position.value.get(_PAGE_SENT) == status
        if not begun:
            position.keep(**{_PAGE_SENT: status})
        run.large_text(page.html, PAGE, again=begun)
        position.keep(**{_PAGE_TOLD: status})

    def _run(
        self, session: Session, experiment: Experiment, facts: ExperimentFacts, position: ExperimentPosition
    ) -> MlflowRun:
        """Its only run. A position in another run counts for nothing, and neither does one of which a rebuild was asked
        for: whatever is above the jobs is made by it, too."""
        run = MlflowRun.find_or_create(
            self._client,
            home_of(session, self._client, experiment.id),
            tag=(EXPERIMENT_TAG, str(experiment.id)),
            known=experiment.mlflow_run_id,
            name=experiment.name,
            started_at=facts.start,
        )
        experiment.mlflow_run_id = run.id
        session.commit()
        if position.value.get(RUN_ID) != run.id:
            below = (Job.source_job_id.is_(None) | Job.kind.in_(MAKERS), Job.experiment_id == experiment.id)
            tell_of_parent(session, run.id, *below)  # before it is known that they were told
        if position.value.get(RUN_ID) != run.id or REBUILD in position.value:
            position.restart(**{RUN_ID: run.id})
        return run


def _half_recorded(session: Session, experiments: Collection[UUID]) -> set[UUID]:
    """Those with a job of which the run database does not have all yet."""
    if not experiments:
        return set()
    which = (Job.experiment_id.in_(experiments), Watermark.target == POSTGRES, ~Watermark.complete)
    return set(session.scalars(select(Job.experiment_id).join(Watermark, Watermark.job_id == Job.id).where(*which)))
