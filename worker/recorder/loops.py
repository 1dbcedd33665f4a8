"""The recorder threads of a worker. Each goes at its own pace; one that fails waits, the others do not notice."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from typing import Any
from uuid import UUID

from sqlalchemy import Engine
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session

from service.database.engine import session_factory
from service.database.tables import Watermark
from service.recording import MLFLOW, POSTGRES
from service.settings import Settings
from worker.log_text import first_line
from worker.recorder import mlflow, postgres
from worker.recorder.experiment import ExperimentExporter
from worker.recorder.mlflow_run import make_client

LONGEST_WAIT = 30.0
JOIN_SECONDS = 5.0

log = logging.getLogger(__name__)


class Recorder:
    """Records every job whose run directory this worker sees, until it is told to stop."""

    def __init__(self, settings: Settings, engine: Engine) -> None:
        self._settings = settings
        self._engine = engine
        self._postgres = postgres.PostgresRecorder(session_factory(engine), settings.runs_dir)
        self._stop = threading.Event()
        self._threads = [
            threading.Thread(target=loop, name=f"recorder-{target}", daemon=True) for target, loop in self._loops()
        ]

    def start(self) -> None:
        """Start recording in threads of its own; they never keep the process from exiting."""
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        """Stop soon. What is not recorded yet is recorded by the next worker that sees the run directory."""
        self._stop.set()
        for thread in self._threads:
            thread.join(JOIN_SECONDS)

    def open(self, session: Session, job_id: UUID) -> None:
        """Have a job recorded from now on."""
        targets = [POSTGRES] if self._settings.mlflow_url is None else [POSTGRES, MLFLOW]
        rows = [{"job_id": job_id, "target": target, "position": {}} for target in targets]
        session.execute(insert(Watermark).values(rows).on_conflict_do_nothing())

    def flush(self, job_id: UUID, tick: Callable[[], None]) -> None:
        """Record into Postgres all that is journalled now; calls `tick` for each piece.

        Raises:
            sqlalchemy.exc.SQLAlchemyError: Postgres is away (service.database.away).
        """
        self._postgres.flush(job_id, tick)

    def _run_postgres(self) -> None:
        def record(job_id: UUID) -> None:
            while not self._stop.is_set() and self._postgres.record(job_id):
                pass

        self._loop(self._postgres.pending, record)

    def _loops(self) -> list[tuple[str, Callable[[], None]]]:
        loops: list[tuple[str, Callable[[], None]]] = [(POSTGRES, self._run_postgres)]
        if self._settings.mlflow_url is not None:
            # The client is made by the threads: importing MLflow takes seconds.
            loops += [
                (MLFLOW, self._run_mlflow),
                (f"{MLFLOW}-files", self._run_mlflow_files),
                (f"{MLFLOW}-experiments", self._run_mlflow_experiments),
            ]
        return loops

    def _run_mlflow(self) -> None:
        exporter = self._exporter()
        self._loop(exporter.pending, exporter.export)

    def _run_mlflow_files(self) -> None:
        exporter = self._exporter()
        self._loop(exporter.pending_files, exporter.upload)

    def _run_mlflow_experiments(self) -> None:
        exporter = ExperimentExporter(self._engine, self._client(), self._settings.runs_dir)
        self._loop(exporter.pending, exporter.export, "experiment")

    def _exporter(self) -> mlflow.MlflowExporter:
        return mlflow.MlflowExporter(self._engine, self._client(), self._settings.runs_dir)

    def _client(self) -> Any:
        assert self._settings.mlflow_url is not None
        token = self._settings.mlflow_token
        return make_client(
            self._settings.mlflow_url,
            None if token is None else token.get_secret_value(),
            same_account=self._settings.same_account,
        )

    def _loop(self, pending: Callable[[], list[UUID]], record: Callable[[UUID], None], what: str = "job") -> None:
        waits = _Waits()
        while not self._stop.wait(self._settings.recorder_seconds):
            try:
                waiting = pending()
            except Exception as error:
                log.warning("cannot ask what is to be recorded: %s", first_line(error))
                continue
            for each in waiting:
                if self._stop.is_set():
                    return
                if waits.over(each):
                    try:
                        record(each)
                        waits.forget(each)
                    except Exception as error:
                        seconds = waits.grow(each)
                        log.warning("recording %s %s again in %.0f s: %s", what, each, seconds, first_line(error))


class _Waits:
    """How long each one that failed is left alone: doubled at every failure, forgotten at the first success."""

    def __init__(self) -> None:
        self._waits: dict[UUID, tuple[float, float]] = {}

    def over(self, job_id: UUID) -> bool:
        return time.monotonic() >= self._waits.get(job_id, (0.0, 0.0))[0]

    def grow(self, job_id: UUID) -> float:
        seconds = min(LONGEST_WAIT, 2 * self._waits.get(job_id, (0.0, 0.5))[1])
        self._waits[job_id] = (time.monotonic() + seconds, seconds)
        return seconds

    def forget(self, job_id: UUID) -> None:
        self._waits.pop(job_id, None)
