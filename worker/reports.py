"""What a host finds out about itself while it works, told to the run database."""

from __future__ import annotations

import logging
import threading
import uuid
from collections.abc import Callable
from typing import Any

from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import Session, sessionmaker

from barlow_lab.specs.backbone_files import BackboneFiles
from service.ledger import nodes
from worker.data_sets import Entries
from worker.log_text import first_line

RETRY_SECONDS = 2.0

log = logging.getLogger(__name__)


class Reports:
    """Of the worker process `instance` that has the node's name. Each waits for a database that is away, for nobody
    else will say it, until the worker is `leaving`."""

    def __init__(
        self, sessions: sessionmaker[Session], name: str, instance: uuid.UUID, leaving: Callable[[], bool]
    ) -> None:
        self._sessions = sessions
        self._name = name
        self._instance = instance
        self._leaving = leaving

    def data_sets(self, entries: Entries) -> None:
        """What its data sets hold."""
        self._say(lambda session: nodes.report_data_sets(session, self._name, self._instance, as_row(entries)))

    def backbones(self, found: BackboneFiles) -> None:
        """Which backbones it has."""
        self._say(lambda session: nodes.report_backbones(session, self._name, self._instance, found.model_dump()))

    def _say(self, report: Callable[[Session], bool]) -> None:
        pause = threading.Event()
        while not self._leaving():
            try:
                with self._sessions.begin() as session:
                    report(session)
                return
            except SQLAlchemyError as error:
                log.warning("what this host has cannot be reported yet: %s", first_line(error))
            pause.wait(RETRY_SECONDS)


def as_row(entries: Entries) -> dict[str, Any]:
    """Data sets as the run database holds them."""
    return {name: entry.model_dump() for name, entry in entries.items()}
