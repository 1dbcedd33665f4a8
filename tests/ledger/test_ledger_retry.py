"""A retry is a new job in the place of one that has ended."""

from __future__ import annotations

import pytest
from lab import Lab

from service.ledger.errors import DependencyFailed
from service.ledger.states import AttemptOutcome, JobState


def test_a_retry_is_a_new_job_of_the_same_science(lab: Lab) -> None:
    lab.node()
    old = lab.submit("net", priority=3, labels={"a": "b"})
    lab.run(old, AttemptOutcome.DIVERGED)
    before = lab.job(old)
    new = lab.job(lab.retry(old, actor="alice"))
    assert (new.name, new.retry_of, new.state) == ("net-retry1", old, JobState.QUEUED)
    assert (new.spec, new.spec_digest, new.labels, new.priority) == (
        before.spec, before.spec_digest, before.labels, before.priority,
    )  # fmt: skip
    assert lab.events(new.id)[0].payload["retry_of"] == str(old)
    assert lab.events(new.id)[0].actor == "alice"
    assert lab.job(old).event_seq == before.event_seq  # terminal is final
    assert lab.run(new.id, AttemptOutcome.OK).state == JobState.SUCCEEDED


def test_retries_of_retries_and_of_the_same_job_get_names_of_their_own(lab: Lab) -> None:
    lab.node()
    old = lab.submit("n" * 100)
    lab.cancel(old)
    first = lab.retry(old)
    second = lab.retry(old)
    lab.cancel(first)
    third = lab.retry(first)
    names = [lab.job(job_id).name for job_id in (first, second, third)]
    assert names == [f"{'n' * 93}-retry{number}" for number in (1, 2, 3)]


def test_a_pipeline_is_retried_from_where_it_broke(lab: Lab) -> None:
    lab.node()
    pretrain = lab.submit("pretrain")
    judge = lab.submit("judge", after=[pretrain], source=pretrain)
    lab.run(pretrain, AttemptOutcome.BAD_DATA)
    assert lab.job(judge).state == JobState.CANCELLED
    with pytest.raises(DependencyFailed, match=r"pretrain .* has failed; retry it"):
        lab.retry(judge)
    again = lab.retry(pretrain)
    new = lab.job(lab.retry(judge))
    assert (new.after, new.source_job_id, new.state) == ([again], again, JobState.WAITING)
    lab.run(again, AttemptOutcome.OK)
    assert lab.job(new.id).state == JobState.QUEUED


def test_a_retry_whose_dependencies_have_succeeded_is_queued(lab: Lab) -> None:
    lab.node()
    pretrain = lab.submit()
    judge = lab.submit(after=[pretrain], source=pretrain)
    lab.run(pretrain, AttemptOutcome.OK)
    lab.run(judge, AttemptOutcome.BAD_DATA)
    assert lab.job(lab.retry(judge)).state == JobState.QUEUED
