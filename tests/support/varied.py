"""An experiment with seeds and its jobs, as they are recorded: for tests of its run in MLflow."""

from __future__ import annotations

from typing import Any
from uuid import UUID

from journals import RecordedJob
from lab import Lab
from recorded import export, record
from sqlalchemy import select
from worker_host import small_pretraining

from barlow_lab.specs.expansion import expand
from service.database.tables import Experiment
from service.ledger import jobs
from service.ledger.states import AttemptOutcome
from service.settings import Settings
from worker.recorder.experiment import ExperimentExporter

KNN = {"kind": "knn", "data": {"name": "digits"}}


class VariedExperiment:
    """Two pretrainings that differ in their seed, a kNN of each, and one of raw pixels; `jobs` by name, as far as they
    were begun: those that wait for no other at once, the others when their end is asked for."""

    def __init__(self, lab: Lab, settings: Settings, **varies: Any) -> None:
        """`varies`: in place of `seeds: 2`."""
        self.lab = lab
        lab.node(slots=16)
        body = {
            "name": f"varied-{lab.engine.url.database}",
            **(varies or {"seeds": 2}),
            "jobs": {
                "pretrain": small_pretraining(),
                "knn": {**KNN, "backbone_from": {"job": "pretrain"}},
                "pixels": {**KNN, "backbone_from": {"pixels": True}},
            },
        }
        with lab.sessions.begin() as session:
            experiment = jobs.ensure_experiment(session, body["name"])
            experiment.spec, experiment.varies = body, True
            self.id: UUID = experiment.id
        self._settings, self._name = settings, body["name"]
        self._specs = {name: variant.value for name, variant in expand(body, 100).variants.items()}
        self.jobs: dict[str, RecordedJob] = {}
        for name in self._specs:
            if not name.startswith("knn"):
                self._begin(name)

    def row(self) -> Experiment:
        with self.lab.sessions() as session:
            return session.scalars(select(Experiment).where(Experiment.id == self.id)).one()

    def exporter(self, client: Any) -> ExperimentExporter:
        return ExperimentExporter(self.lab.engine, client, self._settings.runs_dir)

    def end(self, loss: float = 10.0, top1: float = 80.0) -> None:
        """All succeed, with a loss and a score that are one more for each pretraining."""
        for number, name in enumerate([name for name in self.jobs if name.startswith("pretrain")]):
            self.pretrained(name, loss + number)
            self.judged(name.replace("pretrain", "knn"), top1 + number)
        self.judged("pixels", 20.0)

    def pretrained(self, name: str, loss: float) -> None:
        job = self.jobs[name]
        self.lab.end(job.attempt, AttemptOutcome.OK, result={"metrics": {"loss": loss, "on_diagonal": 1.0}})
        record(job)

    def judged(self, name: str, top1: float) -> None:
        if name not in self.jobs:
            self._begin(name)
        job, score = self.jobs[name], {"top1": {"last": top1, "best": top1}}
        result = {"protocol": "knn/1", "departures": {}, "headline": "top1", "scores": score}
        self.lab.end(job.attempt, AttemptOutcome.OK, result=result)
        record(job)

    def export_all(self, client: Any) -> None:
        """The jobs and the experiment, as often as one of them may wait for another."""
        for _ in range(2):
            for job in self.jobs.values():
                export(job, client)
            self.exporter(client).export(self.id)

    def runs(self, client: Any) -> list[str]:
        """Its own runs that are not deleted."""
        homes = [experiment.experiment_id for experiment in client.search_experiments()]
        return [run.info.run_id for run in client.search_runs(homes, f"tags.`barlow.experiment_id` = '{self.id}'")]

    def parent(self, name: str, client: Any) -> str | None:
        """The run above that of a job."""
        tags: dict[str, str] = client.get_run(self.jobs[name].row().mlflow_run_id).data.tags
        return tags.get("mlflow.parentRunId")

    def _begin(self, name: str) -> None:
        source = self._specs[name].get("backbone_from", {}).get("job")
        above = self.jobs[source].id if source else None
        self.jobs[name] = RecordedJob(
            self.lab, self._settings, name, source=above, spec=self._specs[name], experiment=self._name
        )
        self.jobs[name].started()
        self.jobs[name].steps(1, 2)
