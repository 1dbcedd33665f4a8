"""A run database that the last version with a single objective left is taken over: read whole, and gone on with.

kept/0007.sql was written once by that version, and is never renewed: an experiment of seven jobs, of which a
pretraining and four evaluations have succeeded, a pretraining is paused, and an evaluation is cancelled.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from sqlalchemy import create_engine

from barlow_lab.specs import digest, parse_spec
from service.database.migrate import upgrade
from service.local.servers import Postgres
from service.settings import Settings

KEPT = Path(__file__).parent / "kept/0007.sql"
STATES = {
    "pretrain": "succeeded",
    "to-pause": "paused",
    "knn": "succeeded",
    "linear": "succeeded",
    "semi": "succeeded",
    "knn-untrained": "succeeded",
    "cancelled": "cancelled",
}
TOP1 = {"knn-untrained": 85.555556, "knn": 88.055556, "linear": 10.0, "semi": 10.0}


@pytest.fixture
def former(postgres: Postgres, database: Settings) -> Iterator[Settings]:
    """The settings of the tests with a database that was restored from what the former version wrote, and upgraded."""
    name = f"former_{secrets.token_hex(6)}"
    postgres.create_database(name)
    url = Settings(database_url=postgres.url(name)).database_url
    settings = database.model_copy(update={"database_url": url, "owner_database_url": url})
    engine = create_engine(settings.sqlalchemy_url)
    with engine.begin() as connection:
        connection.exec_driver_sql(KEPT.read_text().replace("%", "%%"))
    engine.dispose()
    upgrade(settings)
    yield settings
    postgres.drop_database(name)


def test_jobs_of_a_former_version_are_listed_shown_compared_and_gone_on_with(former: Settings, in_process) -> None:
    with in_process(former) as api:
        jobs = {job["name"]: job for job in _good(api.get("/jobs"))["items"]}
        assert {name: job["state"] for name, job in jobs.items()} == STATES

        names, specs = {}, {}
        for job in jobs.values():
            shown = _good(api.get(f"/jobs/{job['id']}"))
            names[job["id"]], specs[job["id"]] = job["name"], shown["spec"]
            points = _good(api.get(f"/jobs/{job['id']}/metrics"))["items"]
            assert bool(points) == (job["state"] != "cancelled"), job["name"]
        records = _good(api.get(f"/jobs/{jobs['pretrain']['id']}/correlations"))["items"]
        assert [record["step"] for record in records] == [0, 5, 10]
        compared = _good(api.get("/compare", params={"experiment": "kept"}))
        scores = {names[found["job"]]: found["scores"][0]["last"] for found in compared["evaluations"]}
        assert scores == pytest.approx(TOP1, rel=1e-6)
        assert {names[found["id"]]: digest(parse_spec(specs[found["id"]])) for found in compared["jobs"]} == {
            found["name"]: found["spec_digest"] for found in compared["jobs"]
        }

        paused = jobs["to-pause"]["id"]
        assert _good(api.post(f"/jobs/{paused}:resume"))["state"] == "queued"


def _good(answer: httpx.Response) -> Any:
    assert answer.is_success, answer.text
    return answer.json()
