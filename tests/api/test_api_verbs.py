"""Pause, resume, retry, the release of a slot: what they answer, what they refuse, and that a repeat does no harm."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import pytest
from api_kit import KNN, PRETRAIN
from lab import Lab
from sqlalchemy.orm import Session

from service.database.tables import Slot, Watermark
from service.ledger.states import AttemptOutcome
from service.settings import Settings


@pytest.fixture
def lab(database: Settings) -> Iterator[Lab]:
    """The ledger under the API; what must always hold is checked at the end."""
    lab = Lab(database)
    yield lab
    lab.check()
    lab.engine.dispose()


@pytest.fixture
def failed(lab: Lab) -> str:
    """A job that has failed."""
    lab.node()
    job_id = lab.submit("broken")
    assert lab.run(job_id, AttemptOutcome.DIVERGED, "not finite").state == "failed"
    return str(job_id)


def ask(api: httpx.Client, job_id: Any, verb: str, **headers: str) -> httpx.Response:
    return api.post(f"/jobs/{job_id}:{verb}", headers=headers)


def refused(answer: httpx.Response) -> tuple[str, list[str]]:
    """State and legal verbs of a refusal."""
    assert answer.status_code == 409, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    body = answer.json()
    assert body["type"] == "/problems/illegal-verb"
    return body["state"], body["legal_verbs"]


def test_a_queued_job_is_paused_and_resumed(api: httpx.Client, lab: Lab) -> None:
    job_id = lab.submit("queued")
    assert api.get(f"/jobs/{job_id}").json()["verbs"] == ["cancel", "pause"]
    paused = ask(api, job_id, "pause")
    assert (paused.status_code, paused.json()["state"]) == (202, "paused")
    assert paused.json()["verbs"] == ["cancel", "resume"]
    assert paused.json()["reason"]["words"] == "paused by anonymous"
    again = ask(api, job_id, "pause")
    assert (again.status_code, again.json()["state"]) == (200, "paused")
    assert lab.kinds(job_id) == ["submitted", "paused"]
    assert refused(ask(api, job_id, "retry")) == ("paused", ["cancel", "resume"])
    resumed = ask(api, job_id, "resume")
    assert (resumed.status_code, resumed.json()["state"]) == (202, "queued")
    assert refused(ask(api, job_id, "resume")) == ("queued", ["cancel", "pause"])


def test_a_running_job_is_told_and_the_pause_can_be_taken_back(api: httpx.Client, lab: Lab) -> None:
    lab.node()
    job_id = lab.submit("runs")
    lab.start(job_id)
    for _ in range(2):
        told = ask(api, job_id, "pause")
        assert (told.status_code, told.json()["state"], told.json()["pause_requested"]) == (202, "running", True)
    assert told.json()["verbs"] == ["cancel", "pause", "resume"]
    back = ask(api, job_id, "resume").json()
    assert (back["state"], back["pause_requested"], back["reason"]) == ("running", False, None)
    assert ask(api, job_id, "cancel").status_code == 202
    assert refused(ask(api, job_id, "pause")) == ("running", ["cancel"])


def test_what_has_ended_takes_no_pause_and_cancel_leaves_it(api: httpx.Client, lab: Lab, failed: str) -> None:
    answer = ask(api, failed, "pause")
    assert refused(answer) == ("failed", ["retry"])
    assert answer.json()["detail"] == "a job that has failed cannot be asked to pause; it allows retry"
    assert refused(ask(api, failed, "resume")) == ("failed", ["retry"])
    before = lab.job(uuid.UUID(failed))
    cancelled = ask(api, failed, "cancel")
    assert (cancelled.status_code, cancelled.json()["state"]) == (200, "failed")
    assert lab.job(uuid.UUID(failed)).event_seq == before.event_seq
    done = lab.submit("done")
    lab.run(done, AttemptOutcome.OK)
    assert refused(ask(api, done, "retry")) == ("succeeded", [])


def test_a_retry_answers_the_new_job_and_links_both_ways(api: httpx.Client, failed: str) -> None:
    answer = ask(api, failed, "retry")
    assert answer.status_code == 202
    new = answer.json()
    assert answer.headers["Location"] == f"/api/v1/jobs/{new['id']}"
    assert new["id"] != failed
    assert (new["name"], new["state"], new["retry_of"]) == ("broken-retry1", "queued", failed)
    assert new["links"]["retry_of"] == f"/api/v1/jobs/{failed}"
    second = ask(api, failed, "retry").json()
    old = api.get(f"/jobs/{failed}").json()
    assert old["retries"] == [new["id"], second["id"]]
    assert (old["state"], old["retry_of"], old["links"]["retry_of"]) == ("failed", None, None)
    listed = {job["id"]: job["retries"] for job in api.get("/jobs").json()["items"]}
    assert listed == {failed: old["retries"], new["id"]: [], second["id"]: []}


def test_a_repeated_retry_with_its_key_makes_one_job(api: httpx.Client, lab: Lab, failed: str) -> None:
    first = ask(api, failed, "retry", **{"Idempotency-Key": "again"})
    assert "Idempotency-Replayed" not in first.headers
    repeated = ask(api, failed, "retry", **{"Idempotency-Key": "again"})
    assert (repeated.status_code, repeated.headers["Idempotency-Replayed"]) == (202, "true")
    assert repeated.headers["Location"] == first.headers["Location"]
    assert len(api.get(f"/jobs/{failed}").json()["retries"]) == 1
    other = lab.submit("other")
    lab.cancel(other)
    reused = ask(api, other, "retry", **{"Idempotency-Key": "again"})
    assert (reused.status_code, reused.json()["type"]) == (422, "/problems/idempotency-key-reused")
    assert ask(api, failed, "retry", **{"Idempotency-Key": "two words"}).status_code == 422


def test_a_retry_that_would_wait_for_a_failed_job_says_what_to_retry_first(
    api: httpx.Client, lab: Lab, failed: str
) -> None:
    waiting = api.post("/jobs?experiment=lab", json={**PRETRAIN, "name": "next"}).json()["id"]
    source = api.post("/jobs?experiment=lab", json={**PRETRAIN, "name": "source"}).json()["id"]
    judged = api.post("/jobs?experiment=lab", json={**KNN, "backbone_from": {"job": "source"}}).json()["id"]
    ask(api, source, "cancel")
    answer = ask(api, judged, "retry")
    assert (answer.status_code, answer.json()["type"]) == (409, "/problems/dependency-failed")
    assert f"job source ({source}) was cancelled; retry it" in answer.json()["detail"]
    retried = ask(api, source, "retry").json()["id"]
    assert ask(api, judged, "retry").json()["source_job"] == retried
    dependant = api.get(f"/jobs/{judged}").json()
    assert dependant["reason"]["words"] == f"cancelled: job source ({source}), which it waited for, was cancelled"
    ask(api, waiting, "cancel")


@pytest.mark.parametrize("verb", ["pause", "resume", "retry", "rebuild-mlflow"])
def test_a_verb_for_nothing_is_404(api: httpx.Client, verb: str) -> None:
    for job_id in ("nonsense", uuid.UUID(int=0)):
        answer = ask(api, job_id, verb)
        assert (answer.status_code, answer.json()["type"]) == (404, "/problems/not-found")


def test_a_quarantined_slot_is_released_by_hand(api: httpx.Client, lab: Lab, session: Session) -> None:
    lab.node(slots=2)
    job_id = lab.submit("lost")
    attempt = lab.start(job_id)
    lab.expire(attempt)
    lab.reap()
    [held] = [slot for slot in lab.slots() if slot.quarantined_at is not None]
    [node] = api.get("/nodes").json()["items"]
    assert (node["draining_at"], node["words"]) == (None, "up")
    shown = {slot["index"]: slot for slot in node["slots"]}
    assert shown[held.index]["words"].startswith("in quarantine since ")
    assert str(job_id) in shown[held.index]["words"]
    assert shown[1 - held.index]["words"] == "free"
    path = f"/nodes/gpu-1/slots/{held.index}:release"
    freed = api.post(path)
    assert (freed.status_code, freed.json()["quarantined_at"], freed.json()["words"]) == (200, None, "free")
    slot = session.get(Slot, ("gpu-1", held.index))
    assert slot is not None
    assert (slot.attempt_id, slot.quarantined_at) == (None, None)
    again = api.post(path)
    assert (again.status_code, again.json()["type"]) == (409, "/problems/slot-not-quarantined")
    for lost in ("/nodes/gpu-1/slots/7:release", "/nodes/nobody/slots/0:release", "/nodes/gpu-1/slots/x:release"):
        assert api.post(lost).status_code == 404


def test_an_mlflow_run_is_rebuilt_once_there_is_one(api: httpx.Client, session: Session, lab: Lab) -> None:
    job_id = lab.submit("recorded")
    nothing = ask(api, job_id, "rebuild-mlflow")
    assert (nothing.status_code, nothing.json()["type"]) == (409, "/problems/nothing-recorded")
    session.add(Watermark(job_id=job_id, target="mlflow", position={}, complete=True))
    session.commit()
    assert ask(api, job_id, "rebuild-mlflow").status_code == 202
    session.expire_all()
    assert not session.get_one(Watermark, (job_id, "mlflow")).complete
    assert lab.kinds(job_id)[-1] == "mlflow_rebuild_requested"


def parallel(count: int, request: Callable[[], httpx.Response]) -> list[httpx.Response]:
    with ThreadPoolExecutor(count) as pool:
        return [future.result() for future in [pool.submit(request) for _ in range(count)]]


@pytest.fixture
def url(server: str) -> str:
    return f"{server}/api/v1"


def answers_of_one(answers: list[httpx.Response], status: int) -> str:
    """The one Location of all that were not answered "still running"; at least one made it, the rest replayed."""
    by_status = {answer.status_code for answer in answers}
    assert by_status <= {status, 409}, by_status
    busy = {answer.json()["type"] for answer in answers if answer.status_code == 409}
    assert busy <= {"/problems/submit-in-progress"}
    made = [answer for answer in answers if answer.status_code == status]
    assert len([answer for answer in made if "Idempotency-Replayed" not in answer.headers]) == 1
    (location,) = {answer.headers["Location"] for answer in made}
    return location


def test_fifty_submits_with_one_key_make_one_job(url: str) -> None:
    def submit() -> httpx.Response:
        return httpx.post(f"{url}/jobs?experiment=fifty", json=PRETRAIN, headers={"Idempotency-Key": "50"}, timeout=60)

    location = answers_of_one(parallel(50, submit), 201)
    replayed = submit()
    assert (replayed.status_code, replayed.headers["Idempotency-Replayed"]) == (201, "true")
    assert replayed.headers["Location"] == location
    [job] = httpx.get(f"{url}/jobs?experiment=fifty").json()["items"]
    assert location.endswith(job["id"])


def test_fifty_cancels_and_fifty_retries_with_one_key(url: str) -> None:
    job_id = httpx.post(f"{url}/jobs?experiment=storm", json=PRETRAIN).json()["id"]
    cancels = parallel(50, lambda: httpx.post(f"{url}/jobs/{job_id}:cancel", timeout=60))
    assert sorted(answer.status_code for answer in cancels) == [200] * 49 + [202]
    assert {answer.json()["state"] for answer in cancels} == {"cancelled"}
    events = httpx.get(f"{url}/jobs/{job_id}/events").json()["items"]
    assert [event["kind"] for event in events] == ["submitted", "cancelled"]

    def retry() -> httpx.Response:
        return httpx.post(f"{url}/jobs/{job_id}:retry", headers={"Idempotency-Key": "r"}, timeout=60)

    location = answers_of_one(parallel(50, retry), 202)
    again = retry()
    assert (again.status_code, again.headers["Location"]) == (202, location)
    assert len(httpx.get(f"{url}/jobs?experiment=storm").json()["items"]) == 2


def test_more_requests_at_once_than_threads_and_connections_are_all_answered(url: str) -> None:
    async def ask_all() -> list[int]:
        limits = httpx.Limits(max_connections=200)
        async with httpx.AsyncClient(timeout=60, limits=limits) as client:
            submits = [client.post(f"{url}/jobs?experiment=crowd", json=PRETRAIN) for _ in range(200)]
            return [answer.status_code for answer in await asyncio.gather(*submits)]

    assert set(asyncio.run(ask_all())) == {201}
