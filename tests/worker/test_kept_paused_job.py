"""A job that the version before barlow_lab left paused is gone on with by a worker of this one, to the same end.

kept/0007.sql and kept/run were written once by that version and are never renewed: its run database, with a linear
classifier that ended undisturbed and an equal one that is paused, and the run folder of the latter. All is in float64,
so that another processor ends within rounding.
"""

from __future__ import annotations

import secrets
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import create_engine, select
from worker_host import Host, at_work

from barlow_lab.run_folder import run_folder
from service.database.migrate import current_and_head, upgrade
from service.database.tables import Checkpoint, Job
from service.local.servers import Postgres
from service.settings import Settings

KEPT = Path(__file__).parent / "kept"
OF_THE_CLOCK = ("images_per_second", "data_seconds", "step_seconds")


@pytest.fixture
def former(postgres: Postgres, database: Settings) -> Iterator[Settings]:
    """Settings of that database, restored and migrated, and of the run folder's place."""
    name = f"former_{secrets.token_hex(6)}"
    postgres.create_database(name)
    url = Settings(database_url=postgres.url(name)).database_url
    settings = database.model_copy(update={"database_url": url, "owner_database_url": url})
    engine = create_engine(settings.sqlalchemy_url)
    with engine.begin() as connection:
        connection.exec_driver_sql((KEPT / "0007.sql").read_text().replace("%", "%%"))
    upgrade(settings)
    current, head = current_and_head(engine)
    assert current == head != "0007"
    engine.dispose()
    yield settings
    postgres.drop_database(name)


@pytest.fixture
def host(former: Settings, monkeypatch: pytest.MonkeyPatch) -> Iterator[Host]:
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    yield from at_work(Host(former))


def test_a_paused_job_of_a_former_version_goes_on_to_the_end_of_an_undisturbed_one(host: Host) -> None:
    with host.sessions() as session:
        jobs = {job.name: job for job in session.scalars(select(Job))}
        paused, undisturbed = jobs["paused"], jobs["undisturbed"]
        step = session.scalars(select(Checkpoint.step).where(Checkpoint.job_id == paused.id)).all()[-1]
    assert {name: job.state for name, job in jobs.items()} == {"paused": "paused", "undisturbed": "succeeded"}
    shutil.copytree(KEPT / "run", run_folder(host.settings.runs_dir, paused.id))
    right = {at: value for at, value in host.points(undisturbed.id).items() if not at[0].endswith(OF_THE_CLOCK)}
    before = max(at for _, at in host.points(paused.id))
    assert 0 < step <= before < max(at for _, at in right)

    host.resume(paused.id)
    ended = host.finish(paused.id)
    assert (ended.state, [one.outcome for one in host.attempts_of(paused.id)]) == ("succeeded", ["stopped", "ok"])
    found = {at: value for at, value in host.points(paused.id).items() if not at[0].endswith(OF_THE_CLOCK)}
    assert found.keys() == right.keys()
    for point, value in right.items():
        assert found[point] == pytest.approx(value, rel=1e-8, abs=1e-12), point
    assert ended.result is not None
    assert undisturbed.result is not None
    assert ended.result["scores"] == undisturbed.result["scores"]
    assert ended.spec_digest == undisturbed.spec_digest
