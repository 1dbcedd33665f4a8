"""The MLflow watermark of one job: what MLflow is known to have."""

from __future__ import annotations

from typing import Any
from uuid import UUID

from sqlalchemy import func, update
from sqlalchemy.orm import Session

from service.database.tables import Watermark
from service.recording import MLFLOW


class Overtaken(Exception):
    """Somebody else moved the watermark: a rebuild was asked for, or another exporter is at the job."""


class Position:
    """Moves only from where it was read, so whoever was overtaken meanwhile changes nothing."""

    def __init__(self, session: Session, job_id: UUID, value: dict[str, Any]) -> None:
        self._session = session
        self._job_id = job_id
        self.value = value

    def keep(self, **changes: Any) -> None:
        """Add to what MLflow has.

        Raises:
            Overtaken: the watermark is no longer what it was; what was sent meanwhile counts for nothing.
        """
        self._move({**self.value, **changes})

    def restart(self, **value: Any) -> None:
        """Begin again: MLflow has nothing but this. Raises as `keep` does."""
        self._move(value)

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
        self._session.commit()
        if moved is None:
            raise Overtaken(f"the export of job {self._job_id} was overtaken and begins again")
        self.value = value
