"""Deleting the checkpoints of a run by hand. Under a worker the run database owns that, and no trainer deletes."""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

from barlow_lab.journal import JournalEvent, read_events
from barlow_lab.run_folder import JOURNAL, attempt_folders
from barlow_lab.specs.common import CheckpointSpec
from barlow_lab.specs.retention import CheckpointPlace, Recorded, retained, superfluous


class Retention:
    """What is on the disk and what the journals say of it. A kill at any moment is made good by `finish`."""

    def __init__(self, run_folder: Path) -> None:
        self._run_folder = run_folder
        self._recorded: list[Recorded] | None = None

    def finish(self) -> None:
        """Delete what a killed process left half written or half deleted, or named in its journal as deleted."""
        there = _on_disk(self._run_folder).values()
        for attempt in attempt_folders(self._run_folder).values():
            for leftover in attempt.glob("checkpoints/.step-*"):
                shutil.rmtree(leftover)
            named = [name for line in _lines(attempt) for name in line.data.get("deleted", [])]
            for folder in {Path(os.path.normpath(attempt / name)) for name in named}.intersection(there):
                delete(folder)

    def stale(self, new: Recorded, policy: CheckpointSpec) -> list[Path]:
        """Folders that `policy` does not keep now that `new` is written."""
        if self._recorded is None:
            self._recorded = _recorded(self._run_folder)
        self._recorded.append(new)
        there, places = _on_disk(self._run_folder), {one.place for one in self._recorded}
        kept = retained(self._recorded, policy)
        going = {*superfluous(there.keys() - places, self._recorded), *(places - kept.keys())}
        self._recorded = [one for one in self._recorded if one.place in kept]
        return [folder for place, folder in sorted(there.items()) if place in going]


def delete(folder: Path) -> None:
    """Delete a checkpoint. It is renamed first: what is half deleted is no checkpoint."""
    going = folder.with_name(f".{folder.name}.deleted")
    shutil.rmtree(going, ignore_errors=True)
    folder.rename(going)
    shutil.rmtree(going)


def _on_disk(run_folder: Path) -> dict[CheckpointPlace, Path]:
    return {
        CheckpointPlace(number, int(step)): folder
        for number, attempt in attempt_folders(run_folder).items()
        for folder in attempt.glob("checkpoints/step-*")
        if (step := folder.name.removeprefix("step-")).isdecimal()
    }


def _recorded(run_folder: Path) -> list[Recorded]:
    """The checkpoints of all attempts that are there, each attempt's up to its successor's resume step."""
    found: dict[CheckpointPlace, Recorded] = {}
    for number, attempt in sorted(attempt_folders(run_folder).items()):
        for line in _lines(attempt):
            if line.kind == "started":
                found = {place: one for place, one in found.items() if place.step <= line.data["resume_step"]}
            elif line.kind == "checkpoint" and line.data["checkpoint"] != "backbone":
                place = CheckpointPlace(number, line.step or 0)
                found[place] = Recorded(place, line.data["checkpoint"] == "milestone", line.data.get("score"))
    return [found[place] for place in found.keys() & _on_disk(run_folder).keys()]


def _lines(attempt: Path) -> Iterator[JournalEvent]:
    """The journal up to a damaged line, if there is one: the good ones before it count."""
    with contextlib.suppress(ValueError):
        yield from read_events(attempt / JOURNAL)
