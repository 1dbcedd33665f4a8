"""Which backbones this host has below BARLOW_BACKBONES_DIR: looked at every few seconds, reported when they change, so
that a submit can refuse what no host has."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from pathlib import Path

from barlow_lab.specs.backbone_files import BackboneFiles, backbones_below

LOOK_SECONDS = 5.0
END_SECONDS = 5.0

log = logging.getLogger(__name__)


class BackboneReport:
    """Looks in a thread of its own: a disk that does not answer keeps nobody else waiting, and what is not known is
    refused by nobody."""

    def __init__(self, root: Path | None, report: Callable[[BackboneFiles], None]) -> None:
        """`report` is called from the thread, with what is there at first and after each change."""
        self._root = root
        self._report = report
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, name="backbones", daemon=True)

    def start(self) -> None:
        """Begin to look."""
        self._thread.start()

    def stop(self) -> None:
        """Look no further."""
        self._stopped.set()
        if self._thread.is_alive():
            self._thread.join(END_SECONDS)

    def _run(self) -> None:
        told: BackboneFiles | None = None
        while not self._stopped.is_set():
            found = self._look()
            if found != told:
                self._report(found)
                told = found
            self._stopped.wait(LOOK_SECONDS)

    def _look(self) -> BackboneFiles:
        if self._root is None:
            return BackboneFiles(folder=False)
        try:
            return backbones_below(self._root)
        except (FileNotFoundError, NotADirectoryError):
            return BackboneFiles(folder=False)
        except OSError as error:
            log.warning("the backbones in %s cannot be listed: %s", self._root, error.strerror)
            return BackboneFiles(complete=False)
