"""A volume that runs full: said once, and old checkpoints of finished jobs give way in their order."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace

import pytest
from lab import Lab
from recorded_runs import RecordedRun, judge
from sqlalchemy import update

from service.database.tables import Checkpoint, Job
from service.ledger.states import AttemptOutcome
from service.settings import Settings
from worker import disk_room
from worker.disk_room import DiskRoom
from worker.retention import Janitor

MEGABYTE = 1_000_000
VOLUME = 100 * MEGABYTE


class Volume:
    """A disk of 100 MB that holds nothing but the state files of the runs."""

    def __init__(self, runs_dir: Path) -> None:
        self.runs_dir = runs_dir
        self.others = 0

    def free(self) -> int:
        return VOLUME - self.others - sum(file.stat().st_size for file in self.runs_dir.rglob("state.pt"))

    def leave(self, megabytes: float) -> None:
        """Have others fill it up to this."""
        self.others += self.free() - int(megabytes * MEGABYTE)


@pytest.fixture
def lab(database: Settings) -> Iterator[Lab]:
    lab = Lab(database.model_copy(update={"node_name": "gpu-1", "disk_reserve_bytes": 20 * MEGABYTE}))
    lab.node(slots=8)
    yield lab
    lab.check()
    lab.engine.dispose()


@pytest.fixture
def volume(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> Volume:
    volume = Volume(lab.settings.runs_dir)
    monkeypatch.setattr(disk_room.shutil, "disk_usage", lambda _: SimpleNamespace(free=volume.free()))
    return volume


def _run(
    lab: Lab, name: str, days_ago: int, outcome: AttemptOutcome | None, steps: int = 3, **policy: object
) -> RecordedRun:
    """A job that ended with `steps` checkpoints of 2 MB, written that many days ago; None: it still runs."""
    run = RecordedRun(lab, name, **{"keep_last": 9, **policy})
    for step in range(1, steps + 1):
        run.write(step, score=float(step), size=2 * MEGABYTE)
    if outcome is AttemptOutcome.OK:
        run.job.succeed()
    elif outcome is not None:
        lab.end(run.job.attempt, outcome)
    run.record()
    if outcome is AttemptOutcome.OK:
        run.publish()
    with lab.sessions.begin() as session:
        at = datetime.now(UTC) - timedelta(days=days_ago)
        session.execute(update(Checkpoint).where(Checkpoint.job_id == run.id).values(created_at=at))
    return run


def test_old_checkpoints_of_finished_jobs_give_way_until_there_is_room(lab: Lab, volume: Volume) -> None:
    failed = _run(lab, "failed", 90, AttemptOutcome.DIVERGED)
    newer = _run(lab, "newer", 10, AttemptOutcome.OK)
    older = _run(lab, "older", 20, AttemptOutcome.OK, best_by="loss")
    judged = _run(lab, "judged", 30, AttemptOutcome.OK)
    judge(lab, judged.id, "step 2")
    running = _run(lab, "running", 40, None)
    room = DiskRoom(lab.settings, lab.sessions)

    def kept() -> list[list[int]]:
        return [[step for _, step in sorted(run.rows())] for run in (judged, older, newer, failed, running)]

    everything = [[1, 2, 3]] * 5
    room.keep()
    assert kept() == everything, "there is room"
    volume.leave(17)  # two checkpoints short
    room.keep()
    assert kept() == [[2], [1, 2, 3], [1, 2, 3], [1, 2, 3], [1, 2, 3]], "the oldest first, not what is judged"
    volume.leave(17)
    room.keep()
    assert kept() == [[2], [1], [1, 2, 3], [1, 2, 3], [1, 2, 3]], "the best one stays"
    volume.leave(1)
    room.keep()
    assert kept() == [[2], [1], [], [3], [1, 2, 3]], "failed ones last, with what a retry starts from; no running one"
    for run in (judged, older, newer, failed, running):
        assert run.steps_on_disk() == [step for _, step in sorted(run.rows())]
    for run in (judged, older, newer):
        assert (run.job.run / "backbone/model.safetensors").exists()


def test_without_its_backbone_published_nothing_of_a_succeeded_job_goes(lab: Lab, volume: Volume) -> None:
    run = _run(lab, "unpublished", 9, AttemptOutcome.OK)
    run.unpublish()
    volume.leave(0)
    DiskRoom(lab.settings, lab.sessions).keep()
    assert sorted(run.rows()) == [(1, 1), (1, 2), (1, 3)]


def test_a_succeeded_evaluation_makes_no_backbone_and_nobody_needs_its_checkpoints(lab: Lab, volume: Volume) -> None:
    succeeded, failed = _run(lab, "judged", 9, AttemptOutcome.OK), _run(lab, "failed", 90, AttemptOutcome.DIVERGED)
    succeeded.unpublish()
    with lab.sessions.begin() as session:
        session.execute(update(Job).values(kind="semi_supervised"))
    volume.leave(0)
    DiskRoom(lab.settings, lab.sessions).keep()
    assert succeeded.steps_on_disk() == []
    assert failed.steps_on_disk() == [3], "what a retry starts from"


def test_every_running_job_of_the_node_hears_of_it_once_until_it_is_over(lab: Lab, volume: Volume) -> None:
    mine = [_run(lab, f"job-{n}", 0, None) for n in range(2)]
    finished = _run(lab, "finished", 0, AttemptOutcome.DIVERGED, steps=1)
    room = DiskRoom(lab.settings, lab.sessions)

    def warnings() -> list[int]:
        runs = [*mine, finished]
        return [sum(event.payload.get("code") == "disk_low" for event in lab.events(run.id)) for run in runs]

    room.keep()
    assert warnings() == [0, 0, 0]
    volume.leave(19)
    for _ in range(3):
        room.keep()
    assert warnings() == [1, 1, 0]
    payload = next(event.payload for event in lab.events(mine[0].id) if event.kind == "warning")
    assert payload["message"].startswith("the disk of the runs is nearly full: ")
    assert payload["reserve_bytes"] == 20 * MEGABYTE

    late = _run(lab, "late", 0, None, steps=1)
    room.keep()
    assert warnings() == [1, 1, 0]
    assert [event.payload["code"] for event in lab.events(late.id) if event.kind == "warning"] == ["disk_low"]

    for megabytes in (21, 19):
        volume.leave(megabytes)
        room.keep()
    assert warnings() == [1, 1, 0], "the same shortage"
    for megabytes in (23, 19):
        volume.leave(megabytes)
        room.keep()
    assert warnings() == [2, 2, 0]


def test_a_job_on_another_node_is_not_told(lab: Lab, volume: Volume) -> None:
    run = _run(lab, "elsewhere", 0, None)
    volume.leave(0)
    other = lab.settings.model_copy(update={"node_name": "gpu-3"})
    DiskRoom(other, lab.sessions).keep()
    assert "warning" not in lab.kinds(run.id)


def test_the_look_of_the_worker_looks_at_the_disk(lab: Lab, volume: Volume) -> None:
    run = _run(lab, "running", 0, None)
    volume.leave(0)
    Janitor(lab.settings, lab.engine).look()
    assert "warning" in lab.kinds(run.id)
