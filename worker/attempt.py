"""One attempt from accept to end. Runs in a thread of its own, which also is the parent of the ranks."""

from __future__ import annotations

import logging
import os
import signal
import sys
import time
from collections.abc import Callable, Sequence
from typing import TypeVar

from sqlalchemy import select
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import Session, sessionmaker

from barlow_lab import environment
from barlow_lab.disk import write_atomic
from barlow_lab.run_folder import CONTROL, INPUTS, JOURNAL, LOG, OUTCOME, SPEC, attempt_folder, run_folder
from barlow_lab.specs import canonical_json, open_stored
from service import marks
from service.completion import STOPPED_BY, Completion, Ending, read_outcome
from service.database.away import is_away
from service.database.tables import Attempt, Job, Slot
from service.ledger import attempts
from service.ledger.states import AttemptOutcome
from service.settings import Settings
from worker import clock, devices, inputs
from worker.attempt_outcome import ending
from worker.environment import passed_on
from worker.file_work import FileWork
from worker.lease import Lease
from worker.log_text import first_line
from worker.process import Ranks, end_marked, mark_for
from worker.recorder.loops import Recorder
from worker.stalls import StallDetector
from worker.stopping import StopLadder

LOOK_SECONDS = 0.2
PEER_SECONDS = 5.0
"""What is left to the other ranks when one died without a word."""
RETRY_SECONDS = 1.0
NO_INPUTS = (
    "no progress for {:g} s before the trainer was started: a disk with its data set, its backbone or the runs does "
    "not answer; look at the volumes of this host"
)
CONCLUDE_SECONDS = 60.0
"""How long the end of an attempt may stand still, however short `stall_seconds`: a busy database is no stall."""
NO_END = (
    "no progress for {:g} s after the trainer had ended: the disk with the runs does not answer; look at the volumes "
    "of this host"
)

log = logging.getLogger(__name__)
T = TypeVar("T")
Tick = Callable[[], None]


class _Ghost(Exception):
    """The attempt is not ours any more: stop what runs, change nothing."""


class _Standstill(Exception):
    """The files of the run do not answer any more; `end` is what there is to tell without them."""

    def __init__(self, end: Ending) -> None:
        super().__init__(end.message)
        self.end = end


class AttemptRun:
    """One accepted attempt on this node."""

    def __init__(
        self,
        attempt: Attempt,
        *,
        sessions: sessionmaker[Session],
        settings: Settings,
        recorder: Recorder,
        threads_per_rank: int,
        sent: float,
    ) -> None:
        """`sent`: when the accepting request was sent, by worker.clock."""
        self._attempt = attempt
        self._sessions = sessions
        self._settings = settings
        self._recorder = recorder
        self._completion = Completion(settings.runs_dir, backoff_seconds=settings.retry_backoff_seconds)
        self._threads_per_rank = threads_per_rank
        self._run_folder = run_folder(settings.runs_dir, attempt.job_id)
        self._folder = attempt_folder(self._run_folder, attempt.number)
        self._alive = self._folder / "alive"
        self._log = self._folder / LOG
        self._actor = f"node:{attempt.node}"
        self._lease = Lease(sessions, settings, attempt.id, attempt.token, sent=sent, alive=self._alive)
        self._patience = CONCLUDE_SECONDS
        self._draining = False
        self._abandoned = False
        self._vacated = True

    def drain(self) -> None:
        """Have the trainer write a checkpoint and leave; the job is queued again."""
        self._draining = True

    def stop_requested(self) -> None:
        """Somebody asked for a stop: have the ledger say what for."""
        self._lease.renew_now()

    def abandon(self) -> None:
        """Give up telling the database the end: the lease will run out."""
        self._abandoned = True

    def run(self) -> None:
        """Run the attempt to its end; never raises."""
        log.info("attempt %s of job %s begins", self._attempt.number, self._attempt.job_id)
        try:
            try:
                end = self._conclude(self._end_of_ranks())
            except _Standstill as standstill:
                end = standstill.end
                self._until_answered(lambda: self._end(end, look=False))
            log.info("attempt %s of job %s ended: %s, %s", self._attempt.number, self._attempt.job_id, *_words(end))
        except _Ghost:
            log.warning("attempt %s of job %s is not ours any more", self._attempt.number, self._attempt.job_id)
        except Exception:
            log.exception("attempt %s of job %s failed in the worker", self._attempt.number, self._attempt.job_id)
        finally:
            self._lease.end()

    def _end_of_ranks(self) -> Ending:
        try:
            # The folder fails on a volume that is full or cannot be written: that is an end, too.
            self._folder.mkdir(parents=True, exist_ok=True)
            self._lease.start()
            return self._run_ranks()
        except inputs.BadInput as error:
            return Ending(AttemptOutcome.BAD_DATA, str(error))
        except (_Ghost, _Standstill):
            raise
        except Exception as error:
            log.exception("attempt %s of job %s cannot be run", self._attempt.number, self._attempt.job_id)
            return Ending(AttemptOutcome.CRASHED, f"the worker could not run it: {error}")

    def _run_ranks(self) -> Ending:
        job, slots, wanted = self._until_answered(self._look_up)
        if (end := self._prepare(job, wanted)) is not None:
            return end
        command = [sys.executable, "-P", "-m", "trainer", str(self._run_folder / SPEC)]
        command += ["--run-dir", str(self._run_folder), "--attempt", str(self._attempt.number)]
        mark = mark_for(self._attempt.id, self._attempt.node)
        ranks = Ranks(command, [self._environment(rank, slots) for rank in range(len(slots))], self._log, mark)
        try:
            self._lease.running()
            stall_seconds = open_stored(job.spec).run.stall_seconds
            ladder = StopLadder(ranks, self._folder / CONTROL)
            self._watch(ranks, ladder, stall_seconds)
        finally:
            statuses = ranks.close()
            self._vacated = end_marked(self._attempt.id) and _answer(slots)  # else quarantined
        self._patience = max(stall_seconds, CONCLUDE_SECONDS)
        outcome = self._watched(lambda _: read_outcome(self._folder, self._attempt.token))
        why = ladder.why or ("lease" if self._lease.lapsed else None)
        return ending(outcome, statuses, why, signalled=ladder.signalled, stall_seconds=stall_seconds)

    def _look_up(self) -> tuple[Job, Sequence[Slot], inputs.Wanted]:
        with self._sessions() as session:
            job = session.get_one(Job, self._attempt.job_id)
            slots = session.scalars(select(Slot).where(Slot.attempt_id == self._attempt.id).order_by(Slot.index)).all()
            return job, slots, inputs.look_up(session, job, self._settings)

    def _prepare(self, job: Job, wanted: inputs.Wanted) -> Ending | None:
        """Write what the ranks read first. It takes long where files are large, or their disk does not answer: the end
        of an attempt that was stopped meanwhile, stands still, or is not ours any more; None: it is to be started."""

        def write(tick: Callable[[], None]) -> None:
            resolved = wanted.resolve(tick)
            write_atomic(self._run_folder / SPEC, canonical_json(job.spec))
            write_atomic(self._folder / INPUTS, canonical_json(resolved))

        stall_seconds = open_stored(job.spec).run.stall_seconds
        preparation = FileWork(write, stall_seconds, f"inputs-{self._attempt.id}")
        try:
            while True:
                finished = preparation.wait(LOOK_SECONDS)
                if self._lease.ghost:
                    raise _Ghost
                drain, late = "drain" if self._draining else None, "lease" if self._lease.left() < 0 else None
                for reason in (self._lease.stop, drain, late):
                    if reason is not None:
                        return Ending(*STOPPED_BY[reason])
                if finished:
                    preparation.result()
                    return None
                if preparation.stalled():
                    return Ending(AttemptOutcome.STALLED, NO_INPUTS.format(stall_seconds))
        finally:
            preparation.give_up()

    def _environment(self, rank: int, slots: Sequence[Slot]) -> dict[str, str]:
        slot = slots[rank]
        return passed_on(self._settings) | {
            **({environment.HIDE: "1"} if marks.sees_hidden() else {}),
            environment.PARENT_PID: str(os.getpid()),
            environment.ATTEMPT_TOKEN: str(self._attempt.token),
            environment.ALIVE_FILE: str(self._alive),
            environment.ALIVE_SECONDS: str(self._lease.alive_seconds),
            environment.RENDEZVOUS_FILE: str(self._folder / "rendezvous"),
            "RANK": str(rank),
            "LOCAL_RANK": str(rank),
            "WORLD_SIZE": str(len(slots)),
            "LOCAL_WORLD_SIZE": str(len(slots)),
            # Its own GPU alone: no rank can leave a context, or a job's tensors, on another one's.
            "CUDA_VISIBLE_DEVICES": slot.device_uuid if slot.kind == "cuda" else "",
            "OMP_NUM_THREADS": str(self._threads_per_rank),
        }

    def _watch(self, ranks: Ranks, ladder: StopLadder, stall_seconds: float) -> None:
        """Obey stop requests, the lease and the clock of progress until every rank is gone."""
        detector = StallDetector(self._folder / JOURNAL, stall_seconds)
        first_death: float | None = None
        grace = self._settings.stop_grace_seconds
        while None in (statuses := ranks.statuses()):
            if self._lease.ghost:
                ranks.signal(signal.SIGKILL)
                raise _Ghost
            if self._lease.stop is not None:
                self._ask(ladder, self._lease.stop, grace, 2 * grace)
            if self._draining:
                self._ask(ladder, "drain", grace, 2 * grace)
            if self._lease.left() < 0:
                self._ask(ladder, "lease", self._lease.margin * 0.4, self._lease.margin * 0.8)
            if detector.stalled():
                self._lease.stopping("stall")
                ladder.end_stalled()
            ladder.advance()
            if any(status is not None for status in statuses):
                first_death = first_death or clock.now()
                said = (self._folder / OUTCOME).exists()
                if clock.now() - first_death > (grace if said else PEER_SECONDS):
                    ranks.signal(signal.SIGKILL)
            time.sleep(LOOK_SECONDS)

    def _ask(self, ladder: StopLadder, reason: str, term_after: float, kill_after: float) -> None:
        self._lease.stopping(reason)
        ladder.ask(reason, term_after=term_after, kill_after=kill_after)

    def _conclude(self, end: Ending) -> Ending:
        """Record what was journalled, then publish and end in one transaction that the lease's row fences.

        Returns the end as it was told.

        Raises:
            _Standstill: it does not get on.
        """
        try:
            self._watched(
                lambda tick: self._until_answered(lambda: self._recorder.flush(self._attempt.job_id, tick), tick)
            )
        except (_Ghost, _Standstill):
            raise
        except Exception:
            # A line that cannot be recorded must not hold the job; the recorder goes on complaining about it.
            log.exception("job %s is not recorded to its end", self._attempt.job_id)
        try:
            self._watched(lambda tick: self._until_answered(lambda: self._end(end, tick), tick))
        except (_Ghost, _Standstill):
            raise
        except Exception as error:
            # Left to its lease, the job would run again uncounted, to fail here for ever.
            log.exception("the end of attempt %s of job %s fails", self._attempt.number, self._attempt.job_id)
            end = Ending(AttemptOutcome.CRASHED, f"the worker could not conclude it: {error}")
            self._watched(lambda tick: self._until_answered(lambda: self._end(end, tick), tick))
        return end

    def _watched(self, work: Callable[[Tick], T]) -> T:
        """What `work` gives, which reads and writes what the ranks have left.

        Raises:
            _Standstill: no piece of it is done for too long: as long as ranks may stand still, or after a stop request
                as long as they have until they are killed.
        """
        conclusion = FileWork(work, self._patience, f"end-{self._attempt.id}")
        try:
            while not conclusion.wait(LOOK_SECONDS):
                stop = self._lease.stop or ("drain" if self._draining else None)
                if conclusion.stalled():
                    raise _Standstill(Ending(AttemptOutcome.STALLED, NO_END.format(self._patience)))
                if stop is not None and conclusion.stalled(2 * self._settings.stop_grace_seconds):
                    raise _Standstill(Ending(*STOPPED_BY[stop]))
            return conclusion.result()
        finally:
            conclusion.give_up()

    def _end(self, end: Ending, tick: Tick = lambda: None, *, look: bool = True) -> None:
        lease_seconds, token = self._settings.lease_seconds, self._attempt.token
        with self._sessions.begin() as session:
            # Who took it from us said `lost` too: that is not our end told twice.
            lost = end.outcome is AttemptOutcome.LOST
            if lost and attempts.renew(session, self._attempt.id, token, lease_seconds=lease_seconds) is None:
                raise _Ghost
            if not self._completion.conclude(
                session, self._attempt, end, actor=self._actor, vacated=self._vacated, tick=tick, look=look
            ):
                raise _Ghost

    def _until_answered(self, ask: Callable[[], T], tick: Tick = lambda: None) -> T:
        """What `ask` returns, asked again for as long as the database does not answer; `tick` is called meanwhile."""
        while True:
            try:
                return ask()
            except SQLAlchemyError as error:
                if not is_away(error):
                    raise
                if self._lease.ghost or self._abandoned:
                    raise _Ghost from error
                log.warning("attempt %s waits for the database: %s", self._attempt.id, first_line(error))
                tick()
                time.sleep(RETRY_SECONDS)


def _answer(slots: Sequence[Slot]) -> bool:
    """Whether the GPUs of the slots do: one that fell off the bus would fail a job after the other."""
    gpus = {slot.device_uuid for slot in slots if slot.kind == "cuda"}
    silent = gpus - devices.used_bytes(gpus).keys() if gpus else set()
    for uuid in silent:
        log.warning("GPU %s does not answer: its slot takes no job until it does", uuid)
    return not silent


def _words(end: Ending) -> tuple[str, str]:
    return str(end.outcome), end.message
