"""The road of a job: submitted, placed, accepted, renewed, ended; and each way an attempt can end."""

from __future__ import annotations

from lab import LEASE, Lab

from service.ledger import attempts
from service.ledger.states import JobState, Outcome


def test_a_job_goes_from_submit_to_success(lab: Lab) -> None:
    lab.node()
    job_id = lab.submit("first")
    attempt = lab.start(job_id)
    assert (lab.job(job_id).state, lab.job(job_id).reason_code) == ("running", None)
    with lab.sessions.begin() as session:
        assert attempts.running(session, attempt.id, attempt.token)
        renewal = attempts.renew(session, attempt.id, attempt.token, lease_seconds=LEASE)
    assert renewal is not None
    assert renewal.stop is None
    assert lab.end(attempt, Outcome.OK, result={"knn_top1": 0.9})
    job = lab.job(job_id)
    assert (job.state, job.result, job.error) == (JobState.SUCCEEDED, {"knn_top1": 0.9}, None)
    assert lab.kinds(job_id) == [
        "submitted", "attempt_placed", "attempt_accepted", "started", "attempt_running", "attempt_ended", "succeeded",
    ]  # fmt: skip
    assert all(slot.attempt_id is None for slot in lab.slots())
