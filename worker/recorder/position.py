"""What MLflow is known to have: of a job its watermark, of an experiment what its own run says."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any
from uuid import UUID

from sqlalchemy import func, update
from sqlalchemy.orm import Session

from service.database.tables import Experiment, Watermark
from service.recording import MLFLOW

FILES = "files"
"""In that of a job: all but the files of the ended job is in MLflow."""


class Overtaken(Exception):
    """Somebody else moved the position: a rebuild was asked for, or another exporter is at it."""


class Position(ABC):
    """Moves only from where it was read, so whoever was overtaken meanwhile changes nothing."""

    def __init__(self, session: Session, value: dict[str, Any]) -> None:
        self._session = session
        self.value = value

    def keep(self, **changes: Any) -> None:
        """Add to what MLflow has.

        Raises:
            Overtaken: the position is no longer what it was; what was sent meanwhile counts for nothing.
        """
        self._move({**self.value, **changes})

    def restart(self, **value: Any) -> None:
        """Begin again: MLflow has nothing but this. Raises as `keep` does."""
        self._move(value)

    @abstractmethod
    def _move(self, value: dict[str, Any]) -> None: ...

    def _moved(self, found: Any, what: str, value: dict[str, Any]) -> None:
        self._session.commit()
        if found is None:
            raise Overtaken(f"the export of {what} was overtaken and begins again")
        self.value = value


class JobPosition(Position):
    """The MLflow watermark of one job."""

    def __init__(self, session: Session, job_id: UUID, value: dict[str, Any]) -> None:
        super().__init__(session, value)
        self._job_id = job_id

    def complete(self, *without: str) -> None:
        """All is there; `without`: entries that are done with. Raises as `keep` does."""
        self._move({key: value for key, value in self.value.items() if key not in without}, complete=True)

    def _move(self, value: dict[str, Any], complete: bool = False) -> None:
        moved = self._session.scalar(
            update(Watermark)
            .where(
                Watermark.job_id == self._job_id,
                Watermark.target == MLFLOW,
                ~Watermark.complete,
                Watermark.position == self.value,
            )
            .values(position=value, complete=complete, updated_at=func.clock_timestamp())
            .returning(Watermark.job_id)
            .execution_options(synchronize_session=False)
        )
        self._moved(moved, f"job {self._job_id}", value)


class ExperimentPosition(Position):
    """What the run of an experiment is known to say."""

    def __init__(self, session: Session, experiment_id: UUID, value: dict[str, Any]) -> None:
        super().__init__(session, value)
        self._experiment_id = experiment_id

    def _move(self, value: dict[str, Any]) -> None:
        moved = self._session.scalar(
            update(Experiment)
            .where(Experiment.id == self._experiment_id, Experiment.mlflow_told == self.value)
            .values(mlflow_told=value)
            .returning(Experiment.id)
            .execution_options(synchronize_session=False)
        )
        self._moved(moved, f"experiment {self._experiment_id}", value)
