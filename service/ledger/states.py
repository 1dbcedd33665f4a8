"""What states jobs and attempts have, and every legal move between them. Nothing else moves a job or an attempt."""

from __future__ import annotations

from enum import StrEnum


class JobState(StrEnum):
    """Where a job is. The last three are final."""

    WAITING = "waiting"  # for another job
    QUEUED = "queued"
    RUNNING = "running"
    PAUSED = "paused"  # until a user resumes it; it holds no slots
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"

    @property
    def terminal(self) -> bool:
        """Whether the job will never move again."""
        return self in (JobState.SUCCEEDED, JobState.FAILED, JobState.CANCELLED)

    @property
    def words(self) -> str:
        """The state as the end of a sentence: "job x has failed"."""
        if not self.terminal:
            return f"is {self}"
        return "was cancelled" if self is JobState.CANCELLED else f"has {self}"


class AttemptState(StrEnum):
    """Where an attempt is: `placed` by the scheduler, the rest by the worker that accepted it."""

    PLACED = "placed"
    STARTING = "starting"
    RUNNING = "running"
    STOPPING = "stopping"
    ENDED = "ended"


class AttemptOutcome(StrEnum):
    """How an attempt ended."""

    OK = "ok"
    STOPPED = "stopped"  # it obeyed a stop request
    BAD_SPEC = "bad_spec"
    BAD_DATA = "bad_data"
    OUT_OF_MEMORY = "out_of_memory"
    DIVERGED = "diverged"
    CRASHED = "crashed"
    STALLED = "stalled"
    LOST = "lost"  # its worker did not renew the lease, or never accepted
    DRAINED = "drained"  # its worker was told to go


class JobEvent(StrEnum):
    """What can move a job."""

    RELEASED = "released"
    STARTED = "started"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    RETRIED = "retried"  # counted against run.max_restarts
    REQUEUED = "requeued"  # not counted: the job did nothing wrong
    PAUSED = "paused"
    RESUMED = "resumed"
    CANCELLED = "cancelled"


class AttemptEvent(StrEnum):
    """What can move an attempt."""

    ACCEPTED = "attempt_accepted"
    RUNNING = "attempt_running"
    STOPPING = "attempt_stopping"
    ENDED = "attempt_ended"
    RETURNED = "attempt_returned"  # ended before anything ran


JOB_MOVES: dict[tuple[JobState, JobEvent], JobState] = {
    (JobState.WAITING, JobEvent.RELEASED): JobState.QUEUED,
    (JobState.WAITING, JobEvent.PAUSED): JobState.PAUSED,
    (JobState.WAITING, JobEvent.CANCELLED): JobState.CANCELLED,
    (JobState.QUEUED, JobEvent.STARTED): JobState.RUNNING,
    (JobState.QUEUED, JobEvent.PAUSED): JobState.PAUSED,
    (JobState.QUEUED, JobEvent.CANCELLED): JobState.CANCELLED,
    (JobState.RUNNING, JobEvent.SUCCEEDED): JobState.SUCCEEDED,
    (JobState.RUNNING, JobEvent.FAILED): JobState.FAILED,
    (JobState.RUNNING, JobEvent.RETRIED): JobState.QUEUED,
    (JobState.RUNNING, JobEvent.REQUEUED): JobState.QUEUED,
    (JobState.RUNNING, JobEvent.PAUSED): JobState.PAUSED,
    (JobState.RUNNING, JobEvent.CANCELLED): JobState.CANCELLED,
    # It waits again for what it waited for, and is released at once if all of that has succeeded meanwhile.
    (JobState.PAUSED, JobEvent.RESUMED): JobState.WAITING,
    (JobState.PAUSED, JobEvent.CANCELLED): JobState.CANCELLED,
}

ATTEMPT_MOVES: dict[tuple[AttemptState, AttemptEvent], AttemptState] = {
    (AttemptState.PLACED, AttemptEvent.ACCEPTED): AttemptState.STARTING,
    (AttemptState.PLACED, AttemptEvent.RETURNED): AttemptState.ENDED,
    (AttemptState.STARTING, AttemptEvent.RUNNING): AttemptState.RUNNING,
    (AttemptState.STARTING, AttemptEvent.STOPPING): AttemptState.STOPPING,
    (AttemptState.STARTING, AttemptEvent.ENDED): AttemptState.ENDED,
    (AttemptState.RUNNING, AttemptEvent.STOPPING): AttemptState.STOPPING,
    (AttemptState.RUNNING, AttemptEvent.ENDED): AttemptState.ENDED,
    (AttemptState.STOPPING, AttemptEvent.ENDED): AttemptState.ENDED,
}


class FollowUp(StrEnum):
    """What an outcome means for the job."""

    SUCCEED = "succeed"
    FAIL = "fail"
    RETRY = "retry"  # at most run.max_restarts times, after a growing wait
    RETRY_ONCE = "retry_once"  # as RETRY, but only once for this outcome
    REQUEUE = "requeue"  # at once, as often as it takes


FOLLOW_UPS: dict[AttemptOutcome, FollowUp] = {
    AttemptOutcome.OK: FollowUp.SUCCEED,
    AttemptOutcome.STOPPED: FollowUp.REQUEUE,
    AttemptOutcome.BAD_SPEC: FollowUp.FAIL,
    AttemptOutcome.BAD_DATA: FollowUp.FAIL,
    AttemptOutcome.OUT_OF_MEMORY: FollowUp.FAIL,
    AttemptOutcome.DIVERGED: FollowUp.FAIL,
    AttemptOutcome.CRASHED: FollowUp.RETRY,
    AttemptOutcome.STALLED: FollowUp.RETRY_ONCE,
    AttemptOutcome.LOST: FollowUp.REQUEUE,
    AttemptOutcome.DRAINED: FollowUp.REQUEUE,
}
"""A job whose cancel was requested is cancelled instead of run again, and one whose pause was requested is paused
instead; success and failure stand."""


class Verb(StrEnum):
    """What a user can ask of a job."""

    CANCEL = "cancel"
    PAUSE = "pause"
    RESUME = "resume"
    RETRY = "retry"


VERBS: dict[JobState, frozenset[Verb]] = {
    JobState.WAITING: frozenset({Verb.CANCEL, Verb.PAUSE}),
    JobState.QUEUED: frozenset({Verb.CANCEL, Verb.PAUSE}),
    JobState.RUNNING: frozenset({Verb.CANCEL, Verb.PAUSE}),
    JobState.PAUSED: frozenset({Verb.CANCEL, Verb.RESUME}),
    JobState.SUCCEEDED: frozenset(),
    JobState.FAILED: frozenset({Verb.RETRY}),
    JobState.CANCELLED: frozenset({Verb.RETRY}),
}
"""What may be asked of a job in each state. A running job that is told to stop may be asked for less, or have its
pause taken back: see `legal_verbs`."""


def legal_verbs(state: JobState, *, cancelling: bool, pausing: bool) -> frozenset[Verb]:
    """The verbs that are legal now; `cancelling`, `pausing`: a running job's worker is told to bring it to that."""
    if state is JobState.RUNNING and cancelling:
        return frozenset({Verb.CANCEL})
    if state is JobState.RUNNING and pausing:
        return frozenset({Verb.CANCEL, Verb.PAUSE, Verb.RESUME})
    return VERBS[state]
