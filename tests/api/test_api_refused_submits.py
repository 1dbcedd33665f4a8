"""The whole answer to each submission that is refused: admission raises, the API says it."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

import httpx
import pytest
from api_kit import ADMIN, PRETRAIN, bearer, guarded

from service.admission.errors import Refused
from service.api.problems import KINDS, OF_REFUSALS
from service.settings import Settings

IN_DEFAULT = "the experiment has a job named 'one' already; choose another name or experiment"
TAKEN = "there is an experiment 'default'; take another name, or add jobs by POST /api/v1/jobs?experiment=default"
EPOCHS = "Input should be greater than or equal to 1"


def problem(code: str, status: int, detail: str, instance: str, **more: Any) -> dict[str, Any]:
    title = KINDS[code].title
    common = {"type": f"/problems/{code}", "title": title, "status": status, "detail": detail, "instance": instance}
    return {**common, "errors": [], **more}


def taken(detail: str, instance: str) -> dict[str, Any]:
    return problem("name-taken", 409, detail, instance, errors=[{"pointer": "/name", "message": detail}])


@pytest.mark.parametrize(
    ("path", "body", "said"),
    [
        (
            "/jobs",
            {**PRETRAIN, "name": "one"},
            taken(IN_DEFAULT, "/api/v1/jobs"),
        ),
        (
            "/experiments",
            {"name": "default", "jobs": {"two": PRETRAIN}},
            taken(TAKEN, "/api/v1/experiments"),
        ),
    ],
)  # fmt: skip
def test_names_that_are_taken(api: httpx.Client, path: str, body: dict[str, Any], said: dict[str, Any]) -> None:
    assert api.post("/jobs", json={**PRETRAIN, "name": "one"}).status_code == 201
    answer = api.post(path, json=body)
    assert answer.headers["content-type"] == "application/problem+json"
    assert (answer.status_code, answer.json()) == (said["status"], said)


def test_faults_and_how_many_are_left_out(api: httpx.Client) -> None:
    faulty = {**PRETRAIN, "epochs": 0}
    one = api.post("/jobs", json=faulty)
    errors = [{"pointer": "/epochs", "message": EPOCHS}]
    assert (one.status_code, one.json()) == (
        422, problem("invalid-spec", 422, f"/epochs: {EPOCHS}", "/api/v1/jobs", errors=errors),
    )  # fmt: skip
    many = api.post("/experiments", json={"name": "many", "jobs": {f"job-{i}": faulty for i in range(103)}}).json()
    errors = [{"pointer": f"/jobs/job-{i}/epochs", "message": EPOCHS} for i in range(100)]
    detail = "; ".join([f"{e['pointer']}: {e['message']}" for e in errors] + ["and 3 more: mend these first"])
    assert many == problem(
        "invalid-spec", 422, detail, "/api/v1/experiments", errors=errors, errors_left_out=3
    )  # fmt: skip


def test_a_user_with_too_many_open_jobs(
    database: Settings, in_process: Callable[[Settings], AbstractContextManager[httpx.Client]]
) -> None:
    with in_process(guarded(database).model_copy(update={"max_open_jobs": 0})) as client:
        asked = {"name": "ana", "user": "ana", "role": "submitter"}
        secret = client.post("/tokens", json=asked, headers=bearer(ADMIN)).json()["secret"]
        answer = client.post("/jobs", json=PRETRAIN, headers=bearer(secret))
    detail = (
        "ana has 0 open jobs and asks for 1 more; a user may have 0 that wait, run or are paused (BARLOW_MAX_OPEN_JOBS "
        "of the API). Submit again when some have ended, cancel some, or ask an admin"
    )
    assert (answer.status_code, answer.json()) == (409, problem("too-many-open-jobs", 409, detail, "/api/v1/jobs"))


def test_every_refusal_of_admission_has_its_answer() -> None:
    assert set(OF_REFUSALS) == set(Refused.__subclasses__())
    assert set(OF_REFUSALS.values()) <= set(KINDS)
